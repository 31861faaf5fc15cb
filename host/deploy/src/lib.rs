//! Export to the packed model, firmware build, links to devices and validation of JAQ.

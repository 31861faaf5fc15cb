//! From a trained network to a checked device: export to the packed model, the firmware build,
//! links to devices, and validation.
//!
//! Must not know training or search: what it reads are a [`jaq_network::TrainedNetwork`], a
//! schedule and a prediction, all files of a run directory.

pub mod count;
pub mod engine;
pub mod explain;
pub mod export;
pub mod firmware;
pub mod history;
pub mod inspect;
pub mod link;
pub mod oracle;
pub mod predict;
pub mod reference;
pub mod requantize;
pub mod single;
pub mod validate;

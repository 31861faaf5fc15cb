//! Boards, cost models, the cost tensor and the memory planner of JAQ.
//!
//! Useful alone. Must not know tensors, training or devices; touches no files but board files.

pub mod planner;

//! Data sets, quantizers, CSQ, supernet, co-search and retraining of JAQ.

pub mod data;
pub mod objective;
pub mod ops;
pub mod optim;
pub mod quant;
pub mod rng;
pub mod space;

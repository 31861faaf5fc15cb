//! Data sets, quantizers, CSQ, supernet, co-search and retraining of JAQ.

pub mod baselines;
pub mod checkpoint;
pub mod cosearch;
pub mod csq;
pub mod data;
pub mod discretize;
pub mod dry_run;
pub mod generator;
pub mod hardware;
pub mod objective;
pub mod ops;
pub mod optim;
pub mod quant;
pub mod retrain;
pub mod rng;
pub mod space;
pub mod statistics;
pub mod subnet;
pub mod supernet;

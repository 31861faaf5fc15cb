//! The integer kernels and their registry.

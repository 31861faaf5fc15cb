//! Executes a packed model in a caller-owned arena.

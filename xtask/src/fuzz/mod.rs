//! Fuzzing with libFuzzer: what it takes, and one target's run.

pub mod engine;
pub mod toolchain;

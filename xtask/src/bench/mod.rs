//! Benchmarks that compare two things side by side in one run.

pub mod boot;
pub mod cloud_kernel;
pub mod report;

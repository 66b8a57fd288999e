//! Load generator, echo servers and recorder of §VII, all pure: frames in, frames out, time as an argument.
//!
//! - [`spec`]: what load to generate;
//! - [`report`]: what became of it.

pub mod report;
pub mod spec;

pub use report::Report;
pub use spec::LoadSpec;

//! A line that loses some packets and lets some be overtaken: `slim-impair`, for kernels without netem.

mod line;
#[cfg(feature = "load")]
pub mod relay;

pub use line::{Impairment, Line};

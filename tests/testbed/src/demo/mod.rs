//! The demo: a live network function moves between two instances under load, and everything that happened to a packet is told.

mod moving;
mod outcome;
mod run;
mod spec;

pub use moving::MoveArguments;
pub use outcome::{AFTER, DURING, Outcome};
pub use run::run;
pub use spec::{DemoSpec, InstanceArguments};

//! The dataplane: ports, lcores, and what passes between an lcore and the management thread.
//!
//! What an lcore does with packets and commands is [`slim_core::vei::lcore`]; here is what that needs of a machine.
//!
//! * [`start()`] configures the ports and runs the lcore's loop on the calling thread.
//! * `lcore` is the loop, `ports` its input and output, `transmit` collects what leaves, `idle` sleeps.

mod command;
mod counters;
mod idle;
mod lcore;
mod ports;
mod start;
mod transmit;

pub use command::{LcoreHandle, Unresponsive};
pub use counters::Counters;
pub use start::{Error as StartError, Plan, PlannedPort, Running, Which, start};

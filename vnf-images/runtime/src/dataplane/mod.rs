//! The dataplane: ports, lcores, and what passes between an lcore and the management thread.
//!
//! * [`start()`] configures the ports and runs the lcore's loop on the calling thread.
//! * `lcore` is the loop, `work` what it does with packets; [`Command`] and [`Report`] are its contract with the management thread.
//! * `announce` writes `st_q_out`, `inband` answers drain packets, `transmit` collects what leaves, `idle` sleeps.

mod announce;
mod command;
mod counters;
mod idle;
mod inband;
mod lcore;
mod start;
mod transmit;
mod work;

pub use command::{Command, Frozen, LcoreHandle, Report, Unresponsive};
pub use counters::{Cause, Counters};
pub use start::{Error as StartError, Plan, Running, Which, start};

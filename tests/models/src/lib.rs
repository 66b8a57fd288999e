//! The structures that threads share, as [loom] takes them through every interleaving. The models are in `tests/`.
//!
//! The build script copies the sources under test, with loom's atomics and locks in them. What is here besides stands in
//! for what cannot be copied: [`epoll`], for the kernel.
//!
//! | module | is | and broken on purpose |
//! |---|---|---|
//! | `sound` | `st_q_out`: the ring of `rtrb`, the lcore's `Announce`, the statelet thread's `Pump` | `relaxed` |
//! | `st_q_in` | `st_q_in`, between receiving and applying thread | `st_q_in_silent` |
//! | `command` | the lcore's command ring and waker | `command_early` |
//! | `tables` | both designs of tables: the lcore writes, the snapshot thread reads | `tables_in_place`, `tables_shared` |

extern crate alloc;

// What the copies need of the rest of their crate.
#[doc(hidden)]
pub use slim_core::*;

pub mod epoll;

include!(concat!(env!("OUT_DIR"), "/root.rs"));

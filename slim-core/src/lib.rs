//! SliM's pure core: everything that decides, nothing that does.
//!
//! The crate has three layers. Each uses only those before it.
//!
//! 1. **Data**: [`time`], [`packet`] (buffers, header views, incremental checksums), [`statelet`] (the TLV codec),
//!    [`table`] (hash tables with isolated snapshots) and [`snapshot`] (chunks of rkyv archives, validated on arrival).
//! 2. **Network functions**: [`nf`], the trait a network function implements, and the harness that tests it against
//!    the law `f(s, p) == h(s, g(s, p))` (§III of the paper).
//! 3. **Migration**: [`protocol`] (control messages, stream framing, drain packets), [`vei`] (source and destination)
//!    and [`migration`] (the controller's coordinator), all sans-I/O state machines, and [`model`] (§V's equations).
//!
//! [`mutant`] lets the simulation prove that it would find a mistake in any of them.
//!
//! Nothing here opens a socket, starts a thread or reads a clock: drivers pass events and the time in and carry the
//! resulting actions out. The simulator, the runtime of the images and the controller are three such drivers.
//!
//! "§" refers to Nobach et al., *Statelet-Based Efficient and Seamless NFV State Transfer*, IEEE TNSM 2017.

#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;
// The example of `nf` is a test here and a document there: it needs one name for this crate in both.
#[cfg(test)]
extern crate self as slim_core;

#[doc(hidden)]
pub use rkyv;

mod crc;
pub mod migration;
pub mod model;
pub mod mutant;
pub mod nf;
pub mod packet;
pub mod protocol;
pub mod snapshot;
pub mod statelet;
pub mod table;
pub mod time;
pub mod vei;

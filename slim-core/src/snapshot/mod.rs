//! Snapshots on the wire: the frozen state of a network function as a sequence of records.
//!
//! ```text
//! record, numbers are big endian
//!  0      1      2      4         8        12    16
//! ┌──────┬──────┬──────┬─────────┬────────┬─────┬────────
//! │ kind │ zero │ item │ segment │ length │ CRC │ body …    CRC-32C over the 12 bytes before it and the body
//! └──────┴──────┴──────┴─────────┴────────┴─────┴────────
//!
//! kind            item             segment  body
//! 1 item header   its index        0        entries u64, capacity u64, hash seed u64, layout u64, segments u32, name
//! 2 chunk         its item's index its index  rkyv archive of the segment
//! 3 filler        0                0        pseudo-random bytes, to be discarded
//! 4 closing       number of items  0        chunks u64, archive bytes u64, filler bytes u64, entries u64
//! ```
//!
//! Items come in the order of [`for_each_state`](crate::nf::NetworkFunction::for_each_state), each with its header first
//! and then a chunk for each segment that has entries. Filler may be anywhere between records. The closing record is the
//! last; a snapshot that stops without it has failed.
//!
//! [`SnapshotWriter`] and [`SnapshotReader`] do no I/O: one gives out bytes, the other takes them in whatever pieces
//! they arrive. What arrives is untrusted: every length is bounded before memory is taken for it, every archive is
//! validated, and the worst that can come of it is an error that aborts the migration.

mod filler;
mod reader;
mod record;
#[cfg(test)]
mod tests;
mod writer;

pub use reader::{SnapshotError, SnapshotReader};
pub use record::{CHUNK_LEN_MAX, SnapshotTotals};
pub use writer::{SnapshotWriter, WriteError};

use crate::nf::NetworkFunction;
use crate::table::{FrozenItem, combine_digests};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Isolates the whole state of a network function, in a short time that hardly depends on how much there is.
///
/// The dataplane calls it between two bursts, in the same step in which it sets `upd_enable`.
pub fn freeze<N: NetworkFunction>(network_function: &mut N) -> Vec<Box<dyn FrozenItem>> {
    let mut items = Vec::new();
    network_function.for_each_state(&mut |item| items.push(item.freeze()));
    items
}

/// A digest of frozen state: equal if and, but for a collision, only if all items are.
///
/// Takes time in proportion to the state: compute it off the dataplane.
pub fn digest(items: &[Box<dyn FrozenItem>]) -> u128 {
    combine_digests(items.iter().map(|item| item.digest()))
}

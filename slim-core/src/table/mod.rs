//! Tables with isolated snapshots (§VI-B), and what a snapshot needs from any part of a network function's state.

mod state;

pub use state::{AdoptError, FrozenItem, ItemHeader, StateItem};

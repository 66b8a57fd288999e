//! The identification of packets that leave with an exterior address as their source (RFC 6864 §5.3.1).
//!
//! Interior hosts number their packets independently of each other, but to the receiver all of them come from one
//! address. So a packet that is a fragment, or may become some, gets an identification that no other such packet has
//! had among the last 65,000 of its shard. Packets that are whole and stay so (*atomic*, RFC 6864 §4.1) keep theirs, as
//! it means nothing.
//!
//! Identifications are taken by the batch. Which batch was taken last is state; how much of it is used is not: whoever
//! takes over begins with the next one. So one statelet in 256 such packets says it all.

use crate::state::State;
use crate::statelet::Statelet;
use crate::transport::Ipv4Mut;
use crate::{Nat, announce};
use slim_core::nf::{Environment, Shard};

/// Identifications of a batch.
const BATCH: u16 = 256;

/// Batches there are.
const BATCHES: u16 = ((1 << 16) / BATCH as u32) as u16;

/// A shard's part of the batches: every so many-th.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batches {
    first: u16,
    step: u16,
    count: u16,
}

impl Batches {
    /// No batch: none has been taken yet.
    pub(crate) const NONE: u16 = u16::MAX;

    /// Shards beyond the number of batches share those of others.
    pub(crate) fn of(shard: Shard) -> Self {
        let step = shard.count.clamp(1, BATCHES);
        Self { first: shard.id.0 % step, step, count: BATCHES / step }
    }

    /// The batch after `batch`, the first one after [`NONE`](Self::NONE).
    pub(crate) fn after(&self, batch: u16) -> u16 {
        let turn = if self.contains(batch) { (batch / self.step + 1) % self.count } else { 0 };
        self.first + turn * self.step
    }

    fn contains(&self, batch: u16) -> bool {
        batch < self.first + self.count * self.step && batch % self.step == self.first
    }
}

/// What is left of the batch that was taken last. Not state.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Idents {
    batch: u16,
    left: u16,
    /// So that the next one is not known to whoever knows the last.
    order: u16,
}

impl Idents {
    /// Forgets what is left, for another instance may have used it.
    pub(crate) fn discard(&mut self) {
        self.left = 0;
    }

    /// The next one.
    fn next<E: Environment>(&mut self, state: &mut State, env: &mut E) -> u16 {
        if self.left == 0 {
            let batch = state.take_next_idents();
            announce(env, &Statelet::Idents(batch));
            *self = Self { batch, left: BATCH, order: state.ports.random() as u16 % BATCH };
        }
        self.left -= 1;
        self.batch * BATCH + (self.left ^ self.order)
    }
}

impl Nat {
    /// Gives a packet an identification of its own, unless it is atomic.
    #[inline(always)]
    pub(crate) fn identify<E: Environment>(&mut self, env: &mut E, ip: &mut Ipv4Mut<'_>) {
        if !ip.dont_fragment() || ip.is_fragment() {
            ip.rewrite_ident(self.idents.next(&mut self.state, env));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slim_core::nf::ShardId;
    use std::collections::BTreeSet;

    #[test]
    fn shards_share_no_batch_and_use_each_of_theirs() {
        for count in [1, 3, 4, 256] {
            let mut all = BTreeSet::new();
            for id in (0..count).map(ShardId) {
                let batches = Batches::of(Shard { id, count });
                let mut batch = Batches::NONE;
                for _ in 0..BATCHES / count {
                    let next = batches.after(batch);
                    assert!(batches.contains(next) && all.insert(next), "{count} shards: {next} is somebody else's");
                    batch = next;
                }
                assert_eq!(batches.after(batch), id.0, "they begin anew");
            }
        }
        assert!(!Batches::of(Shard { id: ShardId(1), count: 3 }).contains(2));
        assert!(!Batches::of(Shard { id: ShardId(0), count: 3 }).contains(255));
    }
}

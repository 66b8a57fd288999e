//! The part of a sample that the lcores leave to others: how large a snapshot would be.

use super::inbox::{Message, Sender};
use slim_core::nf::ShardId;
use slim_core::protocol::control::{Counters, SAMPLE_SNAPSHOT};
use slim_core::snapshot::{SnapshotWriter, WriteError};
use slim_core::vei::lcore::Frozen;

/// The present or last sample.
#[derive(Debug, Default)]
pub struct Sample {
    /// Counts samples, so that what is told of an earlier one can be told apart.
    number: u64,
    /// What the snapshot of each shard would take, as far as that is known.
    sizes: Vec<Option<u64>>,
}

impl Sample {
    /// A new sample begins.
    pub fn begin(&mut self, shards: usize) {
        self.number += 1;
        self.sizes = vec![None; shards];
    }

    /// Measures a shard's snapshot on a thread of its own: it takes time in proportion to the state.
    pub fn measure<F: Send + 'static>(&self, shard: ShardId, frozen: Frozen, inbox: Sender<F>) {
        let number = self.number;
        let measure = move || {
            crate::sys::set_nice(crate::NICE_BULK);
            match snapshot_bytes(frozen) {
                Ok(bytes) => _ = inbox.send(Message::SnapshotSize(shard, number, bytes)),
                Err(error) => log::warn!("no size of a snapshot: {error}"),
            }
        };
        if let Err(error) = std::thread::Builder::new().name("sample".into()).spawn(measure) {
            log::warn!("no size of a snapshot: {error}");
        }
    }

    /// Takes note of what was measured.
    pub fn measured(&mut self, shard: ShardId, number: u64, bytes: u64) {
        if let Some(size) = self.sizes.get_mut(usize::from(shard.0)).filter(|_| number == self.number) {
            *size = Some(bytes);
        }
    }

    /// Adds the size of all shards' snapshots together, once it is known.
    pub fn add_gauge(&self, gauges: &mut Counters) {
        let all: Option<u64> = self.sizes.iter().copied().sum();
        if let Some(bytes) = all.filter(|_| !self.sizes.is_empty()) {
            gauges.insert(SAMPLE_SNAPSHOT.into(), bytes);
        }
    }
}

/// The length of the snapshot stream of `frozen`, which is let go of on the way.
fn snapshot_bytes(frozen: Frozen) -> Result<u64, WriteError> {
    let mut writer = SnapshotWriter::new(frozen, 0);
    let (mut buffer, mut bytes) = (Vec::new(), 0);
    while writer.write_next(&mut buffer)? {
        bytes += buffer.len() as u64;
        buffer.clear();
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_known_when_every_shard_has_told_its_part_of_this_sample() {
        let gauge = |sample: &Sample| {
            let mut gauges = Counters::new();
            sample.add_gauge(&mut gauges);
            gauges.get(SAMPLE_SNAPSHOT).copied()
        };
        let mut sample = Sample::default();
        assert_eq!(gauge(&sample), None);
        sample.begin(2);
        sample.begin(2);
        sample.measured(ShardId(0), 1, 7);
        sample.measured(ShardId(0), 2, 10);
        sample.measured(ShardId(9), 2, 10);
        assert_eq!(gauge(&sample), None);
        sample.measured(ShardId(1), 2, 20);
        assert_eq!(gauge(&sample), Some(30));
    }
}

//! A network function in a hundred lines: it numbers the frames of each sender and passes them on.
//!
//! Each frame that arrives at one port leaves at the other, with the number of frames its source MAC address has sent so
//! far in its bytes 22 to 30. A lost, doubled or reordered frame is thereby visible to whoever counts along, and so is a
//! state that was not moved completely. The runtime's tests migrate it; it is also a template for a real one.

use serde::{Deserialize, Serialize};
use slim_core::nf::{ConfigError, Environment, Gauge, InstallError, NetworkFunction, PortId, Shard, Verdict};
use slim_core::packet::PacketBuf;
use slim_core::table::{SegmentedTable, StateItem};
use slim_core::time::Instant;
use std::process::ExitCode;

/// Where the number is written.
const NUMBER: std::ops::Range<usize> = 22..30;

/// The statelet: the sender's address (6 bytes), its new number of frames (8 bytes).
const COUNT: u16 = 1;

const DROP_SHORT: u16 = 0;
const DROP_FULL: u16 = 1;

struct Numberer {
    senders: SegmentedTable<[u8; 6], u64>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The most senders remembered.
    senders: usize,
}

impl NetworkFunction for Numberer {
    const KIND: &'static str = "numberer";
    const SCHEMA: u64 = 1;
    const PORTS: &'static [&'static str] = &["left", "right"];
    const DROP_REASONS: &'static [&'static str] = &["frame_too_short", "senders_full"];
    type Config = Config;

    fn new(config: &Config, _: Shard, seed: u64) -> Result<Self, ConfigError> {
        if config.senders == 0 {
            return Err(ConfigError("senders must be at least 1".into()));
        }
        Ok(Self { senders: SegmentedTable::with_capacity("senders", config.senders, seed) })
    }

    fn process<P: PacketBuf, E: Environment>(&mut self, env: &mut E, port: PortId, packet: &mut P) -> Verdict {
        let frame = packet.bytes_mut();
        let Some(sender) = frame.get(6..).and_then(|rest| rest.first_chunk::<6>()).copied() else {
            return Verdict::Drop(DROP_SHORT);
        };
        let Some(place) = frame.get_mut(NUMBER) else { return Verdict::Drop(DROP_SHORT) };
        let count = self.senders.get(&sender).map_or(1, |count| count + 1);
        if self.senders.insert(sender, count).is_err() {
            return Verdict::Drop(DROP_FULL);
        }
        place.copy_from_slice(&count.to_be_bytes());
        if env.upd_enable() {
            let mut value = [0; 14];
            value[..6].copy_from_slice(&sender);
            value[6..].copy_from_slice(&count.to_be_bytes());
            env.announce(COUNT, &value);
        }
        Verdict::Transmit(PortId(1 - port.0.min(1)))
    }

    fn tick<E: Environment>(&mut self, _: &mut E) {}

    fn install(&mut self, statelet_type: u16, value: &[u8]) -> Result<(), InstallError> {
        if statelet_type != COUNT {
            return Err(InstallError::UnknownType(statelet_type));
        }
        let malformed = InstallError::Malformed { statelet_type, len: value.len() };
        let (sender, count) = value.split_first_chunk::<6>().ok_or(malformed)?;
        let count = u64::from_be_bytes(count.try_into().map_err(|_| malformed)?);
        let full = InstallError::TableFull { table: "senders" };
        self.senders.insert(*sender, count).map(|_| ()).map_err(|_| full)
    }

    fn take_over(&mut self, _: Instant) {}

    fn for_each_state(&mut self, f: &mut dyn FnMut(&mut dyn StateItem)) {
        f(&mut self.senders);
    }

    fn gauges(&self) -> Vec<Gauge> {
        vec![Gauge { name: "senders", value: self.senders.len() as u64 }]
    }
}

fn main() -> ExitCode {
    slim_runtime::run::<Numberer>()
}

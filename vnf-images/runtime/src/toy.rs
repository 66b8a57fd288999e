//! A network function for tests.

use serde::{Deserialize, Serialize};
use slim_core::nf::{ConfigError, Environment, Gauge, InstallError, LogEvent, NetworkFunction, PortId, Shard, Verdict};
use slim_core::packet::PacketBuf;
use slim_core::table::StateItem;
use slim_core::time::Instant;

/// A network function that does nothing.
pub struct Toy;

/// Its configuration.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ToyConfig {
    /// A number.
    pub size: u32,
}

impl NetworkFunction for Toy {
    const KIND: &'static str = "toy";
    const SCHEMA: u64 = 1;
    const PORTS: &'static [&'static str] = &["in", "out"];
    const DROP_REASONS: &'static [&'static str] = &[];
    type Config = ToyConfig;

    fn new(_: &ToyConfig, _: Shard, _: u64) -> Result<Self, ConfigError> {
        Ok(Self)
    }
    fn process<P: PacketBuf, E: Environment>(&mut self, _: &mut E, _: PortId, _: &mut P) -> Verdict {
        Verdict::Consumed
    }
    fn tick<E: Environment>(&mut self, _: &mut E) {}
    fn install(&mut self, statelet_type: u16, _: &[u8]) -> Result<(), InstallError> {
        Err(InstallError::UnknownType(statelet_type))
    }
    fn take_over(&mut self, _: Instant) {}
    fn for_each_state(&mut self, _: &mut dyn FnMut(&mut dyn StateItem)) {}
    fn describe(event: &LogEvent) -> Option<String> {
        event.bytes().first().map(|number| format!("\"event\":{number}"))
    }
    fn gauges(&self) -> Vec<Gauge> {
        Vec::new()
    }
}

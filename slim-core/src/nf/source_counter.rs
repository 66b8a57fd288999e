//! A whole network function: it forwards IPv4 and counts each source's packets.

use slim_core::nf::{ConfigError, Environment, Gauge, InstallError, NetworkFunction, PortId, Shard, Verdict};
use slim_core::packet::{Ethernet, Ipv4, PacketBuf, ether_type};
use slim_core::table::{SegmentedTable, StateItem};
use slim_core::time::Instant;

/// Counts packets per source address.
pub struct SourceCounter {
    sources: SegmentedTable<u32, u64>,
}

/// How many sources there can be.
#[derive(Debug, Clone, serde::Deserialize, serde::Serialize)]
pub struct Config {
    /// Beyond these, packets of new sources are dropped.
    pub sources_max: usize,
}

/// The one type of statelet: a source (4 bytes) and its packets so far (8 bytes), big endian.
const COUNT: u16 = 1;

const DROP_NOT_IPV4: Verdict = Verdict::Drop(0);
const DROP_TABLE_FULL: Verdict = Verdict::Drop(1);

/// The source address of an IPv4 packet.
fn source_of(frame: &[u8]) -> Option<u32> {
    let (ethernet, payload) = Ethernet::parse(frame).ok()?;
    if ethernet.ether_type() != ether_type::IPV4 {
        return None;
    }
    Some(Ipv4::parse(payload).ok()?.0.source().to_bits())
}

impl NetworkFunction for SourceCounter {
    const KIND: &'static str = "source-counter";
    const SCHEMA: u64 = 1;
    const PORTS: &'static [&'static str] = &["in", "out"];
    const DROP_REASONS: &'static [&'static str] = &["not_ipv4", "table_full"];
    type Config = Config;

    fn new(config: &Config, _shard: Shard, seed: u64) -> Result<Self, ConfigError> {
        Ok(Self { sources: SegmentedTable::with_capacity("sources", config.sources_max, seed) })
    }

    fn process<P: PacketBuf, E: Environment>(&mut self, env: &mut E, port: PortId, packet: &mut P) -> Verdict {
        let Some(source) = source_of(packet.bytes()) else { return DROP_NOT_IPV4 };
        let count = self.sources.get(&source).map_or(1, |count| count + 1);
        if self.sources.insert(source, count).is_err() {
            return DROP_TABLE_FULL;
        }
        if env.upd_enable() {
            let mut value = [0; 12];
            value[..4].copy_from_slice(&source.to_be_bytes());
            value[4..].copy_from_slice(&count.to_be_bytes());
            env.announce(COUNT, &value);
        }
        Verdict::Transmit(PortId(1 - port.0.min(1)))
    }

    fn tick<E: Environment>(&mut self, _env: &mut E) {}

    fn install(&mut self, statelet_type: u16, value: &[u8]) -> Result<(), InstallError> {
        if statelet_type != COUNT {
            return Err(InstallError::UnknownType(statelet_type));
        }
        let [s0, s1, s2, s3, count @ ..] = value else {
            return Err(InstallError::Malformed { statelet_type, len: value.len() });
        };
        let count = count.try_into().map_err(|_| InstallError::Malformed { statelet_type, len: value.len() })?;
        let source = u32::from_be_bytes([*s0, *s1, *s2, *s3]);
        let full = |_| InstallError::TableFull { table: "sources" };
        self.sources.insert(source, u64::from_be_bytes(count)).map(drop).map_err(full)
    }

    fn take_over(&mut self, _now: Instant) {}

    fn for_each_state(&mut self, f: &mut dyn FnMut(&mut dyn StateItem)) {
        f(&mut self.sources);
    }

    fn gauges(&self) -> Vec<Gauge> {
        vec![Gauge { name: "sources", value: self.sources.len() as u64 }]
    }
}

//! What a migration will take, measured at the running instance before anything is moved.

use super::registry::{CALL_LIMIT, Entry};
use super::{Daemon, from_fabric};
use crate::api::MigrateOptions;
use crate::plan::{Measured, MigrationPlan, ModeForecast};
use slim_core::model::Observed;
use slim_core::protocol::control::{
    ControlError, Counters, ErrorCode, InstanceRequest, InstanceStatus, SAMPLE, SAMPLE_SNAPSHOT, SourceTimeouts,
};
use slim_core::protocol::{Mode, Name};
use slim_core::statelet::{DUPLICATE_HEAD_LEN, Sigma, WireCosts};
use std::time::{Duration, Instant};

/// For how long the instance is watched.
const SAMPLE_TIME: Duration = Duration::from_millis(1000);

/// How much longer the size of its snapshot may take.
const SIZE_LIMIT: Duration = Duration::from_secs(10);

/// T_B: round trips and local work, generously. The paper's testbed needed no more.
const LOCAL: Duration = Duration::from_millis(100);

/// The share of `pkt_q` at which a destination gives up, of four.
const PKT_Q_QUARTERS: u64 = 3;

impl Daemon {
    /// Watches `source` for a while and says how a migration to `destination`, or to one like `source`, will go in each
    /// mode.
    pub(super) fn plan(
        &self,
        source: &Name,
        destination: Option<&Name>,
        options: &MigrateOptions,
    ) -> Result<MigrationPlan, ControlError> {
        let like = destination.unwrap_or(source);
        let pair = [self.registry.get(source)?, self.registry.get(like)?];
        let status = sample(&pair[0])?;
        let link_bps = self.shared_link(source, like)?;
        let start = options.start(&self.deployment.link, SourceTimeouts::default());
        let pkt_q = pair[1].status().and_then(|status| status.queues.get("pkt_q").map(|queue| queue.capacity_bytes));
        let measured = Measured {
            link_bps,
            pace_bps: start.snapshot_rate_bytes_per_s.map(|rate| rate.saturating_mul(8)),
            snapshot_bytes: status.gauges.get(SAMPLE_SNAPSHOT).copied().unwrap_or(0) + options.filler_bytes,
            pkt_q_bytes: pkt_q.unwrap_or(0) / 4 * PKT_Q_QUARTERS,
            ..traffic(&status.counters).ok_or_else(|| not_measured(source))?
        };
        let observed = measured.observed(LOCAL);
        let forecast = |mode| ModeForecast::new(mode, &observed.forecast(mode));
        Ok(MigrationPlan {
            source: source.clone(),
            destination: destination.cloned(),
            scheduling: options.scheduling,
            measured,
            modes: Mode::ALL.map(forecast).into(),
        })
    }

    /// The rate that state and traffic of these instances share: none if their state does not pass the switch, or
    /// unmetered.
    fn shared_link(&self, source: &Name, destination: &Name) -> Result<Option<u64>, ControlError> {
        let plugged = self.fabric.paths().map_err(from_fabric)?;
        let ends = plugged.iter().filter(|known| known.instance == *source || known.instance == *destination);
        let metered = ends.filter(|known| known.mgmt.is_some() && known.link.rate_bps > 0);
        Ok(metered.map(|known| known.link.rate_bps).min())
    }
}

fn not_measured(source: &Name) -> ControlError {
    ControlError::with(ErrorCode::Internal, format!("{source} tells nothing of the sample it has taken"))
}

/// Has the instance take a sample, and waits for it.
fn sample(source: &Entry) -> Result<InstanceStatus, ControlError> {
    let duration_ms = SAMPLE_TIME.as_millis() as u32;
    source.order(InstanceRequest::Sample { duration_ms }, CALL_LIMIT)?;
    let deadline = Instant::now() + SAMPLE_TIME + SIZE_LIMIT;
    std::thread::sleep(SAMPLE_TIME);
    loop {
        let status = source.status().ok_or_else(|| not_measured(&source.name))?;
        let over = counter(&status.counters, "elapsed_us").is_some_and(|us| us >= u64::from(duration_ms) * 1000);
        if (over && status.gauges.contains_key(SAMPLE_SNAPSHOT)) || Instant::now() >= deadline {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn counter(counters: &Counters, name: &str) -> Option<u64> {
    counters.get(&format!("{SAMPLE}{name}")).copied()
}

/// What the sample says of traffic and statelets; the rest is left at zero.
fn traffic(counters: &Counters) -> Option<Measured> {
    let elapsed_s = counter(counters, "elapsed_us").filter(|&us| us > 0)? as f64 / 1e6;
    let sigma = Sigma {
        packets: counter(counters, "packets")?,
        packet_bytes: counter(counters, "packet_bytes")?,
        statelets: counter(counters, "statelets")?,
        value_bytes: counter(counters, "value_bytes")?,
    };
    let duplicates = Sigma {
        statelets: sigma.packets,
        value_bytes: sigma.packet_bytes + sigma.packets * DUPLICATE_HEAD_LEN as u64,
        ..sigma
    };
    let bps = |bytes: u64| (bytes as f64 * 8.0 / elapsed_s) as u64;
    let wire = |sigma: &Sigma| bps(WireCosts::ETHERNET.stream_on_the_wire(sigma.stream_bytes(), 0));
    Some(Measured {
        sample_ms: (elapsed_s * 1e3) as u64,
        packets_per_s: (sigma.packets as f64 / elapsed_s) as u64,
        load_bps: bps(sigma.packet_bytes),
        statelets_bps: wire(&sigma),
        duplicates_bps: wire(&duplicates),
        sigma_payload: sigma.of_values(),
        sigma_wire: sigma.on_the_wire(&WireCosts::ETHERNET, sigma.stream_bytes(), 0),
        ..Measured::default()
    })
}

impl Measured {
    /// The same as the model wants it.
    fn observed(&self, local: Duration) -> Observed {
        let rate = |bps: Option<u64>| bps.map_or(f64::INFINITY, |bps| bps as f64);
        let snapshot = WireCosts::ETHERNET.stream_on_the_wire(self.snapshot_bytes, 0);
        Observed {
            link_bps: rate(self.link_bps),
            load_bps: self.load_bps as f64,
            packets_per_s: self.packets_per_s as f64,
            statelets_bps: self.statelets_bps as f64,
            duplicates_bps: self.duplicates_bps as f64,
            snapshot_bits: snapshot as f64 * 8.0,
            pace_bps: rate(self.pace_bps),
            local_s: local.as_secs_f64(),
            pkt_q_bits: self.pkt_q_bytes as f64 * 8.0,
        }
    }
}

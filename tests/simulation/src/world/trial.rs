//! A measurement: one migration under the testbed's load, at full scale, with nothing that goes wrong.

use super::{Happening, Outcome, World};
use crate::fabric::Behind;
use crate::scenario::Reading;
use crate::workload::{Measurable, MeasuredLoad, NatPressure};
use crate::{Function, Noise, Scenario};
use slim_core::migration::{self, CoordinatorTimeouts};
use slim_core::protocol::control::{DestinationTimeouts, LinkSettings, PrepareOptions, SourceTimeouts, StartOptions};
use slim_core::time::{Duration, Instant};
use slim_gateway::Gateway;
use slim_nat::Nat;
use slim_testbed::demo::{AFTER, DURING};
use slim_testbed::load::{LoadSpec, Report};
use std::collections::BTreeMap;

/// What is measured.
#[derive(Debug, Clone)]
pub struct Trial {
    /// What everything random comes from.
    pub seed: u64,
    /// The load.
    pub load: LoadSpec,
    /// The link of each instance.
    pub link: LinkSettings,
    /// How to migrate.
    pub start: StartOptions,
    /// Whether streams make way for other traffic, as CUBIC does, or fill their window.
    pub congestion_control: bool,
    /// What a stream may have under way: the largest window of TCP.
    pub window_bytes: usize,
    /// The size of `pkt_q`.
    pub pkt_q_bytes: usize,
    /// Traffic before the migration.
    pub before: Duration,
    /// Traffic after it.
    pub after: Duration,
    /// The longest the migration may take.
    pub patience: Duration,
}

/// What a trial came to.
#[derive(Debug, Clone)]
pub struct Measured {
    /// What the recorder saw.
    pub load: Report,
    /// What the controller was told.
    pub outcome: migration::Outcome,
    /// From asking for the migration to its outcome.
    pub duration: Duration,
    /// What the switch and the lcores dropped, by cause. Management frames are among it.
    pub drops: BTreeMap<String, u64>,
}

/// Carries a trial out.
///
/// # Errors
/// If something happened that must not: what the judge says, in words.
pub fn run_trial(trial: &Trial) -> Result<Measured, String> {
    if trial.load.gateway { run_through::<Gateway>(trial) } else { run_through::<Nat>(trial) }
}

fn run_through<N: Measurable>(trial: &Trial) -> Result<Measured, String> {
    crate::watch::take_journal();
    let workload = MeasuredLoad::new(&trial.load, Instant::from_nanos(1));
    let mut world = World::<N, _>::new(scenario(trial), workload, false)?;
    world.generating = false;
    world.trial(trial).map_err(|what| format!("{what} (after {} ms)", world.now.as_millis()))
}

fn scenario(trial: &Trial) -> Scenario {
    let patience_ms = trial.patience.as_millis() as u32;
    let source = SourceTimeouts { snapshot_ms: patience_ms, drain_ms: patience_ms, ..SourceTimeouts::default() };
    let destination = DestinationTimeouts {
        install_ms: patience_ms,
        synchronise_ms: patience_ms,
        redirect_ms: patience_ms,
        ..DestinationTimeouts::default()
    };
    Scenario {
        seed: trial.seed,
        function: Function::Nat { pressure: NatPressure::default(), hosts: 0, servers: 0 },
        shards: 1,
        packets_max: u64::MAX,
        packet_interval: Duration::from_secs_f64(1.0 / trial.load.packets_per_second()),
        even: true,
        think_time: (Duration::from_micros(20), Duration::from_micros(20)),
        congestion_control: trial.congestion_control,
        link: trial.link,
        lcore_delay: Duration::from_micros(20),
        early_ends: false,
        reading: Reading { statelets: 1 << 20, snapshot: 1 << 20, apply: 1 << 20 },
        expiry: false,
        ring_frames: 1024,
        egress: (16 << 20, 16_384),
        hold: (64 << 20, 65_536),
        pkt_q_bytes: trial.pkt_q_bytes,
        st_q_out_bytes: 64 << 20,
        st_q_in_bytes: 256 << 20,
        stream_buffer_bytes: trial.window_bytes,
        patience: Duration::from_secs(30),
        prepare: PrepareOptions {
            mode: trial.start.mode,
            scheduling: trial.start.scheduling,
            pkt_q_pace: trial.start.pkt_q_pace,
            timeouts: destination,
            ..PrepareOptions::default()
        },
        start: StartOptions { timeouts: source, ..trial.start.clone() },
        timeouts: CoordinatorTimeouts::default(),
        noise: Noise::default(),
        migrations: Vec::new(),
        calm: false,
        roomy: false,
    }
}

/// How long interior hosts may look for the NAT.
const RESOLVE: Duration = Duration::from_secs(2);

/// Traffic before anything is measured.
const WARMUP: Duration = Duration::from_millis(100);

/// The last packets have arrived after this.
const DRAIN: Duration = Duration::from_millis(200);

impl<N: Measurable> World<N, MeasuredLoad> {
    fn trial(&mut self, trial: &Trial) -> Outcome<Measured> {
        self.run_for(Duration::from_millis(20))?;
        let deadline = self.now + RESOLVE;
        while !self.workload.load().is_resolved() {
            if self.now > deadline {
                return Err("the hosts do not find the NAT".into());
            }
            let (port, flow) = MeasuredLoad::ARP_FLOW;
            (0..self.workload.arp_requests(self.now)).for_each(|_| self.send_in(port, flow));
            self.run_for(Duration::from_millis(20))?;
        }
        let now = self.now;
        self.workload.load().begin(now);
        self.generating = true;
        self.agenda.enter(now, Happening::Generate);
        self.run_for(WARMUP)?;
        let now = self.now;
        self.workload.load().measure(now);
        self.run_for(trial.before)?;

        let begun = self.now;
        self.workload.load().recorder().begin_phase(DURING, begun);
        self.begin_migration(0);
        let ended = |world: &mut Self| world.controller.as_ref().is_some_and(|one| !one.ended.is_empty());
        if !self.run_until(begun + trial.patience * 2, ended)? {
            return Err("the migration does not end".into());
        }
        let outcome = self.controller.as_mut().and_then(|controller| controller.ended.pop());
        let Some(outcome) = outcome.map(|ended| ended.outcome) else { return Err("no outcome".into()) };
        let duration = self.now - begun;
        let now = self.now;
        self.workload.load().recorder().begin_phase(AFTER, now);
        self.run_for(trial.after)?;
        self.generating = false;
        self.run_for(DRAIN)?;
        Ok(Measured { load: self.workload.report(self.now), outcome, duration, drops: self.drops() })
    }

    fn drops(&self) -> BTreeMap<String, u64> {
        let mut drops = BTreeMap::new();
        for (behind, cause, frames) in self.fabric.iter().flat_map(|fabric| fabric.drops()) {
            let whose =
                if matches!(behind, Behind::Management | Behind::InstanceManagement(_)) { "management_" } else { "" };
            *drops.entry(format!("{whose}{cause}")).or_default() += frames;
        }
        for lcore in self.nodes.iter().flatten().flat_map(|instance| &instance.lcores) {
            for (cause, packets) in &lcore.io().dropped {
                *drops.entry((*cause).to_owned()).or_default() += packets;
            }
        }
        drops
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slim_core::protocol::control::Pace;
    use slim_core::protocol::{Mode, Scheduling};

    fn trial(mode: Mode, rate_mbit: f64) -> Trial {
        Trial {
            seed: 1,
            load: LoadSpec { rate_mbit, packet_size_bytes: 1400, duration_s: 2.0, ..LoadSpec::default() },
            link: LinkSettings { rate_bps: 1_000_000_000, burst_bytes: 2_500_000, delay_us: 2_500 },
            start: StartOptions { mode, filler_bytes: 2 << 20, ..StartOptions::default() },
            congestion_control: true,
            window_bytes: 512 << 10,
            pkt_q_bytes: 64 << 20,
            before: Duration::from_millis(50),
            after: Duration::from_millis(50),
            patience: Duration::from_secs(5),
        }
    }

    #[test]
    fn statelets_and_duplicates_lose_nothing_where_there_is_room_for_both() {
        for mode in [Mode::Statelet, Mode::Duplicate] {
            let measured = run_trial(&trial(mode, 100.0)).unwrap();
            let migration::Outcome::Completed { digests_equal, .. } = measured.outcome else { panic!("{measured:?}") };
            assert_eq!((digests_equal, measured.load.total.is_clean()), (Some(true), true), "{mode}");
            assert!(measured.load.phase(DURING).unwrap().rtt.count > 100);
            assert!(measured.drops.is_empty(), "{:?}", measured.drops);
        }
    }

    #[test]
    fn subscribers_of_a_gateway_get_their_packets_where_they_are() {
        let trial = trial(Mode::Statelet, 50.0);
        let load = LoadSpec { gateway: true, sockets: 256, hand_over_s: 0.2, ..trial.load };
        let measured = run_trial(&Trial { load, ..trial }).unwrap();
        let migration::Outcome::Completed { source, digests_equal, .. } = measured.outcome else {
            panic!("{measured:?}")
        };
        assert_eq!((digests_equal, measured.load.total.lost()), (Some(true), 0), "{:?}", measured.load.total);
        // 1280 hand-overs a second, 50 bytes for each, and nothing for any other packet.
        let announced = source.unwrap().announced;
        assert!(announced.records > 50 && announced.value_bytes == announced.records * 50, "{announced:?}");
        // Few, and only because pkt_q held a packet while its subscriber moved on.
        let wrong = measured.load.total.inbound.misdirected;
        assert!(wrong * 100 < measured.load.total.inbound.sent, "{wrong}");
    }

    #[test]
    fn packets_that_find_the_source_stopped_are_seen_to_be_lost() {
        let measured = run_trial(&trial(Mode::StopAndCopy, 100.0)).unwrap();
        let lost = measured.load.total.lost();
        assert!(lost > 100, "{lost} lost");
        assert_eq!(measured.drops["halted"], lost);
    }

    #[test]
    fn a_snapshot_as_fast_as_tcp_goes_costs_packets_unless_these_go_first() {
        let measure = |scheduling| {
            let narrow = LinkSettings { rate_bps: 100_000_000, burst_bytes: 250_000, delay_us: 2_500 };
            let trial = trial(Mode::Statelet, 80.0);
            let start = StartOptions { scheduling, ..trial.start };
            let measured = run_trial(&Trial { link: narrow, start, ..trial }).unwrap();
            let completed = matches!(measured.outcome, migration::Outcome::Completed { .. });
            assert!(completed, "{scheduling}: {measured:?}");
            measured
        };
        let best_effort = measure(Scheduling::BestEffort);
        assert!(best_effort.load.total.lost() > 0, "{:?}", best_effort.drops);
        let dataplane_first = measure(Scheduling::DataplaneFirst);
        assert!(dataplane_first.load.total.is_clean(), "{:?}", dataplane_first.drops);
        assert!(dataplane_first.drops.is_empty(), "{:?}", dataplane_first.drops);
        let durations = (dataplane_first.duration, best_effort.duration);
        assert!(durations.0 < durations.1, "being held up costs less than losses do: {durations:?}");
    }

    /// At 80 Mbit/s some 100 kB come while the paths lead to the destination and it has not taken over.
    #[test]
    fn pkt_q_exceeds_the_burst_of_the_destinations_meter_unless_it_is_paced() {
        let measure = |scheduling| {
            let narrow = LinkSettings { rate_bps: 100_000_000, burst_bytes: 40_000, delay_us: 2_500 };
            let trial = trial(Mode::Statelet, 80.0);
            let pkt_q_pace = Pace::of_link(&narrow, scheduling);
            let start = StartOptions { scheduling: Scheduling::DataplaneFirst, pkt_q_pace, ..trial.start };
            let measured = run_trial(&Trial { link: narrow, start, ..trial }).unwrap();
            let migration::Outcome::Completed { destination, .. } = &measured.outcome else { panic!("{measured:?}") };
            let longest = destination.as_ref().unwrap().pkt_q.longest_bytes;
            assert!(longest > narrow.burst_bytes, "{longest}");
            measured
        };
        let unpaced = measure(Scheduling::BestEffort);
        assert!(unpaced.drops["meter_from_instance"] > 0, "{:?}", unpaced.drops);
        let paced = measure(Scheduling::DataplaneFirst);
        assert_eq!((paced.load.total.lost(), paced.drops), (0, BTreeMap::new()));
    }

    #[test]
    fn a_trial_can_be_repeated_exactly() {
        let [first, second] = [(); 2].map(|()| run_trial(&trial(Mode::Statelet, 50.0)).unwrap());
        assert_eq!(format!("{first:?}"), format!("{second:?}"));
    }
}

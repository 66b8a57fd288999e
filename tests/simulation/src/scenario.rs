//! What a seed decides before anything happens.

use crate::faults::log_uniform;
use crate::workload::NatPressure;
use crate::{Fault, Random, When};
use slim_core::migration::CoordinatorTimeouts;
use slim_core::protocol::control::{
    DestinationTimeouts, LinkSettings, Pace, PrepareOptions, SourceTimeouts, StartOptions,
};
use slim_core::protocol::{Mode, Scheduling};
use slim_core::time::Duration;

/// The network function of a run, and how many flows there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// The NAT, with tables of this size.
    Nat {
        /// Sizes of its tables.
        pressure: NatPressure,
        /// Interior hosts.
        hosts: u8,
        /// Servers.
        servers: u8,
    },
    /// The toy that chains every packet of a flow to those before.
    FlowChain {
        /// Flows per port.
        flows: u32,
        /// The most flows its table takes.
        flows_max: usize,
    },
}

/// How the world is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// The seed it comes from.
    pub seed: u64,
    /// The network function.
    pub function: Function,
    /// Shards of each instance.
    pub shards: u16,
    /// Packets that are sent at most.
    pub packets_max: u64,
    /// Mean time between two packets.
    pub packet_interval: Duration,
    /// Whether packets are sent at exactly that interval for as long as there is to be traffic.
    pub even: bool,
    /// The least and the longest time that somebody outside takes to answer.
    pub think_time: (Duration, Duration),
    /// Whether TCP makes way for other traffic, as a real one does, or fills its window.
    pub congestion_control: bool,
    /// The link of each instance.
    pub link: LinkSettings,
    /// How long an lcore may take to look at what has arrived.
    pub lcore_delay: Duration,
    /// Whether destinations report the end of the statelets as soon as it arrives.
    pub early_ends: bool,
    /// The most bytes that a destination's threads read from a stream, or apply, before somebody else gets to run.
    pub reading: Reading,
    /// Whether the first migration begins at a moment when much expires.
    pub expiry: bool,
    /// Frames that a ring from the switch to a receive queue holds.
    pub ring_frames: usize,
    /// Bytes and packets that an egress queue of the switch holds.
    pub egress: (u64, usize),
    /// Bytes and packets that a hold of the switch holds.
    pub hold: (u64, usize),
    /// The size of each `pkt_q`.
    pub pkt_q_bytes: usize,
    /// The size of each `st_q_out`.
    pub st_q_out_bytes: usize,
    /// The size of each `st_q_in`.
    pub st_q_in_bytes: usize,
    /// What a connection buffers in each direction.
    pub stream_buffer_bytes: usize,
    /// How long sent data may stay unacknowledged before a connection is given up.
    pub patience: Duration,
    /// Options for destinations.
    pub prepare: PrepareOptions,
    /// Options for sources.
    pub start: StartOptions,
    /// The coordinator's time-outs.
    pub timeouts: CoordinatorTimeouts,
    /// What goes wrong all the time.
    pub noise: Noise,
    /// The migrations, one after the other.
    pub migrations: Vec<PlannedMigration>,
    /// Nothing goes wrong at all: every migration has to be completed without a remark.
    pub calm: bool,
    /// Queues are so large, time-outs so long, and links so good, that only a fault can end a migration.
    pub roomy: bool,
}

/// How much a destination's threads do in one go, at most, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Read from the statelet stream.
    pub statelets: u64,
    /// Read from the snapshot stream.
    pub snapshot: u64,
    /// Applied from `st_q_in`.
    pub apply: u64,
}

/// Faults by rate, of a thousand each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Noise {
    /// Management frames that get lost.
    pub mgmt_loss: u64,
    /// Management frames that arrive twice.
    pub mgmt_duplicate: u64,
    /// Management frames take up to so much longer, and overtake each other.
    pub mgmt_jitter: Duration,
    /// Packets that get lost between switch and instance, either way.
    pub data_loss: u64,
    /// Drain packets, acknowledgements and ends of handing back that get lost.
    pub inband_loss: u64,
    /// Drain packets and acknowledgements that arrive twice.
    pub inband_duplicate: u64,
    /// How much later the second one comes at most.
    pub inband_late: Duration,
    /// Control messages that are sent twice.
    pub control_duplicate: u64,
}

/// A migration to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedMigration {
    /// How long the operator waits before.
    pub pause: Duration,
    /// Whether the operator first makes the other instance ready for it.
    pub recycle: bool,
    /// What goes wrong once.
    pub faults: Vec<(When, Fault)>,
}

impl Scenario {
    /// What this seed decides.
    pub fn of_seed(seed: u64) -> Self {
        let random = &mut Random::new(seed);
        // A share of the runs has no faults at all, so that nothing hides behind them.
        let calm = random.chance(150);
        let shards = if random.chance(300) { 2 } else { 1 };
        let function = if random.chance(600) { nat(random, shards) } else { chain(random, calm) };
        // Small queues and the like are left out of some runs entirely.
        let roomy = calm || random.chance(450);
        let tight = |random: &mut Random| !roomy && random.chance(250);
        let delay_us = random.between(20, 2_500) as u32;
        let rate_bps = match random.below(3) {
            0 => 0,
            1 => 1_000_000_000,
            _ => random.between(20, 100) * 1_000_000,
        };
        // So tight that TCP meets the meter, and traffic does too.
        let rate_bps = if tight(random) { random.between(2, 8) * 1_000_000 } else { rate_bps };
        let burst_bytes = if tight(random) { random.between(1_600, 8_000) } else { random.between(50_000, 500_000) };
        let pick = |random: &mut Random, small: (u64, u64), large: u64| {
            if tight(random) { random.between(small.0, small.1) } else { large }
        };
        let hold_packets = pick(random, (0, 6), 8192) as usize;
        let dense = random.chance(220);
        // Long time-outs mostly, or nothing would get far.
        let scale = if roomy || random.chance(500) { 1.0 } else { random.between(1, 40) as f64 / 100.0 };
        let mode =
            if random.chance(600) { Mode::Statelet } else { Mode::ALL[random.below(Mode::ALL.len() as u64) as usize] };
        // Decided apart from the rest, which stays as it is.
        let scheduling = Scheduling::ALL[(Random::new(seed).number() >> 60) as usize % Scheduling::ALL.len()];
        // So is this.
        let pkt_q_pace =
            Random::new(!seed).chance(300).then_some(Pace { rate_bytes_per_s: rate_bps / 16, burst_bytes: 3_000 });
        // Whole packets fill more than statelets do.
        let stream_queue = if mode == Mode::Duplicate { 1 << 21 } else { 1 << 17 };
        let mut scenario = Self {
            seed,
            function,
            shards,
            packets_max: if dense { random.between(500, 1_500) } else { random.between(150, 900) },
            packet_interval: Duration::from_micros(if dense { random.between(5, 30) } else { random.between(40, 400) }),
            lcore_delay: Duration::from_micros(if random.chance(700) { 50 } else { random.between(100, 4_000) }),
            early_ends: random.chance(500),
            reading: Reading { statelets: 4_000, snapshot: 8_000, apply: 600 },
            expiry: random.chance(350),
            even: false,
            think_time: (Duration::from_micros(50), Duration::from_micros(800)),
            congestion_control: false,
            link: LinkSettings { rate_bps, burst_bytes, delay_us },
            ring_frames: pick(random, (2, 12), 256) as usize,
            egress: (8 << 20, pick(random, (2, 20), 8192) as usize),
            hold: (8 << 20, hold_packets),
            pkt_q_bytes: pick(random, (0, 2_000), 1 << 18) as usize,
            st_q_out_bytes: pick(random, (30, 300), stream_queue) as usize,
            st_q_in_bytes: pick(random, (40, 800), stream_queue) as usize,
            stream_buffer_bytes: pick(random, (300, 2_000), 16_384) as usize,
            patience: Duration::from_millis(if roomy || random.chance(700) {
                10_000
            } else {
                random.between(300, 2_000)
            }),
            prepare: PrepareOptions {
                mode,
                scheduling,
                underrun_records: random.below(4),
                pkt_q_pace,
                timeouts: destination_timeouts(scale),
                ..PrepareOptions::default()
            },
            start: StartOptions {
                mode,
                scheduling,
                filler_bytes: if random.chance(300) { random.below(60_000) } else { 0 },
                statelet_delay_us: random.between(0, 10_000) as u32,
                snapshot_rate_bytes_per_s: random.chance(200).then(|| random.between(100_000, 5_000_000)),
                coalesce: random.chance(600),
                compress: random.chance(300),
                pkt_q_pace,
                timeouts: source_timeouts(scale),
                ..StartOptions::default()
            },
            timeouts: coordinator_timeouts(scale),
            noise: if roomy { Noise::default() } else { noise(random) },
            migrations: migrations(random, calm),
            calm,
            roomy,
        };
        crate::stories::tell(&mut scenario, random);
        scenario
    }
}

fn nat(random: &mut Random, shards: u16) -> Function {
    let small = random.chance(400);
    let size = |random: &mut Random, low, high| if small { random.between(low, high) as u32 } else { 512 };
    let pressure = NatPressure {
        sessions_max: size(random, 4, 40),
        sessions_per_host_max: size(random, 2, 12),
        hosts_max: size(random, 2, 16).min(64),
        ports: size(random, u64::from(shards) + 1, 40) as u16,
    };
    Function::Nat { pressure, hosts: random.between(2, 12) as u8, servers: random.between(2, 6) as u8 }
}

fn chain(random: &mut Random, calm: bool) -> Function {
    let flows = 1 << random.between(0, 8);
    let flows_max = if !calm && random.chance(200) { (flows as usize / 2).max(1) } else { 512 };
    Function::FlowChain { flows, flows_max }
}

fn noise(random: &mut Random) -> Noise {
    // Each kind is left out of most runs entirely: uniform noise finds less.
    let late = if random.chance(700) { log_uniform(random, 1, 2_000) } else { Duration::ZERO };
    let mut rate = |share, high| if random.chance(share) { random.between(1, high) } else { 0 };
    let mut noise = Noise {
        mgmt_loss: rate(200, 60),
        mgmt_duplicate: rate(100, 60),
        mgmt_jitter: Duration::ZERO,
        data_loss: rate(120, 40),
        inband_loss: rate(200, 500),
        inband_duplicate: rate(250, 500),
        control_duplicate: rate(150, 200),
        inband_late: late,
    };

    noise.mgmt_jitter = Duration::from_micros(rate(250, 3_000));
    noise
}

fn migrations(random: &mut Random, calm: bool) -> Vec<PlannedMigration> {
    let kinds = Fault::KINDS.len() as u64;
    // Some kinds only, and of those some more than others.
    let allowed: Vec<usize> = (0..random.between(0, 4)).map(|_| random.below(kinds) as usize).collect();
    let count = match random.below(10) {
        0..5 => 1,
        5..8 => 2,
        _ => 3,
    };
    let planned = |index: u64| {
        let strikes = if calm || allowed.is_empty() { 0 } else { random.below(4) };
        let mut faults = Vec::new();
        for _ in 0..strikes {
            let when = When::random(random);
            let kind = allowed[random.below(allowed.len() as u64) as usize];
            faults.push((when, Fault::of_kind(kind, random)));
            if random.chance(300) {
                // Misfortunes come in pairs.
                faults.push((when, Fault::of_kind(random.below(kinds) as usize, random)));
            }
        }
        PlannedMigration {
            pause: if index > 0 && random.chance(400) { Duration::ZERO } else { log_uniform(random, 1, 60) },
            // Without, the next migration is refused, and that must do no harm.
            recycle: calm || random.chance(850),
            faults,
        }
    };
    (0..count).map(planned).collect()
}

fn scaled(ms: u32, scale: f64) -> u32 {
    (f64::from(ms) * scale) as u32
}

fn source_timeouts(scale: f64) -> SourceTimeouts {
    let all = SourceTimeouts::default();
    SourceTimeouts {
        connect_ms: scaled(all.connect_ms, scale),
        freeze_ms: scaled(all.freeze_ms, scale),
        snapshot_ms: scaled(all.snapshot_ms / 10, scale),
        drain_ms: scaled(all.drain_ms, scale),
        stop_ms: scaled(all.stop_ms, scale),
        flush_ms: scaled(all.flush_ms, scale),
        take_over_ms: scaled(all.take_over_ms, scale),
        digest_ms: scaled(all.digest_ms, scale),
    }
}

fn destination_timeouts(scale: f64) -> DestinationTimeouts {
    let all = DestinationTimeouts::default();
    DestinationTimeouts {
        arm_ms: scaled(all.arm_ms, scale),
        connect_ms: scaled(all.connect_ms, scale),
        install_ms: scaled(all.install_ms / 10, scale),
        synchronise_ms: scaled(all.synchronise_ms, scale),
        redirect_ms: scaled(all.redirect_ms, scale),
        hand_back_ms: all.hand_back_ms,
        digest_ms: scaled(all.digest_ms, scale),
    }
}

fn coordinator_timeouts(scale: f64) -> CoordinatorTimeouts {
    let all = CoordinatorTimeouts::default();
    CoordinatorTimeouts {
        check_ms: scaled(all.check_ms, scale),
        prepare_ms: scaled(all.prepare_ms, scale),
        transfer_ms: scaled(all.transfer_ms / 10, scale),
        redirect_ms: scaled(all.redirect_ms, scale),
        drain_ms: scaled(all.drain_ms, scale),
        finish_ms: scaled(all.finish_ms, scale),
        ..all
    }
}

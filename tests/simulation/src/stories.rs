//! Misfortunes that are unlikely to meet by chance, and worth meeting.

use crate::faults::log_uniform;
use crate::{Fault, Function, Random, Scenario, When};
use slim_core::migration::CoordinatorTimeouts;
use slim_core::protocol::control::{DestinationTimeouts, SourceTimeouts};
use slim_core::protocol::{DestinationPhase, MigrationPhase, SourcePhase};
use slim_core::time::Duration;

/// How many of a thousand runs are such a story.
const SHARE: u64 = 200;

/// The first migration goes from instance 0 to instance 1.
const SOURCE: usize = 0;
const DESTINATION: usize = 1;
const CONTROLLER: usize = 2;

/// Makes a story of some scenarios.
pub(crate) fn tell(scenario: &mut Scenario, random: &mut Random) {
    if scenario.calm || !random.chance(SHARE) {
        return;
    }
    scenario.roomy = false;
    match random.below(8) {
        0 => cut_off_controller(scenario, random),
        1 => cut_off_destination(scenario, random),
        2..6 => repeat_at_once(scenario, random),
        6 => stall_one_lcore(scenario, random),
        _ => stall_with_small_rings(scenario, random),
    }
}

fn source(phase: SourcePhase) -> When {
    When::Phase(MigrationPhase::Source(phase))
}

fn destination(phase: DestinationPhase) -> When {
    When::Phase(MigrationPhase::Destination(phase))
}

/// The operator gives up around the commit point, and the controller cannot ask anybody whether that was too late.
fn cut_off_controller(scenario: &mut Scenario, random: &mut Random) {
    let phases = [SourcePhase::Stopping, SourcePhase::Flushing, SourcePhase::Committed];
    let when = source(phases[random.below(3) as usize]);
    let time = log_uniform(random, 17_000, 40_000);
    scenario.migrations[0].faults =
        vec![(when, Fault::Partition { host: CONTROLLER, peer: None, time }), (when, Fault::Abort)];
}

/// The destination takes over and cannot tell anybody.
fn cut_off_destination(scenario: &mut Scenario, random: &mut Random) {
    let when = destination(DestinationPhase::TakingOver);
    let time = log_uniform(random, 25_000, 60_000);
    let gives_up = When::After(log_uniform(random, 200, 15_000));
    scenario.migrations[0].faults =
        vec![(when, Fault::Partition { host: DESTINATION, peer: None, time }), (gives_up, Fault::Abort)];
}

/// A migration is undone after the redirect and begun again at once, while drain packets of the first still turn up.
fn repeat_at_once(scenario: &mut Scenario, random: &mut Random) {
    let mut second = scenario.migrations[0].clone();
    (second.pause, second.recycle, second.faults) = (Duration::ZERO, true, Vec::new());
    scenario.migrations.truncate(1);
    let reset = Fault::ResetStream { choice: random.number() };
    // Until the paths lead back, drain packets are sent again and again.
    let outage = Fault::SwitchOutage(log_uniform(random, 50, 150));
    let when = source(SourcePhase::Stopping);
    scenario.migrations[0].faults = vec![(when, reset), (when, outage)];
    scenario.noise.inband_loss = 500;
    scenario.migrations.push(second);
    scenario.noise.inband_duplicate = 900;
    scenario.noise.inband_late = Duration::from_millis(random.between(100, 400));
    // The second one takes long enough to meet them.
    scenario.start.filler_bytes = 6_000;
    scenario.start.snapshot_rate_bytes_per_s = Some(20_000);
    // Nothing else is to go wrong, and each flow has packets wherever one looks.
    scenario.function = Function::FlowChain { flows: 4, flows_max: 512 };
    (scenario.packets_max, scenario.packet_interval) = (4_000, Duration::from_micros(random.between(80, 160)));
    (scenario.link.rate_bps, scenario.link.delay_us) = (0, random.between(1_000, 2_500) as u32);
    scenario.lcore_delay = Duration::from_micros(50);
    (scenario.pkt_q_bytes, scenario.st_q_out_bytes, scenario.st_q_in_bytes) = (1 << 18, 1 << 17, 1 << 17);
    (scenario.ring_frames, scenario.egress.1, scenario.hold.1) = (256, 8_192, 8_192);
    scenario.stream_buffer_bytes = 16_384;
    scenario.expiry = false;
    scenario.start.timeouts = SourceTimeouts::default();
    scenario.prepare.timeouts = DestinationTimeouts::default();
    scenario.timeouts = CoordinatorTimeouts::default();
}

fn make_dense(scenario: &mut Scenario, random: &mut Random) {
    scenario.packets_max = 5_000;
    scenario.packet_interval = Duration::from_micros(random.between(8, 16));
    scenario.migrations[0].pause = Duration::from_millis(1);
    scenario.expiry = false;
    scenario.link.rate_bps = 0;
}

/// One lcore of the source does not run while the other one sees the drain packets.
fn stall_one_lcore(scenario: &mut Scenario, random: &mut Random) {
    make_dense(scenario, random);
    scenario.function = Function::FlowChain { flows: 64, flows_max: 512 };
    scenario.shards = 2;
    scenario.ring_frames = 256;
    let fault = Fault::StalledLcores { node: SOURCE, only: Some(1), time: log_uniform(random, 10, 60) };
    scenario.migrations[0].faults = vec![(source(SourcePhase::Draining), fault)];
}

/// The source's rings are full, and drain packets wait behind different numbers of packets.
fn stall_with_small_rings(scenario: &mut Scenario, random: &mut Random) {
    make_dense(scenario, random);
    scenario.function = Function::FlowChain { flows: 64, flows_max: 512 };
    scenario.ring_frames = random.between(2, 6) as usize;
    scenario.egress.1 = 8_192;
    let fault = Fault::StalledLcores { node: SOURCE, only: None, time: log_uniform(random, 3, 40) };
    scenario.migrations[0].faults = vec![(destination(DestinationPhase::Redirecting), fault)];
}

//! Migrations that succeed.

use crate::world::{A, B, World};
use slim_core::protocol::Mode;
use slim_core::protocol::control::{InstanceRequest, InstanceRole, SAMPLE, SAMPLE_SNAPSHOT, StartOptions};
use std::time::Duration;

#[test]
fn state_moves_there_and_back_twice_without_a_trace_in_the_traffic() {
    let mut world = World::live("");
    world.fill(5000);
    for (from, to) in [(A, B), (B, A), (A, B), (B, A)] {
        let options = StartOptions { filler_bytes: 300_000, ..StartOptions::default() };
        let [source, destination] = world.migrate(from, to, options);
        assert_eq!(source.digest, destination.digest);
        assert!(source.digest.is_some());
        assert!(source.statelets.records > 0, "there was traffic");
        assert_eq!(source.statelets.records, destination.statelets.records);
        assert_eq!(source.statelets.bytes, destination.statelets.bytes);
        assert_eq!(source.snapshot, destination.snapshot);
        assert!(source.snapshot.entries >= 5000);
        assert_eq!(source.snapshot.filler_bytes, 300_000);
        assert!(source.workload.packets > 0 && source.workload.bytes == source.workload.packets * 128);
        assert_eq!(source.statelets.value_bytes, source.workload.packets * 14, "one statelet of 14 bytes per packet");
        assert_eq!(destination.pkt_q.dropped_packets, 0);
        assert_eq!((world.role(from), world.role(to)), (InstanceRole::Released, InstanceRole::Live));
        world.run_for(Duration::from_millis(100));
        world.ask(from, InstanceRequest::Reset {}).expect("resets");
        assert_eq!(world.role(from), InstanceRole::Idle);
    }
    world.must_be_perfect();
    let status = world.status(A);
    assert_eq!(status.counters.iter().filter(|(name, count)| name.contains("drop") && **count > 0).count(), 0);
    assert!(status.gauges["numberer.senders"] >= 5000);
}

#[test]
fn duplicates_and_buffers_leave_no_trace_in_the_traffic_either() {
    let mut world = World::live("");
    world.fill(500);
    for (from, to, mode) in [(A, B, Mode::Duplicate), (B, A, Mode::Buffer), (A, B, Mode::Statelet)] {
        let options = StartOptions {
            mode,
            filler_bytes: 300_000,
            snapshot_rate_bytes_per_s: Some(3_000_000),
            ..StartOptions::default()
        };
        let [source, destination] = world.migrate(from, to, options);
        assert_eq!((source.digest, source.digest.is_some()), (destination.digest, true), "{mode}");
        assert_eq!(source.statelets.records, destination.statelets.records);
        let sent_per_packet = source.statelets.value_bytes / source.workload.packets.max(1);
        match mode {
            Mode::Duplicate => assert!(sent_per_packet >= 128, "packets are sent whole"),
            Mode::Buffer => assert!(destination.pkt_q.longest_packets > source.workload.packets, "packets wait"),
            Mode::Statelet | Mode::StopAndCopy => assert_eq!(sent_per_packet, 14),
        }
        world.run_for(Duration::from_millis(100));
        world.ask(from, InstanceRequest::Reset {}).expect("resets");
    }
    world.must_be_perfect();
}

#[test]
fn a_sample_foresees_what_a_migration_then_takes() {
    let mut world = World::live("");
    world.fill(2000);
    world.ask(A, InstanceRequest::Sample { duration_ms: 200 }).expect("samples");
    world.run_for(Duration::from_millis(400));
    let status = world.status(A);
    let sampled = |name: &str| status.counters[&format!("{SAMPLE}{name}")];
    assert!(sampled("elapsed_us") >= 200_000 && sampled("packets") > 0, "{status:?}");
    assert_eq!((sampled("packet_bytes"), sampled("statelets")), (sampled("packets") * 128, sampled("packets")));
    assert_eq!(sampled("value_bytes"), sampled("packets") * 14);
    let counted = sampled("packets");
    world.run_for(Duration::from_millis(100));
    assert_eq!(world.status(A).counters[&format!("{SAMPLE}packets")], counted, "its time is over");

    let foreseen = world.status(A).gauges[SAMPLE_SNAPSHOT];
    // A migration ends a sample that is not over.
    world.ask(A, InstanceRequest::Sample { duration_ms: 60_000 }).expect("samples");
    let [source, destination] = world.migrate(A, B, StartOptions::default());
    assert_eq!((source.digest, source.digest.is_some()), (destination.digest, true));
    assert_eq!(source.statelets.value_bytes, source.workload.packets * 14);
    let ratio = source.snapshot.bytes as f64 / foreseen as f64;
    assert!((0.99..1.1).contains(&ratio), "{foreseen} foreseen, {} sent", source.snapshot.bytes);
    world.must_be_perfect();
    world.ask(A, InstanceRequest::Sample { duration_ms: 1 }).expect_err("it has nothing to process");
}

#[test]
fn stop_and_copy_drops_and_counts_what_arrives_meanwhile() {
    let mut world = World::live("");
    let options = StartOptions {
        mode: Mode::StopAndCopy,
        filler_bytes: 300_000,
        snapshot_rate_bytes_per_s: Some(3_000_000),
        ..StartOptions::default()
    };
    let [source, destination] = world.migrate(A, B, options);
    assert_eq!((source.digest, source.digest.is_some()), (destination.digest, true));
    assert_eq!((source.statelets.records, source.workload.packets), (0, 0));
    let halted = world.status(A).counters["drop.halted"];
    assert!(halted > 100, "{halted} packets");
    world.must_flow();
}

#[test]
fn counters_of_drops_go_on_wherever_the_function_is() {
    const SHORT: &str = "numberer.drop.frame_too_short";
    let mut world = World::live("");
    let mut dropped = 0;
    for (from, to) in [(A, B), (B, A)] {
        for _ in 0..5 {
            world.fabric.inject(0, &[2; 20]);
            dropped += 1;
        }
        world.wait("drops are counted", |world| world.status(from).counters[SHORT] == dropped);
        world.migrate(from, to, StartOptions::default());
        assert_eq!(world.status(to).counters[SHORT], dropped);
        world.ask(from, InstanceRequest::Reset {}).expect("resets");
        world.wait("the source forgets", |world| world.status(from).counters[SHORT] == 0);
    }
    world.must_be_perfect();
}

#[test]
fn a_state_without_traffic_moves_too() {
    let mut world = World::live("");
    world.traffic(Duration::ZERO);
    let [source, destination] = world.migrate(A, B, StartOptions::default());
    assert_eq!(source.statelets.records, 0);
    assert_eq!(source.digest, destination.digest);
    world.traffic(Duration::from_micros(200));
    world.must_flow();
    world.must_be_perfect();
}

#[test]
fn statelets_fill_segments_unless_they_have_waited_long_enough() {
    let mut world = World::live("");
    world.traffic(Duration::from_micros(100));
    let slow = StartOptions {
        statelet_delay_us: 1_000_000,
        filler_bytes: 2_000_000,
        snapshot_rate_bytes_per_s: Some(2_000_000),
        ..StartOptions::default()
    };
    let [filled, _] = world.migrate(A, B, slow.clone());
    let fast = StartOptions { statelet_delay_us: 0, ..slow };
    // So few that they go out one by one, even if the threads of a busy machine get to run late.
    world.traffic(Duration::from_millis(5));
    world.ask(A, InstanceRequest::Reset {}).expect("resets");
    let [eager, _] = world.migrate(B, A, fast);
    let per_segment = |report: &slim_core::protocol::control::MigrationReport| {
        report.statelets.bytes / report.statelets.segments.max(1)
    };
    assert!(filled.total_us > 800_000, "the snapshot's pace was asked for: {} µs", filled.total_us);
    assert!(per_segment(&filled) > 2 * per_segment(&eager), "{filled:?} {eager:?}");
    world.must_be_perfect();
}

#[test]
fn late_packets_come_back_from_a_released_source() {
    let mut world = World::live("");
    world.migrate(A, B, StartOptions::default());
    world.must_be_perfect();
    let mut frame = [0x55; 100];
    frame[12..14].copy_from_slice(&[0x88, 0xb6]);
    let before = world.fabric.handed_back;
    (0..40).for_each(|number| world.fabric.send(A, number % 2, &frame));
    world.wait("frames handed back", |world| world.fabric.handed_back == before + 40);
    assert_eq!(world.status(A).counters["inband.handed_back"], 40);
}

#[test]
fn shutdown_on_request_ends_with_success() {
    let mut world = World::live("");
    world.ask(A, InstanceRequest::Shutdown {}).expect("agrees");
    world.wait("the process ends", |world| !world.instances[A].is_running());
    assert_eq!(world.instances[A].ended(), Some(0));
}

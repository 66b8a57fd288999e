//! Migrations that fail: the source goes on, nothing is lost, and the next attempt succeeds.

use crate::peer::{FakeDestination, swallow};
use crate::world::{A, B, World};
use slim_core::protocol::control::{InstanceRequest, InstanceRole, ResolveOutcome, StartOptions};
use slim_core::protocol::stream::{Rejection, VERSION_MAX};
use slim_core::protocol::{DestinationPhase, FailureCode, MigrationPhase, SourcePhase};
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

/// After a failure: live, passing frames, and able to migrate for real.
fn must_still_be_able_to_migrate(world: &mut World) {
    world.phase(A, MigrationPhase::Source(SourcePhase::RolledBack));
    assert_eq!(world.role(A), InstanceRole::Live);
    world.must_flow();
    let [source, destination] = world.migrate(A, B, StartOptions::default());
    assert_eq!(source.digest, destination.digest);
    world.must_be_perfect();
}

fn start_towards(world: &mut World, destination: SocketAddr, options: StartOptions) {
    let ids = world.new_migration();
    world.start(A, ids, destination, options);
}

#[test]
fn nobody_listens() {
    let mut world = World::live("");
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    start_towards(&mut world, address, StartOptions::default());
    assert_eq!(world.failed(A).code, FailureCode::StreamLost);
    must_still_be_able_to_migrate(&mut world);
}

#[test]
fn the_destination_refuses() {
    let mut world = World::live("");
    let fake = FakeDestination::new(Err(Rejection::Schema));
    start_towards(&mut world, fake.address, StartOptions::default());
    let failure = world.failed(A);
    assert_eq!(failure.code, FailureCode::StreamRefused);
    assert!(failure.message.as_str().contains("another schema"), "{failure}");
    must_still_be_able_to_migrate(&mut world);
}

#[test]
fn the_destination_closes_in_the_middle_of_the_snapshot() {
    let mut world = World::live("");
    world.fill(5000);
    let fake = FakeDestination::new(Ok(VERSION_MAX));
    let options = StartOptions { filler_bytes: 50_000_000, ..StartOptions::default() };
    start_towards(&mut world, fake.address, options);
    let [_statelets, mut snapshot] = fake.streams().expect("both streams");
    snapshot.read_exact(&mut [0; 10_000]).expect("a part of the snapshot");
    world.run_for(Duration::from_millis(50));
    drop(snapshot);
    assert_eq!(world.failed(A).code, FailureCode::StreamLost);
    must_still_be_able_to_migrate(&mut world);
}

#[test]
fn the_destination_closes_the_statelet_stream() {
    let mut world = World::live("");
    let fake = FakeDestination::new(Ok(VERSION_MAX));
    start_towards(&mut world, fake.address, StartOptions::default());
    let [statelets, snapshot] = fake.streams().expect("both streams");
    world.phase(A, MigrationPhase::Source(SourcePhase::Draining));
    drop(statelets);
    assert_eq!(world.failed(A).code, FailureCode::StreamLost);
    drop(snapshot);
    must_still_be_able_to_migrate(&mut world);
}

#[test]
fn statelets_overflow_when_the_destination_does_not_read() {
    let mut world = World::live("st_q_out_bytes = 65536\nstream_buffer_bytes = 16384");
    world.traffic(Duration::from_micros(20));
    let fake = FakeDestination::new(Ok(VERSION_MAX));
    start_towards(&mut world, fake.address, StartOptions::default());
    let _streams = fake.streams().expect("both streams");
    assert_eq!(world.failed(A).code, FailureCode::StateletOverflow);
    world.traffic(Duration::from_micros(200));
    must_still_be_able_to_migrate(&mut world);
}

#[test]
fn the_destination_is_killed() {
    let mut world = World::live("");
    let ids = world.new_migration();
    world.prepare(B, ids.0);
    let options = StartOptions {
        filler_bytes: 50_000_000,
        snapshot_rate_bytes_per_s: Some(5_000_000),
        ..StartOptions::default()
    };
    let destination = world.instances[B].state_address;
    world.start(A, ids, destination, options);
    world.phase(B, MigrationPhase::Destination(DestinationPhase::Installing));
    world.instances[B].kill();
    assert_eq!(world.failed(A).code, FailureCode::StreamLost);
    world.phase(A, MigrationPhase::Source(SourcePhase::RolledBack));
    world.must_be_perfect();
}

#[test]
fn a_phase_takes_too_long() {
    let mut world = World::live("");
    let fake = FakeDestination::new(Ok(VERSION_MAX));
    let mut options = StartOptions::default();
    options.timeouts.drain_ms = 200;
    start_towards(&mut world, fake.address, options);
    let [statelets, snapshot] = fake.streams().expect("both streams");
    let (statelets, snapshot) = (swallow(statelets), swallow(snapshot));
    assert_eq!(world.failed(A).code, FailureCode::TimeOut);
    assert!(snapshot.join().expect("read") > 0);
    assert!(statelets.join().expect("read") > 0);
    must_still_be_able_to_migrate(&mut world);
}

#[test]
fn undone_after_the_redirect_packets_return_in_order() {
    let mut world = World::live("");
    world.fill(1000);
    let (migration, nonce) = world.new_migration();
    world.prepare(B, migration);
    let destination = world.instances[B].state_address;
    world.start(A, (migration, nonce), destination, StartOptions::default());
    world.redirect_wanted(B);
    // The drain packets carry a wrong nonce, as if they belonged to an earlier stage: they must not count.
    let (_, stale) = world.new_migration();
    world.fabric.redirect(B, migration, stale);
    world.run_for(Duration::from_millis(200));
    assert_eq!(world.role(A), InstanceRole::Source);
    assert!(world.status(B).queues["pkt_q"].records > 0);

    let (_, back) = world.new_migration();
    let reason = "test";
    world.ask(A, InstanceRequest::Abort { migration, reason: reason.into(), hand_back: None }).expect("aborts");
    world.ask(B, InstanceRequest::Abort { migration, reason: reason.into(), hand_back: Some(back) }).expect("aborts");
    world.fabric.redirect_back(A, migration, back);
    world.wait("everything handed back", |world| !world.fabric.is_holding());
    world.phase(B, MigrationPhase::Destination(DestinationPhase::Discarded));
    assert!(world.fabric.handed_back > 0);
    world.ask(B, InstanceRequest::Reset {}).expect("resets");
    must_still_be_able_to_migrate(&mut world);
}

#[test]
fn a_pkt_q_that_fills_undoes_the_migration_before_a_packet_is_lost() {
    let mut world = World::live("pkt_q_bytes = 1048576");
    world.fill(1000);
    let (migration, nonce) = world.new_migration();
    world.prepare(B, migration);
    let destination = world.instances[B].state_address;
    world.start(A, (migration, nonce), destination, StartOptions::default());
    world.redirect_wanted(B);
    // The source waits for other drain packets, and the destination for its end.
    let (_, stale) = world.new_migration();
    world.fabric.redirect(B, migration, stale);
    world.traffic(Duration::from_micros(20));
    assert_eq!(world.failed(B).code, FailureCode::PacketBacklog);
    world.traffic(Duration::from_micros(200));

    let (_, back) = world.new_migration();
    let reason = "test";
    world.ask(A, InstanceRequest::Abort { migration, reason: reason.into(), hand_back: None }).expect("aborts");
    world.ask(B, InstanceRequest::Abort { migration, reason: reason.into(), hand_back: Some(back) }).expect("aborts");
    world.fabric.redirect_back(A, migration, back);
    world.wait("everything handed back", |world| !world.fabric.is_holding());
    world.phase(B, MigrationPhase::Destination(DestinationPhase::Discarded));
    world.ask(B, InstanceRequest::Reset {}).expect("resets");
    must_still_be_able_to_migrate(&mut world);
}

/// A source that has committed and whose peer falls silent. Returns when it waits for the controller's word.
fn unacknowledged(world: &mut World) -> slim_core::protocol::MigrationId {
    let ids = world.new_migration();
    let fake = FakeDestination::new(Ok(VERSION_MAX));
    world.start(A, ids, fake.address, StartOptions::default());
    let [mut statelets, snapshot] = fake.streams().expect("both streams");
    swallow(snapshot);
    world.phase(A, MigrationPhase::Source(SourcePhase::Draining));
    // Nothing is behind the paths now: B is idle. Frames would be dropped there, so there are none.
    world.must_be_perfect();
    world.fabric.redirect(B, ids.0, ids.1);
    let end = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        // The end record is recognised by its type and length.
        while !bytes.windows(4).any(|window| window == b"\xff\xff\x00\x0c") {
            let len = statelets.read(&mut piece).expect("statelets");
            assert!(len > 0, "the stream ends with its end record");
            bytes.extend_from_slice(&piece[..len]);
        }
    });
    assert_eq!(world.failed(A).code, FailureCode::Unacknowledged);
    end.join().expect("the end record came");
    world.phase(A, MigrationPhase::Source(SourcePhase::Unacknowledged));
    ids.0
}

#[test]
fn committed_without_an_answer_and_resumed() {
    let mut world = World::live("");
    let migration = unacknowledged(&mut world);
    let abort = InstanceRequest::Abort { migration, reason: "too late".into(), hand_back: None };
    assert!(world.ask(A, abort).is_err());
    world.fabric.active = A;
    world.traffic(Duration::from_micros(200));
    world.run_for(Duration::from_millis(100));
    assert!(world.status(A).queues["pkt_q"].records > 0, "they wait for the controller's word");
    world.ask(A, InstanceRequest::Resolve { migration, outcome: ResolveOutcome::Resume }).expect("resolves");
    must_still_be_able_to_migrate(&mut world);
}

#[test]
fn committed_without_an_answer_and_released() {
    let mut world = World::live("");
    let migration = unacknowledged(&mut world);
    world.ask(A, InstanceRequest::Resolve { migration, outcome: ResolveOutcome::Release }).expect("resolves");
    assert!(world.finished(A).digest.is_some());
    assert_eq!(world.role(A), InstanceRole::Released);
}

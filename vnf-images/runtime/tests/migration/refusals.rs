//! Everything an instance must refuse, and go on as if nothing had happened.

use crate::peer::{FakeDestination, handshake, open};
use crate::world::{A, B, World};
use slim_core::protocol::control::{ErrorCode, InstanceRequest, InstanceRole, PrepareOptions, StartOptions};
use slim_core::protocol::stream::{Handshake, Rejection, StreamRole, VERSION_MAX};
use slim_core::protocol::{FailureCode, MigrationId, Name, Schema};
use std::io::Write;

#[test]
fn streams_without_or_against_a_preparation_are_refused_with_the_reason() {
    let mut world = World::live("");
    let (migration, _) = world.new_migration();
    let good = handshake(migration, StreamRole::Snapshot);
    assert_eq!(open(world.instances[A].state_address, &good).1, Err(Rejection::Migration), "a live instance");
    world.prepare(B, migration);
    let cases: [(Handshake, Rejection); 5] = [
        (handshake(MigrationId(7), StreamRole::Snapshot), Rejection::Migration),
        (Handshake { kind: Name::try_from("nat").expect("a name"), ..good.clone() }, Rejection::Kind),
        (Handshake { schema: Schema(2), ..good.clone() }, Rejection::Schema),
        (Handshake { shards: 2, ..good.clone() }, Rejection::Shards),
        (Handshake { version_min: VERSION_MAX + 1, version_max: VERSION_MAX + 1, ..good.clone() }, Rejection::Version),
    ];
    let address = world.instances[B].state_address;
    for (handshake, reason) in cases {
        assert_eq!(open(address, &handshake).1, Err(reason));
    }
    let (_stream, reply) = open(address, &good);
    assert_eq!(reply, Ok(VERSION_MAX));
    assert_eq!(open(address, &good).1, Err(Rejection::Duplicate));
    world.must_be_perfect();
}

#[test]
fn a_broken_snapshot_fails_the_destination_which_can_be_used_again() {
    let mut world = World::live("");
    let garbage: [(&[u8], FailureCode); 3] = [
        (&[0xee; 64], FailureCode::SnapshotRejected),
        (b"\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x20\x00\x00\x00\x00", FailureCode::StreamLost),
        (b"", FailureCode::StreamLost),
    ];
    for (bytes, code) in garbage {
        let (migration, _) = world.new_migration();
        world.prepare(B, migration);
        let address = world.instances[B].state_address;
        let (statelets, _) = open(address, &handshake(migration, StreamRole::Statelets));
        let (mut snapshot, reply) = open(address, &handshake(migration, StreamRole::Snapshot));
        assert_eq!(reply, Ok(VERSION_MAX));
        snapshot.write_all(bytes).expect("it reads");
        drop(snapshot);
        assert_eq!(world.failed(B).code, code, "{bytes:?}");
        drop(statelets);
        discard(&mut world, B, migration);
    }
    world.migrate(A, B, StartOptions::default());
    world.must_be_perfect();
}

#[test]
fn an_unknown_statelet_fails_the_destination() {
    let mut world = World::live("");
    let (migration, _) = world.new_migration();
    world.prepare(B, migration);
    let address = world.instances[B].state_address;
    let (mut statelets, _) = open(address, &handshake(migration, StreamRole::Statelets));
    let (mut snapshot, _) = open(address, &handshake(migration, StreamRole::Snapshot));
    statelets.write_all(b"\x00\x09\x00\x01x").expect("it reads");
    snapshot.write_all(&empty_snapshot()).expect("it reads");
    assert_eq!(world.failed(B).code, FailureCode::StateletRejected);
    discard(&mut world, B, migration);
    world.must_be_perfect();
}

/// A snapshot of an empty `numberer`, as a source would send it.
fn empty_snapshot() -> Vec<u8> {
    use slim_core::table::{SegmentedTable, StateItem};
    let mut table = SegmentedTable::<[u8; 6], u64>::with_capacity("senders", 20_000, 1);
    let mut writer = slim_core::snapshot::SnapshotWriter::new(vec![table.freeze()], 0);
    let mut bytes = Vec::new();
    while writer.write_next(&mut bytes).expect("a small table") {}
    bytes
}

fn discard(world: &mut World, instance: usize, migration: MigrationId) {
    let reason = "test".into();
    world.ask(instance, InstanceRequest::Abort { migration, reason, hand_back: None }).expect("aborts");
    world.wait("it is discarded", |world| world.role(instance) == InstanceRole::Discarded);
    world.ask(instance, InstanceRequest::Reset {}).expect("resets");
    assert_eq!(world.role(instance), InstanceRole::Idle);
}

#[test]
fn requests_at_the_wrong_time_change_nothing() {
    let mut world = World::live("");
    let ids = world.new_migration();
    let fake = FakeDestination::new(Ok(VERSION_MAX));
    let start = World::start_request(ids, fake.address, StartOptions::default());
    let refused = |result: Result<_, slim_core::protocol::control::ControlError>| result.err().map(|error| error.code);

    assert_eq!(refused(world.ask(B, start.clone())), Some(ErrorCode::WrongRole), "start of an idle instance");
    world.ask(A, start.clone()).expect("starts");
    world.ask(A, start.clone()).expect("asking twice is fine");
    let other = World::start_request(world.new_migration(), fake.address, StartOptions::default());
    assert_eq!(refused(world.ask(A, other)), Some(ErrorCode::WrongRole), "a second migration");
    assert_eq!(refused(world.ask(A, InstanceRequest::Reset {})), Some(ErrorCode::WrongRole));
    let kind = Name::try_from("numberer").expect("a name");
    let prepare = |schema| InstanceRequest::Prepare {
        migration: MigrationId(99),
        kind: kind.clone(),
        schema: Schema(schema),
        shards: 1,
        options: PrepareOptions::default(),
    };
    assert_eq!(refused(world.ask(A, prepare(1))), Some(ErrorCode::WrongRole), "prepare of a source");
    assert_eq!(refused(world.ask(B, prepare(2))), Some(ErrorCode::Incompatible), "another schema");
    let unknown = InstanceRequest::Abort { migration: MigrationId(99), reason: "test".into(), hand_back: None };
    assert_eq!(refused(world.ask(A, unknown)), Some(ErrorCode::UnknownMigration));

    let abort = InstanceRequest::Abort { migration: ids.0, reason: "test".into(), hand_back: None };
    world.ask(A, abort.clone()).expect("aborts");
    world.ask(A, abort).expect("aborting twice is fine");
    assert_eq!(world.role(A), InstanceRole::Live);
    world.must_be_perfect();
}

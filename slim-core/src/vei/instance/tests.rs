//! Which request is accepted in which role, and a whole migration there and back.

use super::*;
use crate::protocol::control::{SAMPLE_MS_MAX, SourceTimeouts};
use crate::protocol::stream::StreamRole;
use crate::protocol::{FailureCode, MigrationPhase, SourcePhase};
use crate::vei::StreamEvent;
use alloc::vec::Vec;

const SHARD: ShardId = ShardId(0);

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn identity() -> Identity {
    Identity { kind: "nat".try_into().unwrap(), schema: Schema(1), shards: 1 }
}

fn prepare(migration: u64) -> InstanceRequest {
    InstanceRequest::Prepare {
        migration: MigrationId(migration),
        kind: "nat".try_into().unwrap(),
        schema: Schema(1),
        shards: 1,
        options: PrepareOptions::default(),
    }
}

fn start(migration: u64) -> InstanceRequest {
    let timeouts = SourceTimeouts { connect_ms: 10, ..SourceTimeouts::default() };
    InstanceRequest::Start {
        migration: MigrationId(migration),
        destination: "10.3.0.12:7002".parse().unwrap(),
        paths: PathSet::first(2),
        nonce: Nonce(5),
        options: StartOptions { timeouts, ..StartOptions::default() },
    }
}

fn abort(migration: u64) -> InstanceRequest {
    InstanceRequest::Abort { migration: MigrationId(migration), reason: Text::from("operator"), hand_back: None }
}

fn resolve(migration: u64) -> InstanceRequest {
    InstanceRequest::Resolve { migration: MigrationId(migration), outcome: ResolveOutcome::Release }
}

fn ask(instance: &mut Instance, request: &InstanceRequest) -> Result<Handled, ErrorCode> {
    instance.request(at(1), request).map_err(|error| error.code)
}

fn actions(instance: &mut Instance) -> Vec<Action> {
    core::iter::from_fn(|| instance.poll_action()).collect()
}

fn lcore(instance: &mut Instance, event: LcoreEvent) {
    instance.handle(at(1), Event::Lcore { shard: SHARD, event }).unwrap();
}

fn stream(instance: &mut Instance, event: StreamEvent) {
    instance.handle(at(1), Event::Stream { shard: SHARD, event }).unwrap();
}

/// An instance in this role, with migration 7 where there is one.
fn in_role(role: InstanceRole) -> Instance {
    let mut instance = Instance::new(identity());
    match role {
        InstanceRole::Idle => {}
        InstanceRole::Live => {
            ask(&mut instance, &InstanceRequest::Activate {}).unwrap();
        }
        InstanceRole::Source => {
            ask(&mut instance, &InstanceRequest::Activate {}).unwrap();
            ask(&mut instance, &start(7)).unwrap();
        }
        InstanceRole::Destination => {
            ask(&mut instance, &prepare(7)).unwrap();
        }
        InstanceRole::Discarded => {
            ask(&mut instance, &prepare(7)).unwrap();
            ask(&mut instance, &abort(7)).unwrap();
            lcore(&mut instance, LcoreEvent::Discarded(Default::default()));
            stream(&mut instance, StreamEvent::Closed);
        }
        InstanceRole::Released => {
            instance = in_role(InstanceRole::Source);
            for role in StreamRole::ALL {
                stream(&mut instance, StreamEvent::Accepted(role));
            }
            lcore(&mut instance, LcoreEvent::Frozen);
            stream(&mut instance, StreamEvent::SnapshotSent(Default::default()));
            for path in PathSet::first(2).iter() {
                let (migration, nonce, paths) = (MigrationId(7), Nonce(5), PathSet::first(2));
                let drain = crate::protocol::inband::Drain { migration, nonce, path, paths };
                lcore(&mut instance, LcoreEvent::Drain(drain));
            }
            lcore(&mut instance, LcoreEvent::Stopped(Default::default()));
            let digest = crate::protocol::Digest(1);
            instance.handle(at(1), Event::Digest { shard: SHARD, digest }).unwrap();
            stream(&mut instance, StreamEvent::Flushed { end: Default::default(), totals: Default::default() });
            stream(&mut instance, StreamEvent::TakenOver);
        }
    }
    actions(&mut instance);
    assert_eq!(instance.role(), role);
    instance
}

const ROLES: [InstanceRole; 6] = [
    InstanceRole::Idle,
    InstanceRole::Live,
    InstanceRole::Source,
    InstanceRole::Released,
    InstanceRole::Destination,
    InstanceRole::Discarded,
];

#[test]
fn each_request_is_accepted_in_these_roles_only() {
    use ErrorCode::{Busy, Committed, Malformed, UnknownMigration, WrongRole};
    let sample = |duration_ms| InstanceRequest::Sample { duration_ms };
    let done = Ok(Handled::Done);
    let no = Err(WrongRole);
    let unknown = Err(UnknownMigration);
    let renew = InstanceRequest::RenewIdentity { identity: String::from("x").into() };
    // Roles:                     idle     live     source     released        destination  discarded
    let table = [
        (InstanceRequest::Activate {}, [done, done, no, no, no, no]),
        (prepare(8), [done, no, no, no, no, no]),
        (start(8), [no, done, no, no, no, no]),
        (prepare(7), [done, no, Err(Busy), Err(Busy), done, Err(Busy)]),
        (start(7), [no, done, done, Err(Busy), Err(Busy), Err(Busy)]),
        (abort(7), [unknown, unknown, done, Err(Committed), done, done]),
        (abort(8), [unknown; 6]),
        (resolve(7), [unknown, unknown, no, done, no, no]),
        (resolve(8), [unknown; 6]),
        (InstanceRequest::Reset {}, [done, no, no, done, no, done]),
        (sample(1), [no, Ok(Handled::ByDriver), no, no, no, no]),
        (sample(SAMPLE_MS_MAX + 1), [no, Err(Malformed), no, no, no, no]),
        (InstanceRequest::Describe {}, [Ok(Handled::ByDriver); 6]),
        (InstanceRequest::Status {}, [Ok(Handled::ByDriver); 6]),
        (InstanceRequest::Config {}, [Ok(Handled::ByDriver); 6]),
        (InstanceRequest::Subscribers { from: None }, [Ok(Handled::ByDriver); 6]),
        (renew, [Ok(Handled::ByDriver); 6]),
        (InstanceRequest::Shutdown {}, [Ok(Handled::ByDriver); 6]),
    ];
    for (request, expected) in table {
        for (role, expected) in ROLES.into_iter().zip(expected) {
            let mut instance = in_role(role);
            assert_eq!(ask(&mut instance, &request), expected, "{request:?} as {role}");
            if expected.is_err() {
                assert_eq!(instance.role(), role, "a refusal changes nothing");
                assert_eq!(actions(&mut instance), []);
            }
        }
    }
}

#[test]
fn repeating_a_request_begins_nothing_twice() {
    for (role, request) in [
        (InstanceRole::Idle, InstanceRequest::Activate {}),
        (InstanceRole::Idle, prepare(7)),
        (InstanceRole::Live, start(7)),
        (InstanceRole::Released, InstanceRequest::Reset {}),
    ] {
        let mut instance = in_role(role);
        ask(&mut instance, &request).unwrap();
        assert_ne!(actions(&mut instance), []);
        ask(&mut instance, &request).unwrap();
        assert_eq!(actions(&mut instance), [], "{request:?}");
    }
}

#[test]
fn a_late_repetition_of_start_does_not_begin_an_old_migration_again() {
    let mut instance = in_role(InstanceRole::Source);
    ask(&mut instance, &abort(7)).unwrap();
    lcore(&mut instance, LcoreEvent::Resumed);
    stream(&mut instance, StreamEvent::Closed);
    assert_eq!(ask(&mut instance, &start(7)), Err(ErrorCode::Busy));
    assert_eq!(ask(&mut instance, &start(8)), Ok(Handled::Done));
}

#[test]
fn a_late_start_of_a_migration_before_the_last_does_not_begin_it_again_either() {
    let mut instance = in_role(InstanceRole::Source);
    for next in 8..12 {
        ask(&mut instance, &abort(next - 1)).unwrap();
        lcore(&mut instance, LcoreEvent::Resumed);
        stream(&mut instance, StreamEvent::Closed);
        for earlier in 7..next {
            assert_eq!(ask(&mut instance, &start(earlier)), Err(ErrorCode::Busy), "{earlier} after {next}");
        }
        assert_eq!(ask(&mut instance, &start(next)), Ok(Handled::Done));
    }
}

#[test]
fn the_rest_of_a_migration_is_in_the_way_of_the_next() {
    let mut instance = in_role(InstanceRole::Source);
    ask(&mut instance, &abort(7)).unwrap();
    assert_eq!(instance.role(), InstanceRole::Live);
    assert_eq!(ask(&mut instance, &start(8)), Err(ErrorCode::Busy));
}

#[test]
fn a_source_that_differs_is_refused_with_what_differs() {
    for (kind, schema, shards, word) in [("ids", 1, 1, "kind"), ("nat", 2, 1, "schema"), ("nat", 1, 2, "shards")] {
        let mut instance = in_role(InstanceRole::Idle);
        let request = InstanceRequest::Prepare {
            migration: MigrationId(7),
            kind: kind.try_into().unwrap(),
            schema: Schema(schema),
            shards,
            options: PrepareOptions::default(),
        };
        let error = instance.request(at(1), &request).unwrap_err();
        assert_eq!(error.code, ErrorCode::Incompatible);
        assert!(error.message.as_str().contains(word), "{error}");
        assert_eq!(instance.role(), InstanceRole::Idle);
    }
}

#[test]
fn a_start_without_paths_is_refused() {
    let mut instance = in_role(InstanceRole::Live);
    let InstanceRequest::Start { migration, destination, nonce, options, .. } = start(7) else { unreachable!() };
    let request = InstanceRequest::Start { migration, destination, paths: PathSet::EMPTY, nonce, options };
    assert_eq!(ask(&mut instance, &request), Err(ErrorCode::Malformed));
    assert_eq!(instance.role(), InstanceRole::Live);
}

#[test]
fn time_outs_strike_through_the_instance() {
    let mut instance = in_role(InstanceRole::Source);
    let due = instance.poll_timeout().unwrap();
    assert_eq!(due, at(11));
    instance.handle_timeout(due);
    assert_eq!(instance.role(), InstanceRole::Live);
    let status = instance.migration_status(due).unwrap();
    assert_eq!(status.phase, MigrationPhase::Source(SourcePhase::RollingBack));
    assert_eq!(status.failure.map(|failure| failure.code), Some(FailureCode::TimeOut));
}

#[test]
fn without_a_migration_only_drain_packets_are_tolerated() {
    let mut instance = in_role(InstanceRole::Live);
    let (path, paths) = (crate::protocol::PathIndex::new(0).unwrap(), PathSet::first(1));
    let drain = crate::protocol::inband::Drain { migration: MigrationId(3), nonce: Nonce(1), path, paths };
    lcore(&mut instance, LcoreEvent::Drain(drain));
    let event = Event::Lcore { shard: SHARD, event: LcoreEvent::Frozen };
    assert_eq!(instance.handle(at(1), event), Err(VeiError::NoMigration("frozen")));
    let handshake = in_role(InstanceRole::Source).source().unwrap().handshake(SHARD, StreamRole::Snapshot);
    assert_eq!(instance.accept(at(1), &handshake), Err(Rejection::Migration));
}

#[test]
fn the_last_migration_can_be_read_until_the_next_one() {
    let mut instance = in_role(InstanceRole::Released);
    assert_eq!(
        instance.migration_status(at(9)).map(|status| (status.id, status.finished)),
        Some((MigrationId(7), true))
    );
    ask(&mut instance, &InstanceRequest::Reset {}).unwrap();
    assert_eq!(instance.migration_status(at(9)), None);
    ask(&mut instance, &prepare(8)).unwrap();
    assert_eq!(instance.role(), InstanceRole::Destination);
}

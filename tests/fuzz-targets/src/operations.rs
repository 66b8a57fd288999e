//! Arbitrary requests, events and answers for the machines: any of them at any time, from a small world of names and
//! numbers, so that they often concern each other.

use crate::input::Input;
use slim_core::nf::ShardId;
use slim_core::protocol::control::{
    DestinationTimeouts, Holder, InstanceEvent, InstanceRequest, InstanceRole, MigrationReport, MigrationRole,
    PktQTotals, PrepareOptions, ResolveOutcome, SnapshotTotals, SourceTimeouts, StartOptions, StateletTotals,
    WorkloadTotals,
};
use slim_core::protocol::inband::Drain;
use slim_core::protocol::stream::{End, Handshake, Rejection, StreamRole};
use slim_core::protocol::{
    DestinationPhase, Digest, Failure, FailureCode, MigrationId, MigrationPhase, Name, Nonce, PathIndex, PathSet,
    Schema, SourcePhase, Text,
};
use slim_core::vei::{Event, LcoreEvent, LcoreTotals, StreamEvent};

/// The name, which must be one.
pub fn name(text: &str) -> Name {
    text.try_into().expect("a name")
}

/// One of three migrations.
pub fn migration(input: &mut Input<'_>) -> MigrationId {
    MigrationId(1 + input.one_of(&[0, 0, 0, 0, 0, 1, 2]))
}

/// One of three nonces.
pub fn nonce(input: &mut Input<'_>) -> Nonce {
    Nonce(5 + input.one_of(&[0, 0, 0, 0, 1, 2]))
}

/// Mostly the one kind there is.
pub fn kind(input: &mut Input<'_>) -> Name {
    name(if input.one_in(16) { "gateway" } else { "nat" })
}

/// Mostly the one schema there is.
pub fn schema(input: &mut Input<'_>) -> Schema {
    Schema(if input.one_in(16) { 2 } else { 1 })
}

/// Up to three shards; `usual` mostly.
pub fn shards(input: &mut Input<'_>, usual: u16) -> u16 {
    if input.one_in(16) { input.below(4) as u16 } else { usual }
}

fn shard(input: &mut Input<'_>) -> ShardId {
    ShardId(input.one_of(&[0, 0, 0, 1, 1, 2]))
}

fn stream_role(input: &mut Input<'_>) -> StreamRole {
    input.one_of(&StreamRole::ALL)
}

fn paths(input: &mut Input<'_>) -> PathSet {
    match input.below(16) {
        0 => PathSet::EMPTY,
        1 => PathSet(input.u64()),
        2 => PathSet::first(1),
        _ => PathSet::first(2),
    }
}

/// A time-out of none, one millisecond, or half a minute.
fn timeout_ms(input: &mut Input<'_>) -> u32 {
    input.one_of(&[30_000, 30_000, 1, 0, u32::MAX])
}

fn destination_timeouts(input: &mut Input<'_>) -> DestinationTimeouts {
    if input.flag() {
        return DestinationTimeouts::default();
    }
    DestinationTimeouts {
        arm_ms: timeout_ms(input),
        connect_ms: timeout_ms(input),
        install_ms: timeout_ms(input),
        synchronise_ms: timeout_ms(input),
        redirect_ms: timeout_ms(input),
        hand_back_ms: timeout_ms(input),
        digest_ms: timeout_ms(input),
    }
}

fn source_timeouts(input: &mut Input<'_>) -> SourceTimeouts {
    if input.flag() {
        return SourceTimeouts::default();
    }
    SourceTimeouts {
        connect_ms: timeout_ms(input),
        freeze_ms: timeout_ms(input),
        snapshot_ms: timeout_ms(input),
        drain_ms: timeout_ms(input),
        stop_ms: timeout_ms(input),
        flush_ms: timeout_ms(input),
        take_over_ms: timeout_ms(input),
        digest_ms: timeout_ms(input),
    }
}

/// A request to an instance.
pub fn instance_request(input: &mut Input<'_>, usual_shards: u16) -> InstanceRequest {
    match input.below(10) {
        0 => InstanceRequest::Describe {},
        1 | 2 => InstanceRequest::Activate {},
        3 => InstanceRequest::Prepare {
            migration: migration(input),
            kind: kind(input),
            schema: schema(input),
            shards: shards(input, usual_shards),
            options: PrepareOptions {
                underrun_records: input.one_of(&[0, 0, 10, u64::MAX]),
                timeouts: destination_timeouts(input),
                ..PrepareOptions::default()
            },
        },
        4 => InstanceRequest::Start {
            migration: migration(input),
            destination: ([10, 3, 0, 12], 7002).into(),
            paths: paths(input),
            nonce: nonce(input),
            options: StartOptions { timeouts: source_timeouts(input), ..StartOptions::default() },
        },
        5 => InstanceRequest::Abort {
            migration: migration(input),
            reason: Text::from("why not"),
            hand_back: input.flag().then(|| nonce(input)),
        },
        6 => InstanceRequest::Resolve {
            migration: migration(input),
            outcome: input.one_of(&[ResolveOutcome::Release, ResolveOutcome::Resume]),
        },
        7 => InstanceRequest::Reset {},
        8 => InstanceRequest::Status {},
        _ => InstanceRequest::Shutdown {},
    }
}

/// A handshake as any peer may send it.
pub fn handshake(input: &mut Input<'_>, usual_shards: u16) -> Handshake {
    let newest = input.one_of(&[1, 1, 1, 2, u16::MAX]);
    Handshake {
        version_min: input.one_of(&[1, 1, 1, 2]).min(newest),
        version_max: newest,
        role: stream_role(input),
        compressed: input.one_in(4),
        shard: shard(input),
        shards: shards(input, usual_shards),
        schema: schema(input),
        migration: migration(input),
        kind: kind(input),
    }
}

/// A count that no sum of a few can overflow: these come from our own threads.
fn count(input: &mut Input<'_>) -> u64 {
    input.u16().into()
}

/// One of two ends, so that they often agree.
fn end(input: &mut Input<'_>) -> End {
    if input.one_in(8) { End { records: input.u64(), crc: input.u32() } } else { End { records: 3, crc: 7 } }
}

fn statelets(input: &mut Input<'_>) -> StateletTotals {
    StateletTotals {
        records: count(input),
        value_bytes: count(input),
        bytes: count(input),
        merged: if input.one_in(4) { count(input) } else { 0 },
        stream_bytes: count(input),
        segments: count(input),
    }
}

fn snapshot(input: &mut Input<'_>) -> SnapshotTotals {
    SnapshotTotals { bytes: count(input), chunks: count(input), entries: count(input), filler_bytes: count(input) }
}

fn pkt_q(input: &mut Input<'_>) -> PktQTotals {
    PktQTotals { packets: count(input), longest_packets: count(input), ..PktQTotals::default() }
}

fn lcore_event(input: &mut Input<'_>) -> LcoreEvent {
    match input.below(12) {
        0 => LcoreEvent::Frozen,
        1 => LcoreEvent::StateletOverflow,
        2..=4 => LcoreEvent::Drain(Drain {
            migration: migration(input),
            nonce: nonce(input),
            path: PathIndex::new(input.below(2) as u8).expect("below 64"),
            paths: paths(input),
        }),
        5 => {
            let workload = WorkloadTotals { packets: count(input), bytes: count(input) };
            LcoreEvent::Stopped(LcoreTotals { statelets: statelets(input), workload })
        }
        6 => LcoreEvent::Resumed,
        7 => LcoreEvent::PktQArmed,
        8 => LcoreEvent::PktQDrained(pkt_q(input)),
        9 => LcoreEvent::HandedBack(pkt_q(input)),
        10 => LcoreEvent::Discarded(pkt_q(input)),
        _ => LcoreEvent::Frozen,
    }
}

fn stream_event(input: &mut Input<'_>) -> StreamEvent {
    match input.below(14) {
        0 | 1 => StreamEvent::Accepted(stream_role(input)),
        2 => StreamEvent::Refused(stream_role(input), input.one_of(&[Rejection::Migration, Rejection::NotReady])),
        3 => StreamEvent::SnapshotSent(snapshot(input)),
        4 => StreamEvent::Flushed { end: end(input), totals: statelets(input) },
        5 => StreamEvent::TakenOver,
        6 => StreamEvent::SnapshotInstalled(snapshot(input)),
        7 | 8 => {
            let records = if input.one_in(16) { input.u64() } else { 3 };
            let left = input.one_of(&[0, 0, 5, u64::MAX]);
            StreamEvent::Applied { records, left }
        }
        9 | 10 => {
            let (end, received) = (end(input), end(input));
            StreamEvent::EndReceived { end, received, totals: statelets(input) }
        }
        11 => StreamEvent::Lost(stream_role(input), Text::from("reset by peer")),
        12 => StreamEvent::Rejected(FailureCode::StreamCorrupt, Text::from("it makes no sense")),
        _ => StreamEvent::Closed,
    }
}

/// A report of an lcore or a stream.
pub fn vei_event(input: &mut Input<'_>) -> Event {
    let shard = shard(input);
    match input.below(8) {
        0..=3 => Event::Lcore { shard, event: lcore_event(input) },
        4..=6 => Event::Stream { shard, event: stream_event(input) },
        _ => Event::Digest { shard, digest: Digest(input.byte().into()) },
    }
}

/// A phase of either side.
pub fn phase(input: &mut Input<'_>, side: MigrationRole) -> MigrationPhase {
    const SOURCE: [SourcePhase; 11] = [
        SourcePhase::Connecting,
        SourcePhase::Freezing,
        SourcePhase::Transferring,
        SourcePhase::Draining,
        SourcePhase::Stopping,
        SourcePhase::Flushing,
        SourcePhase::Committed,
        SourcePhase::Unacknowledged,
        SourcePhase::Released,
        SourcePhase::RollingBack,
        SourcePhase::RolledBack,
    ];
    const DESTINATION: [DestinationPhase; 11] = [
        DestinationPhase::Arming,
        DestinationPhase::Armed,
        DestinationPhase::Installing,
        DestinationPhase::Synchronising,
        DestinationPhase::Redirecting,
        DestinationPhase::TakingOver,
        DestinationPhase::Live,
        DestinationPhase::Failed,
        DestinationPhase::HandingBack,
        DestinationPhase::Discarding,
        DestinationPhase::Discarded,
    ];
    // Hardly ever what the other side says.
    match (side, input.one_in(32)) {
        (MigrationRole::Source, false) | (MigrationRole::Destination, true) => {
            MigrationPhase::Source(input.one_of(&SOURCE))
        }
        _ => MigrationPhase::Destination(input.one_of(&DESTINATION)),
    }
}

/// An instance's role.
pub fn instance_role(input: &mut Input<'_>) -> InstanceRole {
    input.one_of(&[
        InstanceRole::Idle,
        InstanceRole::Live,
        InstanceRole::Source,
        InstanceRole::Released,
        InstanceRole::Destination,
        InstanceRole::Discarded,
    ])
}

/// Why something failed.
pub fn failure(input: &mut Input<'_>) -> Failure {
    let code = input.one_of(&[FailureCode::Aborted, FailureCode::TimeOut, FailureCode::Other, FailureCode::StreamLost]);
    Failure::new(code, "a reason")
}

/// A report with numbers as any instance may send them.
pub fn report(input: &mut Input<'_>, migration: MigrationId) -> MigrationReport {
    let mut report = MigrationReport::new(migration);
    report.digest = input.flag().then(|| Digest(input.below(2) as u128));
    if input.one_in(8) {
        report.workload = WorkloadTotals { packets: input.u64(), bytes: input.u64() };
        report.statelets.value_bytes = input.u64();
        report.statelets.records = input.u64();
        report.statelets.segments = input.u64();
        report.snapshot.bytes = u64::MAX;
    }
    report
}

/// An event of an instance.
pub fn instance_event(input: &mut Input<'_>, side: MigrationRole) -> InstanceEvent {
    let migration = migration(input);
    match input.below(8) {
        0 => InstanceEvent::Ready { name: name("nat-a"), role: instance_role(input) },
        1..=4 => {
            InstanceEvent::PhaseChanged { migration, phase: phase(input, side), instance_role: instance_role(input) }
        }
        5 => InstanceEvent::RedirectWanted { migration },
        6 => InstanceEvent::MigrationFinished { migration, side, report: Box::new(report(input, migration)) },
        _ => InstanceEvent::MigrationFailed {
            migration,
            side,
            failure: failure(input),
            holder: input.one_of(&[Holder::Source, Holder::Destination, Holder::Unknown]),
            holds_packets: input.flag(),
        },
    }
}

//! The source phase by phase: what it asks for, what it waits for, and what it does when that does not come.

use super::*;
use crate::protocol::control::{
    InstanceEvent, MigrationRole, SnapshotTotals, SourceTimeouts, StartOptions, StateletTotals, WorkloadTotals,
};
use crate::protocol::stream::Rejection;
use crate::protocol::{MigrationId, Mode, Nonce, PathIndex, Schema};
use crate::statelet::End;
use crate::vei::LcoreTotals;

const SHARDS: [ShardId; 2] = [ShardId(0), ShardId(1)];

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn parameters(shards: u16) -> SourceParameters {
    SourceParameters {
        migration: MigrationId(7),
        kind: "nat".try_into().unwrap(),
        schema: Schema(1),
        shards,
        destination: "10.3.0.12:7002".parse().unwrap(),
        paths: PathSet::first(2),
        nonce: Nonce(5),
        options: StartOptions::default(),
    }
}

/// A source, and the commands it has given since they were last looked at.
struct Bench {
    source: Source,
    shards: u16,
}

impl Bench {
    fn new(shards: u16) -> Self {
        Self { source: Source::new(at(0), parameters(shards)), shards }
    }

    fn ids(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shards).map(ShardId)
    }

    fn lcore(&mut self, shard: ShardId, event: LcoreEvent) -> Result<(), VeiError> {
        self.source.handle(at(1), Event::Lcore { shard, event })
    }

    fn stream(&mut self, shard: ShardId, event: StreamEvent) -> Result<(), VeiError> {
        self.source.handle(at(1), Event::Stream { shard, event })
    }

    fn drain(&mut self, path: u8, nonce: u32) {
        let path = PathIndex::new(path).unwrap();
        let drain = Drain { migration: MigrationId(7), nonce: Nonce(nonce), path, paths: PathSet::first(2) };
        self.lcore(SHARDS[0], LcoreEvent::Drain(drain)).unwrap();
    }

    fn actions(&mut self) -> Vec<Action> {
        core::iter::from_fn(|| self.source.poll_action()).collect()
    }

    fn lcore_commands(&mut self) -> Vec<(ShardId, LcoreCommand)> {
        let lcore = |action| match action {
            Action::Lcore { shard, command } => Some((shard, command)),
            Action::Stream { .. } | Action::Notify(_) => None,
        };
        self.actions().into_iter().filter_map(lcore).collect()
    }

    fn stream_commands(&mut self) -> Vec<(ShardId, StreamCommand)> {
        let stream = |action| match action {
            Action::Stream { shard, command } => Some((shard, command)),
            Action::Lcore { .. } | Action::Notify(_) => None,
        };
        self.actions().into_iter().filter_map(stream).collect()
    }

    /// Does everything up to `phase` as it should go.
    fn reach(mut self, phase: SourcePhase) -> Self {
        while self.source.phase() < phase {
            self.step();
        }
        assert_eq!(self.source.phase(), phase);
        self.actions();
        self
    }

    fn step(&mut self) {
        for shard in self.ids() {
            match self.source.phase() {
                SourcePhase::Connecting => {
                    self.stream(shard, StreamEvent::Accepted(StreamRole::Snapshot)).unwrap();
                    self.stream(shard, StreamEvent::Accepted(StreamRole::Statelets)).unwrap();
                }
                SourcePhase::Freezing => self.lcore(shard, LcoreEvent::Frozen).unwrap(),
                SourcePhase::Transferring => {
                    let totals = SnapshotTotals { bytes: 100, chunks: 2, entries: 10, filler_bytes: 0 };
                    self.stream(shard, StreamEvent::SnapshotSent(totals)).unwrap();
                }
                SourcePhase::Draining => {
                    self.drain(0, 5);
                    self.drain(1, 5);
                    return;
                }
                SourcePhase::Stopping => self.lcore(shard, LcoreEvent::Stopped(totals(3))).unwrap(),
                SourcePhase::Flushing => self.stream(shard, flushed(3)).unwrap(),
                SourcePhase::Committed => {
                    self.stream(shard, StreamEvent::TakenOver).unwrap();
                    return;
                }
                other => panic!("no step from {other:?}"),
            }
        }
    }
}

fn totals(records: u64) -> LcoreTotals {
    LcoreTotals {
        statelets: StateletTotals { records, value_bytes: 12 * records, bytes: 16 * records, ..StateletTotals::ZERO },
        workload: WorkloadTotals { packets: 2 * records, bytes: 1000 * records },
    }
}

fn flushed(records: u64) -> StreamEvent {
    let totals =
        StateletTotals { records, value_bytes: 12 * records, bytes: 16 * records, segments: 1, ..StateletTotals::ZERO };
    StreamEvent::Flushed { end: End { records, crc: 9 }, totals }
}

fn lost(role: StreamRole) -> StreamEvent {
    StreamEvent::Lost(role, Text::from("broken"))
}

const REVERSIBLE: [SourcePhase; 6] = [
    SourcePhase::Connecting,
    SourcePhase::Freezing,
    SourcePhase::Transferring,
    SourcePhase::Draining,
    SourcePhase::Stopping,
    SourcePhase::Flushing,
];

#[track_caller]
fn assert_rolls_back(bench: &mut Bench, code: FailureCode) {
    let actions = bench.actions();
    assert_eq!(bench.source.phase(), SourcePhase::RollingBack);
    assert_eq!(bench.source.role(), InstanceRole::Live);
    for shard in bench.ids() {
        assert!(actions.contains(&Action::Lcore { shard, command: LcoreCommand::Resume(None) }));
    }
    assert_eq!(bench.source.status(at(1)).failure.map(|failure| failure.code), Some(code));
    for shard in bench.ids() {
        assert!(!bench.source.is_over());
        bench.lcore(shard, LcoreEvent::Resumed).unwrap();
        bench.stream(shard, StreamEvent::Closed).unwrap();
    }
    assert_eq!(bench.source.phase(), SourcePhase::RolledBack);
    assert!(bench.source.is_over());
    assert_eq!(bench.source.poll_timeout(), None);
}

#[test]
fn first_it_connects_both_streams_of_every_shard() {
    let mut bench = Bench::new(2);
    let connect = |shard| StreamRole::ALL.map(|role| (shard, StreamCommand::Connect(role)));
    let commands = bench.stream_commands();
    assert_eq!(commands.len(), 4);
    assert!(SHARDS.into_iter().flat_map(connect).all(|wanted| commands.contains(&wanted)));
    let handshake = bench.source.handshake(SHARDS[1], StreamRole::Snapshot);
    assert_eq!((handshake.migration, handshake.shard, handshake.shards), (MigrationId(7), SHARDS[1], 2));
}

#[test]
fn it_freezes_only_when_every_stream_is_accepted() {
    let mut bench = Bench::new(2);
    bench.actions();
    for (shard, role) in [(0, StreamRole::Statelets), (1, StreamRole::Statelets), (1, StreamRole::Snapshot)] {
        bench.stream(SHARDS[shard], StreamEvent::Accepted(role)).unwrap();
        assert_eq!(bench.lcore_commands(), []);
    }
    bench.stream(SHARDS[0], StreamEvent::Accepted(StreamRole::Snapshot)).unwrap();
    assert_eq!(bench.lcore_commands(), SHARDS.map(|shard| (shard, LcoreCommand::Freeze(Mode::Statelet, None))));
}

#[test]
fn each_shard_sends_as_soon_as_it_is_frozen() {
    let mut bench = Bench::new(2).reach(SourcePhase::Freezing);
    bench.lcore(SHARDS[1], LcoreEvent::Frozen).unwrap();
    let sends = [StreamCommand::SendSnapshot, StreamCommand::SendStatelets];
    assert_eq!(bench.stream_commands(), sends.map(|command| (SHARDS[1], command)));
    assert_eq!(bench.source.phase(), SourcePhase::Freezing);
}

#[test]
fn it_stops_when_the_snapshot_is_sent_and_every_path_drained_in_either_order() {
    let mut first_drained = Bench::new(1).reach(SourcePhase::Transferring);
    first_drained.drain(0, 5);
    first_drained.drain(1, 5);
    assert_eq!(first_drained.lcore_commands(), []);
    first_drained.step();
    assert_eq!(first_drained.lcore_commands(), [(SHARDS[0], LcoreCommand::Stop)]);

    let mut first_sent = Bench::new(1).reach(SourcePhase::Draining);
    first_sent.drain(1, 5);
    assert_eq!(first_sent.lcore_commands(), []);
    assert_eq!(first_sent.source.status(at(1)).drained, PathSet(0b10));
    first_sent.drain(0, 5);
    assert_eq!(first_sent.lcore_commands(), [(SHARDS[0], LcoreCommand::Stop)]);
}

#[test]
fn drain_packets_of_another_stage_migration_or_set_of_paths_do_not_count() {
    let mut bench = Bench::new(1).reach(SourcePhase::Draining);
    let path = PathIndex::new(0).unwrap();
    let drain = Drain { migration: MigrationId(7), nonce: Nonce(5), path, paths: PathSet::first(2) };
    for wrong in [
        Drain { nonce: Nonce(4), ..drain },
        Drain { migration: MigrationId(6), ..drain },
        Drain { paths: PathSet::first(3), ..drain },
    ] {
        bench.lcore(SHARDS[0], LcoreEvent::Drain(wrong)).unwrap();
    }
    bench.drain(1, 5);
    bench.drain(1, 5);
    assert_eq!(bench.source.phase(), SourcePhase::Draining);
    assert_eq!(bench.source.status(at(1)).drained, PathSet(0b10));
}

#[test]
fn it_commits_only_when_every_shard_is_flushed() {
    let mut bench = Bench::new(2).reach(SourcePhase::Stopping);
    bench.lcore(SHARDS[1], LcoreEvent::Stopped(totals(3))).unwrap();
    bench.stream(SHARDS[1], flushed(3)).unwrap();
    bench.lcore(SHARDS[0], LcoreEvent::Stopped(totals(4))).unwrap();
    assert_eq!(bench.source.phase(), SourcePhase::Flushing);
    bench.actions();
    bench.stream(SHARDS[0], flushed(4)).unwrap();
    let end = |records| StreamCommand::SendEnd(End { records, crc: 9 });
    assert_eq!(bench.stream_commands(), [(SHARDS[0], end(4)), (SHARDS[1], end(3))]);
    assert_eq!(bench.source.phase(), SourcePhase::Committed);
}

#[test]
fn a_statelet_that_was_announced_but_not_sent_undoes_the_migration() {
    let mut bench = Bench::new(1).reach(SourcePhase::Flushing);
    bench.stream(SHARDS[0], flushed(2)).unwrap();
    assert_rolls_back(&mut bench, FailureCode::Protocol);
}

#[test]
fn taken_over_releases_and_the_report_waits_for_the_digests() {
    let mut bench = Bench::new(2).reach(SourcePhase::Committed);
    bench.source.handle(at(1), Event::Digest { shard: SHARDS[1], digest: Digest(2) }).unwrap();
    bench.stream(SHARDS[0], StreamEvent::TakenOver).unwrap();
    assert_eq!(bench.source.role(), InstanceRole::Released);
    let actions = bench.actions();
    for shard in SHARDS {
        assert!(actions.contains(&Action::Lcore { shard, command: LcoreCommand::Release(MigrationId(7)) }));
        assert!(actions.contains(&Action::Stream { shard, command: StreamCommand::Close }));
    }
    assert!(!bench.source.is_over());
    // The second shard's acknowledgement and the end of its stream change nothing.
    bench.stream(SHARDS[1], StreamEvent::TakenOver).unwrap();
    bench.stream(SHARDS[1], lost(StreamRole::Statelets)).unwrap();
    assert_eq!(bench.actions(), []);
    bench.source.handle(at(1), Event::Digest { shard: SHARDS[0], digest: Digest(1) }).unwrap();
    let [Action::Notify(InstanceEvent::MigrationFinished { report, side: MigrationRole::Source, .. })] =
        &bench.actions()[..]
    else {
        panic!("no report");
    };
    assert_eq!(report.digest, Some(Digest(3)));
    assert_eq!((report.statelets.records, report.workload.packets, report.snapshot.entries), (6, 12, 20));
    assert!(bench.source.is_over());
}

#[test]
fn a_digest_that_does_not_come_is_not_waited_for_forever() {
    let mut bench = Bench::new(1).reach(SourcePhase::Released);
    let due = bench.source.poll_timeout().unwrap();
    bench.source.handle_timeout(due);
    assert!(matches!(&bench.actions()[..], [Action::Notify(InstanceEvent::MigrationFinished { report, .. })]
        if report.digest.is_none()));
    assert!(bench.source.is_over());
}

#[test]
fn every_phase_before_the_commit_point_can_be_aborted() {
    for phase in REVERSIBLE {
        for shards in [1, 2] {
            let mut bench = Bench::new(shards).reach(phase);
            bench.source.abort(at(1), &Text::from("operator")).unwrap();
            assert_rolls_back(&mut bench, FailureCode::Aborted);
            assert_eq!(bench.source.abort(at(2), &Text::from("again")), Ok(()));
        }
    }
}

#[test]
fn every_phase_before_the_commit_point_has_a_time_out() {
    for phase in REVERSIBLE {
        let mut bench = Bench::new(1).reach(phase);
        let due = bench.source.poll_timeout().unwrap();
        bench.source.handle_timeout(Instant::from_nanos(due.as_nanos() - 1));
        assert_eq!(bench.source.phase(), phase);
        bench.source.handle_timeout(due);
        let failure = bench.source.proceedings.failure.clone().unwrap();
        let limit = parameters(1).options.timeouts.of(phase).unwrap().as_millis();
        let message = format!("src_inst was longer than {limit} ms in phase {phase}");
        assert_eq!(failure.message.as_str(), message);
        assert_rolls_back(&mut bench, FailureCode::TimeOut);
    }
}

#[test]
fn a_stream_lost_in_any_phase_before_the_commit_point_undoes_the_migration() {
    for phase in REVERSIBLE {
        let mut bench = Bench::new(2).reach(phase);
        bench.stream(SHARDS[1], lost(StreamRole::Statelets)).unwrap();
        assert_rolls_back(&mut bench, FailureCode::StreamLost);
    }
}

#[test]
fn the_snapshot_stream_may_close_once_the_snapshot_is_sent_but_not_before() {
    let mut before = Bench::new(1).reach(SourcePhase::Transferring);
    before.stream(SHARDS[0], lost(StreamRole::Snapshot)).unwrap();
    assert_rolls_back(&mut before, FailureCode::StreamLost);
    let mut after = Bench::new(1).reach(SourcePhase::Draining);
    after.stream(SHARDS[0], lost(StreamRole::Snapshot)).unwrap();
    assert_eq!(after.source.phase(), SourcePhase::Draining);
}

#[test]
fn a_refusal_undoes_the_migration() {
    let mut bench = Bench::new(1);
    bench.stream(SHARDS[0], StreamEvent::Refused(StreamRole::Statelets, Rejection::Schema)).unwrap();
    assert_rolls_back(&mut bench, FailureCode::StreamRefused);
}

#[test]
fn a_full_st_q_out_undoes_the_migration_while_the_lcore_still_announces() {
    for phase in [SourcePhase::Transferring, SourcePhase::Draining, SourcePhase::Stopping] {
        let mut bench = Bench::new(1).reach(phase);
        bench.lcore(SHARDS[0], LcoreEvent::StateletOverflow).unwrap();
        assert_rolls_back(&mut bench, FailureCode::StateletOverflow);
    }
}

#[test]
fn a_pkt_q_that_fills_undoes_the_migration_until_it_is_committed() {
    for phase in [SourcePhase::Stopping, SourcePhase::Flushing] {
        let mut bench = Bench::new(2).reach(phase);
        bench.lcore(SHARDS[0], LcoreEvent::PktQNearlyFull).unwrap();
        assert_rolls_back(&mut bench, FailureCode::PacketBacklog);
    }
    let mut bench = Bench::new(2).reach(SourcePhase::Committed);
    bench.lcore(SHARDS[0], LcoreEvent::PktQNearlyFull).unwrap();
    assert_eq!(bench.source.phase(), SourcePhase::Committed);
}

#[test]
fn the_commit_point_cannot_be_passed_backwards() {
    for phase in [SourcePhase::Committed, SourcePhase::Released] {
        let mut bench = Bench::new(1).reach(phase);
        assert_eq!(bench.source.abort(at(1), &Text::from("operator")), Err(VeiError::Committed));
        assert_eq!(bench.source.phase(), phase);
        assert_eq!(bench.actions(), []);
    }
    let mut released = Bench::new(1).reach(SourcePhase::Released);
    assert_eq!(released.source.resolve(at(1), ResolveOutcome::Resume), Err(VeiError::Committed));
    assert_eq!(released.source.resolve(at(1), ResolveOutcome::Release), Ok(()));
}

/// Committed, and the stream broke.
fn unacknowledged() -> Bench {
    let mut bench = Bench::new(1).reach(SourcePhase::Committed);
    bench.stream(SHARDS[0], lost(StreamRole::Statelets)).unwrap();
    let actions = bench.actions();
    assert!(actions.iter().any(|action| matches!(
        action,
        Action::Notify(InstanceEvent::MigrationFailed { holder: Holder::Unknown, failure, .. })
            if failure.code == FailureCode::Unacknowledged
    )));
    assert!(!actions.iter().any(|action| matches!(action, Action::Lcore { .. })), "{actions:?}");
    assert_eq!(bench.source.poll_timeout(), None);
    bench
}

#[test]
fn without_acknowledgement_it_does_nothing_until_told_to_release() {
    let mut bench = unacknowledged();
    bench.source.resolve(at(1), ResolveOutcome::Release).unwrap();
    assert_eq!(bench.source.phase(), SourcePhase::Released);
    assert_eq!(bench.lcore_commands(), [(SHARDS[0], LcoreCommand::Release(MigrationId(7)))]);
}

#[test]
fn without_acknowledgement_it_resumes_when_told_so() {
    let mut bench = unacknowledged();
    bench.source.resolve(at(1), ResolveOutcome::Resume).unwrap();
    assert_rolls_back(&mut bench, FailureCode::Unacknowledged);
    assert_eq!(bench.source.resolve(at(1), ResolveOutcome::Resume), Ok(()));
    assert_eq!(bench.source.resolve(at(1), ResolveOutcome::Release), Err(VeiError::NotCommitted));
}

#[test]
fn a_late_acknowledgement_still_releases() {
    let mut bench = unacknowledged();
    bench.stream(SHARDS[0], StreamEvent::TakenOver).unwrap();
    assert_eq!(bench.source.phase(), SourcePhase::Released);
}

#[test]
fn silence_after_the_commit_point_is_a_lost_acknowledgement() {
    let mut bench = Bench::new(1).reach(SourcePhase::Committed);
    bench.source.handle_timeout(bench.source.poll_timeout().unwrap());
    assert_eq!(bench.source.phase(), SourcePhase::Unacknowledged);
}

#[test]
fn nothing_can_be_resolved_before_the_commit_point() {
    for phase in REVERSIBLE {
        for outcome in [ResolveOutcome::Release, ResolveOutcome::Resume] {
            let mut bench = Bench::new(1).reach(phase);
            assert_eq!(bench.source.resolve(at(1), outcome), Err(VeiError::NotCommitted));
        }
    }
}

/// Otherwise a freeze that the abort has overtaken would leave frozen state with nobody to drop it.
#[test]
fn at_a_rollback_a_shard_s_streams_close_only_after_its_lcore_has_resumed() {
    let mut bench = Bench::new(2).reach(SourcePhase::Freezing);
    bench.source.abort(at(1), &Text::from("operator")).unwrap();
    assert_eq!(bench.stream_commands(), []);
    bench.lcore(SHARDS[1], LcoreEvent::Frozen).unwrap();
    assert_eq!(bench.stream_commands(), [], "nothing is sent any more");
    bench.lcore(SHARDS[1], LcoreEvent::Resumed).unwrap();
    assert_eq!(bench.stream_commands(), [(SHARDS[1], StreamCommand::Close)]);
}

#[test]
fn reports_that_were_under_way_at_a_rollback_are_ignored() {
    let mut bench = Bench::new(1).reach(SourcePhase::Stopping);
    bench.source.abort(at(1), &Text::from("operator")).unwrap();
    bench.lcore(SHARDS[0], LcoreEvent::StateletOverflow).unwrap();
    bench.lcore(SHARDS[0], LcoreEvent::Stopped(totals(1))).unwrap();
    bench.stream(SHARDS[0], flushed(1)).unwrap();
    bench.stream(SHARDS[0], lost(StreamRole::Statelets)).unwrap();
    bench.source.handle(at(1), Event::Digest { shard: SHARDS[0], digest: Digest(1) }).unwrap();
    assert_rolls_back(&mut bench, FailureCode::Aborted);
}

#[test]
fn events_out_of_order_are_errors_and_change_nothing() {
    let mut bench = Bench::new(1);
    bench.actions();
    let unexpected =
        |event, phase| Err(VeiError::Unexpected { shard: SHARDS[0], phase: MigrationPhase::Source(phase), event });
    assert_eq!(bench.lcore(SHARDS[0], LcoreEvent::Frozen), unexpected("frozen", SourcePhase::Connecting));
    assert_eq!(bench.stream(SHARDS[0], StreamEvent::TakenOver), unexpected("taken over", SourcePhase::Connecting));
    assert_eq!(bench.stream(SHARDS[0], flushed(0)), unexpected("flushed", SourcePhase::Connecting));
    assert_eq!(
        bench.lcore(SHARDS[0], LcoreEvent::StateletOverflow),
        unexpected("statelet overflow", SourcePhase::Connecting)
    );
    assert_eq!(bench.lcore(SHARDS[0], LcoreEvent::PktQArmed), unexpected("pkt_q armed", SourcePhase::Connecting));
    assert_eq!(bench.stream(SHARDS[1], StreamEvent::TakenOver), Err(VeiError::UnknownShard(SHARDS[1])));
    bench.stream(SHARDS[0], StreamEvent::Accepted(StreamRole::Snapshot)).unwrap();
    assert_eq!(
        bench.stream(SHARDS[0], StreamEvent::Accepted(StreamRole::Snapshot)),
        unexpected("stream accepted", SourcePhase::Connecting)
    );
    assert_eq!(bench.actions(), []);
    assert_eq!(bench.source.phase(), SourcePhase::Connecting);
    let mut stopping = Bench::new(1).reach(SourcePhase::Stopping);
    assert_eq!(stopping.stream(SHARDS[0], flushed(3)), unexpected("flushed", SourcePhase::Stopping));
}

#[test]
fn a_time_out_of_zero_never_strikes() {
    let timeouts = SourceTimeouts { connect_ms: 0, ..SourceTimeouts::default() };
    let options = StartOptions { timeouts, ..StartOptions::default() };
    let source = Source::new(at(0), SourceParameters { options, ..parameters(1) });
    assert_eq!(source.poll_timeout(), None);
}

#[test]
fn the_report_times_each_phase_and_stands_still_at_the_end() {
    let mut source = Source::new(at(10), parameters(1));
    for (now, role) in [(12, StreamRole::Statelets), (15, StreamRole::Snapshot)] {
        source.handle(at(now), Event::Stream { shard: SHARDS[0], event: StreamEvent::Accepted(role) }).unwrap();
    }
    let report = source.report(at(18));
    let phases: Vec<_> = report.phases.iter().map(|entry| (entry.phase, entry.duration_us)).collect();
    let phase = MigrationPhase::Source;
    assert_eq!(phases, [(phase(SourcePhase::Connecting), 5000), (phase(SourcePhase::Freezing), 3000)]);
    assert_eq!(report.total_us, 8000);
    let released = Bench::new(1).reach(SourcePhase::Released);
    assert_eq!(released.source.report(at(1)), released.source.report(at(5000)));
}

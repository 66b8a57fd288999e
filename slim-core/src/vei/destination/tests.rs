//! The destination phase by phase.

use super::*;
use crate::protocol::control::{
    DestinationTimeouts, InstanceEvent, MigrationRole, PktQTotals, PrepareOptions, SnapshotTotals, StateletTotals,
};
use crate::protocol::{MigrationId, PathIndex, Schema};
use crate::statelet::End;

const SHARDS: [ShardId; 2] = [ShardId(0), ShardId(1)];
const BACK: Nonce = Nonce(6);

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn parameters(shards: u16) -> DestinationParameters {
    DestinationParameters {
        migration: MigrationId(7),
        kind: "nat".try_into().unwrap(),
        schema: Schema(1),
        shards,
        options: PrepareOptions::default(),
    }
}

fn handshake(shard: ShardId, shards: u16, role: StreamRole) -> Handshake {
    Handshake {
        version_min: 1,
        version_max: 1,
        role,
        compressed: false,
        shard,
        shards,
        schema: Schema(1),
        migration: MigrationId(7),
        kind: "nat".try_into().unwrap(),
    }
}

struct Bench {
    destination: Destination,
    shards: u16,
}

impl Bench {
    fn new(shards: u16) -> Self {
        Self { destination: Destination::new(at(0), parameters(shards)), shards }
    }

    fn ids(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shards).map(ShardId)
    }

    fn lcore(&mut self, shard: ShardId, event: LcoreEvent) -> Result<(), VeiError> {
        self.destination.handle(at(1), Event::Lcore { shard, event })
    }

    fn stream(&mut self, shard: ShardId, event: StreamEvent) -> Result<(), VeiError> {
        self.destination.handle(at(1), Event::Stream { shard, event })
    }

    fn accept(&mut self, shard: ShardId, role: StreamRole) -> HandshakeReply {
        self.destination.accept(at(1), &handshake(shard, self.shards, role))
    }

    fn drain(&mut self, path: u8, nonce: Nonce) {
        let path = PathIndex::new(path).unwrap();
        let drain = Drain { migration: MigrationId(7), nonce, path, paths: PathSet::first(2) };
        self.lcore(SHARDS[0], LcoreEvent::Drain(drain)).unwrap();
    }

    fn abort(&mut self, hand_back: Option<Nonce>) -> Result<(), VeiError> {
        self.destination.abort(at(1), &Text::from("operator"), hand_back)
    }

    fn actions(&mut self) -> Vec<Action> {
        core::iter::from_fn(|| self.destination.poll_action()).collect()
    }

    fn commands(&mut self) -> Vec<Action> {
        self.actions().into_iter().filter(|action| !matches!(action, Action::Notify(_))).collect()
    }

    fn reach(mut self, phase: DestinationPhase) -> Self {
        while self.destination.phase() < phase {
            self.step();
        }
        assert_eq!(self.destination.phase(), phase);
        self.actions();
        self
    }

    fn step(&mut self) {
        for shard in self.ids() {
            match self.destination.phase() {
                DestinationPhase::Arming => self.lcore(shard, LcoreEvent::PktQArmed).unwrap(),
                DestinationPhase::Armed => {
                    self.accept(shard, StreamRole::Snapshot).unwrap();
                    self.accept(shard, StreamRole::Statelets).unwrap();
                }
                DestinationPhase::Installing => {
                    let totals = SnapshotTotals { bytes: 100, chunks: 2, entries: 10, filler_bytes: 0 };
                    self.stream(shard, StreamEvent::SnapshotInstalled(totals)).unwrap();
                }
                DestinationPhase::Synchronising => self.stream(shard, applied(2, 0)).unwrap(),
                DestinationPhase::Redirecting => {
                    self.stream(shard, ended(3, 3)).unwrap();
                    self.stream(shard, applied(3, 0)).unwrap();
                }
                DestinationPhase::TakingOver => self.lcore(shard, LcoreEvent::PktQDrained(pkt_q())).unwrap(),
                other => panic!("no step from {other:?}"),
            }
        }
    }
}

fn applied(records: u64, left: u64) -> StreamEvent {
    StreamEvent::Applied { records, left }
}

fn ended(end: u64, received: u64) -> StreamEvent {
    let totals = StateletTotals { records: received, value_bytes: 12, bytes: 16, ..StateletTotals::ZERO };
    StreamEvent::EndReceived { end: End { records: end, crc: 1 }, received: End { records: received, crc: 1 }, totals }
}

fn pkt_q() -> PktQTotals {
    PktQTotals { packets: 5, longest_packets: 4, longest_bytes: 400, ..PktQTotals::default() }
}

fn lost(role: StreamRole) -> StreamEvent {
    StreamEvent::Lost(role, Text::from("broken"))
}

const REVERSIBLE: [DestinationPhase; 5] = [
    DestinationPhase::Arming,
    DestinationPhase::Armed,
    DestinationPhase::Installing,
    DestinationPhase::Synchronising,
    DestinationPhase::Redirecting,
];

#[track_caller]
fn assert_failed(bench: &mut Bench, code: FailureCode, expected: Holder) {
    assert_eq!(bench.destination.phase(), DestinationPhase::Failed);
    assert_eq!(bench.destination.role(), InstanceRole::Destination);
    let actions = bench.actions();
    assert!(
        actions.iter().any(|action| matches!(
            action,
            Action::Notify(InstanceEvent::MigrationFailed {
                failure, holder, holds_packets: true, side: MigrationRole::Destination, ..
            }) if failure.code == code && *holder == expected
        )),
        "{actions:?}"
    );
    for shard in bench.ids() {
        assert!(actions.contains(&Action::Stream { shard, command: StreamCommand::Close }));
    }
    // It keeps what it holds: no lcore is told anything.
    assert!(!actions.iter().any(|action| matches!(action, Action::Lcore { .. })));
    assert_eq!(bench.destination.poll_timeout(), None);
}

#[track_caller]
fn assert_discards(bench: &mut Bench) {
    assert_eq!(bench.destination.phase(), DestinationPhase::Discarding);
    let commands = bench.commands();
    for shard in bench.ids() {
        assert!(commands.contains(&Action::Lcore { shard, command: LcoreCommand::Discard }), "{commands:?}");
    }
    for shard in bench.ids() {
        assert!(!bench.destination.is_over());
        bench.lcore(shard, LcoreEvent::Discarded(pkt_q())).unwrap();
        bench.stream(shard, StreamEvent::Closed).unwrap();
    }
    assert_eq!(bench.destination.phase(), DestinationPhase::Discarded);
    assert_eq!(bench.destination.role(), InstanceRole::Discarded);
    assert!(bench.destination.is_over() && bench.destination.status(at(1)).finished);
}

#[test]
fn it_takes_no_stream_before_pkt_q_is_armed() {
    let mut bench = Bench::new(2);
    let armed = |shard| Action::Lcore { shard, command: LcoreCommand::ArmPktQ };
    assert_eq!(bench.commands(), SHARDS.map(armed));
    bench.lcore(SHARDS[1], LcoreEvent::PktQArmed).unwrap();
    assert_eq!(bench.accept(SHARDS[1], StreamRole::Snapshot), Err(Rejection::NotReady));
    bench.lcore(SHARDS[0], LcoreEvent::PktQArmed).unwrap();
    assert_eq!(bench.accept(SHARDS[1], StreamRole::Snapshot), Ok(1));
}

#[test]
fn each_wrong_field_of_a_handshake_has_its_reason() {
    let mut bench = Bench::new(2).reach(DestinationPhase::Armed);
    let good = handshake(SHARDS[0], 2, StreamRole::Snapshot);
    for (wrong, reason) in [
        (Handshake { version_min: 2, version_max: 3, ..good.clone() }, Rejection::Version),
        (Handshake { migration: MigrationId(8), ..good.clone() }, Rejection::Migration),
        (Handshake { kind: "ids".try_into().unwrap(), ..good.clone() }, Rejection::Kind),
        (Handshake { schema: Schema(2), ..good.clone() }, Rejection::Schema),
        (Handshake { shards: 1, ..good.clone() }, Rejection::Shards),
        (Handshake { shard: ShardId(2), ..good.clone() }, Rejection::Shards),
    ] {
        assert_eq!(bench.destination.accept(at(1), &wrong), Err(reason), "{wrong:?}");
    }
    assert_eq!(bench.destination.accept(at(1), &good), Ok(1));
    assert_eq!(bench.destination.accept(at(1), &good), Err(Rejection::Duplicate));
    assert_eq!(bench.destination.phase(), DestinationPhase::Armed);
}

#[test]
fn a_shard_applies_statelets_only_after_its_snapshot() {
    let mut bench = Bench::new(2).reach(DestinationPhase::Installing);
    assert!(bench.stream(SHARDS[0], applied(1, 0)).is_err());
    bench.stream(SHARDS[1], StreamEvent::SnapshotInstalled(SnapshotTotals::default())).unwrap();
    let apply = Action::Stream { shard: SHARDS[1], command: StreamCommand::ApplyStatelets };
    assert_eq!(bench.commands(), [apply]);
    assert_eq!(bench.destination.phase(), DestinationPhase::Installing);
}

#[test]
fn the_redirect_is_wanted_once_at_the_first_underrun_of_every_shard() {
    let mut bench = Bench::new(2).reach(DestinationPhase::Synchronising);
    bench.stream(SHARDS[0], applied(4, 0)).unwrap();
    bench.stream(SHARDS[1], applied(3, 1)).unwrap();
    assert_eq!(bench.actions(), []);
    // The first shard has statelets left again; its underrun has been.
    bench.stream(SHARDS[0], applied(5, 9)).unwrap();
    bench.stream(SHARDS[1], applied(4, 0)).unwrap();
    let wanted = |bench: &mut Bench| {
        let redirect = |action: &Action| matches!(action, Action::Notify(InstanceEvent::RedirectWanted { .. }));
        bench.actions().iter().filter(|action| redirect(action)).count()
    };
    assert_eq!(wanted(&mut bench), 1);
    bench.stream(SHARDS[0], applied(14, 0)).unwrap();
    assert_eq!(wanted(&mut bench), 0);
}

#[test]
fn a_destination_that_buffers_wants_the_redirect_before_the_snapshot() {
    let options = PrepareOptions { mode: Mode::Buffer, ..PrepareOptions::default() };
    let destination = Destination::new(at(0), DestinationParameters { options, ..parameters(1) });
    let mut bench = Bench { destination, shards: 1 }.reach(DestinationPhase::Armed);
    bench.destination.accept(at(5), &handshake(SHARDS[0], 1, StreamRole::Statelets)).unwrap();
    assert_eq!(bench.destination.phase(), DestinationPhase::Armed);
    bench.actions();
    bench.destination.accept(at(5), &handshake(SHARDS[0], 1, StreamRole::Snapshot)).unwrap();
    assert_eq!(bench.destination.phase(), DestinationPhase::Redirecting);
    let wanted = Action::Notify(InstanceEvent::RedirectWanted { migration: MigrationId(7) });
    assert!(bench.actions().contains(&wanted));
    let timeouts = DestinationTimeouts::default();
    let all = timeouts.install_ms + timeouts.synchronise_ms + timeouts.redirect_ms;
    assert_eq!(bench.destination.poll_timeout(), Some(at(5) + Duration::from_millis(all.into())));
    // The end alone is not enough, nor is the snapshot.
    bench.stream(SHARDS[0], ended(0, 0)).unwrap();
    assert_eq!(bench.destination.phase(), DestinationPhase::Redirecting);
    bench.stream(SHARDS[0], StreamEvent::SnapshotInstalled(SnapshotTotals::default())).unwrap();
    assert_eq!(bench.destination.role(), InstanceRole::Live);
}

#[test]
fn an_underrun_may_leave_d_statelets() {
    let options = PrepareOptions { underrun_records: 3, ..PrepareOptions::default() };
    let mut bench =
        Bench { destination: Destination::new(at(0), DestinationParameters { options, ..parameters(1) }), shards: 1 }
            .reach(DestinationPhase::Synchronising);
    bench.stream(SHARDS[0], applied(1, 4)).unwrap();
    assert_eq!(bench.destination.phase(), DestinationPhase::Synchronising);
    bench.stream(SHARDS[0], applied(2, 3)).unwrap();
    assert_eq!(bench.destination.phase(), DestinationPhase::Redirecting);
}

#[test]
fn it_takes_over_when_every_shard_has_ended_and_applied_everything() {
    let mut bench = Bench::new(2).reach(DestinationPhase::Redirecting);
    bench.stream(SHARDS[0], ended(5, 5)).unwrap();
    bench.stream(SHARDS[0], applied(4, 1)).unwrap();
    bench.stream(SHARDS[1], applied(9, 0)).unwrap();
    bench.stream(SHARDS[1], ended(9, 9)).unwrap();
    assert_eq!(bench.destination.phase(), DestinationPhase::Redirecting);
    bench.stream(SHARDS[0], applied(5, 0)).unwrap();
    let commands = bench.commands();
    let take_over = |shard| Action::Lcore { shard, command: LcoreCommand::TakeOver(None) };
    let acknowledge = |shard| Action::Stream { shard, command: StreamCommand::SendTakenOver };
    assert_eq!(commands, [take_over(SHARDS[0]), take_over(SHARDS[1]), acknowledge(SHARDS[0]), acknowledge(SHARDS[1])]);
    assert_eq!(bench.destination.role(), InstanceRole::Live);
}

#[test]
fn it_is_live_when_pkt_q_is_processed_and_reports_when_the_digests_are_there() {
    let mut bench = Bench::new(2).reach(DestinationPhase::TakingOver);
    bench.destination.handle(at(1), Event::Digest { shard: SHARDS[0], digest: Digest(1) }).unwrap();
    bench.destination.handle(at(1), Event::Digest { shard: SHARDS[1], digest: Digest(2) }).unwrap();
    bench.lcore(SHARDS[0], LcoreEvent::PktQDrained(pkt_q())).unwrap();
    assert_eq!(bench.destination.phase(), DestinationPhase::TakingOver);
    bench.lcore(SHARDS[1], LcoreEvent::PktQDrained(pkt_q())).unwrap();
    assert_eq!(bench.destination.phase(), DestinationPhase::Live);
    let report = bench.actions().into_iter().find_map(|action| match action {
        Action::Notify(InstanceEvent::MigrationFinished { report, .. }) => Some(report),
        _ => None,
    });
    let report = report.expect("a report");
    assert_eq!((report.digest, report.pkt_q.packets, report.pkt_q.longest_packets), (Some(Digest(3)), 10, 8));
    assert_eq!((report.statelets.records, report.snapshot.entries), (6, 20));
    assert!(bench.destination.is_over());
}

#[test]
fn a_stream_that_ends_without_its_end_record_is_a_failure() {
    for phase in [DestinationPhase::Installing, DestinationPhase::Synchronising, DestinationPhase::Redirecting] {
        let mut bench = Bench::new(2).reach(phase);
        bench.stream(SHARDS[1], lost(StreamRole::Statelets)).unwrap();
        assert_failed(&mut bench, FailureCode::StreamLost, Holder::Source);
    }
}

#[test]
fn the_snapshot_stream_must_last_until_the_snapshot_is_installed_but_no_longer() {
    let mut before = Bench::new(1).reach(DestinationPhase::Installing);
    before.stream(SHARDS[0], lost(StreamRole::Snapshot)).unwrap();
    assert_failed(&mut before, FailureCode::StreamLost, Holder::Source);
    let mut after = Bench::new(1).reach(DestinationPhase::Synchronising);
    after.stream(SHARDS[0], lost(StreamRole::Snapshot)).unwrap();
    assert_eq!(after.destination.phase(), DestinationPhase::Synchronising);
}

#[test]
fn once_everything_has_arrived_the_stream_is_not_needed_any_more() {
    let mut bench = Bench::new(1).reach(DestinationPhase::Redirecting);
    bench.stream(SHARDS[0], ended(3, 3)).unwrap();
    bench.stream(SHARDS[0], lost(StreamRole::Statelets)).unwrap();
    bench.stream(SHARDS[0], applied(3, 0)).unwrap();
    assert_eq!(bench.destination.phase(), DestinationPhase::TakingOver);
}

#[test]
fn an_end_record_that_differs_is_a_failure_of_which_only_the_source_knows_the_rest() {
    let mut count = Bench::new(1).reach(DestinationPhase::Redirecting);
    count.stream(SHARDS[0], ended(4, 3)).unwrap();
    assert_failed(&mut count, FailureCode::EndMismatch, Holder::Unknown);
    let mut crc = Bench::new(1).reach(DestinationPhase::Redirecting);
    let received = End { records: 3, crc: 2 };
    let event =
        StreamEvent::EndReceived { end: End { records: 3, crc: 1 }, received, totals: StateletTotals::default() };
    crc.stream(SHARDS[0], event).unwrap();
    assert_failed(&mut crc, FailureCode::EndMismatch, Holder::Unknown);
}

#[test]
fn what_cannot_be_installed_is_a_failure() {
    for code in [FailureCode::SnapshotRejected, FailureCode::StateletRejected, FailureCode::StateletBacklog] {
        let mut bench = Bench::new(1).reach(DestinationPhase::Installing);
        bench.stream(SHARDS[0], StreamEvent::Rejected(code, Text::from("bad"))).unwrap();
        assert_failed(&mut bench, code, Holder::Source);
    }
}

#[test]
fn every_phase_before_the_commit_point_has_a_time_out() {
    for phase in REVERSIBLE {
        let mut bench = Bench::new(1).reach(phase);
        let due = bench.destination.poll_timeout().unwrap();
        bench.destination.handle_timeout(Instant::from_nanos(due.as_nanos() - 1));
        assert_eq!(bench.destination.phase(), phase);
        bench.destination.handle_timeout(due);
        let failure = bench.destination.proceedings.failure.clone().unwrap();
        assert!(failure.message.as_str().ends_with(&format!(" ms in phase {phase}")), "{failure}");
        assert_failed(&mut bench, FailureCode::TimeOut, Holder::Source);
    }
}

#[test]
fn an_abort_without_packets_discards_at_once_from_every_phase() {
    for phase in REVERSIBLE {
        for shards in [1, 2] {
            let mut bench = Bench::new(shards).reach(phase);
            bench.abort(None).unwrap();
            assert_discards(&mut bench);
            assert_eq!(bench.abort(None), Ok(()));
            assert_eq!(bench.abort(Some(BACK)), Ok(()));
        }
    }
}

#[test]
fn packets_are_handed_back_only_after_the_drain_packets_of_every_path() {
    let mut bench = Bench::new(2).reach(DestinationPhase::Redirecting);
    bench.abort(Some(BACK)).unwrap();
    bench.actions();
    bench.drain(0, Nonce(5));
    bench.drain(1, Nonce(5));
    assert_eq!(bench.commands(), [], "drain packets of another stage");
    bench.drain(0, BACK);
    assert_eq!(bench.commands(), []);
    bench.drain(1, BACK);
    let hand_back = |shard| Action::Lcore { shard, command: LcoreCommand::HandBack(MigrationId(7), None) };
    assert_eq!(bench.commands(), SHARDS.map(hand_back));
    bench.lcore(SHARDS[0], LcoreEvent::HandedBack(pkt_q())).unwrap();
    assert_eq!(bench.destination.phase(), DestinationPhase::HandingBack);
    bench.lcore(SHARDS[1], LcoreEvent::HandedBack(pkt_q())).unwrap();
    assert_discards(&mut bench);
}

#[test]
fn drain_packets_may_come_before_the_abort() {
    let mut bench = Bench::new(1).reach(DestinationPhase::Redirecting);
    bench.drain(1, BACK);
    bench.drain(0, BACK);
    assert_eq!(bench.destination.phase(), DestinationPhase::Redirecting);
    bench.actions();
    bench.abort(Some(BACK)).unwrap();
    let commands = bench.commands();
    assert!(
        commands.contains(&Action::Lcore { shard: SHARDS[0], command: LcoreCommand::HandBack(MigrationId(7), None) })
    );
}

#[test]
fn a_failed_destination_keeps_its_packets_until_told_and_then_hands_them_back() {
    let mut bench = Bench::new(1).reach(DestinationPhase::Redirecting);
    bench.stream(SHARDS[0], lost(StreamRole::Statelets)).unwrap();
    assert_failed(&mut bench, FailureCode::StreamLost, Holder::Source);
    assert_eq!(bench.accept(SHARDS[0], StreamRole::Snapshot), Err(Rejection::Duplicate));
    bench.drain(0, BACK);
    bench.drain(1, BACK);
    bench.abort(Some(BACK)).unwrap();
    bench.lcore(SHARDS[0], LcoreEvent::HandedBack(pkt_q())).unwrap();
    let streams_closed_once = bench.actions();
    assert!(!streams_closed_once.iter().any(|action| matches!(action, Action::Stream { .. })));
    bench.lcore(SHARDS[0], LcoreEvent::Discarded(pkt_q())).unwrap();
    bench.stream(SHARDS[0], StreamEvent::Closed).unwrap();
    assert_eq!(bench.destination.phase(), DestinationPhase::Discarded);
    // The first failure is the one that is remembered.
    assert_eq!(bench.destination.status(at(1)).failure.map(|failure| failure.code), Some(FailureCode::StreamLost));
}

#[test]
fn drain_packets_that_never_come_are_not_waited_for_forever() {
    let mut bench = Bench::new(1).reach(DestinationPhase::Redirecting);
    bench.abort(Some(BACK)).unwrap();
    bench.actions();
    bench.destination.handle_timeout(bench.destination.poll_timeout().unwrap());
    assert_eq!(
        bench.commands(),
        [Action::Lcore { shard: SHARDS[0], command: LcoreCommand::HandBack(MigrationId(7), None) }]
    );
    // Nor is handing back.
    bench.destination.handle_timeout(at(60_000));
    bench.lcore(SHARDS[0], LcoreEvent::HandedBack(pkt_q())).unwrap();
    assert_discards(&mut bench);
}

#[test]
fn an_abort_that_needs_no_packets_ends_the_wait() {
    let mut bench = Bench::new(1).reach(DestinationPhase::Redirecting);
    bench.abort(Some(BACK)).unwrap();
    bench.abort(None).unwrap();
    assert_discards(&mut bench);
}

#[test]
fn the_commit_point_cannot_be_passed_backwards() {
    for phase in [DestinationPhase::TakingOver, DestinationPhase::Live] {
        for hand_back in [None, Some(BACK)] {
            let mut bench = Bench::new(1).reach(phase);
            assert_eq!(bench.abort(hand_back), Err(VeiError::Committed));
            bench.drain(0, BACK);
            bench.drain(1, BACK);
            assert_eq!((bench.actions(), bench.destination.phase()), (Vec::new(), phase));
        }
    }
}

#[test]
fn nothing_that_happens_after_the_take_over_can_undo_it() {
    let mut bench = Bench::new(1).reach(DestinationPhase::TakingOver);
    bench.stream(SHARDS[0], lost(StreamRole::Statelets)).unwrap();
    bench.stream(SHARDS[0], applied(3, 0)).unwrap();
    bench.stream(SHARDS[0], StreamEvent::Closed).unwrap();
    assert_eq!(bench.destination.poll_timeout(), None);
    assert_eq!(bench.destination.phase(), DestinationPhase::TakingOver);
}

#[test]
fn a_digest_that_does_not_come_is_not_waited_for_forever() {
    let mut bench = Bench::new(1).reach(DestinationPhase::Live);
    assert!(!bench.destination.is_over());
    bench.destination.handle_timeout(bench.destination.poll_timeout().unwrap());
    assert!(bench.destination.is_over());
}

#[test]
fn events_out_of_order_are_errors_and_change_nothing() {
    let mut bench = Bench::new(1).reach(DestinationPhase::Armed);
    for event in [applied(0, 0), ended(0, 0), StreamEvent::SnapshotInstalled(SnapshotTotals::default())] {
        assert!(bench.stream(SHARDS[0], event).is_err());
    }
    for event in [LcoreEvent::PktQArmed, LcoreEvent::PktQDrained(pkt_q()), LcoreEvent::HandedBack(pkt_q())] {
        assert!(bench.lcore(SHARDS[0], event).is_err());
    }
    assert_eq!(bench.lcore(SHARDS[1], LcoreEvent::PktQArmed), Err(VeiError::UnknownShard(SHARDS[1])));
    assert!(bench.destination.handle(at(1), Event::Digest { shard: SHARDS[0], digest: Digest(1) }).is_err());
    assert_eq!((bench.actions(), bench.destination.phase()), (Vec::new(), DestinationPhase::Armed));
    let mut synchronising = Bench::new(1).reach(DestinationPhase::Redirecting);
    assert!(synchronising.stream(SHARDS[0], applied(1, 0)).is_err(), "fewer than before");
    synchronising.stream(SHARDS[0], ended(9, 9)).unwrap();
    assert!(synchronising.stream(SHARDS[0], ended(9, 9)).is_err(), "a second end record");
}

#[test]
fn a_pkt_q_that_fills_undoes_the_migration_until_it_has_taken_over() {
    for phase in [DestinationPhase::Armed, DestinationPhase::Synchronising, DestinationPhase::Redirecting] {
        let mut bench = Bench::new(2).reach(phase);
        bench.lcore(SHARDS[1], LcoreEvent::PktQNearlyFull).unwrap();
        assert_failed(&mut bench, FailureCode::PacketBacklog, Holder::Source);
        bench.lcore(SHARDS[0], LcoreEvent::PktQNearlyFull).unwrap();
    }
    for phase in [DestinationPhase::TakingOver, DestinationPhase::Live] {
        let mut bench = Bench::new(2).reach(phase);
        bench.lcore(SHARDS[1], LcoreEvent::PktQNearlyFull).unwrap();
        assert_eq!(bench.destination.phase(), phase);
    }
}

//! The destination's machine: `dst_inst` during a migration (§IV-B, steps 1, 2.3 and 2.4).

mod stage;

use self::stage::{Committed, Failed, Reversible, Shard, Stage};
use super::action::{Action, Event, LcoreCommand, LcoreEvent, StreamCommand, StreamEvent, VeiError};
use super::parameters::DestinationParameters;
use super::proceedings::Proceedings;
use crate::mutant::{self, Mutant};
use crate::nf::ShardId;
use crate::protocol::control::{Holder, InstanceEvent, InstanceRole, MigrationReport, MigrationStatus};
use crate::protocol::inband::Drain;
use crate::protocol::stream::{Handshake, HandshakeReply, Rejection, StreamRole};
use crate::protocol::{DestinationPhase, Digest, Failure, FailureCode, MigrationPhase, Mode, Nonce, PathSet, Text};
use crate::time::{Duration, Instant};
use alloc::format;
use alloc::vec::Vec;

/// `dst_inst`'s side of one migration.
///
/// ```text
///   arming ─ all armed ─► armed ─ all streams accepted ─► installing ─ all snapshots installed ─► synchronising
///   ArmPktQ                                               (ApplyStatelets per shard)                  │
///                                                                              first underrun of every shard
///                                                                                                     ▼
///   live ◄─ all of pkt_q processed ─ taking_over ◄══ ends and counts equal, st_q_in empty ══ redirecting
///           (report with the digests) TakeOver,                the commit point            redirect wanted
///                                     SendTakenOver
///
///   any phase before the commit point ── failure ──► failed ──┐
///           │                            Close                │  keeps pkt_q until told
///           └─────────────── abort ───────────────────────────┤
///                                                             ▼
///           with a nonce: handing_back ─ drained or time-out, then all handed back ─► discarding ─► discarded
///                         HandBack                                                    Discard, Close
///           without: discarding at once
/// ```
///
/// Statelets may arrive at any time once their stream is accepted; the driver keeps them in `st_q_in` until told to apply
/// them, which is after the snapshot of their shard has been installed (§IV-C).
///
/// In the mode `buffer` the redirect is wanted as soon as all streams are accepted; all that follows happens while
/// packets wait in `pkt_q`.
///
/// Order of calls: as for [`Source`](super::Source); [`accept`](Self::accept) answers each handshake.
///
/// What this side holds after a failure: no state worth keeping, and the packets in `pkt_q`, which go back to the source
/// through the switch. Packets already on their way when the switch redirects back are followed by drain packets with
/// the nonce of [`abort`](Self::abort), so nothing that arrives in between is lost.
#[derive(Debug)]
pub struct Destination {
    parameters: DestinationParameters,
    stage: Stage,
    shards: Vec<Shard>,
    /// The latest drain, of a redirect back: its nonce and the paths seen and expected.
    drain: Option<(Nonce, PathSet, PathSet)>,
    proceedings: Proceedings,
}

impl Destination {
    /// Begins a migration: the first actions arm `pkt_q`.
    pub fn new(now: Instant, parameters: DestinationParameters) -> Self {
        let phase = MigrationPhase::Destination(DestinationPhase::Arming);
        let shards = parameters.shards.max(1);
        let mut destination = Self {
            stage: Stage::Reversible(Reversible::Arming),
            shards: (0..shards).map(|_| Shard::default()).collect(),
            drain: None,
            proceedings: Proceedings::new(now, parameters.migration, shards, phase),
            parameters,
        };
        destination.proceedings.open(now, destination.role(), destination.timeout());
        destination.proceedings.lcores(LcoreCommand::ArmPktQ);
        destination
    }

    /// Answers a stream's handshake. After an acceptance the stream's bytes may be read.
    ///
    /// # Errors
    /// Why the stream is refused, to be sent to the peer. The migration goes on waiting for better ones.
    pub fn accept(&mut self, now: Instant, handshake: &Handshake) -> HandshakeReply {
        let version = handshake.common_version()?;
        let parameters = &self.parameters;
        if handshake.migration != parameters.migration {
            return Err(Rejection::Migration);
        }
        if handshake.kind != parameters.kind {
            return Err(Rejection::Kind);
        }
        if handshake.schema != parameters.schema {
            return Err(Rejection::Schema);
        }
        if handshake.shards != parameters.shards {
            return Err(Rejection::Shards);
        }
        let armed = !matches!(self.stage, Stage::Reversible(Reversible::Arming));
        let shard = self.shards.get_mut(usize::from(handshake.shard.0)).ok_or(Rejection::Shards)?;
        let accepted = match handshake.role {
            StreamRole::Statelets => &mut shard.statelets_accepted,
            StreamRole::Snapshot => &mut shard.snapshot_accepted,
        };
        if *accepted {
            return Err(Rejection::Duplicate);
        }
        // Until all streams are there the phase is `armed`; whatever comes later would have been a duplicate.
        if !armed || !matches!(self.stage, Stage::Reversible(_)) {
            return Err(Rejection::NotReady);
        }
        *accepted = true;
        if mutant::is_active(Mutant::StateletsBeforeSnapshot) && handshake.role == StreamRole::Statelets {
            self.proceedings.stream(handshake.shard, StreamCommand::ApplyStatelets);
        }
        self.advance(now);
        Ok(version)
    }

    /// What the migration was begun with.
    pub fn parameters(&self) -> &DestinationParameters {
        &self.parameters
    }

    /// The present phase.
    pub fn phase(&self) -> DestinationPhase {
        self.stage.phase()
    }

    /// The instance's role that goes with the phase.
    pub fn role(&self) -> InstanceRole {
        match self.stage {
            Stage::Committed(_) => InstanceRole::Live,
            Stage::Failed(Failed::Discarded) => InstanceRole::Discarded,
            Stage::Reversible(_)
            | Stage::Failed(Failed::Holding | Failed::Draining(_) | Failed::HandingBack | Failed::Discarding) => {
                InstanceRole::Destination
            }
        }
    }

    /// Whether nothing more will happen: live with the report given, or discarded.
    pub fn is_over(&self) -> bool {
        match self.stage {
            Stage::Committed(Committed::Live) => self.proceedings.finished,
            Stage::Failed(Failed::Discarded) => true,
            Stage::Reversible(_) | Stage::Committed(Committed::TakingOver) | Stage::Failed(_) => false,
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.proceedings.poll_action()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.proceedings.deadline
    }

    /// Lets the present phase's time-out strike if it is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if !self.proceedings.take_due(now) {
            return;
        }
        match self.stage {
            Stage::Reversible(_) => {
                let failure = Failure::time_out("dst_inst", self.phase(), self.timeout());
                self.fail(now, failure);
            }
            // The drain packets may have been lost with the switch; what is held goes back all the same.
            Stage::Failed(Failed::Draining(_)) => self.hand_back(now),
            Stage::Failed(Failed::HandingBack) => self.discard(now),
            Stage::Committed(Committed::Live) => self.finish(now),
            Stage::Committed(Committed::TakingOver)
            | Stage::Failed(Failed::Holding | Failed::Discarding | Failed::Discarded) => {}
        }
    }

    /// Takes note of what an lcore or stream reports.
    ///
    /// # Errors
    /// If it cannot happen now. Reports that were under way when the migration failed are silently ignored.
    pub fn handle(&mut self, now: Instant, event: Event) -> Result<(), VeiError> {
        match event {
            Event::Lcore { shard, event: LcoreEvent::Drain(drain) } => {
                self.shard(shard)?;
                self.handle_drain(now, drain);
                Ok(())
            }
            Event::Lcore { shard, event } => self.handle_lcore(now, shard, event),
            Event::Stream { shard, event } => self.handle_stream(now, shard, event),
            Event::Digest { shard, digest } => self.handle_digest(now, shard, digest),
        }
    }

    /// Gives the migration up, or ends one that has failed.
    ///
    /// With `hand_back`, `pkt_q` goes back to the switch once drain packets with that nonce have come on every path that
    /// was redirected back. Without, it is thrown away. Repeating it changes nothing, except that dropping `hand_back`
    /// ends the wait.
    ///
    /// # Errors
    /// [`VeiError::Committed`] from the take-over on.
    pub fn abort(&mut self, now: Instant, reason: &Text, hand_back: Option<Nonce>) -> Result<(), VeiError> {
        match (self.stage, hand_back) {
            (Stage::Committed(_), _) => return Err(VeiError::Committed),
            (Stage::Reversible(_) | Stage::Failed(Failed::Holding), Some(nonce)) => {
                self.give_up(reason);
                self.enter(now, Stage::Failed(Failed::Draining(nonce)));
                self.hand_back_if_drained(now);
            }
            (Stage::Reversible(_) | Stage::Failed(Failed::Holding), None) => {
                self.give_up(reason);
                self.discard(now);
            }
            (Stage::Failed(Failed::Draining(_)), None) => self.discard(now),
            (Stage::Failed(Failed::Draining(_)), Some(_))
            | (Stage::Failed(Failed::HandingBack | Failed::Discarding | Failed::Discarded), _) => {}
        }
        Ok(())
    }

    /// The report so far.
    pub fn report(&self, now: Instant) -> MigrationReport {
        let mut report = self.proceedings.report(now);
        let mut digest = Some(Digest(0));
        for shard in &self.shards {
            report.snapshot.add(&shard.snapshot.unwrap_or_default());
            report.statelets.add(&shard.statelets);
            report.pkt_q.add(&shard.pkt_q);
            digest = digest.zip(shard.digest).map(|(sum, digest)| sum.combine(digest));
        }
        report.digest = digest;
        report
    }

    /// Everything a controller needs to pick the migration up.
    pub fn status(&self, now: Instant) -> MigrationStatus {
        MigrationStatus {
            id: self.parameters.migration,
            phase: MigrationPhase::Destination(self.phase()),
            destination: None,
            nonce: None,
            paths: PathSet::EMPTY,
            drained: self.drain.map_or(PathSet::EMPTY, |(_, seen, _)| seen),
            failure: self.proceedings.failure.clone(),
            report: self.report(now),
            finished: self.proceedings.finished,
        }
    }

    /// A drain packet reaches a destination only when the switch has redirected back.
    fn handle_drain(&mut self, now: Instant, drain: Drain) {
        if drain.migration != self.parameters.migration || matches!(self.stage, Stage::Committed(_)) {
            return;
        }
        match &mut self.drain {
            Some((nonce, seen, expected)) if *nonce == drain.nonce && *expected == drain.paths => {
                seen.insert(drain.path);
            }
            other => *other = Some((drain.nonce, PathSet::from_iter([drain.path]), drain.paths)),
        }
        self.hand_back_if_drained(now);
    }

    fn handle_lcore(&mut self, now: Instant, id: ShardId, event: LcoreEvent) -> Result<(), VeiError> {
        let unexpected = self.unexpected(id, event.name());
        let stage = self.stage;
        let shard = self.shard(id)?;
        match (event, stage) {
            (LcoreEvent::PktQArmed, Stage::Reversible(Reversible::Arming)) if !shard.armed => shard.armed = true,
            (LcoreEvent::PktQDrained(totals), Stage::Committed(Committed::TakingOver)) if !shard.pkt_q_drained => {
                shard.pkt_q_drained = true;
                shard.pkt_q = totals;
            }
            (LcoreEvent::HandedBack(totals), Stage::Failed(Failed::HandingBack)) if !shard.handed_back => {
                shard.handed_back = true;
                shard.pkt_q = totals;
            }
            (LcoreEvent::Discarded(totals), Stage::Failed(Failed::Discarding)) if !shard.discarded => {
                shard.discarded = true;
                shard.pkt_q = totals;
            }
            (LcoreEvent::PktQNearlyFull, Stage::Reversible(_)) => {
                let message = format!("pkt_q of shard {} is nearly full", id.0);
                self.fail(now, Failure::new(FailureCode::PacketBacklog, message));
            }
            // Nobody could take the packets any more.
            (LcoreEvent::PktQNearlyFull, Stage::Committed(_) | Stage::Failed(_)) => {}
            // Was under way when the migration failed.
            (LcoreEvent::PktQArmed | LcoreEvent::HandedBack(_), Stage::Failed(_)) => {}
            _ => return Err(unexpected),
        }
        self.advance(now);
        Ok(())
    }

    fn handle_stream(&mut self, now: Instant, id: ShardId, event: StreamEvent) -> Result<(), VeiError> {
        let unexpected = self.unexpected(id, event.name());
        let stage = self.stage;
        let underrun_records = self.parameters.options.underrun_records;
        let shard = self.shard(id)?;
        match (event, stage) {
            (StreamEvent::SnapshotInstalled(totals), Stage::Reversible(_))
                if shard.snapshot_accepted && shard.snapshot.is_none() =>
            {
                shard.snapshot = Some(totals);
                self.proceedings.stream(id, StreamCommand::ApplyStatelets);
            }
            (StreamEvent::Applied { records, left }, Stage::Reversible(_))
                if shard.snapshot.is_some() && records >= shard.applied_records =>
            {
                shard.applied_records = records;
                shard.underrun |= left <= underrun_records;
            }
            (StreamEvent::EndReceived { end, received, totals }, Stage::Reversible(_))
                if shard.statelets_accepted && shard.end_records.is_none() =>
            {
                shard.statelets = totals;
                if end == received {
                    shard.end_records = Some(end.records);
                } else {
                    let message = format!("shard {}: end record says {end:?}, received {received:?}", id.0);
                    self.fail(now, Failure::new(FailureCode::EndMismatch, message));
                }
            }
            // Told once more that `st_q_in` is empty, while that led to the take-over already.
            (StreamEvent::Applied { records, left: 0 }, Stage::Committed(_)) if records == shard.applied_records => {}
            // The snapshot stream has done its duty.
            (StreamEvent::Lost(StreamRole::Snapshot, _), _) if shard.snapshot.is_some() => {}
            // Everything has arrived; the acknowledgement may get lost, which the source's side resolves.
            (StreamEvent::Lost(StreamRole::Statelets, _), _) if shard.end_records.is_some() => {}
            (StreamEvent::Lost(_, detail), Stage::Reversible(_)) => {
                self.fail(now, Failure::new(FailureCode::StreamLost, detail));
            }
            (StreamEvent::Rejected(code, detail), Stage::Reversible(_)) => self.fail(now, Failure::new(code, detail)),
            (
                StreamEvent::Closed,
                Stage::Failed(Failed::Holding | Failed::Draining(_) | Failed::HandingBack | Failed::Discarding),
            ) => shard.closed = true,
            // Streams close by themselves after the acknowledgement; the rest was under way when the migration failed.
            (StreamEvent::Closed, Stage::Committed(_))
            | (
                StreamEvent::SnapshotInstalled(_)
                | StreamEvent::Applied { .. }
                | StreamEvent::EndReceived { .. }
                | StreamEvent::Lost(..)
                | StreamEvent::Rejected(..),
                Stage::Failed(_),
            ) => {}
            _ => return Err(unexpected),
        }
        self.advance(now);
        Ok(())
    }

    fn handle_digest(&mut self, now: Instant, id: ShardId, digest: Digest) -> Result<(), VeiError> {
        let unexpected = self.unexpected(id, "digest");
        let committed = matches!(self.stage, Stage::Committed(_));
        let shard = self.shard(id)?;
        if !committed || shard.digest.replace(digest).is_some() {
            return Err(unexpected);
        }
        self.finish_if_complete(now);
        Ok(())
    }

    /// Enters the next phase if everything the present one waits for has happened, as often as that holds.
    fn advance(&mut self, now: Instant) {
        loop {
            match self.stage {
                Stage::Reversible(Reversible::Arming) if self.all(|shard| shard.armed) => {
                    self.enter(now, Stage::Reversible(Reversible::Armed));
                }
                Stage::Reversible(Reversible::Armed)
                    if self.all(|shard| shard.statelets_accepted && shard.snapshot_accepted) =>
                {
                    if self.parameters.options.mode == Mode::Buffer {
                        self.want_redirect(now);
                    } else {
                        self.enter(now, Stage::Reversible(Reversible::Installing));
                    }
                }
                Stage::Reversible(Reversible::Installing) if self.all(|shard| shard.snapshot.is_some()) => {
                    self.enter(now, Stage::Reversible(Reversible::Synchronising));
                }
                Stage::Reversible(Reversible::Synchronising) if self.all(|shard| shard.underrun) => {
                    self.want_redirect(now);
                }
                Stage::Reversible(Reversible::Redirecting) if self.all(Shard::is_complete) => {
                    self.take_over(now);
                }
                Stage::Committed(Committed::TakingOver) if self.all(|shard| shard.pkt_q_drained) => {
                    self.proceedings.end(now);
                    self.enter(now, Stage::Committed(Committed::Live));
                    self.finish_if_complete(now);
                }
                Stage::Failed(Failed::HandingBack) if self.all(|shard| shard.handed_back) => self.discard(now),
                Stage::Failed(Failed::Discarding) if self.all(|shard| shard.discarded && shard.closed) => {
                    self.proceedings.end(now);
                    self.enter(now, Stage::Failed(Failed::Discarded));
                    self.proceedings.finished = true;
                }
                Stage::Reversible(_) | Stage::Committed(_) | Stage::Failed(_) => return,
            }
        }
    }

    fn want_redirect(&mut self, now: Instant) {
        self.enter(now, Stage::Reversible(Reversible::Redirecting));
        let migration = self.parameters.migration;
        self.proceedings.notify(InstanceEvent::RedirectWanted { migration });
    }

    /// The commit point: every statelet the source ever announced has been applied.
    fn take_over(&mut self, now: Instant) {
        self.enter(now, Stage::Committed(Committed::TakingOver));
        let pace = self.proceedings.share(self.parameters.options.pkt_q_pace);
        self.proceedings.lcores(LcoreCommand::TakeOver(pace));
        self.proceedings.streams(StreamCommand::SendTakenOver);
    }

    fn fail(&mut self, now: Instant, failure: Failure) {
        // Once an end record has come the source may have committed; only the controller can find out.
        let holder = if self.shards.iter().any(|shard| shard.end_records.is_some())
            || failure.code == FailureCode::EndMismatch
        {
            Holder::Unknown
        } else {
            Holder::Source
        };
        self.proceedings.fail(failure, holder, true);
        self.proceedings.streams(StreamCommand::Close);
        self.enter(now, Stage::Failed(Failed::Holding));
    }

    /// Before leaving for good: notes the reason and closes the streams, unless a failure has done so before.
    fn give_up(&mut self, reason: &Text) {
        if self.proceedings.failure.is_none() {
            self.proceedings.failure = Some(Failure::new(FailureCode::Aborted, reason.clone()));
            self.proceedings.streams(StreamCommand::Close);
        }
    }

    fn hand_back_if_drained(&mut self, now: Instant) {
        if let (Stage::Failed(Failed::Draining(wanted)), Some((nonce, seen, expected))) = (self.stage, self.drain)
            && wanted == nonce
            && seen.covers(expected)
        {
            self.hand_back(now);
        }
    }

    fn hand_back(&mut self, now: Instant) {
        let pace = self.proceedings.share(self.parameters.options.pkt_q_pace);
        self.proceedings.lcores(LcoreCommand::HandBack(self.parameters.migration, pace));
        // Within the same phase, but with a time of its own.
        self.stage = Stage::Failed(Failed::HandingBack);
        self.proceedings.deadline = self.timeout().map(|timeout| now + timeout);
    }

    fn discard(&mut self, now: Instant) {
        self.proceedings.lcores(LcoreCommand::Discard);
        self.enter(now, Stage::Failed(Failed::Discarding));
        self.advance(now);
    }

    fn finish_if_complete(&mut self, now: Instant) {
        if self.stage == Stage::Committed(Committed::Live) && self.all(|shard| shard.digest.is_some()) {
            self.finish(now);
        }
    }

    fn finish(&mut self, now: Instant) {
        let report = self.report(now);
        self.proceedings.finish(report);
    }

    fn enter(&mut self, now: Instant, stage: Stage) {
        self.stage = stage;
        let (phase, role, timeout) = (MigrationPhase::Destination(self.phase()), self.role(), self.timeout());
        self.proceedings.enter(now, phase, role, timeout);
    }

    fn timeout(&self) -> Option<Duration> {
        let timeouts = &self.parameters.options.timeouts;
        match (self.phase(), self.parameters.options.mode) {
            // Everything else happens after the redirect.
            (phase @ DestinationPhase::Redirecting, Mode::Buffer) => [
                timeouts.of(DestinationPhase::Installing),
                timeouts.of(DestinationPhase::Synchronising),
                timeouts.of(phase),
            ]
            .into_iter()
            .sum(),
            (phase, _) => timeouts.of(phase),
        }
    }

    fn all(&self, condition: impl Fn(&Shard) -> bool) -> bool {
        self.shards.iter().all(condition)
    }

    fn shard(&mut self, id: ShardId) -> Result<&mut Shard, VeiError> {
        self.shards.get_mut(usize::from(id.0)).ok_or(VeiError::UnknownShard(id))
    }

    fn unexpected(&self, shard: ShardId, event: &'static str) -> VeiError {
        VeiError::Unexpected { shard, phase: MigrationPhase::Destination(self.phase()), event }
    }
}

#[cfg(test)]
mod tests;

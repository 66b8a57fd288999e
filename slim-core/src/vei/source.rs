//! The source's machine: `src_inst` during a migration (§IV-B, steps 2 and 3).

mod stage;

use self::stage::{Back, Committed, Reversible, Shard, Stage};
use super::action::{Action, Event, LcoreCommand, LcoreEvent, StreamCommand, StreamEvent, VeiError};
use super::parameters::SourceParameters;
use super::proceedings::Proceedings;
use crate::mutant::{self, Mutant};
use crate::nf::ShardId;
use crate::protocol::control::{Holder, InstanceRole, MigrationReport, MigrationStatus, ResolveOutcome};
use crate::protocol::inband::Drain;
use crate::protocol::stream::{Handshake, StreamRole, VERSION_MAX, VERSION_MIN};
use crate::protocol::{Digest, Failure, FailureCode, MigrationPhase, Mode, PathSet, SourcePhase, Text};
use crate::time::{Duration, Instant};
use alloc::format;
use alloc::vec::Vec;

/// `src_inst`'s side of one migration.
///
/// ```text
///              Connect ×2 per shard
///   connecting ─ all accepted ─► freezing ─ all frozen ─► transferring ─ all snapshots sent ─► draining
///                                 Freeze                   SendSnapshot, SendStatelets           │
///                                                                                  every drain packet seen
///                                                                                                ▼
///   released ◄─ taken over ── committed ◄══ all flushed, counts equal ══ flushing ◄─ stopped ─ stopping
///   Release, Close    ▲       SendEnd          the commit point          Flush                Stop
///                     │           │ stream lost or time-out
///                resolve release  ▼
///                     └──── unacknowledged ── resolve resume ─┐
///                                                             ▼
///   any phase before the commit point ── failure, abort ─► rolling_back ─ all resumed and closed ─► rolled_back
///                                                          Resume, then Close
/// ```
///
/// Drain packets may come before the snapshot is known to be sent; they are remembered. The dataplane runs on in every
/// phase up to `stopping`, and again from the first moment of `rolling_back`.
///
/// Order of calls: feed events with [`handle`](Self::handle), time with [`handle_timeout`](Self::handle_timeout) at
/// [`poll_timeout`](Self::poll_timeout), requests with [`abort`](Self::abort) and [`resolve`](Self::resolve); after each,
/// carry out every [`poll_action`](Self::poll_action).
///
/// What this side holds after a failure: before the commit point all state and all packets; after it, until resolved,
/// all state, but it processes nothing.
#[derive(Debug)]
pub struct Source {
    parameters: SourceParameters,
    stage: Stage,
    shards: Vec<Shard>,
    drained: PathSet,
    proceedings: Proceedings,
}

impl Source {
    /// Begins a migration: the first actions connect the streams.
    pub fn new(now: Instant, parameters: SourceParameters) -> Self {
        let phase = MigrationPhase::Source(SourcePhase::Connecting);
        let shards = parameters.shards.max(1);
        let mut source = Self {
            stage: Stage::Reversible(Reversible::Connecting),
            shards: (0..shards).map(|_| Shard::default()).collect(),
            drained: PathSet::EMPTY,
            proceedings: Proceedings::new(now, parameters.migration, shards, phase),
            parameters,
        };
        source.proceedings.open(now, source.role(), source.timeout());
        for role in StreamRole::ALL {
            source.proceedings.streams(StreamCommand::Connect(role));
        }
        source
    }

    /// What to send first on a shard's stream.
    pub fn handshake(&self, shard: ShardId, role: StreamRole) -> Handshake {
        Handshake {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            role,
            compressed: role == StreamRole::Statelets && self.parameters.options.compress,
            shard: if mutant::is_active(Mutant::ShardsMixed) && role == StreamRole::Snapshot {
                ShardId(self.parameters.shards - 1 - shard.0)
            } else {
                shard
            },
            shards: self.parameters.shards,
            schema: self.parameters.schema,
            migration: self.parameters.migration,
            kind: self.parameters.kind.clone(),
        }
    }

    /// What the migration was begun with.
    pub fn parameters(&self) -> &SourceParameters {
        &self.parameters
    }

    /// The present phase.
    pub fn phase(&self) -> SourcePhase {
        self.stage.phase()
    }

    /// The instance's role that goes with the phase.
    pub fn role(&self) -> InstanceRole {
        match self.stage {
            Stage::Reversible(_) | Stage::Committed(Committed::AwaitingTakeOver | Committed::Unacknowledged) => {
                InstanceRole::Source
            }
            Stage::Committed(Committed::Released) => InstanceRole::Released,
            Stage::Back(_) => InstanceRole::Live,
        }
    }

    /// Whether nothing more will happen: released with the report given, or rolled back.
    pub fn is_over(&self) -> bool {
        match self.stage {
            Stage::Committed(Committed::Released) => self.proceedings.finished,
            Stage::Back(Back::Done) => true,
            Stage::Reversible(_)
            | Stage::Committed(Committed::AwaitingTakeOver | Committed::Unacknowledged)
            | Stage::Back(Back::Rolling) => false,
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
            Stage::Reversible(step) => {
                let failure = Failure::time_out("src_inst", self.phase(), self.timeout());
                self.roll_back(now, step, failure);
            }
            Stage::Committed(Committed::AwaitingTakeOver) => self.lose_acknowledgement(now, "no answer in time"),
            Stage::Committed(Committed::Released) => self.finish(now),
            Stage::Committed(Committed::Unacknowledged) | Stage::Back(_) => {}
        }
    }

    /// Takes note of what an lcore or stream reports.
    ///
    /// # Errors
    /// If it cannot happen now. Reports that were under way when the migration was undone are silently ignored.
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

    /// Gives the migration up. Does nothing if it has been undone already.
    ///
    /// # Errors
    /// [`VeiError::Committed`] from the commit point on.
    pub fn abort(&mut self, now: Instant, reason: &Text) -> Result<(), VeiError> {
        match self.stage {
            Stage::Reversible(step) => {
                self.roll_back(now, step, Failure::new(FailureCode::Aborted, reason.clone()));
                Ok(())
            }
            Stage::Committed(_) if mutant::is_active(Mutant::AbortAfterCommit) => {
                self.resume(now);
                Ok(())
            }
            Stage::Committed(_) => Err(VeiError::Committed),
            Stage::Back(_) => Ok(()),
        }
    }

    /// The controller's word on a migration that was committed but not acknowledged.
    ///
    /// # Errors
    /// If there is nothing to resolve: before the commit point, or when it has ended the other way.
    pub fn resolve(&mut self, now: Instant, outcome: ResolveOutcome) -> Result<(), VeiError> {
        match (self.stage, outcome) {
            (Stage::Committed(Committed::AwaitingTakeOver | Committed::Unacknowledged), ResolveOutcome::Release) => {
                self.release(now);
                Ok(())
            }
            (Stage::Committed(Committed::AwaitingTakeOver | Committed::Unacknowledged), ResolveOutcome::Resume) => {
                if self.proceedings.failure.is_none() {
                    self.proceedings.failure = Some(Failure::new(FailureCode::Aborted, "resumed by the controller"));
                }
                self.resume(now);
                Ok(())
            }
            (Stage::Committed(Committed::Released), ResolveOutcome::Release) => Ok(()),
            (Stage::Back(_), ResolveOutcome::Resume) => Ok(()),
            (Stage::Committed(Committed::Released), ResolveOutcome::Resume) => Err(VeiError::Committed),
            (Stage::Reversible(_), _) | (Stage::Back(_), ResolveOutcome::Release) => Err(VeiError::NotCommitted),
        }
    }

    /// The report so far.
    pub fn report(&self, now: Instant) -> MigrationReport {
        let mut report = self.proceedings.report(now);
        let mut digest = Some(Digest(0));
        for shard in &self.shards {
            report.snapshot.add(&shard.snapshot.unwrap_or_default());
            if let Some((_, statelets)) = &shard.flushed {
                report.statelets.add(statelets);
            }
            if let Some(totals) = &shard.stopped {
                report.announced.add(&totals.statelets);
                report.workload.add(&totals.workload);
            }
            digest = digest.zip(shard.digest).map(|(sum, digest)| sum.combine(digest));
        }
        report.digest = digest;
        report
    }

    /// Everything a controller needs to pick the migration up.
    pub fn status(&self, now: Instant) -> MigrationStatus {
        MigrationStatus {
            id: self.parameters.migration,
            phase: MigrationPhase::Source(self.phase()),
            destination: Some(self.parameters.destination),
            nonce: Some(self.parameters.nonce),
            paths: self.parameters.paths,
            drained: self.drained,
            failure: self.proceedings.failure.clone(),
            report: self.report(now),
            finished: self.proceedings.finished,
        }
    }

    fn handle_drain(&mut self, now: Instant, drain: Drain) {
        let parameters = &self.parameters;
        let ours = drain.migration == parameters.migration
            && drain.nonce == parameters.nonce
            && drain.paths == parameters.paths;
        let ours = ours || mutant::is_active(Mutant::DrainUnchecked);
        if ours && self.drained.insert(drain.path) {
            self.advance(now);
        }
    }

    fn handle_lcore(&mut self, now: Instant, id: ShardId, event: LcoreEvent) -> Result<(), VeiError> {
        let unexpected = self.unexpected(id, event.name());
        let stage = self.stage;
        let shard = self.shard(id)?;
        match (event, stage) {
            (LcoreEvent::Frozen, Stage::Reversible(Reversible::Freezing)) if !shard.frozen => {
                shard.frozen = true;
                self.proceedings.stream(id, StreamCommand::SendSnapshot);
                self.proceedings.stream(id, StreamCommand::SendStatelets);
            }
            (LcoreEvent::StateletOverflow, Stage::Reversible(step)) if shard.frozen => {
                let message = format!("st_q_out of shard {} is full", id.0);
                self.roll_back(now, step, Failure::new(FailureCode::StateletOverflow, message));
            }
            (LcoreEvent::Stopped(totals), Stage::Reversible(Reversible::Stopping)) if shard.stopped.is_none() => {
                shard.stopped = Some(totals);
                self.proceedings.stream(id, StreamCommand::Flush);
            }
            (LcoreEvent::Resumed, Stage::Back(Back::Rolling)) if !shard.resumed => {
                shard.resumed = true;
                self.proceedings.stream(id, StreamCommand::Close);
            }
            (LcoreEvent::PktQNearlyFull, Stage::Reversible(step)) => {
                let message = format!("pkt_q of shard {} is nearly full", id.0);
                self.roll_back(now, step, Failure::new(FailureCode::PacketBacklog, message));
            }
            // It is processed, or handed back, as soon as it is known who goes on.
            (LcoreEvent::PktQNearlyFull, Stage::Committed(_) | Stage::Back(_)) => {}
            // Was under way when the migration was undone.
            (LcoreEvent::Frozen | LcoreEvent::StateletOverflow | LcoreEvent::Stopped(_), Stage::Back(_)) => {}
            _ => return Err(unexpected),
        }
        self.advance(now);
        Ok(())
    }

    fn handle_stream(&mut self, now: Instant, id: ShardId, event: StreamEvent) -> Result<(), VeiError> {
        let unexpected = self.unexpected(id, event.name());
        let stage = self.stage;
        let shard = self.shard(id)?;
        match (event, stage) {
            (StreamEvent::Accepted(role), Stage::Reversible(Reversible::Connecting)) => {
                let accepted = match role {
                    StreamRole::Statelets => &mut shard.statelets_accepted,
                    StreamRole::Snapshot => &mut shard.snapshot_accepted,
                };
                if core::mem::replace(accepted, true) {
                    return Err(unexpected);
                }
            }
            (StreamEvent::Refused(_, reason), Stage::Reversible(step @ Reversible::Connecting)) => {
                let message = format!("dst_inst refuses the stream: {reason}");
                self.roll_back(now, step, Failure::new(FailureCode::StreamRefused, message));
            }
            (StreamEvent::SnapshotSent(totals), Stage::Reversible(_)) if shard.frozen && shard.snapshot.is_none() => {
                shard.snapshot = Some(totals);
            }
            // A shard may flush while another has yet to stop.
            (
                StreamEvent::Flushed { end, totals },
                Stage::Reversible(step @ (Reversible::Stopping | Reversible::Flushing)),
            ) => {
                let Some(stopped) = shard.stopped else { return Err(unexpected) };
                if shard.flushed.replace((end, totals)).is_some() {
                    return Err(unexpected);
                }
                let (announced, merged) = (stopped.statelets.records, totals.merged);
                if end.records.checked_add(merged) != Some(announced) {
                    let message =
                        format!("{announced} statelets announced, {} sent and {merged} merged into them", end.records);
                    self.roll_back(now, step, Failure::new(FailureCode::Protocol, message));
                }
            }
            // The destination closes the snapshot stream as soon as it has read all of it.
            (StreamEvent::Lost(StreamRole::Snapshot, _), _) if shard.snapshot.is_some() => {}
            (StreamEvent::Lost(_, detail), Stage::Reversible(step)) => {
                self.roll_back(now, step, Failure::new(FailureCode::StreamLost, detail));
            }
            (StreamEvent::Lost(_, detail), Stage::Committed(Committed::AwaitingTakeOver)) => {
                self.lose_acknowledgement(now, detail.as_str());
            }
            (StreamEvent::TakenOver, Stage::Committed(Committed::AwaitingTakeOver | Committed::Unacknowledged)) => {
                self.release(now)
            }
            (StreamEvent::Closed, Stage::Committed(Committed::Released) | Stage::Back(Back::Rolling)) => {
                shard.closed = true;
            }
            // Was under way when the streams were given up; of several shards the first acknowledgement counts.
            (
                StreamEvent::Lost(..) | StreamEvent::TakenOver,
                Stage::Committed(Committed::Unacknowledged | Committed::Released),
            )
            | (
                StreamEvent::Accepted(_)
                | StreamEvent::Refused(..)
                | StreamEvent::SnapshotSent(_)
                | StreamEvent::Flushed { .. }
                | StreamEvent::Lost(..),
                Stage::Back(_),
            ) => {}
            _ => return Err(unexpected),
        }
        self.advance(now);
        Ok(())
    }

    fn handle_digest(&mut self, now: Instant, id: ShardId, digest: Digest) -> Result<(), VeiError> {
        let unexpected = self.unexpected(id, "digest");
        let stage = self.stage;
        let shard = self.shard(id)?;
        match stage {
            // It may overtake the report that the lcore has stopped.
            Stage::Reversible(Reversible::Stopping | Reversible::Flushing) | Stage::Committed(_) => {
                if shard.digest.replace(digest).is_some() {
                    return Err(unexpected);
                }
            }
            Stage::Back(_) => {}
            Stage::Reversible(
                Reversible::Connecting | Reversible::Freezing | Reversible::Transferring | Reversible::Draining,
            ) => return Err(unexpected),
        }
        if stage == Stage::Committed(Committed::Released) {
            self.finish_if_complete(now);
        }
        Ok(())
    }

    /// Enters the next phase if everything the present one waits for has happened, as often as that holds.
    fn advance(&mut self, now: Instant) {
        loop {
            match self.stage {
                Stage::Reversible(Reversible::Connecting)
                    if self.all(|shard| shard.statelets_accepted && shard.snapshot_accepted) =>
                {
                    self.enter(now, Stage::Reversible(Reversible::Freezing));
                    self.freeze();
                }
                Stage::Reversible(Reversible::Freezing) if self.all(|shard| shard.frozen) => {
                    self.enter(now, Stage::Reversible(Reversible::Transferring));
                }
                Stage::Reversible(Reversible::Transferring) if self.all(|shard| shard.snapshot.is_some()) => {
                    self.enter(now, Stage::Reversible(Reversible::Draining));
                }
                Stage::Reversible(Reversible::Draining) if self.is_drained() => {
                    self.enter(now, Stage::Reversible(Reversible::Stopping));
                    self.proceedings.lcores(LcoreCommand::Stop);
                    if mutant::is_active(Mutant::FlushBeforeStop) {
                        self.proceedings.streams(StreamCommand::Flush);
                    }
                }
                Stage::Reversible(Reversible::Stopping) if self.all(|shard| shard.stopped.is_some()) => {
                    self.enter(now, Stage::Reversible(Reversible::Flushing));
                }
                Stage::Reversible(Reversible::Flushing) if self.all(|shard| shard.flushed.is_some()) => {
                    self.commit(now);
                }
                Stage::Back(Back::Rolling) if self.all(|shard| shard.resumed && shard.closed) => {
                    self.proceedings.end(now);
                    self.enter(now, Stage::Back(Back::Done));
                    self.proceedings.finished = true;
                }
                Stage::Reversible(_) | Stage::Committed(_) | Stage::Back(_) => return,
            }
        }
    }

    /// Whether a drain packet has come on every path.
    fn is_drained(&self) -> bool {
        self.drained.covers(self.parameters.paths)
            || mutant::is_active(Mutant::DrainIgnored)
            || mutant::is_active(Mutant::FirstDrainSuffices) && !self.drained.is_empty()
    }

    /// The commit point: from here on only the destination can go on by itself.
    fn commit(&mut self, now: Instant) {
        self.enter(now, Stage::Committed(Committed::AwaitingTakeOver));
        let ends: Vec<_> = self.shards.iter().filter_map(|shard| shard.flushed.map(|(end, _)| end)).collect();
        for (id, end) in (0..).zip(ends) {
            self.proceedings.stream(ShardId(id), StreamCommand::SendEnd(end));
        }
    }

    fn release(&mut self, now: Instant) {
        self.proceedings.lcores(LcoreCommand::Release(self.parameters.migration));
        self.proceedings.streams(StreamCommand::Close);
        self.proceedings.end(now);
        self.enter(now, Stage::Committed(Committed::Released));
        self.finish_if_complete(now);
    }

    fn lose_acknowledgement(&mut self, now: Instant, detail: &str) {
        let message = format!("committed, but not acknowledged: {detail}");
        self.proceedings.fail(Failure::new(FailureCode::Unacknowledged, message), Holder::Unknown, false);
        self.enter(now, Stage::Committed(Committed::Unacknowledged));
    }

    /// Undoes a migration that has not been committed; `_from` is the proof.
    fn roll_back(&mut self, now: Instant, _from: Reversible, failure: Failure) {
        self.proceedings.fail(failure, Holder::Source, false);
        self.resume(now);
    }

    /// Whole packets beside the packets, or none at all, are more, or less, than a pace for packets makes sense with.
    fn freeze(&mut self) {
        let mode = self.parameters.options.mode;
        let pace = match mode {
            Mode::Statelet | Mode::Buffer => self.proceedings.share(self.parameters.options.pkt_q_pace),
            Mode::Duplicate | Mode::StopAndCopy => None,
        };
        self.proceedings.lcores(LcoreCommand::Freeze(mode, pace));
    }

    /// The lcores first: a freeze that is still under way must have been reported before the streams let go of what
    /// they hold, or frozen state would be left behind.
    fn resume(&mut self, now: Instant) {
        let pace = self.proceedings.share(self.parameters.options.pkt_q_pace);
        self.proceedings.lcores(LcoreCommand::Resume(pace));
        self.enter(now, Stage::Back(Back::Rolling));
    }

    fn finish_if_complete(&mut self, now: Instant) {
        if self.all(|shard| shard.digest.is_some()) {
            self.finish(now);
        }
    }

    fn finish(&mut self, now: Instant) {
        let report = self.report(now);
        self.proceedings.finish(report);
    }

    fn enter(&mut self, now: Instant, stage: Stage) {
        self.stage = stage;
        let (phase, role, timeout) = (MigrationPhase::Source(self.phase()), self.role(), self.timeout());
        self.proceedings.enter(now, phase, role, timeout);
    }

    fn timeout(&self) -> Option<Duration> {
        self.parameters.options.timeouts.of(self.phase())
    }

    fn all(&self, condition: impl Fn(&Shard) -> bool) -> bool {
        self.shards.iter().all(condition)
    }

    fn shard(&mut self, id: ShardId) -> Result<&mut Shard, VeiError> {
        self.shards.get_mut(usize::from(id.0)).ok_or(VeiError::UnknownShard(id))
    }

    fn unexpected(&self, shard: ShardId, event: &'static str) -> VeiError {
        VeiError::Unexpected { shard, phase: MigrationPhase::Source(self.phase()), event }
    }
}

#[cfg(test)]
mod tests;

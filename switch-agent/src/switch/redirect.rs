//! Redirect, drain and rollback (§IV-B, step 3).
//!
//! ```text
//!   redirect ─┬─ rules: from ──► to, all in one step
//!             ├─ in the same step a drain packet per path, behind everything on the delay line to `from`
//!             │    └─ re-sent every 20 ms ──► acknowledged ──► `drained`
//!             └─ rollback: packets for `to` are held, per path
//!                  ├─ what `from` hands back passes them
//!                  └─ end of handing back, or time-out ──► what is held follows ──► `rollback_finished`
//! ```
//!
//! The delay line and the egress queue to an instance are one queue in a row, first in, first out, and after the step
//! nothing enters them for `from` any more: the drain packet is the last, on its first transmission and on all later
//! ones. It passes no meter and no bound.
//!
//! The hold is ours: the paper does not roll back.

use super::hold::Hold;
use super::model::{Hop, Instance, InstanceIndex, Port, PortNumber};
use super::{Switch, slot};
use crate::counters::DropCause;
use crate::error::TopologyError;
use crate::limits::Limits;
use crate::{Buffers, PortIndex};
use slim_core::mutant::{self, Mutant};
use slim_core::packet::PacketBuf;
use slim_core::protocol::control::{PathDrain, RedirectState, SwitchEvent};
use slim_core::protocol::inband::{Drain, FRAME_LEN, Frame, HandBackEnd};
use slim_core::protocol::{MigrationId, Name, Nonce, PathIndex, PathSet};
use slim_core::time::{Duration, Instant};

/// A redirect as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// The migration.
    pub migration: MigrationId,
    /// The stage of the migration: never used twice in it.
    pub nonce: Nonce,
    /// The instance the paths lead to.
    pub from: Name,
    /// The instance they are to lead to.
    pub to: Name,
    /// Whether this undoes an earlier redirect of the migration.
    pub rollback: bool,
    /// With `rollback`: the longest that packets for `to` are held. Zero where nothing will be handed back.
    pub hold_max: Duration,
}

/// What is remembered of a redirect.
#[derive(Debug)]
pub(super) struct RedirectRecord {
    pub request: Redirect,
    /// The instance being drained, while it exists.
    pub from_index: Option<InstanceIndex>,
    pub handed_back: u64,
    drains: Vec<PathState>,
    /// When to send drain packets again; none if all are acknowledged or given up.
    resend_at: Option<Instant>,
    rounds: u32,
    /// Whether packets are held for it.
    holding: bool,
}

/// A redirect that was refused.
#[derive(Debug)]
pub(super) struct Refusal {
    request: Redirect,
    error: TopologyError,
    /// It is refused from now on, whatever changes: who asks again, late, belongs to a migration that is over.
    stands: bool,
}

impl Refusal {
    /// Whether `request` is of a later migration of the same instances, so that this one's must be over.
    fn is_overtaken_by(&self, request: &Redirect) -> bool {
        let concerned = [&self.request.from, &self.request.to];
        self.request.migration != request.migration
            && [&request.from, &request.to].iter().any(|name| concerned.contains(name))
    }
}

#[derive(Debug)]
struct PathState {
    path: PathIndex,
    /// The instance's port.
    port: PortIndex,
    external: Name,
    sent: u32,
    acked: bool,
}

impl RedirectRecord {
    fn paths(&self) -> PathSet {
        self.drains.iter().map(|drain| drain.path).collect()
    }

    fn is_drained(&self) -> bool {
        self.drains.iter().all(|drain| drain.acked)
    }
}

impl<B: Buffers> Switch<B> {
    /// Moves all paths of one instance to another, from the next packet on, and sends drain packets down the old paths.
    ///
    /// Asking again with the same migration and nonce changes nothing. What `from` still sends goes on to leave through
    /// the same external ports.
    ///
    /// # Errors
    /// See [`TopologyError`]; nothing has changed then.
    pub fn redirect(&mut self, now: Instant, request: Redirect) -> Result<(), TopologyError> {
        let same_stage = |record: &&RedirectRecord| {
            record.request.migration == request.migration && record.request.nonce == request.nonce
        };
        if let Some(record) = self.redirects.iter().find(same_stage) {
            let told = &record.request;
            let same = told.from == request.from && told.to == request.to && told.rollback == request.rollback;
            let reused = TopologyError::NonceReused { migration: request.migration, nonce: request.nonce };
            return if same { Ok(()) } else { Err(reused) };
        }
        if let Some(refusal) = self.refused.iter().find(|refusal| refusal.stands && refusal.request == request) {
            return Err(refusal.error.clone());
        }
        let (from, to, moves) = match self.check_redirect(&request) {
            Ok(checked) => checked,
            Err(error) => {
                // What is undone is asked for until it is done, and a hold ends by itself.
                let stands = !request.rollback && !matches!(error, TopologyError::RollbackUnfinished(_));
                self.remember_refusal(Refusal { request, error: error.clone(), stands });
                return Err(error);
            }
        };
        for refusal in &mut self.refused {
            refusal.stands |= refusal.is_overtaken_by(&request);
        }
        if moves {
            self.move_paths(from, to);
        }
        let drains = if moves { self.paths_of(to, from) } else { Vec::new() };

        // A rollback makes the drain packets of the stage it undoes pointless.
        for record in &mut self.redirects {
            if record.from_index == Some(to) || record.from_index == Some(from) {
                record.resend_at = None;
            }
        }
        let holding = moves && request.rollback && !request.hold_max.is_zero();
        if holding && let Some(instance) = slot(&mut self.instances, to.0) {
            let early = mutant::is_active(Mutant::HoldReleasedEarly);
            let deadline = if early { now } else { now + request.hold_max };
            let ports = instance.ports.len();
            let hold = Hold::new(request.migration, request.nonce, from, deadline, ports, self.limits.hold);
            instance.hold = Some(hold);
        }
        let (migration, nonce, rollback) = (request.migration, request.nonce, request.rollback);
        let mut record = RedirectRecord {
            request,
            from_index: Some(from),
            handed_back: 0,
            drains,
            resend_at: None,
            rounds: 0,
            holding,
        };
        self.send_drains(now, &mut record);
        if record.drains.is_empty() {
            self.tell(SwitchEvent::Drained { migration, nonce });
        }
        if rollback && !holding {
            self.tell(SwitchEvent::RollbackFinished {
                migration,
                nonce,
                handed_back_packets: 0,
                held_packets: 0,
                dropped_packets: 0,
                timed_out: false,
            });
        }
        if self.redirects.len() >= Limits::REDIRECTS_MAX {
            self.redirects.pop_front();
        }
        self.redirects.push_back(record);
        self.set_timer();
        Ok(())
    }

    /// The last redirect of a migration.
    pub fn redirect_state(&self, migration: MigrationId) -> Option<RedirectState> {
        let record = self.redirects.iter().rev().find(|record| record.request.migration == migration)?;
        Some(self.state_of(record))
    }

    /// Every redirect that is remembered, oldest first.
    pub fn redirect_states(&self) -> Vec<RedirectState> {
        self.redirects.iter().map(|record| self.state_of(record)).collect()
    }

    fn state_of(&self, record: &RedirectRecord) -> RedirectState {
        let request = &record.request;
        let hold = self.instances.iter().flatten().filter_map(|instance| instance.hold.as_ref());
        let mut held = hold.filter(|hold| (hold.migration, hold.nonce) == (request.migration, request.nonce));
        RedirectState {
            migration: request.migration,
            from: request.from.clone(),
            to: request.to.clone(),
            nonce: request.nonce,
            rollback: request.rollback,
            paths: record.drains.iter().map(PathState::report).collect(),
            drained: record.is_drained(),
            finished: !record.holding,
            handed_back_packets: record.handed_back,
            held_packets: held.next().map_or(0, |hold| hold.packets() as u64),
        }
    }

    fn remember_refusal(&mut self, refusal: Refusal) {
        // One that is asked for again and again must not drive out the others.
        self.refused.retain(|known| known.request != refusal.request);
        if self.refused.len() >= Limits::REDIRECTS_MAX {
            self.refused.pop_front();
        }
        self.refused.push_back(refusal);
    }

    /// The instances, and whether there is anything to move: a rollback of what never happened has nothing.
    fn check_redirect(&self, request: &Redirect) -> Result<(InstanceIndex, InstanceIndex, bool), TopologyError> {
        let (from, to) = (self.instance_named(&request.from)?, self.instance_named(&request.to)?);
        if from == to {
            return Err(TopologyError::SameInstance(request.from.clone()));
        }
        let (Some(source), Some(target)) = (self.instance(from), self.instance(to)) else {
            return Ok((from, to, false));
        };
        for (instance, name) in [(source, &request.from), (target, &request.to)] {
            if instance.hold.is_some() {
                return Err(TopologyError::RollbackUnfinished(name.clone()));
            }
        }
        if source.ports.len() != target.ports.len() {
            return Err(TopologyError::PortsDiffer { from: request.from.clone(), to: request.to.clone() });
        }
        match (source.bound, target.bound) {
            (true, false) => Ok((from, to, true)),
            (true, true) => Err(TopologyError::HasPaths(request.to.clone())),
            (false, true) if request.rollback => Ok((from, to, false)),
            (false, _) => Err(TopologyError::NoPaths(request.from.clone())),
        }
    }

    fn move_paths(&mut self, from: InstanceIndex, to: InstanceIndex) {
        self.move_rules(from, to, |number| number == 0 || !mutant::is_active(Mutant::RedirectNotAtomic));
        let Some(source) = slot(&mut self.instances, from.0) else { return };
        source.bound = false;
        let ends: Vec<_> = source.paths.iter().map(|path| (path.external, path.flow_space)).collect();
        let Some(target) = slot(&mut self.instances, to.0) else { return };
        target.bound = true;
        for (path, (external, flow_space)) in target.paths.iter_mut().zip(ends) {
            (path.external, path.flow_space) = (external, flow_space);
        }
    }

    fn move_rules(&mut self, from: InstanceIndex, to: InstanceIndex, moves: impl Fn(PortNumber) -> bool) {
        for rule in self.ports.iter_mut().flatten().flat_map(|port| &mut port.rules) {
            if rule.instance == from && moves(rule.number) {
                rule.instance = to;
            }
        }
    }

    /// What a redirect that is not atomic has left behind.
    fn move_rest(&mut self, from: InstanceIndex) {
        let last = self.redirects.iter().rev().find(|record| record.from_index == Some(from));
        if let Some(to) = last.and_then(|record| self.instance_named(&record.request.to).ok()) {
            self.move_rules(from, to, |_| true);
        }
    }

    /// The paths that lead to `bound`, with the ports they have at `drained`.
    fn paths_of(&self, bound: InstanceIndex, drained: InstanceIndex) -> Vec<PathState> {
        let (Some(target), Some(source)) = (self.instance(bound), self.instance(drained)) else { return Vec::new() };
        let path = |(number, &port): (usize, &PortIndex)| {
            let external = self.port(target.paths.get(number)?.external?)?.name.clone();
            let path = PathIndex::new(u8::try_from(number).ok()?)?;
            Some(PathState { path, port, external, sent: 0, acked: false })
        };
        source.ports.iter().enumerate().filter_map(path).collect()
    }

    /// Puts a drain packet behind everything that is on its way down each path not acknowledged yet.
    fn send_drains(&mut self, now: Instant, record: &mut RedirectRecord) {
        record.resend_at = None;
        if record.is_drained() {
            return;
        }
        let request = &record.request;
        if record.rounds >= self.limits.drain_attempts_max {
            self.give_up_drain(record);
            return;
        }
        let Some(instance) = record.from_index.and_then(|index| slot(&mut self.instances, index.0)) else { return };
        record.rounds += 1;
        record.resend_at = Some(now + self.limits.drain_interval);
        let paths = record.paths();
        for drain in record.drains.iter_mut().filter(|drain| !drain.acked) {
            let (migration, nonce) = (request.migration, request.nonce);
            let frame = Frame::Drain(Drain { migration, nonce, path: drain.path, paths });
            let mut bytes = [0; FRAME_LEN];
            let packet = frame.encode(&mut bytes).ok().and_then(|_| self.buffers.copy_of(&bytes));
            let Some(packet) = packet else {
                // Tried again with the next round.
                self.counts.created += 1;
                self.gone.add(DropCause::NoBuffer);
                continue;
            };
            self.counts.created += 1;
            self.counts.drains_sent += 1;
            drain.sent += 1;
            if mutant::is_active(Mutant::DrainOvertakes)
                && let Some(port) = slot(&mut self.ports, drain.port.0)
            {
                port.enqueue(packet, true);
                continue;
            }
            instance.to.delay.push_unbounded(now, Hop { port: drain.port, drain: true }, packet);
        }
    }

    fn give_up_drain(&mut self, record: &RedirectRecord) {
        self.counts.drains_given_up += 1;
        let (migration, nonce) = (record.request.migration, record.request.nonce);
        let unacknowledged = record.drains.iter().filter(|drain| !drain.acked).map(|drain| drain.path).collect();
        self.tell(SwitchEvent::DrainGivenUp { migration, nonce, unacknowledged });
    }

    pub(super) fn drain_acked(&mut self, from: InstanceIndex, drain: &Drain) {
        if mutant::is_active(Mutant::RedirectNotAtomic) {
            self.move_rest(from);
        }
        let record = self.redirects.iter_mut().find(|record| {
            let request = &record.request;
            (request.migration, request.nonce) == (drain.migration, drain.nonce) && record.from_index == Some(from)
        });
        let path = record.and_then(|record| {
            let at = record.drains.iter().position(|state| state.path == drain.path)?;
            Some((record, at))
        });
        let Some((record, at)) = path else {
            self.counts.acks_stale += 1;
            return;
        };
        if std::mem::replace(&mut record.drains[at].acked, true) {
            self.counts.acks_duplicate += 1;
            return;
        }
        self.counts.acks += 1;
        let drained = record.is_drained();
        if drained {
            record.resend_at = None;
        }
        let (migration, nonce) = (drain.migration, drain.nonce);
        self.tell(SwitchEvent::DrainAcked { migration, nonce, path: drain.path });
        if drained {
            self.tell(SwitchEvent::Drained { migration, nonce });
        }
        self.set_timer();
    }

    /// `from` has handed back everything of a port, or one of its shards has.
    pub(super) fn hand_back_ended(&mut self, now: Instant, from: InstanceIndex, end: &HandBackEnd) {
        let mut instances = self.instances.iter_mut().flatten();
        let waiting = instances.find(|instance| {
            let hold = instance.hold.as_ref();
            hold.is_some_and(|hold| hold.from == from && hold.migration == end.migration)
        });
        let Some(instance) = waiting else {
            self.counts.hand_back_ends_stale += 1;
            return;
        };
        if instance.hold.as_mut().is_some_and(|hold| hold.end_of_shard(end)) {
            release(now, instance, end.port.0, &mut self.ports);
        }
        self.end_holds(now);
    }

    /// Ends holds that are over, whose time is over, or whose counterpart is gone, and tells of it.
    pub(super) fn end_holds(&mut self, now: Instant) {
        for index in 0..self.instances.len() {
            let Some(instance) = self.instances[index].as_mut() else { continue };
            let Some(hold) = &instance.hold else { continue };
            let (over, from) = (hold.is_over(), hold.from);
            let late = hold.deadline <= now;
            let orphaned = self.instances.get(usize::from(from.0)).is_none_or(Option::is_none);
            if !(over || late || orphaned) {
                continue;
            }
            let Some(instance) = self.instances[index].as_mut() else { continue };
            for number in 0..instance.ports.len() as u8 {
                release(now, instance, number, &mut self.ports);
            }
            let Some(hold) = instance.hold.take() else { continue };
            self.counts.hold_timeouts += u64::from(!over);
            let stage = (hold.migration, hold.nonce);
            let record =
                self.redirects.iter_mut().find(|record| (record.request.migration, record.request.nonce) == stage);
            let handed_back_packets = record.map_or(0, |record| {
                record.holding = false;
                record.handed_back
            });
            self.tell(SwitchEvent::RollbackFinished {
                migration: hold.migration,
                nonce: hold.nonce,
                handed_back_packets,
                held_packets: hold.held_total,
                dropped_packets: hold.dropped,
                timed_out: !over,
            });
        }
        self.set_timer();
    }

    pub(super) fn run_timers(&mut self, now: Instant) {
        for index in 0..self.redirects.len() {
            if self.redirects[index].resend_at.is_some_and(|at| at <= now) {
                // Out of the list while the instances are at work.
                let Some(mut record) = self.redirects.remove(index) else { continue };
                self.send_drains(now, &mut record);
                self.redirects.insert(index, record);
            }
        }
        self.end_holds(now);
    }

    /// An instance is going: nothing of it can be drained or handed back any more.
    pub(super) fn forget_redirects_of(&mut self, instance: InstanceIndex) {
        for index in 0..self.redirects.len() {
            if self.redirects[index].from_index != Some(instance) {
                continue;
            }
            let Some(mut record) = self.redirects.remove(index) else { continue };
            record.from_index = None;
            if record.resend_at.take().is_some() {
                self.give_up_drain(&record);
            }
            self.redirects.insert(index, record);
        }
    }

    fn set_timer(&mut self) {
        let resends = self.redirects.iter().filter_map(|record| record.resend_at);
        let holds = self.instances.iter().flatten().filter_map(|instance| instance.hold.as_ref());
        self.timer = resends.chain(holds.map(|hold| hold.deadline)).min();
    }
}

impl PathState {
    fn report(&self) -> PathDrain {
        PathDrain { path: self.path, external: self.external.clone(), sent: self.sent, acked: self.acked }
    }
}

/// Lets the packets held for a dataplane port follow what has been handed back.
fn release<P: PacketBuf>(now: Instant, instance: &mut Instance<P>, number: PortNumber, ports: &mut [Option<Port<P>>]) {
    let Some(&index) = instance.ports.get(usize::from(number)) else { return };
    let Some(hold) = &mut instance.hold else { return };
    for packet in hold.release(number) {
        if instance.to.delay.push(now, Hop { port: index, drain: false }, packet).is_err()
            && let Some(port) = slot(ports, index.0)
        {
            port.drops.add(DropCause::DelayFull);
        }
    }
}

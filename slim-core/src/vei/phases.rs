//! Keeps the time of each phase for the report.

use crate::protocol::MigrationPhase;
use crate::protocol::control::PhaseDuration;
use crate::time::Instant;
use alloc::vec::Vec;

/// The phases of one migration so far.
#[derive(Debug)]
pub(super) struct PhaseLog {
    began: Instant,
    since: Instant,
    current: MigrationPhase,
    past: Vec<PhaseDuration>,
    /// When the migration ended on this side; time stands still from then on.
    ended: Option<Instant>,
}

impl PhaseLog {
    pub(super) fn new(now: Instant, first: MigrationPhase) -> Self {
        Self { began: now, since: now, current: first, past: Vec::new(), ended: None }
    }

    pub(super) fn enter(&mut self, now: Instant, phase: MigrationPhase) {
        self.past.push(PhaseDuration { phase: self.current, duration_us: micros(now - self.since) });
        self.current = phase;
        self.since = now;
    }

    pub(super) fn end(&mut self, now: Instant) {
        self.ended.get_or_insert(now);
    }

    /// Every phase's duration and the total.
    pub(super) fn report(&self, now: Instant) -> (Vec<PhaseDuration>, u64) {
        let now = self.ended.unwrap_or(now);
        let mut phases = self.past.clone();
        if self.ended.is_none() {
            phases.push(PhaseDuration { phase: self.current, duration_us: micros(now - self.since) });
        }
        (phases, micros(now - self.began))
    }
}

fn micros(duration: core::time::Duration) -> u64 {
    duration.as_nanos() as u64 / 1_000
}

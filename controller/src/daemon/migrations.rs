//! Which migrations are under way, how the last ones ended, and how to give one up.

use super::Daemon;
use super::registry::CALL_LIMIT;
use crate::api::{MigrationOutcome, MigrationSummary};
use slim_core::migration::{CoordinatorEvent, Outcome, TooLate};
use slim_core::protocol::control::{ControlError, ErrorCode};
use slim_core::protocol::{MigrationId, Name, Text};
use std::collections::VecDeque;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many migrations that are over are remembered.
const PAST_MAX: usize = 32;

/// How long the daemon waits at its end for migrations to be undone.
const UNDO_LIMIT: Duration = Duration::from_secs(15);

/// All migrations, under way and over.
#[derive(Default)]
pub(super) struct Migrations {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    running: Vec<Running>,
    past: VecDeque<MigrationSummary>,
}

/// A migration under way, as others see it.
struct Running {
    summary: MigrationSummary,
    began: Instant,
    inputs: Sender<Input>,
}

/// What the driver waits for.
pub(super) enum Input {
    Event(CoordinatorEvent),
    Abort { reason: Text, answer: Sender<Result<(), TooLate>> },
}

impl Migrations {
    fn with<R>(&self, work: impl FnOnce(&mut Inner) -> R) -> R {
        work(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Those under way, and the last ones that are over.
    pub(super) fn summaries(&self) -> (Vec<MigrationSummary>, Vec<MigrationSummary>) {
        self.with(|inner| {
            let running = inner.running.iter().map(|running| MigrationSummary {
                duration_us: micros(running.began.elapsed()),
                ..running.summary.clone()
            });
            (running.collect(), inner.past.iter().cloned().collect())
        })
    }

    pub(super) fn begin(&self, summary: MigrationSummary, inputs: Sender<Input>) {
        self.with(|inner| inner.running.push(Running { summary, began: Instant::now(), inputs }));
    }

    /// Lets every migration under way know of something.
    pub(super) fn tell_all(&self, event: &CoordinatorEvent) {
        self.with(|inner| {
            for running in &inner.running {
                // A driver that has just ended does not want it any more.
                let _ = running.inputs.send(Input::Event(event.clone()));
            }
        });
    }

    pub(super) fn note(&self, migration: MigrationId, detail: &str) {
        self.with(|inner| {
            for running in inner.running.iter_mut().filter(|running| running.summary.migration == migration) {
                detail.clone_into(&mut running.summary.detail);
            }
        });
    }

    pub(super) fn end(&self, outcome: &MigrationOutcome) {
        let detail = match &outcome.outcome {
            Outcome::Completed { remark, .. } => remark.as_ref().map(ToString::to_string).unwrap_or_default(),
            Outcome::RolledBack { failure, .. } => failure.to_string(),
            Outcome::Unresolved { failure, what_to_do } => format!("{failure}; {what_to_do}"),
        };
        self.end_as(MigrationSummary {
            migration: outcome.migration,
            source: outcome.source.clone(),
            destination: outcome.destination.clone(),
            result: outcome.result(),
            duration_us: outcome.total_us,
            detail,
        });
    }

    pub(super) fn end_as(&self, summary: MigrationSummary) {
        self.with(|inner| inner.running.retain(|running| running.summary.migration != summary.migration));
        self.note_past(summary);
    }

    /// Remembers a migration that is over, unless it is remembered already.
    pub(super) fn note_past(&self, summary: MigrationSummary) {
        self.with(|inner| {
            if inner.past.iter().all(|past| past.migration != summary.migration) {
                inner.past.push_back(summary);
            }
            if inner.past.len() > PAST_MAX {
                inner.past.pop_front();
            }
        });
    }
}

impl Daemon {
    /// Gives up the migration in which `instance` takes part, or the only one.
    pub(super) fn abort(&self, instance: Option<&Name>) -> Result<(), ControlError> {
        let (answer, answered) = channel();
        let of_instance = |running: &Running| {
            instance.is_none_or(|name| *name == running.summary.source || *name == running.summary.destination)
        };
        let input = Input::Abort { reason: "the operator gave up".into(), answer };
        self.migrations.with(|inner| {
            let mut candidates = inner.running.iter().filter(|running| of_instance(running));
            let none = || match instance {
                Some(name) => format!("{name} takes part in no migration"),
                None => "no migration is under way".to_owned(),
            };
            let found = candidates.next().ok_or_else(|| ControlError::with(ErrorCode::UnknownMigration, none()))?;
            if candidates.next().is_some() {
                let text = "several migrations are under way: name an instance of the one to give up";
                return Err(ControlError::new(ErrorCode::Busy, text));
            }
            // A driver that has just ended leaves the answer open, which is told below.
            let _ = found.inputs.send(input);
            Ok(())
        })?;
        match answered.recv_timeout(CALL_LIMIT) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(ControlError::with(ErrorCode::Committed, error.to_string())),
            Err(_) => Err(ControlError::new(ErrorCode::UnknownMigration, "the migration has just ended")),
        }
    }

    /// Gives up every migration and waits until that is done.
    pub(super) fn end_migrations(&self) {
        self.migrations.with(|inner| {
            for running in &inner.running {
                let (answer, _) = channel();
                let _ = running.inputs.send(Input::Abort { reason: "the controller ends".into(), answer });
            }
        });
        let deadline = Instant::now() + UNDO_LIMIT;
        while self.migrations.with(|inner| !inner.running.is_empty()) {
            if Instant::now() >= deadline {
                log::error!("a migration could not be ended in time");
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}

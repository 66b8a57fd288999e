//! The NAT moves, to and fro, until it is told to stop.

use super::outcome::Migrations;
use crate::topology::{FIRST, SECOND};
use anyhow::Result;
use slim_controller::api::MigrateOptions;
use slim_controller::client::Client;
use slim_core::protocol::Name;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How many migrations are over.
#[derive(Debug, Clone, Default)]
pub(super) struct Counter(Arc<AtomicU32>);

impl Counter {
    pub(super) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A thread that migrates.
pub(super) struct Movement {
    counter: Counter,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Migrations>>,
}

impl Movement {
    /// Begins, with pauses of `stay`.
    pub(super) fn begin(mut client: Client, stay: Duration) -> Result<Self> {
        let (counter, stop) = (Counter::default(), Arc::new(AtomicBool::new(false)));
        let (counted, stopped) = (counter.clone(), Arc::clone(&stop));
        let (mut from, mut to) = (Name::try_from(FIRST)?, Name::try_from(SECOND)?);
        let thread = std::thread::spawn(move || {
            let mut migrations = Migrations::default();
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(stay);
                let outcome = client.migrate(&from, &to, MigrateOptions::default(), |_| ())?;
                migrations.add(&outcome);
                counted.0.fetch_add(1, Ordering::Relaxed);
                if outcome.failure().is_none() {
                    std::mem::swap(&mut from, &mut to);
                }
            }
            Ok(migrations)
        });
        Ok(Self { counter, stop, thread })
    }

    pub(super) fn counter(&self) -> Counter {
        self.counter.clone()
    }

    /// Ends, after the migration that is under way.
    pub(super) fn end(self) -> Result<Migrations> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the migrating thread panicked"))?
    }
}

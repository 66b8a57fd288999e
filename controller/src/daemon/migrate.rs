//! Migrations asked for by clients: who takes part, and in what condition.

use super::Daemon;
use super::drive::Pair;
use super::migrations::micros;
use super::registry::{CALL_LIMIT, Entry};
use crate::api::{ApiEvent, DestinationFrom, DestinationReady, MigrateOptions, MigrationOutcome, MigrationResult};
use slim_core::migration::{Coordinator, CoordinatorParameters};
use slim_core::protocol::control::{ControlError, Description, ErrorCode, InstanceRequest, InstanceRole};
use slim_core::protocol::{MigrationId, Name, Nonce};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an instance may take to become idle again.
const RESET_LIMIT: Duration = Duration::from_secs(5);

impl Daemon {
    /// Moves a live network function, to an instance out of the pool if none is named; returns when that is over, well or
    /// not.
    pub(super) fn migrate(
        &self,
        source: &Name,
        destination: Option<&Name>,
        options: &MigrateOptions,
        on_event: &mut dyn FnMut(ApiEvent),
    ) -> Result<MigrationOutcome, ControlError> {
        if let Some(destination) = destination {
            let outcome = self.migrate_to(source, destination, options, on_event);
            self.write_kept();
            return outcome;
        }
        let (entry, ready) = self.choose_destination(source)?;
        // Whatever happens to this daemon, it is no longer one of the pool.
        self.write_kept();
        let outcome = self.migrate_to(source, &entry.name, options, on_event);
        let outcome = match outcome {
            Err(error) => {
                self.put_back(&entry);
                Err(error)
            }
            Ok(mut outcome) => {
                outcome.destination_ready = Some(ready);
                // It would have to be emptied, and nobody has asked for it by name: the pool makes a new one.
                if outcome.result() == MigrationResult::RolledBack
                    && let Err(error) = self.retire(&entry.name, false)
                {
                    outcome.warnings.push(format!("{} was not retired: {error}", entry.name));
                }
                Ok(outcome)
            }
        };
        self.write_kept();
        outcome
    }

    /// An idle instance of the network function that `source` is.
    fn choose_destination(&self, source: &Name) -> Result<(Arc<Entry>, DestinationReady), ControlError> {
        let began = Instant::now();
        let entry = self.registry.get(source)?;
        let Some(vnf) = &entry.vnf else {
            let text = format!("{source} was attached without --vnf: name the instance that is to take over");
            return Err(ControlError::with(ErrorCode::Malformed, text));
        };
        check_name(&entry)?;
        if let Some(role) = entry.status().map(|status| status.role).filter(|role| *role != InstanceRole::Live) {
            return Err(ControlError::with(ErrorCode::WrongRole, format!("{source} is not live, but {role}")));
        }
        let own = entry.state().description.clone();
        // The image may have been built anew since one of them was booted.
        let fits =
            |other: &Description| own.as_ref().is_none_or(|own| (&own.kind, own.schema) == (&other.kind, other.schema));
        let (destination, at_hand) = self.take_or_boot(vnf, fits)?;
        let from = if at_hand { DestinationFrom::Pool } else { DestinationFrom::Boot };
        Ok((destination, DestinationReady { from, after_us: micros(began.elapsed()) }))
    }

    fn migrate_to(
        &self,
        source: &Name,
        destination: &Name,
        options: &MigrateOptions,
        on_event: &mut dyn FnMut(ApiEvent),
    ) -> Result<MigrationOutcome, ControlError> {
        if source == destination {
            let text = format!("{source} cannot migrate to itself: name another instance");
            return Err(ControlError::with(ErrorCode::Malformed, text));
        }
        let timeouts = self.deployment.timeouts.with(&options.timeouts);
        let timeouts = timeouts.map_err(|error| ControlError::with(ErrorCode::Malformed, error.to_string()))?;
        let (migration, nonce) = identifiers()?;
        let pair = Pair { source: self.registry.get(source)?, destination: self.registry.get(destination)? };
        for entry in [&pair.source, &pair.destination] {
            check_name(entry)?;
        }
        let claim = Claim::new(migration, &pair)?;
        pair.destination.state().pooled = false;
        reset_if_used(&pair.destination)?;
        let parameters = CoordinatorParameters {
            migration,
            nonce,
            source: source.clone(),
            destination: destination.clone(),
            prepare: options.prepare(&self.deployment.link, timeouts.destination),
            start: options.start(&self.deployment.link, timeouts.source),
            timeouts: timeouts.controller,
        };
        let mut outcome = self.drive(&pair, on_event, |now| Coordinator::new(now, parameters))?;
        drop(claim);
        if options.retire
            && outcome.result() == MigrationResult::Completed
            && let Err(error) = self.retire(source, false)
        {
            outcome.warnings.push(format!("{source} was not retired: {error}"));
        }
        Ok(outcome)
    }
}

/// A guest that was moved by precopy still goes by its old name, which others would not take it for.
fn check_name(entry: &Entry) -> Result<(), ControlError> {
    match entry.state().description.as_ref().map(|description| &description.name) {
        Some(own) if *own != entry.name => {
            let text = format!(
                "{} was moved by precopy and goes by the name of {own}: it can be moved so again, or retired",
                entry.name
            );
            Err(ControlError::with(ErrorCode::Unsupported, text))
        }
        _ => Ok(()),
    }
}

/// The right of a migration to two instances; given back when dropped.
pub(super) struct Claim<'a> {
    pair: &'a Pair,
}

impl<'a> Claim<'a> {
    pub(super) fn new(migration: MigrationId, pair: &'a Pair) -> Result<Self, ControlError> {
        // In the order of names, so that two migrations the other way round do not each hold what the other needs.
        let mut entries = [&pair.source, &pair.destination];
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let [mut first, mut second] = entries.map(|entry| entry.state());
        for (entry, state) in entries.iter().zip([&first, &second]) {
            if let Some(other) = state.migration {
                let text = format!("{} takes part in migration {other} already", entry.name);
                return Err(ControlError::with(ErrorCode::Busy, text));
            }
        }
        first.migration = Some(migration);
        second.migration = Some(migration);
        Ok(Self { pair })
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.pair.source.state().migration = None;
        self.pair.destination.state().migration = None;
    }
}

/// An instance that has been through a migration is emptied before it can be a destination.
fn reset_if_used(entry: &Entry) -> Result<(), ControlError> {
    let used = |role| matches!(role, InstanceRole::Released | InstanceRole::Discarded);
    // Where there is no status, the coordinator finds out what is wrong.
    let Some(status) = entry.status() else { return Ok(()) };
    if !used(status.role) {
        return Ok(());
    }
    log::info!("{}: {}, reset", entry.name, status.role);
    entry.order(InstanceRequest::Reset {}, CALL_LIMIT)?;
    let deadline = Instant::now() + RESET_LIMIT;
    while entry.status().is_none_or(|status| used(status.role)) {
        if Instant::now() >= deadline {
            return Err(ControlError::with(ErrorCode::Busy, format!("{} does not become idle", entry.name)));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A migration's identifier and nonce, which nobody has used before and nobody can guess.
pub(super) fn identifiers() -> Result<(MigrationId, Nonce), ControlError> {
    use std::io::Read;
    let mut bytes = [0; 12];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| ControlError::with(ErrorCode::Internal, format!("no random numbers: {error}")))?;
    let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
    Ok((MigrationId(u64::from_be_bytes([a, b, c, d, e, f, g, h])), Nonce(u32::from_be_bytes([i, j, k, l]))))
}

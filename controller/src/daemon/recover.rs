//! Migrations that an earlier run of the daemon began, and a switch that has been restarted.
//!
//! The daemon remembers nothing of a migration: what the two instances and the switch say is enough to complete it or
//! to undo it.

use super::drive::Pair;
use super::migrate::Claim;
use super::registry::{CALL_LIMIT, Entry, Stage};
use super::{Daemon, from_fabric};
use crate::api::{MigrationOutcome, MigrationResult, MigrationSummary};
use slim_core::migration::{Coordinator, ReadBack};

use slim_core::protocol::control::{
    ControlError, ErrorCode, InstanceRequest, InstanceRole, InstanceStatus, ResolveOutcome,
};
use slim_core::protocol::{MigrationId, MigrationPhase};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The instances that know of one migration.
#[derive(Default)]
struct Known {
    source: Option<(Arc<Entry>, InstanceStatus)>,
    destination: Option<(Arc<Entry>, InstanceStatus)>,
}

impl Known {
    /// Whether somebody still waits for something.
    fn is_open(&self) -> bool {
        let has = |side: &Option<(Arc<Entry>, InstanceStatus)>, role| {
            side.as_ref().is_some_and(|(_, status)| status.role == role)
        };
        has(&self.source, InstanceRole::Source) || has(&self.destination, InstanceRole::Destination)
    }
}

impl Daemon {
    /// Completes or undoes every migration that is open and that nobody drives. Returns at once.
    ///
    /// `all_known` says that no further instance will be attached, so that a destination without a source has none.
    pub(super) fn recover_migrations(self: &Arc<Self>, all_known: bool) {
        let all_known = all_known && self.registry.all().iter().all(|entry| entry.status().is_some());
        for (migration, known) in self.known_migrations() {
            if !known.is_open() {
                self.note_ended(migration, &known);
                continue;
            }
            let daemon = Arc::clone(self);
            let recovery = std::thread::Builder::new().name("recovery".into()).spawn(move || {
                match daemon.recover(migration, &known) {
                    Ok(Some(_)) => {}
                    Ok(None) => daemon.report_incomplete(migration, &known, all_known),
                    Err(error) => log::error!("migration {migration} cannot be picked up: {error}"),
                }
            });
            if let Err(error) = recovery {
                log::error!("no thread to pick up migration {migration}: {error}");
            }
        }
    }

    /// Remembers a migration that ended by itself while there was no daemon, for whoever asked for it.
    fn note_ended(&self, migration: MigrationId, known: &Known) {
        let (Some((source, status)), Some((destination, of_destination))) = (&known.source, &known.destination) else {
            return;
        };
        let result = match (status.role, of_destination.role) {
            (InstanceRole::Released, InstanceRole::Live) => MigrationResult::Completed,
            (InstanceRole::Live, InstanceRole::Discarded) => MigrationResult::RolledBack,
            _ => return,
        };
        self.migrations.note_past(MigrationSummary {
            migration,
            source: source.name.clone(),
            destination: destination.name.clone(),
            result,
            duration_us: 0,
            detail: "ended while there was no daemon".to_owned(),
        });
    }

    fn known_migrations(&self) -> BTreeMap<MigrationId, Known> {
        let mut all: BTreeMap<MigrationId, Known> = BTreeMap::new();
        for entry in self.registry.all() {
            if entry.state().migration.is_some() {
                continue;
            }
            let Some(status) = entry.status() else { continue };
            let Some(migration) = &status.migration else { continue };
            let known = all.entry(migration.id).or_default();
            match migration.phase {
                MigrationPhase::Source(_) => known.source = Some((entry, status)),
                MigrationPhase::Destination(_) => known.destination = Some((entry, status)),
            }
        }
        all
    }

    /// Drives one migration to its end; nothing if one of its ends is not known.
    fn recover(&self, migration: MigrationId, known: &Known) -> Result<Option<MigrationOutcome>, ControlError> {
        let (Some((source, source_status)), Some((destination, destination_status))) =
            (&known.source, &known.destination)
        else {
            return Ok(None);
        };
        let pair = Pair { source: Arc::clone(source), destination: Arc::clone(destination) };
        let _claim = Claim::new(migration, &pair)?;
        log::warn!("migration {migration}: found open, picked up");
        let read = ReadBack {
            migration,
            source: source.name.clone(),
            destination: destination.name.clone(),
            source_status: Some(source_status.clone()),
            destination_status: Some(destination_status.clone()),
            redirect: self.fabric.redirect_state(migration).ok(),
            timeouts: self.deployment.timeouts.controller,
        };
        self.drive(&pair, &mut |_| (), |now| Coordinator::recover(now, read)).map(Some)
    }

    /// One end alone: a destination that nothing was led to can be given up, anything else needs the other end.
    fn report_incomplete(&self, migration: MigrationId, known: &Known, all_known: bool) {
        match known {
            Known { source: None, destination: Some((entry, _)) } => {
                let untouched = all_known && matches!(self.fabric.redirect_state(migration), Ok(None));
                let abort = InstanceRequest::Abort {
                    migration,
                    reason: "the controller was restarted before the migration began".into(),
                    hand_back: None,
                };
                if untouched && entry.order(abort, CALL_LIMIT).is_ok() {
                    log::warn!("{}: gave up migration {migration}, which had not begun", entry.name);
                } else {
                    log::error!(
                        "{}: waits for the source of migration {migration}: attach that too, or retire it",
                        entry.name
                    );
                }
            }
            Known { source: Some((entry, status)), .. } => {
                let destination = status.migration.as_ref().and_then(|migration| migration.destination);
                let at = destination.map(|address| format!(" at {address}")).unwrap_or_default();
                let name = &entry.name;
                log::error!(
                    "{name}: waits for the destination{at} of migration {migration}: attach that too, or end it with \
                     `slimctl instance resolve {name}`"
                );
            }
            Known { source: None, destination: None } => {}
        }
    }

    /// Ends the wait of a source that has committed, on the operator's word.
    pub(super) fn resolve(&self, entry: &Entry, outcome: ResolveOutcome) -> Result<(), ControlError> {
        let status = entry.status().and_then(|status| status.migration);
        let Some(migration) = status.filter(|known| matches!(known.phase, MigrationPhase::Source(_))) else {
            let text = format!("{} is not the source of a migration", entry.name);
            return Err(ControlError::with(ErrorCode::UnknownMigration, text));
        };
        entry.order(InstanceRequest::Resolve { migration: migration.id, outcome }, CALL_LIMIT)
    }

    /// Gives a switch that has been restarted everything it had: external ports, instances, and paths.
    pub(super) fn restore_switch(&self) -> Result<(), ControlError> {
        let plugged = self.fabric.paths().map_err(from_fabric)?;
        let known = |entry: &Entry| plugged.iter().find(|known| known.instance == entry.name);
        let entries: Vec<Arc<Entry>> =
            self.registry.all().into_iter().filter(|entry| entry.state().stage == Stage::Running).collect();
        let blueprints =
            || entries.iter().filter_map(|entry| entry.blueprint.as_ref().map(|blueprint| (entry, blueprint)));
        let mut missing = blueprints().filter(|(entry, _)| known(entry).is_none()).peekable();
        if missing.peek().is_some() {
            log::warn!("the switch has been restarted: it gets its ports and paths again");
            // The external ports last: packets come from the moment they are open, and need a path.
            for (_, blueprint) in missing {
                self.fabric.plug(blueprint.plug()).map_err(from_fabric)?;
            }
            self.set_up_network().map_err(|error| ControlError::with(ErrorCode::Io, error.to_string()))?;
        }
        // Not only of those that were missing: an earlier attempt may have ended half-way.
        self.settle_traffic()
    }
}

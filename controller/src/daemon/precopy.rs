//! Moving a guest as a whole, with its hypervisor's own live migration: for comparison with what the rest of this is for.
//!
//! The guest notices nothing. It keeps its name, its addresses and its connections, ours included; only what the switch
//! and we call it changes, together with the ports it hangs on.

use super::blueprint::{Blueprint, Start};
use super::host_link::{HostLink, HostLinkError};
use super::lifecycle::from_launch;
use super::migrate::identifiers;
use super::migrations::{Input, micros};
use super::registry::{Entry, Stage};
use super::{Daemon, from_fabric};
use crate::api::{ApiEvent, MigrationResult, MigrationSummary};
use crate::hypervisor::Hypervisor;
use crate::hypervisor::qemu::{LiveMigration, LiveStage, Qemu};
use crate::precopy::{PrecopyOptions, PrecopyOutcome, PrecopyProgress};
use slim_core::migration::TooLate;
use slim_core::protocol::control::{ControlError, ErrorCode};
use slim_core::protocol::{MigrationId, Name};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How often the hypervisor is asked how far it is. What this adds to the downtime that packets see is small beside that.
const PULSE: Duration = Duration::from_millis(10);

/// How often a client is told.
const TELL: Duration = Duration::from_millis(500);

/// How long the destination may take from the last byte until the guest runs.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(60);

impl Daemon {
    /// Moves the guest of `source` into a new hypervisor on the ports of `destination`, which must not exist; returns when
    /// that is over, well or not.
    pub(super) fn precopy(
        &self,
        source: &Name,
        destination: &Name,
        options: &PrecopyOptions,
        on_event: &mut dyn FnMut(ApiEvent),
    ) -> Result<PrecopyOutcome, ControlError> {
        if self.deployment.keep {
            let text = "instances of this deployment go on when the daemon ends, which one moved by precopy would not";
            return Err(ControlError::new(ErrorCode::Unsupported, text));
        }
        let old = self.registry.get(source)?;
        let monitor = monitor(&old)?;
        let (migration, _) = identifiers()?;
        let _claim = Alone::claim(&old, migration)?;
        let new = self.make_room(&old, destination)?;
        let (inputs, queue) = channel();
        let summary = |result, began: Instant, detail: &str| MigrationSummary {
            migration,
            source: source.clone(),
            destination: destination.clone(),
            result,
            duration_us: micros(began.elapsed()),
            detail: detail.to_owned(),
        };
        log::info!("migration {migration}: {source} to {destination} by precopy");
        on_event(ApiEvent::MigrationBegun { migration });
        self.migrations.begin(summary(MigrationResult::Running, Instant::now(), "precopy"), inputs);

        let mut run = Run {
            began: Instant::now(),
            migration,
            progress: PrecopyProgress { at_us: 0, round: 0, sent_bytes: 0, remaining_bytes: 0 },
            memory_bytes: 0,
            stream_bytes: 0,
        };
        let moved = self.move_guest(&old, &new, &monitor, options, &queue, &mut run, on_event);
        let outcome = match moved {
            Ok((downtime, redirected_after)) => {
                let outcome = run.outcome(source, destination, None, downtime, Some(redirected_after));
                self.hand_over(&old, &new);
                outcome
            }
            Err(error) => {
                log::warn!("migration {migration}: {error}");
                new.state().stage = Stage::Retiring;
                self.take_down(&new, None);
                run.outcome(source, destination, Some(error.to_string()), None, None)
            }
        };
        let (result, detail) = match &outcome.failure {
            None => (MigrationResult::Completed, ""),
            Some(failure) => (MigrationResult::RolledBack, failure.as_str()),
        };
        self.migrations.end_as(summary(result, run.began, detail));
        Ok(outcome)
    }

    /// An entry for the guest's new place, with the number that its addresses are made from.
    fn make_room(&self, old: &Entry, destination: &Name) -> Result<Arc<Entry>, ControlError> {
        let not_ours = || {
            let text = format!("{} was not booted from the deployment: how its guest is made is not known", old.name);
            ControlError::with(ErrorCode::Unsupported, text)
        };
        let (blueprint, index) = old.blueprint.as_ref().zip(old.index).ok_or_else(not_ours)?;
        if !blueprint.functions().is_empty() {
            let text = format!("{} has PCI functions of the host: its guest cannot be moved, its state can", old.name);
            return Err(ControlError::with(ErrorCode::Unsupported, text));
        }
        let new = Blueprint::new(&self.deployment, destination, &blueprint.vnf, index);
        let new = new.map_err(|error| ControlError::with(ErrorCode::Limit, error))?;
        let vnf = old.vnf.as_ref();
        self.registry.restore(destination, vnf, Some(index), Some(new), old.control.clone()).ok_or_else(|| {
            let text = format!(
                "there is an instance {destination} already: by precopy a guest moves, name and all, to where there is none"
            );
            ControlError::with(ErrorCode::AlreadyExists, text)
        })
    }

    #[expect(clippy::too_many_arguments, reason = "they are what one migration consists of")]
    fn move_guest(
        &self,
        old: &Entry,
        new: &Entry,
        monitor: &Path,
        options: &PrecopyOptions,
        queue: &Receiver<Input>,
        run: &mut Run,
        on_event: &mut dyn FnMut(ApiEvent),
    ) -> Result<(Option<Duration>, Duration), Failed> {
        let Some(blueprint) = &new.blueprint else { return Err(Failed::Refused("it has no ports".into())) };
        self.fabric.plug(blueprint.plug()).map_err(from_fabric)?;
        let target = self.start_waiting(new, blueprint)?;
        let link = HostLink::new(&self.fabric, &old.name, &new.name, options.scheduling, &self.deployment.run_dir)?;
        run.began = Instant::now();
        let mut live = LiveMigration::begin(monitor, &target, &link.outgoing, &link.incoming)?;
        if let Err(error) = run.until_sent(&mut live, options, queue, &link, on_event) {
            return Err(match live.cancel() {
                Ok(true) => error,
                Ok(false) => Failed::Refused(format!("{error}; and the guest stands still at {}", old.name)),
                Err(worse) => Failed::Refused(format!("{error}; and {worse}")),
            });
        }
        let arrived = (|| {
            let deadline = Instant::now() + ARRIVAL_LIMIT;
            while !live.has_arrived()? {
                if Instant::now() >= deadline {
                    return Err(Failed::Refused("the guest does not run at the destination".into()));
                }
                std::thread::sleep(PULSE);
            }
            Ok(())
        })();
        // Both have the whole guest now, and only one of them may run it.
        if let Err(error) = arrived {
            new.state().machine = None;
            return Err(match live.cancel() {
                Ok(true) => error,
                _ => Failed::Refused(format!("{error}; and the guest stands still at {}", old.name)),
            });
        }
        let arrived = Instant::now();
        let externals = blueprint.externals();
        let bound = self.fabric.bind(&old.name, &[]).and_then(|()| self.fabric.bind(&new.name, &externals));
        if let Err(error) = bound {
            // There is no way back: the guest runs there.
            log::error!("{}: runs, but the switch does not lead the traffic to it: {error}", new.name);
        }
        run.stream_bytes = link.carried_bytes();
        Ok((live.downtime(), arrived.elapsed()))
    }

    /// Starts a hypervisor that waits for a guest to move in, and says where it takes commands.
    fn start_waiting(&self, new: &Entry, blueprint: &Blueprint) -> Result<PathBuf, Failed> {
        let Start::Guest(mut launch) = blueprint.start(None, &[]).map_err(from_launch)? else {
            return Err(Failed::Refused("it is an ordinary process, which no hypervisor can move".into()));
        };
        launch.incoming = true;
        let qemu = Qemu::find().map_err(|error| from_launch(error.into()))?;
        let machine = qemu.boot(&launch).map_err(from_launch)?;
        let socket = launch.qmp_socket.clone();
        let deadline = Instant::now() + ARRIVAL_LIMIT;
        new.state().machine = Some(machine);
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            if Instant::now() >= deadline || new.state().machine.as_mut().is_none_or(|machine| !machine.is_alive()) {
                let tail = new.state().machine.as_ref().map(|machine| machine.console_tail()).unwrap_or_default();
                return Err(Failed::Refused(format!("the destination's hypervisor does not start{tail}")));
            }
            std::thread::sleep(PULSE);
        }
        Ok(socket)
    }

    /// The new entry is the instance from now on; the old one, an empty shell, goes.
    fn hand_over(&self, old: &Arc<Entry>, new: &Arc<Entry>) {
        {
            let mut before = old.state();
            let mut after = new.state();
            // The connection has moved with the guest.
            after.peer = before.peer.take();
            after.description = before.description.take();
            after.ready = before.ready.take();
            after.renew_at = before.renew_at;
            after.has_traffic = true;
            after.stage = Stage::Running;
            before.has_traffic = false;
            before.stage = Stage::Retiring;
        }
        let shell = old.state().machine.take();
        if let Some(mut shell) = shell {
            // Nobody is in it who could power it off.
            shell.stop(Duration::ZERO);
        }
        self.take_down(old, None);
    }
}

/// The control socket of an instance's hypervisor.
fn monitor(entry: &Entry) -> Result<PathBuf, ControlError> {
    let state = entry.state();
    let name = &entry.name;
    match (&state.stage, state.machine.as_ref().and_then(|machine| machine.monitor())) {
        (Stage::Running, Some(socket)) => Ok(socket.to_owned()),
        (Stage::Running, None) => {
            let text = format!("{name} is no guest of ours, so no hypervisor can move it");
            Err(ControlError::with(ErrorCode::Unsupported, text))
        }
        _ => Err(ControlError::with(ErrorCode::WrongRole, format!("{name} does not run"))),
    }
}

/// The right of a migration to one instance; given back when dropped.
struct Alone<'a>(&'a Entry);

impl<'a> Alone<'a> {
    fn claim(entry: &'a Entry, migration: MigrationId) -> Result<Self, ControlError> {
        let mut state = entry.state();
        if let Some(other) = state.migration {
            let text = format!("{} takes part in migration {other} already", entry.name);
            return Err(ControlError::with(ErrorCode::Busy, text));
        }
        state.migration = Some(migration);
        Ok(Self(entry))
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.state().migration = None;
    }
}

/// Why a guest stays where it is.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    HostLink(#[from] HostLinkError),
    #[error(transparent)]
    Hypervisor(#[from] std::io::Error),
    #[error("{0}")]
    Refused(String),
}

/// A migration under way.
struct Run {
    began: Instant,
    migration: MigrationId,
    progress: PrecopyProgress,
    memory_bytes: u64,
    stream_bytes: u64,
}

impl Run {
    /// Watches the source until all has been sent.
    fn until_sent(
        &mut self,
        live: &mut LiveMigration,
        options: &PrecopyOptions,
        queue: &Receiver<Input>,
        link: &HostLink,
        on_event: &mut dyn FnMut(ApiEvent),
    ) -> Result<(), Failed> {
        let patience = Duration::from_secs(options.patience_s.into());
        let mut told = self.began;
        let mut finishing = false;
        loop {
            let now = live.progress()?;
            self.stream_bytes = link.carried_bytes();
            self.memory_bytes = now.memory_bytes.max(self.memory_bytes);
            let (round, sent_bytes, remaining_bytes) = (now.rounds, now.sent_bytes, now.remaining_bytes);
            let at_us = micros(self.began.elapsed());
            self.progress = PrecopyProgress { at_us, round, sent_bytes, remaining_bytes };
            match now.stage {
                LiveStage::Sent => return Ok(()),
                LiveStage::Cancelled => return Err(Failed::Refused("somebody else has cancelled it".into())),
                LiveStage::Active => {}
            }
            if told.elapsed() >= TELL {
                told = Instant::now();
                on_event(ApiEvent::Precopy { progress: self.progress });
            }
            if !finishing && round >= u64::from(options.rounds) {
                live.finish()?;
                finishing = true;
            }
            if !patience.is_zero() && self.began.elapsed() >= patience {
                return Err(Failed::Refused(format!("it was not over after {} s", options.patience_s)));
            }
            match queue.recv_timeout(PULSE) {
                Ok(Input::Abort { reason, answer }) => {
                    // Whoever asked may have left.
                    let _ = answer.send(Ok::<(), TooLate>(()));
                    return Err(Failed::Refused(reason.to_string()));
                }
                // Events of the switch are about redirects with drain packets, which there are none of.
                Ok(Input::Event(_)) | Err(_) => {}
            }
        }
    }

    fn outcome(
        &self,
        source: &Name,
        destination: &Name,
        failure: Option<String>,
        downtime: Option<Duration>,
        redirected_after: Option<Duration>,
    ) -> PrecopyOutcome {
        PrecopyOutcome {
            migration: self.migration,
            source: source.clone(),
            destination: destination.clone(),
            failure,
            total_us: micros(self.began.elapsed()),
            downtime_us: downtime.map(micros),
            redirected_after_us: redirected_after.map(micros),
            progress: self.progress,
            memory_bytes: self.memory_bytes,
            stream_bytes: self.stream_bytes,
        }
    }
}

//! The daemon: has charge of instances and switch, and drives migrations.
//!
//! Everything about order, time-outs and undoing is decided by [`slim_core::migration::Coordinator`]; the daemon carries
//! its actions out. Plain threads: one accepts clients, one serves each client, each control connection has one, and one
//! looks after instances that end by themselves.
//!
//! - `server`: the socket that `slimctl` connects to;
//! - `requests`: what is asked for there;
//! - `registry`, `blueprint`, `lifecycle`: instances, from a section of the deployment to their end;
//! - `identities`: who everybody is;
//! - `migrate`, `drive`, `migrations`: who migrates where, the coordinator's driver, and how it went;
//! - `pool`: instances that are booted before anybody asks for one;
//! - `vlan`: how the switch reaches instances on PCI functions;
//! - `precopy`, `host_link`: moving a whole guest instead, and the stream that its memory takes;
//! - `keep`, `search`, `recover`: what one run of the daemon leaves for the next, and what that makes of it.

mod blueprint;
mod drive;
mod host_link;
mod identities;
mod keep;
mod lifecycle;
mod migrate;
mod migrations;
mod network;
mod plan;
mod pool;
mod precopy;
mod recover;
mod registry;
mod requests;
mod search;
mod server;
mod traffic;
mod vlan;

use crate::deployment::Deployment;
use crate::fabric::{Fabric, FabricError, SwitchAgent};
use crate::peer::{CallError, PeerEvent};
use identities::Identities;
use migrations::Migrations;
pub use pool::POOL_MAX;
use pool::Pools;
use registry::Registry;
use slim_core::migration::{CoordinatorEvent, Party};
use slim_core::protocol::control::{ControlError, ErrorCode};
use slim_trust::AuthorityError;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long the switch may take to be there when the daemon starts.
const SWITCH_LIMIT: Duration = Duration::from_secs(10);

/// How often the daemon looks whether an instance has ended by itself, and whether it is to end itself.
const PULSE: Duration = Duration::from_millis(50);

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Another daemon listens on the socket.
    #[error("a daemon listens on {} already: stop it, or choose another socket with --socket", .0.display())]
    AlreadyRunning(PathBuf),
    /// A folder, socket or thread could not be made.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was being done.
        action: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The switch does not answer or refuses.
    #[error(transparent)]
    Fabric(#[from] FabricError),
    /// There are no identities, or they are damaged.
    #[error("{0}")]
    Trust(#[from] AuthorityError),
    /// The controller has no way into the management network.
    #[error("{0}")]
    Network(String),
}

impl DaemonError {
    fn io(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}

/// Tells a running daemon to end.
#[derive(Debug, Clone, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// A flag that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the flag when one of `signals` arrives.
    ///
    /// # Errors
    /// One of them cannot be caught.
    pub fn on_signals(&self, signals: &[i32]) -> std::io::Result<()> {
        signals.iter().try_for_each(|&signal| signal_hook::flag::register(signal, Arc::clone(&self.0)).map(drop))
    }

    /// Sets the flag.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A daemon with its socket open and the switch set up.
pub struct Daemon {
    deployment: Deployment,
    identities: Identities,
    fabric: Arc<dyn Fabric>,
    registry: Registry,
    migrations: Migrations,
    pools: Pools,
    started: Instant,
    stop: StopFlag,
    /// Whether the switch may have been restarted and has not got back what it had.
    switch_is_new: Arc<AtomicBool>,
    /// Whether instances are retired at the end although the deployment says that they go on.
    retire_at_end: AtomicBool,
}

impl Daemon {
    /// Runs a daemon until `stop` is set or a client ends it, calling `ready` once clients can connect.
    ///
    /// At the end every instance it has booted is retired, unless the deployment says that they go on.
    ///
    /// # Errors
    /// It could not start. Once it runs, failures are answers to clients and log lines.
    pub fn run(deployment: Deployment, stop: StopFlag, ready: impl FnOnce()) -> Result<(), DaemonError> {
        let identities = Identities::read(&deployment.trust)?;
        for folder in [Some(deployment.run_dir.as_path()), deployment.socket.parent()].into_iter().flatten() {
            std::fs::create_dir_all(folder)
                .map_err(DaemonError::io(format!("make the folder {}", folder.display())))?;
        }
        let listener = server::Listener::bind(&deployment.socket)?;
        let switch = SwitchAgent::new(deployment.switch.clone(), identities.security());
        let switch = switch.map_err(DaemonError::io("start a thread"))?;
        switch.wait_up(SWITCH_LIMIT)?;
        let daemon = Arc::new(Self {
            deployment,
            identities,
            fabric: Arc::new(switch),
            registry: Registry::default(),
            migrations: Migrations::default(),
            pools: Pools::default(),
            started: Instant::now(),
            stop,
            switch_is_new: Arc::default(),
            retire_at_end: AtomicBool::new(false),
        });
        daemon.set_up_network()?;
        daemon.adopt_kept();
        daemon.forget_stale().map_err(|error| DaemonError::Network(error.to_string()))?;
        daemon.recover_migrations(true);
        daemon.settle_traffic().map_err(|error| DaemonError::Network(error.to_string()))?;
        let serving = listener.serve(Arc::clone(&daemon))?;
        daemon.keep_identities().map_err(DaemonError::io("start a thread"))?;
        let tending = daemon.tend_pools().map_err(DaemonError::io("start a thread"))?;
        if daemon.deployment.trust.plaintext {
            log::warn!(
                "PLAINTEXT: control connections and state streams are neither encrypted nor authenticated; whoever \
                 reaches the management network can end every instance or take its state"
            );
        }
        log::info!("listening on {}", daemon.deployment.socket.display());
        ready();

        let switch_came_back = daemon.watch_switch();
        while !daemon.stop.is_set() {
            daemon.check_instances();
            if switch_came_back.swap(false, Ordering::AcqRel) {
                daemon.welcome_switch(&switch_came_back);
            }
            std::thread::sleep(PULSE);
        }
        log::info!("ending");
        serving.end();
        daemon.end_migrations();
        daemon.leave_pools(tending);
        if daemon.deployment.keep && !daemon.retire_at_end.load(Ordering::Acquire) {
            daemon.leave_all();
        } else {
            daemon.retire_all();
            daemon.write_kept();
        }
        Ok(())
    }

    /// A flag that is set whenever there is a new connection to the switch.
    fn watch_switch(&self) -> Arc<AtomicBool> {
        let came_back = Arc::new(AtomicBool::new(false));
        let (flag, is_new) = (Arc::clone(&came_back), Arc::clone(&self.switch_is_new));
        self.fabric.subscribe(Box::new(move |event| {
            match event {
                PeerEvent::Up => flag.store(true, Ordering::Release),
                PeerEvent::Down => is_new.store(true, Ordering::Release),
                PeerEvent::Event(_) => {}
            }
            true
        }));
        came_back
    }

    /// Gives a switch that has come back what it had, then lets migrations know.
    fn welcome_switch(&self, came_back: &AtomicBool) {
        match self.restore_switch() {
            Ok(()) => {
                self.switch_is_new.store(false, Ordering::Release);
                self.migrations.tell_all(&CoordinatorEvent::Connected(Party::Switch));
            }
            Err(error) => {
                log::error!("the switch could not be restored: {error}; tried again");
                came_back.store(true, Ordering::Release);
            }
        }
    }
}

/// The fabric's refusal or silence, for whoever asked us.
fn from_fabric(error: FabricError) -> ControlError {
    let code = match &error.source {
        CallError::Refused(refusal) => refusal.code,
        _ => ErrorCode::Io,
    };
    ControlError::with(code, error.to_string())
}

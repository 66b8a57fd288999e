//! The testbed that stays: `cargo xtask testbed up` and `down`.
//!
//! One process, the *keeper*, lives in the network namespace `slim-mgmt` and holds the whole topology; everything ends
//! with it. Its folder holds sockets, logs, consoles and its process id.

use crate::artifacts::Artifacts;
use crate::demo::InstanceArguments;
use crate::sandbox::ip;
use crate::topology::{Ends, FIRST, MANAGEMENT, Namespaces, SECOND, Topology, daemon_socket};
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The keeper's folder.
pub const FOLDER: &str = "/run/slim-testbed";

/// How long bringing everything up may take: two boots under emulation, on a busy machine.
const UP_LIMIT: Duration = Duration::from_secs(180);
/// How long the keeper may take to end everything.
const DOWN_LIMIT: Duration = Duration::from_secs(30);

/// Brings the testbed up and returns once both instances are ready.
///
/// # Errors
/// Without root, if one is up already, or with the keeper's own words if it fails.
pub fn up(artifacts: &Artifacts, instances: &InstanceArguments) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("named network namespaces need root: `sudo -E cargo xtask testbed up` (the demo works without)");
    }
    if let Some(keeper) = keeper() {
        bail!("a testbed is up already (process {keeper}): `cargo xtask testbed down` ends it");
    }
    clear();
    std::fs::create_dir_all(FOLDER).with_context(|| format!("cannot create {FOLDER}"))?;
    let list = artifacts_file();
    artifacts.write(&list)?;
    ip(&["netns", "add", MANAGEMENT])?;
    ip(&["-n", MANAGEMENT, "link", "set", "lo", "up"])?;

    let log = folder().join("keeper.log");
    let file = File::create(&log)?;
    let mut child = Command::new("nsenter")
        .arg(format!("--net=/run/netns/{MANAGEMENT}"))
        .arg("setsid")
        .arg(&artifacts.testbed)
        .args(["stand", "--spec", &serde_json::to_string(instances)?, "--artifacts"])
        .arg(&list)
        .args(["--folder", FOLDER])
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .context("cannot start the testbed's keeper")?;
    let deadline = Instant::now() + UP_LIMIT;
    while !ready_file().exists() {
        let ended = child.try_wait()?;
        if ended.is_some() || Instant::now() > deadline {
            let _ = down();
            let words = std::fs::read_to_string(&log).unwrap_or_default();
            bail!("the testbed did not come up:\n{}", words.trim());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Takes the testbed down. Does nothing if none is up.
///
/// # Errors
/// If the keeper does not end.
pub fn down() -> Result<()> {
    if let Some(keeper) = keeper() {
        kill(keeper, Signal::SIGTERM).context("cannot end the testbed's keeper")?;
        let deadline = Instant::now() + DOWN_LIMIT;
        while kill(keeper, None).is_ok() {
            if Instant::now() > deadline {
                // The kernel then ends its children.
                let _ = kill(keeper, Signal::SIGKILL);
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    clear();
    Ok(())
}

/// The socket of the standing testbed's daemon, for `slimctl --socket`.
///
/// # Errors
/// If no testbed is up.
pub fn socket() -> Result<PathBuf> {
    match keeper() {
        Some(_) => Ok(daemon_socket(&folder())),
        None => bail!("no testbed is up: `cargo xtask testbed up` makes one"),
    }
}

/// The programs the standing testbed was brought up with.
///
/// # Errors
/// If no testbed is up.
pub fn artifacts() -> Result<Artifacts> {
    Artifacts::read(&artifacts_file()).context("no testbed is up: `cargo xtask testbed up` makes one")
}

/// The keeper's work: brings the topology up, says so, and holds it until a signal comes or a part of it ends.
pub fn stand(artifacts: &Artifacts, instances: &InstanceArguments, folder: &Path) -> Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    std::fs::write(pid_file(), std::process::id().to_string())?;
    let mut topology = Topology::up(artifacts, &instances.settings(), Ends::Namespaces, folder)?;
    let _namespaces = Namespaces::up()?;
    topology.boot(FIRST, true)?;
    topology.boot(SECOND, false)?;
    std::fs::write(ready_file(), "")?;
    while signals.pending().next().is_none() {
        topology.check()?;
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn folder() -> PathBuf {
    PathBuf::from(FOLDER)
}

fn pid_file() -> PathBuf {
    folder().join("keeper.pid")
}

fn artifacts_file() -> PathBuf {
    folder().join("artifacts.json")
}

fn ready_file() -> PathBuf {
    folder().join("ready")
}

/// The running keeper.
fn keeper() -> Option<Pid> {
    let id: i32 = std::fs::read_to_string(pid_file()).ok()?.trim().parse().ok()?;
    // The number may belong to another program by now.
    let command = std::fs::read(format!("/proc/{id}/cmdline")).ok()?;
    command.split(|byte| *byte == 0).any(|word| word == b"stand").then(|| Pid::from_raw(id))
}

/// Removes what a killed keeper leaves: names. Its processes ended with it.
fn clear() {
    for name in [MANAGEMENT, crate::topology::INSIDE, crate::topology::OUTSIDE] {
        if Path::new("/run/netns").join(name).exists() {
            let _ = ip(&["netns", "delete", name]);
        }
    }
    let _ = std::fs::remove_dir_all(FOLDER);
}

//! Private namespaces for a run.
//!
//! A run gets its own network, process, mount and (without root) user namespace: its addresses exist nowhere else, and
//! when its first process ends, for whatever reason, the kernel ends every other one. Nothing can be left behind.

use crate::artifacts::Artifacts;
use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::process::{Command, Stdio};

/// Set for the process inside the sandbox.
const INSIDE_ENV: &str = "SLIM_SANDBOX";

/// Runs a command of `slim-testbed` in a new sandbox and returns what it prints; progress goes to our standard error.
///
/// # Errors
/// The sandbox cannot be made, or the command fails; it has said why by then.
pub fn run<S: Serialize, O: DeserializeOwned>(what: &str, spec: &S, artifacts: &Artifacts, folder: &Path) -> Result<O> {
    run_with(what, spec, artifacts, folder, Stdio::inherit())
}

/// As [`run`], but progress goes to the file `progress.log` in `folder`.
///
/// # Errors
/// As for [`run`]; what the command said is in the error.
pub fn run_quietly<S: Serialize, O: DeserializeOwned>(
    what: &str,
    spec: &S,
    artifacts: &Artifacts,
    folder: &Path,
) -> Result<O> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let log = folder.join("progress.log");
    let file = std::fs::File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
    run_with(what, spec, artifacts, folder, file.into()).with_context(|| {
        let said = std::fs::read(&log).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let last = said.lines().skip_while(|line| !line.starts_with("error:"));
        last.collect::<Vec<_>>().join("\n")
    })
}

fn run_with<S: Serialize, O: DeserializeOwned>(
    what: &str,
    spec: &S,
    artifacts: &Artifacts,
    folder: &Path,
    progress: Stdio,
) -> Result<O> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let list = folder.join("artifacts.json");
    artifacts.write(&list)?;
    let output = command(&artifacts.testbed)
        .args([what, "--spec", &serde_json::to_string(spec)?, "--artifacts"])
        .arg(&list)
        .arg("--folder")
        .arg(folder)
        .stderr(progress)
        .output()
        .context("cannot run `unshare`: install util-linux")?;
    if !output.status.success() {
        bail!("the run in the sandbox failed; its logs are in {}", folder.display());
    }
    serde_json::from_slice(&output.stdout).context("the outcome of the run cannot be understood")
}

/// A command that will run `program` as the first process of a new sandbox.
///
/// The sandbox dies with the returned command's process, and `program` with it.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--mount", "--mount-proc", "--pid", "--fork", "--kill-child=SIGKILL", "--"]);
    command.arg(program).env(INSIDE_ENV, "1");
    command
}

/// Prepares the sandbox from inside: loopback up, and a private `/run`, so that named network namespaces are private too.
///
/// # Errors
/// Fails when called outside a sandbox, before it has changed anything.
pub fn enter() -> Result<()> {
    if std::env::var_os(INSIDE_ENV).is_none() || !nix::unistd::getpid().eq(&nix::unistd::Pid::from_raw(1)) {
        bail!(
            "this command is for the inside of the testbed's sandbox; use `cargo xtask demo` or `cargo xtask testbed`"
        );
    }
    nix::mount::mount(Some("tmpfs"), "/run", Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>)
        .context("cannot mount a private /run")?;
    ip(&["link", "set", "lo", "up"])
}

/// Runs `ip` with `arguments`.
pub fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .context("cannot run `ip`: install iproute2, or run `cargo xtask setup`")?;
    if !output.status.success() {
        bail!("`ip {}` failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

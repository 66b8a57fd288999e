//! Our launcher, as an operator would run it.

use super::Stalled;
use crate::words::Plan;
use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Where the launcher may write.
pub(super) const SCRATCH: &str = "/run/scratch";

/// What the launcher says when QEMU has been started with KVM.
pub(super) const RUNS: &str = "runs with kvm";

/// A program as it is run here: nothing is typed to it, and only [`SCRATCH`] is its own.
pub(super) fn program(path: &str) -> Command {
    let mut command = Command::new(path);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
    command.env("HOME", SCRATCH).env("TMPDIR", SCRATCH).stdin(Stdio::null());
    command
}

/// xtask with `arguments`.
fn command(plan: &Plan, arguments: &[&str]) -> Command {
    let mut command = program(&plan.launcher);
    command.arg("--no-install").args(arguments);
    command
}

/// What a launcher said that has ended.
pub(super) struct Said {
    pub(super) success: bool,
    /// Its standard output alone.
    pub(super) stdout: String,
    pub(super) text: String,
}

/// Runs the launcher to its end.
pub(super) fn run(plan: &Plan, arguments: &[&str]) -> Result<Said> {
    let output = command(plan, arguments).output().with_context(|| format!("cannot start {}", plan.launcher))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let text = format!("{stdout}{}", String::from_utf8_lossy(&output.stderr));
    println!("$ xtask {}\n{text}", arguments.join(" "));
    Ok(Said { success: output.status.success(), stdout, text })
}

/// The arguments that boot the NAT with what `functions` names.
pub(super) fn nat<'a>(plan: &'a Plan, functions: &[&'a str]) -> Vec<&'a str> {
    [&["run", "nat", "--active", "--image", &plan.image, "--accel", "kvm"], functions].concat()
}

/// A launcher that runs.
pub(super) struct Launcher {
    child: Child,
    lines: Receiver<String>,
}

impl Launcher {
    /// Starts it. Its standard output, the guest's console, goes to ours.
    pub(super) fn start(plan: &Plan, arguments: &[&str]) -> Result<Self> {
        println!("$ xtask {} &", arguments.join(" "));
        let mut child = command(plan, arguments)
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", plan.launcher))?;
        let stderr = child.stderr.take().context("the launcher's messages are not piped")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                println!("{line}");
                // Nobody listens any more when the step has ended.
                let _ = sender.send(line);
            }
        });
        Ok(Self { child, lines })
    }

    /// Waits until it prints a line that contains `text`.
    pub(super) fn wait_for(&mut self, text: &str, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        let mut said = Vec::new();
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(text) => return Ok(()),
                Ok(line) => said.push(line),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(Stalled(format!("the launcher did not print {text:?} in {limit:?}: {said:?}")).into());
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let why = format!("the launcher ended without printing {text:?}: {said:?}");
                    // Once its guest runs, only the guest's end, which is none of the launcher's, lets it end well.
                    return Err(match said.iter().any(|line| line.contains(RUNS)) && self.ended_well() {
                        true => Stalled(why).into(),
                        false => anyhow!(why),
                    });
                }
            }
        }
    }

    fn ended_well(&mut self) -> bool {
        self.child.wait().is_ok_and(|status| status.success())
    }

    /// Sends it `signal` and waits for its end.
    pub(super) fn end(mut self, signal: Signal, limit: Duration) -> Result<ExitStatus> {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal)?;
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "the launcher did not end within {limit:?} after {signal}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

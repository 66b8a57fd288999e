//! The load generator, running beside a topology with [`Ends::Load`](crate::topology::Ends::Load).

use crate::artifacts::Artifacts;
use crate::load::report::{Stage, Status};
use crate::load::{LoadSpec, Report};
use crate::process::Process;
use crate::topology::{load_device, load_socket};
use anyhow::{Context, Result, bail, ensure};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the load generator may take to start and to learn the addresses it sends to.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The running load generator. Ended when dropped.
#[derive(Debug)]
pub struct Generator {
    process: Process,
    spec: LoadSpec,
    control: PathBuf,
    report: PathBuf,
}

impl Generator {
    /// Starts it with `spec`, its files in `folder`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(artifacts: &Artifacts, spec: &LoadSpec, folder: &Path) -> Result<Self> {
        let (control, report) = (folder.join("load.sock"), folder.join("load.json"));
        let mut arguments: Vec<OsString> = spec.to_arguments().into_iter().map(OsString::from).collect();
        arguments.extend([
            "--inside".into(),
            load_device(folder, "inside").into(),
            "--outside".into(),
            load_device(folder, "outside").into(),
            "--control".into(),
            control.clone().into(),
            "--report".into(),
            report.clone().into(),
        ]);
        // A report of an earlier run must not pass for this one's, nor can it listen on sockets of an earlier one.
        for stale in [control.clone(), report.clone(), load_socket(folder, "inside"), load_socket(folder, "outside")] {
            if stale.exists() {
                std::fs::remove_file(&stale).with_context(|| format!("cannot remove {}", stale.display()))?;
            }
        }
        let process = Process::start("slim-load", &artifacts.load, &arguments, &folder.join("load.log"))?;
        Ok(Self { process, spec: spec.clone(), control, report })
    }

    /// Waits until the measured traffic begins.
    ///
    /// # Errors
    /// The NAT does not answer, or the load generator ends.
    pub fn wait_until_measuring(&mut self) -> Result<()> {
        let control = self.control.clone();
        let measuring = || stage(&control).is_ok_and(|stage| stage == Stage::Measuring);
        self.process.wait_until("measuring", START_LIMIT, measuring)
    }

    /// What it is doing.
    ///
    /// # Errors
    /// It does not answer.
    pub fn stage(&self) -> Result<Stage> {
        // It ends by itself after the drain.
        Ok(if self.report.exists() { Stage::Draining } else { stage(&self.control)? })
    }

    /// Waits until packets come back again; says whether they do within `limit`.
    ///
    /// # Errors
    /// It does not answer.
    pub fn flows_within(&self, limit: Duration) -> Result<bool> {
        const ENOUGH: u64 = 50;
        let received = || anyhow::Ok(status(&self.control)?.inbound.received);
        let deadline = Instant::now() + limit;
        let first = received()?;
        while received()? < first + ENOUGH {
            if Instant::now() > deadline {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(true)
    }

    /// Begins the recorder's phase `phase`.
    ///
    /// # Errors
    /// It does not measure any more.
    pub fn mark(&mut self, phase: &str) -> Result<()> {
        self.process.check()?;
        let answer = command(&self.control, &format!("mark {phase}"))?;
        ensure!(answer.trim() == "ok", "the load generator refuses a mark: {}", answer.trim());
        Ok(())
    }

    /// Ends the traffic early; the report follows after the drain.
    ///
    /// # Errors
    /// It does not answer.
    pub fn stop(&mut self) -> Result<()> {
        command(&self.control, "stop").map(drop)
    }

    /// Waits for the end of the traffic and reads the report.
    ///
    /// # Errors
    /// It ends without one.
    pub fn finish(mut self) -> Result<Report> {
        let status = self.process.wait_for(self.spec.duration() + self.spec.drain() + START_LIMIT)?;
        let Ok(text) = std::fs::read_to_string(&self.report) else {
            bail!("the load generator ended ({status}) without a report:\n{}", self.process.log_tail());
        };
        serde_json::from_str(&text).context("the load generator's report cannot be understood")
    }
}

/// What the load generator that listens on `socket` is doing.
fn stage(socket: &Path) -> Result<Stage> {
    Ok(status(socket)?.stage)
}

fn status(socket: &Path) -> Result<Status> {
    Ok(serde_json::from_str(&command(socket, "status")?)?)
}

/// Says `line` to the load generator that listens on `socket` and returns its answer.
fn command(socket: &Path, line: &str) -> Result<String> {
    let mut stream = UnixStream::connect(socket).context("the load generator does not listen")?;
    writeln!(stream, "{line}")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(answer)
}

//! Carries a demo run out.

use super::{AFTER, DURING, DemoSpec, Outcome};
use crate::artifacts::Artifacts;
use crate::load::Report;
use crate::load::report::{Stage, Status};
use crate::process::Process;
use crate::topology::{Ends, FIRST, SECOND, Topology, load_socket};
use anyhow::{Context, Result, bail, ensure};
use slim_controller::api::{ApiEvent, InstanceInfo, MigrateOptions, MigrationOutcome, Runs};
use slim_core::protocol::Name;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the load generator may take to start and to learn the addresses it sends to.
const LOAD_START_LIMIT: Duration = Duration::from_secs(30);

/// Runs the demo in the present network namespace; progress goes to standard error. Call it inside a sandbox.
///
/// # Errors
/// Something could not be started or ended early. Packets that suffer are not an error but in the outcome.
pub fn run(artifacts: &Artifacts, spec: &DemoSpec, folder: &Path) -> Result<Outcome> {
    let started = Instant::now();
    let say = |text: String| eprintln!("[{:6.2} s] {text}", started.elapsed().as_secs_f64());

    say(format!("starting the switch and the controller; logs are in {}", folder.display()));
    let mut topology = Topology::up(artifacts, &spec.instances.settings(), Ends::Load, folder)?;
    let mut instances = Vec::new();
    for (name, active) in [(FIRST, true), (SECOND, false)] {
        say(format!("booting {name}"));
        let instance = topology.boot(name, active)?;
        say(booted(&instance));
        instances.push(instance);
    }

    say(format!(
        "sending {} Mbit/s, the sum of both directions, in packets of {} bytes through {FIRST}",
        spec.load.rate_mbit, spec.load.packet_size_bytes
    ));
    let mut load = Load::start(artifacts, spec, folder)?;
    load.wait_until_measuring()?;
    std::thread::sleep(Duration::from_secs_f64(spec.migrate_at));
    topology.check()?;

    say(format!("migrating from {FIRST} to {SECOND}"));
    load.mark(DURING)?;
    let migration = migrate(&topology, spec, &say)?;
    // A migration that outlasts the traffic has no time after it; the verdict says so.
    if load.stage()? == Stage::Measuring {
        load.mark(AFTER)?;
    }
    say(match migration.failure() {
        None => format!("migrated in {} ms", migration.total_us / 1000),
        Some(failure) => format!("the migration failed: {failure}"),
    });

    let report = load.finish(spec)?;
    topology.check()?;
    say("comparing what was sent with what came back".into());
    Ok(Outcome::new(spec.clone(), instances, report, migration))
}

fn migrate(topology: &Topology, spec: &DemoSpec, say: &impl Fn(String)) -> Result<MigrationOutcome> {
    let options = MigrateOptions { filler_bytes: spec.snapshot_filler, ..MigrateOptions::default() };
    let (from, to) = (Name::try_from(FIRST)?, Name::try_from(SECOND)?);
    let outcome = topology.client()?.migrate(&from, &to, options, |event| {
        if let ApiEvent::MigrationStep { entry } = event {
            say(format!("  {}", super::outcome::step(&entry.step)));
        }
    })?;
    Ok(outcome)
}

fn booted(instance: &InstanceInfo) -> String {
    let ready = instance.ready_after_ms.map_or_else(String::new, |ms| format!(" after {ms} ms"));
    let runs = match &instance.runs {
        Some(Runs::Image { accel, reason }) => format!(", under {accel} ({reason})"),
        _ => String::new(),
    };
    format!("{} is ready{ready}{runs}", instance.name.as_str())
}

/// The running load generator.
struct Load {
    process: Process,
    control: PathBuf,
    report: PathBuf,
}

impl Load {
    fn start(artifacts: &Artifacts, spec: &DemoSpec, folder: &Path) -> Result<Self> {
        let (control, report) = (folder.join("load.sock"), folder.join("load.json"));
        let mut arguments: Vec<OsString> = spec.load.to_arguments().into_iter().map(OsString::from).collect();
        arguments.extend([
            "--inside".into(),
            load_socket(folder, "inside").into(),
            "--outside".into(),
            load_socket(folder, "outside").into(),
            "--control".into(),
            control.clone().into(),
            "--report".into(),
            report.clone().into(),
        ]);
        // A report of an earlier run in this folder must not pass for this one's.
        for stale in [&control, &report] {
            if stale.exists() {
                std::fs::remove_file(stale).with_context(|| format!("cannot remove {}", stale.display()))?;
            }
        }
        let process = Process::start("slim-load", &artifacts.load, &arguments, &folder.join("load.log"))?;
        Ok(Self { process, control, report })
    }

    fn wait_until_measuring(&mut self) -> Result<()> {
        let control = self.control.clone();
        let measuring = || stage(&control).is_ok_and(|stage| stage == Stage::Measuring);
        self.process.wait_until("measuring", LOAD_START_LIMIT, measuring)
    }

    fn stage(&self) -> Result<Stage> {
        // It ends by itself after the drain.
        Ok(if self.report.exists() { Stage::Draining } else { stage(&self.control)? })
    }

    fn mark(&mut self, phase: &str) -> Result<()> {
        self.process.check()?;
        let answer = command(&self.control, &format!("mark {phase}"))?;
        ensure!(answer.trim() == "ok", "the load generator refuses a mark: {}", answer.trim());
        Ok(())
    }

    /// Waits for the end of the traffic and reads the report.
    fn finish(mut self, spec: &DemoSpec) -> Result<Report> {
        let status = self.process.wait_for(spec.load.duration() + spec.load.drain() + LOAD_START_LIMIT)?;
        let Ok(text) = std::fs::read_to_string(&self.report) else {
            bail!("the load generator ended ({status}) without a report:\n{}", self.process.log_tail());
        };
        serde_json::from_str(&text).context("the load generator's report cannot be understood")
    }
}

/// What the load generator that listens on `socket` is doing.
fn stage(socket: &Path) -> Result<Stage> {
    let status: Status = serde_json::from_str(&command(socket, "status")?)?;
    Ok(status.stage)
}

/// Says `line` to the load generator that listens on `socket` and returns its answer.
fn command(socket: &Path, line: &str) -> Result<String> {
    let mut stream = UnixStream::connect(socket).context("the load generator does not listen")?;
    writeln!(stream, "{line}")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(answer)
}

//! The demo's topology with one guest, which its hypervisor moves as a whole: for comparison.

use crate::artifacts::Artifacts;
use crate::demo::{AFTER, DURING, DemoSpec};
use crate::generator::Generator;
use crate::load::Report;
use crate::load::report::Stage;
use crate::topology::{Ends, Topology};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use slim_controller::api::{ApiEvent, InstanceInfo};
use slim_controller::precopy::{PrecopyOptions, PrecopyOutcome};
use slim_core::protocol::Name;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// What to do: the demo's load, topology and scheduling, and how precopy is to go.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PrecopySpec {
    /// As for the demo, as far as it applies.
    pub demo: DemoSpec,
    /// After how many rounds the guest is stopped.
    pub rounds: u32,
}

/// What it came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PrecopyRun {
    /// The instance as it was booted.
    pub instance: InstanceInfo,
    /// What the recorder saw.
    pub load: Report,
    /// What the controller saw.
    pub outcome: PrecopyOutcome,
    /// Frames that the switch dropped in the whole run, by cause. Those with memory are among them.
    pub switch_drops: BTreeMap<String, u64>,
}

/// Runs it in the present network namespace; progress goes to standard error. Call it inside a sandbox.
///
/// # Errors
/// Something could not be started or ended early. Packets that suffer are not an error but in the outcome.
pub fn run(artifacts: &Artifacts, spec: &PrecopySpec, folder: &Path) -> Result<PrecopyRun> {
    let started = Instant::now();
    let say = |text: String| eprintln!("[{:6.2} s] {text}", started.elapsed().as_secs_f64());
    let PrecopySpec { demo, rounds } = spec;
    let mut topology = Topology::up(artifacts, &demo.settings(), Ends::Load, folder)?;
    let [first, second] = demo.function().instances();
    let instance = topology.boot(first, true)?;
    say(format!("{first} is ready"));
    let mut load = Generator::start(artifacts, &demo.load, folder)?;
    load.wait_until_measuring()?;
    std::thread::sleep(Duration::from_secs_f64(demo.migrate_at));
    topology.check()?;

    say(format!("moving the guest of {first} to {second}"));
    load.mark(DURING)?;
    let patience_s = demo.moving.patience().map_or(0, |patience| patience.as_secs());
    let options = PrecopyOptions {
        scheduling: demo.moving.transfer.scheduling,
        rounds: *rounds,
        patience_s: patience_s.try_into().unwrap_or(u32::MAX),
    };
    let (from, to) = (Name::try_from(first)?, Name::try_from(second)?);
    let outcome = topology.client()?.precopy(&from, &to, options, |event| {
        if let ApiEvent::Precopy { progress } = event {
            say(format!("  round {}, {} bytes sent", progress.round, progress.sent_bytes));
        }
    })?;
    say(match &outcome.failure {
        None => format!("moved in {} ms", outcome.total_us / 1000),
        Some(failure) => format!("it failed: {failure}"),
    });
    if load.stage()? == Stage::Measuring {
        load.mark(AFTER)?;
    }
    if let Some(more) = demo.moving.stop_after() {
        std::thread::sleep(more);
        if load.stage()? == Stage::Measuring {
            load.stop()?;
        }
    }
    let load = load.finish()?;
    topology.check()?;
    let switch_drops = topology.switch_drops()?;
    Ok(PrecopyRun { instance, load, outcome, switch_drops })
}

//! Carries a demo run out.

use super::{AFTER, DURING, DemoSpec, Outcome};
use crate::artifacts::Artifacts;
use crate::generator::Generator;
use crate::load::LoadSpec;
use crate::load::report::Stage;
use crate::topology::{Ends, Topology};
use anyhow::{Result, bail};
use slim_controller::api::{ApiEvent, InstanceInfo, MigrationOutcome, Runs};
use slim_controller::plan::MigrationPlan;
use slim_core::protocol::Name;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// The load of a rehearsal, as a part of the link's rate at most.
const REHEARSAL_SHARE: f64 = 0.1;

/// Runs the demo in the present network namespace; progress goes to standard error. Call it inside a sandbox.
///
/// # Errors
/// Something could not be started or ended early. Packets that suffer are not an error but in the outcome.
pub fn run(artifacts: &Artifacts, spec: &DemoSpec, folder: &Path) -> Result<Outcome> {
    let started = Instant::now();
    let say = |text: String| eprintln!("[{:6.2} s] {text}", started.elapsed().as_secs_f64());

    say(format!("starting the switch and the controller; logs are in {}", folder.display()));
    let mut topology = Topology::up(artifacts, &spec.settings(), Ends::Load, folder)?;
    let [first, second] = spec.function().instances();
    let mut instances = Vec::new();
    for (name, active) in [(first, true), (second, false)] {
        say(format!("booting {name}"));
        let instance = topology.boot(name, active)?;
        say(booted(&instance));
        instances.push(instance);
    }

    if spec.moving.rehearse {
        say(format!("rehearsing: from {first} to {second} and back"));
        rehearse(artifacts, &topology, spec, folder)?;
    }
    say(format!(
        "sending {} Mbit/s, the sum of both directions, in packets of {} bytes through {first}",
        spec.load.rate_mbit, spec.load.packet_size_bytes
    ));
    let mut load = Generator::start(artifacts, &spec.load, folder)?;
    load.wait_until_measuring()?;
    let dropped_before = topology.switch_drops()?;
    std::thread::sleep(Duration::from_secs_f64(spec.migrate_at));
    topology.check()?;

    let plan = spec.moving.plan.then(|| plan(&topology, spec)).transpose()?;
    say(format!("migrating from {first} to {second}"));
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

    if let Some(more) = spec.moving.stop_after() {
        std::thread::sleep(more);
        if load.stage()? == Stage::Measuring {
            load.stop()?;
        }
    }
    let report = load.finish()?;
    topology.check()?;
    say("comparing what was sent with what came back".into());
    let switch_drops = since(&dropped_before, topology.switch_drops()?);
    Ok(Outcome { plan, switch_drops, ..Outcome::new(spec.clone(), instances, report, migration) })
}

/// Moves the network function to the other instance and back, while a part of the load goes through it.
fn rehearse(artifacts: &Artifacts, topology: &Topology, spec: &DemoSpec, folder: &Path) -> Result<()> {
    let rate_mbit = spec.load.rate_mbit.min(spec.instances.link_rate as f64 * REHEARSAL_SHARE);
    let mut load = Generator::start(artifacts, &LoadSpec { rate_mbit, warmup_s: 0.0, ..spec.load.clone() }, folder)?;
    load.wait_until_measuring()?;
    let [there, back] = names(spec)?;
    for (from, to) in [(&there, &back), (&back, &there)] {
        let outcome = topology.client()?.migrate(from, to, spec.moving.rehearsal(), |_| {})?;
        if let Some(failure) = outcome.failure() {
            bail!("the rehearsal from {from} to {to} failed: {failure}");
        }
    }
    load.stop()?;
    load.finish().map(drop)
}

/// What `now` has more than `before`, without what it has not.
fn since(before: &BTreeMap<String, u64>, now: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let grown = now.into_iter().map(|(name, count)| {
        let old = before.get(&name).copied().unwrap_or_default();
        (name, count.saturating_sub(old))
    });
    grown.filter(|&(_, count)| count > 0).collect()
}

/// What the controller says of the migration beforehand.
fn plan(topology: &Topology, spec: &DemoSpec) -> Result<MigrationPlan> {
    let [from, to] = names(spec)?;
    Ok(topology.client()?.plan(&from, &to, spec.moving.options())?)
}

/// The instance that the network function leaves, and the one it goes to.
fn names(spec: &DemoSpec) -> Result<[Name; 2]> {
    let [from, to] = spec.function().instances();
    Ok([Name::try_from(from)?, Name::try_from(to)?])
}

fn migrate(topology: &Topology, spec: &DemoSpec, say: &impl Fn(String)) -> Result<MigrationOutcome> {
    let [from, to] = names(spec)?;
    let (mut client, mut impatient) = (topology.client()?, topology.client()?);
    let (over, is_over) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        if let Some(patience) = spec.moving.patience() {
            scope.spawn(move || {
                if is_over.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                    // One that has just ended, or cannot be undone any more, is over without that.
                    let _ = impatient.abort(None);
                }
            });
        }
        // Dropped when the migration is over, however that ended.
        let _over = over;
        let outcome = client.migrate(&from, &to, spec.moving.options(), |event| {
            if let ApiEvent::MigrationStep { entry } = event {
                say(format!("  {}", super::outcome::step(&entry.step)));
            }
        })?;
        Ok(outcome)
    })
}

fn booted(instance: &InstanceInfo) -> String {
    let ready = instance.ready_after_ms.map_or_else(String::new, |ms| format!(" after {ms} ms"));
    let runs = match &instance.runs {
        Some(Runs::Image { accel, reason }) => format!(", under {accel} ({reason})"),
        _ => String::new(),
    };
    format!("{} is ready{ready}{runs}", instance.name.as_str())
}

//! `cargo xtask fuzz`.

use crate::fuzz::engine::{self, Report};
use crate::fuzz::toolchain;
use crate::progress::Step;
use crate::setup::packages::Need;
use crate::setup::{self, Policy};
use anyhow::{Result, anyhow, bail};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Which targets, and for how long.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Minutes for each target; fractions are fine.
    #[arg(long, default_value_t = 10.0, value_name = "N", value_parser = parse_minutes)]
    minutes: f64,

    /// Only this target; may be given several times. The default is all of them.
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,

    /// Targets to run at the same time, each on a core of its own.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
}

/// As long as each target runs as part of `cargo xtask test`.
const CHECK: Duration = Duration::from_secs(8);

fn parse_minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|_| "a number of minutes".to_owned())?;
    if (0.0..=100_000.0).contains(&minutes) { Ok(minutes) } else { Err("from 0 to 100000 minutes".into()) }
}

/// Fuzzes as the arguments say.
pub fn run(arguments: &Arguments, policy: Policy) -> Result<()> {
    let known = engine::targets()?;
    if let Some(unknown) = arguments.target.iter().find(|name| !known.contains(name)) {
        bail!("there is no fuzz target {unknown:?}; there are {}", known.join(", "));
    }
    let wanted = if arguments.target.is_empty() { known } else { arguments.target.clone() };
    let each = Duration::from_secs_f64(arguments.minutes * 60.0);
    fuzz(&wanted, each, usize::from(arguments.jobs), policy)
}

/// A short run of every target, on all cores: what `cargo xtask test` does.
pub fn check(policy: Policy) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    fuzz(&engine::targets()?, CHECK, cores, policy)
}

fn fuzz(targets: &[String], each: Duration, jobs: usize, policy: Policy) -> Result<()> {
    setup::ensure(&[Need::Fuzz], policy)?;
    toolchain::ensure(policy)?;
    engine::build()?;
    let outcomes = run_all(targets, each, jobs);
    print(targets, &outcomes);
    let mut failures = 0;
    for (target, outcome) in targets.iter().zip(&outcomes) {
        match outcome {
            Ok(Report { finding: None, .. }) => {}
            Ok(Report { finding: Some(file), .. }) => {
                failures += 1;
                let file = file.display();
                println!("\n{target}: a finding. See it again, with its trace:");
                println!("  cargo +nightly fuzz run {target} {file}");
                println!("Then keep it as fuzz/corpus/{target}/<name>, where any toolchain replays it:");
                println!("  cargo test --package slim-fuzz-targets");
            }
            Err(error) => {
                failures += 1;
                println!("\n{target}: {error:#}");
            }
        }
    }
    if failures > 0 {
        bail!("{failures} of {} fuzz targets have a finding or could not run", targets.len());
    }
    Ok(())
}

/// Runs all targets, up to `jobs` at a time; their outcomes are in the same order.
fn run_all(targets: &[String], each: Duration, jobs: usize) -> Vec<Result<Report>> {
    let seconds = each.as_secs().max(1);
    let rounds = targets.len().div_ceil(jobs.max(1)) as u64;
    let title = format!("fuzzing {} targets for {seconds} s each, {jobs} at a time", targets.len());
    let step = Mutex::new(Step::start_counted(title, seconds * rounds));
    let started = Instant::now();
    let next = Mutex::new(targets.iter().enumerate());
    let outcomes: Mutex<Vec<Result<Report>>> =
        Mutex::new(targets.iter().map(|_| Err(anyhow!("did not run"))).collect());
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, targets.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let Some((index, target)) = lock(&next).next() else { return };
                    let outcome = engine::run(target, each, |report| {
                        let message = format!("{target}: {} inputs, coverage {}", report.executions, report.coverage);
                        lock(&step).progress(started.elapsed().as_secs(), &message);
                    });
                    if let Some(slot) = lock(&outcomes).get_mut(index) {
                        *slot = outcome;
                    }
                }
            });
        }
    });
    step.into_inner().unwrap_or_else(PoisonError::into_inner).finish("");
    outcomes.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn print(targets: &[String], outcomes: &[Result<Report>]) {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::UTF8_BORDERS_ONLY);
    table.set_header(["target", "inputs tried", "a second", "coverage", "corpus", "findings"]);
    for (target, outcome) in targets.iter().zip(outcomes) {
        let row = match outcome {
            Ok(report) => [
                target.clone(),
                report.executions.to_string(),
                report.per_second.to_string(),
                report.coverage.to_string(),
                report.corpus.to_string(),
                if report.finding.is_some() { "FOUND" } else { "none" }.to_owned(),
            ],
            Err(_) => [target.as_str(), "", "", "", "", "FAILED"].map(String::from),
        };
        table.add_row(row);
    }
    println!("{table}");
}

//! What is printed.

use crate::Totals;
use crate::args::Args;
use slim_simulation::{Scenario, Stats, run_scenario};
use std::fmt::Write;
use std::hash::{BuildHasher, RandomState};
use std::process::ExitCode;
use std::time::Duration;

/// A seed that nobody has chosen, short enough to be typed.
pub fn fresh_seed() -> u64 {
    // The standard library's hasher is keyed from the system's random numbers.
    RandomState::new().hash_one(0) % 1_000_000_000
}

/// Tells the run of a seed event by event.
pub fn trace(scenario: Scenario) -> ExitCode {
    let seed = scenario.seed;
    let run = run_scenario(scenario, true);
    for line in &run.trace {
        println!("{line}");
    }
    match run.violation {
        None => {
            println!("seed {seed}: nothing violated");
            ExitCode::SUCCESS
        }
        Some(violation) => {
            println!("seed {seed}: VIOLATION: {violation}");
            ExitCode::FAILURE
        }
    }
}

/// Prints what a number of seeds came to.
pub fn print(args: &Args, base: u64, totals: &Totals, took: Duration) -> ExitCode {
    let rate = totals.runs as f64 / took.as_secs_f64().max(1e-9);
    if args.json {
        println!("{}", json(base, totals, rate));
    } else {
        print!("{}", tables(&totals.stats));
        println!("{} seeds from {base}, {rate:.0} seeds/s, {} failed", totals.runs, totals.failed);
    }
    for (kind, (count, first)) in &totals.kinds {
        eprintln!("{count:>8} seeds, first {first}: {kind}");
    }
    for run in &totals.failures {
        if let Some(violation) = &run.violation {
            eprintln!("seed {}: VIOLATION: {violation}", run.seed);
            eprintln!("  repeat it: cargo xtask sim --seed {} --trace", run.seed);
        }
    }
    for seed in &totals.strayed {
        eprintln!("seed {seed}: NOT DETERMINISTIC: a second run went another way");
    }
    if totals.failed == 0 && totals.strayed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tables(stats: &Stats) -> String {
    let mut text = String::new();
    let mut table = |title: String, rows: Vec<(String, u64)>| {
        // A string can always be written to.
        let _ = writeln!(text, "{title}");
        for (name, count) in rows {
            let _ = writeln!(text, "  {count:>10}  {name}");
        }
    };
    let owned = |(name, count): (&&'static str, &u64)| ((*name).to_owned(), *count);
    let outcomes = stats.outcomes.iter().map(|(name, count)| (name.clone(), *count)).collect();
    table(format!("{} migrations asked for", stats.migrations), outcomes);
    let struck = stats.faults.values().sum::<u64>();
    table(format!("{struck} faults"), stats.faults.iter().map(owned).collect());
    let drops = stats.drops.iter().map(|(name, count)| (name.clone(), *count)).collect();
    table(
        format!(
            "{} packets: {} processed, {} lost, {} handed back",
            stats.generated, stats.processed, stats.lost, stats.handed_back
        ),
        drops,
    );
    let _ =
        writeln!(text, "{} management frames, {} s of virtual time", stats.management_frames, stats.virtual_ms / 1000);
    text
}

fn json(base: u64, totals: &Totals, rate: f64) -> serde_json::Value {
    let stats = &totals.stats;
    serde_json::json!({
        "base_seed": base,
        "seeds": totals.runs,
        "failed": totals.failed,
        "failed_seeds": totals.failures.iter().map(|run| run.seed).collect::<Vec<_>>(),
        "strayed_seeds": totals.strayed,
        "seeds_per_s": rate,
        "migrations": stats.migrations,
        "outcomes": stats.outcomes,
        "faults": stats.faults,
        "drops": stats.drops,
        "packets": { "generated": stats.generated, "processed": stats.processed, "lost": stats.lost },
        "handed_back_packets": stats.handed_back,
        "management_frames": stats.management_frames,
        "virtual_ms": stats.virtual_ms,
    })
}

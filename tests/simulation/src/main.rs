//! `slim-sim`: runs seeds, and shows how to repeat those that fail.

#![forbid(unsafe_code)]

mod args;
#[cfg(feature = "mutants")]
mod mutants;
mod report;

use args::Args;
use clap::Parser;
use slim_simulation::{Run, Scenario, Stats, run_seed};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// Seeds that fail are kept up to this number; more would not be read.
const FAILURES_MAX: usize = 20;

/// What many seeds came to.
#[derive(Default)]
struct Totals {
    stats: Stats,
    /// The first of a kind, with the number of others.
    failures: Vec<Run>,
    failed: u64,
    /// What was violated, numbers left out: how often, and in which seed first.
    kinds: BTreeMap<String, (u64, u64)>,
    /// Seeds whose second run differed from the first.
    strayed: Vec<u64>,
    runs: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    // Panics inside a run become findings, told with their seed.
    std::panic::set_hook(Box::new(|_| {}));
    let base = args.seed.unwrap_or_else(report::fresh_seed);
    #[cfg(feature = "mutants")]
    if args.list_mutants {
        return mutants::list();
    } else if let Some(choice) = &args.mutant {
        return mutants::run(choice, &args, base);
    }
    if args.trace {
        return report::trace(Scenario::of_seed(base));
    }
    let began = Instant::now();
    eprintln!("{} seeds from base seed {base} on {} threads", args.seeds, args.jobs());
    let totals = run_seeds(base, &args);
    report::print(&args, base, &totals, began.elapsed())
}

/// Runs seeds from `base` on; stops early at the first failure unless told to keep going.
fn run_seeds(base: u64, args: &Args) -> Totals {
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let totals = Mutex::new(Totals::default());
    std::thread::scope(|scope| {
        for _ in 0..args.jobs() {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= args.seeds {
                        return;
                    }
                    let seed = base.wrapping_add(index);
                    let run = run_seed(seed, false);
                    // Every so often, and whenever one fails, the seed is run once more: nothing may depend on chance.
                    let again = run.violation.is_some() || index.is_multiple_of(64);
                    let strayed = again && run_seed(seed, false).hash != run.hash;
                    let mut totals = totals.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    totals.add(run, strayed);
                    if totals.failed > 0 && !args.keep_going {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    totals.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Totals {
    fn add(&mut self, run: Run, strayed: bool) {
        self.runs += 1;
        self.stats.add(&run.stats);
        if strayed {
            self.strayed.push(run.seed);
        }
        if run.violation.is_some() {
            self.failed += 1;
            let kind = kind(&run);
            let (count, first) = self.kinds.entry(kind).or_insert((0, run.seed));
            *count += 1;
            *first = run.seed.min(*first);
            if self.failures.len() < FAILURES_MAX {
                self.failures.push(run);
            }
        }
    }
}

/// The first words of a violation, without what differs from seed to seed.
fn kind(run: &Run) -> String {
    let text = run.violation.as_ref().map(|violation| violation.what.as_str()).unwrap_or_default();
    let mut kind: String = text.chars().filter(|one| !one.is_ascii_digit()).collect();
    kind.truncate(kind.char_indices().nth(70).map_or(kind.len(), |(at, _)| at));
    kind
}

//! Deliberate mistakes: each has to be caught, or the simulation is blind there.

use crate::args::Args;
use slim_core::mutant::{Mutant, select};
use slim_simulation::{Scenario, run_seed};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// A mutant goes on to be looked for in this many seeds after it was caught, to tell how easily.
const SEEDS_AFTER: u64 = 60;

/// How a mutant fared.
#[derive(Default)]
struct Fate {
    /// The number of seeds run, and of those that caught it.
    runs: u64,
    caught: u64,
    /// How many seeds the first catch took, its seed, and what was said.
    first: Option<(u64, u64, String)>,
}

/// Prints every mutant with what is wrong with it.
pub fn list() -> ExitCode {
    for mutant in Mutant::ALL {
        println!("{:<30} {}", mutant.name(), mutant.description());
    }
    ExitCode::SUCCESS
}

/// Runs one mutant, or all.
pub fn run(choice: &str, args: &Args, base: u64) -> ExitCode {
    let mutants = match (choice, choice.parse::<Mutant>()) {
        ("all", _) => Mutant::ALL.to_vec(),
        (_, Ok(mutant)) => vec![mutant],
        (_, Err(error)) => {
            eprintln!("{choice}: {error}; --list-mutants names them");
            return ExitCode::FAILURE;
        }
    };
    if let (true, [mutant]) = (args.trace, &mutants[..]) {
        select(Some(*mutant));
        return crate::report::trace(Scenario::of_seed(base));
    }
    eprintln!("{} mutants, at most {} seeds each from base seed {base}", mutants.len(), args.seeds);
    println!("{:<30} {:>9} {:>11}  caught by", "mutant", "caught at", "of seeds");
    let mut survivors = 0;
    for mutant in mutants {
        let after = if args.quick { 0 } else { SEEDS_AFTER };
        let fate = hunt(mutant, base, (args.seeds, after), args.jobs());
        let share = format!("{}/{}", fate.caught, fate.runs);
        match fate.first {
            Some((after, seed, what)) => {
                let what: String = what.chars().take(120).collect();
                println!("{:<30} {after:>9} {share:>11}  {what} [seed {seed}]", mutant.name());
            }
            None => {
                survivors += 1;
                println!("{:<30} {:>9} {share:>11}  {}", mutant.name(), "SURVIVED", mutant.description());
            }
        }
    }
    if survivors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn hunt(mutant: Mutant, base: u64, (seeds, after): (u64, u64), jobs: usize) -> Fate {
    let (next, last) = (AtomicU64::new(0), AtomicU64::new(seeds));
    let fate = Mutex::new(Fate::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                select(Some(mutant));
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= last.load(Ordering::Relaxed) {
                        return;
                    }
                    let seed = base.wrapping_add(index);
                    let run = run_seed(seed, false);
                    let mut fate = fate.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    fate.runs += 1;
                    if let Some(violation) = run.violation {
                        fate.caught += 1;
                        last.fetch_min(index + after, Ordering::Relaxed);
                        if fate.first.as_ref().is_none_or(|&(after, ..)| index + 1 < after) {
                            fate.first = Some((index + 1, seed, violation.to_string()));
                        }
                    }
                }
            });
        }
    });
    fate.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

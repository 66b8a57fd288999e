//! The command line.

use clap::Parser;

/// Runs whole migrations in virtual time, with faults, and checks each.
///
/// A seed decides everything: network function, traffic, links, sizes of queues and tables, time-outs, and what goes
/// wrong when. The same seed gives the same run on every machine. A seed that fails is printed with the line that
/// repeats it; with --trace that run is told event by event.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask sim", after_help = EXAMPLES)]
pub struct Args {
    /// How many seeds to run, one after the other from the base seed on.
    #[arg(long, default_value_t = 2_000)]
    pub seeds: u64,
    /// The base seed. Without, a fresh one, which is printed.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Tell what happens in the run of the base seed, event by event, and run no other.
    #[arg(long)]
    pub trace: bool,
    /// Threads; one per CPU without.
    #[arg(long)]
    pub jobs: Option<usize>,
    /// Go on after a seed that fails, and count.
    #[arg(long)]
    pub keep_going: bool,
    /// Switch on a deliberate mistake in the code under test, or all of them one after the other, and fail if a mistake
    /// is not caught within the number of seeds.
    #[cfg(feature = "mutants")]
    #[arg(long, value_name = "NAME|all")]
    pub mutant: Option<String>,
    /// Look for a mistake only until it is caught, and not how often it is.
    #[cfg(feature = "mutants")]
    #[arg(long)]
    pub quick: bool,
    /// List the deliberate mistakes.
    #[cfg(feature = "mutants")]
    #[arg(long)]
    pub list_mutants: bool,
    /// Print the totals as one JSON object.
    #[arg(long)]
    pub json: bool,
}

const EXAMPLES: &str = "Examples:
  cargo xtask sim                             2000 fresh seeds
  cargo xtask sim --seeds 100000 --seed 1     a long run that can be repeated
  cargo xtask sim --seed 123 --trace          what happens in seed 123
  cargo xtask sim --mutant all                is every deliberate mistake caught?
  cargo xtask sim --mutant drain-ignored --seed 1 --trace";

impl Args {
    /// How many threads to use.
    pub fn jobs(&self) -> usize {
        let cpus = || std::thread::available_parallelism().map_or(1, |cpus| cpus.get());
        self.jobs.unwrap_or_else(cpus).max(1)
    }
}

//! One seed, from scenario to verdict.

use crate::scenario::Function;
use crate::workload::{ChainWorkload, FlowChain, NatWorkload, Workload};
use crate::world::World;
use crate::{Scenario, Stats};
use slim_core::nf::NetworkFunction;
use slim_nat::Nat;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a seed came to.
#[derive(Debug, Clone)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// What was violated, if anything was.
    pub violation: Option<Violation>,
    /// Its numbers.
    pub stats: Stats,
    /// A hash of everything that happened.
    pub hash: u64,
    /// Everything that happened in words, if that was asked for.
    pub trace: Vec<String>,
}

/// Something that must not happen has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// When, in virtual microseconds.
    pub at_us: u64,
    /// What.
    pub what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (after {}.{:03} ms)", self.what, self.at_us / 1000, self.at_us % 1000)
    }
}

/// Runs what a seed decides.
pub fn run_seed(seed: u64, in_words: bool) -> Run {
    run_scenario(Scenario::of_seed(seed), in_words)
}

/// Runs a scenario.
pub fn run_scenario(scenario: Scenario, in_words: bool) -> Run {
    match scenario.function {
        Function::Nat { pressure, hosts, servers } => {
            let workload = NatWorkload::new(pressure, hosts, servers, scenario.shards);
            run::<Nat, _>(scenario, workload, in_words)
        }
        Function::FlowChain { flows, flows_max } => {
            run::<FlowChain, _>(scenario, ChainWorkload { flows_max, flows }, in_words)
        }
    }
}

fn run<N: NetworkFunction, W: Workload<N>>(scenario: Scenario, workload: W, in_words: bool) -> Run {
    let seed = scenario.seed;
    // A run that was cut short by a panic may have left something in the thread's journal.
    crate::watch::take_journal();
    let mut world = match World::<N, W>::new(scenario, workload, in_words) {
        Ok(world) => world,
        Err(what) => {
            let violation = Some(Violation { at_us: 0, what });
            return Run { seed, violation, stats: Stats::default(), hash: 0, trace: Vec::new() };
        }
    };
    // A panic anywhere in the code under test is a finding of this seed, not the end of all.
    let result = catch_unwind(AssertUnwindSafe(|| world.run())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    });
    let at_us = world.now.as_nanos() / 1000;
    let violation = result.err().map(|what| Violation { at_us, what });
    let (generated, processed, lost) = world.totals();
    let stats = Stats { generated, processed, lost, virtual_ms: at_us / 1000, ..world.stats.clone() };
    Run { seed, violation, stats, hash: world.trace.hash(), trace: world.trace.lines().to_vec() }
}

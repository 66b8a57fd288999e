//! Runs, by where in the grid they are.

use crate::grid::{Cell, Setup};
use crate::record::{Ended, Run};
use crate::stats::Summary;
use std::collections::BTreeMap;

/// The runs of one back-end.
#[derive(Debug, Clone, Default)]
pub struct Results {
    runs: BTreeMap<Setup, Vec<Run>>,
}

impl Results {
    /// Of `runs`, those that belong to `cells`.
    pub fn new<'a>(runs: impl Iterator<Item = &'a Run>, cells: &[Cell]) -> Self {
        let mut results = Self::default();
        for run in runs.filter(|run| cells.contains(&run.cell)) {
            results.runs.entry(run.cell.setup).or_default().push(run.clone());
        }
        results
    }

    /// All runs of a setup.
    pub fn of(&self, setup: &Setup) -> &[Run] {
        self.runs.get(setup).map_or(&[], Vec::as_slice)
    }

    /// Mean and interval of a metric over the runs that have it.
    pub fn summary(&self, setup: &Setup, metric: impl Fn(&Run) -> Option<f64>) -> Option<Summary> {
        let values: Vec<f64> = self.of(setup).iter().filter_map(metric).collect();
        Summary::of(&values)
    }

    /// All setups that have been run, with their runs.
    pub fn iter(&self) -> impl Iterator<Item = (&Setup, &[Run])> {
        self.runs.iter().map(|(setup, runs)| (setup, runs.as_slice()))
    }

    /// All runs.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.values().flatten()
    }

    /// How many runs there are, and of how many the migration was completed.
    pub fn success(&self, wanted: impl Fn(&Setup) -> bool) -> (usize, usize) {
        let runs = self.runs.iter().filter(|(setup, _)| wanted(setup)).flat_map(|(_, runs)| runs);
        runs.fold((0, 0), |(all, good), run| (all + 1, good + usize::from(run.ended == Ended::Completed)))
    }
}

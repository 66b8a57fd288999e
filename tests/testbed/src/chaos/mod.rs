//! Chaos: a party of a migration is really killed, stopped or cut off at each phase, and what is left is judged.
//!
//! - [`ChaosSpec`], [`Cell`]: which faults at which phases;
//! - `world`: the testbed, and how it is put in order again between two cells;
//! - `blow`: the faults themselves; `forge`: resetting a connection of two guests from beside;
//! - `cell`: one migration with one fault under load;
//! - `account`: what became of each lost packet;
//! - `verdict`: whether that is as docs/failure-model.md promises;
//! - [`Matrix`]: all of it as a table.

mod account;
mod blow;
mod cell;
mod forge;
mod matrix;
mod spec;
mod verdict;
mod world;

pub use account::Losses;
pub use cell::{CellReport, Ending};
pub use matrix::Matrix;
pub use spec::{Blow, Cell, ChaosSpec, Party, Phase};

use crate::artifacts::Artifacts;
use anyhow::Result;
use std::path::Path;
use std::time::Instant;
use world::World;

/// Runs every cell in the present network namespace; progress goes to standard error. Call it inside a sandbox.
///
/// # Errors
/// The testbed does not come up. A cell that goes wrong is not an error but in the matrix.
pub fn run(artifacts: &Artifacts, spec: &ChaosSpec, folder: &Path) -> Result<Matrix> {
    let started = Instant::now();
    let say = |text: &str| eprintln!("[{:6.1} s] {text}", started.elapsed().as_secs_f64());
    let cells = spec.cells();
    say(&format!("{} cells; logs are in {}", cells.len(), folder.display()));
    let mut world = World::up(artifacts, spec, folder)?;
    let mut reports = Vec::new();
    for (number, cell) in cells.iter().enumerate() {
        let head = format!("{}/{} {cell}", number + 1, cells.len());
        let begun = Instant::now();
        let report = match cell::run(&mut world, cell, spec) {
            Ok(report) => report,
            Err(error) => {
                let report = CellReport::broken(*cell, format!("{error:#}"), begun.elapsed());
                world = World::up_again(world, artifacts, spec, folder)?;
                report
            }
        };
        say(&format!("{head}: {}", report.summary()));
        reports.push(report);
    }
    Ok(Matrix { reports, seconds: started.elapsed().as_secs_f64() })
}

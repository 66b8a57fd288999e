//! What carries out a cell of the grid.

use crate::grid::{Cell, Extent};
use crate::record::Run;

/// A testbed, real or simulated.
pub trait Backend: Sync {
    /// Its name: in commands, and of the folder that its runs are kept in.
    fn name(&self) -> &'static str;

    /// What its results depend on beside the cell. Runs with another fingerprint are done again.
    fn fingerprint(&self) -> String;

    /// How many cells it can run at a time.
    fn jobs(&self) -> usize;

    /// The cells of its plan, the most telling first.
    fn plan(&self, extent: Extent) -> Vec<Cell>;

    /// Runs one cell.
    ///
    /// A migration that fails is a result, not an error.
    ///
    /// # Errors
    /// Says in words why there is no result: the testbed broke, or something happened that never may.
    fn run(&self, cell: &Cell) -> anyhow::Result<Run>;
}

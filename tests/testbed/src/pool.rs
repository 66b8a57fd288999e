//! Two migrations of a NAT without a named destination: to an instance out of the pool, and, with an empty pool, to one that
//! has to be booted first. Nothing else goes on, so that only the two ways to a destination differ.

use crate::artifacts::Artifacts;
use crate::demo::InstanceArguments;
use crate::topology::{Ends, FIRST, Function, Topology};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use slim_controller::api::{MigrateOptions, MigrationOutcome};
use slim_core::protocol::Name;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a pool may take to be as it is to be.
const LIMIT: Duration = Duration::from_secs(120);

/// What it came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PoolRun {
    /// To the instance that was at hand.
    pub warm: MigrationOutcome,
    /// To the one that was booted.
    pub cold: MigrationOutcome,
}

/// Runs it in the present network namespace. Call it inside a sandbox.
///
/// # Errors
/// Something could not be started or ended early.
pub fn run(artifacts: &Artifacts, spec: &InstanceArguments, folder: &Path) -> Result<PoolRun> {
    let mut topology = Topology::up(artifacts, &spec.settings(), Ends::Load, folder)?;
    topology.boot(FIRST, true)?;
    hold(&topology, 1)?;
    let options = || MigrateOptions { retire: true, ..MigrateOptions::default() };
    let source = Name::try_from(FIRST)?;
    let warm = topology.client()?.migrate(&source, None, options(), |_| ())?;
    hold(&topology, 0)?;
    let cold = topology.client()?.migrate(&warm.destination, None, options(), |_| ())?;
    topology.check()?;
    Ok(PoolRun { warm, cold })
}

/// Has the pool hold `size` instances, and waits until it does.
fn hold(topology: &Topology, size: usize) -> Result<()> {
    let nat = Name::try_from(Function::Nat.kind())?;
    topology.client()?.pool(Some(&nat), Some(size))?;
    let deadline = Instant::now() + LIMIT;
    loop {
        let pools = topology.client()?.pool(Some(&nat), None)?;
        let pool = pools.first().context("there is no pool")?;
        if pool.ready.len() == size && pool.booting.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the pool does not come to hold {size}: {pool:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

//! `cargo xtask chaos`: a migration with a real fault at each of its phases, judged.

use crate::artifacts::Instances;
use crate::setup::Policy;
use crate::{artifacts, paths};
use anyhow::{Result, bail};
use slim_testbed::chaos::{ChaosSpec, Matrix};
use slim_testbed::sandbox;
use slim_testbed::topology::Function;
use std::path::PathBuf;

/// Which faults, and how to tell.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    spec: ChaosSpec,

    /// Print one JSON document instead of the table.
    #[arg(long)]
    json: bool,

    /// The folder for logs and consoles [default: target/chaos]
    #[arg(long, value_name = "FOLDER")]
    logs: Option<PathBuf>,
}

/// Builds what is missing, runs the cells and prints what came of them. Fails if one broke a promise.
pub fn run(arguments: &Arguments, policy: Policy) -> Result<()> {
    if arguments.spec.cells().is_empty() {
        bail!("nothing to do: none of these parties can be struck like that at these phases");
    }
    let (artifacts, _) = artifacts::ensure(Instances::as_asked(arguments.spec.process), &[Function::Nat], policy)?;
    let folder = match &arguments.logs {
        Some(folder) => std::path::absolute(folder)?,
        None => paths::target().join("chaos"),
    };
    let matrix: Matrix = sandbox::run("chaos", &arguments.spec, &artifacts, &folder)?;
    if arguments.json {
        println!("{}", serde_json::to_string(&matrix)?);
    } else {
        println!("\n{matrix}");
    }
    match matrix.broken().count() {
        0 => Ok(()),
        broken => bail!("{broken} cells broke a promise; logs are in {}", folder.display()),
    }
}

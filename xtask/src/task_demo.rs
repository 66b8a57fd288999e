//! `cargo xtask demo`: a live network function moves between two booted images under load.

use crate::artifacts::Instances;
use crate::setup::Policy;
use crate::{artifacts, paths};
use anyhow::{Result, bail};
use slim_testbed::demo::{DemoSpec, Outcome};
use slim_testbed::sandbox;
use std::path::PathBuf;

/// What to run, and how to tell.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    spec: DemoSpec,

    /// Run it this many times in a row; all must be seamless.
    #[arg(long, default_value_t = 1, value_name = "TIMES", value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,

    /// Print one JSON document a run instead of the tables.
    #[arg(long)]
    json: bool,

    /// The folder for logs and consoles [default: target/demo]
    #[arg(long, value_name = "FOLDER")]
    logs: Option<PathBuf>,
}

/// Builds what is missing, runs the demo and prints its outcome. Fails unless every run was seamless.
pub fn run(arguments: &Arguments, policy: Policy) -> Result<()> {
    if let Err(reason) = arguments.spec.check() {
        bail!("{reason}");
    }
    let instances = Instances::as_asked(arguments.spec.instances.process);
    let (artifacts, _) = artifacts::ensure(instances, &[arguments.spec.function()], policy)?;
    let folder = match &arguments.logs {
        Some(folder) => std::path::absolute(folder)?,
        None => paths::target().join("demo"),
    };
    let mut failed = 0;
    for round in 1..=arguments.repeat {
        if arguments.repeat > 1 {
            eprintln!("==> run {round} of {}", arguments.repeat);
        }
        let outcome: Outcome = sandbox::run("demo", &arguments.spec, &artifacts, &folder)?;
        if arguments.json {
            println!("{}", serde_json::to_string(&outcome)?);
        } else {
            println!("\n{outcome}");
        }
        failed += u32::from(!outcome.is_seamless());
    }
    if failed > 0 {
        bail!("{failed} of {} runs were not seamless; logs are in {}", arguments.repeat, folder.display());
    }
    Ok(())
}

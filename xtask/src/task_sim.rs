//! `cargo xtask sim`: builds the simulation and hands over to it.

use crate::{cargo, command, paths};
use anyhow::{Result, bail};
use std::path::PathBuf;
use std::process::Command;

/// Everything is the simulation's own.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Arguments {
    /// What to run; `--help` shows it.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
    options: Vec<String>,
}

/// Seeds that `cargo xtask test` runs, fresh ones each time.
const SEEDS: &str = "2000";

/// Runs the simulation as the arguments say.
pub fn run(arguments: &Arguments) -> Result<()> {
    start(&arguments.options)
}

/// What `cargo xtask test` does: fresh seeds, and every deliberate mistake until it is caught.
pub fn check() -> Result<()> {
    start(&["--seeds", SEEDS])?;
    // Always the same seeds: a mistake that is caught today is caught tomorrow. From these on each is caught within the first
    // half, although some show in one run of a thousand only.
    start(&["--mutant", "all", "--quick", "--seed", "9001", "--seeds", SEEDS])
}

fn start<S: AsRef<std::ffi::OsStr>>(options: &[S]) -> Result<()> {
    let program = build()?;
    let mut sim = Command::new(program);
    eprintln!("    $ slim-sim {}", shown(options));
    if !sim.args(options).status()?.success() {
        bail!("the simulation found something, see above");
    }
    Ok(())
}

fn shown<S: AsRef<std::ffi::OsStr>>(options: &[S]) -> String {
    options.iter().map(|option| option.as_ref().to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Builds it with the deliberate mistakes in it, all of them switched off unless asked for.
fn build() -> Result<PathBuf> {
    let mut build = cargo::cargo();
    build.args(["build", "--quiet", "--release", "--package", "slim-simulation", "--features", "mutants"]);
    command::run(&mut build)?;
    Ok(paths::target().join("release").join("slim-sim"))
}

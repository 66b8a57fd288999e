//! `cargo xtask eval`: builds the evaluation and hands over to it.

use crate::{cargo, command, paths};
use anyhow::{Result, bail};
use std::process::Command;

/// Everything is the evaluation's own.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Arguments {
    /// What to run; `--help` shows it.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
    options: Vec<String>,
}

/// Runs the evaluation as the arguments say.
pub fn run(arguments: &Arguments) -> Result<()> {
    let mut build = cargo::cargo();
    build.args(["build", "--quiet", "--release", "--package", "slim-eval"]);
    command::run(&mut build)?;
    let mut eval = Command::new(paths::target().join("release").join("slim-eval"));
    if !eval.current_dir(paths::root()).args(&arguments.options).status()?.success() {
        bail!("the evaluation is not complete, see above");
    }
    Ok(())
}

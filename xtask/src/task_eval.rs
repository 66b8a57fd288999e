//! `cargo xtask eval`: builds the evaluation, and what it boots, and hands over to it.

use crate::artifacts::Instances;
use crate::setup::Policy;
use crate::{artifacts, cargo, command, paths};
use anyhow::{Result, bail};
use slim_testbed::artifacts::ARTIFACTS_ENV;
use slim_testbed::topology::Function;
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
pub fn run(arguments: &Arguments, policy: Policy) -> Result<()> {
    let mut build = cargo::cargo();
    build.args(["build", "--quiet", "--release", "--package", "slim-eval"]);
    command::run(&mut build)?;
    let mut eval = Command::new(paths::target().join("release").join("slim-eval"));
    eval.current_dir(paths::root()).args(&arguments.options);
    if boots_images(&arguments.options) {
        let (_, file) = artifacts::ensure(Instances::Images, &[Function::Nat, Function::Gateway], policy)?;
        eval.env(ARTIFACTS_ENV, file);
    }
    if !eval.status()?.success() {
        bail!("the evaluation is not complete, see above");
    }
    Ok(())
}

/// Whether the evaluation will boot images, told from its own options.
fn boots_images(options: &[String]) -> bool {
    let has = |flags: &[&str]| options.iter().any(|option| flags.contains(&option.as_str()));
    let simulated = |pair: &[String]| pair[0] == "--backend" && pair[1] == "sim";
    let only_simulated = has(&["--backend=sim"]) || options.windows(2).any(simulated);
    !only_simulated && !has(&["--report-only", "--help", "-h"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_built_only_for_evaluations_that_boot_them() {
        let boots = |line: &str| boots_images(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        for line in ["", "--quick", "--backend vm", "--quick --backend=both --only sim"] {
            assert!(boots(line), "{line}");
        }
        for line in ["--backend sim --quick", "--quick --backend=sim", "--report-only --backend vm", "--help"] {
            assert!(!boots(line), "{line}");
        }
    }
}

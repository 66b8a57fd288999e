//! Checks for what SliM needs of the system, and installs what is missing.
//!
//! Every command that needs something calls [`ensure`] with just those needs. The check asks the package manager
//! each time, which takes milliseconds, so there is no record that could be wrong.

pub mod debian;
pub mod packages;

use crate::command;
use crate::progress::Step;
use anyhow::{Result, bail};
use packages::{COMPONENTS, Need, PACKAGES, Package};
use std::path::Path;
use std::process::Command;

/// Whether a command may install what it misses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Install it.
    Install,
    /// List it and fail.
    ListOnly,
}

/// Something that is not installed.
#[derive(Debug)]
enum Missing {
    Package(&'static Package),
    Component(&'static str),
}

/// Makes sure that what `needs` names is installed. `true` if it was already.
///
/// # Errors
/// What is missing cannot, or by `policy` must not, be installed.
pub fn ensure(needs: &[Need], policy: Policy) -> Result<bool> {
    let missing = find_missing(needs)?;
    if missing.is_empty() {
        return Ok(true);
    }
    if policy == Policy::ListOnly {
        bail!("missing, and not installed because of --no-install:\n{}", listed(&missing));
    }
    eprintln!("SliM needs software that is not installed yet:\n{}", listed(&missing));
    let names: Vec<_> = missing.iter().filter_map(Missing::package_name).collect();
    if !names.is_empty() {
        debian::check_apt()?;
        debian::install(&names)?;
    }
    let components: Vec<_> = missing.iter().filter_map(Missing::component_name).collect();
    if !components.is_empty() {
        install_components(&components)?;
    }
    let still = find_missing(needs)?;
    if !still.is_empty() {
        bail!("still missing after the installation:\n{}", listed(&still));
    }
    Ok(false)
}

fn find_missing(needs: &[Need]) -> Result<Vec<Missing>> {
    let mut wanted: Vec<&Package> = Vec::new();
    for package in PACKAGES.iter().filter(|package| needs.contains(&package.need)) {
        if !wanted.iter().any(|known| known.name == package.name) {
            wanted.push(package);
        }
    }
    let mut missing = Vec::new();
    if !wanted.is_empty() {
        let names: Vec<_> = wanted.iter().map(|package| package.name).collect();
        let present = debian::installed(&names)?;
        for package in wanted {
            let good = match (present.get(package.name), package.least) {
                (None, _) => false,
                (Some(_), None) => true,
                (Some(version), Some(least)) => debian::at_least(version, least)?,
            };
            if !good {
                missing.push(Missing::Package(package));
            }
        }
    }
    if needs.contains(&Need::Lint) {
        missing.extend(
            COMPONENTS.iter().filter(|(_, program)| !in_toolchain(program)).map(|(name, _)| Missing::Component(name)),
        );
    }
    Ok(missing)
}

/// Whether `program` is part of the Rust toolchain that runs us.
///
/// rustup puts stand-ins for all programs into `PATH`, whether their component is there or not; so look beside cargo.
fn in_toolchain(program: &str) -> bool {
    match std::env::var_os("CARGO") {
        Some(cargo) => Path::new(&cargo).with_file_name(program).is_file(),
        None => command::exists(program),
    }
}

fn install_components(components: &[&str]) -> Result<()> {
    if !command::exists("rustup") {
        bail!(
            "the Rust toolchain lacks {} and there is no rustup to add it: install it where the toolchain came from",
            components.join(" and ")
        );
    }
    let mut step = Step::start(format!("adding {} to the Rust toolchain", components.join(" ")));
    let log = crate::paths::cache()?.join("setup.log");
    std::fs::create_dir_all(crate::paths::cache()?)?;
    let mut add = Command::new("rustup");
    command::run_logged(&mut step, add.args(["component", "add"]).args(components), &log, |step, line| {
        step.progress(0, line);
    })?;
    step.finish("");
    Ok(())
}

fn listed(missing: &[Missing]) -> String {
    let lines = missing.iter().map(|missing| match missing {
        Missing::Package(package) => format!("    {:<24} {}", package.name, package.purpose),
        Missing::Component(name) => format!("    {name:<24} part of the Rust toolchain (rustup component add {name})"),
    });
    lines.collect::<Vec<_>>().join("\n")
}

impl Missing {
    fn package_name(&self) -> Option<&'static str> {
        match self {
            Self::Package(package) => Some(package.name),
            Self::Component(_) => None,
        }
    }

    fn component_name(&self) -> Option<&'static str> {
        match self {
            Self::Package(_) => None,
            Self::Component(name) => Some(name),
        }
    }
}

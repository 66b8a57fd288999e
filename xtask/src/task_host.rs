//! `cargo xtask host`: this machine as a host of guests with KVM and passed-through functions.

use anyhow::{Result, bail};
use slim_controller::hypervisor::borrowed::Lender;
use slim_controller::hypervisor::inspect::{Verdict, inspect};
use slim_controller::hypervisor::passthrough::Host;

/// What to do.
#[derive(Debug, Clone, Copy, clap::Subcommand)]
pub enum Action {
    /// Say what hinders guests with KVM and passed-through functions, each with the command that mends it
    Check,
    /// Give back the PCI functions that launches which have ended did not give back
    ///
    /// What launches that still run have is listed and left to them.
    Clean,
}

/// Does it.
pub fn run(action: Action) -> Result<()> {
    match action {
        Action::Check => check(),
        Action::Clean => clean(),
    }
}

fn check() -> Result<()> {
    let findings = inspect(&Host::this(), &Lender::this());
    for finding in &findings {
        println!("{finding}");
    }
    match findings.iter().filter(|finding| finding.verdict == Verdict::Bad).count() {
        0 => Ok(()),
        count => bail!("{count} of {} findings are in the way", findings.len()),
    }
}

fn clean() -> Result<()> {
    print!("{}", Lender::this().clean()?);
    Ok(())
}

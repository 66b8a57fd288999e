//! `cargo xtask setup`.

use crate::setup::packages::{Need, PACKAGES};
use crate::setup::{self, Policy};
use anyhow::Result;

/// Installs everything that any command needs.
pub fn run(policy: Policy) -> Result<()> {
    if setup::ensure(&Need::ALL, policy)? {
        let mut names: Vec<_> = PACKAGES.iter().map(|package| package.name).collect();
        names.sort_unstable();
        names.dedup();
        println!("setup: nothing to do, all {} packages and the toolchain's parts are installed", names.len());
    } else {
        println!("setup: done; `cargo xtask demo` comes next");
    }
    Ok(())
}

//! `cargo xtask kernel`.

use crate::image::NicDriver;
use crate::kernel;
use crate::setup::packages::Need;
use crate::setup::{self, Policy};
use anyhow::Result;
use std::fs;

/// Which kernel.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// That of images with a driver of the host's for this NIC; may be repeated
    #[arg(long = "nic", value_enum, value_name = "NIC")]
    nics: Vec<NicDriver>,
}

/// Builds the kernel unless the cache has it, and prints where it is.
pub fn run(arguments: &Arguments, policy: Policy) -> Result<()> {
    setup::ensure(&[Need::Kernel], policy)?;
    let kernel = kernel::ensure(&arguments.nics)?;
    let size = |path: &std::path::Path| fs::metadata(path).map_or(0, |metadata| metadata.len() / 1024);
    println!("Linux {} from Debian's source {}", kernel.record.release, kernel.record.source_version);
    println!(
        "    {} ({} KiB; PVH vmlinux {} KiB)",
        kernel.bzimage().display(),
        size(&kernel.bzimage()),
        size(&kernel.vmlinux())
    );
    println!("    {}", kernel.config().display());
    Ok(())
}

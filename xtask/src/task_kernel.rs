//! `cargo xtask kernel`.

use crate::kernel;
use crate::setup::packages::Need;
use crate::setup::{self, Policy};
use anyhow::Result;
use std::fs;

/// Builds the kernel unless the cache has it, and prints where it is.
pub fn run(policy: Policy) -> Result<()> {
    setup::ensure(&[Need::Kernel], policy)?;
    let kernel = kernel::ensure()?;
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

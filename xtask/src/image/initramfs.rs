//! The initramfs: one program as PID 1, the folders it mounts on, and a console.
//!
//! It is not compressed: unpacking takes an emulated guest a tenth of its boot.

use super::cpio::Archive;
use crate::command;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Where PID 1 mounts what the kernel offers.
const FOLDERS: [&str; 5] = ["dev", "proc", "sys", "run", "tmp"];

const PAGE_BYTES: usize = 4096;

/// Packs the program at `program` into the initramfs `output`.
pub fn pack(program: &Path, output: &Path) -> Result<()> {
    let content = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let mut archive = Archive::default();
    for folder in FOLDERS {
        archive.directory(folder)?;
    }
    // The kernel opens it as PID 1's standard input and output, before anything is mounted.
    archive.character_device("dev/console", 5, 1)?;
    archive.executable("init", &content)?;
    let mut archive = archive.finish()?;
    // What follows the end of an archive is padding. One byte more than whole pages leaves the rest of its last page free,
    // which is where microvm's firmware keeps ACPI's tables: QEMU puts the initramfs there, at the end of memory, too.
    archive.resize(archive.len().next_multiple_of(PAGE_BYTES) + 1, 0);
    fs::write(output, archive).with_context(|| format!("cannot write {}", output.display()))
}

/// Compresses the initramfs `plain` to `output`, for where its size counts more than the time it takes to unpack.
pub fn compress(plain: &Path, output: &Path) -> Result<()> {
    // The kernel reads only LZ4's legacy frame; the high-compression mode costs nothing when unpacking.
    command::output(Command::new("lz4").args(["-l", "-9", "-f", "-q"]).arg(plain).arg(output))?;
    Ok(())
}

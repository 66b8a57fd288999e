//! The initramfs: one program as PID 1, the folders it mounts on, and a console.

use super::cpio::Archive;
use crate::command;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Where PID 1 mounts what the kernel offers.
const FOLDERS: [&str; 5] = ["dev", "proc", "sys", "run", "tmp"];

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
    let plain = output.with_extension("cpio");
    fs::write(&plain, archive.finish()?).with_context(|| format!("cannot write {}", plain.display()))?;
    // The kernel reads only LZ4's legacy frame; the high-compression mode costs nothing when unpacking.
    command::output(Command::new("lz4").args(["-l", "-9", "-f", "-q"]).arg(&plain).arg(output))?;
    fs::remove_file(&plain)?;
    Ok(())
}

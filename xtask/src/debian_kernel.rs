//! Debian's own kernels, unpacked from their packages, never installed.

use crate::command::run_logged;
use crate::paths;
use crate::progress::Step;
use crate::setup::debian;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A kernel's package, unpacked in a temporary folder.
#[derive(Debug)]
pub struct Unpacked {
    /// The package, which carries the version.
    pub package: String,
    work: tempfile::TempDir,
}

/// Downloads and unpacks the kernel that the package `meta` depends on, which ends with `ending`.
pub fn unpack(meta: &str, ending: &str) -> Result<Unpacked> {
    let package = debian::dependency(meta, |name| name.starts_with("linux-image-") && name.ends_with(ending))?;
    let parent = paths::cache()?;
    fs::create_dir_all(&parent).with_context(|| format!("cannot create {}", parent.display()))?;
    let work = tempfile::Builder::new().prefix("debian-kernel-").tempdir_in(&parent)?;
    let archive = debian::download(&package, &work.path().join("package"))?;

    let mut step = Step::start(format!("unpacking {package}"));
    let log = parent.join("setup.log");
    let mut unpack = Command::new("dpkg-deb");
    run_logged(&mut step, unpack.arg("--extract").arg(&archive).arg(work.path().join("tree")), &log, |_, _| {})?;
    step.finish("");
    Ok(Unpacked { package, work })
}

impl Unpacked {
    /// The kernel.
    pub fn vmlinuz(&self) -> Result<PathBuf> {
        let files = fs::read_dir(self.work.path().join("tree/boot"))?.filter_map(|entry| Some(entry.ok()?.path()));
        let is_kernel =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"));
        files.into_iter().find(is_kernel).with_context(|| format!("{} contains no kernel", self.package))
    }

    /// All its modules.
    pub fn modules(&self) -> Result<Vec<PathBuf>> {
        let mut modules = Vec::new();
        collect(&self.work.path().join("tree/lib/modules"), &mut modules)?;
        Ok(modules)
    }
}

fn collect(folder: &Path, modules: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), modules)?;
        } else if entry.path().extension().is_some_and(|extension| extension == "ko") {
            modules.push(entry.path());
        }
    }
    Ok(())
}

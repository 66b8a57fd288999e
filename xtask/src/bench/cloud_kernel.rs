//! Debian's kernel for clouds, the yardstick of boot time: unpacked from its package, never installed.

use crate::command::run_logged;
use crate::paths;
use crate::progress::Step;
use crate::setup::debian;
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// The package that always depends on the newest one.
const META: &str = "linux-image-cloud-amd64";

/// The kernel and the name of its package.
#[derive(Debug)]
pub struct CloudKernel {
    /// Its package, which carries the version.
    pub package: String,
    /// The kernel.
    pub path: PathBuf,
}

/// The kernel from the cache, or downloaded.
pub fn ensure() -> Result<CloudKernel> {
    let cache = paths::cache()?.join("debian-cloud");
    if let Ok(package) = fs::read_to_string(cache.join("package")) {
        let path = cache.join("vmlinuz");
        if path.is_file() {
            return Ok(CloudKernel { package, path });
        }
    }
    let package = debian::dependency(META, |name| name.starts_with("linux-image-") && name.ends_with("cloud-amd64"))?;
    let parent = paths::cache()?;
    let work = tempfile::Builder::new().prefix("debian-cloud-").tempdir_in(&parent)?;
    let archive = debian::download(&package, &work.path().join("package"))?;

    let mut step = Step::start(format!("unpacking {package}"));
    let log = parent.join("setup.log");
    let tree = work.path().join("tree");
    let mut unpack = Command::new("dpkg-deb");
    run_logged(&mut step, unpack.arg("--extract").arg(&archive).arg(&tree), &log, |_, _| {})?;
    let vmlinuz = fs::read_dir(tree.join("boot"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")))
        .with_context(|| format!("{package} contains no kernel"))?;
    fs::create_dir_all(&cache)?;
    let path = cache.join("vmlinuz");
    fs::copy(&vmlinuz, &path)?;
    fs::write(cache.join("package"), &package)?;
    step.finish("");
    Ok(CloudKernel { package, path })
}

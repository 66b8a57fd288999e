//! Debian's kernel for clouds, the yardstick of boot time: unpacked from its package, never installed.

use crate::{debian_kernel, paths};
use anyhow::Result;
use std::fs;
use std::path::PathBuf;

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
    let unpacked = debian_kernel::unpack(META, "cloud-amd64")?;
    fs::create_dir_all(&cache)?;
    let path = cache.join("vmlinuz");
    fs::copy(unpacked.vmlinuz()?, &path)?;
    fs::write(cache.join("package"), &unpacked.package)?;
    Ok(CloudKernel { package: unpacked.package, path })
}

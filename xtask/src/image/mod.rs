//! Images: a kernel, an initramfs with one static program, and a manifest, in a folder of their own.

pub mod cpio;
mod initramfs;
mod manifest;
mod vmlinux;

pub use manifest::{FILE_NAME, Manifest};

use crate::cargo;
use crate::kernel::{self, Kernel};
use crate::paths;
use crate::progress::Step;
use crate::vnf::Vnf;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// The most that kernel and initramfs may take together.
pub const BUDGET_BYTES: u64 = 16 << 20;

/// Builds whatever is not up to date of `vnf`'s image and returns its folder and manifest.
///
/// The system's packages must be installed already.
pub fn ensure(vnf: &Vnf) -> Result<(PathBuf, Manifest)> {
    let kernel = kernel::ensure()?;
    let program = cargo::build_image_program(vnf.package, vnf.program)?;
    let folder = paths::image(vnf.name);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;

    let described = manifest::File::describe(&program)?;
    let before = Manifest::read(&folder);
    let fresh = before.as_ref().is_some_and(|old| old.program == described && old.linux == kernel.record)
        && folder.join("kernel").exists()
        && folder.join("initramfs").exists();
    if !fresh {
        let step = Step::start(format!("packing the image of {}", vnf.name));
        pack(&program, &kernel, &folder)?;
        step.finish("");
    }
    let manifest = Manifest::new(vnf, &folder, &kernel, described)?;
    if before.as_ref() != Some(&manifest) {
        replace(&folder.join(FILE_NAME), |path| Ok(fs::write(path, serde_json::to_vec_pretty(&manifest)?)?))?;
    }
    let total = manifest.kernel.size_bytes + manifest.initramfs.size_bytes;
    ensure!(
        total <= BUDGET_BYTES,
        "the image of {} is too large: kernel {} and initramfs {} bytes are {total}, the limit is {BUDGET_BYTES}",
        vnf.name,
        manifest.kernel.size_bytes,
        manifest.initramfs.size_bytes
    );
    Ok((folder, manifest))
}

fn pack(program: &Path, kernel: &Kernel, folder: &Path) -> Result<()> {
    replace(&folder.join("kernel"), |path| vmlinux::compact(&kernel.vmlinux(), path))?;
    replace(&folder.join("kernel.config"), |path| Ok(fs::copy(kernel.config(), path).map(|_| ())?))?;
    replace(&folder.join("initramfs"), |path| initramfs::pack(program, path))
}

/// Replaces the file at `path` in one step by what `write` makes: a guest may be booting from it.
fn replace(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    write(&new).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, path).with_context(|| format!("cannot replace {}", path.display()))
}

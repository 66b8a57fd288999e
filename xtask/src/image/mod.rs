//! Images: a kernel, an initramfs with one static program, and a manifest, in a folder of their own; and the same for
//! firmware to boot.

pub mod cpio;
mod disk;
mod initramfs;
mod manifest;
mod nics;
mod uki;
mod vmlinux;

pub use manifest::{FILE_NAME, Manifest, MoreDrivers};
pub use nics::NicDriver;

use crate::cargo;
use crate::kernel::{self, Kernel};
use crate::paths;
use crate::progress::Step;
use crate::setup::packages::Need;
use crate::vnf::Vnf;
use anyhow::{Context, Result, ensure};
use slim_controller::hypervisor::Boots;
use std::fs;
use std::path::{Path, PathBuf};

/// The most that kernel and initramfs may take together, with the usual drivers.
pub const BUDGET_BYTES: u64 = 16 << 20;

/// A form in which an image is deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// A kernel and an initramfs, which the hypervisor starts directly: the quickest.
    #[default]
    #[value(name = "kernel+initrd")]
    KernelInitrd,
    /// Both in one program for UEFI firmware, a unified kernel image.
    Uki,
    /// A disk with that, for OpenStack and libvirt.
    Qcow2,
}

impl Format {
    /// What must be installed to build it.
    pub fn needs(self) -> &'static [Need] {
        match self {
            Self::KernelInitrd => &[Need::Dpdk, Need::Kernel],
            Self::Uki | Self::Qcow2 => &[Need::Dpdk, Need::Kernel, Need::Formats],
        }
    }

    /// What firmware starts of the image in `folder`; `None` if no firmware does.
    pub fn boots(self, folder: &Path) -> Option<Boots> {
        let file = folder.join(self.file());
        match self {
            Self::KernelInitrd => None,
            Self::Uki => Some(Boots::Uki(file)),
            Self::Qcow2 => Some(Boots::Qcow2(file)),
        }
    }

    /// The file in the image's folder that the guest starts from.
    pub fn file(self) -> &'static str {
        match self {
            Self::KernelInitrd => "kernel",
            Self::Uki => "uki.efi",
            Self::Qcow2 => "disk.qcow2",
        }
    }
}

/// Builds whatever is not up to date of `vnf`'s image and returns its folder and manifest.
///
/// The system's packages must be installed already.
pub fn ensure(vnf: &Vnf) -> Result<(PathBuf, Manifest)> {
    ensure_format(vnf, Format::KernelInitrd)
}

/// The same, also in the form `format`.
pub fn ensure_format(vnf: &Vnf, format: Format) -> Result<(PathBuf, Manifest)> {
    ensure_with(vnf, format, &[])
}

/// The same with further drivers, in a folder of its own. What they cost is told by comparison with the usual image, so that
/// is built too.
pub fn ensure_with(vnf: &Vnf, format: Format, nics: &[NicDriver]) -> Result<(PathBuf, Manifest)> {
    let kernel = kernel::ensure(nics)?;
    let program = cargo::build_image_program(vnf.package, vnf.program, nics)?;
    let more_drivers = match nics {
        [] => None,
        _ => {
            let usual = cargo::build_image_program(vnf.package, vnf.program, &[])?;
            let usual_kernel = kernel::ensure(&[])?;
            Some(MoreDrivers::new(nics, [&program, &usual], [&kernel.vmlinux(), &usual_kernel.vmlinux()])?)
        }
    };
    let folder = paths::image(&nics::image_name(vnf.name, nics));
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;

    let described = manifest::File::describe(&program)?;
    let before = Manifest::read(&folder);
    let fresh = before.as_ref().is_some_and(|old| old.program == described && old.linux == kernel.record)
        && folder.join("kernel").exists()
        && folder.join("initramfs").exists();
    if !fresh {
        let step = Step::start(format!("packing the image of {}", vnf.name));
        // What was made of the old one is not this image.
        for format in [Format::Uki, Format::Qcow2] {
            remove(&folder.join(format.file()))?;
        }
        pack(&program, &kernel, &folder)?;
        step.finish("");
    }
    if format != Format::KernelInitrd {
        let step = Step::start(format!("packing {} for firmware to boot", vnf.name));
        let uki = folder.join(Format::Uki.file());
        let title = format!("SliM {}", vnf.name);
        let compressed = tempfile::NamedTempFile::new()?;
        initramfs::compress(&folder.join("initramfs"), compressed.path())?;
        replace(&uki, |path| uki::write(&kernel.bzimage(), compressed.path(), &title, path))?;
        if format == Format::Qcow2 {
            replace(&folder.join(Format::Qcow2.file()), |path| disk::write_qcow2(&uki, path))?;
        }
        step.finish("");
    }
    let manifest = Manifest::new(vnf, &folder, &kernel, described, more_drivers)?;
    if before.as_ref() != Some(&manifest) {
        replace(&folder.join(FILE_NAME), |path| Ok(fs::write(path, serde_json::to_vec_pretty(&manifest)?)?))?;
    }
    let total = manifest.size_bytes();
    ensure!(
        total <= BUDGET_BYTES || !nics.is_empty(),
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

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.with_context(|| format!("cannot remove {}", path.display())),
    }
}

/// Replaces the file at `path` in one step by what `write` makes: a guest may be booting from it.
fn replace(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    write(&new).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, path).with_context(|| format!("cannot replace {}", path.display()))
}

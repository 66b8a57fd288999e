//! What the emulated host of `cargo xtask test --only hardware` is made of, and running it.

mod modules;
mod vmlinuz;

use crate::artifacts::{self, Instances};
use crate::image::cpio::Archive;
use crate::setup::Policy;
use crate::{cargo, debian_kernel, paths};
use anyhow::{Context, Result};
use slim_controller::hypervisor::qemu::Qemu;
use slim_hardware::outside::{self, Parts};
use slim_hardware::words::{MODULES, Scenario};
use slim_testbed::topology::Function;
use std::fs;
use std::path::{Path, PathBuf};

/// The package that always depends on Debian's newest kernel.
const META: &str = "linux-image-amd64";

/// What the emulated host loads, after what each of them needs: our files, KVM, VFIO, the NICs' drivers, and what the
/// switch's ports are made of.
const WANTED: [&str; 12] = [
    "virtio_pci",
    "9p",
    "9pnet_virtio",
    "kvm_amd",
    "vfio_pci",
    "vfio_iommu_type1",
    "igb",
    "igbvf",
    "e1000",
    "virtio_net",
    "8021q",
    "tun",
];

/// Runs all scenarios in the emulated host.
pub fn check(policy: Policy) -> Result<()> {
    let parts = parts(policy)?;
    let scenarios = [Scenario::NoIommu, Scenario::Complete, Scenario::Migration];
    outside::run(&parts, &scenarios, |line| println!("    {line}"))
}

/// Builds all that the emulated host needs.
pub fn parts(policy: Policy) -> Result<Parts> {
    let (programs, _) = artifacts::ensure(Instances::Images, &[Function::Nat], policy)?;
    let image = programs.of(Function::Nat)?.image()?;
    let title = "building PID 1 of the emulated host";
    let init = cargo::build_static(title, "slim-hardware", "slim-host-init")?;
    let host = kernel()?;
    let initramfs = paths::target().join("hardware-initramfs");
    pack(&init, &host.modules, &initramfs)?;
    let parts = Parts {
        qemu: Qemu::find()?.program().to_owned(),
        kernel: host.vmlinux,
        initramfs,
        launcher: std::env::current_exe().context("this program cannot be found again")?,
        image: std::path::absolute(image)?,
        slimctl: programs.slimctl,
        switch: programs.switch,
        logs: paths::target().join("hardware-logs"),
    };
    eprintln!("==> an emulated host with {}, and our launcher in it", host.package);
    Ok(parts)
}

/// Debian's kernel in the cache.
struct HostKernel {
    package: String,
    vmlinux: PathBuf,
    /// In the order in which they are to be loaded.
    modules: Vec<PathBuf>,
}

/// The kernel from the cache, or downloaded.
fn kernel() -> Result<HostKernel> {
    let cache = paths::cache()?.join("debian-host");
    let vmlinux = cache.join("vmlinux");
    let record = cache.join("package");
    // Another list of modules makes another cache.
    let wanted = WANTED.join(" ");
    let before = fs::read_to_string(&record).ok();
    if let Some((package, _)) =
        before.as_deref().and_then(|text| text.split_once('\n')).filter(|(_, list)| *list == wanted)
    {
        let mut modules: Vec<PathBuf> =
            fs::read_dir(cache.join("modules"))?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        modules.sort();
        return Ok(HostKernel { package: package.to_owned(), vmlinux, modules });
    }
    let unpacked = debian_kernel::unpack(META, "amd64")?;
    let folder = cache.join("modules");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    vmlinuz::extract(&unpacked.vmlinuz()?, &vmlinux)?;
    let mut modules = Vec::new();
    for (index, module) in modules::in_order(&unpacked.modules()?, &WANTED)?.iter().enumerate() {
        let name = module.file_name().context("a module has no name")?.to_string_lossy();
        let copy = folder.join(format!("{index:02}-{name}"));
        fs::copy(module, &copy)?;
        modules.push(copy);
    }
    // Last, so that a cache that is not complete is not taken for one that is.
    fs::write(record, format!("{}\n{wanted}", unpacked.package))?;
    Ok(HostKernel { package: unpacked.package, vmlinux, modules })
}

/// Packs PID 1 and the modules.
fn pack(init: &Path, modules: &[PathBuf], output: &Path) -> Result<()> {
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "sys", "root", MODULES.trim_start_matches('/')] {
        archive.directory(folder)?;
    }
    archive.character_device("dev/console", 5, 1)?;
    archive.executable("init", &fs::read(init)?)?;
    for module in modules {
        let name = module.file_name().context("a module has no name")?.to_string_lossy();
        archive.file(&format!("{}/{name}", MODULES.trim_start_matches('/')), &fs::read(module)?)?;
    }
    fs::write(output, archive.finish()?).with_context(|| format!("cannot write {}", output.display()))
}

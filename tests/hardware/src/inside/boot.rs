//! From an initramfs with modules to a host that runs the programs of the machine around it.

use crate::words::{MODULES, SHARE};
use anyhow::{Context, Result, bail};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{chdir, chroot};
use std::fs::{self, File};
use std::path::Path;

/// Where the files of the machine around are mounted before they become the root.
const ROOT: &str = "/root";

/// Large messages: most of what is read are programs.
const SHARE_OPTIONS: &str = "trans=virtio,version=9p2000.L,msize=512000,cache=loose";

/// Whether shared memory, as guests' memory is, gets huge pages.
const HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

/// Mounts what the kernel offers below `root`.
pub(super) fn mount_kernel_files(root: &Path) -> Result<()> {
    for (kind, folder) in [("proc", "proc"), ("sysfs", "sys"), ("devtmpfs", "dev")] {
        let target = root.join(folder);
        fs::create_dir_all(&target).or_else(|error| if target.is_dir() { Ok(()) } else { Err(error) })?;
        let none: Option<&str> = None;
        mount(Some(kind), &target, Some(kind), MsFlags::empty(), none)
            .with_context(|| format!("cannot mount {kind}"))?;
    }
    Ok(())
}

/// Opens a serial line that carries bytes as they are.
pub(super) fn serial_line(path: &str) -> Result<File> {
    let line = File::options().read(true).write(true).open(path).with_context(|| format!("cannot open {path}"))?;
    let mut settings = tcgetattr(&line)?;
    cfmakeraw(&mut settings);
    tcsetattr(&line, SetArg::TCSANOW, &settings)?;
    Ok(line)
}

/// Loads all modules and makes the files of the machine around, which stay read-only, the root.
pub(super) fn finish() -> Result<()> {
    load_modules()?;
    fs::create_dir_all(ROOT)?;
    mount(Some(SHARE), ROOT, Some("9p"), MsFlags::MS_RDONLY, Some(SHARE_OPTIONS))
        .context("cannot mount the files of the machine around")?;
    mount_kernel_files(Path::new(ROOT))?;
    // The one place to write to.
    let run = Path::new(ROOT).join("run");
    mount(Some("tmpfs"), &run, Some("tmpfs"), MsFlags::empty(), Some("mode=0755")).context("cannot mount tmpfs")?;
    chroot(ROOT)?;
    chdir("/")?;
    fs::create_dir_all(super::launcher::SCRATCH)?;
    // As the check advises. It matters here: every page of a guest with devices is mapped in the emulated IOMMU.
    fs::write(HUGE_PAGES, "advise").with_context(|| format!("cannot write {HUGE_PAGES}"))?;
    super::host::ip(&["link", "set", "dev", "lo", "up"])
}

fn load_modules() -> Result<()> {
    let mut files: Vec<_> = fs::read_dir(MODULES)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    for path in files {
        let module = File::open(&path)?;
        match finit_module(&module, c"", ModuleInitFlags::empty()) {
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(error) => bail!("cannot load {}: {error}", path.display()),
        }
    }
    Ok(())
}

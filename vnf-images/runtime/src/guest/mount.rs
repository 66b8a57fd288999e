//! The file systems of an image: all virtual, none writable but `/run`; and, for a moment, a config drive.

use super::Error;
use nix::mount::{MsFlags, mount, umount};
use std::path::Path;

/// Mounts `/proc`, `/sys`, `/dev` and `/run`. What the kernel has mounted already stays as it is.
pub fn all() -> Result<(), Error> {
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    one("proc", "/proc", quiet, None)?;
    one("sysfs", "/sys", quiet, None)?;
    one("devtmpfs", "/dev", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, Some("mode=0755"))?;
    one("tmpfs", "/run", quiet, Some("mode=0755,size=4m"))?;
    // Where DPDK looks for it.
    directory("/var")?;
    match std::os::unix::fs::symlink("/run", "/var/run") {
        Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::File { operation: "link", path: "/var/run".into(), source })
        }
        _ => Ok(()),
    }
}

fn one(fstype: &'static str, target: &'static str, flags: MsFlags, data: Option<&str>) -> Result<(), Error> {
    directory(target)?;
    match mount(Some(fstype), target, Some(fstype), flags, data) {
        Ok(()) | Err(nix::Error::EBUSY) => Ok(()),
        Err(errno) => Err(Error::Mount { what: fstype.into(), fstype, target, errno }),
    }
}

/// A mounted drive. Unmounted when dropped.
#[derive(Debug)]
pub struct Mounted(&'static str);

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(errno) = umount(self.0) {
            log::warn!("cannot unmount {}: {errno}", self.0);
        }
    }
}

/// Mounts the drive `device` so that nothing on it can be changed, run, or used as a device.
pub fn read_only(device: &Path, target: &'static str, fstype: &'static str) -> Result<Mounted, Error> {
    directory(target)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let failed = |errno| Error::Mount { what: device.display().to_string(), fstype, target, errno };
    mount(Some(device), target, Some(fstype), flags, None::<&str>).map_err(failed)?;
    Ok(Mounted(target))
}

fn directory(path: &str) -> Result<(), Error> {
    match std::fs::create_dir(path) {
        Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::File { operation: "create", path: path.into(), source })
        }
        _ => Ok(()),
    }
}

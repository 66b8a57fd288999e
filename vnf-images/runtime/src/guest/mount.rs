//! The file systems of an image: all virtual, none writable but `/run`.

use super::Error;
use nix::mount::{MsFlags, mount};

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
        Err(errno) => Err(Error::Mount { fstype, target, errno }),
    }
}

fn directory(path: &str) -> Result<(), Error> {
    match std::fs::create_dir(path) {
        Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::File { operation: "create", path: path.into(), source })
        }
        _ => Ok(()),
    }
}

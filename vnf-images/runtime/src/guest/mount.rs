//! The file systems of an image: all virtual, none writable but `/run`.

use super::Error;
use nix::mount::{MsFlags, mount};

/// Mounts `/proc`, `/sys`, `/dev` and `/run`. What the kernel has mounted already stays as it is.
pub fn all() -> Result<(), Error> {
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    one("proc", "/proc", quiet, None)?;
    one("sysfs", "/sys", quiet, None)?;
    one("devtmpfs", "/dev", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, Some("mode=0755"))?;
    one("tmpfs", "/run", quiet, Some("mode=0755,size=4m"))
}

fn one(fstype: &'static str, target: &'static str, flags: MsFlags, data: Option<&str>) -> Result<(), Error> {
    match std::fs::create_dir(target) {
        Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(Error::File { operation: "create", path: target.into(), source });
        }
        _ => {}
    }
    match mount(Some(fstype), target, Some(fstype), flags, data) {
        Ok(()) | Err(nix::Error::EBUSY) => Ok(()),
        Err(errno) => Err(Error::Mount { fstype, target, errno }),
    }
}

//! Configuration and identity from QEMU's firmware configuration device. It is there under UEFI, too.

use super::Error;
use crate::config::CONFIG_SIZE_MAX_BYTES;
use nix::fcntl::OFlag;
use slim_trust::Zeroizing;
use slim_trust::identity::IDENTITY_SIZE_MAX_BYTES;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The name under which the launcher hands over the configuration.
pub const CONFIG: &str = "opt/slim/config";

/// The name under which the launcher hands over the identity.
pub const IDENTITY: &str = "opt/slim/identity";

/// The TOML text that the launcher handed over, if it did.
pub fn configuration() -> Result<Option<String>, Error> {
    let text = read(CONFIG, CONFIG_SIZE_MAX_BYTES)?;
    Ok(text.map(|text| text.to_string()))
}

/// The PEM text of the identity that the launcher handed over, if it did.
pub fn identity() -> Result<Option<Zeroizing<String>>, Error> {
    read(IDENTITY, IDENTITY_SIZE_MAX_BYTES)
}

fn read(name: &str, limit_bytes: usize) -> Result<Option<Zeroizing<String>>, Error> {
    let folder = Path::new("/sys/firmware/qemu_fw_cfg/by_name").join(name);
    let size_bytes = std::fs::read_to_string(folder.join("size")).ok().and_then(|text| text.trim().parse().ok());
    read_sized(&folder.join("raw"), size_bytes, limit_bytes)
}

/// The text in the regular file `path`; `None` if there is none.
pub(super) fn read_bounded(path: &Path, limit_bytes: usize) -> Result<Option<Zeroizing<String>>, Error> {
    read_sized(path, None, limit_bytes)
}

/// Does that, and reads no further than the file's size, if that is known. To find the end of a file of fw_cfg, the kernel reads
/// it again to there byte by byte, and each byte is an exit to QEMU.
fn read_sized(path: &Path, size_bytes: Option<u64>, limit_bytes: usize) -> Result<Option<Zeroizing<String>>, Error> {
    let failed = |source| Error::File { operation: "read", path: path.into(), source };
    // A drive is somebody else's: whatever waits there, a link or a pipe, is not followed and not waited for.
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file = match std::fs::File::options().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        result => result.map_err(failed)?,
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(std::io::Error::other("it is not a regular file")));
    }
    // One piece from the begin: one that grows would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(limit_bytes + 1));
    let at_most_bytes = limit_bytes as u64 + 1;
    let mut file = file.take(size_bytes.map_or(at_most_bytes, |size| size.min(at_most_bytes)));
    file.read_to_string(&mut text).map_err(failed)?;
    if text.len() > limit_bytes {
        return Err(Error::Configuration(format!("{} is longer than {limit_bytes} bytes", path.display())));
    }
    // QEMU's `string=` form ends with a NUL byte.
    while text.ends_with('\0') {
        text.pop();
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_over_is_bounded_text() {
        let path = std::env::temp_dir().join(format!("slim-fw-cfg-{}", std::process::id()));
        let read = || read_bounded(&path, 20);
        assert!(read().unwrap().is_none());
        std::fs::write(&path, b"name = 'x'\n\0").unwrap();
        assert_eq!(*read().unwrap().unwrap(), "name = 'x'\n");
        assert_eq!(*read_sized(&path, Some(4), 20).unwrap().unwrap(), "name", "not beyond its size");
        std::fs::write(&path, [b'#'; 21]).unwrap();
        assert!(read_sized(&path, Some(21), 20).unwrap_err().to_string().contains("longer than"));
        assert!(read().unwrap_err().to_string().contains("longer than"));
        std::fs::write(&path, [0xff, b'x']).unwrap();
        assert!(read().unwrap_err().to_string().contains("UTF-8"));
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/proc/version", &path).unwrap();
        assert!(read().is_err(), "a link is not followed");
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(read().unwrap_err().to_string().contains("not a regular file"));
        std::fs::remove_file(&path).unwrap();
    }
}

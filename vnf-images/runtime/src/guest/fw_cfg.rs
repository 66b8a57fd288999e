//! The configuration from QEMU's firmware configuration device.

use super::Error;
use crate::config::CONFIG_SIZE_MAX_BYTES;
use std::io::Read;
use std::path::Path;

/// The name under which the launcher hands over the configuration.
pub const NAME: &str = "opt/slim/config";

/// The TOML text that the launcher handed over.
pub fn configuration() -> Result<String, Error> {
    read_bounded(&Path::new("/sys/firmware/qemu_fw_cfg/by_name").join(NAME).join("raw"))
}

fn read_bounded(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::File { operation: "read", path: path.into(), source };
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Error::NoConfiguration),
        result => result.map_err(failed)?,
    };
    let mut bytes = Vec::new();
    file.take(CONFIG_SIZE_MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > CONFIG_SIZE_MAX_BYTES {
        return Err(Error::Configuration(format!("it is longer than {CONFIG_SIZE_MAX_BYTES} bytes")));
    }
    // QEMU's `string=` form ends with a NUL byte.
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    String::from_utf8(bytes).map_err(|_| Error::Configuration("it is not UTF-8".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_is_bounded_text() {
        let path = std::env::temp_dir().join(format!("slim-fw-cfg-{}", std::process::id()));
        assert!(matches!(read_bounded(&path), Err(Error::NoConfiguration)));
        std::fs::write(&path, b"name = 'x'\n\0").unwrap();
        assert_eq!(read_bounded(&path).unwrap(), "name = 'x'\n");
        std::fs::write(&path, vec![b'#'; CONFIG_SIZE_MAX_BYTES + 1]).unwrap();
        assert!(read_bounded(&path).unwrap_err().to_string().contains("longer than"));
        std::fs::write(&path, [0xff, b'x']).unwrap();
        assert!(read_bounded(&path).unwrap_err().to_string().contains("UTF-8"));
        std::fs::remove_file(&path).unwrap();
    }
}

//! Secrets in files: readable by their owner only, from the moment they exist.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read or written.
    #[error("cannot {action} {}: {source}", file.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// With which file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others can read it.
    #[error("{} can be read by others (mode {mode:o}): chmod 600 it, and consider what it holds known", file.display())]
    Open {
        /// The file.
        file: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is longer than it may be.
    #[error("{} is longer than {limit_bytes} bytes", file.display())]
    Length {
        /// The file.
        file: PathBuf,
        /// The bound.
        limit_bytes: usize,
    },
}

impl FileError {
    fn io(action: &'static str, file: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, file: file.into(), source }
    }

    /// Whether the file does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Writes a secret to a file that does not exist yet.
///
/// # Errors
/// It exists, or cannot be written.
pub fn create_secret(file: &Path, text: &str) -> Result<(), FileError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let written = options.open(file).and_then(|mut open| open.write_all(text.as_bytes()));
    written.map_err(FileError::io("write", file))
}

/// Writes a secret to a file, whatever was there before.
///
/// # Errors
/// It cannot be written.
pub fn replace_secret(file: &Path, text: &str) -> Result<(), FileError> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::io("replace", file)(error)),
        _ => create_secret(file, text),
    }
}

/// Reads a secret of at most `limit_bytes`. Zeroed when dropped.
///
/// # Errors
/// It cannot be read, or others can read it too.
pub fn read_secret(file: &Path, limit_bytes: usize) -> Result<Zeroizing<String>, FileError> {
    let open = File::open(file).map_err(FileError::io("read", file))?;
    let mode = open.metadata().map_err(FileError::io("read", file))?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(FileError::Open { file: file.into(), mode });
    }
    // One piece from the begin: a string that grows would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(limit_bytes + 1));
    open.take(limit_bytes as u64 + 1).read_to_string(&mut text).map_err(FileError::io("read", file))?;
    if text.len() > limit_bytes {
        return Err(FileError::Length { file: file.into(), limit_bytes });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, metadata, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn secrets_are_for_their_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        create_secret(&file, "secret").unwrap();
        assert_eq!(metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert!(create_secret(&file, "other").is_err(), "it exists");
        assert_eq!(*read_secret(&file, 6).unwrap(), "secret");
        assert!(matches!(read_secret(&file, 5), Err(FileError::Length { .. })));
        replace_secret(&file, "newer").unwrap();
        assert_eq!(*read_secret(&file, 100).unwrap(), "newer");
        set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read_secret(&file, 100), Err(FileError::Open { mode: 0o640, .. })));
        assert!(read_secret(&folder.path().join("none"), 1).unwrap_err().is_missing());
    }
}

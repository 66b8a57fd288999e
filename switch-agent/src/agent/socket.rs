//! Paths of Unix sockets to listen on: free, left over from a process that is gone, or in use.

use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Why a path cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody listens there.
    #[error("{} is in use: a running process listens on it", .0.display())]
    InUse(PathBuf),
    /// There is something that is not a socket, which is not ours to remove.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The folder does not exist.
    #[error("{} cannot be made: there is no folder {}", .0.display(), .1.display())]
    NoFolder(PathBuf, PathBuf),
    /// The system refuses.
    #[error("{}: {error}", path.display())]
    Refused {
        /// The path.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

/// Makes sure that `path` can be listened on: removes a socket that nobody listens on any more.
pub fn claim(path: &Path) -> Result<(), SocketError> {
    let refused = |error| SocketError::Refused { path: path.into(), error };
    let kind = match path.symlink_metadata() {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let missing = || SocketError::NoFolder(path.into(), folder.into());
            return if folder.is_dir() { Ok(()) } else { Err(missing()) };
        }
        Err(error) => return Err(refused(error)),
    };
    if !kind.is_socket() {
        return Err(SocketError::NotASocket(path.into()));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse(path.into())),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            log::warn!("removing {}, which nobody listens on any more", path.display());
            std::fs::remove_file(path).map_err(refused)
        }
        Err(error) => Err(refused(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn only_a_socket_that_nobody_listens_on_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        assert!(claim(&path).is_ok());
        let listener = UnixListener::bind(&path).unwrap();
        assert!(matches!(claim(&path), Err(SocketError::InUse(_))));
        drop(listener);
        assert!(path.exists());
        assert!(claim(&path).is_ok());
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(claim(&path), Err(SocketError::NotASocket(_))));
        assert!(path.exists());
        assert!(matches!(claim(&path.join("b.sock")), Err(SocketError::Refused { .. })));
        assert!(matches!(claim(&folder.path().join("none/b.sock")), Err(SocketError::NoFolder(..))));
    }
}

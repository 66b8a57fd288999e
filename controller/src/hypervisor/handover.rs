//! Handing an instance its identity: a file that only its owner can read, and that exists only until it has been read.

use super::LaunchError;
use slim_core::protocol::control::Secret;
use slim_trust::files::replace_secret;
use std::path::{Path, PathBuf};

/// The file, if there is one. Removed when dropped.
#[derive(Debug, Default)]
pub(super) struct Handover(Option<PathBuf>);

impl Handover {
    /// Writes `identity`, if there is one, to `file`.
    pub(super) fn write(file: &Path, identity: Option<&Secret>) -> Result<Self, LaunchError> {
        let Some(identity) = identity else { return Ok(Self(None)) };
        let invalid = |error: slim_trust::files::FileError| LaunchError::Invalid(error.to_string());
        replace_secret(file, identity.reveal()).map_err(invalid)?;
        Ok(Self(Some(file.into())))
    }

    /// Where it is.
    pub(super) fn file(&self) -> Option<&Path> {
        self.0.as_deref()
    }

    /// It has been read.
    pub(super) fn done(&mut self) {
        if let Some(file) = self.0.take() {
            let _ = std::fs::remove_file(file);
        }
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        self.done();
    }
}

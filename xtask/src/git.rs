//! Which sources something was built from.

use crate::{command, paths};
use std::process::Command;

/// The state of the working tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// The commit, empty outside a git repository.
    pub commit: String,
    /// Whether files differ from it.
    pub dirty: bool,
}

impl Revision {
    /// The present one.
    pub fn read() -> Self {
        let git = |arguments: &[&str]| command::output(Command::new("git").current_dir(paths::root()).args(arguments));
        let commit = git(&["rev-parse", "HEAD"]).map_or_else(|_| String::new(), |text| text.trim().to_owned());
        // Without git nothing is known of the sources: that counts as changed.
        let dirty = git(&["status", "--porcelain", "--untracked-files=no"]).map_or(true, |text| !text.is_empty());
        Self { commit, dirty }
    }
}

//! What was found on the host before it was changed, in one file per launch.
//!
//! The folder is on a file system that a reboot empties, as a reboot undoes the changes.

use super::{BorrowError, VirtualSettings, hint};
use crate::hypervisor::PciAddress;
use crate::process::ProcessId;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// How things were, for one launch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// Who borrowed. While it lives, nobody else gives back.
    pub(super) owner: ProcessId,
    /// The physical functions whose settings were changed.
    pub(super) parents: Vec<Parent>,
    /// The functions that were borrowed.
    pub(super) functions: Vec<Lent>,
}

/// A physical function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Parent {
    pub(super) address: PciAddress,
    /// Whether it had no virtual functions.
    pub(super) made: bool,
    /// Whether the host's drivers took new virtual functions by themselves.
    pub(super) autoprobe: Option<String>,
    /// Its interface, if that was down.
    pub(super) raised: Option<String>,
}

/// A function that a guest gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lent {
    pub(super) address: PciAddress,
    /// The driver it had.
    pub(super) driver: Option<String>,
    /// The driver that was prescribed for it.
    pub(super) driver_override: Option<String>,
    /// What the physical function enforced on it; `None` if it is none or did not exist.
    pub(super) settings: Option<VirtualSettings>,
}

/// The folder with the records.
#[derive(Debug, Clone)]
pub(super) struct Records {
    folder: PathBuf,
}

/// Excludes other launches for as long as it lives.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Records {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Whether anything was ever borrowed since the host booted.
    pub(super) fn exist(&self) -> bool {
        self.folder.is_dir()
    }

    /// Waits for other launches to be done with borrowing or giving back.
    pub(super) fn lock(&self) -> Result<Lock, BorrowError> {
        fs::create_dir_all(&self.folder).map_err(failed("create", &self.folder))?;
        let path = self.folder.join("lock");
        let file = File::create(&path).map_err(failed("create", &path))?;
        file.lock().map_err(failed("lock", &path))?;
        Ok(Lock { _file: file })
    }

    /// A file for a new record of `owner`, which may have several. Hold the lock until it is written.
    pub(super) fn unused(&self, owner: &ProcessId) -> PathBuf {
        let name = |number: u32| self.folder.join(format!("{}-{}-{number}.json", owner.pid, owner.start_ticks));
        (1..).map(name).find(|file| !file.exists()).unwrap_or_else(|| name(0))
    }

    /// Writes `record` in one step, over what was there.
    pub(super) fn write_to(&self, file: &Path, record: &Record) -> Result<(), BorrowError> {
        let new = file.with_extension("new");
        let text = serde_json::to_vec_pretty(record).map_err(|error| failed("write", file)(error.into()))?;
        fs::write(&new, text).map_err(failed("write", &new))?;
        fs::rename(&new, file).map_err(failed("replace", file))
    }

    pub(super) fn read(&self, file: &Path) -> Result<Option<Record>, BorrowError> {
        match fs::read(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", file)(error)),
            Ok(text) => Ok(Some(serde_json::from_slice(&text).map_err(|error| failed("read", file)(error.into()))?)),
        }
    }

    /// All records, the oldest process number first.
    pub(super) fn read_all(&self) -> Result<Vec<(PathBuf, Record)>, BorrowError> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed("list", &self.folder))?,
        };
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
        files.sort();
        let mut records = Vec::new();
        for file in files {
            if let Some(record) = self.read(&file)? {
                records.push((file, record));
            }
        }
        Ok(records)
    }

    pub(super) fn remove(&self, file: &Path) -> Result<(), BorrowError> {
        fs::remove_file(file).map_err(failed("remove", file))
    }
}

fn failed(action: &'static str, file: &Path) -> impl FnOnce(io::Error) -> BorrowError {
    let file = file.to_owned();
    move |source| {
        let hint = hint(&source);
        BorrowError::Record { action, file, source, hint }
    }
}

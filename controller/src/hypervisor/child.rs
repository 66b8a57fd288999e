//! A running child with its console: what a guest's hypervisor and an ordinary process have in common.

use super::console::ReadyScanner;
use super::{Adoption, LaunchError, Ready};
use crate::process::{Running, dying_with_us, outliving_us, spawn};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// A child of ours, or of an earlier run of the controller. Killed when dropped, unless it was [left](Self::leave).
#[derive(Debug)]
pub(super) struct Attended {
    pub(super) name: String,
    pub(super) process: Running,
    pub(super) console_log: PathBuf,
    started: Instant,
    scanner: ReadyScanner,
    outlives_us: bool,
    left: bool,
}

impl Attended {
    /// Starts `program` with what `arguments` adds; its output goes to `output`.
    pub(super) fn start(
        name: &str,
        program: &Path,
        arguments: impl FnOnce(&mut Command),
        console_log: &Path,
        output: File,
        outlives_us: bool,
    ) -> Result<Self, LaunchError> {
        let mut command = if outlives_us { outliving_us(program) } else { dying_with_us(program)? };
        arguments(&mut command);
        log::debug!("{name}: {command:?}");
        let errors = output.try_clone().map_err(LaunchError::io("share a log file"))?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let started = Instant::now();
        let child = spawn(command).map_err(LaunchError::io(format!("start {}", program.display())))?;
        Ok(Self {
            name: name.to_owned(),
            process: Running::Child(child),
            console_log: console_log.to_owned(),
            started,
            scanner: ReadyScanner::default(),
            outlives_us,
            left: false,
        })
    }

    /// Takes charge of one that was left running.
    pub(super) fn adopt(adoption: &Adoption) -> Self {
        Self {
            name: adoption.name.clone(),
            process: Running::Adopted(adoption.process),
            console_log: adoption.console_log.clone(),
            started: Instant::now(),
            scanner: ReadyScanner::default(),
            outlives_us: true,
            left: false,
        }
    }

    /// Whether it still runs.
    pub(super) fn is_alive(&mut self) -> bool {
        self.process.ended().is_none()
    }

    /// Looks whether it has said that it is ready since the last call; `tail` is the end of what it wrote.
    pub(super) fn poll_ready(&mut self, tail: impl FnOnce() -> String) -> Result<Option<Ready>, LaunchError> {
        // The process first: what it wrote before its end is then read completely.
        let ended = self.process.ended();
        if let Some(line) = self.scanner.poll(&self.console_log) {
            return Ok(Some(Ready { line, after: self.started.elapsed() }));
        }
        match ended {
            None => Ok(None),
            Some(status) => Err(LaunchError::Ended { name: self.name.clone(), status, detail: tail() }),
        }
    }

    /// What a later run of the controller needs to take charge of it, if it goes on without us.
    pub(super) fn adoption(&self, config_file: &Path) -> Option<Adoption> {
        let process = self.process.id().filter(|_| self.outlives_us)?;
        Some(Adoption {
            name: self.name.clone(),
            process,
            accel: None,
            console_log: self.console_log.clone(),
            qmp_socket: None,
            config_file: config_file.to_owned(),
        })
    }

    /// Lets it go on without us, if it is meant to.
    pub(super) fn leave(&mut self) {
        self.left = self.outlives_us;
    }

    /// Whether it goes on without us.
    pub(super) fn is_left(&self) -> bool {
        self.left
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        if !self.left {
            self.process.kill();
        }
    }
}

//! A network function as an ordinary process of the host, without a guest around it.
//!
//! The same program as in an image, started with `--process`: no boot, no isolation, the same protocol. For development,
//! for tests on machines without QEMU, and for hosts that isolate by other means.

use super::console::{ReadyScanner, tail};
use super::{AccelChoice, LaunchError, Machine, Ready, Stopped};
use crate::process::{dying_with_us, spawn};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Everything about a process to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessLaunch {
    /// The instance's name.
    pub name: String,
    /// The network function's program.
    pub program: PathBuf,
    /// The instance's configuration.
    pub config_toml: String,
    /// The file the configuration is written to.
    pub config_file: PathBuf,
    /// Receives what the process prints. Replaced if it exists.
    pub console_log: PathBuf,
}

/// A running process. Killed when dropped, and by the kernel if this process dies first.
#[derive(Debug)]
pub struct ProcessInstance {
    name: String,
    child: Child,
    started: Instant,
    scanner: ReadyScanner,
    console_log: PathBuf,
    config_file: PathBuf,
}

impl ProcessInstance {
    /// Starts `launch`; it becomes ready later.
    ///
    /// # Errors
    /// The program is missing or a file cannot be written.
    pub fn start(launch: &ProcessLaunch) -> Result<Self, LaunchError> {
        if !launch.program.is_file() {
            return Err(LaunchError::Invalid(format!(
                "{}: there is no program {}",
                launch.name,
                launch.program.display()
            )));
        }
        for file in [&launch.config_file, &launch.console_log] {
            let folder = file.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(folder).map_err(LaunchError::io(format!("create {}", folder.display())))?;
        }
        let writing = |path: &Path| LaunchError::io(format!("write {}", path.display()));
        fs::write(&launch.config_file, &launch.config_toml).map_err(writing(&launch.config_file))?;
        let log = File::create(&launch.console_log).map_err(writing(&launch.console_log))?;
        let output = log.try_clone().map_err(LaunchError::io("share a log file"))?;

        let mut command = dying_with_us(&launch.program)?;
        command.arg("--process").arg("--config").arg(&launch.config_file);
        command.stdin(Stdio::null()).stdout(output).stderr(log);
        let started = Instant::now();
        let child = spawn(command).map_err(LaunchError::io(format!("start {}", launch.program.display())))?;
        Ok(Self {
            name: launch.name.clone(),
            child,
            started,
            scanner: ReadyScanner::default(),
            console_log: launch.console_log.clone(),
            config_file: launch.config_file.clone(),
        })
    }
}

impl Machine for ProcessInstance {
    fn name(&self) -> &str {
        &self.name
    }

    fn process_id(&self) -> u32 {
        self.child.id()
    }

    fn accel(&self) -> Option<&AccelChoice> {
        None
    }

    fn console_log(&self) -> &Path {
        &self.console_log
    }

    fn console_tail(&self) -> String {
        tail(&self.console_log)
    }

    fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn poll_ready(&mut self) -> Result<Option<Ready>, LaunchError> {
        // The process first: what it wrote before its end is then read completely.
        let status = self.child.try_wait().ok().flatten();
        if let Some(line) = self.scanner.poll(&self.console_log) {
            return Ok(Some(Ready { line, after: self.started.elapsed() }));
        }
        match status {
            None => Ok(None),
            Some(status) => Err(LaunchError::Ended {
                name: self.name.clone(),
                status: status.to_string(),
                detail: self.console_tail(),
            }),
        }
    }

    fn stop(&mut self, grace: Duration) -> Stopped {
        let _ = fs::remove_file(&self.config_file);
        if !self.is_alive() {
            return Stopped::Already;
        }
        // The child has not been waited for, so its process id cannot be anybody else's.
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        let deadline = Instant::now() + grace;
        while Instant::now() < deadline {
            if !self.is_alive() {
                return Stopped::PoweredOff;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        Stopped::Killed
    }
}

impl Drop for ProcessInstance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.config_file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const LIMIT: Duration = Duration::from_secs(10);

    /// A launch of a shell script in place of a network function.
    fn launch(folder: &Path, script: &str) -> ProcessLaunch {
        let program = folder.join("program");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        ProcessLaunch {
            name: "nat-a".into(),
            program,
            config_toml: "name = \"nat-a\"\n".into(),
            config_file: folder.join("nat-a.toml"),
            console_log: folder.join("nat-a.console.log"),
        }
    }

    #[test]
    fn a_process_gets_its_configuration_and_is_ready_when_it_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let launch = launch(folder.path(), "cat \"$3\"; echo \"slim: ready args=$1,$2\"; exec sleep 60");
        let mut instance = ProcessInstance::start(&launch).unwrap();
        let ready = instance.wait_ready(LIMIT).unwrap();
        assert_eq!(ready.value("args"), Some("--process,--config"));
        assert!(instance.console_tail().contains("name = \"nat-a\""));
        assert!(instance.is_alive());
        assert_eq!(instance.stop(LIMIT), Stopped::PoweredOff);
        assert_eq!(instance.stop(LIMIT), Stopped::Already);
    }

    #[test]
    fn an_early_end_shows_what_was_printed() {
        let folder = tempfile::tempdir().unwrap();
        let launch = launch(folder.path(), "echo no such port >&2; exit 3");
        let error = ProcessInstance::start(&launch).unwrap().wait_ready(LIMIT).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("no such port"), "{error}");
    }

    #[test]
    fn what_ignores_the_request_to_end_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let launch = launch(folder.path(), "trap '' TERM; echo slim: ready; while :; do sleep 1; done");
        let mut instance = ProcessInstance::start(&launch).unwrap();
        instance.wait_ready(LIMIT).unwrap();
        assert_eq!(instance.stop(Duration::from_millis(100)), Stopped::Killed);
    }

    #[test]
    fn silence_is_not_readiness() {
        let folder = tempfile::tempdir().unwrap();
        let launch = launch(folder.path(), "echo starting; exec sleep 60");
        let error = ProcessInstance::start(&launch).unwrap().wait_ready(Duration::from_millis(300)).unwrap_err();
        assert!(matches!(&error, LaunchError::NotReady { .. }) && error.to_string().contains("starting"), "{error}");
    }
}

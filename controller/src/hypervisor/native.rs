//! A network function as an ordinary process of the host, without a guest around it.
//!
//! The same program as in an image, started with `--process`: no boot, no isolation, the same protocol. For development,
//! for tests on machines without QEMU, and for hosts that isolate by other means.

use super::console::{ReadyScanner, tail};
use super::{AccelChoice, Adoption, LaunchError, Machine, Ready, Stopped};
use crate::process::{Running, dying_with_us, outliving_us, spawn};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
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
    /// Whether it goes on when the process that started it ends.
    pub outlives_us: bool,
}

/// A running process. Killed when dropped, and by the kernel if this process dies first, unless it is meant to go on.
#[derive(Debug)]
pub struct ProcessInstance {
    name: String,
    process: Running,
    started: Instant,
    scanner: ReadyScanner,
    console_log: PathBuf,
    config_file: PathBuf,
    outlives_us: bool,
    left: bool,
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

        let program = &launch.program;
        let mut command = if launch.outlives_us { outliving_us(program) } else { dying_with_us(program)? };
        command.arg("--process").arg("--config").arg(&launch.config_file);
        command.stdin(Stdio::null()).stdout(output).stderr(log);
        let started = Instant::now();
        let child = spawn(command).map_err(LaunchError::io(format!("start {}", launch.program.display())))?;
        Ok(Self {
            name: launch.name.clone(),
            process: Running::Child(child),
            started,
            scanner: ReadyScanner::default(),
            console_log: launch.console_log.clone(),
            config_file: launch.config_file.clone(),
            outlives_us: launch.outlives_us,
            left: false,
        })
    }

    /// Takes charge of a process that was left running.
    pub(super) fn adopt(adoption: Adoption) -> Self {
        Self {
            name: adoption.name,
            process: Running::Adopted(adoption.process),
            started: Instant::now(),
            scanner: ReadyScanner::default(),
            console_log: adoption.console_log,
            config_file: adoption.config_file,
            outlives_us: true,
            left: false,
        }
    }
}

impl Machine for ProcessInstance {
    fn name(&self) -> &str {
        &self.name
    }

    fn process_id(&self) -> u32 {
        self.process.pid()
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
        self.process.ended().is_none()
    }

    fn poll_ready(&mut self) -> Result<Option<Ready>, LaunchError> {
        // The process first: what it wrote before its end is then read completely.
        let ended = self.process.ended();
        if let Some(line) = self.scanner.poll(&self.console_log) {
            return Ok(Some(Ready { line, after: self.started.elapsed() }));
        }
        match ended {
            None => Ok(None),
            Some(status) => Err(LaunchError::Ended { name: self.name.clone(), status, detail: self.console_tail() }),
        }
    }

    fn adoption(&self) -> Option<Adoption> {
        let process = self.process.id().filter(|_| self.outlives_us)?;
        Some(Adoption {
            name: self.name.clone(),
            process,
            accel: None,
            console_log: self.console_log.clone(),
            qmp_socket: None,
            config_file: self.config_file.clone(),
        })
    }

    fn leave(mut self: Box<Self>) {
        self.left = self.outlives_us;
    }

    fn stop(&mut self, grace: Duration) -> Stopped {
        let _ = fs::remove_file(&self.config_file);
        if !self.is_alive() {
            return Stopped::Already;
        }
        self.process.terminate();
        if self.process.wait(grace) {
            return Stopped::PoweredOff;
        }
        self.process.kill();
        Stopped::Killed
    }
}

impl Drop for ProcessInstance {
    fn drop(&mut self) {
        if !self.left {
            self.process.kill();
            let _ = fs::remove_file(&self.config_file);
        }
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
            outlives_us: false,
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
    fn a_process_that_is_left_can_be_adopted() {
        let folder = tempfile::tempdir().unwrap();
        let launch = ProcessLaunch { outlives_us: true, ..launch(folder.path(), "echo slim: ready; exec sleep 60") };
        let mut instance = ProcessInstance::start(&launch).unwrap();
        instance.wait_ready(LIMIT).unwrap();
        let adoption = instance.adoption().unwrap();
        let mut process = adoption.process;
        Box::new(instance).leave();
        assert!(process.is_alive());

        let mut adopted = adoption.clone().adopt().unwrap();
        assert!(adopted.is_alive());
        assert_eq!(adopted.adoption(), Some(adoption.clone()));
        assert_eq!(adopted.stop(LIMIT), Stopped::PoweredOff);
        assert!(adoption.clone().adopt().is_none(), "it has ended");
        process.start_ticks += 1;
        assert!(Adoption { process, ..adoption }.adopt().is_none(), "another process");
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

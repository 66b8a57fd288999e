//! A network function as an ordinary process of the host, without a guest around it.
//!
//! The same program as in an image, started with `--process`: no boot, no isolation, the same protocol. For development,
//! for tests on machines without QEMU, and for hosts that isolate by other means.

use super::child::Attended;
use super::console::tail;
use super::handover::Handover;
use super::{AccelChoice, Adoption, LaunchError, Machine, Ready, Stopped};
use slim_core::protocol::control::Secret;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
    /// The instance's identity; `None` where it speaks plaintext.
    pub identity: Option<Secret>,
    /// The file, named by the configuration, in which it is until the process is ready.
    pub identity_file: PathBuf,
    /// Receives what the process prints. Replaced if it exists.
    pub console_log: PathBuf,
    /// Sockets it listens on, made by it. What a killed process has left there is removed.
    pub sockets: Vec<PathBuf>,
    /// Whether it goes on when the process that started it ends.
    pub outlives_us: bool,
}

/// A running process. Killed when dropped, and by the kernel if this process dies first, unless it is meant to go on.
#[derive(Debug)]
pub struct ProcessInstance {
    child: Attended,
    config_file: PathBuf,
    handover: Handover,
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
        let handover = Handover::write(&launch.identity_file, launch.identity.as_ref())?;
        let log = File::create(&launch.console_log).map_err(writing(&launch.console_log))?;
        for socket in &launch.sockets {
            remove_leftover(socket).map_err(LaunchError::io(format!("remove {}", socket.display())))?;
        }
        let arguments = |command: &mut std::process::Command| {
            command.arg("--process").arg("--config").arg(&launch.config_file);
        };
        let child =
            Attended::start(&launch.name, &launch.program, arguments, &launch.console_log, log, launch.outlives_us)?;
        Ok(Self { child, config_file: launch.config_file.clone(), handover })
    }

    /// Takes charge of a process that was left running.
    pub(super) fn adopt(adoption: &Adoption) -> Self {
        Self {
            child: Attended::adopt(adoption),
            config_file: adoption.config_file.clone(),
            handover: Handover::default(),
        }
    }
}

/// Removes a socket that nobody listens on any more.
fn remove_leftover(socket: &Path) -> std::io::Result<()> {
    match UnixStream::connect(socket) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(socket),
        // Nothing there, or in use: then the process says so itself.
        _ => Ok(()),
    }
}

impl Machine for ProcessInstance {
    fn name(&self) -> &str {
        &self.child.name
    }

    fn process_id(&self) -> u32 {
        self.child.process.pid()
    }

    fn accel(&self) -> Option<&AccelChoice> {
        None
    }

    fn console_log(&self) -> &Path {
        &self.child.console_log
    }

    fn console_tail(&self) -> String {
        tail(&self.child.console_log)
    }

    fn is_alive(&mut self) -> bool {
        self.child.is_alive()
    }

    fn poll_ready(&mut self) -> Result<Option<Ready>, LaunchError> {
        let console_log = self.child.console_log.clone();
        let ready = self.child.poll_ready(|| tail(&console_log))?;
        if ready.is_some() {
            self.handover.done();
        }
        Ok(ready)
    }

    fn adoption(&self) -> Option<Adoption> {
        self.child.adoption(&self.config_file)
    }

    fn leave(mut self: Box<Self>) {
        self.child.leave();
    }

    fn stop(&mut self, grace: Duration) -> Stopped {
        let _ = fs::remove_file(&self.config_file);
        if !self.is_alive() {
            return Stopped::Already;
        }
        self.child.process.terminate();
        if self.child.process.wait(grace) {
            return Stopped::PoweredOff;
        }
        self.child.process.kill();
        Stopped::Killed
    }
}

impl Drop for ProcessInstance {
    fn drop(&mut self) {
        if !self.child.is_left() {
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
            identity: Some(Secret::from("key of nat-a".to_owned())),
            identity_file: folder.join("nat-a.pem"),
            console_log: folder.join("nat-a.console.log"),
            sockets: Vec::new(),
            outlives_us: false,
        }
    }

    #[test]
    fn a_process_gets_its_configuration_and_is_ready_when_it_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let script = "stat -c %a nat-a.pem; cat nat-a.pem \"$3\"; echo \"slim: ready args=$1,$2\"; exec sleep 60";
        let launch = launch(folder.path(), &format!("cd {}; {script}", folder.path().display()));
        let mut instance = ProcessInstance::start(&launch).unwrap();
        let ready = instance.wait_ready(LIMIT).unwrap();
        assert!(!launch.identity_file.exists(), "it has been read");
        let printed = fs::read_to_string(&launch.console_log).unwrap();
        assert!(printed.starts_with("600\nkey of nat-a"), "{printed}");
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
    fn a_socket_that_a_killed_process_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("port.sock");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let launch = ProcessLaunch {
            sockets: vec![socket.clone(), folder.path().join("none.sock")],
            ..launch(folder.path(), "echo slim: ready; exec sleep 60")
        };
        ProcessInstance::start(&launch).unwrap().wait_ready(LIMIT).unwrap();
        assert!(!socket.exists());
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

//! A running QEMU.

use super::argv::argv;
use super::qmp::Qmp;
use crate::hypervisor::console::{ReadyScanner, tail};
use crate::hypervisor::{AccelChoice, Launch, LaunchError, Machine, Ready, Stopped};
use crate::process::{dying_with_us, spawn};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long QEMU itself may take to end once it has been told to.
const QUIT_GRACE: Duration = Duration::from_secs(2);

/// A guest in QEMU. Killed when dropped, and by the kernel if this process dies first.
#[derive(Debug)]
pub struct Instance {
    name: String,
    child: Child,
    started: Instant,
    accel: AccelChoice,
    scanner: ReadyScanner,
    console_log: PathBuf,
    qemu_log: PathBuf,
    qmp_socket: PathBuf,
    config_file: PathBuf,
}

impl Instance {
    /// Starts QEMU for a launch that has been checked.
    pub(super) fn start(program: &Path, launch: &Launch, accel: AccelChoice) -> Result<Self, LaunchError> {
        if UnixStream::connect(&launch.qmp_socket).is_ok() {
            return Err(LaunchError::Invalid(format!(
                "{} runs already: its QEMU answers on {}",
                launch.name,
                launch.qmp_socket.display()
            )));
        }
        let run_dir = launch.qmp_socket.parent().unwrap_or(Path::new("."));
        let config_file = run_dir.join(format!("{}.toml", launch.name));
        let qemu_log = run_dir.join(format!("{}.qemu.log", launch.name));
        for file in [&launch.console_log, &config_file] {
            let folder = file.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(folder).map_err(LaunchError::io(format!("create {}", folder.display())))?;
        }
        let create = |path: &Path| File::create(path).map_err(LaunchError::io(format!("write {}", path.display())));
        fs::write(&config_file, &launch.config_toml)
            .map_err(LaunchError::io(format!("write {}", config_file.display())))?;
        create(&launch.console_log)?;
        let log = create(&qemu_log)?;

        let mut command = dying_with_us(program)?;
        command.args(argv(launch, accel.kvm, &config_file));
        log::debug!("{}: {command:?}", launch.name);
        let output = log.try_clone().map_err(LaunchError::io("share a log file"))?;
        command.stdin(Stdio::null()).stdout(output).stderr(log);
        let started = Instant::now();
        let child = spawn(command).map_err(LaunchError::io(format!("start {}", program.display())))?;
        Ok(Self {
            name: launch.name.clone(),
            child,
            started,
            accel,
            scanner: ReadyScanner::default(),
            console_log: launch.console_log.clone(),
            qemu_log,
            qmp_socket: launch.qmp_socket.clone(),
            config_file,
        })
    }

    /// How QEMU ended, if it has.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    fn wait_exit(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.is_alive() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    fn stop_running(&mut self, grace: Duration) -> Stopped {
        let mut qmp = Qmp::connect(&self.qmp_socket);
        if let Ok(qmp) = &mut qmp
            && qmp.execute("system_powerdown").is_ok()
            && self.wait_exit(grace)
        {
            return Stopped::PoweredOff;
        }
        if let Ok(qmp) = &mut qmp {
            // The answer may be lost in QEMU's end; what counts is that it ends.
            let _ = qmp.execute("quit");
        }
        if qmp.is_ok() && self.wait_exit(QUIT_GRACE) {
            return Stopped::Quit;
        }
        // The child has not been waited for, so its process id cannot be anybody else's.
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        if self.wait_exit(QUIT_GRACE) {
            return Stopped::Quit;
        }
        self.kill();
        Stopped::Killed
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn remove_files(&self) {
        for file in [&self.qmp_socket, &self.config_file] {
            let _ = fs::remove_file(file);
        }
        if self.qemu_log.metadata().is_ok_and(|meta| meta.len() == 0) {
            let _ = fs::remove_file(&self.qemu_log);
        }
    }
}

impl Machine for Instance {
    fn name(&self) -> &str {
        &self.name
    }

    fn process_id(&self) -> u32 {
        self.child.id()
    }

    fn accel(&self) -> Option<&AccelChoice> {
        Some(&self.accel)
    }

    fn console_log(&self) -> &Path {
        &self.console_log
    }

    fn console_tail(&self) -> String {
        tail(&self.qemu_log) + &tail(&self.console_log)
    }

    fn is_alive(&mut self) -> bool {
        self.exit_status().is_none()
    }

    fn poll_ready(&mut self) -> Result<Option<Ready>, LaunchError> {
        // The process first: what it wrote before its end is then read completely.
        let status = self.exit_status();
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
        let stopped = if self.is_alive() { self.stop_running(grace) } else { Stopped::Already };
        self.remove_files();
        stopped
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.kill();
        self.remove_files();
    }
}

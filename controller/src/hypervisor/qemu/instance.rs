//! A running QEMU.

use super::argv::argv;
use super::qmp::Qmp;
use crate::hypervisor::console::{ReadyScanner, tail};
use crate::hypervisor::{AccelChoice, Adoption, Launch, LaunchError, Machine, Ready, Stopped};
use crate::process::{Running, dying_with_us, outliving_us, spawn};
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// How long QEMU itself may take to end once it has been told to.
const QUIT_GRACE: Duration = Duration::from_secs(2);

/// A guest in QEMU. Killed when dropped, and by the kernel if this process dies first, unless it is meant to go on.
#[derive(Debug)]
pub struct Instance {
    name: String,
    process: Running,
    started: Instant,
    accel: AccelChoice,
    scanner: ReadyScanner,
    files: Files,
    outlives_us: bool,
    left: bool,
}

#[derive(Debug, Clone)]
struct Files {
    console_log: PathBuf,
    qemu_log: PathBuf,
    qmp_socket: PathBuf,
    config: PathBuf,
}

impl Files {
    fn new(name: &str, console_log: &Path, qmp_socket: &Path) -> Self {
        let run_dir = qmp_socket.parent().unwrap_or(Path::new("."));
        Self {
            console_log: console_log.to_owned(),
            qemu_log: run_dir.join(format!("{name}.qemu.log")),
            qmp_socket: qmp_socket.to_owned(),
            config: run_dir.join(format!("{name}.toml")),
        }
    }

    /// Removes what is of no use once the guest has ended. Its console stays.
    fn remove(&self) {
        for file in [&self.qmp_socket, &self.config] {
            let _ = fs::remove_file(file);
        }
        if self.qemu_log.metadata().is_ok_and(|meta| meta.len() == 0) {
            let _ = fs::remove_file(&self.qemu_log);
        }
    }
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
        let files = Files::new(&launch.name, &launch.console_log, &launch.qmp_socket);
        for file in [&files.console_log, &files.config] {
            let folder = file.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(folder).map_err(LaunchError::io(format!("create {}", folder.display())))?;
        }
        let writing = |path: &Path| LaunchError::io(format!("write {}", path.display()));
        fs::write(&files.config, &launch.config_toml).map_err(writing(&files.config))?;
        File::create(&files.console_log).map_err(writing(&files.console_log))?;
        let log = File::create(&files.qemu_log).map_err(writing(&files.qemu_log))?;

        let mut command = if launch.outlives_us { outliving_us(program) } else { dying_with_us(program)? };
        command.args(argv(launch, accel.kvm, &files.config));
        log::debug!("{}: {command:?}", launch.name);
        let output = log.try_clone().map_err(LaunchError::io("share a log file"))?;
        command.stdin(Stdio::null()).stdout(output).stderr(log);
        let started = Instant::now();
        let child = spawn(command).map_err(LaunchError::io(format!("start {}", program.display())))?;
        Ok(Self {
            name: launch.name.clone(),
            process: Running::Child(child),
            started,
            accel,
            scanner: ReadyScanner::default(),
            files,
            outlives_us: launch.outlives_us,
            left: false,
        })
    }

    /// Takes charge of a guest that was left running.
    pub(in crate::hypervisor) fn adopt(adoption: Adoption) -> Option<Self> {
        Some(Self {
            files: Files::new(&adoption.name, &adoption.console_log, &adoption.qmp_socket?),
            name: adoption.name,
            process: Running::Adopted(adoption.process),
            started: Instant::now(),
            accel: adoption.accel?,
            scanner: ReadyScanner::default(),
            outlives_us: true,
            left: false,
        })
    }

    fn stop_running(&mut self, grace: Duration) -> Stopped {
        let mut qmp = Qmp::connect(&self.files.qmp_socket);
        if let Ok(qmp) = &mut qmp
            && qmp.execute("system_powerdown").is_ok()
            && self.process.wait(grace)
        {
            return Stopped::PoweredOff;
        }
        if let Ok(qmp) = &mut qmp {
            // The answer may be lost in QEMU's end; what counts is that it ends.
            let _ = qmp.execute("quit");
        }
        if qmp.is_ok() && self.process.wait(QUIT_GRACE) {
            return Stopped::Quit;
        }
        self.process.terminate();
        if self.process.wait(QUIT_GRACE) {
            return Stopped::Quit;
        }
        self.process.kill();
        Stopped::Killed
    }
}

impl Machine for Instance {
    fn name(&self) -> &str {
        &self.name
    }

    fn process_id(&self) -> u32 {
        self.process.pid()
    }

    fn accel(&self) -> Option<&AccelChoice> {
        Some(&self.accel)
    }

    fn console_log(&self) -> &Path {
        &self.files.console_log
    }

    fn console_tail(&self) -> String {
        tail(&self.files.qemu_log) + &tail(&self.files.console_log)
    }

    fn is_alive(&mut self) -> bool {
        self.process.ended().is_none()
    }

    fn poll_ready(&mut self) -> Result<Option<Ready>, LaunchError> {
        // The process first: what it wrote before its end is then read completely.
        let ended = self.process.ended();
        if let Some(line) = self.scanner.poll(&self.files.console_log) {
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
            accel: Some(self.accel.clone()),
            console_log: self.files.console_log.clone(),
            qmp_socket: Some(self.files.qmp_socket.clone()),
            config_file: self.files.config.clone(),
        })
    }

    fn leave(mut self: Box<Self>) {
        self.left = self.outlives_us;
    }

    fn stop(&mut self, grace: Duration) -> Stopped {
        let stopped = if self.is_alive() { self.stop_running(grace) } else { Stopped::Already };
        self.files.remove();
        stopped
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if !self.left {
            self.process.kill();
            self.files.remove();
        }
    }
}

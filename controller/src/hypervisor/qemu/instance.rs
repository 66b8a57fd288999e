//! A running QEMU.

use super::argv::{Host, argv};
use super::memory;
use super::pin::pin;
use super::qmp::Qmp;
use super::{loader, tsc};
use crate::hypervisor::child::Attended;
use crate::hypervisor::console::tail;
use crate::hypervisor::handover::Handover;
use crate::hypervisor::placement::Placement;
use crate::hypervisor::{AccelChoice, Adoption, Launch, LaunchError, Machine, Ready, Stopped};
use command_fds::{CommandFdExt, FdMapping};
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long QEMU itself may take to end once it has been told to.
const QUIT_GRACE: Duration = Duration::from_secs(2);

/// A guest in QEMU. Killed when dropped, and by the kernel if this process dies first, unless it is meant to go on.
#[derive(Debug)]
pub struct Instance {
    child: Attended,
    accel: AccelChoice,
    placement: Placement,
    files: Files,
    handover: Handover,
}

#[derive(Debug, Clone)]
struct Files {
    qemu_log: PathBuf,
    qmp_socket: PathBuf,
    config: PathBuf,
    identity: PathBuf,
}

impl Files {
    fn new(name: &str, qmp_socket: &Path) -> Self {
        let run_dir = qmp_socket.parent().unwrap_or(Path::new("."));
        Self {
            qemu_log: run_dir.join(format!("{name}.qemu.log")),
            qmp_socket: qmp_socket.to_owned(),
            config: run_dir.join(format!("{name}.toml")),
            identity: run_dir.join(format!("{name}.identity.pem")),
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
    pub(super) fn start(
        program: &Path,
        launch: &Launch,
        accel: AccelChoice,
        placement: Placement,
    ) -> Result<Self, LaunchError> {
        if UnixStream::connect(&launch.qmp_socket).is_ok() {
            return Err(LaunchError::Invalid(format!(
                "{} runs already: its QEMU answers on {}",
                launch.name,
                launch.qmp_socket.display()
            )));
        }
        let files = Files::new(&launch.name, &launch.qmp_socket);
        for file in [&launch.console_log, &files.config] {
            let folder = file.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(folder).map_err(LaunchError::io(format!("create {}", folder.display())))?;
        }
        let writing = |path: &Path| LaunchError::io(format!("write {}", path.display()));
        fs::write(&files.config, &launch.config_toml).map_err(writing(&files.config))?;
        // What a drive holds need not lie about in files.
        let identity = launch.identity.as_ref().filter(|_| launch.config_drive.is_none());
        let handover = Handover::write(&files.identity, identity)?;
        File::create(&launch.console_log).map_err(writing(&launch.console_log))?;
        let log = File::create(&files.qemu_log).map_err(writing(&files.qemu_log))?;

        let tsc_khz = if accel.kvm { None } else { tsc::khz() };
        let host = Host { kvm: accel.kvm, loader: loader(), tsc_khz };
        let memory = memory::file(launch, &placement).map_err(LaunchError::io("make the guest's memory"))?;
        let arguments = |command: &mut Command| {
            command.args(argv(launch, host, &placement, &files.config, handover.file()));
            let passed = memory.map(|parent_fd| FdMapping { parent_fd, child_fd: memory::DESCRIPTOR });
            // One descriptor cannot collide with another.
            let _ = command.fd_mappings(passed.into_iter().collect());
        };
        let child = Attended::start(&launch.name, program, arguments, &launch.console_log, log, launch.outlives_us)?;
        let mut instance = Self { child, accel, placement, files, handover };
        // What ends at once says why when it is asked whether it is ready.
        pin(&launch.name, &instance.files.qmp_socket.clone(), &instance.placement.vcpus.clone(), || {
            instance.is_alive()
        })?;
        Ok(instance)
    }

    /// Takes charge of a guest that was left running.
    pub(in crate::hypervisor) fn adopt(adoption: &Adoption) -> Option<Self> {
        Some(Self {
            child: Attended::adopt(adoption),
            accel: adoption.accel.clone()?,
            // Its threads stay where they are; where that is was not written down.
            placement: Placement::default(),
            files: Files::new(&adoption.name, adoption.qmp_socket.as_deref()?),
            handover: Handover::default(),
        })
    }

    fn stop_running(&mut self, grace: Duration) -> Stopped {
        let mut qmp = Qmp::connect(&self.files.qmp_socket);
        if let Ok(qmp) = &mut qmp
            && qmp.execute("system_powerdown").is_ok()
            && self.child.process.wait(grace)
        {
            return Stopped::PoweredOff;
        }
        if let Ok(qmp) = &mut qmp {
            // The answer may be lost in QEMU's end; what counts is that it ends.
            let _ = qmp.execute("quit");
        }
        if qmp.is_ok() && self.child.process.wait(QUIT_GRACE) {
            return Stopped::Quit;
        }
        self.child.process.terminate();
        if self.child.process.wait(QUIT_GRACE) {
            return Stopped::Quit;
        }
        self.child.process.kill();
        Stopped::Killed
    }
}

impl Machine for Instance {
    fn name(&self) -> &str {
        &self.child.name
    }

    fn process_id(&self) -> u32 {
        self.child.process.pid()
    }

    fn accel(&self) -> Option<&AccelChoice> {
        Some(&self.accel)
    }

    fn placement(&self) -> Option<&Placement> {
        Some(&self.placement)
    }

    fn console_log(&self) -> &Path {
        &self.child.console_log
    }

    fn console_tail(&self) -> String {
        tail(&self.files.qemu_log) + &tail(&self.child.console_log)
    }

    fn is_alive(&mut self) -> bool {
        self.child.is_alive()
    }

    fn monitor(&self) -> Option<&Path> {
        Some(&self.files.qmp_socket)
    }

    fn poll_ready(&mut self) -> Result<Option<Ready>, LaunchError> {
        let (qemu_log, console_log) = (&self.files.qemu_log, self.child.console_log.clone());
        let ready = self.child.poll_ready(|| tail(qemu_log) + &tail(&console_log))?;
        if ready.is_some() {
            self.handover.done();
        }
        Ok(ready)
    }

    fn adoption(&self) -> Option<Adoption> {
        let adoption = self.child.adoption(&self.files.config)?;
        Some(Adoption { accel: Some(self.accel.clone()), qmp_socket: Some(self.files.qmp_socket.clone()), ..adoption })
    }

    fn leave(mut self: Box<Self>) {
        self.child.leave();
    }

    fn stop(&mut self, grace: Duration) -> Stopped {
        let stopped = if self.is_alive() { self.stop_running(grace) } else { Stopped::Already };
        self.files.remove();
        stopped
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if !self.child.is_left() {
            self.files.remove();
        }
    }
}

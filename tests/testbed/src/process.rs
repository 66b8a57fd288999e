//! Child processes that end with their owner and whose output is kept.

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use slim_controller::process::{dying_with_us, spawn};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a process may take to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// A child process with its output in a log file. Ended when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Process {
    /// Starts `program`; its output and standard error go to `log`. The kernel kills it should we be killed.
    ///
    /// # Errors
    /// The program, or `setpriv`, cannot be started, or `log` not be created.
    pub fn start(name: &str, program: &Path, arguments: &[OsString], log: &Path) -> Result<Self> {
        File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        let child = spawn_logged(program, arguments, log)?;
        let (program, arguments) = (program.to_owned(), arguments.to_vec());
        Ok(Self { name: name.to_owned(), child, log: log.to_owned(), program, arguments })
    }

    /// Starts it again after its end; its output follows that of before.
    ///
    /// # Errors
    /// As for the first start.
    pub fn start_again(&mut self) -> Result<()> {
        self.child = spawn_logged(&self.program, &self.arguments, &self.log)?;
        Ok(())
    }

    /// The kernel's number for it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as `kill -9` does, and waits for that.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("cannot kill {}", self.name))?;
        self.child.wait()?;
        Ok(())
    }

    /// Fails, with the end of the log, if the process has ended.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended early ({status}):\n{}", self.name, self.log_tail());
        }
        Ok(())
    }

    /// Waits until `ready` holds, failing early if the process ends.
    pub fn wait_until(&mut self, what: &str, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !ready() {
            self.check()?;
            if Instant::now() > deadline {
                bail!("{}: {what} did not happen within {limit:?}:\n{}", self.name, self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits until the process ends, at most for `limit`.
    pub fn wait_for(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} did not end within {limit:?}:\n{}", self.name, self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The file with what the process writes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Sends `signal`.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.child.id() as i32), signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// The last lines the process wrote.
    pub fn log_tail(&self) -> String {
        const TAIL_BYTES: u64 = 2_000;
        let Ok(mut file) = File::open(&self.log) else { return String::new() };
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        let mut bytes = Vec::new();
        if file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES))).is_ok() {
            let _ = file.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Ends the process: SIGTERM, then, after a grace period, SIGKILL.
    pub fn stop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let _ = self.signal(Signal::SIGTERM);
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn_logged(program: &Path, arguments: &[OsString], log: &Path) -> Result<Child> {
    let file = OpenOptions::new().append(true).open(log).with_context(|| format!("cannot open {}", log.display()))?;
    let mut command = dying_with_us(program)?;
    command.args(arguments).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    spawn(command).with_context(|| format!("cannot start {}", program.display()))
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

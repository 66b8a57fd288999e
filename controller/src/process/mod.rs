//! Processes of ours: children that never outlive this process, even when it is killed, and such as are meant to.

mod running;

pub use running::{ProcessId, Running};

use std::io;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};

/// A program that is not on this machine, with the Debian package that has it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{program}` is not installed: `cargo xtask setup` installs it, or `apt-get install {package}`")]
pub struct MissingProgram {
    /// The program that was looked for in `PATH`.
    pub program: &'static str,
    /// The Debian package it comes with.
    pub package: &'static str,
}

/// Where `program` is, looking through `PATH` as a shell would.
///
/// # Errors
/// Names the Debian package to install if it is nowhere.
pub fn find_program(program: &'static str, package: &'static str) -> Result<PathBuf, MissingProgram> {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0))
        .ok_or(MissingProgram { program, package })
}

/// A command for `program` that the kernel kills when the process that [`spawn`]s it ends, for whatever reason.
///
/// The signal is armed by `setpriv`; the shell behind it closes the one gap, our death before that moment, and then
/// becomes `program`, so that the child's process id is the program's. The child gets a process group of its own: a
/// terminal's Ctrl-C reaches only this process, which then stops the child in an orderly way.
///
/// # Errors
/// `setpriv` is missing.
pub fn dying_with_us(program: &std::path::Path) -> Result<Command, MissingProgram> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(find_program("setpriv", "util-linux")?);
    let check = format!("[ \"$PPID\" = {} ] && exec \"$0\" \"$@\"", std::process::id());
    command.args(["--pdeathsig", "KILL", "--", "/bin/sh", "-c", &check]).arg(program).process_group(0);
    Ok(command)
}

/// A command for `program` that goes on when this process ends, in a process group of its own.
pub fn outliving_us(program: &std::path::Path) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(program);
    command.process_group(0);
    command
}

type Job = (Command, Sender<io::Result<Child>>);

/// Starts `command` from a thread that lives as long as this process.
///
/// A parent-death signal fires when the *thread* that started the child ends, so a short-lived one must not do it.
///
/// # Errors
/// What starting the program failed with.
pub fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
    let gone = || io::Error::other("the thread that starts processes has ended");

    let spawner = match SPAWNER.get() {
        Some(spawner) => spawner,
        None => {
            let (jobs, queue) = channel::<Job>();
            std::thread::Builder::new().name("spawner".into()).spawn(move || {
                for (mut command, reply) in queue {
                    // The child is dropped, not killed, if nobody waits for it any more.
                    let _ = reply.send(command.spawn());
                }
            })?;
            // A second thread that lost a race here ends with its queue.
            SPAWNER.get_or_init(|| Mutex::new(jobs))
        }
    };
    let (reply, child) = channel();
    spawner.lock().unwrap_or_else(PoisonError::into_inner).send((command, reply)).map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    #[test]
    fn a_missing_program_names_its_package() {
        let error = find_program("no-such-program", "some-package").unwrap_err();
        assert!(error.to_string().contains("apt-get install some-package"), "{error}");
    }

    #[test]
    fn the_child_outlives_the_thread_that_asked_for_it() {
        let mut child = std::thread::spawn(|| {
            let mut command = dying_with_us(Path::new("/bin/sleep")).unwrap();
            command.arg("60");
            spawn(command).unwrap()
        })
        .join()
        .unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Run by the test below in a process of its own: starts a sleeper, says its process id, then waits to be killed.
    #[test]
    #[ignore = "the other half of killing_us_kills_the_child"]
    fn parent_that_is_killed() {
        let mut command = dying_with_us(Path::new("/bin/sleep")).unwrap();
        command.arg("60").stdout(Stdio::null());
        let mut child = spawn(command).unwrap();
        println!("child={}", child.id());
        let _ = child.wait();
    }

    #[test]
    fn killing_us_kills_the_child() {
        use std::io::{BufRead, BufReader};
        let mut parent = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process::tests::parent_that_is_killed", "--ignored", "--nocapture"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let child: i32 = BufReader::new(parent.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("child=").and_then(|(_, pid)| pid.trim().parse().ok()))
            .expect("the parent says its child's process id");
        let alive =
            || std::fs::read_to_string(format!("/proc/{child}/cmdline")).is_ok_and(|line| line.contains("sleep"));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !alive() {
            assert!(Instant::now() < deadline, "the child does not become the program");
            std::thread::sleep(Duration::from_millis(10));
        }

        parent.kill().unwrap();
        parent.wait().unwrap();
        while alive() {
            assert!(Instant::now() < deadline, "the child survives its parent");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

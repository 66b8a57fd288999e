//! A running process: a child of ours, or one that an earlier run of the controller left running.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::process::Child;
use std::time::{Duration, Instant};

/// Names one process for ever: its number is used again after its end, the time of its start is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessId {
    /// The kernel's number for it.
    pub pid: u32,
    /// When it started, in clock ticks since the host's boot.
    pub start_ticks: u64,
}

impl ProcessId {
    /// The process that has the number `pid` now.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in parentheses, which may hold anything.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let state = fields.next()?;
        let start_ticks = fields.nth(18)?.parse().ok()?;
        (!matches!(state, "Z" | "X")).then_some(Self { pid, start_ticks })
    }

    /// Whether it still runs.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    fn signal(self, signal: Signal) {
        // Between the look and the signal the number could only pass on if thousands of processes started.
        if self.is_alive() {
            let _ = kill(Pid::from_raw(self.pid.cast_signed()), signal);
        }
    }
}

/// A process that is ours to end.
#[derive(Debug)]
pub enum Running {
    /// Started by this process.
    Child(Child),
    /// Started by an earlier run of the controller.
    Adopted(ProcessId),
}

impl Running {
    /// The kernel's number for it.
    pub fn pid(&self) -> u32 {
        match self {
            Self::Child(child) => child.id(),
            Self::Adopted(id) => id.pid,
        }
    }

    /// Names it for a later run of the controller, if it still runs.
    pub fn id(&self) -> Option<ProcessId> {
        match self {
            Self::Child(child) => ProcessId::of(child.id()),
            Self::Adopted(id) => id.is_alive().then_some(*id),
        }
    }

    /// How it ended, in words, if it has.
    pub fn ended(&mut self) -> Option<String> {
        match self {
            Self::Child(child) => child.try_wait().ok().flatten().map(|status| status.to_string()),
            // Only a parent is told more.
            Self::Adopted(id) => (!id.is_alive()).then(|| "exit status unknown".to_owned()),
        }
    }

    /// Waits until it has ended, for `limit` at most; says whether it has.
    pub fn wait(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.ended().is_none() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// Asks it to end.
    pub fn terminate(&mut self) {
        match self {
            // A child that has not been waited for keeps its number.
            Self::Child(child) => {
                if matches!(child.try_wait(), Ok(None)) {
                    let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
                }
            }
            Self::Adopted(id) => id.signal(Signal::SIGTERM),
        }
    }

    /// Ends it, and waits for that.
    pub fn kill(&mut self) {
        match self {
            Self::Child(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
            Self::Adopted(id) => {
                id.signal(Signal::SIGKILL);
                self.wait(Duration::from_secs(2));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_is_known_by_more_than_its_number() {
        let child = Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let mut running = Running::Child(child);
        let id = running.id().unwrap();
        assert!(id.is_alive());
        let other = ProcessId { start_ticks: id.start_ticks + 1, ..id };
        assert!(!other.is_alive(), "the same number, another process");
        Running::Adopted(other).kill();
        assert!(id.is_alive(), "another process is left alone");

        let mut adopted = Running::Adopted(id);
        assert_eq!(adopted.ended(), None);
        adopted.terminate();
        assert!(running.wait(Duration::from_secs(10)));
        assert!(!id.is_alive());
        assert!(adopted.ended().is_some());
    }
}

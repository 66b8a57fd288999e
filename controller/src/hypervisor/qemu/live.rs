//! QEMU's own live migration (pre-copy): memory is sent while the guest runs, what it writes meanwhile is sent again, and
//! in the last round it stands still.

use super::qmp::{Event, Qmp};
use serde_json::{Value, json};
use std::io;
use std::path::Path;
use std::time::Duration;

/// QEMU's own pace of 128 MiB/s is out of the way: the link decides.
const BANDWIDTH_BYTES_PER_S: u64 = 100_000_000_000;

/// How long a guest may stand still for QEMU to begin the last round by itself, in milliseconds: QEMU's default.
const DOWNTIME_LIMIT_MS: u64 = 300;

/// The most that can be set: the last round is begun whatever it takes.
const ANY_DOWNTIME_MS: u64 = 2_000_000;

/// How long QEMU may take for one answer. The source gives none while its guest stands still and the rest is sent.
const PATIENCE: Duration = Duration::from_secs(300);

/// A migration under way, or over.
pub struct LiveMigration {
    source: Qmp,
    destination: Qmp,
    stopped: Option<Duration>,
    resumed: Option<Duration>,
}

/// Where a migration is, as the source has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Under way.
    Active,
    /// All has been sent.
    Sent,
    /// Given up, by us.
    Cancelled,
}

/// How far a migration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Where it is.
    pub stage: Stage,
    /// Rounds begun.
    pub rounds: u64,
    /// Bytes of memory sent, those sent again included.
    pub sent_bytes: u64,
    /// Bytes of memory yet to be sent in this round.
    pub remaining_bytes: u64,
    /// Bytes of memory there are.
    pub memory_bytes: u64,
}

impl LiveMigration {
    /// Begins to move the guest behind the control socket `source` to the QEMU behind `destination`, which waits for one.
    /// QEMU writes to `outgoing` and reads from `incoming`, both Unix sockets that somebody else joins.
    ///
    /// # Errors
    /// QEMU refuses, in its own words.
    pub fn begin(source: &Path, destination: &Path, outgoing: &Path, incoming: &Path) -> io::Result<Self> {
        let (mut source, mut destination) = (Qmp::connect(source)?, Qmp::connect(destination)?);
        for qmp in [&mut source, &mut destination] {
            qmp.set_patience(PATIENCE)?;
        }
        let parameters = json!({ "max-bandwidth": BANDWIDTH_BYTES_PER_S, "downtime-limit": DOWNTIME_LIMIT_MS });
        source.call("migrate-set-parameters", &parameters)?;
        destination.call("migrate-incoming", &json!({ "uri": uri(incoming)? }))?;
        source.call("migrate", &json!({ "uri": uri(outgoing)? }))?;
        Ok(Self { source, destination, stopped: None, resumed: None })
    }

    /// Asks how far it is.
    ///
    /// # Errors
    /// QEMU does not answer, or says that it has failed.
    pub fn progress(&mut self) -> io::Result<Progress> {
        let answer = self.source.call("query-migrate", &json!({}))?;
        self.note_events();
        let status = answer.get("status").and_then(Value::as_str).unwrap_or("none");
        let stage = match status {
            "completed" => Stage::Sent,
            "cancelled" => Stage::Cancelled,
            "failed" => {
                let why = answer.get("error-desc").and_then(Value::as_str).unwrap_or("QEMU does not say why");
                return Err(io::Error::other(format!("the source's QEMU: {why}")));
            }
            _ => Stage::Active,
        };
        let ram = |key: &str| answer.pointer(&format!("/ram/{key}")).and_then(Value::as_u64).unwrap_or(0);
        Ok(Progress {
            stage,
            rounds: ram("dirty-sync-count"),
            sent_bytes: ram("transferred"),
            remaining_bytes: ram("remaining"),
            memory_bytes: ram("total"),
        })
    }

    /// Has the last round begin, however long it will take.
    ///
    /// # Errors
    /// QEMU refuses.
    pub fn finish(&mut self) -> io::Result<()> {
        self.source.call("migrate-set-parameters", &json!({ "downtime-limit": ANY_DOWNTIME_MS })).map(drop)
    }

    /// Whether the guest runs at the destination.
    ///
    /// # Errors
    /// The destination does not answer, or has failed to take the guest in.
    pub fn has_arrived(&mut self) -> io::Result<bool> {
        let answer = self.destination.call("query-status", &json!({}))?;
        self.note_events();
        match answer.get("status").and_then(Value::as_str) {
            Some("running") => Ok(true),
            Some("inmigrate" | "paused" | "prelaunch") => Ok(false),
            other => Err(io::Error::other(format!("the destination's QEMU: {}", other.unwrap_or("no status")))),
        }
    }

    /// Gives it up; the guest goes on at the source. Says whether it does.
    ///
    /// # Errors
    /// QEMU does not answer.
    pub fn cancel(&mut self) -> io::Result<bool> {
        self.source.call("migrate_cancel", &json!({}))?;
        let running = |qmp: &mut Qmp| {
            let answer = qmp.call("query-status", &json!({}))?;
            io::Result::Ok(answer.get("running").and_then(Value::as_bool).unwrap_or(false))
        };
        if !running(&mut self.source)? {
            // It stood still for the last round already.
            self.source.call("cont", &json!({}))?;
        }
        running(&mut self.source)
    }

    /// How long the guest stood still: from the source's last moment to the destination's first.
    pub fn downtime(&self) -> Option<Duration> {
        self.resumed?.checked_sub(self.stopped?)
    }

    fn note_events(&mut self) {
        let last = |events: Vec<Event>, name: &str| events.into_iter().rfind(|event| event.name == name);
        if let Some(event) = last(self.source.take_events(), "STOP") {
            self.stopped = Some(event.at);
        }
        if let Some(event) = last(self.destination.take_events(), "RESUME") {
            self.resumed = Some(event.at);
        }
    }
}

fn uri(socket: &Path) -> io::Result<String> {
    let name = socket.to_str().ok_or_else(|| io::Error::other("a socket's name is not text"))?;
    Ok(format!("unix:{name}"))
}

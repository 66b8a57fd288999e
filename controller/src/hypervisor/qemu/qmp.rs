//! QEMU's machine protocol, as far as ending and moving a guest need it.

use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long QEMU may take for one answer. In emulation on a busy host it takes its time.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The most events that are kept until somebody asks for them.
const EVENTS_MAX: usize = 256;

/// Something that QEMU tells without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// What.
    pub(super) name: String,
    /// When, since 1970.
    pub(super) at: Duration,
}

/// A connection to a running QEMU.
pub(super) struct Qmp {
    reader: BufReader<UnixStream>,
    events: Vec<Event>,
}

impl Qmp {
    /// Connects and leaves the negotiation mode QEMU starts in.
    pub(super) fn connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let mut qmp = Self { reader: BufReader::new(stream), events: Vec::new() };
        let greeting = qmp.read()?;
        if greeting.get("QMP").is_none() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "this is not QEMU's machine protocol"));
        }
        qmp.execute("qmp_capabilities")?;
        Ok(qmp)
    }

    /// Executes a command without arguments.
    pub(super) fn execute(&mut self, command: &str) -> io::Result<()> {
        self.call(command, &json!({})).map(drop)
    }

    /// Executes a command and returns its answer.
    pub(super) fn call(&mut self, command: &str, arguments: &Value) -> io::Result<Value> {
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        self.reader.get_mut().write_all(line.as_bytes())?;
        loop {
            let mut answer = self.read()?;
            if let Some(error) = answer.get("error") {
                let words = error.get("desc").and_then(Value::as_str).map_or_else(|| error.to_string(), str::to_owned);
                return Err(io::Error::other(format!("{command}: {words}")));
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            self.events.extend(event(&answer).filter(|_| self.events.len() < EVENTS_MAX));
        }
    }

    /// From now on waits up to `limit` for an answer.
    pub(super) fn set_patience(&mut self, limit: Duration) -> io::Result<()> {
        self.reader.get_ref().set_read_timeout(Some(limit))
    }

    /// The events that came with answers since the last call.
    pub(super) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn read(&mut self) -> io::Result<Value> {
        let mut line = Vec::new();
        self.reader.by_ref().take(1 << 16).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_slice(&line)?)
    }
}

fn event(message: &Value) -> Option<Event> {
    let part = |key: &str| message.pointer(&format!("/timestamp/{key}"))?.as_u64();
    let at = Duration::from_secs(part("seconds")?) + Duration::from_micros(part("microseconds")?);
    Some(Event { name: message.get("event")?.as_str()?.to_owned(), at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn answers_are_told_from_events_and_refusals_are_in_qemu_s_words() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("qmp");
        let listener = UnixListener::bind(&socket).unwrap();
        let qemu = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let mut asked = Vec::new();
            writeln!(stream, r#"{{"QMP": {{"version": {{}}, "capabilities": []}}}}"#).unwrap();
            for answer in [
                r#"{"return": {}}"#,
                r#"{"timestamp": {"seconds": 12, "microseconds": 34}, "event": "STOP"}
                   {"return": {"status": "active"}}"#,
                r#"{"error": {"class": "GenericError", "desc": "There's a migration process in progress"}}"#,
            ] {
                asked.push(serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap());
                for line in answer.lines() {
                    writeln!(stream, "{}", line.trim()).unwrap();
                }
            }
            asked
        });
        let mut qmp = Qmp::connect(&socket).unwrap();
        let answer = qmp.call("query-migrate", &json!({})).unwrap();
        assert_eq!(answer["status"], "active");
        let at = Duration::from_secs(12) + Duration::from_micros(34);
        assert_eq!(qmp.take_events(), [Event { name: "STOP".into(), at }]);
        assert!(qmp.take_events().is_empty());
        let error = qmp.call("migrate", &json!({ "uri": "unix:a" })).unwrap_err().to_string();
        assert_eq!(error, "migrate: There's a migration process in progress");
        let asked = qemu.join().unwrap();
        assert_eq!(asked[2], json!({ "execute": "migrate", "arguments": { "uri": "unix:a" } }));
    }
}

//! Commands to a running `slim-load`: lines on its standard input or on a Unix socket.
//!
//! | line | does | answer |
//! | --- | --- | --- |
//! | `mark NAME` | begins the phase NAME | `ok` |
//! | `status` | | a [`Status`](super::report::Status) as JSON |
//! | `stop` | ends the traffic early; the report follows after the drain | `ok` |
//!
//! Anything else is answered with `error: …`. Answers go back over the socket; to standard input there are none.

use super::report::WARMUP;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The longest line.
const LINE_MAX: usize = 1024;

/// The most connections at a time.
const CONNECTIONS_MAX: usize = 16;

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Begin the phase of this name.
    Mark(String),
    /// Say where the run stands.
    Status,
    /// End the traffic.
    Stop,
}

/// A line that is no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// There is no such command.
    #[error("unknown command: use mark NAME, status or stop")]
    Unknown,
    /// The name of the mark cannot be used.
    #[error("a mark's name has 1 to 32 letters, digits, '-' and '_', and is neither warmup nor total")]
    Name,
    /// The line is too long.
    #[error("line too long")]
    TooLong,
}

impl FromStr for Command {
    type Err = CommandError;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let mut words = line.split_whitespace();
        let command = match (words.next(), words.next()) {
            (Some("status"), None) => Self::Status,
            (Some("stop"), None) => Self::Stop,
            (Some("mark"), Some(name)) => {
                let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
                if name.len() > 32 || !name.chars().all(fits) || [WARMUP, "total"].contains(&name) {
                    return Err(CommandError::Name);
                }
                Self::Mark(name.into())
            }
            (Some("mark"), None) => return Err(CommandError::Name),
            _ => return Err(CommandError::Unknown),
        };
        if words.next().is_some() { Err(CommandError::Unknown) } else { Ok(command) }
    }
}

/// Where commands come from. Never blocks.
#[derive(Debug)]
pub struct Control {
    stdin: Option<Lines>,
    listener: Option<UnixListener>,
    connections: Vec<(UnixStream, Lines)>,
    path: Option<PathBuf>,
}

impl Control {
    /// Listens on standard input if `stdin`, and on a Unix socket at `path` if there is one.
    ///
    /// # Errors
    /// The socket cannot be made, for instance because the file exists.
    pub fn new(stdin: bool, path: Option<&Path>) -> io::Result<Self> {
        let listener = path.map(UnixListener::bind).transpose()?;
        if let Some(listener) = &listener {
            listener.set_nonblocking(true)?;
        }
        let path = path.map(Path::to_owned);
        Ok(Self { stdin: stdin.then(Lines::default), listener, connections: Vec::new(), path })
    }

    /// Hands each command that has arrived to `handle`, and what that returns to whoever sent it.
    pub fn poll(&mut self, mut handle: impl FnMut(Command) -> String) {
        let mut answer = |line: Result<String, CommandError>| match line.and_then(|line| line.parse()) {
            Ok(command) => handle(command),
            Err(error) => format!("error: {error}"),
        };
        if let Some(lines) = &mut self.stdin {
            let open = stdin_is_ready().then(|| lines.read(&mut Stdin));
            for line in lines.take() {
                let answer = answer(line);
                log::info!("standard input: {answer}");
            }
            if open == Some(false) {
                self.stdin = None;
            }
        }
        while let Some(Ok((connection, _))) = self.listener.as_ref().map(UnixListener::accept) {
            if self.connections.len() < CONNECTIONS_MAX && connection.set_nonblocking(true).is_ok() {
                self.connections.push((connection, Lines::default()));
            }
        }
        self.connections.retain_mut(|(connection, lines)| {
            let open = lines.read(connection);
            // An answer fits into any socket's buffer: one that is full belongs to somebody who does not read.
            let answered = lines.take().into_iter().all(|line| writeln!(connection, "{}", answer(line)).is_ok());
            open && answered
        });
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Standard input without a buffer, whose content would not show when polling.
struct Stdin;

impl Read for Stdin {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        Ok(nix::unistd::read(io::stdin(), into)?)
    }
}

fn stdin_is_ready() -> bool {
    let stdin = io::stdin();
    let mut descriptors = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    poll(&mut descriptors, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Bytes that have arrived, to be cut into lines.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
}

impl Lines {
    /// Reads once what there is; false at the end.
    fn read(&mut self, from: &mut impl Read) -> bool {
        let mut chunk = [0; LINE_MAX];
        match from.read(&mut chunk) {
            Ok(0) => false,
            Ok(count) => {
                self.bytes.extend_from_slice(&chunk[..count]);
                true
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    /// The complete lines.
    fn take(&mut self) -> Vec<Result<String, CommandError>> {
        let mut lines = Vec::new();
        while let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.bytes.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            if !line.is_empty() {
                lines.push(if line.len() > LINE_MAX { Err(CommandError::TooLong) } else { Ok(line) });
            }
        }
        if self.bytes.len() > LINE_MAX {
            self.bytes.clear();
            lines.push(Err(CommandError::TooLong));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};

    #[test]
    fn lines_are_commands_or_errors() {
        assert_eq!("mark during".parse(), Ok(Command::Mark("during".into())));
        assert_eq!("  status ".parse(), Ok(Command::Status));
        assert_eq!("stop".parse(), Ok(Command::Stop));
        for line in ["", "halt", "status now", "mark a b", "stop stop stop"] {
            assert_eq!(line.parse::<Command>(), Err(CommandError::Unknown), "{line}");
        }
        for line in ["mark", "mark warmup", "mark total", "mark a/b", &format!("mark {}", "x".repeat(33))] {
            assert_eq!(line.parse::<Command>(), Err(CommandError::Name), "{line}");
        }
    }

    #[test]
    fn a_socket_answers_each_line_and_goes_away_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control");
        let mut control = Control::new(false, Some(&path)).unwrap();
        let mut seen = Vec::new();
        let mut poll = |control: &mut Control| {
            control.poll(|command| {
                seen.push(command);
                "ok".into()
            });
        };
        let mut peer = UnixStream::connect(&path).unwrap();
        peer.write_all(b"mark one\nnonsense\nsta").unwrap();
        poll(&mut control);
        peer.write_all(b"tus\n").unwrap();
        poll(&mut control);
        let mut answers = BufReader::new(peer.try_clone().unwrap()).lines();
        assert_eq!(answers.next().unwrap().unwrap(), "ok");
        assert!(answers.next().unwrap().unwrap().starts_with("error: unknown command"));
        assert_eq!(answers.next().unwrap().unwrap(), "ok");
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        poll(&mut control);
        assert!(answers.next().is_none(), "the connection is closed");
        assert_eq!(seen, [Command::Mark("one".into()), Command::Status]);
        drop(control);
        assert!(!path.exists());
    }

    #[test]
    fn endless_lines_are_refused() {
        let mut lines = Lines::default();
        let endless = [b'x'; LINE_MAX];
        assert!(lines.read(&mut &endless[..]) && lines.take().is_empty());
        assert!(lines.read(&mut &endless[..]));
        assert_eq!(lines.take(), [Err(CommandError::TooLong)]);
        assert!(lines.bytes.is_empty());
    }

    #[test]
    fn an_existing_file_is_not_overwritten() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Control::new(false, Some(file.path())).is_err());
        assert!(file.path().exists());
    }
}

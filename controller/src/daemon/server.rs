//! The daemon's socket: accepts clients and gives each a thread.

use super::{Daemon, DaemonError};
use crate::api::{ApiEvent, ApiReply, ApiRequest};
use nix::sys::stat::{Mode, umask};
use slim_core::protocol::control::{
    ControlError, ErrorCode, LineBuffer, Reply, Request, ServerMessage, decode_request, encode,
};
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// More than operators and tools together need; a bound on threads.
const CLIENTS_MAX: usize = 64;

/// How long a client may take to read what we write.
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);

/// The open socket.
pub(super) struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

/// The thread that accepts.
pub(super) struct Serving {
    path: PathBuf,
}

impl Listener {
    /// Opens the socket, in place of one that a daemon left behind when it was killed.
    pub(super) fn bind(path: &Path) -> Result<Self, DaemonError> {
        let io_error = |source| DaemonError::io(format!("listen on {}", path.display()))(source);
        match UnixStream::connect(path) {
            Ok(_) => return Err(DaemonError::AlreadyRunning(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(io_error)?;
            }
            Err(_) => {}
        }
        // Whoever can connect can end every instance: it is nobody else's from the moment it exists.
        let before = umask(Mode::from_bits_truncate(0o177));
        let bound = UnixListener::bind(path);
        umask(before);
        Ok(Self { listener: bound.map_err(io_error)?, path: path.to_owned() })
    }

    /// Starts to accept clients.
    pub(super) fn serve(self, daemon: Arc<Daemon>) -> Result<Serving, DaemonError> {
        let Self { listener, path } = self;
        let clients = Arc::new(AtomicUsize::new(0));
        std::thread::Builder::new()
            .name("clients".into())
            .spawn(move || {
                for stream in listener.incoming() {
                    match stream {
                        Ok(stream) => accept(&daemon, stream, &clients),
                        Err(error) => {
                            log::warn!("cannot accept a client: {error}");
                            std::thread::sleep(Duration::from_millis(100));
                        }
                    }
                }
            })
            .map_err(DaemonError::io("start a thread"))?;
        Ok(Serving { path })
    }
}

impl Serving {
    /// Removes the socket, so that no further client finds us. Those connected keep their connections.
    pub(super) fn end(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn accept(daemon: &Arc<Daemon>, stream: UnixStream, clients: &Arc<AtomicUsize>) {
    if clients.fetch_add(1, Ordering::Relaxed) >= CLIENTS_MAX {
        clients.fetch_sub(1, Ordering::Relaxed);
        log::warn!("a client was turned away: there are {CLIENTS_MAX} already");
        return;
    }
    let (daemon, clients_of_thread) = (Arc::clone(daemon), Arc::clone(clients));
    let started = std::thread::Builder::new().name("client".into()).spawn(move || {
        if let Err(error) = serve(&daemon, stream) {
            log::debug!("a client's connection ended: {error}");
        }
        clients_of_thread.fetch_sub(1, Ordering::Relaxed);
    });
    if let Err(error) = started {
        clients.fetch_sub(1, Ordering::Relaxed);
        log::warn!("no thread for a client: {error}");
    }
}

/// Answers a client's requests in turn until it leaves.
fn serve(daemon: &Arc<Daemon>, mut stream: UnixStream) -> io::Result<()> {
    stream.set_write_timeout(Some(CLIENT_PATIENCE))?;
    let mut lines = LineBuffer::new();
    let mut bytes = [0; 16 << 10];
    loop {
        while let Some(line) = lines.next_line().map_err(io::Error::other)? {
            let message = match decode_request::<ApiRequest>(line) {
                Ok(Request { id, request, .. }) => {
                    let mut events = EventSink { stream: &stream, broken: false };
                    let result = daemon.handle(request, &mut |event| events.send(event));
                    Reply::new(id, result)
                }
                Err(error) => match error.id() {
                    Some(id) => Reply::new(id, Err(error.to_control_error())),
                    None => return Err(io::Error::other(error)),
                },
            };
            write(&mut stream, &message)?;
        }
        match stream.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(count) => lines.extend(&bytes[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn write(stream: &mut UnixStream, reply: &Reply<ApiReply>) -> io::Result<()> {
    let line = encode(reply).or_else(|_| {
        let error = ControlError::new(ErrorCode::Limit, "the reply is too long for one line");
        encode(&Reply::<ApiReply>::new(reply.id, Err(error)))
    });
    stream.write_all(line.map_err(io::Error::other)?.as_bytes())
}

/// Passes events on to a client for as long as it listens. What it has asked for goes on without it.
struct EventSink<'a> {
    stream: &'a UnixStream,
    broken: bool,
}

impl EventSink<'_> {
    fn send(&mut self, event: ApiEvent) {
        if self.broken {
            return;
        }
        let message = ServerMessage::<ApiReply, ApiEvent>::Event(event);
        let sent = encode(&message).is_ok_and(|line| self.stream.write_all(line.as_bytes()).is_ok());
        self.broken = !sent;
    }
}

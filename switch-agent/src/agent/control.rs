//! The control server: JSON lines on a Unix socket, several clients at once.
//!
//! ```text
//!   client ─► reader thread ─► jobs ─► executor's thread ─► outbox ─► writer thread ─► client
//!                              events of the dataplane ─► every outbox
//! ```

use crate::executor::Executor;
use crate::socket::{SocketError, claim};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::stat::{Mode, umask};
use nix::unistd::geteuid;
use slim_core::protocol::control::{
    DecodeError, Event, LineBuffer, Reply, Request, SwitchEvent, SwitchReply, SwitchRequest, decode_request, encode,
};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The most clients at once.
const CLIENTS_MAX: usize = 32;
/// Lines that wait for a slow client. One more, and it is cut off; it can come back and ask for the status.
const OUTBOX_LINES: usize = 1024;
/// How long a client may take to accept a line.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);
/// How long the end of the switch waits for clients to accept their last lines.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// The socket that clients connect to. Removed when dropped.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Listens at `path`. Clients can connect from now on; they are served once [`serve`](Self::serve) runs.
    ///
    /// # Errors
    /// Somebody listens there, or the path cannot be used.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let refused = |error| SocketError::Refused { path: path.into(), error };
        claim(path)?;
        // Whoever can write to it commands the switch: it is nobody else's from the moment it exists.
        let before = umask(Mode::from_bits_truncate(0o177));
        let bound = UnixListener::bind(path);
        umask(before);
        Ok(Self { socket: bound.map_err(refused)?, path: path.into() })
    }

    /// Accepts clients on a thread of its own, for the rest of the process's life.
    ///
    /// # Errors
    /// The system has no thread or descriptor left.
    pub fn serve(&self, clients: Clients, jobs: Sender<Job>) -> std::io::Result<()> {
        let socket = self.socket.try_clone()?;
        spawn("control", move || {
            for (id, stream) in (0..).zip(socket.incoming()) {
                let served = stream.and_then(|stream| {
                    check_owner(&stream)?;
                    clients.serve(id, stream, jobs.clone())
                });
                if let Err(error) = served {
                    log::warn!("control client {id}: {error}");
                    // Such as no descriptors left: do not spin.
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        })
    }
}

/// Refuses clients of other users, however they got past the socket's permissions.
fn check_owner(stream: &UnixStream) -> std::io::Result<()> {
    let user = getsockopt(stream, PeerCredentials)?.uid();
    match user == 0 || user == geteuid().as_raw() {
        true => Ok(()),
        false => Err(std::io::Error::other(format!("turned away, it belongs to user {user}"))),
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Something for the executor.
pub enum Job {
    /// A request, and where its answer goes.
    Request(Box<Request<SwitchRequest>>, Outbox),
    /// A line that is not a request, to be answered in its turn.
    Refusal(DecodeError, Outbox),
    /// End.
    Stop,
}

/// Carries out jobs until it is told to stop.
pub fn execute(mut executor: Executor, jobs: &Receiver<Job>) {
    for job in jobs {
        match job {
            Job::Request(request, outbox) => {
                let Request { id, request, .. } = *request;
                let result = executor.execute(request);
                if let Err(error) = &result {
                    log::warn!("control client {}: request {id} refused: {error}", outbox.id);
                }
                outbox.reply(&Reply::new(id, result));
            }
            Job::Refusal(error, outbox) => {
                log::warn!("control client {}: {error}", outbox.id);
                // Under the id it has, or else 0.
                outbox.reply(&Reply::new(error.id().unwrap_or(0), Err(error.to_control_error())));
            }
            Job::Stop => return,
        }
    }
}

/// The lines on their way to a client.
#[derive(Debug, Clone)]
pub struct Outbox {
    id: u64,
    lines: SyncSender<Arc<str>>,
    stream: Arc<UnixStream>,
}

impl Outbox {
    fn reply(&self, reply: &Reply<SwitchReply>) {
        match encode(reply) {
            Ok(line) => self.send(line.into()),
            Err(error) => {
                log::error!("control client {}: {error}", self.id);
                self.cut_off();
            }
        }
    }

    fn send(&self, line: Arc<str>) {
        if let Err(TrySendError::Full(_)) = self.lines.try_send(line) {
            log::warn!("control client {}: does not read, cut off", self.id);
            self.cut_off();
        }
    }

    fn cut_off(&self) {
        // Ends both of its threads; fails only if it has gone by itself.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// All clients there are.
#[derive(Debug, Clone, Default)]
pub struct Clients(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    clients: Mutex<Vec<Outbox>>,
    /// Threads that may still have something to write.
    writers: AtomicUsize,
}

impl Clients {
    /// Tells every client of events, until there will be none any more.
    pub fn tell(&self, events: &Receiver<SwitchEvent>) {
        for event in events {
            log_event(&event);
            if let Ok(line) = encode(&Event::new(event)) {
                let line: Arc<str> = line.into();
                self.lock().iter().for_each(|client| client.send(Arc::clone(&line)));
            }
        }
    }

    /// Lets go of all clients once they have been sent what they are owed, or after a while.
    pub fn close(&self) {
        for client in self.lock().drain(..) {
            // Ends its reader; fails only if it has gone by itself.
            let _ = client.stream.shutdown(Shutdown::Read);
        }
        let begun = Instant::now();
        while self.0.writers.load(Ordering::Acquire) > 0 && begun.elapsed() < CLOSE_PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn serve(&self, id: u64, stream: UnixStream, jobs: Sender<Job>) -> std::io::Result<()> {
        if self.lock().len() >= CLIENTS_MAX {
            return Err(std::io::Error::other(format!("turned away, there are {CLIENTS_MAX} already")));
        }
        stream.set_write_timeout(Some(WRITE_PATIENCE))?;
        let stream = Arc::new(stream);
        let (lines, outgoing) = sync_channel::<Arc<str>>(OUTBOX_LINES);
        let outbox = Outbox { id, lines, stream: Arc::clone(&stream) };

        let (clients, connection) = (self.clone(), Arc::clone(&stream));
        self.0.writers.fetch_add(1, Ordering::AcqRel);
        spawn("control-write", move || {
            // Ends when nobody can have anything to say to this client any more, or when it does not listen.
            for line in outgoing {
                if (&*connection).write_all(line.as_bytes()).is_err() {
                    break;
                }
            }
            // Fails only if the client has gone by itself.
            let _ = connection.shutdown(Shutdown::Both);
            clients.0.writers.fetch_sub(1, Ordering::AcqRel);
        })
        .inspect_err(|_| {
            self.0.writers.fetch_sub(1, Ordering::AcqRel);
        })?;

        let (clients, reader) = (self.clone(), outbox.clone());
        self.lock().push(outbox);
        spawn("control-read", move || {
            read(&stream, &reader, &jobs);
            // What it has asked for it still gets: the writer ends with the last answer.
            clients.forget(id);
        })
        .inspect_err(|_| self.forget(id))
    }

    fn forget(&self, id: u64) {
        self.lock().retain(|client| client.id != id);
        log::debug!("control client {id}: gone");
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Outbox>> {
        self.0.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log_event(event: &SwitchEvent) {
    match event {
        SwitchEvent::DrainAcked { migration, nonce, path } => {
            log::info!("migration {migration}: drain packet {nonce} of path {} acknowledged", path.get());
        }
        SwitchEvent::DrainGivenUp { migration, nonce, unacknowledged } => {
            log::warn!("migration {migration}: drain given up on {} paths, nonce {nonce}", unacknowledged.len());
        }
        SwitchEvent::Drained { migration, nonce } => log::info!("migration {migration}: drained, nonce {nonce}"),
        SwitchEvent::RollbackFinished {
            migration,
            nonce,
            handed_back_packets,
            held_packets,
            dropped_packets,
            timed_out,
        } => log::info!(
            "migration {migration}: rollback {nonce} finished{}: {handed_back_packets} packets handed back, \
             {held_packets} held, {dropped_packets} dropped",
            if *timed_out { " by time-out" } else { "" }
        ),
        SwitchEvent::PortLink { port, up } => log::info!("port {port}: {}", if *up { "up" } else { "down" }),
    }
}

/// Reads a client's requests until it goes or sends a line without end.
fn read(mut stream: &UnixStream, outbox: &Outbox, jobs: &Sender<Job>) {
    let mut lines = LineBuffer::new();
    let mut bytes = vec![0; 16 << 10];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(count) => lines.extend(&bytes[..count]),
        }
        loop {
            let line = match lines.next_line() {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(error) => {
                    log::warn!("control client {}: {error}, cut off", outbox.id);
                    outbox.cut_off();
                    return;
                }
            };
            let job = match decode_request(line) {
                Ok(request) => Job::Request(Box::new(request), outbox.clone()),
                Err(error) => Job::Refusal(error, outbox.clone()),
            };
            if jobs.send(job).is_err() {
                return;
            }
        }
    }
}

/// A named thread that nobody waits for.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.into()).spawn(work).map(drop)
}

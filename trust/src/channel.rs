//! A connection, encrypted or not, that several threads can share.
//!
//! Clones are the same connection. One thread may read while another writes, and a third ends both. What is on the way
//! out is encrypted and sent under one lock, what comes in is received outside of any lock that a writer needs: a peer
//! that does not read cannot keep us from reading, nor the other way round.

use crate::principal::Principal;
use crate::refused::Refused;
use nix::sys::socket::{MsgFlags, recv, send};
use rustls::Connection;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// The most that is received at a time, encrypted.
const RECEIVE_MAX_BYTES: usize = 32 << 10;

/// The most that is encrypted before it is sent.
const SEND_MAX_BYTES: usize = 32 << 10;

/// An open connection.
#[derive(Debug, Clone)]
pub struct Channel(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tcp: TcpStream,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Plain {
        /// Whether anything has been received.
        begun: AtomicBool,
    },
    Tls(Box<Tls>),
}

#[derive(Debug)]
struct Tls {
    peer: Principal,
    /// Locked for moments only, never while the network is waited for.
    connection: Mutex<Connection>,
    incoming: Mutex<Incoming>,
    outgoing: Mutex<Vec<u8>>,
}

/// Bytes received and not yet decrypted.
#[derive(Debug)]
pub(crate) struct Incoming {
    bytes: Vec<u8>,
    begin: usize,
    end: usize,
}

impl Incoming {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; RECEIVE_MAX_BYTES], begin: 0, end: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.begin == self.end
    }

    pub(crate) fn first(&self) -> Option<u8> {
        self.bytes[self.begin..self.end].first().copied()
    }

    /// Receives more; the end of the connection is an error.
    pub(crate) fn fill(&mut self, source: &mut impl Read) -> io::Result<()> {
        self.fill_with(|bytes| source.read(bytes))
    }

    fn fill_with(&mut self, mut receive: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<()> {
        loop {
            match receive(&mut self.bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => {
                    (self.begin, self.end) = (0, len);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives some of it to the connection, which must have no plaintext waiting.
    pub(crate) fn feed(&mut self, connection: &mut Connection) -> Result<(), Refused> {
        let mut rest = &self.bytes[self.begin..self.end];
        let fed = connection.read_tls(&mut rest).map_err(Refused::from_io)?;
        self.begin += fed;
        connection.process_new_packets().map(drop).map_err(Refused::from_tls)
    }
}

impl Channel {
    pub(crate) fn plain(tcp: TcpStream) -> Self {
        Self(Arc::new(Inner { tcp, kind: Kind::Plain { begun: AtomicBool::new(false) } }))
    }

    pub(crate) fn tls(tcp: TcpStream, connection: Connection, incoming: Incoming, peer: Principal) -> Self {
        let tls = Tls {
            peer,
            connection: Mutex::new(connection),
            incoming: Mutex::new(incoming),
            outgoing: Mutex::new(Vec::new()),
        };
        Self(Arc::new(Inner { tcp, kind: Kind::Tls(Box::new(tls)) }))
    }

    /// Who is at the other end; `None` in plaintext, where nobody knows.
    pub fn peer(&self) -> Option<&Principal> {
        match &self.0.kind {
            Kind::Plain { .. } => None,
            Kind::Tls(tls) => Some(&tls.peer),
        }
    }

    /// The connection below, for its options. Do not read from it or write to it.
    pub fn tcp(&self) -> &TcpStream {
        &self.0.tcp
    }

    /// Ends one direction or both.
    ///
    /// A written direction is ended so that the peer can tell it from a cut connection. Nobody is waited for, except by
    /// `Shutdown::Write` for a write that is under way.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        if let (Kind::Tls(tls), Shutdown::Write | Shutdown::Both) = (&self.0.kind, how) {
            let outgoing = match how {
                Shutdown::Write => Some(lock(&tls.outgoing)),
                _ => match tls.outgoing.try_lock() {
                    Ok(outgoing) => Some(outgoing),
                    Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                    // In the middle of a write nothing can be said any more.
                    Err(TryLockError::WouldBlock) => None,
                },
            };
            if let Some(mut outgoing) = outgoing {
                lock(&tls.connection).send_close_notify();
                tls.take_outgoing(&mut outgoing)?;
                // If the peer does not read, it will not read this either.
                let _ = send(self.0.tcp.as_raw_fd(), &outgoing, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
            }
        }
        self.0.tcp.shutdown(how)
    }

    /// Whether the peer has closed the connection or broken it. What it sent is left to be read.
    pub fn is_closed_by_peer(&self) -> bool {
        let fd = self.0.tcp.as_raw_fd();
        let Kind::Tls(tls) = &self.0.kind else {
            return match recv(fd, &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
                Ok(0) => true,
                Ok(_) | Err(nix::Error::EAGAIN | nix::Error::EINTR) => false,
                Err(_) => true,
            };
        };
        // Somebody who reads will find out.
        let Ok(mut incoming) = tls.incoming.try_lock() else { return false };
        loop {
            {
                let mut connection = lock(&tls.connection);
                match connection.process_new_packets() {
                    Ok(state) if state.plaintext_bytes_to_read() > 0 => return false,
                    Ok(state) if state.peer_has_closed() => return true,
                    Ok(_) => {}
                    Err(_) => return true,
                }
                if !incoming.is_empty() {
                    if incoming.feed(&mut connection).is_err() {
                        return true;
                    }
                    continue;
                }
            }
            let received = incoming.fill_with(|bytes| Ok(recv(fd, bytes, MsgFlags::MSG_DONTWAIT)?));
            match received {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => return true,
            }
        }
    }

    /// Waits until the peer has said something, which is left to be read. Only then does a client know that it is not
    /// refused. In plaintext nothing is waited for.
    ///
    /// # Errors
    /// The peer refuses us, leaves, or says nothing until `deadline`.
    pub fn wait_for_data(&self, deadline: Instant) -> Result<(), Refused> {
        let Kind::Tls(tls) = &self.0.kind else { return Ok(()) };
        let tcp = &self.0.tcp;
        let waited = tls.advance(|incoming| {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            tcp.set_read_timeout(Some(left))?;
            incoming.fill(&mut { tcp })
        });
        tcp.set_read_timeout(None).map_err(Refused::from_io)?;
        match waited {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refused::Closed),
            Err(error) => Err(Refused::from_io(error)),
        }
    }

    fn read_some(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.0.kind {
            Kind::Plain { begun } => {
                let len = (&self.0.tcp).read(buffer)?;
                if len > 0 && !begun.swap(true, Ordering::Relaxed) && looks_like_tls(&buffer[..len]) {
                    return Err(Refused::Tls.into());
                }
                Ok(len)
            }
            Kind::Tls(_) if buffer.is_empty() => Ok(0),
            Kind::Tls(tls) => {
                let tcp = &self.0.tcp;
                match tls.advance(|incoming| incoming.fill(&mut { tcp }))? {
                    true => lock(&tls.connection).reader().read(buffer),
                    false => Ok(0),
                }
            }
        }
    }

    fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        let Kind::Tls(tls) = &self.0.kind else { return (&self.0.tcp).write(bytes) };
        let piece = &bytes[..bytes.len().min(SEND_MAX_BYTES)];
        let mut outgoing = lock(&tls.outgoing);
        let taken = lock(&tls.connection).writer().write(piece)?;
        tls.take_outgoing(&mut outgoing)?;
        // All or nothing: half a record cannot be completed later.
        (&self.0.tcp).write_all(&outgoing)?;
        Ok(taken)
    }
}

impl Tls {
    /// Makes plaintext available, with `fill` to receive more; says whether there is some rather than the end.
    ///
    /// Only one thread reads at a time.
    fn advance(&self, mut fill: impl FnMut(&mut Incoming) -> io::Result<()>) -> io::Result<bool> {
        let mut incoming = lock(&self.incoming);
        loop {
            {
                let mut connection = lock(&self.connection);
                let state = connection.process_new_packets().map_err(Refused::from_tls)?;
                if state.plaintext_bytes_to_read() > 0 {
                    return Ok(true);
                }
                if state.peer_has_closed() {
                    return Ok(false);
                }
                if !incoming.is_empty() {
                    incoming.feed(&mut connection)?;
                    continue;
                }
            }
            fill(&mut incoming)?;
        }
    }

    /// Moves what the connection wants to send to `outgoing`, in place of what was in it.
    fn take_outgoing(&self, outgoing: &mut Vec<u8>) -> io::Result<()> {
        outgoing.clear();
        let mut connection = lock(&self.connection);
        while connection.wants_write() {
            connection.write_tls(outgoing)?;
        }
        Ok(())
    }
}

/// The first bytes of a TLS connection: a record of type handshake, of version 3.something.
fn looks_like_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [22] | [22, 3, ..])
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Read for &Channel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_some(buffer)
    }
}

impl Read for Channel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_some(buffer)
    }
}

impl Write for &Channel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_some(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for Channel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_some(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Channel {
    /// Bounds how long a read or a write waits; `None` for as long as it takes.
    pub fn set_timeouts(&self, read: Option<Duration>, write: Option<Duration>) -> io::Result<()> {
        self.0.tcp.set_read_timeout(read)?;
        self.0.tcp.set_write_timeout(write)
    }
}

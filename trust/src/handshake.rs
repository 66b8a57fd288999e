//! From a TCP connection to a channel, within a time.
//!
//! In TLS 1.3 a client is done before the server has looked at its certificate: a refusal reaches it with the first data
//! it reads, see [`Channel::wait_for_data`].

use crate::channel::{Channel, Incoming};
use crate::keyring::Keyring;
use crate::principal::{Expected, Principal};
use crate::refused::Refused;
use crate::verify;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, Connection, ServerConnection};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The first byte of every TLS connection: a handshake record. None of our own protocols begins with it.
const TLS_RECORD: u8 = 22;

/// An alert's.
const TLS_ALERT: u8 = 21;

/// How a party speaks to others.
#[derive(Debug, Clone)]
pub enum Security {
    /// With nobody's identity known and everything readable: for reproducing the paper.
    Plaintext,
    /// With mutually authenticated TLS 1.3.
    Tls(Arc<Keyring>),
}

impl Security {
    /// Whether connections are encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

/// Opens a channel over a connection that we have made, to `expected` only.
///
/// `late` is how long the peer's identity may have expired; zero, except for a controller that was away for too long.
///
/// # Errors
/// The peer is refused, or nothing came of it until `deadline`.
pub fn connect(
    tcp: TcpStream,
    security: &Security,
    expected: &Expected,
    late: Duration,
    deadline: Instant,
) -> Result<Channel, Refused> {
    let Security::Tls(keyring) = security else { return Ok(Channel::plain(tcp)) };
    let config = keyring.identity().client_config(expected, late).map_err(Refused::from_tls)?;
    let address = tcp.peer_addr().map_err(Refused::from_io)?.ip();
    let connection = ClientConnection::new(config, ServerName::from(address)).map_err(Refused::from_tls)?;
    shake_hands(tcp, connection.into(), deadline)
}

/// Opens a channel over a connection that was made to us, for `expected` only.
///
/// # Errors
/// The peer is refused, or nothing came of it until `deadline`. A peer that speaks plaintext gets `plaintext_answer`.
pub fn accept(
    tcp: TcpStream,
    security: &Security,
    expected: &Expected,
    deadline: Instant,
    plaintext_answer: &[u8],
) -> Result<Channel, Refused> {
    let Security::Tls(keyring) = security else { return Ok(Channel::plain(tcp)) };
    let config = keyring.identity().server_config(expected).map_err(Refused::from_tls)?;
    let connection = ServerConnection::new(config).map_err(Refused::from_tls)?;
    let refused_plainly = tcp.try_clone().map_err(Refused::from_io)?;
    shake_hands(tcp, connection.into(), deadline).inspect_err(|refused| {
        if *refused == Refused::Plaintext {
            // It may not read it.
            let _ = (&refused_plainly).write_all(plaintext_answer);
        }
    })
}

fn shake_hands(tcp: TcpStream, mut connection: Connection, deadline: Instant) -> Result<Channel, Refused> {
    let mut incoming = Incoming::new();
    let mut timed = Timed { tcp: &tcp, deadline };
    let mut first = true;
    loop {
        while connection.wants_write() {
            connection.write_tls(&mut timed).map_err(Refused::from_io)?;
        }
        if !connection.is_handshaking() {
            break;
        }
        if incoming.is_empty() {
            incoming.fill(&mut timed).map_err(Refused::from_io)?;
        }
        if std::mem::take(&mut first) && !matches!(incoming.first(), Some(TLS_RECORD | TLS_ALERT)) {
            return Err(Refused::Plaintext);
        }
        if let Err(error) = incoming.feed(&mut connection) {
            // The alert, for the peer's log. It may have left.
            let _ = connection.write_tls(&mut timed);
            return Err(error);
        }
    }
    let peer = peer_of(&connection)?;
    tcp.set_read_timeout(None).map_err(Refused::from_io)?;
    tcp.set_write_timeout(None).map_err(Refused::from_io)?;
    Ok(Channel::tls(tcp, connection, incoming, peer))
}

/// Whoever the verifier has let pass.
fn peer_of(connection: &Connection) -> Result<Principal, Refused> {
    let certificate = connection.peer_certificates().and_then(|chain| chain.first()).ok_or(Refused::NoIdentity)?;
    verify::principal(certificate)
}

/// Reads and writes until a deadline.
struct Timed<'a> {
    tcp: &'a TcpStream,
    deadline: Instant,
}

impl Timed<'_> {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tcp.set_read_timeout(self.left()?)?;
        self.tcp.read(buffer)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.set_write_timeout(self.left()?)?;
        self.tcp.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

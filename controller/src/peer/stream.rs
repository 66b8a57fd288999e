//! A connection over TCP or a Unix socket, whichever.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use slim_trust::{Channel, Expected, Security};
use socket2::{SockRef, TcpKeepalive};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// How long a connection may take to come about. The peers are one hop away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long it may take to know each other then.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a peer may take to accept what we write, and how long silence lasts until TCP asks whether it is alive.
const SILENCE: Duration = Duration::from_secs(5);

/// Where a peer listens for control connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A TCP address, written `address:port`.
    Tcp(SocketAddr),
    /// A Unix socket, written as its path, with at least one slash.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('/') {
            return Ok(Self::Unix(text.into()));
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            format!("{text:?} is neither an address and port, such as 10.3.0.11:7001, nor the path of a socket")
        })
    }
}

crate::net::serde_as_text!(Endpoint);

/// Whom to expect at a TCP endpoint, and how to speak there. A Unix socket's owner is the host's business.
#[derive(Debug, Clone)]
pub struct Trust {
    /// How we speak.
    pub security: Security,
    /// Who has to be there.
    pub expected: Expected,
    /// How long their identity may have expired.
    pub late: Duration,
}

/// An open connection.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(Channel),
    Unix(UnixStream),
}

impl Stream {
    pub(super) fn connect(endpoint: &Endpoint, trust: &Trust) -> io::Result<Self> {
        match endpoint {
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, CONNECT_TIMEOUT)?;
                stream.set_nodelay(true)?;
                let socket = SockRef::from(&stream);
                let keepalive =
                    TcpKeepalive::new().with_time(Duration::from_secs(1)).with_interval(Duration::from_secs(1));
                socket.set_tcp_keepalive(&keepalive.with_retries(5))?;
                socket.set_tcp_user_timeout(Some(SILENCE))?;
                let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
                let channel = slim_trust::connect(stream, &trust.security, &trust.expected, trust.late, deadline)?;
                // Peers speak first. Until then we do not know whether they refuse us.
                channel.wait_for_data(deadline)?;
                channel.set_timeouts(None, Some(SILENCE))?;
                Ok(Self::Tcp(channel))
            }
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_write_timeout(Some(SILENCE))?;
                Ok(Self::Unix(stream))
            }
        }
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(channel) => Self::Tcp(channel.clone()),
            Self::Unix(stream) => Self::Unix(stream.try_clone()?),
        })
    }

    /// Ends the connection; a thread that reads from it wakes up.
    pub(super) fn shutdown(&self) {
        // It may have ended by itself.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_told_apart_by_their_slash() {
        assert_eq!("10.3.0.11:7001".parse(), Ok(Endpoint::Tcp("10.3.0.11:7001".parse().unwrap())));
        assert_eq!("/run/slim/x".parse(), Ok(Endpoint::Unix("/run/slim/x".into())));
        assert_eq!("./x".parse(), Ok(Endpoint::Unix("./x".into())));
        for wrong in ["", "10.3.0.11", "host:7001", "x.sock"] {
            assert!(wrong.parse::<Endpoint>().is_err(), "{wrong:?}");
        }
    }
}

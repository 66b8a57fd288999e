//! The state port: lets other instances in and reads their handshakes, until the management thread says what becomes of
//! them.

use super::inbox::{Message, Sender};
use super::net;
use slim_core::protocol::stream::{HANDSHAKE_LEN_MAX, Handshake, HandshakeReply, Rejection, StreamError, encode_reply};
use slim_trust::{Admission, Channel, Door, DoorLimits, Expected, Principal, Refused, Role, Security};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Connections that may be in the middle of their handshake at a time.
const OPENING_MAX: usize = 8;

/// How long an answer may take to be written.
const PATIENCE: Duration = Duration::from_secs(5);

/// A stream whose handshake has been read and not yet answered.
pub struct Opening {
    /// What the peer said.
    pub handshake: Handshake,
    admission: Admission,
}

impl Opening {
    /// Where the peer is.
    pub fn address(&self) -> SocketAddr {
        self.admission.address
    }

    /// Who the peer is; `None` in plaintext, where nobody knows.
    pub fn peer(&self) -> Option<&Principal> {
        self.admission.channel.peer()
    }

    /// Sends the answer. An accepted stream is returned, ready to be read.
    pub fn answer(self, reply: HandshakeReply) -> io::Result<Option<Channel>> {
        let (mut channel, _) = self.admission.enter();
        channel.write_all(&encode_reply(reply))?;
        match reply {
            Ok(_) => {
                channel.set_timeouts(None, Some(PATIENCE))?;
                Ok(Some(channel))
            }
            Err(_) => Ok(None),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Malformed(#[from] StreamError),
    #[error("it sent more than a handshake without waiting for the answer")]
    Hasty,
}

impl From<Unusable> for Refused {
    fn from(reason: Unusable) -> Self {
        match reason {
            Unusable::Io(error) => Self::from_io(error),
            Unusable::Malformed(_) | Unusable::Hasty => Self::Protocol(reason.to_string()),
        }
    }
}

/// Accepts streams at `listener`, for as long as the instance runs.
///
/// # Errors
/// If no thread can be started.
pub fn serve<F: Send + 'static>(
    listener: TcpListener,
    security: Security,
    inbox: Sender<F>,
    buffer_bytes: usize,
) -> io::Result<Arc<Door>> {
    let limits = DoorLimits { handshakes: OPENING_MAX, ..DoorLimits::default() };
    let malformed = encode_reply(Err(Rejection::Malformed));
    let door = Door::new("state", security, Expected::any(Role::Instance), limits, malformed.to_vec());
    let own = Arc::clone(&door);
    door.serve(listener, move |admission| match read_handshake(&admission, buffer_bytes) {
        Ok(handshake) => {
            inbox.send(Message::Opening(Opening { handshake, admission }));
        }
        Err(reason) => {
            own.refuse(admission.address, &reason.into());
            // Whoever it is may not speak our protocol, or may be gone.
            let _ = (&admission.channel).write_all(&malformed);
        }
    })?;
    Ok(door)
}

fn read_handshake(admission: &Admission, buffer_bytes: usize) -> Result<Handshake, Unusable> {
    let mut channel = &admission.channel;
    net::tune(channel.tcp(), buffer_bytes)?;
    let mut bytes = Vec::with_capacity(HANDSHAKE_LEN_MAX);
    loop {
        let mut piece = [0; HANDSHAKE_LEN_MAX];
        let left = admission.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::from(io::ErrorKind::TimedOut).into());
        }
        channel.set_timeouts(Some(left), Some(PATIENCE))?;
        let len = match channel.read(&mut piece) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        bytes.extend_from_slice(&piece[..len]);
        // Complete or refused at the latest when HANDSHAKE_LEN_MAX bytes are there, so `bytes` stays bounded.
        match Handshake::decode(&bytes)? {
            Some((handshake, len)) if len == bytes.len() => return Ok(handshake),
            Some(_) => return Err(Unusable::Hasty),
            None => {}
        }
    }
}

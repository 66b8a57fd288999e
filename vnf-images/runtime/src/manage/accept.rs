//! The state port: accepts streams and reads their handshakes, until the management thread says what becomes of them.

use super::inbox::{Message, Sender};
use super::net;
use slim_core::protocol::stream::{HANDSHAKE_LEN_MAX, Handshake, HandshakeReply, Rejection, StreamError, encode_reply};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Connections that may be in the middle of their handshake at a time.
const OPENING_MAX: usize = 8;

/// The longest a handshake may take.
const PATIENCE: Duration = Duration::from_secs(5);

const STACK_BYTES: usize = 128 << 10;

/// A stream whose handshake has been read and not yet answered.
pub struct Opening {
    /// What the peer said.
    pub handshake: Handshake,
    /// Who it is.
    pub peer: SocketAddr,
    stream: TcpStream,
}

impl Opening {
    /// Sends the answer. An accepted stream is returned, ready to be read.
    pub fn answer(mut self, reply: HandshakeReply) -> io::Result<Option<TcpStream>> {
        self.stream.write_all(&encode_reply(reply))?;
        match reply {
            Ok(_) => {
                self.stream.set_read_timeout(None)?;
                Ok(Some(self.stream))
            }
            Err(_) => Ok(None),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Malformed(#[from] StreamError),
    #[error("it sent more than a handshake without waiting for the answer")]
    Hasty,
    #[error("its handshake took longer than {PATIENCE:?}")]
    Slow,
}

/// Accepts streams at `listener`, for as long as the instance runs.
///
/// # Errors
/// If no thread can be started.
pub fn serve<F: Send + 'static>(listener: TcpListener, inbox: Sender<F>, buffer_bytes: usize) -> io::Result<()> {
    let opening = Arc::new(());
    let accept = move || {
        loop {
            let (stream, peer) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) => {
                    log::warn!("state port: accept failed: {error}");
                    thread::sleep(Duration::from_millis(100));
                    continue;
                }
            };
            let seat = Arc::clone(&opening);
            if Arc::strong_count(&opening) > OPENING_MAX + 1 {
                log::warn!("state port: {peer} refused, {OPENING_MAX} handshakes are under way already");
                continue;
            }
            let inbox = inbox.clone();
            let open = move || {
                let _seat = seat;
                match read_handshake(&stream, buffer_bytes) {
                    Ok(handshake) => {
                        inbox.send(Message::Opening(Opening { handshake, peer, stream }));
                    }
                    Err(reason) => {
                        log::warn!("state port: {peer} refused: {reason}");
                        // Whoever it is may not speak our protocol, or may be gone.
                        let _ = (&stream).write_all(&encode_reply(Err(Rejection::Malformed)));
                    }
                }
            };
            let thread = thread::Builder::new().name("handshake".into()).stack_size(STACK_BYTES);
            if let Err(error) = thread.spawn(open) {
                log::warn!("state port: {peer} refused: {error}");
            }
        }
    };
    thread::Builder::new().name("accept".into()).stack_size(STACK_BYTES).spawn(accept).map(drop)
}

fn read_handshake(mut stream: &TcpStream, buffer_bytes: usize) -> Result<Handshake, Refused> {
    net::tune(stream, buffer_bytes)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let deadline = Instant::now() + PATIENCE;
    let mut bytes = Vec::with_capacity(HANDSHAKE_LEN_MAX);
    loop {
        let mut piece = [0; HANDSHAKE_LEN_MAX];
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Refused::Slow);
        }
        stream.set_read_timeout(Some(left))?;
        let len = match stream.read(&mut piece) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Err(Refused::Slow);
            }
            Err(error) => return Err(error.into()),
        };
        bytes.extend_from_slice(&piece[..len]);
        // Complete or refused at the latest when HANDSHAKE_LEN_MAX bytes are there, so `bytes` stays bounded.
        match Handshake::decode(&bytes)? {
            Some((handshake, len)) if len == bytes.len() => return Ok(handshake),
            Some(_) => return Err(Refused::Hasty),
            None => {}
        }
    }
}

//! The control server: JSON lines over TCP, several clients at a time, each of them bounded.

use crate::net::{Conn, Host};
use slim_core::protocol::control::{
    InstanceEvent, InstanceReply, InstanceRequest, LineBuffer, Request, ServerMessage, decode_request, encode,
};
use std::collections::VecDeque;

/// Bytes that may wait for a client to read them.
const WAITING_MAX: usize = 256 << 10;

pub(super) type ServerLine = ServerMessage<InstanceReply, InstanceEvent>;

/// A connection to the control port.
pub(super) struct Client {
    pub(super) id: u64,
    pub(super) conn: Conn,
    lines: LineBuffer,
    out: VecDeque<u8>,
    gone: bool,
}

impl Client {
    pub(super) fn new(id: u64, conn: Conn) -> Self {
        Self { id, conn, lines: LineBuffer::new(), out: VecDeque::new(), gone: false }
    }

    /// Sends a line; a client that does not read loses its connection.
    pub(super) fn send(&mut self, message: &ServerLine) {
        match encode(message) {
            Ok(line) if self.out.len() + line.len() <= WAITING_MAX => self.out.extend(line.bytes()),
            Ok(_) | Err(_) => self.gone = true,
        }
    }

    /// Writes what has to be written and reads requests.
    pub(super) fn serve(&mut self, host: &mut Host) -> Vec<Request<InstanceRequest>> {
        self.flush(host);
        let mut requests = Vec::new();
        let bytes = host.receive(self.conn, 4096);
        self.lines.extend(&bytes);
        loop {
            match self.lines.next_line() {
                Ok(Some(line)) => match decode_request(line) {
                    Ok(request) => requests.push(request),
                    Err(_) => self.gone = true,
                },
                Ok(None) => break,
                Err(_) => {
                    self.gone = true;
                    break;
                }
            }
        }
        self.gone |= host.is_dead(self.conn) || host.is_finished(self.conn);
        requests
    }

    pub(super) fn flush(&mut self, host: &mut Host) {
        let (front, _) = self.out.as_slices();
        let sent = host.send(self.conn, front);
        self.out.drain(..sent);
        let (front, _) = self.out.as_slices();
        let sent = host.send(self.conn, front);
        self.out.drain(..sent);
    }

    /// Whether the client has left or been given up.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }
}

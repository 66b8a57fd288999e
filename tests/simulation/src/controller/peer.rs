//! Control connections that come back: requests with their replies, events, reconnection.

use super::{DriveCall, Surroundings};
use crate::instance::CONTROL_PORT;
use crate::net::{Conn, Host};
use crate::pipe::Pipe;
use slim_core::protocol::MigrationId;
use slim_core::protocol::control::{
    ControlError, InstanceEvent, InstanceReply, InstanceRequest, LineBuffer, Request, ServerMessage, SwitchEvent,
    SwitchReply, SwitchRequest, decode, encode,
};
use slim_core::time::{Duration, Instant};
use std::collections::{BTreeMap, VecDeque};

/// How long to wait between two attempts to connect.
const RETRY: Duration = Duration::from_millis(50);

/// Who waits for a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// A coordinator.
    Drive(MigrationId, DriveCall),
    /// Whoever looks for open migrations.
    Recovery,
    /// Whoever makes an instance ready for another migration.
    Recycling,
    /// Whoever gives a restarted switch everything again.
    Restore,
    /// Whoever sees to it that the paths lead to the destination of a completed migration.
    SettlePaths(usize),
    /// Nobody.
    Nobody,
}

/// What a connection has brought.
pub(super) struct Heard<R, E> {
    pub(super) connected: bool,
    pub(super) lost: Vec<Waiting>,
    pub(super) events: Vec<E>,
    pub(super) answers: Vec<(Waiting, Result<R, ControlError>)>,
}

impl<R, E> Default for Heard<R, E> {
    fn default() -> Self {
        Self { connected: false, lost: Vec::new(), events: Vec::new(), answers: Vec::new() }
    }
}

/// An instance.
pub(super) struct Peer {
    number: u8,
    conn: Option<Conn>,
    up: bool,
    retry_at: Instant,
    lines: LineBuffer,
    out: VecDeque<u8>,
    pending: BTreeMap<u64, Waiting>,
}

impl Peer {
    pub(super) fn new(node: usize) -> Self {
        Self {
            number: 11 + node as u8,
            conn: None,
            up: false,
            retry_at: Instant::ZERO,
            lines: LineBuffer::new(),
            out: VecDeque::new(),
            pending: BTreeMap::new(),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.up
    }

    pub(super) fn wake(&self) -> Option<Instant> {
        self.conn.is_none().then_some(self.retry_at)
    }

    /// Sends a request; gives it back if there is no connection.
    pub(super) fn ask(&mut self, id: u64, waiting: Waiting, request: InstanceRequest) -> Result<Vec<u8>, Waiting> {
        if !self.up {
            return Err(waiting);
        }
        let Ok(line) = encode(&Request::new(id, request)) else { return Err(waiting) };
        self.pending.insert(id, waiting);
        self.send_bytes(line.as_bytes());
        Ok(line.into_bytes())
    }

    pub(super) fn send_bytes(&mut self, bytes: &[u8]) {
        if self.up {
            self.out.extend(bytes);
        }
    }

    pub(super) fn flush(&mut self, host: &mut Host) {
        let Some(conn) = self.conn.filter(|_| self.up) else { return };
        let bytes = self.out.make_contiguous();
        let sent = host.send(conn, bytes);
        self.out.drain(..sent);
    }

    /// Connects, reads, and notices the end of the connection.
    pub(super) fn serve(&mut self, now: Instant, host: &mut Host) -> Heard<InstanceReply, InstanceEvent> {
        let mut heard = Heard::default();
        let Some(conn) = self.conn else {
            if now >= self.retry_at {
                self.conn = host.connect(Host::socket_address(self.number, CONTROL_PORT));
                self.retry_at = now + RETRY;
            }
            return heard;
        };
        if !self.up && host.is_established(conn) {
            self.up = true;
            heard.connected = true;
        }
        if self.up {
            let bytes = host.receive(conn, usize::MAX);
            self.lines.extend(&bytes);
            take_lines(&mut self.lines, &mut self.pending, &mut heard);
        }
        if host.is_dead(conn) || (self.up && host.is_finished(conn)) {
            host.close(conn);
            heard.lost.extend(std::mem::take(&mut self.pending).into_values());
            *self = Self { retry_at: now + RETRY, ..Self::new(usize::from(self.number - 11)) };
        }
        heard
    }
}

/// Malformed lines have no meaning: there is nobody here who would send any.
fn take_lines<R: serde::de::DeserializeOwned, E: serde::de::DeserializeOwned>(
    lines: &mut LineBuffer,
    pending: &mut BTreeMap<u64, Waiting>,
    heard: &mut Heard<R, E>,
) {
    while let Ok(Some(line)) = lines.next_line() {
        match decode::<ServerMessage<R, E>>(line) {
            Ok(ServerMessage::Reply(reply)) => {
                if let Some(waiting) = pending.remove(&reply.id) {
                    heard.answers.push((waiting, reply.result));
                }
            }
            Ok(ServerMessage::Event(event)) => heard.events.push(event),
            Err(_) => {}
        }
    }
}

/// The switch.
#[derive(Default)]
pub(super) struct SwitchPeer {
    /// The connection, by the pipe's count.
    epoch: Option<u64>,
    retry_at: Instant,
    lines: LineBuffer,
    pending: BTreeMap<u64, Waiting>,
}

impl SwitchPeer {
    pub(super) fn is_up(&self) -> bool {
        self.epoch.is_some()
    }

    pub(super) fn wake(&self, pipe: &Pipe) -> Option<Instant> {
        let reconnect = self.epoch.is_none().then(|| self.retry_at.max(pipe.up_at()));
        reconnect.into_iter().chain(pipe.arrivals().1).min()
    }

    pub(super) fn ask(
        &mut self,
        surroundings: &mut Surroundings<'_>,
        id: u64,
        waiting: Waiting,
        request: SwitchRequest,
    ) -> Result<Vec<u8>, Waiting> {
        if self.epoch != Some(surroundings.pipe.epoch) {
            return Err(waiting);
        }
        let Ok(line) = encode(&Request::new(id, request)) else { return Err(waiting) };
        self.pending.insert(id, waiting);
        self.send_bytes(surroundings, line.as_bytes());
        Ok(line.into_bytes())
    }

    pub(super) fn send_bytes(&mut self, surroundings: &mut Surroundings<'_>, bytes: &[u8]) {
        if self.epoch == Some(surroundings.pipe.epoch) {
            surroundings.pipe.send_to_switch(surroundings.now, surroundings.random, bytes);
        }
    }

    pub(super) fn serve(&mut self, surroundings: &mut Surroundings<'_>) -> Heard<SwitchReply, SwitchEvent> {
        let mut heard = Heard::default();
        let now = surroundings.now;
        if self.epoch.is_some_and(|epoch| epoch != surroundings.pipe.epoch) {
            heard.lost.extend(std::mem::take(&mut self.pending).into_values());
            *self = Self { retry_at: now + RETRY, ..Self::default() };
        }
        if self.epoch.is_none() && now >= self.retry_at && surroundings.pipe.is_up(now) {
            self.epoch = Some(surroundings.pipe.epoch);
            heard.connected = true;
        }
        if self.epoch.is_some() {
            while let Some(bytes) = surroundings.pipe.receive_at_controller(now) {
                self.lines.extend(&bytes);
            }
            take_lines(&mut self.lines, &mut self.pending, &mut heard);
        }
        heard
    }
}

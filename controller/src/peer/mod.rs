//! The controller's side of a control connection: requests with their replies, events, and reconnection.
//!
//! A [`Peer`] keeps one connection to an instance or the switch alive until it is dropped. Requests are answered
//! through a callback, so that a state machine can have several under way; [`Peer::call`] waits for the answer. A
//! request whose connection breaks is answered by [`CallError::Lost`]: whether it was carried out is unknown, and since
//! requests may be repeated, asking again is always right. Events may be lost with a connection too, so a subscriber is
//! told of every [`Up`](PeerEvent::Up) and asks for the peer's status then.

mod stream;

pub use stream::{Endpoint, Trust};

use serde::Serialize;
use serde::de::DeserializeOwned;
use slim_core::protocol::control::{self, ControlError, LineBuffer, Reply, Request, ServerMessage};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use stream::Stream;

/// How long to wait between two attempts to connect,
const RETRY: Duration = Duration::from_millis(50);

/// and when the peer was refused, or refuses us: that seldom changes.
const RETRY_REFUSED: Duration = Duration::from_secs(1);

/// The message types spoken with one kind of peer.
pub trait Dialect: 'static {
    /// What it can be asked for.
    type Request: Serialize + Send;
    /// What it answers.
    type Reply: DeserializeOwned + Clone + Serialize + Send;
    /// What it tells without being asked.
    type Event: DeserializeOwned + Clone + Serialize + Send;
}

/// Instances speak this.
#[derive(Debug)]
pub enum InstanceDialect {}

impl Dialect for InstanceDialect {
    type Request = control::InstanceRequest;
    type Reply = control::InstanceReply;
    type Event = control::InstanceEvent;
}

/// The switch speaks this.
#[derive(Debug)]
pub enum SwitchDialect {}

impl Dialect for SwitchDialect {
    type Request = control::SwitchRequest;
    type Reply = control::SwitchReply;
    type Event = control::SwitchEvent;
}

/// Why a request has no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The peer refused it.
    #[error(transparent)]
    Refused(#[from] ControlError),
    /// There is no connection.
    #[error("{endpoint} cannot be reached{detail}")]
    Unreachable {
        /// Where the peer was looked for.
        endpoint: String,
        /// The last attempt's error, if any.
        detail: String,
    },
    /// The connection broke while the reply was awaited; the request may have been carried out.
    #[error("the connection to {endpoint} broke before the reply came")]
    Lost {
        /// Where the peer was.
        endpoint: String,
    },
    /// The reply did not come in time; the request may have been carried out.
    #[error("{endpoint} did not reply within {limit_ms} ms")]
    TimeOut {
        /// Where the peer is.
        endpoint: String,
        /// How long was waited.
        limit_ms: u64,
    },
    /// The reply is not one to this request.
    #[error("{endpoint} gave an unexpected reply")]
    Unexpected {
        /// Where the peer is.
        endpoint: String,
    },
}

/// What a subscriber is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerEvent<E> {
    /// There is a connection, the first or a new one.
    Up,
    /// The connection has ended; another is being tried for.
    Down,
    /// The peer's event.
    Event(E),
}

type Answer<D> = Result<<D as Dialect>::Reply, CallError>;
type OnAnswer<D> = Box<dyn FnOnce(Answer<D>) + Send>;
type Subscriber<D> = Box<dyn FnMut(PeerEvent<<D as Dialect>::Event>) -> bool + Send>;

struct State<D: Dialect> {
    /// The present connection.
    stream: Option<Stream>,
    next_id: u64,
    pending: HashMap<u64, OnAnswer<D>>,
    subscribers: Vec<Subscriber<D>>,
    last_error: String,
    /// Whether the last attempt failed for who the peer is or we are: waiting will hardly help.
    refused: bool,
    closed: bool,
}

struct Shared<D: Dialect> {
    endpoint: Endpoint,
    trust: Trust,
    state: Mutex<State<D>>,
    changed: Condvar,
}

/// A control connection that comes back.
pub struct Peer<D: Dialect>(Arc<Shared<D>>);

/// An instance.
pub type InstancePeer = Peer<InstanceDialect>;
/// The switch.
pub type SwitchPeer = Peer<SwitchDialect>;

impl<D: Dialect> Peer<D> {
    /// Starts to connect to `endpoint`, again and again until it works, and after every break. At a TCP endpoint `trust`
    /// decides who may be there.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn new(endpoint: Endpoint, trust: Trust) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            endpoint,
            trust,
            state: Mutex::new(State {
                stream: None,
                next_id: 1,
                pending: HashMap::new(),
                subscribers: Vec::new(),
                last_error: String::new(),
                refused: false,
                closed: false,
            }),
            changed: Condvar::new(),
        });
        let of_thread = Arc::clone(&shared);
        std::thread::Builder::new().name("control".into()).spawn(move || of_thread.run())?;
        Ok(Self(shared))
    }

    /// Where the peer is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// Whether there is a connection.
    pub fn is_up(&self) -> bool {
        self.0.lock().stream.is_some()
    }

    /// Waits until there is a connection, `limit` has passed, or the peer has been refused; says whether there is one.
    pub fn wait_up(&self, limit: Duration) -> bool {
        let waiting = |state: &mut State<D>| state.stream.is_none() && !state.refused && !state.closed;
        let state = self.0.changed.wait_timeout_while(self.0.lock(), limit, waiting);
        state.unwrap_or_else(PoisonError::into_inner).0.stream.is_some()
    }

    /// Calls `subscriber` for each event from now on, first with the connection's present state if there is one.
    ///
    /// It runs on the connection's thread: let it pass the event on. It is forgotten once it returns `false`.
    pub fn subscribe(&self, mut subscriber: impl FnMut(PeerEvent<D::Event>) -> bool + Send + 'static) {
        let mut state = self.0.lock();
        if state.stream.is_none() || subscriber(PeerEvent::Up) {
            state.subscribers.push(Box::new(subscriber));
        }
    }

    /// Sends `request`; `on_answer` is called exactly once, at once if there is no connection.
    ///
    /// It runs on the connection's thread, or on this one: let it pass the answer on.
    pub fn send(&self, request: D::Request, on_answer: impl FnOnce(Answer<D>) + Send + 'static) {
        let mut state = self.0.lock();
        let id = state.next_id;
        state.next_id += 1;
        let Some(stream) = state.stream.as_mut() else {
            let error = self.0.unreachable(&state);
            drop(state);
            return on_answer(Err(error));
        };
        let sent = match control::encode(&Request::new(id, request)) {
            Ok(line) => stream.write_all(line.as_bytes()).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match sent {
            Ok(()) => {
                state.pending.insert(id, Box::new(on_answer));
            }
            Err(error) => {
                // The reader's thread notices the end and tidies up.
                stream.shutdown();
                state.last_error = error;
                let error = self.0.unreachable(&state);
                drop(state);
                on_answer(Err(error));
            }
        }
    }

    /// Sends `request` and waits for the reply, and for a connection first, for `limit` at most in all.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn call(&self, request: D::Request, limit: Duration) -> Answer<D> {
        let deadline = Instant::now() + limit;
        if !self.wait_up(limit) {
            return Err(self.0.unreachable(&self.0.lock()));
        }
        let (reply, answer): (_, Receiver<Answer<D>>) = channel();
        self.send(request, move |answer| {
            // Nobody waits any more if the time was over.
            let _ = reply.send(answer);
        });
        answer.recv_timeout(deadline.saturating_duration_since(Instant::now())).unwrap_or_else(|_| {
            let limit_ms = limit.as_millis().try_into().unwrap_or(u64::MAX);
            Err(CallError::TimeOut { endpoint: self.0.endpoint.to_string(), limit_ms })
        })
    }

    /// For a reply that does not fit its request.
    pub fn unexpected(&self) -> CallError {
        CallError::Unexpected { endpoint: self.0.endpoint.to_string() }
    }
}

impl<D: Dialect> Drop for Peer<D> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        if let Some(stream) = &state.stream {
            stream.shutdown();
        }
        drop(state);
        self.0.changed.notify_all();
    }
}

impl<D: Dialect> Shared<D> {
    fn lock(&self) -> MutexGuard<'_, State<D>> {
        // A panic in a callback leaves nothing half done in the state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unreachable(&self, state: &State<D>) -> CallError {
        let detail = if state.last_error.is_empty() { String::new() } else { format!(": {}", state.last_error) };
        CallError::Unreachable { endpoint: self.endpoint.to_string(), detail }
    }

    fn run(&self) {
        loop {
            if self.lock().closed {
                return;
            }
            let connected = Stream::connect(&self.endpoint, &self.trust);
            let mut pause = RETRY;
            match connected.and_then(|reader| Ok((reader.try_clone()?, reader))) {
                Ok((writer, reader)) => self.serve(writer, reader),
                Err(error) => {
                    let mut state = self.lock();
                    let words = error.to_string();
                    state.refused = error.kind() == std::io::ErrorKind::InvalidData;
                    if state.refused {
                        pause = RETRY_REFUSED;
                        if state.last_error != words {
                            log::warn!("{}: refused: {words}", self.endpoint);
                        }
                    }
                    state.last_error = words;
                    drop(state);
                    self.changed.notify_all();
                }
            }
            let state = self.lock();
            let waiting = |state: &mut State<D>| !state.closed;
            drop(self.changed.wait_timeout_while(state, pause, waiting));
        }
    }

    /// Announces a new connection, reads from it to its end, and fails what was under way.
    fn serve(&self, writer: Stream, mut reader: Stream) {
        {
            let mut state = self.lock();
            if state.closed {
                return;
            }
            state.stream = Some(writer);
            state.refused = false;
            state.last_error.clear();
            state.tell(&PeerEvent::Up);
        }
        self.changed.notify_all();
        log::debug!("{}: connected", self.endpoint);

        let mut lines = LineBuffer::new();
        let mut bytes = [0; 16 << 10];
        let end = loop {
            let count = match reader.read(&mut bytes) {
                Ok(0) => break "closed by the peer".to_owned(),
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => break error.to_string(),
            };
            lines.extend(&bytes[..count]);
            if let Err(error) = self.take_lines(&mut lines) {
                break error.to_string();
            }
        };
        log::debug!("{}: connection ended: {end}", self.endpoint);

        let mut state = self.lock();
        state.stream = None;
        state.last_error = end;
        state.tell(&PeerEvent::Down);
        let pending = std::mem::take(&mut state.pending);
        drop(state);
        for on_answer in pending.into_values() {
            on_answer(Err(CallError::Lost { endpoint: self.endpoint.to_string() }));
        }
    }

    fn take_lines(&self, lines: &mut LineBuffer) -> Result<(), control::LineTooLong> {
        while let Some(line) = lines.next_line()? {
            match control::decode::<ServerMessage<D::Reply, D::Event>>(line) {
                Ok(ServerMessage::Reply(Reply { id, result })) => {
                    let on_answer = self.lock().pending.remove(&id);
                    match on_answer {
                        Some(on_answer) => on_answer(result.map_err(CallError::Refused)),
                        None => log::warn!("{}: reply to request {id}, which is not open", self.endpoint),
                    }
                }
                Ok(ServerMessage::Event(event)) => self.lock().tell(&PeerEvent::Event(event)),
                Err(error) => self.malformed(&error),
            }
        }
        Ok(())
    }

    /// A line that cannot be read still answers its request, if it names one: nobody must wait for nothing.
    fn malformed(&self, error: &control::DecodeError) {
        log::warn!("{}: {error}", self.endpoint);
        if let Some(on_answer) = error.id().and_then(|id| self.lock().pending.remove(&id)) {
            on_answer(Err(CallError::Refused(error.to_control_error())));
        }
    }
}

impl<D: Dialect> State<D> {
    fn tell(&mut self, event: &PeerEvent<D::Event>) {
        self.subscribers.retain_mut(|subscriber| subscriber(event.clone()));
    }
}

#[cfg(test)]
mod tests;

//! The envelope around every message: version, correlation id, and exactly one of request, reply and event.

use super::ControlError;
use serde::{Deserialize, Serialize};

/// The version of the control protocol spoken here.
pub const VERSION: u16 = 1;

/// A request `T`, to be answered by a [`Reply`] with the same id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request<T> {
    /// [`VERSION`].
    pub v: u16,
    /// Chosen by the requester, echoed in the reply.
    pub id: u64,
    /// What is asked for.
    pub request: T,
}

impl<T> Request<T> {
    /// A request of this version.
    pub fn new(id: u64, request: T) -> Self {
        Self { v: VERSION, id, request }
    }
}

/// The answer to the request of the same id: `R`, or why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Wire<R, ()>", bound(serialize = "R: Clone + Serialize", deserialize = "R: Deserialize<'de>"))]
#[serde(try_from = "Wire<R, ()>")]
pub struct Reply<R> {
    /// The id of the request.
    pub id: u64,
    /// What it came to.
    pub result: Result<R, ControlError>,
}

impl<R> Reply<R> {
    /// The answer to request `id`.
    pub fn new(id: u64, result: Result<R, ControlError>) -> Self {
        Self { id, result }
    }
}

/// Something that happened, told without being asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event<E> {
    /// [`VERSION`].
    pub v: u16,
    /// What happened.
    pub event: E,
}

impl<E> Event<E> {
    /// An event of this version.
    pub fn new(event: E) -> Self {
        Self { v: VERSION, event }
    }
}

/// Any line an instance or the switch sends: a reply `R` or an event `E`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    into = "Wire<R, E>",
    bound(
        serialize = "R: Clone + Serialize, E: Clone + Serialize",
        deserialize = "R: Deserialize<'de>, E: Deserialize<'de>"
    )
)]
#[serde(try_from = "Wire<R, E>")]
pub enum ServerMessage<R, E> {
    /// The answer to a request.
    Reply(Reply<R>),
    /// An event.
    Event(E),
}

/// The union of reply and event as it is written: the fields decide which it is.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<R, E> {
    v: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ok: Option<R>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ControlError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<E>,
}

impl<R, E> From<Reply<R>> for Wire<R, E> {
    fn from(reply: Reply<R>) -> Self {
        let (ok, error) = match reply.result {
            Ok(ok) => (Some(ok), None),
            Err(error) => (None, Some(error)),
        };
        Self { v: VERSION, id: Some(reply.id), ok, error, event: None }
    }
}

impl<R, E> From<ServerMessage<R, E>> for Wire<R, E> {
    fn from(message: ServerMessage<R, E>) -> Self {
        match message {
            ServerMessage::Reply(reply) => reply.into(),
            ServerMessage::Event(event) => Self { v: VERSION, id: None, ok: None, error: None, event: Some(event) },
        }
    }
}

impl<R, E> TryFrom<Wire<R, E>> for ServerMessage<R, E> {
    type Error = &'static str;

    fn try_from(wire: Wire<R, E>) -> Result<Self, &'static str> {
        match (wire.id, wire.ok, wire.error, wire.event) {
            (Some(id), Some(ok), None, None) => Ok(Self::Reply(Reply { id, result: Ok(ok) })),
            (Some(id), None, Some(error), None) => Ok(Self::Reply(Reply { id, result: Err(error) })),
            (None, None, None, Some(event)) => Ok(Self::Event(event)),
            _ => Err("expected id with ok or error, or event alone"),
        }
    }
}

impl<R> TryFrom<Wire<R, ()>> for Reply<R> {
    type Error = &'static str;

    fn try_from(wire: Wire<R, ()>) -> Result<Self, &'static str> {
        match ServerMessage::try_from(wire)? {
            ServerMessage::Reply(reply) => Ok(reply),
            ServerMessage::Event(()) => Err("expected a reply, not an event"),
        }
    }
}

//! The one queue of the management thread: everything that happens to an instance arrives here.

use super::accept::Opening;
use super::control::FromClient;
use slim_core::nf::ShardId;
use slim_core::protocol::Digest;
use slim_core::vei::StreamEvent;
use slim_core::vei::lcore::{Report, Synchronised};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

/// Messages that may wait. Threads that find the inbox full wait, except for lcores.
const MESSAGES_MAX: usize = 1024;

/// One use of a shard's streams, counted since the start, so that news from an earlier migration can be told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionId(pub u64);

/// Something that happened.
pub enum Message<F> {
    /// At a control connection.
    Client(FromClient),
    /// At an lcore.
    Lcore(ShardId, Report<F>),
    /// At a shard's streams.
    Stream(ShardId, SessionId, News<F>),
    /// A digest has been computed.
    Digest(ShardId, SessionId, Digest),
    /// The snapshot of a shard would take so many bytes, as of the sample of this number.
    SnapshotSize(ShardId, u64, u64),
    /// A peer has opened a stream and waits for the answer to its handshake.
    Opening(Opening),
    /// The instance is to end.
    End(End),
}

/// Why an instance ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Somebody wants it to.
    Requested(&'static str),
    /// It cannot go on.
    Failed(&'static str),
}

/// What the threads of a shard's streams tell.
pub enum News<F> {
    /// An event for the state machines.
    Event(StreamEvent),
    /// Everything is installed: the network function is ready to be given to an lcore.
    Synchronised(Synchronised<F>),
}

/// The way into the inbox.
pub struct Sender<F>(SyncSender<Message<F>>);

impl<F> Clone for Sender<F> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<F> Sender<F> {
    /// Waits for room. Returns false if nobody will read it any more.
    pub fn send(&self, message: Message<F>) -> bool {
        self.0.send(message).is_ok()
    }

    /// Does not wait: gives the message back if there is no room. What nobody will read is gone.
    #[allow(clippy::result_large_err)] // not an error: the message moves back to where it came from
    pub fn try_send(&self, message: Message<F>) -> Result<(), Message<F>> {
        match self.0.try_send(message) {
            Err(TrySendError::Full(message)) => Err(message),
            Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
        }
    }
}

/// The inbox and the way into it.
pub fn inbox<F>() -> (Sender<F>, Receiver<Message<F>>) {
    let (sender, receiver) = sync_channel(MESSAGES_MAX);
    (Sender(sender), receiver)
}

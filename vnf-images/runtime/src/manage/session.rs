//! The threads of one shard's streams during one migration, and how they are ended together.

use super::inbox::{Message, News, Sender, SessionId};
use slim_core::nf::ShardId;
use slim_core::protocol::MigrationId;
use slim_core::protocol::stream::StreamRole;
use slim_core::vei::StreamEvent;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

const STACK_BYTES: usize = 256 << 10;

/// Shared by the threads of one shard's streams and the management thread.
///
/// When the last of them lets go of it, the streams are closed: that is reported as [`StreamEvent::Closed`].
pub struct Session<F: Send + 'static> {
    shard: ShardId,
    id: SessionId,
    migration: MigrationId,
    inbox: Sender<F>,
    sockets: Mutex<Sockets>,
}

#[derive(Default)]
struct Sockets {
    cancelled: bool,
    open: Vec<TcpStream>,
}

impl<F: Send + 'static> Session<F> {
    /// A session without streams yet.
    pub fn new(shard: ShardId, id: SessionId, migration: MigrationId, inbox: Sender<F>) -> Arc<Self> {
        Arc::new(Self { shard, id, migration, inbox, sockets: Mutex::default() })
    }

    /// The migration.
    pub fn migration(&self) -> MigrationId {
        self.migration
    }

    /// Tells the management thread of an event.
    pub fn event(&self, event: StreamEvent) {
        self.tell(News::Event(event));
    }

    /// Tells the management thread that a stream is lost, unless that was its own doing.
    pub fn lost(&self, role: StreamRole, reason: impl std::fmt::Display) {
        if !self.is_cancelled() {
            self.event(StreamEvent::Lost(role, reason.to_string().into()));
        }
    }

    /// Tells the management thread.
    pub fn tell(&self, news: News<F>) {
        self.inbox.send(Message::Stream(self.shard, self.id, news));
    }

    /// Has `stream` shut down when the session is cancelled.
    ///
    /// # Errors
    /// If the session is cancelled already, or the system refuses.
    pub fn register(&self, stream: &TcpStream) -> io::Result<()> {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        if sockets.cancelled {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        sockets.open.push(stream.try_clone()?);
        Ok(())
    }

    /// Ends whatever the session's threads wait for on their streams.
    pub fn cancel(&self) {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.cancelled = true;
        for stream in sockets.open.drain(..) {
            // An error means that the peer was quicker.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Whether the session has been cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).cancelled
    }

    /// Runs `body` on a thread of the session, less or more `nice` than others.
    pub fn spawn(
        self: &Arc<Self>,
        name: &str,
        nice: i32,
        body: impl FnOnce(&Arc<Self>) + Send + 'static,
    ) -> io::Result<()> {
        let session = Arc::clone(self);
        let run = move || {
            crate::sys::set_nice(nice);
            body(&session);
        };
        thread::Builder::new().name(name.into()).stack_size(STACK_BYTES).spawn(run).map(drop)
    }
}

impl<F: Send + 'static> Drop for Session<F> {
    fn drop(&mut self) {
        let message = Message::Stream(self.shard, self.id, News::Event(StreamEvent::Closed));
        // The last to let go may be the management thread, which must not wait for itself to empty its inbox.
        if let Err(message) = self.inbox.try_send(message) {
            let inbox = self.inbox.clone();
            let send = move || {
                inbox.send(message);
            };
            if let Err(error) = thread::Builder::new().name("closed".into()).spawn(send) {
                log::error!("shard {}: its streams are closed, but that cannot be told: {error}", self.shard.0);
            }
        }
    }
}

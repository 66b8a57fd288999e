//! The source's streams: a thread each for statelets (T1, §IV-B step 2.1) and the snapshot (step 2.2).

use super::inbox::{Sender, SessionId};
use super::session::Session;
use super::{net, snapshot_out, statelets_out};
use crate::config::Limits;
use slim_core::nf::{NetworkFunction, ShardId};
use slim_core::protocol::control::StartOptions;
use slim_core::protocol::stream::{Handshake, REPLY_LEN, StreamRole, decode_reply};
use slim_core::protocol::{MigrationId, Name, Scheduling};
use slim_core::statelet::{End, PumpOptions};
use slim_core::vei::StreamEvent;
use slim_core::vei::lcore::Frozen;
use slim_trust::{Channel, Expected, Refused, Role, Security};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long a destination may take to show who it is.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(5);

/// How often a stream is tried to be opened whose connection breaks before anything is decided: a destination in a crowd
/// of strangers may have had no seat for it.
const TRIES: u32 = 5;

/// The pause between two tries.
const TRY_PAUSE: Duration = Duration::from_millis(200);

/// What the statelet thread is told, in this order.
pub enum StateletTask {
    /// Send whatever comes out of `st_q_out`.
    Pump(rtrb::Consumer<u8>),
    /// The lcore has stopped: send what is left.
    Flush,
    /// Commit: send this, and wait for the acknowledgement.
    End(End),
}

/// The frozen state to be sent, and how.
pub struct SnapshotTask {
    /// The state.
    pub frozen: Frozen,
    /// Bytes of filler to be added.
    pub filler_bytes: u64,
    /// What goes before the stream.
    pub scheduling: Scheduling,
    /// The stream's pace, if it is to have one.
    pub rate_bytes_per_s: Option<u64>,
}

/// The source's streams of one shard.
pub struct Outgoing<F: Send + 'static> {
    session: Arc<Session<F>>,
    statelets: Option<mpsc::Sender<StateletTask>>,
    snapshot: Option<mpsc::Sender<SnapshotTask>>,
}

/// How streams are opened and filled.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// Where the destination listens.
    pub destination: SocketAddr,
    /// The destination's name, if it was told.
    pub destination_name: Option<Name>,
    /// How we speak to others.
    pub security: Security,
    /// Send buffer of each stream.
    pub buffer_bytes: usize,
    /// How statelets become a stream.
    pub pump: PumpOptions,
    /// The longest they wait for that.
    pub delay: Duration,
}

impl StreamOptions {
    /// The options of a migration within the limits of the instance.
    pub fn new<N: NetworkFunction>(
        destination: SocketAddr,
        security: &Security,
        limits: &Limits,
        options: &StartOptions,
    ) -> Self {
        Self {
            destination,
            destination_name: options.destination.clone(),
            security: security.clone(),
            buffer_bytes: limits.stream_buffer_bytes,
            pump: PumpOptions::new::<N>(limits.statelet_segment_bytes, options.coalesce, options.compress),
            delay: Duration::from_micros(options.statelet_delay_us.min(1_000_000).into()),
        }
    }
}

impl<F: Send + 'static> Outgoing<F> {
    /// No stream is open yet.
    pub fn new(shard: ShardId, id: SessionId, migration: MigrationId, inbox: Sender<F>) -> Self {
        Self { session: Session::new(shard, id, migration, inbox), statelets: None, snapshot: None }
    }

    /// Opens one of the streams: connects, sends `handshake` and reports the answer.
    pub fn connect(&mut self, handshake: &Handshake, options: &StreamOptions) {
        let (role, hello, options) = (handshake.role, handshake.encode(), options.clone());
        let started = match role {
            StreamRole::Statelets => {
                let (sender, tasks) = mpsc::channel();
                self.statelets = Some(sender);
                self.session.spawn("statelets-out", 0, move |session| {
                    if let Some(stream) = open(session, role, &hello, &options) {
                        statelets_out::run(session, stream, &tasks, &options);
                    }
                })
            }
            StreamRole::Snapshot => {
                let (sender, tasks) = mpsc::channel();
                self.snapshot = Some(sender);
                self.session.spawn("snapshot-out", crate::NICE_BULK, move |session| {
                    if let Some(stream) = open(session, role, &hello, &options) {
                        snapshot_out::run(session, stream, &tasks);
                    }
                })
            }
        };
        if let Err(error) = started {
            self.session.lost(role, error);
        }
    }

    /// Gives the statelet thread its next task. If it has ended, it has reported why.
    pub fn statelets(&self, task: StateletTask) {
        if let Some(tasks) = &self.statelets {
            let _ = tasks.send(task);
        }
    }

    /// Gives the snapshot thread the state to send. If it has ended, it has reported why.
    pub fn snapshot(&self, task: SnapshotTask) {
        if let Some(tasks) = &self.snapshot {
            let _ = tasks.send(task);
        }
    }

    /// Closes the streams. `Closed` is reported when the threads have ended.
    pub fn close(self) {
        self.session.cancel();
    }
}

/// Connects and shakes hands; reports the outcome.
fn open<F: Send + 'static>(
    session: &Session<F>,
    role: StreamRole,
    hello: &[u8],
    options: &StreamOptions,
) -> Option<Channel> {
    let handshake = || {
        let mut stream = connect(session, options)?;
        stream.write_all(hello)?;
        let mut reply = [0; REPLY_LEN];
        stream.read_exact(&mut reply)?;
        let reply = decode_reply(&reply).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok::<_, io::Error>((stream, reply))
    };
    match handshake() {
        Ok((stream, Ok(_version))) => {
            session.event(StreamEvent::Accepted(role));
            Some(stream)
        }
        Ok((_, Err(reason))) => {
            session.event(StreamEvent::Refused(role, reason));
            None
        }
        Err(error) => {
            session.lost(role, format_args!("{}: {error}", options.destination));
            None
        }
    }
}

/// Connects to the destination and makes sure that it is the one that was named.
fn connect<F: Send + 'static>(session: &Session<F>, options: &StreamOptions) -> io::Result<Channel> {
    let expected = match (&options.security, &options.destination_name) {
        (_, Some(name)) => Expected::one(Role::Instance, name.clone()),
        (Security::Plaintext, None) => Expected::any(Role::Instance),
        (Security::Tls(_), None) => return Err(io::Error::other("the controller did not say who the destination is")),
    };
    for tried in 1.. {
        let tcp = net::connect(options.destination, options.buffer_bytes, || session.is_cancelled())?;
        session.register(&tcp)?;
        let deadline = Instant::now() + HANDSHAKE_PATIENCE;
        match slim_trust::connect(tcp, &options.security, &expected, Duration::ZERO, deadline) {
            Err(refused) if refused.is_undecided() && tried < TRIES && !session.is_cancelled() => {
                std::thread::sleep(TRY_PAUSE);
            }
            result => return result.map_err(io::Error::from),
        }
    }
    Err(Refused::Slow.into())
}

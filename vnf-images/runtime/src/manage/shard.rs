//! One shard, seen from the management thread: its lcore, and its streams while a migration lasts.

use super::inbox::{Sender, SessionId};
use super::incoming::Incoming;
use super::net;
use super::outgoing::{Outgoing, SnapshotTask, StateletTask, StreamOptions};
use crate::config::Limits;
use crate::dataplane::{LcoreHandle, Unresponsive};
use slim_core::nf::{ConfigError, NetworkFunction, Shard};
use slim_core::protocol::control::{PrepareOptions, QueueStatus, StartOptions};
use slim_core::protocol::stream::{Handshake, StreamRole};
use slim_core::vei::lcore::{Announcing, Command, Frozen, Synchronised};
use slim_core::vei::{Installer, LcoreCommand, StreamCommand};
use slim_trust::Channel;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// Why a command of the state machine could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum CarryOutError {
    /// The lcore does not take commands.
    #[error(transparent)]
    Unresponsive(#[from] Unresponsive),
    /// A network function could not be made, although its configuration was checked at the start.
    #[error("cannot make a network function: {0}")]
    Config(#[from] ConfigError),
    /// The system does not let a stream be told from others.
    #[error("cannot mark a stream: {0}")]
    Mark(#[from] std::io::Error),
    /// The state machine asked for something in an order that it never should.
    #[error("{0}: not possible now")]
    Order(&'static str),
}

/// One shard.
pub struct ManagedShard<F: NetworkFunction> {
    shard: Shard,
    lcore: LcoreHandle<F>,
    streams: Streams<F>,
    /// The last session begun.
    session: SessionId,
    /// Where the lcore's statelets come out, between the freeze and the first task of the statelet thread.
    st_q_out: Option<rtrb::Consumer<u8>>,
    /// The frozen state, between the freeze and the snapshot thread.
    frozen: Option<Frozen>,
    /// The network function, between its synchronisation and the lcore.
    synchronised: Option<Synchronised<F>>,
    /// How full `st_q_in` was when its streams were closed.
    st_q_in: QueueStatus,
}

enum Streams<F: Send + 'static> {
    None,
    Outgoing(Outgoing<F>),
    Incoming(Incoming<F>),
}

/// What making streams and network functions takes.
pub struct Means<'a, F: NetworkFunction> {
    /// The network function's configuration.
    pub config: &'a F::Config,
    /// Bounds of queues and buffers.
    pub limits: &'a Limits,
    /// The way into the inbox.
    pub inbox: &'a Sender<F>,
}

/// What a stream command of the source depends on.
pub struct SourceMeans {
    /// What to say first.
    pub handshakes: [Handshake; 2],
    /// How to open the streams.
    pub streams: StreamOptions,
    /// What the controller asked for.
    pub options: StartOptions,
}

impl<F: NetworkFunction> ManagedShard<F> {
    /// The shard of `lcore`.
    pub fn new(shard: Shard, lcore: LcoreHandle<F>) -> Self {
        Self {
            shard,
            lcore,
            streams: Streams::None,
            session: SessionId(0),
            st_q_out: None,
            frozen: None,
            synchronised: None,
            st_q_in: QueueStatus::default(),
        }
    }

    /// The last session begun: news of an earlier one is no longer of interest.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Gives the lcore a command that no state machine decides about.
    pub fn command(&mut self, command: Command<F>) -> Result<(), Unresponsive> {
        self.lcore.command(command)
    }

    /// Carries out a command of the state machine to the lcore.
    pub fn lcore(&mut self, command: LcoreCommand, means: &Means<'_, F>) -> Result<(), CarryOutError> {
        let command = match command {
            LcoreCommand::Activate => Command::Activate(self.fresh(means.config, self.random())?),
            LcoreCommand::Freeze(mode, pace) => {
                let (producer, consumer) = rtrb::RingBuffer::new(means.limits.st_q_out_bytes);
                self.st_q_out = Some(consumer);
                Command::Freeze(producer, Announcing::of(mode, self.random()), pace)
            }
            LcoreCommand::Stop => Command::Stop,
            LcoreCommand::Resume(pace) => Command::Resume(pace),
            LcoreCommand::Release(migration) => Command::Release(migration),
            LcoreCommand::ArmPktQ => Command::ArmPktQ,
            LcoreCommand::TakeOver(pace) => {
                let synchronised = self.synchronised.take().ok_or(CarryOutError::Order("take over"))?;
                Command::TakeOver(synchronised, pace)
            }
            LcoreCommand::HandBack(migration, pace) => Command::HandBack(migration, pace),
            LcoreCommand::Discard => Command::Discard,
            LcoreCommand::Reset => {
                // Threads of the migration before may still tell that they have ended.
                self.next_session();
                Command::Reset
            }
        };
        Ok(self.lcore.command(command)?)
    }

    /// Carries out a command of the state machine to the streams. Returns whether they are closed by it already.
    pub fn stream(
        &mut self,
        command: StreamCommand,
        source: Option<SourceMeans>,
        means: &Means<'_, F>,
    ) -> Result<bool, CarryOutError> {
        match (command, &mut self.streams, source) {
            (StreamCommand::Connect(role), Streams::None | Streams::Outgoing(_), Some(source)) => {
                let [statelets, snapshot] = source.handshakes;
                let handshake = if role == StreamRole::Statelets { statelets } else { snapshot };
                if let Streams::None = self.streams {
                    let (session, inbox) = (self.next_session(), means.inbox.clone());
                    let streams = Outgoing::new(self.shard.id, session, handshake.migration, inbox);
                    self.streams = Streams::Outgoing(streams);
                }
                if let Streams::Outgoing(streams) = &mut self.streams {
                    streams.connect(&handshake, &source.streams);
                }
            }
            (StreamCommand::SendSnapshot, Streams::Outgoing(streams), Some(source)) => {
                streams.snapshot(SnapshotTask {
                    frozen: self.frozen.take().ok_or(CarryOutError::Order("send snapshot"))?,
                    filler_bytes: source.options.filler_bytes,
                    scheduling: source.options.scheduling,
                    rate_bytes_per_s: source.options.snapshot_rate_bytes_per_s,
                });
            }
            (StreamCommand::SendStatelets, Streams::Outgoing(streams), _) => {
                let st_q_out = self.st_q_out.take().ok_or(CarryOutError::Order("send statelets"))?;
                streams.statelets(StateletTask::Pump(st_q_out));
            }
            (StreamCommand::Flush, Streams::Outgoing(streams), _) => streams.statelets(StateletTask::Flush),
            (StreamCommand::SendEnd(end), Streams::Outgoing(streams), _) => streams.statelets(StateletTask::End(end)),
            (StreamCommand::ApplyStatelets, Streams::Incoming(streams), _) => streams.apply(),
            (StreamCommand::SendTakenOver, Streams::Incoming(_), _) => {
                if let Streams::Incoming(streams) = self.take_streams() {
                    streams.acknowledge();
                }
            }
            (StreamCommand::Close, _, _) => return Ok(self.close()),
            _ => return Err(CarryOutError::Order("stream command")),
        }
        Ok(false)
    }

    /// Reads a stream whose handshake was accepted.
    pub fn accept(
        &mut self,
        handshake: &Handshake,
        options: &PrepareOptions,
        stream: Channel,
        means: &Means<'_, F>,
    ) -> Result<(), CarryOutError> {
        let nf = match handshake.role {
            StreamRole::Statelets => None,
            StreamRole::Snapshot => {
                let seed = self.random();
                // Its acknowledgements wait like what they acknowledge.
                net::mark(stream.tcp(), options.scheduling.snapshot_dscp())?;
                Some((self.fresh(means.config, seed)?, Installer::new(options.mode, seed)))
            }
        };
        if let Streams::None = self.streams {
            let session = self.next_session();
            let inbox = means.inbox.clone();
            let streams = Incoming::new(self.shard.id, session, handshake.migration, inbox, means.limits.st_q_in_bytes);
            self.streams = Streams::Incoming(streams);
        }
        let Streams::Incoming(streams) = &mut self.streams else {
            return Err(CarryOutError::Order("accept a stream"));
        };
        match nf {
            None => streams.accept_statelets(stream, handshake.compressed),
            Some((nf, installer)) => streams.accept_snapshot(stream, nf, installer),
        }
        Ok(())
    }

    /// Keeps the frozen state until the snapshot is to be sent.
    pub fn frozen(&mut self, frozen: Frozen) {
        self.frozen = Some(frozen);
    }

    /// Keeps the network function until it is to be given to the lcore. One that was under way when the streams were
    /// closed is of no use any more.
    pub fn synchronised(&mut self, synchronised: Synchronised<F>) {
        if let Streams::Incoming(_) = self.streams {
            self.synchronised = Some(synchronised);
        }
    }

    /// How full `st_q_in` is and has been.
    pub fn st_q_in_status(&self) -> QueueStatus {
        match &self.streams {
            Streams::Incoming(streams) => streams.st_q_in_status(),
            Streams::None | Streams::Outgoing(_) => self.st_q_in,
        }
    }

    /// Closes the streams and lets go of everything held for them. Returns whether nobody will report that.
    fn close(&mut self) -> bool {
        self.st_q_out = None;
        self.frozen = None;
        self.synchronised = None;
        match self.take_streams() {
            Streams::None => return true,
            Streams::Outgoing(streams) => streams.close(),
            Streams::Incoming(streams) => streams.close(),
        }
        false
    }

    fn take_streams(&mut self) -> Streams<F> {
        self.st_q_in = self.st_q_in_status();
        std::mem::replace(&mut self.streams, Streams::None)
    }

    fn next_session(&mut self) -> SessionId {
        self.session.0 += 1;
        self.session
    }

    /// A network function with empty state whose random choices follow from `seed`.
    fn fresh(&self, config: &F::Config, seed: u64) -> Result<Box<F>, ConfigError> {
        F::new(config, self.shard, seed).map(Box::new)
    }

    /// A random number.
    fn random(&self) -> u64 {
        // The standard library's hasher is keyed from the system's random numbers.
        RandomState::new().hash_one(self.shard.id)
    }
}

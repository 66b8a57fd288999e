//! An instance: the real VEI and the real lcores, with a management side that does what the images' threads do, in
//! turns instead of threads.
//!
//! ```text
//!   Host (TCP) ◄─► clients, openings, streams ─► inbox ─► vei::Instance ─► commands ─► Lcore ◄─► rings
//!                                                   ▲                                    │
//!                                                   └──────────── reports ───────────────┘
//! ```

mod clients;
mod manage;
mod ports;
mod shard;
mod streams_in;
mod streams_out;

pub(crate) use ports::Ports;

use crate::net::{Conn, Host, HostParameters};
use crate::scenario::Reading;
use crate::watch::Watched;
use crate::{Random, Scenario, Trace};
use clients::Client;
use shard::ManagedShard;
use slim_core::nf::{NetworkFunction, Shard, ShardId};
use slim_core::protocol::control::{InstanceRequest, InstanceRole, Request};
use slim_core::protocol::stream::Handshake;
use slim_core::protocol::{Digest, MigrationPhase, Name, Schema};
use slim_core::time::{Duration, Instant};
use slim_core::vei::lcore::{Command, Lcore, Synchronised};
use slim_core::vei::{self, LcoreEvent, StreamEvent};
use std::collections::{BTreeMap, VecDeque};

/// Where instances listen.
pub(crate) const CONTROL_PORT: u16 = 7001;
pub(crate) const STATE_PORT: u16 = 7002;

/// What the threads of a shard's streams tell.
pub(crate) enum News<N> {
    Event(StreamEvent),
    /// Everything is installed: the network function is ready to be given to an lcore.
    Synchronised(Synchronised<Watched<N>>),
}

/// What a thread has when it gets to run.
pub(crate) struct Turn<'a, N> {
    pub(crate) now: Instant,
    pub(crate) host: &'a mut Host,
    pub(crate) random: &'a mut Random,
    pub(crate) news: &'a mut Vec<News<N>>,
}

/// Something that happened, on its way to the management thread.
enum Message<N> {
    Asked(u64, Request<InstanceRequest>),
    Lcore(ShardId, LcoreEvent),
    Stream(ShardId, u64, News<N>),
    Digest(ShardId, u64, Digest),
    Opening(Conn, Handshake),
}

/// A connection to the state port whose handshake is not there yet.
struct Opening {
    conn: Conn,
    bytes: Vec<u8>,
    deadline: Instant,
}

/// A statelet stream that is only waiting for the source to close it.
struct Acknowledging {
    shard: ShardId,
    session: u64,
    conn: Conn,
    out: Vec<u8>,
    deadline: Instant,
}

/// One instance, from its start to its end.
pub(crate) struct Node<N: NetworkFunction> {
    pub(crate) name: Name,
    pub(crate) vei: vei::Instance,
    pub(crate) lcores: Vec<Lcore<Watched<N>, Ports>>,
    /// Commands that the lcores have not taken yet.
    pub(crate) commands: Vec<VecDeque<Command<Watched<N>>>>,
    pub(crate) host: Host,
    pub(crate) stalled_until: Instant,
    /// Seeds of the network functions that process packets.
    pub(crate) seeds: Vec<u64>,
    /// The instance has been activated since this was last looked at.
    pub(crate) activated: bool,
    /// Phases entered since this was last looked at.
    pub(crate) phases: Vec<MigrationPhase>,
    /// Nobody told it in time that its packets may be handed back.
    pub(crate) hand_back_given_up: bool,
    /// A request that the VEI had no answer to, or an event that it did not expect: what the images only log.
    pub(crate) complaint: Option<String>,
    number: u8,
    shards: Vec<ManagedShard<N>>,
    clients: Vec<Client>,
    clients_seen: u64,
    openings: Vec<Opening>,
    acknowledging: Vec<Acknowledging>,
    inbox: BTreeMap<(Instant, u64), Message<N>>,
    inbox_seen: u64,
    inbox_last: Instant,
    config: N::Config,
    began: Instant,
    label: &'static str,
    options: NodeOptions,
}

#[derive(Debug, Clone, Copy)]
struct NodeOptions {
    st_q_out_bytes: usize,
    st_q_in_bytes: usize,
    early_ends: bool,
    reading: Reading,
}

impl<N: NetworkFunction> Node<N> {
    /// A fresh instance: number 0 or 1.
    pub(crate) fn new(
        now: Instant,
        index: usize,
        name: Name,
        config: N::Config,
        scenario: &Scenario,
        random: &mut Random,
    ) -> Result<Self, String> {
        let kind = Name::try_from(N::KIND).map_err(|error| error.to_string())?;
        let count = scenario.shards;
        let identity = vei::Identity { kind, schema: Schema(N::SCHEMA), shards: count };
        let number = 11 + index as u8;
        let (buffer_bytes, patience) = (scenario.stream_buffer_bytes, scenario.patience);
        let mut host = Host::new(
            now,
            HostParameters { number, buffer_bytes, patience, congestion_control: scenario.congestion_control },
            random,
        );
        host.listen(CONTROL_PORT);
        host.listen(STATE_PORT);
        let lcore = |id| {
            let ports = Ports::new(N::PORTS.len());
            Lcore::new(now, Shard { id: ShardId(id), count }, scenario.pkt_q_bytes, ports)
        };
        Ok(Self {
            name,
            vei: vei::Instance::new(identity),
            lcores: (0..count).map(lcore).collect(),
            commands: (0..count).map(|_| VecDeque::new()).collect(),
            host,
            stalled_until: Instant::ZERO,
            seeds: vec![0; usize::from(count)],
            activated: false,
            phases: Vec::new(),
            hand_back_given_up: false,
            complaint: None,
            number,
            shards: (0..count).map(|id| ManagedShard::new(Shard { id: ShardId(id), count })).collect(),
            clients: Vec::new(),
            clients_seen: 0,
            openings: Vec::new(),
            acknowledging: Vec::new(),
            inbox: BTreeMap::new(),
            inbox_seen: 0,
            inbox_last: now,
            config,
            began: now,
            label: ["instance 0", "instance 1"][index],
            options: NodeOptions {
                st_q_out_bytes: scenario.st_q_out_bytes,
                early_ends: scenario.early_ends,
                reading: scenario.reading,
                st_q_in_bytes: scenario.st_q_in_bytes,
            },
        })
    }

    /// What its trace lines begin with.
    pub(crate) fn label(&self) -> &'static str {
        self.label
    }

    pub(crate) fn role(&self) -> InstanceRole {
        self.vei.role()
    }

    /// Streams that could be broken.
    pub(crate) fn streams(&self) -> Vec<Conn> {
        self.shards.iter().flat_map(ManagedShard::connections).collect()
    }

    /// Control connections that could be broken.
    pub(crate) fn control_connections(&self) -> Vec<Conn> {
        self.clients.iter().map(|client| client.conn).collect()
    }

    /// What it holds of a migration though none is going on, in words.
    pub(crate) fn left_behind(&mut self, now: Instant) -> Option<String> {
        let found = |what: &str| Some(format!("{} holds {what}", self.label));
        if self.shards.iter().any(|shard| shard.holds_something()) {
            return found("streams, frozen state or half-installed state");
        }
        if !self.openings.is_empty() || !self.acknowledging.is_empty() {
            return found("a connection to its state port");
        }
        if !self.inbox.is_empty() || self.commands.iter().any(|commands| !commands.is_empty()) {
            return found("messages that nobody has read");
        }
        if self.vei.poll_timeout().is_some() {
            return found("a timer");
        }
        if self.lcores.iter().any(|lcore| lcore.pkt_q().records > 0) {
            return found("packets in pkt_q");
        }
        if self.lcores.iter_mut().any(|lcore| lcore.st_q_out().is_some()) {
            return found("an st_q_out that statelets are announced to");
        }
        if self.lcores.iter().any(|lcore| lcore.io().holds_packets()) {
            return found("packets in its rings");
        }
        let role = self.role();
        if matches!(role, InstanceRole::Source | InstanceRole::Destination) {
            return found(&format!("the role {role}"));
        }
        if self.vei.migration_status(now).is_some_and(|last| !last.finished && last.failure.is_none()) {
            return found("an unfinished migration");
        }
        None
    }

    /// Whether an lcore has something to do that it was told, or that has arrived.
    pub(crate) fn lcore_has_work(&self, shard: usize) -> bool {
        !self.commands[shard].is_empty() || self.lcores[shard].io().holds_packets()
    }

    fn send_later(&mut self, now: Instant, random: &mut Random, message: Message<N>) {
        let at = now + random.time(Duration::ZERO, Duration::from_micros(200));
        self.inbox_last = self.inbox_last.max(at);
        self.inbox_seen += 1;
        self.inbox.insert((self.inbox_last, self.inbox_seen), message);
    }

    /// An lcore reports an event.
    pub(crate) fn lcore_event(&mut self, now: Instant, random: &mut Random, shard: ShardId, event: LcoreEvent) {
        self.send_later(now, random, Message::Lcore(shard, event));
    }

    /// The digest of what an lcore froze is being computed, which takes its time.
    pub(crate) fn digest(&mut self, now: Instant, random: &mut Random, shard: ShardId, digest: u128) {
        let session = self.shards[usize::from(shard.0)].session();
        let at = now + random.time(Duration::ZERO, Duration::from_millis(3));
        self.inbox_seen += 1;
        self.inbox.insert((at, self.inbox_seen), Message::Digest(shard, session, Digest(digest)));
    }

    /// An lcore has frozen its state for the snapshot.
    pub(crate) fn frozen(&mut self, shard: ShardId, frozen: slim_core::vei::lcore::Frozen) {
        self.shards[usize::from(shard.0)].frozen = Some(frozen);
    }

    fn tell(&self, trace: &mut Trace, now: Instant, words: std::fmt::Arguments<'_>) {
        trace.event(now, self.label, words);
    }
}

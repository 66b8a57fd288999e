//! The NAT's state and every transition of it.
//!
//! Both the function that processes packets and the one that installs statelets change state through the methods
//! here and nowhere else; that is what makes the law `f(s, p) == h(s, g(s, p))` hold.
//!
//! ```text
//! mappings   (protocol, interior endpoint)          -> exterior endpoint, number of sessions
//! bindings   (protocol, exterior endpoint)          -> interior endpoint
//! sessions   (protocol, interior endpoint, server)  -> exterior endpoint, TCP state, last seen
//! census     number of sessions by state
//! hosts      interior address                       -> packets, bytes, number of sessions, last seen
//! neighbours (port, address)                        -> MAC address, confirmed
//! blocks     (exterior address, number)             -> interior address, ports in use, idle since
//! trains     packets in fragments                   -> what becomes of them
//! idents     the batch of identifications taken last
//! clock      ticks
//! ```
//!
//! A session holds its mapping, which holds its binding and thereby the exterior port; with the last session the
//! others go. A host entry outlives its sessions, for its counters, until it has been silent for the host time-out.

use crate::allocator::PortAllocator;
use crate::blocks::{Block, BlockIndex, BlockKey};
use crate::config::{Config, Filtering, Pooling};
use crate::fragments::{Held, HeldKey, Train, TrainKey};
use crate::ident::Batches;
use crate::pool::Pool;
use crate::rules::Forwards;
use crate::settings::Settings;
use crate::statelet::Statelet;
use crate::tables::{
    Binding, Census, EndpointKey, Host, Mapping, Neighbour, NeighbourKey, PeerKey, Session, SessionKey,
};
use crate::types::{Protocol, Side};
use crate::unsolicited::{SYNS_MAX, Syn, SynKey};
use core::net::Ipv4Addr;
use slim_core::nf::{ConfigError, InstallError, InterfaceAddress, PortId, Shard};
use slim_core::packet::MacAddr;
use slim_core::table::{Pod, Register, SegmentedTable, SmallTable, StateItem};

/// Why a transition is refused. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A table has no room.
    Full(Full),
    /// It contradicts the present state.
    Inconsistent,
}

/// Which table has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Sessions,
    Mappings,
    Hosts,
    Neighbours,
    Peers,
    Fragments,
    Syns,
}

impl Full {
    pub(crate) const fn table(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Mappings => "mappings",
            Self::Hosts => "hosts",
            Self::Neighbours => "neighbours",
            Self::Peers => "peers",
            Self::Fragments => "fragments",
            Self::Syns => "syns",
        }
    }
}

mod blocks;
mod hosts;
mod sessions;

pub(crate) use sessions::{NoPort, Opened};

/// The state of one shard.
pub(crate) struct State {
    settings: Settings,
    networks: [InterfaceAddress; 2],
    pub(crate) pool: Pool,
    pub(crate) forwards: Forwards,
    pooling: Pooling,
    port_parity: bool,
    port_preservation: bool,
    pub(crate) clock: Register<u32>,
    pub(crate) mappings: SegmentedTable<EndpointKey, Mapping>,
    pub(crate) bindings: SegmentedTable<EndpointKey, Binding>,
    pub(crate) sessions: SegmentedTable<SessionKey, Session>,
    /// How many of them are in which state.
    pub(crate) census: Register<Census>,
    /// How many sessions endpoints have with each address; kept where filtering asks for it.
    peers: SegmentedTable<PeerKey, u32>,
    keeps_peers: bool,
    pub(crate) trains: SegmentedTable<TrainKey, Train>,
    pub(crate) held: SmallTable<HeldKey, Held>,
    pub(crate) syns: SmallTable<SynKey, Syn>,
    pub(crate) hosts: SegmentedTable<u32, Host>,
    pub(crate) neighbours: SegmentedTable<NeighbourKey, Neighbour>,
    /// An index over `bindings`: which ports they leave free.
    pub(crate) ports: PortAllocator,
    /// Bindings with a port that is not lent: those of forwards, and what a faulty peer's snapshot may hold.
    foreign_bindings: usize,
    pub(crate) blocks: SegmentedTable<BlockKey, Block>,
    /// An index over `blocks`, if ports are lent in blocks.
    pub(crate) block_index: Option<BlockIndex>,
    /// The batch of identifications taken last.
    idents: Register<u16>,
    batches: Batches,
    /// Blocks that do not exist, as a faulty peer's snapshot may hold.
    foreign_blocks: usize,
}

/// Which of the keys is the one for the choice of ports.
const PORTS_KEY: u64 = 5;

/// Odd multiples of a constant: one seed, but another key for each use.
const fn key(seed: u64, n: u64) -> u64 {
    seed ^ (2 * n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl State {
    /// Empty state. `seed` keys hash tables and the choice of ports.
    pub(crate) fn new(config: &Config, shard: Shard, seed: u64) -> Result<Self, ConfigError> {
        let ports = config.port_range(shard)?;
        let pool = config.pool()?;
        let (sessions_max, mappings_max) =
            (config.sessions_max as usize, config.mappings_max(ports, pool.len()) as usize);
        let key = |n| key(seed, n);
        let block_index = config.block_index(shard)?;
        let blocks_max = block_index.as_ref().map_or(1, BlockIndex::capacity);
        let forwards = Forwards::new(&config.forwards_of(shard)?);
        let mut state = Self {
            settings: Settings::new(config, shard)?,
            networks: Side::ALL.map(|side| config.address(side)),
            pooling: config.address_pooling,
            port_parity: config.port_parity,
            port_preservation: config.port_preservation,
            clock: Register::new("clock", 0),
            mappings: SegmentedTable::with_capacity("mappings", mappings_max, key(0)),
            bindings: SegmentedTable::with_capacity("bindings", mappings_max, key(1)),
            sessions: SegmentedTable::with_capacity("sessions", sessions_max, key(2)),
            census: Register::new("census", Census::ZERO),
            peers: SegmentedTable::with_capacity("peers", sessions_max, key(6)),
            keeps_peers: config.filtering == Filtering::AddressDependent,
            trains: SegmentedTable::with_capacity("trains", config.fragment_trains_max as usize, key(7)),
            held: SmallTable::with_capacity("held", config.fragments_held_max as usize),
            syns: SmallTable::with_capacity("syns", SYNS_MAX),
            hosts: SegmentedTable::with_capacity("hosts", config.hosts_max as usize, key(3)),
            neighbours: SegmentedTable::with_capacity("neighbours", config.arp_entries_max as usize, key(4)),
            ports: PortAllocator::new(ports, pool.len(), key(PORTS_KEY)),
            pool,
            forwards,
            foreign_bindings: 0,
            blocks: SegmentedTable::with_capacity("blocks", blocks_max, key(8)),
            block_index,
            idents: Register::new("idents", Batches::NONE),
            batches: Batches::of(shard),
            foreign_blocks: 0,
        };
        state.hold_forwards().map_err(|_| ConfigError("the forwards contradict each other".into()))?;
        Ok(state)
    }

    /// Lets the choice of ports follow from `seed`, as if the state had been made with it.
    pub(crate) fn reseed_ports(&mut self, seed: u64) {
        self.ports.reseed(key(seed, PORTS_KEY));
    }

    /// Every part of the state, in a fixed order.
    pub(crate) fn for_each(&mut self, f: &mut dyn FnMut(&mut dyn StateItem)) {
        f(&mut self.settings);
        f(&mut self.clock);
        f(&mut self.idents);
        f(&mut self.mappings);
        f(&mut self.bindings);
        f(&mut self.sessions);
        f(&mut self.census);
        f(&mut self.peers);
        f(&mut self.trains);
        f(&mut self.held);
        f(&mut self.syns);
        f(&mut self.blocks);
        f(&mut self.hosts);
        f(&mut self.neighbours);
    }

    /// Brings the port index up to date after bindings have been adopted from a snapshot.
    ///
    /// Costs a comparison unless they have: the ports taken are always some of those in `bindings`, so equal numbers
    /// mean equal sets.
    pub(crate) fn index_ports(&mut self) {
        self.index_blocks();
        if self.ports.used() as usize + self.foreign_bindings == self.bindings.len() {
            return;
        }
        self.ports.clear();
        self.foreign_bindings = 0;
        for (key, _) in self.bindings.iter() {
            let address = self.pool.index_of(Ipv4Addr::from_bits(key.address));
            let taken = address
                .zip(Protocol::from_number(key.protocol))
                .is_some_and(|(address, protocol)| self.ports.take(address, protocol, key.port));
            self.foreign_bindings += usize::from(!taken);
        }
    }

    /// Applies a statelet (h).
    pub(crate) fn install(&mut self, statelet: &Statelet) -> Result<(), InstallError> {
        self.index_ports();
        let outcome = match *statelet {
            Statelet::Clock(ticks) => self.advance_clock(ticks),
            Statelet::Session { id, interior } => self.open_session(&id, interior).map(|_| ()),
            Statelet::Refresh(id) => self.known(&id).map(|key| self.refresh(key)),
            Statelet::Close(id) => self.known(&id).map(|key| {
                self.close_session(&key);
            }),
            Statelet::TcpState(id, state) => self.known(&id).map(|key| self.set_tcp_state(key, state)),
            Statelet::Arp { side, address, mac } => self.confirm_neighbour(side, address, mac),
            Statelet::ArpGone { side, address } => self.forget_neighbour(&NeighbourKey::new(side, address)),
            Statelet::Count { direction, address, packets, total_bytes } => {
                self.count_up_to(direction, address, packets, total_bytes)
            }
            Statelet::HostGone(address) => self.forget_host(address.to_bits()),
            Statelet::Train(key, train) => self.begin_train(key, Train { began: self.clock.get(), ..train }),
            Statelet::HeldGone(key) => self.forget_held(&key).then_some(()).ok_or(Refusal::Inconsistent),
            Statelet::SynGone(key) => self.forget_syn(&key).then_some(()).ok_or(Refusal::Inconsistent),
            Statelet::BlockGone(key) => self.forget_block(&key).map(|_| ()),
            Statelet::Idents(batch) => {
                let expected = batch == self.batches.after(self.idents.get());
                expected.then(|| self.take_next_idents()).map(|_| ()).ok_or(Refusal::Inconsistent)
            }
            Statelet::TrainEnded(key) => self.end_train(&key).then_some(()).ok_or(Refusal::Inconsistent),
            Statelet::TrainGone(key) => self.forget_train(&key).then_some(()).ok_or(Refusal::Inconsistent),
        };
        outcome.map_err(|refusal| match refusal {
            Refusal::Full(full) => InstallError::TableFull { table: full.table() },
            Refusal::Inconsistent => InstallError::Inconsistent(statelet.statelet_type()),
        })
    }

    /// Installs a held fragment, whose statelet is longer than others.
    pub(crate) fn install_held(&mut self, value: &[u8]) -> Result<(), InstallError> {
        let malformed = InstallError::Malformed { statelet_type: Statelet::HOLD, len: value.len() };
        let Some((&port, packet)) = value.split_first() else { return Err(malformed) };
        let key = HeldKey::of(PortId(port), packet).ok_or(malformed)?;
        let held = Held::new(self.clock.get(), packet).ok_or(malformed)?;
        self.hold(key, held).map_err(|_| InstallError::TableFull { table: Full::Fragments.table() })
    }

    /// Takes the next batch of identifications.
    pub(crate) fn take_next_idents(&mut self) -> u16 {
        let batch = self.batches.after(self.idents.get());
        self.idents.set(batch);
        batch
    }

    /// Whether another train can begin: a fourth of the room may be one interior host's (RFC 6888 R5).
    pub(crate) fn has_room_for_train(&self, key: &TrainKey) -> bool {
        let of_host = match Side::of_port(PortId(key.port)) {
            Some(Side::Interior) => self.hosts.get(&key.source).map_or(0, |host| host.trains),
            Some(Side::Exterior) | None => 0,
        };
        let capacity = self.trains.capacity();
        self.trains.len() < capacity && (of_host as usize) < capacity.div_ceil(4)
    }

    pub(crate) fn begin_train(&mut self, key: TrainKey, train: Train) -> Result<(), Refusal> {
        let replaced = self.trains.insert(key, train).map_err(|_| Refusal::Full(Full::Fragments))?;
        if let Some(replaced) = replaced {
            self.release_train(&replaced);
        }
        if let Some(host) = self.hosts.get_mut(&train.host_outbound) {
            host.trains = host.trains.saturating_add(1);
        }
        Ok(())
    }

    /// The train's last fragment has come. Returns whether that is news.
    pub(crate) fn end_train(&mut self, key: &TrainKey) -> bool {
        let now = self.clock.get();
        let train = self.trains.get_mut(key).filter(|train| train.ended == 0);
        train.map(|train| (train.began, train.ended) = (now, 1)).is_some()
    }

    /// Whether there was such a train.
    pub(crate) fn forget_train(&mut self, key: &TrainKey) -> bool {
        let train = self.trains.remove(key);
        train.iter().for_each(|train| self.release_train(train));
        train.is_some()
    }

    fn release_train(&mut self, train: &Train) {
        if let Some(host) = self.hosts.get_mut(&train.host_outbound) {
            host.trains = host.trains.saturating_sub(1);
        }
    }

    /// Holds a fragment, unless a fourth of the room is its source's already.
    pub(crate) fn hold(&mut self, key: HeldKey, held: Held) -> Result<(), Refusal> {
        let of_source = self.held.iter().filter(|(known, _)| known.train.source == key.train.source).count();
        if self.held.get(&key).is_none() && of_source >= self.held.capacity().div_ceil(4) {
            return Err(Refusal::Full(Full::Fragments));
        }
        self.held.insert(key, held).map(|_| ()).map_err(|_| Refusal::Full(Full::Fragments))
    }

    /// One of the held fragments of a train.
    pub(crate) fn held_of(&self, train: &TrainKey) -> Option<(HeldKey, Held)> {
        // The same at the destination, whose entries may be in another order.
        let of_train = self.held.iter().filter(|(key, _)| key.train == *train);
        of_train.min_by_key(|(key, _)| key.offset).map(|(key, held)| (*key, *held))
    }

    /// Whether there was such a fragment.
    pub(crate) fn forget_held(&mut self, key: &HeldKey) -> bool {
        self.held.remove(key).is_some()
    }

    /// Installs an unsolicited SYN.
    pub(crate) fn install_syn(&mut self, value: &[u8]) -> Result<(), InstallError> {
        let malformed = InstallError::Malformed { statelet_type: Statelet::SYN, len: value.len() };
        let (mac, packet) = value.split_first_chunk().ok_or(malformed)?;
        let key = SynKey::of(packet).ok_or(malformed)?;
        let syn = Syn::new(self.clock.get(), MacAddr(*mac), packet).ok_or(malformed)?;
        self.hold_syn(key, syn).map_err(|_| InstallError::TableFull { table: Full::Syns.table() })
    }

    pub(crate) fn hold_syn(&mut self, key: SynKey, syn: Syn) -> Result<(), Refusal> {
        self.syns.insert(key, syn).map(|_| ()).map_err(|_| Refusal::Full(Full::Syns))
    }

    /// Whether there was such a SYN.
    pub(crate) fn forget_syn(&mut self, key: &SynKey) -> bool {
        self.syns.remove(key).is_some()
    }

    /// Lets time pass.
    pub(crate) fn advance_clock(&mut self, ticks: u32) -> Result<(), Refusal> {
        if ticks <= self.clock.get() {
            return Err(Refusal::Inconsistent);
        }
        self.clock.set(ticks);
        Ok(())
    }

    /// How long ago `instant` was, in ticks.
    #[inline(always)]
    pub(crate) fn age(&self, instant: u32) -> u32 {
        self.clock.get().saturating_sub(instant)
    }

    /// Enters a neighbour's MAC address, or confirms it.
    pub(crate) fn confirm_neighbour(&mut self, side: Side, address: Ipv4Addr, mac: MacAddr) -> Result<(), Refusal> {
        if !self.is_neighbour(side, address) || !mac.is_unicast() {
            return Err(Refusal::Inconsistent);
        }
        let neighbour = Neighbour { mac: mac.0, confirmed: self.clock.get() };
        self.neighbours
            .insert(NeighbourKey::new(side, address), neighbour)
            .map(|_| ())
            .map_err(|_| Refusal::Full(Full::Neighbours))
    }

    /// Removes a neighbour.
    pub(crate) fn forget_neighbour(&mut self, key: &NeighbourKey) -> Result<(), Refusal> {
        self.neighbours.remove(key).map(|_| ()).ok_or(Refusal::Inconsistent)
    }
}

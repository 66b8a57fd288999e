//! Expiry: a slow sweep over each table, a bounded part of it at a time, each removal announced.
//!
//! A sweep begins whenever the clock advances and goes on from call to call until it has been through every table.
//! How far it has come is not state: what it removes is announced, so nothing depends on who swept.

use crate::announce;
use crate::blocks::{Block, BlockKey};
use crate::config::{Config, LogLevel};
use crate::fragments::{HeldKey, Train, TrainKey};
use crate::state::State;
use crate::statelet::Statelet;
use crate::tables::{Host, Neighbour, NeighbourKey, Session, SessionKey};
use crate::tcp::TcpState;
use crate::types::{Protocol, Side};
use core::net::Ipv4Addr;
use slim_core::mutant::{self, Mutant};
use slim_core::nf::Environment;
use slim_core::table::ScanCursor;

/// The least and the most slots looked at in one call. It takes some 5 ns a slot.
const SLOTS_PER_CALL: (usize, usize) = (256, 4096);

/// A sweep over all tables takes so many calls, which is less than a tick's length, up to some 2 million entries.
const CALLS_PER_SWEEP: usize = 800;

/// How long a train is remembered after its last fragment, for fragments that this one has overtaken.
const ENDED_TRAIN_S: u32 = 2;

/// The most entries removed in one call.
const REMOVALS_PER_CALL: usize = 32;

/// How long entries stay, in ticks of the clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    udp: u32,
    icmp: u32,
    tcp_established: u32,
    tcp_opening: u32,
    tcp_closing: u32,
    host: u32,
    neighbour: u32,
    fragment: u32,
    block: u32,
}

impl Timeouts {
    /// Ticks are seconds.
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            udp: config.udp_timeout_s,
            icmp: config.icmp_timeout_s,
            tcp_established: config.tcp_established_timeout_s,
            tcp_opening: config.tcp_opening_timeout_s,
            tcp_closing: config.tcp_closing_timeout_s,
            host: config.host_timeout_s,
            neighbour: config.arp_timeout_s,
            fragment: config.fragment_timeout_s,
            block: config.port_block_timeout_s,
        }
    }

    fn of_session(&self, key: &SessionKey, session: &Session) -> u32 {
        match TcpState::from_code(session.tcp_state) {
            None if key.protocol == Protocol::Icmp.number() => self.icmp,
            None => self.udp,
            Some(TcpState::Opening | TcpState::OpeningInbound) => self.tcp_opening,
            Some(TcpState::Established | TcpState::FinOutbound | TcpState::FinInbound) => self.tcp_established,
            Some(TcpState::Closing | TcpState::Reset) => self.tcp_closing,
        }
    }

    fn of_train(&self, train: &Train) -> u32 {
        if train.ended == 0 { self.fragment } else { ENDED_TRAIN_S }
    }

    /// The age from which a neighbour that is still in use is asked again, before it expires.
    pub(crate) fn neighbour_renewal(&self) -> u32 {
        self.neighbour / 4 * 3
    }
}

/// The tables in the order they are swept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Sessions,
    Blocks,
    Hosts,
    Neighbours,
    Trains,
    Held,
    Done,
}

impl Stage {
    const fn next(self) -> Self {
        match self {
            Self::Sessions => Self::Blocks,
            Self::Blocks => Self::Hosts,
            Self::Hosts => Self::Neighbours,
            Self::Neighbours => Self::Trains,
            Self::Trains => Self::Held,
            Self::Held | Self::Done => Self::Done,
        }
    }
}

/// How far the sweep has come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sweep {
    stage: Stage,
    cursor: ScanCursor,
    /// The clock has advanced since the sweep began: begin another when it is through.
    again: bool,
}

/// How many slots are looked at in one call, so that timers are not late where tables are large.
const fn slots_per_call(capacity: usize) -> usize {
    // A full table has 16 slots for 11 entries.
    let slots = capacity * 3 / 2 / CALLS_PER_SWEEP;
    match slots {
        few if few < SLOTS_PER_CALL.0 => SLOTS_PER_CALL.0,
        many if many > SLOTS_PER_CALL.1 => SLOTS_PER_CALL.1,
        slots => slots,
    }
}

/// Entries that the tables which are swept can hold.
fn capacity(state: &State) -> usize {
    let State { sessions, blocks, hosts, neighbours, trains, .. } = state;
    sessions.capacity() + blocks.capacity() + hosts.capacity() + neighbours.capacity() + trains.capacity()
}

/// An entry that has expired.
enum Expired {
    Session(SessionKey, Session),
    Block(BlockKey),
    Host(u32),
    Neighbour(NeighbourKey),
    Train(TrainKey),
    Held(HeldKey),
}

impl Sweep {
    pub(crate) fn new() -> Self {
        Self { stage: Stage::Done, cursor: ScanCursor::default(), again: false }
    }

    /// Asks for a sweep at the clock's present value.
    pub(crate) fn request(&mut self) {
        self.again = true;
    }

    /// Whether there is nothing to do until the clock advances.
    #[inline(always)]
    pub(crate) fn is_done(&self) -> bool {
        self.stage == Stage::Done && !self.again
    }

    /// Sweeps on for a bounded time, and announces and logs what is removed. Returns how many packets that were held are
    /// lost.
    pub(crate) fn run<E: Environment>(
        &mut self,
        state: &mut State,
        timeouts: &Timeouts,
        log_level: LogLevel,
        env: &mut E,
    ) -> u64 {
        if self.stage == Stage::Done && core::mem::take(&mut self.again) {
            (self.stage, self.cursor) = (Stage::Sessions, ScanCursor::default());
        }
        let (mut slots, mut lost) = (slots_per_call(capacity(state)), 0);
        for _ in 0..REMOVALS_PER_CALL {
            let Some(expired) = self.find(state, timeouts, &mut slots) else { break };
            lost += u64::from(matches!(expired, Expired::Held(_)));
            if let Some(statelet) = remove(env, state, &expired, log_level)
                && !mutant::is_active(Mutant::RemovalUnannounced)
            {
                announce(env, &statelet);
            }
        }
        lost
    }

    /// The next expired entry. `None` when the slots are used up or all tables are through.
    fn find(&mut self, state: &State, timeouts: &Timeouts, slots: &mut usize) -> Option<Expired> {
        while self.stage != Stage::Done && *slots > 0 {
            let cursor = &mut self.cursor;
            let found = match self.stage {
                Stage::Sessions => state
                    .sessions
                    .scan(cursor, slots, |key, session: &Session| {
                        state.age(session.last_seen) > timeouts.of_session(key, session)
                    })
                    .map(|(key, session)| Expired::Session(key, session)),
                Stage::Blocks => state
                    .blocks
                    .scan(cursor, slots, |_, block: &Block| {
                        block.ports == 0 && state.age(block.idle_since) > timeouts.block
                    })
                    .map(|(key, _)| Expired::Block(key)),
                Stage::Hosts => state
                    .hosts
                    .scan(cursor, slots, |_, host: &Host| {
                        host.may_expire() && state.age(host.last_seen) > timeouts.host
                    })
                    .map(|(address, _)| Expired::Host(address)),
                Stage::Neighbours => state
                    .neighbours
                    .scan(cursor, slots, |_, neighbour: &Neighbour| state.age(neighbour.confirmed) > timeouts.neighbour)
                    .map(|(key, _)| Expired::Neighbour(key)),
                Stage::Trains => state
                    .trains
                    .scan(cursor, slots, |_, train: &Train| state.age(train.began) > timeouts.of_train(train))
                    .map(|(key, _)| Expired::Train(key)),
                // Few enough to be looked through at once.
                Stage::Held => state
                    .held
                    .iter()
                    .find(|(_, held)| state.age(held.came) > timeouts.fragment)
                    .map(|(key, _)| Expired::Held(*key)),
                Stage::Done => None,
            };
            if found.is_some() {
                return found;
            }
            // At its end a scan puts the cursor back to the start.
            if self.cursor == ScanCursor::default() {
                self.stage = self.stage.next();
            }
        }
        None
    }
}

/// Removes an expired entry. `None` if there was nothing that others could know of.
fn remove<E: Environment>(env: &mut E, state: &mut State, expired: &Expired, log_level: LogLevel) -> Option<Statelet> {
    match expired {
        Expired::Session(key, session) => {
            let unmapped = state.close_session(key);
            let id = key.id(session)?;
            log_level.closed(env, key, &id, unmapped);
            Some(Statelet::Close(id))
        }
        Expired::Block(key) => {
            let block = state.forget_block(key).ok()?;
            log_level.returned(env, state, key, &block);
            Some(Statelet::BlockGone(*key))
        }
        Expired::Host(address) => {
            state.forget_host(*address).ok()?;
            Some(Statelet::HostGone(Ipv4Addr::from_bits(*address)))
        }
        Expired::Train(key) => state.forget_train(key).then_some(Statelet::TrainGone(*key)),
        Expired::Held(key) => state.forget_held(key).then_some(Statelet::HeldGone(*key)),
        Expired::Neighbour(key) => {
            state.forget_neighbour(key).ok()?;
            let side = Side::of_port(slim_core::nf::PortId(key.port))?;
            Some(Statelet::ArpGone { side, address: Ipv4Addr::from_bits(key.address) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;
    use slim_core::nf::testing::TestEnvironment;
    use slim_core::nf::{Shard, TICK};
    use slim_core::packet::MacAddr;
    use slim_core::time::Instant;

    #[test]
    fn a_sweep_takes_less_than_a_tick_up_to_two_million_entries() {
        let calls_per_tick = TICK.as_millis() as usize;
        for capacity in [1, 65_536, 1_000_000, 2_000_000] {
            let slots = capacity * 16 / 11;
            assert!(slots <= slots_per_call(capacity) * calls_per_tick, "{capacity}");
        }
        // However many there are, a call is short.
        assert_eq!(slots_per_call(usize::MAX / 3), SLOTS_PER_CALL.1);
    }

    #[test]
    fn what_has_expired_is_found_in_one_sweep_and_told() {
        let interior = "10.1.0.1/16".parse().unwrap();
        let exterior = "10.2.0.1/24".parse().unwrap();
        let mac = |last| MacAddr([2, 0, 0, 0, 0, last]);
        let config = Config { arp_entries_max: 20_000, ..Config::new(interior, mac(1), exterior, mac(2)) };
        let mut state = State::new(&config, Shard::ONLY, 7).unwrap();
        for number in 0..12_000u32 {
            let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 1, 0, 2).to_bits() + number);
            state.confirm_neighbour(Side::Interior, address, mac(3)).unwrap();
        }
        state.advance_clock(config.arp_timeout_s + 1).unwrap();
        let (timeouts, mut sweep) = (Timeouts::new(&config), Sweep::new());
        let mut env = TestEnvironment::new(Instant::ZERO);
        sweep.request();
        let mut calls = 0;
        while !sweep.is_done() {
            let before = state.neighbours.len();
            sweep.run(&mut state, &timeouts, LogLevel::Off, &mut env);
            assert!(before - state.neighbours.len() <= REMOVALS_PER_CALL);
            calls += 1;
        }
        assert_eq!(state.neighbours.len(), 0);
        assert_eq!(env.take_statelets().len(), 12_000);
        assert!(calls <= 12_000 / REMOVALS_PER_CALL + CALLS_PER_SWEEP, "{calls} calls");
    }
}

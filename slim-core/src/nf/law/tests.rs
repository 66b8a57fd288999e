//! The harness itself: it accepts a lawful network function and finds each kind of flaw.

use super::super::source_counter::{Config, SourceCounter};
use super::super::{Environment, Gauge};
use super::*;
use crate::packet::{MacAddr, PacketBuf, emit};
use crate::statelet::Coalescing;
use crate::table::{AdoptError, ArchiveError, ItemHeader, Register, StateItem};
use core::net::{Ipv4Addr, SocketAddrV4};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use proptest::prelude::*;
use std::sync::Arc;

const CONFIG: Config = Config { sources_max: 8 };

fn frame_from(source: u8) -> Vec<u8> {
    let ends = emit::Ends {
        source_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        destination_mac: MacAddr([2, 0, 0, 0, 0, 2]),
        source: SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, source), 1000),
        destination: SocketAddrV4::new(Ipv4Addr::new(10, 2, 0, 1), 7),
    };
    let mut frame = vec![0; 60];
    let len = emit::udp(&mut frame, &ends, b"payload").unwrap();
    frame.truncate(len);
    frame
}

fn any_step() -> impl Strategy<Value = Step> {
    let frame = prop_oneof![
        8 => (0u8..12).prop_map(frame_from),
        1 => proptest::collection::vec(any::<u8>(), 0..80),
    ];
    (0u64..1000, proptest::option::weighted(0.9, (0u8..2, frame))).prop_map(|(pause_ms, packet)| Step {
        pause: Duration::from_millis(pause_ms),
        packet: packet.map(|(port, frame)| (PortId(port), frame)),
    })
}

proptest! {
    #[test]
    fn source_counter_keeps_the_law(steps in proptest::collection::vec(any_step(), 0..60)) {
        check::<SourceCounter>(&CONFIG, &steps)?;
    }
}

#[test]
fn report_counts_packets_and_statelets() {
    let steps: Vec<_> = (0..20).map(|source| Step::packet(PortId(0), frame_from(source))).collect();
    let report = check::<SourceCounter>(&CONFIG, &steps).unwrap();
    let packet_bytes = 20 * frame_from(0).len() as u64;
    assert_eq!(report.sigma, Sigma { packets: 20, packet_bytes, statelets: 8, value_bytes: 8 * 12 });
    assert_eq!(report.packets_accepted, 8);
}

/// Ways to break the law.
mod flaw {
    /// The third statelet is not announced.
    pub const FORGETS_STATELET: u8 = 0;
    /// The third packet is dropped if statelets are wanted.
    pub const DROPS_WHILE_ANNOUNCING: u8 = 1;
    /// A snapshot that sees what happens after it.
    pub const LEAKS_INTO_SNAPSHOT: u8 = 2;
    /// Installing counts packets instead of setting what the statelet says, which is right for the first one only.
    pub const INSTALLS_SOMETHING_ELSE: u8 = 3;
    /// Statelets of a type that cannot be installed.
    pub const ANNOUNCES_UNKNOWN_TYPE: u8 = 4;
    /// A verdict beyond the declared ports.
    pub const INVENTS_PORT: u8 = 5;
    /// State changes at the take-over.
    pub const CHANGES_AT_TAKE_OVER: u8 = 6;
    /// Announces state that no snapshot has.
    pub const HIDES_STATE: u8 = 7;
    /// Lets statelets of different sources be merged.
    pub const MERGES_TOO_MUCH: u8 = 8;
}

/// A source counter with a flaw.
struct Flawed<const FLAW: u8> {
    inner: SourceCounter,
    packets: u32,
    installed: u64,
    leaky: Leaky,
}

/// A number of which a snapshot sees later changes.
#[derive(Clone, Default)]
struct Leaky(Arc<AtomicU64>);

impl Leaky {
    fn increment(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    fn freeze_now(&self) -> Box<dyn FrozenItem> {
        Register::new("leaky", self.0.load(Relaxed)).freeze()
    }
}

impl StateItem for Leaky {
    fn name(&self) -> &'static str {
        "leaky"
    }
    fn freeze(&mut self) -> Box<dyn FrozenItem> {
        Box::new(self.clone())
    }
    fn begin_adopt(&mut self, header: &ItemHeader) -> Result<(), AdoptError> {
        Register::new("leaky", 0u64).begin_adopt(header)
    }
    fn adopt_segment(&mut self, index: u32, archive: &[u8]) -> Result<(), AdoptError> {
        let mut register = Register::new("leaky", 0u64);
        register.begin_adopt(&self.freeze_now().header())?;
        register.adopt_segment(index, archive)?;
        self.0.store(register.get(), Relaxed);
        Ok(())
    }
    fn finish_adopt(&mut self) -> Result<(), AdoptError> {
        Ok(())
    }
}

impl FrozenItem for Leaky {
    fn name(&self) -> &'static str {
        "leaky"
    }
    fn header(&self) -> ItemHeader {
        self.freeze_now().header()
    }
    fn capacity_bytes(&self) -> u64 {
        self.freeze_now().capacity_bytes()
    }
    fn archive_segment(&self, index: u32) -> Result<Option<rkyv::util::AlignedVec>, ArchiveError> {
        self.freeze_now().archive_segment(index)
    }
    fn digest(&self) -> u128 {
        self.freeze_now().digest()
    }
}

/// An environment that tampers with announcements.
struct Tampered<'a, E> {
    env: &'a mut E,
    forget: bool,
    type_offset: u16,
}

impl<E: Environment> Environment for Tampered<'_, E> {
    fn now(&self) -> Instant {
        self.env.now()
    }
    fn upd_enable(&self) -> bool {
        self.env.upd_enable()
    }
    fn announce(&mut self, statelet_type: u16, value: &[u8]) {
        if !self.forget {
            self.env.announce(statelet_type + self.type_offset, value);
        }
    }
    fn emit(&mut self, port: PortId, frame: &[u8]) {
        self.env.emit(port, frame);
    }
}

impl<const FLAW: u8> NetworkFunction for Flawed<FLAW> {
    const KIND: &'static str = SourceCounter::KIND;
    const SCHEMA: u64 = SourceCounter::SCHEMA;
    const PORTS: &'static [&'static str] = SourceCounter::PORTS;
    const DROP_REASONS: &'static [&'static str] = SourceCounter::DROP_REASONS;
    type Config = Config;

    fn new(config: &Config, shard: Shard, seed: u64) -> Result<Self, ConfigError> {
        let inner = SourceCounter::new(config, shard, seed)?;
        Ok(Self { inner, packets: 0, installed: 0, leaky: Leaky::default() })
    }

    fn process<P: PacketBuf, E: Environment>(&mut self, env: &mut E, port: PortId, packet: &mut P) -> Verdict {
        self.packets += 1;
        let third = self.packets == 3;
        if FLAW == flaw::DROPS_WHILE_ANNOUNCING && third && env.upd_enable() {
            return Verdict::Drop(0);
        }
        self.leaky.increment();
        let mut tampered = Tampered {
            forget: FLAW == flaw::FORGETS_STATELET && third,
            type_offset: if FLAW == flaw::ANNOUNCES_UNKNOWN_TYPE { 7 } else { 0 },
            env,
        };
        let verdict = self.inner.process(&mut tampered, port, packet);
        if FLAW == flaw::INVENTS_PORT { Verdict::Transmit(PortId(2)) } else { verdict }
    }

    fn tick<E: Environment>(&mut self, env: &mut E) {
        self.inner.tick(env);
    }

    fn install(&mut self, statelet_type: u16, value: &[u8]) -> Result<(), InstallError> {
        if FLAW == flaw::INSTALLS_SOMETHING_ELSE {
            self.installed += 1;
            let mut value = value.to_vec();
            value[4..].copy_from_slice(&self.installed.to_be_bytes());
            return self.inner.install(statelet_type, &value);
        }
        if FLAW == flaw::HIDES_STATE && self.packets == 0 {
            // Only an instance that has seen every statelet knows the count that the third one is about.
            self.installed += 1;
            if u64::from_be_bytes(value[4..].try_into().unwrap()) == 2 && self.installed < 3 {
                return Err(InstallError::Inconsistent(statelet_type));
            }
        }
        self.leaky.increment();
        self.inner.install(statelet_type, value)
    }

    fn coalescing(statelet_type: u16, value: &[u8]) -> Coalescing {
        match FLAW {
            flaw::MERGES_TOO_MUCH => Coalescing::Merge { key_len: 0 },
            _ => SourceCounter::coalescing(statelet_type, value),
        }
    }

    fn take_over(&mut self, _now: Instant) {
        if FLAW == flaw::CHANGES_AT_TAKE_OVER {
            let mut packet = OwnedPacket::new(frame_from(200));
            let mut env = TestEnvironment::without_updates(Instant::ZERO);
            self.inner.process(&mut env, PortId(0), &mut packet);
        }
    }

    fn for_each_state(&mut self, f: &mut dyn FnMut(&mut dyn StateItem)) {
        self.inner.for_each_state(f);
        if FLAW == flaw::LEAKS_INTO_SNAPSHOT {
            f(&mut self.leaky);
        }
    }

    fn gauges(&self) -> Vec<Gauge> {
        self.inner.gauges()
    }
}

fn violation<const FLAW: u8>() -> Violation {
    let sources = [1, 2, 1, 2, 3, 3];
    let steps: Vec<_> = sources.into_iter().map(|source| Step::packet(PortId(0), frame_from(source))).collect();
    check_with_snapshots::<Flawed<FLAW>>(&CONFIG, &steps, &[4]).unwrap_err()
}

#[test]
fn forgotten_statelet_is_found() {
    let expected = Violation::State { step: 2, instance: Instance::Follower, item: "sources" };
    assert_eq!(violation::<{ flaw::FORGETS_STATELET }>(), expected);
}

#[test]
fn behaviour_that_depends_on_announcing_is_found() {
    assert_eq!(violation::<{ flaw::DROPS_WHILE_ANNOUNCING }>(), Violation::Output { step: 2 });
}

#[test]
fn snapshot_that_is_not_isolated_is_found() {
    let expected = Violation::State { step: 4, instance: Instance::Restored, item: "leaky" };
    assert_eq!(violation::<{ flaw::LEAKS_INTO_SNAPSHOT }>(), expected);
}

#[test]
fn state_beside_the_snapshot_is_found() {
    let error = InstallError::Inconsistent(1);
    assert_eq!(violation::<{ flaw::HIDES_STATE }>(), Violation::Install { step: 5, statelet_type: 1, error });
}

#[test]
fn statelets_merged_wrongly_are_found() {
    let expected = Violation::State { step: 5, instance: Instance::Coalesced, item: "sources" };
    assert_eq!(violation::<{ flaw::MERGES_TOO_MUCH }>(), expected);
}

#[test]
fn wrong_installation_is_found() {
    let expected = Violation::State { step: 1, instance: Instance::Follower, item: "sources" };
    assert_eq!(violation::<{ flaw::INSTALLS_SOMETHING_ELSE }>(), expected);
}

#[test]
fn statelet_that_cannot_be_installed_is_found() {
    let error = InstallError::UnknownType(8);
    assert_eq!(
        violation::<{ flaw::ANNOUNCES_UNKNOWN_TYPE }>(),
        Violation::Install { step: 0, statelet_type: 8, error }
    );
}

#[test]
fn wrong_verdict_is_found() {
    let verdict = Verdict::Transmit(PortId(2));
    assert_eq!(violation::<{ flaw::INVENTS_PORT }>(), Violation::Verdict { step: 0, verdict });
}

#[test]
fn change_at_take_over_is_found() {
    let expected = Violation::State { step: 5, instance: Instance::TakenOver, item: "sources" };
    assert_eq!(violation::<{ flaw::CHANGES_AT_TAKE_OVER }>(), expected);
}

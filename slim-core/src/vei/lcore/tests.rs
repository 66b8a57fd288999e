//! The lcore command by command, over ports that are lists.

mod pace;

use super::*;
use crate::nf::source_counter::{Config, SourceCounter};
use crate::packet::{MacAddr, OwnedPacket, emit};
use crate::protocol::inband::{Drain, Frame};
use crate::protocol::{self, Nonce, PathIndex, PathSet};
use crate::statelet::{Decoder, Duplicate, Record, TYPE_ALIGN, TYPE_DROPS, TYPE_PACKET};
use crate::vei::Installer;
use crate::{nf::ShardId, snapshot};
use core::net::{Ipv4Addr, SocketAddrV4};
use std::collections::BTreeMap;

const MIGRATION: MigrationId = MigrationId(7);

/// Ports that are lists, and as many packet buffers as a test allows.
struct Lists {
    arrived: [VecDeque<Vec<u8>>; 2],
    sent: Vec<(u8, Vec<u8>)>,
    buffers: usize,
    dropped: BTreeMap<&'static str, u64>,
}

impl Io for Lists {
    type Packet = OwnedPacket;

    fn receive(&mut self, port: PortId, burst: &mut Burst<OwnedPacket>) -> usize {
        let queue = &mut self.arrived[usize::from(port.0)];
        let count = queue.len().min(BURST);
        burst.extend(queue.drain(..count).map(OwnedPacket::new));
        count
    }

    fn buffer(&mut self) -> Option<OwnedPacket> {
        self.buffers = self.buffers.checked_sub(1)?;
        Some(OwnedPacket::default())
    }

    fn transmit(&mut self, port: PortId, packet: OwnedPacket) {
        self.sent.push((port.0, packet.into_inner()));
    }

    fn flush(&mut self) {}

    fn dropped(&mut self, cause: Cause, packets: u64) {
        *self.dropped.entry(cause.name()).or_default() += packets;
    }

    fn refused(&mut self, reason: u16) {
        *self.dropped.entry(SourceCounter::DROP_REASONS[usize::from(reason)]).or_default() += 1;
    }

    fn refused_total(&self, reason: u16) -> u64 {
        self.dropped.get(SourceCounter::DROP_REASONS[usize::from(reason)]).copied().unwrap_or(0)
    }

    fn set_refused_total(&mut self, reason: u16, total: u64) {
        self.dropped.insert(SourceCounter::DROP_REASONS[usize::from(reason)], total);
    }

    fn count(&mut self, _what: Counted) {}
}

struct Rig {
    lcore: Lcore<SourceCounter, Lists>,
    now: Instant,
    events: Vec<LcoreEvent>,
    snapshots: Vec<Frozen>,
    digests: Vec<u128>,
    samples: Vec<u128>,
}

impl Rig {
    fn new() -> Self {
        let io = Lists { arrived: Default::default(), sent: Vec::new(), buffers: usize::MAX, dropped: BTreeMap::new() };
        let shard = Shard { id: ShardId(1), count: 2 };
        let lcore = Lcore::new(Instant::ZERO, shard, 1 << 20, io);
        let (events, snapshots, digests, samples) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { lcore, now: Instant::ZERO, events, snapshots, digests, samples }
    }

    fn live() -> Self {
        let mut rig = Self::new();
        rig.pass(Some(Command::Activate(function())));
        rig
    }

    fn arrive(&mut self, port: u8, frames: impl IntoIterator<Item = Vec<u8>>) {
        self.lcore.io.arrived[usize::from(port)].extend(frames);
    }

    fn pass(&mut self, command: Option<Command<SourceCounter>>) -> Passed {
        self.now += Duration::from_micros(100);
        let passed = self.lcore.pass(self.now, command);
        while let Some(report) = self.lcore.poll_report() {
            match report {
                Report::Event(event) => self.events.push(event),
                Report::Snapshot(frozen) => self.snapshots.push(frozen),
                Report::Digest(frozen) => self.digests.push(snapshot::digest(&frozen)),
                Report::Sample(frozen) => self.samples.push(snapshot::digest(&frozen)),
                Report::Gauges(_) | Report::Subscribers(..) | Report::Retired(_) => {}
                Report::Impossible(command) => panic!("{command} is impossible"),
            }
        }
        passed
    }

    fn settle(&mut self) {
        while self.pass(None).busy {}
    }

    fn dropped(&self, cause: Cause) -> u64 {
        self.lcore.io.dropped.get(cause.name()).copied().unwrap_or(0)
    }

    fn take_sent(&mut self) -> Vec<(u8, Vec<u8>)> {
        core::mem::take(&mut self.lcore.io.sent)
    }

    fn digest(&mut self) -> u128 {
        snapshot::digest(&self.lcore.freeze().unwrap())
    }
}

fn function() -> Box<SourceCounter> {
    Box::new(SourceCounter::new(&Config { sources_max: 600 }, Shard::ONLY, 1).unwrap())
}

fn frame(source: u16, number: u16) -> Vec<u8> {
    let [high, low] = source.to_be_bytes();
    let ends = emit::Ends {
        source_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        destination_mac: MacAddr([2, 0, 0, 0, 0, 2]),
        source: SocketAddrV4::new(Ipv4Addr::new(10, 1, high, low), 1000),
        destination: SocketAddrV4::new(Ipv4Addr::new(10, 2, 0, 1), number),
    };
    let mut frame = vec![0; 60];
    let len = emit::udp(&mut frame, &ends, &number.to_be_bytes()).unwrap();
    frame.truncate(len);
    frame
}

fn frames(sources: core::ops::Range<u16>) -> Vec<Vec<u8>> {
    sources.map(|source| frame(source, source)).collect()
}

fn drain() -> (Drain, Vec<u8>) {
    let paths = PathSet::first(4);
    let drain = Drain { migration: MIGRATION, nonce: Nonce(9), path: PathIndex::new(3).unwrap(), paths };
    (drain, encode(&Frame::Drain(drain)))
}

fn encode(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = vec![0; frame.encoded_len()];
    frame.encode(&mut bytes).unwrap();
    bytes
}

#[test]
fn an_idle_lcore_drops_and_a_live_one_processes() {
    let mut rig = Rig::new();
    rig.arrive(0, frames(0..40));
    rig.settle();
    assert_eq!(rig.dropped(Cause::Idle), 40);
    assert_eq!(rig.lcore.patience(), Patience::Forever);
    rig.pass(Some(Command::Activate(function())));
    rig.arrive(0, frames(0..40));
    rig.settle();
    assert_eq!(rig.take_sent(), frames(0..40).into_iter().map(|frame| (1, frame)).collect::<Vec<_>>());
    assert_eq!(rig.lcore.patience(), Patience::Tick);
}

#[test]
fn a_destination_processes_pkt_q_before_what_arrives_meanwhile() {
    let mut rig = Rig::new();
    rig.arrive(0, frames(500..510));
    rig.pass(Some(Command::ArmPktQ));
    assert_eq!(rig.events, [], "armed before the receive queues were found empty");
    rig.settle();
    assert_eq!(rig.events, [LcoreEvent::PktQArmed]);
    assert_eq!(rig.dropped(Cause::Stale), 10);
    rig.arrive(0, frames(0..200));
    rig.settle();
    assert_eq!(rig.lcore.pkt_q().records, 200);
    let empty = snapshot::digest(&snapshot::freeze(function().as_mut()));
    rig.pass(Some(Command::TakeOver(Synchronised { nf: function(), drops: None }, None)));
    assert_eq!(rig.digests, [empty], "the digest is of the state before the first packet");
    for round in 0..10 {
        rig.arrive(0, frames(200 + 10 * round..210 + 10 * round));
        rig.pass(None);
    }
    rig.settle();
    assert_eq!(rig.take_sent(), frames(0..300).into_iter().map(|frame| (1, frame)).collect::<Vec<_>>());
    let [LcoreEvent::PktQArmed, LcoreEvent::PktQDrained(totals)] = rig.events[..] else { panic!("{:?}", rig.events) };
    assert_eq!(totals.longest_packets, 200);
    assert!(totals.packets > 200);
}

#[test]
fn snapshot_and_statelets_together_are_the_state() {
    let mut rig = Rig::live();
    rig.arrive(0, frames(0..50));
    rig.settle();
    rig.arrive(0, frames(0..20));
    let (producer, mut consumer) = rtrb::RingBuffer::new(1 << 16);
    rig.pass(Some(Command::Freeze(producer, Announcing::Statelets, None)));
    assert_eq!(rig.events, [LcoreEvent::Frozen]);
    rig.arrive(1, frames(10..60));
    rig.settle();
    let mut bytes = vec![0; consumer.slots()];
    consumer.pop_entire_slice(&mut bytes).unwrap();
    let mut writer = snapshot::SnapshotWriter::new(rig.snapshots.remove(0), 0);
    let mut archive = Vec::new();
    while writer.write_next(&mut archive).unwrap() {}
    let mut copy = *function();
    let mut reader = snapshot::SnapshotReader::new();
    reader.receive(&archive, &mut copy).unwrap();
    let mut records = 0;
    let (mut decoder, mut input) = (Decoder::new(), &bytes[..]);
    while let Some(Record::Statelet { statelet_type, value }) = decoder.decode(&mut input).unwrap() {
        copy.install(statelet_type, value).unwrap();
        records += 1;
    }
    assert_eq!(records, 70);
    assert_eq!(snapshot::digest(&snapshot::freeze(&mut copy)), rig.digest());
}

#[test]
fn a_source_stops_once_its_receive_queues_are_empty_and_hands_late_packets_back() {
    let mut rig = Rig::live();
    rig.pass(Some(Command::Freeze(rtrb::RingBuffer::new(1 << 16).0, Announcing::Statelets, None)));
    rig.arrive(0, frames(0..100));
    rig.pass(Some(Command::Stop));
    assert_eq!(rig.lcore.patience(), Patience::None);
    assert_eq!(rig.events, [LcoreEvent::Frozen], "stopped with packets in its receive queues");
    rig.settle();
    let LcoreEvent::Stopped(totals) = rig.events[1] else { panic!("{:?}", rig.events) };
    assert_eq!((totals.workload.packets, totals.statelets.records), (100, 100));
    let digest = rig.digest();
    assert_eq!(rig.digests, [digest]);
    assert_eq!(rig.take_sent().len(), 100);
    rig.arrive(0, frames(100..101));
    rig.settle();
    rig.pass(Some(Command::Release(MIGRATION)));
    rig.arrive(1, frames(101..102));
    rig.settle();
    let handed_back = [(0u8, frame(100, 100)), (1, frame(101, 101))].map(|(port, frame)| {
        (port, encode(&Frame::HandBack { migration: MIGRATION, port: PortId(port), frame: &frame }))
    });
    assert_eq!(rig.take_sent(), handed_back);
    assert_eq!(rig.lcore.patience(), Patience::Forever);
}

/// What an lcore has written to `st_q_out`.
fn records(consumer: &mut rtrb::Consumer<u8>) -> Vec<(u16, Vec<u8>)> {
    let mut bytes = vec![0; consumer.slots()];
    consumer.pop_entire_slice(&mut bytes).unwrap();
    let (mut decoder, mut input, mut records) = (Decoder::new(), &bytes[..], Vec::new());
    while let Some(Record::Statelet { statelet_type, value }) = decoder.decode(&mut input).unwrap() {
        records.push((statelet_type, value.to_vec()));
    }
    records
}

#[test]
fn packets_that_are_duplicated_lead_another_instance_to_the_same_state() {
    let mut rig = Rig::live();
    rig.arrive(0, frames(0..50));
    rig.settle();
    let (producer, mut consumer) = rtrb::RingBuffer::new(1 << 16);
    let announcing = Announcing::of(protocol::Mode::Duplicate, 7);
    rig.pass(Some(Command::Freeze(producer, announcing, None)));
    rig.arrive(1, frames(10..60));
    rig.settle();
    let records = records(&mut consumer);
    assert_eq!(records[0].0, TYPE_ALIGN);
    let duplicates = records[1..].iter().map(|(statelet_type, value)| {
        assert_eq!(*statelet_type, TYPE_PACKET);
        let duplicate = Duplicate::decode_value(value).unwrap();
        (duplicate.port, duplicate.frame.to_vec())
    });
    assert!(duplicates.eq(frames(10..60).into_iter().map(|frame| (PortId(1), frame))));
    let mut copy = *function();
    let mut installer = Installer::new(protocol::Mode::Duplicate, 1);
    let mut stream = Vec::new();
    let mut writer = snapshot::SnapshotWriter::new(rig.snapshots.remove(0), 0);
    while writer.write_next(&mut stream).unwrap() {}
    snapshot::SnapshotReader::new().receive(&stream, &mut copy).unwrap();
    records.iter().for_each(|(statelet_type, value)| installer.install(&mut copy, *statelet_type, value).unwrap());
    let mut copy = installer.finish(Box::new(copy)).nf;
    assert_eq!(snapshot::digest(&snapshot::freeze(copy.as_mut())), rig.digest());
    rig.pass(Some(Command::Stop));
    rig.settle();
    let Some(LcoreEvent::Stopped(totals)) = rig.events.last() else { panic!("{:?}", rig.events) };
    assert_eq!((totals.workload.packets, totals.statelets.records), (50, 51));
}

/// What is dropped while it is a source is counted there, and what is dropped in `pkt_q` after the take-over.
#[test]
fn counters_of_drops_go_on_at_the_destination() {
    for mode in [protocol::Mode::Statelet, protocol::Mode::Duplicate, protocol::Mode::StopAndCopy] {
        let short = || vec![vec![0; 20]];
        let reason = SourceCounter::DROP_REASONS[0];
        let (mut source, mut destination) = (Rig::live(), Rig::new());
        source.arrive(0, short());
        source.settle();
        let (producer, mut consumer) = rtrb::RingBuffer::new(1 << 16);
        source.pass(Some(Command::Freeze(producer, Announcing::of(mode, 7), None)));
        source.arrive(0, short());
        source.pass(Some(Command::Stop));
        source.settle();
        let counted = source.lcore.io.dropped[reason];
        let records = records(&mut consumer);
        assert_eq!(records.last().map(|(statelet_type, _)| *statelet_type), Some(TYPE_DROPS));

        let mut installer = Installer::new(mode, 1);
        let mut nf = function();
        records.iter().for_each(|(of, value)| installer.install(nf.as_mut(), *of, value).unwrap());
        destination.pass(Some(Command::ArmPktQ));
        destination.settle();
        destination.arrive(0, short());
        destination.settle();
        destination.pass(Some(Command::TakeOver(installer.finish(nf), None)));
        destination.settle();
        assert_eq!(destination.lcore.io.dropped[reason], counted + 1, "{mode:?}");

        destination.pass(Some(Command::Reset));
        assert_eq!(destination.lcore.io.dropped[reason], 0, "they were the network function's");
    }
}

#[test]
fn counters_of_drops_that_cannot_be_announced_are_told_as_an_overflow() {
    let mut rig = Rig::live();
    rig.pass(Some(Command::Freeze(rtrb::RingBuffer::new(8).0, Announcing::Statelets, None)));
    rig.arrive(0, [vec![0; 20]]);
    rig.pass(Some(Command::Stop));
    rig.settle();
    let overflow = rig.events.iter().position(|event| *event == LcoreEvent::StateletOverflow);
    let stopped = rig.events.iter().position(|event| matches!(event, LcoreEvent::Stopped(_)));
    assert!(overflow.is_some() && overflow < stopped, "{:?}", rig.events);
}

#[test]
fn a_source_that_has_halted_drops_what_arrives_until_it_resumes() {
    let mut rig = Rig::live();
    rig.arrive(0, frames(0..5));
    rig.settle();
    rig.take_sent();
    let (producer, mut consumer) = rtrb::RingBuffer::new(1 << 16);
    let digest = rig.digest();
    rig.pass(Some(Command::Freeze(producer, Announcing::of(protocol::Mode::StopAndCopy, 7), None)));
    rig.arrive(0, frames(0..50));
    rig.settle();
    assert_eq!((rig.dropped(Cause::Halted), rig.take_sent().len(), rig.digest()), (50, 0, digest));
    assert_eq!(records(&mut consumer), []);
    // A drain packet is heard all the same, and what was in the queues before it is dropped with the rest.
    rig.arrive(0, frames(0..1));
    rig.pass(Some(Command::Stop));
    rig.settle();
    assert!(matches!(rig.events[..], [LcoreEvent::Frozen, LcoreEvent::Stopped(_)]), "{:?}", rig.events);
    assert_eq!((rig.dropped(Cause::Halted), rig.digests.as_slice()), (51, &[digest][..]));
    rig.pass(Some(Command::Resume(None)));
    rig.arrive(0, frames(5..10));
    rig.settle();
    assert_eq!(rig.take_sent().len(), 5);
}

#[test]
fn a_source_that_resumes_processes_what_waited_first() {
    let mut rig = Rig::live();
    rig.pass(Some(Command::Freeze(rtrb::RingBuffer::new(1 << 16).0, Announcing::Statelets, None)));
    rig.pass(Some(Command::Stop));
    rig.settle();
    rig.arrive(0, frames(0..10));
    rig.settle();
    assert_eq!(rig.take_sent(), []);
    rig.arrive(0, frames(10..20));
    rig.pass(Some(Command::Resume(None)));
    rig.settle();
    assert_eq!(rig.take_sent(), frames(0..20).into_iter().map(|frame| (1, frame)).collect::<Vec<_>>());
    assert_eq!(rig.events.last(), Some(&LcoreEvent::Resumed));
    assert_eq!(rig.lcore.st_q_out(), None, "upd_enable is clear again");
}

#[test]
fn every_ports_end_is_handed_back_once_however_scarce_buffers_are() {
    let mut rig = Rig::new();
    rig.pass(Some(Command::ArmPktQ));
    rig.arrive(0, frames(0..3));
    rig.settle();
    rig.lcore.io.buffers = 2;
    rig.pass(Some(Command::HandBack(MIGRATION, None)));
    assert_eq!(rig.lcore.pkt_q().records, 1);
    rig.lcore.io.buffers = 2;
    rig.pass(None);
    assert_eq!(rig.events, [LcoreEvent::PktQArmed]);
    rig.lcore.io.buffers = 1;
    rig.settle();
    let ends: Vec<_> = rig.take_sent().split_off(3);
    let end = |port| {
        let end = crate::protocol::inband::HandBackEnd {
            migration: MIGRATION,
            port: PortId(port),
            shard: ShardId(1),
            shards: 2,
        };
        (port, encode(&Frame::HandBackEnd(end)))
    };
    assert_eq!(ends, [end(0), end(1)]);
    let Some(LcoreEvent::HandedBack(totals)) = rig.events.last() else { panic!("{:?}", rig.events) };
    assert_eq!(totals.handed_back_packets, 3);
}

/// Another lcore got the drain packets, and this one has not run for a while.
#[test]
fn what_waits_in_a_receive_queue_is_handed_back_too() {
    let mut rig = Rig::new();
    rig.pass(Some(Command::ArmPktQ));
    rig.settle();
    rig.arrive(0, frames(0..BURST as u16 * 3));
    rig.pass(Some(Command::HandBack(MIGRATION, None)));
    assert!(!rig.events.iter().any(|event| matches!(event, LcoreEvent::HandedBack(_))), "{:?}", rig.events);
    rig.settle();
    let Some(LcoreEvent::HandedBack(totals)) = rig.events.last() else { panic!("{:?}", rig.events) };
    assert_eq!(totals.handed_back_packets, BURST as u64 * 3);
    assert_eq!(rig.lcore.io.dropped, BTreeMap::new());
}

#[test]
fn drain_packets_are_acknowledged_each_time_and_reported_at_times() {
    let mut rig = Rig::live();
    let (drain, bytes) = drain();
    for _ in 0..3 {
        rig.arrive(0, [bytes.clone()]);
        rig.pass(None);
    }
    assert_eq!(rig.events, [LcoreEvent::Drain(drain)]);
    assert_eq!(rig.take_sent(), vec![(0, encode(&Frame::DrainAck(drain))); 3]);
    rig.now += Duration::from_millis(10);
    rig.arrive(0, [bytes]);
    rig.pass(None);
    assert_eq!(rig.events, [LcoreEvent::Drain(drain); 2], "the first report may have come too early to count");
}

#[test]
fn in_band_frames_never_reach_the_network_function() {
    let mut rig = Rig::live();
    let (drain, mut broken) = drain();
    broken.truncate(20);
    rig.arrive(0, [broken, encode(&Frame::DrainAck(drain))]);
    rig.settle();
    assert_eq!((rig.dropped(Cause::InbandMalformed), rig.dropped(Cause::InbandUnexpected)), (1, 1));
    assert_eq!(rig.take_sent(), []);
}

#[test]
fn a_full_st_q_out_is_told_and_stops_no_packet() {
    let mut rig = Rig::live();
    rig.pass(Some(Command::Freeze(rtrb::RingBuffer::new(100).0, Announcing::Statelets, None)));
    rig.arrive(0, frames(0..30));
    rig.settle();
    assert_eq!(rig.events, [LcoreEvent::Frozen, LcoreEvent::StateletOverflow]);
    assert_eq!(rig.take_sent().len(), 30);
}

#[test]
fn a_pkt_q_that_fills_is_told_once_while_there_is_room_left() {
    let mut rig = Rig::new();
    for _ in 0..2 {
        rig.pass(Some(Command::ArmPktQ));
        rig.settle();
        for round in 0..10 {
            let before = rig.lcore.pkt_q().records;
            rig.arrive(0, vec![vec![0; 1500]; 120]);
            rig.settle();
            let told = rig.events.iter().filter(|event| **event == LcoreEvent::PktQNearlyFull).count();
            // A MiB holds 697 such frames.
            assert_eq!(told, usize::from(round >= 4), "round {round}");
            if told == 0 {
                assert_eq!(rig.lcore.pkt_q().records, before + 120);
            }
        }
        assert!(rig.dropped(Cause::PacketQueueFull) > 0);
        rig.pass(Some(Command::Discard));
        rig.events.clear();
    }
}

#[test]
fn a_report_that_was_not_taken_comes_again_first() {
    let mut rig = Rig::live();
    rig.lcore.pass(rig.now, Some(Command::Discard));
    rig.lcore.pass(rig.now, Some(Command::Gauges));
    let first = rig.lcore.poll_report().unwrap();
    assert!(matches!(first, Report::Event(LcoreEvent::Discarded(_))));
    rig.lcore.return_report(first);
    assert_eq!(rig.lcore.patience(), Patience::Tick);
    rig.pass(None);
    assert!(matches!(rig.events[..], [LcoreEvent::Discarded(_)]));
}

#[test]
fn a_sample_tells_the_state_it_began_with_and_ends_by_itself() {
    let mut rig = Rig::live();
    let before = rig.digest();
    rig.pass(Some(Command::Sample(Duration::from_millis(5))));
    assert_eq!(rig.samples, [before]);
    rig.arrive(0, (0..10).map(|number| frame(1, number)));
    rig.settle();
    let sampled = rig.lcore.sampled(rig.now).unwrap();
    assert_eq!(sampled.totals.workload.packets, 10);
    assert!(sampled.totals.statelets.records > 0);
    rig.now += Duration::from_millis(5);
    assert!(rig.lcore.sampled(rig.now).is_some(), "the last word");
    rig.arrive(0, [frame(1, 11)]);
    rig.settle();
    assert!(rig.lcore.sampled(rig.now).is_none());
    assert!(rig.snapshots.is_empty() && rig.events.is_empty());
}

#[test]
fn freezing_takes_a_network_function() {
    let mut rig = Rig::new();
    rig.lcore.pass(rig.now, Some(Command::Freeze(rtrb::RingBuffer::new(100).0, Announcing::Statelets, None)));
    assert!(matches!(rig.lcore.poll_report(), Some(Report::Impossible("freeze"))));
}

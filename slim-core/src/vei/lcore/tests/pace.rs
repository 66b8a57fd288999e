//! Packets that leave at a pace.

use super::*;
use crate::protocol::control::Pace;

/// `leave` is told what to do with a `pkt_q` of 100 packets: 50 of them at once, and then one a pass.
fn paced(rig: &mut Rig, leave: impl FnOnce(Option<Pace>) -> Command<SourceCounter>) {
    rig.arrive(0, frames(0..100));
    rig.settle();
    assert_eq!((rig.take_sent().len(), rig.lcore.pkt_q().records), (0, 100));
    let len = frames(0..1)[0].len() as u64;
    rig.pass(Some(leave(Some(Pace { rate_bytes_per_s: 10_000 * len, burst_bytes: 50 * len }))));
    assert_eq!((rig.lcore.pkt_q().records, rig.lcore.patience()), (50, Patience::Tick));
    // Newer ones have to wait behind it.
    rig.arrive(0, frames(100..110));
    for left in (0..60).rev() {
        assert_eq!(rig.lcore.patience(), Patience::Tick);
        rig.pass(None);
        assert_eq!(rig.lcore.pkt_q().records, left);
    }
    rig.settle();
}

#[test]
fn pkt_q_is_processed_at_its_pace() {
    let mut rig = Rig::new();
    rig.pass(Some(Command::ArmPktQ));
    rig.settle();
    paced(&mut rig, |pace| Command::TakeOver(Synchronised { nf: function(), drops: None }, pace));
    assert_eq!(rig.take_sent(), frames(0..110).into_iter().map(|frame| (1, frame)).collect::<Vec<_>>());
    assert!(matches!(rig.events.last(), Some(LcoreEvent::PktQDrained(_))), "{:?}", rig.events);
    let told = rig.events.len();
    rig.arrive(0, frames(0..10));
    rig.pass(None);
    let at_once = rig.take_sent().len();
    assert!(at_once < 10, "{at_once} of 10: the pace goes on");
    for _ in 0..70 {
        rig.pass(None);
    }
    rig.arrive(0, frames(10..110));
    rig.settle();
    assert_eq!(rig.take_sent().len(), 110 - at_once, "the pace is over");
    assert_eq!(rig.events.len(), told);
}

#[test]
fn a_source_lets_packets_go_at_its_pace_while_its_state_moves() {
    let mut rig = Rig::live();
    let len = frames(0..1)[0].len() as u64;
    let pace = Some(Pace { rate_bytes_per_s: 10_000 * len, burst_bytes: 50 * len });
    rig.pass(Some(Command::Freeze(rtrb::RingBuffer::new(1 << 16).0, Announcing::Statelets, pace)));
    rig.take_sent();
    // As a host hands over what it has held up.
    rig.arrive(0, frames(0..200));
    for _ in 0..10 {
        rig.pass(None);
    }
    let sent = rig.take_sent();
    // 60 if statelets took nothing.
    assert!((30..60).contains(&sent.len()), "{}", sent.len());
    assert_eq!(rig.lcore.pkt_q().records, 200 - sent.len() as u64);
    // What waits is processed before the source has stopped, and in order.
    rig.pass(Some(Command::Stop));
    assert!(!rig.events.iter().any(|event| matches!(event, LcoreEvent::Stopped(_))));
    while rig.lcore.pkt_q().records > 0 {
        rig.pass(None);
    }
    rig.settle();
    let all: Vec<_> = sent.into_iter().chain(rig.take_sent()).collect();
    assert!(all == frames(0..200).into_iter().map(|frame| (1, frame)).collect::<Vec<_>>());
    let Some(LcoreEvent::Stopped(totals)) = rig.events.last() else { panic!("{:?}", rig.events) };
    assert_eq!(totals.workload.packets, 200);
}

#[test]
fn a_source_that_resumes_keeps_the_pace() {
    let mut rig = Rig::live();
    rig.pass(Some(Command::Freeze(rtrb::RingBuffer::new(1 << 16).0, Announcing::Statelets, None)));
    rig.pass(Some(Command::Stop));
    rig.settle();
    paced(&mut rig, Command::Resume);
    assert_eq!(rig.events.last(), Some(&LcoreEvent::Resumed));
}

#[test]
fn pkt_q_is_handed_back_at_its_pace() {
    let mut rig = Rig::new();
    rig.pass(Some(Command::ArmPktQ));
    rig.settle();
    paced(&mut rig, |pace| Command::HandBack(MIGRATION, pace));
    let Some(LcoreEvent::HandedBack(totals)) = rig.events.last() else { panic!("{:?}", rig.events) };
    assert_eq!(totals.handed_back_packets, 110);
}

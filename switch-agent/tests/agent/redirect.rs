//! Redirect, drain and rollback over real rings.

use crate::rig::*;
use slim_core::nf::{PortId, ShardId};
use slim_core::protocol::control::{RedirectState, SwitchEvent, SwitchReply, SwitchRequest};
use slim_core::protocol::inband::{Drain, Frame, HandBackEnd, acknowledge_in_place, is_inband};
use slim_core::protocol::{MigrationId, Nonce, PathIndex};

const MIGRATION: MigrationId = MigrationId(0x77);

fn redirect(from: &str, to: &str, nonce: u32, hold_ms: u32) -> SwitchRequest {
    let (from, to, nonce) = (name(from), name(to), Nonce(nonce));
    SwitchRequest::Redirect { migration: MIGRATION, from, to, nonce, rollback: hold_ms > 0, hold_ms }
}

fn state(agent: &mut Agent) -> RedirectState {
    match agent.control.ask(SwitchRequest::RedirectStatus { migration: MIGRATION }) {
        Ok(SwitchReply::Redirect { state: Some(state) }) => state,
        other => panic!("{other:?}"),
    }
}

fn encode(frame: Frame<'_>) -> Vec<u8> {
    let mut bytes = vec![0; frame.encoded_len()];
    frame.encode(&mut bytes).expect("encodes");
    bytes
}

/// Receives until a drain packet of stage `nonce` comes; says what came before and acknowledges it if `ack`.
fn until_drained(peer: &mut Peer, nonce: u32, ack: bool) -> (Vec<u32>, Drain) {
    let mut data = Vec::new();
    let mut drain = None;
    wait_until("the drain packet", || {
        for mut frame in peer.received() {
            if !is_inband(&frame) {
                assert!(drain.is_none(), "frame {} behind the drain packet", number(&frame));
                data.push(number(&frame));
                continue;
            }
            let found = acknowledge_in_place(&mut frame).expect("a drain packet");
            if ack {
                peer.send(&frame);
            }
            if found.nonce == Nonce(nonce) {
                drain = Some(found);
            }
        }
        drain.is_some()
    });
    (data, drain.expect("it came"))
}

#[test]
fn a_redirect_in_the_middle_of_traffic_loses_and_reorders_nothing() {
    let mut agent = Agent::with_instances(WIDE);
    let mut outer = agent.peer("inside");
    let mut source = ["nat-a.in", "nat-a.out"].map(|port| agent.peer(port));
    let mut target = agent.peer("nat-b.in");
    for number in 0..500 {
        outer.send(&frame(number, 128));
    }
    wait_until("the first ones arrive", || agent.port("inside").counters["rx_packets"] > 0);
    agent.control.done(redirect("nat-a", "nat-b", 1, 0));
    for number in 500..1000 {
        outer.send(&frame(number, 128));
    }
    let (mut before, drain) = until_drained(&mut source[0], 1, false);
    assert_eq!((drain.migration, drain.path.get(), drain.paths.len()), (MIGRATION, 0, 2));
    let after: Vec<u32> = target.receive(1000 - before.len()).iter().map(|frame| number(frame)).collect();
    assert!(!before.is_empty() && !after.is_empty());
    before.extend(after);
    assert_eq!(before, (0..1000).collect::<Vec<_>>());

    // Nobody has acknowledged: both drain packets come again.
    until_drained(&mut source[0], 1, false);
    until_drained(&mut source[1], 1, false);
    assert!(state(&mut agent).paths.iter().all(|path| !path.acked));
    until_drained(&mut source[1], 1, true);
    let acked = |path| {
        let path = PathIndex::new(path).expect("a path");
        SwitchEvent::DrainAcked { migration: MIGRATION, nonce: Nonce(1), path }
    };
    agent.control.wait_event(&acked(1));
    assert!(!state(&mut agent).drained);
    until_drained(&mut source[0], 1, true);
    agent.control.wait_event(&acked(0));
    agent.control.wait_event(&SwitchEvent::Drained { migration: MIGRATION, nonce: Nonce(1) });
    let state = state(&mut agent);
    assert!(state.drained && state.finished);
    assert!(state.paths[0].sent >= 2 && state.paths[1].sent >= 2);

    // Asking again changes nothing: packets go on to nat-b, and nobody is drained.
    let sent = agent.status().counters["drains_sent"];
    agent.control.done(redirect("nat-a", "nat-b", 1, 0));
    outer.send(&frame(1000, 128));
    assert_eq!(number(&target.receive(1)[0]), 1000);
    let counters = agent.settled_counters();
    assert_eq!(counters["drains_sent"], sent);
}

#[test]
fn a_rollback_hands_back_first_and_lets_the_rest_follow() {
    let mut agent = Agent::with_instances(WIDE);
    let mut outer = agent.peer("inside");
    let mut source = agent.peer("nat-a.in");
    let mut target = ["nat-b.in", "nat-b.out"].map(|port| agent.peer(port));
    agent.control.done(redirect("nat-a", "nat-b", 1, 0));
    for number in 0..300 {
        outer.send(&frame(number, 1500));
    }
    agent.control.done(redirect("nat-b", "nat-a", 2, 50_000));
    for number in 300..600 {
        outer.send(&frame(number, 1500));
    }
    // nat-b keeps what it has received until the drain packet says that nothing follows.
    let (kept, _) = until_drained(&mut target[0], 2, true);
    until_drained(&mut target[1], 2, true);
    for &number in &kept {
        let frame = frame(number, 1500);
        target[0].send(&encode(Frame::HandBack { migration: MIGRATION, port: PortId(0), frame: &frame }));
    }
    for port in [0, 1] {
        let end = HandBackEnd { migration: MIGRATION, port: PortId(port), shard: ShardId(0), shards: 1 };
        target[usize::from(port)].send(&encode(Frame::HandBackEnd(end)));
    }
    let mut data = Vec::new();
    wait_until("everything arrives at nat-a", || {
        data.extend(source.received().into_iter().filter(|frame| !is_inband(frame)));
        data.len() == 600
    });
    for (expected, received) in data.iter().enumerate() {
        assert_eq!(*received, frame(expected as u32, 1500), "number {expected}");
    }
    let finished = |event: &SwitchEvent| match *event {
        SwitchEvent::RollbackFinished { handed_back_packets, dropped_packets, timed_out, .. } => {
            assert_eq!((handed_back_packets, dropped_packets, timed_out), (kept.len() as u64, 0, false));
            true
        }
        _ => false,
    };
    wait_until("the rollback's end is told", || {
        state(&mut agent).finished && agent.control.events.iter().any(finished)
    });
    assert_eq!(state(&mut agent).handed_back_packets, kept.len() as u64);
    agent.settled_counters();
}

#[test]
fn a_hold_that_nobody_ends_runs_out_and_loses_nothing() {
    let mut agent = Agent::with_instances(WIDE);
    let (mut outer, mut source) = (agent.peer("inside"), agent.peer("nat-a.in"));
    agent.control.done(redirect("nat-a", "nat-b", 1, 0));
    agent.control.done(redirect("nat-b", "nat-a", 2, 300));
    outer.send(&frame(7, 60));
    let mut data = Vec::new();
    wait_until("the held frame arrives", || {
        data.extend(source.received().into_iter().filter(|frame| !is_inband(frame)));
        !data.is_empty()
    });
    assert_eq!(data, [frame(7, 60)]);
    agent.settled_counters();
    let timed_out = |event: &SwitchEvent| matches!(event, SwitchEvent::RollbackFinished { timed_out: true, .. });
    assert!(agent.control.events.iter().any(timed_out));
}

#[test]
fn in_band_frames_from_outside_stay_outside() {
    let mut agent = Agent::with_instances(WIDE);
    let (mut outer, mut inner) = (agent.peer("inside"), agent.peer("nat-a.in"));
    let end = HandBackEnd { migration: MIGRATION, port: PortId(0), shard: ShardId(0), shards: 1 };
    outer.send(&encode(Frame::HandBackEnd(end)));
    inner.send(&encode(Frame::HandBackEnd(end)));
    outer.send(&frame(1, 60));
    inner.send(&frame(2, 60));
    assert_eq!((inner.receive(1), outer.receive(1)), (vec![frame(1, 60)], vec![frame(2, 60)]));
    let counters = agent.settled_counters();
    assert_eq!((counters["dropped_inband_forbidden"], counters["consumed_packets"]), (1, 1));
}

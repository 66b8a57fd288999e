//! Frames through paths, delay lines, meters and the management segment.

use crate::rig::*;
use slim_core::protocol::control::{LinkSettings, SwitchEvent, SwitchRequest};
use std::time::{Duration, Instant};

const DELAY: Duration = Duration::from_micros(2500);

#[test]
fn frames_of_all_lengths_cross_both_ways_whole_in_order_and_never_early() {
    let mut agent = Agent::with_instances(WIDE);
    let (mut outer, mut inner) = (agent.peer("inside"), agent.peer("nat-a.in"));
    for (from, to) in [(0, 1), (1, 0)] {
        let peers = [&mut outer, &mut inner];
        let mut next = 0;
        let mut sent_at = Vec::new();
        for (number, len) in (60..=1600).step_by(7).enumerate() {
            // Before the frame goes: the time it was under way is at least what is measured.
            sent_at.push(Instant::now());
            peers[from].send(&frame(number as u32, len));
            for received in peers[to].received() {
                check(&received, &mut next, &sent_at);
            }
        }
        wait_until("every frame", || {
            for received in peers[to].received() {
                check(&received, &mut next, &sent_at);
            }
            next as usize == sent_at.len()
        });
    }
    let counters = agent.settled_counters();
    assert_eq!((counters["received_packets"], counters["sent_packets"]), (442, 442));

    fn check(received: &[u8], next: &mut u32, sent_at: &[Instant]) {
        let under_way = sent_at[*next as usize].elapsed();
        assert!(under_way >= DELAY, "frame {next} after {under_way:?}");
        assert_eq!(received, frame(*next, 60 + 7 * *next as usize));
        *next += 1;
    }
}

#[test]
fn the_meter_drops_what_exceeds_burst_and_rate_and_counts_it() {
    let link = LinkSettings { rate_bps: 100_000, burst_bytes: 20_000, delay_us: 0 };
    let mut agent = Agent::with_instances(link);
    let (mut outer, mut inner) = (agent.peer("inside"), agent.peer("nat-a.in"));
    let begun = Instant::now();
    for number in 0..200 {
        outer.send(&frame(number, 1000));
        inner.send(&frame(number, 1000));
    }
    wait_until("all have arrived", || agent.status().counters["received_packets"] == 400);
    let counters = agent.settled_counters();
    let elapsed_s = begun.elapsed().as_secs_f64();
    for (peer, drops) in [(&mut outer, "dropped_meter_from_instance"), (&mut inner, "dropped_meter_to_instance")] {
        // What has been sent to a peer is read a moment later.
        let (mut passed, patience) = (0, Instant::now() + Duration::from_secs(5));
        while passed as u64 + counters[drops] < 200 && Instant::now() < patience {
            passed += peer.received().len();
            std::thread::sleep(Duration::from_millis(1));
        }
        let conforming = 20.0 + elapsed_s * 100_000.0 / 8_000.0;
        assert!(passed >= 20 && passed as f64 <= conforming, "{passed} passed, {conforming} conform");
        assert_eq!(passed as u64 + counters[drops], 200);
        assert!(counters[drops] > 0);
    }
}

#[test]
fn a_new_link_setting_applies_at_once() {
    let mut agent = Agent::with_instances(WIDE);
    let (mut outer, mut inner) = (agent.peer("inside"), agent.peer("nat-a.in"));
    let delay = Duration::from_millis(150);
    let link = LinkSettings { delay_us: 150_000, ..WIDE };
    agent.control.done(SwitchRequest::LinkSet { instance: name("nat-a"), link });
    let begun = Instant::now();
    outer.send(&frame(0, 60));
    inner.receive(1);
    assert!(begun.elapsed() >= delay);
}

#[test]
fn a_stalled_peer_gets_everything_later_and_in_order() {
    let mut agent = Agent::with_instances(WIDE);
    let (mut outer, mut inner) = (agent.peer("inside"), agent.peer("nat-a.in"));
    // More than its ring of 1024 holds, less than the egress queue's bound of 8192.
    let count = 5000;
    for number in 0..count {
        outer.send(&frame(number, 64));
    }
    wait_until("the egress queue fills", || {
        let port = agent.port("nat-a.in");
        port.counters["tx_packets"] + port.counters["egress_waiting_packets"] == u64::from(count)
    });
    assert!(agent.port("nat-a.in").counters["egress_waiting_packets_max"] > 1024);
    let numbers: Vec<u32> = inner.receive(count as usize).iter().map(|frame| number(frame)).collect();
    assert_eq!(numbers, (0..count).collect::<Vec<_>>());
    agent.settled_counters();
}

#[test]
fn a_peer_that_comes_back_is_served_again() {
    let mut agent = Agent::with_instances(WIDE);
    let mut outer = agent.peer("inside");
    let link = |up| SwitchEvent::PortLink { port: name("nat-a.in"), up };
    for round in 0..3 {
        let mut inner = agent.peer("nat-a.in");
        agent.control.wait_event(&link(true));
        outer.send(&frame(round, 100));
        assert_eq!(inner.receive(1), [frame(round, 100)]);
        inner.send(&frame(round, 200));
        assert_eq!(outer.receive(1), [frame(round, 200)]);
        drop(inner);
        agent.control.wait_event(&link(false));
        agent.control.events.clear();
        outer.send(&frame(round, 300));
        wait_until("the frame for nobody is dropped", || {
            agent.status().counters["dropped_link_down"] == u64::from(round) + 1
        });
    }
    agent.settled_counters();
}

#[test]
fn management_ports_are_switched_among_each_other() {
    let mut agent = Agent::with_instances(WIDE);
    agent.add_vhost("mgmt");
    agent.control.done(SwitchRequest::ManagementSet { ports: names(&["mgmt"]) });
    let mut peers = ["mgmt", "nat-a.mgmt", "nat-b.mgmt"].map(|port| agent.peer(port));
    let addressed = |to: [u8; 6], from: u8, number| {
        let mut frame = frame(number, 90);
        frame[..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&mac(from));
        frame
    };
    fn mac(of: u8) -> [u8; 6] {
        [2, 0, 0, 0, 1, of]
    }
    let hello = addressed([0xff; 6], 0, 1);
    peers[0].send(&hello);
    assert_eq!(peers[1].receive(1), std::slice::from_ref(&hello));
    assert_eq!(peers[2].receive(1), [hello]);
    let answer = addressed(mac(0), 1, 2);
    peers[1].send(&answer);
    assert_eq!(peers[0].receive(1), [answer]);
    let direct = addressed(mac(1), 2, 3);
    let begun = Instant::now();
    peers[2].send(&direct);
    assert_eq!(peers[1].receive(1), [direct]);
    assert!(begun.elapsed() >= 2 * DELAY, "both instances' links");
    agent.settled_counters();
    assert!(peers.iter_mut().all(|peer| peer.received().is_empty()));
}

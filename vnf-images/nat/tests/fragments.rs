//! Fragments (RFC 4787 R14): in and out of order, bounded, and moving with the rest of the state.

mod common;

use common::*;
use core::net::SocketAddrV4;
use slim_core::nf::{NetworkFunction, PortId};
use slim_nat::{Config, Drop};

const PAYLOAD: [u8; 100] = [7; 100];

fn request(source: SocketAddrV4) -> Vec<u8> {
    udp(IN, source, socket(server(10), 7), &PAYLOAD)
}

/// Delivers frames, and returns everything that was sent out of `port`.
fn through(lab: &mut Lab, at: PortId, port: PortId, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    for frame in frames {
        lab.bench.emitted.clear();
        if let Outcome::Sent(to, frame) = lab.deliver(at, frame) {
            assert_eq!(to, port);
            sent.push(frame);
        }
        sent.extend(lab.bench.emitted.drain(..).map(|(to, frame)| {
            assert_eq!(to, port);
            frame
        }));
    }
    sent
}

#[test]
fn rfc4787_r14_fragments_in_and_out_of_order() {
    let fragments = cut(&request(socket(host(10), 5000)), 24, 99);
    assert_eq!(fragments.len(), 5);
    for order in [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3], [1, 2, 3, 4, 0]] {
        let mut lab = Lab::resolved(&config());
        let sent = through(&mut lab, IN, OUT, &order.map(|index| fragments[index].clone()));
        assert_eq!(sent.len(), 5, "{order:?}");
        let whole = join(&sent);
        let (from, to) = ends(&whole);
        assert_eq!((*from.ip(), to), (EXTERIOR, socket(server(10), 7)));
        assert_eq!(checksums(&whole), Some((true, true)));
        assert_eq!(whole[42..], PAYLOAD);
        let counted = lab.nat.host(host(10)).unwrap();
        assert_eq!((counted.packets_outbound, counted.bytes_outbound), (5, 5 * 20 + 8 + 100));
        assert_eq!(lab.gauge("fragments_held"), 0);

        let reply = cut(&udp(OUT, socket(server(10), 7), from, &PAYLOAD), 32, 12);
        let sent =
            through(&mut lab, OUT, IN, &[reply[2].clone(), reply[0].clone(), reply[1].clone(), reply[3].clone()]);
        let whole = join(&sent);
        assert_eq!(ends(&whole), (socket(server(10), 7), socket(host(10), 5000)));
        assert_eq!(checksums(&whole), Some((true, true)));
    }
}

#[test]
fn tcp_and_queries_come_in_fragments_too() {
    let mut lab = Lab::resolved(&config());
    let syn = tcp(IN, socket(host(10), 5000), socket(server(10), 80), SYN, &PAYLOAD);
    let whole = join(&through(&mut lab, IN, OUT, &cut(&syn, 40, 1)));
    assert_eq!(checksums(&whole), Some((true, true)));
    let query = echo(IN, host(10), server(10), 8, 7);
    assert_eq!(read_icmp(&join(&through(&mut lab, IN, OUT, &cut(&query, 8, 2)))).data, b"abcdefgh");
}

#[test]
fn hairpinned_fragments_arrive() {
    let mut lab = Lab::resolved(&Config { filtering: slim_nat::config::Filtering::EndpointIndependent, ..config() });
    let target = lab.udp_out(socket(host(11), 6000), socket(server(10), 7));
    let fragments = cut(&udp(IN, socket(host(10), 5000), target, &PAYLOAD), 48, 5);
    let whole = join(&through(&mut lab, IN, IN, &[fragments[1].clone(), fragments[0].clone(), fragments[2].clone()]));
    assert_eq!(ends(&whole).1, socket(host(11), 6000));
    assert_eq!(checksums(&whole), Some((true, true)));
    assert_eq!(lab.nat.host(host(11)).unwrap().packets_inbound, 3);
}

#[test]
fn trains_of_different_hosts_are_told_apart() {
    let mut lab = Lab::resolved(&config());
    let trains = [10, 11].map(|n| cut(&request(socket(host(n), 5000)), 48, 99));
    let mixed = [&trains[1][2], &trains[0][0], &trains[1][0], &trains[0][1], &trains[1][1], &trains[0][2]];
    let sent = through(&mut lab, IN, OUT, &mixed.map(Clone::clone));
    assert_eq!(sent.len(), 6);
    assert_eq!(lab.gauge("fragment_trains"), 2);
}

#[test]
fn what_is_held_is_bounded_and_expires() {
    let mut lab = Lab::resolved(&Config { fragments_held_max: 8, ..config() });
    let late = |n: u8, ident: u16| cut(&request(socket(host(n), 5000)), 48, ident)[1].clone();
    for ident in 0..2 {
        assert_eq!(lab.outbound(&late(10, ident)), Outcome::Consumed);
    }
    lab.outbound(&late(10, 2)).dropped(Drop::FragmentsFull);
    assert_eq!(lab.outbound(&late(10, 1)), Outcome::Consumed, "the same once more needs no room");
    for n in 11..14 {
        for ident in 0..2 {
            assert_eq!(lab.outbound(&late(n, ident)), Outcome::Consumed);
        }
    }
    lab.outbound(&late(14, 0)).dropped(Drop::FragmentsFull);
    assert_eq!(lab.gauge("fragments_held"), 8);
    lab.pass(62);
    assert_eq!((lab.gauge("fragments_held"), lab.gauge("held_fragments_lost")), (0, 8));
    assert_eq!(lab.outbound(&late(14, 0)), Outcome::Consumed);
}

#[test]
fn trains_are_bounded_and_expire() {
    let mut lab = Lab::resolved(&Config { fragment_trains_max: 3, ..config() });
    let first = |n: u8, ident: u16| cut(&request(socket(host(n), 5000)), 48, ident)[0].clone();
    for n in 10..13 {
        lab.outbound(&first(n, 1)).sent_to(OUT);
    }
    lab.outbound(&first(13, 1)).dropped(Drop::FragmentsFull);
    lab.outbound(&first(11, 1)).sent_to(OUT);
    lab.pass(62);
    assert_eq!(lab.gauge("fragment_trains"), 0);
    lab.arp_reply(OUT, server(10));
    lab.outbound(&first(13, 1)).sent_to(OUT);
}

/// A host that sends packets in fragments all the time, five a second as `ping -s 4000` does.
#[test]
fn a_train_makes_room_soon_after_its_last_fragment() {
    let mut lab = Lab::resolved(&Config { fragment_trains_max: 80, ..config() });
    for second in 0..100u16 {
        for number in 0..5 {
            let fragments = cut(&request(socket(host(10), 5000)), 48, 5 * second + number);
            assert_eq!(fragments.len(), 3);
            // In order, and the last one first.
            let order = if number % 2 == 0 { [0, 1, 2] } else { [2, 0, 1] };
            assert_eq!(through(&mut lab, IN, OUT, &order.map(|index| fragments[index].clone())).len(), 3);
        }
        lab.pass(1);
        lab.arp_reply(OUT, server(10));
    }
    assert!(lab.gauge("fragment_trains") <= 20);
    lab.pass(4);
    assert_eq!(lab.gauge("fragment_trains"), 0);
}

#[test]
fn what_the_last_fragment_has_overtaken_still_passes() {
    let mut lab = Lab::resolved(&config());
    let fragments = cut(&request(socket(host(10), 5000)), 48, 7);
    assert_eq!(through(&mut lab, IN, OUT, &[fragments[0].clone(), fragments[2].clone()]).len(), 2);
    lab.pass(1);
    assert_eq!(through(&mut lab, IN, OUT, &[fragments[1].clone()]).len(), 1);
}

#[test]
fn rfc6888_r5_a_fourth_of_the_trains_may_be_one_subscribers() {
    let mut lab = Lab::resolved(&Config { fragment_trains_max: 8, ..config() });
    let first = |n: u8, ident: u16| cut(&request(socket(host(n), 5000)), 48, ident)[0].clone();
    for ident in 0..2 {
        lab.outbound(&first(10, ident)).sent_to(OUT);
    }
    lab.outbound(&first(10, 2)).dropped(Drop::FragmentsFull);
    lab.outbound(&first(10, 1)).sent_to(OUT);
    lab.outbound(&first(11, 2)).sent_to(OUT);
    lab.pass(62);
    lab.arp_reply(OUT, server(10));
    lab.outbound(&first(10, 2)).sent_to(OUT);
}

#[test]
fn fragments_that_would_not_be_forwarded_are_not_held() {
    let mut lab = Lab::resolved(&config());
    let stranger = udp(IN, socket([10, 9, 0, 1].into(), 1), socket(server(10), 7), &PAYLOAD);
    lab.outbound(&cut(&stranger, 48, 1)[1]).dropped(Drop::SourceInvalid);
    let elsewhere = udp(OUT, socket(server(10), 7), socket([10, 2, 0, 99].into(), 7), &PAYLOAD);
    lab.inbound(&cut(&elsewhere, 48, 1)[1]).dropped(Drop::DestinationInvalid);
    let long = udp(IN, socket(host(10), 1), socket(server(10), 7), &[0; 3200]);
    lab.outbound(&cut(&long, 1600, 1)[1]).dropped(Drop::FragmentTooLong);
}

#[test]
fn a_half_received_train_goes_on_at_another_instance() {
    let fragments = cut(&request(socket(host(10), 5000)), 24, 99);
    for (before, after) in [([0, 2], [1, 3]), ([3, 1], [0, 2])] {
        let mut lab = Lab::resolved(&config());
        let mut sent = through(&mut lab, IN, OUT, &before.map(|index| fragments[index].clone()));
        let snapshot = lab.freeze();
        let mut other = Lab::with_seed(&config(), 99);
        adopt(&mut other.nat, &snapshot);
        other.nat.take_over(other.bench.now);
        sent.extend(through(&mut other, IN, OUT, &after.map(|index| fragments[index].clone())));
        sent.extend(through(&mut other, IN, OUT, &[fragments[4].clone()]));
        assert_eq!(checksums(&join(&sent)), Some((true, true)));
    }
}

//! What the gateway does with packets (§VI-C), and what it tells of them.

mod common;

use common::*;
use slim_core::nf::{ConfigError, NetworkFunction, Shard, ShardId};
use slim_core::packet::{ArpOperation, ETHERNET_LEN, Ethernet, Ipv4, MacAddr, Udp, emit, ether_type};
use slim_core::table::ScanCursor;
use slim_core::time::Duration;
use slim_gateway::statelet::Subscriber;
use slim_gateway::{Config, Drop, Gateway, IN, OUT, tag};
use std::net::SocketAddrV4;

#[test]
fn tag_is_taken_off_towards_the_outside() {
    let mut lab = Lab::new(&config());
    let (port, frame) = lab.process(IN, &from_cell(subscriber(10), 7, 0)).unwrap();
    assert_eq!(port, OUT);
    let (ethernet, payload) = Ethernet::parse(&frame).unwrap();
    assert_eq!((ethernet.source(), ethernet.destination()), (EXTERIOR_MAC, ROUTER_MAC));
    assert_eq!(ethernet.ether_type(), ether_type::IPV4);
    let (ip, payload) = Ipv4::parse(payload).unwrap();
    assert!(ip.checksum_is_correct());
    assert_eq!(ip.ttl(), Ipv4::parse(&untagged(subscriber(10))[ETHERNET_LEN..]).unwrap().0.ttl() - 1);
    let (udp, data) = Udp::parse(payload).unwrap();
    assert_eq!((ip.source(), udp.source()), (subscriber(10).address, subscriber(10).port));
    assert!(udp.checksum_is_correct(ip.pseudo_header(udp.length()), data));
    assert_eq!(data, b"payload");
}

#[test]
fn packets_from_outside_go_to_the_cell_last_announced() {
    let mut lab = Lab::new(&config());
    assert_eq!(lab.cell_of(subscriber(10)), Err(Drop::UnknownSubscriber));
    lab.process(IN, &from_cell(subscriber(10), 7, 0)).unwrap();
    lab.process(IN, &from_cell(subscriber(11), 8, 0)).unwrap();
    assert_eq!((lab.cell_of(subscriber(10)), lab.cell_of(subscriber(11))), (Ok(7), Ok(8)));

    let (port, frame) = lab.process(OUT, &from_outside(subscriber(10))).unwrap();
    let (ethernet, rest) = Ethernet::parse(&frame).unwrap();
    assert_eq!((port, ethernet.ether_type()), (IN, tag::ETHER_TYPE));
    assert_eq!((ethernet.source(), ethernet.destination()), (INTERIOR_MAC, CELLS_MAC));
    let (ip, _) = Ipv4::parse(&rest[tag::LEN..]).unwrap();
    assert!(ip.checksum_is_correct());
    assert_eq!(ip.destination(), subscriber(10).address);
}

#[test]
fn hand_over_has_effect_with_the_packet_that_announces_it() {
    let mut lab = Lab::new(&config());
    lab.process(IN, &from_cell(subscriber(10), 7, 0)).unwrap();
    lab.process(IN, &from_cell(subscriber(10), 7, 9)).unwrap();
    assert_eq!(lab.cell_of(subscriber(10)), Ok(9));
    lab.process(IN, &from_cell(subscriber(10), 9, 0)).unwrap();
    assert_eq!(lab.cell_of(subscriber(10)), Ok(9));
    assert_eq!(lab.gateway.association(subscriber(10)).unwrap().hand_overs, 1);
    let listed = lab.gateway.subscribers(&mut ScanCursor::default());
    let [of_10] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!(of_10.address, subscriber(10).address);
    let counters: Vec<_> = Gateway::SUBSCRIBER_COUNTERS.iter().zip(&of_10.counters).collect();
    assert_eq!(counters, [(&"hand_overs", &1), (&"cell", &9), (&"port", &u64::from(subscriber(10).port))]);
    // A packet from another cell tells as much as the announcement that got lost.
    lab.process(IN, &from_cell(subscriber(10), 12, 0)).unwrap();
    assert_eq!(lab.cell_of(subscriber(10)), Ok(12));
}

#[test]
fn only_hand_overs_are_announced_and_take_fifty_bytes() {
    let mut lab = Lab::new(&config());
    lab.process(IN, &from_cell(subscriber(10), 7, 0)).unwrap();
    assert_eq!(lab.announced(), [(1, 50)], "attached");
    for _ in 0..100 {
        lab.env.advance(Duration::from_millis(50));
        lab.process(IN, &from_cell(subscriber(10), 7, 0)).unwrap();
        lab.cell_of(subscriber(10)).unwrap();
        lab.gateway.tick(&mut lab.env);
    }
    assert_eq!(lab.announced(), []);
    lab.process(IN, &from_cell(subscriber(10), 7, 8)).unwrap();
    lab.process(IN, &from_cell(subscriber(10), 8, 0)).unwrap();
    assert_eq!(lab.announced(), [(1, 50)], "handed over");
}

#[test]
fn silent_subscribers_are_detached_and_others_are_not() {
    let mut lab = Lab::new(&config());
    lab.process(IN, &from_cell(subscriber(10), 7, 0)).unwrap();
    lab.process(IN, &from_cell(subscriber(11), 7, 0)).unwrap();
    for _ in 0..75 {
        lab.env.advance(Duration::from_secs(1));
        lab.gateway.tick(&mut lab.env);
        lab.process(IN, &from_cell(subscriber(11), 7, 0)).unwrap();
    }
    assert_eq!(lab.cell_of(subscriber(10)), Err(Drop::UnknownSubscriber));
    assert_eq!(lab.cell_of(subscriber(11)), Ok(7));
    assert!(lab.announced().contains(&(2, 10)));
}

#[test]
fn a_full_table_refuses_new_subscribers_and_keeps_the_others() {
    let mut lab = Lab::new(&Config { subscribers_max: 2, ..config() });
    for n in [10, 11] {
        lab.process(IN, &from_cell(subscriber(n), 7, 0)).unwrap();
    }
    assert_eq!(lab.process(IN, &from_cell(subscriber(12), 7, 0)), Err(Drop::SubscribersFull));
    lab.process(IN, &from_cell(subscriber(10), 8, 0)).unwrap();
    assert_eq!((lab.cell_of(subscriber(10)), lab.cell_of(subscriber(11))), (Ok(8), Ok(7)));
}

#[test]
fn requests_for_the_gateways_addresses_are_answered() {
    let mut lab = Lab::new(&config());
    let asker = MacAddr([2, 0, 0, 0, 0, 9]);
    for (port, own, own_mac) in [(IN, [10, 1, 0, 1], INTERIOR_MAC), (OUT, [10, 2, 0, 1], EXTERIOR_MAC)] {
        let ask = |operation, target: [u8; 4]| {
            let ends = emit::Ends {
                source_mac: asker,
                destination_mac: MacAddr::BROADCAST,
                source: SocketAddrV4::new([own[0], own[1], 0, 99].into(), 0),
                destination: SocketAddrV4::new(target.into(), 0),
            };
            let mut frame = vec![0; 60];
            emit::arp(&mut frame, operation, &ends).unwrap();
            frame
        };
        let (to, frame) = lab.process(port, &ask(ArpOperation::Request, own)).unwrap();
        let (ethernet, _) = Ethernet::parse(&frame).unwrap();
        assert_eq!((to, ethernet.destination(), ethernet.source()), (port, asker, own_mac));
        assert_eq!(lab.process(port, &ask(ArpOperation::Reply, own)), Err(Drop::ArpIgnored));
        assert_eq!(lab.process(port, &ask(ArpOperation::Request, [10, 1, 0, 77])), Err(Drop::ArpIgnored));
    }
}

#[test]
fn what_cannot_be_forwarded_is_dropped_for_its_reason() {
    let mut lab = Lab::new(&config());
    let tagged = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = from_cell(subscriber(10), 7, 0);
        change(&mut frame);
        frame
    };
    const IP: usize = ETHERNET_LEN + tag::LEN;
    let fixed = |frame: &mut Vec<u8>| Ipv4::parse_mut(&mut frame[IP..]).unwrap().0.fill_checksum();
    let foreign = Subscriber { address: [192, 0, 2, 1].into(), port: 1 };
    for (port, frame, reason) in [
        (slim_core::nf::PortId(2), tagged(&|_| ()), Drop::UnknownPort),
        (IN, tagged(&|frame| frame.truncate(13)), Drop::FrameTooShort),
        (IN, tagged(&|frame| frame[5] ^= 1), Drop::NotToOwnMac),
        (IN, untagged(subscriber(10)), Drop::Untagged),
        (IN, tagged(&|frame| frame[ETHERNET_LEN..ETHERNET_LEN + 2].fill(0)), Drop::Untagged),
        (
            OUT,
            {
                let mut frame = from_outside(subscriber(10));
                frame[13] = 0xdd;
                frame
            },
            Drop::NotIpv4,
        ),
        (IN, tagged(&|frame| frame.truncate(IP + 19)), Drop::Ipv4Malformed),
        (IN, tagged(&|frame| frame[IP + 10] ^= 1), Drop::Ipv4Checksum),
        (
            IN,
            tagged(&|frame| {
                frame[IP + 8] = 1;
                fixed(frame)
            }),
            Drop::TtlExpired,
        ),
        (
            IN,
            tagged(&|frame| {
                frame[IP + 7] = 1;
                fixed(frame)
            }),
            Drop::Fragment,
        ),
        (
            IN,
            tagged(&|frame| {
                frame[IP + 9] = 1;
                fixed(frame)
            }),
            Drop::ProtocolUnsupported,
        ),
        (IN, tagged(&|frame| frame[IP + 24] = 0xff), Drop::TransportMalformed),
        (IN, from_cell(Subscriber { port: 0, ..subscriber(10) }, 7, 0), Drop::TransportMalformed),
        (IN, from_cell(foreign, 7, 0), Drop::SourceInvalid),
        (
            IN,
            tagged(&|frame| {
                frame[IP + 16] = 224;
                fixed(frame)
            }),
            Drop::DestinationInvalid,
        ),
        (OUT, from_outside(subscriber(10)), Drop::UnknownSubscriber),
    ] {
        assert_eq!(lab.process(port, &frame), Err(reason));
    }
    assert_eq!(lab.announced(), [], "nobody has been attached");
}

#[test]
fn several_shards_are_refused() {
    let shard = Shard { id: ShardId(0), count: 2 };
    let Err(ConfigError(text)) = Gateway::new(&config(), shard, 1) else { panic!("accepted") };
    assert!(text.contains("one lcore"), "{text}");
}

//! The gateway's packet path and its `install`: any frames and pauses keep the law; any statelets end in a typed error or
//! in a state that travels.

use crate::input::Input;
use core::net::{Ipv4Addr, SocketAddrV4};
use slim_core::nf::law::{self, Step};
use slim_core::nf::{NetworkFunction, PortId, Shard};
use slim_core::packet::{MacAddr, OwnedPacket, PacketBuf, emit};
use slim_core::snapshot::{self, SnapshotReader, SnapshotWriter};
use slim_core::time::{Duration, Instant};
use slim_gateway::tag::Tag;
use slim_gateway::{Config, Gateway};

const CELLS_MAC: MacAddr = MacAddr([0x02, 0x51, 0x1a, 0, 1, 1]);
const ROUTER_MAC: MacAddr = MacAddr([0x02, 0x51, 0x1a, 0, 1, 2]);
const INTERIOR_MAC: MacAddr = MacAddr([0x02, 0x51, 0x1a, 0, 0, 1]);
const EXTERIOR_MAC: MacAddr = MacAddr([0x02, 0x51, 0x1a, 0, 0, 2]);
const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 2, 0, 10), 7);

/// A gateway that is full after a few subscribers.
fn config() -> Config {
    let network = |text: &str| text.parse().expect("an address with its prefix length");
    Config {
        interior_address: network("10.1.0.1/24"),
        interior_mac: INTERIOR_MAC,
        cells_mac: CELLS_MAC,
        exterior_address: network("10.2.0.1/24"),
        exterior_mac: EXTERIOR_MAC,
        router_mac: ROUTER_MAC,
        subscribers_max: 6,
        subscriber_timeout_s: 60,
    }
}

fn udp(source_mac: MacAddr, destination_mac: MacAddr, source: SocketAddrV4, destination: SocketAddrV4) -> Vec<u8> {
    let mut frame = vec![0; emit::UDP_PAYLOAD_AT + 7];
    let ends = emit::Ends { source_mac, destination_mac, source, destination };
    emit::udp(&mut frame, &ends, b"payload").expect("there is room");
    frame
}

fn packet(input: &mut Input<'_>) -> (PortId, Vec<u8>) {
    let number = input.below(8) as u8;
    let subscriber = SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 10 + number), 5000 + u16::from(number));
    let kind = input.byte();
    let (port, mut frame) = match kind & 7 {
        0..=3 => {
            let mut packet = OwnedPacket::new(udp(CELLS_MAC, INTERIOR_MAC, subscriber, SERVER));
            let to = input.below(4) as u16;
            let tag = Tag { cell: 1 + input.below(3) as u16, hand_over_to: (to != 0).then_some(to) };
            if tag.insert(&mut packet).is_ok() {
                // The room for the tag is made in front of the addresses.
                packet.bytes_mut()[..6].copy_from_slice(&INTERIOR_MAC.0);
                packet.bytes_mut()[6..12].copy_from_slice(&CELLS_MAC.0);
            }
            (slim_gateway::IN, packet.into_inner())
        }
        4 => (slim_gateway::IN, udp(CELLS_MAC, INTERIOR_MAC, subscriber, SERVER)),
        5 | 6 => (slim_gateway::OUT, udp(ROUTER_MAC, EXTERIOR_MAC, SERVER, subscriber)),
        _ => {
            let len = input.below(96);
            (PortId(kind >> 7), input.bytes(len).to_vec())
        }
    };
    if kind & 0x18 == 0x18 && !frame.is_empty() {
        for _ in 0..=input.below(3) {
            let at = input.below(frame.len());
            frame[at] = input.byte();
        }
        if input.one_in(4) {
            frame.truncate(input.below(64));
        }
    }
    (port, frame)
}

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let count = input.below(16);
    let mut gateway = Gateway::new(&config(), Shard::ONLY, 1).expect("a valid configuration");
    for _ in 0..count {
        let (statelet_type, len) = input.one_of(&[(1, 50), (1, 50), (2, 10), (3, 4), (1, 49)]);
        let before = snapshot::digest(&snapshot::freeze(&mut gateway));
        if gateway.install(statelet_type, input.bytes(len)).is_err() {
            assert_eq!(snapshot::digest(&snapshot::freeze(&mut gateway)), before, "refused, but changed");
        }
    }
    let mut copy = Gateway::new(&config(), Shard::ONLY, 2).expect("a valid configuration");
    let mut writer = SnapshotWriter::new(snapshot::freeze(&mut gateway), 0);
    let (mut reader, mut record) = (SnapshotReader::new(), Vec::new());
    while writer.write_next(&mut record).expect("state can be written") {
        reader.receive(&record, &mut copy).expect("a snapshot of valid state can be installed");
        record.clear();
    }
    let [here, there] = [&mut gateway, &mut copy].map(|one| snapshot::digest(&snapshot::freeze(one)));
    assert_eq!(here, there, "the state changed on its way");
    copy.take_over(Instant::from_millis(77));

    let mut steps = Vec::new();
    while !input.is_empty() && steps.len() < 100 {
        let pause = match input.byte() {
            short @ 0..220 => Duration::from_millis(short.into()),
            long => Duration::from_secs(u64::from(long - 219) * 5),
        };
        let packet = (!input.one_in(16)).then(|| packet(&mut input));
        steps.push(Step { pause, packet });
    }
    if let Err(violation) = law::check_with_snapshots::<Gateway>(&config(), &steps, &[steps.len() / 2]) {
        panic!("{violation}");
    }
}

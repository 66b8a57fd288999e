//! Writes what the fuzzer begins with to `fuzz/corpus/`: real messages, streams and frames, and for the targets that
//! take decisions some of all kinds. Run it after a format has changed; the fuzzer finds the rest by itself.

use serde::Serialize;
use slim_controller::api::ApiRequest;
use slim_core::nf::law::Step;
use slim_core::nf::testing::TestEnvironment;
use slim_core::nf::{NetworkFunction, PortId, ShardId};
use slim_core::packet::OwnedPacket;
use slim_core::protocol::control::{
    self, InstanceEvent, InstanceReply, LinkSettings, MigrationRole, Reply, Request, ServerMessage, SwitchEvent,
    SwitchReply, SwitchRequest,
};
use slim_core::protocol::inband::{Drain, Frame, HandBackEnd};
use slim_core::protocol::stream::{encode_reply, encode_taken_over};
use slim_core::protocol::{MigrationId, Nonce, PathIndex, PathSet};
use slim_core::statelet::{Tally, encode};
use slim_core::time::Instant;
use slim_fuzz_targets::input::Input;
use slim_fuzz_targets::{TARGETS, operations, state, traffic};
use std::io;
use std::path::Path;

/// Decisions of all kinds: bytes that follow no pattern, always the same.
fn decisions(seed: u32, len: u32) -> Vec<u8> {
    let byte = |n: u32| {
        let mut x = (n + 1).wrapping_mul(0x9e37_79b9) ^ seed.wrapping_mul(0x85eb_ca6b);
        x ^= x >> 16;
        x = x.wrapping_mul(0x7feb_352d);
        (x >> 11) as u8
    };
    (0..len).map(byte).collect()
}

/// A NAT that has seen traffic, and the statelets it announced.
fn nat() -> (slim_nat::Nat, Vec<u8>) {
    let mut nat = traffic::nat(1);
    let mut env = TestEnvironment::new(Instant::from_millis(5));
    for Step { pause, packet } in traffic::steps(&mut Input::new(&decisions(7, 2000)), 200) {
        env.advance(pause);
        nat.tick(&mut env);
        if let Some((port, frame)) = packet {
            nat.process(&mut env, port, &mut OwnedPacket::new(frame));
        }
    }
    let mut stream = Vec::new();
    let mut tally = Tally::new();
    for statelet in env.take_statelets() {
        let begin = stream.len();
        encode(statelet.statelet_type, &statelet.value, &mut stream).expect("a statelet");
        tally.add_record(&stream[begin..]);
    }
    stream.extend_from_slice(&tally.end().encode());
    (nat, stream)
}

fn behind(head: u8, cuts: usize, stream: &[u8]) -> Vec<u8> {
    let mut bytes = vec![head];
    bytes.extend(decisions(3, cuts as u32));
    bytes.extend_from_slice(stream);
    bytes
}

fn line<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    bytes.extend_from_slice(control::encode(message).expect("a short message").as_bytes());
    bytes
}

fn control_lines() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for seed in 0..20 {
        let bytes = decisions(seed, 200);
        let mut input = Input::new(&bytes);
        seeds.push(line(&Request::new(seed.into(), operations::instance_request(&mut input, 1))));
        for side in [MigrationRole::Source, MigrationRole::Destination] {
            let event = operations::instance_event(&mut input, side);
            seeds.push(line(&ServerMessage::<InstanceReply, InstanceEvent>::Event(event)));
        }
    }
    let name = operations::name;
    let (migration, nonce) = (MigrationId(1), Nonce(5));
    let ports = vec![name("nat-a.in"), name("nat-a.out")];
    let requests = [
        SwitchRequest::PortAdd { name: name("inside"), kind: control::PortKind::Tap { interface: "tap0".into() } },
        SwitchRequest::PortRemove { name: name("inside") },
        SwitchRequest::ManagementSet { ports: ports.clone() },
        SwitchRequest::InstanceAdd { name: name("nat-a"), ports, mgmt: None, link: LinkSettings::default() },
        SwitchRequest::PathsSet { instance: name("nat-a"), externals: vec![name("inside"), name("outside")] },
        SwitchRequest::Redirect {
            migration,
            from: name("nat-a"),
            to: name("nat-b"),
            nonce,
            rollback: true,
            hold_ms: 3000,
        },
        SwitchRequest::RedirectStatus { migration },
        SwitchRequest::LinkSet { instance: name("nat-a"), link: LinkSettings::default() },
        SwitchRequest::Status {},
    ];
    seeds.extend(requests.into_iter().map(|request| line(&Request::new(1, request))));
    let path = PathIndex::new(1).expect("below 64");
    for event in [SwitchEvent::DrainAcked { migration, nonce, path }, SwitchEvent::Drained { migration, nonce }] {
        seeds.push(line(&ServerMessage::<SwitchReply, SwitchEvent>::Event(event)));
    }
    seeds.push(line(&Reply::new(9, Ok(SwitchReply::Done {}))));
    seeds.push(line(&Reply::<SwitchReply>::new(9, Err(control::ControlError::new(control::ErrorCode::Busy, "no")))));
    for text in [r#"{"type":"status"}"#, r#"{"type":"migrate","instance":"nat-a","to":"nat-b"}"#] {
        let request: Option<ApiRequest> = control::decode(text.as_bytes()).ok();
        seeds.extend(request.map(|request| line(&Request::new(2, request))));
    }
    seeds.push(b"\x03\x01\x02\x03\x04\x05\x06\x07{\"v\":2,\"id\":3}\n\n{\"v\":1}\n".to_vec());
    seeds
}

fn inband_frames() -> Vec<Vec<u8>> {
    let migration = MigrationId(1);
    let path = PathIndex::new(1).expect("below 64");
    let drain = Drain { migration, nonce: Nonce(5), path, paths: PathSet::first(2) };
    let end = HandBackEnd { migration, port: PortId(1), shard: ShardId(0), shards: 1 };
    let frames = [
        Frame::Drain(drain),
        Frame::DrainAck(drain),
        Frame::HandBack { migration, port: PortId(0), frame: &[7; 80] },
        Frame::HandBackEnd(end),
    ];
    let encode = |frame: Frame<'_>| {
        let mut bytes = vec![0; frame.encoded_len()];
        frame.encode(&mut bytes).expect("there is room");
        bytes
    };
    frames.into_iter().map(encode).collect()
}

fn handshakes() -> Vec<Vec<u8>> {
    let seeds = (0..6).map(|seed| operations::handshake(&mut Input::new(&decisions(seed, 40)), 1).encode());
    let replies =
        [Ok(1), Err(slim_core::protocol::stream::Rejection::Schema)].map(|reply| encode_reply(reply).to_vec());
    let taken_over = encode_taken_over(MigrationId(u64::from_be_bytes(*b"SLTO\0\0\0\0"))).to_vec();
    seeds.chain(replies).chain([taken_over]).collect()
}

const CONFIGURATIONS: [&str; 3] = [
    r#"management = ["mgmt"]
port = [
  { name = "inside", kind = { type = "tap", interface = "slim-in" } },
  { name = "mgmt", kind = { type = "af_packet", interface = "eth1" } },
  { name = "a.in", kind = { type = "vhost_user", socket = "/run/a.sock" } },
  { name = "a.mgmt", kind = { type = "vdev", devargs = "net_ring0" } },
]
[[instance]]
name = "a"
ports = ["a.in"]
mgmt = "a.mgmt"
link = { rate_bps = 100_000_000, burst_bytes = 250_000 }
paths = [{ external = "inside", source = "0.0.0.1/0.0.0.1" }]
"#,
    r#"interior_address = "10.1.0.1/24"
interior_mac = "02:51:1a:00:00:01"
exterior_address = "10.2.0.1/24"
exterior_mac = "02:51:1a:00:00:02"
exterior_gateway = "10.2.0.254"
sessions_max = 16
hosts_max = 4
arp_entries_max = 8
port_first = 2000
port_last = 2007
udp_timeout_s = 120
"#,
    r#"[switch]
control = "/run/slim/switch.sock"
[management]
address = "10.3.0.1/24"
port = "mgmt"
[[external]]
name = "inside"
tap = "slim-in"
[link]
rate_mbit = 100
[[vnf]]
kind = "nat"
[[vnf.port]]
name = "in"
external = "inside"
"#,
];

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let (mut nat, statelets) = nat();
    match target {
        "statelet_stream" => vec![behind(0, 32, &statelets), behind(1, 32, &statelets[..100]), behind(1, 32, &[])],
        "snapshot_stream" => {
            let mut seeds = vec![behind(7, 16, &state::records(&mut nat).concat())];
            seeds.extend((0..24).map(|seed| behind(0, 16, &decisions(seed, 20 + 10 * seed))));
            seeds
        }
        "handshake" => handshakes(),
        "control_lines" => control_lines(),
        "inband_frame" => inband_frames(),
        "configuration" => CONFIGURATIONS.map(|text| text.as_bytes().to_vec()).to_vec(),
        _ => (0..24).map(|seed| decisions(seed, 16 << (seed % 6))).collect(),
    }
}

fn main() -> io::Result<()> {
    for target in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target.name);
        std::fs::create_dir_all(&folder)?;
        let seeds = seeds(target.name);
        for (number, seed) in seeds.iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number:02}")), seed)?;
        }
        println!("{}: {} seeds", target.name, seeds.len());
    }
    Ok(())
}

//! Packets per second of the NAT on one core: by number of sessions, with statelets off, on, and on while a snapshot
//! is held.
//!
//! ```text
//! cargo run --release -p slim-nat --example throughput
//! ```
//!
//! Bursts of 32 frames of 512 bytes, alternately outbound and inbound, sessions in an order that caches do not like.
//! The cost of putting fresh headers into the buffers is measured as well and not subtracted. Numbers of one run are
//! comparable with each other only: rounds of all variants are interleaved, and the median round counts.

use slim_core::nf::{Environment, NetworkFunction, PortId, Shard, Verdict};
use slim_core::packet::{ArpOperation, MacAddr, NoRoom, PacketBuf, emit};
use slim_core::table::FrozenItem;
use slim_core::time::{Duration, Instant};
use slim_nat::{Config, Nat};
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddrV4};

const FRAME_LEN: usize = 512;
const HEADERS_LEN: usize = 64;
const BURST: usize = 32;
const ROUNDS: usize = 15;
const PACKETS_PER_ROUND: usize = 400_000;

/// A frame in a buffer of fixed size, as an mbuf is.
struct Buffer([u8; FRAME_LEN]);

impl PacketBuf for Buffer {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn prepend(&mut self, _: usize) -> Result<(), NoRoom> {
        Err(NoRoom)
    }

    fn trim_front(&mut self, _: usize) {}

    fn append(&mut self, _: usize) -> Result<(), NoRoom> {
        Err(NoRoom)
    }

    fn truncate(&mut self, _: usize) {}
}

/// Writes statelets into a byte ring, as the dataplane does, without anybody reading them.
struct Lcore {
    now: Instant,
    upd_enable: bool,
    ring: Vec<u8>,
    at: usize,
    statelets: u64,
}

impl Environment for Lcore {
    fn now(&self) -> Instant {
        self.now
    }

    fn upd_enable(&self) -> bool {
        self.upd_enable
    }

    fn announce(&mut self, statelet_type: u16, value: &[u8]) {
        let end = self.at + 4 + value.len();
        if end > self.ring.len() {
            self.at = 0;
            return self.announce(statelet_type, value);
        }
        self.ring[self.at..self.at + 2].copy_from_slice(&statelet_type.to_be_bytes());
        self.ring[self.at + 2..self.at + 4].copy_from_slice(&(value.len() as u16).to_be_bytes());
        self.ring[self.at + 4..end].copy_from_slice(value);
        self.at = end;
        self.statelets += 1;
    }

    fn emit(&mut self, _: PortId, frame: &[u8]) {
        black_box(frame);
    }
}

const INTERIOR_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const EXTERIOR_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const INTERIOR: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const EXTERIOR: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);

/// A NAT with its sessions, and the headers of one packet of each in both directions.
struct Bench {
    nat: Nat,
    lcore: Lcore,
    headers: Vec<(PortId, [u8; HEADERS_LEN])>,
    next: usize,
}

impl Bench {
    fn new(sessions: usize) -> Self {
        let interior = format!("{INTERIOR}/16").parse().expect("an address");
        let exterior = format!("{EXTERIOR}/16").parse().expect("an address");
        let config = Config { sessions_max: 1 << 17, ..Config::new(interior, INTERIOR_MAC, exterior, EXTERIOR_MAC) };
        let nat = Nat::new(&config, Shard::ONLY, 0x5eed).expect("a configuration");
        let lcore =
            Lcore { now: Instant::from_millis(1), upd_enable: false, ring: vec![0; 1 << 23], at: 0, statelets: 0 };
        let mut bench = Self { nat, lcore, headers: Vec::new(), next: 0 };
        for i in 0..sessions {
            bench.open(i);
        }
        bench
    }

    /// Opens session `i`: 200 hosts, 4 servers, and an interior port for every two sessions.
    fn open(&mut self, i: usize) {
        let host = Ipv4Addr::new(10, 1, 1, 1 + (i % 200) as u8);
        let server = Ipv4Addr::new(10, 2, 1, 1 + (i / 200 % 4) as u8);
        let source = SocketAddrV4::new(host, 1024 + (i / 400) as u16);
        let destination = SocketAddrV4::new(server, 7);
        for (port, address, own) in [(PortId(0), host, INTERIOR), (PortId(1), server, EXTERIOR)] {
            self.learn(port, address, own);
        }
        let out = frame(INTERIOR_MAC, source, destination);
        let mut buffer = Buffer(out);
        let verdict = self.nat.process(&mut self.lcore, PortId(0), &mut buffer);
        assert_eq!(verdict, Verdict::Transmit(PortId(1)), "session {i}");
        let exterior_port = u16::from_be_bytes([buffer.0[34], buffer.0[35]]);
        let back = frame(EXTERIOR_MAC, destination, SocketAddrV4::new(EXTERIOR, exterior_port));
        for (port, frame) in [(PortId(0), out), (PortId(1), back)] {
            self.headers.push((port, std::array::from_fn(|at| frame[at])));
        }
    }

    fn learn(&mut self, port: PortId, address: Ipv4Addr, own: Ipv4Addr) {
        let mut frame = [0; FRAME_LEN];
        let ends = emit::Ends {
            source_mac: MacAddr([2, 1, 0, 0, 0, address.octets()[3]]),
            destination_mac: if port == PortId(0) { INTERIOR_MAC } else { EXTERIOR_MAC },
            source: SocketAddrV4::new(address, 0),
            destination: SocketAddrV4::new(own, 0),
        };
        emit::arp(&mut frame, ArpOperation::Reply, &ends).expect("room");
        assert_eq!(self.nat.process(&mut self.lcore, port, &mut Buffer(frame)), Verdict::Consumed);
    }

    /// Processes a round of packets and returns how long it took.
    fn round(&mut self, buffers: &mut [Buffer; BURST], process: bool) -> std::time::Duration {
        let begin = std::time::Instant::now();
        for _ in 0..PACKETS_PER_ROUND / BURST {
            let mut ports = [PortId(0); BURST];
            for (buffer, port) in buffers.iter_mut().zip(&mut ports) {
                // A step that shares no factor with the number of headers visits them all, far from each other.
                self.next = (self.next + 7919) % self.headers.len();
                let (to, headers) = &self.headers[self.next];
                *port = *to;
                buffer.0[..HEADERS_LEN].copy_from_slice(headers);
            }
            if process {
                for (buffer, port) in buffers.iter_mut().zip(ports) {
                    let verdict = self.nat.process(&mut self.lcore, port, buffer);
                    assert!(matches!(verdict, Verdict::Transmit(_)));
                }
                self.nat.tick(&mut self.lcore);
                self.lcore.now += Duration::from_micros(8);
            }
            black_box(&buffers);
        }
        begin.elapsed()
    }

    fn freeze(&mut self) -> Vec<Box<dyn FrozenItem>> {
        let mut frozen = Vec::new();
        self.nat.for_each_state(&mut |item| frozen.push(item.freeze()));
        frozen
    }
}

fn frame(to: MacAddr, source: SocketAddrV4, destination: SocketAddrV4) -> [u8; FRAME_LEN] {
    let mut frame = [0x5a; FRAME_LEN];
    let ends = emit::Ends { source_mac: MacAddr([2, 3, 0, 0, 0, 9]), destination_mac: to, source, destination };
    emit::udp_around(&mut frame, &ends, FRAME_LEN - emit::UDP_PAYLOAD_AT).expect("room");
    frame
}

#[derive(Clone, Copy)]
enum Variant {
    HeadersOnly,
    StateletsOff,
    StateletsOn,
    Frozen,
}

const VARIANTS: [(&str, Variant); 4] = [
    ("headers only", Variant::HeadersOnly),
    ("statelets off", Variant::StateletsOff),
    ("statelets on", Variant::StateletsOn),
    ("on and frozen", Variant::Frozen),
];

fn main() {
    let mut buffers: [Buffer; BURST] = std::array::from_fn(|_| Buffer([0x5a; FRAME_LEN]));
    let mut benches = [1, 1_000, 100_000].map(|sessions| (sessions, Bench::new(sessions)));
    println!("{:>9}  {:14} {:>10} {:>12} {:>14}", "sessions", "variant", "ns/packet", "Mpackets/s", "statelets/pkt");
    for (sessions, bench) in &mut benches {
        let mut times: [Vec<f64>; 4] = Default::default();
        let mut statelets = [0; 4];
        for _ in 0..ROUNDS {
            for (i, (_, variant)) in VARIANTS.iter().enumerate() {
                bench.lcore.upd_enable = matches!(variant, Variant::StateletsOn | Variant::Frozen);
                bench.lcore.statelets = 0;
                let process = !matches!(variant, Variant::HeadersOnly);
                let snapshot = if matches!(variant, Variant::Frozen) { bench.freeze() } else { Vec::new() };
                times[i].push(bench.round(&mut buffers, process).as_secs_f64());
                drop(snapshot);
                statelets[i] = bench.lcore.statelets;
            }
        }
        for (i, (name, _)) in VARIANTS.iter().enumerate() {
            times[i].sort_by(f64::total_cmp);
            let per_packet = times[i][ROUNDS / 2] / PACKETS_PER_ROUND as f64;
            let statelets = statelets[i] as f64 / PACKETS_PER_ROUND as f64;
            println!(
                "{sessions:>9}  {name:14} {:>10.1} {:>12.2} {statelets:>14.3}",
                per_packet * 1e9,
                1e-6 / per_packet
            );
        }
    }
}

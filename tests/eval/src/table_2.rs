//! Table II: the statelet factor of the paper's workloads, computed as the paper does and measured where the network
//! function is built.

use serde::Serialize;
use slim_core::nf::{Environment, InterfaceAddress, NetworkFunction, PortId, Shard};
use slim_core::packet::{ArpOperation, MacAddr, OwnedPacket, PacketBuf, emit};
use slim_core::statelet::{Coalescer, Compressor, Sigma, WireCosts};
use slim_core::time::{Duration, Instant};
use slim_nat::Nat;
use std::net::{Ipv4Addr, SocketAddrV4};

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The network function and its workload.
    pub workload: String,
    /// σ as the paper prints it.
    pub paper: f64,
    /// σ of the workload's description, computed: values over packets.
    pub computed: f64,
    /// σ measured: values over packets.
    pub measured: Option<f64>,
    /// σ on the wire: with type, length, TCP/IP and Ethernet.
    pub measured_wire: Option<f64>,
    /// The same with statelets merged and the stream compressed.
    pub measured_wire_economic: Option<f64>,
    /// What is to be said about it.
    pub remark: String,
}

/// All rows.
///
/// # Errors
/// In words, if the NAT does not do with the workload what it must.
pub fn rows() -> Result<Vec<Row>, String> {
    let nat = nat()?;
    let computed = |workload: &str, paper, computed, remark: &str| Row {
        workload: workload.into(),
        paper,
        computed,
        measured: None,
        measured_wire: None,
        measured_wire_economic: None,
        remark: remark.into(),
    };
    Ok(vec![
        Row {
            workload: "NAT: 512 B packets, 12 B of counters each, every 15th opens a socket with 18 B".into(),
            paper: 0.025,
            computed: (12.0 + 18.0 / 15.0) / 512.0,
            measured: Some(nat.sigma.of_values()),
            measured_wire: Some(nat.sigma.on_the_wire(&WireCosts::ETHERNET, nat.sigma.stream_bytes(), 0)),
            measured_wire_economic: Some(nat.sigma.on_the_wire(&WireCosts::ETHERNET, nat.economic_bytes, 0)),
            remark: "the NAT's own code, packet by packet".into(),
        },
        computed(
            "IDS: 512 B packets, 20 B each for 95 %, 512 B for 5 %",
            0.057,
            (0.95 * 20.0 + 0.05 * 512.0) / 512.0,
            "the paper's figure does not follow from its own workload; the network function is not built yet",
        ),
        computed(
            "VPN: 512 B packets, 48 B of cryptographic state each",
            0.093,
            48.0 / 512.0,
            "the network function is not built yet",
        ),
    ])
}

/// The statelets that the NAT announces for [Table II's workload](rows), in order.
///
/// # Errors
/// As for [`rows`].
pub fn nat_statelets() -> Result<Vec<(u16, Vec<u8>)>, String> {
    Ok(nat()?.statelets)
}

struct Measured {
    statelets: Vec<(u16, Vec<u8>)>,
    sigma: Sigma,
    /// Bytes of the stream, merged and compressed.
    economic_bytes: u64,
}

/// Packets of the measurement.
const PACKETS: u32 = 60_000;

/// 400 Mbit/s of packets with 512 bytes.
const PACKETS_PER_S: u32 = 97_656;

/// The longest a statelet waits, as in [`StartOptions`](slim_core::protocol::control::StartOptions).
const DELAY: Duration = Duration::from_millis(10);

const IN: PortId = PortId(0);
const OUT: PortId = PortId(1);
const HOSTS: u8 = 20;
const SERVERS: u8 = 4;

struct Env {
    now: Instant,
    upd_enable: bool,
    statelets: Vec<(u16, Vec<u8>)>,
}

impl Environment for Env {
    fn now(&self) -> Instant {
        self.now
    }

    fn upd_enable(&self) -> bool {
        self.upd_enable
    }

    fn announce(&mut self, statelet_type: u16, value: &[u8]) {
        self.statelets.push((statelet_type, value.to_vec()));
    }

    // Requests for addresses that are known from the start.
    fn emit(&mut self, _port: PortId, _frame: &[u8]) {}
}

fn mac(side: u8, number: u8) -> MacAddr {
    MacAddr([0x02, 0x51, 0x1a, side, 0, number])
}

/// Runs the NAT's workload through the NAT.
fn nat() -> Result<Measured, String> {
    let [interior, exterior] = [1, 2].map(|side| Ipv4Addr::new(10, side, 0, 1));
    let own = [1, 2].map(|number| mac(0, number));
    let network = |address| InterfaceAddress { address, prefix_len: 24 };
    let config = slim_nat::Config {
        sessions_max: 16_384,
        ..slim_nat::Config::new(network(interior), own[0], network(exterior), own[1])
    };
    let mut nat = Nat::new(&config, Shard::ONLY, 1).map_err(|error| error.to_string())?;
    let mut env = Env { now: Instant::from_millis(1), upd_enable: false, statelets: Vec::new() };
    let host = |number: u8| Ipv4Addr::new(10, 1, 0, 10 + number);
    let server = |number: u8| Ipv4Addr::new(10, 2, 0, 10 + number);
    // Everybody has spoken before.
    let asking =
        (0..HOSTS).map(|n| (IN, 1, host(n), interior)).chain((0..SERVERS).map(|n| (OUT, 2, server(n), exterior)));
    for (port, side, address, target) in asking {
        let [.., number] = address.octets();
        let ends = emit::Ends {
            source_mac: mac(side, number),
            destination_mac: MacAddr::BROADCAST,
            source: SocketAddrV4::new(address, 0),
            destination: SocketAddrV4::new(target, 0),
        };
        let mut frame = vec![0; 60];
        emit::arp(&mut frame, ArpOperation::Request, &ends).map_err(|error| error.to_string())?;
        nat.process(&mut env, port, &mut OwnedPacket::new(frame));
    }
    env.upd_enable = true;
    let (mut sigma, mut economy) = (Sigma::default(), Economy::new(env.now));
    let mut statelets = Vec::new();
    for packet in 0..PACKETS {
        env.now += Duration::from_secs(1) / PACKETS_PER_S;
        let socket = packet / 15;
        let (from, to) = (host((socket % u32::from(HOSTS)) as u8), server((socket % u32::from(SERVERS)) as u8));
        let ends = emit::Ends {
            source_mac: mac(1, from.octets()[3]),
            destination_mac: own[0],
            source: SocketAddrV4::new(from, 5000 + (socket / u32::from(HOSTS)) as u16),
            destination: SocketAddrV4::new(to, 7),
        };
        let mut frame = vec![0; 512];
        emit::udp_around(&mut frame, &ends, 512 - emit::UDP_PAYLOAD_AT).map_err(|error| error.to_string())?;
        let mut frame = OwnedPacket::new(frame);
        let verdict = nat.process(&mut env, IN, &mut frame);
        if verdict != slim_core::nf::Verdict::Transmit(OUT) {
            return Err(format!("the NAT does not forward packet {packet} of Table II: {verdict:?}"));
        }
        sigma.add_packet(frame.bytes().len());
        for (statelet_type, value) in env.statelets.drain(..) {
            sigma.add_statelet(value.len());
            economy.push(env.now, statelet_type, &value)?;
            statelets.push((statelet_type, value));
        }
    }
    Ok(Measured { statelets, sigma, economic_bytes: economy.finish()? })
}

/// What the stream would carry, merged and compressed.
struct Economy {
    coalescer: Coalescer,
    compressor: Compressor,
    since: Instant,
    bytes: u64,
}

impl Economy {
    fn new(now: Instant) -> Self {
        Self { coalescer: Coalescer::new(), compressor: Compressor::new(), since: now, bytes: 0 }
    }

    fn push(&mut self, now: Instant, statelet_type: u16, value: &[u8]) -> Result<(), String> {
        self.coalescer.push::<Nat>(statelet_type, value).map_err(|error| error.to_string())?;
        if now - self.since >= DELAY {
            self.send()?;
            self.since = now;
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), String> {
        let mut out = Vec::new();
        self.compressor.compress(self.coalescer.bytes(), &mut out).map_err(|error| error.to_string())?;
        self.bytes += out.len() as u64;
        self.coalescer.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<u64, String> {
        self.send()?;
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nat_s_row_is_reproduced_and_the_ids_row_cannot_be() {
        let rows = rows().unwrap();
        let [nat, ids, vpn] = &rows[..] else { panic!("{rows:?}") };
        assert!((nat.measured.unwrap() - nat.computed).abs() < 0.0002, "{nat:?}");
        assert!((nat.computed - nat.paper).abs() < 0.001 && (vpn.computed - vpn.paper).abs() < 0.001);
        assert!((ids.computed - 0.087).abs() < 0.0005);
        let [wire, economic] = [nat.measured_wire, nat.measured_wire_economic].map(Option::unwrap);
        assert!(nat.measured.unwrap() < wire && economic < wire, "{nat:?}");
    }
}

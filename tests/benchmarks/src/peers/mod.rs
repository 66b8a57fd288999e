//! What the NAT is to be compared with, on the same core in the same run: the kernel's NAT and Open vSwitch's.
//!
//! Both are measured in namespaces of their own, which are gone afterwards. What cannot be run here says why.

mod kernel;
mod namespace;
mod ovs;
mod send;

pub use send::{SEND, send};

use serde::Serialize;

/// Numbers of sessions to measure with.
const SESSIONS: [usize; 3] = [1, 1_000, 100_000];

/// A peer, or why it could not be measured.
#[derive(Debug, Serialize)]
pub struct Peer {
    /// Its name.
    pub name: &'static str,
    /// What its packets went through.
    pub path: &'static str,
    /// By number of sessions.
    pub rates: Vec<Rate>,
    /// Why there are no (more) rates.
    pub failed: Option<String>,
}

/// What one core did.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Rate {
    /// The number of sessions.
    pub sessions: usize,
    /// Packets translated per second.
    pub packets_per_s: f64,
    /// The same without the time that sending took, where the sender shares the core.
    pub net_packets_per_s: f64,
}

/// Measures all peers.
pub fn measure() -> Vec<Peer> {
    let kernel = ("kernel, nftables masquerade", "veth, forwarding, veth; UDP sockets send on the same core");
    let ovs = ("Open vSwitch, netdev datapath", "DPDK's net_pcap, conntrack and flows, net_null; no huge pages");
    [(kernel, kernel::measure as fn(usize) -> anyhow::Result<Rate>), (ovs, ovs::measure)]
        .into_iter()
        .map(|((name, path), measure)| {
            let (mut rates, mut failed) = (Vec::new(), None);
            for sessions in SESSIONS {
                eprintln!("{name}: {sessions} sessions");
                match measure(sessions) {
                    Ok(rate) => rates.push(rate),
                    Err(error) => {
                        failed = Some(format!("{error:#}"));
                        break;
                    }
                }
            }
            Peer { name, path, rates, failed }
        })
        .collect()
}

//! The kernel's NAT: nftables' masquerade between two veth pairs. Forwarding happens on the core of the sender, within its
//! system calls; what sending alone takes is measured with packets dropped at the NAT's door, and subtracted.

use super::namespace::Namespace;
use super::{Rate, SEND};
use crate::nat::LCORE_CPU;
use anyhow::{Context, Result, ensure};

/// How long is sent.
const MILLISECONDS: u64 = 1500;

const MASQUERADE: &str = "table ip t { chain c { type nat hook postrouting priority 100; oifname wan masquerade; }; }";

/// Measures with so many sessions.
pub fn measure(sessions: usize) -> Result<Rate> {
    let (inside, nat, outside) = (Namespace::new("in")?, Namespace::new("nat")?, Namespace::new("out")?);
    pair(&inside, "host", &nat, "lan")?;
    pair(&nat, "wan", &outside, "server")?;
    inside.run("ip addr add 10.1.0.2/16 dev host")?;
    inside.run("ip route add default via 10.1.0.1")?;
    nat.run("ip addr add 10.1.0.1/16 dev lan")?;
    nat.run("ip addr add 10.2.0.1/16 dev wan")?;
    nat.run("ip route add default via 10.2.255.254")?;
    for (namespace, device, address) in [(&inside, "host", "10.1.0.1"), (&nat, "wan", "10.2.255.254")] {
        namespace.run(&format!("ip neigh replace {address} lladdr 02:00:00:00:00:02 dev {device} nud permanent"))?;
    }
    nat.run("sysctl -qw net.ipv4.ip_forward=1")?;
    drop_at(&outside, "server")?;

    // The sender alone.
    drop_at(&nat, "lan")?;
    let (sent, alone_ns) = send(&inside, sessions)?;
    let alone = alone_ns / sent;
    nat.run("nft delete table netdev door")?;

    nft(&nat, MASQUERADE)?;
    let before = received(&outside)?;
    let (sent, took_ns) = send(&inside, sessions)?;
    let translated = received(&outside)? - before;
    let sources = nat.run("nft list ruleset")?;
    ensure!(sources.contains("masquerade"), "nftables did not take the rule");
    // The first round, before the clock starts, is among those received.
    ensure!(translated >= sent * 0.99, "of {sent} packets {translated} arrived");
    let per_packet = took_ns / sent;
    Ok(Rate { sessions, packets_per_s: 1e9 / per_packet, net_packets_per_s: 1e9 / (per_packet - alone).max(1.0) })
}

/// Two interfaces that are each other's wire.
fn pair(one: &Namespace, one_name: &str, other: &Namespace, other_name: &str) -> Result<()> {
    one.run(&format!("ip link add {one_name} type veth peer name {other_name} netns {}", other.name()))?;
    for (namespace, name) in [(one, one_name), (other, other_name)] {
        namespace.run(&format!("ip link set {name} address 02:00:00:00:00:02 up"))?;
    }
    Ok(())
}

/// Drops all that arrives at an interface.
fn drop_at(namespace: &Namespace, device: &str) -> Result<()> {
    nft(
        namespace,
        &format!(
            "table netdev door {{ chain c {{ type filter hook ingress device {device} priority 0; counter drop; }}; }}"
        ),
    )
}

fn nft(namespace: &Namespace, rules: &str) -> Result<()> {
    let mut command = namespace.command("nft");
    super::namespace::run(command.arg(rules)).map(|_| ())
}

/// Packets that have arrived behind the NAT.
fn received(outside: &Namespace) -> Result<f64> {
    let shown = outside.run("nft list ruleset")?;
    let mut words = shown.split_whitespace().skip_while(|word| *word != "packets");
    let count = words.nth(1).context("nftables shows no counter")?;
    Ok(count.parse()?)
}

/// Sends; packets and nanoseconds.
fn send(from: &Namespace, sessions: usize) -> Result<(f64, f64)> {
    let program = std::env::current_exe()?.display().to_string();
    let line = from.run(&format!("{program} {SEND} {sessions} {MILLISECONDS} {LCORE_CPU}"))?;
    let (sent, nanos) = line.trim().split_once(' ').context("the sender printed nothing")?;
    Ok((sent.parse()?, nanos.parse()?))
}

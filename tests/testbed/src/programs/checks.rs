//! Programs that say by themselves what became of their packets, and what they have to say.

use super::servers::{EXTERIOR_MTU, FAR_HOST, FAR_MTU, IPERF_PORTS, NAME, QUIET_SERVER, ROUTER};
use crate::topology::{INSIDE, NAT_EXTERIOR, NAT_INTERIOR, command_in};
use anyhow::{Context, Result, bail, ensure};
use std::time::{Duration, Instant};

/// Judges what a program printed: a summary, or what is wrong.
type Judge = fn(&str, Network) -> Result<String>;

/// What may be expected of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Network {
    /// Nothing gets lost.
    Sound,
    /// Some packets do, on purpose: most of a program's arrive, and what does not ask again is run again.
    Impaired,
}

impl Network {
    /// The part of a program's packets that may be missing. Of fragmented ones six have to arrive for an answer.
    fn missing_max(self) -> f64 {
        match self {
            Self::Sound => 0.0,
            Self::Impaired => 0.15,
        }
    }

    /// How often a program may be run.
    fn tries(self) -> u32 {
        match self {
            Self::Sound => 1,
            Self::Impaired => 4,
        }
    }
}

/// A program to run inside, and how to judge it.
pub(super) struct Check {
    pub(super) program: &'static str,
    pub(super) claim: &'static str,
    arguments: Vec<String>,
    judge: Judge,
    /// Its exit code says nothing.
    may_fail: bool,
    /// The time it takes by itself, in seconds.
    takes_s: u64,
    /// For how long it is run over and over again.
    again_for: Duration,
}

/// Between two runs of the same program.
const PAUSE: Duration = Duration::from_millis(200);

/// Longer than any program takes that works, beyond its own time.
const LIMIT_S: u64 = 60;

impl Check {
    fn new(program: &'static str, claim: &'static str, arguments: &str, judge: Judge) -> Self {
        let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
        let mut pairs = arguments.iter().zip(arguments.iter().skip(1));
        let told = pairs.find(|(name, _)| *name == "-w" || *name == "-t");
        let takes_s = told.and_then(|(_, seconds)| seconds.parse().ok()).unwrap_or(0);
        Self { program, claim, arguments, judge, may_fail: false, takes_s, again_for: Duration::ZERO }
    }

    fn may_fail(self) -> Self {
        Self { may_fail: true, ..self }
    }

    /// Runs it in the inside namespace, once or more often.
    pub(super) fn run(&self, network: Network) -> Result<String> {
        let (begun, mut times) = (Instant::now(), 1);
        let mut said = self.try_run(network)?;
        while begun.elapsed() < self.again_for {
            std::thread::sleep(PAUSE);
            said = self.try_run(network).with_context(|| format!("after {times} times"))?;
            times += 1;
        }
        Ok(if times > 1 { format!("{said}, {times} times") } else { said })
    }

    fn try_run(&self, network: Network) -> Result<String> {
        let mut result = self.run_once(network);
        for _ in 1..network.tries() {
            if result.is_err() {
                result = self.run_once(network);
            }
        }
        result
    }

    fn run_once(&self, network: Network) -> Result<String> {
        let output = command_in(INSIDE, "timeout")
            .arg((LIMIT_S + self.takes_s).to_string())
            .arg(self.program)
            .args(&self.arguments)
            .env("LC_ALL", "C")
            .output()
            .with_context(|| format!("cannot run {}: run `cargo xtask setup`", self.program))?;
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        if !output.status.success() && !self.may_fail {
            bail!("{} failed ({}): {}", self.program, output.status, text.trim());
        }
        (self.judge)(&text, network)
            .with_context(|| format!("{} {}: {}", self.program, self.arguments.join(" "), text.trim()))
    }
}

/// Those that go on for `seconds`.
pub(super) fn lasting(seconds: u64) -> [Check; 4] {
    let count = seconds * 5;
    let dns = format!("@{ROUTER} {} A +short +tries=1 +timeout=3", NAME.0);
    let again_for = Duration::from_secs(seconds);
    // The interval is the least time between two of them: on a busy machine it is longer.
    let ping = |claim, options: &str| {
        let arguments = format!("-n -i 0.2 {options}-c {count} -W 10 {ROUTER}");
        Check { takes_s: 2 * seconds, ..Check::new("ping", claim, &arguments, all_answered) }
    };
    [
        ping("RFC 5508 R1: queries pass", ""),
        ping("RFC 4787 R14: fragments pass (4000 bytes)", "-s 4000 "),
        Check { again_for, ..Check::new("dig", "DNS over UDP", &dns, the_name_is_found) },
        Check { again_for, ..Check::new("dig", "DNS over TCP", &format!("{dns} +tcp"), the_name_is_found) },
    ]
}

/// Those that come one after the other.
pub(super) fn checks() -> Vec<Check> {
    let [up, down, udp] = IPERF_PORTS;
    vec![
        Check::new(
            "traceroute",
            "RFC 5508 R4, R10: errors of the NAT, a router and a host come back",
            &format!("-n -w 5 -q 2 {FAR_HOST}"),
            every_hop_is_named,
        ),
        Check::new("traceroute", "the same with ICMP", &format!("-n -I -w 5 -q 2 {FAR_HOST}"), every_hop_is_named),
        Check::new(
            "ping",
            "RFC 4787 R13: the NAT tells its MTU",
            &format!("-n -c 3 -M do -s 1472 -W 5 {QUIET_SERVER}"),
            the_nats_mtu_is_told,
        )
        .may_fail(),
        Check::new(
            "ping",
            "RFC 4787 R13: the NAT fragments",
            &format!("-n -c 10 -i 0.2 -M dont -s 1472 -W 10 {ROUTER}"),
            all_answered,
        ),
        Check::new(
            "ping",
            "RFC 1191: a router's MTU is told",
            &format!("-n -c 3 -M do -s 1420 -W 5 {FAR_HOST}"),
            the_routers_mtu_is_told,
        )
        .may_fail(),
        Check::new(
            "turnutils_natdiscovery",
            "RFC 4787 R1, R8: mapping and filtering are endpoint-independent",
            &format!("-m -f {ROUTER}"),
            endpoint_independent,
        ),
        Check::new("turnutils_natdiscovery", "RFC 4787 R9: hairpin", &format!("-H {ROUTER}"), hairpins),
        Check::new("iperf3", "TCP out", &format!("-J -c {ROUTER} -p {up} -t 5 -b 20M"), tcp_flowed),
        Check::new("iperf3", "TCP in", &format!("-J -c {ROUTER} -p {down} -t 5 -b 20M -R"), tcp_flowed),
        Check::new(
            "iperf3",
            "UDP out, of 1000 bytes",
            &format!("-J -u -l 1000 -c {ROUTER} -p {udp} -t 5 -b 5M"),
            udp_flowed,
        ),
    ]
}

/// The number before `what` in `text`.
fn number_before(text: &str, what: &str) -> Option<u64> {
    let (before, _) = text.split_once(what)?;
    before.split(|c: char| !c.is_ascii_digit()).next_back()?.parse().ok()
}

fn all_answered(text: &str, network: Network) -> Result<String> {
    let sent = number_before(text, " packets transmitted").context("no summary")?;
    let received = number_before(text, " received").context("no summary")?;
    let missing = sent.saturating_sub(received) as f64;
    ensure!(received > 0 && missing <= sent as f64 * network.missing_max(), "{received} of {sent} answers came");
    ensure!(!text.contains("duplicates"), "some answers came twice");
    let slowest = text.lines().find(|line| line.starts_with("rtt")).and_then(|line| line.split('/').nth(5));
    Ok(format!("{received} of {sent} answered, the slowest after {} ms", slowest.unwrap_or("?")))
}

/// The hops by their numbers; a star is a probe without an answer.
fn every_hop_is_named(text: &str, _: Network) -> Result<String> {
    let hops: Vec<_> = [NAT_INTERIOR, ROUTER, FAR_HOST].into_iter().collect();
    let named = text.lines().filter_map(|line| line.split_once("  ")).map(|(_, answers)| answers);
    let answers: Vec<_> = named.collect();
    ensure!(answers.len() == hops.len(), "{} hops instead of {}", answers.len(), hops.len());
    for (hop, answer) in hops.iter().zip(answers) {
        ensure!(answer.starts_with(&format!("{hop} ")) && !answer.contains('*'), "instead of {hop}: {answer}");
    }
    Ok(hops.join(", "))
}

fn mtu_is_told(text: &str, by: &str, mtu: u16) -> Result<String> {
    ensure!(text.contains(&format!("mtu = {mtu}")) || text.contains(&format!("mtu={mtu}")), "nobody says MTU {mtu}");
    ensure!(text.contains(&format!("From {by} ")), "it is not {by} who says so");
    Ok(format!("{by} says {mtu}"))
}

fn the_nats_mtu_is_told(text: &str, _: Network) -> Result<String> {
    mtu_is_told(text, NAT_INTERIOR, EXTERIOR_MTU)
}

fn the_routers_mtu_is_told(text: &str, _: Network) -> Result<String> {
    mtu_is_told(text, ROUTER, FAR_MTU)
}

fn the_name_is_found(text: &str, _: Network) -> Result<String> {
    ensure!(text.trim() == NAME.1, "instead of {}", NAME.1);
    Ok(format!("{} is {}", NAME.0, NAME.1))
}

fn endpoint_independent(text: &str, _: Network) -> Result<String> {
    for behaviour in ["Mapping", "Filtering"] {
        let expected = format!("NAT with Endpoint Independent {behaviour}!");
        ensure!(text.contains(&expected), "it does not say {expected:?}");
    }
    Ok(format!("endpoint-independent mapping and filtering, as {NAT_EXTERIOR}"))
}

fn hairpins(text: &str, _: Network) -> Result<String> {
    // It has got its own request back.
    ensure!(text.contains("successful hairpinning"), "it does not say so");
    Ok("a request to itself came back".into())
}

/// A number in iperf3's JSON.
fn figure(text: &str, path: &str) -> Result<f64> {
    let begin = text.find('{').context("no JSON")?;
    let report: serde_json::Value = serde_json::from_str(&text[begin..]).context("not JSON")?;
    report.pointer(path).and_then(serde_json::Value::as_f64).with_context(|| format!("there is no {path}"))
}

fn tcp_flowed(text: &str, _: Network) -> Result<String> {
    let (sent, received) = (figure(text, "/end/sum_sent/bytes")?, figure(text, "/end/sum_received/bytes")?);
    let rate = figure(text, "/end/sum_received/bits_per_second")?;
    ensure!(received > 0.0 && received <= sent, "{sent} bytes sent, {received} received");
    let again = figure(text, "/end/sum_sent/retransmits").unwrap_or_default();
    Ok(format!("{:.1} Mbit/s, {again} segments again", rate / 1e6))
}

fn udp_flowed(text: &str, network: Network) -> Result<String> {
    let (lost, all) = (figure(text, "/end/sum/lost_packets")?, figure(text, "/end/sum/packets")?);
    ensure!(all > 0.0 && lost <= all * network.missing_max(), "{lost} of {all} packets lost");
    Ok(format!("{all} packets, {lost} lost"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_are_judged_by_their_summary() {
        let good =
            "5 packets transmitted, 5 received, 0% packet loss, time 807ms\nrtt min/avg/max/mdev = 0.1/0.2/9.3/0.1 ms";
        assert_eq!(all_answered(good, Network::Sound).unwrap(), "5 of 5 answered, the slowest after 9.3 ms");
        for bad in [
            "5 packets transmitted, 4 received, 20% packet loss, time 807ms",
            "5 packets transmitted, 5 received, +1 duplicates, 0% packet loss, time 807ms",
            "0 packets transmitted, 0 received",
            "connect: Network is unreachable",
        ] {
            assert!(all_answered(bad, Network::Sound).is_err(), "{bad}");
        }
        let some = "50 packets transmitted, 46 received, 8% packet loss, time 807ms";
        assert!(all_answered(some, Network::Impaired).is_ok() && all_answered(some, Network::Sound).is_err());
    }

    #[test]
    fn a_hop_that_is_silent_or_another_is_noticed() {
        let text = |second: &str| {
            format!(
                "traceroute to 198.51.100.2 (198.51.100.2), 30 hops max, 60 byte packets\n 1  10.1.0.1  5.2 ms  5.1 ms\n \
                 2  {second}\n 3  198.51.100.2  9.1 ms  9.2 ms\n"
            )
        };
        assert!(every_hop_is_named(&text("10.2.0.10  7.3 ms  7.4 ms"), Network::Sound).is_ok());
        assert!(every_hop_is_named(&text("* 10.2.0.10  7.3 ms"), Network::Sound).is_err());
        assert!(every_hop_is_named(&text("10.2.0.11  7.3 ms  7.4 ms"), Network::Sound).is_err());
    }

    #[test]
    fn iperf_is_judged_by_its_figures() {
        let udp = |lost: u32| format!("{{\"end\":{{\"sum\":{{\"lost_packets\":{lost},\"packets\":100}}}}}}");
        assert!(udp_flowed(&udp(0), Network::Sound).is_ok());
        assert!(udp_flowed(&udp(1), Network::Sound).is_err());
        assert!(udp_flowed("iperf3: error - unable to connect", Network::Sound).is_err());
    }
}

//! The measurement as tables, and a verdict per aim.

use crate::nat::{Forwarding, Measured, Variant};
use crate::peers::Peer;
use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use serde::Serialize;

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY);
    table.set_header(header);
    table
}

/// An aim, and what came of it.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// What is aimed at.
    aim: &'static str,
    /// What was measured; `None` if it was not.
    measured: Option<String>,
    /// Whether the aim is reached.
    reached: Option<bool>,
}

/// How the measurement compares with each aim.
pub fn verdicts(measured: &Measured, peers: &[Peer]) -> Vec<Verdict> {
    let verdict = |aim, value: Option<f64>, shown: &dyn Fn(f64) -> String, reached: &dyn Fn(f64) -> bool| Verdict {
        aim,
        measured: value.map(shown),
        reached: value.map(reached),
    };
    let with = |sessions: usize| measured.forwarding.iter().find(|forwarding| forwarding.sessions == sessions);
    let plain = |forwarding: &Forwarding| forwarding.of(Variant::Plain).map(|round| round.packets_per_s / 1e6);
    let moving = &measured.moving;
    let most = measured.forwarding.last();
    let rate = with(100_000).and_then(plain);
    let fastest_peer = peers
        .iter()
        .flat_map(|peer| peer.rates.iter().filter(|rate| rate.sessions == 100_000))
        .map(|rate| rate.net_packets_per_s / 1e6)
        .reduce(f64::max);
    vec![
        verdict("at least 5 Mpackets/s at 100,000 sessions", rate, &|rate| format!("{rate:.2}"), &|rate| rate >= 5.0),
        verdict(
            "at most 5 % less with statelets on and the table frozen",
            with(100_000).and_then(|forwarding| forwarding.of(Variant::Both)).map(|round| round.cost),
            &|cost| format!("{:.1} %", cost * 100.0),
            &|cost| cost <= 0.05,
        ),
        verdict(
            "stalls below 100 µs (99.9 % of bursts, beyond those without a migration)",
            Some((moving.bursts_meanwhile.p999_us - moving.bursts.p999_us).max(0.0)),
            &|us| format!("{us:.0} µs"),
            &|us| us < 100.0,
        ),
        verdict(
            "the longest stall below 100 µs (longest burst; of no meaning where there are such bursts without a migration)",
            Some(moving.bursts_meanwhile.longest_us - moving.bursts.longest_us)
                .filter(|_| moving.bursts.longest_us < 100.0),
            &|us| format!("{us:.0} µs"),
            &|us| us < 100.0,
        ),
        verdict(
            "a snapshot written and adopted at 1 GB/s or more",
            Some(moving.bytes_per_s() / 1e9),
            &|rate| format!("{rate:.2} GB/s"),
            &|rate| rate >= 1.0,
        ),
        verdict(
            "at most 128 bytes of memory per session",
            most.map(|forwarding| forwarding.bytes_per_session),
            &|bytes| format!("{bytes:.1}"),
            &|bytes| bytes <= 128.0,
        ),
        verdict(
            "ahead of the kernel and of Open vSwitch at 100,000 sessions",
            rate.zip(fastest_peer).map(|(rate, peer)| rate / peer),
            &|ratio| format!("{ratio:.1} times the faster one"),
            &|ratio| ratio > 1.0,
        ),
    ]
}

fn print_peers(peers: &[Peer]) {
    let mut rates = table(&["peer", "sessions", "Mpackets/s", "without sending", "what packets go through"]);
    for peer in peers {
        for rate in &peer.rates {
            rates.add_row([
                peer.name.to_owned(),
                rate.sessions.to_string(),
                format!("{:.2}", rate.packets_per_s / 1e6),
                format!("{:.2}", rate.net_packets_per_s / 1e6),
                peer.path.to_owned(),
            ]);
        }
        if peer.failed.is_some() {
            rates.add_row([peer.name, "", "cannot be run", "", "see below"]);
        }
    }
    println!("{rates}");
    for peer in peers {
        if let Some(why) = &peer.failed {
            println!("{} cannot be run here: {why}", peer.name);
        }
    }
}

/// Prints everything.
pub fn print(measured: &Measured, peers: &[Peer], verdicts: &[Verdict]) {
    if !peers.is_empty() {
        print_peers(peers);
    }
    print_nat(measured);
    let mut aims = table(&["aim", "measured", ""]);
    for verdict in verdicts {
        let reached = verdict.reached.map_or("not measured", |reached| if reached { "reached" } else { "missed" });
        aims.add_row([verdict.aim, verdict.measured.as_deref().unwrap_or(""), reached]);
    }
    println!("{aims}");
}

fn print_nat(measured: &Measured) {
    let mut rates = table(&["sessions", "", "Mpackets/s", "cycles/packet", "ns/packet", "cost", "statelets/packet"]);
    for forwarding in &measured.forwarding {
        for round in &forwarding.rounds {
            let cost = match round.variant {
                Variant::Nothing | Variant::Plain => String::new(),
                _ => format!("{:.1} %", round.cost * 100.0),
            };
            rates.add_row([
                forwarding.sessions.to_string(),
                name(round.variant).to_owned(),
                format!("{:.2}", round.packets_per_s / 1e6),
                format!("{:.0}", round.cycles),
                format!("{:.1}", 1e9 / round.packets_per_s),
                cost,
                format!("{:.2}", round.statelets),
            ]);
        }
    }
    println!("{rates}");
    match &measured.uncounted {
        Some(why) => println!("cache misses cannot be counted here: {why}"),
        None => {
            for forwarding in &measured.forwarding {
                if let Some(counts) = forwarding.counts {
                    println!(
                        "{} sessions: {:.2} cache misses and {:.0} instructions per packet",
                        forwarding.sessions, counts.cache_misses, counts.instructions
                    );
                }
            }
        }
    }
    let mut memory = table(&["sessions", "bytes of memory per session"]);
    for forwarding in &measured.forwarding {
        memory.add_row([forwarding.sessions.to_string(), format!("{:.1}", forwarding.bytes_per_session)]);
    }
    println!("{memory}");
    let opening = &measured.opening;
    println!(
        "new sessions: {:.2} million/s up to {} (bursts of 32: {:.0} µs in the median, 99.9 % within {:.0} µs); with half of an address's ports taken \
         {:.2} million/s, with 99 % {:.2} million/s",
        opening.per_s / 1e6,
        opening.sessions,
        opening.bursts.median_us,
        opening.bursts.p999_us,
        opening.per_s_at_50_percent / 1e6,
        opening.per_s_at_99_percent / 1e6
    );
    let moving = &measured.moving;
    println!(
        "snapshot of {} sessions: {:.1} MB; freeze {:.1} µs, write {:.1} ms, adopt {:.1} ms; both at once on two \
         cores {:.1} ms: {:.2} GB/s; to another process through a loopback connection {:.1} ms",
        moving.sessions,
        moving.bytes as f64 / 1e6,
        moving.freeze_us,
        moving.write_ms,
        moving.adopt_ms,
        moving.both_ms,
        moving.bytes_per_s() / 1e9,
        moving.loopback_ms
    );
    let mut bursts = table(&["bursts of 64", "count", "median µs", "99.9 %", "99.99 %", "longest", "preempted"]);
    for (name, times) in [("no migration", &moving.bursts), ("meanwhile", &moving.bursts_meanwhile)] {
        let us = |value: f64| format!("{value:.1}");
        bursts.add_row([
            name.to_owned(),
            times.count.to_string(),
            us(times.median_us),
            us(times.p999_us),
            us(times.p9999_us),
            us(times.longest_us),
            times.preempted.to_string(),
        ]);
    }
    println!("{bursts}");
    println!("the migration, with the lcore at full load and one core for the rest: {:.0} ms", moving.meanwhile_ms);
}

fn name(variant: Variant) -> &'static str {
    match variant {
        Variant::Nothing => "packets made, not processed",
        Variant::Plain => "no migration",
        Variant::Statelets => "statelets on",
        Variant::Frozen => "table frozen",
        Variant::Both => "both",
    }
}

//! The measurement as tables, and a verdict per aim.

use crate::nat::{Measured, Variant};
use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY);
    table.set_header(header);
    table
}

/// Prints everything.
pub fn print(measured: &Measured) {
    let mut rates = table(&["sessions", "", "Mpackets/s", "cycles/packet", "ns/packet", "cost", "statelets/packet"]);
    for forwarding in &measured.forwarding {
        for round in &forwarding.rounds {
            let cost = match round.variant {
                Variant::Nothing | Variant::Plain => String::new(),
                variant => forwarding.cost(variant).map_or(String::new(), |cost| format!("{:.1} %", cost * 100.0)),
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
        "new sessions: {:.2} million/s up to {} (longest burst of 32: {:.0} µs); with half of an address's ports taken \
         {:.2} million/s, with 99 % {:.2} million/s",
        opening.per_s / 1e6,
        opening.sessions,
        opening.longest_burst_us,
        opening.per_s_at_50_percent / 1e6,
        opening.per_s_at_99_percent / 1e6
    );
    let moving = &measured.moving;
    println!(
        "snapshot of {} sessions: {:.1} MB; freeze {:.1} µs, write {:.1} ms, adopt {:.1} ms; through a loopback \
         connection, on two cores {:.1} ms: {:.2} GB/s",
        moving.sessions,
        moving.bytes as f64 / 1e6,
        moving.freeze_us,
        moving.write_ms,
        moving.adopt_ms,
        moving.move_ms,
        moving.bytes_per_s() / 1e9
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

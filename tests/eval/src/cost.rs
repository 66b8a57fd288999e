//! What merging and compressing statelets cost, in time of the thread that sends them: measured where the report is made.

use crate::experiments::Experiment;
use crate::table_2::nat_statelets;
use slim_core::statelet::{Coalescer, Compressor};
use slim_nat::Nat;
use std::fs;
use std::time::Instant;

/// Statelets that wait together, as those of 10 ms do at 400 Mbit/s.
const BATCH: usize = 1024;

/// Rounds, of which the fastest counts: others were disturbed.
const ROUNDS: usize = 7;

/// Measures appending, merging, and each with compression, side by side.
///
/// # Errors
/// If Table II's workload cannot be run, or its statelets not be encoded.
pub fn measure() -> Result<Experiment, String> {
    let statelets = nat_statelets()?;
    let mut rows = Vec::new();
    let mut plain_ns = None;
    for (name, merge, compress) in [
        ("as announced", false, false),
        ("merged", true, false),
        ("compressed", false, true),
        ("merged and compressed", true, true),
    ] {
        let rounds: Result<Vec<f64>, String> = (0..ROUNDS).map(|_| round(&statelets, merge, compress)).collect();
        let best_ns = rounds?.into_iter().fold(f64::INFINITY, f64::min);
        let plain_ns = *plain_ns.get_or_insert(best_ns);
        let cycles = clock_ghz().map_or_else(|| "–".into(), |ghz| format!("{:.0}", best_ns * ghz));
        rows.push(vec![name.into(), format!("{best_ns:.0} ns"), cycles, format!("{:.1}", best_ns / plain_ns)]);
    }
    Ok(Experiment {
        question: "What do merging and compressing cost?".into(),
        answer: format!(
            "Time per statelet of the source's statelet thread, which is not the dataplane's: Table II's NAT, {BATCH} statelets at a \
             time, the best of {ROUNDS} rounds, on the machine that made this report."
        ),
        header: ["statelets", "time each", "cycles each", "times the plain ones"].map(str::to_owned).into(),
        rows,
    })
}

/// Nanoseconds for each of `statelets`.
fn round(statelets: &[(u16, Vec<u8>)], merge: bool, compress: bool) -> Result<f64, String> {
    let (mut coalescer, mut compressor) = (Coalescer::new(), Compressor::new());
    let mut out = Vec::new();
    let began = Instant::now();
    for batch in statelets.chunks(BATCH) {
        for (statelet_type, value) in batch {
            let pushed = if merge {
                coalescer.push::<Nat>(*statelet_type, value)
            } else {
                coalescer.append(*statelet_type, value)
            };
            pushed.map_err(|error| error.to_string())?;
        }
        out.clear();
        if compress {
            compressor.compress(coalescer.bytes(), &mut out).map_err(|error| error.to_string())?;
        } else {
            out.extend_from_slice(coalescer.bytes());
        }
        std::hint::black_box(&out);
        coalescer.clear();
    }
    Ok(began.elapsed().as_nanos() as f64 / statelets.len().max(1) as f64)
}

/// The processor's clock as the kernel tells it.
fn clock_ghz() -> Option<f64> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").ok()?;
    let mhz: f64 =
        cpuinfo.lines().find_map(|line| line.strip_prefix("cpu MHz")?.split_once(": "))?.1.trim().parse().ok()?;
    Some(mhz / 1000.0)
}

//! What SliM promises beyond the paper.

use super::{Claim, Verdict, line};
use crate::figures::measured::model_duration_s;
use crate::grid::{Mode, PACKET_SIZES_BYTES, RATES_MBIT, Scheduling, Setup, Variation, Vnf};
use crate::record::{Ended, Run};
use crate::results::Results;

/// How much longer than equation 3 a migration may take.
const OVER_MODEL: f64 = 1.15;

/// One round trip between instances and 5 ms: by how much a packet may be later than before the migration.
const RTT_EXCESS_MS: f64 = 15.0;

/// The highest load.
const HIGHEST_MBIT: u32 = 950;

/// T_B of figure 6; the testbed's own was less.
const LOCAL_S: f64 = 0.3;

pub(super) fn claims(results: &Results) -> Vec<Claim> {
    vec![nothing_lost(results), near_the_model(results), prompt(results), economy(results), same_state(results)]
}

/// Runs of statelets with the dataplane first.
fn dataplane_first(results: &Results) -> impl Iterator<Item = (Setup, &[Run])> {
    [Vnf::Nat, Vnf::Gateway].into_iter().flat_map(move |vnf| {
        RATES_MBIT.into_iter().flat_map(move |rate| {
            PACKET_SIZES_BYTES.into_iter().filter_map(move |size| {
                let setup = line(vnf, size, Mode::Statelet, Scheduling::DataplaneFirst)(rate);
                let runs = results.of(&setup);
                (!runs.is_empty()).then_some((setup, runs))
            })
        })
    })
}

fn nothing_lost(results: &Results) -> Claim {
    let runs: Vec<&Run> = dataplane_first(results).flat_map(|(_, runs)| runs).collect();
    let at_highest = || runs.iter().filter(|run| run.cell.setup.rate_mbit == HIGHEST_MBIT);
    let lost: u64 = runs.iter().map(|run| run.traffic.lost).sum();
    let lost_at_highest: u64 = at_highest().map(|run| run.traffic.lost).sum();
    let wrong_cell: u64 = runs.iter().map(|run| run.traffic.wrong_cell).sum();
    let failed = runs.iter().filter(|run| run.ended != Ended::Completed).count();
    Claim {
        claim: "Statelets, dataplane first: no packet lost up to 950 Mbit/s".into(),
        source: "ours".into(),
        figure: Some("figure-11"),
        paper: "loses from 900 Mbit/s (best-effort)".into(),
        model: "no loss below 1000/(1+σ) Mbit/s".into(),
        measured: format!(
            "{lost} packets lost in {} runs, {lost_at_highest} of them in {} runs at {HIGHEST_MBIT} Mbit/s; {failed} \
             migrations failed; {wrong_cell} packets of the gateway at a cell just left",
            runs.len(),
            at_highest().count()
        ),
        verdict: match at_highest().count() {
            0 => Verdict::NotMeasured,
            _ if lost > 0 || failed > 0 => Verdict::NotReproduced,
            _ => Verdict::Better,
        },
    }
}

fn near_the_model(results: &Results) -> Claim {
    let (mut worst, mut worst_without, mut failed) = (None::<(f64, Setup)>, 0.0_f64, 0);
    for (setup, runs) in dataplane_first(results) {
        for run in runs {
            let sigma = run.transfer.sigma_wire.unwrap_or(0.0);
            let Some((duration_s, model_s)) = run.duration_s.zip(model_duration_s(setup, sigma)) else {
                failed += 1;
                continue;
            };
            let ratio = duration_s / model_s;
            if worst.is_none_or(|(known, _)| ratio > known) {
                worst = Some((ratio, setup));
            }
            worst_without = worst_without.max(duration_s / (model_s - LOCAL_S));
        }
    }
    Claim {
        claim: "Statelets, dataplane first: at every load at most 1.15 times equation 3".into(),
        source: "ours".into(),
        figure: Some("figure-15"),
        paper: "not compared".into(),
        model: "1".into(),
        measured: worst.map_or_else(
            || "not measured".into(),
            |(ratio, setup)| {
                format!(
                    "at most {ratio:.2} times ({setup}) with T_B = {LOCAL_S} s, and {worst_without:.2} times with T_B = 0; \
                     {failed} runs without a duration"
                )
            },
        ),
        verdict: worst.map_or(Verdict::NotMeasured, |(ratio, _)| {
            if ratio <= OVER_MODEL && failed == 0 { Verdict::Better } else { Verdict::NotReproduced }
        }),
    }
}

fn prompt(results: &Results) -> Claim {
    let excess = |run: &Run| run.rtt.max_ms - run.rtt.before_max_ms;
    let runs = || dataplane_first(results).flat_map(|(_, runs)| runs);
    let worst = runs().map(|run| (excess(run), run.cell.setup)).reduce(|a, b| if b.0 > a.0 { b } else { a });
    Claim {
        claim: "Statelets, dataplane first: no RTT longer than before by more than 15 ms (a round trip between instances and 5 ms)"
            .into(),
        source: "ours".into(),
        figure: Some("figure-14"),
        paper: "up to 100 ms in the mean of half a second".into(),
        model: "one round trip: 10 ms".into(),
        measured: worst.map_or_else(|| "not measured".into(), |(ms, setup)| format!("at most {ms:.1} ms more ({setup})")),
        verdict: worst.map_or(Verdict::NotMeasured, |(ms, _)| {
            if ms <= RTT_EXCESS_MS { Verdict::Better } else { Verdict::NotReproduced }
        }),
    }
}

/// Bytes of a statelet segment's headers on the wire: Ethernet with check sequence, IPv4, TCP with time stamps.
const SEGMENT_OVERHEAD: u64 = 14 + 20 + 32 + 4;

fn economy(results: &Results) -> Claim {
    let economic = Variation { coalesce: true, compress: true, ..Variation::default() };
    let runs = results
        .iter()
        .filter(|(setup, _)| setup.vnf == Vnf::Nat && setup.mode == Mode::Statelet && setup.variation == economic);
    let shares = runs.flat_map(|(setup, runs)| runs.iter().map(move |run| (setup, run))).filter_map(|(setup, run)| {
        let transfer = &run.transfer;
        let wire = transfer.statelet_stream_bytes + transfer.statelet_segments * SEGMENT_OVERHEAD;
        (transfer.announced_tlv_bytes > 0).then(|| (wire as f64 / transfer.announced_tlv_bytes as f64, *setup))
    });
    let worst = shares.reduce(|a, b| if b.0 > a.0 { b } else { a });
    Claim {
        claim: "NAT: merged and compressed, statelets take at most half of the paper's TLV bytes on the wire".into(),
        source: "ours".into(),
        figure: None,
        paper: "proposed in §VI-A, not done".into(),
        model: "none".into(),
        measured: worst.map_or_else(
            || "not measured".into(),
            |(share, setup)| {
                format!("at most {:.1} %, headers of TCP/IP and Ethernet included ({setup})", share * 100.0)
            },
        ),
        verdict: worst.map_or(Verdict::NotMeasured, |(share, _)| {
            if share <= 0.5 { Verdict::Better } else { Verdict::NotReproduced }
        }),
    }
}

fn same_state(results: &Results) -> Claim {
    let completed = || results.runs().filter(|run| run.ended == Ended::Completed);
    let equal = completed().filter(|run| run.digests_equal == Some(true)).count();
    let disorder: u64 =
        results.runs().map(|run| run.traffic.duplicated + run.traffic.reordered + run.traffic.wrong).sum();
    Claim {
        claim: "Every mode and load: the state arrives as it left, and no packet twice, overtaken or wrong".into(),
        source: "ours".into(),
        figure: None,
        paper: "not compared".into(),
        model: "none".into(),
        measured: format!(
            "{equal} of {} completed migrations with equal digests; {disorder} packets in {} runs",
            completed().count(),
            results.runs().count()
        ),
        verdict: match completed().count() {
            0 => Verdict::NotMeasured,
            count if count == equal && disorder == 0 => Verdict::Better,
            _ => Verdict::NotReproduced,
        },
    }
}

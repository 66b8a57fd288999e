//! What SliM promises beyond the paper.

use super::{Claim, LOSS_VISIBLE_S, Verdict, line};
use crate::figures::measured::model_duration_s;
use crate::figures::model::{precopy_bound, precopy_setup};
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

pub(super) fn of_images(results: &Results) -> Vec<Claim> {
    vec![nothing_lost(results), near_the_model(results), foretold(results), precopy(results), same_state(results)]
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
    let lost_before: u64 = runs.iter().map(|run| run.traffic.lost_before).sum();
    let wrong_cell: u64 = runs.iter().map(|run| run.traffic.wrong_cell).sum();
    let failed = runs.iter().filter(|run| run.ended != Ended::Completed).count();
    Claim {
        claim: "Statelets, dataplane first: no packet lost up to 950 Mbit/s".into(),
        source: "ours".into(),
        figure: Some("figure-11"),
        paper: "loses from 900 Mbit/s (best-effort)".into(),
        model: "no loss below 1000/(1+σ) Mbit/s".into(),
        measured: format!(
            "{lost} packets lost in {} runs, {lost_at_highest} of them in {} runs at {HIGHEST_MBIT} Mbit/s, {lost_before} \
             before any migration began; {failed} migrations failed; {wrong_cell} packets of the gateway at a cell just left",
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

/// By how much a migration may differ from what `slimctl migrate --plan` has said, of the latter; or by T_B.
const OFF_PLAN: f64 = 0.25;

/// Beyond that a load that is measured 1 % too high or too low makes a duration half as long again, or more.
const PLANNED_MBIT_MAX: u32 = 900;

/// The plan beside what happened. That a migration ends, and when, it promises only where the dataplane goes first.
fn foretold(results: &Results) -> Claim {
    let runs = || results.runs().filter_map(|run| Some((run, run.planned?)));
    let promised = |run: &Run| run.cell.setup.scheduling == Scheduling::DataplaneFirst;
    let told = || runs().filter(|(run, planned)| promised(run) || !planned.converges);
    let well = |run: &Run| run.ended == Ended::Completed && (promised(run) || run.traffic.loss_s() <= LOSS_VISIBLE_S);
    let wrong = told().filter(|(run, planned)| planned.converges != well(run)).count();
    let timed = || {
        let first = runs().filter(|(run, _)| promised(run) && run.cell.setup.rate_mbit <= PLANNED_MBIT_MAX);
        first.filter_map(|(run, planned)| Some((run.duration_s?, planned.duration_s?)))
    };
    let close = |(took, said): &(f64, f64)| (took - said).abs() <= (said * OFF_PLAN).max(LOCAL_S);
    let ratios = || timed().map(|(took, said)| took / said);
    let (least, most) = (ratios().reduce(f64::min), ratios().reduce(f64::max));
    Claim {
        claim: format!(
            "`slimctl migrate --plan` says beforehand which migration does not end, or not without loss, and, where the dataplane goes first, how \
             long it takes (within a quarter or {LOCAL_S} s, up to {PLANNED_MBIT_MAX} Mbit/s)"
        ),
        source: "ours".into(),
        figure: None,
        paper: "not compared".into(),
        model: "1".into(),
        measured: match (least, most) {
            (Some(least), Some(most)) => format!(
                "{wrong} of {} verdicts wrong; took {least:.2} to {most:.2} times what was said, in {} runs",
                told().count(),
                timed().count()
            ),
            _ => "not measured".into(),
        },
        verdict: match most {
            None => Verdict::NotMeasured,
            Some(_) if wrong == 0 && timed().all(|pair| close(&pair)) => Verdict::Better,
            Some(_) => Verdict::NotReproduced,
        },
    }
}

/// The hypervisor's own live migration beside the paper's lower bound for it.
fn precopy(results: &Results) -> Claim {
    let rows: Vec<(u32, f64, f64)> = RATES_MBIT
        .into_iter()
        .filter_map(|rate| {
            let downtime = results.summary(&precopy_setup(rate), |run| Some(run.precopy?.downtime_s? / run.scale))?;
            Some((rate, downtime.mean, precopy_bound(&precopy_setup(rate))?.downtime_s))
        })
        .collect();
    let list = |value: fn(&(u32, f64, f64)) -> f64| {
        let show = |row: &(u32, f64, f64)| format!("{:.3} s at {}", value(row), row.0);
        let all = rows.iter().map(show).collect::<Vec<_>>().join(", ");
        if all.is_empty() { "not measured".to_owned() } else { format!("{all} Mbit/s") }
    };
    Claim {
        claim:
            "A hypervisor's own live migration stops the guest for longer than §V-A's lower bound (with this image's \
                rings, at full scale)"
                .into(),
        source: "§V-A".into(),
        figure: Some("figure-7-downtime"),
        paper: "a lower bound".into(),
        model: list(|row| row.2),
        measured: list(|row| row.1),
        verdict: match rows.len() {
            0 => Verdict::NotMeasured,
            _ => Verdict::of(rows.iter().all(|(_, downtime, bound)| downtime >= bound)),
        },
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
    // Where a whole guest moves, nobody takes digests.
    let of_state = || results.runs().filter(|run| run.cell.setup.mode != Mode::Precopy);
    let completed = || of_state().filter(|run| run.ended == Ended::Completed);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Planned;
    use crate::record::tests::run;

    fn results(runs: &[Run]) -> Results {
        let cells: Vec<_> = runs.iter().map(|run| run.cell).collect();
        Results::new(runs.iter(), &cells)
    }

    fn first(rate_mbit: u32, change: impl FnOnce(&mut Run)) -> Results {
        let mut run = run(rate_mbit, 0);
        run.cell.setup.scheduling = Scheduling::DataplaneFirst;
        change(&mut run);
        results(&[run])
    }

    #[test]
    fn a_single_packet_is_a_loss_and_so_is_a_migration_that_is_undone() {
        let claim = |change: fn(&mut Run)| nothing_lost(&first(HIGHEST_MBIT, change));
        assert_eq!(claim(|_| ()).verdict, Verdict::Better);
        let lost = claim(|run| (run.traffic.lost, run.traffic.lost_before) = (3, 2));
        assert_eq!(lost.verdict, Verdict::NotReproduced);
        assert!(lost.measured.contains("2 before any migration began"), "{}", lost.measured);
        let undone = claim(|run| run.ended = Ended::RolledBack("it took too long".into()));
        assert_eq!(undone.verdict, Verdict::NotReproduced);
        assert_eq!(nothing_lost(&first(500, |_| ())).verdict, Verdict::NotMeasured);
    }

    #[test]
    fn a_plan_is_held_to_what_it_says() {
        let verdict = |took_s: Option<f64>, said_s: Option<f64>| {
            let results = first(500, |run| {
                run.duration_s = took_s;
                run.ended = took_s.map_or_else(|| Ended::RolledBack("given up".into()), |_| Ended::Completed);
                run.planned = Some(Planned { converges: said_s.is_some(), duration_s: said_s });
            });
            foretold(&results).verdict
        };
        assert_eq!(verdict(Some(0.6), Some(0.5)), Verdict::Better);
        assert_eq!(verdict(Some(0.9), Some(0.5)), Verdict::NotReproduced);
        assert_eq!(verdict(Some(4.9), Some(4.0)), Verdict::Better);
        assert_eq!(verdict(None, None), Verdict::NotMeasured, "no duration to compare");
        // One of each, of which the second ends against what was said.
        let mut wrong = run(800, 0);
        wrong.planned = Some(Planned { converges: false, duration_s: None });
        let mut right = run(500, 0);
        right.cell.setup.scheduling = Scheduling::DataplaneFirst;
        right.planned = Some(Planned { converges: true, duration_s: Some(0.5) });
        assert_eq!(foretold(&results(&[right, wrong])).verdict, Verdict::NotReproduced);
    }

    #[test]
    fn precopy_s_times_are_compared_at_full_scale() {
        let verdict = |downtime_s| {
            let mut run = run(500, 0);
            run.cell.setup = precopy_setup(500);
            run.scale = 10.0;
            run.precopy = Some(crate::record::Precopy {
                downtime_s: Some(downtime_s),
                rounds: 10,
                memory_bytes: 1 << 28,
                stream_bytes: 1 << 27,
            });
            precopy(&results(&[run])).verdict
        };
        // Two rings of 1024 packets of 1400 bytes are 22.9 Mbit: 23 ms on the whole link.
        assert_eq!((verdict(0.24), verdict(0.22)), (Verdict::Reproduced, Verdict::NotReproduced));
    }
}

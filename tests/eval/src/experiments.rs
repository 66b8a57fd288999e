//! Experiments that explain: the same runs with one thing changed, side by side.

use crate::claims::LOSS_VISIBLE_S;
use crate::figures::measured::model_duration_s;
use crate::figures::model::{MEMORY_MIB, precopy_bound};
use crate::grid::{
    Conditions, ECONOMIES, ECONOMY_RATES_MBIT, EXPERIMENT_RATES_MBIT, EXPERIMENTS, Mode, Scheduling, Setup, Variation,
    Vnf,
};
use crate::record::{Ended, Run};
use crate::results::Results;
use serde::Serialize;
use std::collections::BTreeSet;

/// A question, and a table that answers it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Experiment {
    /// What was asked.
    pub question: String,
    /// What the table says, in words.
    pub answer: String,
    /// The table's header.
    pub header: Vec<String>,
    /// The table's rows.
    pub rows: Vec<Vec<String>>,
}

/// Those for which something was run.
pub fn all(results: &Results) -> Vec<Experiment> {
    let limits = [Mode::Duplicate, Mode::Statelet].map(|mode| limits(results, mode));
    limits.into_iter().chain([economy(results)]).filter(|experiment| !experiment.rows.is_empty()).collect()
}

/// What booted images did: how each migration went beside what was foretold, and how long round trips were.
pub fn of_images(results: &Results) -> Vec<Experiment> {
    [booted_migrations(results), booted_precopy(results), booted_round_trips(results)]
        .into_iter()
        .filter(|experiment| !experiment.rows.is_empty())
        .collect()
}

fn ended(run: &Run) -> String {
    match &run.ended {
        Ended::Completed => "completed".into(),
        Ended::RolledBack(failure) => format!("undone: {failure}"),
        Ended::Unresolved(failure) => format!("unresolved: {failure}"),
    }
}

fn booted_migrations(results: &Results) -> Experiment {
    let or_none = |value: Option<f64>| value.map_or_else(|| "–".into(), |value| format!("{value:.2} s"));
    let row = |run: &Run| {
        let Run { cell, transfer, traffic, planned, .. } = run;
        let model_s = match cell.setup.mode {
            Mode::Statelet => model_duration_s(cell.setup, transfer.sigma_wire.unwrap_or(0.0)),
            Mode::Duplicate => model_duration_s(cell.setup, 1.0),
            Mode::Buffer | Mode::StopAndCopy | Mode::Precopy => None,
        };
        let foretold = planned.map(|planned| {
            planned.duration_s.map_or_else(|| "does not end".into(), |seconds| format!("{seconds:.2} s"))
        });
        vec![
            cell.setup.to_string(),
            ended(run),
            or_none(run.duration_s),
            or_none(model_s),
            foretold.unwrap_or_else(|| "–".into()),
            format!("{} of {}", traffic.lost, traffic.sent),
            traffic.lost_before.to_string(),
            format!("{:.3} MB", transfer.total_bytes() as f64 / 1e6),
            (run.pkt_q_packets).to_string(),
        ]
    };
    let header = [
        "setup, before it is scaled",
        "",
        "duration",
        "equation 3",
        "plan said",
        "packets lost",
        "before it began",
        "moved",
        "longest pkt_q",
    ];
    Experiment {
        question: "How did each migration go, and what had been foretold?".into(),
        answer: format!(
            "One line for each run, on {}. Equation 3 with T_B = 0.3 s and the σ that was measured, or 1 for duplication. The \
             plan is that of `slimctl migrate --plan`, made right before; it takes T_B for 0.1 s and knows nothing of what \
             streams and packets do to each other where the dataplane does not go first.",
            accelerators(results)
        ),
        header: header.map(str::to_owned).into(),
        rows: results.runs().filter(|run| run.precopy.is_none()).map(row).collect(),
    }
}

fn booted_precopy(results: &Results) -> Experiment {
    let or_none = |value: Option<f64>| value.map_or_else(|| "–".into(), |value| format!("{value:.2} s"));
    let row = |run: &Run| {
        let precopy = run.precopy?;
        let bound = precopy_bound(&run.cell.setup);
        Some(vec![
            run.cell.setup.to_string(),
            ended(run),
            or_none(precopy.downtime_s),
            or_none(bound.map(|bound| bound.downtime_s * run.scale)),
            or_none(run.duration_s),
            or_none(bound.map(|bound| bound.duration_s * run.scale)),
            precopy.rounds.to_string(),
            format!("{:.0} MB", precopy.stream_bytes as f64 / 1e6),
            format!("{} of {}", run.traffic.lost, run.traffic.sent),
        ])
    };
    let header = [
        "setup, before it is scaled",
        "",
        "guest stopped",
        "at least",
        "duration",
        "model",
        "rounds",
        "moved",
        "packets lost",
    ];
    Experiment {
        question: "What does the hypervisor's own live migration take?".into(),
        answer: format!(
            "QEMU's pre-copy of the same image over the same metered links, the switch redirecting when the guest runs at \
             the destination. After ten rounds the guest is stopped, or before if QEMU expects that to take less than 0.3 s. \
             The lower bound of §V-A is that for the link and load as they were, for two rings of 1024 packets and {MEMORY_MIB} \
             MiB, of which QEMU leaves out empty pages, and with the dataplane off in the last round. Memory does not \
             scale, so all this takes as many times longer as the link is slower.",
        ),
        header: header.map(str::to_owned).into(),
        rows: results.runs().filter_map(row).collect(),
    }
}

/// What ran the guests.
fn accelerators(results: &Results) -> String {
    let known: BTreeSet<&str> = results.runs().filter_map(|run| run.accel.as_deref()).collect();
    known.into_iter().collect::<Vec<_>>().join(" and ")
}

fn booted_round_trips(results: &Results) -> Experiment {
    let row = |run: &Run| {
        let rtt = &run.rtt;
        let times = [rtt.before_mean_ms, rtt.before_max_ms, rtt.during_p50_ms, rtt.during_p99_ms, rtt.max_ms];
        let late = format!("{} of {}", run.traffic.late, run.traffic.sent / 2);
        let times = times.map(|ms| format!("{ms:.1} ms"));
        [run.cell.setup.to_string()].into_iter().chain(times).chain([late]).collect()
    };
    let header = [
        "setup, before it is scaled",
        "mean before",
        "longest before",
        "median during",
        "99 % during",
        "longest during and after",
        "later than 15 ms",
    ];
    Experiment {
        question: "How long were round trips?".into(),
        answer:
            "Two delay lines of 2.5 ms make 10 ms; what is above is the machine's. No limit is promised here: whatever \
                 else runs on the machine is in these numbers, too."
                .into(),
        header: header.map(str::to_owned).into(),
        rows: results.runs().map(row).collect(),
    }
}

fn setup(mode: Mode, packet_size_bytes: u16, rate_mbit: u32, variation: Variation) -> Setup {
    Setup { vnf: Vnf::Nat, packet_size_bytes, rate_mbit, mode, scheduling: Scheduling::BestEffort, variation }
}

fn mean(runs: &[Run], metric: impl Fn(&Run) -> f64) -> f64 {
    runs.iter().map(metric).sum::<f64>() / runs.len().max(1) as f64
}

fn works(runs: &[Run]) -> bool {
    runs.iter().all(|run| run.ended == Ended::Completed) && mean(runs, |run| run.traffic.loss_s()) <= LOSS_VISIBLE_S
}

/// Frames of the streams that meters dropped.
fn stream_drops(run: &Run) -> f64 {
    run.drops.iter().filter(|(cause, _)| cause.starts_with("management_")).map(|(_, frames)| *frames as f64).sum()
}

/// What became of runs, in a few words.
fn outcome(runs: &[Run]) -> String {
    let failed = runs.iter().filter(|run| run.ended != Ended::Completed).count();
    let mut text = match failed {
        0 => format!("{:.2} s", mean(runs, |run| run.duration_s.unwrap_or(0.0))),
        _ if failed == runs.len() => "gives up".to_owned(),
        _ => format!("{failed} of {} give up", runs.len()),
    };
    let loss_s = mean(runs, |run| run.traffic.loss_s());
    if loss_s > LOSS_VISIBLE_S {
        text += &format!(", loses {loss_s:.2} s");
    }
    match mean(runs, stream_drops).round() {
        0.0 => {}
        dropped => text += &format!(" ({dropped})"),
    }
    text
}

/// What decides up to which load a mode works.
fn limits(results: &Results, mode: Mode) -> Experiment {
    let mut rows = Vec::new();
    let mut bounds = Vec::new();
    for Conditions { name, scheduling, variation } in EXPERIMENTS {
        let of = |rate| results.of(&Setup { scheduling, ..setup(mode, 1400, rate, variation) });
        if EXPERIMENT_RATES_MBIT.iter().all(|&rate| of(rate).is_empty()) {
            continue;
        }
        let known = EXPERIMENT_RATES_MBIT.into_iter().filter(|&rate| !of(rate).is_empty());
        let bound = known.take_while(|&rate| works(of(rate))).last();
        let bound = bound.map_or_else(|| "no load that was tried".to_owned(), |rate| format!("{rate} Mbit/s"));
        let outcomes = EXPERIMENT_RATES_MBIT.map(|rate| match of(rate) {
            [] => "–".to_owned(),
            runs => outcome(runs),
        });
        rows.push([name.to_owned(), bound.clone()].into_iter().chain(outcomes).collect());
        bounds.push((name, bound));
    }
    let rates = EXPERIMENT_RATES_MBIT.map(|rate| format!("{rate} Mbit/s"));
    Experiment {
        question: format!("NAT, 1400 B, {}: what decides up to which load it works?", mode.name()),
        answer: summary(&bounds),
        header: ["conditions".to_owned(), "works up to".to_owned()].into_iter().chain(rates).collect(),
        rows,
    }
}

/// Which conditions change the load up to which a mode works.
fn summary(bounds: &[(&str, String)]) -> String {
    let Some(((_, usual), others)) = bounds.split_first() else { return String::new() };
    let (same, moved): (Vec<_>, Vec<_>) = others.iter().partition(|(_, bound)| bound == usual);
    let list = |some: &[&(&str, String)], with_bound: bool| {
        let one =
            |(name, bound): &&(&str, String)| if with_bound { format!("{name} ({bound})") } else { (*name).to_owned() };
        if some.is_empty() { "nothing".to_owned() } else { some.iter().map(one).collect::<Vec<_>>().join("; ") }
    };
    format!(
        "It works up to: {usual}. What moves that: {}. What does not: {}. Cells have the mean duration, or say that the \
         migration gives up and the source goes on; seconds of packet loss; and in brackets how many frames of the streams \
         the meters dropped.",
        list(&moved, true),
        list(&same, false)
    )
}

/// What merging and compressing save.
fn economy(results: &Results) -> Experiment {
    let mut rows = Vec::new();
    for rate in ECONOMY_RATES_MBIT {
        for (name, variation) in ECONOMIES {
            let setup = setup(Mode::Statelet, 512, rate, variation);
            let share = |bytes: fn(&Run) -> u64| {
                results.summary(&setup, |run| {
                    let announced = run.transfer.announced_tlv_bytes;
                    (announced > 0).then(|| bytes(run) as f64 / announced as f64)
                })
            };
            let Some(stream) = share(|run| run.transfer.statelet_stream_bytes) else { continue };
            let sigma = results.summary(&setup, |run| run.transfer.sigma_wire);
            rows.push(vec![
                format!("{rate} Mbit/s"),
                name.into(),
                format!("{:.1} %", stream.mean * 100.0),
                sigma.map_or_else(|| "–".into(), |sigma| format!("{:.4}", sigma.mean)),
            ]);
        }
    }
    Experiment {
        question: "NAT, 512 B: what do merging and compressing save?".into(),
        answer:
            "Bytes of the statelet stream beside what was announced with type and length, and σ on the wire with all \
                 headers."
                .into(),
        header: ["load", "statelets", "stream over announced", "σ on the wire"].map(str::to_owned).into(),
        rows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::run;

    #[test]
    fn what_moves_a_limit_is_told_from_what_does_not() {
        let bounds = [("usual", "200".to_owned()), ("a", "200".to_owned()), ("b", "400".to_owned())];
        let text = summary(&bounds);
        assert!(text.starts_with("It works up to: 200. What moves that: b (400). What does not: a."), "{text}");
    }

    #[test]
    fn a_mode_works_up_to_where_it_first_fails() {
        let at = |rate_mbit, lost, ended| {
            let mut run = run(rate_mbit, 0);
            run.cell.setup = setup(Mode::Duplicate, 1400, rate_mbit, Variation::default());
            run.traffic.lost = lost;
            run.ended = ended;
            run
        };
        let runs = [
            at(200, 0, Ended::Completed),
            at(300, 5, Ended::Completed),
            at(400, 0, Ended::RolledBack("st_q_out is full".into())),
            at(500, 100, Ended::Completed),
        ];
        let cells: Vec<_> = runs.iter().map(|run| run.cell).collect();
        let [experiment] = &all(&Results::new(runs.iter(), &cells))[..] else { panic!() };
        let row = &experiment.rows[0];
        assert_eq!(row[1..6], ["300 Mbit/s", "0.50 s", "0.50 s", "gives up", "0.50 s, loses 0.10 s"]);
    }
}

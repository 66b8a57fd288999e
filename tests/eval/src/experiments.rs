//! Experiments that explain: the same runs with one thing changed, side by side.

use crate::claims::LOSS_VISIBLE_S;
use crate::grid::{
    Conditions, ECONOMIES, ECONOMY_RATES_MBIT, EXPERIMENT_RATES_MBIT, EXPERIMENTS, Mode, Scheduling, Setup, Variation,
    Vnf,
};
use crate::record::{Ended, Run};
use crate::results::Results;
use serde::Serialize;

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

//! Experiments that explain: the same runs with one thing changed, side by side.

use crate::claims::LOSS_VISIBLE_S;
use crate::grid::{
    ECONOMIES, ECONOMY_RATES_MBIT, EXPERIMENT_RATES_MBIT, EXPERIMENTS, Mode, Scheduling, Setup, Variation, Vnf,
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

/// What became of runs, in a few words.
fn outcome(runs: &[Run]) -> String {
    if runs.is_empty() {
        return "–".into();
    }
    let mean = |metric: &dyn Fn(&Run) -> f64| runs.iter().map(metric).sum::<f64>() / runs.len() as f64;
    let failed = runs.iter().filter(|run| run.ended != Ended::Completed).count();
    let loss_s = mean(&|run| run.traffic.loss_s());
    let mut text = match failed {
        0 => format!("{:.2} s", mean(&|run| run.duration_s.unwrap_or(0.0))),
        _ if failed == runs.len() => "gives up".to_owned(),
        _ => format!("{failed} of {} give up", runs.len()),
    };
    if loss_s > LOSS_VISIBLE_S {
        text += &format!(", loses {loss_s:.2} s");
    } else if loss_s > 0.0 {
        text += ", loses a few";
    }
    text
}

/// What decides up to which load a mode works.
fn limits(results: &Results, mode: Mode) -> Experiment {
    let row = |(name, variation): (&str, Variation)| {
        let cells = EXPERIMENT_RATES_MBIT.map(|rate| outcome(results.of(&setup(mode, 1400, rate, variation))));
        let any = cells.iter().any(|cell| cell != "–");
        any.then(|| [name.to_owned()].into_iter().chain(cells).collect())
    };
    let header =
        ["conditions".to_owned()].into_iter().chain(EXPERIMENT_RATES_MBIT.map(|rate| format!("{rate} Mbit/s")));
    Experiment {
        question: format!("NAT, 1400 B, {}: what decides up to which load it works?", mode.name()),
        answer: "Duration, or that the migration gives up and the source goes on; and seconds of packet loss.".into(),
        header: header.collect(),
        rows: EXPERIMENTS.into_iter().filter_map(row).collect(),
    }
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

//! What the paper claims, what its model says, what was measured, and whether that agrees. Every verdict is computed.

mod beyond;
mod paper;

use crate::grid::{Mode, PACKET_SIZES_BYTES, RATES_MBIT, Scheduling, Setup, Variation, Vnf};
use crate::record::{Ended, Run};
use crate::results::Results;
use crate::table_2::Row;
use serde::Serialize;
use std::fmt;

/// Whether a claim holds here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As the paper has it, or, of our own promises: kept.
    Reproduced,
    /// It was measured, and it is not so.
    NotReproduced,
    /// Better than the paper has it.
    Better,
    /// Not enough was run to tell.
    NotMeasured,
}

impl Verdict {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reproduced => "reproduced",
            Self::NotReproduced => "not reproduced",
            Self::Better => "better",
            Self::NotMeasured => "not measured",
        }
    }

    /// Of something that holds or does not.
    fn of(holds: bool) -> Self {
        if holds { Self::Reproduced } else { Self::NotReproduced }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One claim with everything that is known about it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Claim {
    /// What is claimed.
    pub claim: String,
    /// Where: of the paper, or of ours.
    pub source: String,
    /// The figure that shows it.
    pub figure: Option<&'static str>,
    /// The paper's number.
    pub paper: String,
    /// The model's number.
    pub model: String,
    /// Ours.
    pub measured: String,
    /// Whether they agree.
    pub verdict: Verdict,
}

/// All claims that `results` and `table_2` can speak to.
pub fn all(results: &Results, table_2: &[Row]) -> Vec<Claim> {
    let mut claims = paper::claims(results, table_2);
    claims.extend(beyond::claims(results));
    claims
}

/// Claims that booted images can speak to: those of ours that are about one load each.
pub fn of_images(results: &Results) -> Vec<Claim> {
    let mut claims = beyond::of_images(results);
    for claim in &mut claims {
        claim.claim = format!("Booted images: {}", claim.claim);
    }
    claims
}

/// What a figure can show: a hundredth of a second of loss.
pub const LOSS_VISIBLE_S: f64 = 0.01;

/// Where loss begins as the load rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begins {
    /// Nothing was run.
    Unknown,
    /// There is none up to this load.
    NotUpTo(u32),
    /// At this load; there is none, or nothing was run, below.
    At(u32),
}

impl fmt::Display for Begins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("not measured"),
            Self::NotUpTo(rate) => write!(f, "not up to {rate} Mbit/s"),
            Self::At(rate) => write!(f, "{rate} Mbit/s"),
        }
    }
}

/// A line of the grid: everything but the load.
fn line(vnf: Vnf, packet_size_bytes: u16, mode: Mode, scheduling: Scheduling) -> impl Fn(u32) -> Setup + Copy {
    move |rate_mbit| Setup { vnf, packet_size_bytes, rate_mbit, mode, scheduling, variation: Variation::default() }
}

/// The lowest load at which the mean of `metric` over both packet sizes' runs exceeds `limit` for either of them.
fn begins(results: &Results, vnf: Vnf, mode: Mode, scheduling: Scheduling, exceeds: impl Fn(&[Run]) -> bool) -> Begins {
    let mut highest = None;
    for rate in RATES_MBIT {
        for size in PACKET_SIZES_BYTES {
            let runs = results.of(&line(vnf, size, mode, scheduling)(rate));
            if !runs.is_empty() {
                highest = Some(rate);
                if exceeds(runs) {
                    return Begins::At(rate);
                }
            }
        }
    }
    highest.map_or(Begins::Unknown, Begins::NotUpTo)
}

fn mean(runs: &[Run], metric: impl Fn(&Run) -> f64) -> f64 {
    runs.iter().map(metric).sum::<f64>() / runs.len().max(1) as f64
}

/// Whether so much is lost that a figure shows it.
fn loses(runs: &[Run]) -> bool {
    mean(runs, |run| run.traffic.loss_s()) > LOSS_VISIBLE_S
}

/// Whether some migration was not completed.
fn fails(runs: &[Run]) -> bool {
    runs.iter().any(|run| run.ended != Ended::Completed)
}

/// Mean duration at a load over both packet sizes; `None` if some migration did not complete, or nothing was run.
fn duration_s(results: &Results, vnf: Vnf, mode: Mode, scheduling: Scheduling, rate: u32) -> Option<f64> {
    let runs = PACKET_SIZES_BYTES.iter().flat_map(|&size| results.of(&line(vnf, size, mode, scheduling)(rate)));
    let durations: Option<Vec<f64>> = runs.map(|run| run.duration_s).collect();
    let durations = durations.filter(|durations| !durations.is_empty())?;
    Some(durations.iter().sum::<f64>() / durations.len() as f64)
}

/// Seconds, or that there are none.
fn seconds(value: Option<f64>) -> String {
    value.map_or_else(|| "not completed".into(), |value| format!("{value:.2} s"))
}

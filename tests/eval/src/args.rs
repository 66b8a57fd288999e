//! The command line.

use clap::{Parser, ValueEnum};
use slim_eval::grid::{Extent, Variation};
use std::path::PathBuf;

/// Runs the paper's evaluation and prints which of its claims hold.
///
/// Runs are kept in the output folder as they end: started again, the command goes on where it was interrupted. Runs of
/// another build of this program are done again. docs/evaluation.md tells what is compared.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask eval", after_help = EXAMPLES)]
pub struct Arguments {
    /// Which testbed
    #[arg(long, default_value = "both")]
    pub backend: Which,

    /// Divide the rates and sizes of booted images by this, so that all ratios stay; a divisor of 1000
    #[arg(long, default_value_t = 10, value_name = "K", value_parser = parse_scale)]
    pub scale: u32,

    /// What the claims need, twice, instead of everything 13 times
    #[arg(long)]
    pub quick: bool,

    /// Cells run at a time in the simulation; one per processor without
    #[arg(long, value_name = "N")]
    pub jobs: Option<usize>,

    /// Run only cells whose description contains this, such as "nat 512 B 900"
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,

    /// Stop after so many repetitions of each cell
    #[arg(long, value_name = "N")]
    pub repetitions: Option<u32>,

    /// Run the cells under other conditions, given as JSON such as {"window_kib": 512}: an experiment of your own
    #[arg(long, value_name = "JSON", value_parser = parse_variation)]
    pub variation: Option<Variation>,

    /// Run nothing: make the report from the runs there are, those of other builds included
    #[arg(long)]
    pub report_only: bool,

    /// Write figures, their data and a README.md into this folder, too
    #[arg(long, value_name = "FOLDER")]
    pub keep: Option<PathBuf>,

    /// The output folder
    #[arg(long, default_value = "target/eval", value_name = "FOLDER")]
    pub out: PathBuf,

    /// Print claims and tables as one JSON object
    #[arg(long)]
    pub json: bool,
}

const EXAMPLES: &str = "Examples:
  cargo xtask eval --quick                                a first answer
  cargo xtask eval                                        everything, for hours
  cargo xtask eval --backend vm --scale 4                 booted images only, on links of 250 Mbit/s
  cargo xtask eval --only \"nat 1400 B 400\"                one point of every line
  cargo xtask eval --report-only --keep docs/evaluation   the kept report from the runs there are";

/// Which testbeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Which {
    /// Virtual time, full scale
    Sim,
    /// Booted images in real time
    Vm,
    /// One after the other
    Both,
}

impl Arguments {
    /// How much is to be run.
    pub fn extent(&self) -> Extent {
        if self.quick { Extent::Quick } else { Extent::Full }
    }

    /// How many cells are run at a time.
    pub fn jobs(&self) -> usize {
        let cpus = || std::thread::available_parallelism().map_or(1, |cpus| cpus.get());
        self.jobs.unwrap_or_else(cpus).max(1)
    }
}

fn parse_scale(text: &str) -> Result<u32, String> {
    let scale: u32 = text.parse().map_err(|error| format!("{error}"))?;
    // The link's rate is given in whole Mbit/s.
    if scale == 0 || 1000 % scale != 0 { Err("it has to be a divisor of 1000".into()) } else { Ok(scale) }
}

fn parse_variation(text: &str) -> Result<Variation, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn only_scales_that_leave_a_whole_rate_are_taken() {
        let parse = |scale: &str| Arguments::try_parse_from(["eval", "--scale", scale]);
        assert_eq!(parse("8").map(|arguments| arguments.scale).ok(), Some(8));
        for scale in ["0", "3", "2000", "ten"] {
            assert!(parse(scale).is_err(), "{scale}");
        }
    }
}

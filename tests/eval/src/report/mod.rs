//! The report: figures, tables and claims of all back-ends, as one HTML page and as files to be kept.

mod html;
mod markdown;

use crate::claims::{self, Claim};
use crate::cost;
use crate::experiments::{self, Experiment};
use crate::figures::{Figure, draw, measured, model};
use crate::grid::Cell;
use crate::results::Results;
use crate::store::Store;
use crate::table_2::{self, Row};
use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use std::fs;
use std::path::Path;

/// Everything that can be said about what was run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Where the runs are from.
    pub origins: Vec<Origin>,
    /// Claims and verdicts.
    pub claims: Vec<Claim>,
    /// Table II.
    pub table_2: Vec<Row>,
    /// What booted images did, and what was foretold.
    pub booted: Vec<Experiment>,
    /// Experiments that explain.
    pub experiments: Vec<Experiment>,
    /// The figures.
    #[serde(skip)]
    pub figures: Vec<Figure>,
}

/// The runs of one back-end that belong to a plan.
#[derive(Debug, Clone)]
pub struct Evaluated {
    backend: String,
    cells: usize,
    results: Results,
}

impl Evaluated {
    /// Of the runs in `store`, those of `cells`.
    pub fn new(backend: &str, store: &Store, cells: &[Cell]) -> Self {
        Self { backend: backend.to_owned(), cells: cells.len(), results: Results::new(store.runs(), cells) }
    }
}

/// Where runs are from.
#[derive(Debug, Clone, Serialize)]
pub struct Origin {
    /// The back-end.
    pub backend: String,
    /// The plan: `full` or `quick`.
    pub plan: String,
    /// The commit, with a mark if there were changes.
    pub commit: String,
    /// By how much rates and sizes were divided.
    pub scale: f64,
    /// Runs there are, of how many cells of the plan.
    pub runs: usize,
    /// Cells of the plan.
    pub cells: usize,
    /// Migrations that were completed.
    pub completed: usize,
    /// Repetitions of the cell with the fewest, and with the most.
    pub repetitions: (usize, usize),
}

impl Origin {
    fn new(evaluated: &Evaluated, plan: &str, commit: &str) -> Self {
        let Evaluated { backend, cells, results } = evaluated;
        let (runs, completed) = results.success(|_| true);
        let repetitions = || results.iter().map(|(_, runs)| runs.len());
        Self {
            backend: backend.clone(),
            plan: plan.into(),
            commit: commit.into(),
            scale: results.runs().map(|run| run.scale).fold(1.0, f64::max),
            runs,
            cells: *cells,
            completed,
            repetitions: (repetitions().min().unwrap_or(0), repetitions().max().unwrap_or(0)),
        }
    }

    /// The same in a sentence.
    fn summary(&self) -> String {
        let Self { backend, plan, commit, scale, runs, cells, completed, repetitions: (least, most) } = self;
        let repetitions = if least == most { format!("{least}") } else { format!("{least} to {most}") };
        let scale = if *scale > 1.0 { format!(", at a scale of 1 to {scale}") } else { String::new() };
        format!(
            "Back-end {backend}{scale}, plan {plan}, commit {commit}: {runs} runs of {cells} planned, {repetitions} of each \
             cell, {completed} migrations completed. Every run counts, failed ones too."
        )
    }
}

impl Report {
    /// Judges what was run in the simulation and with booted images, as far as there is any.
    ///
    /// # Errors
    /// If Table II's workload cannot be run.
    pub fn new(sim: Option<&Evaluated>, vm: Option<&Evaluated>, plan: &str, commit: &str) -> Result<Self> {
        let table_2 = table_2::rows().map_err(|what| anyhow!("Table II: {what}"))?;
        let none = Results::default();
        let results = |evaluated: Option<&'_ Evaluated>| evaluated.map_or(none.clone(), |some| some.results.clone());
        let (simulated, booted) = (results(sim), results(vm));
        let mut claims = Vec::new();
        let mut experiments = experiments::all(&simulated);
        if sim.is_some() {
            claims.extend(claims::all(&simulated, &table_2));
            experiments.push(cost::measure().map_err(|what| anyhow!("the cost of statelets: {what}"))?);
        }
        if vm.is_some() {
            claims.extend(claims::of_images(&booted));
        }
        let mut figures = vec![model::figure_6()];
        figures.extend(model::figure_7(&booted));
        figures.extend(measured::figures(&simulated, &booted));
        figures.extend(measured::modes(&simulated, &booted));
        Ok(Self {
            origins: sim.into_iter().chain(vm).map(|evaluated| Origin::new(evaluated, plan, commit)).collect(),
            claims,
            table_2,
            booted: experiments::of_images(&booted),
            experiments,
            figures,
        })
    }

    /// Writes the page, every figure as SVG and CSV, and everything else as JSON into `folder`.
    ///
    /// # Errors
    /// If a figure cannot be drawn, or a file not be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let drawn = self.write_figures(folder)?;
        write(folder, "report.html", &html::page(self, &drawn))?;
        let json = serde_json::to_string_pretty(self).context("the report cannot be written as JSON")?;
        write(folder, "report.json", &json)?;
        let figures = serde_json::to_string_pretty(&self.figures).context("figures cannot be written as JSON")?;
        write(folder, "figures.json", &figures)
    }

    /// Writes what is kept with the source: every figure as SVG and CSV, and a `README.md`.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub fn keep(&self, folder: &Path) -> Result<()> {
        self.write_figures(folder)?;
        write(folder, "README.md", &markdown::page(self))
    }

    /// Returns the figures' SVG, in order.
    fn write_figures(&self, folder: &Path) -> Result<Vec<String>> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut drawn = Vec::new();
        for figure in &self.figures {
            let svg = draw::svg(figure)?;
            write(folder, &format!("{}.svg", figure.id), &svg)?;
            write(folder, &format!("{}.csv", figure.id), &figure.csv())?;
            drawn.push(svg);
        }
        write(folder, "table-2.csv", &table_2_csv(&self.table_2))?;
        Ok(drawn)
    }

    /// The claims that a figure shows.
    fn claims_of<'a>(&'a self, figure: &'a Figure) -> impl Iterator<Item = &'a Claim> {
        self.claims.iter().filter(|claim| claim.figure == Some(figure.id.as_str()))
    }

    /// Where the runs are from and how many there are, a sentence for each back-end.
    pub fn summaries(&self) -> impl Iterator<Item = String> {
        self.origins.iter().map(Origin::summary)
    }
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn table_2_csv(rows: &[Row]) -> String {
    let mut csv = String::from("workload,paper,computed,measured,measured_wire,measured_wire_economic\n");
    let show = |value: Option<f64>| value.map(|value| format!("{value:.5}")).unwrap_or_default();
    for row in rows {
        let [measured, wire, economic] = [row.measured, row.measured_wire, row.measured_wire_economic].map(show);
        csv += &format!("\"{}\",{},{:.5},{measured},{wire},{economic}\n", row.workload, row.paper, row.computed);
    }
    csv
}

/// σ, or nothing.
fn sigma(value: Option<f64>) -> String {
    value.map_or_else(|| "–".into(), |value| format!("{value:.4}"))
}

/// What each figure of the paper says, in a sentence.
fn statement(id: &str) -> &'static str {
    match id {
        "figure-6" => {
            "The paper's model: with very small statelets the link bears almost three times the traffic that it bears \
             with duplication (σ = 1). Computed from equation 4; the points where curves meet the axis are checked by \
             tests."
        }
        "figure-7-downtime" | "figure-7-duration" => {
            "The paper's lower bound for a hypervisor's live migration: the downtime has a bend at 500 Mbit/s, where the \
             ring of packet buffers wraps. Computed with 256 MiB of memory, which the paper does not give."
        }
        "figure-11" => "Duplication loses from 300 Mbit/s on, statelets only around 900 Mbit/s.",
        "figure-12" => {
            "With the packet gateway a small loss occurs beyond 500 Mbit/s: packets at a cell left more than 7.5 ms ago \
             count as lost."
        }
        "figure-13" => "Beyond 200 Mbit/s statelets clearly outperform duplication.",
        "figure-14" => {
            "With duplication packets wait long in pkt_q; with statelets only beyond 850 Mbit/s, and not longer than \
             100 ms in the mean."
        }
        "figure-15" => {
            "Both take less than 1 s up to 100 Mbit/s; duplication reaches 5 s at 800 Mbit/s, where statelets still finish \
             in under 1 s."
        }
        "figure-16" => {
            "The packet gateway's migration does not seem to be influenced by the load as much as the NAT's."
        }
        "figure-17" => "Duplication overflows a pkt_q of 64 K packets beyond 300 Mbit/s.",
        "figure-18" => "Statelets significantly reduce the traffic that shares the link with the dataplane.",
        _ => "Not in the paper.",
    }
}

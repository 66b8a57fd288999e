//! `slim-eval`: runs the evaluation and says what came of it.

#![forbid(unsafe_code)]

mod args;

use anyhow::{Context, Result, bail};
use args::{Arguments, Which};
use clap::Parser;
use comfy_table::{Table, presets};
use sha2::{Digest, Sha256};
use slim_eval::backend::Backend;
use slim_eval::campaign;
use slim_eval::grid::{Cell, Extent};
use slim_eval::report::{Origin, Report};
use slim_eval::results::Results;
use slim_eval::sim::Sim;
use slim_eval::store::Store;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let backend: Box<dyn Backend> = match arguments.backend {
        Which::Sim => Box::new(Sim::new(arguments.jobs(), own_fingerprint()?)),
    };
    evaluate(arguments, backend.as_ref())
}

/// Runs what has not been run, writes the report and prints the claims.
fn evaluate(arguments: &Arguments, backend: &dyn Backend) -> Result<()> {
    let cells = cells(arguments, backend);
    let folder = arguments.out.join(backend.name());
    let fingerprint = (!arguments.report_only).then(|| backend.fingerprint());
    let mut store = Store::open(&folder, fingerprint.as_deref())?;
    let failures = if arguments.report_only { Vec::new() } else { campaign::run(backend, &cells, &mut store)? };

    let results = Results::new(store.runs(), &cells);
    let plan = match arguments.extent() {
        Extent::Full => "full",
        Extent::Quick => "quick",
    };
    let report = Report::new(&results, Origin::new(backend.name(), plan, &commit(), cells.len()))?;
    report.write(&folder)?;
    if let Some(kept) = &arguments.keep {
        report.keep(kept)?;
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
        println!("{}", report.summary());
        println!("Report: {}", folder.join("report.html").display());
    }
    if !failures.is_empty() {
        bail!("{} cells gave no result, see above; the command run again tries them again", failures.len());
    }
    Ok(())
}

/// The cells of the plan that are wanted.
fn cells(arguments: &Arguments, backend: &dyn Backend) -> Vec<Cell> {
    let mut cells = backend.plan(arguments.extent());
    if let Some(text) = &arguments.only {
        cells.retain(|cell| cell.setup.to_string().contains(text));
    }
    if let Some(most) = arguments.repetitions {
        cells.retain(|cell| cell.repetition < most);
    }
    if let Some(variation) = arguments.variation {
        cells.iter_mut().for_each(|cell| cell.setup.variation = variation);
        cells.sort_unstable();
        cells.dedup();
    }
    cells
}

fn print(report: &Report) {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    table.set_header(["claim", "paper", "model", "measured", "verdict"]);
    for claim in &report.claims {
        table.add_row([&claim.claim, &claim.paper, &claim.model, &claim.measured, claim.verdict.name()]);
    }
    println!("{table}");
}

/// What the simulation's results depend on: this program.
fn own_fingerprint() -> Result<String> {
    let path = std::env::current_exe().context("cannot tell which program this is")?;
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Sha256::digest(&bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

/// The commit that is checked out, as far as there is one.
fn commit() -> String {
    let describe = Command::new("git").args(["describe", "--always", "--dirty=, with changes", "--abbrev=12"]).output();
    let text = describe.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    text.map_or_else(|| "unknown".into(), |text| String::from_utf8_lossy(&text).trim().to_owned())
}

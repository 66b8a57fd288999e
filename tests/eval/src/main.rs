//! `slim-eval`: runs the evaluation and says what came of it.

#![forbid(unsafe_code)]

mod args;

use anyhow::{Context, Result, bail};
use args::{Arguments, Which};
use clap::Parser;
use comfy_table::{ContentArrangement, Table, presets};
use sha2::{Digest, Sha256};
use slim_eval::backend::Backend;
use slim_eval::grid::{Cell, Extent};
use slim_eval::report::{Evaluated, Report};
use slim_eval::sim::Sim;
use slim_eval::store::Store;
use slim_eval::vm::Vm;
use slim_eval::{campaign, grid};
use slim_testbed::artifacts::Artifacts;
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
    let of = |which| arguments.backend == which || arguments.backend == Which::Both;
    let mut failures = 0;
    let mut evaluate = |name: &str, plan: fn(Extent) -> Vec<Cell>, backend: &dyn Fn() -> Result<Box<dyn Backend>>| {
        let cells = cells(arguments, plan);
        let folder = arguments.out.join(name);
        if arguments.report_only {
            return Ok(Evaluated::new(name, &Store::open(&folder, None)?, &cells));
        }
        let backend = backend()?;
        let mut store = Store::open(&folder, Some(&backend.fingerprint()))?;
        failures += campaign::run(backend.as_ref(), &cells, &mut store)?.len();
        anyhow::Ok(Evaluated::new(name, &store, &cells))
    };
    let sim = || anyhow::Ok(Box::new(Sim::new(arguments.jobs(), own_fingerprint()?)) as Box<dyn Backend>);
    let vm = || {
        let logs = arguments.out.join("vm").join("logs");
        anyhow::Ok(Box::new(Vm::new(Artifacts::from_env()?, arguments.scale, logs)?) as Box<dyn Backend>)
    };
    let sim = of(Which::Sim).then(|| evaluate("sim", grid::sim_plan, &sim)).transpose()?;
    let vm = of(Which::Vm).then(|| evaluate("vm", grid::vm_plan, &vm)).transpose()?;

    let plan = match arguments.extent() {
        Extent::Full => "full",
        Extent::Quick => "quick",
    };
    let report = Report::new(sim.as_ref(), vm.as_ref(), plan, &commit())?;
    report.write(&arguments.out)?;
    if let Some(kept) = &arguments.keep {
        report.keep(kept)?;
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
        for line in report.summaries() {
            println!("{line}");
        }
        println!("Report: {}", arguments.out.join("report.html").display());
    }
    if failures > 0 {
        bail!("{failures} cells gave no result, see above; the command run again tries them again");
    }
    Ok(())
}

/// The cells of the plan that are wanted.
fn cells(arguments: &Arguments, plan: fn(Extent) -> Vec<Cell>) -> Vec<Cell> {
    let mut cells = plan(arguments.extent());
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
    let table = |header: &[&str]| {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(header);
        table
    };
    for experiment in &report.booted {
        let mut rows = table(&experiment.header.iter().map(String::as_str).collect::<Vec<_>>());
        rows.add_rows(&experiment.rows);
        println!("{}\n{rows}\n{}\n", experiment.question, experiment.answer);
    }
    let mut claims = table(&["claim", "paper", "model", "measured", "verdict"]);
    for claim in &report.claims {
        claims.add_row([&claim.claim, &claim.paper, &claim.model, &claim.measured, claim.verdict.name()]);
    }
    println!("{claims}");
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

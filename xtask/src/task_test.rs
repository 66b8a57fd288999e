//! `cargo xtask test`: every check there is, one after the other, all reported at the end.

use crate::artifacts::Instances;
use crate::progress::Step;
use crate::setup::packages::Need;
use crate::setup::{self, Policy};
use crate::tally::Tally;
use crate::{artifacts, cargo, command, formats, hardware, libvirt_check, paths, task_fuzz, task_sim};
use anyhow::{Result, bail};
use clap::ValueEnum;
use slim_testbed::artifacts::ARTIFACTS_ENV;
use slim_testbed::topology::Function;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Which checks.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Only these groups; may be given several times. The default is all of them.
    #[arg(long, value_enum, value_name = "GROUP")]
    only: Vec<Group>,
}

/// A group of checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Format, clippy and documentation without warnings; slim-core without std.
    Lint,
    /// The tests of all crates, with every feature; the fuzzer's corpora are replayed and the models checked among them.
    Unit,
    /// Whole migrations in virtual time: fresh seeds, and deliberate mistakes that have to be caught.
    Sim,
    /// Each fuzz target for some seconds.
    Fuzz,
    /// Booted images, and a migration between them under load.
    E2e,
    /// The NAT's image booted by UEFI firmware, as a unified kernel image and from a disk, configured by drives, and
    /// started by libvirt.
    Formats,
    /// An emulated host with KVM, an IOMMU and an SR-IOV NIC: the launcher gives the NAT's image virtual functions in it,
    /// and the NAT moves between two such images.
    Hardware,
}

impl Group {
    fn needs(self) -> &'static [Need] {
        match self {
            Self::Lint => &[Need::Dpdk, Need::Lint],
            Self::Unit => &[Need::Dpdk, Need::Testbed],
            Self::Sim => &[],
            Self::Fuzz => &[Need::Fuzz],
            Self::E2e => &[Need::Dpdk, Need::Testbed, Need::Programs, Need::Kernel, Need::Qemu],
            Self::Formats => &[Need::Dpdk, Need::Kernel, Need::Formats, Need::Qemu, Need::Firmware, Need::Libvirt],
            // The emulated host runs the programs of this machine.
            Self::Hardware => &[Need::Dpdk, Need::Testbed, Need::Kernel, Need::Qemu],
        }
    }
}

/// What one check came to.
struct Outcome {
    name: &'static str,
    error: Option<anyhow::Error>,
    tally: Option<Tally>,
    duration: Duration,
}

/// Runs all selected checks, also after failures.
pub fn run(arguments: &Arguments, policy: Policy) -> Result<()> {
    let selected = |group| match arguments.only.as_slice() {
        [] => true,
        only => only.contains(&group),
    };
    let mut needs = Vec::new();
    for group in Group::value_variants().iter().filter(|group| selected(**group)) {
        needs.extend_from_slice(group.needs());
    }
    setup::ensure(&needs, policy)?;
    let mut outcomes = Vec::new();
    if selected(Group::Lint) {
        lint(&mut outcomes);
    }
    if selected(Group::Unit) {
        outcomes.push(tests("unit", None, &["--workspace", "--all-features", "--no-fail-fast"], &[]));
    }
    if selected(Group::Sim) {
        let started = Instant::now();
        let error = task_sim::check().err();
        outcomes.push(Outcome { name: "simulation", error, tally: None, duration: started.elapsed() });
    }
    if selected(Group::Fuzz) {
        let started = Instant::now();
        let error = task_fuzz::check(policy).err();
        outcomes.push(Outcome { name: "fuzz", error, tally: None, duration: started.elapsed() });
    }
    if selected(Group::E2e) {
        e2e(&mut outcomes, policy);
    }
    if selected(Group::Formats) {
        let started = Instant::now();
        let error = formats::check(|line| println!("    {line}")).err();
        outcomes.push(Outcome { name: "formats", error, tally: None, duration: started.elapsed() });
        let started = Instant::now();
        let error = libvirt_check::check(policy, |line| println!("    {line}")).err();
        outcomes.push(Outcome { name: "libvirt", error, tally: None, duration: started.elapsed() });
    }
    if selected(Group::Hardware) {
        let started = Instant::now();
        let error = hardware::check(policy).err();
        outcomes.push(Outcome { name: "hardware", error, tally: None, duration: started.elapsed() });
    }
    report(&outcomes)
}

fn lint(outcomes: &mut Vec<Outcome>) {
    let checks: [(&'static str, &[&str]); 5] = [
        ("format", &["fmt", "--all", "--check"]),
        ("clippy", &["clippy", "--all-targets", "--", "-D", "warnings"]),
        ("clippy, with DPDK", &["clippy", "--workspace", "--all-features", "--all-targets", "--", "-D", "warnings"]),
        ("documentation", &["doc", "--workspace", "--all-features", "--no-deps"]),
        ("slim-core without std", &["check", "--package", "slim-core", "--no-default-features"]),
    ];
    for (name, arguments) in checks {
        let started = Instant::now();
        let mut check = cargo::cargo();
        check.env("RUSTDOCFLAGS", "-D warnings").args(arguments);
        let error = cargo::step(name, &mut check).err();
        outcomes.push(Outcome { name, error, tally: None, duration: started.elapsed() });
    }
}

/// The tests that boot images, in a profile fast enough for them, one at a time.
fn e2e(outcomes: &mut Vec<Outcome>, policy: Policy) {
    let started = Instant::now();
    let file = match artifacts::ensure(Instances::Images, &[Function::Nat], policy) {
        Ok((_, file)) => file,
        Err(error) => {
            outcomes.push(Outcome { name: "e2e", error: Some(error), tally: None, duration: started.elapsed() });
            return;
        }
    };
    let select = ["--release", "--package", "slim-testbed", "--features", "load", "--test", "*", "--no-fail-fast"];
    outcomes.push(tests("e2e", Some(&file), &select, &["--ignored", "--test-threads=1", "--nocapture"]));
}

/// Runs `cargo test` with `select`, and its programs with `options`, and counts what they report.
fn tests(name: &'static str, artifacts: Option<&Path>, select: &[&str], options: &[&str]) -> Outcome {
    let started = Instant::now();
    let mut tally = Tally::default();
    let mut test = cargo::cargo();
    test.arg("test").args(select).arg("--").args(options);
    if let Some(file) = artifacts {
        test.env(ARTIFACTS_ENV, file);
    }
    let error = run_tests(name, &mut test, &mut tally).err();
    Outcome { name, error, tally: Some(tally), duration: started.elapsed() }
}

fn run_tests(name: &str, test: &mut Command, tally: &mut Tally) -> Result<()> {
    eprintln!("==> {name}\n    $ {}", command::shown(test));
    let log = paths::target().join(format!("test-{name}.log"));
    if log.exists() {
        std::fs::remove_file(&log)?;
    }
    command::run_logged(&mut Step::silent(), test, &log, |_, line| {
        println!("{line}");
        tally.line(line);
    })?;
    if tally.binaries == 0 || tally.passed == 0 {
        bail!("no test ran at all");
    }
    Ok(())
}

/// Prints the outcome of every check; fails if one did.
fn report(outcomes: &[Outcome]) -> Result<()> {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::UTF8_BORDERS_ONLY);
    table.set_header(["check", "result", "passed", "failed", "ignored", "seconds"]);
    for outcome in outcomes {
        let count =
            |select: fn(&Tally) -> u64| outcome.tally.as_ref().map_or_else(String::new, |t| select(t).to_string());
        table.add_row([
            outcome.name.to_owned(),
            if outcome.error.is_some() { "FAILED" } else { "ok" }.to_owned(),
            count(|tally| tally.passed),
            count(|tally| tally.failed),
            count(|tally| tally.ignored),
            format!("{:.0}", outcome.duration.as_secs_f64()),
        ]);
    }
    println!("\n{table}");
    let sum = |select: fn(&Tally) -> u64| {
        outcomes.iter().filter_map(|outcome| outcome.tally.as_ref()).map(select).sum::<u64>()
    };
    if outcomes.iter().any(|outcome| outcome.tally.is_some()) {
        println!("tests: {} passed, {} failed", sum(|tally| tally.passed), sum(|tally| tally.failed));
    }
    for tally in outcomes.iter().filter_map(|outcome| outcome.tally.as_ref()) {
        for name in &tally.failures {
            println!("failed: {name}");
        }
    }
    let failed: Vec<_> = outcomes.iter().filter(|outcome| outcome.error.is_some()).collect();
    for outcome in &failed {
        if let Some(error) = &outcome.error {
            println!("{}: {}", outcome.name, format!("{error:#}").lines().next().unwrap_or_default());
        }
    }
    if !failed.is_empty() {
        bail!("{} of {} checks failed", failed.len(), outcomes.len());
    }
    Ok(())
}

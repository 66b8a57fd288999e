//! Building the libFuzzer binaries, and running one of them.

use super::toolchain::nightly;
use crate::progress::Step;
use crate::{cargo, command, paths};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The longest input tried, in bytes: several of the longest messages, many decisions.
const INPUT_BYTES_MAX: usize = 4096;

/// An input that takes longer is a finding.
const TIMEOUT_S: u32 = 20;

/// A target that needs more is a finding.
const MEMORY_MB_MAX: u32 = 2048;

/// What a run of one target came to.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Inputs tried.
    pub executions: u64,
    /// The same by time.
    pub per_second: u64,
    /// Edges of the program that some input took.
    pub coverage: u64,
    /// Inputs that are worth keeping.
    pub corpus: u64,
    /// The file with the input that is a finding, if there is one.
    pub finding: Option<PathBuf>,
}

/// The package of the binaries.
fn folder() -> PathBuf {
    paths::root().join("fuzz")
}

/// Where everything goes.
fn output() -> PathBuf {
    paths::target().join("fuzz")
}

/// The names of all targets, in order.
pub fn targets() -> Result<Vec<String>> {
    let folder = folder().join("fuzz_targets");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let names = entries.map(|entry| {
        let path = entry?.path();
        Ok(path.file_stem().unwrap_or_default().to_string_lossy().into_owned())
    });
    let mut names: Vec<String> = names.collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

/// Builds the binaries, instrumented and with the address sanitizer.
pub fn build() -> Result<()> {
    let mut build = nightly();
    build.current_dir(folder()).env("CARGO_TARGET_DIR", output()).args(["fuzz", "build", "--fuzz-dir", "."]);
    cargo::step("building the fuzz targets: some minutes the first time", &mut build)
}

/// Fuzzes `target` for this long. Calls `tell` with what libFuzzer says of its progress.
///
/// # Errors
/// It could not be run. A finding is not an error but in the report.
pub fn run(target: &str, duration: Duration, mut tell: impl FnMut(&Report)) -> Result<Report> {
    let output = output();
    let (corpus, artifacts) = (output.join("corpus").join(target), output.join("findings").join(target));
    for folder in [&corpus, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let seconds = duration.as_secs().max(1);
    let mut fuzz = Command::new(output.join("x86_64-unknown-linux-gnu/release").join(target));
    fuzz.arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={INPUT_BYTES_MAX}"))
        .arg(format!("-timeout={TIMEOUT_S}"))
        .arg(format!("-rss_limit_mb={MEMORY_MB_MAX}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        // What is new goes to the first, the second is only read.
        .args([&corpus, &folder().join("corpus").join(target)]);
    let log = output.join(format!("{target}.log"));
    if log.exists() {
        fs::remove_file(&log)?;
    }
    let mut report = Report::default();
    let outcome = command::run_logged(&mut Step::silent(), &mut fuzz, &log, |_, line| {
        report.read(line);
        tell(&report);
    });
    match outcome {
        // libFuzzer fails after a finding, but also where it cannot begin.
        Err(error) if report.finding.is_none() => Err(error),
        _ => Ok(report),
    }
}

impl Report {
    /// Learns from a line that libFuzzer writes, such as
    /// `#7739 DONE cov: 3351 ft: 9512 corp: 354/117Kb lim: 512 exec/s: 297 rss: 409Mb`, but with tabs.
    fn read(&mut self, line: &str) {
        if let Some(path) = line.split_once("Test unit written to ").map(|(_, path)| path.trim()) {
            self.finding = Some(Path::new(path).to_owned());
        }
        let Some(rest) = line.strip_prefix('#') else { return };
        let mut words = rest.split_whitespace();
        let Some(executions) = words.next().and_then(|word| word.parse().ok()) else { return };
        self.executions = executions;
        let words: Vec<&str> = words.collect();
        let number = |name: &str| {
            let position = words.iter().position(|word| *word == name)?;
            words.get(position + 1)?.split('/').next()?.parse().ok()
        };
        self.per_second = number("exec/s:").unwrap_or(self.per_second);
        self.coverage = number("cov:").unwrap_or(self.coverage);
        self.corpus = number("corp:").unwrap_or(self.corpus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_and_findings_are_read() {
        let mut report = Report::default();
        report.read("INFO: Seed: 1");
        report.read("#7739\tDONE   cov: 3351 ft: 9512 corp: 354/117Kb lim: 512 exec/s: 297 rss: 409Mb");
        assert_eq!((report.executions, report.per_second, report.coverage, report.corpus), (7739, 297, 3351, 354));
        assert_eq!(report.finding, None);
        report.read("artifact_prefix='/x/'; Test unit written to /x/crash-1");
        assert_eq!(report.finding, Some("/x/crash-1".into()));
    }

    #[test]
    fn there_are_targets() {
        assert!(targets().expect("the folder").contains(&"statelet_stream".to_owned()));
    }
}

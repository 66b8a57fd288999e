//! `slim-load`: the load generator, the echo servers and the recorder of §VII in one process.

use anyhow::{Context, Result};
use clap::Parser;
use dpdk::Eal;
use slim_testbed::load::control::Control;
use slim_testbed::load::driver::{self, Options};
use slim_testbed::load::{LoadSpec, Report};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Sends traffic of interior hosts through a NAT to echo servers outside, plays both, and tells what became of every
/// packet.
///
/// Both ports belong to this one process, so that each direction is judged by itself: what was lost, duplicated,
/// reordered, corrupted or translated wrongly on the way out, and on the way back. The report is one JSON document;
/// a table for people goes to standard error.
///
/// Exit code 0 means that the run took place and its report was written, 1 that it could not, 3 (with --strict only)
/// that packets were lost, duplicated, reordered, corrupted or translated wrongly.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    /// Port towards the NAT's interior: an EAL device such as net_virtio_user0,path=/run/inside.sock,queue_size=1024,
    /// or just the path of a vhost socket
    #[arg(long, value_name = "DEVICE")]
    inside: String,

    /// Port towards the NAT's exterior, where the echo servers are
    #[arg(long, value_name = "DEVICE")]
    outside: String,

    #[command(flatten)]
    spec: LoadSpec,

    /// Write the report here instead of to standard output
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    /// Listen for commands (mark NAME, status, stop; one a line) on a Unix socket at this path; standard input takes
    /// them in any case
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,

    /// Seconds the NAT may take to answer the interior hosts' ARP requests
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    resolve_timeout: u64,

    /// Exit with 3 unless all packets of the measurement arrived once, in order and translated right
    #[arg(long)]
    strict: bool,

    /// Show neither progress nor table
    #[arg(long)]
    quiet: bool,

    /// Memory for packet buffers, in MB
    #[arg(long = "memory", default_value_t = 64, value_name = "MB",
        value_parser = clap::value_parser!(u32).range(48..=4096))]
    memory_mb: u32,
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let cli = Cli::parse();
    match run(&cli) {
        Ok(report) if cli.strict && !report.is_clean() => ExitCode::from(3),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("slim-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<Report> {
    cli.spec.check()?;
    let interrupt = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The first one ends the traffic, the second one the process.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&interrupt))?;
        signal_hook::flag::register(signal, Arc::clone(&interrupt))?;
    }
    let mut control = Control::new(true, cli.control.as_deref()).context("cannot listen for commands")?;
    let options = Options {
        inside: cli.inside.clone(),
        outside: cli.outside.clone(),
        resolve_timeout: Duration::from_secs(cli.resolve_timeout),
        progress: !cli.quiet,
    };
    let eal = Eal::init(dpdk::process_arguments(cli.memory_mb))?;
    let (report, ports) = driver::run(&eal, &cli.spec, &options, &mut control, &interrupt)?;
    write_report(cli, &report).context("cannot write the report")?;
    drop(ports);
    if !cli.quiet {
        eprint!("{report}");
    }
    Ok(report)
}

fn write_report(cli: &Cli, report: &Report) -> Result<()> {
    let mut json = serde_json::to_string_pretty(report)?;
    json.push('\n');
    match &cli.report {
        Some(path) => std::fs::write(path, json).with_context(|| path.display().to_string())?,
        None => std::io::stdout().write_all(json.as_bytes())?,
    }
    Ok(())
}

//! The inside of a run: what `cargo xtask demo`, `cargo xtask testbed` and the end-to-end tests start in a namespace of
//! its own. Not meant to be called by hand.

#![forbid(unsafe_code)]

use anyhow::Result;
use clap::{Parser, Subcommand};
use slim_testbed::artifacts::Artifacts;
use slim_testbed::{chaos, demo, download, pool, precopy, programs, sandbox, standing};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// The inside of a testbed run; use `cargo xtask demo` and `cargo xtask testbed`.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Inside,
}

#[derive(Debug, Subcommand)]
enum Inside {
    /// Run the demo and print its outcome as JSON.
    Demo(RunArguments),
    /// Have the hypervisor move a whole guest under load and print the outcome as JSON.
    Precopy(RunArguments),
    /// Migrate to a warm instance and to one that is booted, and print both outcomes as JSON.
    Pool(RunArguments),
    /// Migrate to and fro under a TCP download and print the outcome as JSON.
    Download(RunArguments),
    /// Send real programs through a NAT that moves, and print what became of them as JSON.
    Programs(RunArguments),
    /// Run the chaos matrix and print it as JSON.
    Chaos(RunArguments),
    /// Keep a topology standing until a signal ends it.
    Stand(RunArguments),
    /// Serve one paced download over HTTP and print what was sent as JSON.
    Serve {
        /// Where to listen
        #[arg(long, default_value = "0.0.0.0:8000")]
        listen: String,
        /// For how long to send
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// How fast, in Mbit/s
        #[arg(long, default_value_t = 50)]
        rate: u64,
    },
    /// Measure what arrives on standard input and print it as JSON.
    Measure,
}

#[derive(Debug, clap::Args)]
struct RunArguments {
    /// What to do, as JSON
    #[arg(long)]
    spec: String,
    /// The file with the list of artifacts
    #[arg(long)]
    artifacts: PathBuf,
    /// The folder for sockets, logs and consoles
    #[arg(long)]
    folder: PathBuf,
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Inside) -> Result<()> {
    match command {
        Inside::Demo(run) => {
            sandbox::enter()?;
            let spec = serde_json::from_str(&run.spec)?;
            print(&demo::run(&Artifacts::read(&run.artifacts)?, &spec, &run.folder)?)
        }
        Inside::Precopy(run) => {
            sandbox::enter()?;
            let spec = serde_json::from_str(&run.spec)?;
            print(&precopy::run(&Artifacts::read(&run.artifacts)?, &spec, &run.folder)?)
        }
        Inside::Pool(run) => {
            sandbox::enter()?;
            let spec = serde_json::from_str(&run.spec)?;
            print(&pool::run(&Artifacts::read(&run.artifacts)?, &spec, &run.folder)?)
        }
        Inside::Download(run) => {
            sandbox::enter()?;
            let spec = serde_json::from_str(&run.spec)?;
            print(&download::migrate_under(&Artifacts::read(&run.artifacts)?, &spec, &run.folder)?)
        }
        Inside::Programs(run) => {
            sandbox::enter()?;
            let spec = serde_json::from_str(&run.spec)?;
            print(&programs::run(&Artifacts::read(&run.artifacts)?, &spec, &run.folder)?)
        }
        Inside::Chaos(run) => {
            sandbox::enter()?;
            let spec = serde_json::from_str(&run.spec)?;
            print(&chaos::run(&Artifacts::read(&run.artifacts)?, &spec, &run.folder)?)
        }
        Inside::Stand(run) => {
            let spec = serde_json::from_str(&run.spec)?;
            standing::stand(&Artifacts::read(&run.artifacts)?, &spec, &run.folder)
        }
        Inside::Serve { listen, seconds, rate } => {
            let listener = TcpListener::bind(&listen)?;
            print(&download::serve_one(&listener, Duration::from_secs(seconds), rate * 1_000_000)?)
        }
        Inside::Measure => print(&download::measure(std::io::stdin().lock())?),
    }
}

fn print(value: &impl serde::Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(value)?);
    Ok(())
}

//! `slim-impair`: a line between the switch and a TAP that loses packets and lets some be overtaken.

#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use clap::Parser;
use dpdk::Eal;
use slim_testbed::impair::{Impairment, relay};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Relays packets between two ports, and loses and reorders some of them, until a signal comes.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    /// EAL device towards the switch, such as net_virtio_user0,path=/run/outside.sock,server=1
    #[arg(long, value_name = "DEVICE")]
    near: String,

    /// EAL device of the other end, such as net_tap0,iface=slim-out
    #[arg(long, value_name = "DEVICE")]
    far: String,

    #[command(flatten)]
    impairment: Impairment,
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("slim-impair: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot catch signals")?;
    }
    let eal = Eal::init(dpdk::process_arguments(64))?;
    println!("{}", relay::run(&eal, [&cli.near, &cli.far], cli.impairment, &stop)?);
    Ok(())
}

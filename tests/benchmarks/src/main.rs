//! `cargo xtask bench nat`: the NAT on one core, natively, beside the kernel's and Open vSwitch's.
//!
//! Everything runs the images' own code: the lcore's loop with the NAT in it, the statelet pump, the snapshot's writer
//! and reader. Only the ports are memory. What is compared with each other is measured in turn, in one run.

#![deny(unsafe_code)]

mod clock;
mod memory;
mod nat;
mod peers;
mod report;

use anyhow::Result;
use clap::Parser;
use std::net::SocketAddr;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// Measures the NAT on one core of this machine.
#[derive(Debug, Parser)]
#[command(name = "bench-nat")]
struct Arguments {
    /// Fewer sessions and shorter rounds: to see that it works, not to quote
    #[arg(long)]
    quick: bool,

    /// Print the measurement as JSON
    #[arg(long)]
    json: bool,

    /// Without the kernel's NAT and Open vSwitch
    #[arg(long)]
    alone: bool,

    #[command(subcommand)]
    part: Option<Part>,
}

/// What this program does as a part of itself, in another process.
#[derive(Debug, clap::Subcommand)]
enum Part {
    /// Adopts one snapshot.
    #[command(name = nat::transfer::ADOPT, hide = true)]
    Adopt { address: SocketAddr, sessions: usize, cpu: usize },

    /// Sends packets.
    #[command(name = peers::SEND, hide = true)]
    Send { sessions: usize, milliseconds: u64, cpu: usize },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    match arguments.part {
        Some(Part::Adopt { address, sessions, cpu }) => return nat::transfer::adopt(address, sessions, cpu),
        Some(Part::Send { sessions, milliseconds, cpu }) => return peers::send(sessions, milliseconds, cpu),
        None => {}
    }
    let scale = if arguments.quick { nat::Scale::QUICK } else { nat::Scale::FULL };
    let peers = if arguments.alone { Vec::new() } else { peers::measure() };
    let measured = nat::measure(&scale)?;
    let verdicts = report::verdicts(&measured, &peers);
    if arguments.json {
        let all = serde_json::json!({ "nat": measured, "peers": peers, "verdicts": verdicts });
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        report::print(&measured, &peers, &verdicts);
    }
    Ok(())
}

//! `cargo xtask bench nat`: the NAT on one core, natively, beside the kernel's and Open vSwitch's.
//!
//! Everything runs the images' own code: the lcore's loop with the NAT in it, the statelet pump, the snapshot's writer
//! and reader. Only the ports are memory. What is compared with each other is measured in turn, in one run.

#![deny(unsafe_code)]

mod clock;
mod memory;
mod nat;
mod report;

use anyhow::Result;
use clap::Parser;
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
    let scale = if arguments.quick { nat::Scale::QUICK } else { nat::Scale::FULL };
    let measured = nat::measure(&scale)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&measured)?);
    } else {
        report::print(&measured);
    }
    Ok(())
}

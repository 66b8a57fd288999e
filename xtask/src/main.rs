//! SliM's build, image, demo and test commands. `cargo xtask help` explains them.
//!
//! This file is the arguments; each command is one `task_*.rs`. Everything here compiles with nothing but a Rust
//! toolchain: what needs libdpdk or a kernel is built by the commands, after they installed what that takes.

#![forbid(unsafe_code)]

mod cargo;
mod command;
mod git;
mod hash;
mod image;
mod kernel;
mod paths;
mod progress;
mod setup;
mod task_image;
mod task_kernel;
mod task_setup;
mod vnf;

use clap::{Parser, Subcommand};
use setup::Policy;
use std::process::ExitCode;

/// Build, boot and test SliM.
///
/// Every command first installs or builds what it needs, says so, and does it only once: start with any of them.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", version, after_help = EXAMPLES)]
struct Arguments {
    /// List what is missing on this system and fail, instead of installing it.
    #[arg(long, global = true)]
    no_install: bool,

    #[command(subcommand)]
    command: Task,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask setup --no-install   what is missing on this machine?
  cargo xtask image nat            build the NAT's image
";

#[derive(Debug, Subcommand)]
enum Task {
    /// Install everything SliM needs on Debian 12: DPDK, QEMU, the kernel's source and what builds it.
    ///
    /// Needs root or sudo. Where QEMU's tools are from bookworm-backports, QEMU is taken from there too and the suite
    /// is added to apt's sources. Nothing is done when everything is there.
    Setup,
    /// Build the guest's kernel from Debian's linux-source with the fragments in `kernel-cfg/`.
    ///
    /// Takes about five minutes on two cores, once: the kernel is kept in `$SLIM_CACHE` (default `~/.cache/slim`)
    /// under a hash of the source's version and the fragments, its resolved configuration beside it.
    Kernel,
    /// Build the image of a network function: kernel, initramfs with one static program, manifest.
    Image(task_image::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let policy = if arguments.no_install { Policy::ListOnly } else { Policy::Install };
    let result = match arguments.command {
        Task::Setup => task_setup::run(policy),
        Task::Kernel => task_kernel::run(policy),
        Task::Image(arguments) => task_image::run(&arguments, policy),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

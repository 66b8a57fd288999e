//! SliM's build, image, demo and test commands. `cargo xtask help` explains them.
//!
//! This file is the arguments; each command is one `task_*.rs`. Everything here compiles with nothing but a Rust
//! toolchain: what needs libdpdk or a kernel is built by the commands, after they installed what that takes.

#![forbid(unsafe_code)]

mod artifacts;
mod bench;
mod cargo;
mod command;
mod config_drive;
mod debian_kernel;
mod formats;
mod fuzz;
mod git;
mod hardware;
mod hash;
mod image;
mod kernel;
mod libvirt_check;
mod passthrough;
mod paths;
mod progress;
mod setup;
mod standalone;
mod tally;
mod task_bench;
mod task_chaos;
mod task_demo;
mod task_eval;
mod task_fuzz;
mod task_host;
mod task_image;
mod task_kernel;
mod task_libvirt;
mod task_run;
mod task_setup;
mod task_sim;
mod task_test;
mod task_testbed;
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
  cargo xtask demo                 see a live NAT move, packet by packet
  cargo xtask image nat            build the NAT's image
  cargo xtask image nat --format qcow2          the same as a disk, for OpenStack and libvirt
  cargo xtask test --only lint     what a reviewer would complain about first
  cargo xtask host check           can this machine give its NICs to images?
  sudo -E cargo xtask run nat --active --vf enp3s0 --vf enp3s0
  cargo xtask sim --seeds 100000   whole migrations in virtual time, with faults
  cargo xtask fuzz --minutes 10 --target snapshot_stream
";

#[derive(Debug, Subcommand)]
enum Task {
    /// Install everything SliM needs on Debian 12: DPDK, QEMU, the kernel's source and what builds it.
    ///
    /// Needs root or sudo. Where the release's own QEMU is too old, as in Debian 12, it is taken from
    /// bookworm-backports and the suite is added to apt's sources. Nothing is done when everything is there.
    Setup,
    /// Build the guest's kernel from Debian's linux-source with the fragments in `kernel-cfg/`.
    ///
    /// Takes about five minutes on two cores, once: the kernel is kept in `$SLIM_CACHE` (default `~/.cache/slim`)
    /// under a hash of the source's version and the fragments, its resolved configuration beside it.
    Kernel(task_kernel::Arguments),
    /// Build the image of a network function: kernel, initramfs with one static program, manifest.
    ///
    /// The image lands in `target/images/<vnf>/`: `kernel`, `initramfs`, `kernel.config` and `manifest.json` with sizes,
    /// hashes, versions and the commit. Parts are rebuilt only when what they are made of changed. For UEFI firmware there
    /// are `--format uki`, a unified kernel image in `uki.efi`, and `--format qcow2`, a disk in `disk.qcow2`.
    Image(task_image::Arguments),
    /// Boot an image alone, its console on this terminal. Ctrl-C stops it.
    ///
    /// Its dataplane interfaces lead nowhere, unless --vf or --pci give it real ones; whatever is in the way of that is
    /// named together with what to do, and the functions are given back in the end. Without KVM the guest is emulated,
    /// and the reason is said.
    Run(task_run::Arguments),
    /// Print the domain with which libvirt boots an image, and write the instance's files that it names.
    ///
    /// `cargo xtask libvirt-xml nat > nat.xml && virsh create nat.xml`. libvirt then makes passed-through functions ready
    /// and gives them back.
    LibvirtXml(task_libvirt::Arguments),
    /// Look at this machine as a host of guests with KVM and passed-through functions, or clean up after a crash.
    ///
    /// docs/hardware.md says what a host needs. Borrowed functions are given back when `run` ends; `clean` is for what a
    /// killed one has left behind, and needs root as `run --vf` does.
    #[command(subcommand)]
    Host(task_host::Action),
    /// Move a live NAT from one booted image to another under load, and print the verdict.
    ///
    /// Runs in private namespaces: it needs no root, touches no interface of this machine and leaves nothing behind.
    /// Exits with 0 only if no packet was lost, duplicated or reordered and the state arrived whole.
    Demo(task_demo::Arguments),
    /// Kill, stop or cut off each party of a migration at each of its phases, for real, and print what came of it.
    ///
    /// Boots images in private namespaces, as the demo does, and keeps traffic running; docs/chaos.md explains the table.
    /// The whole matrix takes about a quarter of an hour; --party, --phase and --fault choose from it. Exits with 0 only
    /// if everything was as docs/failure-model.md promises.
    Chaos(task_chaos::Arguments),
    /// Keep the demo's topology standing, with two network namespaces to send real programs through the NAT.
    #[command(subcommand)]
    Testbed(task_testbed::Action),
    /// Run every check: format, lints, documentation, the tests of all crates, a migration between booted images, and the
    /// launcher in an emulated host with KVM and SR-IOV.
    ///
    /// Goes on after a failure and reports all of them at the end. The first run also builds the kernel and an image.
    Test(task_test::Arguments),
    /// Run whole migrations in virtual time, with faults, from random seeds, and check each.
    ///
    /// The machines, the switch and the network functions are those of the images; a seed decides traffic, sizes, links
    /// and what goes wrong when. A seed that fails is printed with the line that repeats it. See `cargo xtask sim --help`
    /// and docs/simulation.md.
    Sim(task_sim::Arguments),
    /// Run the paper's evaluation, in virtual time and with booted images.
    ///
    /// In virtual time: the real network functions, machines and switch, and a TCP that competes for the link, at the
    /// paper's full scale. With booted images: everything real, rates and sizes divided by ten. An interrupted evaluation
    /// goes on where it was. See `cargo xtask eval --help`.
    Eval(task_eval::Arguments),
    /// Feed streams, messages, packets and machines with inputs that a fuzzer makes up, and print what it found.
    ///
    /// Builds the targets of `fuzz/` with libFuzzer and the address sanitizer, which takes a nightly toolchain and
    /// cargo-fuzz; both are installed if they can be. New inputs are kept in `target/fuzz/corpus/`, findings in
    /// `target/fuzz/findings/`. Exits with 0 only if there is none.
    Fuzz(task_fuzz::Arguments),
    /// Measure something beside what it is to be compared with.
    Bench(task_bench::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let policy = if arguments.no_install { Policy::ListOnly } else { Policy::Install };
    let result = match arguments.command {
        Task::Setup => task_setup::run(policy),
        Task::Kernel(arguments) => task_kernel::run(&arguments, policy),
        Task::Image(arguments) => task_image::run(&arguments, policy),
        Task::Run(arguments) => task_run::run(&arguments, policy),
        Task::Bench(arguments) => task_bench::run(&arguments, policy),
        Task::LibvirtXml(arguments) => task_libvirt::run(&arguments, policy),
        Task::Host(action) => task_host::run(action),
        Task::Demo(arguments) => task_demo::run(&arguments, policy),
        Task::Chaos(arguments) => task_chaos::run(&arguments, policy),
        Task::Testbed(action) => task_testbed::run(&action, policy),
        Task::Sim(arguments) => task_sim::run(&arguments),
        Task::Eval(arguments) => task_eval::run(&arguments, policy),
        Task::Fuzz(arguments) => task_fuzz::run(&arguments, policy),
        Task::Test(arguments) => task_test::run(&arguments, policy),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

//! `cargo xtask bench`.

use crate::bench::boot::{self, Boot as BootTimes, Measurement, median};
use crate::bench::cloud_kernel::{self, CloudKernel};
use crate::bench::report::{self, Report, commit, machine};
use crate::image::Manifest;
use crate::progress::Step;
use crate::setup::packages::Need;
use crate::setup::{self, Policy};
use crate::vnf::{self, Vnf};
use crate::{cargo, command, hardware, image, standalone};
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use slim_controller::hypervisor::qemu::Qemu;
use slim_controller::hypervisor::{Accel, Chipset};
use slim_hardware::outside;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which benchmark.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// Boot time of an image by stages, beside that of Debian's cloud kernel with the same initramfs.
    ///
    /// The image counts until it is ready to forward packets, Debian's kernel only until it reaches PID 1. Boots
    /// alternate; the result is the ratio of the medians. Debian's kernel is downloaded to the cache, not installed.
    /// docs/boot.md says what the stages are and what was done about each.
    Boot(Boot),

    /// The NAT on one core of this machine, natively: rates by number of sessions, what a migration costs, memory.
    ///
    /// Runs the images' packet loop between ports of memory; nothing is booted. Variants take turns in one run, so that
    /// their ratios hold on a machine that others use too. Beside it the kernel's NAT and Open vSwitch's, in namespaces of
    /// their own, which takes root. See docs/benchmarks.md.
    Nat(Nat),
}

#[derive(Debug, clap::Args)]
struct Nat {
    /// Fewer sessions and shorter rounds: to see that it works, not to quote
    #[arg(long)]
    quick: bool,

    /// Without the kernel's NAT and Open vSwitch
    #[arg(long)]
    alone: bool,

    /// With pages of 4 KiB for the tables, instead of huge ones
    #[arg(long)]
    small_pages: bool,

    /// Print the measurement as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Boot {
    /// The network function
    #[arg(default_value = "nat")]
    vnf: String,

    /// Boots of each
    #[arg(long, short = 'n', default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repetitions: u32,

    /// How to run the guests
    #[arg(long, default_value = "auto", value_name = "auto|kvm|tcg")]
    accel: Accel,

    /// Virtual CPUs of both
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    vcpus: u8,

    /// Boot them with KVM in an emulated host, where this one has no KVM that works.
    ///
    /// It shows what exits cost, at some hundred times the price of real hardware; no time holds outside of it.
    #[arg(long, conflicts_with_all = ["accel", "image"])]
    emulated_host: bool,

    /// Boot the image in this folder, as `cargo xtask image` has left it, instead of building one
    #[arg(long, value_name = "FOLDER", requires = "cloud_kernel")]
    image: Option<PathBuf>,

    /// Debian's cloud kernel, instead of downloading it
    #[arg(long, value_name = "FILE")]
    cloud_kernel: Option<PathBuf>,

    /// The machines to boot on, several separated by commas
    #[arg(long, value_delimiter = ',', default_value = "q35,microvm", value_name = "q35|microvm")]
    machine: Vec<Chipset>,

    /// Fail if the ratio is above this on every machine
    #[arg(long, value_name = "RATIO")]
    max_ratio: Option<f64>,

    /// Print the measurement as JSON
    #[arg(long)]
    json: bool,
}

/// Has the C library ask for huge pages for what it allocates.
const HUGE_PAGES: &str = "glibc.malloc.hugetlb=1";

/// Runs the benchmark.
pub fn run(arguments: &Arguments, policy: Policy) -> Result<()> {
    match &arguments.benchmark {
        Benchmark::Boot(arguments) => run_boot(arguments, policy),
        Benchmark::Nat(arguments) => run_nat(arguments, policy),
    }
}

fn run_nat(arguments: &Nat, policy: Policy) -> Result<()> {
    if !arguments.alone {
        setup::ensure(&[Need::Peers], policy)?;
    }
    let mut program = Command::new(cargo::build_benchmark("slim-benchmarks", "bench-nat")?);
    let flags = [("--quick", arguments.quick), ("--alone", arguments.alone), ("--json", arguments.json)];
    program.args(flags.into_iter().filter_map(|(flag, wanted)| wanted.then_some(flag)));
    if !arguments.small_pages {
        program.env("GLIBC_TUNABLES", HUGE_PAGES);
    }
    command::run(&mut program)?;
    if !arguments.json {
        println!("{}, commit {}", machine(), commit());
    }
    Ok(())
}

fn run_boot(arguments: &Boot, policy: Policy) -> Result<()> {
    let vnf = vnf::find(&arguments.vnf)?;
    let (folder, manifest) = match &arguments.image {
        Some(folder) => {
            setup::ensure(&[Need::Qemu], policy)?;
            let manifest = Manifest::read(folder);
            (folder.clone(), manifest.with_context(|| format!("{} holds no image", folder.display()))?)
        }
        None => {
            setup::ensure(&[Need::Dpdk, Need::Kernel, Need::Qemu], policy)?;
            image::ensure(vnf)?
        }
    };
    let cloud = match &arguments.cloud_kernel {
        Some(path) => CloudKernel { package: "the cloud kernel".to_owned(), path: path.clone() },
        None => cloud_kernel::ensure()?,
    };
    let measured = match arguments.emulated_host {
        true => boot_in_emulated_host(arguments, &folder, &cloud, policy)?,
        false => boot_here(arguments, vnf, &folder, &cloud)?,
    };
    let least = measured.iter().map(Measurement::ratio).fold(f64::INFINITY, f64::min);
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&Report::new(measured, &manifest, &cloud.package))?);
    } else {
        print(&measured, &manifest, &cloud.package);
    }
    match arguments.max_ratio {
        Some(limit) if least > limit => bail!("the least ratio, {least:.2}, is above {limit}"),
        _ => Ok(()),
    }
}

fn boot_here(arguments: &Boot, vnf: &Vnf, folder: &Path, cloud: &CloudKernel) -> Result<Vec<Measurement>> {
    let run_dir = tempfile::Builder::new().prefix("slim-bench-").tempdir()?;
    let mut launch = standalone::launch(vnf, folder, run_dir.path(), &[], None)?;
    launch.accel = arguments.accel;
    launch.vcpus = arguments.vcpus;
    let (machines, qemu) = (&arguments.machine, Qemu::find()?);
    let total = u64::from(arguments.repetitions) * 2 * machines.len() as u64;
    let mut step = Step::start_counted(format!("booting {total} guests, one after the other"), total);
    let measured = boot::measure(&qemu, &launch, &cloud.path, machines, arguments.repetitions, |number, what| {
        step.progress(number, what);
    })?;
    step.finish("");
    Ok(measured)
}

/// Has this program do it in an emulated host, a boot of each at a time.
fn boot_in_emulated_host(
    arguments: &Boot,
    folder: &Path,
    cloud: &CloudKernel,
    policy: Policy,
) -> Result<Vec<Measurement>> {
    let parts = hardware::parts(policy)?;
    let name = |path: &Path| {
        let path = std::path::absolute(path)?;
        path.to_str().map(str::to_owned).with_context(|| format!("{} is not text", path.display()))
    };
    let machines: Vec<_> = arguments.machine.iter().map(|machine| machine.name()).collect();
    let typed = ["bench", "boot", &arguments.vnf, "--repetitions", "1", "--accel", "kvm", "--json", "--vcpus"];
    let mut typed: Vec<String> = typed.map(str::to_owned).to_vec();
    typed.extend([arguments.vcpus.to_string(), "--machine".to_owned(), machines.join(",")]);
    typed.extend(["--image".to_owned(), name(folder)?, "--cloud-kernel".to_owned(), name(&cloud.path)?]);
    let total = u64::from(arguments.repetitions);
    let mut step = Step::start_counted(format!("booting {} guests in it", total * 2 * machines.len() as u64), total);
    let mut reports = Vec::new();
    outside::repeat(&parts, &typed, arguments.repetitions, |report| {
        reports.push(report.to_owned());
        step.progress(reports.len() as u64, "of each");
    })?;
    step.finish("");
    let mut measured = report::join(&reports).context("what it measured is not understood")?;
    measured.iter_mut().for_each(|on| on.accel += " in an emulated host");
    Ok(measured)
}

/// A table of stages for each machine, then the ratios.
fn print(measured: &[Measurement], manifest: &Manifest, cloud: &str) {
    for on in measured {
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::UTF8_BORDERS_ONLY);
        table.set_header([
            format!("{}, median ms", on.machine),
            format!("{} image", manifest.vnf),
            "share".to_owned(),
            cloud.to_owned(),
        ]);
        let of = |boots: &[BootTimes], stage: usize| {
            let values: Vec<u64> = boots.iter().filter_map(|boot| boot.stages()[stage].1).collect();
            (!values.is_empty()).then(|| median(values))
        };
        let text = |value: Option<u64>| value.map_or_else(String::new, |ms| ms.to_string());
        let ready_ms = on.ready_ms();
        for (number, (stage, _)) in BootTimes::default().stages().iter().enumerate() {
            let ours = of(&on.image, number);
            let share = ours.map(|ms| format!("{:.0} %", 100.0 * ms as f64 / (ready_ms as f64).max(1.0)));
            table.add_row([(*stage).to_owned(), text(ours), share.unwrap_or_default(), text(of(&on.cloud, number))]);
        }
        let init = |boots: &[BootTimes]| median(boots.iter().map(|boot| boot.init_ms));
        table.add_row(["to PID 1".into(), init(&on.image).to_string(), String::new(), init(&on.cloud).to_string()]);
        table.add_row(["to ready".into(), ready_ms.to_string(), String::new(), String::new()]);
        println!("{table}");
        println!(
            "{}, {} boots of each: ready in {:.2} of the time Debian's kernel needs to reach PID 1 (aim: at most 0.33)",
            on.machine,
            on.image.len(),
            on.ratio()
        );
    }
    let accel = measured.first().map_or("", |on| on.accel.as_str());
    println!("{}, {accel}, commit {}", machine(), commit());
}

//! `cargo xtask run`: one instance alone, its console on our terminal.

use crate::config_drive::{self, Layout};
use crate::image::Format;
use crate::passthrough;
use crate::setup::packages::Need;
use crate::setup::{self, Policy};
use crate::{formats, image, standalone, vnf};
use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use slim_controller::hypervisor::borrowed::{Lender, NamedVirtual, NamedWhole};
use slim_controller::hypervisor::placement::{CpuChoice, HugePages};
use slim_controller::hypervisor::qemu::Qemu;
use slim_controller::hypervisor::{Accel, Chipset, Machine};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long a guest may take to power off.
const GRACE: Duration = Duration::from_secs(5);

/// What to boot, and how.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The network function, such as `nat`.
    vnf: String,

    /// How to run it: `kvm`, `tcg` (emulation), or KVM only where it will really work
    #[arg(long, default_value = "auto", value_name = "auto|kvm|tcg")]
    accel: Accel,

    /// Virtual CPUs
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    vcpus: u8,

    /// Guest memory in MiB
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    memory: u32,

    /// On which CPUs of this machine the virtual ones run: `auto`, `off`, or a list such as 2-5,8
    ///
    /// Of a list each virtual CPU gets one for itself that no other program is pinned to. auto does that with isolated
    /// CPUs of the NUMA node of a passed-through function; without one, as with off, the kernel chooses. Memory is bound
    /// to the same node.
    #[arg(long, default_value = "auto", value_name = "LIST")]
    cpus: CpuChoice,

    /// Whether guest memory lies in reserved huge pages of 2 MiB: if enough are free, in any case, or not at all
    #[arg(long, default_value = "auto", value_name = "auto|on|off")]
    hugepages: HugePages,

    /// The machine the guest sees; docs/boot.md compares them
    #[arg(long, default_value_t, value_name = "q35|microvm")]
    machine: Chipset,

    /// Give the guest a virtual function of an SR-IOV NIC as its next dataplane interface; may be repeated.
    ///
    /// NIC is the physical function's network interface or PCI address, N which of its virtual functions, else one that
    /// is free; they are made if there are none. The address of a virtual function will do, too. It is bound to vfio-pci,
    /// gets the network function's own MAC address, or the one appended, and everything becomes as it was in the end.
    /// With @VLAN the NIC confines it to that VLAN, of which the guest sees nothing. Needs root.
    #[arg(long, value_name = "NIC[:N][@VLAN][=MAC]")]
    vf: Vec<NamedVirtual>,

    /// Give the guest this whole PCI function, after those of --vf; may be repeated.
    ///
    /// Its MAC address is read while a driver of the host has it, else it has to be appended. Needs root.
    #[arg(long, value_name = "ADDRESS[=MAC]")]
    pci: Vec<NamedWhole>,

    /// Let it process packets at once; else it stays idle until its control connection says so
    #[arg(long)]
    active: bool,

    /// Have UEFI firmware boot it in this form, instead of entering its kernel directly
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    /// Hand over configuration and identity on a config drive, instead of through fw_cfg
    #[arg(long, value_enum, value_name = "LAYOUT")]
    config_drive: Option<Layout>,

    /// Boot the image in this folder, as `cargo xtask image` has left it, instead of building one
    #[arg(long, value_name = "FOLDER")]
    image: Option<PathBuf>,
}

/// Boots the image and shows its console until it ends or Ctrl-C is pressed.
pub fn run(arguments: &Arguments, policy: Policy) -> Result<()> {
    let vnf = vnf::find(&arguments.vnf)?;
    let requests = passthrough::requests(vnf, &arguments.vf, &arguments.pci)?;
    let mut needs = vec![Need::Qemu];
    if arguments.format != Format::KernelInitrd || arguments.config_drive.is_some() {
        needs.push(Need::Firmware);
    }
    let folder = match &arguments.image {
        Some(folder) => {
            setup::ensure(&needs, policy)?;
            folder.clone()
        }
        None => {
            needs.extend_from_slice(arguments.format.needs());
            setup::ensure(&needs, policy)?;
            image::ensure_format(vnf, arguments.format)?.0
        }
    };

    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot catch Ctrl-C")?;
    }
    // Declared before the guest, so given back after it, on every way out.
    let loan = Lender::this().borrow(&requests, arguments.memory)?;
    for function in loan.functions() {
        eprintln!("==> borrowed {} as {}", function.address, function.mac);
    }
    let run_dir = tempfile::Builder::new().prefix("slim-run-").tempdir()?;
    let control_port = free_port()?;
    let mut launch = standalone::launch(vnf, &folder, run_dir.path(), loan.functions(), Some(control_port))?;
    launch.accel = arguments.accel;
    launch.vcpus = arguments.vcpus;
    launch.memory_mb = arguments.memory;
    launch.chipset = arguments.machine;
    formats::apply(arguments.format, &folder, &mut launch)?;
    if let Some(layout) = arguments.config_drive {
        launch.config_drive = Some(config_drive::write(layout, &config_drive::user_data(&launch), run_dir.path())?);
    }
    launch.cpus = arguments.cpus.clone();
    launch.huge_pages = arguments.hugepages;

    let mut machine = Qemu::find()?.start(&launch)?;
    let accel = machine.accel().map_or_else(String::new, |accel| format!(" with {accel}"));
    eprintln!("==> {} runs{accel}; Ctrl-C stops it", launch.name);
    if let Some(placement) = machine.placement().filter(|placement| !placement.is_anywhere()) {
        eprintln!("    {placement}");
    }
    let trust = run_dir.path().join(standalone::TRUST_FOLDER);
    eprintln!("    its control connection: 127.0.0.1:{control_port}, for identities of {}", trust.display());
    let mut console = File::open(machine.console_log())?;
    let mut ready = false;
    while !stop.load(Ordering::Relaxed) {
        let alive = machine.is_alive();
        show(&mut console)?;
        if !ready && let Some(line) = machine.poll_ready()? {
            ready = true;
            eprintln!("==> ready {} ms after QEMU was started", line.after.as_millis());
            if arguments.active {
                standalone::activate(&launch, run_dir.path(), control_port)?;
                eprintln!("==> live: it processes packets");
            }
        }
        if !alive {
            println!("{} has ended", launch.name);
            return Ok(loan.give_back()?);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    eprintln!("\n==> stopping {}", launch.name);
    let stopped = machine.stop(GRACE);
    show(&mut console)?;
    println!("{} {stopped}", launch.name);
    Ok(loan.give_back()?)
}

/// Copies what is new on the console to our output.
fn show(console: &mut File) -> Result<()> {
    let mut new = Vec::new();
    console.read_to_end(&mut new)?;
    if !new.is_empty() {
        let mut out = std::io::stdout().lock();
        out.write_all(&new)?;
        out.flush()?;
    }
    Ok(())
}

/// A TCP port of the loopback address that nobody uses at present.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

//! `cargo xtask run`: one instance alone, its console on our terminal.

use crate::passthrough::{self, Function};
use crate::setup::packages::Need;
use crate::setup::{self, Policy};
use crate::{image, standalone, vnf};
use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use slim_controller::hypervisor::passthrough::FunctionKind;
use slim_controller::hypervisor::qemu::Qemu;
use slim_controller::hypervisor::{Accel, Machine};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
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

    /// Give the guest this virtual function of an SR-IOV NIC as its next dataplane interface; may be repeated.
    ///
    /// Its MAC address is asked from the physical function, unless appended as in 0000:03:10.0=52:54:00:12:34:56.
    #[arg(long, value_name = "ADDRESS[=MAC]")]
    vf: Vec<Function>,

    /// Give the guest this whole PCI function, after those of --vf; may be repeated
    #[arg(long, value_name = "ADDRESS=MAC")]
    pci: Vec<Function>,
}

/// Boots the image and shows its console until it ends or Ctrl-C is pressed.
pub fn run(arguments: &Arguments, policy: Policy) -> Result<()> {
    let vnf = vnf::find(&arguments.vnf)?;
    setup::ensure(&[Need::Dpdk, Need::Kernel, Need::Qemu], policy)?;
    let mut passed = Vec::new();
    for (functions, kind) in [(&arguments.vf, FunctionKind::Virtual), (&arguments.pci, FunctionKind::Any)] {
        for function in functions {
            passed.push(passthrough::resolve(function, kind, arguments.memory)?);
        }
    }
    let (folder, _) = image::ensure(vnf)?;

    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot catch Ctrl-C")?;
    }
    let run_dir = tempfile::Builder::new().prefix("slim-run-").tempdir()?;
    let control_port = free_port()?;
    let mut launch = standalone::launch(vnf, &folder, run_dir.path(), &passed, Some(control_port))?;
    launch.accel = arguments.accel;
    launch.vcpus = arguments.vcpus;
    launch.memory_mb = arguments.memory;

    let mut machine = Qemu::find()?.start(&launch)?;
    let accel = machine.accel().map_or_else(String::new, |accel| format!(" with {accel}"));
    eprintln!("==> {} runs{accel}; Ctrl-C stops it", launch.name);
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
        }
        if !alive {
            println!("{} has ended", launch.name);
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    eprintln!("\n==> stopping {}", launch.name);
    let stopped = machine.stop(GRACE);
    show(&mut console)?;
    println!("{} {stopped}", launch.name);
    Ok(())
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

//! A migration between two images on virtual functions, the switch being ours, on the physical side of the NIC.
//!
//! ```text
//!   daemon ─── slim-switch ── eth.101 … eth.104 ─┐          ┌── VF 0, VF 1 ── nat-a
//!                    ├─────── eth.11 (inside) ───┤  cable ──┤
//!                    └─────── eth.12 (outside) ──┘    │     └── VF 2, VF 3 ── nat-b
//!                                                   peer
//! ```
//!
//! Both images have the network function's MAC addresses; the NIC tells their functions apart by VLANs.

use super::host;
use super::launcher::{self, Launcher, SCRATCH};
use super::steps::{PROMPT, READY, same};
use super::{Stalled, Starter};
use crate::words::{INSIDE_VLAN, OUTSIDE_VLAN, Plan, Word};
use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// How long an instance may take until it is ready: longer than the daemon lets it.
const BOOTED: Duration = Duration::from_secs(240);

/// What slimctl says of a guest that is silent, or has reset itself: QEMU ends well only by itself.
const STALLS: [&str; 2] = ["was not ready after", "ended while booting (exit status: 0)"];

/// What the two instances are given: NIC and VLANs.
const INSTANCES: [(&str, [u16; 2]); 2] = [("nat-a", [101, 102]), ("nat-b", [103, 104])];

/// How long the guests' lcores nap while they have nothing to do.
const NAP_US: u32 = 20_000;

/// The deployment's file, one whose instances end with the daemon, and one whose go on.
const ENDING: &str = "deployment.toml";
const KEEPING: &str = "keeping.toml";

/// The VLAN of an instance that has the NIC itself.
const WHOLE_VLAN: u16 = 105;

pub(super) fn run(plan: &Plan, starter: &mut Starter, nic: &str) -> Result<()> {
    // While nothing else runs: whether KVM works is found out once for all that follows.
    starter.step("KVM works", || {
        let mut launcher = Launcher::start(plan, &launcher::nat(plan, &[]))?;
        launcher.wait_for(launcher::RUNS, READY)?;
        launcher.end(Signal::SIGINT, PROMPT).map(drop)
    })?;
    let trunk = host::driven_by_virtio_net()?;
    host::set_functions(nic, 4)?;
    let before = host::state()?;
    let mut deployment = None;
    starter.step("the switch and the daemon start", || {
        prepare(plan, &trunk)?;
        deployment = Some(Deployment::start(plan, ENDING)?);
        Ok(())
    })?;
    let mut deployment = deployment.context("there is no deployment")?;
    for (name, vlans) in INSTANCES {
        starter.step(&format!("{name} boots with KVM and two virtual functions in VLANs of their own"), || {
            let functions = vlans.map(|vlan| format!("{nic}@{vlan}"));
            let mut arguments = vec!["instance", "boot", name];
            functions.iter().for_each(|function| arguments.extend(["--vf", function]));
            if name == "nat-a" {
                arguments.push("--active");
            }
            slimctl(plan, &arguments, BOOTED).map(drop)
        })?;
    }
    starter.say(&Word::Flow)?;
    starter.gone_on().context("frames through the NAT before it moves")?;
    starter.step("its state moves from one to the other while packets flow", || {
        // The status says whether the destination has taken over with an equal state.
        slimctl(plan, &["migrate", "nat-a", "nat-b", "--force", "--retire"], READY).map(drop)
    })?;
    starter.say(&Word::Settle)?;
    starter.gone_on().context("frames through the NAT that has moved")?;
    starter.step("the source has given its functions back, and only it", || {
        let left = host::driven_by("vfio-pci")?;
        ensure!(left.len() == INSTANCES[1].1.len(), "vfio-pci has {}", left.join(" "));
        Ok(())
    })?;
    starter.step("what a killed daemon leaves is cleaned up", || {
        deployment.daemon.kill()?;
        deployment.end()?;
        // The kernel kills its guest then, which has some memory to give back.
        let deadline = Instant::now() + PROMPT;
        loop {
            let said = slimctl(plan, &["host", "clean"], PROMPT)?;
            if said.contains("gave back what process") {
                return same(&before);
            }
            ensure!(said.contains("runs and has") && Instant::now() < deadline, "it said {said}");
        }
    })?;
    kept(plan, starter, nic)
}

/// A daemon gives the NIC itself to an instance and is killed; the next one takes charge of both.
fn kept(plan: &Plan, starter: &mut Starter, nic: &str) -> Result<()> {
    host::set_functions(nic, 0)?;
    let before = host::state()?;
    let mut deployment = Deployment::start(plan, KEEPING)?;
    starter.step("a whole NIC goes to an instance", || {
        slimctl(plan, &["instance", "boot", "nat-c", "--pci", &format!("{nic}@{WHOLE_VLAN}")], BOOTED)?;
        ensure!(host::driven_by("vfio-pci")? == [nic], "the host is {}", host::state()?);
        Ok(())
    })?;
    starter.step("with `keep` it stays with the instance when the daemon is killed", || {
        deployment.daemon.kill()?;
        deployment.daemon.wait()?;
        let said = slimctl(plan, &["host", "clean"], PROMPT)?;
        ensure!(said.contains(&format!("runs and has {nic}")), "it said {said}");
        ensure!(host::driven_by("vfio-pci")? == [nic], "the host is {}", host::state()?);
        Ok(())
    })?;
    starter.step("the next daemon takes charge of both, and gives the NIC back in the end", || {
        deployment.daemon = daemon(plan, KEEPING)?;
        let said = slimctl(plan, &["instance", "list"], PROMPT)?;
        ensure!(said.contains("nat-c"), "it said {said}");
        slimctl(plan, &["shutdown", "--retire"], PROMPT)?;
        deployment.end()?;
        same(&before)
    })
}

/// Makes what switch and daemon are started with.
fn prepare(plan: &Plan, trunk: &str) -> Result<()> {
    host::ip(&["link", "set", "dev", trunk, "up"])?;
    for (name, vlan) in [("inside", INSIDE_VLAN), ("outside", OUTSIDE_VLAN)] {
        let id = vlan.to_string();
        let link = format!("{trunk}.{vlan}");
        host::ip(&["link", "add", "link", trunk, "name", &link, "type", "vlan", "id", &id])
            .with_context(|| format!("cannot make the interface of the hosts {name}"))?;
        host::ip(&["link", "set", "dev", &link, "up"])?;
    }
    for (file, keep) in [(ENDING, false), (KEEPING, true)] {
        fs::write(Path::new(SCRATCH).join(file), deployment(plan, trunk, keep))?;
    }
    slimctl(plan, &["init"], PROMPT).map(drop)
}

/// A switch and a daemon.
struct Deployment {
    switch: Child,
    daemon: Child,
}

impl Deployment {
    fn start(plan: &Plan, file: &str) -> Result<Self> {
        // It looks for packets all the time, which keeps an emulated CPU busy; with few packets it need not come first.
        let arguments = ["-n", "19", &plan.switch, "--control", "switch.sock", "--mbufs", "4095"];
        let mut switch = background("nice", &arguments, "switch.log")?;
        listening("switch.sock", &mut switch)?;
        Ok(Self { switch, daemon: daemon(plan, file)? })
    }

    /// Waits for the daemon, which was made to end, and ends the switch.
    fn end(&mut self) -> Result<()> {
        self.daemon.wait()?;
        kill(Pid::from_raw(self.switch.id().cast_signed()), Signal::SIGTERM)?;
        let ended = self.switch.wait()?;
        ensure!(ended.success(), "the switch ended with {ended}");
        Ok(())
    }
}

/// Starts a daemon with that deployment.
fn daemon(plan: &Plan, file: &str) -> Result<Child> {
    let mut daemon = background(&plan.slimctl, &["daemon", "--config", file], "daemon.log")?;
    listening("slimctl.sock", &mut daemon)?;
    Ok(daemon)
}

/// Types a command that must succeed; returns what it says.
fn slimctl(plan: &Plan, arguments: &[&str], limit: Duration) -> Result<String> {
    println!("$ slimctl {}", arguments.join(" "));
    let out = File::create(Path::new(SCRATCH).join("slimctl.log"))?;
    let mut typed = command(&plan.slimctl, arguments);
    let mut typed = typed.stdout(out.try_clone()?).stderr(out).spawn().context("cannot start slimctl")?;
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = typed.try_wait()? {
            break status;
        }
        if Instant::now() >= deadline {
            tell_logs();
            let text = format!("slimctl {} did not end within {limit:?}", arguments.join(" "));
            return Err(Stalled(text).into());
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let said = fs::read_to_string(Path::new(SCRATCH).join("slimctl.log")).unwrap_or_default();
    println!("{said}");
    if status.success() {
        return Ok(said);
    }
    tell_logs();
    let text = format!("slimctl {} ended with {status}: {said}", arguments.join(" "));
    Err(if STALLS.iter().any(|words| said.contains(words)) { Stalled(text).into() } else { anyhow!(text) })
}

/// Shows what switch, daemon and guests have said, on the console.
fn tell_logs() {
    let consoles = ["nat-a", "nat-b", "nat-c"].map(|name| format!("instances/{name}.console.log"));
    for log in ["switch.log", "daemon.log"].into_iter().chain(consoles.iter().map(String::as_str)) {
        let text = fs::read(Path::new(SCRATCH).join(log)).unwrap_or_default();
        println!("--- {log}\n{}", String::from_utf8_lossy(&text));
    }
}

fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = launcher::program(program);
    command.args(arguments).current_dir(SCRATCH).env("SLIM_SOCKET", "slimctl.sock");
    command
}

fn background(program: &str, arguments: &[&str], log: &str) -> Result<Child> {
    let log = File::create(Path::new(SCRATCH).join(log))?;
    let mut command = command(program, arguments);
    command.stdout(log.try_clone()?).stderr(log).spawn().with_context(|| format!("cannot start {program}"))
}

/// Waits until somebody listens on `socket`.
fn listening(socket: &str, process: &mut Child) -> Result<()> {
    let deadline = Instant::now() + PROMPT;
    while UnixStream::connect(Path::new(SCRATCH).join(socket)).is_err() {
        if let Some(status) = process.try_wait()? {
            tell_logs();
            anyhow::bail!("what was to listen on {socket} ended with {status}");
        }
        if Instant::now() >= deadline {
            tell_logs();
            return Err(Stalled(format!("nobody listens on {socket}")).into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn deployment(plan: &Plan, trunk: &str, keep: bool) -> String {
    let image = &plan.image;
    format!(
        r#"
[daemon]
socket = "slimctl.sock"
run_dir = "instances"
keep = {keep}
[switch]
control = "switch.sock"
trunk = "{trunk}"
[management]
address = "10.3.0.1/24"
[[external]]
name = "inside"
af_packet = "{trunk}.{INSIDE_VLAN}"
[[external]]
name = "outside"
af_packet = "{trunk}.{OUTSIDE_VLAN}"
[[external]]
name = "mgmt"
tap = "slim-mgmt"
[vnf.nat]
image = {image:?}
accel = "kvm"
port = [
    {{ name = "in", external = "inside", mac = "02:51:1a:00:00:01" }},
    {{ name = "out", external = "outside", mac = "02:51:1a:00:00:02" }},
]
# The functions have no receive interrupts, and two guests that wake up 2000 times a second are too much for one emulated CPU.
[vnf.nat.limits]
nap_us = {NAP_US}
[vnf.nat.config]
interior_address = "10.1.0.1/24"
interior_mac = "02:51:1a:00:00:01"
exterior_address = "10.2.0.1/24"
exterior_mac = "02:51:1a:00:00:02"
"#
    )
}

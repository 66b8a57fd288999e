//! The steps: what the launcher must do, and must refuse, each leaving the host as it was.

use super::Starter;
use super::host;
use super::launcher::{self, Launcher};
use super::migration;
use crate::words::{Plan, Scenario, Word};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::time::Duration;

/// How long it may take from the launcher's start until the NAT is live.
pub(super) const READY: Duration = Duration::from_secs(150);

/// How long the launcher may take to start, or to end when asked.
pub(super) const PROMPT: Duration = Duration::from_secs(60);

/// The memory of a guest, in pages of 2 MiB.
const HUGE_PAGES: u64 = 128;

pub(super) fn run(plan: &Plan, starter: &mut Starter) -> Result<()> {
    let nic = host::driven_by("igb")?.into_iter().next().context("there is no igb NIC")?;
    match &plan.scenario {
        Scenario::NoIommu => {
            starter
                .step("without an IOMMU nothing is made", || refused(plan, &["--vf", &nic], "no IOMMU is active"))?;
            starter.step("the check finds the missing IOMMU", || {
                let said = launcher::run(plan, &["host", "check"])?;
                ensure!(!said.success && said.text.contains("BAD   IOMMU"), "it said {}", said.text);
                Ok(())
            })
        }
        Scenario::Migration => migration::run(plan, starter, &nic),
        Scenario::Command { arguments, times } => {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            (0..*times).try_for_each(|_| {
                let said = launcher::run(plan, &arguments)?;
                ensure!(said.success, "it said {}", said.text);
                starter.say(&Word::Report(said.stdout))
            })
        }
        Scenario::Complete => {
            starter.step("the check finds nothing in the way", || {
                let said = launcher::run(plan, &["host", "check"])?;
                ensure!(said.success, "it said {}", said.text);
                Ok(())
            })?;
            refusals(plan, starter, &nic)?;
            starter.step("what a killed launcher leaves is cleaned up", || crash(plan, &nic))?;
            traffic(plan, starter, &nic)
        }
    }
}

/// The launcher must refuse `functions` with `words`, and change nothing.
fn refused(plan: &Plan, functions: &[&str], words: &str) -> Result<()> {
    let before = host::state()?;
    let said = launcher::run(plan, &launcher::nat(plan, functions))?;
    ensure!(!said.success, "the launcher accepted {}", functions.join(" "));
    ensure!(said.text.contains(words), "expected {words:?}, got {:?}", said.text);
    same(&before)
}

/// The host must be as it was `before`.
pub(super) fn same(before: &str) -> Result<()> {
    let after = host::state()?;
    ensure!(after == before, "the host is not as it was:\nbefore\n{before}after\n{after}");
    Ok(())
}

fn refusals(plan: &Plan, starter: &mut Starter, nic: &str) -> Result<()> {
    let neighbours = host::driven_by("e1000")?;
    let neighbour = neighbours.first().context("there is no e1000 NIC")?;
    starter
        .step("no such device", || refused(plan, &["--vf", "0000:ff:00.0"], "there is no PCI device 0000:ff:00.0"))?;
    starter.step("a NIC without SR-IOV", || refused(plan, &["--vf", neighbour], "does not offer SR-IOV"))?;
    starter
        .step("a group shared with a device in use", || refused(plan, &["--pci", neighbour], "shares IOMMU group"))?;
    starter.step("a function in use", || {
        host::set_functions(nic, 1)?;
        let function = host::first_function(nic)?;
        let interface = host::interfaces(&function).into_iter().next().context("igbvf did not take the function")?;
        host::ip(&["link", "set", "dev", &interface, "up"])?;
        refused(plan, &["--vf", &format!("{nic}:0")], &format!("the host's interface {interface} is up"))?;
        host::set_functions(nic, 0)
    })
}

fn crash(plan: &Plan, nic: &str) -> Result<()> {
    let before = host::state()?;
    let mut launcher = Launcher::start(plan, &launcher::nat(plan, &["--vf", nic, "--vf", nic]))?;
    // QEMU has the functions open then, and has to let go of them when its parent is gone. And the launcher knows by
    // then that KVM works, so that it need not find out again in the next step.
    launcher.wait_for(launcher::RUNS, READY)?;
    launcher.end(Signal::SIGKILL, PROMPT)?;
    ensure!(host::state()? != before, "the launcher was killed too early to leave anything behind");
    let said = launcher::run(plan, &["host", "clean"])?;
    ensure!(said.success && said.text.contains("gave back what process"), "it said {}", said.text);
    same(&before)
}

fn traffic(plan: &Plan, starter: &mut Starter, nic: &str) -> Result<()> {
    let before = host::state()?;
    starter.step("huge pages are reserved", || host::reserve_huge_pages(HUGE_PAGES))?;
    let mut running = None;
    starter.step("the NAT boots in them, with KVM and two virtual functions", || {
        let mut launcher = Launcher::start(plan, &launcher::nat(plan, &["--vf", nic, "--vf", nic]))?;
        launcher.wait_for("==> live", READY)?;
        running = Some(launcher);
        // The guest takes them without being told to, and all at once.
        let free = host::free_huge_pages()?;
        ensure!(free == 0, "{free} huge pages are free");
        Ok(())
    })?;
    let launcher = running.context("the launcher is gone")?;
    starter.exchange().context("frames through the NAT")?;
    starter.step("functions of a guest are not taken", || {
        let refused = launcher::run(plan, &launcher::nat(plan, &["--vf", nic]))?;
        ensure!(!refused.success && refused.text.contains("are in use"), "it said {}", refused.text);
        Ok(())
    })?;
    starter.step("Ctrl-C ends it and gives everything back", || {
        let status = launcher.end(Signal::SIGINT, PROMPT)?;
        ensure!(status.success(), "the launcher ended with {status}");
        let free = host::free_huge_pages()?;
        ensure!(free == HUGE_PAGES, "{free} huge pages are free");
        same(&before)
    })
}

//! Looking at the emulated host, and preparing it for a step.

use anyhow::{Context, Result, ensure};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

const DEVICES: &str = "/sys/bus/pci/devices";

/// The kernel's settings of pages of 2 MiB.
const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

/// Everything that borrowing devices may change: drivers, virtual functions and their settings, interfaces.
pub(super) fn state() -> Result<String> {
    let mut state = String::new();
    let mut addresses: Vec<_> =
        fs::read_dir(DEVICES)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    addresses.sort();
    for address in addresses {
        let device = Path::new(DEVICES).join(&address);
        let text = |file: &str| fs::read_to_string(device.join(file)).unwrap_or_default().trim().to_owned();
        writeln!(
            state,
            "{address} driver {} override {} functions {} autoprobe {}",
            driver(&address).as_deref().unwrap_or("none"),
            text("driver_override"),
            text("sriov_numvfs"),
            text("sriov_drivers_autoprobe")
        )?;
        for interface in interfaces(&address) {
            writeln!(state, "  {interface} flags {}", text(&format!("net/{interface}/flags")))?;
        }
    }
    Ok(state)
}

/// The driver of a device.
fn driver(address: &str) -> Option<String> {
    let link = fs::read_link(Path::new(DEVICES).join(address).join("driver")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

/// The network interfaces of a device.
pub(super) fn interfaces(address: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new(DEVICES).join(address).join("net"));
    entries.into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// The devices that `name` drives, in order.
pub(super) fn driven_by(name: &str) -> Result<Vec<String>> {
    let mut addresses: Vec<_> =
        fs::read_dir(DEVICES)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    addresses.retain(|address| driver(address).as_deref() == Some(name));
    addresses.sort();
    Ok(addresses)
}

/// The interface of the virtio NIC.
pub(super) fn driven_by_virtio_net() -> Result<String> {
    let interfaces = fs::read_dir("/sys/class/net")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let driver = |interface: &String| {
        let link = fs::read_link(Path::new("/sys/class/net").join(interface).join("device/driver")).ok()?;
        Some(link.file_name()?.to_string_lossy().into_owned())
    };
    let mut interfaces = interfaces.filter(|interface| driver(interface).as_deref() == Some("virtio_net"));
    interfaces.next().context("there is no virtio NIC")
}

/// Sets the number of a device's virtual functions; the host's driver takes them.
pub(super) fn set_functions(address: &str, count: u32) -> Result<()> {
    let file = Path::new(DEVICES).join(address).join("sriov_numvfs");
    fs::write(&file, count.to_string()).with_context(|| format!("cannot write {count} to {}", file.display()))
}

/// The address of a device's first virtual function.
pub(super) fn first_function(address: &str) -> Result<String> {
    let link = fs::read_link(Path::new(DEVICES).join(address).join("virtfn0"))?;
    Ok(link.file_name().context("virtfn0 leads nowhere")?.to_string_lossy().into_owned())
}

/// Reserves so many pages of 2 MiB.
pub(super) fn reserve_huge_pages(count: u64) -> Result<()> {
    fs::write(format!("{HUGE_PAGES}/nr_hugepages"), count.to_string())?;
    let free = free_huge_pages()?;
    ensure!(free == count, "the kernel has reserved {free} of {count} huge pages");
    Ok(())
}

/// How many of them nobody has.
pub(super) fn free_huge_pages() -> Result<u64> {
    let text = fs::read_to_string(format!("{HUGE_PAGES}/free_hugepages"))?;
    text.trim().parse().context("the kernel's number of huge pages is none")
}

/// Runs `ip`.
pub(super) fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("/bin/ip").args(arguments).output().context("cannot start ip")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), said.trim());
    Ok(())
}

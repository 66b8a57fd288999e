//! Being PID 1 of an image: everything between the kernel's `execve` and the EAL, and the way back to power-off.
//!
//! No other program exists in an image, so all of this is done with system calls and files in sysfs.
//!
//! * [`mount`]: the file systems that the EAL and the rest of this module read.
//! * [`handover`]: the configuration and the identity, from [`fw_cfg`] or from a [`config_drive`], which is known by the
//!   label of its [`volume`].
//! * [`nics`] and [`vfio`]: which NIC is which, and binding those of the dataplane to `vfio-pci`.
//! * [`management`] and [`netlink`]: the management NIC and its address.
//! * [`hugepages`]: memory for packets.
//! * [`power`]: the power button, and the end.

pub mod config_drive;
pub mod fw_cfg;
pub mod handover;
pub mod hugepages;
pub mod management;
pub mod mount;
pub mod netlink;
pub mod nics;
pub mod power;
pub mod vfio;
pub mod volume;

use crate::config::Host;
use slim_core::packet::MacAddr;
use std::path::{Path, PathBuf};

/// A step on the way to a running dataplane that failed. In an image it is fatal: there is nobody to repair it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of procfs, sysfs or the device tree could not be read or written.
    #[error("cannot {operation} {path}: {source}")]
    File {
        /// What was to be done.
        operation: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A file system could not be mounted.
    #[error("cannot mount {what} ({fstype}) on {target}: {errno}")]
    Mount {
        /// What holds it.
        what: String,
        /// Its type.
        fstype: &'static str,
        /// Where.
        target: &'static str,
        /// Why it failed.
        errno: nix::Error,
    },
    /// Nobody handed over a configuration.
    #[error(
        "no configuration: start QEMU with -fw_cfg name={},file=PATH, or attach a config drive labelled cidata or config-2; \
         there is {drives}",
        fw_cfg::CONFIG
    )]
    NoConfiguration {
        /// The drives there are.
        drives: String,
    },
    /// The config drive is not usable.
    #[error(transparent)]
    ConfigDrive(#[from] config_drive::Error),
    /// The configuration is not usable.
    #[error("the configuration is invalid: {0}")]
    Configuration(String),
    /// No NIC has a MAC address that the configuration names.
    #[error("no NIC has the MAC address {mac} of {role}; there are {present}")]
    NoSuchNic {
        /// The address looked for.
        mac: MacAddr,
        /// What the NIC is for.
        role: String,
        /// The NICs there are.
        present: String,
    },
    /// A NIC did not end up with the driver it was meant for.
    #[error(
        "{address} is bound to {driver}, not to {wanted}: NVIDIA's NICs need an image made with `--nic mlx5`, all others \
         a kernel with VFIO_PCI and VFIO_NOIOMMU"
    )]
    NotBound {
        /// The PCI address.
        address: String,
        /// The driver it has instead.
        driver: String,
        /// The driver it was meant for.
        wanted: &'static str,
    },
    /// A NIC that DPDK reaches by way of RDMA has no such device.
    #[error("{address} has no RDMA device after {} s: does its firmware start, and the kernel have mlx5_ib?", waited.as_secs())]
    NoRdma {
        /// The PCI address.
        address: String,
        /// How long it was waited for.
        waited: std::time::Duration,
    },
    /// The kernel refused a change of the network configuration.
    #[error("cannot {operation}: {source}")]
    Network {
        /// What was to be done.
        operation: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// There are fewer hugepages than needed.
    #[error("{have} of {want} hugepages of 2 MB could be had: give the guest more memory")]
    Hugepages {
        /// Those there are.
        have: u32,
        /// Those needed.
        want: u32,
    },
}

pub(crate) fn read(path: impl AsRef<Path>) -> Result<String, Error> {
    let path = path.as_ref();
    let text = std::fs::read_to_string(path);
    text.map_err(|source| Error::File { operation: "read", path: path.into(), source })
}

pub(crate) fn write(path: impl AsRef<Path>, text: &str) -> Result<(), Error> {
    let path = path.as_ref();
    std::fs::write(path, text).map_err(|source| Error::File { operation: "write", path: path.into(), source })
}

/// Has the kernel wait less for its own readers (RCU), which makes taking NICs away from their drivers several times
/// quicker. Not for good: it costs every CPU an interrupt.
fn expedite(on: bool) {
    if let Err(error) = write("/sys/kernel/rcu_expedited", if on { "1" } else { "0" }) {
        log::debug!("{error}");
    }
}

/// Whether this process is PID 1 of an image, rather than one that somebody started.
pub fn host() -> Host {
    if std::process::id() == 1 { Host::Image } else { Host::Process }
}

/// Milliseconds since the kernel started, or 0 if it does not tell.
pub fn uptime_ms() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
    time.map_or(0, |time| (time.tv_sec() as u64) * 1000 + (time.tv_nsec() as u64) / 1_000_000)
}

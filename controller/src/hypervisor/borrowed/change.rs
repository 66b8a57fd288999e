//! Changing the host: the few files of sysfs and calls of `ip` it takes.

use super::record::Parent;
use super::{BorrowError, Lender};
use crate::hypervisor::PciAddress;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// The driver that gives functions to user space.
pub(super) const VFIO: &str = "vfio-pci";

/// What reacts to changes. A trait so that tests can play its part.
pub trait Kernel: fmt::Debug + Send + Sync {
    /// Writes `text` to `file` in one system call.
    ///
    /// # Errors
    /// What the kernel says.
    fn write(&self, file: &Path, text: &str) -> io::Result<()>;

    /// Runs `ip` and returns what it prints.
    ///
    /// # Errors
    /// It is not there, or it fails; the error is then what it printed.
    fn ip(&self, arguments: &[&str]) -> io::Result<String>;
}

/// The kernel of the host this process runs on.
#[derive(Debug)]
pub struct ThisKernel;

impl Kernel for ThisKernel {
    fn write(&self, file: &Path, text: &str) -> io::Result<()> {
        File::options().write(true).open(file)?.write_all(text.as_bytes())
    }

    fn ip(&self, arguments: &[&str]) -> io::Result<String> {
        let output = Command::new("ip").args(arguments).stdin(Stdio::null()).output().map_err(|error| {
            io::Error::new(error.kind(), format!("cannot start `ip` (Debian's package iproute2 has it): {error}"))
        })?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let kind = match said.contains("not permitted") {
                true => io::ErrorKind::PermissionDenied,
                false => io::ErrorKind::Other,
            };
            return Err(io::Error::new(kind, format!("`ip {}`: {said}", arguments.join(" "))));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Lender {
    fn write(&self, file: &Path, text: &str, action: impl FnOnce() -> String) -> Result<(), BorrowError> {
        log::debug!("{}: {text:?}", file.display());
        self.kernel.write(file, text).map_err(|error| BorrowError::change(action())(error))
    }

    pub(super) fn ip(&self, arguments: &[&str]) -> Result<String, BorrowError> {
        self.kernel.ip(arguments).map_err(BorrowError::change("set up the network interface"))
    }

    /// Makes `count` virtual functions of a physical one that has none, without a driver of the host taking them.
    pub(super) fn make_virtual(&self, parent: &Parent, count: u32) -> Result<(), BorrowError> {
        self.set_autoprobe(parent.address, "0")?;
        let made = self.set_virtual_count(parent.address, count);
        if let Some(before) = &parent.autoprobe {
            self.set_autoprobe(parent.address, before)?;
        }
        made
    }

    pub(super) fn set_virtual_count(&self, parent: PciAddress, count: u32) -> Result<(), BorrowError> {
        let file = self.host.pci(parent).join("sriov_numvfs");
        self.write(&file, &count.to_string(), || format!("make {count} virtual functions of {parent}"))
    }

    pub(super) fn set_autoprobe(&self, parent: PciAddress, value: &str) -> Result<(), BorrowError> {
        let file = self.host.pci(parent).join("sriov_drivers_autoprobe");
        // Kernels before 4.12 have no such switch; then a driver is unbound again later.
        match file.exists() {
            true => self.write(&file, value, || format!("switch automatic drivers of {parent}'s functions to {value}")),
            false => Ok(()),
        }
    }

    /// Lets `driver` have `address`, and no other.
    pub(super) fn bind(&self, address: PciAddress, driver: &str) -> Result<(), BorrowError> {
        if self.host.driver(address).as_deref() == Some(driver) {
            return Ok(());
        }
        self.prescribe(address, Some(driver))?;
        self.unbind(address)?;
        let probe = self.host.root.join("sys/bus/pci/drivers_probe");
        self.write(&probe, &address.to_string(), || format!("bind {address} to {driver}"))?;
        match self.host.driver(address).as_deref() == Some(driver) {
            true => Ok(()),
            false => Err(BorrowError::NotBound { address, driver: driver.to_owned() }),
        }
    }

    /// Gives `address` to `driver`, whatever is prescribed.
    pub(super) fn bind_directly(&self, address: PciAddress, driver: &str) -> Result<(), BorrowError> {
        let file = self.host.root.join("sys/bus/pci/drivers").join(driver).join("bind");
        self.write(&file, &address.to_string(), || format!("give {address} back to {driver}"))
    }

    /// Takes `address` away from its driver, if it has one.
    pub(super) fn unbind(&self, address: PciAddress) -> Result<(), BorrowError> {
        let Some(driver) = self.host.driver(address) else { return Ok(()) };
        let file = self.host.pci(address).join("driver/unbind");
        self.write(&file, &address.to_string(), || format!("take {address} from {driver}"))
    }

    /// Prescribes the only driver that may have `address`.
    pub(super) fn prescribe(&self, address: PciAddress, driver: Option<&str>) -> Result<(), BorrowError> {
        let file = self.host.pci(address).join("driver_override");
        // An empty line takes the prescription away; writing nothing would do nothing.
        let text = driver.unwrap_or("\n");
        self.write(&file, text, || format!("prescribe the driver {} for {address}", driver.unwrap_or("that fits")))
    }
}

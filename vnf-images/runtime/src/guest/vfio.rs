//! Handing NICs to DPDK: unbinding them from their kernel drivers and binding them to `vfio-pci`.
//!
//! Where the launcher has told the kernel which NICs these are (`pci_vfio=`, see `kernel-cfg/patches`), nothing is left to do.

use super::nics::Nic;
use super::{Error, expedite, read, write};
use std::path::{Path, PathBuf};

const PCI: &str = "/sys/bus/pci";
const DRIVER: &str = "vfio-pci";

/// Binds `nics` to `vfio-pci`, as far as they are not.
///
/// # Errors
/// [`Error::NotBound`] if the kernel has no such driver or it refused the device.
pub fn take<'a>(nics: impl Iterator<Item = &'a Nic>) -> Result<(), Error> {
    let others: Vec<&Nic> = nics.filter(|nic| nic.driver.as_deref() != Some(DRIVER)).collect();
    if others.is_empty() {
        return Ok(());
    }
    expedite(true);
    if let Err(error) = enable_noiommu() {
        log::warn!("{error}; without an IOMMU in the guest, NICs cannot be bound");
    }
    let taken = others.into_iter().try_for_each(|nic| bind(&nic.address));
    expedite(false);
    taken
}

/// Allows VFIO without an IOMMU: a guest has none of its own, its host protects itself.
fn enable_noiommu() -> Result<(), Error> {
    write("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "1")
}

fn bind(address: &str) -> Result<(), Error> {
    let device = Path::new(PCI).join("devices").join(address);
    write(device.join("driver_override"), DRIVER)?;
    if device.join("driver").exists() {
        write(device.join("driver/unbind"), address)?;
    }
    write(Path::new(PCI).join("drivers_probe"), address)?;
    match driver(&device) {
        Some(driver) if driver == DRIVER => Ok(()),
        driver => {
            log::debug!("{address}: {}", read(device.join("uevent")).unwrap_or_default());
            Err(Error::NotBound { address: address.into(), driver: driver.unwrap_or_else(|| "no driver".into()) })
        }
    }
}

fn driver(device: &Path) -> Option<String> {
    let link: PathBuf = std::fs::read_link(device.join("driver")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

//! Handing a NIC to DPDK: unbinding it from its kernel driver and binding it to `vfio-pci`.

use super::{Error, read, write};
use std::path::{Path, PathBuf};

const PCI: &str = "/sys/bus/pci";

/// Allows VFIO without an IOMMU: a guest has none of its own, its host protects itself.
pub fn enable_noiommu() -> Result<(), Error> {
    write("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "1")
}

/// Binds the PCI function `address` to `vfio-pci`.
///
/// # Errors
/// [`Error::NotBound`] if the kernel has no such driver or it refused the device.
pub fn bind(address: &str) -> Result<(), Error> {
    let device = Path::new(PCI).join("devices").join(address);
    if driver(&device).as_deref() != Some("vfio-pci") {
        write(device.join("driver_override"), "vfio-pci")?;
        if device.join("driver").exists() {
            write(device.join("driver/unbind"), address)?;
        }
        write(Path::new(PCI).join("drivers_probe"), address)?;
    }
    match driver(&device) {
        Some(driver) if driver == "vfio-pci" => Ok(()),
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

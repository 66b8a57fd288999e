//! Handing NICs to DPDK: unbinding them from their kernel drivers and binding them to `vfio-pci`.
//!
//! Where the launcher has told the kernel which NICs these are (`pci_vfio=`, see `kernel-cfg/patches`), nothing is left to do,
//! except for NVIDIA's: DPDK's driver works through the kernel's own, which gets them back.

use super::nics::Nic;
use super::{Error, expedite, read, write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PCI: &str = "/sys/bus/pci";
const VFIO: &str = "vfio-pci";

/// The vendor, as the kernel writes it, whose NICs stay with the kernel's driver, and that driver.
const NVIDIA: &str = "0x15b3";
const MLX5: &str = "mlx5_core";

/// How long its RDMA device may take: the NIC's firmware is asked for a lot.
const RDMA_PATIENCE: Duration = Duration::from_secs(10);

/// Binds each of `nics` to the driver through which DPDK reaches it, as far as they are not.
///
/// # Errors
/// [`Error::NotBound`] if the kernel has no such driver or it refused the device; [`Error::NoRdma`] if one of NVIDIA's is not
/// to be reached by user space.
pub fn take<'a>(nics: impl Iterator<Item = &'a Nic>) -> Result<(), Error> {
    let wanted: Vec<(&Nic, &'static str)> = nics.map(|nic| (nic, through(&device(&nic.address)))).collect();
    let others: Vec<_> =
        wanted.iter().copied().filter(|(nic, driver)| nic.driver.as_deref() != Some(*driver)).collect();
    if !others.is_empty() {
        bind_all(&others)?;
    }
    wanted.iter().filter(|(_, driver)| *driver == MLX5).try_for_each(|(nic, _)| wait_for_rdma(&nic.address))
}

fn bind_all(others: &[(&Nic, &'static str)]) -> Result<(), Error> {
    expedite(true);
    if others.iter().any(|(_, driver)| *driver == VFIO)
        && let Err(error) = enable_noiommu()
    {
        log::warn!("{error}; without an IOMMU in the guest, NICs cannot be bound");
    }
    let taken = others.iter().try_for_each(|(nic, driver)| bind(&nic.address, driver));
    expedite(false);
    taken
}

fn device(address: &str) -> PathBuf {
    Path::new(PCI).join("devices").join(address)
}

/// Waits until user space can reach its RDMA device, which a driver of its own makes after the kernel's for the NIC.
fn wait_for_rdma(address: &str) -> Result<(), Error> {
    let deadline = Instant::now() + RDMA_PATIENCE;
    while !device(address).join("infiniband_verbs").exists() {
        if Instant::now() >= deadline {
            return Err(Error::NoRdma { address: address.into(), waited: RDMA_PATIENCE });
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// The driver of the kernel through which DPDK reaches `device`.
fn through(device: &Path) -> &'static str {
    match read(device.join("vendor")) {
        Ok(vendor) if vendor.trim() == NVIDIA => MLX5,
        _ => VFIO,
    }
}

/// Allows VFIO without an IOMMU: a guest has none of its own, its host protects itself.
fn enable_noiommu() -> Result<(), Error> {
    write("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "1")
}

fn bind(address: &str, wanted: &'static str) -> Result<(), Error> {
    let device = device(address);
    write(device.join("driver_override"), wanted)?;
    if device.join("driver").exists() {
        write(device.join("driver/unbind"), address)?;
    }
    write(Path::new(PCI).join("drivers_probe"), address)?;
    match driver(&device) {
        Some(driver) if driver == wanted => Ok(()),
        driver => {
            log::debug!("{address}: {}", read(device.join("uevent")).unwrap_or_default());
            let driver = driver.unwrap_or_else(|| "no driver".into());
            Err(Error::NotBound { address: address.into(), driver, wanted })
        }
    }
}

fn driver(device: &Path) -> Option<String> {
    let link: PathBuf = std::fs::read_link(device.join("driver")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nvidias_stay_with_the_kernels_driver() {
        let device = std::env::temp_dir().join(format!("slim-vfio-{}", std::process::id()));
        std::fs::create_dir_all(&device).unwrap();
        assert_eq!(through(&device), VFIO);
        for (vendor, driver) in [("0x8086\n", VFIO), ("0x15b3\n", MLX5)] {
            std::fs::write(device.join("vendor"), vendor).unwrap();
            assert_eq!(through(&device), driver);
        }
        std::fs::remove_dir_all(&device).unwrap();
    }
}

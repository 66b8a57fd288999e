//! Guests that are booted by UEFI firmware, and configured by a drive: as clouds do it.

use std::path::PathBuf;

/// Where distributions keep UEFI firmware for QEMU as one file.
const PLACES: [&str; 3] = ["/usr/share/ovmf/OVMF.fd", "/usr/share/edk2/ovmf/OVMF.fd", "/usr/share/qemu/OVMF.fd"];

/// UEFI firmware, and what it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firmware {
    /// The firmware.
    pub program: PathBuf,
    /// What it starts.
    pub boots: Boots,
}

/// What firmware starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boots {
    /// A unified kernel image, which the hypervisor hands over.
    Uki(PathBuf),
    /// A disk in the format qcow2. It is not written to.
    Qcow2(PathBuf),
}

impl Firmware {
    /// Firmware that somebody else chooses, to start `boots`: libvirt does.
    pub fn unknown(boots: Boots) -> Self {
        Self { program: PathBuf::new(), boots }
    }

    /// This host's firmware, to start `boots`. `None` if there is none.
    pub fn find(boots: Boots) -> Option<Self> {
        let program = PLACES.iter().map(PathBuf::from).find(|place| place.is_file())?;
        Some(Self { program, boots })
    }
}

/// A drive with the instance's configuration and identity, which it gets in place of files in fw_cfg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigDrive {
    /// A CD, on SATA.
    Cd(PathBuf),
    /// A virtio disk.
    Disk(PathBuf),
}

impl ConfigDrive {
    /// The file that holds it.
    pub fn file(&self) -> &PathBuf {
        let (Self::Cd(file) | Self::Disk(file)) = self;
        file
    }
}

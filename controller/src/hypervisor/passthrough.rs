//! Whether a PCI function of the host can be given to a guest. Whatever is in the way is named, with what to do.

use super::PciAddress;
use crate::net::MacAddress;
use std::fs;
use std::path::{Path, PathBuf};

/// What kind of function the operator means (`--vf` or `--pci`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FunctionKind {
    /// A virtual function of an SR-IOV device.
    Virtual,
    /// Any function.
    Any,
}

/// Why a function cannot be given to a guest, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PassthroughError {
    /// No such device.
    #[error("there is no PCI device {address} on this host{known}")]
    NoDevice {
        /// The address asked for.
        address: PciAddress,
        /// The network functions there are, in words.
        known: String,
    },
    /// `--vf` with something else.
    #[error(
        "{address} is not a virtual function: give it whole with --pci {address}, \
         or make virtual functions with `echo 2 | sudo tee /sys/bus/pci/devices/{address}/sriov_numvfs`{hint}"
    )]
    NotVirtual {
        /// The function.
        address: PciAddress,
        /// Whether it can have virtual functions, in words.
        hint: &'static str,
    },
    /// No IOMMU at all.
    #[error(
        "no IOMMU is active on this host, so no device can be given to a guest safely: switch on VT-d or AMD-Vi in the \
         firmware and boot the host with `intel_iommu=on` (Intel; AMD needs no option)"
    )]
    NoIommu,
    /// An IOMMU, but not for this device.
    #[error("{0} is not behind the IOMMU of this host (no iommu_group): move it to another slot")]
    NoGroup(PciAddress),
    /// The function has another driver, or none.
    #[error("{address} is bound to {driver}; bind it to vfio-pci:\n{commands}{warning}")]
    Driver {
        /// The function.
        address: PciAddress,
        /// Its present driver, or "no driver".
        driver: String,
        /// The commands that bind it to vfio-pci.
        commands: String,
        /// What the host loses by that.
        warning: String,
    },
    /// Other devices of the group are in use by the host.
    #[error(
        "{address} shares IOMMU group {group} with {others}, in use by the host; use a function with a group of its own \
         (another slot may give it one), or bind all of the group to vfio-pci:\n{commands}"
    )]
    GroupInUse {
        /// The function.
        address: PciAddress,
        /// Its group.
        group: u32,
        /// The other devices and their drivers.
        others: String,
        /// The commands that bind them to vfio-pci.
        commands: String,
    },
    /// The function cannot be reset between two guests.
    #[error("{0} cannot be reset (no reset method), so a guest could leave it in any state: use another function")]
    NoReset(PciAddress),
    /// VFIO's own device is missing.
    #[error("{} does not exist: load the driver with `sudo modprobe vfio-pci`", .0.display())]
    NoVfio(PathBuf),
    /// VFIO's device is there, but not for us.
    #[error("no permission to open {}: `sudo chown $USER {}`, or a udev rule that does it", .0.display(), .0.display())]
    Permission(PathBuf),
    /// VFIO's device does not open for another reason, such as being in use.
    #[error("cannot open {}: {reason}; is another guest using it?", file.display())]
    Busy {
        /// The device file.
        file: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Guest memory is locked while a device may write to it.
    #[error(
        "{need_mb} MiB of guest memory must be locked for a passed-through device, but the limit is {have_mb} MiB: \
         `sudo prlimit --pid $$ --memlock=unlimited`, or a memlock line in /etc/security/limits.conf"
    )]
    LockedMemory {
        /// Needed, in MiB.
        need_mb: u64,
        /// Allowed, in MiB.
        have_mb: u64,
    },
}

/// The host as [`check`] sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The root of its file system, `/` but in tests.
    pub root: PathBuf,
    /// How much memory may be locked, in bytes; `None` without limit.
    pub lockable_bytes: Option<u64>,
}

impl Host {
    /// The host this process runs on.
    ///
    /// Raises this process's limit of locked memory as far as it may: what it starts inherits that.
    pub fn this() -> Self {
        use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
        let limit = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(0, |(soft, hard)| {
            match soft < hard && setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard).is_ok() {
                true => hard,
                false => soft,
            }
        });
        let unlimited = limit == RLIM_INFINITY || nix::unistd::geteuid().is_root();
        Self { root: "/".into(), lockable_bytes: (!unlimited).then_some(limit) }
    }

    /// The folder of a function in sysfs.
    pub(super) fn pci(&self, address: PciAddress) -> PathBuf {
        self.root.join("sys/bus/pci/devices").join(address.to_string())
    }

    /// What the file `name` of a function says; `None` if there is no such file.
    pub(super) fn text(&self, address: PciAddress, name: &str) -> Option<String> {
        fs::read_to_string(self.pci(address).join(name)).ok().map(|text| text.trim().to_owned())
    }

    pub(super) fn group(&self, address: PciAddress) -> Option<u32> {
        link_name(&self.pci(address).join("iommu_group"))?.parse().ok()
    }

    /// The driver that has the function.
    pub(super) fn driver(&self, address: PciAddress) -> Option<String> {
        link_name(&self.pci(address).join("driver"))
    }

    /// The physical function of a virtual one.
    pub(super) fn parent(&self, address: PciAddress) -> Option<PciAddress> {
        link_name(&self.pci(address).join("physfn"))?.parse().ok()
    }

    /// The virtual function of `parent` with the number `index`.
    pub(super) fn virtual_function(&self, parent: PciAddress, index: u32) -> Option<PciAddress> {
        link_name(&self.pci(parent).join(format!("virtfn{index}")))?.parse().ok()
    }

    /// The interface of a virtual function's physical one, and which of its virtual functions it is.
    pub(super) fn physical(&self, address: PciAddress) -> Option<(String, u32)> {
        let parent = self.parent(address)?;
        let count = self.text(parent, "sriov_numvfs")?.parse().ok()?;
        let index = (0..count).find(|&index| self.virtual_function(parent, index) == Some(address))?;
        Some((self.interfaces(parent).into_iter().next()?, index))
    }

    /// The folder with the function's interfaces; a virtio function has it one level deeper.
    fn net(&self, address: PciAddress) -> PathBuf {
        let device = self.pci(address);
        let children = fs::read_dir(&device).into_iter().flatten().flatten();
        let virtio = children.filter(|child| child.file_name().to_string_lossy().starts_with("virtio"));
        let deeper = virtio.map(|child| child.path().join("net")).find(|folder| folder.is_dir());
        deeper.unwrap_or_else(|| device.join("net"))
    }

    /// Whether `interface` of the function at `address` is up.
    pub(super) fn is_up(&self, address: PciAddress, interface: &str) -> bool {
        let flags = fs::read_to_string(self.net(address).join(interface).join("flags")).ok();
        let flags = flags.and_then(|text| u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok());
        flags.is_some_and(|flags| flags & 1 != 0)
    }

    /// The MAC address of the function's interface.
    pub(super) fn mac(&self, address: PciAddress) -> Option<MacAddress> {
        let interface = self.interfaces(address).into_iter().next()?;
        fs::read_to_string(self.net(address).join(interface).join("address")).ok()?.trim().parse().ok()
    }

    /// Whether a guest, or another program, has the function open through VFIO.
    pub(super) fn is_open(&self, address: PciAddress) -> bool {
        let Some(group) = self.group(address) else { return false };
        // A group opens once at a time.
        let file = self.root.join(format!("dev/vfio/{group}"));
        let error = fs::File::options().read(true).write(true).open(file).err();
        error.is_some_and(|error| error.kind() == std::io::ErrorKind::ResourceBusy)
    }

    fn is_bridge(&self, address: PciAddress) -> bool {
        fs::read_to_string(self.pci(address).join("class")).is_ok_and(|class| class.starts_with("0x0604"))
    }

    pub(super) fn addresses_in(&self, folder: &str) -> Vec<PciAddress> {
        let Ok(entries) = fs::read_dir(self.root.join(folder)) else { return Vec::new() };
        let mut addresses: Vec<PciAddress> =
            entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        addresses.sort();
        addresses
    }

    /// The addresses of all network functions.
    pub(super) fn network_addresses(&self) -> Vec<PciAddress> {
        let mut addresses = self.addresses_in("sys/bus/pci/devices");
        addresses.retain(|&address| self.text(address, "class").is_some_and(|class| class.starts_with("0x02")));
        addresses
    }

    /// The network functions there are, for an error message.
    pub(super) fn network_functions(&self) -> String {
        let functions: Vec<String> = self
            .network_addresses()
            .into_iter()
            .map(|address| format!("{address} ({})", self.driver(address).as_deref().unwrap_or("no driver")))
            .collect();
        match functions.is_empty() {
            true => "; it has no network device on PCI".into(),
            false => format!("; its network devices are {}", functions.join(", ")),
        }
    }

    /// The network interfaces the host would lose with `address`.
    pub(super) fn interfaces(&self, address: PciAddress) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.net(address)) else { return Vec::new() };
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

/// A function that can be given to a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usable {
    /// The function.
    pub address: PciAddress,
    /// Its IOMMU group.
    pub group: u32,
}

/// Checks that the function at `address` can be given to a guest with `memory_mb` MiB of memory.
///
/// # Errors
/// The first thing in the way, in the order in which they have to be solved.
pub fn check(host: &Host, address: PciAddress, kind: FunctionKind, memory_mb: u32) -> Result<Usable, PassthroughError> {
    let device = host.pci(address);
    if !device.is_dir() {
        return Err(PassthroughError::NoDevice { address, known: host.network_functions() });
    }
    if kind == FunctionKind::Virtual && !device.join("physfn").exists() {
        let hint = if device.join("sriov_numvfs").exists() { "" } else { " (which this device does not offer)" };
        return Err(PassthroughError::NotVirtual { address, hint });
    }
    let group = group(host, address)?;
    check_driver(host, address)?;
    check_group(host, address, group, &[address])?;
    check_reset(host, address)?;
    for file in ["dev/vfio/vfio".to_owned(), format!("dev/vfio/{group}")] {
        let file = host.root.join(file);
        if let Err(error) = fs::File::options().read(true).write(true).open(&file) {
            return Err(match error.kind() {
                std::io::ErrorKind::NotFound => PassthroughError::NoVfio(file),
                std::io::ErrorKind::PermissionDenied => PassthroughError::Permission(file),
                _ => PassthroughError::Busy { file, reason: error.to_string() },
            });
        }
    }
    check_memory(host, memory_mb)?;
    Ok(Usable { address, group })
}

/// Checks that an IOMMU is active at all.
pub(super) fn check_iommu(host: &Host) -> Result<(), PassthroughError> {
    let any = fs::read_dir(host.root.join("sys/kernel/iommu_groups")).is_ok_and(|mut groups| groups.next().is_some());
    if any { Ok(()) } else { Err(PassthroughError::NoIommu) }
}

/// The IOMMU group of `address`.
pub(super) fn group(host: &Host, address: PciAddress) -> Result<u32, PassthroughError> {
    match host.group(address) {
        Some(group) => Ok(group),
        None => check_iommu(host).and(Err(PassthroughError::NoGroup(address))),
    }
}

/// Checks that the function can be reset between two guests.
pub(super) fn check_reset(host: &Host, address: PciAddress) -> Result<(), PassthroughError> {
    if host.pci(address).join("reset").exists() { Ok(()) } else { Err(PassthroughError::NoReset(address)) }
}

/// Checks that VFIO is loaded.
pub(super) fn check_vfio(host: &Host) -> Result<(), PassthroughError> {
    let driver = host.root.join("sys/bus/pci/drivers/vfio-pci");
    if driver.is_dir() { Ok(()) } else { Err(PassthroughError::NoVfio(driver)) }
}

/// Checks that the memory of a guest with `memory_mb` MiB may be locked.
pub(super) fn check_memory(host: &Host, memory_mb: u32) -> Result<(), PassthroughError> {
    // QEMU locks the guest's memory and a little of its own.
    let need_mb = u64::from(memory_mb) + 16;
    match host.lockable_bytes {
        Some(bytes) if bytes >> 20 < need_mb => Err(PassthroughError::LockedMemory { need_mb, have_mb: bytes >> 20 }),
        _ => Ok(()),
    }
}

fn check_driver(host: &Host, address: PciAddress) -> Result<(), PassthroughError> {
    let driver = host.driver(address);
    if driver.as_deref() == Some("vfio-pci") {
        return Ok(());
    }
    let interfaces = host.interfaces(address);
    let warning = match interfaces.is_empty() {
        true => String::new(),
        false => format!("\nThe host then loses its network interface {}.", interfaces.join(", ")),
    };
    Err(PassthroughError::Driver {
        address,
        driver: driver.clone().unwrap_or_else(|| "no driver".into()),
        commands: bind_commands(address, driver.is_some()),
        warning,
    })
}

/// Checks that the host uses nothing of IOMMU group `group` but `ours`.
pub(super) fn check_group(
    host: &Host,
    address: PciAddress,
    group: u32,
    ours: &[PciAddress],
) -> Result<(), PassthroughError> {
    // A device nobody drives, or a bridge, does not get in the way: the kernel's own rule for a viable group.
    let others: Vec<(PciAddress, String)> = host
        .addresses_in(&format!("sys/kernel/iommu_groups/{group}/devices"))
        .into_iter()
        .filter(|&other| !ours.contains(&other) && !host.is_bridge(other))
        .filter_map(|other| Some((other, host.driver(other).filter(|driver| driver != "vfio-pci")?)))
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = others.iter().map(|(other, driver)| format!("{other} ({driver})")).collect();
    let commands: Vec<String> = others.iter().map(|&(other, _)| bind_commands(other, true)).collect();
    Err(PassthroughError::GroupInUse { address, group, others: names.join(", "), commands: commands.join("\n") })
}

/// The commands that bind a function to vfio-pci, ready to be pasted.
fn bind_commands(address: PciAddress, bound: bool) -> String {
    let device = format!("/sys/bus/pci/devices/{address}");
    let mut lines =
        vec!["sudo modprobe vfio-pci".to_owned(), format!("echo vfio-pci | sudo tee {device}/driver_override")];
    if bound {
        lines.push(format!("echo {address} | sudo tee {device}/driver/unbind"));
    }
    lines.push(format!("echo {address} | sudo tee /sys/bus/pci/drivers_probe"));
    lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// The last part of what a symbolic link points to.
pub(super) fn link_name(link: &Path) -> Option<String> {
    Some(fs::read_link(link).ok()?.file_name()?.to_str()?.to_owned())
}

#[cfg(test)]
#[path = "passthrough_tests.rs"]
mod tests;

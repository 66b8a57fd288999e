//! QEMU, on KVM or in emulation.
//!
//! * [`argv`]: the command line for a [`Launch`], a pure function;
//! * [`Instance`]: the running QEMU, from its start to its orderly end;
//! * [`LiveMigration`]: moving a guest from one QEMU to another;
//! * [`Monitor`]: watching a guest boot.

mod args;
mod argv;
mod instance;
mod live;
mod memory;
mod monitor;
mod pin;
mod probe;
mod qmp;
mod tsc;

pub(super) use argv::cmdline;
pub use argv::{GUEST_CMDLINE, Host, argv};
pub use instance::Instance;
pub use live::{LiveMigration, Progress as LiveProgress, Stage as LiveStage};
pub use monitor::Monitor;

use super::accel::{self, ProbeCache};
use super::placement::{Placement, may_run_on};
use super::{
    Accel, AccelChoice, AccelError, Boots, Chipset, ConfigDrive, Hypervisor, Image, Launch, LaunchError, Link, Machine,
    Nic,
};
use crate::process::{MissingProgram, find_program};
use std::path::{Path, PathBuf};

/// QEMU as this host has it.
#[derive(Debug, Clone)]
pub struct Qemu {
    program: PathBuf,
}

impl Qemu {
    /// Finds QEMU in `PATH`.
    ///
    /// # Errors
    /// Names the package to install.
    pub fn find() -> Result<Self, MissingProgram> {
        Ok(Self { program: find_program("qemu-system-x86_64", "qemu-system-x86")? })
    }

    /// Where it was found.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Starts `launch`; the guest becomes ready later.
    ///
    /// # Errors
    /// Whatever can be known before the guest runs.
    pub fn start(&self, launch: &Launch) -> Result<Instance, LaunchError> {
        check(launch)?;
        let choice = self.choose_accel(launch.accel, &launch.image)?;
        self.start_checked(launch, choice)
    }

    /// Does that with an accelerator that has been [chosen](Hypervisor::choose_accel) before, which may have taken a boot.
    ///
    /// # Errors
    /// Whatever can be known before the guest runs.
    pub fn start_with(&self, launch: &Launch, choice: AccelChoice) -> Result<Instance, LaunchError> {
        check(launch)?;
        self.start_checked(launch, choice)
    }

    fn start_checked(&self, launch: &Launch, choice: AccelChoice) -> Result<Instance, LaunchError> {
        let placement = Placement::choose(Path::new("/"), launch, may_run_on);
        let placement = placement.map_err(|source| LaunchError::Placement { name: launch.name.clone(), source })?;
        log::info!("{}: runs with {choice}", launch.name);
        if !placement.is_anywhere() {
            log::info!("{}: {placement}", launch.name);
        }
        Instance::start(&self.program, launch, choice, placement)
    }
}

impl Hypervisor for Qemu {
    fn boot(&self, launch: &Launch) -> Result<Box<dyn Machine>, LaunchError> {
        Ok(Box::new(self.start(launch)?))
    }

    fn choose_accel(&self, accel: Accel, image: &Image) -> Result<AccelChoice, AccelError> {
        accel::choose(accel, Path::new("/"), || {
            let cache = ProbeCache::new(&self.program, image);
            // Who insists on KVM may know that it is slow here, as it is in an emulated host.
            let (patience, insists) = match accel {
                Accel::Kvm => (probe::PATIENT, true),
                Accel::Auto | Accel::Tcg => (probe::PROMPT, false),
            };
            if let Some(answer) = cache.as_ref().and_then(ProbeCache::get).filter(|answer| answer.is_ok() || !insists) {
                return answer;
            }
            let answer = probe::boot(&self.program, image, patience);
            if let Some(cache) = cache {
                cache.put(&answer);
            }
            answer
        })
    }
}

/// Where QEMU's qboot is kept. Without it, QEMU's own choice boots the same, a little later.
const LOADERS: [&str; 3] =
    ["/usr/share/qemu/qboot.rom", "/usr/share/qemu-kvm/qboot.rom", "/usr/local/share/qemu/qboot.rom"];

fn loader() -> Option<&'static Path> {
    LOADERS.iter().map(Path::new).find(|place| place.is_file())
}

/// What can be found wrong with `launch` before QEMU complains in its own words.
fn check(launch: &Launch) -> Result<(), LaunchError> {
    for file in [&launch.image.kernel, &launch.image.initramfs] {
        if !file.is_file() {
            return Err(LaunchError::MissingImage { file: file.clone() });
        }
    }
    let invalid = |text: String| Err(LaunchError::Invalid(format!("{}: {text}", launch.name)));
    let boots = launch.firmware.iter().flat_map(|firmware| {
        let (Boots::Uki(file) | Boots::Qcow2(file)) = &firmware.boots;
        [&firmware.program, file]
    });
    if let Some(file) = boots.chain(launch.config_drive.as_ref().map(ConfigDrive::file)).find(|file| !file.is_file()) {
        return invalid(format!("there is no file {}", file.display()));
    }
    if launch.chipset == Chipset::Microvm && (launch.firmware.is_some() || launch.config_drive.is_some()) {
        return invalid("microvm neither boots by UEFI firmware nor has config drives: use q35".into());
    }
    if launch.firmware.is_some() && !launch.extra_cmdline.is_empty() {
        return invalid("what firmware boots has its own command line".into());
    }
    if launch.name.is_empty() || !launch.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        return invalid("an instance's name consists of letters, digits, '.', '_' and '-'".into());
    }
    if launch.vcpus == 0 {
        return invalid("a guest needs at least one virtual CPU".into());
    }
    if launch.memory_mb < 64 {
        return invalid(format!("{} MiB of memory are too few: the least is 64", launch.memory_mb));
    }
    let mut macs = Vec::new();
    for nic in &launch.nics {
        let (Nic::Dataplane { link, mac } | Nic::Management { link, mac }) = nic else { continue };
        if mac.is_multicast() {
            return invalid(format!("{mac} is the address of a group, not of an interface"));
        }
        if macs.contains(mac) {
            return invalid(format!("two interfaces have the MAC address {mac}"));
        }
        macs.push(*mac);
        match link {
            Link::VhostUser { socket } if !socket.exists() => {
                return invalid(format!("the switch does not offer {}: is it running?", socket.display()));
            }
            Link::Tap { interface } if !Path::new("/sys/class/net").join(interface).exists() => {
                return invalid(format!("there is no network interface {interface}"));
            }
            _ => {}
        }
    }
    // Unix sockets have short names; QEMU's own message does not say which one is too long.
    if launch.qmp_socket.as_os_str().len() > 107 {
        return invalid(format!(
            "{} is too long for a socket's name: choose a shorter run directory",
            launch.qmp_socket.display()
        ));
    }
    Ok(())
}

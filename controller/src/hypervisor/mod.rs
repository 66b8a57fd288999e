//! Booting images: what a guest is made of, and the [`Hypervisor`] that runs it.
//!
//! [`Launch`] says what to boot, [`Hypervisor::boot`] starts it, and the [`Machine`] it returns is the running guest.
//! A guest never outlives the process that booted it, unless it is meant to; then a later process can
//! [adopt](Adoption) it.
//!
//! * [`qemu`]: the one implementation, QEMU with KVM or in emulation;
//! * [`libvirt`]: the same guest as a domain of libvirt, for those who start guests with it;
//! * [`native`]: the same network functions as ordinary processes, without a guest around them;
//! * [`accel`]: whether KVM will work here, really;
//! * [`passthrough`]: whether a PCI function can be given to a guest, and if not, what to do;
//! * [`borrowed`]: making it so, and giving the function back as it was;
//! * [`placement`]: on which CPUs and NUMA node a guest runs;
//! * [`inspect`]: what of a host hinders all that, and the commands that mend it.

pub mod accel;
pub mod borrowed;
mod child;
mod chipset;
mod console;
mod firmware;
mod handover;
pub mod inspect;
pub mod libvirt;
pub mod native;
pub mod passthrough;
mod pci;
pub mod placement;
pub mod qemu;

pub use accel::{Accel, AccelChoice, AccelError};
pub use chipset::{Chipset, UnknownChipset};
pub use firmware::{Boots, ConfigDrive, Firmware};
pub use pci::{InvalidPciAddress, PciAddress};

use crate::net::MacAddress;
use crate::process::{MissingProgram, ProcessId};
use placement::{CpuChoice, HugePages, Placement, PlacementError};
use serde::{Deserialize, Serialize};
use slim_core::protocol::control::Secret;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The files a guest boots from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The Linux kernel: a `vmlinux` with a PVH entry, or a `bzImage`, which boots a little slower.
    pub kernel: PathBuf,
    /// The initramfs with the network function as PID 1.
    pub initramfs: PathBuf,
}

impl Image {
    /// The image in `folder`, as `cargo xtask image` leaves it: `kernel` and `initramfs`.
    ///
    /// # Errors
    /// Names the file that is missing.
    pub fn in_folder(folder: &Path) -> Result<Self, LaunchError> {
        let image = Self { kernel: folder.join("kernel"), initramfs: folder.join("initramfs") };
        for file in [&image.kernel, &image.initramfs] {
            if !file.is_file() {
                return Err(LaunchError::MissingImage { file: file.clone() });
            }
        }
        Ok(image)
    }
}

/// What stands behind a guest's network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// The switch agent's vhost-user socket. The guest connects, and connects again when the switch restarts.
    VhostUser {
        /// The Unix socket the switch listens on.
        socket: PathBuf,
    },
    /// A TAP interface of the host that exists already.
    Tap {
        /// Its name.
        interface: String,
    },
    /// QEMU's own NAT to the host's network, with TCP ports of the host's loopback address led to the guest.
    User {
        /// Pairs of a port on 127.0.0.1 and the guest's port it leads to.
        forward: Vec<(u16, u16)>,
    },
    /// Nothing: an interface without a cable.
    Unconnected,
}

/// A guest's network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nic {
    /// A dataplane port on virtio, with deep rings. The image binds it by its MAC address.
    Dataplane {
        /// What is behind it.
        link: Link,
        /// The MAC address, which the instance's configuration repeats.
        mac: MacAddress,
    },
    /// The interface that stays with the guest's kernel. Has every offload off: partial checksums must not leak.
    Management {
        /// What is behind it.
        link: Link,
        /// The MAC address, which the instance's configuration repeats.
        mac: MacAddress,
    },
    /// A PCI function of the host, given to the guest whole. [Borrow](borrowed::Lender) it first.
    Passthrough {
        /// The function.
        address: PciAddress,
    },
}

/// Everything about a guest to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The instance's name, unique on this host.
    pub name: String,
    /// What it boots from.
    pub image: Image,
    /// Instead of entering the image's kernel directly, has firmware start the image in another form.
    pub firmware: Option<Firmware>,
    /// Instead of being handed files, the guest finds its configuration and identity on this drive.
    pub config_drive: Option<ConfigDrive>,
    /// The instance's configuration, which the image reads at start.
    pub config_toml: String,
    /// The instance's identity; `None` where it speaks plaintext.
    pub identity: Option<Secret>,
    /// Its interfaces.
    pub nics: Vec<Nic>,
    /// The machine it sees.
    pub chipset: Chipset,
    /// Guest memory in MiB.
    pub memory_mb: u32,
    /// Virtual CPUs.
    pub vcpus: u8,
    /// Which of the host's CPUs they may have.
    pub cpus: CpuChoice,
    /// Whether its memory lies in reserved huge pages.
    pub huge_pages: HugePages,
    /// How to run it.
    pub accel: Accel,
    /// Receives what the guest writes on its console. Replaced if it exists.
    pub console_log: PathBuf,
    /// The hypervisor's control socket, created by it.
    pub qmp_socket: PathBuf,
    /// More words for the guest kernel's command line.
    pub extra_cmdline: String,
    /// Whether the guest goes on when the process that booted it ends.
    pub outlives_us: bool,
    /// Whether, instead of booting, it waits for a guest to move in from elsewhere.
    pub incoming: bool,
}

impl Launch {
    /// A guest without configuration or interfaces, with the least resources that do, and its files in `run_dir`.
    pub fn new(name: &str, image: Image, run_dir: &Path) -> Self {
        Self {
            name: name.to_owned(),
            image,
            firmware: None,
            config_drive: None,
            config_toml: String::new(),
            identity: None,
            nics: Vec::new(),
            chipset: Chipset::default(),
            memory_mb: 256,
            vcpus: 1,
            cpus: CpuChoice::default(),
            huge_pages: HugePages::default(),
            accel: Accel::Auto,
            console_log: run_dir.join(format!("{name}.console.log")),
            qmp_socket: run_dir.join(format!("{name}.qmp")),
            extra_cmdline: String::new(),
            outlives_us: false,
            incoming: false,
        }
    }
}

/// The image's announcement that it is ready, and how long that took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// The line itself, from `slim: ready` on.
    pub line: String,
    /// From the start of the hypervisor's process until the line was read.
    pub after: Duration,
}

impl Ready {
    /// The value of `key` in the line's `key=value` words.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }
}

/// How a guest came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It had ended before.
    Already,
    /// The guest powered itself off when asked to.
    PoweredOff,
    /// The hypervisor was told to quit: the guest did not react in time.
    Quit,
    /// The hypervisor was killed: it did not react either.
    Killed,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Already => "had ended already",
            Self::PoweredOff => "powered off",
            Self::Quit => "did not power off in time and was switched off",
            Self::Killed => "did not react and was killed",
        })
    }
}

/// Why a guest could not be booted, or did not become ready.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A program of the host is missing.
    #[error(transparent)]
    MissingProgram(#[from] MissingProgram),
    /// A file of the image is missing.
    #[error("{} is missing: build the image with `cargo xtask image <vnf>`", file.display())]
    MissingImage {
        /// The file.
        file: PathBuf,
    },
    /// The choice of accelerator cannot be had.
    #[error(transparent)]
    Accel(#[from] AccelError),
    /// A PCI function cannot be given to the guest.
    #[error(transparent)]
    Passthrough(#[from] passthrough::PassthroughError),
    /// It cannot have the CPUs or the memory it was to have.
    #[error("{name}: {source}")]
    Placement {
        /// The instance.
        name: String,
        /// Why.
        source: PlacementError,
    },
    /// Something in the [`Launch`] contradicts itself.
    #[error("{0}")]
    Invalid(String),
    /// A file could not be written or a process not started.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was being done, to which file.
        action: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The guest or its hypervisor ended before it was ready.
    #[error("{name} ended while booting ({status}){detail}")]
    Ended {
        /// The instance.
        name: String,
        /// How the process ended.
        status: String,
        /// The end of what it wrote, on lines of its own.
        detail: String,
    },
    /// The guest did not say that it is ready in time.
    #[error("{name} was not ready after {limit_s} s{detail}")]
    NotReady {
        /// The instance.
        name: String,
        /// How long was waited, in seconds.
        limit_s: u64,
        /// The end of its console, on lines of its own.
        detail: String,
    },
}

impl LaunchError {
    /// For use in `map_err`: adds what was being done.
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}

/// Boots guests. Lets another hypervisor, or libvirt, stand in QEMU's place.
pub trait Hypervisor: Send + Sync {
    /// Starts `launch` and returns at once; the guest is ready when [`Machine::poll_ready`] says so.
    ///
    /// # Errors
    /// Anything that is known before the guest runs: missing files and programs, an unusable accelerator or device.
    fn boot(&self, launch: &Launch) -> Result<Box<dyn Machine>, LaunchError>;

    /// How guests asked to run with `accel` will run, and why. Boots one of `image` to find out if necessary.
    ///
    /// # Errors
    /// `accel` was asked for explicitly and cannot be had.
    fn choose_accel(&self, accel: Accel, image: &Image) -> Result<AccelChoice, AccelError>;
}

/// What a later process needs to take charge of a guest or process that was left running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adoption {
    /// The instance's name.
    pub name: String,
    /// The process.
    pub process: ProcessId,
    /// How a guest is run; `None` for what is no guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accel: Option<AccelChoice>,
    /// The file with its console.
    pub console_log: PathBuf,
    /// The hypervisor's control socket, for a guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qmp_socket: Option<PathBuf>,
    /// The file with its configuration.
    pub config_file: PathBuf,
}

impl Adoption {
    /// Takes charge of it, if it still runs.
    pub fn adopt(self) -> Option<Box<dyn Machine>> {
        if !self.process.is_alive() {
            return None;
        }
        Some(match self.qmp_socket.is_some() {
            true => Box::new(qemu::Instance::adopt(&self)?),
            false => Box::new(native::ProcessInstance::adopt(&self)),
        })
    }
}

/// A running guest or process. Killed when dropped, unless it was [left](Self::leave).
pub trait Machine: Send {
    /// The instance's name.
    fn name(&self) -> &str;

    /// The process that runs it, as the host knows it.
    fn process_id(&self) -> u32;

    /// How a guest is run, and why; `None` for what is no guest.
    fn accel(&self) -> Option<&AccelChoice>;

    /// Where on the host a guest runs, as far as we have chosen that.
    fn placement(&self) -> Option<&Placement> {
        None
    }

    /// The file with everything it wrote on its console.
    fn console_log(&self) -> &Path;

    /// The hypervisor's control socket, where it can be told to move the guest.
    fn monitor(&self) -> Option<&Path> {
        None
    }

    /// The last lines of its console, for error messages.
    fn console_tail(&self) -> String;

    /// Whether it still runs.
    fn is_alive(&mut self) -> bool;

    /// Looks whether the guest has become ready since the last call. Cheap: call it every few milliseconds.
    ///
    /// # Errors
    /// [`LaunchError::Ended`] if it has ended instead.
    fn poll_ready(&mut self) -> Result<Option<Ready>, LaunchError>;

    /// Waits until the guest is ready, for `limit` at most.
    ///
    /// # Errors
    /// It ended, or `limit` passed.
    fn wait_ready(&mut self, limit: Duration) -> Result<Ready, LaunchError> {
        let deadline = std::time::Instant::now() + limit;
        loop {
            if let Some(ready) = self.poll_ready()? {
                return Ok(ready);
            }
            if std::time::Instant::now() >= deadline {
                return Err(LaunchError::NotReady {
                    name: self.name().to_owned(),
                    limit_s: limit.as_secs(),
                    detail: self.console_tail(),
                });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What a later process needs to take charge of it; `None` if it ends with this process, or has ended.
    fn adoption(&self) -> Option<Adoption>;

    /// Lets it go on without us.
    fn leave(self: Box<Self>);

    /// Ends the guest: asks it to power off, waits for `grace`, then uses force.
    fn stop(&mut self, grace: Duration) -> Stopped;
}

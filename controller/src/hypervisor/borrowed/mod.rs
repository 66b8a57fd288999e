//! Borrowing PCI functions of the host for a guest, and giving them back as they were.
//!
//! [`Lender::borrow`] makes virtual functions where there are none, sets their MAC addresses and binds everything to
//! vfio-pci. Before each change it writes down how it found things, so that whatever ends the process that borrowed,
//! [`Loan::give_back`] or a later [`Lender::clean`] can undo it. Undoing is idempotent: the record says how things were,
//! not what was done.
//!
//! Nothing that the host uses is taken: an interface that is up, a function another guest has, or one whose IOMMU
//! group holds a device in use are refused, before anything is changed.

mod change;
mod choose;
mod link;
mod record;
mod request;
mod undo;

pub use change::{Kernel, ThisKernel};
pub use link::VirtualSettings;
pub use request::{
    Functions, InvalidFunction, InvalidRequest, NamedFunction, NamedVirtual, NamedWhole, PassedPort, Place, Request,
    VirtualFunction, Vlan, requests,
};

use super::PciAddress;
use super::passthrough::{self, FunctionKind, Host, PassthroughError};
use crate::net::MacAddress;
use crate::process::ProcessId;
use change::VFIO;
use choose::{Chosen, Way};
use record::{Lent, Parent, Record, Records};
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why functions could not be borrowed or given back, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum BorrowError {
    /// The function cannot be given to any guest as things are.
    #[error(transparent)]
    Passthrough(#[from] PassthroughError),
    /// No such interface.
    #[error("there is no network interface {name} on this host{known}")]
    NoInterface {
        /// The name asked for.
        name: String,
        /// The network functions there are, in words.
        known: String,
    },
    /// The interface is not one of a PCI device.
    #[error("{0} is not an interface of a PCI device, so it has no virtual functions")]
    NotPci(String),
    /// The device has no virtual functions at all.
    #[error("{0} does not offer SR-IOV, so it has no virtual functions: give it whole with --pci {0}")]
    NoSriov(PciAddress),
    /// More virtual functions than the device can have.
    #[error("{parent} can have {total} virtual functions, and number {index} was asked for (the first is number 0)")]
    TooMany {
        /// The physical function.
        parent: PciAddress,
        /// How many it can have.
        total: u32,
        /// The number asked for.
        index: u32,
    },
    /// Virtual functions exist, but not this one.
    #[error(
        "{parent} has {present} virtual functions at present, and number {index} was asked for (the first is number 0); \
         their number can only be changed when none is in use: \
         `echo 0 | sudo tee {file} && echo {need} | sudo tee {file}`", file = numvfs_file(*parent), need = index + 1
    )]
    NotPresent {
        /// The physical function.
        parent: PciAddress,
        /// How many there are.
        present: u32,
        /// The number asked for.
        index: u32,
    },
    /// Every virtual function is taken.
    #[error("all {present} virtual functions of {parent} are in use: {uses}")]
    AllInUse {
        /// The physical function.
        parent: PciAddress,
        /// How many there are.
        present: u32,
        /// What each is used for.
        uses: String,
    },
    /// The function is in use.
    #[error("{address} is in use: {by}")]
    InUse {
        /// The function.
        address: PciAddress,
        /// By what, and how to end that.
        by: String,
    },
    /// A virtual function has no virtual functions.
    #[error("{0} is a virtual function itself: leave out the number behind it")]
    IndexOfVirtual(PciAddress),
    /// The MAC address is not known.
    #[error(
        "the MAC address of {0} cannot be read while no driver of the host has it, and the guest finds its interfaces \
         by it: append it, as in {0}=52:54:00:12:34:56"
    )]
    MacUnknown(PciAddress),
    /// The physical function cannot be told anything about its virtual ones.
    #[error(
        "the MAC address of {0} cannot be set: its physical function has no network interface; bind that to its driver \
         of the host, or take a virtual function of another NIC"
    )]
    NoPhysicalInterface(PciAddress),
    /// The kernel refused a change.
    #[error("cannot {action}: {source}{hint}")]
    Change {
        /// What was being done.
        action: String,
        /// What the system said.
        source: std::io::Error,
        /// What to do, if that is known.
        hint: &'static str,
    },
    /// A change had no effect.
    #[error("{address} did not get the driver {driver}: `dmesg` may say why")]
    NotBound {
        /// The function.
        address: PciAddress,
        /// The driver that was to have it.
        driver: String,
    },
    /// A guest still has the function.
    #[error("{address} is still open in another program (its QEMU may be ending): end that and try again")]
    StillOpen {
        /// The function.
        address: PciAddress,
    },
    /// What was found on the host cannot be written down or read.
    #[error("cannot {action} {}: {source}{hint}", file.display())]
    Record {
        /// What was being done.
        action: &'static str,
        /// To which file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
        /// What to do, if that is known.
        hint: &'static str,
    },
}

/// What to do where the system says that we may not.
const NEEDS_ROOT: &str = "; taking devices from the host needs root: use sudo";

impl BorrowError {
    fn change(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let action = action.into();
        move |source| {
            let hint = hint(&source);
            Self::Change { action, source, hint }
        }
    }
}

fn hint(error: &std::io::Error) -> &'static str {
    let refused = [std::io::ErrorKind::PermissionDenied, std::io::ErrorKind::ReadOnlyFilesystem];
    if refused.contains(&error.kind()) { NEEDS_ROOT } else { "" }
}

fn numvfs_file(parent: PciAddress) -> String {
    format!("/sys/bus/pci/devices/{parent}/sriov_numvfs")
}

/// A function that a guest can now be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Borrowed {
    /// The function.
    pub address: PciAddress,
    /// The MAC address that the guest finds on it.
    pub mac: MacAddress,
}

/// Who lends the host's functions out, and remembers how they were.
#[derive(Debug, Clone)]
pub struct Lender {
    host: Host,
    kernel: Arc<dyn Kernel>,
    records: Records,
}

impl Lender {
    /// The lender of the host this process runs on.
    pub fn this() -> Self {
        Self::new(Host::this(), Arc::new(ThisKernel), "/run/slim/passthrough".into())
    }

    /// A lender of `host`'s functions that keeps its records in `folder`.
    pub fn new(host: Host, kernel: Arc<dyn Kernel>, folder: PathBuf) -> Self {
        Self { host, kernel, records: Records::new(folder) }
    }

    /// Makes what `requests` ask for ready for a guest with `memory_mb` MiB of memory.
    ///
    /// What launches that have ended left behind is given back first.
    ///
    /// # Errors
    /// Something is in the way; the host is then as it was before.
    pub fn borrow(&self, requests: &[Request], memory_mb: u32) -> Result<Loan, BorrowError> {
        let mut loan = Loan { lender: self.clone(), file: None, functions: Vec::new() };
        if requests.is_empty() {
            return Ok(loan);
        }
        let lock = self.records.lock()?;
        for told in self.clean_locked()?.given_back {
            log::warn!("{told}");
        }
        // Nothing of this changes the host.
        let others = self.records.read_all()?;
        let chosen = self.choose(requests, &others, memory_mb)?;
        let owner = ProcessId::of(std::process::id()).ok_or_else(|| BorrowError::Change {
            action: "read this process's own entry in /proc".into(),
            source: std::io::ErrorKind::NotFound.into(),
            hint: "",
        })?;
        let mut record = Record { owner, parents: self.parents(&chosen), functions: Vec::new() };
        for choice in &chosen {
            if let Way::Present(address) = choice.way {
                record.functions.push(self.found(address, Some(choice))?);
            }
        }
        // From here on, whatever fails is undone when the loan is dropped, after the lock.
        let file = self.records.unused(&record.owner);
        self.records.write_to(&file, &record)?;
        loan.file = Some(file.clone());
        let prepared = self.prepare(&chosen, &file, &mut record, memory_mb);
        drop(lock);
        loan.functions = prepared?;
        Ok(loan)
    }

    /// What the guest with this process was given, as an earlier process of ours has handed it over.
    ///
    /// # Errors
    /// The records cannot be read.
    pub fn take_up(&self, guest: ProcessId) -> Result<Option<Loan>, BorrowError> {
        let mut records = self.records.read_all()?.into_iter();
        let found = records.find(|(_, record)| record.owner == guest);
        Ok(found.map(|(file, _)| Loan { lender: self.clone(), file: Some(file), functions: Vec::new() }))
    }

    /// Gives back what was borrowed by processes that have ended.
    ///
    /// # Errors
    /// The kernel refuses; the record stays, so that it can be tried again.
    pub fn clean(&self) -> Result<Cleaned, BorrowError> {
        if !self.records.exist() {
            return Ok(Cleaned::default());
        }
        let _lock = self.records.lock()?;
        self.clean_locked()
    }

    /// The functions that ended processes have not given back.
    ///
    /// # Errors
    /// The records cannot be read.
    pub fn left_behind(&self) -> Result<Vec<PciAddress>, BorrowError> {
        let records = self.records.read_all()?;
        let dead = records.into_iter().filter(|(_, record)| !record.owner.is_alive());
        Ok(dead
            .flat_map(|(_, record)| {
                let parents = record.parents.into_iter().map(|parent| parent.address);
                record.functions.into_iter().map(|lent| lent.address).chain(parents).collect::<Vec<_>>()
            })
            .collect())
    }

    fn clean_locked(&self) -> Result<Cleaned, BorrowError> {
        let mut cleaned = Cleaned::default();
        for (file, record) in self.records.read_all()? {
            let names: Vec<String> = record.functions.iter().map(|lent| lent.address.to_string()).collect();
            let (process, names) = (record.owner.pid, names.join(", "));
            if record.owner.is_alive() {
                cleaned.in_use.push(format!("process {process} runs and has {names}"));
            } else {
                self.undo(&file, &record)?;
                cleaned.given_back.push(format!("gave back what process {process} left behind: {names}"));
            }
        }
        Ok(cleaned)
    }

    /// How the physical functions are whose settings will change.
    fn parents(&self, chosen: &[Chosen]) -> Vec<Parent> {
        let mut parents: Vec<Parent> = Vec::new();
        for choice in chosen {
            let Some(parent) = choice.parent else { continue };
            if parents.iter().any(|known| known.address == parent) {
                continue;
            }
            let interface = self.host.interfaces(parent).into_iter().next();
            parents.push(Parent {
                address: parent,
                made: matches!(choice.way, Way::New { .. }),
                autoprobe: self.host.text(parent, "sriov_drivers_autoprobe"),
                raised: interface.filter(|name| !self.host.is_up(parent, name)),
            });
        }
        parents
    }

    /// How `address` is now, as far as that changes; `before` is why it is borrowed if it is not one of our making.
    fn found(&self, address: PciAddress, before: Option<&Chosen>) -> Result<Lent, BorrowError> {
        let settings = match (self.host.physical(address), before) {
            (Some((interface, index)), Some(choice)) => {
                let found = link::read(&*self.kernel, &interface, index)?;
                // A driver may know fewer words than `ip` shows: what is not changed need not be set back.
                let found = match choice.any_source {
                    true => found,
                    false => VirtualSettings { spoof_check: None, trust: None, ..found },
                };
                Some(VirtualSettings { vlan: found.vlan.filter(|_| choice.vlan.is_some()), ..found })
            }
            _ => None,
        };
        Ok(Lent {
            address,
            driver: self.host.driver(address),
            driver_override: self.host.text(address, "driver_override").filter(|text| text != "(null)"),
            settings,
        })
    }

    /// Changes the host until all of `chosen` can be given to a guest. `record` is written ahead of what it does.
    fn prepare(
        &self,
        chosen: &[Chosen],
        file: &Path,
        record: &mut Record,
        memory_mb: u32,
    ) -> Result<Vec<Borrowed>, BorrowError> {
        for parent in record.parents.clone() {
            if parent.made {
                let indices = chosen.iter().filter(|choice| choice.parent == Some(parent.address));
                let need = indices.filter_map(|choice| choice.way.new_index()).max().map_or(0, |index| index + 1);
                self.make_virtual(&parent, need)?;
            }
            if let Some(interface) = &parent.raised {
                // A virtual function has no link, and gets no answers, while its physical one is down.
                self.ip(&["link", "set", "dev", interface, "up"])?;
            }
        }
        let mut borrowed = Vec::new();
        for choice in chosen {
            let address = match (choice.way, choice.parent) {
                (Way::New { index }, Some(parent)) => {
                    self.host.virtual_function(parent, index).ok_or_else(|| BorrowError::Change {
                        action: format!("find virtual function {index} of {parent}, which was just made"),
                        source: std::io::ErrorKind::NotFound.into(),
                        hint: "",
                    })?
                }
                (Way::New { .. }, None) => continue,
                (Way::Present(address), _) => address,
            };
            if matches!(choice.way, Way::New { .. }) {
                record.functions.push(self.found(address, None)?);
            }
            borrowed.push(Borrowed { address, mac: choice.mac });
        }
        self.records.write_to(file, record)?;
        let ours: Vec<PciAddress> = borrowed.iter().map(|function| function.address).collect();
        for &address in &ours {
            let group = passthrough::group(&self.host, address)?;
            passthrough::check_group(&self.host, address, group, &ours)?;
        }
        for (choice, function) in chosen.iter().zip(&borrowed) {
            if choice.parent.is_some() {
                let physical = self.host.physical(function.address);
                let (interface, index) = physical.ok_or(BorrowError::NoPhysicalInterface(function.address))?;
                let settings = VirtualSettings {
                    mac: Some(choice.mac),
                    spoof_check: choice.any_source.then_some(false),
                    // Where the kernel's driver knows the word, a trusted function may also be promiscuous.
                    trust: choice.any_source.then_some(true),
                    vlan: choice.vlan.map(Vlan::number),
                };
                link::write(&*self.kernel, &interface, index, &settings)?;
            }
            self.bind(function.address, VFIO)?;
        }
        for function in &borrowed {
            passthrough::check(&self.host, function.address, FunctionKind::Any, memory_mb)?;
        }
        Ok(borrowed)
    }
}

/// What [`Lender::clean`] came to, in words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cleaned {
    /// What was given back.
    pub given_back: Vec<String>,
    /// What others have, who still run, or are just ending.
    pub in_use: Vec<String>,
}

impl fmt::Display for Cleaned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.given_back.is_empty() {
            writeln!(f, "nothing was left behind")?;
        }
        self.given_back.iter().chain(&self.in_use).try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// Functions that were borrowed. They are given back when it is dropped; end the guest before.
#[derive(Debug)]
pub struct Loan {
    lender: Lender,
    file: Option<PathBuf>,
    functions: Vec<Borrowed>,
}

impl Loan {
    /// The functions, in the order of the requests; none if it was [taken up](Lender::take_up).
    pub fn functions(&self) -> &[Borrowed] {
        &self.functions
    }

    /// From now on the functions are given back when the guest with this process has ended, whoever does it: not when this
    /// process ends.
    ///
    /// # Errors
    /// That cannot be written down.
    pub fn hand_over(&self, guest: ProcessId) -> Result<(), BorrowError> {
        let Some(file) = &self.file else { return Ok(()) };
        let _lock = self.lender.records.lock()?;
        match self.lender.records.read(file)? {
            Some(record) => self.lender.records.write_to(file, &Record { owner: guest, ..record }),
            None => Ok(()),
        }
    }

    /// Leaves the functions to the guest, which goes on. [Hand them over](Self::hand_over) before.
    pub fn leave(mut self) {
        self.file = None;
    }

    /// Gives everything back as it was.
    ///
    /// # Errors
    /// The kernel refuses, or the guest still runs. `slimctl host clean` tries again.
    pub fn give_back(mut self) -> Result<(), BorrowError> {
        self.undo()
    }

    fn undo(&mut self) -> Result<(), BorrowError> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let _lock = self.lender.records.lock()?;
        // The record and not our memory of it: another loan may have handed something on to us.
        match self.lender.records.read(&file)? {
            Some(record) => self.lender.undo(&file, &record),
            None => Ok(()),
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Err(error) = self.undo() {
            log::error!("the host's PCI functions could not be given back: {error}; try `slimctl host clean`");
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

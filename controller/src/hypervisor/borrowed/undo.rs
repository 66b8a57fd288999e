//! Giving back.

use super::change::VFIO;
use super::link;
use super::record::{Lent, Record};
use super::{BorrowError, Lender};
use crate::hypervisor::PciAddress;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a guest that was killed may take to let go of its devices.
const LET_GO: Duration = Duration::from_secs(5);

impl Lender {
    /// Makes everything as `record`, which is in `file`, says it was. Goes on after a failure, but then keeps the record.
    pub(super) fn undo(&self, file: &Path, record: &Record) -> Result<(), BorrowError> {
        let mut outcome = Ok(());
        let mut note = |result: Result<(), BorrowError>| match (&outcome, result) {
            (Ok(()), Err(error)) => outcome = Err(error),
            (Err(_), Err(error)) => log::error!("{error}"),
            (_, Ok(())) => {}
        };
        for lent in &record.functions {
            note(self.give_back(lent));
        }
        for parent in &record.parents {
            note(self.give_back_parent(file, record, parent.address));
        }
        outcome?;
        self.records.remove(file)
    }

    fn give_back(&self, lent: &Lent) -> Result<(), BorrowError> {
        let address = lent.address;
        // A virtual function goes with its physical one, and a device may have been pulled out.
        if !self.host.pci(address).is_dir() {
            return Ok(());
        }
        let driver = self.host.driver(address);
        if driver != lent.driver && driver.as_deref() == Some(VFIO) {
            // Else the kernel would wait for that, without limit.
            self.wait_until_closed(address)?;
            self.unbind(address)?;
        }
        if self.host.text(address, "driver_override").is_some() {
            self.prescribe(address, lent.driver_override.as_deref())?;
        }
        if let (Some(settings), Some((interface, index))) = (&lent.settings, self.host.physical(address)) {
            link::write(&*self.kernel, &interface, index, settings)?;
        }
        match &lent.driver {
            Some(driver) if self.host.driver(address).is_none() => self.bind_directly(address, driver),
            _ => Ok(()),
        }
    }

    fn wait_until_closed(&self, address: PciAddress) -> Result<(), BorrowError> {
        let deadline = Instant::now() + LET_GO;
        while self.host.is_open(address) {
            if Instant::now() >= deadline {
                return Err(BorrowError::StillOpen { address });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Undoes what was changed at a physical function, unless another launch relies on it: then that undoes it later.
    fn give_back_parent(&self, file: &Path, record: &Record, parent: PciAddress) -> Result<(), BorrowError> {
        let Some(before) = record.parents.iter().find(|before| before.address == parent) else { return Ok(()) };
        if !self.host.pci(parent).is_dir() {
            return Ok(());
        }
        let relies = |other: &Record| other.functions.iter().any(|lent| self.host.parent(lent.address) == Some(parent));
        for (other_file, mut other) in self.records.read_all()? {
            if other_file == file || !relies(&other) {
                continue;
            }
            match other.parents.iter_mut().find(|known| known.address == parent) {
                Some(known) => {
                    known.made |= before.made;
                    known.raised = known.raised.take().or_else(|| before.raised.clone());
                }
                None => other.parents.push(before.clone()),
            }
            return self.records.write_to(&other_file, &other);
        }
        if before.made {
            self.set_virtual_count(parent, 0)?;
        }
        if let Some(value) = &before.autoprobe {
            self.set_autoprobe(parent, value)?;
        }
        match &before.raised {
            Some(interface) if self.host.is_up(parent, interface) => {
                self.ip(&["link", "set", "dev", interface, "down"]).map(drop)
            }
            _ => Ok(()),
        }
    }
}

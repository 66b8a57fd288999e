//! Which functions are meant, and whether they are free. Changes nothing.

use super::record::Record;
use super::{BorrowError, Lender, Place, Request, VirtualFunction, Vlan};
use crate::hypervisor::PciAddress;
use crate::hypervisor::passthrough::{self, PassthroughError};
use crate::net::MacAddress;
use std::path::PathBuf;

/// A function that will be borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) way: Way,
    /// Its physical function, if it is a virtual one.
    pub(super) parent: Option<PciAddress>,
    pub(super) mac: MacAddress,
    pub(super) any_source: bool,
    pub(super) vlan: Option<Vlan>,
}

/// How to come by a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// It is there.
    Present(PciAddress),
    /// It will be its physical function's virtual function with this number.
    New { index: u32 },
}

impl Way {
    pub(super) fn new_index(self) -> Option<u32> {
        match self {
            Self::New { index } => Some(index),
            Self::Present(_) => None,
        }
    }
}

/// What other launches have borrowed.
type Others = [(PathBuf, Record)];

impl Lender {
    /// Finds a function for each of `requests` that can be given to a guest with `memory_mb` MiB.
    pub(super) fn choose(
        &self,
        requests: &[Request],
        others: &Others,
        memory_mb: u32,
    ) -> Result<Vec<Chosen>, BorrowError> {
        let mut chosen: Vec<Chosen> = Vec::new();
        // Those with a number first: others must not take theirs. The order is restored below.
        let mut order: Vec<usize> = (0..requests.len()).collect();
        let explicit = |request: &Request| match request {
            Request::Virtual { function, .. } => function.index.is_some() || self.is_virtual(&function.place),
            Request::Whole { .. } => true,
        };
        order.sort_by_key(|&position| requests.get(position).is_none_or(|request| !explicit(request)));
        let mut placed = Vec::new();
        for position in order {
            let Some(request) = requests.get(position) else { continue };
            let choice = match request {
                Request::Virtual { function, mac, any_source, vlan } => {
                    let (way, parent) = self.choose_virtual(function, &chosen, others)?;
                    Chosen { way, parent: Some(parent), mac: *mac, any_source: *any_source, vlan: *vlan }
                }
                Request::Whole { address, mac } => self.choose_whole(*address, *mac, &chosen, others)?,
            };
            chosen.push(choice);
            placed.push((position, choice));
        }
        passthrough::check_iommu(&self.host)?;
        let ours: Vec<PciAddress> = chosen
            .iter()
            .filter_map(|choice| match choice.way {
                Way::Present(address) => Some(address),
                Way::New { .. } => None,
            })
            .collect();
        for &address in &ours {
            let group = passthrough::group(&self.host, address)?;
            passthrough::check_group(&self.host, address, group, &ours)?;
            passthrough::check_reset(&self.host, address)?;
        }
        passthrough::check_vfio(&self.host)?;
        passthrough::check_memory(&self.host, memory_mb)?;
        placed.sort_by_key(|(position, _)| *position);
        Ok(placed.into_iter().map(|(_, choice)| choice).collect())
    }

    fn is_virtual(&self, place: &Place) -> bool {
        matches!(place, Place::Address(address) if self.host.parent(*address).is_some())
    }

    fn choose_virtual(
        &self,
        function: &VirtualFunction,
        chosen: &[Chosen],
        others: &Others,
    ) -> Result<(Way, PciAddress), BorrowError> {
        let place = self.locate(&function.place)?;
        if let Some(parent) = self.host.parent(place) {
            return match function.index {
                Some(_) => Err(BorrowError::IndexOfVirtual(place)),
                None => {
                    self.check_free(place, chosen, others)?;
                    Ok((Way::Present(place), parent))
                }
            };
        }
        let number = |file: &str| self.host.text(place, file)?.parse::<u32>().ok();
        let total = number("sriov_totalvfs").filter(|&total| total > 0).ok_or(BorrowError::NoSriov(place))?;
        let present = number("sriov_numvfs").unwrap_or(0);
        let too_many = |index| BorrowError::TooMany { parent: place, total, index };
        if present == 0 {
            let taken = |index| {
                chosen.iter().any(|choice| choice.parent == Some(place) && choice.way.new_index() == Some(index))
            };
            let index = match function.index {
                Some(index) if index >= total => return Err(too_many(index)),
                Some(index) if taken(index) => return Err(twice(place, index)),
                Some(index) => index,
                None => (0..total).find(|&index| !taken(index)).ok_or_else(|| too_many(total))?,
            };
            return Ok((Way::New { index }, place));
        }
        if let Some(index) = function.index {
            let address = self.host.virtual_function(place, index).ok_or(BorrowError::NotPresent {
                parent: place,
                present,
                index,
            })?;
            self.check_free(address, chosen, others)?;
            return Ok((Way::Present(address), place));
        }
        let mut uses = Vec::new();
        for address in (0..present).filter_map(|index| self.host.virtual_function(place, index)) {
            match self.usage(address, chosen, others) {
                None => return Ok((Way::Present(address), place)),
                Some(usage) => uses.push(format!("{address} ({usage})")),
            }
        }
        Err(BorrowError::AllInUse { parent: place, present, uses: uses.join(", ") })
    }

    fn choose_whole(
        &self,
        address: PciAddress,
        mac: Option<MacAddress>,
        chosen: &[Chosen],
        others: &Others,
    ) -> Result<Chosen, BorrowError> {
        self.check_there(address)?;
        self.check_free(address, chosen, others)?;
        if let Some(present) = self.host.text(address, "sriov_numvfs").filter(|count| count != "0") {
            return Err(BorrowError::InUse {
                address,
                by: format!("it has {present} virtual functions: `echo 0 | sudo tee {}`", super::numvfs_file(address)),
            });
        }
        let mac = match mac {
            Some(mac) => mac,
            None => self.host.mac(address).ok_or(BorrowError::MacUnknown(address))?,
        };
        Ok(Chosen { way: Way::Present(address), parent: None, mac, any_source: false, vlan: None })
    }

    fn check_there(&self, address: PciAddress) -> Result<(), BorrowError> {
        match self.host.pci(address).is_dir() {
            true => Ok(()),
            false => Err(PassthroughError::NoDevice { address, known: self.host.network_functions() }.into()),
        }
    }

    /// The function at `place`.
    fn locate(&self, place: &Place) -> Result<PciAddress, BorrowError> {
        match place {
            Place::Address(address) => {
                self.check_there(*address)?;
                Ok(*address)
            }
            Place::Interface(name) => {
                let interface = self.host.root.join("sys/class/net").join(name);
                if !interface.exists() {
                    return Err(BorrowError::NoInterface { name: name.clone(), known: self.host.network_functions() });
                }
                let device = passthrough::link_name(&interface.join("device"));
                device.and_then(|name| name.parse().ok()).ok_or_else(|| BorrowError::NotPci(name.clone()))
            }
        }
    }

    fn check_free(&self, address: PciAddress, chosen: &[Chosen], others: &Others) -> Result<(), BorrowError> {
        match self.usage(address, chosen, others) {
            Some(by) => Err(BorrowError::InUse { address, by }),
            None => Ok(()),
        }
    }

    /// What hinders `address` from being borrowed.
    fn usage(&self, address: PciAddress, chosen: &[Chosen], others: &Others) -> Option<String> {
        if chosen.iter().any(|choice| choice.way == Way::Present(address)) {
            return Some("it was asked for twice".into());
        }
        for (_, record) in others {
            if record.functions.iter().any(|lent| lent.address == address) {
                return Some(format!("process {} has borrowed it for a guest", record.owner.pid));
            }
        }
        let up = self.host.interfaces(address).into_iter().find(|name| self.host.is_up(address, name));
        if let Some(name) = up {
            return Some(format!("the host's interface {name} is up: `sudo ip link set {name} down`"));
        }
        self.host.is_open(address).then(|| "a guest or another program has opened it".into())
    }
}

fn twice(parent: PciAddress, index: u32) -> BorrowError {
    BorrowError::InUse { address: parent, by: format!("its virtual function {index} was asked for twice") }
}

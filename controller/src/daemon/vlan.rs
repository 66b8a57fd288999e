//! The interfaces by which the switch reaches instances on PCI functions: of the trunk, one for each VLAN.

use crate::hypervisor::borrowed::{Kernel, ThisKernel, Vlan};
use std::io;
use std::path::Path;

/// What tells an interface of ours from the operator's.
const ALIAS: &str = "made by slimctl";

/// A VLAN's interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VlanLink {
    trunk: String,
    vlan: Vlan,
}

impl VlanLink {
    pub(super) fn new(trunk: &str, vlan: Vlan) -> Self {
        Self { trunk: trunk.to_owned(), vlan }
    }

    /// Its name.
    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.trunk, self.vlan)
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        Path::new("/sys/class/net").join(self.name()).join(name)
    }

    /// Makes it, unless it is there, and sets it up.
    pub(super) fn make(&self) -> io::Result<()> {
        let (trunk, name, id) = (self.trunk.as_str(), self.name(), self.vlan.to_string());
        let ip = |arguments: &[&str]| {
            ThisKernel.ip(arguments).map(drop).map_err(|error| {
                let text =
                    format!("the interface {name}, by which the switch reaches VLAN {id}, is not there: {error}");
                io::Error::new(error.kind(), text)
            })
        };
        if !self.file("").exists() {
            ip(&["link", "add", "link", trunk, "name", &name, "type", "vlan", "id", &id])?;
            ip(&["link", "set", "dev", &name, "alias", ALIAS])?;
        }
        ip(&["link", "set", "dev", trunk, "up"])?;
        ip(&["link", "set", "dev", &name, "up"])
    }

    /// Removes it if it was made by us.
    pub(super) fn remove(&self) {
        let alias = std::fs::read_to_string(self.file("ifalias")).unwrap_or_default();
        if alias.trim() == ALIAS
            && let Err(error) = ThisKernel.ip(&["link", "delete", "dev", &self.name()])
        {
            log::warn!("{} stays: {error}", self.name());
        }
    }
}

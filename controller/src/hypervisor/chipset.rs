//! The machine a guest sees.

use std::fmt;
use std::str::FromStr;

/// A type of machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Chipset {
    /// A PC of today, without what no image uses.
    #[default]
    Q35,
    /// QEMU's machine for short-lived guests: PCIe and a console, and none of what a PC has had since 1984. It has no second
    /// clock, boots neither firmware's formats nor from config drives, and libvirt does not know it.
    Microvm,
}

impl Chipset {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Q35, Self::Microvm];

    /// QEMU's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q35 => "q35",
            Self::Microvm => "microvm",
        }
    }
}

impl fmt::Display for Chipset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Not the name of a machine.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("there is no machine {0:?}; there are q35 and microvm")]
pub struct UnknownChipset(String);

impl FromStr for Chipset {
    type Err = UnknownChipset;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|chipset| chipset.name() == text);
        found.ok_or_else(|| UnknownChipset(text.into()))
    }
}

//! How a migration keeps the state at the destination up to date.

use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Serialize};

/// How a migration keeps the state at the destination up to date while the snapshot is on its way.
///
/// All are one course of events; they differ in what the source says of the packets it processes meanwhile, and in when
/// the switch redirects. SliM's own is [`Statelet`](Self::Statelet), the others are there to be compared with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// What changes state is announced in statelets (§III).
    #[default]
    Statelet,
    /// Each packet that arrives is sent whole, and processed at the destination without output (P2P-OpenNF, the paper's
    /// reference 7).
    Duplicate,
    /// The switch redirects before the state moves; packets wait in the destination's `pkt_q` meanwhile (OpenNF and
    /// Split/Merge, the paper's references 8 and 21).
    Buffer,
    /// The source stops; what arrives until the switch redirects is dropped, and counted.
    StopAndCopy,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::Statelet, Self::Duplicate, Self::Buffer, Self::StopAndCopy];

    /// The mode's name in commands and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Statelet => "statelet",
            Self::Duplicate => "duplicate",
            Self::Buffer => "buffer",
            Self::StopAndCopy => "stop-and-copy",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// There is no such mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a mode: statelet, duplicate, buffer and stop-and-copy are")]
pub struct UnknownMode;

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(name: &str) -> Result<Self, UnknownMode> {
        Self::ALL.into_iter().find(|mode| mode.name() == name).ok_or(UnknownMode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn names_are_the_same_everywhere() {
        for mode in Mode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
            assert_eq!(serde_json::to_value(mode).unwrap(), mode.name());
        }
        assert_eq!("precopy".parse::<Mode>(), Err(UnknownMode));
    }
}

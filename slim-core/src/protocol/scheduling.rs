//! What goes first where a snapshot shares a link with packets and statelets.

use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Serialize};

/// What goes first where a snapshot shares a link with packets and statelets.
///
/// The instances say which it is by marking the frames of the snapshot stream; a switch that knows the mark lets them
/// wait. All others treat them like any frame, so nothing depends on it but the duration and what is lost meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheduling {
    /// All frames are alike, as in the paper.
    BestEffort,
    /// Packets and statelets go first; the snapshot gets what they leave over, and a small share in any case.
    #[default]
    DataplaneFirst,
}

/// The code point of the Lower-Effort Per-Hop Behaviour (RFC 8622): for traffic that may wait for all other.
pub const LOWER_EFFORT_DSCP: u8 = 0b00_0001;

impl Scheduling {
    /// Every scheduling.
    pub const ALL: [Self; 2] = [Self::BestEffort, Self::DataplaneFirst];

    /// Its name in commands and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BestEffort => "best-effort",
            Self::DataplaneFirst => "dataplane-first",
        }
    }

    /// The code point that the frames of the snapshot stream carry.
    pub const fn snapshot_dscp(self) -> u8 {
        match self {
            Self::BestEffort => 0,
            Self::DataplaneFirst => LOWER_EFFORT_DSCP,
        }
    }
}

impl fmt::Display for Scheduling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// There is no such scheduling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a scheduling: best-effort and dataplane-first are")]
pub struct UnknownScheduling;

impl FromStr for Scheduling {
    type Err = UnknownScheduling;

    fn from_str(name: &str) -> Result<Self, UnknownScheduling> {
        Self::ALL.into_iter().find(|scheduling| scheduling.name() == name).ok_or(UnknownScheduling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn names_are_the_same_everywhere() {
        for scheduling in Scheduling::ALL {
            assert_eq!(scheduling.to_string().parse(), Ok(scheduling));
            assert_eq!(serde_json::to_value(scheduling).unwrap(), scheduling.name());
        }
        assert_eq!("dataplane".parse::<Scheduling>(), Err(UnknownScheduling));
    }
}

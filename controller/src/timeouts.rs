//! How long each phase of a migration may take, for each of the parties.

use serde::{Deserialize, Serialize};
use slim_core::migration::CoordinatorTimeouts;
use slim_core::protocol::control::{DestinationTimeouts, SourceTimeouts};
use std::collections::BTreeMap;

/// The longest each phase may take. 0 means without bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// The phases as the controller sees them.
    pub controller: CoordinatorTimeouts,
    /// Those of `src_inst`.
    pub source: SourceTimeouts,
    /// Those of `dst_inst`.
    pub destination: DestinationTimeouts,
}

/// Changes of single time-outs in milliseconds, by names such as `source.drain`.
pub type TimeoutChanges = BTreeMap<String, u32>;

/// There is no time-out of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no time-out {name:?}; there are {known}")]
pub struct UnknownTimeout {
    name: String,
    known: String,
}

impl Timeouts {
    /// These, changed.
    pub fn with(&self, changes: &TimeoutChanges) -> Result<Self, UnknownTimeout> {
        let mut all = self.table();
        for (name, timeout_ms) in changes {
            let unknown = || UnknownTimeout { name: name.clone(), known: names(&self.table()) };
            let known = name
                .split_once('.')
                .and_then(|(party, phase)| all.get_mut(party)?.get_mut(&format!("{}_ms", phase.replace('-', "_"))));
            *known.ok_or_else(unknown)? = *timeout_ms;
        }
        // Of the same shape as what it came from.
        Ok(serde_json::to_value(all).and_then(serde_json::from_value).unwrap_or(*self))
    }

    fn table(&self) -> BTreeMap<String, BTreeMap<String, u32>> {
        serde_json::to_value(self).and_then(serde_json::from_value).unwrap_or_default()
    }
}

fn names(all: &BTreeMap<String, BTreeMap<String, u32>>) -> String {
    let names = all.iter().flat_map(|(party, phases)| {
        phases.keys().map(move |phase| format!("{party}.{}", phase.trim_end_matches("_ms").replace('_', "-")))
    });
    names.collect::<Vec<_>>().join(", ")
}

/// Reads `PHASE=MS`, such as `source.drain=5000`.
///
/// # Errors
/// In words for the command line.
pub fn parse_change(text: &str) -> Result<(String, u32), String> {
    let (name, timeout_ms) = text.split_once('=').ok_or("expected PHASE=MS, such as source.drain=5000")?;
    let timeout_ms = timeout_ms.parse().map_err(|_| format!("{timeout_ms:?} is not a number of milliseconds"))?;
    let change = (name.to_owned(), timeout_ms);
    Timeouts::default().with(&[change.clone()].into()).map_err(|error| error.to_string())?;
    Ok(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_can_be_changed_by_its_name() {
        let default = Timeouts::default();
        for name in names(&default.table()).split(", ") {
            let (name, timeout_ms) = parse_change(&format!("{name}=7")).unwrap();
            let changed = default.with(&[(name.clone(), timeout_ms)].into()).unwrap();
            assert_ne!(changed, default, "{name}");
        }
        let changed = default.with(&[("source.take-over".into(), 1), ("controller.hold".into(), 2)].into()).unwrap();
        assert_eq!((changed.source.take_over_ms, changed.controller.hold_ms), (1, 2));
        assert_eq!(changed.destination, default.destination);
    }

    #[test]
    fn what_is_not_one_is_refused_with_the_names_there_are() {
        for wrong in ["drain", "source", "source.drain", "source.drain=soon", "source.drain=-1"] {
            assert!(parse_change(wrong).is_err(), "{wrong}");
        }
        let error = parse_change("source.draining=5").unwrap_err();
        assert!(error.contains("source.drain,") && error.contains("destination.hand-back"), "{error}");
    }
}

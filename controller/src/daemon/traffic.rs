//! To whom the traffic of a network function belongs: to whoever has its state, whatever was known before.

use super::registry::{Entry, Stage};
use super::{Daemon, from_fabric};
use slim_core::protocol::Name;
use slim_core::protocol::control::{ControlError, InstancePaths, InstanceRole};
use std::collections::BTreeMap;
use std::sync::Arc;

/// An instance and what it says that it is; nothing if it does not answer.
type Candidate = (Arc<Entry>, Option<InstanceRole>);

impl Daemon {
    /// Leads traffic that goes nowhere, or to an instance that has given its state away, to whoever has the state.
    ///
    /// A switch may have been restarted, or a daemon killed, between a take-over and the moment when the paths were known
    /// to follow it. Whoever merely does not answer keeps its traffic.
    pub(super) fn settle_traffic(&self) -> Result<(), ControlError> {
        let paths = self.fabric.paths().map_err(from_fabric)?;
        for (externals, candidates) in self.candidates() {
            let Some(rightful) = rightful(&candidates) else { continue };
            let bound = paths.iter().find(|known| known.paths.iter().any(|path| externals.contains(&path.from)));
            if bound.is_none_or(|bound| has_given_away(&candidates, bound, rightful)) {
                log::warn!("{}: has the state, and gets the traffic", rightful.0.name);
                self.lead_to(&rightful.0.name)?;
            }
        }
        Ok(())
    }

    /// The instances that run, by the external ports whose traffic is theirs.
    fn candidates(&self) -> BTreeMap<Vec<Name>, Vec<Candidate>> {
        let mut all: BTreeMap<Vec<Name>, Vec<Candidate>> = BTreeMap::new();
        for entry in self.registry.all() {
            let Some(blueprint) = entry.blueprint.as_ref().filter(|_| entry.state().stage == Stage::Running) else {
                continue;
            };
            let externals = blueprint.externals();
            let role = entry.status().map(|status| status.role);
            all.entry(externals).or_default().push((entry, role));
        }
        all
    }
}

/// Whoever is live; else whoever is about to hand its state over; else, where nobody says, whoever had the traffic last.
fn rightful(candidates: &[Candidate]) -> Option<&Candidate> {
    let with = |wanted| candidates.iter().find(|(_, role)| *role == Some(wanted));
    with(InstanceRole::Live)
        .or_else(|| with(InstanceRole::Source))
        .or_else(|| candidates.iter().find(|(entry, role)| role.is_none() && entry.state().has_traffic))
}

/// Whether the paths lead to one of `candidates` that says that it has no state, while another one is live.
fn has_given_away(candidates: &[Candidate], bound: &InstancePaths, rightful: &Candidate) -> bool {
    let role = candidates.iter().find(|(entry, _)| entry.name == bound.instance).and_then(|(_, role)| *role);
    rightful.1 == Some(InstanceRole::Live)
        && matches!(role, Some(InstanceRole::Released | InstanceRole::Discarded | InstanceRole::Idle))
}

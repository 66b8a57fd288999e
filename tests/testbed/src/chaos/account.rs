//! What became of lost packets, as far as switch and instances can tell.

use serde::{Deserialize, Serialize};
use slim_core::protocol::Name;
use slim_core::protocol::control::{PortStatus, SwitchStatus};
use std::collections::BTreeMap;

/// Lost packets by cause.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Losses {
    /// As the recorder counted them.
    pub lost: u64,
    /// Those the switch dropped, under its names of causes. `link_down` were addressed to a process that is dead.
    pub dropped: BTreeMap<String, u64>,
    /// Those that had reached a process that died, or were still in its queues.
    pub in_dead_process: u64,
    /// Those that were in the switch when it died, or passed it while it did not run.
    pub in_dead_switch: u64,
    /// The rest.
    pub unexplained: u64,
}

/// The counters of the switch's dataplane ports at one time.
#[derive(Debug, Clone)]
pub(super) struct Counts {
    ports: BTreeMap<Name, PortStatus>,
    uptime_ms: u64,
}

impl Counts {
    /// Those of the external ports that carry packets, and of the instances' ports without the management.
    pub(super) fn of(status: &SwitchStatus) -> Self {
        let management = |name: &str| name == "mgmt" || name.ends_with(".mgmt");
        let ports = status.ports.iter().filter(|port| !management(port.name.as_str()));
        Self { ports: ports.map(|port| (port.name.clone(), port.clone())).collect(), uptime_ms: status.uptime_ms }
    }

    /// How much a counter of a port has grown since `before`. Counters of a switch that was restarted began at zero.
    fn growth(&self, before: &Self, port: &Name, counter: &str) -> u64 {
        let value = |counts: &Self| {
            counts.ports.get(port).and_then(|port| port.counters.get(counter).copied()).unwrap_or_default()
        };
        let base = if self.uptime_ms < before.uptime_ms { 0 } else { value(before) };
        value(self).saturating_sub(base)
    }

    /// Packets that were given to an instance and did not come out of it again.
    pub(super) fn swallowed(&self, before: &Self, instance: &Name) -> u64 {
        let ours = self.ports.keys().filter(|port| {
            self.ports[*port].instance.as_ref() == Some(instance) || port.as_str().starts_with(&format!("{instance}."))
        });
        let (given, returned) = ours.fold((0, 0), |(given, returned), port| {
            (given + self.growth(before, port, "tx_packets"), returned + self.growth(before, port, "rx_packets"))
        });
        given.saturating_sub(returned)
    }

    /// Packets dropped since `before`, by cause.
    fn dropped(&self, before: &Self) -> BTreeMap<String, u64> {
        let mut causes = BTreeMap::new();
        for (name, port) in &self.ports {
            for counter in port.counters.keys() {
                let Some(cause) = counter.strip_prefix("dropped_") else { continue };
                let grown = self.growth(before, name, counter);
                if grown > 0 {
                    *causes.entry(cause.to_owned()).or_default() += grown;
                }
            }
        }
        causes
    }
}

impl Losses {
    /// Explains `lost` packets between two looks at the switch. `dead` is an instance that died meanwhile, and
    /// `was_holder` says that nobody else could have processed them.
    pub(super) fn explain(
        lost: u64,
        before: &Counts,
        after: &Counts,
        dead: Option<&Name>,
        was_holder: bool,
        switch_died: bool,
    ) -> Self {
        let mut losses = Self { lost, ..Self::default() };
        let mut left = lost;
        let mut take = |most: u64| {
            let taken = most.min(left);
            left -= taken;
            taken
        };
        for (cause, count) in after.dropped(before) {
            let taken = take(count);
            if taken > 0 {
                losses.dropped.insert(cause, taken);
            }
        }
        // Of a holder all that is left was addressed to it, whatever queue it was in.
        let in_dead = |dead| if was_holder { u64::MAX } else { after.swallowed(before, dead) };
        losses.in_dead_process = dead.map_or(0, |dead| take(in_dead(dead)));
        losses.in_dead_switch = if switch_died { take(u64::MAX) } else { 0 };
        losses.unexplained = left;
        losses
    }

    /// In a few words, the biggest first.
    pub(super) fn words(&self) -> String {
        let mut causes: Vec<(u64, String)> =
            self.dropped.iter().map(|(cause, count)| (*count, cause.replace('_', " "))).collect();
        for (count, cause) in [
            (self.in_dead_process, "in the dead process"),
            (self.in_dead_switch, "with the dead switch"),
            (self.unexplained, "UNEXPLAINED"),
        ] {
            if count > 0 {
                causes.push((count, cause.to_owned()));
            }
        }
        causes.sort_by(|a, b| b.cmp(a));
        causes.into_iter().map(|(count, cause)| format!("{count} {cause}")).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slim_core::protocol::control::PortKind;

    fn counts(uptime_ms: u64, ports: &[(&str, &[(&str, u64)])]) -> Counts {
        let port = |(name, counters): &(&str, &[(&str, u64)])| {
            let name = Name::try_from(*name).expect("a name");
            let kind = PortKind::Vdev { devargs: "net_null0".into() };
            let counters = counters.iter().map(|(key, value)| ((*key).into(), *value)).collect();
            (name.clone(), PortStatus { name, kind, up: true, instance: None, counters })
        };
        Counts { ports: ports.iter().map(port).collect(), uptime_ms }
    }

    #[test]
    fn drops_come_first_then_what_a_dead_process_had() {
        let before = counts(10, &[("nat-a.in", &[("tx_packets", 100), ("rx_packets", 90)])]);
        let after = counts(
            20,
            &[
                ("nat-a.in", &[("tx_packets", 150), ("rx_packets", 100), ("dropped_link_down", 7)]),
                ("nat-a.out", &[("tx_packets", 10), ("rx_packets", 20)]),
            ],
        );
        let dead = Name::try_from("nat-a").expect("a name");
        let losses = Losses::explain(40, &before, &after, Some(&dead), false, false);
        assert_eq!(losses.dropped.get("link_down"), Some(&7));
        assert_eq!((losses.in_dead_process, losses.unexplained), (30, 3));
        assert_eq!(losses.words(), "30 in the dead process, 7 link down, 3 UNEXPLAINED");
    }

    #[test]
    fn a_restarted_switch_counts_from_zero() {
        let before = counts(1000, &[("inside", &[("dropped_no_path", 50)])]);
        let after = counts(20, &[("inside", &[("dropped_no_path", 5)])]);
        let losses = Losses::explain(9, &before, &after, None, false, true);
        assert_eq!((losses.dropped["no_path"], losses.in_dead_switch, losses.unexplained), (5, 4, 0));
    }
}

//! The network functions that a topology can have.

use super::{FIRST, SECOND};
use crate::load::LoadSpec;
use crate::load::flows::Stations;
use toml::{Table, Value};

/// The interior address of the network function.
pub const NAT_INTERIOR: &str = "10.1.0.1";
/// Its exterior address.
pub const NAT_EXTERIOR: &str = "10.2.0.1";

/// The network function of a topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Function {
    /// The NAT.
    #[default]
    Nat,
    /// The mobile packet gateway.
    Gateway,
}

impl Function {
    /// The one that `load` is for.
    pub fn of(load: &LoadSpec) -> Self {
        if load.gateway { Self::Gateway } else { Self::Nat }
    }

    /// Its kind: the name of its program, its section and, in the deployment, itself.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Gateway => "gateway",
        }
    }

    /// What it and those who send through it are called in a sentence.
    pub const fn in_words(self) -> (&'static str, &'static str) {
        match self {
            Self::Nat => ("NAT", "sockets"),
            Self::Gateway => ("packet gateway", "subscribers"),
        }
    }

    /// The names of its instances: the one that is live at first, and the other.
    pub const fn instances(self) -> [&'static str; 2] {
        match self {
            Self::Nat => [FIRST, SECOND],
            Self::Gateway => ["gateway-a", "gateway-b"],
        }
    }

    /// Its section: the addresses it has, and those of its neighbours, and `more`.
    pub(super) fn section(self, more: &Table) -> Table {
        let mut entries = vec![
            ("interior_address", format!("{NAT_INTERIOR}/24")),
            ("interior_mac", "02:51:1a:00:00:01".to_owned()),
            ("exterior_address", format!("{NAT_EXTERIOR}/24")),
            ("exterior_mac", "02:51:1a:00:00:02".to_owned()),
        ];
        if self == Self::Gateway {
            let load = LoadSpec::default();
            entries.push(("cells_mac", Stations::hosts(&load).mac(0).to_string()));
            entries.push(("router_mac", Stations::echo_servers(&load).mac(0).to_string()));
        }
        let entries = entries.into_iter().map(|(name, value)| (name.to_owned(), Value::String(value)));
        entries.chain(more.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slim_core::nf::{NetworkFunction, Shard};
    use slim_gateway::Gateway;
    use slim_nat::Nat;

    #[test]
    fn sections_are_valid_configurations() {
        fn check<N: NetworkFunction>(function: Function) {
            let config: N::Config = function.section(&Table::new()).try_into().expect("the section's own form");
            assert!(N::new(&config, Shard::ONLY, 1).is_ok());
            assert_eq!(function.kind(), N::KIND);
        }
        check::<Nat>(Function::Nat);
        check::<Gateway>(Function::Gateway);
    }
}

//! The network functions that images exist for.

use anyhow::{Result, bail};
use slim_controller::net::MacAddress;
use slim_core::nf::NetworkFunction;
use slim_gateway::Gateway;
use slim_nat::Nat;

/// A network function of this repository.
#[derive(Debug, PartialEq, Eq)]
pub struct Vnf {
    /// Its name in commands, the `KIND` of its `NetworkFunction`.
    pub name: &'static str,
    /// What it does, in a few words.
    pub summary: &'static str,
    /// The package of the workspace that it is.
    pub package: &'static str,
    /// The program in that package.
    pub program: &'static str,
    /// The number that changes with the meaning of its state; both ends of a migration must have the same.
    pub schema: u64,
    /// Its dataplane interfaces in order.
    pub ports: &'static [&'static str],
    /// The MAC addresses of its own on these interfaces, in the same order, in an instance that is run alone.
    pub macs: &'static [MacAddress],
    /// Its section of an instance's configuration, for an instance that is run alone.
    pub section: &'static str,
}

/// What `interior_mac` and `exterior_mac` are below.
const OWN_MACS: &[MacAddress] =
    &[MacAddress([0x02, 0x51, 0x1a, 0x00, 0x00, 0x01]), MacAddress([0x02, 0x51, 0x1a, 0x00, 0x00, 0x02])];

/// All of them.
pub const VNFS: &[Vnf] = &[
    Vnf {
        name: Nat::KIND,
        summary: "network address translation",
        package: "slim-nat",
        program: "nat",
        schema: Nat::SCHEMA,
        ports: Nat::PORTS,
        macs: OWN_MACS,
        section: r#"[nat]
interior_address = "10.1.0.1/24"
interior_mac = "02:51:1a:00:00:01"
exterior_address = "10.2.0.1/24"
exterior_mac = "02:51:1a:00:00:02"
"#,
    },
    Vnf {
        name: Gateway::KIND,
        summary: "mobile packet gateway with hand-overs",
        package: "slim-gateway",
        program: "gateway",
        schema: Gateway::SCHEMA,
        ports: Gateway::PORTS,
        macs: OWN_MACS,
        section: r#"[gateway]
interior_address = "10.1.0.1/24"
interior_mac = "02:51:1a:00:00:01"
cells_mac = "02:51:1a:00:01:01"
exterior_address = "10.2.0.1/24"
exterior_mac = "02:51:1a:00:00:02"
router_mac = "02:51:1a:00:01:02"
"#,
    },
];

/// The network function called `name`.
pub fn find(name: &str) -> Result<&'static Vnf> {
    if let Some(vnf) = VNFS.iter().find(|vnf| vnf.name == name) {
        return Ok(vnf);
    }
    let known: Vec<_> = VNFS.iter().map(|vnf| format!("    {:<8} {}", vnf.name, vnf.summary)).collect();
    bail!("there is no network function called {name:?}; these exist:\n{}", known.join("\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_valid_configurations() {
        fn check<N: NetworkFunction>() {
            let vnf = find(N::KIND).expect("exists");
            let file: toml::Table = toml::from_str(vnf.section).expect("valid TOML");
            let config: N::Config = file[vnf.name].clone().try_into().expect("the section's own form");
            assert!(N::new(&config, slim_core::nf::Shard::ONLY, 1).is_ok());
            let own =
                ["interior_mac", "exterior_mac"].map(|key| file[vnf.name][key].as_str().expect("text").to_owned());
            assert_eq!(vnf.macs.iter().map(MacAddress::to_string).collect::<Vec<_>>(), own);
            assert_eq!(vnf.macs.len(), vnf.ports.len());
        }
        check::<Nat>();
        check::<Gateway>();
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        assert_eq!(find("nat").expect("exists").package, "slim-nat");
        let text = find("foo").expect_err("does not exist").to_string();
        assert!(text.contains("\"foo\"") && text.contains("nat      network address translation"), "{text}");
    }
}

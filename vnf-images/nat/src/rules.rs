//! What the operator rules about single endpoints and destinations: forwards and exclusions.

use crate::config::Config;
use crate::pool::AddressRange;
use crate::ports::PortRange;
use crate::types::{Endpoint, Protocol, Side};
use core::hash::Hasher as _;
use core::net::{Ipv4Addr, SocketAddrV4};
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;
use slim_core::nf::ConfigError;

/// The most forwards.
pub const FORWARDS_MAX: usize = 256;

/// The most exclusions. Each packet is compared with them one after the other.
pub const EXCLUSIONS_MAX: usize = 64;

/// An exterior endpoint that belongs to an interior one for good: a `[[nat.forward]]` entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// `"udp"` or `"tcp"`.
    pub protocol: Protocol,
    /// One of the exterior addresses, and any port.
    pub exterior: SocketAddrV4,
    /// An interior host's address, and a port.
    pub interior: SocketAddrV4,
}

impl Forward {
    /// The exterior endpoint.
    pub(crate) const fn exterior(&self) -> Endpoint {
        Endpoint::new(*self.exterior.ip(), self.exterior.port())
    }

    /// The interior endpoint.
    pub(crate) const fn interior(&self) -> Endpoint {
        Endpoint::new(*self.interior.ip(), self.interior.port())
    }

    const fn order(&self) -> (u8, u32, u16) {
        (self.protocol.number(), self.exterior.ip().to_bits(), self.exterior.port())
    }
}

/// The forwards, to be found by their exterior endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forwards(Box<[Forward]>);

impl Forwards {
    /// In whatever order.
    pub fn new(forwards: &[Forward]) -> Self {
        let mut forwards = forwards.to_vec();
        forwards.sort_unstable_by_key(Forward::order);
        Self(forwards.into())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Forward> {
        self.0.iter()
    }

    /// Whether an exterior endpoint is that of a forward.
    pub fn contains(&self, protocol: Protocol, exterior: Endpoint) -> bool {
        let order = (protocol.number(), exterior.address.to_bits(), exterior.port);
        self.0.binary_search_by_key(&order, Forward::order).is_ok()
    }

    /// A number that differs where the forwards do. It finds mistakes, not forgeries.
    pub fn digest(&self) -> u64 {
        let mut hasher = SipHasher13::new();
        for forward in self.iter() {
            hasher.write_u8(forward.protocol.number());
            for end in [forward.exterior, forward.interior] {
                hasher.write_u32(end.ip().to_bits());
                hasher.write_u16(end.port());
            }
        }
        hasher.finish()
    }
}

/// What becomes of packets that an exclusion is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// They are routed without being translated (RFC 6888 R6).
    Exempt,
    /// They are dropped.
    Deny,
}

/// Packets that are not translated: an `[[nat.exclude]]` entry. It is about those that fit all of its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Exclusion {
    /// What becomes of them.
    pub action: Action,
    /// Interior hosts; all if it is not there.
    pub host: Option<AddressRange>,
    /// Hosts outside that they exchange packets with; all if it is not there.
    pub destination: Option<AddressRange>,
    /// The protocol; all, even those that could not be translated, if it is not there.
    pub protocol: Option<Protocol>,
    /// UDP or TCP ports of the hosts outside, `"53"` or `"6881-6889"`.
    pub port: Option<PortRange>,
}

/// What an exclusion looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) host: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    /// The number in the IPv4 header.
    pub(crate) protocol: u8,
    /// The destination's port, if it is known.
    pub(crate) port: Option<u16>,
}

impl Exclusion {
    fn is_about(&self, traffic: &Traffic) -> bool {
        let has_ports = [Protocol::Udp, Protocol::Tcp].map(Protocol::number).contains(&traffic.protocol);
        self.host.is_none_or(|hosts| hosts.contains(traffic.host))
            && self.destination.is_none_or(|destinations| destinations.contains(traffic.destination))
            && self.protocol.is_none_or(|protocol| protocol.number() == traffic.protocol)
            && self.port.is_none_or(|ports| has_ports && traffic.port.is_some_and(|port| ports.contains(port)))
    }
}

/// What is ruled about some traffic: the first exclusion that is about it counts.
pub(crate) fn action(exclusions: &[Exclusion], traffic: &Traffic) -> Option<Action> {
    exclusions.iter().find(|exclusion| exclusion.is_about(traffic)).map(|exclusion| exclusion.action)
}

impl Config {
    pub(crate) fn validate_rules(&self) -> Result<(), ConfigError> {
        let err = |text: String| Err(ConfigError(text));
        let forwards_max = FORWARDS_MAX.min(self.hosts_max as usize);
        if self.forward.len() > forwards_max {
            return err(format!("[[nat.forward]]: {} entries are more than {forwards_max}", self.forward.len()));
        }
        let pool = self.pool()?;
        for (number, forward) in self.forward.iter().enumerate() {
            let Forward { protocol, exterior, interior } = forward;
            let entry = format!("[[nat.forward]] exterior = \"{exterior}\"");
            if *protocol == Protocol::Icmp {
                return err(format!("{entry}: protocol is neither \"udp\" nor \"tcp\""));
            }
            if !pool.contains(*exterior.ip()) || exterior.port() == 0 {
                return err(format!("{entry} is not a port of an exterior address of this NAT"));
            }
            if !self.address(Side::Interior).is_neighbour(*interior.ip()) || interior.port() == 0 {
                return err(format!("{entry}: interior = \"{interior}\" is not a port of an interior host"));
            }
            let others = self.forward.iter().take(number).filter(|other| other.protocol == *protocol);
            for other in others {
                if other.exterior == *exterior || other.interior == *interior {
                    return err(format!("{entry}: there is a forward from {} to {}", other.exterior, other.interior));
                }
            }
        }
        if self.exclude.len() > EXCLUSIONS_MAX {
            return err(format!("[[nat.exclude]]: {} entries are more than {EXCLUSIONS_MAX}", self.exclude.len()));
        }
        for (number, exclusion) in self.exclude.iter().enumerate() {
            let entry = format!("[[nat.exclude]] entry {}", number + 1);
            if exclusion.host.is_none() && exclusion.destination.is_none() {
                return err(format!("{entry} has neither host nor destination: nothing would be translated"));
            }
            if exclusion.port.is_some() && exclusion.protocol == Some(Protocol::Icmp) {
                return err(format!("{entry}: ICMP has no port"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_exclusion_counts_and_all_its_fields() {
        let exclusion = |action, host: &str, destination: &str, protocol, port: &str| Exclusion {
            action,
            host: host.parse().ok(),
            destination: destination.parse().ok(),
            protocol,
            port: port.parse().ok(),
        };
        let exclusions = [
            exclusion(Action::Deny, "10.1.0.9", "", None, ""),
            exclusion(Action::Exempt, "", "192.0.2.0/24", Some(Protocol::Tcp), "80-443"),
            exclusion(Action::Exempt, "", "198.51.100.7", None, ""),
            exclusion(Action::Deny, "", "198.51.100.0/24", None, "53"),
        ];
        let traffic = |host: &str, destination: &str, protocol, port| Traffic {
            host: host.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol,
            port,
        };
        for (traffic, expected) in [
            (traffic("10.1.0.9", "192.0.2.1", 6, Some(80)), Some(Action::Deny)),
            (traffic("10.1.0.8", "192.0.2.1", 6, Some(80)), Some(Action::Exempt)),
            (traffic("10.1.0.8", "192.0.2.1", 6, Some(444)), None),
            (traffic("10.1.0.8", "192.0.2.1", 6, None), None),
            (traffic("10.1.0.8", "192.0.2.1", 17, Some(80)), None),
            (traffic("10.1.0.8", "198.51.100.7", 47, None), Some(Action::Exempt)),
            (traffic("10.1.0.8", "198.51.100.8", 17, Some(53)), Some(Action::Deny)),
            (traffic("10.1.0.8", "198.51.100.8", 1, Some(53)), None),
        ] {
            assert_eq!(action(&exclusions, &traffic), expected, "{traffic:?}");
        }
    }
}

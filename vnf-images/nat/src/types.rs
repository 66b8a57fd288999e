//! The words of translation: protocols, sides, directions, endpoints.

use core::fmt;
use core::net::Ipv4Addr;
use serde::{Deserialize, Serialize};
use slim_core::nf::PortId;

/// A transport protocol that is translated. Sessions of different protocols never meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// UDP (RFC 4787).
    Udp,
    /// TCP (RFC 5382).
    Tcp,
    /// ICMP queries: echo and timestamp, whose identifier stands for a port (RFC 5508).
    Icmp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Icmp => "icmp",
        })
    }
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Udp, Self::Tcp, Self::Icmp];

    /// The number in the IPv4 header, which also stands for the protocol in tables.
    pub const fn number(self) -> u8 {
        match self {
            Self::Udp => 17,
            Self::Tcp => 6,
            Self::Icmp => 1,
        }
    }

    /// The protocol with this number, if it is translated.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            17 => Some(Self::Udp),
            6 => Some(Self::Tcp),
            1 => Some(Self::Icmp),
            _ => None,
        }
    }
}

/// One of the two networks, and the NAT's interface to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The network whose hosts are masqueraded; port `in`.
    Interior,
    /// The network that sees the exterior address; port `out`.
    Exterior,
}

impl Side {
    /// Both, in the order of the ports.
    pub const ALL: [Self; 2] = [Self::Interior, Self::Exterior];

    /// The logical port of this side.
    pub const fn port(self) -> PortId {
        PortId(self.index() as u8)
    }

    /// The side behind a logical port.
    pub const fn of_port(port: PortId) -> Option<Self> {
        match port.0 {
            0 => Some(Self::Interior),
            1 => Some(Self::Exterior),
            _ => None,
        }
    }

    /// 0 or 1, the port's number.
    pub const fn index(self) -> usize {
        match self {
            Self::Interior => 0,
            Self::Exterior => 1,
        }
    }
}

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the interior to the exterior network.
    Outbound,
    /// From the exterior to the interior network.
    Inbound,
}

/// An IPv4 address and a UDP or TCP port, or the identifier of an ICMP query; 0 at the end that is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address.
    pub address: Ipv4Addr,
    /// The port or identifier.
    pub port: u16,
}

impl Endpoint {
    /// Puts an address and a port together.
    pub const fn new(address: Ipv4Addr, port: u16) -> Self {
        Self { address, port }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.address, self.port)
    }
}

/// A session as the exterior sees it, which names it uniquely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The NAT's exterior address and the port it lends to the interior endpoint.
    pub exterior: Endpoint,
    /// The other end of the session.
    pub server: Endpoint,
}

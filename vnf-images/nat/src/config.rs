//! The configuration: section `[nat]` of the instance's TOML file.

use crate::blocks::{BLOCK_SIZE_MAX, BLOCKS_PER_HOST_MAX, BlockIndex};
use crate::mtu::{MTU_MAX, MTU_MIN};
use crate::pool::{ADDRESSES_MAX, AddressRange, Pool};
use crate::ports::PortRange;
use crate::rules::{Exclusion, Forward};
use crate::types::{Protocol, Side};
use core::net::Ipv4Addr;
use serde::{Deserialize, Serialize};
use slim_core::nf::{ConfigError, InterfaceAddress, Shard};
use slim_core::packet::MacAddr;
use slim_core::table::SMALL_TABLE_ENTRIES_MAX;

/// Which packets from outside an interior endpoint receives while it is mapped (RFC 4787 §5, RFC 5382 R3).
///
/// Answers to ICMP queries come from where the query went, in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Filtering {
    /// Everybody's: best for applications (RFC 4787 R8, RFC 6888 R7).
    #[default]
    EndpointIndependent = 0,
    /// Those of addresses it has sent to: more stringent (RFC 4787 R8).
    AddressDependent = 1,
    /// Those of addresses and ports it has sent to, as the paper's NAT.
    AddressAndPortDependent = 2,
}

/// Which exterior addresses an interior host's endpoints get (RFC 4787 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Pooling {
    /// The same for all of a host's endpoints (RFC 4787 R2, RFC 6888 R2).
    #[default]
    Paired = 0,
    /// Any, for each endpoint anew.
    Arbitrary = 1,
}

/// What the operator's log is told (RFC 6888 §4). Where it is, is said in section `[log]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Nothing.
    #[default]
    Off,
    /// Which blocks of ports a host is lent.
    Blocks,
    /// Which exterior endpoint an interior one has.
    Mappings,
    /// Every session, with the server that it is with: more than RFC 6888 R12 wants logged.
    Sessions,
}

/// What the operator sets. Every field but the first four has a default.
///
/// Both ends of a migration must be configured alike; addresses, port range and capacities are compared.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The NAT's address towards the interior hosts, which are those of its network.
    pub interior_address: InterfaceAddress,
    /// The NAT's MAC address on port `in`.
    pub interior_mac: MacAddr,
    /// The address that the interior hosts share, and the network it is in.
    pub exterior_address: InterfaceAddress,
    /// The NAT's MAC address on port `out`.
    pub exterior_mac: MacAddr,
    /// The router to servers beyond the exterior network. Without it, only that network can be reached.
    #[serde(default)]
    pub exterior_gateway: Option<Ipv4Addr>,

    /// The longest IPv4 packet that leaves for the interior network, in bytes, 68 to 1500. Default 1500 (RFC 4787 R13).
    #[serde(default = "default::mtu")]
    pub interior_mtu: u16,
    /// The same for the exterior network.
    #[serde(default = "default::mtu")]
    pub exterior_mtu: u16,

    /// More addresses that the interior hosts share: addresses, ranges and prefixes, in the exterior network or routed to
    /// the NAT; 256 altogether (RFC 6888 R3). Default none.
    #[serde(default)]
    pub exterior_pool: Vec<AddressRange>,
    /// Which of the addresses an interior host's endpoints get. Default paired.
    #[serde(default)]
    pub address_pooling: Pooling,

    /// Exterior endpoints that belong to interior ones for good. Default none.
    #[serde(default)]
    pub forward: Vec<Forward>,
    /// Packets that are not translated; the first entry that is about a packet counts. Default none.
    #[serde(default)]
    pub exclude: Vec<Exclusion>,

    /// Which packets from outside a mapped endpoint receives. Default endpoint_independent.
    #[serde(default)]
    pub filtering: Filtering,

    /// The lowest exterior port, at least 1. Default 1024.
    #[serde(default = "default::port_first")]
    pub port_first: u16,
    /// The highest exterior port. Default 65535. The range is divided among the shards.
    #[serde(default = "default::port_last")]
    pub port_last: u16,

    /// Whether the exterior port of a UDP endpoint is even where its own is, odd where that is, and, of two neighbours, next
    /// to the other's (RFC 4787 R4, which RFC 7857 §8 no longer asks for by default). Default false.
    #[serde(default)]
    pub port_parity: bool,
    /// Whether an endpoint keeps the number of its port where that is free (RFC 4787 §4.2.1). Default false: ports are
    /// then not chosen at random.
    #[serde(default)]
    pub port_preservation: bool,

    /// How many ports a host is lent at a time, at most 4096 (RFC 6888 R14). Default: one by one.
    #[serde(default)]
    pub port_block_size: Option<u16>,
    /// The most blocks of ports of a host, 1 to 8. Default 4.
    #[serde(default = "default::port_blocks_per_host_max")]
    pub port_blocks_per_host_max: u32,
    /// How long a block without a port in use stays its host's. Default and least 120 (RFC 6888 R8).
    #[serde(default = "default::port_block_timeout_s")]
    pub port_block_timeout_s: u32,

    /// The most sessions per shard. Default 65536.
    #[serde(default = "default::sessions_max")]
    pub sessions_max: u32,
    /// The most interior hosts with counters, per shard. Default 4096.
    #[serde(default = "default::hosts_max")]
    pub hosts_max: u32,
    /// The most ARP entries of both sides together, per shard. Default 4096.
    #[serde(default = "default::arp_entries_max")]
    pub arp_entries_max: u32,
    /// The most packets in fragments that are under way at a time, per shard. Default 4096.
    #[serde(default = "default::fragment_trains_max")]
    pub fragment_trains_max: u32,
    /// The most fragments that wait for the first of their packet, per shard, 1 to 256. Default 64.
    #[serde(default = "default::fragments_held_max")]
    pub fragments_held_max: u32,
    /// The most sessions of one interior host. No limit by default (RFC 6888 R4 asks for one in a CGN).
    #[serde(default)]
    pub sessions_per_host_max: Option<u32>,

    /// The most sessions that share one exterior port. No limit by default (RFC 6888 R5).
    #[serde(default)]
    pub sessions_per_mapping_max: Option<u32>,

    /// The most exterior ports of one interior host, of all protocols. No limit by default (RFC 6888 R4 as well).
    #[serde(default)]
    pub ports_per_host_max: Option<u32>,

    /// What is logged. Default off.
    #[serde(default)]
    pub log: LogLevel,

    /// How long a UDP session stays without an outbound packet. Default 300, at least 120 (RFC 4787 R5).
    #[serde(default = "default::udp_timeout_s")]
    pub udp_timeout_s: u32,
    /// The same for an established TCP session. Default and least 7440 (RFC 5382 R5).
    #[serde(default = "default::tcp_established_timeout_s")]
    pub tcp_established_timeout_s: u32,
    /// The same for a TCP session that is being opened. Default and least 240 (RFC 5382 R5, RFC 7857 §2.1).
    #[serde(default = "default::tcp_transitory_timeout_s")]
    pub tcp_opening_timeout_s: u32,
    /// How long a closed or reset TCP session stays. Default and least 240 (RFC 5382 R5, RFC 7857 §2).
    #[serde(default = "default::tcp_transitory_timeout_s")]
    pub tcp_closing_timeout_s: u32,
    /// How long an ICMP query session stays without another query. Default and least 60 (RFC 5508 R2).
    #[serde(default = "default::icmp_timeout_s")]
    pub icmp_timeout_s: u32,
    /// How long the fragments of a packet may take. Default 60, at least 15 (RFC 791 §3.2).
    #[serde(default = "default::fragment_timeout_s")]
    pub fragment_timeout_s: u32,
    /// How long an ARP entry stays without being confirmed. Default 300, at least 10.
    #[serde(default = "default::arp_timeout_s")]
    pub arp_timeout_s: u32,
    /// How long the counters of a host without sessions and packets stay. Default 86400, at least 1.
    #[serde(default = "default::host_timeout_s")]
    pub host_timeout_s: u32,
}

mod default {
    pub(super) fn mtu() -> u16 {
        super::MTU_MAX
    }
    pub(super) fn port_first() -> u16 {
        1024
    }
    pub(super) fn port_last() -> u16 {
        65_535
    }
    pub(super) fn port_blocks_per_host_max() -> u32 {
        4
    }
    pub(super) fn port_block_timeout_s() -> u32 {
        120
    }
    pub(super) fn sessions_max() -> u32 {
        65_536
    }
    pub(super) fn hosts_max() -> u32 {
        4096
    }
    pub(super) fn arp_entries_max() -> u32 {
        4096
    }
    pub(super) fn udp_timeout_s() -> u32 {
        300
    }
    pub(super) fn tcp_established_timeout_s() -> u32 {
        7440
    }
    pub(super) fn tcp_transitory_timeout_s() -> u32 {
        240
    }
    pub(super) fn fragment_trains_max() -> u32 {
        4096
    }
    pub(super) fn fragments_held_max() -> u32 {
        64
    }
    pub(super) fn fragment_timeout_s() -> u32 {
        60
    }
    pub(super) fn icmp_timeout_s() -> u32 {
        60
    }
    pub(super) fn arp_timeout_s() -> u32 {
        300
    }
    pub(super) fn host_timeout_s() -> u32 {
        86_400
    }
}

/// The largest capacity of a table, so that a wrong digit does not exhaust an image's memory.
const CAPACITY_MAX: u32 = 1 << 24;

/// The longest time-out: ten years, far from where the clock's ticks wrap.
const TIMEOUT_S_MAX: u32 = 10 * 366 * 86_400;

impl Config {
    /// A configuration with nothing but the addresses set.
    pub fn new(
        interior: InterfaceAddress,
        interior_mac: MacAddr,
        exterior: InterfaceAddress,
        exterior_mac: MacAddr,
    ) -> Self {
        Self {
            interior_address: interior,
            interior_mac,
            exterior_address: exterior,
            exterior_mac,
            exterior_gateway: None,
            interior_mtu: default::mtu(),
            exterior_mtu: default::mtu(),
            exterior_pool: Vec::new(),
            address_pooling: Pooling::default(),
            forward: Vec::new(),
            exclude: Vec::new(),
            filtering: Filtering::default(),
            port_first: default::port_first(),
            port_last: default::port_last(),
            port_parity: false,
            port_preservation: false,
            port_block_size: None,
            port_blocks_per_host_max: default::port_blocks_per_host_max(),
            port_block_timeout_s: default::port_block_timeout_s(),
            sessions_max: default::sessions_max(),
            hosts_max: default::hosts_max(),
            arp_entries_max: default::arp_entries_max(),
            fragment_trains_max: default::fragment_trains_max(),
            fragments_held_max: default::fragments_held_max(),
            fragment_timeout_s: default::fragment_timeout_s(),
            sessions_per_host_max: None,
            sessions_per_mapping_max: None,
            ports_per_host_max: None,
            log: LogLevel::default(),
            udp_timeout_s: default::udp_timeout_s(),
            tcp_established_timeout_s: default::tcp_established_timeout_s(),
            tcp_opening_timeout_s: default::tcp_transitory_timeout_s(),
            tcp_closing_timeout_s: default::tcp_transitory_timeout_s(),
            icmp_timeout_s: default::icmp_timeout_s(),
            arp_timeout_s: default::arp_timeout_s(),
            host_timeout_s: default::host_timeout_s(),
        }
    }

    /// The NAT's address and network on one side.
    pub fn address(&self, side: Side) -> InterfaceAddress {
        match side {
            Side::Interior => self.interior_address,
            Side::Exterior => self.exterior_address,
        }
    }

    /// The longest IPv4 packet that leaves on one side, in bytes.
    pub fn mtu(&self, side: Side) -> u16 {
        match side {
            Side::Interior => self.interior_mtu,
            Side::Exterior => self.exterior_mtu,
        }
    }

    /// The NAT's MAC address on one side.
    pub fn mac(&self, side: Side) -> MacAddr {
        match side {
            Side::Interior => self.interior_mac,
            Side::Exterior => self.exterior_mac,
        }
    }

    /// The exterior ports of one shard: its part of the range, so that a reply's port tells its shard.
    ///
    /// # Errors
    /// Names the field at fault.
    pub fn port_range(&self, shard: Shard) -> Result<PortRange, ConfigError> {
        if self.port_first == 0 || self.port_first > self.port_last {
            return Err(ConfigError(format!(
                "port_first = {} and port_last = {} are not a range of ports from 1 to 65535",
                self.port_first, self.port_last
            )));
        }
        let range = PortRange { first: self.port_first, last: self.port_last };
        range.part(shard.id.0, shard.count).ok_or_else(|| {
            ConfigError(format!("{} exterior ports are too few for {} shards", range.len(), shard.count))
        })
    }

    /// The exterior addresses, the NAT's own among them.
    ///
    /// # Errors
    /// If they are too many.
    pub fn pool(&self) -> Result<Pool, ConfigError> {
        Pool::new(self.exterior_address.address, &self.exterior_pool)
            .ok_or_else(|| ConfigError(format!("exterior_pool holds more than {ADDRESSES_MAX} addresses")))
    }

    /// The most endpoints that can be mapped: no more than there are sessions, or ports for all protocols; and forwards.
    pub(crate) fn mappings_max(&self, ports: PortRange, addresses: usize) -> u32 {
        self.sessions_max.min(ports.len() * (Protocol::ALL.len() * addresses) as u32) + self.forward.len() as u32
    }

    /// The forwards of one shard: those of its ports, and, of the first one, those of ports that no shard has.
    pub(crate) fn forwards_of(&self, shard: Shard) -> Result<Vec<Forward>, ConfigError> {
        let own = self.port_range(shard)?;
        let lent = PortRange { first: self.port_first, last: self.port_last };
        let is_own = |port| own.contains(port) || (shard.id.0 == 0 && !lent.contains(port));
        Ok(self.forward.iter().filter(|forward| is_own(forward.exterior.port())).copied().collect())
    }

    /// The index of the port blocks of one shard; `None` where ports are lent one by one.
    pub(crate) fn block_index(&self, shard: Shard) -> Result<Option<BlockIndex>, ConfigError> {
        let (Some(size), ports) = (self.port_block_size, self.port_range(shard)?) else { return Ok(None) };
        let index = BlockIndex::new(ports, size, self.port_blocks_per_host_max as usize, self.pool()?.len());
        index.map(Some).ok_or_else(|| {
            ConfigError(format!("port_block_size = {size} is not between 1 and the {} ports of a shard", ports.len()))
        })
    }

    fn validate_blocks(&self) -> Result<(), ConfigError> {
        let err = |text: String| Err(ConfigError(text));
        if self.log == LogLevel::Blocks && self.port_block_size.is_none() {
            return err("log = \"blocks\": ports are lent one by one; set port_block_size or log = \"mappings\"".into());
        }
        if let Some(size) = self.port_block_size {
            if !(1..=BLOCK_SIZE_MAX).contains(&size) {
                return err(format!("port_block_size = {size} is not between 1 and {BLOCK_SIZE_MAX}"));
            }
            if self.address_pooling != Pooling::Paired {
                return err("port_block_size: blocks are of one address, so address_pooling must be \"paired\"".into());
            }
        }
        if !(1..=BLOCKS_PER_HOST_MAX as u32).contains(&self.port_blocks_per_host_max) {
            let value = self.port_blocks_per_host_max;
            return err(format!("port_blocks_per_host_max = {value} is not between 1 and {BLOCKS_PER_HOST_MAX}"));
        }
        Ok(())
    }

    fn validate_pool(&self) -> Result<(), ConfigError> {
        let err = |text: String| Err(ConfigError(text));
        // Bounds how many there are to look at.
        let pool = self.pool()?;
        for address in pool.iter().filter(|address| *address != self.exterior_address.address) {
            let network = &self.exterior_address;
            let possible = is_unicast(address) && (!network.contains(address) || network.is_neighbour(address));
            if !possible || self.interior_address.contains(address) {
                return err(format!("exterior_pool: {address} is not an exterior host's address"));
            }
            if self.exterior_gateway == Some(address) {
                return err(format!("exterior_pool: {address} is the exterior_gateway's"));
            }
        }
        Ok(())
    }

    /// Checks everything that its fields' types do not.
    ///
    /// # Errors
    /// Names the field at fault, and what it should be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let err = |text: String| Err(ConfigError(text));
        for (side, name) in [(Side::Interior, "interior"), (Side::Exterior, "exterior")] {
            let own = self.address(side);
            let host_bits = own.address.to_bits() & !own.mask();
            if !is_unicast(own.address) || host_bits == 0 || host_bits == !own.mask() {
                return err(format!("{name}_address = \"{own}\" is not a host's address in its network"));
            }
            let mac = self.mac(side);
            if !mac.is_unicast() {
                return err(format!("{name}_mac must be a unicast address: even first octet, not all zeros"));
            }
            let mtu = self.mtu(side);
            if !(MTU_MIN..=MTU_MAX).contains(&mtu) {
                return err(format!("{name}_mtu = {mtu} is not between {MTU_MIN} and {MTU_MAX}"));
            }
        }
        if self.interior_address.contains(self.exterior_address.address)
            || self.exterior_address.contains(self.interior_address.address)
        {
            return err(format!(
                "the networks of interior_address = \"{}\" and exterior_address = \"{}\" overlap, which is not supported",
                self.interior_address, self.exterior_address
            ));
        }
        if let Some(gateway) = self.exterior_gateway
            && !self.exterior_address.is_neighbour(gateway)
        {
            return err(format!(
                "exterior_gateway = \"{gateway}\" is not another host's address in the network of exterior_address = \"{}\"",
                self.exterior_address
            ));
        }
        self.validate_pool()?;
        self.validate_rules()?;
        self.validate_blocks()?;
        for (name, value) in [
            ("sessions_max", self.sessions_max),
            ("hosts_max", self.hosts_max),
            ("arp_entries_max", self.arp_entries_max),
            ("fragment_trains_max", self.fragment_trains_max),
            ("sessions_per_host_max", self.sessions_per_host_max.unwrap_or(1)),
            ("sessions_per_mapping_max", self.sessions_per_mapping_max.unwrap_or(1)),
            ("ports_per_host_max", self.ports_per_host_max.unwrap_or(1)),
        ] {
            if !(1..=CAPACITY_MAX).contains(&value) {
                return err(format!("{name} = {value} is not between 1 and {CAPACITY_MAX}"));
            }
        }
        if !(1..=SMALL_TABLE_ENTRIES_MAX as u32).contains(&self.fragments_held_max) {
            return err(format!(
                "fragments_held_max = {} is not between 1 and {SMALL_TABLE_ENTRIES_MAX}",
                self.fragments_held_max
            ));
        }
        for (name, value, least) in [
            ("udp_timeout_s", self.udp_timeout_s, 120),
            ("tcp_established_timeout_s", self.tcp_established_timeout_s, 7440),
            ("tcp_opening_timeout_s", self.tcp_opening_timeout_s, 240),
            ("tcp_closing_timeout_s", self.tcp_closing_timeout_s, 240),
            ("icmp_timeout_s", self.icmp_timeout_s, 60),
            ("fragment_timeout_s", self.fragment_timeout_s, 15),
            ("port_block_timeout_s", self.port_block_timeout_s, 120),
            ("arp_timeout_s", self.arp_timeout_s, 10),
            ("host_timeout_s", self.host_timeout_s, 1),
        ] {
            if !(least..=TIMEOUT_S_MAX).contains(&value) {
                return err(format!("{name} = {value} is not between {least} and {TIMEOUT_S_MAX}"));
            }
        }
        Ok(())
    }
}

/// Whether `address` can be that of one host: not this-network, loopback, multicast, reserved or broadcast.
pub(crate) fn is_unicast(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first != 0 && first != 127 && first < 224
}

//! The instance's configuration: one TOML file, the same in an image and for `--process`.
//!
//! ```toml
//! name = "nat-a"
//!
//! [management]
//! mac = "52:54:00:03:00:0b"      # image: the NIC that stays with the kernel
//! address = "10.3.0.11/24"
//! control_port = 7001
//! state_port = 7002
//! identity = "nat-a.pem"         # --process: who it is; an image is handed it
//! plaintext = false              # true: without identity and encryption, for reproducing the paper
//!
//! [[port]]                       # in the order of the network function's ports
//! name = "in"
//! mac = "52:54:00:01:00:0b"      # image: the NIC to hand to DPDK
//! device = "net_tap0"            # --process: the EAL device
//!
//! [[port]]
//! name = "out"
//! mac = "52:54:00:02:00:0b"
//! device = "net_tap1"
//!
//! [limits]                       # optional, as is each of its entries
//!
//! [nat]                          # the network function's own section, named by its kind
//! ```

mod lines;
mod sections;

pub use lines::{at, line_of};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use slim_core::nf::NetworkFunction;
use slim_core::packet::MacAddr;
use slim_core::protocol::Name;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;

/// The longest configuration read, in bytes.
pub const CONFIG_SIZE_MAX_BYTES: usize = 64 * 1024;

/// Why a configuration cannot be used, in words an operator understands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

/// How the instance is run. It decides which entries the configuration must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// PID 1 of a guest: NICs are named by their MAC addresses.
    Image,
    /// An ordinary process: dataplane ports are EAL devices, management uses an address the host has.
    Process,
}

/// A whole configuration, `C` being that of the network function.
#[derive(Debug, Clone)]
pub struct Config<C> {
    /// The instance's name.
    pub name: Name,
    /// Management network and ports.
    pub management: Management,
    /// The dataplane ports in the order of [`NetworkFunction::PORTS`].
    pub ports: Vec<Port>,
    /// Bounds of queues and buffers.
    pub limits: Limits,
    /// Where events of the network function are recorded, if anywhere.
    pub log: Option<Log>,
    /// The network function's own section.
    pub nf: C,
}

/// The `[management]` section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Management {
    /// The NIC that stays with the kernel. Image only.
    pub mac: Option<MacAddr>,
    /// The instance's address on the management network, and the network's prefix length.
    pub address: Prefix,
    /// The next hop to other networks, where there are any. Image only.
    pub gateway: Option<Ipv4Addr>,
    /// TCP port of the control connection.
    #[serde(default = "Management::default_control_port")]
    pub control_port: u16,
    /// TCP port on which a destination accepts statelet and snapshot streams.
    #[serde(default = "Management::default_state_port")]
    pub state_port: u16,
    /// The file with the instance's identity. Process only: an image is handed it by its launcher.
    pub identity: Option<PathBuf>,
    /// Whether connections are neither encrypted nor authenticated.
    #[serde(default)]
    pub plaintext: bool,
}

impl Management {
    fn default_control_port() -> u16 {
        7001
    }

    fn default_state_port() -> u16 {
        7002
    }
}

/// A `[[port]]` entry.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// The port's name, one of [`NetworkFunction::PORTS`].
    pub name: String,
    /// The NIC to hand to DPDK. Image only.
    pub mac: Option<MacAddr>,
    /// The EAL device, as in `net_virtio_user0,path=/run/nat-a.in.sock`. Process only.
    pub device: Option<String>,
}

/// The `[limits]` section: bounds of queues and buffers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Capacity of `pkt_q`. Its memory is touched only as far as it is filled.
    pub pkt_q_bytes: usize,
    /// Capacity of `st_q_out`.
    pub st_q_out_bytes: usize,
    /// Capacity of `st_q_in`.
    pub st_q_in_bytes: usize,
    /// Bytes of statelets after which the statelet stream sends at once: the payload of one segment.
    pub statelet_segment_bytes: usize,
    /// Send buffer of each stream. Small, so that a slow link holds back the sender, not statelets in a buffer.
    pub stream_buffer_bytes: usize,
    /// Receive descriptors per port.
    pub rx_descriptors: u16,
    /// Transmit descriptors per port. As many as for receiving, so that a full receive ring can be passed on at once.
    pub tx_descriptors: u16,
    /// The longest nap of an idle lcore in microseconds, and so the longest that a packet waits where the NIC has no receive
    /// interrupts: fewer wake-ups for longer waits.
    pub nap_us: u32,
    /// Packet buffers; 0 for as many as the descriptors and bursts need.
    pub mbufs: u32,
    /// Hugepage memory of an image, or plain memory of a process, for DPDK; 0 for as much as the packet buffers need.
    pub dpdk_memory_mb: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pkt_q_bytes: 32 << 20,
            st_q_out_bytes: 8 << 20,
            st_q_in_bytes: 32 << 20,
            statelet_segment_bytes: 1400,
            stream_buffer_bytes: 256 << 10,
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            nap_us: 500,
            mbufs: 0,
            dpdk_memory_mb: 0,
        }
    }
}

impl Limits {
    /// Packet buffers for `ports` ports: one per descriptor, and some for bursts and the per-lcore cache.
    pub fn mbufs_for(&self, ports: usize) -> u32 {
        if self.mbufs != 0 {
            return self.mbufs;
        }
        let descriptors = u32::from(self.rx_descriptors) + u32::from(self.tx_descriptors);
        (descriptors * ports as u32 + 512).next_multiple_of(256) - 1
    }

    /// Memory for DPDK with `mbufs` packet buffers.
    pub fn dpdk_memory_mb_for(&self, mbufs: u32, host: Host) -> u32 {
        if self.dpdk_memory_mb != 0 {
            return self.dpdk_memory_mb;
        }
        // 2176 bytes of data room, the mbuf, the pool's object header and padding; plus rings and EAL's own.
        let pool_mb = (mbufs * 2432).div_ceil(1 << 20);
        let own_mb = match host {
            Host::Image => 3,
            Host::Process => 20,
        };
        (pool_mb + own_mb).next_multiple_of(2)
    }

    fn check(&self) -> Result<(), Invalid> {
        let bounds = [
            ("pkt_q_bytes", self.pkt_q_bytes, 64 << 10, 1 << 30),
            ("st_q_out_bytes", self.st_q_out_bytes, 64 << 10, 1 << 30),
            ("st_q_in_bytes", self.st_q_in_bytes, 128 << 10, 1 << 30),
            ("statelet_segment_bytes", self.statelet_segment_bytes, 64, 65_536),
            ("stream_buffer_bytes", self.stream_buffer_bytes, 16 << 10, 64 << 20),
            ("rx_descriptors", usize::from(self.rx_descriptors), 64, 4096),
            ("tx_descriptors", usize::from(self.tx_descriptors), 64, 4096),
        ];
        for (name, value, min, max) in bounds {
            if !(min..=max).contains(&value) {
                return Err(Invalid(format!("limits.{name} is {value}, it must be between {min} and {max}")));
            }
        }
        Ok(())
    }
}

/// How events reach the collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// One connection, made again when it is lost.
    #[default]
    Tcp,
    /// A datagram per event.
    Udp,
}

/// The `[log]` section: where the network function's events are recorded, a line of JSON each.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Address and port of the collector, reached by the management network.
    pub collector: SocketAddrV4,
    /// How it is reached.
    #[serde(default)]
    pub transport: Transport,
    /// Events that may wait for it. What finds no room is counted, and lost.
    #[serde(default = "Log::default_events_max")]
    pub events_max: usize,
}

impl Log {
    fn default_events_max() -> usize {
        65_536
    }

    fn check(&self) -> Result<(), Invalid> {
        if !(1..=1 << 22).contains(&self.events_max) {
            return Err(Invalid(format!(
                "log.events_max is {}, it must be between 1 and {}",
                self.events_max,
                1 << 22
            )));
        }
        if self.collector.port() == 0 {
            return Err(Invalid("line 20: log.collector has no port".into()));
        }
        Ok(())
    }
}

/// An IPv4 address with the prefix length of its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    /// The address.
    pub address: Ipv4Addr,
    /// The prefix length, 0 to 32.
    pub len: u8,
}

impl TryFrom<String> for Prefix {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        let parse = || {
            let (address, len) = text.split_once('/')?;
            let len = len.parse().ok().filter(|&len| len <= 32)?;
            Some(Self { address: address.parse().ok()?, len })
        };
        parse().ok_or_else(|| Invalid(format!("{text:?} is not an address with prefix length such as 10.3.0.11/24")))
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        format!("{}/{}", prefix.address, prefix.len)
    }
}

impl<C: DeserializeOwned> Config<C> {
    /// Reads and checks a configuration for the network function `F` on `host`.
    pub fn parse<F: NetworkFunction<Config = C>>(text: &str, host: Host) -> Result<Self, Invalid> {
        if text.len() > CONFIG_SIZE_MAX_BYTES {
            return Err(Invalid(format!(
                "the configuration has {} bytes, at most {CONFIG_SIZE_MAX_BYTES} are read",
                text.len()
            )));
        }
        let config: Self = sections::read::<F>(text)?;
        config
            .check(F::PORTS, host)
            .map_err(|Invalid(message)| Invalid(format!("{}{message}", at(line_of(text, &[], &message)))))?;
        Ok(config)
    }

    fn check(&self, ports: &[&str], host: Host) -> Result<(), Invalid> {
        self.limits.check()?;
        self.log.as_ref().map_or(Ok(()), Log::check)?;
        self.management.check(host)?;
        check_ports(&self.ports, ports, host)?;
        check_macs(self)
    }
}

impl<C: Serialize> Config<C> {
    /// The file that says all of this, defaults included.
    ///
    /// # Errors
    /// The network function's section cannot be written as TOML.
    pub fn in_force<F: NetworkFunction<Config = C>>(&self) -> Result<String, Invalid> {
        sections::write::<F>(self).map_err(|error| Invalid(format!("the configuration cannot be written: {error}")))
    }
}

impl Management {
    fn check(&self, host: Host) -> Result<(), Invalid> {
        if host == Host::Image && self.mac.is_none() {
            return Err(Invalid("management.mac is missing: which NIC stays with the kernel?".into()));
        }
        if self.control_port == self.state_port && self.control_port != 0 {
            return Err(Invalid("management.control_port and management.state_port must differ".into()));
        }
        match (host, self.plaintext, &self.identity) {
            (_, true, Some(_)) => Err(Invalid("management: there is no use for an identity in plaintext".into())),
            (Host::Image, _, Some(_)) => {
                Err(Invalid("management.identity: images are handed theirs by fw_cfg or a config drive".into()))
            }
            (Host::Process, false, None) => Err(Invalid(
                "management.identity is missing: `slimctl identity NAME` makes one (or plaintext = true)".into(),
            )),
            _ => Ok(()),
        }?;
        Ok(())
    }
}

fn check_ports(ports: &[Port], names: &[&str], host: Host) -> Result<(), Invalid> {
    let have: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
    if have != names {
        return Err(Invalid(format!("[[port]] entries are {have:?}, this network function needs {names:?}")));
    }
    for port in ports {
        let missing = match host {
            Host::Image if port.mac.is_none() => "mac",
            Host::Process if port.device.is_none() => "device",
            _ => continue,
        };
        return Err(Invalid(format!("port {:?} has no {missing:?}", port.name)));
    }
    Ok(())
}

fn check_macs<C>(config: &Config<C>) -> Result<(), Invalid> {
    let ports = config.ports.iter().filter_map(|port| port.mac);
    let mut macs: Vec<MacAddr> = ports.chain(config.management.mac).collect();
    macs.sort_unstable();
    match macs.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Invalid(format!("two NICs have the MAC address {}", pair[0]))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toy::{Toy, ToyConfig};

    const GOOD: &str = r#"
        name = "toy-a"
        [management]
        mac = "52:54:00:03:00:0b"
        address = "10.3.0.11/24"
        plaintext = true
        [[port]]
        name = "in"
        mac = "52:54:00:01:00:0b"
        device = "net_null0"
        [[port]]
        name = "out"
        mac = "52:54:00:02:00:0B"
        device = "net_null1"
        [limits]
        pkt_q_bytes = 1048576
        [toy]
        size = 3
    "#;

    fn parse(text: &str, host: Host) -> Result<Config<ToyConfig>, String> {
        Config::parse::<Toy>(text, host).map_err(|error| error.to_string())
    }

    #[test]
    fn reads_what_both_hosts_need() {
        for host in [Host::Image, Host::Process] {
            let config = parse(GOOD, host).unwrap();
            assert_eq!(config.name.as_str(), "toy-a");
            assert_eq!(config.management.address, Prefix { address: Ipv4Addr::new(10, 3, 0, 11), len: 24 });
            assert_eq!((config.management.control_port, config.management.state_port), (7001, 7002));
            assert_eq!(config.ports[1].mac, Some(MacAddr([0x52, 0x54, 0, 2, 0, 0xb])));
            assert_eq!(config.limits, Limits { pkt_q_bytes: 1 << 20, ..Limits::default() });
            assert_eq!((config.nf.size, config.log), (3, None));
            let logged = format!("{GOOD}\n[log]\ncollector = '10.3.0.1:5140'\ntransport = 'udp'");
            let expected =
                Log { collector: "10.3.0.1:5140".parse().unwrap(), transport: Transport::Udp, events_max: 65_536 };
            assert_eq!(parse(&logged, host).unwrap().log, Some(expected));
        }
    }

    #[test]
    fn what_is_in_force_says_everything_and_is_read_as_the_same() {
        let text = format!("{GOOD}\n[log]\ncollector = '10.3.0.1:5140'");
        let config = parse(&text, Host::Image).unwrap();
        let in_force = config.in_force::<Toy>().unwrap();
        for line in ["size = 3", "rx_descriptors = 1024", "state_port = 7002", "events_max = 65536", "[[port]]"] {
            assert!(in_force.contains(line), "{line} is not in\n{in_force}");
        }
        let again = parse(&in_force, Host::Image).unwrap();
        assert_eq!(
            (&again.management, &again.ports, &again.limits),
            (&config.management, &config.ports, &config.limits)
        );
        assert_eq!((again.log, again.nf.size), (config.log, config.nf.size));
    }

    #[test]
    fn names_what_is_wrong() {
        let cases: [(&str, &str, &str); 17] = [
            ("name = \"toy-a\"", "", "`name` is missing"),
            ("name = \"toy-a\"", "name = \"a b\"", "a name is 1 to 64"),
            ("name = \"toy-a\"", "name = 'toy-a", "line 2, column"),
            ("10.3.0.11/24", "10.3.0.11/33", "prefix length"),
            ("52:54:00:01:00:0b", "52:54:00:01:00", "a MAC address is"),
            ("52:54:00:01:00:0b", "52:54:00:01:00:0b:00", "a MAC address is"),
            ("52:54:00:01:00:0b", "52:54:00:02:00:0b", "two NICs have the MAC address"),
            ("52:54:00:01:00:0b", "52:54:00:03:00:0b", "two NICs have the MAC address"),
            ("name = \"out\"", "name = \"outside\"", "needs [\"in\", \"out\"]"),
            ("mac = \"52:54:00:02:00:0B\"", "", "port \"out\" has no \"mac\""),
            ("mac = \"52:54:00:03:00:0b\"", "", "management.mac is missing"),
            ("pkt_q_bytes = 1048576", "pkt_q_bytes = 1", "line 16: limits.pkt_q_bytes is 1"),
            ("[toy]", "[nat]", "line 17: unknown entry `nat`"),
            ("size = 3", "size = 3\n[log]\ncollector = '10.3.0.1'", "line 20, column"),
            ("size = 3", "size = 3\n[log]\ncollector = '10.3.0.1:0'", "line 20: log.collector has no port"),
            ("size = 3", "size = 3\n[log]\ncollector = '10.3.0.1:9'\nevents_max = 0", "line 21: log.events_max is 0"),
            ("size = 3", "size = 3\n[other]", "line 19: unknown entry `other`"),
        ];
        for (from, to, want) in cases {
            assert!(GOOD.contains(from), "{from}");
            let error = parse(&GOOD.replacen(from, to, 1), Host::Image).unwrap_err();
            assert!(error.contains(want), "{to:?}: {error}");
        }
        let secure = GOOD.replace("plaintext = true", "");
        assert!(parse(&secure, Host::Image).is_ok());
        assert!(parse(&secure, Host::Process).unwrap_err().contains("management.identity is missing"));
        let named = GOOD.replace("plaintext = true", "identity = 'a.pem'");
        assert!(parse(&named, Host::Process).is_ok());
        assert!(parse(&named, Host::Image).unwrap_err().contains("fw_cfg"));
        let both = GOOD.replace("plaintext = true", "plaintext = true\nidentity = 'a.pem'");
        assert!(parse(&both, Host::Process).unwrap_err().contains("no use for an identity"));
        let error = parse(&GOOD.replace("device", "# device"), Host::Process).unwrap_err();
        assert!(error.contains("port \"in\" has no \"device\""), "{error}");
        assert!(parse(&"#".repeat(CONFIG_SIZE_MAX_BYTES + 1), Host::Image).unwrap_err().contains("at most"));
    }
}

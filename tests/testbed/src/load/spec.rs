//! What load to generate: the options of `slim-load`, which whoever starts it shares.

use clap::Args;
use core::net::Ipv4Addr;
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// Ethernet, IPv4 and UDP headers, in bytes.
pub(super) const HEADERS_LEN: usize = slim_core::packet::emit::UDP_PAYLOAD_AT;

/// The UDP port of the echo servers (RFC 862).
pub const ECHO_PORT: u16 = 7;

/// The first UDP port of every interior host's sockets.
pub const SOCKET_PORT_FIRST: u16 = 20_000;

/// The workload of §VII: UDP sockets of interior hosts that send through a NAT to echo servers outside.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
pub struct LoadSpec {
    /// Load in Mbit/s as the sum of both directions, counted over whole frames from the Ethernet header on, without
    /// frame check sequence, preamble and gap: 100 is 50 out and 50 back
    #[arg(long = "rate", default_value_t = 100.0, value_name = "MBIT")]
    pub rate_mbit: f64,

    /// Size of every frame in bytes, from its Ethernet header on, without frame check sequence
    #[arg(long = "packet-size", default_value_t = 512, value_name = "BYTES",
        value_parser = clap::value_parser!(u16).range(60..=1514))]
    pub packet_size_bytes: u16,

    /// UDP sockets, spread over the interior hosts and the echo servers
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=16384))]
    pub sockets: u16,

    /// Seconds of measured traffic
    #[arg(long = "duration", default_value_t = 15.0, value_name = "SECONDS")]
    pub duration_s: f64,

    /// Seconds of traffic before that, reported apart: sockets open and addresses are resolved meanwhile
    #[arg(long = "warmup", default_value_t = 1.0, value_name = "SECONDS")]
    pub warmup_s: f64,

    /// Seconds to wait for packets under way before those that have not come count as lost
    #[arg(long = "drain", default_value_t = 2.0, value_name = "SECONDS")]
    pub drain_s: f64,

    /// A round trip longer than this many milliseconds is counted as late
    #[arg(long = "late", default_value_t = 15.0, value_name = "MS")]
    pub late_ms: f64,

    /// Interior hosts, with consecutive addresses
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub hosts: u16,

    /// Address of the first interior host
    #[arg(long, default_value = "10.1.0.10", value_name = "ADDRESS")]
    pub first_host: Ipv4Addr,

    /// The NAT's address towards the interior
    #[arg(long, default_value = "10.1.0.1", value_name = "ADDRESS")]
    pub nat_interior: Ipv4Addr,

    /// The NAT's address towards the exterior, which all packets must come from there
    #[arg(long, default_value = "10.2.0.1", value_name = "ADDRESS")]
    pub nat_exterior: Ipv4Addr,

    /// Echo servers, with consecutive addresses
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub echo_servers: u16,

    /// Address of the first echo server
    #[arg(long, default_value = "10.2.0.10", value_name = "ADDRESS")]
    pub first_echo_server: Ipv4Addr,

    /// The load of the paper's packet gateway instead of a NAT's: sockets are subscribers that move between cells, and
    /// their packets carry the gateway's tag, which counts as part of the frame
    #[arg(long)]
    #[serde(default)]
    pub gateway: bool,

    /// Mean time in seconds between two hand-overs of a subscriber
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS")]
    #[serde(default = "hand_over_s")]
    pub hand_over_s: f64,

    /// What decides when subscribers are handed over, and whereto
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    #[serde(default)]
    pub cell_seed: u64,
}

fn hand_over_s() -> f64 {
    2.0
}

impl Default for LoadSpec {
    fn default() -> Self {
        Self {
            rate_mbit: 100.0,
            packet_size_bytes: 512,
            sockets: 128,
            duration_s: 15.0,
            warmup_s: 1.0,
            drain_s: 2.0,
            late_ms: 15.0,
            hosts: 16,
            first_host: Ipv4Addr::new(10, 1, 0, 10),
            nat_interior: Ipv4Addr::new(10, 1, 0, 1),
            nat_exterior: Ipv4Addr::new(10, 2, 0, 1),
            echo_servers: 4,
            first_echo_server: Ipv4Addr::new(10, 2, 0, 10),
            gateway: false,
            hand_over_s: hand_over_s(),
            cell_seed: 1,
        }
    }
}

/// A load that cannot be generated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SpecError {
    /// A number is outside its range.
    #[error("--{option} {value} is out of range: {range}")]
    OutOfRange {
        /// The option's name.
        option: &'static str,
        /// What was given.
        value: f64,
        /// What is possible.
        range: &'static str,
    },
    /// The hosts or echo servers include an address of the NAT.
    #[error("{0} is an address of the NAT and of a host")]
    AddressTwice(Ipv4Addr),
    /// The hosts have too few UDP ports for the sockets.
    #[error("{sockets} sockets do not fit on {hosts} hosts")]
    TooManySockets {
        /// Sockets wanted.
        sockets: u16,
        /// Hosts there are.
        hosts: u16,
    },
}

impl LoadSpec {
    /// Checks what the option parser cannot.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn check(&self) -> Result<(), SpecError> {
        let in_range = |option, value: f64, low: f64, high: f64, range| {
            if (low..=high).contains(&value) { Ok(()) } else { Err(SpecError::OutOfRange { option, value, range }) }
        };
        in_range("rate", self.rate_mbit, 0.001, 20_000.0, "0.001 to 20000 Mbit/s")?;
        in_range("packet-size", self.packet_size_bytes.into(), 60.0, 1514.0, "60 to 1514 bytes")?;
        in_range("sockets", self.sockets.into(), 1.0, 16_384.0, "1 to 16384")?;
        in_range("duration", self.duration_s, 0.001, 86_400.0, "0.001 to 86400 seconds")?;
        in_range("warmup", self.warmup_s, 0.0, 3_600.0, "0 to 3600 seconds")?;
        in_range("drain", self.drain_s, 0.0, 3_600.0, "0 to 3600 seconds")?;
        in_range("late", self.late_ms, 0.001, 60_000.0, "0.001 to 60000 ms")?;
        in_range("hosts", self.hosts.into(), 1.0, 200.0, "1 to 200")?;
        in_range("echo-servers", self.echo_servers.into(), 1.0, 200.0, "1 to 200")?;
        in_range("hand-over-s", self.hand_over_s, 0.001, 86_400.0, "0.001 to 86400 seconds")?;
        if u32::from(self.sockets).div_ceil(self.hosts.into()) > u32::from(u16::MAX - SOCKET_PORT_FIRST) {
            return Err(SpecError::TooManySockets { sockets: self.sockets, hosts: self.hosts });
        }
        let hosts = (self.first_host, self.hosts, self.nat_interior);
        let servers = (self.first_echo_server, self.echo_servers, self.nat_exterior);
        for (first, count, nat) in [hosts, servers] {
            if nat.to_bits().wrapping_sub(first.to_bits()) < count.into() {
                return Err(SpecError::AddressTwice(nat));
            }
        }
        Ok(())
    }

    /// Packets a second in each direction.
    pub fn packets_per_second(&self) -> f64 {
        self.rate_mbit * 1e6 / 2.0 / (8.0 * f64::from(self.packet_size_bytes))
    }

    /// Bytes of UDP payload in each packet.
    pub fn payload_len(&self) -> usize {
        let tag_len = if self.gateway { slim_gateway::tag::LEN } else { 0 };
        usize::from(self.packet_size_bytes).saturating_sub(HEADERS_LEN + tag_len)
    }

    /// The length of the measured traffic.
    pub fn duration(&self) -> Duration {
        seconds(self.duration_s)
    }

    /// The length of the traffic before that.
    pub fn warmup(&self) -> Duration {
        seconds(self.warmup_s)
    }

    /// How long to wait for packets under way.
    pub fn drain(&self) -> Duration {
        seconds(self.drain_s)
    }

    /// The round-trip time from which on a packet is late.
    pub fn late(&self) -> Duration {
        seconds(self.late_ms / 1e3)
    }

    /// The command-line arguments that make `slim-load` generate this load.
    pub fn to_arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            format!("--rate={}", self.rate_mbit),
            format!("--packet-size={}", self.packet_size_bytes),
            format!("--sockets={}", self.sockets),
            format!("--duration={}", self.duration_s),
            format!("--warmup={}", self.warmup_s),
            format!("--drain={}", self.drain_s),
            format!("--late={}", self.late_ms),
            format!("--hosts={}", self.hosts),
            format!("--first-host={}", self.first_host),
            format!("--nat-interior={}", self.nat_interior),
            format!("--nat-exterior={}", self.nat_exterior),
            format!("--echo-servers={}", self.echo_servers),
            format!("--first-echo-server={}", self.first_echo_server),
            format!("--hand-over-s={}", self.hand_over_s),
            format!("--cell-seed={}", self.cell_seed),
        ];
        arguments.extend(self.gateway.then(|| "--gateway".to_owned()));
        arguments
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        spec: LoadSpec,
    }

    fn parse(arguments: &[String]) -> LoadSpec {
        Cli::parse_from(std::iter::once("load").chain(arguments.iter().map(String::as_str))).spec
    }

    #[test]
    fn defaults_equal_those_of_the_command_line() {
        assert_eq!(parse(&[]), LoadSpec::default());
        assert_eq!(LoadSpec::default().check(), Ok(()));
    }

    #[test]
    fn arguments_round_trip() {
        let spec = LoadSpec {
            rate_mbit: 33.5,
            packet_size_bytes: 60,
            sockets: 7,
            duration_s: 0.25,
            warmup_s: 0.0,
            drain_s: 1.5,
            late_ms: 7.5,
            hosts: 3,
            first_host: Ipv4Addr::new(192, 168, 0, 2),
            nat_interior: Ipv4Addr::new(192, 168, 0, 1),
            nat_exterior: Ipv4Addr::new(198, 51, 100, 1),
            echo_servers: 2,
            first_echo_server: Ipv4Addr::new(198, 51, 100, 7),
            gateway: true,
            hand_over_s: 0.5,
            cell_seed: 9,
        };
        assert_eq!(parse(&spec.to_arguments()), spec);
    }

    #[test]
    fn rate_is_the_sum_of_both_directions_over_whole_frames() {
        let spec = LoadSpec { rate_mbit: 100.0, packet_size_bytes: 500, ..LoadSpec::default() };
        // 12,500 packets of 4,000 bits are 50 Mbit/s, in each direction.
        assert_eq!(spec.packets_per_second(), 12_500.0);
    }

    #[test]
    fn impossible_loads_are_refused() {
        let spec = LoadSpec { rate_mbit: f64::NAN, ..LoadSpec::default() };
        assert!(matches!(spec.check(), Err(SpecError::OutOfRange { option: "rate", .. })));
        let spec = LoadSpec { first_host: Ipv4Addr::new(10, 1, 0, 0), ..LoadSpec::default() };
        assert_eq!(spec.check(), Err(SpecError::AddressTwice(spec.nat_interior)));
        let spec = LoadSpec { packet_size_bytes: 59, ..LoadSpec::default() };
        assert!(spec.check().is_err());
    }
}

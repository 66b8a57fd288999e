//! The command line.

use clap::Parser;
use std::path::PathBuf;

/// SliM's software switch: joins instances to the outside through meters and delay lines, and redirects their paths
/// without losing or reordering a packet.
#[derive(Debug, Parser)]
#[command(version, about, after_long_help = AFTER_HELP)]
pub struct Args {
    /// The Unix socket to take commands on, as JSON lines in plaintext: whoever can open it commands the switch.
    ///
    /// A socket that is left over from a process that is gone is replaced; one that is in use is not.
    #[arg(long, value_name = "SOCKET")]
    pub control: PathBuf,

    /// A TOML file of ports, instances and paths to begin with. Without, the switch begins empty.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Check the configuration and exit.
    #[arg(long, requires = "config")]
    pub check: bool,

    /// Packet buffers of 2 KiB. They hold what is on delay lines, in egress queues and on hold; when none is left,
    /// arriving packets wait in their devices or are dropped there, and counted.
    ///
    /// One less than a power of two uses memory best. At 1 Gbit/s and 2.5 ms, a direction of an instance's link has
    /// 312 KB on its delay line, and 2.5 MB after a burst: 5000 buffers of 512-byte packets.
    #[arg(long, value_name = "COUNT", default_value_t = 32_767, value_parser = clap::value_parser!(u32).range(2_047..=1_048_575))]
    pub mbufs: u32,

    /// Further arguments for DPDK's environment, each in one piece, such as --eal=--log-level=pmd:8.
    ///
    /// The switch itself passes --no-huge, --no-shconf, --no-pci, --no-telemetry, a file prefix of its own, and as much
    /// memory as the packet buffers need. It needs no privileges; only TAP and packet sockets do.
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    pub eal: Vec<String>,
}

const AFTER_HELP: &str = r#"Example: a switch with one instance between two TAP interfaces.

  $ cat switch.toml
  management = ["mgmt"]
  [[port]]
  name = "inside"
  kind = { type = "tap", interface = "slim-inside" }
  [[port]]
  name = "outside"
  kind = { type = "tap", interface = "slim-outside" }
  [[port]]
  name = "mgmt"
  kind = { type = "tap", interface = "slim-mgmt" }
  [[port]]
  name = "nat-a.in"
  kind = { type = "vhost_user", socket = "/tmp/nat-a.in.sock" }
  [[port]]
  name = "nat-a.out"
  kind = { type = "vhost_user", socket = "/tmp/nat-a.out.sock" }
  [[port]]
  name = "nat-a.mgmt"
  kind = { type = "vhost_user", socket = "/tmp/nat-a.mgmt.sock" }
  [[instance]]
  name = "nat-a"
  ports = ["nat-a.in", "nat-a.out"]
  mgmt = "nat-a.mgmt"
  link = { rate_bps = 1_000_000_000, burst_bytes = 2_500_000, delay_us = 2_500 }
  paths = ["inside", "outside"]

  $ slim-switch --control /tmp/switch.sock --config switch.toml
  $ echo '{"v":1,"id":1,"request":{"type":"status"}}' | nc -UN /tmp/switch.sock

Usually nobody types that: `slimctl` commands the switch. The log level is set by SLIM_LOG (error, warn, info, debug).

Exit codes: 0 stopped as asked, 2 bad arguments or configuration, 3 the control socket or a port cannot be had,
4 DPDK does not start."#;

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_example_in_the_help_is_a_configuration() {
        let toml = AFTER_HELP.split("switch.toml\n").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
        let config = slim_switch::config::Config::parse(toml).unwrap();
        assert_eq!((config.ports.len(), config.instances.len()), (6, 1));
    }
}

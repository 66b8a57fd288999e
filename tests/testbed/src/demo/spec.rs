//! What a demo run does: its options, which the command line, the tests and the sandboxed process share.

use clap::Args;
use serde::{Deserialize, Serialize};

/// Options of a demo run.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct DemoSpec {
    /// Load in Mbit/s: the sum of both directions, as the paper counts it (100 is 50 out and 50 back)
    #[arg(long, default_value_t = 100.0, value_name = "MBIT")]
    pub rate: f64,

    /// Size of every packet in bytes, from its Ethernet header on, without the frame check sequence
    #[arg(long, default_value_t = 512, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(80..=1514))]
    pub packet_size: u16,

    /// UDP sockets the load generator opens through the NAT, to 4 echo addresses
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=16384))]
    pub sockets: u16,

    /// Incompressible bytes added to the snapshot, to stand for a larger state; takes suffixes such as 20MB
    #[arg(long, default_value = "0", value_name = "BYTES", value_parser = parse_bytes)]
    pub snapshot_filler: u64,

    /// Seconds of traffic
    #[arg(long, default_value_t = 15, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(2..=3600))]
    pub duration: u32,

    /// Start the migration this many seconds into the traffic
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    pub migrate_at: u32,

    /// How the images run: KVM where it will work, or QEMU's emulation
    #[arg(long, default_value = "auto", value_parser = ["auto", "kvm", "tcg"])]
    pub accel: String,

    /// Run the network functions as ordinary processes instead of booting images
    #[arg(long)]
    pub process: bool,

    /// Link rate of each instance and direction in Mbit/s; more is dropped by the meter
    #[arg(long, default_value_t = 1000, value_name = "MBIT")]
    pub link_rate: u64,

    /// Burst the meter lets through, in milliseconds of the link rate
    #[arg(long, default_value_t = 20, value_name = "MS")]
    pub link_burst: u64,

    /// Delay of each instance's link per direction, in microseconds
    #[arg(long, default_value_t = 2500, value_name = "US")]
    pub link_delay: u64,

    /// Keep logs and console output in this folder
    #[arg(long, value_name = "FOLDER")]
    pub logs: Option<std::path::PathBuf>,
}

impl DemoSpec {
    /// Checks what no single option can.
    ///
    /// # Errors
    /// Says in words what does not fit.
    pub fn check(&self) -> Result<(), String> {
        if !(0.1..=10_000.0).contains(&self.rate) {
            return Err(format!("--rate {} is out of range: 0.1 to 10000 Mbit/s", self.rate));
        }
        if self.migrate_at + 1 > self.duration {
            return Err(format!(
                "--migrate-at {} leaves no time for the migration: the traffic ends after --duration {} seconds",
                self.migrate_at, self.duration
            ));
        }
        if self.link_rate == 0 || self.link_burst == 0 {
            return Err("--link-rate and --link-burst must be at least 1".into());
        }
        Ok(())
    }

    /// The meter's burst in bytes.
    pub fn link_burst_bytes(&self) -> u64 {
        self.link_rate * 1_000_000 / 8 * self.link_burst / 1_000
    }
}

impl Default for DemoSpec {
    fn default() -> Self {
        Self {
            rate: 100.0,
            packet_size: 512,
            sockets: 128,
            snapshot_filler: 0,
            duration: 15,
            migrate_at: 5,
            accel: "auto".into(),
            process: false,
            link_rate: 1000,
            link_burst: 20,
            link_delay: 2500,
            logs: None,
        }
    }
}

/// Reads a number of bytes with an optional decimal suffix: `20971520`, `512k`, `20MB`.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor = match text[digits.len()..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "kib" => 1 << 10,
        "m" | "mb" => 1_000_000,
        "mib" => 1 << 20,
        "g" | "gb" => 1_000_000_000,
        other => return Err(format!("unknown suffix {other:?}: use B, KB, KiB, MB, MiB or GB")),
    };
    let count: u64 = digits.parse().map_err(|_| format!("{text:?} is not a number of bytes"))?;
    count.checked_mul(factor).ok_or_else(|| "that many bytes do not exist".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_decimal_and_binary_suffixes() {
        assert_eq!(parse_bytes("0"), Ok(0));
        assert_eq!(parse_bytes("20MB"), Ok(20_000_000));
        assert_eq!(parse_bytes("20 MiB"), Ok(20 << 20));
        assert!(parse_bytes("20 parsecs").is_err());
        assert!(parse_bytes("MB").is_err());
        assert!(parse_bytes("99999999999999999GB").is_err());
    }

    #[test]
    fn defaults_equal_those_of_the_command_line() {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            spec: DemoSpec,
        }
        let parsed = <Cli as clap::Parser>::parse_from(["demo"]).spec;
        assert_eq!(
            serde_json::to_value(parsed).expect("serialises"),
            serde_json::to_value(DemoSpec::default()).expect("serialises")
        );
    }

    #[test]
    fn a_migration_after_the_traffic_is_refused() {
        let spec = DemoSpec { migrate_at: 15, ..DemoSpec::default() };
        assert!(spec.check().is_err());
        assert!(DemoSpec::default().check().is_ok());
    }
}

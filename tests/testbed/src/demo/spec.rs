//! What a demo run does: its options, which the command line, the tests and the sandboxed process share.

use super::MoveArguments;
use crate::load::LoadSpec;
use crate::topology::{Function, Settings};
use clap::Args;
use serde::{Deserialize, Serialize};
use slim_controller::units::parse_bytes;

/// Options of a demo run.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct DemoSpec {
    /// The load.
    #[command(flatten)]
    pub load: LoadSpec,

    /// Start the migration this many seconds into the measured traffic
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    pub migrate_at: f64,

    /// How the migration is done.
    #[command(flatten)]
    pub moving: MoveArguments,

    /// How the instances run and what link each hangs on.
    #[command(flatten)]
    pub instances: InstanceArguments,
}

/// How instances run and what link each hangs on.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct InstanceArguments {
    /// How the images run: with KVM, in QEMU's emulation, or with KVM where it will work
    #[arg(long, default_value = "auto", value_parser = ["auto", "kvm", "tcg"])]
    pub accel: String,

    /// Virtual CPUs of each image
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub vcpus: u8,

    /// Memory of each image in MiB
    #[arg(long, default_value_t = 256, value_name = "MIB", value_parser = clap::value_parser!(u32).range(64..=65536))]
    pub memory: u32,

    /// Run the network functions as ordinary processes instead of booting images
    #[arg(long, conflicts_with_all = ["vcpus", "memory", "accel"])]
    pub process: bool,

    /// Neither encrypt nor authenticate control connections and state streams, as in the paper
    #[arg(long)]
    pub plaintext: bool,

    /// Link rate of each instance and direction in Mbit/s; its meter drops what is above
    #[arg(long, default_value_t = 1000, value_name = "MBIT", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub link_rate: u64,

    /// Burst that the meter lets through, in milliseconds of the link rate
    #[arg(long, default_value_t = 20, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub link_burst: u64,

    /// Delay of each instance's link per direction, in microseconds
    #[arg(long, default_value_t = 2500, value_name = "US", value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub link_delay: u64,

    /// The size of each instance's pkt_q, where packets wait [default: the image's own]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    #[serde(default)]
    pub pkt_q_bytes: Option<u64>,
}

fn integer(value: u64) -> toml::Value {
    toml::Value::Integer(value.try_into().unwrap_or(i64::MAX))
}

impl InstanceArguments {
    /// The same for a topology with a NAT.
    pub fn settings(&self) -> Settings {
        Settings {
            function: Function::default(),
            accel: self.accel.clone(),
            vcpus: self.vcpus,
            memory_mb: self.memory,
            process: self.process,
            plaintext: self.plaintext,
            link_rate_mbit: self.link_rate,
            link_burst_ms: self.link_burst,
            link_delay_us: self.link_delay,
            keep: false,
            limits: self.pkt_q_bytes.map(|bytes| ("pkt_q_bytes".to_owned(), integer(bytes))).into_iter().collect(),
            section: toml::Table::new(),
        }
    }
}

impl Default for InstanceArguments {
    fn default() -> Self {
        Self {
            accel: "auto".into(),
            vcpus: 1,
            memory: 256,
            process: false,
            plaintext: false,
            link_rate: 1000,
            link_burst: 20,
            link_delay: 2500,
            pkt_q_bytes: None,
        }
    }
}

impl DemoSpec {
    /// The network function: the one that the load is for.
    pub fn function(&self) -> Function {
        Function::of(&self.load)
    }

    /// What the topology has to be like.
    pub fn settings(&self) -> Settings {
        Settings { function: self.function(), ..self.instances.settings() }
    }

    /// Checks what no single option can.
    ///
    /// # Errors
    /// Says in words what does not fit.
    pub fn check(&self) -> Result<(), String> {
        self.load.check().map_err(|error| error.to_string())?;
        self.moving.check()?;
        if !(0.0..self.load.duration_s - 0.5).contains(&self.migrate_at) {
            return Err(format!(
                "--migrate-at {} leaves no time for the migration: the traffic ends after --duration {} seconds",
                self.migrate_at, self.load.duration_s
            ));
        }
        Ok(())
    }
}

impl Default for DemoSpec {
    fn default() -> Self {
        Self {
            load: LoadSpec::default(),
            migrate_at: 5.0,
            moving: MoveArguments::default(),
            instances: InstanceArguments::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let spec = DemoSpec { migrate_at: 15.0, ..DemoSpec::default() };
        assert!(spec.check().is_err());
        assert!(DemoSpec::default().check().is_ok());
    }
}

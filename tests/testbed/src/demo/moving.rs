//! How a demo run migrates.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::{Deserialize, Serialize};
use slim_controller::api::MigrateOptions;
use slim_controller::units::parse_bytes;
use slim_core::protocol::{Mode, Scheduling};
use std::time::Duration;

/// How the network function is moved.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
pub struct MoveArguments {
    /// Incompressible bytes added to the snapshot, to stand for a larger state; takes suffixes such as 20MB
    #[arg(long, default_value = "0", value_name = "BYTES", value_parser = parse_bytes)]
    pub snapshot_filler: u64,

    /// How the destination's state is kept up to date; `slimctl migrate --help` explains the modes
    #[arg(long, default_value_t, value_name = "MODE", value_parser = modes())]
    pub mode: Mode,

    /// What goes first on the instances' links; `slimctl migrate --help` explains it
    #[arg(long, default_value_t, value_name = "SCHEDULING", value_parser = schedulings())]
    pub scheduling: Scheduling,

    /// How fast the snapshot is sent, in Mbit/s; 0 is as fast as TCP goes
    #[arg(long, value_name = "MBIT")]
    pub snapshot_rate: Option<u64>,

    /// Send each statelet as it was announced instead of merging those that wait
    #[arg(long)]
    pub no_coalesce: bool,

    /// Compress the statelets
    #[arg(long)]
    pub compress: bool,

    /// Ask the controller beforehand how it will go, as `slimctl migrate --plan` does
    #[arg(long)]
    pub plan: bool,

    /// Give the migration up after so many seconds
    #[arg(long, value_name = "SECONDS")]
    pub patience: Option<f64>,

    /// End the traffic so many seconds after the migration, however long --duration is
    #[arg(long, value_name = "SECONDS")]
    pub stop_after: Option<f64>,
}

impl MoveArguments {
    /// The same for the controller.
    pub fn options(&self) -> MigrateOptions {
        MigrateOptions {
            mode: self.mode,
            scheduling: self.scheduling,
            filler_bytes: self.snapshot_filler,
            snapshot_rate_mbit: self.snapshot_rate,
            no_coalesce: self.no_coalesce,
            compress: self.compress,
            ..MigrateOptions::default()
        }
    }

    /// After which time the migration is given up.
    pub fn patience(&self) -> Option<Duration> {
        self.patience.map(seconds)
    }

    /// For how long traffic goes on after the migration.
    pub fn stop_after(&self) -> Option<Duration> {
        self.stop_after.map(seconds)
    }

    /// Checks what no parser does.
    ///
    /// # Errors
    /// Says in words what is impossible.
    pub fn check(&self) -> Result<(), String> {
        for (option, value) in [("patience", self.patience), ("stop-after", self.stop_after)] {
            if value.is_some_and(|value| Duration::try_from_secs_f64(value).is_err()) {
                return Err(format!("--{option} is a number of seconds"));
            }
        }
        Ok(())
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

fn modes() -> impl TypedValueParser<Value = Mode> {
    PossibleValuesParser::new(Mode::ALL.map(Mode::name)).try_map(|name| name.parse::<Mode>())
}

fn schedulings() -> impl TypedValueParser<Value = Scheduling> {
    PossibleValuesParser::new(Scheduling::ALL.map(Scheduling::name)).try_map(|name| name.parse::<Scheduling>())
}

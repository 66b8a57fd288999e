//! How a demo run migrates.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::{Deserialize, Serialize};
use slim_controller::api::MigrateOptions;
use slim_controller::transfer::TransferArgs;
use slim_core::protocol::Mode;
use std::time::Duration;

/// How the network function is moved.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
pub struct MoveArguments {
    /// How the destination's state is kept up to date; `slimctl migrate --help` explains the modes
    #[arg(long, default_value_t, value_name = "MODE", value_parser = modes())]
    pub mode: Mode,

    /// How state is transferred; `slimctl migrate --help` explains it.
    #[command(flatten)]
    pub transfer: TransferArgs,

    /// Ask the controller beforehand how it will go, as `slimctl migrate --plan` does
    #[arg(long)]
    pub plan: bool,

    /// Migrate there and back beforehand, under little load: what emulated guests do for the first time takes them longer
    #[arg(long)]
    #[serde(default)]
    pub rehearse: bool,

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
        self.transfer.options(self.mode)
    }

    /// The same for a rehearsal: of the state that there is, without any that only fills.
    pub fn rehearsal(&self) -> MigrateOptions {
        TransferArgs { snapshot_filler: 0, ..self.transfer }.options(self.mode)
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

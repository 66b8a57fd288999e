//! How state is transferred, as options of a command line: those of `slimctl migrate`, and of whatever migrates in the same
//! way.

use crate::api::MigrateOptions;
use crate::units::parse_bytes;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::{Deserialize, Serialize};
use slim_core::protocol::{Mode, Scheduling};

/// How state is transferred.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
pub struct TransferArgs {
    /// What goes first on the instances' links
    ///
    /// dataplane-first: packets and statelets; the snapshot takes what they leave over, and a hundredth of the link in any
    /// case; packets that had to wait leave at the link's rate. best-effort: all alike, as in the paper, so that a snapshot
    /// as fast as TCP goes costs packets.
    #[arg(long, default_value_t, value_name = "SCHEDULING", value_parser = schedulings())]
    pub scheduling: Scheduling,

    /// Incompressible bytes added to the snapshot, to stand for a larger state; takes suffixes such as 20MB
    #[arg(long, default_value = "0", value_name = "BYTES", value_parser = parse_bytes)]
    pub snapshot_filler: u64,

    /// How fast the snapshot is sent, in Mbit/s; 0 is as fast as TCP goes
    /// [default: 0 with dataplane-first, a quarter of the deployment's link rate with best-effort]
    #[arg(long, value_name = "MBIT")]
    pub snapshot_rate: Option<u64>,

    /// Send each statelet as it was announced; otherwise those that a later one overwrites, or can be added to, are
    /// merged with it while both wait to be sent
    #[arg(long)]
    pub no_coalesce: bool,

    /// Compress the statelets: fewer bytes on the link for more work in both instances
    #[arg(long)]
    pub compress: bool,
}

impl TransferArgs {
    /// The same for the daemon.
    pub fn options(&self, mode: Mode) -> MigrateOptions {
        MigrateOptions {
            mode,
            scheduling: self.scheduling,
            filler_bytes: self.snapshot_filler,
            snapshot_rate_mbit: self.snapshot_rate,
            no_coalesce: self.no_coalesce,
            compress: self.compress,
            ..MigrateOptions::default()
        }
    }
}

/// The schedulings by their names.
fn schedulings() -> impl TypedValueParser<Value = Scheduling> {
    PossibleValuesParser::new(Scheduling::ALL.map(Scheduling::name)).try_map(|name| name.parse::<Scheduling>())
}

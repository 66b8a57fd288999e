//! What the image is told at its boot: its configuration and its identity.
//!
//! ```text
//! fw_cfg (our launcher, libvirt) ─┐
//!                                 ├─ configuration, identity
//! config drive (a cloud) ─────────┘  looked at only if fw_cfg has no configuration
//! ```

use super::{Error, config_drive, fw_cfg};
use slim_trust::Zeroizing;
use std::fmt;
use std::time::{Duration, Instant};

/// How often drives are looked at, as long as there is none.
const LOOK: Duration = Duration::from_millis(50);

/// What the image is told.
pub struct Handover {
    /// The configuration, in TOML.
    pub configuration: String,
    /// The identity, in PEM, if there was one.
    pub identity: Option<Zeroizing<String>>,
    /// Who told it.
    pub place: Place,
}

/// Where a handover was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// QEMU's firmware configuration device.
    FwCfg,
    /// A config drive.
    Drive(config_drive::Drive),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FwCfg => write!(f, "fw_cfg ({})", fw_cfg::CONFIG),
            Self::Drive(drive) => drive.fmt(f),
        }
    }
}

/// Takes the handover from where it is. Waits for a config drive up to `patience`, if there is nothing else.
///
/// # Errors
/// There is none, or a config drive cannot be used.
pub fn receive(patience: Duration) -> Result<Handover, Error> {
    if let Some(configuration) = fw_cfg::configuration()? {
        return Ok(Handover { configuration, identity: fw_cfg::identity()?, place: Place::FwCfg });
    }
    let deadline = Instant::now() + patience;
    loop {
        match config_drive::find()? {
            config_drive::Found::Drive(drive) => {
                let (configuration, identity) = config_drive::read(&drive)?;
                return Ok(Handover { configuration, identity, place: Place::Drive(drive) });
            }
            config_drive::Found::None { .. } if Instant::now() < deadline => std::thread::sleep(LOOK),
            config_drive::Found::None { seen } => return Err(Error::NoConfiguration { drives: seen }),
        }
    }
}

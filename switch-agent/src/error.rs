//! Why a change of the switch's topology is refused.

use slim_core::protocol::control::{ControlError, ErrorCode};
use slim_core::protocol::{MigrationId, Name, Nonce};

/// A refused change. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// There is no port of this name.
    #[error("there is no port named {0}")]
    NoSuchPort(Name),
    /// There is no instance of this name.
    #[error("there is no instance named {0}")]
    NoSuchInstance(Name),
    /// There is a port of this name already.
    #[error("there is a port named {0} already")]
    PortExists(Name),
    /// There is an instance of this name already, with other ports.
    #[error("there is an instance named {0} already, with other ports")]
    InstanceExists(Name),
    /// The port cannot be used for this because it is in use.
    #[error("port {port} is in use: {by}")]
    PortInUse {
        /// The port.
        port: Name,
        /// By what, in words.
        by: String,
    },
    /// One request names a port twice.
    #[error("port {0} is named twice")]
    PortTwice(Name),
    /// The instance still has paths.
    #[error("paths lead to instance {0}")]
    InstanceInUse(Name),
    /// Fewer or more external ports than the instance has dataplane ports.
    #[error("instance {instance} has {ports} dataplane ports, {externals} external ports were given")]
    PortCount {
        /// The instance.
        instance: Name,
        /// How many it has.
        ports: usize,
        /// How many were given.
        externals: usize,
    },
    /// The two instances of a redirect do not have the same number of dataplane ports.
    #[error("{from} and {to} do not have the same dataplane ports")]
    PortsDiffer {
        /// The first instance.
        from: Name,
        /// The second.
        to: Name,
    },
    /// A redirect from an instance to itself.
    #[error("cannot redirect {0} to itself")]
    SameInstance(Name),
    /// A redirect of an instance that has no paths.
    #[error("no path leads to {0}")]
    NoPaths(Name),
    /// A redirect to an instance that has paths already.
    #[error("paths lead to {0} already")]
    HasPaths(Name),
    /// The instance's packets are being held until another one has handed back what it holds.
    #[error("a rollback to {0} is not finished")]
    RollbackUnfinished(Name),
    /// The nonce has been used in this migration for something else.
    #[error("nonce {nonce} of migration {migration} has been used for another redirect")]
    NonceReused {
        /// The migration.
        migration: MigrationId,
        /// The nonce.
        nonce: Nonce,
    },
    /// An instance has no, or too many, dataplane ports.
    #[error("an instance has 1 to {max} dataplane ports, not {0}", max = slim_core::nf::PORTS_MAX)]
    InstancePorts(usize),
    /// The bucket is larger than a meter can hold.
    #[error("a burst is at most {max} bytes", max = crate::meter::MeterLimits::BURST_BYTES_MAX)]
    BurstTooLarge,
    /// A metered link whose bucket would never hold a packet.
    #[error("a metered link needs a burst of at least {min} bytes, the longest frame", min = BURST_BYTES_MIN)]
    BurstTooSmall,
    /// The switch has as many ports or instances as it can have.
    #[error("at most {0} ports and as many instances")]
    Limit(usize),
}

/// The smallest burst of a metered link: a frame of 1600 bytes can always pass some day.
pub const BURST_BYTES_MIN: u64 = 1600;

impl TopologyError {
    /// The code that tells programs about it.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoSuchPort(_) | Self::NoSuchInstance(_) | Self::NoPaths(_) => ErrorCode::NotFound,
            Self::PortExists(_) | Self::InstanceExists(_) | Self::NonceReused { .. } => ErrorCode::AlreadyExists,
            Self::PortInUse { .. } | Self::InstanceInUse(_) | Self::HasPaths(_) | Self::RollbackUnfinished(_) => {
                ErrorCode::Busy
            }
            Self::PortsDiffer { .. } => ErrorCode::Incompatible,
            Self::PortTwice(_)
            | Self::PortCount { .. }
            | Self::SameInstance(_)
            | Self::InstancePorts(_)
            | Self::BurstTooLarge
            | Self::BurstTooSmall => ErrorCode::Malformed,
            Self::Limit(_) => ErrorCode::Limit,
        }
    }
}

impl From<TopologyError> for ControlError {
    fn from(error: TopologyError) -> Self {
        Self::with(error.code(), error.to_string())
    }
}

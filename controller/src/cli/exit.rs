//! Exit statuses: a promise to scripts, written down in `--help`.

use slim_controller::api::{MigrationOutcome, MigrationResult};
use slim_controller::client::ClientError;
use slim_controller::precopy::PrecopyOutcome;
use slim_core::protocol::control::ErrorCode;
use std::process::ExitCode;

/// What slimctl ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    NoDaemon = 3,
    NotFound = 4,
    Refused = 5,
    RolledBack = 6,
    Unresolved = 7,
    DigestsDiffer = 8,
    NeverEnds = 9,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Exit {
    /// For a failure at the daemon or on the way there.
    pub fn of_error(error: &anyhow::Error) -> Self {
        match error.downcast_ref::<ClientError>() {
            Some(ClientError::NotRunning { .. }) => Self::NoDaemon,
            Some(ClientError::Refused(refusal)) => match refusal.code {
                ErrorCode::NotFound | ErrorCode::UnknownMigration => Self::NotFound,
                ErrorCode::Busy
                | ErrorCode::WrongRole
                | ErrorCode::AlreadyExists
                | ErrorCode::Committed
                | ErrorCode::Incompatible
                | ErrorCode::Limit => Self::Refused,
                ErrorCode::Malformed
                | ErrorCode::UnsupportedVersion
                | ErrorCode::Io
                | ErrorCode::Unsupported
                | ErrorCode::Internal
                | ErrorCode::Other => Self::Failed,
            },
            Some(ClientError::Lost(_) | ClientError::Malformed(_)) | None => Self::Failed,
        }
    }

    /// For a guest that was to be moved.
    pub fn of_precopy(outcome: &PrecopyOutcome) -> Self {
        if outcome.failure.is_some() { Self::RolledBack } else { Self::Done }
    }

    /// For a migration that is over.
    pub fn of_migration(outcome: &MigrationOutcome) -> Self {
        match outcome.result() {
            MigrationResult::Completed if outcome.digests_equal() == Some(true) => Self::Done,
            MigrationResult::Completed => Self::DigestsDiffer,
            MigrationResult::RolledBack => Self::RolledBack,
            MigrationResult::Unresolved | MigrationResult::Running => Self::Unresolved,
        }
    }
}

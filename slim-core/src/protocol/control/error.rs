//! Why a request was refused.

use crate::protocol::Text;
use alloc::string::String;
use serde::{Deserialize, Serialize};

/// The kind of refusal, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The line is not a request, or one of its fields is not acceptable.
    Malformed,
    /// The protocol version is not spoken here.
    UnsupportedVersion,
    /// The instance's role does not allow it.
    WrongRole,
    /// Another migration, or the rest of one, is in the way.
    Busy,
    /// The request names a migration this party knows nothing of.
    UnknownMigration,
    /// Kind, schema, version or shards do not match.
    Incompatible,
    /// The commit point has been passed; there is no way back.
    Committed,
    /// The named port, instance or path does not exist.
    NotFound,
    /// The name is taken by something different.
    AlreadyExists,
    /// A bound, such as the number of ports, has been reached.
    Limit,
    /// The operating system or a device refused.
    Io,
    /// Not offered by this party.
    Unsupported,
    /// A mistake on this side.
    Internal,
    /// A code this version does not know.
    #[serde(other)]
    Other,
}

/// A refusal: a code for programs, words for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[serde(deny_unknown_fields)]
pub struct ControlError {
    /// The kind of refusal.
    pub code: ErrorCode,
    /// The detail.
    pub message: Text,
}

impl ControlError {
    /// A refusal with its detail.
    pub fn new(code: ErrorCode, message: impl Into<Text>) -> Self {
        Self { code, message: message.into() }
    }

    /// A refusal worded by `message`, for the common case of `format!`.
    pub fn with(code: ErrorCode, message: String) -> Self {
        Self { code, message: message.into() }
    }
}

//! What the machines have to know to begin.

use crate::protocol::control::{PrepareOptions, StartOptions};
use crate::protocol::{MigrationId, Name, Nonce, PathSet, Schema};
use core::net::SocketAddr;

/// What a source has to know to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceParameters {
    /// The migration.
    pub migration: MigrationId,
    /// The kind of network function.
    pub kind: Name,
    /// Its schema.
    pub schema: Schema,
    /// The number of shards, at least 1.
    pub shards: u16,
    /// Where the destination listens.
    pub destination: SocketAddr,
    /// The paths to be drained.
    pub paths: PathSet,
    /// The nonce their drain packets carry.
    pub nonce: Nonce,
    /// Everything else.
    pub options: StartOptions,
}

/// What a destination has to know to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationParameters {
    /// The migration.
    pub migration: MigrationId,
    /// The kind of network function.
    pub kind: Name,
    /// Its schema.
    pub schema: Schema,
    /// The number of shards, at least 1.
    pub shards: u16,
    /// Everything else.
    pub options: PrepareOptions,
}

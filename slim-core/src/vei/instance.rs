//! The VEI as a whole: an instance's role, and the migration it takes part in.

use super::action::{Action, Event, LcoreCommand, LcoreEvent, VeiError};
use super::{Destination, DestinationParameters, Source, SourceParameters};
use crate::nf::ShardId;
use crate::protocol::control::{
    ControlError, ErrorCode, InstanceRequest, InstanceRole, MigrationStatus, PrepareOptions, ResolveOutcome,
    SAMPLE_MS_MAX, StartOptions,
};
use crate::protocol::stream::{Handshake, HandshakeReply, Rejection};
use crate::protocol::{MigrationId, Name, Nonce, PathSet, Schema, Text};
use crate::time::Instant;
use alloc::collections::VecDeque;
use alloc::format;
use core::net::SocketAddr;
use heapless::HistoryBuf;

/// What an instance is, for as long as it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The kind of network function.
    pub kind: Name,
    /// Its schema.
    pub schema: Schema,
    /// The number of shards, at least 1.
    pub shards: u16,
}

/// What a request came to, as far as the VEI answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handled {
    /// Answer with [`InstanceReply::Done`](crate::protocol::control::InstanceReply::Done).
    Done,
    /// `describe`, `status`, `renew_identity` and `shutdown` are the driver's, which knows addresses, counters, keys and
    /// the machine.
    ByDriver,
}

/// The VEI of one instance: takes requests and events, yields [actions](Action).
///
/// ```text
/// idle ─ activate ─► live ─ start ─► source ──► released ─ reset ─► idle
///   │                 ▲ ▲              │
///   │                 │ └── rollback ──┘
///   └ prepare ► destination ── abort ──► discarded ─ reset ─► idle
/// ```
///
/// It keeps the last migration until the next one begins, so that a controller that was away can read how it ended.
///
/// Order of calls: [`request`](Self::request), [`accept`](Self::accept), [`handle`](Self::handle) and
/// [`handle_timeout`](Self::handle_timeout) in any order; after each, carry out every
/// [`poll_action`](Self::poll_action) and ask [`poll_timeout`](Self::poll_timeout) again.
#[derive(Debug)]
pub struct Instance {
    identity: Identity,
    /// The role outside of migrations; a migration in progress has a role of its own.
    settled: InstanceRole,
    migration: Option<Migration>,
    /// The migrations that began here last. A request that comes late must not begin one of them again.
    begun: HistoryBuf<MigrationId, REMEMBERED>,
    actions: VecDeque<Action>,
}

/// How many migrations are remembered: more than a control connection's delayed requests can belong to.
const REMEMBERED: usize = 32;

#[derive(Debug)]
enum Migration {
    Source(Source),
    Destination(Destination),
}

impl Migration {
    fn id(&self) -> MigrationId {
        match self {
            Self::Source(source) => source.parameters().migration,
            Self::Destination(destination) => destination.parameters().migration,
        }
    }

    fn role(&self) -> InstanceRole {
        match self {
            Self::Source(source) => source.role(),
            Self::Destination(destination) => destination.role(),
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Self::Source(source) => source.is_over(),
            Self::Destination(destination) => destination.is_over(),
        }
    }
}

impl Instance {
    /// An idle instance.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            settled: InstanceRole::Idle,
            migration: None,
            begun: HistoryBuf::new(),
            actions: VecDeque::new(),
        }
    }

    /// The present role.
    pub fn role(&self) -> InstanceRole {
        self.settled
    }

    /// The migration in progress as a source, for its handshakes and options.
    pub fn source(&self) -> Option<&Source> {
        match &self.migration {
            Some(Migration::Source(source)) => Some(source),
            Some(Migration::Destination(_)) | None => None,
        }
    }

    /// The migration in progress as a destination.
    pub fn destination(&self) -> Option<&Destination> {
        match &self.migration {
            Some(Migration::Destination(destination)) => Some(destination),
            Some(Migration::Source(_)) | None => None,
        }
    }

    /// The present or last migration.
    pub fn migration_status(&self, now: Instant) -> Option<MigrationStatus> {
        match &self.migration {
            Some(Migration::Source(source)) => Some(source.status(now)),
            Some(Migration::Destination(destination)) => Some(destination.status(now)),
            None => None,
        }
    }

    /// Does what the controller asks for, or says why not. Repeating a request changes nothing.
    ///
    /// # Errors
    /// The refusal to be sent back; nothing has changed then.
    pub fn request(&mut self, now: Instant, request: &InstanceRequest) -> Result<Handled, ControlError> {
        match request {
            InstanceRequest::Describe {}
            | InstanceRequest::Status {}
            | InstanceRequest::Config {}
            | InstanceRequest::Subscribers { .. }
            | InstanceRequest::RenewIdentity { .. }
            | InstanceRequest::Shutdown {} => return Ok(Handled::ByDriver),
            InstanceRequest::Sample { duration_ms } => {
                self.check_sample(*duration_ms)?;
                return Ok(Handled::ByDriver);
            }
            InstanceRequest::Activate {} => self.activate()?,
            InstanceRequest::Prepare { migration, kind, schema, shards, options } => {
                let peer = Identity { kind: kind.clone(), schema: *schema, shards: *shards };
                self.prepare(now, *migration, &peer, options)?;
            }
            InstanceRequest::Start { migration, destination, paths, nonce, options } => {
                self.start(now, *migration, *destination, *paths, *nonce, options)?;
            }
            InstanceRequest::Abort { migration, reason, hand_back } => {
                self.abort(now, *migration, reason, *hand_back)?;
            }
            InstanceRequest::Resolve { migration, outcome } => self.resolve(now, *migration, *outcome)?,
            InstanceRequest::Reset {} => self.reset()?,
        }
        self.settle();
        Ok(Handled::Done)
    }

    /// Answers a stream's handshake.
    ///
    /// # Errors
    /// Why the stream is refused, to be sent to the peer.
    pub fn accept(&mut self, now: Instant, handshake: &Handshake) -> HandshakeReply {
        let reply = match &mut self.migration {
            Some(Migration::Destination(destination)) => destination.accept(now, handshake),
            Some(Migration::Source(_)) | None => Err(Rejection::Migration),
        };
        self.settle();
        reply
    }

    /// Takes note of what an lcore or stream reports.
    ///
    /// # Errors
    /// If it cannot happen now; nothing has changed then. The driver logs and counts it.
    pub fn handle(&mut self, now: Instant, event: Event) -> Result<(), VeiError> {
        let result = match (&mut self.migration, event) {
            (Some(Migration::Source(source)), event) => source.handle(now, event),
            (Some(Migration::Destination(destination)), event) => destination.handle(now, event),
            // A switch that was restarted may still drain for a migration that this instance has forgotten.
            (None, Event::Lcore { event: LcoreEvent::Drain(_), .. }) => Ok(()),
            (None, Event::Lcore { event, .. }) => Err(VeiError::NoMigration(event.name())),
            (None, Event::Stream { event, .. }) => Err(VeiError::NoMigration(event.name())),
            (None, Event::Digest { .. }) => Err(VeiError::NoMigration("digest")),
        };
        self.settle();
        result
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.migration {
            Some(Migration::Source(source)) => source.poll_timeout(),
            Some(Migration::Destination(destination)) => destination.poll_timeout(),
            None => None,
        }
    }

    /// Lets a time-out strike if one is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.migration {
            Some(Migration::Source(source)) => source.handle_timeout(now),
            Some(Migration::Destination(destination)) => destination.handle_timeout(now),
            None => {}
        }
        self.settle();
    }

    fn check_sample(&self, duration_ms: u32) -> Result<(), ControlError> {
        match self.role() {
            InstanceRole::Live if duration_ms > SAMPLE_MS_MAX => {
                let message = format!("a sample takes at most {SAMPLE_MS_MAX} ms");
                Err(ControlError::with(ErrorCode::Malformed, message))
            }
            InstanceRole::Live => Ok(()),
            role => Err(wrong_role("sample", role)),
        }
    }

    fn activate(&mut self) -> Result<(), ControlError> {
        match self.role() {
            InstanceRole::Idle => {
                self.migration = None;
                self.settled = InstanceRole::Live;
                self.lcores(LcoreCommand::Activate);
                Ok(())
            }
            InstanceRole::Live => Ok(()),
            role @ (InstanceRole::Source
            | InstanceRole::Released
            | InstanceRole::Destination
            | InstanceRole::Discarded) => Err(wrong_role("activate", role)),
        }
    }

    fn prepare(
        &mut self,
        now: Instant,
        migration: MigrationId,
        peer: &Identity,
        options: &PrepareOptions,
    ) -> Result<(), ControlError> {
        if let Some(Migration::Destination(destination)) = &self.migration
            && destination.parameters().migration == migration
            && !destination.is_over()
        {
            return Ok(());
        }
        self.require_new(migration)?;
        if self.role() != InstanceRole::Idle {
            return Err(wrong_role("prepare", self.role()));
        }
        compare(peer, &self.identity)?;
        let parameters = DestinationParameters {
            migration,
            kind: self.identity.kind.clone(),
            schema: self.identity.schema,
            shards: self.identity.shards,
            options: options.clone(),
        };
        self.begun.write(migration);
        self.migration = Some(Migration::Destination(Destination::new(now, parameters)));
        Ok(())
    }

    fn start(
        &mut self,
        now: Instant,
        migration: MigrationId,
        destination: SocketAddr,
        paths: PathSet,
        nonce: Nonce,
        options: &StartOptions,
    ) -> Result<(), ControlError> {
        let parameters = SourceParameters {
            migration,
            kind: self.identity.kind.clone(),
            schema: self.identity.schema,
            shards: self.identity.shards,
            destination,
            paths,
            nonce,
            options: options.clone(),
        };
        if let Some(Migration::Source(source)) = &self.migration
            && *source.parameters() == parameters
            && !source.is_over()
        {
            return Ok(());
        }
        self.require_new(migration)?;
        if self.role() != InstanceRole::Live {
            return Err(wrong_role("start", self.role()));
        }
        if paths.is_empty() {
            return Err(ControlError::new(ErrorCode::Malformed, "without a path to be drained there is no end"));
        }
        if let Some(last) = self.migration.as_ref().filter(|last| !last.is_over()) {
            let message = format!("migration {} is not finished yet", last.id());
            return Err(ControlError::new(ErrorCode::Busy, message));
        }
        self.begun.write(migration);
        self.migration = Some(Migration::Source(Source::new(now, parameters)));
        Ok(())
    }

    fn abort(
        &mut self,
        now: Instant,
        migration: MigrationId,
        reason: &Text,
        hand_back: Option<Nonce>,
    ) -> Result<(), ControlError> {
        match self.require_known(migration)? {
            Migration::Source(source) => source.abort(now, reason),
            Migration::Destination(destination) => destination.abort(now, reason, hand_back),
        }
        .map_err(refusal)
    }

    fn resolve(&mut self, now: Instant, migration: MigrationId, outcome: ResolveOutcome) -> Result<(), ControlError> {
        match self.require_known(migration)? {
            Migration::Source(source) => source.resolve(now, outcome).map_err(refusal),
            Migration::Destination(_) => Err(wrong_role("resolve", self.role())),
        }
    }

    fn reset(&mut self) -> Result<(), ControlError> {
        match self.role() {
            InstanceRole::Idle => Ok(()),
            InstanceRole::Released | InstanceRole::Discarded => {
                if let Some(last) = self.migration.as_ref().filter(|last| !last.is_over()) {
                    let message = format!("migration {} is not finished yet", last.id());
                    return Err(ControlError::new(ErrorCode::Busy, message));
                }
                self.migration = None;
                self.settled = InstanceRole::Idle;
                self.lcores(LcoreCommand::Reset);
                Ok(())
            }
            role @ (InstanceRole::Live | InstanceRole::Source | InstanceRole::Destination) => {
                Err(wrong_role("reset", role))
            }
        }
    }

    /// A migration's id is used once: a late repetition must not begin it again.
    fn require_new(&self, migration: MigrationId) -> Result<(), ControlError> {
        if self.begun.as_slice().contains(&migration) {
            let message = format!("migration {migration} has begun otherwise, or is over");
            return Err(ControlError::new(ErrorCode::Busy, message));
        }
        Ok(())
    }

    fn require_known(&mut self, migration: MigrationId) -> Result<&mut Migration, ControlError> {
        self.migration
            .as_mut()
            .filter(|known| known.id() == migration)
            .ok_or_else(|| ControlError::new(ErrorCode::UnknownMigration, format!("no migration {migration} here")))
    }

    /// Takes over what the migration's machine wants done and the role it has come to.
    fn settle(&mut self) {
        let Some(migration) = &mut self.migration else { return };
        self.settled = migration.role();
        let next = || match migration {
            Migration::Source(source) => source.poll_action(),
            Migration::Destination(destination) => destination.poll_action(),
        };
        self.actions.extend(core::iter::from_fn(next));
    }

    fn lcores(&mut self, command: LcoreCommand) {
        for id in 0..self.identity.shards.max(1) {
            self.actions.push_back(Action::Lcore { shard: ShardId(id), command });
        }
    }
}

/// Whether two instances can exchange state.
///
/// # Errors
/// What differs.
pub fn compare(source: &Identity, destination: &Identity) -> Result<(), ControlError> {
    let message = if source.kind != destination.kind {
        format!("src_inst is of kind {}, dst_inst of kind {}", source.kind, destination.kind)
    } else if source.schema != destination.schema {
        format!("src_inst has schema {}, dst_inst has schema {}", source.schema, destination.schema)
    } else if source.shards != destination.shards {
        format!("src_inst has {} shards, dst_inst has {}", source.shards, destination.shards)
    } else {
        return Ok(());
    };
    Err(ControlError::new(ErrorCode::Incompatible, message))
}

fn wrong_role(request: &str, role: InstanceRole) -> ControlError {
    ControlError::new(ErrorCode::WrongRole, format!("cannot {request} in role {role}"))
}

fn refusal(error: VeiError) -> ControlError {
    let code = match error {
        VeiError::Committed => ErrorCode::Committed,
        VeiError::NotCommitted => ErrorCode::WrongRole,
        VeiError::UnknownShard(_) | VeiError::Unexpected { .. } | VeiError::NoMigration(_) => ErrorCode::Internal,
    };
    ControlError::new(code, format!("{error}"))
}

#[cfg(test)]
mod tests;

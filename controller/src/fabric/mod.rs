//! The network between the outside world and the instances, whoever provides it.
//!
//! [`Fabric`] is what the controller needs of a network: ports for instances, paths, an atomic redirect with drain
//! packets, and reading all of that back. [`SwitchAgent`] is our own software switch; another, such as Open vSwitch, can
//! stand in its place.

mod switch;

pub use switch::SwitchAgent;

use crate::peer::{CallError, PeerEvent};
use slim_core::protocol::control::{
    InstancePaths, LinkSettings, PortKind, RedirectState, SwitchEvent, SwitchReply, SwitchRequest, SwitchStatus,
};
use slim_core::protocol::{MigrationId, Name};

/// Why the fabric did not do as it was told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the switch: {action}: {source}")]
pub struct FabricError {
    /// What was wanted.
    pub action: String,
    /// What came instead.
    pub source: CallError,
}

/// An instance to be plugged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plug {
    /// Its name.
    pub instance: Name,
    /// Its dataplane ports, in the network function's order, each with what is behind it.
    pub ports: Vec<(Name, PortKind)>,
    /// Its management port; `None` if it is reached by other means.
    pub management: Option<(Name, PortKind)>,
    /// The link all its traffic passes.
    pub link: LinkSettings,
}

/// What a [`Fabric::request`] came to, told once.
pub type OnFabricAnswer = Box<dyn FnOnce(Result<SwitchReply, CallError>) + Send>;

/// Is told what happens in the fabric until it returns `false`.
pub type FabricSubscriber = Box<dyn FnMut(PeerEvent<SwitchEvent>) -> bool + Send>;

/// A network that instances can be plugged into.
///
/// Everything may be repeated: asking for what already is so succeeds.
pub trait Fabric: Send + Sync {
    /// Opens a port to the outside world.
    ///
    /// # Errors
    /// The fabric refuses or cannot be reached; so for all methods here.
    fn add_external(&self, name: &Name, kind: &PortKind) -> Result<(), FabricError>;

    /// Closes such a port, or one that nothing uses any more. Nothing to do if there is none.
    fn remove_external(&self, name: &Name) -> Result<(), FabricError>;

    /// Puts a port behind an instance's link, for the machine that it runs on; `None` takes it away again.
    fn set_host_port(&self, instance: &Name, port: Option<&Name>) -> Result<(), FabricError>;

    /// Says which external ports belong to the management segment.
    fn set_management(&self, ports: &[Name]) -> Result<(), FabricError>;

    /// Makes an instance's ports and declares the instance. Undoes what it began if it fails half-way.
    fn plug(&self, plug: &Plug) -> Result<(), FabricError>;

    /// Takes an instance's ports away. Nothing to do for an instance that is not plugged in.
    fn unplug(&self, instance: &Name) -> Result<(), FabricError>;

    /// Binds an instance's ports, in order, to external ports in both directions; to nothing if there are none.
    fn bind(&self, instance: &Name, externals: &[Name]) -> Result<(), FabricError>;

    /// Every instance plugged in, with its paths.
    fn paths(&self) -> Result<Vec<InstancePaths>, FabricError>;

    /// Counters and all else that changes.
    fn status(&self) -> Result<SwitchStatus, FabricError>;

    /// The last redirect of a migration, if the fabric knows one.
    fn redirect_state(&self, migration: MigrationId) -> Result<Option<RedirectState>, FabricError>;

    /// Carries out a request of a migration; does not wait for the answer.
    fn request(&self, request: SwitchRequest, on_answer: OnFabricAnswer);

    /// Calls `subscriber` for every event from now on. It must only pass them on.
    fn subscribe(&self, subscriber: FabricSubscriber);

    /// Whether the fabric can be reached at present.
    fn is_up(&self) -> bool;
}

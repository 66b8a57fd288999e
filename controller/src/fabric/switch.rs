//! The switch agent as a fabric.

use super::{Fabric, FabricError, FabricSubscriber, OnFabricAnswer, Plug};
use crate::peer::{CallError, Endpoint, SwitchPeer, Trust};
use slim_core::protocol::control::{
    ErrorCode, InstancePaths, PortKind, RedirectState, SwitchReply, SwitchRequest, SwitchStatus,
};
use slim_core::protocol::{MigrationId, Name};
use slim_trust::{Expected, Role, Security};
use std::time::Duration;

/// How long the switch may take. Opening a port is the slowest it does.
const LIMIT: Duration = Duration::from_secs(10);

/// Our software switch, through its control socket.
pub struct SwitchAgent {
    peer: SwitchPeer,
}

impl SwitchAgent {
    /// Starts to connect to the switch at `endpoint`, and again after every break. Over TCP it is encrypted as `security`
    /// says.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn new(endpoint: Endpoint, security: Security) -> std::io::Result<Self> {
        let trust = Trust { security, expected: Expected::any(Role::Switch), late: Duration::ZERO };
        Ok(Self { peer: SwitchPeer::new(endpoint, trust)? })
    }

    /// Waits until the switch can be reached, for `limit` at most.
    ///
    /// # Errors
    /// Says why it cannot.
    pub fn wait_up(&self, limit: Duration) -> Result<(), FabricError> {
        let action = || "no answer; is `slim-switch` running?".to_owned();
        self.peer.wait_up(limit);
        self.peer
            .call(SwitchRequest::PathList {}, limit)
            .map(drop)
            .map_err(|source| FabricError { action: action(), source })
    }

    fn call<T>(
        &self,
        action: impl FnOnce() -> String,
        request: SwitchRequest,
        expected: impl FnOnce(SwitchReply) -> Option<T>,
    ) -> Result<T, FabricError> {
        self.peer
            .call(request, LIMIT)
            .and_then(|reply| expected(reply).ok_or_else(|| self.peer.unexpected()))
            .map_err(|source| FabricError { action: action(), source })
    }

    fn done(&self, action: impl FnOnce() -> String, request: SwitchRequest) -> Result<(), FabricError> {
        self.call(action, request, |reply| matches!(reply, SwitchReply::Done {}).then_some(()))
    }

    fn add_port(&self, name: &Name, kind: &PortKind) -> Result<(), FabricError> {
        let request = SwitchRequest::PortAdd { name: name.clone(), kind: kind.clone() };
        self.done(|| format!("cannot open port {}", name.as_str()), request)
    }

    fn remove_port(&self, name: &Name) -> Result<(), FabricError> {
        self.done(|| format!("cannot close port {}", name.as_str()), SwitchRequest::PortRemove { name: name.clone() })
            .or_else(absent)
    }

    fn try_plug(&self, plug: &Plug) -> Result<(), FabricError> {
        for (name, kind) in plug.ports.iter().chain(&plug.management) {
            self.add_port(name, kind)?;
        }
        let request = SwitchRequest::InstanceAdd {
            name: plug.instance.clone(),
            ports: plug.ports.iter().map(|(name, _)| name.clone()).collect(),
            mgmt: plug.management.as_ref().map(|(name, _)| name.clone()),
            link: plug.link,
        };
        self.done(|| format!("cannot plug in {}", plug.instance.as_str()), request)
    }

    fn remove_instance(&self, instance: &Name) -> Result<(), FabricError> {
        let request = SwitchRequest::InstanceRemove { name: instance.clone() };
        self.done(|| format!("cannot unplug {}", instance.as_str()), request).or_else(absent)
    }
}

/// What is not there need not be removed.
fn absent(error: FabricError) -> Result<(), FabricError> {
    match &error.source {
        CallError::Refused(refusal) if refusal.code == ErrorCode::NotFound => Ok(()),
        _ => Err(error),
    }
}

impl Fabric for SwitchAgent {
    fn add_external(&self, name: &Name, kind: &PortKind) -> Result<(), FabricError> {
        self.add_port(name, kind)
    }

    fn remove_external(&self, name: &Name) -> Result<(), FabricError> {
        self.remove_port(name)
    }

    fn set_host_port(&self, instance: &Name, port: Option<&Name>) -> Result<(), FabricError> {
        let request = SwitchRequest::HostPortSet { instance: instance.clone(), port: port.cloned() };
        self.done(|| format!("cannot set the host port of {instance}"), request).or_else(absent)
    }

    fn set_management(&self, ports: &[Name]) -> Result<(), FabricError> {
        let request = SwitchRequest::ManagementSet { ports: ports.to_vec() };
        self.done(|| "cannot set up the management segment".to_owned(), request)
    }

    fn plug(&self, plug: &Plug) -> Result<(), FabricError> {
        self.try_plug(plug).inspect_err(|_| {
            // The first failure is what has to be told; what cannot be undone either stays until the next attempt.
            let _ = self.remove_instance(&plug.instance);
            for (name, _) in plug.ports.iter().chain(&plug.management) {
                let _ = self.remove_port(name);
            }
        })
    }

    fn unplug(&self, instance: &Name) -> Result<(), FabricError> {
        let Some(known) = self.paths()?.into_iter().find(|known| known.instance == *instance) else { return Ok(()) };
        if !known.paths.is_empty() {
            self.bind(instance, &[])?;
        }
        self.remove_instance(instance)?;
        known.ports.iter().chain(&known.mgmt).try_for_each(|port| self.remove_port(port))
    }

    fn bind(&self, instance: &Name, externals: &[Name]) -> Result<(), FabricError> {
        let request = SwitchRequest::PathsSet { instance: instance.clone(), externals: externals.to_vec() };
        self.done(|| format!("cannot set the paths of {}", instance.as_str()), request)
    }

    fn paths(&self) -> Result<Vec<InstancePaths>, FabricError> {
        self.call(
            || "cannot list paths".to_owned(),
            SwitchRequest::PathList {},
            |reply| match reply {
                SwitchReply::Paths { instances } => Some(instances),
                _ => None,
            },
        )
    }

    fn status(&self) -> Result<SwitchStatus, FabricError> {
        self.call(
            || "cannot tell its status".to_owned(),
            SwitchRequest::Status {},
            |reply| match reply {
                SwitchReply::Status { status } => Some(*status),
                _ => None,
            },
        )
    }

    fn redirect_state(&self, migration: MigrationId) -> Result<Option<RedirectState>, FabricError> {
        let request = SwitchRequest::RedirectStatus { migration };
        self.call(
            || format!("cannot tell about migration {migration}"),
            request,
            |reply| match reply {
                SwitchReply::Redirect { state } => Some(state),
                _ => None,
            },
        )
    }

    fn request(&self, request: SwitchRequest, on_answer: OnFabricAnswer) {
        self.peer.send(request, on_answer);
    }

    fn subscribe(&self, subscriber: FabricSubscriber) {
        self.peer.subscribe(subscriber);
    }

    fn is_up(&self) -> bool {
        self.peer.is_up()
    }
}

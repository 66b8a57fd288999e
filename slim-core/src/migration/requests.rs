//! What the coordinator says to whom for each of its purposes.

use super::coordinator::{Coordinator, Purpose, Redirect};
use crate::protocol::Text;
use crate::protocol::control::{InstanceRequest, MigrationRole, PrepareOptions, StartOptions, SwitchRequest};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

/// A request and whom it is for.
pub(super) enum Wanted {
    Instance(MigrationRole, InstanceRequest),
    Switch(SwitchRequest),
}

impl Coordinator {
    /// The request for `purpose`, the same each time it is made.
    pub(super) fn request(&mut self, purpose: Purpose) -> Wanted {
        let parameters = &self.parameters;
        let migration = parameters.migration;
        match purpose {
            Purpose::Describe(role) => Wanted::Instance(role, InstanceRequest::Describe {}),
            Purpose::Status(role) => Wanted::Instance(role, InstanceRequest::Status {}),
            Purpose::SourceRole => Wanted::Instance(MigrationRole::Source, InstanceRequest::Status {}),
            Purpose::Prepare => {
                self.known.destination.asked = true;
                Wanted::Instance(MigrationRole::Destination, self.prepare_request())
            }
            Purpose::Start => {
                self.known.source.asked = true;
                Wanted::Instance(MigrationRole::Source, self.start_request())
            }
            Purpose::AbortSource => Wanted::Instance(
                MigrationRole::Source,
                InstanceRequest::Abort { migration, reason: self.reason(), hand_back: None },
            ),
            Purpose::AbortDestination => {
                let redirected = self.known.redirect != Redirect::NotAsked;
                let hand_back = redirected.then(|| parameters.rollback_nonce());
                let request = InstanceRequest::Abort { migration, reason: self.reason(), hand_back };
                Wanted::Instance(MigrationRole::Destination, request)
            }
            Purpose::Resolve(outcome) => {
                Wanted::Instance(MigrationRole::Source, InstanceRequest::Resolve { migration, outcome })
            }
            Purpose::PathList => Wanted::Switch(SwitchRequest::PathList {}),
            Purpose::RedirectStatus => Wanted::Switch(SwitchRequest::RedirectStatus { migration }),
            Purpose::Redirect => {
                if self.known.redirect == Redirect::NotAsked {
                    self.known.redirect = Redirect::Unknown;
                }
                Wanted::Switch(SwitchRequest::Redirect {
                    migration,
                    from: parameters.source.clone(),
                    to: parameters.destination.clone(),
                    nonce: parameters.nonce,
                    rollback: false,
                    hold_ms: 0,
                })
            }
            Purpose::RedirectBack => Wanted::Switch(SwitchRequest::Redirect {
                migration,
                from: parameters.destination.clone(),
                to: parameters.source.clone(),
                nonce: parameters.rollback_nonce(),
                rollback: true,
                hold_ms: parameters.timeouts.hold_ms,
            }),
        }
    }

    fn reason(&self) -> Text {
        self.failure.as_ref().map(|failure| failure.message.clone()).unwrap_or_default()
    }

    fn prepare_request(&self) -> InstanceRequest {
        let parameters = &self.parameters;
        let destination = self.known.destination_description.as_ref();
        let source = self.known.source_description.as_ref().or(destination);
        InstanceRequest::Prepare {
            migration: parameters.migration,
            kind: source.map_or_else(|| parameters.source.clone(), |description| description.kind.clone()),
            schema: source.map_or(crate::protocol::Schema(0), |description| description.schema),
            shards: source.map_or(0, |description| description.shards),
            options: PrepareOptions { source: Some(parameters.source.clone()), ..parameters.prepare.clone() },
        }
    }

    fn start_request(&self) -> InstanceRequest {
        let parameters = &self.parameters;
        let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        InstanceRequest::Start {
            migration: parameters.migration,
            destination: self.known.destination_description.as_ref().map_or(nowhere, |known| known.state_address),
            paths: self.known.paths,
            nonce: parameters.nonce,
            options: StartOptions { destination: Some(parameters.destination.clone()), ..parameters.start.clone() },
        }
    }
}

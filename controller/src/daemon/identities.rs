//! Who the daemon is, and the identities it gives to instances: at their boot, and again long before they expire.

use super::Daemon;
use super::registry::{CALL_LIMIT, Entry, Stage};
use crate::deployment;
use crate::peer::Trust;
use slim_core::protocol::Name;
use slim_core::protocol::control::{InstanceRequest, Secret};
use slim_trust::{Authority, AuthorityError, Expected, Keyring, Role, Security};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often is looked whether an identity is to be renewed.
const PULSE: Duration = Duration::from_millis(500);

/// When an identity is tried to be renewed again if the instance could not be reached.
const AGAIN: Duration = Duration::from_secs(30);

/// The deployment's authority and our own identity; nothing in plaintext.
pub(super) struct Identities {
    settings: deployment::Trust,
    own: Option<(Authority, Arc<Keyring>)>,
}

impl Identities {
    /// Reads what `slimctl init` has made, unless the deployment is in plaintext.
    pub(super) fn read(settings: &deployment::Trust) -> Result<Self, AuthorityError> {
        let own = match settings.plaintext {
            true => None,
            false => {
                let authority = Authority::read(&settings.folder)?;
                Some((authority, Keyring::new(Authority::controller(&settings.folder)?)))
            }
        };
        Ok(Self { settings: settings.clone(), own })
    }

    /// How we speak to others.
    pub(super) fn security(&self) -> Security {
        match &self.own {
            Some((_, keyring)) => Security::Tls(Arc::clone(keyring)),
            None => Security::Plaintext,
        }
    }

    /// Whom to expect at the control connection of an instance.
    pub(super) fn trust(&self, instance: &Name) -> Trust {
        let expected = Expected::one(Role::Instance, instance.clone());
        Trust { security: self.security(), expected, late: self.settings.late }
    }

    /// A new identity for an instance; nothing in plaintext.
    pub(super) fn issue(&self, instance: &Name) -> Result<Option<Secret>, AuthorityError> {
        let Some((authority, _)) = &self.own else { return Ok(None) };
        let pem = authority.issue(Role::Instance, instance, self.settings.identity_life)?;
        Ok(Some(Secret::from(pem.to_string())))
    }

    /// When an identity that is new now is to be renewed; never in plaintext.
    pub(super) fn next_renewal(&self) -> Option<Instant> {
        self.own.as_ref().map(|_| Instant::now() + self.settings.identity_life / 3)
    }
}

impl Daemon {
    /// Renews identities when it is time, until the daemon is to end.
    pub(super) fn keep_identities(self: &Arc<Self>) -> std::io::Result<()> {
        if !self.identities.security().is_tls() {
            return Ok(());
        }
        let daemon = Arc::clone(self);
        let renew = move || {
            while !daemon.stop.is_set() {
                for entry in daemon.registry.all() {
                    daemon.renew_if_due(&entry);
                }
                std::thread::sleep(PULSE);
            }
        };
        std::thread::Builder::new().name("identities".into()).spawn(renew).map(drop)
    }

    fn renew_if_due(&self, entry: &Entry) {
        {
            let state = entry.state();
            let due = state.renew_at.is_some_and(|at| at <= Instant::now());
            if !due || state.stage != Stage::Running {
                return;
            }
        }
        // The name that it goes by itself: another than ours, if it was moved by precopy.
        let own = entry.state().description.as_ref().map(|description| description.name.clone());
        let renewed = match self.identities.issue(&own.unwrap_or_else(|| entry.name.clone())) {
            Ok(Some(identity)) => {
                entry.order(InstanceRequest::RenewIdentity { identity }, CALL_LIMIT).map_err(|error| error.to_string())
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        entry.state().renew_at = match renewed {
            Ok(()) => {
                log::info!("{}: has a new identity", entry.name);
                self.identities.next_renewal()
            }
            Err(error) => {
                log::warn!("{}: its identity is not renewed: {error}", entry.name);
                Some(Instant::now() + AGAIN)
            }
        };
    }
}

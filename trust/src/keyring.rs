//! The identity in use, which can be replaced while connections come and go.

use crate::identity::{Identity, IdentityError};
use slim_core::protocol::Name;
use std::sync::{Arc, PoisonError, RwLock};

/// Why an identity does not replace the present one.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// It is none.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// It is somebody else's.
    #[error("it is for {found}, this is {present}")]
    SomebodyElse {
        /// Whose it is.
        found: String,
        /// Who we are.
        present: String,
    },
    /// It is from another authority.
    #[error("it is from another authority")]
    Authority,
}

/// The identity in use. New connections show the newest; those that exist go on with what they were made with.
#[derive(Debug)]
pub struct Keyring(RwLock<Arc<Identity>>);

impl Keyring {
    /// Begins with `identity`.
    pub fn new(identity: Identity) -> Arc<Self> {
        Arc::new(Self(RwLock::new(Arc::new(identity))))
    }

    /// The identity in use.
    pub fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The deployment we belong to.
    pub fn deployment(&self) -> Name {
        self.identity().principal().deployment.clone()
    }

    /// Replaces the identity by a newer one of the same principal, from the same authority. Repeating it changes nothing.
    ///
    /// # Errors
    /// The present one stays in use; see [`RenewError`].
    pub fn renew(&self, pem: &str) -> Result<Arc<Identity>, RenewError> {
        let new = Arc::new(Identity::from_pem(pem)?);
        let mut present = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if new.principal() != present.principal() {
            let (found, present) = (new.principal().to_string(), present.principal().to_string());
            return Err(RenewError::SomebodyElse { found, present });
        }
        if !new.has_authority_of(&present) {
            return Err(RenewError::Authority);
        }
        // A repetition that comes late must not shorten what a newer one has given.
        if new.not_after_s() >= present.not_after_s() {
            *present = new;
        }
        Ok(Arc::clone(&present))
    }
}

//! Who may talk to whom: identities, mutually authenticated TLS 1.3, and the door that strangers stay outside of.
//!
//! A *deployment* has a certificate authority of its own. Everybody in it has an [`Identity`]: a certificate from that
//! authority which says who this is ([`Principal`]: `slim://<deployment>/<role>/<name>`), the key to it, and the
//! authority's certificate to check others against. There is no other authority, no name of a host and no password.
//!
//! ```text
//!  issue ──► identity ──► keyring ──► handshake ──► channel
//!  (controller)  │      (replaceable)  │    ▲
//!                └── verify ───────────┘    └── door (bounded, timed, counted)
//! ```
//!
//! - [`principal`]: roles and names, and how a certificate carries them;
//! - [`identity`], [`keyring`]: one's own certificate and key, and changing them while running;
//! - [`refused`]: why a peer is refused, in words and as a counter;
//! - [`mod@channel`]: a connection, encrypted or not, that several threads can share;
//! - [`handshake`]: from a TCP connection to a channel, within a time;
//! - [`door`]: a listener whose strangers can neither delay nor crowd out those who are expected;
//! - [`authority`] (feature `issue`): making deployments and identities;
//! - [`files`]: secrets in files.
//!
//! One key exchange (X25519), one signature (Ed25519) and two ciphers are spoken: nothing else has to be carried in an
//! image, and nothing else can be negotiated down to.

#![forbid(unsafe_code)]

#[cfg(feature = "issue")]
pub mod authority;
pub mod channel;
pub mod door;
pub mod files;
pub mod handshake;
pub mod identity;
pub mod keyring;
pub mod principal;
mod provider;
pub mod refused;
mod verify;

#[cfg(feature = "issue")]
pub use authority::{Authority, AuthorityError};
pub use channel::Channel;
pub use door::{Admission, Door, DoorLimits};
pub use handshake::{Security, accept, connect};
pub use identity::{Identity, IdentityError};
pub use keyring::{Keyring, RenewError};
pub use principal::{Expected, Principal, Role};
pub use refused::Refused;
pub use zeroize::Zeroizing;

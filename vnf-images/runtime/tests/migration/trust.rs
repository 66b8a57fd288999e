//! The identities of everybody in these tests.

use slim_core::protocol::Name;
use slim_trust::{Authority, Expected, Identity, Keyring, Role, Security, Zeroizing};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

pub const DAY: Duration = Duration::from_secs(24 * 3600);

pub fn name(text: &str) -> Name {
    text.try_into().expect("a name")
}

pub fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| Authority::new(name("test")).expect("an authority"))
}

pub fn instance_pem(who: &str) -> Zeroizing<String> {
    authority().issue(Role::Instance, &name(who), DAY).expect("an identity")
}

/// An identity that has been expired for a day.
pub fn expired_pem(role: Role, who: &str) -> Zeroizing<String> {
    authority().issue_at(role, &name(who), SystemTime::now() - 2 * DAY, DAY).expect("an identity")
}

pub fn security(pem: &str) -> Security {
    Security::Tls(Keyring::new(Identity::from_pem(pem).expect("an identity")))
}

pub fn instance(who: &str) -> Security {
    security(&instance_pem(who))
}

pub fn controller() -> Security {
    security(&authority().issue(Role::Controller, &name("test"), DAY).expect("an identity"))
}

pub fn any_instance() -> Expected {
    Expected::any(Role::Instance)
}

//! Who somebody is, and who is expected.

use slim_core::protocol::Name;
use std::fmt;

/// What somebody does in a deployment. It decides who listens to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Commands instances, and issues identities.
    Controller,
    /// Runs a network function; gives its state to, and takes it from, other instances.
    Instance,
    /// Moves packets, and paths when commanded to.
    Switch,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Controller, Self::Instance, Self::Switch];

    /// The word for it in certificates and messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Instance => "instance",
            Self::Switch => "switch",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Somebody in a deployment, written `slim://<deployment>/<role>/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    /// The deployment's name.
    pub deployment: Name,
    /// What they do.
    pub role: Role,
    /// Which one of those.
    pub name: Name,
}

impl Principal {
    /// Reads the form that [`Display`](fmt::Display) writes; nothing else is accepted.
    pub fn parse(uri: &str) -> Option<Self> {
        let mut parts = uri.strip_prefix("slim://")?.split('/');
        let principal = Self {
            deployment: parts.next()?.try_into().ok()?,
            role: {
                let word = parts.next()?;
                Role::ALL.into_iter().find(|role| role.word() == word)?
            },
            name: parts.next()?.try_into().ok()?,
        };
        parts.next().is_none().then_some(principal)
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slim://{}/{}/{}", self.deployment, self.role, self.name)
    }
}

/// Whom we are willing to talk to, within our own deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// They must have this role,
    pub role: Role,
    /// and this name, where it is known beforehand.
    pub name: Option<Name>,
}

impl Expected {
    /// Anybody in `role`.
    pub fn any(role: Role) -> Self {
        Self { role, name: None }
    }

    /// Exactly this one.
    pub fn one(role: Role, name: Name) -> Self {
        Self { role, name: Some(name) }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{} {name}", self.role),
            None => write!(f, "any {}", self.role),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_is_read_as_it_is_written_and_in_no_other_form() {
        for role in Role::ALL {
            let text = format!("slim://lab-1/{role}/nat-a.2");
            let principal = Principal::parse(&text).unwrap();
            assert_eq!((principal.role, principal.name.as_str()), (role, "nat-a.2"));
            assert_eq!(principal.to_string(), text);
        }
        for wrong in [
            "",
            "slim://lab",
            "slim://lab/instance",
            "slim://lab/instance/",
            "slim://lab/instance/nat-a/",
            "slim://lab/instance/nat-a/x",
            "slim://lab/Instance/nat-a",
            "slim://lab/root/nat-a",
            "slim:///instance/nat-a",
            "https://lab/instance/nat-a",
            "slim://lab/instance/nat a",
            "slim://lab/instance/nat-a\0",
        ] {
            assert_eq!(Principal::parse(wrong), None, "{wrong:?}");
        }
    }
}

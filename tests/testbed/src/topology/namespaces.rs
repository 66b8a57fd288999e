//! Two network namespaces behind the switch's external ports, for real programs.

use super::{INSIDE_TAP, NAT_INTERIOR, OUTSIDE_TAP};
use crate::sandbox::ip;
use anyhow::{Context, Result};
use std::ffi::OsStr;
use std::process::Command;

/// The namespace behind the NAT.
pub const INSIDE: &str = "slim-inside";
/// The namespace of the outside world.
pub const OUTSIDE: &str = "slim-outside";
/// The namespace of switch, daemon and controller, where the testbed needs one of its own.
pub const MANAGEMENT: &str = "slim-mgmt";
/// The address of the host inside.
pub const INSIDE_HOST: &str = "10.1.0.10";
/// The addresses outside.
pub const OUTSIDE_SERVERS: [&str; 4] = ["10.2.0.10", "10.2.0.11", "10.2.0.12", "10.2.0.13"];

/// The two namespaces. They are deleted, with whatever still runs in them cut off, when this is dropped.
#[derive(Debug)]
pub struct Namespaces(());

impl Namespaces {
    /// Makes both namespaces and moves the switch's TAPs into them.
    ///
    /// # Errors
    /// A namespace of that name exists, or the TAPs do not.
    pub fn up() -> Result<Self> {
        Self::up_with(|| ip(&["link", "set", OUTSIDE_TAP, "netns", OUTSIDE])).map(|(namespaces, ())| namespaces)
    }

    /// As [`up`](Self::up), but `outside` brings the TAP of the outside servers into their namespace.
    ///
    /// # Errors
    /// As for `up`, and those of `outside`.
    pub fn up_with<T>(outside: impl FnOnce() -> Result<T>) -> Result<(Self, T)> {
        ip(&["netns", "add", INSIDE]).context("is another testbed up? `cargo xtask testbed down` ends it")?;
        let namespaces = Self(());
        ip(&["netns", "add", OUTSIDE])?;

        ip(&["link", "set", INSIDE_TAP, "netns", INSIDE])?;
        set_up(INSIDE, INSIDE_TAP)?;
        ip(&["-n", INSIDE, "address", "add", &format!("{INSIDE_HOST}/24"), "dev", INSIDE_TAP])?;
        ip(&["-n", INSIDE, "route", "add", "default", "via", NAT_INTERIOR])?;

        let made = outside()?;
        set_up(OUTSIDE, OUTSIDE_TAP)?;
        for server in OUTSIDE_SERVERS {
            ip(&["-n", OUTSIDE, "address", "add", &format!("{server}/24"), "dev", OUTSIDE_TAP])?;
        }
        Ok((namespaces, made))
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in [INSIDE, OUTSIDE] {
            // One that is gone already is what was wanted.
            let _ = ip(&["netns", "delete", name]);
        }
    }
}

fn set_up(namespace: &str, tap: &str) -> Result<()> {
    ip(&["-n", namespace, "link", "set", "lo", "up"])?;
    ip(&["-n", namespace, "link", "set", tap, "up"])
}

/// A command that will run `program` in the network namespace `namespace`.
pub fn command_in(namespace: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

//! What fuzzing needs beyond a stable toolchain: a nightly one, and cargo-fuzz.

use crate::command;
use crate::setup::Policy;
use anyhow::{Context, Result, bail};
use std::process::{Command, Stdio};

/// How to get a nightly toolchain by hand.
const NIGHTLY: &str = "rustup toolchain install nightly --profile minimal";

/// How to get cargo-fuzz by hand.
const CARGO_FUZZ: &str = "cargo install cargo-fuzz --locked";

/// Makes sure that both are there.
///
/// # Errors
/// One is missing and cannot, or by `policy` must not, be installed. Without them nothing is fuzzed; what is found
/// already is replayed by `cargo test --package slim-fuzz-targets` on any toolchain.
pub fn ensure(policy: Policy) -> Result<()> {
    if !answers(nightly().arg("--version")) {
        install(policy, "a nightly Rust toolchain, for libFuzzer's instrumentation", NIGHTLY)?;
    }
    if !answers(nightly().args(["fuzz", "--version"])) {
        install(policy, "cargo-fuzz", CARGO_FUZZ)?;
    }
    Ok(())
}

/// The nightly toolchain's cargo, as rustup's `cargo` starts it: what our own cargo set for us would get in its way.
pub fn nightly() -> Command {
    let mut cargo = Command::new("cargo");
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO") && text != "CARGO_HOME" || text == "RUSTUP_TOOLCHAIN" || text == "RUSTFLAGS" {
            cargo.env_remove(name);
        }
    }
    cargo.arg("+nightly");
    cargo
}

fn answers(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

fn install(policy: Policy, what: &str, how: &str) -> Result<()> {
    if policy == Policy::ListOnly {
        bail!("missing, and not installed because of --no-install: {what} (`{how}`)");
    }
    eprintln!("==> installing {what}");
    let mut words = how.split(' ');
    let mut install = Command::new(words.next().unwrap_or_default());
    command::run(install.args(words)).with_context(|| format!("fuzzing needs {what}. By hand: {how}"))
}

//! Network namespaces, and programs in them.

use anyhow::{Context, Result, bail};
use std::process::{Command, Stdio};

/// A network namespace of our own, deleted with its owner.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// A new one.
    pub fn new(purpose: &str) -> Result<Self> {
        let name = format!("slim-bench-{purpose}-{}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { name };
        namespace.run("ip link set lo up")?;
        Ok(namespace)
    }

    /// Its name for `ip`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A program in it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs a program, its words separated by blanks, and returns what it printed.
    pub fn run(&self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        run(self.command(words.next().unwrap_or_default()).args(words))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let deleted = run(Command::new("ip").args(["netns", "del", &self.name]));
        if let Err(error) = deleted {
            eprintln!("namespace {} is left: {error:#}", self.name);
        }
    }
}

/// Runs a command and returns what it printed.
pub fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{program} {}` failed: {}",
            words.join(" "),
            said.trim().lines().next().unwrap_or("it does not say why")
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

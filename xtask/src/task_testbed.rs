//! `cargo xtask testbed`: the demo's topology, standing, for real programs.

use crate::artifacts;
use crate::artifacts::Instances;
use crate::setup::Policy;
use anyhow::{Result, bail};
use slim_testbed::demo::InstanceArguments;
use slim_testbed::standing;
use std::process::Command;

/// What to do with the testbed.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Bring it up: two NAT images, and the namespaces slim-inside and slim-outside. Needs root.
    Up(InstanceArguments),
    /// Take it down.
    Down,
    /// Show its instances.
    Status,
    /// Run slimctl with its daemon: `testbed ctl migrate nat-a nat-b`, `testbed ctl --help`.
    Ctl {
        /// The arguments of slimctl.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<String>,
    },
}

const HINTS: &str = "\
The testbed is up. Two hosts are attached to it:
  slim-inside   10.1.0.10, behind the NAT
  slim-outside  10.2.0.10 to 10.2.0.13
Send anything through the NAT, and move it meanwhile:
  ip netns exec slim-outside iperf3 -s -D
  ip netns exec slim-inside iperf3 -c 10.2.0.10 -t 30
  cargo xtask testbed ctl migrate nat-a nat-b
  cargo xtask testbed down";

/// Does `action`.
pub fn run(action: &Action, policy: Policy) -> Result<()> {
    match action {
        Action::Up(instances) => {
            let (artifacts, _) = artifacts::ensure(Instances::as_asked(instances.process), policy)?;
            eprintln!("==> bringing the testbed up");
            standing::up(&artifacts, instances)?;
            println!("{HINTS}");
            Ok(())
        }
        Action::Down => standing::down(),
        Action::Status => slimctl(&["instance".into(), "list".into()]),
        Action::Ctl { arguments } => slimctl(arguments),
    }
}

fn slimctl(arguments: &[String]) -> Result<()> {
    let socket = standing::socket()?;
    let status = Command::new(standing::artifacts()?.slimctl).arg("--socket").arg(socket).args(arguments).status()?;
    match status.code() {
        Some(0) => Ok(()),
        // Its exit statuses are a promise to scripts, and it has said why.
        Some(code) => std::process::exit(code),
        None => bail!("slimctl ended with {status}"),
    }
}

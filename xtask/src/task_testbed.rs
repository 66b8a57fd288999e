//! `cargo xtask testbed`: the demo's topology, standing, for real programs.

use crate::artifacts;
use crate::artifacts::Instances;
use crate::paths;
use crate::setup::packages::Need;
use crate::setup::{self, Policy};
use anyhow::{Result, bail};
use slim_testbed::demo::InstanceArguments;
use slim_testbed::programs::{Outcome, ProgramsSpec};
use slim_testbed::topology::Function;
use slim_testbed::{sandbox, standing};
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
    /// Send real programs through a NAT that moves to and fro, in a testbed of their own, and print what they say.
    ///
    /// ping, traceroute, curl, iperf3, dig, a STUN client and SSH, to real servers in private namespaces. Needs root. Exits
    /// with 0 only if none of them has noticed anything and every migration was right.
    Programs(ProgramsArguments),
    /// Run slimctl with its daemon: `testbed ctl migrate nat-a nat-b`, `testbed ctl --help`.
    Ctl {
        /// The arguments of slimctl.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<String>,
    },
}

/// What to run, and how to tell.
#[derive(Debug, clap::Args)]
pub struct ProgramsArguments {
    #[command(flatten)]
    spec: ProgramsSpec,

    /// Print one JSON document instead of the table.
    #[arg(long)]
    json: bool,
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
            let (artifacts, _) = artifacts::ensure(Instances::as_asked(instances.process), &[Function::Nat], policy)?;
            eprintln!("==> bringing the testbed up");
            standing::up(&artifacts, instances)?;
            println!("{HINTS}");
            Ok(())
        }
        Action::Down => standing::down(),
        Action::Programs(arguments) => programs(arguments, policy),
        Action::Status => slimctl(&["instance".into(), "list".into()]),
        Action::Ctl { arguments } => slimctl(arguments),
    }
}

fn programs(arguments: &ProgramsArguments, policy: Policy) -> Result<()> {
    setup::ensure(&[Need::Programs], policy)?;
    let (artifacts, _) =
        artifacts::ensure(Instances::as_asked(arguments.spec.instances.process), &[Function::Nat], policy)?;
    let folder = paths::target().join("programs");
    let outcome: Outcome = sandbox::run("programs", &arguments.spec, &artifacts, &folder)?;
    if arguments.json {
        println!("{}", serde_json::to_string(&outcome)?);
    } else {
        println!("\n{outcome}");
    }
    if !outcome.complaints().is_empty() {
        bail!("something has noticed that the NAT moved; logs are in {}", folder.display());
    }
    Ok(())
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

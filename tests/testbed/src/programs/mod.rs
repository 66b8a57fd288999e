//! Real programs through a NAT that moves to and fro: what each was for, what it said, and whether that is right.
//!
//! ```text
//! slim-inside  10.1.0.10 ── 10.1.0.1 NAT 10.2.0.1 ── 10.2.0.10 … .13  slim-outside ── 198.51.100.2  slim-far
//!                                 exterior_mtu 1480                     (routes)  MTU 1400
//! ```
//!
//! Outside are real servers: dnsmasq, coturn, sshd, iperf3. A claim that names a requirement shows it on the wire.

mod checks;
mod lanes;
mod movement;
mod outcome;
mod relay;
mod servers;
mod session;

pub use outcome::{Outcome, Row};

use crate::artifacts::Artifacts;
use crate::demo::InstanceArguments;
use crate::impair::Impairment;
use crate::topology::{Ends, FIRST, Namespaces, SECOND, Settings, Topology};
use anyhow::{Context, Result, ensure};
use clap::Args;
use movement::{Counter, Movement};
use serde::{Deserialize, Serialize};
use servers::{FORWARDED, HAIRPINNED, Servers};
use slim_core::protocol::Name;
use std::path::Path;
use std::time::Instant;

/// Which programs, for how long, through what.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct ProgramsSpec {
    /// How long the programs that go on all the time do: SSH session, download and pings
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(5..=3600))]
    pub seconds: u64,

    /// How long the NAT stays between two migrations, in milliseconds
    #[arg(long, default_value_t = 1000, value_name = "MS", value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub stay: u64,

    /// Lose and reorder some of the packets between the NAT and the outside
    #[arg(long)]
    pub impaired: bool,

    /// What is then done to them.
    #[command(flatten)]
    pub impairment: Impairment,

    /// How the instances run and what link each hangs on.
    #[command(flatten)]
    pub instances: InstanceArguments,
}

/// Carries the programs out. Call it inside a sandbox, as root.
///
/// # Errors
/// Something cannot be started. What a program complains of is not an error but in the outcome.
pub fn run(artifacts: &Artifacts, spec: &ProgramsSpec, folder: &Path) -> Result<Outcome> {
    ensure!(nix::unistd::geteuid().is_root(), "sshd and the namespaces' settings need root");
    let started = Instant::now();
    let say = |text: &str| eprintln!("[{:6.2} s] {text}", started.elapsed().as_secs_f64());
    say("starting the switch, the controller and two NATs");
    let ends = if spec.impaired { Ends::Impaired } else { Ends::Namespaces };
    let mut topology = Topology::up(artifacts, &settings(spec)?, ends, folder)?;
    let (_namespaces, _relay) = if spec.impaired {
        let (namespaces, relay) = Namespaces::up_with(|| relay::start(artifacts, &spec.impairment, folder))?;
        (namespaces, Some(relay))
    } else {
        (Namespaces::up()?, None)
    };
    topology.boot(FIRST, true)?;
    topology.boot(SECOND, false)?;
    say("starting the servers outside");
    let servers = Servers::up(folder)?;
    let config = row(&Counter::default(), "slimctl", "instance config: what is in force", &|| {
        in_force(&topology.client()?.config(&Name::try_from(FIRST)?)?)
    });
    say(&format!("sending programs through the NAT for at least {} s, while it moves", spec.seconds));
    let movement = Movement::begin(topology.client()?, std::time::Duration::from_millis(spec.stay))?;
    let rows = lanes::run(artifacts, spec, &servers, &movement.counter());
    let migrations = movement.end()?;
    topology.check()?;
    Ok(Outcome { spec: spec.clone(), rows: [vec![config], rows?].concat(), migrations })
}

/// Runs one program, and notes what came of it.
fn row(migrations: &Counter, program: &str, claim: &str, run: &dyn Fn() -> Result<String>) -> Row {
    let before = migrations.get();
    let result = run();
    Row {
        program: program.to_owned(),
        claim: claim.to_owned(),
        good: result.is_ok(),
        said: result.unwrap_or_else(|error| format!("{error:#}")),
        migrations: migrations.get() - before,
    }
}

/// Looks for what was set, and for what was not.
fn in_force(toml: &str) -> Result<String> {
    let nat = toml.parse::<toml::Table>()?.remove("nat").context("there is no section nat")?;
    for (name, expected) in [("exterior_mtu", i64::from(servers::EXTERIOR_MTU)), ("udp_timeout_s", 300)] {
        let found = nat.get(name).and_then(toml::Value::as_integer);
        ensure!(found == Some(expected), "{name} is {found:?} instead of {expected}");
    }
    Ok(format!("{} entries of the NAT's, defaults included", nat.as_table().map_or(0, toml::Table::len)))
}

/// The testbed's NAT, with a route beyond the exterior network, a smaller MTU there, and two forwards.
fn settings(spec: &ProgramsSpec) -> Result<Settings> {
    let text = format!(
        "exterior_gateway = \"{}\"\nexterior_mtu = {}\n\
         forward = [\n  {{ protocol = \"tcp\", exterior = \"{}\", interior = \"{}\" }},\n  \
         {{ protocol = \"tcp\", exterior = \"{}\", interior = \"{}\" }},\n]\n",
        servers::ROUTER,
        servers::EXTERIOR_MTU,
        FORWARDED.0,
        FORWARDED.1,
        HAIRPINNED.0,
        HAIRPINNED.1,
    );
    let section = text.parse().context("the NAT's section of this test is wrong")?;
    Ok(Settings { section, ..spec.instances.settings() })
}

//! A TCP download by a real client through the NAT, while the NAT moves to and fro.

mod transfer;

pub use transfer::{Transfer, measure, serve_one};

use crate::artifacts::Artifacts;
use crate::demo::InstanceArguments;
use crate::topology::{Ends, FIRST, INSIDE, Namespaces, OUTSIDE, OUTSIDE_SERVERS, SECOND, Topology, command_in};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use slim_controller::api::{MigrateOptions, MigrationOutcome};
use slim_core::protocol::Name;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

/// The port of the download's server.
const PORT: u16 = 8000;

/// A download with migrations.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DownloadSpec {
    /// How long the download takes.
    pub seconds: u64,
    /// How fast it is sent.
    pub rate_mbit: u64,
    /// How often the NAT moves, to and fro, evenly spread.
    pub migrations: u32,
    /// How the instances run.
    pub instances: InstanceArguments,
}

/// What a download came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DownloadOutcome {
    /// As the server saw it.
    pub sent: Transfer,
    /// As the client saw it.
    pub received: Transfer,
    /// The migrations meanwhile.
    pub migrations: Vec<MigrationOutcome>,
}

/// Runs a download with curl through the NAT and migrates meanwhile. Call it inside a sandbox.
///
/// # Errors
/// Anything fails to start, the connection breaks, or a migration cannot be asked for.
pub fn migrate_under(artifacts: &Artifacts, spec: &DownloadSpec, folder: &Path) -> Result<DownloadOutcome> {
    let mut topology = Topology::up(artifacts, &spec.instances.settings(), Ends::Namespaces, folder)?;
    let _namespaces = Namespaces::up()?;
    topology.boot(FIRST, true)?;
    topology.boot(SECOND, false)?;

    let server = command_in(OUTSIDE, &artifacts.testbed)
        .args(["serve", "--listen", &format!("{}:{PORT}", OUTSIDE_SERVERS[0])])
        .args(["--seconds", &spec.seconds.to_string(), "--rate", &spec.rate_mbit.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the server")?;
    let mut curl = command_in(INSIDE, "curl")
        .args(["--silent", "--show-error", "--no-buffer", "--retry", "10", "--retry-connrefused"])
        .args(["--retry-delay", "1", &format!("http://{}:{PORT}/", OUTSIDE_SERVERS[0])])
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start curl")?;
    let content = curl.stdout.take().context("curl has no output")?;
    let meter = std::thread::spawn(move || measure(content));

    let mut migrations = Vec::new();
    let (mut from, mut to) = (Name::try_from(FIRST)?, Name::try_from(SECOND)?);
    for _ in 0..spec.migrations {
        std::thread::sleep(Duration::from_secs(spec.seconds) / (spec.migrations + 1));
        topology.check()?;
        let outcome = topology.client()?.migrate(&from, &to, MigrateOptions::default(), |_| ())?;
        migrations.push(outcome);
        std::mem::swap(&mut from, &mut to);
    }

    let received = meter.join().map_err(|_| anyhow::anyhow!("the meter panicked"))??;
    let status = curl.wait()?;
    if !status.success() {
        bail!("curl failed ({status}) after {} bytes", received.bytes);
    }
    Ok(DownloadOutcome { sent: output_of(server)?, received, migrations })
}

/// The JSON that a child prints before it ends.
fn output_of(child: Child) -> Result<Transfer> {
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("the server failed ({})", output.status);
    }
    serde_json::from_slice(&output.stdout).context("the server's report cannot be understood")
}

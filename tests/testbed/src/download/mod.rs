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
use std::net::SocketAddrV4;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::JoinHandle;
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

    let server = SocketAddrV4::new(OUTSIDE_SERVERS[0].parse()?, PORT);
    let route = Route { server_in: OUTSIDE, listen: server, client_in: INSIDE, reached_as: server };
    let download = Download::start(artifacts, &route, spec.seconds, spec.rate_mbit)?;

    let mut migrations = Vec::new();
    let (mut from, mut to) = (Name::try_from(FIRST)?, Name::try_from(SECOND)?);
    for _ in 0..spec.migrations {
        std::thread::sleep(Duration::from_secs(spec.seconds) / (spec.migrations + 1));
        topology.check()?;
        let outcome = topology.client()?.migrate(&from, &to, MigrateOptions::default(), |_| ())?;
        migrations.push(outcome);
        std::mem::swap(&mut from, &mut to);
    }

    let (sent, received) = download.finish()?;
    Ok(DownloadOutcome { sent, received, migrations })
}

/// From where to where a download goes.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// The namespace of the server.
    pub server_in: &'static str,
    /// Where it listens.
    pub listen: SocketAddrV4,
    /// The namespace of the client.
    pub client_in: &'static str,
    /// How the client reaches it.
    pub reached_as: SocketAddrV4,
}

/// A download by curl that is under way.
#[derive(Debug)]
pub struct Download {
    server: Child,
    curl: Child,
    meter: JoinHandle<Result<Transfer>>,
}

impl Download {
    /// Starts a server that sends for `seconds` at `rate_mbit`, and curl.
    ///
    /// # Errors
    /// Either cannot be started.
    pub fn start(artifacts: &Artifacts, route: &Route, seconds: u64, rate_mbit: u64) -> Result<Self> {
        let server = command_in(route.server_in, &artifacts.testbed)
            .args(["serve", "--listen", &route.listen.to_string()])
            .args(["--seconds", &seconds.to_string(), "--rate", &rate_mbit.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the server")?;
        let mut curl = command_in(route.client_in, "curl")
            .args(["--silent", "--show-error", "--no-buffer", "--retry", "10", "--retry-connrefused"])
            .args(["--retry-delay", "1", &format!("http://{}/", route.reached_as)])
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start curl")?;
        let content = curl.stdout.take().context("curl has no output")?;
        let meter = std::thread::spawn(move || measure(content));
        Ok(Self { server, curl, meter })
    }

    /// What was sent and what was received, at the end.
    ///
    /// # Errors
    /// The connection broke.
    pub fn finish(mut self) -> Result<(Transfer, Transfer)> {
        let received = self.meter.join().map_err(|_| anyhow::anyhow!("the meter panicked"))??;
        let status = self.curl.wait()?;
        if !status.success() {
            bail!("curl failed ({status}) after {} bytes", received.bytes);
        }
        Ok((output_of(self.server)?, received))
    }
}

/// The JSON that a child prints before it ends.
fn output_of(child: Child) -> Result<Transfer> {
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("the server failed ({})", output.status);
    }
    serde_json::from_slice(&output.stdout).context("the server's report cannot be understood")
}

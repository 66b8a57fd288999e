//! Who runs when: some programs all the time, the others one after the other beside them.

use super::checks::{Check, Network, checks, lasting};
use super::movement::Counter;
use super::outcome::Row;
use super::servers::{FAR, FAR_HOST, FORWARDED, HAIRPINNED, Servers};
use super::{ProgramsSpec, session};
use crate::artifacts::Artifacts;
use crate::download::{Download, Route};
use crate::topology::{INSIDE, OUTSIDE};
use anyhow::{Result, ensure};
use std::net::SocketAddrV4;
use std::time::Duration;

/// The rate of the long download, which leaves room for everything else, in Mbit/s.
const DOWNLOAD_RATE_MBIT: u64 = 8;

/// Runs everything; one row a program.
pub(super) fn run(
    artifacts: &Artifacts,
    spec: &ProgramsSpec,
    servers: &Servers,
    migrations: &Counter,
) -> Result<Vec<Row>> {
    let row =
        |program: &str, claim: &str, run: &dyn Fn() -> Result<String>| super::row(migrations, program, claim, run);
    let network = if spec.impaired { Network::Impaired } else { Network::Sound };
    let checked = |check: &Check| row(check.program, check.claim, &|| check.run(network));

    let far = SocketAddrV4::new(FAR_HOST.parse()?, 8000);
    let all_the_time = Route { server_in: FAR, listen: far, client_in: INSIDE, reached_as: far };
    let from = |client_in, (reached_as, listen)| Route { server_in: INSIDE, listen, client_in, reached_as };
    let seconds = spec.seconds;

    let lasting = lasting(seconds);

    std::thread::scope(|scope| {
        let mut lanes = Vec::new();
        lanes.push(
            scope.spawn(|| row("ssh", "a session goes on", &|| session::run(servers, Duration::from_secs(seconds)))),
        );
        lanes.push(scope.spawn(|| {
            let claim = "a download by a path with a smaller MTU arrives whole";
            row("curl", claim, &|| download(artifacts, &all_the_time, seconds))
        }));
        for check in &lasting {
            lanes.push(scope.spawn(|| checked(check)));
        }
        let mut rows: Vec<Row> = checks().iter().map(checked).collect();
        rows.push(row("curl", "static forward, from outside", &|| download(artifacts, &from(OUTSIDE, FORWARDED), 3)));
        rows.push(row("curl", "RFC 5382 R8: hairpin, by a forward, from inside", &|| {
            download(artifacts, &from(INSIDE, HAIRPINNED), 3)
        }));
        for lane in lanes {
            rows.push(lane.join().map_err(|_| anyhow::anyhow!("a program's thread panicked"))?);
        }
        Ok(rows)
    })
}

fn download(artifacts: &Artifacts, route: &Route, seconds: u64) -> Result<String> {
    let (sent, received) = Download::start(artifacts, route, seconds, DOWNLOAD_RATE_MBIT)?.finish()?;
    ensure!(
        (sent.bytes, &sent.sha256) == (received.bytes, &received.sha256),
        "{} bytes were sent, {} arrived, and they are not the same",
        sent.bytes,
        received.bytes
    );
    Ok(format!("{} KB arrived whole, the longest stall {} ms", received.bytes / 1000, received.longest_stall_ms))
}

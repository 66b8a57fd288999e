//! The faults: real signals to real processes, real resets of real connections.

use super::spec::{Blow, Party};
use super::world::World;
use crate::topology::MANAGEMENT_TAP;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use slim_controller::api::InstanceInfo;
use slim_controller::peer::Endpoint;
use slim_core::protocol::Name;
use std::process::Command;
use std::time::Duration;

/// Shorter than any time-out.
const PAUSE: Duration = Duration::from_millis(700);
/// Longer than a silent connection is kept, and longer than preparing or redirecting may take.
const STALL: Duration = Duration::from_secs(7);
/// How long a supervisor takes to start a killed daemon again.
const RESTART_AFTER: Duration = Duration::from_millis(300);

/// Everything needed to strike, found out before.
#[derive(Debug)]
pub(super) struct Target {
    party: Party,
    blow: Blow,
    /// The process, if it is one.
    process: Option<Pid>,
    /// The connection's far end, if it is one.
    endpoint: Option<std::net::SocketAddr>,
    /// Source and destination.
    pub(super) pair: (Name, Name),
}

impl Target {
    /// Takes aim at `party` of the migration from the holder to the spare instance.
    pub(super) fn aim(world: &mut World, party: Party, blow: Blow) -> Result<Self> {
        let pair = (world.holder.clone(), world.spare.clone());
        let (source, destination) = (world.show(&pair.0)?, world.show(&pair.1)?);
        let of_instance = |instance: &InstanceInfo| {
            let id = instance.process_id.with_context(|| format!("{} has no process", instance.name))?;
            anyhow::Ok(Some(Pid::from_raw(id.cast_signed())))
        };
        let control = |instance: &InstanceInfo| match &instance.control {
            Endpoint::Tcp(address) => Ok(Some(*address)),
            Endpoint::Unix(path) => bail!("{} is a Unix socket", path.display()),
        };
        let process = match party {
            Party::Source => of_instance(&source)?,
            Party::Destination => of_instance(&destination)?,
            Party::Switch => Some(Pid::from_raw(world.topology.switch().id().cast_signed())),
            Party::Controller => Some(Pid::from_raw(world.topology.daemon().id().cast_signed())),
            _ => None,
        };
        let endpoint = match party {
            Party::SourceControl => control(&source)?,
            Party::DestinationControl => control(&destination)?,
            Party::Statelets | Party::Snapshot => destination.state_address,
            _ => None,
        };
        Ok(Self { party, blow, process, endpoint, pair })
    }

    /// Strikes. Returns when the fault is over: a stopped process goes on, a killed daemon or switch runs again.
    pub(super) fn strike(&self, world: &mut World) -> Result<()> {
        match self.blow {
            Blow::Kill => self.kill(world),
            Blow::Pause => self.stop_for(PAUSE),
            Blow::Stall => self.stop_for(STALL),
            Blow::Cut => self.cut(),
            Blow::Abort => match world.client()?.abort(None) {
                // The migration may have ended, or be past the commit point: then the answer says so.
                Ok(()) | Err(slim_controller::client::ClientError::Refused(_)) => Ok(()),
                Err(error) => Err(error.into()),
            },
        }
    }

    fn kill(&self, world: &mut World) -> Result<()> {
        match self.party {
            Party::Switch => {
                world.topology.switch().kill()?;
                std::thread::sleep(RESTART_AFTER);
                world.topology.restart_switch()
            }
            Party::Controller => {
                world.topology.daemon().kill()?;
                std::thread::sleep(RESTART_AFTER);
                world.topology.restart_daemon()
            }
            _ => self.signal(Signal::SIGKILL),
        }
    }

    fn stop_for(&self, duration: Duration) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        std::thread::sleep(duration);
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process.context("this is no process")?;
        kill(process, signal).with_context(|| format!("cannot send {signal} to process {process}"))
    }

    fn cut(&self) -> Result<()> {
        let address = self.endpoint.context("this is no connection")?;
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        match self.party {
            Party::SourceControl | Party::DestinationControl => destroy(&["dst", &ip, "and", "dport", "=", &port]),
            _ if address.ip().is_loopback() => {
                let local = local_stream(&ip, &port, self.party == Party::Snapshot)?;
                destroy(&["dst", &ip, "and", "dport", "=", &port, "and", "sport", "=", &local])
            }
            _ => super::forge::reset(MANAGEMENT_TAP, address, self.party == Party::Snapshot),
        }
    }
}

/// Has the kernel abort connections of this namespace, with a reset to the peer.
fn destroy(filter: &[&str]) -> Result<()> {
    let output = Command::new("ss").args(["-K", "-t", "-H"]).args(filter).output().context("cannot run `ss`")?;
    let killed = String::from_utf8_lossy(&output.stdout).lines().count();
    ensure!(
        output.status.success() && killed > 0,
        "`ss -K {}` found nothing to cut: {}",
        filter.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// The local port of the stream to `ip` that has sent the most, or the least.
fn local_stream(ip: &str, port: &str, most: bool) -> Result<String> {
    let output = Command::new("ss")
        .args(["-t", "-i", "-n", "-H", "-O", "state", "established", "dst", ip, "and", "dport", "=", port])
        .output()
        .context("cannot run `ss`")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut streams: Vec<(u64, String)> = text.lines().filter_map(stream).collect();
    streams.sort();
    let found = if most { streams.last() } else { streams.first() };
    found.map(|(_, port)| port.clone()).with_context(|| format!("there is no stream to cut: {text}"))
}

/// Bytes sent and local port, from a line of `ss`.
fn stream(line: &str) -> Option<(u64, String)> {
    let local = line.split_whitespace().nth(2)?;
    let (_, port) = local.rsplit_once(':')?;
    let sent = line.split_whitespace().find_map(|word| word.strip_prefix("bytes_sent:"))?;
    Some((sent.parse().ok()?, port.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_ss_is_understood() {
        let line = "0 0 127.0.0.1:41234 127.0.0.12:7002 cubic wscale:7,7 rto:200 bytes_sent:5120 bytes_acked:5121";
        assert_eq!(stream(line), Some((5120, "41234".to_owned())));
        assert_eq!(stream("0 0 127.0.0.1:41234 127.0.0.12:7002 cubic"), None);
    }
}

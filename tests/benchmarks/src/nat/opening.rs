//! New sessions per second: each packet opens one, and with it a mapping and a binding.

use super::bursts::{Bursts, Recorder};
use super::wire::Line;
use super::workload::{self, Core};
use crate::clock::{Clock, cycles};
use anyhow::{Result, ensure};
use serde::Serialize;
use slim_core::nf::{PortId, Shard};
use slim_core::vei::lcore::{Command, Lcore};

/// New sessions.
#[derive(Debug, Serialize)]
pub struct Opening {
    /// How many were opened in an empty instance.
    pub sessions: usize,
    /// So many per second.
    pub per_s: f64,
    /// Bursts of 32 new sessions: growth must not show.
    pub bursts: Bursts,
    /// Sessions per second while half of an address's ports are taken.
    pub per_s_at_50_percent: f64,
    /// The same while 99 % are.
    pub per_s_at_99_percent: f64,
}

/// Opens so many sessions, and all that a single exterior address has ports for.
pub fn measure(clock: &Clock, sessions: usize) -> Result<Opening> {
    let mut recorder = Recorder::new()?;
    let times = open_all(clock, sessions, workload::addresses_for(sessions), &mut recorder)?;
    let total: u64 = times.iter().sum();
    let (ports, rounds) = (64_512, 5);
    let mut ends = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        let times = open_all(clock, ports, 1, &mut Recorder::new()?)?;
        let part = times.len() / 100;
        ends[0].extend_from_slice(&times[50 * part..51 * part]);
        ends[1].extend_from_slice(&times[99 * part..]);
    }
    let [at_50, at_99] = ends.map(|mut times| {
        times.sort_unstable();
        32.0 * clock.hz() / times[times.len() / 2] as f64
    });
    Ok(Opening {
        sessions,
        per_s: sessions as f64 * clock.hz() / total as f64,
        bursts: recorder.summary(),
        per_s_at_50_percent: at_50,
        per_s_at_99_percent: at_99,
    })
}

/// Opens sessions in bursts of 32; the cycles of each burst.
fn open_all(clock: &Clock, sessions: usize, addresses: usize, recorder: &mut Recorder) -> Result<Vec<u64>> {
    let config = workload::config(sessions, addresses)?;
    let mut core: Core = Lcore::new(clock.now(), Shard::ONLY, 1 << 20, super::wire::Wire::new());
    core.pass(clock.now(), Some(Command::Activate(workload::empty(&config)?)));
    workload::neighbours(clock, &mut core, workload::hosts_of(sessions))?;
    let before = core.io().fates.transmitted;
    let frames: Vec<Line> = (0..sessions).map(workload::opening).collect::<Result<_>>()?;
    core.io_mut().feed(PortId(0), frames);
    core.io_mut().supply(PortId(0), sessions);
    let mut times = Vec::with_capacity(sessions / 32 + 1);
    loop {
        let begin = cycles();
        let received = recorder.burst(clock, || core.pass(clock.now(), None).received);
        if received == 0 {
            break;
        }
        times.push(cycles() - begin);
    }
    ensure!(core.io().fates.transmitted - before == sessions as u64, "not opened: {:?}", core.io().fates);
    Ok(times)
}

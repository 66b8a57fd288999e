//! The back-end in virtual time: the real network functions, machines and switch, and a TCP that competes for the link.

use crate::backend::Backend;
use crate::grid::{Cell, Congestion, Extent, Setup, Vnf};
use crate::record::Run;
use anyhow::{Result, anyhow, bail};
use slim_core::protocol::control::{LinkSettings, Pace, StartOptions};
use slim_core::time::Duration;
use slim_simulation::{Measured, Trial, run_trial};
use slim_testbed::load::LoadSpec;
use std::time::Instant;

/// The testbed's links: 1 Gbit/s and 2.5 ms in each direction.
const LINK_BPS: u64 = 1_000_000_000;
const LINK_DELAY_US: u32 = 2_500;

/// The paper's 20 MB of filler: 5120 pages of 4096 bytes.
pub const FILLER_BYTES: u64 = 5120 * 4096;

/// The paper's UDP sockets through the NAT.
const NAT_SOCKETS: u16 = 128;

/// The paper's subscribers of the gateway.
const SUBSCRIBERS: u16 = 256;

/// The paper's limit of `pkt_q`.
pub const PKT_Q_PACKETS: usize = 65_536;

/// Traffic before and after a migration. What a migration does to packets has been done when `pkt_q` is empty.
const BEFORE: Duration = Duration::from_millis(300);
const AFTER: Duration = Duration::from_millis(400);

/// The paper's window of measurement is over 10 s after the migration begins.
const PATIENCE: Duration = Duration::from_secs(10);

/// The simulated testbed.
#[derive(Debug)]
pub struct Sim {
    jobs: usize,
    fingerprint: String,
}

impl Sim {
    /// A testbed that runs `jobs` cells at a time; `fingerprint` is that of the program it is part of.
    pub fn new(jobs: usize, fingerprint: String) -> Self {
        Self { jobs, fingerprint }
    }
}

impl Backend for Sim {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    fn jobs(&self) -> usize {
        self.jobs
    }

    fn plan(&self, extent: Extent) -> Vec<Cell> {
        crate::grid::sim_plan(extent)
    }

    fn run(&self, cell: &Cell) -> Result<Run> {
        let began = Instant::now();
        let measured = run_trial(&trial(cell)?).map_err(|what| anyhow!("{}: {what}", cell.setup))?;
        Ok(Run { took_s: began.elapsed().as_secs_f64(), ..record(*cell, measured) })
    }
}

/// Sockets or subscribers, as in the paper.
pub fn sockets(vnf: Vnf) -> u16 {
    match vnf {
        Vnf::Nat => NAT_SOCKETS,
        Vnf::Gateway => SUBSCRIBERS,
    }
}

fn trial(cell: &Cell) -> Result<Trial> {
    let Setup { vnf, packet_size_bytes, rate_mbit, mode, scheduling, variation } = cell.setup;
    let scheduling = scheduling.into();
    let Some(mode) = mode.of_instances() else { bail!("{}: there is no hypervisor in the simulation", cell.setup) };
    let seed = u64::from(cell.repetition) + 1;
    let link = LinkSettings {
        rate_bps: LINK_BPS,
        burst_bytes: LINK_BPS / 8 * u64::from(variation.burst_ms) / 1000,
        delay_us: LINK_DELAY_US,
    };
    let seconds = (BEFORE + PATIENCE + AFTER).as_secs_f64();
    Ok(Trial {
        seed,
        load: LoadSpec {
            rate_mbit: rate_mbit.into(),
            packet_size_bytes,
            duration_s: seconds,
            sockets: sockets(vnf),
            gateway: vnf == Vnf::Gateway,
            cell_seed: seed,
            ..LoadSpec::default()
        },
        link,
        start: StartOptions {
            mode,
            scheduling,
            filler_bytes: FILLER_BYTES,
            coalesce: variation.coalesce,
            compress: variation.compress,
            pkt_q_pace: Pace::of_link(&link, scheduling),
            ..StartOptions::default()
        },
        congestion_control: variation.congestion != Congestion::None,
        window_bytes: variation.window_kib as usize * 1024,
        pkt_q_bytes: PKT_Q_PACKETS * usize::from(packet_size_bytes),
        before: BEFORE,
        after: AFTER,
        patience: PATIENCE,
    })
}

fn record(cell: Cell, measured: Measured) -> Run {
    let Measured { load, outcome, duration, drops } = measured;
    Run { drops, ..Run::new(cell, 1.0, &outcome, duration.as_secs_f64(), &load) }
}

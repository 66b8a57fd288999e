//! A snapshot of all sessions: written, sent through a loopback connection, adopted; and the bursts of the lcore
//! meanwhile.

use super::bursts::{Bursts, Recorder};
use super::drain::Drain;
use super::forwarding::frozen;
use super::transfer::{self, Adopter};
use super::workload::{self, Core};
use super::{LCORE_CPU, OTHER_CPU};
use crate::clock::{self, Clock, cycles};
use anyhow::{Context, Result, anyhow, ensure};
use serde::Serialize;
use slim_core::nf::PortId;
use slim_core::snapshot::{SnapshotReader, SnapshotWriter};
use slim_core::vei::lcore::{Announcing, Command, Frozen};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

/// Measurements of each.
const ROUNDS: usize = 5;

/// A snapshot and what it cost.
#[derive(Debug, Serialize)]
pub struct Moving {
    /// The number of sessions.
    pub sessions: usize,
    /// Bytes of the snapshot.
    pub bytes: u64,
    /// The freeze: the time between two bursts, in µs.
    pub freeze_us: f64,
    /// Writing the snapshot into memory, in ms.
    pub write_ms: f64,
    /// Adopting it from memory, in ms.
    pub adopt_ms: f64,
    /// Both at once on two cores, in ms.
    pub both_ms: f64,
    /// The same from one process to another, through a loopback connection, in ms.
    pub loopback_ms: f64,
    /// Bursts of the lcore without a migration, in µs.
    pub bursts: Bursts,
    /// The same from the freeze to the adoption, statelets on.
    pub bursts_meanwhile: Bursts,
    /// How long that took, in ms, with one core less.
    pub meanwhile_ms: f64,
}

impl Moving {
    /// Bytes per second of writing and adopting at once.
    pub fn bytes_per_s(&self) -> f64 {
        self.bytes as f64 * 1e3 / self.both_ms
    }
}

/// Measures with so many sessions.
pub fn measure(clock: &Clock, sessions: usize) -> Result<Moving> {
    let config = workload::config(sessions, workload::addresses_for(sessions))?;
    let mut core = workload::lcore(clock, &config, sessions)?;
    let [mut freezes, mut writes, mut adoptions, mut both, mut loopback] = [const { Vec::new() }; 5];
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        let nat = core.network_function().context("the lcore has no network function")?;
        let begin = cycles();
        let items = slim_core::snapshot::freeze(nat);
        freezes.push(clock.nanos(cycles() - begin) / 1e3);
        let mut snapshot = Vec::with_capacity(256 * sessions + (1 << 20));
        let begin = Instant::now();
        let mut writer = SnapshotWriter::new(items, 0);
        while writer.write_next(&mut snapshot)? {}
        writes.push(begin.elapsed().as_secs_f64() * 1e3);
        bytes = snapshot.len() as u64;
        let begin = Instant::now();
        let mut adopted = workload::empty(&config)?;
        let mut reader = SnapshotReader::new();
        reader.receive(&snapshot, &mut *adopted)?;
        reader.finish()?;
        adoptions.push(begin.elapsed().as_secs_f64() * 1e3);
        drop((snapshot, adopted));
        let nat = core.network_function().context("the lcore has no network function")?;
        let items = slim_core::snapshot::freeze(nat);
        let begin = Instant::now();
        let adopted = transfer::through_memory(items, &config, [LCORE_CPU, OTHER_CPU])?;
        both.push(begin.elapsed().as_secs_f64() * 1e3);
        ensure!(adopted.hosts().count() == nat.hosts().count(), "hosts were lost");
        drop(adopted);
        let adopter = Adopter::start(sessions, OTHER_CPU)?;
        let items = slim_core::snapshot::freeze(nat);
        let begin = Instant::now();
        adopter.send(items)?;
        loopback.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    let (bursts, bursts_meanwhile, meanwhile_ms) = stalls(clock, &mut core, sessions)?;
    Ok(Moving {
        sessions,
        bytes,
        freeze_us: median(&mut freezes),
        write_ms: median(&mut writes),
        adopt_ms: median(&mut adoptions),
        both_ms: median(&mut both),
        loopback_ms: median(&mut loopback),
        bursts,
        bursts_meanwhile,
        meanwhile_ms,
    })
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(0.0)
}

/// Bursts at full load, without a migration and during one.
fn stalls(clock: &Clock, core: &mut Core, sessions: usize) -> Result<(Bursts, Bursts, f64)> {
    for port in [PortId(0), PortId(1)] {
        core.io_mut().supply(port, usize::MAX);
    }
    let (mut plain, mut meanwhile, mut took) = (Recorder::new()?, Recorder::new()?, Vec::new());
    for _ in 0..ROUNDS {
        let (drain, st_q_out) = Drain::start();
        let adopter = Adopter::start(sessions, OTHER_CPU)?;
        let done = AtomicBool::new(false);
        let (give, take) = std::sync::mpsc::sync_channel::<Frozen>(1);
        let begin = std::thread::scope(|scope| -> Result<Instant> {
            let done = &done;
            let mover = scope.spawn(move || -> Result<()> {
                clock::pin(OTHER_CPU);
                let items = take.recv().context("nothing was frozen")?;
                let moved = adopter.send(items);
                done.store(true, Relaxed);
                moved
            });
            let begin = Instant::now();
            let passed = meanwhile
                .burst(clock, || core.pass(clock.now(), Some(Command::Freeze(st_q_out, Announcing::Statelets, None))));
            ensure!(passed.received > 0, "no packets");
            give.send(frozen(core).context("the lcore did not freeze")?).map_err(|_| anyhow!("the mover has ended"))?;
            while !done.load(Relaxed) {
                meanwhile.burst(clock, || core.pass(clock.now(), None));
            }
            mover.join().map_err(|_| anyhow!("the mover panicked"))??;
            Ok(begin)
        })?;
        took.push(begin.elapsed().as_secs_f64() * 1e3);
        core.pass(clock.now(), Some(Command::Resume(None)));
        drain.finish()?;
        ensure!(frozen(core).is_none(), "frozen twice");
        let as_long = begin.elapsed();
        let begin = Instant::now();
        while begin.elapsed() < as_long {
            plain.burst(clock, || core.pass(clock.now(), None));
        }
    }
    Ok((plain.summary(), meanwhile.summary(), median(&mut took)))
}

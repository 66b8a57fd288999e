//! A snapshot of all sessions: written, sent through a loopback connection, adopted; and the bursts of the lcore
//! meanwhile.

use super::drain::Drain;
use super::forwarding::frozen;
use super::workload::{self, Core};
use super::{LCORE_CPU, OTHER_CPU};
use crate::clock::{self, Clock, cycles};
use anyhow::{Context, Result, anyhow, ensure};
use hdrhistogram::Histogram;
use serde::Serialize;
use slim_core::nf::PortId;
use slim_core::snapshot::{SnapshotReader, SnapshotWriter};
use slim_core::vei::lcore::{Announcing, Command, Frozen};
use slim_nat::{Config, Nat};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

/// The most bytes written to, and read from, the connection at a time.
const PIECE: usize = 256 << 10;

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
    /// All at once on two cores: written, through a loopback connection, adopted; in ms.
    pub move_ms: f64,
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
        self.bytes as f64 * 1e3 / self.move_ms
    }
}

/// Times of bursts of 64 packets, in µs.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Bursts {
    /// How many.
    pub count: u64,
    /// The median.
    pub median_us: f64,
    /// The longest of a thousand.
    pub p999_us: f64,
    /// The longest of ten thousand.
    pub p9999_us: f64,
    /// The longest in which the thread kept its CPU.
    pub longest_us: f64,
    /// How many in which it did not, and which are left out.
    pub preempted: u64,
}

/// Measures with so many sessions.
pub fn measure(clock: &Clock, sessions: usize) -> Result<Moving> {
    let config = workload::config(sessions, workload::addresses_for(sessions))?;
    let mut core = workload::lcore(clock, &config, sessions)?;
    let (mut freezes, mut writes, mut adoptions, mut moves) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
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
        for piece in snapshot.chunks(PIECE) {
            reader.receive(piece, &mut *adopted)?;
        }
        reader.finish()?;
        adoptions.push(begin.elapsed().as_secs_f64() * 1e3);
        drop((snapshot, adopted));
        let nat = core.network_function().context("the lcore has no network function")?;
        let items = slim_core::snapshot::freeze(nat);
        let begin = Instant::now();
        let adopted = through_loopback(items, &config, [LCORE_CPU, OTHER_CPU])?;
        moves.push(begin.elapsed().as_secs_f64() * 1e3);
        ensure!(adopted.hosts().count() == nat.hosts().count(), "hosts were lost");
    }
    let (bursts, bursts_meanwhile, meanwhile_ms) = stalls(clock, &mut core, &config)?;
    Ok(Moving {
        sessions,
        bytes,
        freeze_us: median(&mut freezes),
        write_ms: median(&mut writes),
        adopt_ms: median(&mut adoptions),
        move_ms: median(&mut moves),
        bursts,
        bursts_meanwhile,
        meanwhile_ms,
    })
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(0.0)
}

/// Sends a snapshot from one thread to another, each on its CPU, and returns what was adopted.
fn through_loopback(items: Frozen, config: &Config, [from, to]: [usize; 2]) -> Result<Box<Nat>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || -> Result<()> {
            clock::pin(from);
            send(items, TcpStream::connect(address)?)
        });
        let receiver = scope.spawn(move || -> Result<Box<Nat>> {
            clock::pin(to);
            receive(listener.accept()?.0, config)
        });
        sender.join().map_err(|_| anyhow!("the sender panicked"))??;
        receiver.join().map_err(|_| anyhow!("the receiver panicked"))?
    })
}

fn send(items: Frozen, mut stream: TcpStream) -> Result<()> {
    let mut writer = SnapshotWriter::new(items, 0);
    let mut buffer = Vec::with_capacity(2 * PIECE);
    while writer.write_next(&mut buffer)? {
        if buffer.len() >= PIECE {
            stream.write_all(&buffer)?;
            buffer.clear();
        }
    }
    Ok(stream.write_all(&buffer)?)
}

fn receive(mut stream: TcpStream, config: &Config) -> Result<Box<Nat>> {
    let mut nat = workload::empty(config)?;
    let mut reader = SnapshotReader::new();
    let mut buffer = vec![0; PIECE];
    while !reader.is_complete() {
        let count = stream.read(&mut buffer)?;
        ensure!(count > 0, "the connection was closed");
        reader.receive(buffer.get(..count).unwrap_or_default(), &mut *nat)?;
    }
    Ok(nat)
}

/// Bursts at full load, without a migration and during one.
fn stalls(clock: &Clock, core: &mut Core, config: &Config) -> Result<(Bursts, Bursts, f64)> {
    for port in [PortId(0), PortId(1)] {
        core.io_mut().supply(port, usize::MAX);
    }
    let (mut plain, mut meanwhile, mut took) = (Recorder::new()?, Recorder::new()?, Vec::new());
    for _ in 0..ROUNDS {
        let (drain, st_q_out) = Drain::start();
        let done = AtomicBool::new(false);
        let (give, take) = std::sync::mpsc::sync_channel::<Frozen>(1);
        let begin = std::thread::scope(|scope| -> Result<Instant> {
            let done = &done;
            let mover = scope.spawn(move || -> Result<()> {
                clock::pin(OTHER_CPU);
                let items = take.recv().context("nothing was frozen")?;
                let moved = through_loopback(items, config, [OTHER_CPU, OTHER_CPU]);
                done.store(true, Relaxed);
                moved.map(drop)
            });
            let begin = Instant::now();
            let passed = meanwhile
                .burst(clock, || core.pass(clock.now(), Some(Command::Freeze(st_q_out, Announcing::Statelets))));
            ensure!(passed.received > 0, "no packets");
            give.send(frozen(core).context("the lcore did not freeze")?).map_err(|_| anyhow!("the mover has ended"))?;
            while !done.load(Relaxed) {
                meanwhile.burst(clock, || core.pass(clock.now(), None));
            }
            mover.join().map_err(|_| anyhow!("the mover panicked"))??;
            Ok(begin)
        })?;
        took.push(begin.elapsed().as_secs_f64() * 1e3);
        core.pass(clock.now(), Some(Command::Resume));
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

/// Times of bursts.
struct Recorder {
    nanos: Histogram<u64>,
    preempted: u64,
    preemptions: i64,
}

/// The longest time that a burst is recorded with.
const LONGEST_NS: u64 = 10_000_000_000;

/// Bursts from this length on are looked into.
const LONG_NS: f64 = 30_000.0;

impl Recorder {
    fn new() -> Result<Self> {
        Ok(Self { nanos: Histogram::new_with_bounds(1, LONGEST_NS, 3)?, preempted: 0, preemptions: 0 })
    }

    #[inline(always)]
    fn burst<T>(&mut self, clock: &Clock, f: impl FnOnce() -> T) -> T {
        let begin = cycles();
        let result = f();
        let nanos = clock.nanos(cycles() - begin);
        if nanos >= LONG_NS {
            let preemptions = clock::preemptions();
            if preemptions != self.preemptions {
                self.preemptions = preemptions;
                self.preempted += 1;
                return result;
            }
        }
        self.nanos.saturating_record(nanos as u64);
        result
    }

    fn summary(&self) -> Bursts {
        let us = |quantile| self.nanos.value_at_quantile(quantile) as f64 / 1e3;
        Bursts {
            count: self.nanos.len(),
            median_us: us(0.5),
            p999_us: us(0.999),
            p9999_us: us(0.9999),
            longest_us: self.nanos.max() as f64 / 1e3,
            preempted: self.preempted,
        }
    }
}

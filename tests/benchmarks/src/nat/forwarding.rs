//! Packets per second: rounds of all variants in turn, so that the load of the machine meets all alike, and the median
//! round of each.

use super::Scale;
use super::cache::{Counters, Counts};
use super::drain::Drain;
use super::workload::{self, Core};
use crate::clock::{Clock, cycles};
use crate::memory;
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use slim_core::nf::PortId;
use slim_core::vei::LcoreEvent;
use slim_core::vei::lcore::{Announcing, Command, Frozen, Report};

/// What goes on while packets are processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// Packets are made and thrown away, and nothing else.
    Nothing,
    /// No migration.
    Plain,
    /// Statelets are announced, to a statelet thread on another core.
    Statelets,
    /// A snapshot holds all of the state.
    Frozen,
    /// Both.
    Both,
}

impl Variant {
    /// All of them, in the order in which they take turns.
    pub const ALL: [Self; 5] = [Self::Nothing, Self::Plain, Self::Statelets, Self::Frozen, Self::Both];

    const fn announces(self) -> bool {
        matches!(self, Self::Statelets | Self::Both)
    }

    const fn freezes(self) -> bool {
        matches!(self, Self::Frozen | Self::Both)
    }
}

/// The median round of a variant.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Round {
    /// Which.
    pub variant: Variant,
    /// Cycles of the time stamp counter per packet, those for making packets included.
    pub cycles: f64,
    /// Packets per second.
    pub packets_per_s: f64,
    /// By how much the rate is below that without a migration, as a fraction of it: the median of what neighbouring rounds
    /// say, for the machine's speed changes from one to the next.
    pub cost: f64,
    /// Statelets per packet.
    pub statelets: f64,
}

/// What was measured with so many sessions.
#[derive(Debug, Serialize)]
pub struct Forwarding {
    /// The number of sessions.
    pub sessions: usize,
    /// Bytes of memory per session: all tables and indices, hosts and neighbours included.
    pub bytes_per_session: f64,
    /// By variant.
    pub rounds: Vec<Round>,
    /// What the processor counted per packet without a migration, if it could be read.
    pub counts: Option<Counts>,
}

impl Forwarding {
    /// The median round of a variant.
    pub fn of(&self, variant: Variant) -> Option<&Round> {
        self.rounds.iter().find(|round| round.variant == variant)
    }
}

/// Measures with so many sessions.
pub fn measure(
    clock: &Clock,
    scale: &Scale,
    sessions: usize,
    mut counters: Option<&mut Counters>,
) -> Result<Forwarding> {
    let config = workload::config(sessions, workload::addresses_for(sessions))?;
    let mut core = workload::lcore(clock, &config, sessions)?;
    let bytes_per_session = bytes_of(&config, sessions, clock)?;
    let mut samples: [Vec<(f64, f64)>; Variant::ALL.len()] = Default::default();
    let mut counts = None;
    for _ in 0..=scale.rounds {
        for (variant, samples) in Variant::ALL.into_iter().zip(&mut samples) {
            let counters = counters.as_deref_mut().filter(|_| variant == Variant::Plain);
            let (sample, counted) = round(clock, &mut core, variant, scale.packets, counters)?;
            samples.push(sample);
            counts = counted.or(counts);
        }
    }
    // The first round warms up.
    for samples in &mut samples {
        samples.remove(0);
    }
    let plain: Vec<f64> = samples[Variant::Plain as usize].iter().map(|(cycles, _)| *cycles).collect();
    let rounds = Variant::ALL.into_iter().zip(&samples).map(|(variant, samples)| {
        let cycles = median(samples.iter().map(|(cycles, _)| *cycles));
        let cost = median(samples.iter().zip(&plain).map(|((cycles, _), plain)| 1.0 - plain / cycles));
        let statelets = median(samples.iter().map(|(_, statelets)| *statelets));
        Round { variant, cycles, packets_per_s: clock.hz() / cycles, cost, statelets }
    });
    Ok(Forwarding { sessions, bytes_per_session, rounds: rounds.collect(), counts })
}

fn median(samples: impl Iterator<Item = f64>) -> f64 {
    let mut samples: Vec<f64> = samples.collect();
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What an instance with so many sessions takes in memory, per session.
fn bytes_of(config: &slim_nat::Config, sessions: usize, clock: &Clock) -> Result<f64> {
    let mut core = workload::lcore(clock, config, sessions)?;
    let nat = core.network_function().context("the lcore has no network function")?;
    let full = core::mem::replace(nat, *workload::empty(config)?);
    let before = memory::in_use();
    drop(full);
    Ok((before - memory::in_use()) as f64 / sessions as f64)
}

/// One round: cycles per packet and statelets per packet.
fn round(
    clock: &Clock,
    core: &mut Core,
    variant: Variant,
    packets: usize,
    counters: Option<&mut Counters>,
) -> Result<((f64, f64), Option<Counts>)> {
    let held = begin(clock, core, variant)?;
    for port in [PortId(0), PortId(1)] {
        core.io_mut().supply(port, packets / 2);
    }
    let before = core.io().fates;
    let mut run = || {
        let begin = cycles();
        if variant == Variant::Nothing {
            while core.io_mut().reflect() > 0 {}
        } else {
            while core.pass(clock.now(), None).received > 0 {}
        }
        cycles() - begin
    };
    let (elapsed, counts) = match counters {
        Some(counters) => counters.count(packets, run),
        None => (run(), None),
    };
    let after = core.io().fates;
    ensure!(
        after.transmitted - before.transmitted == packets as u64 && after.dropped == before.dropped,
        "packets were lost: {before:?}, then {after:?}"
    );
    let statelets = held.end(clock, core)?;
    Ok(((elapsed as f64 / packets as f64, statelets as f64 / packets as f64), counts))
}

/// What lasts as long as a round.
struct Held {
    drain: Option<Drain>,
    /// For as long as it is there, the state is frozen.
    _frozen: Option<Frozen>,
}

fn begin(clock: &Clock, core: &mut Core, variant: Variant) -> Result<Held> {
    if !variant.announces() {
        let frozen = variant.freezes().then(|| core.network_function().map(slim_core::snapshot::freeze)).flatten();
        return Ok(Held { drain: None, _frozen: frozen });
    }
    let (drain, st_q_out) = Drain::start();
    core.pass(clock.now(), Some(Command::Freeze(st_q_out, Announcing::Statelets, None)));
    let frozen = frozen(core).context("the lcore did not freeze")?;
    Ok(Held { drain: Some(drain), _frozen: Some(frozen).filter(|_| variant.freezes()) })
}

/// What the lcore has frozen.
pub fn frozen(core: &mut Core) -> Option<Frozen> {
    let mut found = None;
    while let Some(report) = core.poll_report() {
        if let Report::Snapshot(frozen) = report {
            found = Some(frozen);
        }
    }
    found
}

impl Held {
    /// Ends what goes on. The number of statelets.
    fn end(self, clock: &Clock, core: &mut Core) -> Result<u64> {
        while let Some(report) = core.poll_report() {
            ensure!(!matches!(report, Report::Event(LcoreEvent::StateletOverflow)), "st_q_out was full");
        }
        let Some(drain) = self.drain else { return Ok(0) };
        core.pass(clock.now(), Some(Command::Resume(None)));
        drain.finish()
    }
}

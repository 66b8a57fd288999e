//! The law every network function is tested against: `f(s, p) == h(s, g(s, p))` (§III).
//!
//! [`check`] runs a sequence of packets and pauses through instances of a network function that learn the same in
//! different ways, and compares their state after each step:
//!
//! | instance | learns from |
//! |---|---|
//! | source | packets, and announces statelets |
//! | silent | packets, while no statelets are wanted |
//! | follower | the source's statelets alone |
//! | coalesced | the same, merged where the network function allows it; compared when a buffer of them has been applied |
//! | restored | a snapshot of the source taken on the way, and the statelets since |
//! | duplicate | the same snapshot, then the packets, as in the mode `duplicate`, and the statelets between them |
//!
//! Source and silent must besides send the same. The restored instance gets the snapshot as a migration does, through
//! [`SnapshotWriter`] and [`SnapshotReader`], written only after the source has gone on, so that a snapshot that is
//! not isolated is found out as well.
//!
//! Each instance is created with another seed, except source and silent, which must make the same choices.

use super::testing::{Statelet, TestEnvironment};
use super::{ConfigError, Environment, InstallError, NetworkFunction, PortId, Shard, Verdict};
use crate::packet::OwnedPacket;
use crate::protocol::Mode;
use crate::snapshot::{self, SnapshotError, SnapshotReader, SnapshotWriter, WriteError};
use crate::statelet::{Align, Coalescer, Decoder, Duplicate, Record, Sigma, TYPE_ALIGN, TYPE_PACKET};
use crate::table::FrozenItem;
use crate::time::{Duration, Instant};
use crate::vei::Installer;

/// One step: time passes, then a packet may arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Time since the step before.
    pub pause: Duration,
    /// The packet and the port it arrives on.
    pub packet: Option<(PortId, Vec<u8>)>,
}

impl Step {
    /// A packet that arrives at once.
    pub fn packet(port: PortId, frame: Vec<u8>) -> Self {
        Self { pause: Duration::ZERO, packet: Some((port, frame)) }
    }

    /// A pause without a packet.
    pub const fn pause(pause: Duration) -> Self {
        Self { pause, packet: None }
    }
}

/// An instance other than the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instance {
    /// Got the same packets while no statelets were wanted.
    Silent,
    /// Got statelets only.
    Follower,
    /// Got statelets only, merged before.
    Coalesced,
    /// Got a snapshot and the statelets since.
    Restored,
    /// As `Restored`, after its take-over.
    TakenOver,
    /// Got a snapshot and the packets since.
    Duplicate,
}

/// How a network function breaks the law.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// It cannot be created with the configuration of the test.
    #[error("configuration: {0}")]
    Config(ConfigError),
    /// An instance's state differs from the source's after a step.
    #[error("after step {step}, the {instance:?} instance differs from the source in item {item:?}")]
    State {
        /// The step, from 0.
        step: usize,
        /// The instance.
        instance: Instance,
        /// The first item that differs.
        item: &'static str,
    },
    /// Announcing statelets changes what is done with a packet.
    #[error("in step {step}, the packet or what is sent depends on whether statelets are wanted")]
    Output {
        /// The step, from 0.
        step: usize,
    },
    /// A verdict that the network function has not declared.
    #[error("in step {step}, the verdict {verdict:?} names a port or reason that does not exist")]
    Verdict {
        /// The step, from 0.
        step: usize,
        /// The verdict.
        verdict: Verdict,
    },
    /// A statelet the source announced cannot be installed.
    #[error("the statelet of type {statelet_type:#06x} announced in step {step} cannot be installed: {error}")]
    Install {
        /// The step, from 0.
        step: usize,
        /// The statelet's type.
        statelet_type: u16,
        /// Why.
        error: InstallError,
    },
    /// A statelet's value is longer than one can be.
    #[error("a statelet announced in step {step} is longer than 65,535 bytes")]
    TooLong {
        /// The step, from 0.
        step: usize,
    },
    /// The snapshot cannot be written.
    #[error("the snapshot before step {step} cannot be written: {error}")]
    Write {
        /// The step, from 0.
        step: usize,
        /// Why.
        error: WriteError,
    },
    /// The snapshot cannot be read.
    #[error("the snapshot before step {step} cannot be read: {error}")]
    Read {
        /// The step, from 0.
        step: usize,
        /// Why.
        error: SnapshotError,
    },
}

/// What happened in a check that found the law kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// Packets and statelets, and thereby σ.
    pub sigma: Sigma,
    /// Packets that were not dropped.
    pub packets_accepted: u64,
    /// Statelets that were merged with others.
    pub statelets_merged: u64,
}

/// What one step did.
struct Outcome {
    statelets: Vec<Statelet>,
    /// Name and digest of each item afterwards.
    state: Vec<(&'static str, u128)>,
}

/// Steps whose statelets are merged with one another.
const COALESCED_STEPS: usize = 8;

/// Runs `steps` and compares, with snapshots taken at a quarter, half and three quarters of them.
///
/// # Errors
/// The first [`Violation`].
pub fn check<N: NetworkFunction>(config: &N::Config, steps: &[Step]) -> Result<Report, Violation> {
    let quarter = steps.len() / 4;
    check_with_snapshots::<N>(config, steps, &[quarter, steps.len() / 2, steps.len() - quarter])
}

/// Runs `steps` and compares, with a snapshot taken before each step that `snapshots` names.
///
/// # Errors
/// The first [`Violation`].
pub fn check_with_snapshots<N: NetworkFunction>(
    config: &N::Config,
    steps: &[Step],
    snapshots: &[usize],
) -> Result<Report, Violation> {
    let create = |seed| N::new(config, Shard::ONLY, seed).map_err(Violation::Config);
    // Clocks of different machines have nothing in common.
    let start = Instant::from_millis(1_000_000);
    let (mut source, mut source_env) = (create(1)?, TestEnvironment::new(start));
    let (mut silent, mut silent_env) = (create(1)?, TestEnvironment::without_updates(start));
    let mut follower = create(2)?;
    let (mut coalesced, mut coalescer) = (create(4)?, Coalescer::new());
    let mut frozen = Vec::new();
    let mut outcomes = Vec::new();
    let mut report = Report::default();

    for (number, step) in steps.iter().enumerate() {
        if snapshots.contains(&number) {
            frozen.push((number, snapshot::freeze(&mut source)));
        }
        let sent = run_step(&mut source, &mut source_env, step);
        let sent_silently = run_step(&mut silent, &mut silent_env, step);
        if let Some(verdict) = sent.verdict {
            if !is_declared::<N>(verdict) {
                return Err(Violation::Verdict { step: number, verdict });
            }
            report.sigma.add_packet(step.packet.as_ref().map_or(0, |(_, frame)| frame.len()));
            report.packets_accepted += u64::from(!matches!(verdict, Verdict::Drop(_)));
        }
        if sent != sent_silently {
            return Err(Violation::Output { step: number });
        }
        let statelets = source_env.take_statelets();
        statelets.iter().for_each(|statelet| report.sigma.add_statelet(statelet.value.len()));
        let outcome = Outcome { statelets, state: digests(&mut source) };
        install(&mut follower, number, &outcome.statelets)?;
        compare(&mut silent, number, Instance::Silent, &outcome)?;
        compare(&mut follower, number, Instance::Follower, &outcome)?;
        for Statelet { statelet_type, value } in &outcome.statelets {
            coalescer.push::<N>(*statelet_type, value).map_err(|_| Violation::TooLong { step: number })?;
        }
        if number % COALESCED_STEPS == COALESCED_STEPS - 1 || number + 1 == steps.len() {
            install(&mut coalesced, number, &decode(coalescer.bytes()))?;
            compare(&mut coalesced, number, Instance::Coalesced, &outcome)?;
            coalescer.clear();
        }
        outcomes.push(outcome);
    }

    for (begin, items) in frozen {
        let mut restored = restore(create(3)?, begin, items)?;
        for (number, outcome) in outcomes.iter().enumerate().skip(begin) {
            install(&mut restored, number, &outcome.statelets)?;
            compare(&mut restored, number, Instance::Restored, outcome)?;
        }
        if let Some(outcome) = outcomes.last() {
            restored.take_over(Instant::from_millis(5));
            compare(&mut restored, outcomes.len() - 1, Instance::TakenOver, outcome)?;
        }
    }
    report.statelets_merged = coalescer.merged();
    snapshots.iter().try_for_each(|&begin| check_duplicates::<N>(config, steps, begin))?;
    Ok(report)
}

/// Runs `steps` once more; from `begin` on another instance gets what the mode `duplicate` tells it.
fn check_duplicates<N: NetworkFunction>(config: &N::Config, steps: &[Step], begin: usize) -> Result<(), Violation> {
    let create = |seed| N::new(config, Shard::ONLY, seed).map_err(Violation::Config);
    let (mut source, mut env) = (create(1)?, TestEnvironment::new(Instant::from_millis(1_000_000)));
    steps.iter().take(begin).for_each(|step| drop(run_step(&mut source, &mut env, step)));
    env.take_statelets();

    let mut duplicate = restore(create(5)?, begin, snapshot::freeze(&mut source))?;
    let mut installer = Installer::new(Mode::Duplicate, 5);
    let mut apply = |nf: &mut N, step: usize, statelet_type: u16, value: &[u8]| {
        let violation = |error| Violation::Install { step, statelet_type, error };
        installer.install(nf, statelet_type, value).map_err(violation)
    };
    let align = Align { now: env.now(), seed: 6 };
    source.align(align.now, align.seed);
    apply(&mut duplicate, begin, TYPE_ALIGN, &align.encode_value())?;
    for (number, step) in steps.iter().enumerate().skip(begin) {
        let_time_pass(&mut source, &mut env, step);
        for Statelet { statelet_type, value } in env.take_statelets() {
            apply(&mut duplicate, number, statelet_type, &value)?;
        }
        if let Some((port, frame)) = &step.packet {
            let value = [&Duplicate::encode_head(env.now(), *port)[..], frame].concat();
            apply(&mut duplicate, number, TYPE_PACKET, &value)?;
            take_packet(&mut source, &mut env, *port, frame);
            env.take_statelets();
        }
        let outcome = Outcome { statelets: Vec::new(), state: digests(&mut source) };
        compare(&mut duplicate, number, Instance::Duplicate, &outcome)?;
    }
    Ok(())
}

/// The statelets in a buffer of whole ones.
fn decode(mut bytes: &[u8]) -> Vec<Statelet> {
    let (mut decoder, mut statelets) = (Decoder::new(), Vec::new());
    // What has been encoded here holds no reserved types and no end.
    while let Ok(Some(Record::Statelet { statelet_type, value })) = decoder.decode(&mut bytes) {
        statelets.push(Statelet { statelet_type, value: value.to_vec() });
    }
    statelets
}

/// What a step lets others see.
#[derive(Debug, PartialEq, Eq)]
struct Sent {
    verdict: Option<Verdict>,
    packet: Option<OwnedPacket>,
    emitted: Vec<(PortId, Vec<u8>)>,
}

fn let_time_pass<N: NetworkFunction>(nf: &mut N, env: &mut TestEnvironment, step: &Step) {
    env.advance(step.pause);
    nf.tick(env);
}

fn take_packet<N: NetworkFunction>(
    nf: &mut N,
    env: &mut TestEnvironment,
    port: PortId,
    frame: &[u8],
) -> (Verdict, OwnedPacket) {
    let mut packet = OwnedPacket::from(frame);
    (nf.process(env, port, &mut packet), packet)
}

fn run_step<N: NetworkFunction>(nf: &mut N, env: &mut TestEnvironment, step: &Step) -> Sent {
    let_time_pass(nf, env, step);
    let mut sent = Sent { verdict: None, packet: None, emitted: Vec::new() };
    if let Some((port, frame)) = &step.packet {
        let (verdict, packet) = take_packet(nf, env, *port, frame);
        sent.verdict = Some(verdict);
        // What becomes of the bytes of a packet that is not sent is nobody's concern.
        sent.packet = matches!(verdict, Verdict::Transmit(_)).then_some(packet);
    }
    sent.emitted = env.take_emitted();
    sent
}

fn is_declared<N: NetworkFunction>(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Transmit(port) => usize::from(port.0) < N::PORTS.len(),
        Verdict::Consumed => true,
        Verdict::Drop(reason) => usize::from(reason) < N::DROP_REASONS.len(),
    }
}

fn install<N: NetworkFunction>(nf: &mut N, step: usize, statelets: &[Statelet]) -> Result<(), Violation> {
    statelets.iter().try_for_each(|Statelet { statelet_type, value }| {
        nf.install(*statelet_type, value).map_err(|error| Violation::Install {
            step,
            statelet_type: *statelet_type,
            error,
        })
    })
}

fn digests<N: NetworkFunction>(nf: &mut N) -> Vec<(&'static str, u128)> {
    snapshot::freeze(nf).iter().map(|item| (item.name(), item.digest())).collect()
}

fn compare<N: NetworkFunction>(
    nf: &mut N,
    step: usize,
    instance: Instance,
    expected: &Outcome,
) -> Result<(), Violation> {
    let state = digests(nf);
    let different = state.iter().zip(&expected.state).find(|(have, want)| have != want);
    match different {
        Some(((item, _), _)) => Err(Violation::State { step, instance, item }),
        None => Ok(()),
    }
}

/// Makes `fresh` the instance that `items` are a snapshot of, by way of a stream that arrives in odd pieces.
fn restore<N: NetworkFunction>(mut fresh: N, step: usize, items: Vec<Box<dyn FrozenItem>>) -> Result<N, Violation> {
    let mut writer = SnapshotWriter::new(items, 100_000);
    let mut reader = SnapshotReader::new();
    let mut stream = Vec::new();
    while writer.write_next(&mut stream).map_err(|error| Violation::Write { step, error })? {}
    for piece in stream.chunks(1009) {
        reader.receive(piece, &mut fresh).map_err(|error| Violation::Read { step, error })?;
    }
    reader.finish().map_err(|error| Violation::Read { step, error })?;
    Ok(fresh)
}

#[cfg(test)]
mod tests;

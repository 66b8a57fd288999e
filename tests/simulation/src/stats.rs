//! What happened in many runs, in numbers.

use slim_core::migration::Outcome;
use std::collections::BTreeMap;

/// Counts over one run or many.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Migrations asked for.
    pub migrations: u64,
    /// How migrations ended, and why.
    pub outcomes: BTreeMap<String, u64>,
    /// Faults that struck, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Packets that counters say were dropped, by cause.
    pub drops: BTreeMap<String, u64>,
    /// Packets generated, processed by a network function, and lost for a known reason.
    pub generated: u64,
    /// Packets processed by a network function.
    pub processed: u64,
    /// Packets lost for a known reason.
    pub lost: u64,
    /// Packets handed back through the switch.
    pub handed_back: u64,
    /// Frames of the management network.
    pub management_frames: u64,
    /// Virtual time, in milliseconds.
    pub virtual_ms: u64,
}

impl Stats {
    pub(crate) fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    pub(crate) fn dropped(&mut self, cause: &str, packets: u64) {
        *self.drops.entry(cause.to_owned()).or_default() += packets;
    }

    pub(crate) fn outcome(&mut self, outcome: &Outcome) {
        let text = match outcome {
            Outcome::Completed { remark: None, .. } => "completed".to_owned(),
            Outcome::Completed { remark: Some(_), .. } => "completed, with a remark".to_owned(),
            Outcome::RolledBack { failure, .. } => format!("rolled back: {:?}", failure.code),
            Outcome::Unresolved { failure, .. } => format!("unresolved: {:?}", failure.code),
        };
        *self.outcomes.entry(text).or_default() += 1;
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.migrations += other.migrations;
        for (text, count) in &other.outcomes {
            *self.outcomes.entry(text.clone()).or_default() += count;
        }
        for (&kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        for (cause, count) in &other.drops {
            *self.drops.entry(cause.clone()).or_default() += count;
        }
        self.generated += other.generated;
        self.processed += other.processed;
        self.lost += other.lost;
        self.handed_back += other.handed_back;
        self.management_frames += other.management_frames;
        self.virtual_ms += other.virtual_ms;
    }
}

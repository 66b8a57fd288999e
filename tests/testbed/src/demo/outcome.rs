//! What a demo run came to, and the verdict on it.

use super::DemoSpec;
use crate::load::Report;
use crate::load::report::{BEFORE, PhaseReport};
use comfy_table::{CellAlignment, Table, presets};
use core::fmt;
use serde::{Deserialize, Serialize};
use slim_controller::api::{InstanceInfo, MigrationOutcome, Runs, Step};
use slim_controller::plan::MigrationPlan;
use slim_controller::units::grouped;
use slim_core::protocol::control::MigrationReport;
use std::collections::BTreeMap;

/// The recorder's phase from the migration's start to its end.
pub const DURING: &str = "during";
/// The recorder's phase after the migration.
pub const AFTER: &str = "after";

/// Everything a demo run came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// What was asked for.
    pub spec: DemoSpec,
    /// The instances as they were booted, the first one live.
    pub instances: Vec<InstanceInfo>,
    /// What the recorder saw.
    pub load: Report,
    /// What controller and instances saw.
    pub migration: MigrationOutcome,
    /// What the controller said beforehand, if it was asked.
    #[serde(default)]
    pub plan: Option<MigrationPlan>,
    /// Frames that the switch dropped in the whole run, by cause. Those of state streams are among them.
    #[serde(default)]
    pub switch_drops: BTreeMap<String, u64>,
    /// Why the migration was not seamless; empty if it was.
    pub complaints: Vec<String>,
}

impl Outcome {
    /// Judges a run.
    pub(super) fn new(spec: DemoSpec, instances: Vec<InstanceInfo>, load: Report, migration: MigrationOutcome) -> Self {
        let complaints = complaints(&spec, &load, &migration);
        Self { spec, instances, load, migration, plan: None, switch_drops: BTreeMap::new(), complaints }
    }

    /// Whether nothing was lost, duplicated or reordered and the state arrived whole.
    pub fn is_seamless(&self) -> bool {
        self.complaints.is_empty()
    }
}

fn complaints(spec: &DemoSpec, load: &Report, migration: &MigrationOutcome) -> Vec<String> {
    let mut complaints = Vec::new();
    if let Some(failure) = migration.failure() {
        complaints.push(format!("the migration ended as {:?}: {failure}", migration.result()));
    }
    match migration.digests_equal() {
        Some(true) => {}
        Some(false) => complaints.push("the state that arrived differs from the state that left".into()),
        None => complaints.push("the digests of both states are not known".into()),
    }
    if load.phase(AFTER).is_none() {
        complaints.push("the migration took longer than the traffic: nothing is known of the time after it".into());
    }
    if !load.complete && spec.moving.stop_after.is_none() {
        complaints.push("the load generator ended early".into());
    }
    for (direction, counts) in [("outbound", &load.total.outbound), ("inbound", &load.total.inbound)] {
        for (count, what) in [
            (counts.lost, "lost"),
            (counts.duplicated, "duplicated"),
            (counts.reordered, "reordered"),
            (counts.corrupt, "corrupt"),
            (counts.mistranslated, "wrongly translated"),
        ] {
            if count > 0 {
                complaints.push(format!("{count} {direction} packets {what}"));
            }
        }
        if counts.received == 0 {
            complaints.push(format!("no {direction} packet arrived at all"));
        }
    }
    // A pause of the machine longer than the 7.5 ms of grace has the same effect at any time.
    let misdirected = load.phase(DURING).map_or(0, |during| during.inbound.misdirected);
    if misdirected > 0 {
        complaints.push(format!("{misdirected} packets at a wrong cell while the migration went on"));
    }
    complaints
}

/// The tables and the verdict, for people.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", packets(&self.load))?;
        writeln!(f, "{}\n", round_trips(&self.load))?;
        writeln!(f, "{}\n", phases(&self.migration))?;
        writeln!(f, "{}\n", amounts(self))?;
        if self.is_seamless() {
            let (function, users) = self.spec.function().in_words();
            write!(
                f,
                "Verdict: SEAMLESS. A {function} with {} {users} moved from {} to {} in {} ms; of {} packets every one arrived, once, \
                 in order.",
                self.spec.load.sockets,
                self.migration.source.as_str(),
                self.migration.destination.as_str(),
                self.migration.total_us / 1000,
                grouped(self.load.total.outbound.sent + self.load.total.inbound.sent),
            )
        } else {
            writeln!(f, "Verdict: NOT SEAMLESS.")?;
            for complaint in &self.complaints {
                writeln!(f, "  - {complaint}")?;
            }
            Ok(())
        }
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The recorder's phases that a reader wants: those of the migration, and the total.
fn rows(load: &Report) -> impl Iterator<Item = &PhaseReport> {
    [BEFORE, DURING, AFTER].into_iter().filter_map(|name| load.phase(name)).chain([&load.total])
}

fn packets(load: &Report) -> Table {
    let mut table = table(&["packets", "sent", "lost", "duplicated", "reordered", "corrupt", "wrong", "longest gap"]);
    for phase in rows(load) {
        let (out, back) = (&phase.outbound, &phase.inbound);
        table.add_row([
            phase.name.clone(),
            grouped(out.sent + back.sent),
            grouped(out.lost + back.lost),
            grouped(out.duplicated + back.duplicated),
            grouped(out.reordered + back.reordered),
            grouped(out.corrupt + back.corrupt),
            grouped(out.mistranslated + back.mistranslated + back.misdirected),
            ms(out.gap_max_us.max(back.gap_max_us)),
        ]);
    }
    table
}

fn round_trips(load: &Report) -> Table {
    let late = format!("over {} ms", load.spec.late_ms);
    let mut table = table(&["round trips", "p50", "p99", "max", &late, "generator paused"]);
    for phase in rows(load) {
        table.add_row([
            phase.name.clone(),
            ms(phase.rtt.p50_us),
            ms(phase.rtt.p99_us),
            ms(phase.rtt.max_us),
            grouped(phase.late),
            ms(phase.own_pause_max_us),
        ]);
    }
    table
}

fn phases(migration: &MigrationOutcome) -> Table {
    let mut table = table(&["phase", "took"]);
    for (name, report) in reports(migration) {
        for phase in report.iter().flat_map(|report| &report.phases) {
            table.add_row([format!("{name} {}", label(&phase.phase)), ms(phase.duration_us)]);
        }
    }
    for phase in &migration.phases {
        table.add_row([format!("controller {}", label(&phase.phase)), ms(phase.duration_us)]);
    }
    table.add_row(["whole migration".to_owned(), ms(migration.total_us)]);
    table
}

fn amounts(outcome: &Outcome) -> Table {
    let mut table = table(&["moved", ""]);
    let migration = &outcome.migration;
    if let Some(report) = migration.source_report() {
        let snapshot = &report.snapshot;
        table.add_row(["snapshot bytes".into(), grouped(snapshot.bytes)]);
        table.add_row(["  of them filler".into(), grouped(snapshot.filler_bytes)]);
        table.add_row(["snapshot chunks".into(), grouped(snapshot.chunks)]);
        table.add_row(["table entries".into(), grouped(snapshot.entries)]);
        table.add_row(["statelets".into(), grouped(report.announced.records)]);
        table.add_row(["statelet bytes".into(), grouped(report.announced.bytes)]);
        table.add_row(["  after merging".into(), grouped(report.statelets.bytes)]);
        table.add_row(["  on the stream".into(), grouped(report.statelets.stream_bytes)]);
    }
    let sigma = |value: Option<f64>| value.map_or_else(|| "unknown".into(), |sigma| format!("{sigma:.4}"));
    table.add_row(["statelet factor σ, values alone".into(), sigma(migration.sigma_payload)]);
    table.add_row(["statelet factor σ, on the wire".into(), sigma(migration.sigma_wire)]);
    if let Some(report) = migration.destination_report() {
        table.add_row(["longest pkt_q, packets".into(), grouped(report.pkt_q.longest_packets)]);
        table.add_row(["longest pkt_q, bytes".into(), grouped(report.pkt_q.longest_bytes)]);
    }
    for (name, report) in reports(migration) {
        let digest = report.and_then(|report| report.digest.as_ref());
        let digest = digest.map_or_else(|| "unknown".into(), |digest| digest.to_string());
        table.add_row([format!("state digest of {name}"), digest]);
    }
    for instance in &outcome.instances {
        let accel = match &instance.runs {
            Some(Runs::Image { accel, .. }) => format!(" ({accel})"),
            _ => String::new(),
        };
        let ready = instance.ready_after_ms.map_or_else(|| "unknown".into(), |ready| format!("{ready} ms"));
        table.add_row([format!("boot of {}{accel}", instance.name.as_str()), ready]);
    }
    table
}

/// Both instances' accounts of a migration, as far as they could be had.
fn reports(migration: &MigrationOutcome) -> [(&str, Option<&MigrationReport>); 2] {
    [
        (migration.source.as_str(), migration.source_report()),
        (migration.destination.as_str(), migration.destination_report()),
    ]
}

/// A step of a migration, in words.
pub(super) fn step(step: &Step) -> String {
    match step {
        Step::Controller { phase } => format!("controller: {}", label(phase)),
        Step::Instance { name, phase } => format!("{}: {}", name.as_str(), label(phase)),
    }
}

/// A phase as the protocol writes it.
fn label(phase: &impl Serialize) -> String {
    let value = serde_json::to_value(phase).unwrap_or_default();
    let text = value.get("phase").unwrap_or(&value).as_str();
    text.unwrap_or("?").replace('_', " ")
}

fn ms(us: u64) -> String {
    format!("{:.2} ms", us as f64 / 1e3)
}

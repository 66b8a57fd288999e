//! What a migration came to, as a table.

use super::{layout, words};
use comfy_table::Table;
use slim_controller::api::{DestinationFrom, DestinationReady, MigrationOutcome};
use slim_controller::precopy::PrecopyOutcome;
use slim_controller::units::{bytes, duration, grouped, word};
use slim_core::migration::Outcome;
use slim_core::protocol::control::{MigrationReport, PhaseDuration};
use std::time::Duration;

/// The whole report as text.
pub fn report(outcome: &MigrationOutcome) -> String {
    let mut text = format!("{}\n", headline(outcome));
    if let Some(DestinationReady { from, after_us }) = &outcome.destination_ready {
        let from = match from {
            DestinationFrom::Pool => "was taken out of the pool",
            DestinationFrom::Boot => "was booted, as none was at hand in the pool",
        };
        let after = duration(Duration::from_micros(*after_us));
        text += &format!("{} {from}, and was ready {after} after it was asked for.\n", outcome.destination);
    }
    let phases = phases(outcome);
    if !phases.is_empty() {
        text += &format!("{phases}\n");
    }
    let values = values(outcome);
    if !values.is_empty() {
        text += &format!("{values}\n");
    }
    for warning in &outcome.warnings {
        text += &format!("warning: {warning}\n");
    }
    text
}

/// What came of moving a whole guest.
pub fn precopy(outcome: &PrecopyOutcome) -> String {
    let PrecopyOutcome { source, destination, failure, total_us, downtime_us, redirected_after_us, .. } = outcome;
    let took = |us: u64| duration(Duration::from_micros(us));
    let mut table = layout::table(&[]);
    let mut fact = |name: &str, value: String| _ = table.add_row([name.to_owned(), value]);
    if let Some(us) = downtime_us {
        fact("the guest stood still for", took(*us));
    }
    if let Some(us) = redirected_after_us {
        fact("  the switch redirected after another", took(*us));
    }
    fact("rounds", grouped(outcome.progress.round));
    fact("memory", bytes(outcome.memory_bytes));
    fact("  sent", bytes(outcome.progress.sent_bytes));
    fact("carried over the links", bytes(outcome.stream_bytes));
    layout::right(&mut table, 1);
    let headline = match failure {
        None => format!("The guest of {source} has moved and is {destination} now, after {}.", took(*total_us)),
        Some(failure) => {
            format!("The guest of {source} was not moved to {destination}, after {}: {failure}", took(*total_us))
        }
    };
    format!("{headline}\n{table}\n")
}

fn headline(outcome: &MigrationOutcome) -> String {
    let (source, destination) = (outcome.source.as_str(), outcome.destination.as_str());
    let took = duration(Duration::from_micros(outcome.total_us));
    let remark = |remark: &Option<_>| remark.as_ref().map_or_else(String::new, |remark| format!("\nNote: {remark}"));
    match &outcome.outcome {
        Outcome::Completed { digests_equal, remark: note, .. } => {
            let verdict = match digests_equal {
                Some(true) => "the state at take-over equals the state at the source's end",
                Some(false) => "BUT THE STATE AT TAKE-OVER DIFFERS FROM THE STATE AT THE SOURCE'S END",
                None => "but the digests of both states are not known",
            };
            format!("{source} has moved to {destination} in {took}; {verdict}.{}", remark(note))
        }
        Outcome::RolledBack { failure, remark: note, .. } => format!(
            "The migration from {source} to {destination} was undone after {took}: {failure}\n\
             {source} goes on.{}",
            remark(note)
        ),
        Outcome::Unresolved { failure, what_to_do } => {
            format!("The migration from {source} to {destination} is UNRESOLVED after {took}: {failure}\n{what_to_do}")
        }
    }
}

fn phases(outcome: &MigrationOutcome) -> Table {
    let mut table = layout::table(&["party", "phase", "duration"]);
    for phase in &outcome.phases {
        let took = duration(Duration::from_micros(phase.duration_us));
        table.add_row(["controller", &word(&phase.phase), &took]);
    }
    let reports = [(&outcome.source, outcome.source_report()), (&outcome.destination, outcome.destination_report())];
    for (name, report) in reports {
        for PhaseDuration { phase, duration_us } in report.map(|report| report.phases.as_slice()).unwrap_or_default() {
            let took = duration(Duration::from_micros(*duration_us));
            table.add_row([name.as_str(), &words::phase(phase), &took]);
        }
    }
    layout::right(&mut table, 2);
    table
}

fn values(outcome: &MigrationOutcome) -> Table {
    let mut table = layout::table(&[]);
    let (source, destination) = (outcome.source_report(), outcome.destination_report());
    if let Some(report) = source.or(destination) {
        let snapshot = report.snapshot;
        table.add_row(["snapshot".to_owned(), bytes(snapshot.bytes)]);
        table.add_row(["  of it filler".to_owned(), bytes(snapshot.filler_bytes)]);
        table.add_row(["  chunks".to_owned(), grouped(snapshot.chunks)]);
        table.add_row(["  table entries".to_owned(), grouped(snapshot.entries)]);
        let statelets = report.statelets;
        if let Some(report) = source {
            table.add_row(["statelets announced".to_owned(), grouped(report.announced.records)]);
            table.add_row(["  payload".to_owned(), bytes(report.announced.value_bytes)]);
            table.add_row(["  with type and length".to_owned(), bytes(report.announced.bytes)]);
        }
        table.add_row(["statelets sent".to_owned(), grouped(statelets.records)]);
        table.add_row(["  with type and length".to_owned(), bytes(statelets.bytes)]);
        table.add_row(["  on the stream".to_owned(), bytes(statelets.stream_bytes)]);
    }
    if let Some(report) = source {
        let workload = report.workload;
        table.add_row(["packets while announcing".to_owned(), grouped(workload.packets)]);
        table.add_row(["  bytes".to_owned(), bytes(workload.bytes)]);
    }
    for (name, sigma) in [("payload", outcome.sigma_payload), ("on the wire", outcome.sigma_wire)] {
        if let Some(sigma) = sigma {
            table.add_row([format!("statelet factor σ, {name}"), format!("{sigma:.4}")]);
        }
    }
    if let Some(report) = destination {
        let queue = report.pkt_q;
        table.add_row(["pkt_q, longest".to_owned(), format!("{} packets", grouped(queue.longest_packets))]);
        table.add_row(["  bytes".to_owned(), bytes(queue.longest_bytes)]);
        table.add_row(["  packets through it".to_owned(), grouped(queue.packets)]);
        table.add_row(["  dropped because full".to_owned(), grouped(queue.dropped_packets)]);
        if queue.handed_back_packets > 0 {
            table.add_row(["  handed back".to_owned(), grouped(queue.handed_back_packets)]);
        }
        if queue.discarded_packets > 0 {
            table.add_row(["  thrown away".to_owned(), grouped(queue.discarded_packets)]);
        }
    }
    let digest = |report: Option<&MigrationReport>| report.and_then(|report| report.digest);
    for (name, digest) in [("source's end", digest(source)), ("take-over", digest(destination))] {
        if let Some(digest) = digest {
            table.add_row([format!("digest at the {name}"), digest.to_string()]);
        }
    }
    layout::right(&mut table, 1);
    table
}

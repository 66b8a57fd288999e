//! The promises of docs/failure-model.md, as far as a cell can break them.

use super::cell::{CellReport, Ending};
use super::spec::{Blow, Party};
use crate::load::Report;
use slim_controller::api::MigrationResult;
use slim_controller::units::word;

/// Writes down what is not as promised.
pub(super) fn judge(report: &mut CellReport, recorded: &Report) {
    let mut complaints = Vec::new();
    holder(report, &mut complaints);
    truth(report, &mut complaints);
    packets(report, recorded, &mut complaints);
    afterwards(report, &mut complaints);
    report.complaints.append(&mut complaints);
}

/// Never two forwarders, never none while a live holder exists; and nobody loses state who has not died.
fn holder(report: &CellReport, complaints: &mut Vec<String>) {
    if report.live.len() > 1 {
        complaints.push("two instances say they are live".into());
    }
    if report.forwarding.len() > 1 {
        complaints.push("two instances forward packets".into());
    }
    if report.live.is_empty() && report.dead().is_none() {
        complaints.push("no instance is live, though none has died".into());
    }
    if report.live.len() == 1 && report.forwarding != report.live {
        let forwarding = report.forwarding.first().map_or("nobody", |name| name.as_str());
        complaints.push(format!("{} is live, but {forwarding} forwards", report.live[0]));
    }
}

/// The caller was told what is so.
fn truth(report: &CellReport, complaints: &mut Vec<String>) {
    let (Some(ending), Some((source, destination))) = (&report.ending, &report.pair) else { return };
    let is_so =
        |wanted| report.live.first() == Some(wanted) || (report.live.is_empty() && report.dead() == Some(wanted));
    let told = match ending {
        Ending::Completed => is_so(destination),
        Ending::RolledBack | Ending::Refused => is_so(source),
        // Right only where the one who had the state is dead.
        Ending::Unresolved => report.live.is_empty() && report.dead().is_some(),
        Ending::Forgotten => is_so(source) || is_so(destination),
    };
    if !told {
        let live = report.live.first().map_or("nobody", |name| name.as_str());
        complaints.push(format!("the caller was told {}, but {live} is live: {}", word(ending), report.detail));
    }
}

/// Zero lost beyond those addressed to a dead process; none twice, none late, none wrong.
fn packets(report: &CellReport, recorded: &Report, complaints: &mut Vec<String>) {
    let losses = &report.losses;
    let dies = report.cell.blow == Blow::Kill && report.cell.party != Party::Controller;
    if !dies && losses.lost > 0 {
        complaints.push(format!("{} packets lost: {}", losses.lost, losses.words()));
    }
    if dies && losses.unexplained > 0 {
        complaints.push(format!("{} packets lost for no known reason", losses.unexplained));
    }
    for (count, what) in
        [(report.duplicated, "duplicated"), (report.reordered, "reordered"), (report.wrong, "translated wrongly")]
    {
        if count > 0 {
            complaints.push(format!("{count} packets {what}"));
        }
    }
    if recorded.total.outbound.received == 0 {
        complaints.push("no packet arrived at all".into());
    }
}

/// The function works as before, and can be moved.
fn afterwards(report: &CellReport, complaints: &mut Vec<String>) {
    match &report.again {
        None => complaints.push("there was no second migration".into()),
        Some((MigrationResult::Completed, 0)) => {}
        Some((result, lost)) => {
            complaints.push(format!("the migration after it: {}, {lost} packets lost after the fault", word(result)));
        }
    }
}

//! All cells as a table.

use super::cell::CellReport;
use super::spec::word as label;
use comfy_table::{CellAlignment, Table, presets};
use core::fmt;
use serde::{Deserialize, Serialize};
use slim_controller::units::{grouped, word};

/// What a chaos run came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Matrix {
    /// Every cell, in the order in which they were run.
    pub reports: Vec<CellReport>,
    /// How long all of it took.
    pub seconds: f64,
}

impl Matrix {
    /// The cells that broke a promise.
    pub fn broken(&self) -> impl Iterator<Item = &CellReport> {
        self.reports.iter().filter(|report| !report.complaints.is_empty())
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_BORDERS_ONLY).set_header([
            "fault",
            "at",
            "hit while",
            "outcome",
            "after",
            "lost",
            "of them",
            "dup",
            "late",
            "forwards then",
            "moves again",
            "",
        ]);
        for report in &self.reports {
            table.add_row(row(report));
        }
        for column in [4, 5, 7, 8] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        writeln!(f, "{table}")?;
        for report in self.broken() {
            writeln!(f, "✗ {}", report.cell)?;
            for complaint in &report.complaints {
                writeln!(f, "  - {complaint}")?;
            }
        }
        let broken = self.broken().count();
        write!(
            f,
            "{} of {} cells as promised, in {:.0} s",
            self.reports.len() - broken,
            self.reports.len(),
            self.seconds
        )
    }
}

fn row(report: &CellReport) -> [String; 12] {
    let forwards = match (report.forwarding.as_slice(), &report.pair) {
        ([], _) => "nobody: its state is lost".to_owned(),
        ([one], Some((source, _))) if one == source => "source".to_owned(),
        ([_], Some(_)) => "destination".to_owned(),
        _ => "both".to_owned(),
    };
    let forwards = if report.forwarding.is_empty() && report.dead().is_none() { "nobody".to_owned() } else { forwards };
    [
        report.cell.what(),
        label(&report.cell.phase),
        report.hit.map_or_else(String::new, |hit| word(&hit)),
        report.ending.as_ref().map_or_else(|| "?".to_owned(), word),
        format!("{:.1} s", report.ended_after_ms as f64 / 1e3),
        grouped(report.losses.lost),
        report.losses.words(),
        grouped(report.duplicated),
        grouped(report.reordered),
        forwards,
        report.again.as_ref().map_or_else(String::new, |(result, _)| word(result)),
        if report.complaints.is_empty() { "✓" } else { "✗" }.to_owned(),
    ]
}

//! What became of a run.

use super::ProgramsSpec;
use comfy_table::{Table, presets};
use core::fmt;
use serde::{Deserialize, Serialize};
use slim_controller::api::MigrationOutcome;

/// One program.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// Its name.
    pub program: String,
    /// What it shows, with the requirement's number where it is one of the RFCs'.
    pub claim: String,
    /// What it said, in short; or what is wrong.
    pub said: String,
    /// Whether it said what it should.
    pub good: bool,
    /// Migrations that ended meanwhile.
    pub migrations: u32,
}

/// The migrations of a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Migrations {
    /// How many were asked for.
    pub begun: u32,
    /// Why those failed that did.
    pub failures: Vec<String>,
    /// How many ended with digests of the state that differ or are not known.
    pub digests_unequal: u32,
    /// The longest, in microseconds.
    pub longest_us: u64,
}

impl Migrations {
    pub(super) fn add(&mut self, outcome: &MigrationOutcome) {
        self.begun += 1;
        self.failures.extend(outcome.failure().map(ToString::to_string));
        self.digests_unequal += u32::from(outcome.digests_equal() != Some(true));
        self.longest_us = self.longest_us.max(outcome.total_us);
    }
}

/// A whole run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// What was asked for.
    pub spec: ProgramsSpec,
    /// Every program.
    pub rows: Vec<Row>,
    /// The migrations meanwhile.
    pub migrations: Migrations,
}

impl Outcome {
    /// What is not as it should be.
    pub fn complaints(&self) -> Vec<String> {
        let bad = self.rows.iter().filter(|row| !row.good);
        let mut complaints: Vec<_> = bad.map(|row| format!("{}: {}", row.program, row.said)).collect();
        complaints.extend(self.migrations.failures.iter().map(|failure| format!("a migration failed: {failure}")));
        if self.migrations.digests_unequal > 0 {
            complaints.push(format!("{} migrations ended with unequal states", self.migrations.digests_unequal));
        }
        if self.migrations.begun < 2 {
            complaints.push("the NAT has not moved to and fro".into());
        }
        complaints
    }
}

/// The table and the verdict, for people.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_BORDERS_ONLY);
        table.set_header(["program", "shows", "said", "migrations", "verdict"]);
        for row in &self.rows {
            let verdict = if row.good { "good" } else { "WRONG" };
            table.add_row([&row.program, &row.claim, &row.said, &row.migrations.to_string(), verdict]);
        }
        writeln!(f, "{table}")?;
        let Migrations { begun, longest_us, .. } = &self.migrations;
        writeln!(f, "\n{begun} migrations, the longest {} ms.", longest_us / 1000)?;
        let complaints = self.complaints();
        if complaints.is_empty() {
            return write!(f, "Verdict: nothing has noticed that the NAT moved.");
        }
        writeln!(f, "Verdict: SOMETHING IS WRONG.")?;
        complaints.iter().try_for_each(|complaint| writeln!(f, "  - {complaint}"))
    }
}

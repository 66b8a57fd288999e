//! The line that shows how a run goes.

use super::report::{Stage, Status};
use core::fmt;
use core::time::Duration;
use slim_core::time::Instant;
use std::io::{IsTerminal, Write};

const PERIOD: Duration = Duration::from_secs(1);

/// Shows a line a second on standard error: over the one before on a terminal, one after the other in a log.
#[derive(Debug)]
pub struct Progress {
    enabled: bool,
    terminal: bool,
    next: Instant,
}

impl Progress {
    /// Begins `now`; shows nothing unless `enabled`.
    pub fn new(enabled: bool, now: Instant) -> Self {
        Self { enabled, terminal: std::io::stderr().is_terminal(), next: now + PERIOD }
    }

    /// Shows what `status` says, once a second.
    pub fn show(&mut self, now: Instant, status: impl FnOnce() -> Status) {
        if !self.enabled || now < self.next {
            return;
        }
        self.next = now + PERIOD;
        let line = Line(&status()).to_string();
        let mut stderr = std::io::stderr().lock();
        // A progress line that cannot be written is no reason to end a measurement.
        let _ = if self.terminal { write!(stderr, "\r\x1b[K{line}") } else { writeln!(stderr, "{line}") };
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.enabled && self.terminal {
            let _ = writeln!(std::io::stderr());
        }
    }
}

struct Line<'a>(&'a Status);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Status { stage, phase, elapsed_ms, outbound, inbound } = self.0;
        let stage = match stage {
            Stage::Resolving => return write!(f, "asking for the NAT's MAC address"),
            Stage::Warmup | Stage::Measuring => phase.as_str(),
            Stage::Draining => "draining",
        };
        write!(
            f,
            "{:>6.1} s {stage}: {} out, {} back, {} missing or under way, {} duplicated, {} reordered",
            *elapsed_ms as f64 / 1e3,
            outbound.sent,
            inbound.received,
            outbound.lost + inbound.lost,
            outbound.duplicated + inbound.duplicated,
            outbound.reordered + inbound.reordered,
        )?;
        for (count, what) in [
            (outbound.corrupt + inbound.corrupt, "corrupt"),
            (outbound.mistranslated + inbound.mistranslated, "mistranslated"),
            (outbound.misdirected + inbound.misdirected, "misdirected"),
            (outbound.unsent + inbound.unsent, "unsent"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::report::DirectionReport;

    #[test]
    fn the_line_names_what_went_wrong_and_only_that() {
        let outbound = DirectionReport { sent: 10, received: 9, lost: 1, unsent: 4, ..DirectionReport::default() };
        let inbound = DirectionReport { sent: 9, received: 7, lost: 2, reordered: 1, ..DirectionReport::default() };
        let status = Status { stage: Stage::Measuring, phase: "during".into(), elapsed_ms: 1250, outbound, inbound };
        assert_eq!(
            Line(&status).to_string(),
            "   1.2 s during: 10 out, 7 back, 3 missing or under way, 0 duplicated, 1 reordered, 4 unsent"
        );
    }
}

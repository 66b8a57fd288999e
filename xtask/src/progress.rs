//! What a long step is doing: a bar on a terminal, plain lines elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// How often a step writes a line where there is no terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(20);

/// One step of a command. Says what it does when it starts and how long it took when it ends.
#[derive(Debug)]
pub struct Step {
    started: Instant,
    said: Instant,
    bar: Option<ProgressBar>,
    finished: bool,
}

impl Step {
    /// Starts a step of unknown length.
    pub fn start(title: impl Into<String>) -> Self {
        Self::new(title.into(), None)
    }

    /// Starts a step of about `total` units.
    pub fn start_counted(title: impl Into<String>, total: u64) -> Self {
        Self::new(title.into(), Some(total))
    }

    /// A step that is too short to mention.
    pub fn silent() -> Self {
        let now = Instant::now();
        Self { started: now, said: now, bar: None, finished: true }
    }

    fn new(title: String, total: Option<u64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let (bar, template) = match total {
                Some(total) => (ProgressBar::new(total), "    [{elapsed}] {wide_bar} {percent}% {msg:.dim}"),
                None => (ProgressBar::new_spinner(), "    [{elapsed}] {spinner} {wide_msg:.dim}"),
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        eprintln!("==> {title}");
        let now = Instant::now();
        Self { started: now, said: now, bar, finished: false }
    }

    /// Reports `position` units done (ignored by a step of unknown length) and what is being worked on.
    pub fn progress(&mut self, position: u64, message: &str) {
        if let Some(bar) = &self.bar {
            let position = bar.length().map_or(position, |length| position.min(length));
            bar.set_position(position);
            bar.set_message(message.trim().to_owned());
        } else if self.said.elapsed() >= PLAIN_INTERVAL {
            self.said = Instant::now();
            eprintln!("    {} s: {}", self.started.elapsed().as_secs(), message.trim());
        }
    }

    /// Ends the step well; `outcome` names what came of it and may be empty.
    pub fn finish(mut self, outcome: &str) {
        self.finished = true;
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let separator = if outcome.is_empty() { "" } else { ": " };
        eprintln!("    done in {seconds:.1} s{separator}{outcome}");
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        eprintln!("    did not finish ({:.1} s)", self.started.elapsed().as_secs_f64());
    }
}

//! A migration as it goes: a line for each phase, and on a terminal a line with the running time below.

use super::words;
use slim_controller::api::{ApiEvent, TimelineEntry};
use slim_controller::precopy::PrecopyProgress;
use slim_controller::units::duration;
use slim_core::protocol::MigrationId;
use std::io::{IsTerminal, Write};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the running time is drawn anew.
const REDRAW: Duration = Duration::from_millis(100);

/// Prints a migration's events to standard error until it is dropped.
pub struct Watch {
    events: Option<Sender<ApiEvent>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts to watch; prints nothing if `silent`.
    pub fn new(silent: bool) -> Self {
        if silent {
            return Self { events: None, thread: None };
        }
        let (events, queue) = channel();
        let thread = std::thread::spawn(move || {
            let mut screen = Screen { live: std::io::stderr().is_terminal(), since: Instant::now(), latest: None };
            loop {
                match queue.recv_timeout(REDRAW) {
                    Ok(event) => screen.show(event),
                    Err(RecvTimeoutError::Timeout) => screen.redraw(),
                    Err(RecvTimeoutError::Disconnected) => return screen.clear(),
                }
            }
        });
        Self { events: Some(events), thread: Some(thread) }
    }

    /// Shows an event.
    pub fn show(&self, event: ApiEvent) {
        if let Some(events) = &self.events {
            // A watch that has ended shows nothing more.
            let _ = events.send(event);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.events = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Screen {
    live: bool,
    since: Instant,
    latest: Option<(MigrationId, String)>,
}

impl Screen {
    fn show(&mut self, event: ApiEvent) {
        self.clear();
        match event {
            ApiEvent::MigrationBegun { migration } => {
                self.since = Instant::now();
                eprintln!("migration {migration}");
                self.latest = Some((migration, "beginning".into()));
            }
            ApiEvent::Precopy { progress } => {
                let PrecopyProgress { at_us, round, sent_bytes, remaining_bytes } = progress;
                let (sent, remaining) = (sent_bytes as f64 / 1e6, remaining_bytes as f64 / 1e6);
                eprintln!(
                    "{:>9.3} s  {:<14} round {round}: {sent:.1} MB sent, {remaining:.1} MB to go",
                    at_us as f64 / 1e6,
                    "memory"
                );
            }
            ApiEvent::MigrationStep { entry: TimelineEntry { at_us, step } } => {
                let (party, phase) = words::step(&step);
                eprintln!("{:>9.3} s  {party:<14} {phase}", at_us as f64 / 1e6);
                if let (Some((_, latest)), true) = (&mut self.latest, party == "controller") {
                    *latest = phase;
                }
            }
        }
        self.redraw();
    }

    fn redraw(&self) {
        if let (true, Some((_, phase))) = (self.live, &self.latest) {
            eprint!("\r\x1b[K{:>11}  {phase} …", duration(self.since.elapsed()));
            let _ = std::io::stderr().flush();
        }
    }

    fn clear(&self) {
        if self.live {
            eprint!("\r\x1b[K");
        }
    }
}

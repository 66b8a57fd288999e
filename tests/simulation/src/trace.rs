//! What happened: always as a hash, so that two runs of a seed can be compared, and on demand in words.

use slim_core::time::Instant;
use std::fmt::{self, Write};

/// The events of a run, in order.
#[derive(Debug)]
pub struct Trace {
    hash: Fnv,
    events: u64,
    lines: Option<Vec<String>>,
}

/// FNV-1a: short, and the same everywhere.
#[derive(Debug, Clone, Copy)]
struct Fnv(u64);

impl Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}

impl Trace {
    /// Nothing has happened yet. With `in_words`, lines are kept.
    pub fn new(in_words: bool) -> Self {
        Self { hash: Fnv(0xcbf2_9ce4_8422_2325), events: 0, lines: in_words.then(Vec::new) }
    }

    /// Whether lines are kept.
    pub fn is_in_words(&self) -> bool {
        self.lines.is_some()
    }

    /// Something a person wants to read.
    pub fn event(&mut self, now: Instant, party: &str, event: fmt::Arguments<'_>) {
        self.number(now.as_nanos());
        self.events += 1;
        // Neither a string nor a hash can fail to be written to.
        let _ = write!(self.hash, "{party}{event}");
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>14.6} ms  {party:<11} {event}", now.as_nanos() as f64 / 1e6));
        }
    }

    /// Something that happens so often that only its numbers are noted, and words are made only if they are kept.
    pub fn detail(&mut self, now: Instant, party: &str, number: u64, words: impl FnOnce() -> String) {
        self.number(now.as_nanos());
        self.number(number);
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>14.6} ms  {party:<11}   {}", now.as_nanos() as f64 / 1e6, words()));
        }
    }

    fn number(&mut self, number: u64) {
        self.hash.0 = (self.hash.0 ^ number).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    }

    /// The hash of everything so far.
    pub fn hash(&self) -> u64 {
        self.hash.0
    }

    /// Events so far, details not counted.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The lines kept.
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}

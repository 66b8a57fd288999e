//! How long bursts take: a histogram, without those in which the thread lost its CPU.

use crate::clock::{self, Clock, cycles};
use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;

/// Times of bursts, in µs.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Bursts {
    /// How many.
    pub count: u64,
    /// The median.
    pub median_us: f64,
    /// The longest of a thousand.
    pub p999_us: f64,
    /// The longest of ten thousand.
    pub p9999_us: f64,
    /// The longest in which the thread kept its CPU.
    pub longest_us: f64,
    /// How many in which it did not, and which are left out.
    pub preempted: u64,
}

/// Times of bursts.
pub struct Recorder {
    nanos: Histogram<u64>,
    preempted: u64,
    preemptions: i64,
}

/// The longest time that a burst is recorded with.
const LONGEST_NS: u64 = 10_000_000_000;

/// Bursts from this length on are looked into.
const LONG_NS: f64 = 30_000.0;

impl Recorder {
    /// None so far.
    pub fn new() -> Result<Self> {
        Ok(Self { nanos: Histogram::new_with_bounds(1, LONGEST_NS, 3)?, preempted: 0, preemptions: 0 })
    }

    #[inline(always)]
    /// Times what `f` does.
    pub fn burst<T>(&mut self, clock: &Clock, f: impl FnOnce() -> T) -> T {
        let begin = cycles();
        let result = f();
        let nanos = clock.nanos(cycles() - begin);
        if nanos >= LONG_NS {
            let preemptions = clock::preemptions();
            if preemptions != self.preemptions {
                self.preemptions = preemptions;
                self.preempted += 1;
                return result;
            }
        }
        self.nanos.saturating_record(nanos as u64);
        result
    }

    /// What was recorded.
    pub fn summary(&self) -> Bursts {
        let us = |quantile| self.nanos.value_at_quantile(quantile) as f64 / 1e3;
        Bursts {
            count: self.nanos.len(),
            median_us: us(0.5),
            p999_us: us(0.999),
            p9999_us: us(0.9999),
            longest_us: self.nanos.max() as f64 / 1e3,
            preempted: self.preempted,
        }
    }
}

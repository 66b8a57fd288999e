//! What the processor itself counts, where the machine lets it be read.

use perf_event::events::Hardware;
use perf_event::{Builder, Counter};
use serde::Serialize;

/// The counters of the calling thread.
pub struct Counters {
    misses: Counter,
    instructions: Counter,
}

/// What was counted.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Counts {
    /// Accesses that no cache could serve.
    pub cache_misses: f64,
    /// Instructions.
    pub instructions: f64,
}

impl Counters {
    /// Opens the counters, or says why they cannot be.
    pub fn new() -> Result<Self, String> {
        let open = |event: Hardware, name: &str| {
            Builder::new(event).build().map_err(|error| format!("the processor's counter of {name}: {error}"))
        };
        Ok(Self {
            misses: open(Hardware::CACHE_MISSES, "cache misses")?,
            instructions: open(Hardware::INSTRUCTIONS, "instructions")?,
        })
    }

    /// Counts what `f` does, per packet. The counts are missing if they cannot be read.
    pub fn count<T>(&mut self, packets: usize, f: impl FnOnce() -> T) -> (T, Option<Counts>) {
        let started = [&mut self.misses, &mut self.instructions]
            .into_iter()
            .all(|counter| counter.reset().and_then(|()| counter.enable()).is_ok());
        let result = f();
        let read = |counter: &mut Counter| counter.disable().and_then(|()| counter.read()).ok();
        let counts = started
            .then(|| {
                Some(Counts {
                    cache_misses: read(&mut self.misses)? as f64 / packets as f64,
                    instructions: read(&mut self.instructions)? as f64 / packets as f64,
                })
            })
            .flatten();
        (result, counts)
    }
}

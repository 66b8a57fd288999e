//! The statelet thread of the runtime without its stream: it takes statelets out of `st_q_out` and has them cut into
//! segments, which are thrown away.

use super::OTHER_CPU;
use crate::clock;
use anyhow::{Result, anyhow};
use slim_core::statelet::{Pump, PumpError, PumpOptions, Step};
use slim_nat::Nat;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

/// As the runtime has it by default.
const ST_Q_OUT_BYTES: usize = 8 << 20;
const SEGMENT_BYTES: usize = 1448;
const PAUSE: Duration = Duration::from_millis(1);

/// A statelet thread.
pub struct Drain {
    thread: JoinHandle<Result<u64, PumpError>>,
    flush: Arc<AtomicBool>,
}

impl Drain {
    /// A thread, and what the lcore is to announce into.
    pub fn start() -> (Self, rtrb::Producer<u8>) {
        let (producer, consumer) = rtrb::RingBuffer::new(ST_Q_OUT_BYTES);
        let flush = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&flush);
        let thread = std::thread::spawn(move || {
            clock::pin(OTHER_CPU);
            let mut pump = Pump::new(consumer, PumpOptions::new::<Nat>(SEGMENT_BYTES, false, false));
            loop {
                match pump.step(|| Ok::<_, PumpError>(told.load(Relaxed)), false)? {
                    Step::Send(bytes, _) => {
                        std::hint::black_box(bytes);
                    }
                    Step::Wait(_) => std::thread::sleep(PAUSE),
                    Step::Flushed(_, totals) => return Ok(totals.records),
                }
            }
        });
        (Self { thread, flush }, producer)
    }

    /// Waits until everything that was announced has been taken out. The number of statelets.
    pub fn finish(self) -> Result<u64> {
        self.flush.store(true, Relaxed);
        Ok(self.thread.join().map_err(|_| anyhow!("the statelet thread panicked"))??)
    }
}

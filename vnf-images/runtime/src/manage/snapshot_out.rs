//! The snapshot thread of the source: from frozen state to the snapshot stream (§IV-B, step 2.2).

use super::net;
use super::outgoing::SnapshotTask;
use super::session::Session;
use slim_core::protocol::control::SnapshotTotals;
use slim_core::protocol::stream::StreamRole;
use slim_core::snapshot::SnapshotWriter;
use slim_core::vei::StreamEvent;
use slim_trust::Channel;
use std::io::Write;
use std::net::Shutdown;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// The longest filler record, for counting them.
const FILLER_RECORD_BYTES: u64 = 64 << 10;

/// The most bytes written at a time, so that the lcore gets the CPU in between.
const WRITE_MAX: usize = 16 << 10;

/// Waits for the state to send, sends it and closes the stream. The state is let go of as it is sent.
pub fn run<F: Send + 'static>(session: &Session<F>, mut stream: Channel, tasks: &Receiver<SnapshotTask>) {
    // No sender any more: the migration has ended before the freeze.
    let Ok(task) = tasks.recv() else { return };
    match send(&mut stream, task) {
        Ok(totals) => {
            // The session keeps a handle of its own, so dropping the stream would not close it.
            let _ = stream.shutdown(Shutdown::Write);
            session.event(StreamEvent::SnapshotSent(totals));
        }
        Err(reason) => session.lost(StreamRole::Snapshot, reason),
    }
}

fn send(stream: &mut Channel, task: SnapshotTask) -> Result<SnapshotTotals, Box<dyn std::error::Error>> {
    net::mark(stream.tcp(), task.scheduling.snapshot_dscp())?;
    let mut writer = SnapshotWriter::new(task.frozen, task.filler_bytes);
    let mut pace = Pace::new(task.rate_bytes_per_s);
    let mut buffer = Vec::new();
    let mut bytes = 0;
    while writer.write_next(&mut buffer)? {
        // Small records travel together.
        if buffer.len() < WRITE_MAX / 2 {
            continue;
        }
        bytes += write(stream, &mut pace, &mut buffer)?;
    }
    bytes += write(stream, &mut pace, &mut buffer)?;
    Ok(totals(writer.totals(), bytes))
}

fn write(stream: &mut Channel, pace: &mut Pace, buffer: &mut Vec<u8>) -> std::io::Result<u64> {
    for piece in buffer.chunks(WRITE_MAX) {
        pace.wait(piece.len());
        stream.write_all(piece)?;
    }
    let len = buffer.len() as u64;
    buffer.clear();
    Ok(len)
}

/// The totals as they are reported, `bytes` having passed the stream.
pub fn totals(totals: &slim_core::snapshot::SnapshotTotals, bytes: u64) -> SnapshotTotals {
    SnapshotTotals {
        bytes,
        chunks: totals.chunks + totals.filler_bytes.div_ceil(FILLER_RECORD_BYTES),
        entries: totals.entries,
        filler_bytes: totals.filler_bytes,
    }
}

/// How much lost time may be made up for. It covers the sleeps that end late because the lcore has the CPU, and is half
/// of the burst that links let through by default.
const CATCH_UP: Duration = Duration::from_millis(10);

/// Keeps a rate by sleeping.
struct Pace {
    rate_bytes_per_s: Option<u64>,
    /// When what has been sent should have taken until.
    due: Instant,
}

impl Pace {
    fn new(rate_bytes_per_s: Option<u64>) -> Self {
        Self { rate_bytes_per_s: rate_bytes_per_s.filter(|&rate| rate > 0), due: Instant::now() }
    }

    /// Waits until `bytes` more may be sent.
    fn wait(&mut self, bytes: usize) {
        let Some(rate) = self.rate_bytes_per_s else { return };
        let now = Instant::now();
        if let Some(early) = self.due.checked_duration_since(now) {
            std::thread::sleep(early);
        } else if let Some(earliest) = now.checked_sub(CATCH_UP) {
            // Time lost to a slow stream is not made up for by a long burst.
            self.due = self.due.max(earliest);
        }
        self.due += Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000) / rate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pace_is_at_least_as_slow_as_asked_for() {
        let mut pace = Pace::new(Some(1_000_000));
        let start = Instant::now();
        (0..11).for_each(|_| pace.wait(1000));
        assert!(start.elapsed() >= Duration::from_millis(10));
        // After a long pause no more than the catch-up is sent at once.
        std::thread::sleep(Duration::from_millis(100));
        let start = Instant::now();
        (0..31).for_each(|_| pace.wait(1000));
        assert!(start.elapsed() >= Duration::from_millis(20));
        let mut free = Pace::new(None);
        free.wait(usize::MAX);
        Pace::new(Some(0)).wait(usize::MAX);
    }
}

//! `st_q_in`: statelets that have arrived and are not applied yet (§IV-A), from one thread to another.

use slim_core::protocol::control::{QueueStatus, StateletTotals};
use slim_core::statelet::End;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A bounded queue of statelets as they travel: type, length, value.
///
/// Until the snapshot is installed nobody takes anything out, and a full queue is an error. Afterwards whoever puts
/// something in waits for room, and TCP makes the source wait in turn.
#[derive(Debug)]
pub struct StQIn {
    state: Mutex<State>,
    changed: Condvar,
    capacity: usize,
}

#[derive(Debug)]
struct State {
    bytes: VecDeque<u8>,
    status: QueueStatus,
    applying: bool,
    closed: bool,
    end: Option<Ended>,
}

/// What the end record said once everything before it was in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// What the end record says.
    pub end: End,
    /// What arrived before it.
    pub received: End,
    /// What arrived, for the report.
    pub totals: StateletTotals,
}

/// There is no room, and nobody is about to make some.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The snapshot takes longer than the queue lasts.
    #[error("st_q_in is full before the snapshot is installed")]
    Full,
    /// The migration is over.
    #[error("closed")]
    Closed,
}

/// What the applying thread finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Statelets were appended to the caller's buffer.
    Statelets,
    /// Nothing is left, and the end record has come.
    Ended(Ended),
    /// The migration is over.
    Closed,
}

impl StQIn {
    /// An empty queue of at most `capacity` bytes. Its memory is touched only as far as it is filled.
    pub fn new(capacity: usize) -> Self {
        let status = QueueStatus { capacity_bytes: capacity as u64, ..QueueStatus::default() };
        let bytes = VecDeque::with_capacity(capacity);
        let state = State { bytes, status, applying: false, closed: false, end: None };
        Self { state: Mutex::new(state), changed: Condvar::new(), capacity }
    }

    /// Appends `records` whole statelets.
    pub fn push(&self, records: u64, bytes: &[u8]) -> Result<(), PushError> {
        let mut state = self.lock();
        while self.capacity - state.bytes.len() < bytes.len() && !state.closed {
            if !state.applying || bytes.len() > self.capacity {
                return Err(PushError::Full);
            }
            state = self.wait(state);
        }
        if state.closed {
            return Err(PushError::Closed);
        }
        state.bytes.extend(bytes);
        let status = &mut state.status;
        status.records += records;
        status.bytes += bytes.len() as u64;
        status.longest_records = status.longest_records.max(status.records);
        status.longest_bytes = status.longest_bytes.max(status.bytes);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Says that everything before the end record has been pushed.
    pub fn end(&self, ended: Ended) {
        self.lock().end = Some(ended);
        self.changed.notify_all();
    }

    /// Says that statelets will be taken out from now on.
    pub fn start_applying(&self) {
        self.lock().applying = true;
        self.changed.notify_all();
    }

    /// Ends all waiting: the migration is over.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Moves up to `max` bytes to the end of `into`, waiting for some unless there are. The last statelet may be cut.
    ///
    /// They count as being in the queue until they are [applied](Self::applied).
    pub fn take(&self, max: usize, into: &mut Vec<u8>) -> Taken {
        let mut state = self.lock();
        loop {
            if state.closed {
                return Taken::Closed;
            }
            if !state.bytes.is_empty() {
                break;
            }
            if let Some(ended) = state.end {
                return Taken::Ended(ended);
            }
            state = self.wait(state);
        }
        let len = state.bytes.len().min(max);
        let (front, back) = state.bytes.as_slices();
        let in_front = len.min(front.len());
        into.extend_from_slice(&front[..in_front]);
        into.extend_from_slice(&back[..len - in_front]);
        state.bytes.drain(..len);
        state.status.bytes -= len as u64;
        drop(state);
        self.changed.notify_all();
        Taken::Statelets
    }

    /// Says that `records` more of those taken out have been applied. Returns how many are left.
    pub fn applied(&self, records: u64) -> u64 {
        let mut state = self.lock();
        state.status.records = state.status.records.saturating_sub(records);
        state.status.records
    }

    /// How full the queue is and has been.
    pub fn status(&self) -> QueueStatus {
        self.lock().status
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    fn end(records: u64) -> Ended {
        let end = End { records, crc: 0 };
        Ended { end, received: end, totals: StateletTotals::default() }
    }

    #[test]
    fn what_goes_in_comes_out_in_order_and_then_the_end() {
        let queue = StQIn::new(8);
        queue.push(1, b"abcd").unwrap();
        queue.push(2, b"efgh").unwrap();
        queue.end(end(3));
        let mut out = Vec::new();
        assert_eq!(queue.take(3, &mut out), Taken::Statelets);
        assert_eq!(queue.applied(0), 3);
        assert_eq!(queue.take(100, &mut out), Taken::Statelets);
        assert_eq!(out, b"abcdefgh");
        assert_eq!(queue.applied(3), 0);
        assert_eq!(queue.take(100, &mut out), Taken::Ended(end(3)));
        let status = queue.status();
        assert_eq!((status.records, status.bytes, status.longest_records, status.longest_bytes), (0, 0, 3, 8));
    }

    #[test]
    fn full_before_the_snapshot_is_an_error_and_afterwards_a_wait() {
        let queue = Arc::new(StQIn::new(4));
        queue.push(1, b"abcd").unwrap();
        assert_eq!(queue.push(1, b"e"), Err(PushError::Full));
        queue.start_applying();
        assert_eq!(queue.push(1, b"too long"), Err(PushError::Full), "no wait could end");
        let pusher = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.push(1, b"efgh")
        });
        std::thread::sleep(Duration::from_millis(20));
        let mut out = Vec::new();
        while out.len() < 8 {
            assert_eq!(queue.take(4, &mut out), Taken::Statelets);
        }
        assert_eq!((out.as_slice(), pusher.join().unwrap()), (&b"abcdefgh"[..], Ok(())));
    }

    #[test]
    fn closing_ends_every_wait() {
        let queue = Arc::new(StQIn::new(4));
        queue.start_applying();
        let taker = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.take(4, &mut Vec::new())
        });
        std::thread::sleep(Duration::from_millis(20));
        queue.close();
        assert_eq!(taker.join().unwrap(), Taken::Closed);
        assert_eq!(queue.push(1, b"abcd"), Err(PushError::Closed));
    }
}

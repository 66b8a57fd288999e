//! What the kernel does for [`WaitSet`](../../dpdk/src/wait.rs): an eventfd that nobody reads, watched edge-triggered.

use loom::sync::{Arc, Condvar, Mutex};

#[derive(Debug)]
struct Event {
    /// A write that no wait has reported yet. Writes add up to one.
    pending: Mutex<bool>,
    changed: Condvar,
}

/// The side that waits.
#[derive(Debug)]
pub struct WaitSet(Arc<Event>);

/// The side that wakes.
#[derive(Debug, Clone)]
pub struct Waker(Arc<Event>);

/// Both sides.
pub fn wait_set() -> (WaitSet, Waker) {
    let event = Arc::new(Event { pending: Mutex::new(false), changed: Condvar::new() });
    (WaitSet(Arc::clone(&event)), Waker(event))
}

impl WaitSet {
    /// Waits for a write since the last wait, without a time-out: a wake-up that is lost is a deadlock here.
    ///
    /// # Panics
    /// Never: the lock is not poisoned.
    pub fn wait(&self) {
        let mut pending = self.0.pending.lock().expect("not poisoned");
        while !core::mem::take(&mut *pending) {
            pending = self.0.changed.wait(pending).expect("not poisoned");
        }
    }
}

impl Waker {
    /// Ends the present wait, or else the next one.
    ///
    /// # Panics
    /// Never: the lock is not poisoned.
    pub fn wake(&self) {
        *self.0.pending.lock().expect("not poisoned") = true;
        self.0.changed.notify_one();
    }
}

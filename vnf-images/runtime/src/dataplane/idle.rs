//! What an lcore does when there is nothing to do: sleep until a packet or a command comes.
//!
//! - While packets come, but slowly, it naps until about a burst of them has gathered. An interrupt for each few packets
//!   costs far more: in an emulated guest it takes the hypervisor's own thread.
//! - When packets come so fast that a burst gathers within [`NAP_MIN`], it polls on.
//! - When none has come for some naps, the receive interrupts are armed and the lcore waits for them, for the management
//!   thread's waker, or for the next tick of the network function. Devices without receive interrupts are polled with
//!   the longest naps, which so is the longest that a packet waits in any case: half a millisecond unless the configuration
//!   says otherwise.

use dpdk::{Eal, RxQueue, WaitSet, Waker};
use std::time::{Duration, Instant};

/// Empty polls in a row before the lcore sleeps. Each costs a few microseconds in an emulated guest.
const EMPTY_POLLS: u32 = 8;

/// The packets a nap is to gather: two bursts of two ports, a small part of any ring.
const GATHER_PACKETS: u32 = 64;

/// The shortest nap; below that the timer costs more than polling.
const NAP_MIN: Duration = Duration::from_micros(50);

/// Naps in a row without a packet before the interrupts are armed.
const NAPS_EMPTY: u32 = 20;

/// Decides when an lcore sleeps, and how.
pub struct Idle {
    mode: Mode,
    /// The longest nap.
    nap_max: Duration,
    /// The receive interrupts are on.
    armed: bool,
    empty_polls: u32,
    /// Packets since the last nap, which ended then.
    packets: u32,
    last_nap: Instant,
    /// Naps in a row without a packet.
    naps_empty: u32,
}

enum Mode {
    Interrupts(WaitSet),
    Sleeps,
}

impl Idle {
    /// Watches `queues`, which are all of one lcore. The waker, if there is one, ends a sleep early.
    pub fn new(eal: &Eal, queues: &[RxQueue], interrupts: bool, nap_max: Duration) -> (Self, Option<Waker>) {
        let idle = |mode| Self {
            mode,
            nap_max,
            armed: false,
            empty_polls: 0,
            packets: 0,
            last_nap: Instant::now(),
            naps_empty: NAPS_EMPTY,
        };
        let watch = || {
            let mut set = WaitSet::new(eal)?;
            queues.iter().try_for_each(|queue| set.add(queue))?;
            Ok::<_, dpdk::Error>(set)
        };
        if !interrupts {
            return (idle(Mode::Sleeps), None);
        }
        match watch() {
            Ok(set) => {
                let waker = set.waker();
                (idle(Mode::Interrupts(set)), Some(waker))
            }
            Err(error) => {
                log::info!("no receive interrupts, polling with short sleeps: {error}");
                (idle(Mode::Sleeps), None)
            }
        }
    }

    /// How the lcore waits, in a word.
    pub fn name(&self) -> &'static str {
        match self.mode {
            Mode::Interrupts(_) => "interrupts",
            Mode::Sleeps => "sleeps",
        }
    }

    /// A poll found `packets`, or something else to do.
    #[inline]
    pub fn busy(&mut self, queues: &mut [RxQueue], packets: usize) {
        self.empty_polls = 0;
        self.packets = self.packets.saturating_add(packets as u32);
        if self.armed {
            self.disarm(queues);
        }
    }

    /// A poll found nothing. May sleep for about `timeout`, at most; returns whether it did.
    #[inline]
    pub fn empty(&mut self, queues: &mut [RxQueue], timeout: Duration) -> bool {
        self.empty_polls += 1;
        if self.empty_polls < EMPTY_POLLS || timeout.is_zero() {
            return false;
        }
        if self.armed {
            return self.wait(queues, timeout);
        }
        let since_nap = self.last_nap.elapsed();
        let packets = core::mem::take(&mut self.packets);
        self.naps_empty = if packets > 0 { 0 } else { self.naps_empty.saturating_add(1) };
        if self.naps_empty >= NAPS_EMPTY && matches!(self.mode, Mode::Interrupts(_)) {
            // What came before arming is not announced: poll once more.
            self.armed = true;
            if let Err(error) = queues.iter_mut().try_for_each(RxQueue::enable_interrupt) {
                self.give_up(&error);
            }
            return false;
        }
        let nap = nap(packets, since_nap, self.nap_max);
        if let Some(nap) = nap {
            std::thread::sleep(nap.min(timeout));
        }
        self.empty_polls = 0;
        self.last_nap = Instant::now();
        nap.is_some()
    }

    fn wait(&mut self, queues: &mut [RxQueue], timeout: Duration) -> bool {
        if let Mode::Interrupts(set) = &mut self.mode
            && let Err(error) = set.wait(timeout)
        {
            self.give_up(&error);
        }
        // Some devices disarm themselves when they fire, so all are armed anew before the next wait.
        self.disarm(queues);
        true
    }

    fn disarm(&mut self, queues: &mut [RxQueue]) {
        self.armed = false;
        if let Err(error) = queues.iter_mut().try_for_each(RxQueue::disable_interrupt) {
            self.give_up(&error);
        }
    }

    #[cold]
    fn give_up(&mut self, error: &dpdk::Error) {
        if let Mode::Interrupts(_) = self.mode {
            log::warn!("receive interrupts failed, polling with short sleeps from now on: {error}");
        }
        self.mode = Mode::Sleeps;
        self.armed = false;
    }
}

/// How long to nap after `packets` came in `time`, so that about [`GATHER_PACKETS`] gather; `None` is not at all.
fn nap(packets: u32, time: Duration, longest: Duration) -> Option<Duration> {
    if packets == 0 {
        return Some(longest);
    }
    let nap = (time * GATHER_PACKETS / packets).min(longest);
    (nap >= NAP_MIN).then_some(nap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn naps_gather_a_burst_and_no_more() {
        let longest = Duration::from_micros(500);
        let nap = |packets| nap(packets, Duration::from_millis(1), longest);
        assert_eq!(nap(0), Some(longest));
        // 25,000 a second: 64 take 2.56 ms, which is too long to wait.
        assert_eq!(nap(25), Some(longest));
        // 400,000 a second.
        assert_eq!(nap(400), Some(Duration::from_micros(160)));
        // 2 million a second: poll on.
        assert_eq!(nap(2000), None);
    }
}

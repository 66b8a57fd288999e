//! What an lcore does when there is nothing to do: sleep until a packet or a command comes.
//!
//! After some empty polls the receive interrupts are armed and the lcore waits for them, for the management thread's
//! waker, or for the next tick of the network function. Devices without receive interrupts are polled with short
//! sleeps in between, so that a packet waits at most [`SLEEP_MAX`].

use dpdk::{Eal, RxQueue, WaitSet, Waker};
use std::time::Duration;

/// Empty polls in a row before the lcore sleeps. Each costs a few microseconds in an emulated guest.
const EMPTY_POLLS: u32 = 8;

/// Sleep between polls of devices without interrupts, right after packets came.
const SLEEP_MIN: Duration = Duration::from_micros(50);

/// The longest such sleep.
const SLEEP_MAX: Duration = Duration::from_micros(200);

/// Sleeps of the shortest length before longer ones.
const SHORT_SLEEPS: u32 = 1000;

/// Decides when an lcore sleeps, and how.
pub struct Idle {
    mode: Mode,
    /// The receive interrupts are on.
    armed: bool,
    empty_polls: u32,
    short_sleeps: u32,
}

enum Mode {
    Interrupts(WaitSet),
    Sleeps,
}

impl Idle {
    /// Watches `queues`, which are all of one lcore. The waker, if there is one, ends a sleep early.
    pub fn new(eal: &Eal, queues: &[RxQueue], interrupts: bool) -> (Self, Option<Waker>) {
        let idle = |mode| Self { mode, armed: false, empty_polls: 0, short_sleeps: 0 };
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

    /// A poll found something.
    #[inline]
    pub fn busy(&mut self, queues: &mut [RxQueue]) {
        self.empty_polls = 0;
        self.short_sleeps = 0;
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
        match &mut self.mode {
            // What came before arming is not announced: poll once more.
            Mode::Interrupts(_) if !self.armed => {
                self.armed = true;
                if let Err(error) = queues.iter_mut().try_for_each(RxQueue::enable_interrupt) {
                    self.give_up(&error);
                }
                false
            }
            Mode::Interrupts(set) => {
                if let Err(error) = set.wait(timeout) {
                    self.give_up(&error);
                }
                // Some devices disarm themselves when they fire, so all are armed anew before the next wait.
                self.disarm(queues);
                true
            }
            Mode::Sleeps => {
                self.short_sleeps = self.short_sleeps.saturating_add(1);
                let sleep = if self.short_sleeps < SHORT_SLEEPS { SLEEP_MIN } else { SLEEP_MAX };
                std::thread::sleep(sleep.min(timeout));
                true
            }
        }
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

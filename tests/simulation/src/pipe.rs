//! The switch's control socket: bytes in order with a delay, until the connection breaks.

use crate::Random;
use slim_core::time::{Duration, Instant};
use std::collections::VecDeque;

/// A connection between controller and switch, and the next ones after it.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    /// Counts connections: what belongs to an earlier one is nobody's answer.
    pub(crate) epoch: u64,
    down_until: Instant,
    to_switch: Direction,
    to_controller: Direction,
}

#[derive(Debug, Default)]
struct Direction {
    under_way: VecDeque<(Instant, u64, Vec<u8>)>,
    last: Instant,
}

impl Direction {
    fn send(&mut self, now: Instant, random: &mut Random, epoch: u64, bytes: &[u8]) {
        // In two pieces, so that lines are cut anywhere.
        let cut = random.below(bytes.len() as u64 + 1) as usize;
        for piece in [&bytes[..cut], &bytes[cut..]] {
            let at = now + random.time(Duration::from_micros(20), Duration::from_micros(800));
            self.last = self.last.max(at);
            if !piece.is_empty() {
                self.under_way.push_back((self.last, epoch, piece.to_vec()));
            }
        }
    }

    fn receive(&mut self, now: Instant) -> Option<(u64, Vec<u8>)> {
        let due = self.under_way.front().is_some_and(|&(at, ..)| at <= now);
        let (_, epoch, bytes) = due.then(|| self.under_way.pop_front()).flatten()?;
        Some((epoch, bytes))
    }
}

impl Pipe {
    /// Whether a connection can be made.
    pub(crate) fn is_up(&self, now: Instant) -> bool {
        now >= self.down_until
    }

    /// Breaks the connection. Some of what was under way still arrives: it was read just before.
    pub(crate) fn cut(&mut self, random: &mut Random, until: Instant) {
        self.epoch += 1;
        self.down_until = self.down_until.max(until);
        let kept = random.below(self.to_switch.under_way.len() as u64 + 1) as usize;
        self.to_switch.under_way.truncate(kept);
        self.to_controller.under_way.clear();
    }

    pub(crate) fn send_to_switch(&mut self, now: Instant, random: &mut Random, bytes: &[u8]) {
        self.to_switch.send(now, random, self.epoch, bytes);
    }

    pub(crate) fn send_to_controller(&mut self, now: Instant, random: &mut Random, bytes: &[u8]) {
        self.to_controller.send(now, random, self.epoch, bytes);
    }

    /// The next bytes at the switch, with the connection they came on.
    pub(crate) fn receive_at_switch(&mut self, now: Instant) -> Option<(u64, Vec<u8>)> {
        self.to_switch.receive(now)
    }

    pub(crate) fn receive_at_controller(&mut self, now: Instant) -> Option<Vec<u8>> {
        loop {
            let (epoch, bytes) = self.to_controller.receive(now)?;
            if epoch == self.epoch {
                return Some(bytes);
            }
        }
    }

    /// When something arrives at the switch, and at the controller.
    pub(crate) fn arrivals(&self) -> (Option<Instant>, Option<Instant>) {
        let next = |direction: &Direction| direction.under_way.front().map(|&(at, ..)| at);
        (next(&self.to_switch), next(&self.to_controller))
    }

    /// When a connection can be made again.
    pub(crate) fn up_at(&self) -> Instant {
        self.down_until
    }
}

//! The relay: two DPDK ports with an impaired line between them, on one thread.

use super::{Impairment, Line};
use crate::end::{End, PENDING_MAX};
use anyhow::Result;
use core::fmt;
use core::time::Duration;
use dpdk::{Clock, Eal, Mbuf, Mempool};
use slim_core::time::{self, Instant};
use std::sync::atomic::{AtomicBool, Ordering};

/// How long to sleep when there is nothing to do: an added delay, at most.
const NAP: Duration = Duration::from_micros(100);

/// How often the links are asked for: a port that listens takes a peer that comes back only then.
const LINK_CHECK: time::Duration = time::Duration::from_millis(50);

const BURST: usize = 32;
const MBUFS: u32 = 8191;

/// What became of the packets that did not just pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Lost on purpose.
    pub lost: u64,
    /// Held back on purpose.
    pub held_back: u64,
    /// Given up because too many waited for room at a port.
    pub given_up: u64,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lost, held_back, given_up } = self;
        write!(f, "{lost} packets lost, {held_back} held back, {given_up} given up")
    }
}

/// Relays between `near` and `far` until `stop`.
///
/// # Errors
/// A port cannot be opened.
pub fn run(eal: &Eal, [near, far]: [&str; 2], impairment: Impairment, stop: &AtomicBool) -> Result<Totals> {
    let pool = Mempool::new(eal, "impaired", MBUFS)?;
    let (mut near, mut far) = (End::open(eal, near, &pool)?, End::open(eal, far, &pool)?);
    let mut lines = [1, 2].map(|seed| Line::new(impairment, seed));
    let [outward, inward] = &mut lines;
    let clock = Clock::new(eal);
    let (mut links_at, mut given_up) = (clock.now(), 0);
    while !stop.load(Ordering::Relaxed) {
        let now = clock.now();
        if now >= links_at {
            links_at = now + LINK_CHECK;
            near.check_link();
            far.check_link();
        }
        let there = pass(&mut near, outward, &mut far, now, &mut given_up);
        let back = pass(&mut far, inward, &mut near, now, &mut given_up);
        if there.max(back) < BURST {
            std::thread::sleep(NAP);
        }
    }
    let sum = |count: fn(&Line<Mbuf>) -> u64| lines.iter().map(count).sum();
    Ok(Totals { lost: sum(|line| line.lost), held_back: sum(|line| line.held_back), given_up })
}

/// One burst from an end to the other.
fn pass(from: &mut End, line: &mut Line<Mbuf>, to: &mut End, now: Instant, given_up: &mut u64) -> usize {
    let mut packets = heapless::Vec::<Mbuf, BURST>::new();
    let count = from.rx.burst(&mut packets);
    let mut send = |packet| {
        if to.pending.len() < PENDING_MAX {
            to.pending.push_back(packet);
        } else {
            *given_up += 1;
        }
    };
    for packet in packets {
        line.push(now, packet).into_iter().for_each(&mut send);
    }
    while let Some(packet) = line.due(now) {
        send(packet);
    }
    to.flush();
    count
}

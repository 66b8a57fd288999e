//! The NAT on one core.
//!
//! - [`forwarding`]: packets per second, by number of sessions, with statelets and with a frozen table.
//! - [`opening`]: new sessions per second, with few and with nearly all ports taken.
//! - [`moving`]: a snapshot of all sessions, its way through a loopback connection, its adoption, and what the packets
//!   notice of it.
//! - [`transfer`], [`bursts`], [`drain`], [`wire`], [`workload`], [`cache`]: the snapshot's way, times of bursts, the
//!   statelet thread, ports, traffic, and what the processor counts.

mod bursts;
mod cache;
mod drain;
mod forwarding;
mod moving;
mod opening;
pub mod transfer;
mod wire;
pub mod workload;

use crate::clock::{self, Clock};
use anyhow::Result;
use serde::Serialize;

pub use forwarding::{Forwarding, Variant};
pub use moving::Moving;
pub use opening::Opening;

/// How much is measured.
pub struct Scale {
    /// Numbers of sessions to forward packets of, in ascending order.
    sessions: &'static [usize],
    /// Rounds of each variant.
    rounds: usize,
    /// Packets of a round.
    packets: usize,
}

impl Scale {
    /// What the numbers in the documents come from.
    pub const FULL: Self = Self { sessions: &[1, 1_000, 100_000, 1_000_000], rounds: 11, packets: 400_000 };

    /// A few seconds.
    pub const QUICK: Self = Self { sessions: &[1, 1_000, 100_000], rounds: 3, packets: 100_000 };
}

/// All that was measured.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// Cycles of the time stamp counter per second.
    pub tsc_hz: f64,
    /// Why cache misses could not be counted, if they could not.
    pub uncounted: Option<String>,
    /// By number of sessions.
    pub forwarding: Vec<Forwarding>,
    /// New sessions.
    pub opening: Opening,
    /// The snapshot of the greatest number of sessions.
    pub moving: Moving,
}

/// The CPU of the lcore.
pub const LCORE_CPU: usize = 0;

/// The CPU of everything else.
pub const OTHER_CPU: usize = 1;

/// Measures everything.
pub fn measure(scale: &Scale) -> Result<Measured> {
    clock::pin(LCORE_CPU);
    let clock = Clock::calibrate();
    let (mut counters, uncounted) = match cache::Counters::new() {
        Ok(counters) => (Some(counters), None),
        Err(why) => (None, Some(why)),
    };
    let mut forwarding = Vec::new();
    for &sessions in scale.sessions {
        eprintln!("forwarding packets of {sessions} sessions");
        forwarding.push(forwarding::measure(&clock, scale, sessions, counters.as_mut())?);
    }
    let most = scale.sessions.last().copied().unwrap_or(1);
    eprintln!("opening {most} sessions");
    let opening = opening::measure(&clock, most)?;
    eprintln!("moving {most} sessions");
    let moving = moving::measure(&clock, most)?;
    Ok(Measured { tsc_hz: clock.hz(), uncounted, forwarding, opening, moving })
}

//! Frames that wait for what all others leave of a link: the snapshot's, where the dataplane goes first.
//!
//! The frames say so themselves, by the code point of RFC 8622. They are put into a queue before the
//! [meter](crate::meter::Meter) and get what its full bucket would lose. So a meter decides about all other packets
//! exactly as if there were no such frames, and these still get everything that is left over.
//!
//! If that is nothing for [`PATIENCE`], every [`SHARE`]th byte is set aside for them until they have had their share:
//! a snapshot converges on a link that others have filled.

use crate::counters::Traffic;
use crate::fifo::{Bounds, DelayLine, Fill};
use crate::meter::Meter;
use slim_core::packet::PacketBuf;
use slim_core::protocol::LOWER_EFFORT_DSCP;
use slim_core::time::{Duration, Instant};

/// The part of a link's rate that frames of lower effort get in any case: one in so many.
pub const SHARE: u64 = 100;

/// How long they go without it before it is set aside, and how long they are served beforehand at most. Longer than what
/// empties a bucket of 20 ms, so that a burst of packets costs no packet.
pub const PATIENCE: Duration = Duration::from_millis(100);

/// Whether a frame is IPv4 and marked as lower effort.
#[inline]
pub fn is_lower_effort(frame: &[u8]) -> bool {
    // EtherType; version and header length; differentiated services.
    matches!(frame.get(12..16), Some(&[0x08, 0x00, _, services]) if services >> 2 == LOWER_EFFORT_DSCP)
}

/// A queue of frames of lower effort, each with a tag that says where it goes. First in, first out.
#[derive(Debug)]
pub struct LowerEffort<T, P> {
    /// Without delay: what a frame waits for is the meter.
    queue: DelayLine<T, P>,
    /// When the next frame's share is overdue, if there is one.
    owed_at: Instant,
    passed: Traffic,
}

impl<T, P: PacketBuf> LowerEffort<T, P> {
    /// An empty queue.
    pub fn new(bounds: Bounds) -> Self {
        Self { queue: DelayLine::new(Duration::ZERO, bounds), owed_at: Instant::ZERO, passed: Traffic::default() }
    }

    /// How full the queue is.
    pub fn fill(&self) -> Fill {
        self.queue.fill()
    }

    /// What has left the queue.
    pub fn passed(&self) -> Traffic {
        self.passed
    }

    /// Appends `packet`.
    ///
    /// # Errors
    /// Gives the packet back if there is no room.
    pub fn push(&mut self, now: Instant, tag: T, packet: P) -> Result<(), P> {
        if self.queue.front().is_none() {
            self.owed_at = now + PATIENCE;
        }
        self.queue.push(now, tag, packet)
    }

    /// The next frame that what is left over of `meter` suffices for, after the meter has
    /// [caught up](Meter::caught_up).
    pub fn pop(&mut self, now: Instant, meter: &mut Meter) -> Option<(T, P)> {
        let Some(len) = self.queue.front().map(|packet| packet.bytes().len()) else {
            meter.set_aside(now, false);
            return None;
        };
        if !meter.allow_spare(len) {
            meter.set_aside(now, self.owed_at <= now);
            return None;
        }
        let took = meter.time_of_share(len);
        self.owed_at = (self.owed_at + took).min(now + PATIENCE);
        self.passed.add(len);
        self.queue.pop(now)
    }

    /// When [`pop`](Self::pop) has to be called again, if no other packet passes `meter` before.
    pub fn next_release(&self, meter: &Meter) -> Option<Instant> {
        let len = self.queue.front()?.bytes().len();
        let spare = meter.spare_at(len);
        Some(if meter.is_set_aside() { spare } else { spare.min(self.owed_at) })
    }

    /// Removes all frames, and returns their number.
    pub fn clear(&mut self) -> u64 {
        self.queue.remove(|_| true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::MeterLimits;
    use proptest::prelude::*;
    use slim_core::packet::OwnedPacket;

    const BOUNDS: Bounds = Bounds { bytes: 1 << 20, packets: 4096 };

    fn frame(number: u32) -> OwnedPacket {
        let mut frame = vec![0; 1500];
        frame[..4].copy_from_slice(&number.to_be_bytes());
        OwnedPacket::new(frame)
    }

    fn number(packet: &OwnedPacket) -> u32 {
        u32::from_be_bytes(packet.bytes()[..4].try_into().unwrap())
    }

    #[test]
    fn the_mark_is_the_code_point_of_an_ipv4_frame_and_nothing_else() {
        let mut frame = [0; 34];
        frame[12..16].copy_from_slice(&[0x08, 0x00, 0x45, 0x04]);
        assert!(is_lower_effort(&frame));
        frame[15] = 0x07;
        assert!(is_lower_effort(&frame), "congestion notification is not part of it");
        for (at, other) in [(15, 0x00), (15, 0x08), (12, 0x86)] {
            let mut frame = frame;
            frame[at] = other;
            assert!(!is_lower_effort(&frame));
        }
        assert!(!is_lower_effort(&frame[..15]) && !is_lower_effort(&[]));
    }

    /// What passes a meter: packets that ask, and frames that wait all the time.
    struct World {
        meter: Meter,
        queue: LowerEffort<(), OwnedPacket>,
        now: Instant,
        given: u32,
        got: Vec<u32>,
    }

    impl World {
        fn new(limits: MeterLimits) -> Self {
            let (meter, queue) = (Meter::new(Instant::ZERO, limits), LowerEffort::new(BOUNDS));
            Self { meter, queue, now: Instant::ZERO, given: 0, got: Vec::new() }
        }

        /// `backlog` frames wait; lets `time` pass in steps that the queue names, but no longer than `step`.
        fn pass(&mut self, time: Duration, step: Duration, backlog: usize) {
            let end = self.now + time;
            loop {
                while self.queue.fill().packets < backlog {
                    self.queue.push(self.now, (), frame(self.given)).unwrap();
                    self.given += 1;
                }
                self.meter.caught_up(self.now);
                while let Some(((), packet)) = self.queue.pop(self.now, &mut self.meter) {
                    self.got.push(number(&packet));
                }
                if self.now == end {
                    return;
                }
                let next = self.queue.next_release(&self.meter).unwrap_or(end);
                self.now = next.max(self.now + Duration::from_nanos(1)).min(self.now + step).min(end);
            }
        }
    }

    #[test]
    fn an_idle_link_is_used_in_full() {
        let mut world = World::new(MeterLimits::with_burst_20ms(100_000_000));
        world.pass(Duration::from_millis(200), Duration::from_millis(1), 64);
        // 2.5 MB, but for what the bucket holds back and the rest of a frame.
        let bytes = world.got.len() * 1500;
        assert!((2_400_000..=2_600_000).contains(&bytes), "{bytes}");
        assert!(world.got.iter().copied().eq(0..world.got.len() as u32));
    }

    #[test]
    fn a_full_link_leaves_a_share_and_loses_no_more_than_that() {
        let limits = MeterLimits::with_burst_20ms(100_000_000);
        let (mut world, mut alone) = (World::new(limits), Meter::new(Instant::ZERO, limits));
        let (mut passed, mut passed_alone) = (0u64, 0u64);
        // Twice what the link takes, for ten seconds.
        for _ in 0..10_000 {
            for _ in 0..25 {
                passed += u64::from(world.meter.allow(world.now, 1000));
                passed_alone += u64::from(alone.allow(world.now, 1000));
            }
            world.pass(Duration::from_millis(1), Duration::from_micros(200), 64);
            alone.caught_up(world.now);
        }
        let (got, lost) = (world.got.len() as u64 * 1500, (passed_alone - passed) * 1000);
        // One percent of 125 MB, but for the patience at the beginning.
        assert!((1_200_000..=1_250_000).contains(&got), "{got}");
        assert!(lost <= got + 3_000, "{lost} of {got}");
        assert!(world.got.iter().copied().eq(0..world.got.len() as u32));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn others_pass_as_if_there_were_no_frames_of_lower_effort(
            rate_bps in 1_000_000u64..2_000_000_000,
            burst_bytes in 1_600u64..500_000,
            packets in prop::collection::vec((0u64..2_000, 14usize..1_600, 0usize..32), 1..300),
        ) {
            let limits = MeterLimits { rate_bps, burst_bytes };
            let (mut world, mut alone) = (World::new(limits), Meter::new(Instant::ZERO, limits));
            for (gap_us, len, backlog) in packets {
                // Not long enough for anything to be overdue, however full the link.
                if world.now > Instant::from_millis(95) {
                    break;
                }
                world.pass(Duration::from_micros(gap_us), Duration::from_micros(100), backlog);
                alone.caught_up(world.now);
                prop_assert_eq!(world.meter.allow(world.now, len), alone.allow(world.now, len));
            }
            prop_assert!(world.got.iter().copied().eq(0..world.got.len() as u32));
        }

        #[test]
        fn both_together_never_exceed_the_rate_and_the_bursts(
            rate_bps in 1_000_000u64..2_000_000_000,
            burst_bytes in 1_600u64..500_000,
            packets in prop::collection::vec((0u64..20_000, 14usize..1_600, 0usize..32), 1..300),
        ) {
            let mut world = World::new(MeterLimits { rate_bps, burst_bytes });
            let mut passed = 0;
            for (gap_us, len, backlog) in packets {
                world.pass(Duration::from_micros(gap_us), Duration::from_micros(500), backlog);
                passed += if world.meter.allow(world.now, len) { len as u64 } else { 0 };
            }
            let all = u128::from(passed + world.got.len() as u64 * 1500) * 8_000_000_000;
            let bursts = u128::from(burst_bytes + world.meter.spare_bytes_max()) * 8_000_000_000;
            prop_assert!(all <= bursts + u128::from(world.now.as_nanos()) * u128::from(rate_bps));
        }
    }
}

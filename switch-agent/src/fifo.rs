//! Bounded first-in first-out queues: the delay line and the egress queue.

use slim_core::packet::PacketBuf;
use slim_core::time::{Duration, Instant};
use std::collections::VecDeque;

/// The bounds of a queue. Both hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The most bytes in the queue.
    pub bytes: u64,
    /// The most packets in the queue. Room for them is taken at creation.
    pub packets: usize,
}

/// How full a queue is and has been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fill {
    /// Bytes in the queue.
    pub bytes: u64,
    /// Packets in the queue.
    pub packets: usize,
    /// The most bytes there have been (high-water mark).
    pub bytes_max: u64,
    /// The most packets there have been (high-water mark).
    pub packets_max: usize,
}

impl Fill {
    fn has_room(&self, len: usize, bounds: &Bounds) -> bool {
        self.bytes + len as u64 <= bounds.bytes && self.packets < bounds.packets
    }

    fn add(&mut self, len: usize) {
        self.bytes += len as u64;
        self.packets += 1;
        self.bytes_max = self.bytes_max.max(self.bytes);
        self.packets_max = self.packets_max.max(self.packets);
    }

    fn sub(&mut self, len: usize) {
        self.bytes -= len as u64;
        self.packets -= 1;
    }
}

/// Packets that are on their way for a fixed time, each with a tag that says where it goes.
///
/// First in, first out, whatever happens to the delay: a packet never overtakes one that entered before it.
#[derive(Debug)]
pub struct DelayLine<T, P> {
    delay: Duration,
    bounds: Bounds,
    last_release: Instant,
    entries: VecDeque<Entry<T, P>>,
    fill: Fill,
}

#[derive(Debug)]
struct Entry<T, P> {
    release: Instant,
    tag: T,
    packet: P,
}

impl<T, P: PacketBuf> DelayLine<T, P> {
    /// An empty line.
    pub fn new(delay: Duration, bounds: Bounds) -> Self {
        Self {
            delay,
            bounds,
            last_release: Instant::ZERO,
            entries: VecDeque::with_capacity(bounds.packets),
            fill: Fill::default(),
        }
    }

    /// The time that packets spend on the line.
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// Changes the delay and bounds for packets that enter from now on. They still leave behind those on the line.
    pub fn set_delay(&mut self, delay: Duration, bounds: Bounds) {
        self.delay = delay;
        self.bounds = bounds;
    }

    /// How full the line is.
    pub fn fill(&self) -> Fill {
        self.fill
    }

    /// Puts `packet` on the line at time `now`.
    ///
    /// # Errors
    /// Gives the packet back if there is no room.
    #[inline]
    pub fn push(&mut self, now: Instant, tag: T, packet: P) -> Result<(), P> {
        if !self.fill.has_room(packet.bytes().len(), &self.bounds) {
            return Err(packet);
        }
        self.push_unbounded(now, tag, packet);
        Ok(())
    }

    /// Puts a packet that must not be lost, such as a drain packet, on the line whether or not there is room.
    pub fn push_unbounded(&mut self, now: Instant, tag: T, packet: P) {
        self.last_release = self.last_release.max(now + self.delay);
        self.fill.add(packet.bytes().len());
        self.entries.push_back(Entry { release: self.last_release, tag, packet });
    }

    /// The next packet whose time on the line is over at `now`.
    #[inline]
    pub fn pop(&mut self, now: Instant) -> Option<(T, P)> {
        if self.entries.front()?.release > now {
            return None;
        }
        let entry = self.entries.pop_front()?;
        self.fill.sub(entry.packet.bytes().len());
        Some((entry.tag, entry.packet))
    }

    /// The packet that leaves the line next.
    #[inline]
    pub fn front(&self) -> Option<&P> {
        self.entries.front().map(|entry| &entry.packet)
    }

    /// When the next packet leaves the line.
    #[inline]
    pub fn next_release(&self) -> Option<Instant> {
        self.entries.front().map(|entry| entry.release)
    }

    /// Removes the packets whose tag `matches`, and returns their number.
    pub fn remove(&mut self, mut matches: impl FnMut(&T) -> bool) -> u64 {
        let before = self.entries.len();
        let fill = &mut self.fill;
        self.entries.retain(|entry| {
            let keep = !matches(&entry.tag);
            if !keep {
                fill.sub(entry.packet.bytes().len());
            }
            keep
        });
        (before - self.entries.len()) as u64
    }
}

/// Packets that wait for their port to take them.
#[derive(Debug)]
pub struct EgressQueue<P> {
    bounds: Bounds,
    packets: VecDeque<P>,
    /// The packets' lengths: the sender takes packets away, but they still have to be counted.
    lengths: VecDeque<u32>,
    fill: Fill,
}

impl<P: PacketBuf> EgressQueue<P> {
    /// An empty queue.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            packets: VecDeque::with_capacity(bounds.packets),
            lengths: VecDeque::with_capacity(bounds.packets),
            fill: Fill::default(),
        }
    }

    /// How full the queue is.
    pub fn fill(&self) -> Fill {
        self.fill
    }

    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Appends `packet`.
    ///
    /// # Errors
    /// Gives the packet back if there is no room.
    #[inline]
    pub fn push(&mut self, packet: P) -> Result<(), P> {
        if !self.fill.has_room(packet.bytes().len(), &self.bounds) {
            return Err(packet);
        }
        self.push_unbounded(packet);
        Ok(())
    }

    /// Appends a packet that must not be lost, such as a drain packet, whether or not there is room.
    pub fn push_unbounded(&mut self, packet: P) {
        let len = packet.bytes().len();
        self.fill.add(len);
        self.lengths.push_back(len as u32);
        self.packets.push_back(packet);
    }

    /// Lets `send` remove what it can send from the front, and returns the packets and bytes that it removed.
    #[inline]
    pub fn send(&mut self, send: impl FnOnce(&mut VecDeque<P>)) -> (u64, u64) {
        send(&mut self.packets);
        let sent = self.lengths.len().saturating_sub(self.packets.len());
        let mut bytes = 0;
        for len in self.lengths.drain(..sent) {
            self.fill.sub(len as usize);
            bytes += u64::from(len);
        }
        (sent as u64, bytes)
    }

    /// Drops all packets and returns their number.
    pub fn clear(&mut self) -> u64 {
        self.send(VecDeque::clear).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use slim_core::packet::OwnedPacket;

    const WIDE: Bounds = Bounds { bytes: 1 << 30, packets: 1 << 10 };

    fn packet(len: usize) -> OwnedPacket {
        OwnedPacket::new(vec![0; len])
    }

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn a_packet_leaves_exactly_after_the_delay() {
        let mut line = DelayLine::new(Duration::from_micros(2500), WIDE);
        line.push(at(1_000), 7, packet(60)).unwrap();
        assert_eq!(line.next_release(), Some(at(2_501_000)));
        assert!(line.pop(at(2_500_999)).is_none());
        assert_eq!(line.pop(at(2_501_000)), Some((7, packet(60))));
        assert_eq!(line.next_release(), None);
    }

    #[test]
    fn a_shorter_delay_does_not_let_packets_overtake() {
        let mut line = DelayLine::new(Duration::from_millis(5), WIDE);
        line.push(at(0), 1, packet(60)).unwrap();
        line.set_delay(Duration::from_millis(1), WIDE);
        line.push(at(1), 2, packet(60)).unwrap();
        assert!(line.pop(Instant::from_millis(4)).is_none());
        assert_eq!(line.pop(Instant::from_millis(5)).unwrap().0, 1);
        assert_eq!(line.pop(Instant::from_millis(5)).unwrap().0, 2);
    }

    #[test]
    fn both_bounds_hold_and_the_unbounded_push_passes_them() {
        let mut line = DelayLine::new(Duration::ZERO, Bounds { bytes: 100, packets: 2 });
        line.push(at(0), (), packet(60)).unwrap();
        assert_eq!(line.push(at(0), (), packet(41)), Err(packet(41)));
        line.push(at(0), (), packet(40)).unwrap();
        assert_eq!(line.push(at(0), (), packet(0)), Err(packet(0)));
        line.push_unbounded(at(0), (), packet(60));
        assert_eq!(line.fill(), Fill { bytes: 160, packets: 3, bytes_max: 160, packets_max: 3 });
        while line.pop(at(0)).is_some() {}
        assert_eq!(line.fill(), Fill { bytes: 0, packets: 0, bytes_max: 160, packets_max: 3 });
    }

    #[test]
    fn removal_by_tag_keeps_the_others_in_order() {
        let mut line = DelayLine::new(Duration::ZERO, WIDE);
        for tag in 0..6 {
            line.push(at(0), tag, packet(10)).unwrap();
        }
        assert_eq!(line.remove(|tag| tag % 2 == 0), 3);
        assert_eq!(line.fill().bytes, 30);
        let left: Vec<_> = std::iter::from_fn(|| line.pop(at(0))).map(|(tag, _)| tag).collect();
        assert_eq!(left, [1, 3, 5]);
    }

    #[test]
    fn an_egress_queue_keeps_what_was_not_sent() {
        let mut queue = EgressQueue::new(Bounds { bytes: 1000, packets: 10 });
        for len in [60, 70, 80] {
            queue.push(packet(len)).unwrap();
        }
        assert_eq!(queue.send(|packets| drop(packets.drain(..2))), (2, 130));
        assert_eq!(queue.fill().bytes, 80);
        assert_eq!(queue.clear(), 1);
        assert!(queue.is_empty());
        assert_eq!(queue.fill().bytes, 0);
    }

    proptest! {
        #[test]
        fn packets_leave_in_order_and_never_early(
            steps in prop::collection::vec((0u64..1_000_000, 0u64..3_000_000), 1..200),
        ) {
            let mut line = DelayLine::new(Duration::ZERO, WIDE);
            let (mut now, mut next) = (0, 0);
            for (index, &(gap, delay)) in steps.iter().enumerate() {
                now += gap;
                line.set_delay(Duration::from_nanos(delay), WIDE);
                line.push(at(now), (index, now + delay), packet(1)).unwrap();
                while let Some(((left, earliest), _)) = line.pop(at(now)) {
                    prop_assert_eq!(left, next);
                    prop_assert!(earliest <= now);
                    next += 1;
                }
            }
            while let Some(release) = line.next_release() {
                let ((left, _), _) = line.pop(release).unwrap();
                prop_assert_eq!(left, next);
                next += 1;
            }
            prop_assert_eq!(next, steps.len());
        }
    }
}

//! Subscribers of a mobile network: which cell each is in, when it is handed over, and where its packets may arrive.
//!
//! The paper's load on its packet gateway (§VII): hand-overs of each subscriber two seconds apart in the mean; a packet
//! that comes to a wrong cell counts as lost, unless the last hand-over was less than 7.5 ms ago.

use core::time::Duration;
use slim_core::time::Instant;
use slim_gateway::tag::Tag;

/// How long after a hand-over packets may still come to the cell before: 150 % of the round trip between the load
/// generator and the gateway (§VII).
pub const GRACE: Duration = Duration::from_micros(7_500);

/// Cells that subscribers move between.
const CELLS: u64 = 64;

/// All subscribers.
#[derive(Debug)]
pub struct Cells {
    subscribers: Vec<Subscriber>,
    mean_s: f64,
    random: u64,
}

#[derive(Debug, Clone, Copy)]
struct Subscriber {
    cell: u16,
    handed_over: Option<Instant>,
    next: Instant,
}

impl Cells {
    /// `count` subscribers, each somewhere, with hand-overs `mean_s` seconds apart in the mean. `seed` decides.
    pub fn new(count: u16, mean_s: f64, seed: u64, now: Instant) -> Self {
        let mut cells = Self { subscribers: Vec::new(), mean_s, random: seed.wrapping_mul(2).wrapping_add(1) };
        for _ in 0..count {
            let cell = cells.any_cell();
            let next = cells.next_hand_over(now);
            cells.subscribers.push(Subscriber { cell, handed_over: None, next });
        }
        cells
    }

    /// The tag of the packet that subscriber `number` sends now, which announces a hand-over if one is due.
    pub fn tag(&mut self, number: u16, now: Instant) -> Option<Tag> {
        let mut subscriber = *self.subscribers.get(usize::from(number))?;
        let cell = subscriber.cell;
        if now < subscriber.next {
            return Some(Tag { cell, hand_over_to: None });
        }
        while subscriber.cell == cell {
            subscriber.cell = self.any_cell();
        }
        subscriber.handed_over = Some(now);
        subscriber.next = self.next_hand_over(now);
        self.subscribers[usize::from(number)] = subscriber;
        Some(Tag { cell, hand_over_to: Some(subscriber.cell) })
    }

    /// Whether a packet for subscriber `number` reaches it if it comes to `cell` now.
    pub fn reaches(&self, number: u16, cell: u16, now: Instant) -> bool {
        self.subscribers.get(usize::from(number)).is_some_and(|subscriber| {
            subscriber.cell == cell || subscriber.handed_over.is_some_and(|at| now.saturating_since(at) < GRACE)
        })
    }

    /// Times between hand-overs are exponentially distributed.
    fn next_hand_over(&mut self, now: Instant) -> Instant {
        let uniform = (self.number() >> 11) as f64 / (1u64 << 53) as f64;
        now + Duration::try_from_secs_f64(-(1.0 - uniform).ln() * self.mean_s).unwrap_or(Duration::MAX / 4)
    }

    fn any_cell(&mut self) -> u16 {
        1 + (self.number() % CELLS) as u16
    }

    /// SplitMix64.
    fn number(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn hand_overs_come_as_often_as_wanted_and_always_to_another_cell() {
        let mut cells = Cells::new(256, 2.0, 7, ms(0));
        let mut hand_overs = 0;
        for step in 0..10_000 {
            for number in 0..256 {
                let tag = cells.tag(number, ms(step)).unwrap();
                hand_overs += u64::from(tag.hand_over_to.is_some());
                assert_ne!(tag.hand_over_to, Some(tag.cell));
            }
        }
        // 256 subscribers, 10 s, 2 s in the mean: 1280, give or take three standard deviations.
        assert!((1170..1390).contains(&hand_overs), "{hand_overs}");
        assert_eq!(cells.tag(256, ms(0)), None);
    }

    #[test]
    fn a_packet_may_come_to_the_cell_before_for_a_moment_only() {
        let mut cells = Cells::new(1, 0.001, 7, ms(0));
        let tag = cells.tag(0, ms(1_000)).unwrap();
        let (old, new) = (tag.cell, tag.hand_over_to.unwrap());
        assert!(cells.reaches(0, new, ms(1_000)) && cells.reaches(0, old, ms(1_007)));
        assert!(!cells.reaches(0, old, ms(1_008)) && cells.reaches(0, new, ms(9_000)));
        assert!(!cells.reaches(1, new, ms(1_000)), "there is no such subscriber");
    }
}

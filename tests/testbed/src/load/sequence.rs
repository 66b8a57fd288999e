//! One direction of one flow: which of the packets sent have arrived, and in which order.

/// What happened to the packets of one flow, direction and phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Handed to the network.
    pub sent: u64,
    /// Arrived, each counted once.
    pub received: u64,
    /// Arrived again.
    pub duplicated: u64,
    /// Arrived after a later one.
    pub reordered: u64,
    /// The largest distance of a late one behind the latest.
    pub reordering_extent_max: u32,
    /// Arrived with wrong addresses or ports.
    pub mistranslated: u64,
}

impl Counts {
    /// Sent and not arrived.
    pub fn lost(&self) -> u64 {
        self.sent - self.received
    }
}

/// A packet arrived with a counter that no packet sent had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("counter {0} was never sent")]
pub struct NeverSent(pub u32);

/// The packets of one direction of one flow, by their counters.
///
/// Exact for any loss, duplication and reordering: one bit per packet says whether it has arrived.
#[derive(Debug, Default)]
pub struct Sequence {
    /// The counter of the next packet to be sent.
    next: u32,
    /// One past the highest counter that has arrived.
    arrived_below: u32,
    /// One bit per packet sent: has it arrived?
    arrived: Vec<u64>,
    /// The phases: the first counter that belongs to each, and what happened to its packets.
    phases: Vec<(u32, Counts)>,
}

impl Sequence {
    /// Nothing sent, in the first phase, with memory for `packets`.
    pub fn new(packets: usize) -> Self {
        Self {
            arrived: Vec::with_capacity(packets.div_ceil(64)),
            phases: vec![(0, Counts::default())],
            ..Self::default()
        }
    }

    /// Begins a phase: packets sent from now on belong to it.
    pub fn begin_phase(&mut self) {
        self.phases.push((self.next, Counts::default()));
    }

    /// Takes the counter of the next packet, which is sent now.
    pub fn send(&mut self) -> u32 {
        let counter = self.next;
        self.next += 1;
        if self.arrived.len() * 64 < self.next as usize {
            self.arrived.push(0);
        }
        self.counts_of(counter).sent += 1;
        counter
    }

    /// Takes back the last packet of [`send`](Self::send), which did not get out.
    pub fn retract(&mut self) {
        let Some(last) = self.next.checked_sub(1) else { return };
        let counts = self.counts_of(last);
        counts.sent = counts.sent.saturating_sub(1);
        self.next = last;
    }

    /// Notes that the packet with this counter arrived.
    ///
    /// # Errors
    /// [`NeverSent`], and nothing is noted.
    pub fn receive(&mut self, counter: u32) -> Result<(), NeverSent> {
        if counter >= self.next {
            return Err(NeverSent(counter));
        }
        let (word, bit) = (&mut self.arrived[counter as usize / 64], 1 << (counter % 64));
        let again = *word & bit != 0;
        *word |= bit;
        let behind = self.arrived_below.saturating_sub(counter + 1);
        self.arrived_below = self.arrived_below.max(counter + 1);
        let counts = self.counts_of(counter);
        if again {
            counts.duplicated += 1;
            return Ok(());
        }
        counts.received += 1;
        if behind > 0 {
            counts.reordered += 1;
            counts.reordering_extent_max = counts.reordering_extent_max.max(behind);
        }
        Ok(())
    }

    /// Notes that the packet with this counter arrived with wrong addresses or ports.
    pub fn mistranslated(&mut self, counter: u32) {
        self.counts_of(counter).mistranslated += 1;
    }

    /// What happened to the packets of each phase.
    pub fn phases(&self) -> impl Iterator<Item = &Counts> {
        self.phases.iter().map(|(_, counts)| counts)
    }

    fn counts_of(&mut self, counter: u32) -> &mut Counts {
        // Nearly always the last phase. A phase in which nothing was sent begins where its successor does; the last of
        // several that begin at the same counter has its packets.
        let at = self.phases.iter().rposition(|(first, _)| *first <= counter).unwrap_or(0);
        &mut self.phases[at].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn total(sequence: &Sequence) -> Counts {
        sequence.phases().fold(Counts::default(), |total, counts| Counts {
            sent: total.sent + counts.sent,
            received: total.received + counts.received,
            duplicated: total.duplicated + counts.duplicated,
            reordered: total.reordered + counts.reordered,
            reordering_extent_max: total.reordering_extent_max.max(counts.reordering_extent_max),
            mistranslated: total.mistranslated + counts.mistranslated,
        })
    }

    fn arrivals(sent: u32, arrivals: &[u32]) -> Counts {
        let mut sequence = Sequence::new(0);
        (0..sent).for_each(|counter| assert_eq!(sequence.send(), counter));
        arrivals.iter().for_each(|counter| sequence.receive(*counter).unwrap());
        total(&sequence)
    }

    #[test]
    fn all_in_order_is_clean() {
        let all: Vec<u32> = (0..200).collect();
        assert_eq!(arrivals(200, &all), Counts { sent: 200, received: 200, ..Counts::default() });
    }

    #[test]
    fn lost_packets_are_neither_reordered_nor_duplicated() {
        let counts = arrivals(10, &[0, 1, 4, 5, 9]);
        assert_eq!((counts.lost(), counts.reordered, counts.duplicated), (5, 0, 0));
    }

    #[test]
    fn a_swap_reorders_the_one_that_is_late() {
        let counts = arrivals(5, &[0, 2, 1, 3, 4]);
        assert_eq!((counts.lost(), counts.reordered, counts.reordering_extent_max), (0, 1, 1));
        let counts = arrivals(5, &[4, 0, 1, 2, 3]);
        assert_eq!((counts.lost(), counts.reordered, counts.reordering_extent_max), (0, 4, 4));
    }

    #[test]
    fn a_copy_is_a_duplicate_wherever_it_arrives() {
        let counts = arrivals(4, &[0, 1, 1, 2, 3, 0, 3]);
        assert_eq!((counts.lost(), counts.received, counts.duplicated, counts.reordered), (0, 4, 3, 0));
    }

    #[test]
    fn what_was_never_sent_is_refused() {
        let mut sequence = Sequence::new(0);
        assert_eq!(sequence.receive(0), Err(NeverSent(0)));
        sequence.send();
        assert_eq!(sequence.receive(u32::MAX), Err(NeverSent(u32::MAX)));
        assert_eq!(sequence.receive(0), Ok(()));
        sequence.send();
        sequence.retract();
        assert_eq!(sequence.receive(1), Err(NeverSent(1)));
        assert_eq!(total(&sequence).lost(), 0);
    }

    #[test]
    fn a_packet_counts_where_it_was_sent() {
        let mut sequence = Sequence::new(0);
        (0..3).for_each(|_| _ = sequence.send());
        sequence.begin_phase();
        sequence.begin_phase();
        (0..2).for_each(|_| _ = sequence.send());
        [4, 2].iter().for_each(|counter| sequence.receive(*counter).unwrap());
        let phases: Vec<_> = sequence.phases().map(|c| (c.sent, c.received, c.reordered)).collect();
        assert_eq!(phases, [(3, 1, 1), (0, 0, 0), (2, 1, 0)]);
    }

    proptest! {
        #[test]
        fn any_arrivals_are_judged_exactly(
            sent in 1u32..300,
            picks in proptest::collection::vec(any::<prop::sample::Index>(), 0..600),
            boundary: prop::sample::Index,
        ) {
            let boundary = boundary.index(sent as usize) as u32;
            let mut sequence = Sequence::new(0);
            for counter in 0..sent {
                if counter == boundary {
                    sequence.begin_phase();
                }
                sequence.send();
            }
            // The definition, over the whole list of arrivals.
            let picks: Vec<u32> = picks.iter().map(|pick| pick.index(sent as usize) as u32).collect();
            let mut seen = BTreeSet::new();
            let mut expected = [Counts::default(); 2];
            (expected[0].sent, expected[1].sent) = (boundary.into(), (sent - boundary).into());
            for counter in picks {
                let highest = seen.last().copied();
                let counts = &mut expected[usize::from(counter >= boundary)];
                if !seen.insert(counter) {
                    counts.duplicated += 1;
                } else {
                    counts.received += 1;
                    if let Some(highest) = highest.filter(|highest| *highest > counter) {
                        counts.reordered += 1;
                        counts.reordering_extent_max = counts.reordering_extent_max.max(highest - counter);
                    }
                }
                sequence.receive(counter).unwrap();
            }
            let phases: Vec<_> = sequence.phases().copied().collect();
            // A phase that begins with the first packet leaves the one before it empty.
            prop_assert_eq!(phases, expected.to_vec());
        }
    }
}

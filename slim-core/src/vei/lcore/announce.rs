//! `st_q_out`, seen from the lcore: a bounded ring of bytes into which statelets are written inline.
//!
//! ```text
//! lcore ── type, length, value ──► batch of a pass ──► ring of bytes ──► statelet thread ── segments ──► stream
//! ```
//!
//! The statelets of a pass are gathered in a few cache lines of the lcore's own and enter the ring together, before the
//! packets that they are about leave: what the ring costs, and its lines that the other core has to give up, are shared
//! by all of them.

use crate::mutant::{self, Mutant};
use crate::nf::PortId;
use crate::protocol::control::{StateletTotals, WorkloadTotals};
use crate::statelet::{Align, Duplicate, HEADER_LEN, TYPE_ALIGN, TYPE_PACKET, header};
use crate::time::{Duration, Instant};
use crate::vei::LcoreTotals;

/// Statelets up to this length are gathered.
const INLINE: usize = 128;

/// The most bytes that are gathered before they enter the ring.
const BATCH: usize = 2048;

/// How full `st_q_out` is, for status reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StQOut {
    /// Bytes in it.
    pub used_bytes: u64,
    /// The most bytes that were found in it.
    pub longest_bytes: u64,
    /// What has been announced through it.
    pub statelets: StateletTotals,
}

/// What a sample has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampled {
    /// For how long.
    pub elapsed: Duration,
    /// Packets, and the statelets that would have been announced.
    pub totals: LcoreTotals,
}

/// Announces statelets while `upd_enable` is set, and keeps account of them.
pub(super) struct Announce {
    /// The paper's `upd_enable`, a plain field in the lcore's cache.
    upd_enable: bool,
    /// Packets are announced whole instead of what they change.
    duplicating: bool,
    /// What would be announced is counted and goes nowhere: since when, and until when.
    sampling: Option<(Instant, Instant)>,
    overflow: bool,
    st_q_out: Option<rtrb::Producer<u8>>,
    totals: LcoreTotals,
    longest_bytes: u64,
    /// Statelets that have not entered `st_q_out` yet: how many, their length, and they themselves.
    gathered: u64,
    gathered_bytes: usize,
    batch: [u8; BATCH],
}

impl Announce {
    /// Announces nothing.
    pub(super) const fn off() -> Self {
        let workload = WorkloadTotals { packets: 0, bytes: 0 };
        let totals = LcoreTotals { statelets: StateletTotals::ZERO, workload };
        Self {
            upd_enable: false,
            duplicating: false,
            sampling: None,
            overflow: false,
            st_q_out: None,
            totals,
            longest_bytes: 0,
            gathered: 0,
            gathered_bytes: 0,
            batch: [0; BATCH],
        }
    }

    /// Sets `upd_enable`: from now on statelets go to `st_q_out`.
    pub(super) fn start(&mut self, st_q_out: rtrb::Producer<u8>) {
        *self = Self { upd_enable: true, st_q_out: Some(st_q_out), ..Self::off() };
    }

    /// The same, but what goes to `st_q_out` are packets; and statelets of what happens between them.
    pub(super) fn start_duplicating(&mut self, st_q_out: rtrb::Producer<u8>, align: Align) {
        self.start(st_q_out);
        self.announce(TYPE_ALIGN, &align.encode_value());
        self.duplicating = true;
    }

    /// Counts until `until` what would be announced, unless something is announced.
    pub(super) fn sample(&mut self, now: Instant, until: Instant) {
        if self.st_q_out.is_none() {
            *self = Self { upd_enable: true, sampling: Some((now, until)), ..Self::off() };
        }
    }

    /// What has been counted at `now` since the sample began, and for how long; `None` if none is taken. Ends one whose
    /// time is over.
    #[inline]
    pub(super) fn sampled(&mut self, now: Instant) -> Option<Sampled> {
        let (since, until) = self.sampling?;
        self.flush();
        let sampled = Sampled { elapsed: now - since, totals: self.totals };
        if until <= now {
            self.stop();
        }
        Some(sampled)
    }

    /// Writes a packet whole, if packets are announced. Returns whether that says all about it.
    #[inline]
    pub(super) fn duplicate(&mut self, now: Instant, port: PortId, frame: &[u8]) -> bool {
        if self.duplicating && self.upd_enable {
            self.write_packet(now, port, frame);
        }
        self.duplicating
    }

    #[cold]
    fn write_packet(&mut self, now: Instant, port: PortId, frame: &[u8]) {
        self.flush();
        let Some(st_q_out) = &mut self.st_q_out else { return };
        let head = Duplicate::encode_head(now, port);
        let written = write_long(st_q_out, TYPE_PACKET, &[&head, frame]);
        self.account(written, 1, HEADER_LEN + head.len() + frame.len());
    }

    /// Bytes that have gone to `st_q_out`.
    #[inline]
    pub(super) fn total_bytes(&self) -> u64 {
        // A sample counts what goes nowhere.
        if self.sampling.is_some() { 0 } else { self.totals.statelets.bytes }
    }

    /// Clears `upd_enable` and lets go of `st_q_out`, whose reader then knows that nothing will follow.
    pub(super) fn stop(&mut self) -> LcoreTotals {
        self.flush();
        self.upd_enable = false;
        self.duplicating = false;
        self.sampling = None;
        self.overflow = false;
        self.st_q_out = None;
        core::mem::take(&mut self.totals)
    }

    /// Whether statelets are announced.
    #[inline]
    pub(super) fn upd_enable(&self) -> bool {
        self.upd_enable
    }

    /// Writes one statelet, at the latest with the next [`flush`](Self::flush). If there is no room, `upd_enable` is cleared
    /// and [`overflowed`](Self::overflowed) tells.
    #[inline(always)]
    pub(super) fn announce(&mut self, statelet_type: u16, value: &[u8]) {
        if !self.upd_enable {
            return;
        }
        if mutant::is_active(Mutant::AnnounceLate) && self.totals.workload.packets <= 1 {
            return;
        }
        if value.len() <= INLINE {
            self.gather(statelet_type, value);
        } else {
            self.announce_long(statelet_type, value);
        }
    }

    /// Adds a statelet to those that enter `st_q_out` together.
    #[inline(always)]
    fn gather(&mut self, statelet_type: u16, value: &[u8]) {
        let len = HEADER_LEN + value.len();
        if self.gathered_bytes + len > BATCH {
            self.flush();
        }
        let Some(record) = self.batch.get_mut(self.gathered_bytes..self.gathered_bytes + len) else { return };
        let (head, body) = record.split_at_mut(HEADER_LEN);
        // INLINE at most.
        head.copy_from_slice(&header(statelet_type, value.len() as u16));
        body.copy_from_slice(value);
        self.gathered += 1;
        self.gathered_bytes += len;
    }

    #[cold]
    fn announce_long(&mut self, statelet_type: u16, value: &[u8]) {
        self.flush();
        // A sample only counts.
        let written = match &mut self.st_q_out {
            Some(st_q_out) => write_long(st_q_out, statelet_type, &[value]),
            None => Some(()),
        };
        self.account(written, 1, HEADER_LEN + value.len());
    }

    /// Lets what has been gathered enter `st_q_out`: after each pass, and before anything that has to come later.
    #[inline]
    pub(super) fn flush(&mut self) {
        if self.gathered_bytes > 0 {
            self.flush_batch();
        }
    }

    fn flush_batch(&mut self) {
        let (records, bytes) = (core::mem::take(&mut self.gathered), core::mem::take(&mut self.gathered_bytes));
        let Some(batch) = self.batch.get(..bytes) else { return };
        let written = match &mut self.st_q_out {
            Some(st_q_out) => st_q_out.push_entire_slice(batch).ok(),
            None => Some(()),
        };
        self.account(written, records, bytes);
    }

    /// Counts `records` statelets of `bytes` bytes, headers included, or notes that they could not be written.
    fn account(&mut self, written: Option<()>, records: u64, bytes: usize) {
        if written.is_none() && mutant::is_active(Mutant::StateletLost) {
            return;
        }
        if written.is_none() {
            self.upd_enable = false;
            self.overflow = true;
            return;
        }
        self.totals.statelets.records += records;
        self.totals.statelets.value_bytes += bytes as u64 - records * HEADER_LEN as u64;
        self.totals.statelets.bytes += bytes as u64;
    }

    /// Counts packets received while statelets are announced.
    #[inline]
    pub(super) fn count(&mut self, packets: u64, bytes: u64) {
        if self.upd_enable {
            self.totals.workload.packets += packets;
            self.totals.workload.bytes += bytes;
        }
    }

    /// Whether exactly one packet has been processed since [`start`](Self::start).
    #[inline]
    pub(super) fn has_just_begun(&self) -> bool {
        self.upd_enable && self.totals.workload.packets == 1
    }

    /// Whether a statelet could not be announced; tells it once.
    #[inline]
    pub(super) fn overflowed(&mut self) -> bool {
        core::mem::take(&mut self.overflow)
    }

    /// How full `st_q_out` is and has been, and what went into it; `None` while there is none.
    pub(super) fn status(&mut self) -> Option<StQOut> {
        let st_q_out = self.st_q_out.as_ref()?;
        let used_bytes = (st_q_out.buffer().capacity() - st_q_out.slots()) as u64;
        self.longest_bytes = self.longest_bytes.max(used_bytes);
        Some(StQOut { used_bytes, longest_bytes: self.longest_bytes, statelets: self.totals.statelets })
    }
}

#[cold]
fn write_long(st_q_out: &mut rtrb::Producer<u8>, statelet_type: u16, value: &[&[u8]]) -> Option<()> {
    let len: usize = value.iter().map(|part| part.len()).sum();
    if st_q_out.slots() < HEADER_LEN + len {
        return None;
    }
    let len = u16::try_from(len).ok()?;
    // The reader may see the header alone; it reads records only once they are complete.
    st_q_out.push_entire_slice(&header(statelet_type, len)).ok()?;
    value.iter().try_for_each(|part| st_q_out.push_entire_slice(part).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statelet::{Decoder, Record};

    fn read(ring: &mut rtrb::Consumer<u8>) -> Vec<(u16, usize)> {
        let mut bytes = vec![0; ring.slots()];
        ring.pop_entire_slice(&mut bytes).unwrap();
        let mut decoder = Decoder::new();
        let mut input = &bytes[..];
        let mut found = Vec::new();
        while let Some(Record::Statelet { statelet_type, value }) = decoder.decode(&mut input).unwrap() {
            assert!(value.iter().all(|&byte| byte == statelet_type as u8));
            found.push((statelet_type, value.len()));
        }
        found
    }

    #[test]
    fn records_are_whole_whatever_their_length_and_place() {
        let (producer, mut consumer) = rtrb::RingBuffer::new(1000);
        let mut announce = Announce::off();
        announce.announce(1, &[1; 4]);
        announce.start(producer);
        let mut expected = LcoreTotals::default();
        for round in 0..200u16 {
            for len in [0, usize::from(round) % 129, 129 + usize::from(round)] {
                announce.announce(round, &vec![round as u8; len]);
                expected.statelets.records += 1;
                expected.statelets.value_bytes += len as u64;
                expected.statelets.bytes += len as u64 + 4;
            }
            let lens = [0, usize::from(round) % 129, 129 + usize::from(round)];
            announce.flush();
            assert_eq!(read(&mut consumer), lens.map(|len| (round, len)));
        }
        assert!(!announce.overflowed());
        assert_eq!(announce.stop(), expected);
        assert!(consumer.is_abandoned());
    }

    #[test]
    fn overflow_is_told_once_and_leaves_no_broken_record() {
        for (len, per_flush) in [(10, 1), (10, 7), (200, 1)] {
            let (producer, mut consumer) = rtrb::RingBuffer::new(500);
            let mut announce = Announce::off();
            announce.start(producer);
            for number in 1..=100 {
                announce.announce(7, &vec![7; len]);
                if number % per_flush == 0 {
                    announce.flush();
                }
            }
            assert!(announce.overflowed());
            assert!(!announce.overflowed());
            assert!(!announce.upd_enable());
            let fit = 500 / (per_flush * (len + 4)) * per_flush;
            assert_eq!(read(&mut consumer), vec![(7, len); fit]);
            assert_eq!(announce.stop().statelets.records as usize, fit);
        }
    }

    #[test]
    fn a_sample_counts_what_would_be_announced_until_its_time_is_over() {
        let at = Instant::from_millis;
        let mut announce = Announce::off();
        announce.sample(at(10), at(20));
        assert!(announce.upd_enable());
        announce.count(1, 500);
        announce.announce(7, &[7; 300]);
        let sampled = announce.sampled(at(15)).unwrap();
        assert_eq!((sampled.elapsed, sampled.totals.workload.bytes), (Duration::from_millis(5), 500));
        assert_eq!((sampled.totals.statelets.records, sampled.totals.statelets.value_bytes), (1, 300));
        announce.announce(7, &[7; 10]);
        assert_eq!(announce.sampled(at(20)).unwrap().totals.statelets.records, 2);
        assert!(!announce.upd_enable() && announce.sampled(at(20)).is_none());
    }

    #[test]
    fn a_migration_ends_a_sample_and_a_sample_no_migration() {
        let at = Instant::from_millis;
        let mut announce = Announce::off();
        announce.sample(at(0), at(100));
        announce.announce(7, &[7; 10]);
        let (producer, mut consumer) = rtrb::RingBuffer::new(100);
        announce.start(producer);
        announce.sample(at(1), at(2));
        assert!(announce.sampled(at(50)).is_none());
        announce.announce(8, &[8; 3]);
        announce.flush();
        assert_eq!(read(&mut consumer), [(8, 3)]);
        assert_eq!(announce.stop().statelets.records, 1);
    }

    #[test]
    fn a_batch_that_is_full_enters_the_ring_and_order_is_kept() {
        let (producer, mut consumer) = rtrb::RingBuffer::new(1 << 16);
        let mut announce = Announce::off();
        announce.start(producer);
        let lens: Vec<usize> = (0..210).map(|number| if number % 50 == 49 { 300 } else { 100 }).collect();
        for (number, &len) in lens.iter().enumerate() {
            announce.announce(number as u16, &vec![number as u8; len]);
        }
        let mut seen = read(&mut consumer);
        assert_eq!(seen.len(), 200);
        assert_eq!(announce.stop().statelets.records, 210);
        seen.extend(read(&mut consumer));
        assert_eq!(seen, lens.iter().enumerate().map(|(number, &len)| (number as u16, len)).collect::<Vec<_>>());
    }

    #[test]
    fn workload_counts_only_while_announcing() {
        let mut announce = Announce::off();
        announce.count(1, 100);
        announce.start(rtrb::RingBuffer::new(10).0);
        announce.count(2, 200);
        let totals = announce.stop();
        announce.count(4, 400);
        assert_eq!((totals.workload.packets, totals.workload.bytes), (2, 200));
        assert_eq!(announce.stop(), LcoreTotals::default());
    }
}

//! `pkt_q`: the packets that wait for the dataplane (§IV-A), copied into one bounded ring of bytes.

use crate::nf::PortId;
use crate::protocol::control::QueueStatus;
use alloc::vec::Vec;

/// A record's header: port, zero, length of the frame.
const HEADER_LEN: usize = 4;

/// There is no room for the frame; nothing has changed. The caller drops the frame and counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("pkt_q is full")]
pub struct Full;

/// A bounded first-in, first-out queue of frames and the ports they arrived on.
///
/// ```text
/// ┌──────────┬────────────────────┬────────┬──────────────────┐
/// │ 3rd, 4th │ free               │ 1st    │ 2nd     │ unused │
/// └──────────┴────────────────────┴────────┴──────────────────┘
///            ▲ tail               ▲ head             ▲ limit
/// ```
///
/// Frames are copied, so the driver's packet buffers are free again at once; each frame is contiguous, so that it can be
/// copied out in one piece. The memory is reserved at construction but touched only as the queue grows: an idle instance
/// does not pay for it. One lcore owns the queue, so nothing here is shared.
#[derive(Debug)]
pub struct PacketQueue {
    ring: Vec<u8>,
    head: usize,
    tail: usize,
    /// Where the last record before the wrap ends; only meaningful while `wrapped`.
    limit: usize,
    wrapped: bool,
    status: QueueStatus,
}

impl PacketQueue {
    /// An empty queue of at most `capacity_bytes`, each frame taking its length and up to 7 bytes.
    pub fn new(capacity_bytes: usize) -> Self {
        // Zeroed memory comes straight from the kernel and is not touched here.
        let ring = alloc::vec![0; capacity_bytes];
        let status = QueueStatus { capacity_bytes: capacity_bytes as u64, ..QueueStatus::default() };
        Self { ring, head: 0, tail: 0, limit: 0, wrapped: false, status }
    }

    /// Appends a copy of `frame`, which arrived on `port`.
    ///
    /// # Errors
    /// [`Full`] if there is no room, or the frame is longer than 65,535 bytes; nothing has changed then.
    pub fn push(&mut self, port: PortId, frame: &[u8]) -> Result<(), Full> {
        let len = u16::try_from(frame.len()).map_err(|_| Full)?;
        let need = record_len(frame.len());
        if self.is_empty() {
            self.rewind();
        }
        let free = if self.wrapped { self.head - self.tail } else { self.ring.len() - self.tail };
        if free < need {
            if self.wrapped || self.head < need {
                return Err(Full);
            }
            self.limit = self.tail;
            self.tail = 0;
            self.wrapped = true;
        }
        let record = &mut self.ring[self.tail..self.tail + need];
        record[0] = port.0;
        record[1] = 0;
        record[2..HEADER_LEN].copy_from_slice(&len.to_be_bytes());
        record[HEADER_LEN..HEADER_LEN + frame.len()].copy_from_slice(frame);
        self.tail += need;
        self.status.records += 1;
        self.status.bytes += frame.len() as u64;
        self.status.longest_records = self.status.longest_records.max(self.status.records);
        self.status.longest_bytes = self.status.longest_bytes.max(self.status.bytes);
        Ok(())
    }

    /// Removes the oldest frame: its port and bytes, to be copied before anything else is pushed.
    pub fn pop(&mut self) -> Option<(PortId, &[u8])> {
        if self.is_empty() {
            return None;
        }
        if self.wrapped && self.head == self.limit {
            self.head = 0;
            self.wrapped = false;
        }
        let start = self.head + HEADER_LEN;
        let port = PortId(self.ring[self.head]);
        let len = usize::from(u16::from_be_bytes([self.ring[self.head + 2], self.ring[self.head + 3]]));
        self.head += record_len(len);
        self.status.records -= 1;
        self.status.bytes -= len as u64;
        Some((port, &self.ring[start..start + len]))
    }

    /// Throws everything away; says how many frames that were.
    pub fn clear(&mut self) -> u64 {
        let records = self.status.records;
        self.status.records = 0;
        self.status.bytes = 0;
        self.rewind();
        records
    }

    /// Forgets how long the queue has been, for the next migration.
    pub fn reset_longest(&mut self) {
        self.status.longest_records = self.status.records;
        self.status.longest_bytes = self.status.bytes;
    }

    /// Whether no frame waits.
    pub fn is_empty(&self) -> bool {
        self.status.records == 0
    }

    /// Whether three quarters of it are used.
    #[inline]
    pub fn is_nearly_full(&self) -> bool {
        let used = self.status.bytes + self.status.records * HEADER_LEN as u64;
        !self.is_empty() && used >= self.status.capacity_bytes / 4 * 3
    }

    /// The number of frames waiting.
    pub fn len(&self) -> u64 {
        self.status.records
    }

    /// How full it is and has been; bytes are those of the frames.
    pub fn status(&self) -> QueueStatus {
        self.status
    }

    /// An empty queue starts over at the front, so that short queues stay in the same few pages.
    fn rewind(&mut self) {
        self.head = 0;
        self.tail = 0;
        self.wrapped = false;
    }
}

/// Records start at multiples of four bytes.
const fn record_len(frame_len: usize) -> usize {
    (HEADER_LEN + frame_len).next_multiple_of(HEADER_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::VecDeque;
    use proptest::prelude::*;

    #[test]
    fn frames_come_out_in_order_with_their_ports() {
        let mut queue = PacketQueue::new(64);
        queue.push(PortId(1), b"first").unwrap();
        queue.push(PortId(0), b"").unwrap();
        assert_eq!(queue.pop(), Some((PortId(1), &b"first"[..])));
        assert_eq!(queue.pop(), Some((PortId(0), &b""[..])));
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn a_full_queue_refuses_and_keeps_what_it_has() {
        let mut queue = PacketQueue::new(32);
        queue.push(PortId(0), &[1; 12]).unwrap();
        queue.push(PortId(0), &[2; 12]).unwrap();
        assert_eq!(queue.push(PortId(0), &[]), Err(Full));
        assert_eq!(queue.pop(), Some((PortId(0), &[1; 12][..])));
        queue.push(PortId(0), &[3; 12]).unwrap();
        assert_eq!(queue.push(PortId(0), &[]), Err(Full));
        assert_eq!(queue.pop(), Some((PortId(0), &[2; 12][..])));
        assert_eq!(queue.pop(), Some((PortId(0), &[3; 12][..])));
        assert!(queue.is_empty());
        assert_eq!(PacketQueue::new(1 << 20).push(PortId(0), &[0; 65_536]), Err(Full));
    }

    #[test]
    fn longest_counts_frames_and_their_bytes() {
        let mut queue = PacketQueue::new(64);
        queue.push(PortId(0), b"abc").unwrap();
        queue.push(PortId(0), b"de").unwrap();
        queue.pop();
        assert_eq!((queue.status().longest_records, queue.status().longest_bytes), (2, 5));
        assert_eq!((queue.status().records, queue.status().bytes), (1, 2));
        queue.reset_longest();
        assert_eq!(queue.status().longest_records, 1);
        assert_eq!(queue.clear(), 1);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_quarter_is_left_when_it_is_nearly_full() {
        let mut queue = PacketQueue::new(1000);
        while !queue.is_nearly_full() {
            queue.push(PortId(0), &[0; 93]).unwrap();
        }
        assert_eq!(queue.len(), 8);
        assert!(queue.push(PortId(0), &[0; 93]).is_ok());
        queue.pop();
        queue.pop();
        assert!(!queue.is_nearly_full());
        assert!(!PacketQueue::new(0).is_nearly_full());
    }

    proptest! {
        #[test]
        fn behaves_like_a_list(
            capacity in 0usize..200,
            operations in proptest::collection::vec(proptest::option::of((any::<u8>(), 0usize..60)), 0..300),
        ) {
            let mut queue = PacketQueue::new(capacity);
            let mut model: VecDeque<(u8, Vec<u8>)> = VecDeque::new();
            for (step, operation) in operations.into_iter().enumerate() {
                match operation {
                    Some((port, len)) => {
                        let frame: Vec<u8> = (0..len).map(|index| (index + step) as u8).collect();
                        match queue.push(PortId(port), &frame) {
                            Ok(()) => model.push_back((port, frame)),
                            Err(Full) => {
                                // What cannot be used: less than this record at either end, or less than the longest
                                // one where the ring wraps.
                                let used: usize = model.iter().map(|(_, frame)| record_len(frame.len())).sum();
                                prop_assert!(used + record_len(len) + record_len(60) > capacity);
                            }
                        }
                    }
                    None => {
                        let expected = model.pop_front();
                        let found = queue.pop().map(|(port, frame)| (port.0, frame.to_vec()));
                        prop_assert_eq!(found, expected);
                    }
                }
                prop_assert_eq!(queue.len(), model.len() as u64);
                prop_assert_eq!(queue.status().bytes, model.iter().map(|(_, frame)| frame.len() as u64).sum::<u64>());
            }
        }
    }
}

//! What every packet carries: who sent it, which one it is, when it was sent, and a checksum over all of it.
//!
//! ```text
//!  0       2       4               8                       14              18
//! +-------+-------+---------------+-----------------------+---------------+- - - -
//! | magic |socket |    counter    |     sent at, ns       |   CRC-32C     | filler
//! +-------+-------+---------------+-----------------------+---------------+- - - -
//! ```
//!
//! Big endian. 18 bytes are what the smallest Ethernet frame leaves. The magic tells requests from replies; each
//! direction of a socket has a counter of its own, so that what goes wrong is known to go wrong in that direction. A
//! reply carries its request's time. The CRC covers everything else, filler included.

use slim_core::time::Instant;

/// Length of the stamp in bytes.
pub const STAMP_LEN: usize = 18;

const CRC_AT: usize = 14;

/// Nanoseconds wrap after 78 hours.
const TIME_MASK: u64 = (1 << 48) - 1;

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From a socket to an echo server.
    Outbound,
    /// Back.
    Inbound,
}

impl Direction {
    const fn magic(self) -> u16 {
        match self {
            Self::Outbound => 0x51a1,
            Self::Inbound => 0x51a2,
        }
    }
}

/// The stamp of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Which way the packet goes.
    pub direction: Direction,
    /// The socket's number.
    pub socket: u16,
    /// The packet's number among those of its socket and direction, from 0.
    pub counter: u32,
    /// When the request was sent.
    pub sent_at: Instant,
}

/// The bytes are no packet of ours, or not as they were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StampError {
    /// There is no room for a stamp.
    #[error("shorter than a stamp")]
    Truncated,
    /// Neither a request nor a reply.
    #[error("wrong magic")]
    Magic,
    /// The checksum does not fit.
    #[error("wrong CRC")]
    Crc,
}

impl Stamp {
    /// Writes the stamp into the first bytes of `payload`, over whose present rest the CRC goes.
    ///
    /// Does nothing if there is no room.
    pub fn write(&self, payload: &mut [u8]) {
        let Some(head) = payload.first_chunk_mut::<STAMP_LEN>() else { return };
        head[..2].copy_from_slice(&self.direction.magic().to_be_bytes());
        head[2..4].copy_from_slice(&self.socket.to_be_bytes());
        head[4..8].copy_from_slice(&self.counter.to_be_bytes());
        head[8..14].copy_from_slice(&(self.sent_at.as_nanos() & TIME_MASK).to_be_bytes()[2..]);
        let crc = crc(payload).to_be_bytes();
        payload[CRC_AT..STAMP_LEN].copy_from_slice(&crc);
    }

    /// Reads the stamp of a packet that arrives at `now`.
    pub fn read(payload: &[u8], now: Instant) -> Result<Self, StampError> {
        let head = payload.first_chunk::<STAMP_LEN>().ok_or(StampError::Truncated)?;
        let direction = match u16::from_be_bytes([head[0], head[1]]) {
            magic if magic == Direction::Outbound.magic() => Direction::Outbound,
            magic if magic == Direction::Inbound.magic() => Direction::Inbound,
            _ => return Err(StampError::Magic),
        };
        if crc(payload).to_be_bytes() != head[CRC_AT..] {
            return Err(StampError::Crc);
        }
        let [_, _, a, b, c, d, e, f, g, h, i, j, k, l, ..] = *head;
        let sent = u64::from_be_bytes([0, 0, g, h, i, j, k, l]);
        // The time of the packet is the last one at or before now that has these 48 bits.
        let age = now.as_nanos().wrapping_sub(sent) & TIME_MASK;
        Ok(Self {
            direction,
            socket: u16::from_be_bytes([a, b]),
            counter: u32::from_be_bytes([c, d, e, f]),
            sent_at: Instant::from_nanos(now.as_nanos().saturating_sub(age)),
        })
    }
}

/// The checksum over everything but itself.
fn crc(payload: &[u8]) -> u32 {
    let (head, rest) = payload.split_at(CRC_AT);
    crc32c::crc32c_append(crc32c::crc32c(head), &rest[STAMP_LEN - CRC_AT..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_stamp_reads_as_written(
            outbound: bool,
            socket: u16,
            counter: u32,
            sent in 0u64..1 << 60,
            age in 0u64..1 << 47,
            mut payload in proptest::collection::vec(any::<u8>(), STAMP_LEN..200),
        ) {
            let direction = if outbound { Direction::Outbound } else { Direction::Inbound };
            let stamp = Stamp { direction, socket, counter, sent_at: Instant::from_nanos(sent) };
            stamp.write(&mut payload);
            prop_assert_eq!(Stamp::read(&payload, Instant::from_nanos(sent + age)), Ok(stamp));
        }

        #[test]
        fn a_changed_bit_is_noticed(
            mut payload in proptest::collection::vec(any::<u8>(), STAMP_LEN..200),
            bit: prop::sample::Index,
        ) {
            let sent_at = Instant::from_millis(5);
            Stamp { direction: Direction::Outbound, socket: 1, counter: 2, sent_at }.write(&mut payload);
            let bit = bit.index(payload.len() * 8);
            payload[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Stamp::read(&payload, sent_at).is_err());
        }
    }

    #[test]
    fn the_bytes_are_those_documented() {
        let mut payload = [0xee; 20];
        let stamp = Stamp {
            direction: Direction::Inbound,
            socket: 0x0102,
            counter: 0x0304_0506,
            sent_at: Instant::from_nanos(0x0708_090a_0b0c),
        };
        stamp.write(&mut payload);
        let head = [0x51, 0xa2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        assert_eq!(payload[..14], head);
        assert_eq!(payload[14..18], crc32c::crc32c(&[&head[..], &[0xee, 0xee]].concat()).to_be_bytes());
        assert_eq!(payload[18..], [0xee, 0xee]);
        assert_eq!(Stamp::read(&payload[..17], Instant::ZERO), Err(StampError::Truncated));
        payload[0] = 0;
        assert_eq!(Stamp::read(&payload, Instant::ZERO), Err(StampError::Magic));
    }
}

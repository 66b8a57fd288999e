//! The gateway's statelets: what `announce` sends and `install` reads.
//!
//! Integers are big endian.
//!
//! ```text
//! type    name         value
//! 0x0001  association  subscriber's addr, port u16, cell u16, hand-overs u32, ticks u32, 34 zero bytes   50
//! 0x0002  detach       subscriber's addr, port u16, ticks u32                                            10
//! ```
//!
//! An association is announced at each hand-over, when a subscriber attaches, and when one that has been silent or in the
//! same cell for a quarter of the time-out is heard of again; a packet leads to none otherwise. The paper says that it has
//! 50 bytes (§VI-C), not what they hold: what a standard gateway's bearer context would need beyond ours is left zero.
//!
//! Each carries the clock, so that none has to be sent just because time passes.

use crate::state::Association;
use core::net::Ipv4Addr;
use slim_core::nf::InstallError;
use slim_core::statelet::Coalescing;

/// The length of an association's value.
pub const ASSOCIATION_LEN: usize = 50;

/// The length of a detach's value.
pub const DETACH_LEN: usize = 10;

const ASSOCIATION: u16 = 0x0001;
const DETACH: u16 = 0x0002;

/// A subscriber: an IPv4 address and a UDP or TCP port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subscriber {
    /// The address.
    pub address: Ipv4Addr,
    /// The port.
    pub port: u16,
}

/// One change of the gateway's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statelet {
    /// The subscriber is in a cell, as of the association's last-seen tick, which is the clock's present value.
    Association(Subscriber, Association),
    /// The subscriber has been silent for too long.
    Detach {
        /// Who.
        subscriber: Subscriber,
        /// The clock's present value.
        ticks: u32,
    },
}

/// A statelet's type and value, ready to be announced.
#[derive(Debug, Clone, Copy)]
pub struct Encoded {
    statelet_type: u16,
    value: [u8; ASSOCIATION_LEN],
    len: usize,
}

impl Encoded {
    /// The statelet's type.
    pub fn statelet_type(&self) -> u16 {
        self.statelet_type
    }

    /// The statelet's value.
    pub fn value(&self) -> &[u8] {
        &self.value[..self.len]
    }

    fn new(statelet_type: u16, fields: &[&[u8]], len: usize) -> Self {
        let mut value = [0; ASSOCIATION_LEN];
        for (to, from) in value.iter_mut().zip(fields.iter().copied().flatten()) {
            *to = *from;
        }
        Self { statelet_type, value, len }
    }
}

impl Statelet {
    /// The type and value as they are announced.
    pub fn encode(&self) -> Encoded {
        match self {
            Self::Association(subscriber, Association { cell, hand_overs, last_seen }) => Encoded::new(
                ASSOCIATION,
                &[
                    &subscriber.address.octets(),
                    &subscriber.port.to_be_bytes(),
                    &cell.to_be_bytes(),
                    &hand_overs.to_be_bytes(),
                    &last_seen.to_be_bytes(),
                ],
                ASSOCIATION_LEN,
            ),
            Self::Detach { subscriber, ticks } => Encoded::new(
                DETACH,
                &[&subscriber.address.octets(), &subscriber.port.to_be_bytes(), &ticks.to_be_bytes()],
                DETACH_LEN,
            ),
        }
    }

    /// Reads a statelet of the given type.
    ///
    /// # Errors
    /// [`InstallError::UnknownType`], and [`InstallError::Malformed`] where the value is not of the type's length or
    /// holds a number without meaning.
    pub fn decode(statelet_type: u16, value: &[u8]) -> Result<Self, InstallError> {
        let malformed = InstallError::Malformed { statelet_type, len: value.len() };
        match statelet_type {
            ASSOCIATION => <&[u8; ASSOCIATION_LEN]>::try_from(value).ok().and_then(association).ok_or(malformed),
            DETACH => <&[u8; DETACH_LEN]>::try_from(value).map(detach).map_err(|_| malformed),
            unknown => Err(InstallError::UnknownType(unknown)),
        }
    }
}

/// What may be done with a statelet that waits to be sent (see [`Coalescing`]): where a subscriber is now is all that
/// counts, as long as it has not been detached in between.
pub fn coalescing(statelet_type: u16) -> Coalescing {
    match statelet_type {
        ASSOCIATION => Coalescing::Merge { key_len: 6 },
        _ => Coalescing::Barrier,
    }
}

fn association(value: &[u8; ASSOCIATION_LEN]) -> Option<Statelet> {
    let &[a0, a1, a2, a3, p0, p1, c0, c1, h0, h1, h2, h3, t0, t1, t2, t3, ref rest @ ..] = value;
    let association = Association {
        cell: u16::from_be_bytes([c0, c1]),
        hand_overs: u32::from_be_bytes([h0, h1, h2, h3]),
        last_seen: u32::from_be_bytes([t0, t1, t2, t3]),
    };
    let subscriber = Subscriber { address: [a0, a1, a2, a3].into(), port: u16::from_be_bytes([p0, p1]) };
    let valid = association.cell != 0 && rest.iter().all(|&byte| byte == 0);
    valid.then_some(Statelet::Association(subscriber, association))
}

fn detach(value: &[u8; DETACH_LEN]) -> Statelet {
    let &[a0, a1, a2, a3, p0, p1, t0, t1, t2, t3] = value;
    let subscriber = Subscriber { address: [a0, a1, a2, a3].into(), port: u16::from_be_bytes([p0, p1]) };
    Statelet::Detach { subscriber, ticks: u32::from_be_bytes([t0, t1, t2, t3]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBSCRIBER: Subscriber = Subscriber { address: Ipv4Addr::new(10, 1, 0, 10), port: 0x1234 };

    #[test]
    fn statelets_have_the_documented_bytes() {
        let association = Association { cell: 0x0506, hand_overs: 0x0708_090a, last_seen: 0x0b0c_0d0e };
        let statelet = Statelet::Association(SUBSCRIBER, association);
        let mut expected = b"\x0a\x01\x00\x0a\x12\x34\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e".to_vec();
        expected.resize(50, 0);
        assert_eq!((statelet.encode().statelet_type(), statelet.encode().value()), (1, &expected[..]));
        assert_eq!(Statelet::decode(1, &expected), Ok(statelet));

        let statelet = Statelet::Detach { subscriber: SUBSCRIBER, ticks: 7 };
        let expected = b"\x0a\x01\x00\x0a\x12\x34\x00\x00\x00\x07";
        assert_eq!((statelet.encode().statelet_type(), statelet.encode().value()), (2, &expected[..]));
        assert_eq!(Statelet::decode(2, expected), Ok(statelet));
    }

    #[test]
    fn wrong_lengths_types_and_values_are_refused() {
        let valid = Statelet::Association(SUBSCRIBER, Association { cell: 1, hand_overs: 0, last_seen: 0 }).encode();
        for len in (0..=60).filter(|&len| len != ASSOCIATION_LEN) {
            let mut value = valid.value().to_vec();
            value.resize(len, 0);
            assert_eq!(Statelet::decode(1, &value), Err(InstallError::Malformed { statelet_type: 1, len }));
        }
        for len in (0..=20).filter(|&len| len != DETACH_LEN) {
            let error = Err(InstallError::Malformed { statelet_type: 2, len });
            assert_eq!(Statelet::decode(2, &vec![0; len]), error);
        }
        for at in [16, 49] {
            let mut value = valid.value().to_vec();
            value[at] = 1;
            assert_eq!(Statelet::decode(1, &value), Err(InstallError::Malformed { statelet_type: 1, len: 50 }));
        }
        assert!(Statelet::decode(1, &[0; 50]).is_err(), "cell 0");
        assert_eq!(Statelet::decode(3, &[]), Err(InstallError::UnknownType(3)));
    }
}

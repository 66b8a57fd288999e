//! Merging statelets that a later one overwrites while both still wait to be sent.
//!
//! What may be merged only the network function knows; it says so through [`Coalesce`]. The merged statelet takes the
//! place of the earlier one, so the network function vouches that it may be installed before those between the two.
//! Intermediate states never exist at the destination then, the state at the end of a buffer is the same.

use super::encode::{EncodeError, HEADER_LEN, encode};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// What a statelet allows to be done with it and around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coalescing {
    /// Stays as it is, and no two statelets on both sides of it are merged.
    Barrier,
    /// Stays as it is; those on both sides of it may be merged.
    Pass,
    /// May be merged with the next one of the same type, length and first bytes.
    Merge {
        /// The number of first bytes of the value that have to be equal.
        key_len: usize,
    },
}

/// How statelets are merged: a network function's knowledge of its own.
pub trait Coalesce {
    /// What this statelet allows.
    fn coalescing(statelet_type: u16, value: &[u8]) -> Coalescing;

    /// Makes `earlier` say what both say. They have the same type, length and key.
    ///
    /// Returns false, with `earlier` unchanged, if they cannot be merged after all.
    fn merge(statelet_type: u16, earlier: &mut [u8], later: &[u8]) -> bool;
}

/// Places remembered. Keys that share one are merged less often, nothing worse.
const PLACES: usize = 1024;

/// Where the last statelet of some key is.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// Those of earlier epochs are void.
    epoch: u32,
    offset: u32,
}

/// A buffer of statelets to be sent, merged as they come.
///
/// ```
/// use slim_core::statelet::{Coalesce, Coalescer, Coalescing};
///
/// /// Values are a key and the latest number for it.
/// struct Latest;
///
/// impl Coalesce for Latest {
///     fn coalescing(_statelet_type: u16, _value: &[u8]) -> Coalescing {
///         Coalescing::Merge { key_len: 1 }
///     }
///     fn merge(_statelet_type: u16, earlier: &mut [u8], later: &[u8]) -> bool {
///         earlier.copy_from_slice(later);
///         true
///     }
/// }
///
/// let mut coalescer = Coalescer::new();
/// for value in [b"a1", b"b1", b"a2"] {
///     coalescer.push::<Latest>(7, value)?;
/// }
/// assert_eq!(coalescer.bytes(), b"\x00\x07\x00\x02a2\x00\x07\x00\x02b1");
/// assert_eq!(coalescer.merged(), 1);
/// # Ok::<(), slim_core::statelet::EncodeError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Coalescer {
    buffer: Vec<u8>,
    places: Box<[Place]>,
    epoch: u32,
    merged: u64,
}

impl Default for Coalescer {
    fn default() -> Self {
        Self::new()
    }
}

impl Coalescer {
    /// An empty buffer.
    pub fn new() -> Self {
        Self { buffer: Vec::new(), places: alloc::vec![Place::default(); PLACES].into(), epoch: 1, merged: 0 }
    }

    /// Adds a statelet, or merges it with one in the buffer.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`]; nothing is added.
    pub fn push<C: Coalesce>(&mut self, statelet_type: u16, value: &[u8]) -> Result<(), EncodeError> {
        match C::coalescing(statelet_type, value) {
            Coalescing::Merge { key_len } if key_len <= value.len() => {
                let index = place(statelet_type, &value[..key_len]);
                let offset = self.buffer.len();
                let known = self.places.get(index).filter(|place| place.epoch == self.epoch).copied();
                if let Some(known) = known
                    && let Some(earlier) = self.value_at(known.offset as usize, statelet_type, value, key_len)
                    && C::merge(statelet_type, earlier, value)
                {
                    self.merged += 1;
                    return Ok(());
                }
                encode(statelet_type, value, &mut self.buffer)?;
                if let (Some(place), Ok(offset)) = (self.places.get_mut(index), u32::try_from(offset)) {
                    *place = Place { epoch: self.epoch, offset };
                }
                Ok(())
            }
            Coalescing::Merge { .. } | Coalescing::Pass => encode(statelet_type, value, &mut self.buffer),
            Coalescing::Barrier => self.append(statelet_type, value),
        }
    }

    /// Adds a statelet that stays as it is. Nothing after it is merged with what is before it.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`]; nothing is added.
    pub fn append(&mut self, statelet_type: u16, value: &[u8]) -> Result<(), EncodeError> {
        self.forget();
        encode(statelet_type, value, &mut self.buffer)
    }

    /// The value of the statelet at `offset`, if it has the same type, length and key.
    fn value_at(&mut self, offset: usize, statelet_type: u16, value: &[u8], key_len: usize) -> Option<&mut [u8]> {
        let (head, rest) = self.buffer.get_mut(offset..)?.split_at_mut_checked(HEADER_LEN)?;
        let [t0, t1, l0, l1] = *head else { return None };
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        let known = rest.get_mut(..len)?;
        let same = u16::from_be_bytes([t0, t1]) == statelet_type
            && len == value.len()
            && known.get(..key_len) == value.get(..key_len);
        same.then_some(known)
    }

    /// The statelets in the buffer, encoded one after the other.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Removes the first `len` bytes of the buffer, which have been sent. Nothing is merged with what is left.
    pub fn remove_front(&mut self, len: usize) {
        self.buffer.drain(..len.min(self.buffer.len()));
        self.forget();
    }

    /// Empties the buffer; what was in it has been sent.
    pub fn clear(&mut self) {
        self.remove_front(self.buffer.len());
    }

    /// How many statelets have been merged into others so far.
    pub fn merged(&self) -> u64 {
        self.merged
    }

    /// Nothing that comes is merged with what is there.
    fn forget(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        if self.epoch == 0 {
            // Places of the epoch that comes next may be left from four thousand million epochs ago.
            self.places.fill(Place::default());
            self.epoch = 1;
        }
    }
}

/// A key's place: FNV-1a, folded. An adversary who finds collisions gains nothing but larger segments.
fn place(statelet_type: u16, key: &[u8]) -> usize {
    let hash = statelet_type
        .to_be_bytes()
        .iter()
        .chain(key)
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (hash ^ hash >> 32) as usize % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statelet::{Decoder, Record};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Type 1 adds to a key's sum up to 100, type 2 passes, type 3 clears all sums and is a barrier, type 4 claims a key
    /// that its values need not have.
    struct Sums;

    impl Coalesce for Sums {
        fn coalescing(statelet_type: u16, _value: &[u8]) -> Coalescing {
            match statelet_type {
                1 => Coalescing::Merge { key_len: 1 },
                2 => Coalescing::Pass,
                4 => Coalescing::Merge { key_len: 3 },
                _ => Coalescing::Barrier,
            }
        }

        fn merge(statelet_type: u16, earlier: &mut [u8], later: &[u8]) -> bool {
            if statelet_type == 4 {
                earlier.copy_from_slice(later);
                return true;
            }
            match earlier[1].checked_add(later[1]) {
                Some(sum) if sum <= 100 => earlier[1] = sum,
                _ => return false,
            }
            true
        }
    }

    fn records(bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
        let (mut decoder, mut input, mut found) = (Decoder::new(), bytes, Vec::new());
        while let Some(Record::Statelet { statelet_type, value }) = decoder.decode(&mut input).unwrap() {
            found.push((statelet_type, value.to_vec()));
        }
        found
    }

    fn coalesced(statelets: &[(u16, Vec<u8>)]) -> Vec<(u16, Vec<u8>)> {
        let mut coalescer = Coalescer::new();
        statelets.iter().for_each(|(statelet_type, value)| coalescer.push::<Sums>(*statelet_type, value).unwrap());
        assert_eq!(coalescer.merged() as usize, statelets.len() - records(coalescer.bytes()).len());
        records(coalescer.bytes())
    }

    fn state(statelets: &[(u16, Vec<u8>)]) -> (BTreeMap<u8, u64>, Vec<Vec<u8>>) {
        let (mut sums, mut passed) = (BTreeMap::new(), Vec::new());
        for (statelet_type, value) in statelets {
            match statelet_type {
                1 => *sums.entry(value[0]).or_default() += u64::from(value[1]),
                2 => passed.push(value.clone()),
                3 => sums.clear(),
                _ => {}
            }
        }
        (sums, passed)
    }

    #[test]
    fn merged_statelets_take_the_place_of_the_first() {
        let statelets = [(1, vec![7, 1]), (2, vec![9]), (1, vec![8, 1]), (1, vec![7, 2])];
        assert_eq!(coalesced(&statelets), [(1, vec![7, 3]), (2, vec![9]), (1, vec![8, 1])]);
    }

    #[test]
    fn nothing_is_merged_across_a_barrier() {
        let statelets = [(1, vec![7, 1]), (3, vec![]), (1, vec![7, 2]), (1, vec![7, 4])];
        assert_eq!(coalesced(&statelets), [(1, vec![7, 1]), (3, vec![]), (1, vec![7, 6])]);
    }

    #[test]
    fn what_cannot_be_merged_begins_anew() {
        let statelets = [(1, vec![7, 60]), (1, vec![7, 60]), (1, vec![7, 40])];
        assert_eq!(coalesced(&statelets), [(1, vec![7, 60]), (1, vec![7, 100])]);
    }

    #[test]
    fn nothing_is_merged_with_what_has_been_sent() {
        let mut coalescer = Coalescer::new();
        for _ in 0..2 {
            coalescer.push::<Sums>(1, &[7, 1]).unwrap();
            assert_eq!(records(coalescer.bytes()), [(1, vec![7, 1])]);
            coalescer.clear();
            assert!(coalescer.is_empty());
        }
    }

    #[test]
    fn what_is_left_of_a_statelet_stays_as_it_is() {
        let mut coalescer = Coalescer::new();
        coalescer.push::<Sums>(1, &[7, 1]).unwrap();
        coalescer.push::<Sums>(1, &[8, 1]).unwrap();
        coalescer.remove_front(3);
        coalescer.push::<Sums>(1, &[8, 1]).unwrap();
        assert_eq!(coalescer.bytes(), b"\x02\x07\x01\0\x01\0\x02\x08\x01\0\x01\0\x02\x08\x01");
    }

    #[test]
    fn values_shorter_than_the_key_and_of_different_lengths_stay_apart() {
        let statelets = [(4, vec![1, 2]), (4, vec![1, 2]), (4, vec![1, 2, 3]), (4, vec![1, 2, 3, 4])];
        assert_eq!(coalesced(&statelets), statelets);
    }

    #[test]
    fn too_long_a_value_is_refused() {
        let mut coalescer = Coalescer::new();
        assert_eq!(coalescer.push::<Sums>(2, &[0; 65_536]), Err(EncodeError::TooLong(65_536)));
        assert!(coalescer.is_empty());
    }

    #[test]
    fn places_of_the_first_epoch_are_void_when_it_comes_again() {
        let mut coalescer = Coalescer::new();
        coalescer.push::<Sums>(1, &[7, 1]).unwrap();
        coalescer.epoch = u32::MAX;
        coalescer.push::<Sums>(3, &[]).unwrap();
        assert_eq!(coalescer.epoch, 1);
        coalescer.push::<Sums>(1, &[7, 1]).unwrap();
        assert_eq!(records(coalescer.bytes()).len(), 3);
    }

    proptest! {
        #[test]
        fn the_state_at_the_end_is_the_same(
            statelets in prop::collection::vec(
                prop_oneof![
                    8 => (0u8..200, 0u8..50).prop_map(|(key, add)| (1, vec![key, add])),
                    2 => any::<u8>().prop_map(|value| (2, vec![value])),
                    1 => Just((3, vec![])),
                ],
                0..300,
            ),
        ) {
            prop_assert_eq!(state(&coalesced(&statelets)), state(&statelets));
        }
    }
}

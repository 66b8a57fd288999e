//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624, equation 3).

use core::net::Ipv4Addr;

/// A running ones' complement sum of 16-bit words.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum(u64);

impl Sum {
    /// The empty sum.
    pub const fn new() -> Self {
        Self(0)
    }

    /// The sum over the pseudo-header of UDP and TCP (RFC 768, RFC 9293).
    pub fn pseudo_header(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, length: u16) -> Self {
        let mut sum = Self::new();
        sum.add(&source.octets());
        sum.add(&destination.octets());
        sum.add(&[0, protocol]);
        sum.add(&length.to_be_bytes());
        sum
    }

    /// Adds `bytes`, padded with a zero byte if their number is odd: only the last part of a sum may be odd.
    #[inline(always)]
    pub fn add(&mut self, bytes: &[u8]) {
        // The sum does not depend on byte order, so words are added as they lie in memory and swapped at the end;
        // 32 bits at a time, since the carries into the upper half of the accumulator are folded back in later.
        let (words, rest) = bytes.as_chunks::<4>();
        let mut sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
        let mut last = [0; 4];
        if let Some(tail) = last.get_mut(..rest.len()) {
            tail.copy_from_slice(rest);
        }
        sum += u64::from(u32::from_ne_bytes(last));
        self.0 = fold_once(self.0) + fold_once(sum);
    }

    /// The checksum: the complement of the sum.
    #[inline]
    pub fn finish(self) -> u16 {
        !u16::from_be(fold(self.0))
    }
}

fn fold_once(sum: u64) -> u64 {
    (sum >> 32) + (sum & 0xffff_ffff)
}

#[inline]
fn fold(sum: u64) -> u16 {
    let sum = fold_once(fold_once(sum));
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

/// The Internet checksum of `bytes`. Zero over data that contains its own correct checksum.
#[inline]
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = Sum::new();
    sum.add(bytes);
    sum.finish()
}

/// Changes of 16-bit words that a checksum covers, collected to update one or several checksums.
///
/// RFC 1624, equation 3: HC' = ~(~HC + ~m + m').
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChecksumDelta(u64);

impl ChecksumDelta {
    /// No change.
    pub const fn new() -> Self {
        Self(0)
    }

    /// A word changes from `old` to `new`.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, old: u16, new: u16) -> Self {
        Self(self.0 + !old as u64 + new as u64)
    }

    /// An IPv4 address changes from `old` to `new`.
    #[inline(always)]
    #[must_use]
    pub const fn address(self, old: Ipv4Addr, new: Ipv4Addr) -> Self {
        let (old, new) = (old.to_bits(), new.to_bits());
        self.word((old >> 16) as u16, (new >> 16) as u16).word(old as u16, new as u16)
    }

    /// `checksum` after the changes.
    #[inline(always)]
    pub const fn apply(self, checksum: u16) -> u16 {
        let sum = self.0 + !checksum as u64;
        let sum = (sum >> 32) + (sum & 0xffff_ffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        !(((sum >> 16) + (sum & 0xffff)) as u16)
    }

    /// A UDP checksum after the changes: 0 means that there is none and stays; a computed 0 is sent as 0xffff.
    ///
    /// Source: RFC 768; RFC 3022 §4.1.
    #[inline(always)]
    pub const fn apply_udp(self, checksum: u16) -> u16 {
        if checksum == 0 {
            return 0;
        }
        match self.apply(checksum) {
            0 => 0xffff,
            checksum => checksum,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071's definition, word by word.
    fn reference(bytes: &[u8]) -> u16 {
        let words = bytes.chunks(2).map(|word| u64::from(word[0]) << 8 | u64::from(*word.get(1).unwrap_or(&0)));
        let mut sum: u64 = words.sum();
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        !(sum as u16)
    }

    #[test]
    fn example_of_rfc_1071() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn example_of_rfc_1624() {
        // §4: the word 0x5555 becomes 0x3285; equation 3 gives 0x0000 where equation 2 gave 0xffff.
        assert_eq!(ChecksumDelta::new().word(0x5555, 0x3285).apply(0xdd2f), 0x0000);
    }

    #[test]
    fn udp_without_checksum_stays_without() {
        assert_eq!(ChecksumDelta::new().word(1, 2).apply_udp(0), 0);
    }

    #[test]
    fn udp_checksum_of_zero_is_sent_as_ones() {
        assert_eq!(ChecksumDelta::new().word(0x5555, 0x3285).apply_udp(0xdd2f), 0xffff);
    }

    proptest! {
        #[test]
        fn sum_equals_definition(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(checksum(&bytes), reference(&bytes));
        }

        #[test]
        fn sum_of_parts_equals_sum_of_whole(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..100
        ) {
            let cut = (2 * cut).min(bytes.len() & !1);
            let mut sum = Sum::new();
            sum.add(&bytes[..cut]);
            sum.add(&bytes[cut..]);
            prop_assert_eq!(sum.finish(), reference(&bytes));
        }

        #[test]
        fn incremental_update_equals_recomputation(
            mut words in proptest::collection::vec(any::<u16>(), 2..50),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u16>()), 0..30),
        ) {
            // A word that is never zero stands for the fields, such as IPv4's version, that keep real sums from being
            // all zero: there alone, ones' complement has two representations of the sum.
            words[0] = 0x4500;
            let bytes = |words: &[u16]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<alloc::vec::Vec<_>>();
            let before = reference(&bytes(&words));
            let mut delta = ChecksumDelta::new();
            for (index, new) in changes {
                let index = 1 + index.index(words.len() - 1);
                delta = delta.word(words[index], new);
                words[index] = new;
            }
            prop_assert_eq!(delta.apply(before), reference(&bytes(&words)));
        }

        #[test]
        fn address_change_equals_its_words(old: u32, new: u32, checksum: u16) {
            let delta = ChecksumDelta::new().address(old.into(), new.into());
            let words = ChecksumDelta::new().word((old >> 16) as u16, (new >> 16) as u16).word(old as u16, new as u16);
            prop_assert_eq!(delta.apply(checksum), words.apply(checksum));
        }
    }
}

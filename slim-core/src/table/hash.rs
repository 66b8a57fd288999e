//! Hashes over the fields of keys and values: a cheap keyed one for places in a table, SipHash for everything else.
//!
//! Tables are keyed with a random seed, so that nobody outside can choose packets that collide. Digests, and the key
//! that follows from a seed, are made by SipHash-1-3, over the fields' bytes in little endian without padding; only
//! its front end is our own: fields arrive as integers of known width, which the compiler packs into words without a
//! byte buffer.

use super::pod::{FieldSink, Pod};

/// Packs fields into words, in little endian.
#[derive(Debug, Clone)]
struct Words {
    /// What does not fill a word yet.
    tail: u64,
    /// The bytes of that, at most 7.
    bytes: u32,
}

impl Words {
    const EMPTY: Self = Self { tail: 0, bytes: 0 };

    /// Adds a field; the word that it has filled, if it has.
    #[inline(always)]
    fn put(&mut self, value: u64, bytes: u32) -> Option<u64> {
        self.tail |= value << (8 * self.bytes);
        let filled = self.bytes + bytes;
        if filled < 8 {
            self.bytes = filled;
            return None;
        }
        let word = self.tail;
        self.bytes = filled - 8;
        // What did not fit into the word: the value without the bytes that did.
        self.tail = if filled == 8 { 0 } else { value >> (8 * (bytes - self.bytes)) };
        Some(word)
    }
}

/// A running SipHash-1-3 (64 bits) or SipHash-1-3-128.
#[derive(Debug, Clone)]
pub(crate) struct FieldHasher {
    v: [u64; 4],
    words: Words,
    total_bytes: u64,
}

impl FieldHasher {
    #[inline(always)]
    fn new(k0: u64, k1: u64) -> Self {
        Self {
            v: [
                k0 ^ 0x736f_6d65_7073_6575,
                k1 ^ 0x646f_7261_6e64_6f6d,
                k0 ^ 0x6c79_6765_6e65_7261,
                k1 ^ 0x7465_6462_7974_6573,
            ],
            words: Words::EMPTY,
            total_bytes: 0,
        }
    }

    #[inline(always)]
    fn new_128(k0: u64, k1: u64) -> Self {
        let mut hasher = Self::new(k0, k1);
        hasher.v[1] ^= 0xee;
        hasher
    }

    #[inline(always)]
    fn round(&mut self) {
        let [v0, v1, v2, v3] = &mut self.v;
        *v0 = v0.wrapping_add(*v1);
        *v2 = v2.wrapping_add(*v3);
        *v1 = v1.rotate_left(13) ^ *v0;
        *v3 = v3.rotate_left(16) ^ *v2;
        *v0 = v0.rotate_left(32);
        *v2 = v2.wrapping_add(*v1);
        *v0 = v0.wrapping_add(*v3);
        *v1 = v1.rotate_left(17) ^ *v2;
        *v3 = v3.rotate_left(21) ^ *v0;
        *v2 = v2.rotate_left(32);
    }

    #[inline(always)]
    fn compress(&mut self, word: u64) {
        self.v[3] ^= word;
        self.round();
        self.v[0] ^= word;
    }

    #[inline(always)]
    fn end_of_input(&mut self) {
        self.compress((self.total_bytes << 56) | self.words.tail);
    }

    #[inline(always)]
    fn output(&mut self) -> u64 {
        for _ in 0..3 {
            self.round();
        }
        self.v[0] ^ self.v[1] ^ self.v[2] ^ self.v[3]
    }

    #[inline(always)]
    fn finish(mut self) -> u64 {
        self.end_of_input();
        self.v[2] ^= 0xff;
        self.output()
    }

    fn finish_128(mut self) -> u128 {
        self.end_of_input();
        self.v[2] ^= 0xee;
        let low = self.output();
        self.v[1] ^= 0xdd;
        let high = self.output();
        (u128::from(high) << 64) | u128::from(low)
    }
}

impl FieldSink for FieldHasher {
    #[inline(always)]
    fn put(&mut self, value: u64, bytes: u32) {
        self.total_bytes = self.total_bytes.wrapping_add(u64::from(bytes));
        if let Some(word) = self.words.put(value, bytes) {
            self.compress(word);
        }
    }
}

/// The key of a table's hash function, expanded from the seed that travels with the table.
///
/// Places in a table need a hash that is cheap for a dozen bytes and that nobody can predict who does not know the
/// key, but no pseudo-random function: what comes out is not told to anybody. Each word of the fields is mixed in by a
/// multiplication of 64 by 64 bits whose halves are combined, as in wyhash and its kind, here with 192 secret bits
/// and none that are public. Whoever does not see hashes can do no better than to try; and if somebody found keys that
/// collide, a look-up would compare at most the tags of the 64 groups of a segment, and the segment would refuse more
/// than its 512 entries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HashKey {
    initial: u64,
    multiplier: u64,
    last: u64,
}

impl HashKey {
    /// The key that follows from `seed`, by SipHash.
    pub(crate) fn new(seed: u64) -> Self {
        let derive = |n: u64| {
            let mut hasher = FieldHasher::new(seed, seed.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15);
            n.write(&mut hasher);
            hasher.finish()
        };
        Self { initial: derive(0), multiplier: derive(1) | 1, last: derive(2) | 1 }
    }

    /// The keyed hash of `key`, for its place in a table.
    #[inline(always)]
    pub(crate) fn hash<K: Pod>(&self, key: &K) -> u64 {
        let mut mixer = Mixer { state: self.initial, multiplier: self.multiplier, words: Words::EMPTY };
        key.write(&mut mixer);
        let state = if mixer.words.bytes > 0 { mixer.mixed(mixer.words.tail) } else { mixer.state };
        fold(state, self.last)
    }
}

/// The product, with its halves combined.
#[inline(always)]
fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    (product >> 64) as u64 ^ product as u64
}

/// A running [`HashKey::hash`].
struct Mixer {
    state: u64,
    multiplier: u64,
    words: Words,
}

impl Mixer {
    #[inline(always)]
    fn mixed(&self, word: u64) -> u64 {
        fold(self.state ^ word, self.multiplier)
    }
}

impl FieldSink for Mixer {
    #[inline(always)]
    fn put(&mut self, value: u64, bytes: u32) {
        if let Some(word) = self.words.put(value, bytes) {
            self.state = self.mixed(word);
        }
    }
}

/// Accumulates the digest of a state item: equal for equal entries, whatever their order, seed and layout.
///
/// The digest is the sum of a 128-bit hash of each entry, finished together with the item's name and entry count.
/// Its key is public: it finds mistakes, not forgeries.
#[derive(Debug, Clone, Default)]
pub(crate) struct Digest {
    sum: u128,
    entries: u64,
}

impl Digest {
    const KEY: (u64, u64) = (0x5349_694d_2073_7461, 0x7465_2064_6967_6573);

    /// Adds one entry.
    pub(crate) fn add<K: Pod, V: Pod>(&mut self, key: &K, value: &V) {
        let mut hasher = FieldHasher::new_128(Self::KEY.0, Self::KEY.1);
        key.write(&mut hasher);
        value.write(&mut hasher);
        self.sum = self.sum.wrapping_add(hasher.finish_128());
        self.entries += 1;
    }

    /// The digest of the item `name` with these entries.
    pub(crate) fn finish(&self, name: &str) -> u128 {
        let mut hasher = FieldHasher::new_128(Self::KEY.1, Self::KEY.0);
        self.entries.write(&mut hasher);
        hash_u128(&mut hasher, self.sum);
        hash_bytes(&mut hasher, name.as_bytes());
        hasher.finish_128()
    }
}

/// Combines the digests of several items, in their order, into one.
pub(crate) fn combine_digests(digests: impl Iterator<Item = u128>) -> u128 {
    let mut hasher = FieldHasher::new_128(Digest::KEY.1, !Digest::KEY.0);
    for digest in digests {
        hash_u128(&mut hasher, digest);
    }
    hasher.finish_128()
}

fn hash_u128(hasher: &mut FieldHasher, number: u128) {
    (number as u64).write(hasher);
    ((number >> 64) as u64).write(hasher);
}

fn hash_bytes(hasher: &mut FieldHasher, bytes: &[u8]) {
    for byte in bytes {
        byte.write(hasher);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::hash::Hasher as _;
    use proptest::prelude::*;
    use siphasher::sip::SipHasher13;
    use siphasher::sip128::{Hasher128 as _, SipHasher13 as SipHasher13Wide};

    proptest! {
        #[test]
        fn fields_of_any_width_hash_like_their_bytes(
            k0: u64, k1: u64, fields in proptest::collection::vec((any::<u64>(), 1u32..=8), 0..20)
        ) {
            let mut narrow = FieldHasher::new(k0, k1);
            let mut wide = FieldHasher::new_128(k0, k1);
            let mut bytes = alloc::vec::Vec::new();
            for (value, width) in fields {
                let value = value >> (64 - 8 * width);
                narrow.put(value, width);
                wide.put(value, width);
                bytes.extend_from_slice(&value.to_le_bytes()[..width as usize]);
            }
            let mut reference = SipHasher13::new_with_keys(k0, k1);
            reference.write(&bytes);
            prop_assert_eq!(narrow.finish(), reference.finish());
            let mut reference = SipHasher13Wide::new_with_keys(k0, k1);
            reference.write(&bytes);
            prop_assert_eq!(wide.finish_128(), reference.finish128().as_u128());
        }

        #[test]
        fn digest_ignores_order(entries in proptest::collection::vec((any::<u32>(), any::<u16>()), 0..20)) {
            let (mut forward, mut backward) = (Digest::default(), Digest::default());
            entries.iter().for_each(|(key, value)| forward.add(key, value));
            entries.iter().rev().for_each(|(key, value)| backward.add(key, value));
            prop_assert_eq!(forward.finish("t"), backward.finish("t"));
            prop_assert_ne!(forward.finish("t"), backward.finish("u"));
        }
    }

    proptest! {
        /// What an attacker controls are differences between keys: none may show in the part of the hash that places use.
        #[test]
        fn keys_that_differ_a_little_are_spread(seed: u64, base: u64, low_bit in 0u32..52) {
            let key = HashKey::new(seed);
            let mut groups = [0u32; 64];
            let mut segments = [0u32; 64];
            for i in 0..4096u64 {
                let hash = key.hash(&[base.wrapping_add(i << low_bit), !base]);
                groups[hash as usize % 64] += 1;
                segments[(hash >> 58) as usize] += 1;
            }
            // 64 in the mean; a Poisson variable is above 128 once in 10^12 times.
            prop_assert!(groups.iter().chain(&segments).all(|&count| count < 128), "{groups:?} {segments:?}");
        }
    }

    #[test]
    fn every_bit_of_key_and_seed_changes_about_half_of_the_hash() {
        let flips = |hashes: &dyn Fn(u32) -> u64| -> f64 {
            (0..104).map(|bit| (hashes(bit) ^ hashes(104)).count_ones()).sum::<u32>() as f64 / 104.0
        };
        let key_with = |bit: u32| -> [u8; 13] {
            core::array::from_fn(|at| if bit as usize / 8 == at { 0x35 ^ 1 << (bit % 8) } else { 0x35 })
        };
        let by_key = flips(&|bit| HashKey::new(42).hash(&key_with(bit)));
        let by_seed = flips(&|bit| HashKey::new(42 ^ if bit < 64 { 1 << bit } else { 0 }).hash(&key_with(104)));
        assert!((30.0..34.0).contains(&by_key), "{by_key}");
        // 64 of the 104 change the seed.
        assert!((17.0..22.0).contains(&by_seed), "{by_seed}");
    }

    #[test]
    fn digest_tells_entries_apart() {
        let digest = |entries: &[(u32, u32)]| {
            let mut digest = Digest::default();
            entries.iter().for_each(|(key, value)| digest.add(key, value));
            digest.finish("t")
        };
        assert_ne!(digest(&[]), digest(&[(0, 0)]));
        assert_ne!(digest(&[(1, 2)]), digest(&[(2, 1)]));
        assert_ne!(digest(&[(1, 2), (3, 4)]), digest(&[(1, 4), (3, 2)]));
    }
}

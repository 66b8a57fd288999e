//! The memory of a [`GenerationTable`](super::GenerationTable): entries as atomic words.
//!
//! ```text
//! entry   key  ┊ generation of a ┊ generation of b ┊ a ┊ b        each a whole number of 64-bit words
//! ```
//!
//! A generation's lowest bit says whether the value is there or null; the rest is the number, 0 for "never written".
//! One writer and any number of readers use a chunk at a time: the writer stores a value's words before its generation
//! (release), a reader loads the generation first (acquire) and reads no value newer than its snapshot.

use super::rule::{Generations, Side};
use crate::table::pod::{FieldSink, FieldSource, Pod};
use alloc::boxed::Box;
use core::marker::PhantomData;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Entries of a chunk.
pub(super) const CHUNK_ENTRIES: usize = 512;

pub(super) struct Chunk<K, V> {
    words: Box<[AtomicU64]>,
    entry: PhantomData<fn() -> (K, V)>,
}

impl<K: Pod, V: Pod> Chunk<K, V> {
    const KEY_WORDS: usize = K::SIZE_BYTES.div_ceil(8);
    const VALUE_WORDS: usize = V::SIZE_BYTES.div_ceil(8);
    const ENTRY_WORDS: usize = Self::KEY_WORDS + 2 + 2 * Self::VALUE_WORDS;

    pub(super) fn new() -> Self {
        let words = (0..CHUNK_ENTRIES * Self::ENTRY_WORDS).map(|_| AtomicU64::new(0)).collect();
        Self { words, entry: PhantomData }
    }

    /// A copy that nobody writes to.
    pub(super) fn copy(&self) -> Self {
        let words = self.words.iter().map(|word| AtomicU64::new(word.load(Relaxed))).collect();
        Self { words, entry: PhantomData }
    }

    fn words(&self, entry: usize, first: usize, count: usize) -> &[AtomicU64] {
        let begin = entry * Self::ENTRY_WORDS + first;
        self.words.get(begin..begin + count).unwrap_or_default()
    }

    fn generation_word(&self, entry: usize, side: Side) -> Option<&AtomicU64> {
        self.words(entry, Self::KEY_WORDS + side as usize, 1).first()
    }

    fn value_words(&self, entry: usize, side: Side) -> &[AtomicU64] {
        self.words(entry, Self::KEY_WORDS + 2 + side as usize * Self::VALUE_WORDS, Self::VALUE_WORDS)
    }

    fn tagged_generation(&self, entry: usize, side: Side) -> u64 {
        self.generation_word(entry, side).map_or(0, |word| word.load(Acquire))
    }

    pub(super) fn generations(&self, entry: usize) -> Generations {
        let number = |side| self.tagged_generation(entry, side) >> 1;
        Generations { a: number(Side::A), b: number(Side::B) }
    }

    /// The key; only of an entry of which a value is visible to the caller.
    pub(super) fn key(&self, entry: usize) -> K {
        K::read(&mut WordSource::new(self.words(entry, 0, Self::KEY_WORDS)))
    }

    /// A value, or `None` if it is null.
    pub(super) fn value(&self, entry: usize, side: Side) -> Option<V> {
        let present = self.tagged_generation(entry, side) & 1 != 0;
        present.then(|| V::read(&mut WordSource::new(self.value_words(entry, side))))
    }

    /// The current value. For the writer.
    pub(super) fn live(&self, entry: usize) -> Option<V> {
        self.value(entry, self.generations(entry).newest())
    }

    /// The value that a snapshot of generation `t` sees.
    pub(super) fn frozen(&self, entry: usize, t: u64) -> Option<V> {
        self.value(entry, self.generations(entry).newest_until(t)?)
    }

    /// Writes the key of a free entry. For the writer.
    pub(super) fn set_key(&self, entry: usize, key: &K) {
        let mut sink = WordSink::new(self.words(entry, 0, Self::KEY_WORDS));
        key.write(&mut sink);
        sink.flush();
    }

    /// Writes a value or null in generation `m`. For the writer.
    pub(super) fn put(&self, entry: usize, value: Option<&V>, m: u64) {
        let side = self.generations(entry).to_write(m);
        if let Some(value) = value {
            let mut sink = WordSink::new(self.value_words(entry, side));
            value.write(&mut sink);
            sink.flush();
        }
        if let Some(word) = self.generation_word(entry, side) {
            word.store(m << 1 | u64::from(value.is_some()), Release);
        }
    }

    /// Frees an entry of which no snapshot sees a value. For the writer.
    pub(super) fn clear(&self, entry: usize) {
        self.words(entry, 0, Self::ENTRY_WORDS).iter().for_each(|word| word.store(0, Release));
    }
}

/// Packs fields into words.
struct WordSink<'a> {
    words: core::slice::Iter<'a, AtomicU64>,
    word: u64,
    filled_bytes: u32,
}

impl<'a> WordSink<'a> {
    fn new(words: &'a [AtomicU64]) -> Self {
        Self { words: words.iter(), word: 0, filled_bytes: 0 }
    }

    fn store(&mut self) {
        if let Some(word) = self.words.next() {
            word.store(self.word, Relaxed);
        }
    }

    /// Stores the last word if it is not complete.
    fn flush(mut self) {
        if self.filled_bytes > 0 {
            self.store();
        }
    }
}

impl FieldSink for WordSink<'_> {
    #[inline(always)]
    fn put(&mut self, value: u64, bytes: u32) {
        self.word |= value << (8 * self.filled_bytes);
        let filled = self.filled_bytes + bytes;
        if filled < 8 {
            self.filled_bytes = filled;
            return;
        }
        self.store();
        self.filled_bytes = filled - 8;
        self.word = if filled == 8 { 0 } else { value >> (8 * (bytes - self.filled_bytes)) };
    }
}

/// Gives fields back that were packed into words.
struct WordSource<'a> {
    words: core::slice::Iter<'a, AtomicU64>,
    word: u64,
    left_bytes: u32,
}

impl<'a> WordSource<'a> {
    fn new(words: &'a [AtomicU64]) -> Self {
        Self { words: words.iter(), word: 0, left_bytes: 0 }
    }
}

impl FieldSource for WordSource<'_> {
    #[inline(always)]
    fn take(&mut self, bytes: u32) -> u64 {
        let mut value = self.word;
        if self.left_bytes < bytes {
            let next = self.words.next().map_or(0, |word| word.load(Relaxed));
            value |= next << (8 * self.left_bytes);
            let used = bytes - self.left_bytes;
            self.word = if used == 8 { 0 } else { next >> (8 * used) };
            self.left_bytes = 8 - used;
        } else {
            self.word = if bytes == 8 { 0 } else { self.word >> (8 * bytes) };
            self.left_bytes -= bytes;
        }
        if bytes == 8 { value } else { value & !(u64::MAX << (8 * bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fields_of_any_width_are_given_back(fields in proptest::collection::vec((any::<u64>(), 1u32..=8), 0..20)) {
            let fields: alloc::vec::Vec<_> =
                fields.into_iter().map(|(value, bytes)| (value >> (64 - 8 * bytes), bytes)).collect();
            let words: alloc::vec::Vec<_> = (0..20).map(|_| AtomicU64::new(0xdead)).collect();
            let mut sink = WordSink::new(&words);
            fields.iter().for_each(|(value, bytes)| sink.put(*value, *bytes));
            sink.flush();
            let mut source = WordSource::new(&words);
            for (value, bytes) in fields {
                prop_assert_eq!(source.take(bytes), value);
            }
        }
    }

    #[test]
    fn entries_do_not_overlap() {
        type Pair = Chunk<[u8; 5], [u16; 7]>;
        let chunk = Pair::new();
        for entry in 0..CHUNK_ENTRIES {
            chunk.set_key(entry, &[entry as u8; 5]);
            chunk.put(entry, Some(&[entry as u16; 7]), 1);
            chunk.put(entry, Some(&[!entry as u16; 7]), 2);
        }
        for entry in 0..CHUNK_ENTRIES {
            assert_eq!(chunk.key(entry), [entry as u8; 5]);
            assert_eq!(chunk.frozen(entry, 1), Some([entry as u16; 7]));
            assert_eq!(chunk.live(entry), Some([!entry as u16; 7]));
        }
        chunk.clear(3);
        assert_eq!((chunk.live(3), chunk.frozen(3, 9)), (None, None));
        assert_eq!(chunk.live(2), Some([!2; 7]));
        assert_eq!(chunk.live(4), Some([!4; 7]));
    }
}

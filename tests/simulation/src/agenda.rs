//! What will happen in virtual time, earliest first; at the same time, in the order it was entered.

use slim_core::time::Instant;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::BinaryHeap;

/// Future happenings of type `T`.
#[derive(Debug)]
pub struct Agenda<T> {
    order: BinaryHeap<Reverse<(Instant, u64)>>,
    entries: BTreeMap<u64, T>,
    next_entry: u64,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self { order: BinaryHeap::new(), entries: BTreeMap::new(), next_entry: 0 }
    }
}

impl<T> Agenda<T> {
    /// Enters what will happen at `at`.
    pub fn enter(&mut self, at: Instant, happening: T) {
        self.order.push(Reverse((at, self.next_entry)));
        self.entries.insert(self.next_entry, happening);
        self.next_entry += 1;
    }

    /// When the earliest happens.
    pub fn next_at(&self) -> Option<Instant> {
        self.order.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes the earliest.
    pub fn take(&mut self) -> Option<(Instant, T)> {
        let Reverse((at, entry)) = self.order.pop()?;
        self.entries.remove(&entry).map(|happening| (at, happening))
    }
}

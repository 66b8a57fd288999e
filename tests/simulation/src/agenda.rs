//! What will happen in virtual time, earliest first; at the same time, in the order it was entered.

use slim_core::time::Instant;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Future happenings of type `T`.
#[derive(Debug)]
pub struct Agenda<T> {
    entries: BinaryHeap<Entry<T>>,
    entered: u64,
}

#[derive(Debug)]
struct Entry<T> {
    at: Instant,
    number: u64,
    happening: T,
}

impl<T> Ord for Entry<T> {
    /// The heap yields the greatest first: that is the earliest here.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<T> Eq for Entry<T> {}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self { entries: BinaryHeap::new(), entered: 0 }
    }
}

impl<T> Agenda<T> {
    /// Enters what will happen at `at`.
    pub fn enter(&mut self, at: Instant, happening: T) {
        self.entries.push(Entry { at, number: self.entered, happening });
        self.entered += 1;
    }

    /// When the earliest happens.
    pub fn next_at(&self) -> Option<Instant> {
        self.entries.peek().map(|entry| entry.at)
    }

    /// Takes the earliest.
    pub fn take(&mut self) -> Option<(Instant, T)> {
        self.entries.pop().map(|entry| (entry.at, entry.happening))
    }
}

//! Which of an entry's two values is written, which is current, and which one a snapshot sees.
//!
//! Every value has the generation it was written in; 0 where nothing was ever written. The table has a generation `t`,
//! and writes with `m`: `t` itself, or `t + 1` while frozen. A snapshot sees the newest value not newer than `t`.
//!
//! §VI-B writes the older value, `b` if both are of the same age. That is wrong in two ways:
//!
//! 1. Two writes before the freeze make both values equally old. One more during it overwrites `b`, the newer.
//! 2. Two writes during the freeze: the second overwrites the older value, which is the one the snapshot needs.
//!
//! Corrected: a value of generation `m` is overwritten if there is one, otherwise the older. Then the two generations
//! never tie, and at most one value is newer than `t`.

/// One of an entry's two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    A,
    B,
}

/// The generations of an entry's two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Generations {
    pub(super) a: u64,
    pub(super) b: u64,
}

impl Generations {
    pub(super) const fn of(self, side: Side) -> u64 {
        match side {
            Side::A => self.a,
            Side::B => self.b,
        }
    }

    /// The value to write in generation `m`.
    pub(super) const fn to_write(self, m: u64) -> Side {
        if self.a == m || (self.b != m && self.a < self.b) { Side::A } else { Side::B }
    }

    /// The current value.
    pub(super) const fn newest(self) -> Side {
        if self.a > self.b { Side::A } else { Side::B }
    }

    /// The value that a snapshot of generation `t` sees, if there was one at all.
    pub(super) const fn newest_until(self, t: u64) -> Option<Side> {
        let side = match (self.a <= t, self.b <= t) {
            (true, true) => self.newest(),
            (true, false) => Side::A,
            (false, true) => Side::B,
            (false, false) => return None,
        };
        if self.of(side) == 0 { None } else { Some(side) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which value to write, given the entry's generations and m.
    type Rule = fn(Generations, u64) -> Side;

    /// One entry under a given rule, as §VI-B describes table and entry.
    struct Entry {
        rule: Rule,
        generations: Generations,
        values: [Option<u32>; 2],
        t: u64,
        frozen: bool,
    }

    impl Entry {
        fn new(rule: Rule) -> Self {
            Self { rule, generations: Generations::default(), values: [None; 2], t: 1, frozen: false }
        }

        fn put(&mut self, value: Option<u32>) {
            let m = self.t + u64::from(self.frozen);
            let side = (self.rule)(self.generations, m);
            self.values[side as usize] = value;
            match side {
                Side::A => self.generations.a = m,
                Side::B => self.generations.b = m,
            }
        }

        fn freeze(&mut self) {
            self.frozen = true;
        }

        fn unfreeze(&mut self) {
            self.frozen = false;
            self.t += 1;
        }

        fn live(&self) -> Option<u32> {
            self.values[self.generations.newest() as usize]
        }

        fn frozen(&self) -> Option<u32> {
            self.generations.newest_until(self.t).and_then(|side| self.values[side as usize])
        }
    }

    /// The rule as §VI-B prints it. A new entry's value goes to a.
    fn printed(generations: Generations, _m: u64) -> Side {
        let new = generations == Generations::default();
        if new || generations.a < generations.b { Side::A } else { Side::B }
    }

    const RULES: [(&str, Rule, bool); 2] = [("corrected", Generations::to_write, true), ("printed", printed, false)];

    #[test]
    fn write_after_equal_generations_keeps_frozen_value() {
        for (name, rule, right) in RULES {
            let mut entry = Entry::new(rule);
            entry.put(Some(0));
            entry.put(Some(1));
            entry.freeze();
            entry.put(Some(2));
            assert_eq!(entry.frozen() == Some(1), right, "{name}: {:?}", entry.frozen());
        }
    }

    #[test]
    fn second_write_while_frozen_keeps_frozen_value() {
        for (name, rule, right) in RULES {
            let mut entry = Entry::new(rule);
            entry.put(Some(0));
            entry.freeze();
            entry.put(Some(1));
            entry.put(Some(2));
            assert_eq!(entry.frozen() == Some(0), right, "{name}: {:?}", entry.frozen());
        }
    }

    /// Every sequence of 10 writes, deletions, freezes and unfreezes.
    #[test]
    fn every_short_history_is_isolated() {
        const STEPS: u32 = 10;
        for history in 0..3u32.pow(STEPS) {
            let mut entry = Entry::new(Generations::to_write);
            let (mut live, mut frozen) = (None, None);
            for step in 0..STEPS {
                match history / 3u32.pow(step) % 3 {
                    0 => {
                        live = Some(step);
                        entry.put(live);
                    }
                    1 => {
                        live = None;
                        entry.put(live);
                    }
                    _ if entry.frozen => entry.unfreeze(),
                    _ => {
                        frozen = live;
                        entry.freeze();
                    }
                }
                assert_eq!(entry.live(), live, "history {history}");
                if entry.frozen {
                    assert_eq!(entry.frozen(), frozen, "history {history}");
                }
                let Generations { a, b } = entry.generations;
                assert!(a != b || a == 0, "generations tie in history {history}");
                assert!(a <= entry.t || b <= entry.t, "both values are newer than the freeze in history {history}");
            }
        }
    }
}

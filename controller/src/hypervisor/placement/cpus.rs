//! Sets of a host's CPUs, written as Linux writes them.

use nix::sched::CpuSet;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Some CPUs of the host, such as `2-5,8`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuList(BTreeSet<usize>);

/// The text does not name CPUs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} does not name CPUs: write their numbers and ranges, such as 2-5,8 (the first CPU is 0)")]
pub struct InvalidCpus(String);

impl CpuList {
    /// Those in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().copied()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `cpu` is one of them.
    pub fn contains(&self, cpu: usize) -> bool {
        self.0.contains(&cpu)
    }

    /// Whether all of them are in `other`.
    pub fn is_in(&self, other: &Self) -> bool {
        self.0.is_subset(&other.0)
    }

    /// Those for which `keep` holds.
    pub fn filter(&self, keep: impl Fn(usize) -> bool) -> Self {
        self.iter().filter(|&cpu| keep(cpu)).collect()
    }

    /// As the kernel wants it; `None` where a number is beyond what it can have.
    pub(in crate::hypervisor) fn set(&self) -> Option<CpuSet> {
        let mut set = CpuSet::new();
        self.iter().try_for_each(|cpu| set.set(cpu)).ok()?;
        Some(set)
    }
}

impl FromIterator<usize> for CpuList {
    fn from_iter<I: IntoIterator<Item = usize>>(cpus: I) -> Self {
        Self(cpus.into_iter().collect())
    }
}

impl FromStr for CpuList {
    type Err = InvalidCpus;

    fn from_str(text: &str) -> Result<Self, InvalidCpus> {
        let number = |text: &str| {
            let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|&cpu| plain && cpu < CpuSet::count())
        };
        let range = |part: &str| match part.split_once('-') {
            Some((first, last)) => Some(number(first)?..=number(last)?).filter(|range| !range.is_empty()),
            None => number(part).map(|cpu| cpu..=cpu),
        };
        let ranges: Option<Vec<_>> = text.trim().split(',').map(range).collect();
        Ok(ranges.ok_or_else(|| InvalidCpus(text.to_owned()))?.into_iter().flatten().collect())
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.iter().peekable();
        let mut comma = "";
        while let Some(first) = rest.next() {
            let mut last = first;
            while let Some(next) = rest.next_if(|&next| next == last + 1) {
                last = next;
            }
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
            comma = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written_as_the_kernel_does() {
        let parse = |text: &str| text.parse::<CpuList>().unwrap();
        assert_eq!(parse("0-3,8\n").iter().collect::<Vec<_>>(), [0, 1, 2, 3, 8]);
        for text in ["0", "0-3", "2-3,8", "0,2,4-5"] {
            assert_eq!(parse(text).to_string(), text);
        }
        assert_eq!(parse("3,2,1").to_string(), "1-3");
        for wrong in ["", "a", "1-", "-1", "3-1", "1,,2", "+1", "0-99999999999", "1024"] {
            assert!(wrong.parse::<CpuList>().is_err(), "{wrong:?}");
        }
    }
}

//! Names and numbers that more than one message uses, each bounded and of a type of its own.

use alloc::string::{String, ToString};
use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The text is not what its type demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidText {
    /// A name is empty, longer than [`Name::LEN_MAX`] bytes, or has a character other than `a-z A-Z 0-9 . _ -`.
    #[error("a name is 1 to 64 characters of a-z, A-Z, 0-9, '.', '_' and '-'")]
    Name,
    /// A number is not written as the expected count of hexadecimal digits.
    #[error("expected {0} hexadecimal digits")]
    Hex(usize),
}

macro_rules! hex_number {
    ($(#[$meta:meta])* $name:ident($inner:ty), $digits:literal) => {
        $(#[$meta])*
        ///
        /// Written as hexadecimal digits with leading zeros, in JSON too: 64-bit numbers do not survive other
        /// languages' JSON readers.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{:0", $digits, "x}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = InvalidText;

            fn from_str(text: &str) -> Result<Self, InvalidText> {
                if text.len() != $digits || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return Err(InvalidText::Hex($digits));
                }
                <$inner>::from_str_radix(text, 16).map(Self).map_err(|_| InvalidText::Hex($digits))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = alloc::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_number! {
    /// One attempt to migrate, chosen at random by the controller; never used twice.
    MigrationId(u64), 16
}

hex_number! {
    /// [`NetworkFunction::SCHEMA`](crate::nf::NetworkFunction::SCHEMA): what both ends compare first.
    Schema(u64), 16
}

hex_number! {
    /// One stage of redirecting within a migration, so that drain packets of an earlier stage do not count.
    Nonce(u32), 8
}

hex_number! {
    /// A digest of a network function's whole state, equal for equal states.
    Digest(u128), 32
}

impl Digest {
    /// The digest of two shards' states together; the order does not matter.
    pub fn combine(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }
}

/// The name of an instance, a port or a kind: 1 to 64 characters of `a-z A-Z 0-9 . _ -`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The longest name, in bytes.
    pub const LEN_MAX: usize = 64;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidText;

    fn try_from(text: String) -> Result<Self, InvalidText> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if text.is_empty() || text.len() > Self::LEN_MAX || !text.bytes().all(allowed) {
            return Err(InvalidText::Name);
        }
        Ok(Self(text))
    }
}

impl TryFrom<&str> for Name {
    type Error = InvalidText;

    fn try_from(text: &str) -> Result<Self, InvalidText> {
        text.to_string().try_into()
    }
}

impl FromStr for Name {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        text.try_into()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Words for people: an error's detail, a reason. Cut to [`Text::LEN_MAX`] bytes wherever it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Text(String);

impl Text {
    /// The longest text kept, in bytes.
    pub const LEN_MAX: usize = 1024;

    /// The words.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Text {
    fn from(mut text: String) -> Self {
        if text.len() > Self::LEN_MAX {
            let end = (0..=Self::LEN_MAX).rev().find(|&index| text.is_char_boundary(index)).unwrap_or(0);
            text.truncate(end);
        }
        Self(text)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        text.to_string().into()
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A path that is drained: the n-th ingress path (and receive queue) of an instance, counted from 0.
///
/// With one receive queue per port this is the number of the instance's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct PathIndex(u8);

impl PathIndex {
    /// The most paths of one instance.
    pub const COUNT: u8 = 64;

    /// The path numbered `index`, if there can be one.
    pub const fn new(index: u8) -> Option<Self> {
        if index < Self::COUNT { Some(Self(index)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for PathIndex {
    type Error = &'static str;

    fn try_from(index: u8) -> Result<Self, &'static str> {
        Self::new(index).ok_or("a path index is below 64")
    }
}

impl From<PathIndex> for u8 {
    fn from(path: PathIndex) -> Self {
        path.0
    }
}

/// A set of [paths](PathIndex), as a bitmap: bit n stands for path n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "alloc::vec::Vec<PathIndex>", into = "alloc::vec::Vec<PathIndex>")]
pub struct PathSet(pub u64);

impl PathSet {
    /// No path.
    pub const EMPTY: Self = Self(0);

    /// The paths 0 to `count` − 1.
    pub const fn first(count: u8) -> Self {
        if count >= PathIndex::COUNT { Self(u64::MAX) } else { Self((1 << count) - 1) }
    }

    /// Adds `path`; says whether it is new.
    pub fn insert(&mut self, path: PathIndex) -> bool {
        let before = self.0;
        self.0 |= 1 << path.0;
        self.0 != before
    }

    /// Whether `path` is in the set.
    pub const fn contains(self, path: PathIndex) -> bool {
        self.0 & (1 << path.0) != 0
    }

    /// Whether every path of `other` is in this set.
    pub const fn covers(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The number of paths.
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether there is no path.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The paths, in rising order.
    pub fn iter(self) -> impl Iterator<Item = PathIndex> {
        (0..PathIndex::COUNT).filter_map(PathIndex::new).filter(move |&path| self.contains(path))
    }
}

impl FromIterator<PathIndex> for PathSet {
    fn from_iter<I: IntoIterator<Item = PathIndex>>(paths: I) -> Self {
        let mut set = Self::EMPTY;
        for path in paths {
            set.insert(path);
        }
        set
    }
}

impl TryFrom<alloc::vec::Vec<PathIndex>> for PathSet {
    type Error = &'static str;

    fn try_from(paths: alloc::vec::Vec<PathIndex>) -> Result<Self, &'static str> {
        let set: Self = paths.iter().copied().collect();
        if set.len() as usize == paths.len() { Ok(set) } else { Err("a path is named twice") }
    }
}

impl From<PathSet> for alloc::vec::Vec<PathIndex> {
    fn from(set: PathSet) -> Self {
        set.iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_numbers_keep_leading_zeros_and_refuse_other_lengths() {
        assert_eq!(MigrationId(0x1f).to_string(), "000000000000001f");
        assert_eq!("000000000000001f".parse(), Ok(MigrationId(0x1f)));
        for wrong in ["", "1f", "00000000000000001f", "+00000000000001f", "000000000000001g"] {
            assert_eq!(wrong.parse::<MigrationId>(), Err(InvalidText::Hex(16)), "{wrong:?}");
        }
        assert_eq!(serde_json::to_string(&Digest(1)).unwrap(), "\"00000000000000000000000000000001\"");
        assert_eq!(serde_json::from_str::<Nonce>("\"0000000a\"").unwrap(), Nonce(10));
    }

    #[test]
    fn names_are_bounded() {
        assert!(Name::try_from("nat-a.in").is_ok());
        for wrong in ["", "a b", "a/b", "ä", &"x".repeat(65)] {
            assert_eq!(Name::try_from(wrong), Err(InvalidText::Name), "{wrong:?}");
        }
    }

    #[test]
    fn text_is_cut_at_a_character() {
        let long = "ä".repeat(Text::LEN_MAX);
        let text = Text::from(long.as_str());
        assert_eq!(text.as_str().len(), Text::LEN_MAX);
        let odd = Text::from(alloc::format!("x{long}"));
        assert_eq!(odd.as_str().len(), Text::LEN_MAX - 1);
    }

    #[test]
    fn path_sets_travel_as_lists_without_doubles() {
        let set = PathSet::first(2);
        assert_eq!(serde_json::to_string(&set).unwrap(), "[0,1]");
        assert_eq!(serde_json::from_str::<PathSet>("[1,0]").unwrap(), set);
        assert!(serde_json::from_str::<PathSet>("[1,1]").is_err());
        assert!(serde_json::from_str::<PathSet>("[64]").is_err());
        assert_eq!(PathSet::first(64).len(), 64);
        assert!(set.covers(PathSet::first(1)) && !PathSet::first(1).covers(set));
    }
}

//! Flow spaces: predicates over packets (§IV-D).

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A predicate over packets that splits traffic.
///
/// The default matches every packet. With a condition on an address it matches only untagged IPv4 packets that fulfil
/// it; ARP and everything else then needs a path of its own that matches everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct FlowSpace {
    /// The condition on the IPv4 source address.
    pub source: AddressMatch,
    /// The condition on the IPv4 destination address.
    pub destination: AddressMatch,
}

impl FlowSpace {
    /// Matches every packet.
    pub const ANY: Self = Self { source: AddressMatch::ANY, destination: AddressMatch::ANY };

    /// Whether `frame` is in this flow space.
    #[inline]
    pub fn contains(&self, frame: &[u8]) -> bool {
        if *self == Self::ANY {
            return true;
        }
        let Some((source, destination)) = ipv4_addresses(frame) else { return false };
        self.source.contains(source) && self.destination.contains(destination)
    }
}

/// The source and destination address of an untagged IPv4 frame.
#[inline]
fn ipv4_addresses(frame: &[u8]) -> Option<(u32, u32)> {
    const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
    let header = frame.get(..34)?;
    if header[12..14] != ETHERTYPE_IPV4 || header[14] >> 4 != 4 {
        return None;
    }
    let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    Some((word(26), word(30)))
}

/// A condition on an IPv4 address: the bits under the mask are those of the value.
///
/// Written `any`, `10.1.0.0/16`, or with any mask, as in `0.0.0.1/0.0.0.1` for the odd addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct AddressMatch {
    value: u32,
    mask: u32,
}

/// The text is not an address condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressMatchError {
    /// Not of the form address, slash, prefix length or mask.
    #[error("expected `any`, ADDRESS/PREFIX-LENGTH or ADDRESS/MASK")]
    Form,
    /// The prefix is longer than an address.
    #[error("a prefix length is at most 32")]
    PrefixLength,
    /// No address could ever match.
    #[error("the address has bits set outside the mask")]
    BitsOutsideMask,
}

impl AddressMatch {
    /// Matches every address.
    pub const ANY: Self = Self { value: 0, mask: 0 };

    /// Whether `address` fulfils the condition.
    #[inline]
    pub fn contains(&self, address: u32) -> bool {
        address & self.mask == self.value
    }
}

impl FromStr for AddressMatch {
    type Err = AddressMatchError;

    fn from_str(text: &str) -> Result<Self, AddressMatchError> {
        if text == "any" {
            return Ok(Self::ANY);
        }
        let (address, mask) = text.split_once('/').ok_or(AddressMatchError::Form)?;
        let value = address.parse::<Ipv4Addr>().map_err(|_| AddressMatchError::Form)?.to_bits();
        let mask = match mask.parse::<u32>() {
            Ok(len @ 0..=32) => u32::MAX.checked_shl(32 - len).unwrap_or(0),
            Ok(_) => return Err(AddressMatchError::PrefixLength),
            Err(_) => mask.parse::<Ipv4Addr>().map_err(|_| AddressMatchError::Form)?.to_bits(),
        };
        if value & !mask != 0 {
            return Err(AddressMatchError::BitsOutsideMask);
        }
        Ok(Self { value, mask })
    }
}

impl fmt::Display for AddressMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = Ipv4Addr::from_bits(self.value);
        let ones = self.mask.leading_ones();
        match self.mask {
            0 => f.write_str("any"),
            mask if mask.count_ones() == ones => write!(f, "{value}/{ones}"),
            mask => write!(f, "{value}/{}", Ipv4Addr::from_bits(mask)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
        let mut frame = vec![0; 60];
        frame[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
        frame[26..30].copy_from_slice(&source);
        frame[30..34].copy_from_slice(&destination);
        frame
    }

    #[test]
    fn any_matches_even_an_empty_frame() {
        assert!(FlowSpace::ANY.contains(&[]));
    }

    #[test]
    fn prefix_and_odd_addresses_match_as_written() {
        let space =
            FlowSpace { source: "10.1.0.0/24".parse().unwrap(), destination: "0.0.0.1/0.0.0.1".parse().unwrap() };
        assert!(space.contains(&frame([10, 1, 0, 9], [10, 2, 0, 11])));
        assert!(!space.contains(&frame([10, 1, 1, 9], [10, 2, 0, 11])));
        assert!(!space.contains(&frame([10, 1, 0, 9], [10, 2, 0, 10])));
    }

    #[test]
    fn conditions_match_no_frame_that_is_not_untagged_ipv4() {
        let space = FlowSpace { source: AddressMatch::ANY, destination: "0.0.0.0/0.0.0.1".parse().unwrap() };
        let good = frame([10, 0, 0, 1], [10, 0, 0, 2]);
        assert!(space.contains(&good));
        assert!(!space.contains(&good[..33]));
        for (at, byte) in [(13, 0x06), (12, 0x81), (14, 0x60)] {
            let mut other = good.clone();
            other[at] = byte;
            assert!(!space.contains(&other));
        }
    }

    #[test]
    fn text_forms_round_trip_and_wrong_ones_are_named() {
        for text in ["any", "10.1.0.0/16", "10.1.2.3/32", "0.0.0.1/0.0.0.1", "10.0.0.1/255.0.0.1"] {
            assert_eq!(text.parse::<AddressMatch>().unwrap().to_string(), text);
        }
        assert_eq!("0.0.0.0/0".parse(), Ok(AddressMatch::ANY));
        assert_eq!("10.1.0.0/255.255.0.0".parse::<AddressMatch>().unwrap().to_string(), "10.1.0.0/16");
        for (text, error) in [
            ("", AddressMatchError::Form),
            ("10.1.0.0", AddressMatchError::Form),
            ("10.1.0/8", AddressMatchError::Form),
            ("10.1.0.0/x", AddressMatchError::Form),
            ("10.1.0.0/33", AddressMatchError::PrefixLength),
            ("10.1.0.1/16", AddressMatchError::BitsOutsideMask),
        ] {
            assert_eq!(text.parse::<AddressMatch>(), Err(error), "{text:?}");
        }
    }
}

//! VLAN tags (IEEE 802.1Q) on the cable that the stations inside and outside share with the switch.

use crate::words::{INSIDE_VLAN, OUTSIDE_VLAN};
use slim_core::packet::MacAddr;

/// The EtherType of a tag.
const TAG: [u8; 2] = [0x81, 0x00];

/// Where a frame's addresses end.
const ADDRESSES: usize = 12;

/// `frame` with the tag of the station that sends it: the server outside with the address `server`, or a host inside.
pub(super) fn add(frame: &[u8], server: MacAddr) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(frame.len().min(ADDRESSES));
    let vlan = if addresses.ends_with(&server.0) { OUTSIDE_VLAN } else { INSIDE_VLAN };
    [addresses, &TAG, &vlan.to_be_bytes(), rest].concat()
}

/// `frame` without its tag, if it belongs to one of our stations.
pub(super) fn strip(frame: &[u8]) -> Option<Vec<u8>> {
    let (addresses, rest) = frame.split_at_checked(ADDRESSES)?;
    let vlan = rest.strip_prefix(&TAG)?.first_chunk().map(|tag| u16::from_be_bytes(*tag) & 0x0fff)?;
    [INSIDE_VLAN, OUTSIDE_VLAN].contains(&vlan).then(|| [addresses, rest.get(4..).unwrap_or_default()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stations_keep_to_their_vlans() {
        let server = MacAddr([0x52, 0x54, 0, 2, 0, 0x20]);
        let from = |source: MacAddr| [&[0xff; 6][..], &source.0, &[0x08, 0x06, 1, 2]].concat();
        for (source, vlan) in [(server, OUTSIDE_VLAN), (MacAddr([2; 6]), INSIDE_VLAN)] {
            let tagged = add(&from(source), server);
            assert_eq!(tagged[12..16], [&TAG[..], &vlan.to_be_bytes()].concat());
            assert_eq!(strip(&tagged), Some(from(source)));
        }
        assert_eq!(strip(&from(server)), None);
        let mut of_the_switch = add(&from(server), server);
        of_the_switch[15] = 101;
        assert_eq!(strip(&of_the_switch), None);
        assert_eq!(strip(&[0; 5]), None);
    }
}

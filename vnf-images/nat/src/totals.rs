//! What a NAT has done in total, for its operator. It goes on at the destination of a migration but is no state: no packet
//! depends on it, and it is told once, at the end.

use crate::statelet::Statelet;
use slim_core::nf::InstallError;

/// Number of totals.
const TOTALS: usize = 7;

/// What a NAT has done since its state began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    pub(crate) arp_requests_sent: u64,
    pub(crate) arp_learning_refused: u64,
    pub(crate) icmp_errors_sent: u64,
    pub(crate) echo_replies_sent: u64,
    pub(crate) held_fragments_lost: u64,
    pub(crate) exempt_packets: u64,
    pub(crate) packets_fragmented: u64,
}

impl Totals {
    /// Each with its name among the gauges, in the order of the statelet.
    pub(crate) const fn named(&self) -> [(&'static str, u64); TOTALS] {
        [
            ("arp_requests_sent", self.arp_requests_sent),
            ("arp_learning_refused", self.arp_learning_refused),
            ("icmp_errors_sent", self.icmp_errors_sent),
            ("echo_replies_sent", self.echo_replies_sent),
            ("held_fragments_lost", self.held_fragments_lost),
            ("exempt_packets", self.exempt_packets),
            ("packets_fragmented", self.packets_fragmented),
        ]
    }

    /// The statelet's value.
    pub(crate) fn encode_value(&self) -> [u8; TOTALS * 8] {
        let mut value = [0; TOTALS * 8];
        for (place, (_, total)) in value.as_chunks_mut().0.iter_mut().zip(self.named()) {
            *place = total.to_be_bytes();
        }
        value
    }

    /// Goes on from a source's totals.
    pub(crate) fn install(&mut self, value: &[u8]) -> Result<(), InstallError> {
        let malformed = InstallError::Malformed { statelet_type: Statelet::TOTALS, len: value.len() };
        let (totals, rest) = value.as_chunks();
        let (&[arp_requests, learning_refused, icmp_errors, echo_replies, fragments_lost, exempt, fragmented], []) =
            (<&[[u8; 8]; TOTALS]>::try_from(totals).map_err(|_| malformed)?, rest)
        else {
            return Err(malformed);
        };
        *self = Self {
            arp_requests_sent: u64::from_be_bytes(arp_requests),
            arp_learning_refused: u64::from_be_bytes(learning_refused),
            icmp_errors_sent: u64::from_be_bytes(icmp_errors),
            echo_replies_sent: u64::from_be_bytes(echo_replies),
            held_fragments_lost: u64::from_be_bytes(fragments_lost),
            exempt_packets: u64::from_be_bytes(exempt),
            packets_fragmented: u64::from_be_bytes(fragmented),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_survive_and_other_lengths_do_not() {
        let totals = Totals {
            arp_requests_sent: 1,
            arp_learning_refused: 2,
            icmp_errors_sent: 3,
            echo_replies_sent: 4,
            held_fragments_lost: 5,
            exempt_packets: 6,
            packets_fragmented: u64::MAX,
        };
        let value = totals.encode_value();
        let mut copy = Totals { exempt_packets: 9, ..Totals::default() };
        assert!(copy.install(&value[..55]).is_err() && copy.install(&[]).is_err());
        assert!(copy.install(&[&value[..], &[0]].concat()).is_err());
        assert_eq!(copy.exempt_packets, 9, "a refusal changes nothing");
        copy.install(&value).unwrap();
        assert_eq!(copy, totals);
    }
}

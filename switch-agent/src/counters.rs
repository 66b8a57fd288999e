//! What is counted: traffic, and every packet that is dropped, by its cause.

use std::fmt;

/// Packets and bytes that passed one place. Bytes are those of Ethernet frames without frame check sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Traffic {
    /// Counts one packet of `len` bytes.
    #[inline]
    pub fn add(&mut self, len: usize) {
        self.packets += 1;
        self.bytes += len as u64;
    }
}

macro_rules! drop_causes {
    ($($(#[$meta:meta])* $variant:ident => $name:literal,)+) => {
        /// Why a packet was dropped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum DropCause {
            $($(#[$meta])* $variant,)+
        }

        impl DropCause {
            /// All causes, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The counter's name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

drop_causes! {
    /// No path begins at the port it arrived on, or none matches it.
    NoPath => "no_path",
    /// Shorter than an Ethernet header.
    Runt => "runt",
    /// The meter of the traffic towards its instance had no tokens left.
    MeterToInstance => "meter_to_instance",
    /// The meter of the traffic from its instance had no tokens left.
    MeterFromInstance => "meter_from_instance",
    /// Too much waited already for what others leave of the link.
    LowerEffortFull => "lower_effort_full",
    /// The delay line was full.
    DelayFull => "delay_full",
    /// The egress queue was full: the peer has not taken packets for too long.
    EgressFull => "egress_full",
    /// The egress port's link was down, or went down while the packet waited.
    LinkDown => "link_down",
    /// An in-band control frame from where none may come: an external or a management port.
    InbandForbidden => "inband_forbidden",
    /// An in-band control frame that cannot be decoded, or that an instance must not send.
    InbandMalformed => "inband_malformed",
    /// Handed back by the very instance that its path leads to.
    HandBackLooped => "hand_back_looped",
    /// The hold queue of a rollback was full.
    HoldFull => "hold_full",
    /// No buffer was free for a copy: of a flooded management frame, or of an in-band frame.
    NoBuffer => "no_buffer",
    /// A management frame whose destination is on the side it came from.
    BridgeSamePort => "bridge_same_port",
    /// A management frame to an address that bridges must not forward (IEEE 802.1D, 01:80:c2:00:00:0x).
    BridgeReserved => "bridge_reserved",
    /// Its port or instance was removed while it waited.
    Removed => "removed",
}

/// Counters of dropped packets, one per [cause](DropCause).
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Drops([u64; DropCause::ALL.len()]);

impl Drops {
    /// Counts one dropped packet.
    #[inline]
    pub fn add(&mut self, cause: DropCause) {
        self.0[cause as usize] += 1;
    }

    /// Counts `packets` dropped packets.
    pub fn add_many(&mut self, cause: DropCause, packets: u64) {
        self.0[cause as usize] += packets;
    }

    /// Packets dropped for `cause`.
    pub fn of(&self, cause: DropCause) -> u64 {
        self.0[cause as usize]
    }

    /// Packets dropped for any cause.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Each cause with its count, in the order of [`DropCause::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (DropCause, u64)> {
        DropCause::ALL.iter().copied().zip(self.0)
    }

    /// Adds another set of counters to this one.
    pub fn merge(&mut self, other: &Self) {
        for (sum, count) in self.0.iter_mut().zip(other.0) {
            *sum += count;
        }
    }
}

impl fmt::Debug for Drops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = self.iter().filter(|&(_, count)| count > 0);
        f.debug_map().entries(counted.map(|(cause, count)| (cause.name(), count))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_a_counter_and_a_name_of_its_own() {
        let mut drops = Drops::default();
        for (index, &cause) in DropCause::ALL.iter().enumerate() {
            assert_eq!(cause as usize, index);
            drops.add_many(cause, index as u64 + 1);
        }
        let names: std::collections::HashSet<_> = DropCause::ALL.iter().map(|cause| cause.name()).collect();
        assert_eq!(names.len(), DropCause::ALL.len());
        assert!(drops.iter().all(|(cause, count)| count == cause as u64 + 1));
    }
}

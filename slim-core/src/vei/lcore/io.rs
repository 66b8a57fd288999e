//! What is really input and output about an lcore, and nothing else.

use crate::nf::{LogEvent, PortId};
use crate::packet::PacketBuf;

/// Packets received from a port at a time.
pub const BURST: usize = 32;

/// A burst of packets.
pub type Burst<P> = heapless::Vec<P, BURST>;

/// An lcore's ports, its packet buffers, and what it counts. Monomorphised into the packet loop.
pub trait Io {
    /// The driver's packet buffer.
    type Packet: PacketBuf;

    /// Adds to `burst` what has arrived on `port`, and returns how many packets that are.
    fn receive(&mut self, port: PortId, burst: &mut Burst<Self::Packet>) -> usize;

    /// An empty packet buffer, if one is free.
    fn buffer(&mut self) -> Option<Self::Packet>;

    /// Queues `packet` for `port`, or drops and counts it.
    fn transmit(&mut self, port: PortId, packet: Self::Packet);

    /// Transmits everything that is queued.
    fn flush(&mut self);

    /// Counts packets that the lcore itself dropped.
    fn dropped(&mut self, cause: Cause, packets: u64);

    /// Counts a packet that the network function dropped, by an index into its reasons.
    fn refused(&mut self, reason: u16);

    /// How often [`refused`](Self::refused) has counted `reason`.
    fn refused_total(&self, reason: u16) -> u64;

    /// Goes on counting `reason` from `total`.
    fn set_refused_total(&mut self, reason: u16, total: u64);

    /// Counts one of something.
    fn count(&mut self, what: Counted);

    /// Takes an event that the network function wants recorded, or counts it as lost. There need not be a log.
    #[inline]
    fn log(&mut self, _event: &LogEvent) {}

    /// Queues a copy of `frame` for `port`.
    fn transmit_copy(&mut self, port: PortId, frame: &[u8]) {
        let filled = self.buffer().and_then(|mut packet| {
            packet.append(frame.len()).ok()?;
            packet.bytes_mut().copy_from_slice(frame);
            Some(packet)
        });
        match filled {
            Some(packet) => self.transmit(port, packet),
            None => self.dropped(Cause::NoMbuf, 1),
        }
    }
}

/// What an lcore counts besides drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// A packet that was meant for the network function itself.
    Consumed,
    /// A packet that entered `pkt_q`.
    Enqueued,
    /// A packet handed back to the switch.
    HandedBack,
    /// A drain packet received.
    Drain,
}

macro_rules! causes {
    ($($(#[$meta:meta])* $variant:ident = $name:literal,)*) => {
        /// Why the lcore itself, rather than the network function, dropped a packet.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Cause {
            $($(#[$meta])* $variant,)*
        }

        impl Cause {
            /// Every cause, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The counter's name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

causes! {
    /// The instance is idle: there is no state to process packets with.
    Idle = "idle",
    /// The source has stopped before the switch redirects: mode `stop-and-copy`.
    Halted = "halted",
    /// What lay in the receive rings when a destination was armed: from before, possibly seen by others.
    Stale = "stale",
    /// `pkt_q` was full.
    PacketQueueFull = "pkt_q_full",
    /// The transmit ring stayed full.
    TxRingFull = "tx_ring_full",
    /// No packet buffer was free.
    NoMbuf = "no_mbuf",
    /// An in-band control frame that could not be decoded.
    InbandMalformed = "inband_malformed",
    /// An in-band control frame that instances do not receive.
    InbandUnexpected = "inband_unexpected",
    /// A late packet that could not be handed back: no room for the header.
    HandBackFailed = "hand_back_failed",
    /// The network function named a port or drop reason that it does not have, or sent what is no Ethernet frame.
    InvalidVerdict = "invalid_verdict",
}

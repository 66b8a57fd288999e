//! In-band frames, taken out of the stream of packets before the network function sees it.

use super::counters::{Cause, Counters};
use super::transmit::Transmit;
use dpdk::Mbuf;
use slim_core::nf::{PORTS_MAX, PortId, Shard};
use slim_core::packet::PacketBuf;
use slim_core::protocol::MigrationId;
use slim_core::protocol::inband::{Drain, FRAME_LEN, Frame, FrameError, HandBackEnd, acknowledge_in_place};
use slim_core::time::{Duration, Instant};
use std::sync::Arc;

/// A drain packet that was reported already is reported again only after this time, however often it comes.
const REPEAT_AFTER: Duration = Duration::from_millis(10);

/// Answers drain packets, and wraps packets that go back to the switch.
pub struct Inband {
    shard: Shard,
    /// The drain packet last reported, per port.
    reported: [Option<(Drain, Instant)>; PORTS_MAX],
    counters: Arc<Counters>,
}

impl Inband {
    /// Speaks for `shard`.
    pub fn new(shard: Shard, counters: Arc<Counters>) -> Self {
        Self { shard, reported: [None; PORTS_MAX], counters }
    }

    /// Deals with an in-band frame that arrived on `port`: a drain packet is acknowledged at once, and returned if it
    /// is news.
    #[cold]
    pub fn receive(&mut self, now: Instant, port: PortId, mut packet: Mbuf, transmit: &mut Transmit) -> Option<Drain> {
        // Frames are padded, but a drain packet need not have come over Ethernet.
        if packet.bytes().len() < FRAME_LEN && packet.append(FRAME_LEN - packet.bytes().len()).is_err() {
            self.counters.dropped(Cause::InbandMalformed, 1);
            return None;
        }
        match acknowledge_in_place(packet.bytes_mut()) {
            Ok(drain) => {
                self.counters.drains.add(1);
                packet.truncate(FRAME_LEN);
                transmit.push(port, packet);
                let reported = self.reported.get_mut(usize::from(port.0))?;
                if reported.is_some_and(|(last, at)| last == drain && now - at < REPEAT_AFTER) {
                    return None;
                }
                *reported = Some((drain, now));
                Some(drain)
            }
            Err(FrameError::Kind(_)) => {
                self.counters.dropped(Cause::InbandUnexpected, 1);
                None
            }
            Err(_) => {
                self.counters.dropped(Cause::InbandMalformed, 1);
                None
            }
        }
    }

    /// Sends `frame`, which arrived on `port`, back to the switch. Returns whether that was possible.
    pub fn hand_back(&self, migration: MigrationId, port: PortId, frame: &[u8], transmit: &mut Transmit) -> bool {
        let sent = transmit.push_inband(port, &Frame::HandBack { migration, port, frame });
        if sent {
            self.counters.handed_back.add(1);
        } else {
            self.counters.dropped(Cause::HandBackFailed, 1);
        }
        sent
    }

    /// Tells the switch that nothing that arrived on `port` will follow.
    pub fn hand_back_end(&self, migration: MigrationId, port: PortId, transmit: &mut Transmit) -> bool {
        let end = HandBackEnd { migration, port, shard: self.shard.id, shards: self.shard.count };
        transmit.push_inband(port, &Frame::HandBackEnd(end))
    }
}

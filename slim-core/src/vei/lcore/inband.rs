//! In-band frames, taken out of the stream of packets before the network function sees it.

use super::io::{Cause, Counted, Io};
use crate::nf::{PORTS_MAX, PortId, Shard};
use crate::packet::PacketBuf;
use crate::protocol::MigrationId;
use crate::protocol::inband::{Drain, FRAME_LEN, Frame, FrameError, HandBackEnd, acknowledge_in_place};
use crate::time::{Duration, Instant};

/// A drain packet that was reported already is reported again only after this time, however often it comes.
const REPEAT_AFTER: Duration = Duration::from_millis(10);

/// Answers drain packets, and wraps packets that go back to the switch.
pub(super) struct Inband {
    shard: Shard,
    /// The drain packet last reported, per port.
    reported: [Option<(Drain, Instant)>; PORTS_MAX],
}

/// No packet buffer was free; nothing has changed.
pub(super) struct NoBuffer;

impl Inband {
    /// Speaks for `shard`.
    pub(super) fn new(shard: Shard) -> Self {
        Self { shard, reported: [None; PORTS_MAX] }
    }

    /// Deals with an in-band frame that arrived on `port`: a drain packet is acknowledged at once, and returned if it
    /// is news.
    #[cold]
    pub(super) fn receive<I: Io>(
        &mut self,
        now: Instant,
        port: PortId,
        mut packet: I::Packet,
        io: &mut I,
    ) -> Option<Drain> {
        // Frames are padded, but a drain packet need not have come over Ethernet.
        if packet.bytes().len() < FRAME_LEN && packet.append(FRAME_LEN - packet.bytes().len()).is_err() {
            io.dropped(Cause::InbandMalformed, 1);
            return None;
        }
        match acknowledge_in_place(packet.bytes_mut()) {
            Ok(drain) => {
                io.count(Counted::Drain);
                packet.truncate(FRAME_LEN);
                io.transmit(port, packet);
                let reported = self.reported.get_mut(usize::from(port.0))?;
                if reported.is_some_and(|(last, at)| last == drain && now - at < REPEAT_AFTER) {
                    return None;
                }
                *reported = Some((drain, now));
                Some(drain)
            }
            Err(FrameError::Kind(_)) => {
                io.dropped(Cause::InbandUnexpected, 1);
                None
            }
            Err(_) => {
                io.dropped(Cause::InbandMalformed, 1);
                None
            }
        }
    }

    /// Sends `frame`, which arrived on `port`, back to the switch in `packet`. Returns whether there was room.
    pub(super) fn hand_back<I: Io>(
        &self,
        migration: MigrationId,
        port: PortId,
        frame: &[u8],
        packet: I::Packet,
        io: &mut I,
    ) -> bool {
        let sent = send(port, &Frame::HandBack { migration, port, frame }, packet, io);
        if sent {
            io.count(Counted::HandedBack);
        } else {
            io.dropped(Cause::HandBackFailed, 1);
        }
        sent
    }

    /// Tells the switch that nothing that arrived on `port` will follow.
    pub(super) fn hand_back_end<I: Io>(
        &self,
        migration: MigrationId,
        port: PortId,
        io: &mut I,
    ) -> Result<(), NoBuffer> {
        let packet = io.buffer().ok_or(NoBuffer)?;
        let end = HandBackEnd { migration, port, shard: self.shard.id, shards: self.shard.count };
        send(port, &Frame::HandBackEnd(end), packet, io);
        Ok(())
    }
}

fn send<I: Io>(port: PortId, frame: &Frame<'_>, mut packet: I::Packet, io: &mut I) -> bool {
    let encoded = packet.append(frame.encoded_len()).is_ok() && frame.encode(packet.bytes_mut()).is_ok();
    if encoded {
        io.transmit(port, packet);
    }
    encoded
}

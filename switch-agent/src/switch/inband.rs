//! In-band frames that instances send: acknowledgements of drain packets, and packets handed back.

use super::model::InstanceIndex;
use super::{Switch, slot};
use crate::counters::DropCause;
use crate::{Buffers, PortIndex};
use slim_core::nf::PortId;
use slim_core::packet::PacketBuf;
use slim_core::protocol::MigrationId;
use slim_core::protocol::inband::{Frame, HAND_BACK_HEADER_LEN, is_inband};
use slim_core::time::Instant;

impl<B: Buffers> Switch<B> {
    /// Consumes an in-band frame that instance `from` sent out of `port`.
    pub(super) fn take_inband(&mut self, now: Instant, port: PortIndex, from: InstanceIndex, packet: B::Packet) {
        match Frame::decode(packet.bytes()) {
            Ok(Frame::DrainAck(drain)) => {
                self.counts.consumed += 1;
                self.drain_acked(from, &drain);
            }
            // Or else an instance could make up drain packets for another one.
            Ok(Frame::HandBack { frame, .. }) if is_inband(frame) => self.drop_at(port, DropCause::InbandForbidden),
            Ok(Frame::HandBack { migration, port, frame }) => {
                let len = frame.len();
                self.take_back(now, from, migration, port, len, packet);
            }
            Ok(Frame::HandBackEnd(end)) => {
                self.counts.consumed += 1;
                self.hand_back_ended(now, from, &end);
            }
            // Only the switch itself sends drain packets.
            Ok(Frame::Drain(_)) | Err(_) => self.drop_at(port, DropCause::InbandMalformed),
        }
    }

    /// Treats a packet that is handed back as if it had just arrived at the external port of its path.
    fn take_back(
        &mut self,
        now: Instant,
        from: InstanceIndex,
        migration: MigrationId,
        port: PortId,
        len: usize,
        mut packet: B::Packet,
    ) {
        packet.trim_front(HAND_BACK_HEADER_LEN);
        packet.truncate(len);
        self.counts.handed_back += 1;
        let latest = self
            .redirects
            .iter_mut()
            .rev()
            .find(|redirect| redirect.request.migration == migration && redirect.from_index == Some(from));
        if let Some(redirect) = latest {
            redirect.handed_back += 1;
        }
        let instance = slot(&mut self.instances, from.0);
        let path = instance.and_then(|instance| instance.paths.get(usize::from(port.0)).copied());
        match path.and_then(|path| path.external) {
            Some(external) => self.arrive(now, external, packet, Some(from)),
            None => self.gone.add(DropCause::NoPath),
        }
    }
}

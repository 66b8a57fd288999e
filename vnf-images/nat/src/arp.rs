//! ARP on both sides (RFC 826): answering for the NAT's addresses, learning neighbours, asking for next hops.
//!
//! Only ARP fills the table; the source addresses of other packets are never trusted. A packet for a next hop that is
//! not known is dropped and the next hop asked for. So that this hits as few packets as possible, hosts are learnt
//! from their own requests for the NAT, which precede their first packet; the gateway is asked for before it is needed;
//! and an entry in use is confirmed before it expires. No packet is kept: it would have to be state, and move.
//!
//! When and whether the NAT has asked is not state either. A new instance may ask once more.

use crate::Nat;
use crate::announce;
use crate::drops::Drop;
use crate::statelet::Statelet;
use crate::tables::NeighbourKey;
use crate::types::Side;
use core::net::{Ipv4Addr, SocketAddrV4};
use slim_core::nf::{Environment, Verdict};
use slim_core::packet::{Arp, ArpOperation, ETHERNET_LEN, Ethernet, MacAddr, emit};

/// Length of the shortest Ethernet frame without its check sequence.
const FRAME_LEN_MIN: usize = 60;

/// Slots of the [`AskLimiter`]: the most requests per tick.
const ASK_SLOTS: usize = 256;

/// Lets a next hop be asked for at most once per tick, and a bounded number of them.
///
/// A slot stands for all next hops that hash to it, so a host that scans unknown addresses can delay, for a tick,
/// others' first packets to unknown next hops, but nothing else.
#[derive(Debug, Clone)]
pub(crate) struct AskLimiter {
    /// The tick of the last request plus one; 0 before the first.
    asked: [u32; ASK_SLOTS],
    seed: u64,
}

impl AskLimiter {
    pub(crate) fn new(seed: u64) -> Self {
        Self { asked: [0; ASK_SLOTS], seed }
    }

    fn admits(&mut self, key: &NeighbourKey, tick: u32) -> bool {
        let mixed = (u64::from(key.address) << 8 | u64::from(key.port)) ^ self.seed;
        let slot = (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize % ASK_SLOTS;
        let stamp = tick.wrapping_add(1);
        let Some(asked) = self.asked.get_mut(slot).filter(|asked| **asked != stamp) else { return false };
        *asked = stamp;
        true
    }
}

impl Nat {
    /// The MAC address of a neighbour. Asks for it where it is unknown or about to expire.
    #[inline(always)]
    pub(crate) fn resolve<E: Environment>(&mut self, env: &mut E, side: Side, address: Ipv4Addr) -> Option<MacAddr> {
        let key = NeighbourKey::new(side, address);
        let known = self.state.neighbours.get(&key).copied();
        if known.is_none_or(|neighbour| self.state.age(neighbour.confirmed) > self.timeouts.neighbour_renewal()) {
            self.ask(env, side, key);
        }
        known.map(|neighbour| MacAddr(neighbour.mac))
    }

    /// Broadcasts a request for a neighbour's MAC address, unless it has been asked for in this tick.
    #[cold]
    fn ask<E: Environment>(&mut self, env: &mut E, side: Side, key: NeighbourKey) {
        if !self.asks.admits(&key, self.state.clock.get()) {
            return;
        }
        let own = self.interface(side);
        let ends = emit::Ends {
            source_mac: own.mac,
            destination_mac: MacAddr::BROADCAST,
            source: SocketAddrV4::new(own.network.address, 0),
            destination: SocketAddrV4::new(Ipv4Addr::from_bits(key.address), 0),
        };
        let mut frame = [0; FRAME_LEN_MIN];
        if emit::arp(&mut frame, ArpOperation::Request, &ends).is_ok() {
            self.totals.arp_requests_sent += 1;
            env.emit(side.port(), &frame);
        }
    }

    /// Handles an ARP packet that arrived on `side`.
    #[cold]
    pub(crate) fn process_arp<E: Environment>(
        &mut self,
        env: &mut E,
        side: Side,
        mut ethernet: Ethernet<&mut [u8; ETHERNET_LEN]>,
        packet: &mut [u8],
    ) -> Result<Verdict, Drop> {
        let own = *self.interface(side);
        let mut arp = Arp::parse_mut(packet).map_err(|_| Drop::ArpMalformed)?;
        let (sender, sender_mac) = (arp.sender(), arp.sender_mac());
        if !sender_mac.is_unicast() {
            return Err(Drop::ArpMalformed);
        }
        if self.is_own(side, sender) || sender_mac == own.mac {
            return Err(Drop::ArpOwnAddressClaimed);
        }
        let is_request = arp.operation() == ArpOperation::Request;
        let asked_for = arp.target();
        let for_us = self.is_own(side, asked_for);
        // A host that makes sure that nobody has its address yet has no address to learn (RFC 5227 §1.1).
        let is_probe = is_request && sender.is_unspecified();
        if !is_probe && !self.state.is_neighbour(side, sender) {
            return Err(Drop::ArpForeignSender);
        }
        // RFC 826: what is said to others corrects an entry but does not create one.
        let is_known = self.state.neighbours.contains(&NeighbourKey::new(side, sender));
        let learnt = if is_probe || !(for_us || is_known) { Ok(()) } else { self.learn(env, side, sender, sender_mac) };
        match (for_us, is_request) {
            (true, true) => {
                ethernet.set_destination(sender_mac);
                ethernet.set_source(own.mac);
                arp.set_operation(ArpOperation::Reply);
                arp.set_target(sender_mac, sender);
                arp.set_sender(own.mac, asked_for);
                Ok(Verdict::Transmit(side.port()))
            }
            (true, false) => learnt.map(|()| Verdict::Consumed),
            (false, _) if is_known => learnt.map(|()| Verdict::Consumed),
            (false, _) => Err(Drop::ArpNotForUs),
        }
    }

    /// Enters or confirms a neighbour, at most once per tick.
    fn learn<E: Environment>(&mut self, env: &mut E, side: Side, address: Ipv4Addr, mac: MacAddr) -> Result<(), Drop> {
        let known = self.state.neighbours.get(&NeighbourKey::new(side, address));
        if known.is_some_and(|known| known.mac == mac.0 && known.confirmed == self.state.clock.get()) {
            return Ok(());
        }
        match self.state.confirm_neighbour(side, address, mac) {
            Ok(()) => {
                announce(env, &Statelet::Arp { side, address, mac });
                Ok(())
            }
            Err(_) => {
                self.totals.arp_learning_refused += 1;
                Err(Drop::ArpTableFull)
            }
        }
    }

    /// Asks for the gateway while it is unknown or about to expire, once per tick, whether it is in use or not.
    pub(crate) fn look_after_gateway<E: Environment>(&mut self, env: &mut E) {
        let tick = self.state.clock.get();
        if self.gateway_asked_at == Some(tick) {
            return;
        }
        self.gateway_asked_at = Some(tick);
        if let Some(gateway) = self.gateway {
            self.resolve(env, Side::Exterior, gateway);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_hop_is_asked_for_once_per_tick() {
        let mut limiter = AskLimiter::new(0x1234_5678_9abc_def0);
        let key = NeighbourKey::new(Side::Exterior, Ipv4Addr::new(10, 2, 0, 10));
        assert!(limiter.admits(&key, 0));
        assert!(!limiter.admits(&key, 0));
        assert!(limiter.admits(&key, 1));
        assert!(!limiter.admits(&key, 1));
    }

    #[test]
    fn requests_per_tick_are_bounded() {
        let mut limiter = AskLimiter::new(1);
        let admitted = (0..65_536u32)
            .filter(|&i| limiter.admits(&NeighbourKey::new(Side::Interior, Ipv4Addr::from_bits(0x0a01_0000 + i)), 7))
            .count();
        assert!((200..=ASK_SLOTS).contains(&admitted), "{admitted}");
    }
}

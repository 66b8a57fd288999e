//! Transitions of interior hosts: their counters, and what they hold.

use super::{Full, Refusal, State};
use crate::statelet::TOTAL_MASK;
use crate::tables::Host;
use crate::types::Direction;
use core::net::Ipv4Addr;
use slim_core::table::Pod;

impl State {
    pub(super) fn hold_host(&mut self, address: Ipv4Addr) -> Result<(), Refusal> {
        if let Some(host) = self.hosts.get_mut(&address.to_bits()) {
            host.sessions = host.sessions.saturating_add(1);
            return Ok(());
        }
        let host = Host { sessions: 1, last_seen: self.clock.get(), ..Host::ZERO };
        self.hosts.insert(address.to_bits(), host).map(|_| ()).map_err(|_| Refusal::Full(Full::Hosts))
    }

    /// A host that a forward leads to, from an exterior address that its other endpoints should have too.
    pub(super) fn hold_forward(&mut self, address: Ipv4Addr, exterior_address: Ipv4Addr) -> Result<(), Refusal> {
        let known = self.hosts.get(&address.to_bits()).copied().unwrap_or(Host::ZERO);
        let host = Host { forwards: known.forwards + 1, exterior_address: exterior_address.to_bits(), ..known };
        self.hosts.insert(address.to_bits(), host).map(|_| ()).map_err(|_| Refusal::Full(Full::Hosts))
    }

    /// Counts packets of `bytes` bytes altogether and returns the host's new total. `None` without an entry for the host.
    #[inline(always)]
    pub(crate) fn count(&mut self, direction: Direction, address: Ipv4Addr, packets: u16, bytes: u64) -> Option<u64> {
        let now = self.clock.get();
        let host = self.hosts.get_mut(&address.to_bits())?;
        host.last_seen = now;
        let (packets_so_far, total) = host.counters_mut(direction);
        *packets_so_far = packets_so_far.wrapping_add(packets.into());
        *total = total.wrapping_add(bytes);
        Some(*total)
    }

    /// Counts the packets that bring a host's total to `total_bytes`, modulo 2⁴⁸.
    ///
    /// A total that so many packets cannot have led to shows that statelets were lost or reordered (§VI-C).
    pub(super) fn count_up_to(
        &mut self,
        direction: Direction,
        address: Ipv4Addr,
        packets: u16,
        total_bytes: u64,
    ) -> Result<(), Refusal> {
        let host = self.hosts.get(&address.to_bits()).ok_or(Refusal::Inconsistent)?;
        let bytes = total_bytes.wrapping_sub(host.bytes(direction)) & TOTAL_MASK;
        let (least, most) = (u64::from(packets), u64::from(packets) * u64::from(u16::MAX));
        if !(least..=most).contains(&bytes) {
            return Err(Refusal::Inconsistent);
        }
        self.count(direction, address, packets, bytes).map(|_| ()).ok_or(Refusal::Inconsistent)
    }

    /// Removes a host that has no sessions.
    pub(crate) fn forget_host(&mut self, address: u32) -> Result<(), Refusal> {
        match self.hosts.get(&address) {
            Some(host) if host.may_expire() => {
                self.hosts.remove(&address);
                Ok(())
            }
            Some(_) | None => Err(Refusal::Inconsistent),
        }
    }
}

impl Host {
    /// Whether nothing depends on its entry but its counters.
    pub(crate) fn may_expire(&self) -> bool {
        self.sessions == 0 && self.forwards == 0 && self.blocks().next().is_none()
    }

    /// Bytes counted in one direction.
    pub(crate) fn bytes(&self, direction: Direction) -> u64 {
        match direction {
            Direction::Outbound => self.bytes_outbound,
            Direction::Inbound => self.bytes_inbound,
        }
    }

    /// Packets and bytes of one direction.
    #[inline(always)]
    fn counters_mut(&mut self, direction: Direction) -> (&mut u64, &mut u64) {
        match direction {
            Direction::Outbound => (&mut self.packets_outbound, &mut self.bytes_outbound),
            Direction::Inbound => (&mut self.packets_inbound, &mut self.bytes_inbound),
        }
    }
}

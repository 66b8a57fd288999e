//! Present sizes, totals, and what is counted for each interior host.

use crate::Nat;
use crate::blocks::BlockIndex;
use crate::state::State;
use crate::tcp::TcpState;
use crate::types::Protocol;
use core::net::Ipv4Addr;
use slim_core::nf::{Gauge, Subscriber};
use slim_core::table::ScanCursor;

/// What is counted per interior host, see [`Host`](crate::tables::Host).
pub(crate) const SUBSCRIBER_COUNTERS: &[&str] =
    &["bytes_inbound", "bytes_outbound", "packets_inbound", "packets_outbound", "sessions", "ports"];

/// The most places of the table looked at for one page of the list of hosts, and the most hosts on it: some 10 µs.
const SLOTS_PER_PAGE: usize = 2048;
const SUBSCRIBERS_PER_PAGE: usize = 128;

impl Nat {
    pub(crate) fn all_gauges(&self) -> Vec<Gauge> {
        let State {
            clock,
            mappings,
            sessions,
            census,
            hosts,
            neighbours,
            pool,
            ports,
            trains,
            held,
            syns,
            blocks,
            block_index,
            ..
        } = &self.state;
        let gauge = |name, value: usize| Gauge { name, value: value as u64 };
        let census = census.get();
        let in_state = |name, state| gauge(name, census.tcp(state) as usize);
        let totals = self.totals.named().map(|(name, value)| Gauge { name, value });
        let present = [
            gauge("sessions", sessions.len()),
            gauge("sessions_capacity", sessions.capacity()),
            gauge("sessions_udp", census.udp as usize),
            gauge("sessions_icmp", census.icmp as usize),
            in_state("sessions_tcp_opening", TcpState::Opening),
            in_state("sessions_tcp_opening_inbound", TcpState::OpeningInbound),
            in_state("sessions_tcp_established", TcpState::Established),
            in_state("sessions_tcp_fin_outbound", TcpState::FinOutbound),
            in_state("sessions_tcp_fin_inbound", TcpState::FinInbound),
            in_state("sessions_tcp_closing", TcpState::Closing),
            in_state("sessions_tcp_reset", TcpState::Reset),
            gauge("mappings", mappings.len()),
            gauge("mappings_capacity", mappings.capacity()),
            gauge("hosts", hosts.len()),
            gauge("hosts_capacity", hosts.capacity()),
            gauge("fragment_trains", trains.len()),
            gauge("fragment_trains_capacity", trains.capacity()),
            gauge("fragments_held", held.len()),
            gauge("fragments_held_capacity", held.capacity()),
            gauge("unanswered_syns", syns.len()),
            gauge("arp_entries", neighbours.len()),
            gauge("arp_entries_capacity", neighbours.capacity()),
            gauge("udp_ports_used", ports.used_of(Protocol::Udp) as usize),
            gauge("tcp_ports_used", ports.used_of(Protocol::Tcp) as usize),
            gauge("icmp_identifiers_used", ports.used_of(Protocol::Icmp) as usize),
            gauge("ports_per_protocol", ports.per_protocol() as usize),
            gauge("exterior_addresses", pool.len()),
            gauge("port_blocks", blocks.len()),
            gauge("port_blocks_capacity", block_index.as_ref().map_or(0, BlockIndex::capacity)),
            gauge("clock_s", clock.get() as usize),
        ];
        present.into_iter().chain(totals).collect()
    }
    pub(crate) fn some_subscribers(&self, cursor: &mut ScanCursor) -> Vec<Subscriber> {
        let mut slots = SLOTS_PER_PAGE;
        let mut subscribers = Vec::with_capacity(SUBSCRIBERS_PER_PAGE);
        while subscribers.len() < SUBSCRIBERS_PER_PAGE
            && let Some((address, host)) = self.state.hosts.scan(cursor, &mut slots, |_, _| true)
        {
            let counters = [
                host.bytes_inbound,
                host.bytes_outbound,
                host.packets_inbound,
                host.packets_outbound,
                host.sessions.into(),
                host.ports.into(),
            ];
            subscribers
                .push(Subscriber { address: Ipv4Addr::from_bits(address), counters: counters.into_iter().collect() });
        }
        subscribers
    }
}

//! Why packets are dropped, each with a counter.

slim_core::drop_reasons! {
    /// The frame arrived on a port that the NAT does not have.
    UnknownPort = "unknown_port",
    /// The frame is shorter than an Ethernet header.
    FrameTooShort = "frame_too_short",
    /// The frame is not addressed to the NAT's MAC address on this port.
    NotToOwnMac = "not_to_own_mac",
    /// The frame holds neither IPv4 nor ARP.
    NotIpv4 = "not_ipv4",
    /// IPv4 version, header length or total length is wrong.
    Ipv4Malformed = "ipv4_malformed",
    /// The IPv4 header checksum is wrong.
    Ipv4Checksum = "ipv4_checksum",
    /// The time to live does not allow another hop (RFC 1812 §5.3.1).
    TtlExpired = "ttl_expired",
    /// Longer than the MTU of the link it would leave through, and not to be fragmented (RFC 4787 R13).
    TooBig = "too_big",
    /// A fragment that is empty, does not end where another can begin, or reaches beyond the longest packet.
    FragmentMalformed = "fragment_malformed",
    /// A fragment that comes before the first of its packet, and is too long to be held.
    FragmentTooLong = "fragment_too_long",
    /// A fragment, and as many packets in fragments are under way, or fragments held, as may be.
    FragmentsFull = "fragments_full",
    /// ICMP that is neither a query (or, inbound, a reply), nor an error that is translated.
    IcmpUnsupported = "icmp_unsupported",
    /// An ICMP message that is cut off, or an error whose embedded packet is.
    IcmpMalformed = "icmp_malformed",
    /// An ICMP message with a wrong checksum (RFC 5508 R3).
    IcmpChecksum = "icmp_checksum",
    /// An ICMP error about a packet that belongs to no session (RFC 5508 R4, R5).
    IcmpNoSession = "icmp_no_session",
    /// A transport protocol other than UDP, TCP and ICMP.
    ProtocolUnsupported = "protocol_unsupported",
    /// The source is not an address that a host on this side can have.
    SourceInvalid = "source_invalid",
    /// The destination is not an address that the NAT forwards to from this side.
    DestinationInvalid = "destination_invalid",
    /// The destination is a multicast or broadcast address, which a NAT does not forward.
    Multicast = "multicast",
    /// The destination is the NAT itself, which offers no service.
    ToSelf = "to_self",
    /// The UDP length is wrong, or a port is zero.
    UdpMalformed = "udp_malformed",
    /// The TCP header length is wrong, or a port is zero.
    TcpMalformed = "tcp_malformed",
    /// A combination of TCP flags without meaning.
    TcpFlagsInvalid = "tcp_flags_invalid",
    /// The UDP or TCP checksum of a packet that would change the state is wrong.
    TransportChecksum = "transport_checksum",
    /// Outbound TCP without a session, and not a SYN.
    TcpNotSyn = "tcp_not_syn",
    /// Inbound to an exterior port that no interior endpoint is mapped to.
    NoMapping = "no_mapping",
    /// Inbound to a mapped port, from an endpoint that the interior one has no session with.
    Filtered = "filtered",
    /// To a server beyond the exterior network, and no gateway is configured.
    NoRoute = "no_route",
    /// The next hop's MAC address is not known (yet); it has been asked for.
    ArpPending = "arp_pending",
    /// An ARP packet that is not Ethernet and IPv4, or has impossible addresses.
    ArpMalformed = "arp_malformed",
    /// An ARP packet from an address outside the port's network.
    ArpForeignSender = "arp_foreign_sender",
    /// An ARP packet that claims the NAT's own address.
    ArpOwnAddressClaimed = "arp_own_address_claimed",
    /// An ARP packet for somebody else.
    ArpNotForUs = "arp_not_for_us",
    /// An ARP reply that the full table had no room for.
    ArpTableFull = "arp_table_full",
    /// A new session, and the session table is full. Existing sessions go on.
    SessionsFull = "sessions_full",
    /// A new interior endpoint, and the mapping table is full.
    MappingsFull = "mappings_full",
    /// A new interior host, and the host table is full.
    HostsFull = "hosts_full",
    /// A new interior endpoint, and every exterior port of its protocol is taken.
    PortsExhausted = "ports_exhausted",
    /// A new session of a host that has as many as it may.
    HostSessionLimit = "host_session_limit",
    /// A new session of an interior endpoint that has as many as it may.
    MappingSessionLimit = "mapping_session_limit",
    /// A new interior endpoint of a host that has as many exterior ports as it may.
    HostPortLimit = "host_port_limit",
    /// Between a host and a destination that an exclusion keeps apart.
    Denied = "denied",
    /// The tables contradict each other, which only a faulty peer's snapshot can bring about.
    StateInconsistent = "state_inconsistent",
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_distinct() {
        assert_eq!(Drop::NAMES.iter().collect::<BTreeSet<_>>().len(), Drop::NAMES.len());
        assert_eq!(Drop::NAMES[Drop::ArpPending as usize], "arp_pending");
    }
}

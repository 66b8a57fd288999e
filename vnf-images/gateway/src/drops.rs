//! Why packets are dropped, each with a counter.

slim_core::drop_reasons! {
    /// The frame arrived on a port that the gateway does not have.
    UnknownPort = "unknown_port",
    /// The frame is shorter than an Ethernet header.
    FrameTooShort = "frame_too_short",
    /// The frame is not addressed to the gateway's MAC address on this port.
    NotToOwnMac = "not_to_own_mac",
    /// From the cells: neither ARP nor an IPv4 packet with a cell's tag.
    Untagged = "untagged",
    /// From outside: neither ARP nor IPv4.
    NotIpv4 = "not_ipv4",
    /// IPv4 version, header length or total length is wrong.
    Ipv4Malformed = "ipv4_malformed",
    /// The IPv4 header checksum is wrong.
    Ipv4Checksum = "ipv4_checksum",
    /// The time to live does not allow another hop (RFC 1812 §5.3.1).
    TtlExpired = "ttl_expired",
    /// A fragment: it does not always tell the port that names the subscriber.
    Fragment = "fragment",
    /// Neither UDP nor TCP: there is no port.
    ProtocolUnsupported = "protocol_unsupported",
    /// The UDP or TCP header is cut off, or the subscriber's port is zero.
    TransportMalformed = "transport_malformed",
    /// From the cells, with a source that is no subscriber's address.
    SourceInvalid = "source_invalid",
    /// From the cells, to an address that is not outside.
    DestinationInvalid = "destination_invalid",
    /// From outside, to a subscriber that is not attached.
    UnknownSubscriber = "unknown_subscriber",
    /// A new subscriber, and the table is full. Those attached go on.
    SubscribersFull = "subscribers_full",
    /// The packet buffer has no room for the tag.
    NoRoom = "no_room",
    /// An ARP packet that asks nothing of the gateway.
    ArpIgnored = "arp_ignored",
}

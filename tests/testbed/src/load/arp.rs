//! ARP on both segments: stations answer for themselves; the interior hosts ask for the NAT.

use super::flows::Stations;
use core::net::{Ipv4Addr, SocketAddrV4};
use core::time::Duration;
use slim_core::packet::emit::{self, ARP_FRAME_LEN, Ends};
use slim_core::packet::{Arp, ArpOperation, Ethernet, MacAddr, PacketBuf};
use slim_core::time::Instant;

/// How long to wait for an answer before asking again.
const RETRY: Duration = Duration::from_millis(100);

/// An ARP frame as it goes out: the smallest Ethernet frame.
pub type ArpFrame = [u8; 60];

/// Turns `packet`, an ARP frame, into the answer if it is a request for one of `stations`.
pub fn answer<P: PacketBuf>(stations: &Stations, packet: &mut P) -> bool {
    let Some((sender_mac, sender, target)) = parse(packet.bytes())
        .filter(|arp| arp.operation() == ArpOperation::Request)
        .map(|arp| (arp.sender_mac(), arp.sender(), arp.target()))
    else {
        return false;
    };
    let Some(station) = stations.with_address(target) else { return false };
    let ends = Ends {
        source_mac: stations.mac(station),
        destination_mac: sender_mac,
        source: SocketAddrV4::new(target, 0),
        destination: SocketAddrV4::new(sender, 0),
    };
    emit::arp(packet.bytes_mut(), ArpOperation::Reply, &ends).is_ok()
}

fn parse(frame: &[u8]) -> Option<Arp<&[u8; slim_core::packet::ARP_LEN]>> {
    Arp::parse(Ethernet::parse(frame).ok()?.1).ok()
}

/// Interior hosts that look for the MAC address of their gateway, each for itself, as hosts do.
#[derive(Debug)]
pub struct Resolver {
    hosts: Stations,
    gateway: Ipv4Addr,
    known: Vec<Option<MacAddr>>,
    asked_at: Option<Instant>,
}

impl Resolver {
    /// No host knows the gateway yet.
    pub fn new(hosts: Stations, gateway: Ipv4Addr) -> Self {
        Self { hosts, gateway, known: vec![None; hosts.count().into()], asked_at: None }
    }

    /// The gateway's MAC address as `host` knows it.
    pub fn gateway_mac(&self, host: u16) -> Option<MacAddr> {
        self.known.get(usize::from(host)).copied().flatten()
    }

    /// Whether every host knows the gateway.
    pub fn is_done(&self) -> bool {
        self.known.iter().all(Option::is_some)
    }

    /// The requests to send now: none, or one of every host without an answer.
    pub fn requests(&mut self, now: Instant) -> Vec<ArpFrame> {
        if self.asked_at.is_some_and(|asked| now.saturating_since(asked) < RETRY) {
            return Vec::new();
        }
        self.asked_at = Some(now);
        (0..self.hosts.count())
            .filter(|host| self.gateway_mac(*host).is_none())
            .map(|host| self.request(host))
            .collect()
    }

    /// Learns from an ARP frame that arrives at the interior hosts.
    pub fn learn(&mut self, frame: &[u8]) {
        let Some(arp) = parse(frame).filter(|arp| arp.sender() == self.gateway) else { return };
        // An answer goes to the host that asked; any other news is for those that know the gateway already.
        match (arp.operation(), self.hosts.with_mac(arp.target_mac())) {
            (ArpOperation::Reply, Some(host)) => self.known[usize::from(host)] = Some(arp.sender_mac()),
            _ => self.known.iter_mut().flatten().for_each(|mac| *mac = arp.sender_mac()),
        }
    }

    fn request(&self, host: u16) -> ArpFrame {
        let mut frame = [0; size_of::<ArpFrame>()];
        let ends = Ends {
            source_mac: self.hosts.mac(host),
            destination_mac: MacAddr::BROADCAST,
            source: SocketAddrV4::new(self.hosts.address(host), 0),
            destination: SocketAddrV4::new(self.gateway, 0),
        };
        const { assert!(size_of::<ArpFrame>() >= ARP_FRAME_LEN) };
        let written = emit::arp(&mut frame, ArpOperation::Request, &ends);
        debug_assert_eq!(written, Ok(ARP_FRAME_LEN));
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::LoadSpec;
    use slim_core::packet::OwnedPacket;

    const GATEWAY_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn spec() -> LoadSpec {
        LoadSpec { hosts: 3, ..LoadSpec::default() }
    }

    /// What a gateway answers.
    fn reply(request: &[u8]) -> OwnedPacket {
        let arp = parse(request).unwrap();
        let ends = Ends {
            source_mac: GATEWAY_MAC,
            destination_mac: arp.sender_mac(),
            source: SocketAddrV4::new(arp.target(), 0),
            destination: SocketAddrV4::new(arp.sender(), 0),
        };
        let mut frame = [0; 60];
        emit::arp(&mut frame, ArpOperation::Reply, &ends).unwrap();
        OwnedPacket::from(&frame[..])
    }

    #[test]
    fn every_host_asks_until_it_is_answered() {
        let mut resolver = Resolver::new(Stations::hosts(&spec()), spec().nat_interior);
        let first = resolver.requests(Instant::ZERO);
        assert_eq!(first.len(), 3);
        assert!(resolver.requests(Instant::from_millis(99)).is_empty());
        resolver.learn(reply(&first[1]).bytes());
        assert_eq!(resolver.gateway_mac(1), Some(GATEWAY_MAC));
        assert_eq!((resolver.gateway_mac(0), resolver.is_done()), (None, false));
        let second = resolver.requests(Instant::from_millis(100));
        assert_eq!(second.len(), 2);
        second.iter().for_each(|request| resolver.learn(reply(request).bytes()));
        assert!(resolver.is_done());
        assert!(resolver.requests(Instant::from_millis(300)).is_empty());
    }

    #[test]
    fn only_the_gateway_is_believed() {
        let spec = spec();
        let mut resolver = Resolver::new(Stations::hosts(&spec), spec.nat_interior);
        let requests = resolver.requests(Instant::ZERO);
        let mut forged = reply(&requests[0]);
        let at = 14 + 14;
        forged.bytes_mut()[at..at + 4].copy_from_slice(&Ipv4Addr::new(10, 1, 0, 9).octets());
        resolver.learn(forged.bytes());
        resolver.learn(&requests[1]);
        resolver.learn(&[0; 20]);
        assert_eq!(resolver.gateway_mac(0), None);
    }

    #[test]
    fn stations_answer_for_themselves_alone() {
        let stations = Stations::echo_servers(&spec());
        let mut asker = Resolver::new(Stations::hosts(&spec()), stations.address(2));
        let mut packet = OwnedPacket::from(&asker.requests(Instant::ZERO)[0][..]);
        assert!(answer(&stations, &mut packet));
        let arp = parse(packet.bytes()).unwrap();
        assert_eq!(
            (arp.operation(), arp.sender_mac(), arp.sender()),
            (ArpOperation::Reply, stations.mac(2), stations.address(2))
        );
        assert_eq!(Ethernet::parse(packet.bytes()).unwrap().0.source(), stations.mac(2));
        asker.learn(packet.bytes());
        assert_eq!(asker.gateway_mac(0), Some(stations.mac(2)));
        assert!(!answer(&stations, &mut packet), "a reply is not answered");

        let mut other = Resolver::new(Stations::hosts(&spec()), Ipv4Addr::new(10, 2, 0, 99));
        let mut packet = OwnedPacket::from(&other.requests(Instant::ZERO)[0][..]);
        assert!(!answer(&stations, &mut packet));
    }
}

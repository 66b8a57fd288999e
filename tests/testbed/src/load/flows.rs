//! Who talks to whom: interior hosts, their sockets, and the echo servers.

use super::spec::{ECHO_PORT, LoadSpec, SOCKET_PORT_FIRST};
use core::net::{Ipv4Addr, SocketAddrV4};
use slim_core::packet::MacAddr;
use std::collections::HashMap;

/// A range of stations on one Ethernet segment, with consecutive IPv4 and MAC addresses.
#[derive(Debug, Clone, Copy)]
pub struct Stations {
    first: Ipv4Addr,
    count: u16,
    /// The MAC addresses' fourth byte, which tells the segments apart.
    segment: u8,
}

impl Stations {
    /// The interior hosts of `spec`.
    pub fn hosts(spec: &LoadSpec) -> Self {
        Self { first: spec.first_host, count: spec.hosts, segment: 1 }
    }

    /// The echo servers of `spec`.
    pub fn echo_servers(spec: &LoadSpec) -> Self {
        Self { first: spec.first_echo_server, count: spec.echo_servers, segment: 2 }
    }

    /// Number of stations.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// The address of station `index`.
    pub fn address(&self, index: u16) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.to_bits().wrapping_add(index.into()))
    }

    /// The MAC address of station `index`.
    pub fn mac(&self, index: u16) -> MacAddr {
        let [high, low] = index.to_be_bytes();
        MacAddr([0x02, 0x51, 0x1a, self.segment, high, low])
    }

    /// The station with this address.
    pub fn with_address(&self, address: Ipv4Addr) -> Option<u16> {
        let index = u16::try_from(address.to_bits().wrapping_sub(self.first.to_bits())).ok()?;
        (index < self.count).then_some(index)
    }

    /// The station with this MAC address.
    pub fn with_mac(&self, mac: MacAddr) -> Option<u16> {
        let [.., high, low] = mac.0;
        let index = u16::from_be_bytes([high, low]);
        (index < self.count && self.mac(index) == mac).then_some(index)
    }
}

/// A socket and the server it talks to.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// The number of the host that has the socket.
    pub host: u16,
    /// The socket's address and port.
    pub interior: SocketAddrV4,
    /// The echo server's address and port.
    pub server: SocketAddrV4,
    /// The socket's port at the NAT's exterior address, once a packet has shown it.
    pub exterior_port: Option<u16>,
}

/// All flows, and what is known of their translation.
#[derive(Debug)]
pub struct Flows {
    flows: Vec<Flow>,
    /// Whose packets come to a server from an exterior port: two flows must not look the same to one server.
    owners: HashMap<(Ipv4Addr, u16), u16>,
}

impl Flows {
    /// The flows of `spec`: sockets go round the hosts, the sockets of each host round the servers.
    pub fn new(spec: &LoadSpec) -> Self {
        let (hosts, servers) = (Stations::hosts(spec), Stations::echo_servers(spec));
        let flow = |number: u16| {
            let (host, socket) = (number % spec.hosts, number / spec.hosts);
            // Hosts begin with different servers, so that few sockets reach all of them, too.
            let server = ((u32::from(host) + u32::from(socket)) % u32::from(spec.echo_servers)) as u16;
            Flow {
                host,
                interior: SocketAddrV4::new(hosts.address(host), SOCKET_PORT_FIRST + socket),
                server: SocketAddrV4::new(servers.address(server), ECHO_PORT),
                exterior_port: None,
            }
        };
        Self { flows: (0..spec.sockets).map(flow).collect(), owners: HashMap::new() }
    }

    /// Flow number `number`.
    pub fn get(&self, number: u16) -> Option<&Flow> {
        self.flows.get(usize::from(number))
    }

    /// All flows in order.
    pub fn iter(&self) -> impl Iterator<Item = &Flow> {
        self.flows.iter()
    }

    /// Whether flow `number` may show up at its server with this exterior port.
    ///
    /// The first packet decides; from then on the port must stay, and must be this flow's alone at its server.
    pub fn exterior_port_fits(&mut self, number: u16, port: u16) -> bool {
        let Some(flow) = self.flows.get_mut(usize::from(number)) else { return false };
        match flow.exterior_port {
            Some(known) => known == port,
            None => {
                let owner = *self.owners.entry((*flow.server.ip(), port)).or_insert(number);
                if owner == number {
                    flow.exterior_port = Some(port);
                }
                owner == number
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn sockets_are_distinct_and_spread_over_hosts_and_servers() {
        for sockets in [1, 4, 128, 1000] {
            let spec = LoadSpec { sockets, ..LoadSpec::default() };
            let flows = Flows::new(&spec);
            let interior: HashSet<_> = flows.iter().map(|flow| flow.interior).collect();
            assert_eq!(interior.len(), usize::from(sockets));
            let hosts: HashSet<_> = flows.iter().map(|flow| *flow.interior.ip()).collect();
            assert_eq!(hosts.len(), usize::from(sockets.min(spec.hosts)));
            let servers: HashSet<_> = flows.iter().map(|flow| flow.server).collect();
            assert_eq!(servers.len(), usize::from(sockets.min(spec.echo_servers)));
        }
    }

    #[test]
    fn stations_are_found_by_either_address() {
        let stations = Stations::hosts(&LoadSpec::default());
        for index in 0..stations.count() {
            assert_eq!(stations.with_address(stations.address(index)), Some(index));
            assert_eq!(stations.with_mac(stations.mac(index)), Some(index));
        }
        assert_eq!(stations.with_address(stations.address(stations.count())), None);
        assert_eq!(stations.with_address(Ipv4Addr::new(10, 1, 0, 9)), None);
        assert_eq!(stations.with_mac(stations.mac(stations.count())), None);
        assert_eq!(Stations::echo_servers(&LoadSpec::default()).with_mac(stations.mac(0)), None);
    }

    #[test]
    fn an_exterior_port_stays_and_belongs_to_one_flow_of_a_server() {
        let spec = LoadSpec { hosts: 1, echo_servers: 2, sockets: 3, ..LoadSpec::default() };
        let mut flows = Flows::new(&spec);
        assert!(flows.exterior_port_fits(0, 5000));
        assert!(flows.exterior_port_fits(0, 5000));
        assert!(!flows.exterior_port_fits(0, 5001), "another port than before");
        assert!(flows.exterior_port_fits(1, 5000), "the same port towards another server can be told apart");
        assert!(!flows.exterior_port_fits(2, 5000), "flow 0 has this port at the same server");
        assert!(flows.exterior_port_fits(2, 5002));
        assert!(!flows.exterior_port_fits(3, 5003), "there is no such flow");
    }
}

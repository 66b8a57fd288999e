//! Both ends of the traffic: sockets that send, servers that echo, and the recorder that judges what arrives.
//!
//! Frames are built and answered in place, in whatever buffers the driver has. The driver passes every frame that
//! arrives at one of its two ports to [`Workload::inside`] or [`Workload::outside`] and sends what is to be answered.

use super::arp::{self, ArpFrame, Resolver};
use super::cells::Cells;
use super::flows::{Flow, Flows, Stations};
use super::recorder::Recorder;
use super::report::{BEFORE, DirectionReport, FLOWS_LISTED, FlowReport, REPORT_FORMAT, Report};
use super::spec::LoadSpec;
use super::stamp::{Direction, STAMP_LEN, Stamp};
use core::net::SocketAddrV4;
use slim_core::packet::emit::{self, Ends, UDP_PAYLOAD_AT};
use slim_core::packet::{Ethernet, Ipv4, MacAddr, NoRoom, PacketBuf, Udp, ether_type, protocol};
use slim_core::time::Instant;
use slim_gateway::tag::{self, Tag};

/// What to do with a frame after it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It has been dealt with.
    Done,
    /// It has become an answer: send it out of the port it came from.
    Answer,
}

/// A run: the flows, what is known of the NAT, and the recorder.
#[derive(Debug)]
pub struct Workload {
    spec: LoadSpec,
    hosts: Stations,
    servers: Stations,
    flows: Flows,
    resolver: Resolver,
    /// The NAT's exterior MAC address, as the first packet from there showed it.
    nat_exterior_mac: Option<MacAddr>,
    /// Where the subscribers are, if it is the load of a packet gateway.
    cells: Option<Cells>,
    recorder: Recorder,
    /// The flow whose turn it is.
    next_flow: u16,
    /// What every payload is filled with: incompressible, the same in each.
    filler: Vec<u8>,
    foreign_frames: u64,
}

impl Workload {
    /// The workload of `spec`, before its first packet.
    pub fn new(spec: &LoadSpec, now: Instant) -> Self {
        let hosts = Stations::hosts(spec);
        let seconds = spec.warmup_s + spec.duration_s;
        // What is known to come needs no growing later.
        let packets_per_flow = (spec.packets_per_second() * seconds / f64::from(spec.sockets) * 1.05) as usize;
        Self {
            spec: spec.clone(),
            hosts,
            servers: Stations::echo_servers(spec),
            flows: Flows::new(spec),
            resolver: Resolver::new(hosts, spec.nat_interior),
            nat_exterior_mac: None,
            cells: spec.gateway.then(|| Cells::new(spec.sockets, spec.hand_over_s, spec.cell_seed, now)),
            recorder: Recorder::new(spec.sockets.into(), packets_per_flow, spec.late(), now),
            next_flow: 0,
            filler: filler(spec.payload_len()),
            foreign_frames: 0,
        }
    }

    /// The ARP requests to send into the interior now.
    pub fn arp_requests(&mut self, now: Instant) -> Vec<ArpFrame> {
        self.resolver.requests(now)
    }

    /// Whether every interior host knows the NAT.
    pub fn is_resolved(&self) -> bool {
        self.resolver.is_done()
    }

    /// Begins the warm-up: requests are sent from now on.
    pub fn begin(&mut self, now: Instant) {
        self.recorder.begin(now);
    }

    /// Ends the warm-up: what is sent from now on is measured.
    pub fn measure(&mut self, now: Instant) {
        self.recorder.begin_phase(BEFORE, now);
    }

    /// The name of the present phase.
    pub fn phase(&self) -> &str {
        self.recorder.phase()
    }

    /// The recorder, for what only the driver knows.
    pub fn recorder(&mut self) -> &mut Recorder {
        &mut self.recorder
    }

    /// Fills `packet`, which is empty, with the next request, its socket the next in turn.
    ///
    /// # Errors
    /// [`NoRoom`] if the buffer is too small; nothing counts as sent then.
    pub fn request<P: PacketBuf>(&mut self, packet: &mut P, now: Instant) -> Result<(), NoRoom> {
        let number = self.next_flow;
        let flow = *self.flows.get(number).ok_or(NoRoom)?;
        let gateway = self.resolver.gateway_mac(flow.host).ok_or(NoRoom)?;
        packet.append(UDP_PAYLOAD_AT + self.filler.len())?;
        let payload = packet.bytes_mut().get_mut(UDP_PAYLOAD_AT..).ok_or(NoRoom)?;
        payload.copy_from_slice(&self.filler);
        let counter = self.recorder.send(Direction::Outbound, number).ok_or(NoRoom)?;
        Stamp { direction: Direction::Outbound, socket: number, counter, sent_at: now }.write(payload);
        let ends = Ends {
            source_mac: self.mac_of(&flow),
            destination_mac: gateway,
            source: flow.interior,
            destination: flow.server,
        };
        emit::udp_around(packet.bytes_mut(), &ends, self.filler.len())?;
        if let Some(tag) = self.cells.as_mut().and_then(|cells| cells.tag(number, now))
            && let Err(no_room) = put_tag(packet, tag, &ends)
        {
            self.recorder.retract(Direction::Outbound, number);
            return Err(no_room);
        }
        self.next_flow = (number + 1) % self.spec.sockets;
        Ok(())
    }

    /// Handles a frame that arrives at the interior hosts.
    pub fn inside<P: PacketBuf>(&mut self, packet: &mut P, now: Instant) -> Next {
        let frame = packet.bytes();
        match Ethernet::parse(frame) {
            Ok((ethernet, _)) if ethernet.ether_type() == ether_type::ARP => {
                self.resolver.learn(frame);
                return if arp::answer(&self.hosts, packet) { Next::Answer } else { Next::Done };
            }
            Ok((ethernet, _)) if self.hosts.with_mac(ethernet.destination()).is_some() => {}
            _ => return self.foreign(),
        }
        let mut cell = None;
        if self.cells.is_some() {
            cell = take_tag(packet).map(|tag| tag.cell);
            if cell.is_none() {
                return self.foreign();
            }
        }
        let Some(arrival) = self.arrival(Direction::Inbound, packet.bytes(), now) else { return Next::Done };
        let Some(flow) = self.flows.get(arrival.stamp.socket) else { return Next::Done };
        let right = arrival.source == flow.server
            && arrival.destination == flow.interior
            && arrival.destination_mac == self.mac_of(flow)
            && self.resolver.gateway_mac(flow.host) == Some(arrival.source_mac);
        if self.note(&arrival, right, now) {
            let reaches = |(cells, cell): (&Cells, u16)| cells.reaches(arrival.stamp.socket, cell, now);
            if !self.cells.as_ref().zip(cell).is_none_or(reaches) {
                self.recorder.misdirected(Direction::Inbound);
            }
            self.recorder.round_trip(arrival.stamp.sent_at, now);
        }
        Next::Done
    }

    /// Handles a frame that arrives at the echo servers.
    pub fn outside<P: PacketBuf>(&mut self, packet: &mut P, now: Instant) -> Next {
        let frame = packet.bytes();
        match Ethernet::parse(frame) {
            Ok((ethernet, _)) if ethernet.ether_type() == ether_type::ARP => {
                return if arp::answer(&self.servers, packet) { Next::Answer } else { Next::Done };
            }
            Ok((ethernet, _)) if self.servers.with_mac(ethernet.destination()).is_some() => {}
            _ => return self.foreign(),
        }
        let Some(arrival) = self.arrival(Direction::Outbound, frame, now) else { return Next::Done };
        let Some(flow) = self.flows.get(arrival.stamp.socket) else { return Next::Done };
        // A packet gateway sends to the next router and leaves addresses alone.
        let right_ends = if self.cells.is_some() {
            arrival.destination_mac == self.servers.mac(0) && arrival.source == flow.interior
        } else {
            self.servers.with_address(*flow.server.ip()).map(|server| self.servers.mac(server))
                == Some(arrival.destination_mac)
                && *arrival.source.ip() == self.spec.nat_exterior
        };
        let right = arrival.destination == flow.server
            && right_ends
            && *self.nat_exterior_mac.get_or_insert(arrival.source_mac) == arrival.source_mac
            && (self.cells.is_some() || self.flows.exterior_port_fits(arrival.stamp.socket, arrival.source.port()));
        if self.note(&arrival, right, now) && self.echo(packet, &arrival).is_ok() {
            return Next::Answer;
        }
        Next::Done
    }

    /// Takes back a packet that the driver could not send: of a request or an answer, by its own bytes.
    pub fn take_back<P: PacketBuf>(&mut self, packet: &P, now: Instant) {
        let stamp = packet.bytes().get(UDP_PAYLOAD_AT..).and_then(|payload| Stamp::read(payload, now).ok());
        if let Some(stamp) = stamp {
            self.recorder.retract(stamp.direction, stamp.socket);
        }
    }

    /// The report as of `now`. `complete`: traffic was sent for the whole duration.
    pub fn report(&self, complete: bool, now: Instant) -> Report {
        let (phases, total) = self.recorder.report(now);
        let flow_report = |number: u16| {
            let directions = [Direction::Outbound, Direction::Inbound];
            let [outbound, inbound] = directions.map(|direction| self.recorder.flow_report(direction, number, 1));
            let flow = self.flows.get(number)?;
            (!outbound.is_clean() || !inbound.is_clean()).then(|| FlowReport {
                socket: number,
                interior: flow.interior.to_string(),
                exterior: flow.exterior_port.map(|port| SocketAddrV4::new(self.spec.nat_exterior, port).to_string()),
                server: flow.server.to_string(),
                outbound,
                inbound,
            })
        };
        let mut affected = (0..self.spec.sockets).filter_map(flow_report);
        let flows: Vec<FlowReport> = affected.by_ref().take(FLOWS_LISTED).collect();
        Report {
            format: REPORT_FORMAT,
            spec: self.spec.clone(),
            packets_per_second: self.spec.packets_per_second(),
            complete,
            total,
            phases,
            rtt_interval_mean_max_us: self.recorder.interval_mean_max().as_micros() as u64,
            foreign_frames: self.foreign_frames,
            flows_affected: flows.len() as u64 + affected.count() as u64,
            flows,
        }
    }

    /// Both directions so far, packets under way counted as lost.
    pub fn so_far(&self) -> [DirectionReport; 2] {
        [Direction::Outbound, Direction::Inbound].map(|direction| self.recorder.so_far(direction))
    }

    /// The MAC address that a flow's packets go to inside: its host's, or that of the radio network.
    fn mac_of(&self, flow: &Flow) -> MacAddr {
        self.hosts.mac(if self.cells.is_some() { 0 } else { flow.host })
    }

    /// Reads one of our packets, or counts what else it is.
    fn arrival(&mut self, direction: Direction, frame: &[u8], now: Instant) -> Option<Arrival> {
        let Ok((ethernet, packet)) = Ethernet::parse(frame) else { return self.not_ours() };
        if ethernet.ether_type() != ether_type::IPV4 {
            return self.not_ours();
        }
        let corrupt = |workload: &mut Self| {
            workload.recorder.corrupt(direction);
            None
        };
        let Ok((ip, datagram)) = Ipv4::parse(packet) else { return corrupt(self) };
        // We send no options either: stamps are found at a fixed place.
        if !ip.checksum_is_correct() || !ip.options().is_empty() {
            return corrupt(self);
        }
        if ip.protocol() != protocol::UDP || ip.is_fragment() {
            return self.not_ours();
        }
        let Ok((udp, payload)) = Udp::parse(datagram) else { return corrupt(self) };
        let pseudo_header = ip.pseudo_header(udp.length());
        // We always send a checksum; a NAT has no business removing it.
        let intact = udp.checksum() != 0 && udp.checksum_is_correct(pseudo_header, payload);
        let stamp = Stamp::read(payload, now).ok().filter(|stamp| stamp.direction == direction);
        let Some(stamp) = stamp.filter(|_| intact && payload.len() == self.filler.len()) else { return corrupt(self) };
        Some(Arrival {
            stamp,
            source_mac: ethernet.source(),
            destination_mac: ethernet.destination(),
            source: SocketAddrV4::new(ip.source(), udp.source()),
            destination: SocketAddrV4::new(ip.destination(), udp.destination()),
        })
    }

    /// Notes an arrival; false if no such packet was ever sent.
    fn note(&mut self, arrival: &Arrival, right: bool, now: Instant) -> bool {
        let Stamp { direction, socket, counter, .. } = arrival.stamp;
        if self.recorder.receive(direction, socket, counter, now).is_err() {
            self.recorder.corrupt(direction);
            return false;
        }
        if !right {
            self.recorder.mistranslated(direction, socket, counter);
        }
        true
    }

    /// Turns a request into the server's answer: addresses swapped, the same size, a counter of its own.
    fn echo<P: PacketBuf>(&mut self, packet: &mut P, arrival: &Arrival) -> Result<(), NoRoom> {
        let len = self.filler.len();
        let frame = packet.bytes_mut();
        let payload = frame.get_mut(UDP_PAYLOAD_AT..UDP_PAYLOAD_AT + len).ok_or(NoRoom)?;
        let socket = arrival.stamp.socket;
        let counter = self.recorder.send(Direction::Inbound, socket).ok_or(NoRoom)?;
        Stamp { direction: Direction::Inbound, counter, ..arrival.stamp }.write(payload);
        let ends = Ends {
            source_mac: arrival.destination_mac,
            destination_mac: arrival.source_mac,
            source: arrival.destination,
            destination: arrival.source,
        };
        emit::udp_around(frame, &ends, len)?;
        packet.truncate(UDP_PAYLOAD_AT + len);
        Ok(())
    }

    fn foreign(&mut self) -> Next {
        self.foreign_frames += 1;
        Next::Done
    }

    fn not_ours(&mut self) -> Option<Arrival> {
        self.foreign();
        None
    }
}

/// Puts a gateway's tag into a frame between `ends`.
fn put_tag<P: PacketBuf>(packet: &mut P, tag: Tag, ends: &Ends) -> Result<(), NoRoom> {
    tag.insert(packet)?;
    let (mut ethernet, _) = Ethernet::parse_mut(packet.bytes_mut()).map_err(|_| NoRoom)?;
    ethernet.set_source(ends.source_mac);
    ethernet.set_destination(ends.destination_mac);
    Ok(())
}

/// Takes a gateway's tag out of a frame, if there is one.
fn take_tag<P: PacketBuf>(packet: &mut P) -> Option<Tag> {
    let (ethernet, tagged) = Ethernet::parse(packet.bytes()).ok()?;
    let tag = (ethernet.ether_type() == tag::ETHER_TYPE).then(|| Tag::parse(tagged)).flatten()?;
    let (source, destination) = (ethernet.source(), ethernet.destination());
    tag::remove(packet);
    let (mut ethernet, _) = Ethernet::parse_mut(packet.bytes_mut()).ok()?;
    ethernet.set_source(source);
    ethernet.set_destination(destination);
    Some(tag)
}

/// One of our packets as it arrived.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    stamp: Stamp,
    source_mac: MacAddr,
    destination_mac: MacAddr,
    source: SocketAddrV4,
    destination: SocketAddrV4,
}

/// Pseudo-random bytes (xorshift), so that no link and no stream can compress them.
fn filler(len: usize) -> Vec<u8> {
    const { assert!(UDP_PAYLOAD_AT + STAMP_LEN == 60) };
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| byte()).collect()
}

#[cfg(test)]
mod tests;

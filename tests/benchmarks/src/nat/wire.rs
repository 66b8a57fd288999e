//! Ports that are memory: an lcore's input and output without a driver.

use slim_core::nf::PortId;
use slim_core::packet::{NoRoom, PacketBuf};
use slim_core::vei::lcore::{BURST, Burst, Cause, Counted, Io};
use slim_prefetch::prefetch;

/// An Ethernet frame of 64 bytes, the last four of which are its check sequence and never seen by software.
pub const FRAME_LEN: usize = 60;

/// A frame with room for its check sequence, so that it is one cache line.
pub type Line = [u8; 64];

/// A packet buffer, as an mbuf is one: what it points to is used again and again.
pub struct Packet {
    line: Box<Line>,
    len: usize,
}

impl PacketBuf for Packet {
    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.line[..self.len]
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.line[..self.len]
    }

    fn prepend(&mut self, _: usize) -> Result<(), NoRoom> {
        Err(NoRoom)
    }

    fn trim_front(&mut self, len: usize) {
        self.line.copy_within(len.min(self.len)..self.len, 0);
        self.len -= len.min(self.len);
    }

    fn append(&mut self, len: usize) -> Result<(), NoRoom> {
        let longer = self.len + len;
        if longer > self.line.len() {
            return Err(NoRoom);
        }
        self.len = longer;
        Ok(())
    }

    fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

/// What has become of packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fates {
    /// Left through a port.
    pub transmitted: u64,
    /// Dropped, by whomever.
    pub dropped: u64,
    /// For the network function itself.
    pub consumed: u64,
}

/// Two ports of memory. Each gives out its frames in their order, again and again; what is transmitted is thrown away.
pub struct Wire {
    frames: [Vec<Line>; 2],
    next: [usize; 2],
    free: Vec<Packet>,
    /// How many frames still arrive at each port.
    supply: [usize; 2],
    /// What has become of packets so far.
    pub fates: Fates,
    /// The last frame transmitted, if it is wanted.
    pub last: Line,
    /// Whether it is.
    pub keeps_last: bool,
}

/// How far frames are asked for ahead of their turn.
const AHEAD: usize = 16;

/// More packets than are under way at a time.
const BUFFERS: usize = 8 * BURST;

impl Wire {
    /// Ports at which nothing arrives yet.
    pub fn new() -> Self {
        let free = (0..BUFFERS).map(|_| Packet { line: Box::new([0; 64]), len: 0 }).collect();
        let frames = [Vec::new(), Vec::new()];
        Self { frames, next: [0; 2], supply: [0; 2], free, fates: Fates::default(), last: [0; 64], keeps_last: false }
    }

    /// What will arrive at a port, from its begin.
    pub fn feed(&mut self, port: PortId, frames: Vec<Line>) {
        let index = usize::from(port.0);
        self.frames[index] = frames;
        self.next[index] = 0;
    }

    /// Lets so many frames arrive at a port.
    pub fn supply(&mut self, port: PortId, frames: usize) {
        self.supply[usize::from(port.0)] = frames;
    }

    /// Receives a burst at each port and transmits it as it is. The number of packets.
    pub fn reflect(&mut self) -> usize {
        let mut count = 0;
        for port in [PortId(0), PortId(1)] {
            let mut burst = Burst::new();
            count += self.receive(port, &mut burst);
            for packet in burst {
                self.transmit(port, std::hint::black_box(packet));
            }
        }
        count
    }
}

impl Io for Wire {
    type Packet = Packet;

    #[inline]
    fn receive(&mut self, port: PortId, burst: &mut Burst<Packet>) -> usize {
        let index = usize::from(port.0);
        let frames = &self.frames[index];
        let wanted = if frames.is_empty() { 0 } else { self.supply[index].min(BURST) };
        let mut count = 0;
        while count < wanted {
            let Some(mut packet) = self.free.pop() else { break };
            let at = self.next[index];
            // A card has written frames into the cache when they are received.
            prefetch(&frames[(at + AHEAD) % frames.len()]);
            *packet.line = frames[at];
            packet.len = FRAME_LEN;
            self.next[index] = if at + 1 < frames.len() { at + 1 } else { 0 };
            if let Err(packet) = burst.push(packet) {
                self.free.push(packet);
                break;
            }
            count += 1;
        }
        self.supply[index] -= count;
        count
    }

    #[inline]
    fn buffer(&mut self) -> Option<Packet> {
        let mut packet = self.free.pop()?;
        packet.len = 0;
        Some(packet)
    }

    #[inline]
    fn transmit(&mut self, _: PortId, packet: Packet) {
        self.fates.transmitted += 1;
        if self.keeps_last {
            self.last = *packet.line;
        }
        self.free.push(packet);
    }

    #[inline]
    fn flush(&mut self) {
        // What was dropped took its buffer with it; a pool would have it back.
        while self.free.len() < BUFFERS {
            self.free.push(Packet { line: Box::new([0; 64]), len: 0 });
        }
    }

    fn dropped(&mut self, _: Cause, packets: u64) {
        self.fates.dropped += packets;
    }

    fn refused(&mut self, _: u16) {
        self.fates.dropped += 1;
    }

    // No benchmark migrates to an lcore.
    fn refused_total(&self, _: u16) -> u64 {
        0
    }

    fn set_refused_total(&mut self, _: u16, _: u64) {}

    fn count(&mut self, what: Counted) {
        self.fates.consumed += u64::from(what == Counted::Consumed);
    }
}

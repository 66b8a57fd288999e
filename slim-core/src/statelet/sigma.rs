//! The statelet factor σ: statelet bytes divided by packet bytes (§V).
//!
//! The paper counts values only. On the wire a statelet also has a type and a length, and its stream has the headers
//! of TCP, IP and Ethernet; a packet has Ethernet's framing. Both readings are given, for they answer different
//! questions: the first what a network function announces, the second what a link carries.

use super::encode::HEADER_LEN;

/// What a packet or a segment of the statelet stream costs on the wire beyond its own bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireCosts {
    /// Most bytes of the stream in one TCP segment.
    pub segment_max_bytes: u64,
    /// Bytes of a segment's Ethernet, IPv4 and TCP headers.
    pub segment_header_bytes: u64,
    /// Bytes of Ethernet around each frame that is not counted as part of it.
    pub frame_bytes: u64,
}

impl WireCosts {
    /// TCP with time stamps over Ethernet of 1500 bytes; 4 bytes of check sequence, no preamble and no gap, as link
    /// meters count.
    pub const ETHERNET: Self = Self { segment_max_bytes: 1448, segment_header_bytes: 14 + 20 + 32, frame_bytes: 4 };
}

impl WireCosts {
    /// What a stream of `stream_bytes` in `segments` TCP segments takes on the wire.
    ///
    /// With 0, or fewer than the stream needs, segments are taken to be full.
    pub fn stream_on_the_wire(&self, stream_bytes: u64, segments: u64) -> u64 {
        let segments = segments.max(stream_bytes.div_ceil(self.segment_max_bytes.max(1)));
        stream_bytes + segments * (self.segment_header_bytes + self.frame_bytes)
    }
}

/// What packets went through a network function and what statelets it announced meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sigma {
    /// Number of packets.
    pub packets: u64,
    /// Their bytes, from the first of the Ethernet header to the last of the payload.
    pub packet_bytes: u64,
    /// Number of statelets.
    pub statelets: u64,
    /// Bytes of their values.
    pub value_bytes: u64,
}

impl Sigma {
    /// Counts a packet of `bytes` bytes.
    #[inline]
    pub fn add_packet(&mut self, bytes: usize) {
        self.packets += 1;
        self.packet_bytes += bytes as u64;
    }

    /// Counts a statelet with a value of `bytes` bytes.
    #[inline]
    pub fn add_statelet(&mut self, bytes: usize) {
        self.statelets += 1;
        self.value_bytes += bytes as u64;
    }

    /// Bytes of the statelets with their types and lengths: the stream's, if it is neither merged nor compressed.
    pub const fn stream_bytes(&self) -> u64 {
        self.value_bytes + self.statelets * HEADER_LEN as u64
    }

    /// σ as the paper counts it: bytes of values over bytes of packets. 0 if there were no packets.
    pub fn of_values(&self) -> f64 {
        ratio(self.value_bytes, self.packet_bytes)
    }

    /// σ on the wire, with a stream of `stream_bytes` in `segments` TCP segments. 0 if there were no packets.
    ///
    /// With 0, or fewer than the stream needs, segments are taken to be full.
    pub fn on_the_wire(&self, costs: &WireCosts, stream_bytes: u64, segments: u64) -> f64 {
        let statelets = costs.stream_on_the_wire(stream_bytes, segments);
        ratio(statelets, self.packet_bytes + self.packets * costs.frame_bytes)
    }
}

fn ratio(numerator: u64, denominator: u64) -> f64 {
    if denominator == 0 { 0.0 } else { numerator as f64 / denominator as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Table II: 512-byte packets, a counter statelet for each, and every 15th opens a socket.
    fn nat() -> Sigma {
        let mut sigma = Sigma::default();
        for packet in 0..15_000 {
            sigma.add_packet(512);
            sigma.add_statelet(12);
            if packet % 15 == 0 {
                sigma.add_statelet(18);
            }
        }
        sigma
    }

    #[test]
    fn sigma_of_values_is_that_of_table_ii() {
        assert!((nat().of_values() - 0.0258).abs() < 0.0001);
    }

    #[test]
    fn sigma_on_the_wire_counts_all_headers() {
        let sigma = nat();
        let stream = 15_000 * 16 + 1_000 * 22;
        assert_eq!(sigma.stream_bytes(), stream);
        let full = (stream + stream.div_ceil(1448) * 70) as f64 / (15_000.0 * 516.0);
        assert_eq!(sigma.on_the_wire(&WireCosts::ETHERNET, stream, 0), full);
        let sparse = (stream + 1_000 * 70) as f64 / (15_000.0 * 516.0);
        assert_eq!(sigma.on_the_wire(&WireCosts::ETHERNET, stream, 1_000), sparse);
    }

    #[test]
    fn sigma_without_packets_is_zero() {
        assert_eq!(Sigma::default().of_values(), 0.0);
        assert_eq!(Sigma::default().on_the_wire(&WireCosts::ETHERNET, 0, 5), 0.0);
    }
}

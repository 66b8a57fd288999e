//! Packets that are longer than the link they leave through allows (RFC 4787 R13).
//!
//! One that may be fragmented is; the sender of another is told the MTU (RFC 1191 §4), whatever part of a train it is.
//! Fragments are cut as RFC 791 §3.2 has it: every piece but the last is as long as fits, and only the first has the
//! options that are not copied. Nothing of this is state.

use crate::Nat;
use crate::drops::Drop;
use crate::transport::Ipv4Mut;
use crate::types::Side;
use core::net::Ipv4Addr;
use slim_core::nf::Environment;
use slim_core::packet::{ETHERNET_LEN, IPV4_LEN, Ipv4, PacketBuf};

/// The longest IPv4 packet of a link, in bytes: Ethernet's.
pub const MTU_MAX: u16 = 1500;

/// The shortest that every link carries: the longest header and 8 bytes (RFC 791 §3.2).
pub const MTU_MIN: u16 = 68;

/// The longest IPv4 header, in bytes.
const HEADER_LEN_MAX: usize = 60;

/// The bit of an option's type that says whether every fragment has it (RFC 791 §3.1).
const COPIED: u8 = 0x80;

const MORE_FRAGMENTS: u16 = 0x2000;

impl Nat {
    /// The time to live that a packet leaves with, if it may leave at all.
    #[inline(always)]
    pub(crate) fn may_leave(&self, ip: &Ipv4Mut<'_>, egress: Side) -> Result<u8, Drop> {
        let ttl = ip.ttl().checked_sub(1).filter(|ttl| *ttl > 0).ok_or(Drop::TtlExpired)?;
        if ip.total_len() > self.interface(egress).mtu && ip.dont_fragment() {
            return Err(Drop::TooBig);
        }
        Ok(ttl)
    }

    /// Where a packet from `side` would have left, to tell its sender of the MTU there.
    pub(crate) fn egress_mtu(&self, side: Side, destination: Ipv4Addr) -> u16 {
        let egress = match side {
            Side::Interior if !self.is_own(Side::Exterior, destination) => Side::Exterior,
            Side::Interior | Side::Exterior => Side::Interior,
        };
        self.interface(egress).mtu
    }

    /// Whether a frame that leaves through `egress` has to be looked at by [`fragment`](Self::fragment).
    #[inline(always)]
    pub(crate) fn is_too_long(&self, frame: &[u8], egress: Side) -> bool {
        frame.len() > ETHERNET_LEN + usize::from(self.interface(egress).mtu)
    }

    /// Makes the last fragment of a packet that is too long for `egress`, and emits the others before it.
    #[cold]
    pub(crate) fn fragment<P: PacketBuf, E: Environment>(&mut self, env: &mut E, packet: &mut P, egress: Side) {
        let mut piece = [0; ETHERNET_LEN + MTU_MAX as usize];
        let Some(last) = self.emit_all_but_last(env, packet.bytes(), egress, &mut piece) else { return };
        packet.truncate(last);
        if let Some(piece) = piece.get(..packet.bytes().len()) {
            packet.bytes_mut().copy_from_slice(piece);
        }
    }

    /// Emits a frame, in fragments if it is too long for `egress`.
    pub(crate) fn emit_fitting<E: Environment>(&mut self, env: &mut E, frame: &[u8], egress: Side) {
        let mut piece = [0; ETHERNET_LEN + MTU_MAX as usize];
        let last = self.is_too_long(frame, egress).then(|| self.emit_all_but_last(env, frame, egress, &mut piece));
        match last.flatten() {
            Some(last) => env.emit(egress.port(), piece.get(..last).unwrap_or_default()),
            None => env.emit(egress.port(), frame),
        }
    }

    /// The length of the last fragment, which is left in `piece`. `None` if the packet is not too long after all.
    fn emit_all_but_last<E: Environment>(
        &mut self,
        env: &mut E,
        frame: &[u8],
        egress: Side,
        piece: &mut [u8],
    ) -> Option<usize> {
        let mut pieces = Pieces::of(frame, self.interface(egress).mtu)?;
        self.totals.packets_fragmented += 1;
        loop {
            let (len, is_last) = pieces.write_next(piece)?;
            if is_last {
                return Some(len);
            }
            env.emit(egress.port(), piece.get(..len)?);
        }
    }
}

/// The fragments of a packet that are still to be written.
struct Pieces<'a> {
    /// Ethernet and IPv4 headers, without options.
    head: &'a [u8],
    options: &'a [u8],
    rest: &'a [u8],
    /// The field of flags and offset, for what is at the front of `rest`.
    place: u16,
    mtu: usize,
    is_first: bool,
}

impl<'a> Pieces<'a> {
    /// `None` if the packet in `frame` is none, or fits.
    fn of(frame: &'a [u8], mtu: u16) -> Option<Self> {
        let (_, packet) = frame.split_at_checked(ETHERNET_LEN)?;
        let (ip, rest) = Ipv4::parse(packet).ok()?;
        if ip.total_len() <= mtu {
            return None;
        }
        let header_len = ip.header_len();
        Some(Self {
            head: frame.get(..ETHERNET_LEN + IPV4_LEN)?,
            options: packet.get(IPV4_LEN..header_len)?,
            rest,
            place: (ip.fragment_offset() / 8) as u16 | if ip.more_fragments() { MORE_FRAGMENTS } else { 0 },
            mtu: mtu.into(),
            is_first: true,
        })
    }

    /// Writes the next fragment's frame; its length, and whether it is the last.
    fn write_next(&mut self, piece: &mut [u8]) -> Option<(usize, bool)> {
        let mut options = [0; HEADER_LEN_MAX];
        let options = if core::mem::take(&mut self.is_first) {
            self.options
        } else {
            let len = copied_options(self.options, &mut options);
            options.get(..len)?
        };
        let header_len = IPV4_LEN + options.len();
        let room = self.mtu.checked_sub(header_len)?;
        let is_last = self.rest.len() <= room;
        let taken = if is_last { self.rest.len() } else { room / 8 * 8 };
        let (payload, rest) = self.rest.split_at_checked(taken).filter(|(payload, _)| !payload.is_empty())?;

        let frame = piece.get_mut(..ETHERNET_LEN + header_len + taken)?;
        let (head, body) = frame.split_at_mut_checked(self.head.len())?;
        head.copy_from_slice(self.head);
        let (body_options, body_payload) = body.split_at_mut_checked(options.len())?;
        body_options.copy_from_slice(options);
        body_payload.copy_from_slice(payload);
        let header = head.get_mut(ETHERNET_LEN..)?.first_chunk_mut::<8>()?;
        header[0] = 0x40 | (header_len / 4) as u8;
        header[2..4].copy_from_slice(&((header_len + taken) as u16).to_be_bytes());
        let place = if is_last { self.place } else { self.place | MORE_FRAGMENTS };
        header[6..8].copy_from_slice(&place.to_be_bytes());
        if let Ok((mut ip, _)) = Ipv4::parse_mut(frame.get_mut(ETHERNET_LEN..)?) {
            ip.fill_checksum();
        }
        let len = frame.len();
        self.rest = rest;
        self.place += (taken / 8) as u16;
        Some((len, is_last))
    }
}

/// Writes the options that every fragment has, padded to a multiple of 4 bytes; their length.
fn copied_options(options: &[u8], copied: &mut [u8; HEADER_LEN_MAX]) -> usize {
    let (mut rest, mut len) = (options, 0);
    while let Some((&kind, tail)) = rest.split_first() {
        // The end of the list, and an option that does nothing, are one byte long.
        let size = match kind {
            0 => break,
            1 => 1,
            _ => usize::from(tail.first().copied().unwrap_or_default()).max(2),
        };
        let Some((option, next)) = rest.split_at_checked(size) else { break };
        if kind & COPIED != 0
            && let Some(room) = copied.get_mut(len..len + size)
        {
            room.copy_from_slice(option);
            len += size;
        }
        rest = next;
    }
    // What is left of the array is the end of the list.
    len.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_copied_options_go_into_every_fragment() {
        let mut copied = [0; HEADER_LEN_MAX];
        // Record route (not copied), no operation, security (copied), end of the list.
        let options = [7, 7, 4, 0, 0, 0, 0, 1, 0x82, 3, 9, 0];
        assert_eq!(copied_options(&options, &mut copied), 4);
        assert_eq!(copied[..4], [0x82, 3, 9, 0]);
        // One that claims to be longer than the header ends the list; so does one that claims no length.
        for cut_off in [&[0x82, 40, 1][..], &[0x82][..]] {
            assert_eq!(copied_options(cut_off, &mut [0; HEADER_LEN_MAX]), 0);
        }
        assert_eq!(copied_options(&[0x82, 0, 1, 1], &mut [0; HEADER_LEN_MAX]), 4);
    }
}

//! The packet buffer: one Ethernet frame, edited in place.

use alloc::vec::Vec;

/// There is no head or tail room left for the requested bytes. The packet is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room left in the packet buffer")]
pub struct NoRoom;

/// One Ethernet frame without its frame check sequence, contiguous in memory, edited in place.
///
/// Implemented by the dataplane's mbufs and by [`OwnedPacket`].
pub trait PacketBuf {
    /// The frame.
    fn bytes(&self) -> &[u8];

    /// The frame, for in-place changes.
    fn bytes_mut(&mut self) -> &mut [u8];

    /// Adds `len` bytes of unspecified content before the frame.
    fn prepend(&mut self, len: usize) -> Result<(), NoRoom>;

    /// Removes `len` bytes at the front; all of them if the frame is shorter.
    fn trim_front(&mut self, len: usize);

    /// Adds `len` bytes of unspecified content behind the frame.
    fn append(&mut self, len: usize) -> Result<(), NoRoom>;

    /// Shortens the frame to `len` bytes; does nothing if it is not longer.
    fn truncate(&mut self, len: usize);
}

/// A frame on the heap, for tests, the simulator and slow paths.
///
/// Grows without bound, so it never reports [`NoRoom`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnedPacket(Vec<u8>);

impl OwnedPacket {
    /// Wraps `frame`.
    pub fn new(frame: Vec<u8>) -> Self {
        Self(frame)
    }

    /// Makes it a copy of `frame`.
    pub fn assign(&mut self, frame: &[u8]) {
        self.0.clear();
        self.0.extend_from_slice(frame);
    }

    /// The frame itself.
    pub fn into_inner(self) -> Vec<u8> {
        self.0
    }
}

impl From<&[u8]> for OwnedPacket {
    fn from(frame: &[u8]) -> Self {
        Self(frame.to_vec())
    }
}

impl PacketBuf for OwnedPacket {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn prepend(&mut self, len: usize) -> Result<(), NoRoom> {
        self.0.splice(0..0, core::iter::repeat_n(0, len));
        Ok(())
    }

    fn trim_front(&mut self, len: usize) {
        self.0.drain(..len.min(self.0.len()));
    }

    fn append(&mut self, len: usize) -> Result<(), NoRoom> {
        self.0.resize(self.0.len() + len, 0);
        Ok(())
    }

    fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }
}

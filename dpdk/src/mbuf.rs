//! The owned packet buffer.

use core::fmt;
use core::ptr::NonNull;
use dpdk_sys::rte_mbuf;
use slim_core::packet::{NoRoom, PacketBuf};

/// One frame in one segment, owned: dropping it gives it back to its pool.
///
/// Invariants: exactly one segment, a reference count of 1, `pkt_len == data_len`, and
/// `data_off + data_len <= buf_len`.
#[repr(transparent)]
pub struct Mbuf(NonNull<rte_mbuf>);

// SAFETY: an mbuf belongs to nobody's thread; its pool accepts it back from any thread.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// Takes over `mbuf`.
    ///
    /// # Safety
    /// `mbuf` is live, nobody else refers to it, and it fulfils the invariants of [`Mbuf`].
    #[inline]
    pub(crate) unsafe fn from_raw(mbuf: NonNull<rte_mbuf>) -> Self {
        Self(mbuf)
    }

    /// The frame's length in bytes.
    #[inline]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        usize::from(self.raw().data_len)
    }

    /// Bytes that can be prepended.
    #[inline]
    pub fn headroom(&self) -> usize {
        usize::from(self.raw().data_off)
    }

    /// Bytes that can be appended.
    #[inline]
    pub fn tailroom(&self) -> usize {
        let raw = self.raw();
        usize::from(raw.buf_len) - usize::from(raw.data_off) - usize::from(raw.data_len)
    }

    /// Drops all of `mbufs` at once, which is cheaper than one by one.
    #[inline]
    pub fn drop_all<const N: usize>(mbufs: &mut heapless::Vec<Self, N>) {
        let count = mbufs.len();
        // SAFETY: an `Mbuf` is a transparent non-null pointer, the first `count` are initialised, and the vector
        // forgets them before they are given away.
        unsafe {
            mbufs.set_len(0);
            dpdk_sys::rte_pktmbuf_free_bulk(mbufs.as_mut_ptr().cast(), count as u32);
        }
    }

    #[inline]
    fn raw(&self) -> &rte_mbuf {
        // SAFETY: live and not shared, by the type's invariants.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    fn raw_mut(&mut self) -> &mut rte_mbuf {
        // SAFETY: live and not shared, by the type's invariants; `&mut self` makes it exclusive.
        unsafe { self.0.as_mut() }
    }

    #[inline]
    fn data(&self) -> *mut u8 {
        let raw = self.raw();
        // SAFETY: `data_off <= buf_len`, so the pointer stays within the buffer or at its end.
        unsafe { raw.buf_addr.cast::<u8>().add(usize::from(raw.data_off)) }
    }
}

impl PacketBuf for Mbuf {
    #[inline]
    fn bytes(&self) -> &[u8] {
        // SAFETY: `data_len` bytes from `data` are within the buffer, which lives in mapped, initialised memory of the
        // pool and changes only through this owner.
        unsafe { core::slice::from_raw_parts(self.data(), self.len()) }
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` makes it exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.data(), self.len()) }
    }

    #[inline]
    fn prepend(&mut self, len: usize) -> Result<(), NoRoom> {
        if len > self.headroom() {
            return Err(NoRoom);
        }
        let raw = self.raw_mut();
        raw.data_off -= len as u16;
        raw.data_len += len as u16;
        raw.pkt_len = u32::from(raw.data_len);
        Ok(())
    }

    #[inline]
    fn trim_front(&mut self, len: usize) {
        let raw = self.raw_mut();
        let len = raw.data_len.min(len.try_into().unwrap_or(u16::MAX));
        raw.data_off += len;
        raw.data_len -= len;
        raw.pkt_len = u32::from(raw.data_len);
    }

    #[inline]
    fn append(&mut self, len: usize) -> Result<(), NoRoom> {
        if len > self.tailroom() {
            return Err(NoRoom);
        }
        let raw = self.raw_mut();
        raw.data_len += len as u16;
        raw.pkt_len = u32::from(raw.data_len);
        Ok(())
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        let raw = self.raw_mut();
        if len < usize::from(raw.data_len) {
            raw.data_len = len as u16;
            raw.pkt_len = u32::from(raw.data_len);
        }
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the mbuf is live and this is its only owner.
        unsafe { dpdk_sys::slim_mbuf_free(self.0.as_ptr()) }
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mbuf").field("len", &self.len()).field("headroom", &self.headroom()).finish_non_exhaustive()
    }
}

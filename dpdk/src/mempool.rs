//! Pools of packet buffers.

use crate::eal::{Eal, c_string, control};
use crate::error::{Error, refused};
use crate::mbuf::Mbuf;
use core::ptr::NonNull;

/// What a pool's mbufs hold unless told otherwise: headroom for a prepended header and a frame of up to 2048 bytes.
pub const DATA_ROOM_DEFAULT: u16 = dpdk_sys::RTE_MBUF_DEFAULT_BUF_SIZE as u16;

/// A pool of mbufs of one size, shared by any number of threads.
///
/// Lives as long as the process, so that no mbuf can outlive it. Make all pools at the start.
#[derive(Debug, Clone, Copy)]
pub struct Mempool(NonNull<dpdk_sys::rte_mempool>);

// SAFETY: the default mempool handler is a multi-producer multi-consumer ring with caches per lcore; get and put may
// be called by any thread at any time.
unsafe impl Send for Mempool {}
// SAFETY: as above.
unsafe impl Sync for Mempool {}

impl Mempool {
    /// A pool of `count` mbufs of [`DATA_ROOM_DEFAULT`] bytes.
    ///
    /// Every receive descriptor of every queue keeps one, every transmit descriptor up to one, and so does whatever
    /// holds packets. `name` is unique in the process and at most 26 bytes long.
    pub fn new(eal: &Eal, name: &str, count: u32) -> Result<Self, Error> {
        Self::with_data_room(eal, name, count, DATA_ROOM_DEFAULT)
    }

    /// A pool of `count` mbufs with room for `data_room` bytes, the headroom of 128 bytes among them.
    pub fn with_data_room(_eal: &Eal, name: &str, count: u32, data_room: u16) -> Result<Self, Error> {
        let c_name = c_string(name)?;
        // The cache must be at most two thirds of the pool.
        let cache = (count / 8).min(256);
        let _guard = control();
        crate::logging::take_last_error();
        // SAFETY: the EAL runs, `c_name` is NUL-terminated and copied by the callee.
        let pool =
            unsafe { dpdk_sys::rte_pktmbuf_pool_create(c_name.as_ptr(), count, cache, 0, data_room, SOCKET_ID_ANY) };
        NonNull::new(pool).map(Self).ok_or_else(|| {
            // SAFETY: reads a thread-local number.
            let errno = unsafe { dpdk_sys::slim_errno() };
            refused(errno, "create mempool", name)
        })
    }

    /// An empty mbuf, or nothing if the pool is exhausted.
    #[inline]
    pub fn alloc(&self) -> Option<Mbuf> {
        // SAFETY: pools are never freed; the callee returns null or an mbuf with one segment that nobody else has.
        let mbuf = unsafe { dpdk_sys::slim_mbuf_alloc(self.0.as_ptr()) };
        // SAFETY: as above.
        NonNull::new(mbuf).map(|mbuf| unsafe { Mbuf::from_raw(mbuf) })
    }

    /// An mbuf holding a copy of `frame`, or nothing if the pool is exhausted or the frame too long for it.
    #[inline]
    pub fn alloc_copy(&self, frame: &[u8]) -> Option<Mbuf> {
        use slim_core::packet::PacketBuf;
        let mut mbuf = self.alloc()?;
        mbuf.append(frame.len()).ok()?;
        mbuf.bytes_mut().copy_from_slice(frame);
        Some(mbuf)
    }

    /// Mbufs in use at present, cached ones not counted. Walks all caches: not for the packet path.
    pub fn in_use(&self) -> u32 {
        // SAFETY: pools are never freed.
        unsafe { dpdk_sys::rte_mempool_in_use_count(self.0.as_ptr()) }
    }

    /// Mbufs that can be allocated at present. Walks all caches: not for the packet path.
    pub fn available(&self) -> u32 {
        // SAFETY: pools are never freed.
        unsafe { dpdk_sys::rte_mempool_avail_count(self.0.as_ptr()) }
    }

    pub(crate) fn as_ptr(&self) -> *mut dpdk_sys::rte_mempool {
        self.0.as_ptr()
    }
}

/// DPDK's `SOCKET_ID_ANY`: memory of whatever NUMA node.
pub(crate) const SOCKET_ID_ANY: i32 = -1;

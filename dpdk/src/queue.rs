//! Receive and transmit queues: the packet path.

use crate::device::Handle;
use crate::error::{Error, check};
use crate::mbuf::Mbuf;
use core::cell::Cell;
use core::marker::PhantomData;
use core::ptr::NonNull;
use dpdk_sys::rte_mbuf;
use std::collections::VecDeque;
use std::sync::Arc;

/// Makes its owner `Send` but not `Sync`: a queue belongs to one thread at a time.
type NotSync = PhantomData<Cell<()>>;

/// A receive queue, owned by one thread.
#[derive(Debug)]
pub struct RxQueue {
    handle: Arc<Handle>,
    port: u16,
    index: u16,
    unusable: u64,
    _not_sync: NotSync,
}

impl RxQueue {
    pub(crate) fn new(handle: Arc<Handle>, index: u16) -> Self {
        Self { port: handle.id, handle, index, unusable: 0, _not_sync: PhantomData }
    }

    /// The name of the queue's port.
    pub fn port_name(&self) -> &str {
        &self.handle.name
    }

    /// Receives as many packets as are there and `into` has room for, and returns their number.
    ///
    /// A frame in several segments is made one if its first segment has the room; otherwise it is dropped and counted
    /// in [`unusable`](Self::unusable).
    #[inline]
    pub fn burst<const N: usize>(&mut self, into: &mut heapless::Vec<Mbuf, N>) -> usize {
        let old = into.len();
        let spare = into.spare_capacity_mut();
        let room = spare.len().min(usize::from(u16::MAX)) as u16;
        let first: *mut *mut rte_mbuf = spare.as_mut_ptr().cast();
        // SAFETY: the port is started as long as this queue exists, and `&mut self` makes this the only reader of the
        // queue; there is room for `room` pointers at `first`.
        let count = usize::from(unsafe { dpdk_sys::slim_rx_burst(self.port, self.index, first, room) });
        let mut kept = 0;
        for received in 0..count {
            // SAFETY: the callee wrote `count` pointers to live mbufs that are now ours.
            unsafe {
                let mbuf = *first.add(received);
                if (*mbuf).nb_segs == 1 || dpdk_sys::slim_mbuf_linearize(mbuf) == 0 {
                    *first.add(kept) = mbuf;
                    kept += 1;
                } else {
                    self.unusable += 1;
                    dpdk_sys::slim_mbuf_free(mbuf);
                }
            }
        }
        // SAFETY: `kept` further elements are initialised, each a single-segment mbuf that only we own.
        unsafe { into.set_len(old + kept) };
        kept
    }

    /// Packets dropped because they came in more segments than one mbuf can hold.
    pub fn unusable(&self) -> u64 {
        self.unusable
    }

    /// Arms the queue's interrupt. Poll once more before waiting: what arrived before is not announced.
    pub fn enable_interrupt(&mut self) -> Result<(), Error> {
        // SAFETY: the port is started as long as this queue exists.
        let code = unsafe { dpdk_sys::rte_eth_dev_rx_intr_enable(self.port, self.index) };
        self.interrupt_result(code, "arm the interrupt of")
    }

    /// Disarms the queue's interrupt.
    pub fn disable_interrupt(&mut self) -> Result<(), Error> {
        // SAFETY: the port is started as long as this queue exists.
        let code = unsafe { dpdk_sys::rte_eth_dev_rx_intr_disable(self.port, self.index) };
        self.interrupt_result(code, "disarm the interrupt of")
    }

    /// Adds the queue's interrupt to the epoll instance `epoll`, or removes it.
    pub(crate) fn control_interrupt(&self, epoll: i32, operation: u32) -> Result<Arc<Handle>, Error> {
        // SAFETY: the port is started as long as this queue exists; no user data is attached.
        let code = unsafe {
            dpdk_sys::rte_eth_dev_rx_intr_ctl_q(self.port, self.index, epoll, operation as i32, core::ptr::null_mut())
        };
        self.interrupt_result(code, "wait for the interrupt of")?;
        Ok(Arc::clone(&self.handle))
    }

    pub(crate) fn index(&self) -> u16 {
        self.index
    }

    fn interrupt_result(&self, code: i32, operation: &'static str) -> Result<(), Error> {
        // What the ethdev layer and the drivers return where there is no interrupt.
        if [libc::ENOTSUP, libc::EPERM].contains(&-code) {
            return Err(Error::InterruptsUnsupported(self.handle.name.clone()));
        }
        check(code, operation, &self.handle.name).map(|_| ())
    }
}

/// A transmit queue, owned by one thread.
#[derive(Debug)]
pub struct TxQueue {
    handle: Arc<Handle>,
    port: u16,
    index: u16,
    _not_sync: NotSync,
}

impl TxQueue {
    pub(crate) fn new(handle: Arc<Handle>, index: u16) -> Self {
        Self { port: handle.id, handle, index, _not_sync: PhantomData }
    }

    /// The name of the queue's port.
    pub fn port_name(&self) -> &str {
        &self.handle.name
    }

    /// Transmits from the front of `mbufs` what the device takes, and returns how many those were.
    ///
    /// The others stay in `mbufs`, in order.
    #[inline]
    pub fn burst<const N: usize>(&mut self, mbufs: &mut heapless::Vec<Mbuf, N>) -> usize {
        let len = mbufs.len();
        let sent = self.send(mbufs);
        // SAFETY: the first `sent` elements are not ours any more; the others move to the front.
        unsafe {
            let first = mbufs.as_mut_ptr();
            core::ptr::copy(first.add(sent), first, len - sent);
            mbufs.set_len(len - sent);
        }
        sent
    }

    /// Transmits from the front of `queue` what the device takes, and returns how many those were.
    #[inline]
    pub fn burst_from(&mut self, queue: &mut VecDeque<Mbuf>) -> usize {
        let mut total = 0;
        while !queue.is_empty() {
            let (front, _) = queue.as_mut_slices();
            let offered = front.len();
            let sent = self.send(front);
            for mbuf in queue.drain(..sent) {
                core::mem::forget(mbuf);
            }
            total += sent;
            if sent < offered {
                break;
            }
        }
        total
    }

    /// Offers `mbufs` to the device. The first `n` of them, `n` being the result, are no longer the caller's and must
    /// be forgotten, not dropped.
    #[inline]
    fn send(&mut self, mbufs: &mut [Mbuf]) -> usize {
        let count = mbufs.len().min(usize::from(u16::MAX)) as u16;
        if count == 0 {
            return 0;
        }
        // SAFETY: the port is started as long as this queue exists, and `&mut self` makes this the only writer of the
        // queue; an `Mbuf` is a transparent non-null pointer to a live mbuf of one segment.
        usize::from(unsafe { dpdk_sys::slim_tx_burst(self.port, self.index, mbufs.as_mut_ptr().cast(), count) })
    }
}

const _: () = assert!(size_of::<Mbuf>() == size_of::<NonNull<rte_mbuf>>());

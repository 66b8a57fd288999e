//! Sleeping until a packet arrives.

use crate::device::Handle;
use crate::error::{Error, check, refused};
use crate::queue::RxQueue;
use core::time::Duration;
use dpdk_sys::rte_epoll_event;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

/// Receive interrupts of several queues, to be waited for together, by one thread.
///
/// The order of use is: poll until nothing comes, [`RxQueue::enable_interrupt`] on all queues, poll once more,
/// [`wait`](Self::wait), [`RxQueue::disable_interrupt`].
#[derive(Debug)]
pub struct WaitSet {
    epoll: OwnedFd,
    waker: Waker,
    // Referred to by the epoll instance: boxed so that it stays in place.
    _waker_event: Box<rte_epoll_event>,
    queues: Vec<(Arc<Handle>, u16)>,
}

/// Wakes the thread that waits on a [`WaitSet`], from any thread.
#[derive(Debug, Clone)]
pub struct Waker(Arc<OwnedFd>);

// SAFETY: the raw pointers inside the boxed event are only used by DPDK during calls of the owner.
unsafe impl Send for WaitSet {}

impl WaitSet {
    /// An empty set, which only its [`waker`](Self::waker) can end the wait for.
    pub fn new(_eal: &crate::Eal) -> Result<Self, Error> {
        // SAFETY: no preconditions.
        let epoll = descriptor(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }, "create an epoll instance")?;
        // SAFETY: no preconditions.
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        let waker = Waker(Arc::new(descriptor(event, "create an eventfd")?));
        // SAFETY: a struct of integers and nullable pointers, for which all-zero is valid.
        let mut waker_event: Box<rte_epoll_event> = Box::new(unsafe { core::mem::zeroed() });
        // Edge-triggered: each write wakes once, nobody needs to read.
        waker_event.epdata.event = (libc::EPOLLIN | libc::EPOLLET) as u32;
        // SAFETY: both descriptors are open; the event stays in place until the epoll instance is closed with `self`.
        let code = unsafe {
            dpdk_sys::rte_epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, waker.0.as_raw_fd(), &mut *waker_event)
        };
        check(code, "watch", "the waker")?;
        Ok(Self { epoll, waker, _waker_event: waker_event, queues: Vec::new() })
    }

    /// Adds a queue's interrupt.
    ///
    /// # Errors
    /// [`Error::InterruptsUnsupported`] if the driver has none for this queue.
    pub fn add(&mut self, queue: &RxQueue) -> Result<(), Error> {
        let handle = queue.control_interrupt(self.epoll.as_raw_fd(), dpdk_sys::RTE_INTR_EVENT_ADD)?;
        self.queues.push((handle, queue.index()));
        Ok(())
    }

    /// A handle to end the wait with from another thread.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Waits until an armed queue has a packet, the waker is used, or the time is over, rounded up to milliseconds.
    ///
    /// Returns whether there was an event.
    pub fn wait(&mut self, timeout: Duration) -> Result<bool, Error> {
        let timeout_ms = i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX);
        // SAFETY: structs of integers and nullable pointers, for which all-zero is valid.
        let mut events: [rte_epoll_event; 16] = unsafe { core::mem::zeroed() };
        // SAFETY: `events` has room for the number given; every event's object lives as long as its descriptor is
        // watched: the waker's in `self`, a queue's in its port, which `self.queues` keeps open.
        let count = unsafe {
            dpdk_sys::rte_epoll_wait_interruptible(
                self.epoll.as_raw_fd(),
                events.as_mut_ptr(),
                events.len() as i32,
                timeout_ms,
            )
        };
        if count < 0 {
            let error = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
            // A signal ends the wait; the caller looks around and comes back.
            return if error == libc::EINTR { Ok(false) } else { Err(refused(error, "wait for", "interrupts")) };
        }
        Ok(count > 0)
    }
}

impl Drop for WaitSet {
    fn drop(&mut self) {
        for (handle, queue) in &self.queues {
            // SAFETY: the port is open; the queue's interrupt was added to this epoll instance.
            unsafe {
                dpdk_sys::rte_eth_dev_rx_intr_ctl_q(
                    handle.id,
                    *queue,
                    self.epoll.as_raw_fd(),
                    dpdk_sys::RTE_INTR_EVENT_DEL as i32,
                    core::ptr::null_mut(),
                );
            }
        }
    }
}

impl Waker {
    /// Ends the present wait, or else the next one.
    pub fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the descriptor is open and eight bytes are readable. The write can only fail after 2^64 wakes.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }
}

fn descriptor(fd: i32, operation: &'static str) -> Result<OwnedFd, Error> {
    if fd < 0 {
        let error = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
        return Err(refused(error, operation, ""));
    }
    // SAFETY: `fd` is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

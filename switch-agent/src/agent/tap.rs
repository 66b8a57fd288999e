//! TAP interfaces through their own descriptor.
//!
//! DPDK's net_tap is not used: it asks for the link state by name in the network namespace it was made in, so that an
//! interface that is moved to another one, as the testbed does, seems to be down for ever; and it learns of packets by
//! a signal per packet, which would end every sleep of the dataplane. The descriptor stays the same wherever the
//! interface goes.

use dpdk::{Mbuf, Mempool};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use slim_core::packet::PacketBuf;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;

/// A TAP interface. It disappears when this is dropped, unless it was there before and is persistent.
#[derive(Debug)]
pub struct Tap {
    file: File,
    /// The buffer of the next packet, kept from one empty poll to the next.
    spare: Option<Mbuf>,
    /// What could not be received for want of an mbuf, counted per poll.
    pub rx_no_mbuf: u64,
    /// Packets the kernel did not take, mostly because the interface was down.
    pub tx_errors: u64,
}

/// Why there is no such interface.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The driver is missing or closed to this user.
    #[error("cannot open /dev/net/tun: {0}")]
    Device(std::io::Error),
    /// Another process has the interface.
    #[error("TAP interface {0} is in use by another process")]
    Busy(String),
    /// The name belongs to an interface that is not a TAP.
    #[error("{0} exists and is not a TAP interface")]
    NotATap(String),
    /// Not allowed in this network namespace.
    #[error("not allowed to make TAP interface {0}: run as root or with CAP_NET_ADMIN, or inside `unshare -Urn`")]
    NotAllowed(String),
    /// The system refuses.
    #[error("cannot make TAP interface {0}: {1}")]
    Refused(String, Errno),
}

impl Tap {
    /// Makes TAP `interface`, or takes over a persistent one that nobody uses.
    ///
    /// It is down and has no address; both are its user's business.
    pub fn open(interface: &str) -> Result<Self, TapError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
        let file = options.open("/dev/net/tun").map_err(TapError::Device)?;
        attach(&file, interface).map_err(|errno| match errno {
            Errno::EBUSY => TapError::Busy(interface.into()),
            Errno::EINVAL => TapError::NotATap(interface.into()),
            Errno::EPERM => TapError::NotAllowed(interface.into()),
            errno => TapError::Refused(interface.into(), errno),
        })?;
        keep_address(&file, interface).map_err(|errno| TapError::Refused(interface.into(), errno))?;
        Ok(Self { file, spare: None, rx_no_mbuf: 0, tx_errors: 0 })
    }

    /// Receives as many packets as are there and `into` has room for.
    pub fn receive<const N: usize>(&mut self, pool: &Mempool, into: &mut heapless::Vec<Mbuf, N>) {
        while !into.is_full() {
            let Some(mut mbuf) = self.spare.take().or_else(|| pool.alloc()) else {
                self.rx_no_mbuf += 1;
                return;
            };
            let room = mbuf.tailroom();
            if mbuf.append(room).is_err() {
                return;
            }
            // A longer frame would be cut off: the kernel sends none, as the interface's MTU is far below.
            match self.file.read(mbuf.bytes_mut()) {
                Ok(len) if len > 0 => {
                    mbuf.truncate(len);
                    // There is room: the loop's condition.
                    let _ = into.push(mbuf);
                }
                _ => {
                    mbuf.truncate(0);
                    self.spare = Some(mbuf);
                    return;
                }
            }
        }
    }

    /// Sends from the front of `queue` what the kernel takes. What it refuses for good is dropped and counted.
    pub fn send(&mut self, queue: &mut VecDeque<Mbuf>) {
        while let Some(mbuf) = queue.front() {
            match self.file.write(mbuf.bytes()) {
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
                Err(_) => self.tx_errors += 1,
            }
            queue.pop_front();
        }
    }

    /// Whether the interface is up, in whatever namespace: only then its descriptor can be written to.
    pub fn link_up(&self) -> bool {
        let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
        let polled = poll(&mut fds, PollTimeout::ZERO);
        let events = fds[0].revents().unwrap_or(PollFlags::empty());
        polled.is_ok() && events.contains(PollFlags::POLLOUT) && !events.contains(PollFlags::POLLERR)
    }
}

nix::ioctl_read_bad!(
    /// Asks for name and flags of a descriptor's interface.
    tun_get_iff,
    libc::TUNGETIFF,
    libc::ifreq
);

nix::ioctl_write_ptr_bad!(
    /// Sets the MAC address of a descriptor's interface.
    set_hardware_address,
    libc::SIOCSIFHWADDR,
    libc::ifreq
);

nix::ioctl_write_ptr_bad!(
    /// Attaches a descriptor of /dev/net/tun to an interface.
    tun_set_iff,
    libc::TUNSETIFF,
    libc::ifreq
);

/// Gives an interface that has just been made the address it had in an earlier run: its neighbours remember that one,
/// and what they send to another would be lost until they ask again. An interface of somebody else's keeps its own.
fn keep_address(file: &File, interface: &str) -> Result<(), Errno> {
    let mut request = named(interface, 0)?;
    // SAFETY: the descriptor is open for the duration of the call, and `request` is an `ifreq` to write to.
    #[allow(unsafe_code)]
    unsafe { tun_get_iff(file.as_raw_fd(), &mut request) }?;
    // SAFETY: TUNGETIFF has filled in the flags.
    #[allow(unsafe_code)]
    let flags = libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags });
    if flags & libc::IFF_PERSIST != 0 {
        return Ok(());
    }
    let mut address = libc::sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data: [0; 14] };
    for (to, from) in address.sa_data.iter_mut().zip(address_of(interface)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru = libc::__c_anonymous_ifr_ifru { ifru_hwaddr: address };
    // SAFETY: as above; SIOCSIFHWADDR reads the family and six bytes of the address.
    #[allow(unsafe_code)]
    unsafe { set_hardware_address(file.as_raw_fd(), &request) }.map(drop)
}

/// The same for an interface's name on this host at all times; most likely different for any other name or host.
fn address_of(interface: &str) -> [u8; 6] {
    let mut hasher = DefaultHasher::new();
    // Not every host has one; then the names alone tell interfaces apart.
    std::fs::read("/etc/machine-id").unwrap_or_default().hash(&mut hasher);
    interface.hash(&mut hasher);
    let [a, b, c, d, e, ..] = hasher.finish().to_be_bytes();
    // Locally administered, and not a group's.
    [0x02, a, b, c, d, e]
}

/// Makes `interface`, or attaches to it, as a TAP without packet information.
fn attach(file: &File, interface: &str) -> Result<(), Errno> {
    let request = named(interface, (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short)?;
    // SAFETY: the descriptor is open for the duration of the call, and `request` is the `ifreq` with NUL-terminated
    // name and flags that TUNSETIFF reads.
    #[allow(unsafe_code)]
    unsafe { tun_set_iff(file.as_raw_fd(), &request) }.map(drop)
}

/// A request about the interface of that name.
fn named(interface: &str, flags: libc::c_short) -> Result<libc::ifreq, Errno> {
    let mut ifr_name = [0; libc::IFNAMSIZ];
    let bytes = interface.as_bytes();
    // One byte less, for the closing NUL.
    if bytes.is_empty() || bytes.len() >= ifr_name.len() || bytes.contains(&0) {
        return Err(Errno::EINVAL);
    }
    for (to, &from) in ifr_name.iter_mut().zip(bytes) {
        *to = from as libc::c_char;
    }
    Ok(libc::ifreq { ifr_name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags } })
}

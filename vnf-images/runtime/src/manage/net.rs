//! TCP as the state streams want it: opened patiently but cancellably, bounded in memory and in silence.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

/// How long sent data may stay unacknowledged, and a peer silent, before a stream counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a thread that waits looks whether it still should.
const LOOK: u16 = 20;

/// A listener at `address`, which need not be the host's yet: the management NIC may come later.
pub fn listen(address: Ipv4Addr, port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_freebind_v4(true)?;
    socket.bind(&SocketAddrV4::new(address, port).into())?;
    socket.listen(16)?;
    Ok(socket.into())
}

/// Connects to `address` until `cancelled`. The phase's time-out is the state machine's.
pub fn connect(address: SocketAddr, buffer_bytes: usize, cancelled: impl Fn() -> bool) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    while !cancelled() {
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
        match poll(&mut fds, PollTimeout::from(LOOK)) {
            Ok(0) | Err(nix::Error::EINTR) => continue,
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        socket.set_nonblocking(false)?;
        let stream = TcpStream::from(socket);
        tune(&stream, buffer_bytes)?;
        return Ok(stream);
    }
    Err(io::ErrorKind::ConnectionAborted.into())
}

/// Bounds what a stream buffers and how long it waits for a peer that fell silent.
///
/// Segments leave as they are written: the statelet stream fills them itself.
pub fn tune(stream: &TcpStream, buffer_bytes: usize) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(buffer_bytes)?;
    socket.set_tcp_user_timeout(Some(PATIENCE))?;
    let keepalive = TcpKeepalive::new().with_time(PATIENCE / 4).with_interval(PATIENCE / 4).with_retries(3);
    socket.set_tcp_keepalive(&keepalive)
}

/// Has everything that is sent on a connection from now on carry a code point of differentiated services (RFC 2474).
pub fn mark(stream: &TcpStream, dscp: u8) -> io::Result<()> {
    SockRef::from(stream).set_tos_v4(u32::from(dscp) << 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_the_upper_six_bits_of_the_header_field() {
        let listener = listen(Ipv4Addr::LOCALHOST, 0).unwrap();
        let stream = connect(listener.local_addr().unwrap(), 64 << 10, || false).unwrap();
        mark(&stream, 1).unwrap();
        assert_eq!(SockRef::from(&stream).tos_v4().unwrap(), 0x04);
    }

    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_refused_connection_is_an_error() {
        let address = listen(Ipv4Addr::LOCALHOST, 0).unwrap().local_addr().unwrap();
        assert_eq!(connect(address, 64 << 10, || false).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_connection_that_nobody_answers_can_be_cancelled() {
        // A listener whose backlog is full does not answer.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let cancelled = AtomicBool::new(false);
        let connected = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let result = connect(address, 64 << 10, || cancelled.load(Ordering::Relaxed));
                    // Keeps what was accepted by the kernel until all are through.
                    let _kept = result.inspect(|_| {
                        connected.fetch_add(1, Ordering::Relaxed);
                    });
                    while !cancelled.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(100));
            cancelled.store(true, Ordering::Relaxed);
        });
        assert!(connected.load(Ordering::Relaxed) < 8, "some were left waiting");
    }
}

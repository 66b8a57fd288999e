//! A vhost server in this process, a virtio-user client in another: the way the switch agent and its peers meet.
//!
//! The client sends every frame back. It is killed and started again in between, as a load generator or an instance
//! may be, while the server's port stays up. No hugepages and no privileges: the client's memory is a memfd.

use dpdk::{Eal, Mbuf, Mempool, PortConfig, Started, WaitSet, process_arguments};
use slim_core::packet::PacketBuf;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ROLE: &str = "SLIM_TEST_VHOST_CLIENT";
const PATIENCE: Duration = Duration::from_secs(30);

fn main() {
    match std::env::var(ROLE) {
        Ok(socket) => client(&socket),
        Err(_) => server(),
    }
}

fn server() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("port.sock");
    let eal = Eal::init(process_arguments(64)).expect("the EAL starts");
    let pool = Mempool::new(&eal, "packets", 4096).expect("memory");
    let device = eal.attach(&format!("net_vhost0,iface={},queues=1", socket.display())).expect("attaches");
    let mut port = device.start(&PortConfig::default(), &pool).expect("starts");
    assert!(!port.port.link_up().expect("a link state"), "nobody is connected yet");

    for round in 0..3u8 {
        let mut peer = start_client(&socket);
        wait_until("the client connects", || port.port.link_up().expect("a link state"));
        every_size_makes_the_round_trip(&mut port, &pool, round);
        peer.kill();
        wait_until("the link goes down", || !port.port.link_up().expect("a link state"));
        println!("test round trip of all sizes, client {round} ... ok");
    }
    assert!(socket.exists());
    drop(port);
    assert!(!socket.exists(), "detaching removes the socket");

    frames_in_several_segments_are_counted(&eal, &pool, &socket);
    assert_eq!(eal.port_names(), Vec::<String>::new());
    assert_eq!(pool.in_use(), 0, "no mbuf is left behind");
    println!("test detaching cleans up ... ok");
}

fn every_size_makes_the_round_trip(port: &mut Started, pool: &Mempool, round: u8) {
    let content = |len: usize| -> Vec<u8> { (0..len).map(|at| (at as u8).wrapping_mul(31) ^ round).collect() };
    let mut back = heapless::Vec::<Mbuf, 32>::new();
    let mut expected = 60..=1600usize;
    let mut next = 60;
    let begun = Instant::now();
    while !expected.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "{expected:?} did not come back");
        // No more under way than half a ring, so that nothing may be dropped.
        let mut out = heapless::Vec::<Mbuf, 32>::new();
        while next <= 1600 && next - expected.start() < 512 && !out.is_full() {
            out.push(pool.alloc_copy(&content(next)).expect("an mbuf")).expect("room");
            next += 1;
        }
        let offered = out.len();
        let sent = port.tx[0].burst(&mut out);
        next -= offered - sent;
        port.rx[0].burst(&mut back);
        for mbuf in back.drain(..) {
            let len = expected.next().expect("no more than was sent");
            assert_eq!(mbuf.bytes(), content(len), "frame of {len} bytes");
        }
    }
    assert_eq!(port.rx[0].burst(&mut back), 0);
}

/// Receives into mbufs of 1024 bytes: longer frames come in two segments, which no `Mbuf` may have.
fn frames_in_several_segments_are_counted(eal: &Eal, pool: &Mempool, socket: &Path) {
    let small = Mempool::with_data_room(eal, "small", 4096, 128 + 1024).expect("memory");
    let device = eal.attach(&format!("net_vhost1,iface={},queues=1", socket.display())).expect("attaches");
    let mut port = device.start(&PortConfig::default(), &small).expect("starts");
    let mut peer = start_client(socket);
    wait_until("the client connects", || port.port.link_up().expect("a link state"));
    let mut out = heapless::Vec::<Mbuf, 4>::new();
    for len in [1024, 1025, 1600, 60] {
        out.push(pool.alloc_copy(&vec![7; len]).expect("an mbuf")).expect("room");
    }
    // The link is up a moment before the client has filled its ring.
    wait_until("the client's ring is ready", || {
        port.tx[0].burst(&mut out);
        out.is_empty()
    });
    let mut back = heapless::Vec::<Mbuf, 32>::new();
    wait_until("two frames come back", || {
        port.rx[0].burst(&mut back);
        back.len() == 2
    });
    assert_eq!(back.iter().map(Mbuf::len).collect::<Vec<_>>(), [1024, 60]);
    assert_eq!(port.rx[0].unusable(), 2);
    back.clear();
    assert_eq!(small.in_use(), 0);
    peer.kill();
    println!("test frames in several segments are counted ... ok");
}

fn start_client(socket: &Path) -> Client {
    let program = std::env::current_exe().expect("this program");
    Client(Command::new(program).env(ROLE, socket).stdin(Stdio::null()).spawn().expect("the client starts"))
}

/// The client's process, which ends with this value also when a check fails.
struct Client(Child);

impl Client {
    fn kill(&mut self) {
        self.0.kill().expect("the client can be killed");
        self.0.wait().expect("and reaped");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Sends every frame back until it is killed, sleeping on the receive interrupt in between.
fn client(socket: &str) {
    let eal = Eal::init(process_arguments(64)).expect("the EAL starts");
    let pool = Mempool::new(&eal, "packets", 4096).expect("memory");
    let config = PortConfig { rx_interrupts: true, ..PortConfig::default() };
    let device = eal.attach(&format!("net_virtio_user0,path={socket},queue_size=1024")).expect("attaches");
    let mut port = device.start(&config, &pool).expect("starts");
    let mut set = WaitSet::new(&eal).expect("a set");
    let interrupts = port.port.has_rx_interrupts() && set.add(&port.rx[0]).is_ok();
    println!("client: receive interrupts {}", if interrupts { "in use" } else { "not available" });
    let (rx, tx) = (&mut port.rx[0], &mut port.tx[0]);
    let mut packets = heapless::Vec::<Mbuf, 32>::new();
    loop {
        if rx.burst(&mut packets) == 0 {
            if !interrupts {
                std::thread::sleep(Duration::from_micros(100));
                continue;
            }
            rx.enable_interrupt().expect("arms");
            if rx.burst(&mut packets) == 0 {
                set.wait(Duration::from_secs(1)).expect("waits");
            }
            rx.disable_interrupt().expect("disarms");
        }
        while !packets.is_empty() {
            tx.burst(&mut packets);
        }
    }
}

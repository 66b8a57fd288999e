//! Ports, queues and mbufs over virtual devices: no hugepages, no privileges.

use dpdk::{Device, Eal, Error, Mbuf, Mempool, PortConfig, Started, WaitSet, process_arguments};
use slim_core::packet::{MacAddr, NoRoom, PacketBuf};
use std::collections::VecDeque;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

static EAL: LazyLock<Eal> = LazyLock::new(|| Eal::init(process_arguments(128)).expect("the EAL starts"));

/// A pool of its own for each test, so that each can count its mbufs.
fn pool(count: u32) -> Mempool {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("pool{}", NEXT.fetch_add(1, Ordering::Relaxed));
    Mempool::new(&EAL, &name, count).expect("memory for the pool")
}

fn attach(arguments: &str) -> Device {
    EAL.attach(arguments).expect(arguments)
}

/// A port whose transmitted packets come back as received ones.
fn loopback(name: &str, pool: &Mempool) -> Started {
    attach(name).start(&PortConfig::default(), pool).expect("starts")
}

fn numbered(pool: &Mempool, number: u32) -> Mbuf {
    let mut frame = [0u8; 60];
    frame[..4].copy_from_slice(&number.to_be_bytes());
    pool.alloc_copy(&frame).expect("an mbuf")
}

fn number(mbuf: &Mbuf) -> u32 {
    u32::from_be_bytes(mbuf.bytes()[..4].try_into().expect("four bytes"))
}

#[test]
fn packets_come_back_whole_and_in_order() {
    let pool = pool(1023);
    let mut ring = loopback("net_ring0", &pool);
    for (round, len) in [60usize, 61, 512, 1514, 1600, 2048].into_iter().enumerate() {
        let mut out = heapless::Vec::<Mbuf, 32>::new();
        for i in 0..32u8 {
            let frame: Vec<u8> = (0..len).map(|at| (at as u8) ^ i ^ (round as u8)).collect();
            out.push(pool.alloc_copy(&frame).expect("an mbuf")).expect("room");
        }
        assert_eq!(ring.tx[0].burst(&mut out), 32);
        assert!(out.is_empty());
        let mut back = heapless::Vec::<Mbuf, 32>::new();
        assert_eq!(ring.rx[0].burst(&mut back), 32);
        for (i, mbuf) in back.iter().enumerate() {
            let expected: Vec<u8> = (0..len).map(|at| (at as u8) ^ (i as u8) ^ (round as u8)).collect();
            assert_eq!(mbuf.bytes(), expected);
        }
    }
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn receiving_appends_and_stops_at_the_capacity() {
    let pool = pool(255);
    let mut ring = loopback("net_ring1", &pool);
    let mut out = heapless::Vec::<Mbuf, 32>::new();
    for i in 0..10 {
        out.push(numbered(&pool, i)).expect("room");
    }
    ring.tx[0].burst(&mut out);
    let mut into = heapless::Vec::<Mbuf, 8>::new();
    into.push(numbered(&pool, 99)).expect("room");
    assert_eq!(ring.rx[0].burst(&mut into), 7);
    assert_eq!(into.iter().map(number).collect::<Vec<_>>(), [99, 0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(ring.rx[0].burst(&mut into), 0);
    into.clear();
    assert_eq!(ring.rx[0].burst(&mut into), 3);
    assert_eq!(into.iter().map(number).collect::<Vec<_>>(), [7, 8, 9]);
}

#[test]
fn what_the_device_does_not_take_stays_with_the_caller_in_order() {
    let pool = pool(4095);
    let mut ring = loopback("net_ring2", &pool);
    // A ring takes 1023 packets.
    let mut sent = 0;
    let mut left = heapless::Vec::<Mbuf, 100>::new();
    while left.is_empty() {
        for i in 0..100 {
            left.push(numbered(&pool, sent + i)).expect("room");
        }
        sent += ring.tx[0].burst(&mut left) as u32;
    }
    let expected: Vec<u32> = (sent..sent + left.len() as u32).collect();
    assert_eq!(left.iter().map(number).collect::<Vec<_>>(), expected);

    // The same from a deque whose content wraps around.
    let mut queue: VecDeque<Mbuf> = VecDeque::with_capacity(8);
    for _ in 0..6 {
        queue.push_back(numbered(&pool, 0));
        queue.pop_front();
    }
    let capacity = queue.capacity() as u32;
    queue.extend((0..capacity).map(|i| numbered(&pool, sent + i)));
    assert_eq!(ring.tx[0].burst_from(&mut queue), 0);
    assert_eq!(queue.len(), capacity as usize);
    let mut received = heapless::Vec::<Mbuf, 32>::new();
    ring.rx[0].burst(&mut received);
    assert_eq!(received.iter().map(number).collect::<Vec<_>>(), (0..32).collect::<Vec<_>>());
    assert_eq!(ring.tx[0].burst_from(&mut queue), capacity as usize);
    assert!(queue.is_empty());

    let mut expected = 32..sent + capacity;
    while expected.start < expected.end {
        received.clear();
        assert!(ring.rx[0].burst(&mut received) > 0);
        for mbuf in &received {
            assert_eq!(Some(number(mbuf)), expected.next());
        }
    }
    received.clear();
    left.clear();
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn an_empty_pool_gives_nothing_and_a_dropped_mbuf_can_be_had_again() {
    let pool = pool(63);
    let mbufs: Vec<Mbuf> = core::iter::from_fn(|| pool.alloc()).collect();
    assert_eq!(mbufs.len(), 63);
    assert!(pool.alloc_copy(&[0; 60]).is_none());
    drop(mbufs);
    assert_eq!(pool.available(), 63);
    let mut few: heapless::Vec<Mbuf, 32> = core::iter::from_fn(|| pool.alloc()).take(32).collect();
    assert_eq!(pool.in_use(), 32);
    Mbuf::drop_all(&mut few);
    assert!(few.is_empty());
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn an_mbuf_grows_and_shrinks_at_both_ends_within_its_room() {
    let pool = pool(63);
    let mut mbuf = pool.alloc_copy(b"abcdef").expect("an mbuf");
    let (headroom, tailroom) = (mbuf.headroom(), mbuf.tailroom());
    assert_eq!((headroom, tailroom), (128, 2048 - 6));

    mbuf.trim_front(2);
    mbuf.truncate(3);
    assert_eq!(mbuf.bytes(), b"cde");
    mbuf.truncate(4);
    assert_eq!(mbuf.len(), 3);
    mbuf.prepend(2).expect("room");
    mbuf.bytes_mut()[..2].copy_from_slice(b"xy");
    mbuf.append(1).expect("room");
    mbuf.bytes_mut()[5] = b'z';
    assert_eq!(mbuf.bytes(), b"xycdez");

    assert_eq!(mbuf.prepend(headroom + 1), Err(NoRoom));
    assert_eq!(mbuf.append(tailroom + 1), Err(NoRoom));
    assert_eq!(mbuf.append(usize::MAX), Err(NoRoom));
    assert_eq!(mbuf.bytes(), b"xycdez");
    mbuf.prepend(headroom).expect("all of the headroom");
    mbuf.append(tailroom).expect("all of the tailroom");
    assert_eq!((mbuf.len(), mbuf.headroom(), mbuf.tailroom()), (128 + 2048, 0, 0));
    assert_eq!(&mbuf.bytes()[128..134], b"xycdez");
    mbuf.trim_front(usize::MAX);
    assert_eq!((mbuf.bytes(), mbuf.headroom()), (&[][..], 128 + 2048));

    assert!(pool.alloc_copy(&[0; 2049]).is_none());
    drop(mbuf);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn mbufs_can_be_freed_by_other_threads() {
    let pool = pool(1023);
    let mbufs: Vec<Mbuf> = core::iter::from_fn(|| pool.alloc()).take(512).collect();
    let registered = std::thread::spawn(move || {
        EAL.register_thread().expect("an lcore id");
        drop(mbufs);
        let some: Vec<Mbuf> = core::iter::from_fn(|| pool.alloc()).take(100).collect();
        some.len()
    });
    assert_eq!(registered.join().expect("no panic"), 100);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_dropped_port_is_detached_and_can_be_attached_again() {
    let pool = pool(1023);
    for round in 0..3 {
        let Started { port, rx, tx } = loopback("net_ring3", &pool);
        assert!(EAL.port_names().iter().any(|name| name.contains("net_ring3")), "round {round}");
        let exists = Some(Error::PortExists("net_ring3".into()));
        assert_eq!(EAL.attach("net_ring3").err(), exists);
        assert!(port.link_up().expect("a link state"));
        drop(port);
        drop(tx);
        assert_eq!(EAL.open("net_ring3").err(), exists, "its last queue is still there");
        drop(rx);
        assert!(!EAL.port_names().iter().any(|name| name.contains("net_ring3")), "round {round}");
        assert_eq!(EAL.open("net_ring3").err(), Some(Error::NoSuchPort("net_ring3".into())));
    }
    // A device that is never started goes as well.
    drop(attach("net_null3"));
    assert!(!EAL.port_names().iter().any(|name| name == "net_null3"));
}

#[test]
fn a_port_counts_what_passes() {
    let pool = pool(1023);
    let mut null = attach("net_null0,size=512").start(&PortConfig::default(), &pool).expect("starts");
    let mut packets = heapless::Vec::<Mbuf, 32>::new();
    assert_eq!(null.rx[0].burst(&mut packets), 32);
    assert!(packets.iter().all(|packet| packet.len() == 512));
    packets.truncate(20);
    assert_eq!(null.tx[0].burst(&mut packets), 20);
    let stats = null.port.stats().expect("counters");
    assert_eq!((stats.rx_packets, stats.tx_packets, stats.rx_missed), (32, 20, 0));
    let named = null.port.extended_stats().expect("counters");
    assert!(named.contains(&("rx_good_packets".into(), 32)), "{named:?}");
    assert_eq!(null.port.name(), "net_null0");
    assert_ne!(null.port.mac().expect("an address"), [0; 6]);
}

#[test]
fn descriptors_are_adjusted_to_the_device() {
    let pool = pool(1023);
    let config = PortConfig { rx_descriptors: 60_000, tx_descriptors: 7, ..PortConfig::default() };
    attach("net_null1").start(&config, &pool).expect("any number of descriptors will do");
}

#[test]
fn a_device_that_cannot_filter_is_started_all_the_same() {
    let pool = pool(1023);
    let device = attach("net_null4");
    let address = Some(MacAddr(device.mac().expect("an address")));
    let config = PortConfig { address, multicast: &[MacAddr([3, 0, 0, 0, 0, 1])], ..PortConfig::default() };
    let mut started = device.start(&config, &pool).expect("starts");
    let mut packets = heapless::Vec::<Mbuf, 32>::new();
    assert_eq!(started.rx[0].burst(&mut packets), 32, "frames for nobody in particular");
}

#[test]
fn a_device_without_receive_interrupts_says_so() {
    let pool = pool(1023);
    let config = PortConfig { rx_interrupts: true, ..PortConfig::default() };
    let mut started = attach("net_null2").start(&config, &pool).expect("starts");
    let unsupported = Err(Error::InterruptsUnsupported("net_null2".into()));
    assert_eq!(started.rx[0].enable_interrupt(), unsupported);
    assert_eq!(WaitSet::new(&EAL).expect("a set").add(&started.rx[0]), unsupported);
}

#[test]
fn a_wait_ends_at_its_time_or_by_the_waker() {
    let mut set = WaitSet::new(&EAL).expect("a set");
    let begun = Instant::now();
    assert!(!set.wait(Duration::from_millis(20)).expect("waits"));
    assert!(begun.elapsed() >= Duration::from_millis(19));

    // A wake before the wait is not lost, and is used up by it.
    set.waker().wake();
    assert!(set.wait(Duration::from_secs(60)).expect("waits"));
    assert!(!set.wait(Duration::ZERO).expect("waits"));

    let waker = set.waker();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(10));
        waker.wake();
    });
    assert!(set.wait(Duration::from_secs(60)).expect("waits"));
    thread.join().expect("no panic");
}

#[test]
fn the_clock_agrees_with_the_system() {
    let clock = dpdk::Clock::new(&EAL);
    let (begun, from) = (Instant::now(), clock.now());
    std::thread::sleep(Duration::from_millis(100));
    let (system, ours) = (begun.elapsed(), clock.now() - from);
    // The two readings may be descheduled apart: what is checked is the scale.
    let ratio = ours.as_secs_f64() / system.as_secs_f64();
    assert!((0.8..1.25).contains(&ratio), "{ours:?} of our clock in {system:?}");
}

#[test]
fn what_cannot_be_attached_is_an_error_with_a_reason() {
    let Err(Error::Refused { operation, object, .. }) = EAL.attach("net_nonsense0") else {
        panic!("attached nonsense");
    };
    assert_eq!((operation, object.as_str()), ("attach", "net_nonsense0"));
    let missing = "net_virtio_user7,path=/nonexistent/slim.sock";
    let error = EAL.attach(missing).expect_err("no such socket").to_string();
    assert!(error.contains("attach net_virtio_user7"), "{error}");
    assert!(matches!(EAL.attach("net_ring\0"), Err(Error::InvalidArgument { .. })));
}

#[test]
fn the_eal_starts_only_once() {
    LazyLock::force(&EAL);
    assert_eq!(Eal::init(process_arguments(64)).err(), Some(Error::AlreadyInitialised));
}

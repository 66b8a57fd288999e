//! `slim-load` for real: its two ports lead over vhost sockets to this process, where the NAT and a wire that loses,
//! copies and delays packets are. What the wire did must be what the report says.

use dpdk::{Eal, Mbuf, Mempool, PortConfig, RxQueue, Started, TxQueue, process_arguments};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use slim_core::nf::{Environment, NetworkFunction, PortId, Shard, Verdict};
use slim_core::packet::PacketBuf;
use slim_core::packet::emit::UDP_PAYLOAD_AT;
use slim_core::time::Instant;
use slim_nat::Nat;
use slim_testbed::load::report::{BEFORE, DirectionReport, PhaseReport, Stage, Status, WARMUP};
use slim_testbed::load::stamp::{Direction, Stamp};
use slim_testbed::load::{LoadSpec, Report};
use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// What the wire does to one packet, given by direction, socket and counter.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Lose,
    Duplicate,
    /// Deliver it after this many further packets of its direction.
    Delay(usize),
    /// Deliver it and everything behind it this much later.
    Stall(Duration),
}

type Faults = HashMap<(bool, u16, u32), Fault>;

const OUTBOUND: bool = true;
const INBOUND: bool = false;

/// The EAL and the pool of this process.
static DPDK: LazyLock<(Eal, Mempool)> = LazyLock::new(|| {
    let eal = Eal::init(process_arguments(64)).expect("the EAL starts");
    let pool = Mempool::new(&eal, "packets", 8191).expect("memory");
    (eal, pool)
});

/// The machine is small: one run at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The other ends of `slim-load`'s two ports, with the NAT and the wire between them, on a thread.
struct Network {
    dir: tempfile::TempDir,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Network {
    fn new(faults: Faults, with_nat: bool) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (eal, pool) = &*DPDK;
        let port = |number: usize, socket: &str| {
            let iface = dir.path().join(socket);
            let device =
                eal.attach(&format!("net_vhost{number},iface={},queues=1", iface.display())).expect("attaches");
            let Started { port: _, mut rx, mut tx } = device.start(&PortConfig::default(), pool).expect("starts");
            (rx.remove(0), tx.remove(0))
        };
        let ends = [port(0, "inside"), port(1, "outside")];
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || Forwarder::new(ends, faults, with_nat).run(&stopped));
        Self { dir, stop, thread: Some(thread) }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn load(&self, spec: &LoadSpec) -> Load {
        let child = Command::new(env!("CARGO_BIN_EXE_slim-load"))
            .args(spec.to_arguments())
            .args([format!("--inside={}", self.path("inside").display())])
            .args([format!("--outside={}", self.path("outside").display())])
            .args([format!("--control={}", self.path("control").display())])
            .args(["--resolve-timeout=5", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("slim-load starts");
        Load(Some(child))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the network panicked");
        }
    }
}

/// A running `slim-load`, which ends with its owner.
struct Load(Option<Child>);

impl Load {
    fn id(&self) -> Pid {
        Pid::from_raw(self.0.as_ref().expect("it runs").id() as i32)
    }

    /// Types a line into its standard input.
    fn type_in(&mut self, line: &str) {
        let stdin = self.0.as_mut().and_then(|child| child.stdin.as_mut()).expect("a pipe");
        writeln!(stdin, "{line}").expect("writes");
    }

    fn output(mut self) -> Output {
        self.0.take().expect("it runs").wait_with_output().expect("its output")
    }

    fn report(self) -> Report {
        let output = self.output();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("a report")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A control connection.
struct Control(BufReader<UnixStream>);

impl Control {
    fn connect(path: &Path) -> Self {
        let begun = std::time::Instant::now();
        loop {
            match UnixStream::connect(path) {
                Ok(stream) => return Self(BufReader::new(stream)),
                Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn ask(&mut self, command: &str) -> String {
        writeln!(self.0.get_mut(), "{command}").expect("sends");
        let mut answer = String::new();
        self.0.read_line(&mut answer).expect("an answer");
        answer.trim().to_owned()
    }

    fn status(&mut self) -> Status {
        let answer = self.ask("status");
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    fn wait_for(&mut self, what: &str, condition: impl Fn(&Status) -> bool) {
        let begun = std::time::Instant::now();
        while !condition(&self.status()) {
            assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

struct Forwarder {
    ends: [(RxQueue, TxQueue); 2],
    queues: [VecDeque<Mbuf>; 2],
    held: Vec<(usize, usize, Mbuf)>,
    passed: [usize; 2],
    stalled_until: Option<std::time::Instant>,
    nat: Option<Nat>,
    faults: Faults,
    begun: std::time::Instant,
}

struct Env<'a> {
    now: Instant,
    queues: &'a mut [VecDeque<Mbuf>; 2],
}

impl Environment for Env<'_> {
    fn now(&self) -> Instant {
        self.now
    }

    fn upd_enable(&self) -> bool {
        false
    }

    fn announce(&mut self, _: u16, _: &[u8]) {}

    fn emit(&mut self, port: PortId, frame: &[u8]) {
        self.queues[usize::from(port.0)].push_back(DPDK.1.alloc_copy(frame).expect("an mbuf"));
    }
}

impl Forwarder {
    fn new(ends: [(RxQueue, TxQueue); 2], faults: Faults, with_nat: bool) -> Self {
        let config = r#"
            interior_address = "10.1.0.1/24"
            interior_mac = "02:51:1a:00:00:01"
            exterior_address = "10.2.0.1/24"
            exterior_mac = "02:51:1a:00:00:02"
        "#;
        let nat = || Nat::new(&toml::from_str(config).expect("a configuration"), Shard::ONLY, 1).expect("a NAT");
        Self {
            ends,
            queues: Default::default(),
            held: Vec::new(),
            passed: [0; 2],
            stalled_until: None,
            nat: with_nat.then(nat),
            faults,
            begun: std::time::Instant::now(),
        }
    }

    fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let now = Instant::from_nanos(self.begun.elapsed().as_nanos() as u64);
            let stalled = self.stalled_until.is_some_and(|until| until > std::time::Instant::now());
            let mut busy = false;
            for port in 0..2 {
                if stalled {
                    break;
                }
                let mut packets = heapless::Vec::<Mbuf, 32>::new();
                busy |= self.ends[port].0.burst(&mut packets) > 0;
                for packet in packets {
                    self.process(PortId(port as u8), packet, now);
                }
            }
            for (queue, (_, tx)) in self.queues.iter_mut().zip(&mut self.ends) {
                tx.burst_from(queue);
            }
            if !busy {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }

    fn process(&mut self, port: PortId, mut packet: Mbuf, now: Instant) {
        let Some(nat) = &mut self.nat else { return };
        let mut env = Env { now, queues: &mut self.queues };
        let verdict = nat.process(&mut env, port, &mut packet);
        nat.tick(&mut env);
        if let Verdict::Transmit(to) = verdict {
            self.over_the_wire(usize::from(to.0), packet, now);
        }
    }

    fn over_the_wire(&mut self, to: usize, packet: Mbuf, now: Instant) {
        let number = self.passed[to];
        self.passed[to] += 1;
        let stamp = packet.bytes().get(UDP_PAYLOAD_AT..).and_then(|payload| Stamp::read(payload, now).ok());
        let key = stamp.map(|stamp| (stamp.direction == Direction::Outbound, stamp.socket, stamp.counter));
        match key.and_then(|key| self.faults.remove(&key)) {
            None => self.queues[to].push_back(packet),
            Some(Fault::Lose) => {}
            Some(Fault::Duplicate) => {
                let copy = DPDK.1.alloc_copy(packet.bytes()).expect("an mbuf");
                self.queues[to].extend([packet, copy]);
            }
            Some(Fault::Delay(by)) => self.held.push((to, number + by, packet)),
            Some(Fault::Stall(time)) => {
                self.queues[to].push_back(packet);
                self.stalled_until = Some(std::time::Instant::now() + time);
            }
        }
        while let Some(at) = self.held.iter().position(|held| held.0 == to && held.1 == number) {
            self.queues[to].push_back(self.held.remove(at).2);
        }
    }
}

/// 8 sockets, some 300 packets a second each in each direction: packet 150 of every socket is sent after the warm-up.
fn spec() -> LoadSpec {
    LoadSpec {
        rate_mbit: 20.0,
        sockets: 8,
        hosts: 3,
        duration_s: 2.0,
        warmup_s: 0.4,
        drain_s: 0.5,
        ..LoadSpec::default()
    }
}

#[test]
fn a_wire_without_faults_is_reported_clean() {
    let _alone = alone();
    let network = Network::new(Faults::new(), true);
    for packet_size_bytes in [60, 512, 1514] {
        let spec = LoadSpec { packet_size_bytes, sockets: 128, hosts: 16, ..spec() };
        let report = network.load(&spec).report();
        assert!(report.is_clean() && report.complete, "{report}");
        assert_eq!((report.format, &report.spec), (1, &spec));
        let total = &report.total;
        // Every request was answered; a few answers belong to another phase than their requests.
        let all = |count: fn(&PhaseReport) -> u64| report.phases.iter().map(count).sum::<u64>();
        assert_eq!(all(|phase| phase.outbound.received), all(|phase| phase.inbound.sent));
        assert_eq!(total.rtt.count, total.outbound.sent);
        // All that was due was sent or is accounted for, but for the packets around the ends of the phase.
        let due = (spec.packets_per_second() * spec.duration_s) as u64;
        let seen = total.outbound.sent + total.outbound.unsent;
        assert!(seen.abs_diff(due) <= 64 + due / 20, "{seen} of {due}\n{report}");
    }
}

#[test]
fn what_the_wire_did_is_what_the_report_says() {
    let _alone = alone();
    let faults = [
        ((OUTBOUND, 0, 200), Fault::Lose),
        ((OUTBOUND, 1, 200), Fault::Lose),
        ((OUTBOUND, 1, 201), Fault::Lose),
        ((INBOUND, 2, 210), Fault::Lose),
        ((OUTBOUND, 3, 220), Fault::Duplicate),
        ((INBOUND, 3, 230), Fault::Duplicate),
        ((INBOUND, 4, 230), Fault::Duplicate),
        // With 8 sockets in turn, 9 packets later is behind the flow's next one, 25 behind its next three.
        ((OUTBOUND, 5, 240), Fault::Delay(9)),
        ((INBOUND, 6, 240), Fault::Delay(9)),
        ((INBOUND, 7, 250), Fault::Delay(25)),
    ];
    let network = Network::new(faults.into(), true);
    let report = network.load(&spec()).report();
    let total = &report.total;
    let counts = |direction: &DirectionReport| {
        (direction.lost, direction.duplicated, direction.reordered, direction.reordering_extent_max)
    };
    assert_eq!(counts(&total.outbound), (3, 1, 1, 1), "{report}");
    assert_eq!(counts(&total.inbound), (1, 2, 2, 3), "{report}");
    assert_eq!((total.outbound.corrupt, total.inbound.corrupt), (0, 0));
    assert_eq!((total.outbound.mistranslated, total.inbound.mistranslated), (0, 0));
    assert_eq!(report.flows.iter().map(|flow| flow.socket).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7]);
    let flow = &report.flows[1];
    assert_eq!((flow.outbound.lost, flow.inbound.lost), (2, 0));
    assert_eq!(flow.exterior.as_deref().map(|exterior| exterior.starts_with("10.2.0.1:")), Some(true));
    assert!(!report.is_clean());
}

#[test]
fn marks_split_the_run_and_a_signal_ends_it_early() {
    let _alone = alone();
    let network = Network::new([((OUTBOUND, 3, 100), Fault::Lose)].into(), true);
    let spec = LoadSpec { duration_s: 600.0, warmup_s: 0.2, ..spec() };
    let mut load = network.load(&spec);
    let mut control = Control::connect(&network.path("control"));
    control.wait_for("the measurement", |status| status.stage == Stage::Measuring);
    control.wait_for("the loss", |status| status.outbound.sent > 8 * 110);
    assert_eq!(control.ask("mark during"), "ok");
    control.wait_for("more packets", |status| status.outbound.sent > 8 * 200);
    load.type_in("mark after");
    assert!(control.ask("mark total").starts_with("error: "));
    control.wait_for("still more", |status| status.phase == "after" && status.outbound.sent > 8 * 300);
    kill(load.id(), Signal::SIGTERM).expect("a signal");
    let report = load.report();
    assert!(!report.complete);
    let names: Vec<_> = report.phases.iter().map(|phase| phase.name.as_str()).collect();
    assert_eq!(names, [WARMUP, BEFORE, "during", "after"]);
    let measured = &report.phases[1..];
    assert_eq!(measured.iter().map(PhaseReport::lost).collect::<Vec<_>>(), [1, 0, 0], "{report}");
    assert!(report.phases.iter().all(|phase| phase.outbound.sent > 0 && phase.rtt.count > 0));
    assert!(!network.path("control").exists());
}

#[test]
fn back_pressure_is_no_loss_and_a_stall_is_seen() {
    let _alone = alone();
    // 9,000 packets a second fill the port's ring of 1024 long before the stall is over.
    let stall = Duration::from_millis(500);
    let network = Network::new([((OUTBOUND, 0, 2000), Fault::Stall(stall))].into(), true);
    let spec = LoadSpec { rate_mbit: 75.0, duration_s: 3.0, drain_s: 1.0, ..spec() };
    let report = network.load(&spec).report();
    assert!(report.is_clean(), "{report}");
    assert!(report.total.outbound.unsent > 0, "{report}");
    assert!(report.total.late > 0, "{report}");
    assert!(report.total.outbound.gap_max_us >= 450_000, "{report}");
    assert!(report.total.rtt.max_us >= 450_000, "{report}");
}

#[test]
fn a_nat_that_does_not_answer_is_named() {
    let _alone = alone();
    let network = Network::new(Faults::new(), false);
    let output = network.load(&spec()).output();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("nobody answers ARP for 10.1.0.1"), "{message}");
}

#[test]
fn a_socket_that_is_not_there_is_named() {
    let _alone = alone();
    let output = Command::new(env!("CARGO_BIN_EXE_slim-load"))
        .args(["--inside=/nonexistent/inside", "--outside=/nonexistent/outside", "--quiet"])
        .stdin(Stdio::null())
        .output()
        .expect("slim-load runs");
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("/nonexistent/inside"), "{message}");
}

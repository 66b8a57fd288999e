//! The switch: vhost-user ports, a path per port and direction, drain packets, handing back.

use dpdk::{Eal, Mbuf, Mempool, PortConfig, Started, process_arguments};
use slim_core::nf::PortId;
use slim_core::packet::PacketBuf;
use slim_core::protocol::inband::{Drain, Frame, is_inband};
use slim_core::protocol::{MigrationId, Nonce, PathIndex, PathSet};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

static DPDK: OnceLock<(Eal, Mempool)> = OnceLock::new();
static SOCKETS: AtomicUsize = AtomicUsize::new(0);

fn dpdk() -> &'static (Eal, Mempool) {
    DPDK.get_or_init(|| {
        let eal = Eal::init(process_arguments(128)).expect("the EAL starts");
        let pool = Mempool::new(&eal, "fabric", 16_383).expect("memory");
        (eal, pool)
    })
}

/// The left and the right port of one instance.
pub type Side = usize;

struct Port {
    started: Started,
    socket: PathBuf,
    /// What waits for room in the ring.
    egress: VecDeque<Mbuf>,
}

/// A drain packet on its way, sent again until it is acknowledged.
struct Draining {
    drain: Drain,
    instance: usize,
    sent: std::time::Instant,
}

pub struct Fabric {
    /// Per instance, left and right.
    ports: Vec<[Port; 2]>,
    /// The instance that all paths lead to.
    pub active: usize,
    draining: Vec<Draining>,
    pub acknowledged: PathSet,
    /// Frames that arrive from outside while packets are being handed back, if they are.
    held: Option<Vec<(Side, Vec<u8>)>>,
    ends: PathSet,
    /// Frames that left an instance, with the instance and the side they left it at, oldest first.
    pub received: VecDeque<(usize, Side, Vec<u8>)>,
    pub handed_back: usize,
}

impl Fabric {
    pub fn new(instances: usize, directory: &Path) -> Self {
        let (eal, pool) = dpdk();
        let port = || {
            let number = SOCKETS.fetch_add(1, Ordering::Relaxed);
            let socket = directory.join(format!("port{number}.sock"));
            let device = eal.attach(&format!("net_vhost{number},iface={},queues=1", socket.display()));
            let started = device.expect("attaches").start(&PortConfig::default(), pool).expect("starts");
            Port { started, socket, egress: VecDeque::new() }
        };
        Self {
            ports: (0..instances).map(|_| [port(), port()]).collect(),
            active: 0,
            draining: Vec::new(),
            acknowledged: PathSet::EMPTY,
            held: None,
            ends: PathSet::EMPTY,
            received: VecDeque::new(),
            handed_back: 0,
        }
    }

    pub fn sockets(&self, instance: usize) -> [&Path; 2] {
        [0, 1].map(|side: Side| self.ports[instance][side].socket.as_path())
    }

    pub fn links_up(&self, instance: usize) -> bool {
        self.ports[instance].iter().all(|port| port.started.port.link_up().expect("a link state"))
    }

    /// A frame arrives from outside.
    pub fn inject(&mut self, side: Side, frame: &[u8]) {
        match &mut self.held {
            Some(held) => held.push((side, frame.to_vec())),
            None => self.send(self.active, side, frame),
        }
    }

    /// Sends a frame to an instance, whatever the paths say.
    pub fn send(&mut self, instance: usize, side: Side, frame: &[u8]) {
        let mbuf = dpdk().1.alloc_copy(frame).expect("enough packet buffers");
        self.ports[instance][side].egress.push_back(mbuf);
    }

    /// Redirects all paths to `instance` in one step, and drains the old ones.
    pub fn redirect(&mut self, instance: usize, migration: MigrationId, nonce: Nonce) {
        self.acknowledged = PathSet::EMPTY;
        for path in PathSet::first(2).iter() {
            let drain = Drain { migration, nonce, path, paths: PathSet::first(2) };
            let draining = Draining { drain, instance: self.active, sent: std::time::Instant::now() };
            self.send_drain(&draining);
            self.draining.push(draining);
        }
        self.active = instance;
    }

    /// As [`redirect`](Self::redirect), holding what arrives until the present instance has handed back everything.
    pub fn redirect_back(&mut self, instance: usize, migration: MigrationId, nonce: Nonce) {
        self.held = Some(Vec::new());
        self.ends = PathSet::EMPTY;
        self.redirect(instance, migration, nonce);
    }

    fn send_drain(&mut self, draining: &Draining) {
        let mut frame = [0; 60];
        let len = Frame::Drain(draining.drain).encode(&mut frame).expect("room");
        self.send(draining.instance, usize::from(draining.drain.path.get()), &frame[..len]);
    }

    pub fn poll(&mut self) {
        let mut burst = heapless::Vec::<Mbuf, 512>::new();
        for instance in 0..self.ports.len() {
            for side in 0..2 {
                let port = &mut self.ports[instance][side];
                port.started.tx[0].burst_from(&mut port.egress);
                port.started.rx[0].burst(&mut burst);
                for mbuf in burst.drain(..) {
                    if is_inband(mbuf.bytes()) {
                        let frame = Frame::decode(mbuf.bytes()).expect("a sound in-band frame");
                        self.inband(instance, side, frame);
                    } else {
                        self.received.push_back((instance, side, mbuf.bytes().to_vec()));
                    }
                }
            }
        }
        self.repeat_drains();
    }

    fn inband(&mut self, instance: usize, side: Side, frame: Frame<'_>) {
        match frame {
            Frame::DrainAck(drain) => {
                assert_eq!(usize::from(drain.path.get()), side, "acknowledged on its own port");
                self.draining.retain(|draining| draining.drain != drain);
                self.acknowledged.insert(drain.path);
            }
            Frame::HandBack { port: PortId(port), frame, .. } => {
                self.handed_back += 1;
                self.send(self.active, usize::from(port), frame);
            }
            Frame::HandBackEnd(end) => {
                self.ends.insert(PathIndex::new(end.port.0).expect("a port"));
                if self.ends == PathSet::first(2) {
                    for (side, frame) in self.held.take().unwrap_or_default() {
                        self.send(self.active, side, &frame);
                    }
                }
            }
            Frame::Drain(_) => panic!("instance {instance} sends a drain packet"),
        }
    }

    fn repeat_drains(&mut self) {
        let mut draining = std::mem::take(&mut self.draining);
        for draining in &mut draining {
            if draining.sent.elapsed().as_millis() >= 20 {
                draining.sent = std::time::Instant::now();
                self.send_drain(draining);
            }
        }
        self.draining.append(&mut draining);
    }

    pub fn is_holding(&self) -> bool {
        self.held.is_some()
    }
}

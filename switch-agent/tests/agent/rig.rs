//! An agent, a client of its control socket, and peers behind its ports.

use dpdk::{Eal, Mbuf, Mempool, PortConfig, Started, process_arguments};
use slim_core::packet::PacketBuf;
use slim_core::protocol::Name;
use slim_core::protocol::control::{
    ControlError, Counters, LineBuffer, LinkSettings, PortKind, PortStatus, Request, ServerMessage, SwitchEvent,
    SwitchReply, SwitchRequest, SwitchStatus, decode, encode,
};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a test waits for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// No metering, and the delay of §VII.
pub const WIDE: LinkSettings = LinkSettings { rate_bps: 0, burst_bytes: 0, delay_us: 2_500 };

static EAL: LazyLock<Eal> = LazyLock::new(|| Eal::init(process_arguments(96)).expect("the EAL starts"));
static POOL: LazyLock<Mempool> = LazyLock::new(|| Mempool::new(&EAL, "peers", 16_383).expect("memory"));

pub fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

pub fn names(texts: &[&str]) -> Vec<Name> {
    texts.iter().copied().map(name).collect()
}

/// Calls `condition` until it holds.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A frame of `len` bytes that carries `number` and otherwise depends on both.
pub fn frame(number: u32, len: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..len).map(|at| (at as u32).wrapping_mul(31).wrapping_add(number) as u8).collect();
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00]);
    frame[14..18].copy_from_slice(&number.to_be_bytes());
    frame
}

/// What [`frame`] carries.
pub fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[14..18].try_into().expect("four bytes"))
}

/// A running agent. Ends with this value, whatever happens.
pub struct Agent {
    pub child: Child,
    pub folder: tempfile::TempDir,
    pub control: Control,
    /// One agent at a time: there are few CPUs.
    _turn: MutexGuard<'static, ()>,
}

impl Agent {
    /// An agent without ports.
    pub fn start() -> Self {
        Self::start_with("", |program| Command::new(program))
    }

    /// An agent started by the command that `wrap` makes for its program, with a configuration.
    pub fn start_with(config: &str, wrap: impl FnOnce(&Path) -> Command) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = wrap(Path::new(env!("CARGO_BIN_EXE_slim-switch")));
        let socket = folder.path().join("control.sock");
        command.arg("--control").arg(&socket).args(["--mbufs", "16383"]).stdin(Stdio::null());
        if !config.is_empty() {
            let file = folder.path().join("switch.toml");
            std::fs::write(&file, config).expect("writes");
            command.arg("--config").arg(file);
        }
        let child = command.spawn().expect("the agent starts");
        wait_until("the control socket", || UnixStream::connect(&socket).is_ok());
        let control = Control::connect(&socket);
        Self { child, folder, control, _turn: turn }
    }

    /// An agent with the topology of §VII: external ports `inside` and `outside`, instances `nat-a` and `nat-b` with
    /// ports `in`, `out` and `mgmt`, and paths to `nat-a`.
    pub fn with_instances(link: LinkSettings) -> Self {
        let mut agent = Self::start();
        agent.add_vhost("inside");
        agent.add_vhost("outside");
        for instance in ["nat-a", "nat-b"] {
            agent.add_instance(instance, link);
        }
        agent
            .control
            .done(SwitchRequest::PathsSet { instance: name("nat-a"), externals: names(&["inside", "outside"]) });
        agent
    }

    pub fn add_instance(&mut self, instance: &str, link: LinkSettings) {
        let ports = ["in", "out", "mgmt"].map(|port| format!("{instance}.{port}"));
        ports.iter().for_each(|port| self.add_vhost(port));
        self.control.done(SwitchRequest::InstanceAdd {
            name: name(instance),
            ports: names(&[&ports[0], &ports[1]]),
            mgmt: Some(name(&ports[2])),
            link,
        });
    }

    pub fn socket(&self, port: &str) -> PathBuf {
        self.folder.path().join(format!("{port}.sock"))
    }

    pub fn add_vhost(&mut self, port: &str) {
        let socket = self.socket(port).display().to_string();
        self.control.done(SwitchRequest::PortAdd { name: name(port), kind: PortKind::VhostUser { socket } });
    }

    /// Connects a peer to `port` and waits until both ends say so.
    pub fn peer(&mut self, port: &str) -> Peer {
        let peer = Peer::connect(&self.socket(port));
        self.wait_link(port, true);
        peer
    }

    pub fn wait_link(&mut self, port: &str, up: bool) {
        wait_until(&format!("port {port} up: {up}"), || self.port(port).up == up);
    }

    pub fn port(&mut self, port: &str) -> PortStatus {
        let ports = match self.control.ask(SwitchRequest::PortList {}) {
            Ok(SwitchReply::Ports { ports }) => ports,
            other => panic!("{other:?}"),
        };
        ports.into_iter().find(|status| status.name.as_str() == port).expect("the port")
    }

    pub fn status(&mut self) -> SwitchStatus {
        match self.control.ask(SwitchRequest::Status {}) {
            Ok(SwitchReply::Status { status }) => *status,
            other => panic!("{other:?}"),
        }
    }

    /// The counters of the whole switch, once nothing waits in it.
    pub fn settled_counters(&mut self) -> Counters {
        let mut counters = Counters::new();
        wait_until("nothing waits", || {
            counters = self.status().counters;
            counters["waiting_packets"] == 0
        });
        let dropped: u64 =
            counters.iter().filter(|(name, _)| name.starts_with("dropped_")).map(|(_, count)| count).sum();
        let given = counters["received_packets"] + counters["made_packets"];
        assert_eq!(given, counters["sent_packets"] + counters["consumed_packets"] + dropped, "{counters:?}");
        counters
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), signal).expect("it runs");
    }

    pub fn wait_exit(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the agent ends", || {
            status = self.child.try_wait().expect("waits");
            status.is_some()
        });
        status.expect("it has ended")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client of a control socket.
pub struct Control {
    stream: UnixStream,
    lines: LineBuffer,
    next_id: u64,
    pub events: Vec<SwitchEvent>,
}

type Message = ServerMessage<SwitchReply, SwitchEvent>;

impl Control {
    pub fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        Self { stream, lines: LineBuffer::new(), next_id: 1, events: Vec::new() }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sends");
    }

    /// Says that nothing more will be sent.
    pub fn close_write(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).expect("it is open");
    }

    /// The next line, or nothing if the other side has closed.
    pub fn receive(&mut self) -> Option<Message> {
        loop {
            if let Some(line) = self.lines.next_line().expect("lines of a bearable length") {
                return Some(decode(line).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(line))));
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.lines.extend(&bytes[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("waited in vain for a line: {error}"),
            }
        }
    }

    /// The next reply and its id; events before it are kept.
    pub fn reply(&mut self) -> (u64, Result<SwitchReply, ControlError>) {
        loop {
            match self.receive().expect("a reply") {
                ServerMessage::Reply(reply) => return (reply.id, reply.result),
                ServerMessage::Event(event) => self.events.push(event),
            }
        }
    }

    pub fn ask(&mut self, request: SwitchRequest) -> Result<SwitchReply, ControlError> {
        let id = self.next_id;
        self.next_id += 1;
        self.send(encode(&Request::new(id, request)).expect("encodes").as_bytes());
        let (replied, result) = self.reply();
        assert_eq!(replied, id);
        result
    }

    /// Asks for something that must succeed.
    pub fn done(&mut self, request: SwitchRequest) {
        assert_eq!(self.ask(request), Ok(SwitchReply::Done {}));
    }

    /// Asks for something that must be refused.
    pub fn refused(&mut self, request: SwitchRequest) -> ControlError {
        self.ask(request).expect_err("refused")
    }

    /// Waits until `wanted` has been told of.
    pub fn wait_event(&mut self, wanted: &SwitchEvent) {
        while !self.events.contains(wanted) {
            match self.receive().unwrap_or_else(|| panic!("closed before {wanted:?}")) {
                ServerMessage::Event(event) => self.events.push(event),
                ServerMessage::Reply(reply) => panic!("{reply:?}"),
            }
        }
    }
}

/// What is behind a vhost port: a virtio-user port of this process.
pub struct Peer(Started);

impl Peer {
    pub fn connect(socket: &Path) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let arguments = format!("net_virtio_user{number},path={},queue_size=1024", socket.display());
        let device = EAL.attach(&arguments).expect("attaches");
        Self(device.start(&PortConfig::default(), &POOL).expect("starts"))
    }

    pub fn send(&mut self, frame: &[u8]) {
        let mut out = heapless::Vec::<Mbuf, 1>::new();
        wait_until("the ring takes a frame", || {
            if out.is_empty() {
                let mbuf = POOL.alloc_copy(frame).expect("an mbuf");
                out.push(mbuf).expect("room");
            }
            self.0.tx[0].burst(&mut out) == 1
        });
    }

    /// What is there to receive.
    pub fn received(&mut self) -> Vec<Vec<u8>> {
        let mut burst = heapless::Vec::<Mbuf, 32>::new();
        let mut frames = Vec::new();
        while self.0.rx[0].burst(&mut burst) > 0 {
            frames.extend(burst.drain(..).map(|mbuf| mbuf.bytes().to_vec()));
        }
        frames
    }

    /// Receives `count` frames.
    pub fn receive(&mut self, count: usize) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        wait_until(&format!("{count} frames"), || {
            frames.append(&mut self.received());
            frames.len() >= count
        });
        assert_eq!(frames.len(), count);
        frames
    }
}

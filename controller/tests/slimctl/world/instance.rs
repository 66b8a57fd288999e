//! An instance without a dataplane: the real VEI, a real control connection, and lcores and streams that always succeed,
//! unless told otherwise.

use slim_core::nf::ShardId;
use slim_core::protocol::control::{
    ControlError, Counters, Description, Event, InstanceEvent, InstanceReply, InstanceRequest, InstanceStatus,
    LineBuffer, PktQTotals, QueueStatus, Reply, Request, SAMPLE, SAMPLE_SNAPSHOT, SnapshotTotals, StateletTotals,
    SubscriberCursor, SubscriberPage, SubscriberStatus, WorkloadTotals, decode_request, encode,
};
use slim_core::protocol::inband::Drain;
use slim_core::protocol::stream::{Handshake, HandshakeReply, StreamRole};
use slim_core::protocol::{Digest, MigrationId, Name, Schema};
use slim_core::statelet::End;
use slim_core::time::Instant;
use slim_core::vei::{
    Action, Event as VeiEvent, Handled, Identity, Instance, LcoreCommand, LcoreEvent, LcoreTotals, StreamCommand,
    StreamEvent,
};
use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What an instance does wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// As a source, it does not end its snapshot until told to.
    pub endless_snapshot: bool,
    /// As a destination, its state is not that of the source.
    pub other_state: bool,
    /// Traffic that it would have to process, in Mbit/s: packets of 512 bytes with a statelet of 12 bytes each.
    pub load_mbit: u64,
    /// Its state has another shape than everybody else's.
    pub other_schema: bool,
    /// As a destination, it falls silent once it is armed: the connection ends and nobody listens any more.
    pub vanishes_when_armed: bool,
}

/// Everything that reaches an instance.
pub enum Input {
    Request {
        request: InstanceRequest,
        answer: Sender<Result<InstanceReply, ControlError>>,
    },
    Handshake {
        handshake: Handshake,
        from: Sender<Input>,
        answer: Sender<HandshakeReply>,
    },
    /// From its own lcore or streams, or those of the other side.
    Event(VeiEvent),
    Drain(Drain),
    /// The snapshot may end now.
    EndSnapshot,
}

/// Where instances find each other in place of TCP streams.
pub type Streams = Arc<Mutex<BTreeMap<SocketAddr, Sender<Input>>>>;

type Clients = Arc<Mutex<Vec<TcpStream>>>;

/// A running instance.
pub struct TestInstance {
    pub control: SocketAddr,
    pub inputs: Sender<Input>,
}

struct Runner {
    name: Name,
    vei: Instance,
    schema: Schema,
    faults: Faults,
    state_address: SocketAddr,
    streams: Streams,
    clients: Clients,
    began: std::time::Instant,
    /// Whoever opened the streams to us: the way back for the acknowledgement.
    source: Option<Sender<Input>>,
    inputs: Sender<Input>,
    pending: VecDeque<VeiEvent>,
    hand_back: Sender<MigrationId>,
}

impl TestInstance {
    /// Starts an instance that listens on loopback, at `address`.
    pub fn start(
        name: &str,
        address: SocketAddr,
        faults: Faults,
        streams: &Streams,
        hand_back: Sender<MigrationId>,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let control = listener.local_addr().unwrap();
        // Nobody connects to it: it is what instances know each other by.
        let state_address = SocketAddr::new(control.ip(), control.port() ^ 1);
        let (inputs, queue) = channel();
        streams.lock().unwrap().insert(state_address, inputs.clone());
        let clients = Clients::default();
        let schema = Schema(if faults.other_schema { 8 } else { 7 });
        let identity = Identity { kind: name_of("nat"), schema, shards: 1 };
        let runner = Runner {
            name: name_of(name),
            vei: Instance::new(identity),
            schema,
            faults,
            state_address,
            streams: Arc::clone(streams),
            clients: Arc::clone(&clients),
            began: std::time::Instant::now(),
            source: None,
            inputs: inputs.clone(),
            pending: VecDeque::new(),
            hand_back,
        };
        let of_clients = inputs.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let (inputs, clients) = (of_clients.clone(), Arc::clone(&clients));
                std::thread::spawn(move || serve(stream, &inputs, &clients));
            }
        });
        std::thread::spawn(move || runner.run(&queue));
        Self { control, inputs }
    }
}

pub fn name_of(name: &str) -> Name {
    name.try_into().unwrap()
}

fn serve(mut stream: TcpStream, inputs: &Sender<Input>, clients: &Clients) {
    clients.lock().unwrap().push(stream.try_clone().unwrap());
    let mut lines = LineBuffer::new();
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        lines.extend(&bytes[..count]);
        while let Some(line) = lines.next_line().unwrap() {
            let Request { id, request, .. } = decode_request::<InstanceRequest>(line).unwrap();
            let (answer, answered) = channel();
            if inputs.send(Input::Request { request, answer }).is_err() {
                return;
            }
            let Ok(result) = answered.recv() else { return };
            let line = encode(&Reply::new(id, result)).unwrap();
            if stream.write_all(line.as_bytes()).is_err() {
                return;
            }
        }
    }
}

impl Runner {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.began.elapsed().as_nanos() as u64)
    }

    fn run(mut self, queue: &Receiver<Input>) {
        loop {
            let wait = self.vei.poll_timeout().map_or(Duration::from_secs(3600), |at| at - self.now());
            match queue.recv_timeout(wait) {
                Ok(Input::Request { request, answer }) => {
                    let now = self.now();
                    let result = self.vei.request(now, &request).map(|handled| self.reply(&request, handled));
                    // Actions before the answer: whoever asked sees the effect.
                    let exists = self.settle();
                    let _ = answer.send(result);
                    if !exists {
                        return;
                    }
                }
                Ok(Input::Handshake { handshake, from, answer }) => {
                    let now = self.now();
                    self.source = Some(from);
                    let _ = answer.send(self.vei.accept(now, &handshake));
                }
                Ok(Input::Event(event)) => self.pending.push_back(event),
                Ok(Input::Drain(drain)) => {
                    self.pending.push_back(lcore(LcoreEvent::Drain(drain)));
                }
                Ok(Input::EndSnapshot) => self.send_snapshot(),
                Err(RecvTimeoutError::Timeout) => {
                    let now = self.now();
                    self.vei.handle_timeout(now);
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if !self.settle() {
                return;
            }
        }
    }

    /// Carries out what the VEI wants and feeds it the results. Says whether the instance still exists.
    fn settle(&mut self) -> bool {
        loop {
            while let Some(action) = self.vei.poll_action() {
                match action {
                    Action::Lcore { command, .. } => self.lcore(command),
                    Action::Stream { command, .. } => self.stream(command),
                    Action::Notify(event) => {
                        if self.faults.vanishes_when_armed && format!("{event:?}").contains("Destination(Armed)") {
                            for client in self.clients.lock().unwrap().drain(..) {
                                let _ = client.shutdown(std::net::Shutdown::Both);
                            }
                            return false;
                        }
                        self.tell(event);
                    }
                }
            }
            let Some(event) = self.pending.pop_front() else { return true };
            let now = self.now();
            if let Err(error) = self.vei.handle(now, event.clone()) {
                panic!("{}: {event:?}: {error}", self.name);
            }
        }
    }

    fn lcore(&mut self, command: LcoreCommand) {
        let workload = WorkloadTotals { packets: 1000, bytes: 512_000 };
        let event = match command {
            LcoreCommand::Freeze(..) => LcoreEvent::Frozen,
            LcoreCommand::Stop => LcoreEvent::Stopped(LcoreTotals { statelets: statelets(), workload }),
            LcoreCommand::Resume(_) => LcoreEvent::Resumed,
            LcoreCommand::ArmPktQ => LcoreEvent::PktQArmed,
            LcoreCommand::TakeOver(_) => LcoreEvent::PktQDrained(pkt_q()),
            LcoreCommand::HandBack(migration, _) => {
                let _ = self.hand_back.send(migration);
                LcoreEvent::HandedBack(pkt_q())
            }
            LcoreCommand::Discard => LcoreEvent::Discarded(pkt_q()),
            LcoreCommand::Activate | LcoreCommand::Release(_) | LcoreCommand::Reset => return,
        };
        self.pending.push_back(lcore(event));
        match command {
            LcoreCommand::Stop => self.digest(1),
            LcoreCommand::TakeOver(_) => self.digest(if self.faults.other_state { 2 } else { 1 }),
            _ => {}
        }
    }

    fn digest(&mut self, digest: u128) {
        self.pending.push_back(VeiEvent::Digest { shard: ShardId(0), digest: Digest(digest) });
    }

    fn stream(&mut self, command: StreamCommand) {
        match command {
            StreamCommand::Connect(role) => {
                let reply = self.handshake(role);
                self.pending.push_back(stream(match reply {
                    Some(Ok(_)) => StreamEvent::Accepted(role),
                    Some(Err(rejection)) => StreamEvent::Refused(role, rejection),
                    None => StreamEvent::Lost(role, "nobody there".into()),
                }));
            }
            StreamCommand::SendSnapshot if self.faults.endless_snapshot => {}
            StreamCommand::SendSnapshot => self.send_snapshot(),
            StreamCommand::SendStatelets => {}
            StreamCommand::Flush => {
                self.pending.push_back(stream(StreamEvent::Flushed { end: end(), totals: statelets() }));
            }
            StreamCommand::SendEnd(end) => {
                self.to_peer(StreamEvent::EndReceived { end, received: end, totals: statelets() });
            }
            StreamCommand::ApplyStatelets => {
                self.pending.push_back(stream(StreamEvent::Applied { records: end().records, left: 0 }));
            }
            StreamCommand::SendTakenOver => {
                if let Some(source) = &self.source {
                    let _ = source.send(Input::Event(stream(StreamEvent::TakenOver)));
                }
            }
            StreamCommand::Close => self.pending.push_back(stream(StreamEvent::Closed)),
        }
    }

    fn send_snapshot(&mut self) {
        let filler_bytes = self.vei.source().unwrap().parameters().options.filler_bytes;
        let totals = SnapshotTotals { bytes: 70_000 + filler_bytes, chunks: 5, entries: 128, filler_bytes };
        self.to_peer(StreamEvent::SnapshotInstalled(totals));
        self.pending.push_back(stream(StreamEvent::SnapshotSent(totals)));
    }

    fn peer(&self) -> Option<Sender<Input>> {
        let destination = self.vei.source()?.parameters().destination;
        self.streams.lock().unwrap().get(&destination).cloned()
    }

    fn handshake(&self, role: StreamRole) -> Option<HandshakeReply> {
        let handshake = self.vei.source()?.handshake(ShardId(0), role);
        let (answer, answered) = channel();
        let from = self.inputs.clone();
        self.peer()?.send(Input::Handshake { handshake, from, answer }).ok()?;
        answered.recv().ok()
    }

    fn to_peer(&self, event: StreamEvent) {
        if let Some(peer) = self.peer() {
            let _ = peer.send(Input::Event(stream(event)));
        }
    }

    fn tell(&self, event: InstanceEvent) {
        let line = encode(&Event::new(event)).unwrap();
        self.clients.lock().unwrap().retain_mut(|client| client.write_all(line.as_bytes()).is_ok());
    }

    fn counters(&self) -> Counters {
        let packets = self.faults.load_mbit * 1_000_000 / 8 / 512;
        let sample = [
            ("elapsed_us", 1_000_000),
            ("packets", packets),
            ("packet_bytes", packets * 512),
            ("statelets", packets),
            ("value_bytes", packets * 12),
        ];
        let sample = sample.into_iter().map(|(name, value)| (format!("{SAMPLE}{name}"), value));
        sample.chain([("port.in.rx_packets".to_owned(), 1_234_567)]).collect()
    }

    fn reply(&self, request: &InstanceRequest, handled: Handled) -> InstanceReply {
        match (handled, request) {
            (Handled::Done, _) | (_, InstanceRequest::Shutdown {} | InstanceRequest::Sample { .. }) => {
                InstanceReply::Done
            }
            (_, InstanceRequest::Subscribers { from }) => InstanceReply::Subscribers(subscribers(*from)),
            (_, InstanceRequest::Describe {}) => InstanceReply::Description(Description {
                name: self.name.clone(),
                kind: name_of("nat"),
                schema: self.schema,
                software: "test".into(),
                shards: 1,
                ports: vec![name_of("in"), name_of("out")],
                role: self.vei.role(),
                state_address: self.state_address,
                capacity: BTreeMap::from([("sessions".to_owned(), 65_536)]),
                boot_ms: 1,
            }),
            _ => InstanceReply::Status(Box::new(InstanceStatus {
                name: self.name.clone(),
                role: self.vei.role(),
                uptime_ms: self.now().as_millis(),
                migration: self.vei.migration_status(self.now()),
                counters: self.counters(),
                gauges: BTreeMap::from([("nat.sessions".to_owned(), 128), (SAMPLE_SNAPSHOT.to_owned(), 70_000)]),
                queues: BTreeMap::from([("pkt_q".to_owned(), pkt_q_status())]),
            })),
        }
    }
}

fn lcore(event: LcoreEvent) -> VeiEvent {
    VeiEvent::Lcore { shard: ShardId(0), event }
}

fn stream(event: StreamEvent) -> VeiEvent {
    VeiEvent::Stream { shard: ShardId(0), event }
}

fn statelets() -> StateletTotals {
    StateletTotals { records: 1000, value_bytes: 12_000, bytes: 16_000, segments: 12, ..StateletTotals::ZERO }
}

fn end() -> End {
    End { records: 1000, crc: 42 }
}

fn pkt_q_status() -> QueueStatus {
    QueueStatus { capacity_bytes: 32 << 20, ..QueueStatus::default() }
}

fn pkt_q() -> PktQTotals {
    PktQTotals { packets: 30, longest_packets: 17, longest_bytes: 8_704, ..PktQTotals::default() }
}

/// Three subscribers on two pages.
fn subscribers(from: Option<SubscriberCursor>) -> SubscriberPage {
    let of = |host: u8, bytes: u64| SubscriberStatus {
        address: [10, 0, 0, host].into(),
        counters: vec![bytes, bytes / 1000],
    };
    let (subscribers, next) = match from {
        None => (vec![of(1, 7_000), of(2, 9_000_000)], Some(SubscriberCursor { shard: 0, place: 77 })),
        Some(SubscriberCursor { shard: 0, place: 77 }) => (vec![of(3, 8_000)], None),
        Some(cursor) => panic!("asked to go on from {cursor:?}"),
    };
    SubscriberPage { counters: vec!["bytes_inbound".into(), "packets_inbound".into()], subscribers, next }
}

//! The management thread: owns the state machine, feeds it what happens, carries out what it decides.

use super::accept::Opening;
use super::capacity::capacity;
use super::control::{ClientId, Clients, FromClient};
use super::inbox::{End, Message, News, Sender, SessionId};
use super::outgoing::StreamOptions;
use super::sample::Sample;
use super::shard::{ManagedShard, Means, SourceMeans};
use super::status::{Sources, gauges};
use crate::config::{Invalid, Limits};
use slim_core::nf::{Gauge, NetworkFunction, ShardId, Subscriber};
use slim_core::protocol::control::{
    ConfigInForce, ControlError, Counters, Description, ErrorCode, InstanceEvent, InstanceReply, InstanceRequest,
    InstanceStatus, QueueStatus, Request, Secret, SubscriberCursor, SubscriberPage, SubscriberStatus,
};
use slim_core::protocol::stream::{Rejection, StreamRole};
use slim_core::protocol::{Digest, Name, Schema};
use slim_core::table::ScanCursor;
use slim_core::time::Instant;
use slim_core::vei::lcore::{Command, Frozen, Report};
use slim_core::vei::{self, Action, Event, Handled, LcoreEvent, StreamEvent};
use slim_trust::Security;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, SystemTime};

/// How long a request for the status waits for the lcores' gauges before it is answered without them.
const GAUGES_PATIENCE: Duration = Duration::from_millis(200);

/// How long the end waits for clients to be told of it.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// What an instance is, apart from its network function.
pub struct Instance {
    /// Its name.
    pub name: Name,
    /// Bounds of its queues.
    pub limits: Limits,
    /// Where it listens for streams.
    pub state_address: SocketAddr,
    /// How long it took to become ready.
    pub boot_ms: u64,
    /// Writes its configuration file, with what is in force where nothing was said. Only when somebody asks: at a boot
    /// there is no time for it.
    pub in_force: Box<dyn Fn() -> Result<String, Invalid>>,
    /// How it speaks to others.
    pub security: Security,
}

/// Everything that has to be there before the management thread runs.
pub struct Ready<F: NetworkFunction> {
    /// The instance.
    pub instance: Instance,
    /// The network function's configuration.
    pub config: F::Config,
    /// The shards with their lcores, in order.
    pub shards: Vec<ManagedShard<F>>,
    /// Where counters are read.
    pub sources: Sources,
    /// The way into the inbox, for threads to come.
    pub inbox: Sender<F>,
}

/// The management thread.
pub struct Manager<F: NetworkFunction> {
    ready: Ready<F>,
    vei: vei::Instance,
    clients: Clients,
    /// Requests for the status that wait for gauges.
    asking: Vec<(ClientId, u64)>,
    asking_until: Option<std::time::Instant>,
    /// Requests for subscribers, each of a shard; lcores answer in turn.
    listing: VecDeque<(ShardId, ClientId, u64)>,
    /// The gauges of each shard; `None` while they are being asked for.
    gauges: Vec<Option<Vec<Gauge>>>,
    sample: Sample,
    began: std::time::Instant,
}

impl<F: NetworkFunction> Manager<F> {
    /// The management thread of an idle instance.
    ///
    /// # Errors
    /// If the network function's kind is not a name.
    pub fn new(ready: Ready<F>) -> Result<Self, slim_core::protocol::InvalidText> {
        let identity = vei::Identity {
            kind: Name::try_from(F::KIND)?,
            schema: Schema(F::SCHEMA),
            shards: ready.shards.len() as u16,
        };
        Ok(Self {
            gauges: ready.shards.iter().map(|_| Some(Vec::new())).collect(),
            ready,
            vei: vei::Instance::new(identity),
            clients: Clients::default(),
            asking: Vec::new(),
            asking_until: None,
            listing: VecDeque::new(),
            sample: Sample::default(),
            began: std::time::Instant::now(),
        })
    }

    /// Runs until the instance is to end, and returns why.
    pub fn run(mut self, inbox: &Receiver<Message<F>>) -> End {
        loop {
            let message = match self.patience() {
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(patience) => inbox.recv_timeout(patience),
            };
            match message {
                Ok(Message::End(reason)) => return self.end(reason),
                Ok(Message::Client(FromClient::Asked(id, request)))
                    if request.request == (InstanceRequest::Shutdown {}) =>
                {
                    self.clients.reply(id, request.id, Ok(InstanceReply::Done));
                    return self.end(End::Requested("shutdown was requested"));
                }
                Ok(message) => self.handle(message),
                Err(RecvTimeoutError::Timeout) => {}
                // The manager has a sender itself, so this cannot happen; ending is the safe answer.
                Err(RecvTimeoutError::Disconnected) => return self.end(End::Failed("nobody is left to manage for")),
            }
            let now = self.now();
            if self.vei.poll_timeout().is_some_and(|due| due <= now) {
                self.vei.handle_timeout(now);
            }
            self.carry_out();
            if self.asking_until.is_some_and(|until| until <= std::time::Instant::now()) {
                self.answer_status();
            }
        }
    }

    fn now(&self) -> Instant {
        // Never zero: the machines' clock starts before anything happens.
        Instant::from_nanos(self.began.elapsed().as_nanos() as u64 + 1)
    }

    /// How long to wait for the next message.
    fn patience(&self) -> Option<Duration> {
        let machine = self.vei.poll_timeout().map(|due| due - self.now());
        let status = self.asking_until.map(|until| until.saturating_duration_since(std::time::Instant::now()));
        machine.into_iter().chain(status).min()
    }

    fn handle(&mut self, message: Message<F>) {
        match message {
            Message::Client(FromClient::Connected(id, client)) => {
                self.clients.insert(id, client);
                let (name, role) = (self.ready.instance.name.clone(), self.vei.role());
                self.clients.tell(id, InstanceEvent::Ready { name, role });
            }
            Message::Client(FromClient::Asked(id, request)) => self.answer(id, request),
            Message::Client(FromClient::Gone(id)) => self.clients.remove(id),
            Message::Lcore(shard, report) => self.report(shard, report),
            Message::Stream(shard, session, news) => self.news(shard, session, news),
            Message::Digest(shard, session, digest) if self.is_current(shard, session) => {
                self.event(Event::Digest { shard, digest });
            }
            Message::Digest(..) => {}
            Message::SnapshotSize(shard, number, bytes) => self.sample.measured(shard, number, bytes),
            Message::Opening(opening) => self.open(opening),
            Message::End(_) => {}
        }
    }

    fn answer(&mut self, client: ClientId, request: Request<InstanceRequest>) {
        let now = self.now();
        match self.vei.request(now, &request.request) {
            Ok(Handled::Done) => {
                log::info!("{}: accepted", describe(&request.request));
                // What follows from it begins before the requester hears of it.
                self.carry_out();
                self.clients.reply(client, request.id, Ok(InstanceReply::Done));
            }
            Ok(Handled::ByDriver) => match request.request {
                InstanceRequest::Describe {} => {
                    let description = InstanceReply::Description(self.description());
                    self.clients.reply(client, request.id, Ok(description));
                }
                InstanceRequest::Status {} => self.ask_gauges(client, request.id),
                InstanceRequest::Sample { duration_ms } => {
                    self.sample(Duration::from_millis(duration_ms.into()));
                    self.clients.reply(client, request.id, Ok(InstanceReply::Done));
                }
                InstanceRequest::Config {} => {
                    let toml = (self.ready.instance.in_force)();
                    let reply = toml.map(|toml| InstanceReply::Config(ConfigInForce { toml }));
                    let reply = reply.map_err(|error| ControlError::new(ErrorCode::Internal, error.to_string()));
                    self.clients.reply(client, request.id, reply);
                }
                InstanceRequest::Subscribers { from } => self.ask_subscribers(client, request.id, from),
                InstanceRequest::RenewIdentity { identity } => {
                    self.clients.reply(client, request.id, self.renew(&identity));
                }
                _ => {
                    let error = ControlError::new(ErrorCode::Unsupported, "not a request to an instance");
                    self.clients.reply(client, request.id, Err(error));
                }
            },
            Err(error) => {
                log::warn!("{}: refused: {error}", describe(&request.request));
                self.clients.reply(client, request.id, Err(error));
            }
        }
    }

    fn sample(&mut self, duration: Duration) {
        self.sample.begin(self.ready.shards.len());
        for shard in &mut self.ready.shards {
            if let Err(error) = shard.command(Command::Sample(duration)) {
                log::warn!("{error}");
            }
        }
    }

    fn renew(&self, identity: &Secret) -> Result<InstanceReply, ControlError> {
        let Security::Tls(keyring) = &self.ready.instance.security else {
            return Err(ControlError::new(
                ErrorCode::Unsupported,
                "this instance speaks plaintext and needs no identity",
            ));
        };
        match keyring.renew(identity.reveal()) {
            Ok(identity) => {
                log::info!("identity {} valid until {} s since 1970", identity.principal(), identity.not_after_s());
                Ok(InstanceReply::Done)
            }
            Err(error) => {
                log::warn!("renew identity: refused: {error}");
                Err(ControlError::with(ErrorCode::Malformed, error.to_string()))
            }
        }
    }

    fn description(&self) -> Description {
        let instance = &self.ready.instance;
        let shards = self.ready.shards.len() as u16;
        let port_names = F::PORTS.iter().filter_map(|&name| Name::try_from(name).ok());
        Description {
            name: instance.name.clone(),
            // The constructor has checked that the kind is a name.
            kind: Name::try_from(F::KIND).unwrap_or_else(|_| instance.name.clone()),
            schema: Schema(F::SCHEMA),
            software: concat!("slim ", env!("CARGO_PKG_VERSION")).into(),
            shards,
            ports: port_names.collect(),
            role: self.vei.role(),
            state_address: instance.state_address,
            capacity: capacity::<F>(&self.ready.config, &instance.limits, shards),
            boot_ms: instance.boot_ms,
        }
    }

    /// The network functions belong to the lcores: only they can tell the gauges.
    fn ask_gauges(&mut self, client: ClientId, request_id: u64) {
        self.asking.push((client, request_id));
        if self.asking_until.is_some() {
            return;
        }
        self.asking_until = Some(std::time::Instant::now() + GAUGES_PATIENCE);
        for (shard, gauges) in self.ready.shards.iter_mut().zip(&mut self.gauges) {
            *gauges = None;
            if let Err(error) = shard.command(Command::Gauges) {
                log::warn!("{error}");
            }
        }
    }

    fn ask_subscribers(&mut self, client: ClientId, request_id: u64, from: Option<SubscriberCursor>) {
        let SubscriberCursor { shard, place } = from.unwrap_or(SubscriberCursor { shard: 0, place: 0 });
        let asked = match self.ready.shards.get_mut(usize::from(shard)) {
            Some(shard) => shard
                .command(Command::Subscribers(ScanCursor::from_number(place)))
                .map_err(|error| ControlError::with(ErrorCode::Internal, error.to_string())),
            None => Err(ControlError::with(ErrorCode::Malformed, format!("there is no shard {shard}"))),
        };
        match asked {
            Ok(()) => self.listing.push_back((ShardId(shard), client, request_id)),
            Err(error) => self.clients.reply(client, request_id, Err(error)),
        }
    }

    fn answer_subscribers(&mut self, shard: ShardId, subscribers: Vec<Subscriber>, cursor: ScanCursor) {
        let asked = self.listing.iter().position(|(of, ..)| *of == shard).and_then(|place| self.listing.remove(place));
        let Some((_, client, request_id)) = asked else { return };
        let next = match cursor.number() {
            0 => Some(shard.0 + 1).filter(|&next| usize::from(next) < self.ready.shards.len()).map(|next| (next, 0)),
            place => Some((shard.0, place)),
        };
        let status = |subscriber: Subscriber| SubscriberStatus {
            address: subscriber.address,
            counters: subscriber.counters.to_vec(),
        };
        let page = SubscriberPage {
            counters: F::SUBSCRIBER_COUNTERS.iter().map(|&name| name.into()).collect(),
            subscribers: subscribers.into_iter().map(status).collect(),
            next: next.map(|(shard, place)| SubscriberCursor { shard, place }),
        };
        self.clients.reply(client, request_id, Ok(InstanceReply::Subscribers(page)));
    }

    fn answer_status(&mut self) {
        self.asking_until = None;
        let now = self.now();
        let known: Vec<Vec<Gauge>> = self.gauges.iter().flatten().cloned().collect();
        let st_q_in = self.ready.shards.iter().map(ManagedShard::st_q_in_status);
        let st_q_in = QueueStatus {
            capacity_bytes: (self.ready.instance.limits.st_q_in_bytes * self.ready.shards.len()) as u64,
            ..st_q_in.fold(QueueStatus::default(), add)
        };
        let status = InstanceStatus {
            name: self.ready.instance.name.clone(),
            role: self.vei.role(),
            uptime_ms: self.began.elapsed().as_millis() as u64,
            migration: self.vei.migration_status(now),
            counters: self.ready.sources.counters::<F>(),
            gauges: self.gauges(&known),
            queues: self.ready.sources.queues(&self.ready.instance, st_q_in),
        };
        for (client, request_id) in std::mem::take(&mut self.asking) {
            self.clients.reply(client, request_id, Ok(InstanceReply::Status(Box::new(status.clone()))));
        }
    }

    /// The network function's, and for how long the identity is valid.
    fn gauges(&self, shards: &[Vec<Gauge>]) -> Counters {
        let mut gauges = gauges::<F>(shards);
        self.sample.add_gauge(&mut gauges);
        if let Security::Tls(keyring) = &self.ready.instance.security {
            let now_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
            gauges.insert("identity.valid_s".into(), keyring.identity().not_after_s().saturating_sub(now_s));
        }
        gauges
    }

    fn report(&mut self, shard: ShardId, report: Report<F>) {
        match report {
            Report::Event(event) => {
                if let LcoreEvent::Drain(drain) = &event {
                    log::info!("migration {}: drain packet on path {}", drain.migration, drain.path.get());
                }
                self.event(Event::Lcore { shard, event });
            }
            Report::Snapshot(frozen) => {
                if let Some(shard) = self.shard(shard) {
                    shard.frozen(frozen);
                }
            }
            Report::Digest(frozen) => self.digest(shard, frozen),
            Report::Sample(frozen) => self.sample.measure(shard, frozen, self.ready.inbox.clone()),
            Report::Gauges(gauges) => {
                if let Some(slot) = self.gauges.get_mut(usize::from(shard.0)) {
                    *slot = Some(gauges);
                }
                if self.asking_until.is_some() && self.gauges.iter().all(Option::is_some) {
                    self.answer_status();
                }
            }
            Report::Subscribers(subscribers, cursor) => self.answer_subscribers(shard, subscribers, cursor),
            Report::Retired(nf) => drop(nf),
            Report::Impossible(command) => log::error!("lcore: told to {command} without a network function"),
        }
    }

    /// Computes a digest on a thread of its own.
    fn digest(&mut self, id: ShardId, frozen: Frozen) {
        let Some(shard) = self.shard(id) else { return };
        let session = shard.session();
        let inbox = self.ready.inbox.clone();
        let compute = move || {
            crate::sys::only_when_idle();
            let digest = Digest(slim_core::snapshot::digest(&frozen));
            drop(frozen);
            inbox.send(Message::Digest(id, session, digest));
        };
        if let Err(error) = std::thread::Builder::new().name("digest".into()).spawn(compute) {
            log::warn!("no digest: {error}");
        }
    }

    fn news(&mut self, shard: ShardId, session: SessionId, news: News<F>) {
        if !self.is_current(shard, session) {
            return;
        }
        match news {
            News::Event(event) => {
                if let StreamEvent::Lost(..) | StreamEvent::Rejected(..) | StreamEvent::Refused(..) = event {
                    log::warn!("streams of shard {}: {event:?}", shard.0);
                }
                self.event(Event::Stream { shard, event });
            }
            News::Synchronised(synchronised) => {
                if let Some(shard) = self.shard(shard) {
                    shard.synchronised(synchronised);
                }
            }
        }
    }

    fn open(&mut self, opening: Opening) {
        let now = self.now();
        let handshake = opening.handshake.clone();
        let peer = opening.address();
        // A stranger is not even asked what it wants.
        let reply =
            if self.is_announced(&opening) { self.vei.accept(now, &handshake) } else { Err(Rejection::Stranger) };
        match reply {
            Ok(_) => log::info!("migration {}: {:?} stream from {peer}", handshake.migration, handshake.role),
            Err(reason) => {
                let who = opening.peer().map(|peer| format!(" ({peer})")).unwrap_or_default();
                log::warn!("migration {}: stream from {peer}{who} refused: {reason}", handshake.migration);
            }
        }
        let means = Means { config: &self.ready.config, limits: &self.ready.instance.limits, inbox: &self.ready.inbox };
        // Without a destination nothing was accepted.
        let options = self.vei.destination().map(|destination| destination.parameters().options.clone());
        let options = options.unwrap_or_default();
        let shard = self.ready.shards.get_mut(usize::from(handshake.shard.0));
        match (opening.answer(reply), shard) {
            (Ok(Some(stream)), Some(shard)) => {
                if let Err(error) = shard.accept(&handshake, &options, stream, &means) {
                    let event = StreamEvent::Lost(handshake.role, error.to_string().into());
                    self.event(Event::Stream { shard: handshake.shard, event });
                }
            }
            (Err(error), _) if reply.is_ok() => {
                let event = StreamEvent::Lost(handshake.role, error.to_string().into());
                self.event(Event::Stream { shard: handshake.shard, event });
            }
            _ => {}
        }
    }

    /// Whether a stream's peer is the source that `prepare` named. In plaintext nobody knows who it is.
    fn is_announced(&self, opening: &Opening) -> bool {
        let Some(destination) = self.vei.destination() else { return true };
        let announced = destination.parameters().options.source.as_ref();
        opening.peer().is_none_or(|peer| announced == Some(&peer.name))
    }

    fn event(&mut self, event: Event) {
        let now = self.now();
        if let Err(error) = self.vei.handle(now, event) {
            log::warn!("{error}");
        }
    }

    /// Carries out everything the state machine has decided.
    fn carry_out(&mut self) {
        while let Some(action) = self.vei.poll_action() {
            let source = self.source_means(&action);
            let means =
                Means { config: &self.ready.config, limits: &self.ready.instance.limits, inbox: &self.ready.inbox };
            match action {
                Action::Lcore { shard, command } => {
                    let Some(shard) = self.ready.shards.get_mut(usize::from(shard.0)) else { continue };
                    if let Err(error) = shard.lcore(command, &means) {
                        log::error!("{command:?}: {error}");
                    }
                }
                Action::Stream { shard: id, command } => {
                    let Some(shard) = self.ready.shards.get_mut(usize::from(id.0)) else { continue };
                    match shard.stream(command, source, &means) {
                        Ok(false) => {}
                        Ok(true) => self.event(Event::Stream { shard: id, event: StreamEvent::Closed }),
                        Err(error) => log::error!("{command:?}: {error}"),
                    }
                }
                Action::Notify(event) => {
                    log_event(&event);
                    self.clients.tell_all(event);
                }
            }
        }
    }

    /// What a source's stream command depends on, if there is a source.
    fn source_means(&self, action: &Action) -> Option<SourceMeans> {
        let Action::Stream { shard, .. } = action else { return None };
        let source = self.vei.source()?;
        let parameters = source.parameters();
        let limits = &self.ready.instance.limits;
        Some(SourceMeans {
            handshakes: [StreamRole::Statelets, StreamRole::Snapshot].map(|role| source.handshake(*shard, role)),
            streams: StreamOptions::new::<F>(
                parameters.destination,
                &self.ready.instance.security,
                limits,
                &parameters.options,
            ),
            options: parameters.options.clone(),
        })
    }

    fn is_current(&self, shard: ShardId, session: SessionId) -> bool {
        self.ready.shards.get(usize::from(shard.0)).is_some_and(|shard| shard.session() == session)
    }

    fn shard(&mut self, id: ShardId) -> Option<&mut ManagedShard<F>> {
        self.ready.shards.get_mut(usize::from(id.0))
    }

    fn end(mut self, reason: End) -> End {
        for shard in &mut self.ready.shards {
            if let Err(error) = shard.command(Command::End) {
                log::warn!("{error}");
            }
        }
        // Whoever asked for the end should hear that it comes.
        self.clients.flush(FLUSH_PATIENCE);
        reason
    }
}

fn add(sum: QueueStatus, other: QueueStatus) -> QueueStatus {
    QueueStatus {
        bytes: sum.bytes + other.bytes,
        records: sum.records + other.records,
        longest_bytes: sum.longest_bytes + other.longest_bytes,
        longest_records: sum.longest_records + other.longest_records,
        ..sum
    }
}

/// A request in a few words, for the log.
fn describe(request: &InstanceRequest) -> String {
    match request {
        InstanceRequest::Prepare { migration, .. } => format!("prepare for migration {migration}"),
        InstanceRequest::Start { migration, destination, .. } => {
            format!("start migration {migration} to {destination}")
        }
        InstanceRequest::Abort { migration, reason, .. } => format!("abort migration {migration} ({reason})"),
        InstanceRequest::Resolve { migration, outcome } => format!("resolve migration {migration}: {outcome:?}"),
        InstanceRequest::Activate {} => "activate".into(),
        InstanceRequest::Reset {} => "reset".into(),
        InstanceRequest::Describe {} => "describe".into(),
        InstanceRequest::Status {} => "status".into(),
        InstanceRequest::Sample { duration_ms } => format!("sample for {duration_ms} ms"),
        InstanceRequest::Config {} => "config".into(),
        InstanceRequest::Subscribers { .. } => "subscribers".into(),
        InstanceRequest::RenewIdentity { .. } => "renew identity".into(),
        InstanceRequest::Shutdown {} => "shutdown".into(),
    }
}

fn log_event(event: &InstanceEvent) {
    match event {
        InstanceEvent::PhaseChanged { migration, phase, instance_role } => {
            log::info!("migration {migration}: {phase:?}, role {instance_role}");
        }
        InstanceEvent::RedirectWanted { migration } => log::info!("migration {migration}: redirect wanted"),
        InstanceEvent::MigrationFinished { migration, report, .. } => {
            log::info!("migration {migration}: finished after {} ms", report.total_us / 1000);
        }
        InstanceEvent::MigrationFailed { migration, failure, .. } => {
            log::warn!("migration {migration}: failed: {failure}");
        }
        InstanceEvent::Ready { .. } => {}
    }
}

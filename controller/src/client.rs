//! The daemon's clients: `slimctl`, the testbed, and whoever automates migrations.

use crate::api::{
    ApiEvent, ApiReply, ApiRequest, DaemonStatus, InstanceInfo, MigrateOptions, MigrationOutcome, PoolInfo, Subscribers,
};
use crate::hypervisor::borrowed::Functions;
use crate::peer::Endpoint;
use crate::plan::MigrationPlan;
use crate::precopy::{PrecopyOptions, PrecopyOutcome};
use slim_core::protocol::Name;
use slim_core::protocol::control::{
    ControlError, DecodeError, InstancePaths, LineBuffer, LineTooLong, Reply, Request, ResolveOutcome, ServerMessage,
    decode, encode,
};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Why the daemon did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens on the socket.
    #[error(
        "no daemon listens on {} ({source}): start one with `slimctl daemon --config deployment.toml`, \
         or name its socket with --socket or SLIM_SOCKET", socket.display()
    )]
    NotRunning {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The daemon refused.
    #[error(transparent)]
    Refused(#[from] ControlError),
    /// The connection broke before the reply; whether the request was carried out is not known.
    #[error("the daemon ended before it replied: {0}")]
    Lost(#[from] io::Error),
    /// What came is no reply to the request: another version, most likely.
    #[error("the daemon's reply cannot be understood: {0}")]
    Malformed(String),
}

impl From<LineTooLong> for ClientError {
    fn from(error: LineTooLong) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<DecodeError> for ClientError {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// No list of subscribers has more pages.
const SUBSCRIBER_PAGES_MAX: usize = 1 << 17;

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    lines: LineBuffer,
    next_id: u64,
}

impl Client {
    /// Connects to the daemon that listens on `socket`.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] if there is none.
    pub fn connect(socket: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(socket)
            .map_err(|source| ClientError::NotRunning { socket: socket.to_owned(), source })?;
        Ok(Self { stream, lines: LineBuffer::new(), next_id: 1 })
    }

    /// Connects, waiting up to `limit` for the daemon to start.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] if there is none by then.
    pub fn connect_within(socket: &Path, limit: Duration) -> Result<Self, ClientError> {
        let deadline = Instant::now() + limit;
        loop {
            match Self::connect(socket) {
                Err(ClientError::NotRunning { .. }) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                result => return result,
            }
        }
    }

    /// Asks for `request` and waits for the reply, calling `on_event` for what is told meanwhile.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn call(&mut self, request: ApiRequest, mut on_event: impl FnMut(ApiEvent)) -> Result<ApiReply, ClientError> {
        let id = self.next_id;
        self.next_id += 1;
        self.stream.write_all(encode(&Request::new(id, request))?.as_bytes())?;
        loop {
            while let Some(line) = self.lines.next_line()? {
                match decode::<ServerMessage<ApiReply, ApiEvent>>(line)? {
                    ServerMessage::Event(event) => on_event(event),
                    ServerMessage::Reply(Reply { id: of, result }) if of == id => return Ok(result?),
                    ServerMessage::Reply(Reply { id: of, .. }) => {
                        return Err(ClientError::Malformed(format!("it answers request {of}, not {id}")));
                    }
                }
            }
            let mut bytes = [0; 16 << 10];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(ClientError::Lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => self.lines.extend(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn call_quietly(&mut self, request: ApiRequest) -> Result<ApiReply, ClientError> {
        self.call(request, |_| ())
    }

    fn instance(&mut self, request: ApiRequest) -> Result<InstanceInfo, ClientError> {
        match self.call_quietly(request)? {
            ApiReply::Instance { instance } => Ok(*instance),
            _ => Err(unexpected()),
        }
    }

    fn done(&mut self, request: ApiRequest) -> Result<(), ClientError> {
        match self.call_quietly(request)? {
            ApiReply::Done {} => Ok(()),
            _ => Err(unexpected()),
        }
    }

    /// Everything at a glance.
    ///
    /// # Errors
    /// See [`ClientError`]; so for all that follow.
    pub fn status(&mut self) -> Result<DaemonStatus, ClientError> {
        match self.call_quietly(ApiRequest::Status {})? {
            ApiReply::Status { status } => Ok(*status),
            _ => Err(unexpected()),
        }
    }

    /// Every instance, by name.
    pub fn instances(&mut self) -> Result<Vec<InstanceInfo>, ClientError> {
        match self.call_quietly(ApiRequest::InstanceList {})? {
            ApiReply::Instances { instances } => Ok(instances),
            _ => Err(unexpected()),
        }
    }

    /// One instance, with its own status.
    pub fn show(&mut self, name: &Name) -> Result<InstanceInfo, ClientError> {
        self.instance(ApiRequest::InstanceShow { name: name.clone() })
    }

    /// The configuration file that says what is in force at an instance.
    pub fn config(&mut self, name: &Name) -> Result<String, ClientError> {
        match self.call_quietly(ApiRequest::InstanceConfig { name: name.clone() })? {
            ApiReply::Config { toml } => Ok(toml),
            _ => Err(unexpected()),
        }
    }

    /// What an instance keeps account of for each subscriber; `None` if it has none.
    pub fn subscribers(&mut self, name: &Name) -> Result<Option<Subscribers>, ClientError> {
        let mut all = Subscribers::default();
        let mut from = None;
        for _ in 0..SUBSCRIBER_PAGES_MAX {
            let request = ApiRequest::InstanceSubscribers { name: name.clone(), from };
            let ApiReply::Subscribers { page } = self.call_quietly(request)? else { return Err(unexpected()) };
            if page.counters.is_empty() {
                return Ok(None);
            }
            if page.subscribers.iter().any(|subscriber| subscriber.counters.len() != page.counters.len()) {
                return Err(unexpected());
            }
            all.busiest.extend(page.subscribers);
            all.counters = page.counters;
            from = page.next;
            if from.is_none() {
                all.total = all.busiest.len() as u64;
                return Ok(Some(all));
            }
        }
        Err(unexpected())
    }

    /// Boots an instance and waits until it is ready.
    pub fn boot(&mut self, name: &Name, vnf: Option<&Name>, active: bool) -> Result<InstanceInfo, ClientError> {
        self.boot_with(name, vnf, active, Functions::default())
    }

    /// The same with PCI functions of the host as its first interfaces.
    pub fn boot_with(
        &mut self,
        name: &Name,
        vnf: Option<&Name>,
        active: bool,
        functions: Functions,
    ) -> Result<InstanceInfo, ClientError> {
        self.instance(ApiRequest::InstanceBoot { name: name.clone(), vnf: vnf.cloned(), active, functions })
    }

    /// Takes charge of an instance that runs already.
    pub fn attach(
        &mut self,
        name: &Name,
        control: &Endpoint,
        vnf: Option<&Name>,
        active: bool,
    ) -> Result<InstanceInfo, ClientError> {
        let (name, control, vnf) = (name.clone(), control.clone(), vnf.cloned());
        self.instance(ApiRequest::InstanceAttach { name, control, vnf, active })
    }

    /// Ends an instance; with `force` also one that processes packets.
    pub fn retire(&mut self, name: &Name, force: bool) -> Result<(), ClientError> {
        self.done(ApiRequest::InstanceRetire { name: name.clone(), force })
    }

    /// Every instance plugged into the switch, with its paths.
    pub fn paths(&mut self) -> Result<Vec<InstancePaths>, ClientError> {
        match self.call_quietly(ApiRequest::PathList {})? {
            ApiReply::Paths { instances } => Ok(instances),
            _ => Err(unexpected()),
        }
    }

    /// Moves a live network function, to an instance out of the pool if none is named, and waits until that is over, well or
    /// not; `on_event` sees how it goes.
    pub fn migrate<'a>(
        &mut self,
        source: &Name,
        destination: impl Into<Option<&'a Name>>,
        options: MigrateOptions,
        on_event: impl FnMut(ApiEvent),
    ) -> Result<MigrationOutcome, ClientError> {
        let (source, destination) = (source.clone(), destination.into().cloned());
        match self.call(ApiRequest::Migrate { source, destination, options }, on_event)? {
            ApiReply::Migration { outcome } => Ok(*outcome),
            _ => Err(unexpected()),
        }
    }

    /// Moves the whole guest of a live network function and waits until that is over, well or not.
    pub fn precopy(
        &mut self,
        source: &Name,
        destination: &Name,
        options: PrecopyOptions,
        on_event: impl FnMut(ApiEvent),
    ) -> Result<PrecopyOutcome, ClientError> {
        let (source, destination) = (source.clone(), destination.clone());
        match self.call(ApiRequest::Precopy { source, destination, options }, on_event)? {
            ApiReply::Precopy { outcome } => Ok(*outcome),
            _ => Err(unexpected()),
        }
    }

    /// Says how a migration would go; moves nothing.
    pub fn plan<'a>(
        &mut self,
        source: &Name,
        destination: impl Into<Option<&'a Name>>,
        options: MigrateOptions,
    ) -> Result<MigrationPlan, ClientError> {
        let (source, destination) = (source.clone(), destination.into().cloned());
        match self.call_quietly(ApiRequest::Plan { source, destination, options })? {
            ApiReply::Plan { plan } => Ok(*plan),
            _ => Err(unexpected()),
        }
    }

    /// How the pools are; with `size`, that of one is set first.
    pub fn pool(&mut self, vnf: Option<&Name>, size: Option<usize>) -> Result<Vec<PoolInfo>, ClientError> {
        match self.call_quietly(ApiRequest::Pool { vnf: vnf.cloned(), size })? {
            ApiReply::Pools { pools } => Ok(pools),
            _ => Err(unexpected()),
        }
    }

    /// Gives up a migration.
    pub fn abort(&mut self, instance: Option<&Name>) -> Result<(), ClientError> {
        self.done(ApiRequest::Abort { instance: instance.cloned() })
    }

    /// Empties an instance that a migration has left released or discarded.
    pub fn reset(&mut self, name: &Name) -> Result<(), ClientError> {
        self.done(ApiRequest::InstanceReset { name: name.clone() })
    }

    /// Tells a source that waits for word of its destination how the migration ended.
    pub fn resolve(&mut self, name: &Name, outcome: ResolveOutcome) -> Result<(), ClientError> {
        self.done(ApiRequest::InstanceResolve { name: name.clone(), outcome })
    }

    /// Leads the traffic of its network function to an instance.
    pub fn set_path(&mut self, instance: &Name) -> Result<(), ClientError> {
        self.done(ApiRequest::PathSet { instance: instance.clone() })
    }

    /// Ends the daemon. Its instances end with it, unless the deployment has them go on.
    pub fn shutdown(&mut self) -> Result<(), ClientError> {
        self.done(ApiRequest::Shutdown { retire: false })
    }

    /// Ends the daemon and every instance it has booted.
    pub fn shutdown_all(&mut self) -> Result<(), ClientError> {
        self.done(ApiRequest::Shutdown { retire: true })
    }
}

fn unexpected() -> ClientError {
    ClientError::Malformed("it does not belong to the request".into())
}

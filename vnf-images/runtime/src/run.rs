//! From the command line, or the boot, to the running instance and its end.

use crate::cli::{self, Task};
use crate::config::{self, Config, Host, Invalid, at};
use crate::dataplane::{self, Plan, PlannedPort, Running, Which};
use crate::guest::handover::{self, Place};
use crate::guest::{self, power};
use crate::logging;
use crate::manage::{self, End, Instance, ManagedShard, Manager, Message, Ready, Sender, Sources};
use slim_core::nf::{ConfigError, NetworkFunction, PortId, Shard};
use slim_core::vei::lcore::Report;
use slim_trust::{Identity, IdentityError, Keyring, Role, Security};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long an instance waits for the NICs of its dataplane.
const NIC_PATIENCE: Duration = Duration::from_secs(5);

/// How long an instance that was told nothing waits for a config drive.
const DRIVE_PATIENCE: Duration = Duration::from_secs(2);

/// How long the lcore may take to end.
const END_PATIENCE: Duration = Duration::from_secs(3);

/// The exit code for a command line or configuration that cannot be used.
const EXIT_USAGE: u8 = 2;

/// Why an instance cannot run.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot read {path}: {error}")]
    ConfigFile { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Config(#[from] Invalid),
    #[error("{}[{kind}]: {error}", at(*line))]
    NetworkFunction { kind: &'static str, error: ConfigError, line: Option<usize> },
    #[error(transparent)]
    Guest(#[from] guest::Error),
    #[error("dataplane: {0}")]
    Dataplane(#[from] dataplane::StartError),
    #[error("cannot listen on {address}: {error}")]
    Listen { address: SocketAddr, error: io::Error },
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
    #[error("{place}: {error}")]
    Identity { place: String, error: IdentityError },
    #[error(
        "no identity: start QEMU with -fw_cfg name={},file=PATH, as slimctl does, append it to the configuration on a \
         config drive, or say plaintext = true in [management]",
        guest::fw_cfg::IDENTITY
    )]
    NoIdentity,
    #[error("{place}: {error}")]
    Handover { place: Place, error: Box<Error> },
    #[error("the identity {found} is not for {name}")]
    SomebodyElse { found: String, name: String },
    #[error("{0}")]
    Internal(&'static str),
}

impl Error {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::ConfigFile { .. }
            | Self::Config(_)
            | Self::NetworkFunction { .. }
            | Self::Identity { .. }
            | Self::NoIdentity
            | Self::Handover { .. }
            | Self::SomebodyElse { .. } => EXIT_USAGE.into(),
            Self::Guest(_) | Self::Dataplane(_) | Self::Listen { .. } | Self::Thread(_) | Self::Internal(_) => {
                ExitCode::FAILURE
            }
        }
    }
}

/// Runs the network function `F`: as PID 1 of an image, or as the command line says.
///
/// The exit code is 0 after a requested end, 2 if command line or configuration cannot be used, and 1 for any other
/// failure. As PID 1 it does not return: it switches the machine off.
pub fn run<F: NetworkFunction>() -> ExitCode {
    let first = std::env::args_os().nth(1);
    // The kernel passes words of its command line that it does not know to PID 1; none of them begins with dashes.
    let told = first.is_some_and(|argument| argument.to_string_lossy().starts_with('-'));
    if std::process::id() == 1 && !told {
        return image::<F>();
    }
    let matches = cli::command(F::KIND, F::PORTS).get_matches();
    let result = match cli::task(&matches) {
        Ok(Task::CheckConfig { config }) => check_config::<F>(&config).map(|config| println!("{}: good", config.name)),
        Ok(Task::Process { config, eal }) => {
            logging::start();
            process::<F>(&config, eal)
        }
        Err(message) => {
            eprintln!("{}: {message}\nTry --help.", F::KIND);
            return EXIT_USAGE.into();
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", F::KIND);
            error.exit_code()
        }
    }
}

fn check_config<F: NetworkFunction>(path: &Path) -> Result<Config<F::Config>, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::ConfigFile { path: path.into(), error })?;
    parse::<F>(&text, Host::Process)
}

/// Parses a configuration, and has the network function look at its part.
fn parse<F: NetworkFunction>(text: &str, host: Host) -> Result<Config<F::Config>, Error> {
    let config = Config::parse::<F>(text, host)?;
    match F::new(&config.nf, Shard::ONLY, 0) {
        Ok(_) => Ok(config),
        Err(error) => {
            let line = config::line_of(text, &[F::KIND], &error.0);
            Err(Error::NetworkFunction { kind: F::KIND, error, line })
        }
    }
}

/// An ordinary process.
fn process<F: NetworkFunction>(path: &Path, eal: Vec<String>) -> Result<(), Error> {
    let began = Instant::now();
    let config = check_config::<F>(path)?;
    let security = match &config.management.identity {
        Some(file) => {
            let place = || file.display().to_string();
            let identity = Identity::read(file).map_err(|error| Error::Identity { place: place(), error })?;
            as_instance(identity, config.name.as_str())?
        }
        // The configuration was checked for the wish.
        None => Security::Plaintext,
    };
    let mbufs = config.limits.mbufs_for(config.ports.len());
    let mut arguments = dpdk::process_arguments(config.limits.dpdk_memory_mb_for(mbufs, Host::Process));
    arguments.extend(eal);
    // The configuration was checked for devices.
    let devices = config.ports.iter().map(|port| Which::Attach(port.device.clone().unwrap_or_default()));
    let plan = Plan {
        eal: arguments,
        ports: planned_ports::<F>(&config, devices),
        limits: config.limits.clone(),
        mbufs,
        log_events_max: log_events_max(&config),
    };
    instance::<F>(config, plan, || began.elapsed().as_millis() as u64, || Ok(security))
}

/// How the instance `name` speaks to others with `identity`.
fn as_instance(identity: Identity, name: &str) -> Result<Security, Error> {
    let principal = identity.principal();
    if principal.role != Role::Instance || principal.name.as_str() != name {
        return Err(Error::SomebodyElse { found: principal.to_string(), name: name.into() });
    }
    Ok(Security::Tls(Keyring::new(identity)))
}

/// How the instance `name` speaks to others with the identity an image was handed over, if it was one.
fn handed_over(plaintext: bool, name: &str, identity: Option<&str>) -> Result<Security, Error> {
    if plaintext {
        return Ok(Security::Plaintext);
    }
    let identity = Identity::parse(identity.ok_or(Error::NoIdentity)?);
    as_instance(identity.map_err(|error| Error::Identity { place: "identity".into(), error })?, name)
}

/// Events that may wait for the log that is configured.
fn log_events_max<C>(config: &Config<C>) -> usize {
    config.log.as_ref().map_or(0, |log| log.events_max)
}

/// PID 1: never returns.
fn image<F: NetworkFunction>() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("slim: panic: {panic}");
        power::off();
    }));
    // The end of the kernel's part, for whoever times a boot.
    println!("slim: init boot_ms={}", guest::uptime_ms());
    // Without /dev there may be no console, but the kernel gave us the one it had.
    let mounted = guest::mount::all();
    logging::start();
    match mounted.map_err(Error::from).and_then(|()| boot::<F>()) {
        Ok(()) => eprintln!("slim: power off"),
        Err(error) => eprintln!("slim: failed: {error}"),
    }
    power::off();
    ExitCode::FAILURE
}

fn boot<F: NetworkFunction>() -> Result<(), Error> {
    power::catch_ctrl_alt_del();
    let told = handover::receive(DRIVE_PATIENCE)?;
    let place = told.place.clone();
    let handover = move |error| Error::Handover { place: place.clone(), error: Box::new(error) };
    let config = parse::<F>(&told.configuration, Host::Image).map_err(&handover)?;
    log::debug!("configured");
    // The configuration was checked for both.
    let management = config.management.mac.unwrap_or_default();
    let ports: Vec<_> = config.ports.iter().map(|port| (port.name.clone(), port.mac.unwrap_or_default())).collect();
    let roles = guest::nics::wait(&ports, management, NIC_PATIENCE)?;
    log::debug!("NICs: {roles:?}");
    let dataplane: Vec<_> = roles.ports.iter().flatten().chain(&roles.unknown).collect();
    guest::vfio::take(dataplane.iter().copied())?;
    log::debug!("NICs bound");
    let mbufs = config.limits.mbufs_for(config.ports.len());
    let memory_mb = config.limits.dpdk_memory_mb_for(mbufs, Host::Image);
    guest::hugepages::reserve(memory_mb)?;
    log::debug!("{memory_mb} MB of hugepages reserved");
    let mut eal: Vec<String> = ["-l", "0", "--in-memory", "--no-telemetry", "-m"].map(String::from).into();
    eal.push(memory_mb.to_string());
    eal.extend(dataplane.iter().flat_map(|nic| ["-a".to_string(), nic.address.clone()]));
    let devices = roles.ports.iter().zip(&ports);
    let devices = devices
        .map(|(nic, (_, mac))| nic.as_ref().map_or(Which::WithMac(*mac), |nic| Which::Present(nic.address.clone())));
    let plan = Plan {
        eal,
        ports: planned_ports::<F>(&config, devices),
        limits: config.limits.clone(),
        mbufs,
        log_events_max: log_events_max(&config),
    };
    let (network, name) = (config.management.clone(), config.name.clone());
    instance::<F>(config, plan, guest::uptime_ms, move || {
        let plaintext = network.plaintext;
        guest::management::bring_up(network)?;
        // What was told is dropped here: others may not read it in memory that is free again.
        let told = told;
        let identity = told.identity.as_ref().map(|pem| pem.as_str());
        handed_over(plaintext, name.as_str(), identity).map_err(handover)
    })
}

/// The configuration's ports on `devices`.
fn planned_ports<F: NetworkFunction>(
    config: &Config<F::Config>,
    devices: impl Iterator<Item = Which>,
) -> Vec<PlannedPort> {
    let numbers = (0..).map(PortId);
    let ports = config.ports.iter().zip(devices).zip(numbers);
    ports
        .map(|((port, which), id)| PlannedPort { name: port.name.clone(), which, mac: F::mac(&config.nf, id) })
        .collect()
}

/// Runs the instance until it is to end. `manage` is called once the dataplane is being started; it brings up the management
/// network and says how to speak to others.
fn instance<F: NetworkFunction>(
    config: Config<F::Config>,
    plan: Plan,
    boot_ms: impl Fn() -> u64,
    manage: impl FnOnce() -> Result<Security, Error>,
) -> Result<(), Error> {
    let whole = config.clone();
    let in_force = Box::new(move || whole.in_force::<F>());
    let (sender, inbox) = manage::inbox::<F>();
    // The dataplane first: most of its start is waiting.
    let started = start_dataplane(plan, &sender)?;
    let security = manage()?;
    let handlers = sender.clone();
    on_signals(move |reason| {
        handlers.send(Message::End(End::Requested(reason)));
    })?;
    let management = &config.management;
    let listen = |port| {
        let address = SocketAddr::from((management.address.address, port));
        let listener = manage::net::listen(management.address.address, port);
        listener
            .and_then(|listener| Ok((listener.local_addr()?, listener)))
            .map_err(|error| Error::Listen { address, error })
    };
    let (control_address, control) = listen(management.control_port)?;
    let (state_address, state) = listen(management.state_port)?;
    let clients = sender.clone();
    let doors = vec![
        manage::control::serve(control, security.clone(), move |event| clients.send(Message::Client(event)))?,
        manage::serve_streams(state, security.clone(), sender.clone(), config.limits.stream_buffer_bytes)?,
    ];
    match &security {
        Security::Tls(keyring) => log::info!("identity {}", keyring.identity().principal()),
        Security::Plaintext => log::warn!(
            "PLAINTEXT: control ({control_address}) and state streams ({state_address}) are neither encrypted nor \
             authenticated; whoever reaches them can end this instance or take its state"
        ),
    }

    let Started { running, ended } = started.recv().map_err(|_| Error::Internal("the lcore ended at its start"))??;
    if let (Some(log), Some(events)) = (config.log, running.log) {
        manage::log_out::serve::<F>(log, config.name.clone(), Arc::clone(&running.counters), events)?;
    }
    let boot_ms = boot_ms();
    let (name, kind) = (config.name.clone(), F::KIND);
    let (idle, drivers) = (running.idle, running.drivers.join(","));
    let manager = Manager::new(Ready {
        instance: Instance { name: config.name, limits: config.limits, state_address, boot_ms, in_force, security },
        config: config.nf,
        shards: vec![ManagedShard::new(Shard::ONLY, running.lcore)],
        sources: Sources { lcores: vec![running.counters], ports: running.ports, doors },
        inbox: sender,
    });
    let manager = manager.map_err(|_| Error::Internal("the network function's kind is not a name"))?;
    println!(
        "slim: ready name={name} kind={kind} boot_ms={boot_ms} control={control_address} state={state_address} \
         drivers={drivers} idle={idle}"
    );
    let end = manager.run(&inbox);
    if ended.recv_timeout(END_PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
        log::warn!("the lcore did not end in time");
    }
    match end {
        End::Requested(reason) => {
            log::info!("ending: {reason}");
            Ok(())
        }
        End::Failed(reason) => Err(Error::Internal(reason)),
    }
}

/// A dataplane that has started.
struct Started<F> {
    running: Running<F>,
    /// Disconnected when the lcore has ended.
    ended: mpsc::Receiver<()>,
}

type Outcome<F> = Result<Started<F>, dataplane::StartError>;

/// Starts the dataplane on a thread of its own, which becomes the lcore.
fn start_dataplane<F: NetworkFunction>(plan: Plan, inbox: &Sender<F>) -> io::Result<mpsc::Receiver<Outcome<F>>> {
    let (sender, started) = mpsc::channel();
    let inbox = inbox.clone();
    let lcore = move || {
        // An instance without its lcore is of no use, however that came about.
        let _guard = EndWithMe(inbox.clone());
        let (alive, ended) = mpsc::channel::<()>();
        let tell = |running: Result<Running<F>, _>| {
            // Nobody listens any more only if the start of something else has failed.
            let _ = sender.send(running.map(|running| Started { running, ended }));
        };
        dataplane::start(&plan, tell, |report| {
            inbox.try_send(Message::Lcore(Shard::ONLY.id, report)).map_err(|message| match message {
                Message::Lcore(_, report) => report,
                _ => Report::Gauges(Vec::new()),
            })
        });
        drop(alive);
    };
    std::thread::Builder::new().name("lcore0".into()).spawn(lcore)?;
    Ok(started)
}

/// Ends the instance with the thread that owns this.
struct EndWithMe<F>(Sender<F>);

impl<F> Drop for EndWithMe<F> {
    fn drop(&mut self) {
        // Only if the management thread still runs is this news to it, and then its inbox has room before long.
        self.0.send(Message::End(End::Failed("the lcore has ended")));
    }
}

/// Calls `end` when the instance is asked to end by a signal or the power button; collects children as PID 1.
fn on_signals(end: impl Fn(&'static str) + Clone + Send + 'static) -> io::Result<()> {
    use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGCHLD])?;
    if guest::host() == Host::Image {
        let pressed = end.clone();
        power::watch_button(move || pressed("the power button was pressed"));
    }
    let watch = move || {
        for signal in signals.forever() {
            match signal {
                SIGCHLD if guest::host() == Host::Image => drop(power::reap()),
                SIGTERM => end("SIGTERM"),
                SIGINT => end("SIGINT"),
                _ => {}
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).stack_size(64 << 10).spawn(watch).map(drop)
}

//! The command line: what is asked for, asking the daemon, and what is printed.

mod args;
mod exit;
mod layout;
mod plan;
mod report;
mod tables;
mod watch;
mod words;

pub use args::Cli;
pub use exit::Exit;

use anyhow::{Context, Result, bail};
use args::{Command, HostCommand, InstanceCommand, MigrateArgs, PathCommand, Resolution, Way};
use serde::Serialize;
use slim_controller::api::{InstanceInfo, MigrateOptions, Subscribers};
use slim_controller::client::{Client, ClientError};
use slim_controller::daemon::{Daemon, StopFlag};
use slim_controller::deployment::{Deployment, default_socket};
use slim_controller::hypervisor::borrowed::{Functions, Lender};
use slim_controller::hypervisor::inspect::{Verdict, inspect};
use slim_controller::hypervisor::passthrough::Host;
use slim_controller::precopy::PrecopyOptions;
use slim_core::protocol::Name;
use slim_core::protocol::control::ResolveOutcome;
use slim_trust::files::create_secret;
use slim_trust::{Authority, Role};
use std::path::{Path, PathBuf};
use std::time::Duration;
use watch::Watch;

/// Does what the command line asks for; says so on standard error if that fails.
pub fn run(cli: Cli) -> Exit {
    let json = cli.json;
    match execute(cli) {
        Ok(exit) => exit,
        Err(error) => {
            let exit = Exit::of_error(&error);
            if json {
                print_json(&serde_json::json!({ "error": { "message": sentence(&error), "exit": exit as u8 } }));
            } else {
                eprintln!("slimctl: {}", sentence(&error));
            }
            exit
        }
    }
}

/// An error with its causes, as far as it does not name them itself.
fn sentence(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}

fn execute(cli: Cli) -> Result<Exit> {
    let json = cli.json;
    match cli.command {
        Command::Daemon { config, check, plaintext } => daemon(&config, cli.socket, check, plaintext),
        Command::Init { dir, name } => {
            Authority::init(&dir, name)?;
            told(json, &dir, "holds the deployment's authority and the controller's identity: keep it to yourself")
        }
        Command::Identity { name, dir, hours, out } => {
            let file = out.unwrap_or_else(|| format!("{name}.identity.pem").into());
            let life = Duration::from_secs(u64::from(hours) * 3600);
            create_secret(&file, &Authority::read(&dir)?.issue(Role::Instance, &name, life)?)?;
            told(json, &file, &format!("is the identity of instance {name}"))
        }
        Command::Host(HostCommand::Check) => Ok(host_check(json)),
        Command::Host(HostCommand::Clean) => {
            let cleaned = Lender::this().clean()?;
            show(json, &cleaned, || cleaned.to_string());
            Ok(Exit::Done)
        }
        command => ask(command, cli.socket.unwrap_or_else(default_socket), json),
    }
}

/// An instance, and so many of its subscribers.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    instance: InstanceInfo,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscribers: Option<Subscribers>,
}

fn show_instance(client: &mut Client, name: &Name, most: usize, json: bool) -> Result<()> {
    let instance = client.show(name)?;
    // What does not answer has been told by then.
    let mut subscribers = if most > 0 && instance.status.is_some() { client.subscribers(name)? } else { None };
    subscribers.iter_mut().for_each(|subscribers| subscribers.keep_busiest(most));
    let shown = Shown { instance, subscribers };
    show(json, &shown, || {
        let subscribers = shown.subscribers.as_ref().map(tables::subscribers).unwrap_or_default();
        tables::instance(&shown.instance) + &subscribers
    });
    Ok(())
}

/// Says what hinders guests on this machine.
fn host_check(json: bool) -> Exit {
    let findings = inspect(&Host::this(), &Lender::this());
    show(json, &findings, || findings.iter().map(|finding| format!("{finding}\n")).collect());
    match findings.iter().any(|finding| finding.verdict == Verdict::Bad) {
        true => Exit::Failed,
        false => Exit::Done,
    }
}

/// Tells of a file or folder that has been made.
fn told(json: bool, made: &Path, what: &str) -> Result<Exit> {
    show(json, &serde_json::json!({ "made": made }), || format!("{} {what}\n", made.display()));
    Ok(Exit::Done)
}

/// Does what only the daemon can do.
fn ask(command: Command, socket: PathBuf, json: bool) -> Result<Exit> {
    let mut client = Client::connect(&socket)?;
    match command {
        Command::Daemon { .. } | Command::Init { .. } | Command::Identity { .. } | Command::Host(_) => {}
        Command::Shutdown { retire } => {
            if retire {
                client.shutdown_all()?
            } else {
                client.shutdown()?
            }
            wait_for_end(&socket);
            done(json);
        }
        Command::Status => {
            let status = client.status()?;
            show(json, &status, || tables::status(&status));
        }
        Command::Instance(InstanceCommand::List) => {
            let instances = client.instances()?;
            show(json, &instances, || tables::instances(&instances));
        }
        Command::Instance(InstanceCommand::Boot { name, vnf, active, vf, pci }) => {
            let instance = client.boot_with(&name, vnf.as_ref(), active, Functions { vf, pci })?;
            show(json, &instance, || tables::booted(&instance));
        }
        Command::Instance(InstanceCommand::Attach { name, control, vnf, active }) => {
            let instance = client.attach(&name, &control, vnf.as_ref(), active)?;
            show(json, &instance, || tables::booted(&instance));
        }
        Command::Instance(InstanceCommand::Retire { name, force }) => {
            client.retire(&name, force)?;
            done(json);
        }
        Command::Instance(InstanceCommand::Show { name, subscribers }) => {
            show_instance(&mut client, &name, subscribers, json)?
        }
        Command::Instance(InstanceCommand::Config { name }) => {
            let toml = client.config(&name)?;
            show(json, &toml::from_str::<toml::Table>(&toml)?, || toml.clone());
        }
        Command::Instance(InstanceCommand::Reset { name }) => {
            client.reset(&name)?;
            done(json);
        }
        Command::Instance(InstanceCommand::Resolve { name, outcome }) => {
            let outcome = match outcome {
                Resolution::Release => ResolveOutcome::Release,
                Resolution::Resume => ResolveOutcome::Resume,
            };
            client.resolve(&name, outcome)?;
            done(json);
        }
        Command::Path(PathCommand::Set { instance }) => {
            client.set_path(&instance)?;
            done(json);
        }
        Command::Path(PathCommand::List) => {
            let paths = client.paths()?;
            show(json, &paths, || tables::paths(&paths));
        }
        Command::Pool { vnf, size } => {
            let pools = client.pool(vnf.as_ref(), size)?;
            show(json, &pools, || tables::pools(&pools));
        }
        Command::Migrate(arguments) => return migrate(&mut client, arguments, json),
        Command::Abort { instance } => {
            client.abort(instance.as_ref())?;
            done(json);
        }
    }
    Ok(Exit::Done)
}

fn daemon(config: &Path, socket: Option<PathBuf>, check: bool, plaintext: bool) -> Result<Exit> {
    env_logger::Builder::from_env(env_logger::Env::new().filter_or("SLIM_LOG", "info")).init();
    let mut deployment = Deployment::read(config)?;
    if let Some(socket) = socket {
        deployment.socket = socket;
    }
    deployment.trust.plaintext |= plaintext;
    if check {
        println!("{} is good", config.display());
        return Ok(Exit::Done);
    }
    let stop = StopFlag::new();
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    stop.on_signals(&[SIGHUP, SIGINT, SIGTERM]).context("cannot catch signals")?;
    Daemon::run(deployment, stop, || ())?;
    Ok(Exit::Done)
}

fn migrate(client: &mut Client, arguments: MigrateArgs, json: bool) -> Result<Exit> {
    let mode = match arguments.mode {
        Way::State(mode) => mode,
        Way::Precopy => return precopy(client, &arguments, json),
    };
    let options = MigrateOptions {
        retire: arguments.retire,
        timeouts: arguments.timeouts.into_iter().collect(),
        ..arguments.transfer.options(mode)
    };
    if !arguments.force {
        let forecast =
            foresee(client, (&arguments.source, arguments.destination.as_ref()), &options, arguments.plan, json)?;
        if let Some(exit) = forecast {
            return Ok(exit);
        }
    }
    let watch = Watch::new(json);
    let outcome = client.migrate(&arguments.source, arguments.destination.as_ref(), options, |event| watch.show(event));
    drop(watch);
    let outcome = outcome?;
    show(json, &outcome, || report::report(&outcome));
    Ok(Exit::of_migration(&outcome))
}

fn precopy(client: &mut Client, arguments: &MigrateArgs, json: bool) -> Result<Exit> {
    if arguments.plan {
        bail!("--plan measures statelets, of which precopy knows nothing");
    }
    let Some(destination) = &arguments.destination else {
        bail!("by precopy a guest moves to where there is none: say what it is to be called there");
    };
    let options = PrecopyOptions {
        scheduling: arguments.transfer.scheduling,
        rounds: arguments.rounds,
        ..PrecopyOptions::default()
    };
    let watch = Watch::new(json);
    let outcome = client.precopy(&arguments.source, destination, options, |event| watch.show(event));
    drop(watch);
    let outcome = outcome?;
    show(json, &outcome, || report::precopy(&outcome));
    Ok(Exit::of_precopy(&outcome))
}

/// Asks how a migration will go. Says what to end with if that is all that was wanted, or if it will not end.
fn foresee(
    client: &mut Client,
    (source, destination): (&Name, Option<&Name>),
    options: &MigrateOptions,
    only_plan: bool,
    json: bool,
) -> Result<Option<Exit>> {
    let plan = match client.plan(source, destination, options.clone()) {
        Ok(plan) => plan,
        // Whatever it is, the migration will say so too.
        Err(ClientError::Refused(_)) if !only_plan => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let ends = plan.forecast(options.mode).is_none_or(|forecast| forecast.converges);
    if !only_plan && ends {
        return Ok(None);
    }
    show(json, &plan, || plan::plan(&plan));
    if !only_plan {
        eprintln!("slimctl: {source} is not migrated: in mode {} that would not end; --force does it", options.mode);
    }
    Ok(Some(if ends { Exit::Done } else { Exit::NeverEnds }))
}

/// Waits until the daemon has retired its instances and is gone, so that what follows finds a clean machine.
fn wait_for_end(socket: &Path) {
    const LIMIT: std::time::Duration = std::time::Duration::from_secs(30);
    let deadline = std::time::Instant::now() + LIMIT;
    let gone = || matches!(Client::connect(socket), Err(ClientError::NotRunning { .. }));
    while !gone() && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn show(json: bool, value: &impl Serialize, text: impl FnOnce() -> String) {
    if json {
        print_json(value);
    } else {
        print!("{}", text());
    }
}

fn done(json: bool) {
    if json {
        print_json(&serde_json::json!({ "done": true }));
    }
}

fn print_json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => println!("{text}"),
        Err(error) => eprintln!("slimctl: cannot write JSON: {error}"),
    }
}

//! The switch agent: SliM's software switch over DPDK ports and TAP interfaces.
//!
//! Three kinds of threads: the main thread is the [dataplane](dataplane), which moves packets and never waits for
//! anybody; the [executor](executor) carries out requests one after the other and opens and closes devices; two threads
//! per client of the [control socket](control) read and write lines.

#![deny(unsafe_code)]

mod args;
mod control;
mod dataplane;
mod device;
mod executor;
mod socket;
mod tap;

use anyhow::Context;
use args::Args;
use clap::Parser;
use control::{Clients, Job, Listener};
use dataplane::{Dataplane, Handle};
use dpdk::{Clock, Eal, Mempool, process_arguments};
use executor::Executor;
use slim_switch::Limits;
use slim_switch::config::Config;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;

/// What ends the process early, by exit code.
enum Failure {
    Configuration(anyhow::Error),
    Resource(anyhow::Error),
    Dpdk(anyhow::Error),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let env = env_logger::Env::new().filter_or("SLIM_LOG", "info");
    env_logger::Builder::from_env(env).init();
    let (code, error) = match run(&args) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Configuration(error)) => (2, error),
        Err(Failure::Resource(error)) => (3, error),
        Err(Failure::Dpdk(error)) => (4, error),
    };
    log::error!("{error:#}");
    ExitCode::from(code)
}

fn run(args: &Args) -> Result<(), Failure> {
    let config = read_config(args).map_err(Failure::Configuration)?;
    if args.check {
        println!("{} ports, {} instances: good", config.ports.len(), config.instances.len());
        return Ok(());
    }
    let stop = Arc::new(AtomicBool::new(false));
    watch_signals(&stop).map_err(Failure::Resource)?;
    let listener = Listener::bind(&args.control).context("control socket").map_err(Failure::Resource)?;

    let eal = start_eal(args).context("DPDK does not start").map_err(Failure::Dpdk)?;
    let pool = Mempool::new(&eal, "switch", args.mbufs).context("no memory for packets").map_err(Failure::Dpdk)?;
    // Sleeps of 50 µs would else take 100.
    if let Err(error) = nix::sys::prctl::set_timerslack(1) {
        log::warn!("cannot make sleeps precise: {error}");
    }

    let (commands, to_do) = channel();
    let (events, told) = channel();
    let (jobs, queue) = channel();
    let limits = Limits { delay_packets: args.mbufs as usize, ..Limits::default() };
    let mut dataplane = Dataplane::new(pool, Clock::new(&eal), limits, events);
    let mut executor = Executor::new(Arc::new(eal), pool, Handle(commands), Arc::clone(&stop));
    let clients = Clients::default();

    let serve = {
        let (clients, jobs, stop) = (clients.clone(), jobs.clone(), Arc::clone(&stop));
        let control = args.control.display().to_string();
        move || -> anyhow::Result<()> {
            let ready = executor.apply(&config).and_then(|()| Ok(listener.serve(clients, jobs)?));
            match ready {
                Ok(()) => {
                    log::info!("ready: control socket {control}, plaintext");
                    control::execute(executor, &queue);
                }
                // Ends the dataplane, which else would go on without anybody to command it.
                Err(_) => stop.store(true, Ordering::Relaxed),
            }
            drop(listener);
            ready
        }
    };
    let spawned = std::thread::Builder::new().name("executor".into()).spawn(serve);
    let executor = spawned.context("no thread for the executor").map_err(Failure::Resource)?;
    let teller = clients.clone();
    control::spawn("events", move || teller.tell(&told)).context("no thread").map_err(Failure::Resource)?;

    dataplane.run(&to_do, &stop);

    log::info!("stopping");
    // From here on commands fail instead of waiting for a round that never comes.
    drop(to_do);
    // Fails only if the executor has ended by itself.
    let _ = jobs.send(Job::Stop);
    let ended = executor.join();
    clients.close();
    log_totals(&dataplane);
    // Closes all devices: sockets and TAP interfaces disappear.
    drop(dataplane);
    match ended {
        Ok(result) => result.map_err(Failure::Resource),
        Err(_) => Err(Failure::Resource(anyhow::anyhow!("the executor's thread panicked"))),
    }
}

fn read_config(args: &Args) -> anyhow::Result<Config> {
    let Some(path) = &args.config else { return Ok(Config::default()) };
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Config::parse(&text).with_context(|| path.display().to_string())
}

/// The first SIGTERM or SIGINT stops the switch in order, a second one at once.
fn watch_signals(stop: &Arc<AtomicBool>) -> anyhow::Result<()> {
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(stop))?;
        signal_hook::flag::register(signal, Arc::clone(stop))?;
    }
    Ok(())
}

fn start_eal(args: &Args) -> Result<Eal, dpdk::Error> {
    // An mbuf takes about 2.5 KB with its headers, and pools do not fill memory to the last page. What is not used costs
    // nothing.
    let memory_mb = args.mbufs / 300 + 32;
    let mut arguments = process_arguments(memory_mb);
    arguments.extend(args.eal.iter().cloned());
    log::info!("{} packet buffers, {memory_mb} MB for DPDK", args.mbufs);
    Eal::init(arguments)
}

fn log_totals(dataplane: &Dataplane) {
    let totals = dataplane.switch.totals();
    log::info!(
        "{} packets received, {} sent, dropped: {:?}",
        totals.received_packets,
        totals.sent_packets,
        totals.drops
    );
}

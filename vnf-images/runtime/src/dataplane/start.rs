//! Starting the dataplane: EAL, ports, and the one lcore there is so far.

use super::command::{COMMANDS_MAX, LcoreHandle};
use super::counters::Counters;
use super::idle::Idle;
use super::lcore::{Lcore, Parts};
use super::ports::Ports;
use super::transmit::Transmit;
use crate::config::Limits;
use dpdk::{Clock, Device, Eal, Mempool, Port, PortConfig};
use slim_core::nf::{LogEvent, NetworkFunction, Shard};
use slim_core::packet::MacAddr;
use slim_core::protocol::inband::TO_INSTANCE;
use slim_core::vei::lcore::{Command, Report};
use std::sync::Arc;
use std::time::Duration;

/// How a port's device is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The EAL knows it by this name: a PCI address it was allowed to use.
    Present(String),
    /// One of the devices present, the one with this MAC address.
    WithMac(MacAddr),
    /// To be attached by these arguments.
    Attach(String),
}

/// A port to be started.
#[derive(Debug, Clone)]
pub struct PlannedPort {
    /// Its name.
    pub name: String,
    /// Its device.
    pub which: Which,
    /// The network function's MAC address there; see [`NetworkFunction::mac`].
    pub mac: Option<MacAddr>,
}

/// What the dataplane is to be.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Arguments of the EAL.
    pub eal: Vec<String>,
    /// The ports in order.
    pub ports: Vec<PlannedPort>,
    /// Bounds of queues and buffers.
    pub limits: Limits,
    /// Packet buffers.
    pub mbufs: u32,
    /// Events that may wait for the log; 0 without one.
    pub log_events_max: usize,
}

/// A dataplane that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// DPDK refused.
    #[error(transparent)]
    Dpdk(#[from] dpdk::Error),
    /// A port's device could not be used.
    #[error("port {port:?}: {error}")]
    Port {
        /// The port's name.
        port: String,
        /// Why.
        error: dpdk::Error,
    },
    /// No device has the MAC address that the configuration names.
    #[error("port {port:?}: no device has the MAC address {mac}; DPDK sees {present}")]
    NoDevice {
        /// The port's name.
        port: String,
        /// The address.
        mac: MacAddr,
        /// The devices there are.
        present: String,
    },
}

/// A running dataplane, as the management thread sees it.
pub struct Running<F> {
    /// The lcore of the only shard.
    pub lcore: LcoreHandle<F>,
    /// What the lcore counts.
    pub counters: Arc<Counters>,
    /// The ports, for their drivers' counters.
    pub ports: Vec<Port>,
    /// How the lcore waits for packets: `interrupts` or `sleeps`.
    pub idle: &'static str,
    /// The drivers of the ports.
    pub drivers: Vec<String>,
    /// The events for the log, if there is one.
    pub log: Option<rtrb::Consumer<LogEvent>>,
}

/// Starts EAL and ports on the calling thread, which becomes the lcore; tells `started`; runs until it is told to end.
///
/// `report` is given the lcore's reports, or gives them back if it cannot take them.
pub fn start<F: NetworkFunction>(
    plan: &Plan,
    started: impl FnOnce(Result<Running<F>, Error>),
    report: impl FnMut(Report<F>) -> Result<(), Report<F>>,
) {
    match prepare(plan) {
        Ok((running, parts)) => {
            let lcore = Lcore::new(parts, report);
            started(Ok(running));
            crate::sys::exact_sleeps();
            crate::sys::set_nice(crate::NICE_LCORE);
            lcore.run();
        }
        Err(error) => started(Err(error)),
    }
}

fn prepare<F: NetworkFunction>(plan: &Plan) -> Result<(Running<F>, Parts<F>), Error> {
    let eal = Eal::init(&plan.eal)?;
    log::info!("EAL started");
    let pool = Mempool::new(&eal, "packets", plan.mbufs)?;
    log::debug!("{} packet buffers made", plan.mbufs);
    let config = PortConfig {
        rx_descriptors: plan.limits.rx_descriptors,
        tx_descriptors: plan.limits.tx_descriptors,
        rx_interrupts: true,
        multicast: &[TO_INSTANCE],
        ..PortConfig::default()
    };
    let mut present = present_devices(&eal, plan);
    let (mut ports, mut rx, mut tx, mut drivers) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for PlannedPort { name, which, mac } in &plan.ports {
        let failed = |error| Error::Port { port: name.clone(), error };
        let device = match which {
            Which::Present(device) => eal.open(device).map_err(failed)?,
            Which::Attach(arguments) => eal.attach(arguments).map_err(failed)?,
            Which::WithMac(mac) => take_device(&mut present, name, *mac)?,
        };
        drivers.push(device.driver().map_err(failed)?);
        let config = PortConfig { address: *mac, ..config.clone() };
        let started = device.start(&config, &pool).map_err(failed)?;
        ports.push(started.port);
        rx.extend(started.rx);
        tx.extend(started.tx);
    }
    drop(present);
    log::debug!("ports started");
    let interrupts = ports.iter().all(Port::has_rx_interrupts);
    let (idle, waker) = Idle::new(&eal, &rx, interrupts, Duration::from_micros(plan.limits.nap_us.into()));
    let counters = Arc::new(Counters::default());
    let (log, events) = match plan.log_events_max {
        0 => (None, None),
        max => {
            let (log, events) = rtrb::RingBuffer::new(max);
            (Some(log), Some(events))
        }
    };
    let (producer, commands) = rtrb::RingBuffer::<Command<F>>::new(COMMANDS_MAX);
    let running = Running {
        lcore: LcoreHandle::new(Shard::ONLY.id, producer, waker),
        counters: Arc::clone(&counters),
        ports,
        idle: idle.name(),
        drivers,
        log: events,
    };
    let parts = Parts {
        shard: Shard::ONLY,
        clock: Clock::new(&eal),
        ports: Ports { rx, transmit: Transmit::new(tx, pool, Arc::clone(&counters)), counters, log },
        idle,
        pkt_q_bytes: plan.limits.pkt_q_bytes,
        commands,
    };
    Ok((running, parts))
}

/// The devices that nobody names, by their MAC addresses; only opened if some port is looked for among them.
fn present_devices(eal: &Eal, plan: &Plan) -> Vec<(MacAddr, Device)> {
    if !plan.ports.iter().any(|port| matches!(port.which, Which::WithMac(_))) {
        return Vec::new();
    }
    let named = |name: &String| plan.ports.iter().any(|port| port.which == Which::Present(name.clone()));
    let unnamed = eal.port_names().into_iter().filter(|name| !named(name));
    let devices = unnamed.filter_map(|name| eal.open(&name).ok());
    devices.filter_map(|device| Some((MacAddr(device.mac().ok()?), device))).collect()
}

fn take_device(present: &mut Vec<(MacAddr, Device)>, port: &str, mac: MacAddr) -> Result<Device, Error> {
    match present.iter().position(|(address, _)| *address == mac) {
        Some(index) => Ok(present.swap_remove(index).1),
        None => {
            let addresses: Vec<String> = present.iter().map(|(address, _)| address.to_string()).collect();
            let present = if addresses.is_empty() { "none".into() } else { addresses.join(", ") };
            Err(Error::NoDevice { port: port.into(), mac, present })
        }
    }
}

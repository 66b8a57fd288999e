//! What is behind a port: a DPDK port or a TAP interface.

use crate::socket;
use crate::tap::Tap;
use dpdk::{Eal, Mbuf, Mempool, Port, RxQueue, TxQueue};
use slim_core::protocol::control::{ControlError, Counters, ErrorCode, PortKind};
use slim_switch::config::check_kind;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// The most packets taken from a port at once.
pub const BURST: usize = 32;

/// Packets just received.
pub type Burst = heapless::Vec<Mbuf, BURST>;

/// An open device. Dropping it closes it, which may take milliseconds: not for the dataplane's thread while it runs.
#[derive(Debug)]
pub enum Device {
    /// Any DPDK port.
    Dpdk {
        /// Its control side.
        port: Port,
        /// Its receive queue.
        rx: RxQueue,
        /// Its transmit queue.
        tx: TxQueue,
    },
    /// A TAP interface.
    Tap(Tap),
}

impl Device {
    /// Opens what `kind` describes. Takes milliseconds.
    pub fn open(eal: &Eal, pool: &Mempool, kind: &PortKind) -> Result<Self, ControlError> {
        check_kind(kind).map_err(|error| ControlError::with(ErrorCode::Malformed, error.to_string()))?;
        // Never used twice: DPDK takes a moment to forget a name.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let devargs = match kind {
            PortKind::Tap { interface } => {
                let tap = Tap::open(interface);
                return tap.map(Self::Tap).map_err(|error| ControlError::with(ErrorCode::Io, error.to_string()));
            }
            PortKind::VhostUser { socket } => {
                socket::claim(Path::new(socket))
                    .map_err(|error| ControlError::with(ErrorCode::Io, error.to_string()))?;
                // Linear buffers: no packet comes in several segments, whatever the guest does.
                format!("net_vhost_slim{number},iface={socket},queues=1,linear-buffer=1")
            }
            PortKind::VhostUserClient { socket } => {
                format!("net_vhost_slim{number},iface={socket},queues=1,linear-buffer=1,client=1")
            }
            PortKind::AfPacket { interface } => format!("net_af_packet_slim{number},iface={interface}"),
            PortKind::Vdev { devargs } => devargs.clone(),
        };
        Self::open_dpdk(eal, pool, &devargs)
    }

    fn open_dpdk(eal: &Eal, pool: &Mempool, devargs: &str) -> Result<Self, ControlError> {
        let refused = |error: dpdk::Error| ControlError::with(ErrorCode::Io, error.to_string());
        let device = eal.attach(devargs).map_err(refused)?;
        let mut started = device.start(&dpdk::PortConfig::default(), pool).map_err(refused)?;
        match (started.rx.pop(), started.tx.pop()) {
            (Some(rx), Some(tx)) => Ok(Self::Dpdk { port: started.port, rx, tx }),
            _ => Err(ControlError::new(ErrorCode::Internal, "the device has no queues")),
        }
    }

    /// Receives as many packets as are there and `into` has room for.
    #[inline]
    pub fn receive(&mut self, pool: &Mempool, into: &mut Burst) {
        match self {
            Self::Dpdk { rx, .. } => {
                rx.burst(into);
            }
            Self::Tap(tap) => tap.receive(pool, into),
        }
    }

    /// Sends from the front of `queue` what the device takes.
    #[inline]
    pub fn send(&mut self, queue: &mut VecDeque<Mbuf>) {
        match self {
            Self::Dpdk { tx, .. } => {
                tx.burst_from(queue);
            }
            Self::Tap(tap) => tap.send(queue),
        }
    }

    /// Whether the other side is there.
    pub fn link_up(&self) -> bool {
        match self {
            // A driver that cannot tell is taken at its best.
            Self::Dpdk { port, .. } => port.link_up().unwrap_or(true),
            Self::Tap(tap) => tap.link_up(),
        }
    }

    /// Adds what the device itself counts.
    pub fn add_counters(&self, counters: &mut Counters) {
        let mut add = |name: &str, value: u64| counters.insert(name.into(), value);
        match self {
            Self::Dpdk { port, rx, .. } => {
                let stats = port.stats().unwrap_or_default();
                add("device_rx_missed", stats.rx_missed);
                add("device_rx_errors", stats.rx_errors);
                add("device_rx_no_mbuf", stats.rx_no_mbuf);
                add("device_rx_segmented", rx.unusable());
                add("device_tx_errors", stats.tx_errors);
            }
            Self::Tap(tap) => {
                add("device_rx_no_mbuf", tap.rx_no_mbuf);
                add("device_tx_errors", tap.tx_errors);
            }
        }
    }
}

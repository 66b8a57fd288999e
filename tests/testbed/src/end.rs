//! A DPDK port of a program of the testbed.

use anyhow::{Result, bail};
use dpdk::{Eal, Mbuf, Mempool, Port, PortConfig, RxQueue, Started, TxQueue};
use std::collections::VecDeque;

/// Packets that may wait for room at a port. Further ones are given up.
pub(crate) const PENDING_MAX: usize = 1024;

/// One port, and what waits for room at it.
pub(crate) struct End {
    port: Port,
    pub(crate) rx: RxQueue,
    tx: TxQueue,
    pub(crate) pending: VecDeque<Mbuf>,
}

impl End {
    pub(crate) fn open(eal: &Eal, device: &str, pool: &Mempool) -> Result<Self> {
        let Started { port, mut rx, mut tx } = eal.attach(device)?.start(&PortConfig::default(), pool)?;
        let (Some(rx), Some(tx)) = (rx.pop(), tx.pop()) else { bail!("{device} has no queues") };
        Ok(Self { port, rx, tx, pending: VecDeque::with_capacity(PENDING_MAX) })
    }

    /// Lets the driver look whether its peer has gone or come back.
    pub(crate) fn check_link(&self) {
        if let Err(error) = self.port.link_up() {
            log::debug!("{error}");
        }
    }

    pub(crate) fn flush(&mut self) {
        self.tx.burst_from(&mut self.pending);
    }
}

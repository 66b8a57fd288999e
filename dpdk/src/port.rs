//! The control side of a started port.

use crate::device::Handle;
use crate::error::{Error, check};
use core::ffi::{CStr, c_char};
use std::sync::Arc;

/// A started port: what there is to ask of it. Its queues do the work.
///
/// The port is stopped, closed and, if it was attached at run time, detached when this and all its queues are dropped.
#[derive(Debug)]
pub struct Port {
    handle: Arc<Handle>,
    rx_interrupts: bool,
}

/// What a port and its driver have counted since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets transmitted.
    pub tx_packets: u64,
    /// Bytes transmitted.
    pub tx_bytes: u64,
    /// Packets the device dropped because its receive queue was full (`imissed`).
    pub rx_missed: u64,
    /// Packets received in error.
    pub rx_errors: u64,
    /// Packets that could not be received for want of an mbuf (`rx_nombuf`).
    pub rx_no_mbuf: u64,
    /// Packets that could not be transmitted.
    pub tx_errors: u64,
}

impl Port {
    pub(crate) fn new(handle: Arc<Handle>, rx_interrupts: bool) -> Self {
        Self { handle, rx_interrupts }
    }

    /// The port's name.
    pub fn name(&self) -> &str {
        &self.handle.name
    }

    /// The device's MAC address.
    pub fn mac(&self) -> Result<[u8; 6], Error> {
        self.handle.mac()
    }

    /// Whether receive interrupts were asked for and the device did not refuse its configuration with them.
    ///
    /// Some devices refuse only later: [`WaitSet::add`](crate::WaitSet::add) has the last word.
    pub fn has_rx_interrupts(&self) -> bool {
        self.rx_interrupts
    }

    /// Whether the link is up: for a vhost port, whether a peer is connected. It may not have filled its ring yet.
    pub fn link_up(&self) -> Result<bool, Error> {
        // SAFETY: `rte_eth_link` is a word of bit fields, for which zero is valid.
        let mut link: dpdk_sys::rte_eth_link = unsafe { core::mem::zeroed() };
        // SAFETY: `link` is writable.
        let code = unsafe { dpdk_sys::rte_eth_link_get_nowait(self.handle.id, &mut link) };
        check(code, "query the link of", self.name())?;
        Ok(u32::from(link.link_status()) == dpdk_sys::RTE_ETH_LINK_UP)
    }

    /// The counters every driver has.
    pub fn stats(&self) -> Result<PortStats, Error> {
        // SAFETY: `rte_eth_stats` is a struct of integers.
        let mut stats: dpdk_sys::rte_eth_stats = unsafe { core::mem::zeroed() };
        // SAFETY: `stats` is writable.
        check(unsafe { dpdk_sys::rte_eth_stats_get(self.handle.id, &mut stats) }, "read the counters of", self.name())?;
        Ok(PortStats {
            rx_packets: stats.ipackets,
            rx_bytes: stats.ibytes,
            tx_packets: stats.opackets,
            tx_bytes: stats.obytes,
            rx_missed: stats.imissed,
            rx_errors: stats.ierrors,
            rx_no_mbuf: stats.rx_nombuf,
            tx_errors: stats.oerrors,
        })
    }

    /// All counters of the driver by name. Allocates; not for the packet path.
    pub fn extended_stats(&self) -> Result<Vec<(String, u64)>, Error> {
        let (id, name) = (self.handle.id, self.name());
        // SAFETY: null and 0 ask for the number of counters.
        let count = unsafe { dpdk_sys::rte_eth_xstats_get_names(id, core::ptr::null_mut(), 0) };
        let count = check(count, "count the counters of", name)? as usize;
        let mut names = vec![dpdk_sys::rte_eth_xstat_name { name: [0; 64] }; count];
        let mut values = vec![dpdk_sys::rte_eth_xstat { id: 0, value: 0 }; count];
        // SAFETY: `names` has room for `count` elements.
        let named = unsafe { dpdk_sys::rte_eth_xstats_get_names(id, names.as_mut_ptr(), count as u32) };
        let named = check(named, "name the counters of", name)? as usize;
        // SAFETY: `values` has room for `count` elements.
        let read = unsafe { dpdk_sys::rte_eth_xstats_get(id, values.as_mut_ptr(), count as u32) };
        let read = check(read, "read the counters of", name)? as usize;
        let names = &names[..named.min(count)];
        let named_value = |value: &dpdk_sys::rte_eth_xstat| {
            let name: &[c_char; 64] = &names.get(usize::try_from(value.id).ok()?)?.name;
            let bytes = name.map(|byte| byte as u8);
            let name = CStr::from_bytes_until_nul(&bytes).ok()?;
            Some((name.to_string_lossy().into_owned(), value.value))
        };
        Ok(values[..read.min(count)].iter().filter_map(named_value).collect())
    }
}

//! Devices as the EAL presents them, before they are configured and started.

use crate::eal::{OpenPorts, c_string, control};
use crate::error::{Error, check, refused};
use crate::mempool::Mempool;
use crate::port::Port;
use crate::queue::{RxQueue, TxQueue};
use core::ffi::{CStr, c_char};
use core::mem::MaybeUninit;
use dpdk_sys::rte_eth_dev_info;
use slim_core::packet::MacAddr;
use std::sync::Arc;

/// How a port is to be set up.
#[derive(Debug, Clone)]
pub struct PortConfig {
    /// Number of receive queues.
    pub rx_queues: u16,
    /// Number of transmit queues.
    pub tx_queues: u16,
    /// Descriptors per receive queue; adjusted to what the device can do.
    pub rx_descriptors: u16,
    /// Descriptors per transmit queue; adjusted to what the device can do.
    pub tx_descriptors: u16,
    /// The MAC address for which frames are wanted, besides broadcasts and `multicast`; `None` for any.
    pub address: Option<MacAddr>,
    /// Multicast addresses whose frames are wanted, promiscuous or not: a virtual function that may not be promiscuous
    /// gets only what it has asked for.
    pub multicast: &'static [MacAddr],
    /// Prepare receive interrupts, as far as the device has them: see [`Port::has_rx_interrupts`].
    pub rx_interrupts: bool,
    /// The largest payload of a frame; the device's default where none is given.
    pub mtu: Option<u16>,
}

impl Default for PortConfig {
    /// One queue per direction of 1024 descriptors, promiscuous, polled.
    fn default() -> Self {
        Self {
            rx_queues: 1,
            tx_queues: 1,
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            address: None,
            multicast: &[],
            rx_interrupts: false,
            mtu: None,
        }
    }
}

/// A started port with its queues, which are handed to the threads that are to own them.
#[derive(Debug)]
pub struct Started {
    /// The control side.
    pub port: Port,
    /// The receive queues, in order.
    pub rx: Vec<RxQueue>,
    /// The transmit queues, in order.
    pub tx: Vec<TxQueue>,
}

/// A device with a port that is not started yet. Dropping it closes it.
#[derive(Debug)]
pub struct Device(Handle);

impl Device {
    /// Opens the port called `name`; `detach` says whether its device is to be detached in the end.
    pub(crate) fn open(open: &mut OpenPorts, name: &str, detach: bool) -> Result<Self, Error> {
        let id = find(name)?;
        if !open.insert(id) {
            return Err(Error::PortExists(name.into()));
        }
        Ok(Self(Handle { id, name: name.into(), detach, started: false }))
    }

    /// The port's name, which is its device's.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The device's MAC address.
    pub fn mac(&self) -> Result<[u8; 6], Error> {
        self.0.mac()
    }

    /// The driver's name, such as `net_virtio`.
    pub fn driver(&self) -> Result<String, Error> {
        let info = self.0.info()?;
        // SAFETY: driver names are static strings or null.
        Ok(unsafe { lossy(info.driver_name) })
    }

    /// Configures and starts the port. Its receive queues take their mbufs from `pool`.
    pub fn start(self, config: &PortConfig, pool: &Mempool) -> Result<Started, Error> {
        let mut handle = self.0;
        let rx_interrupts = {
            let _guard = control();
            crate::logging::take_last_error();
            handle.configure_and_start(config, pool)?
        };
        let shared = Arc::new(handle);
        let rx = (0..config.rx_queues).map(|index| RxQueue::new(Arc::clone(&shared), index)).collect();
        let tx = (0..config.tx_queues).map(|index| TxQueue::new(Arc::clone(&shared), index)).collect();
        Ok(Started { port: Port::new(shared, rx_interrupts), rx, tx })
    }
}

/// An open port. The last owner to let go of it stops and closes it, and detaches its device if we attached it.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) id: u16,
    pub(crate) name: String,
    detach: bool,
    started: bool,
}

impl Handle {
    pub(crate) fn info(&self) -> Result<rte_eth_dev_info, Error> {
        let mut info = MaybeUninit::<rte_eth_dev_info>::zeroed();
        // SAFETY: `info` is writable; the callee fills it when it returns 0, and all-zero is valid anyway.
        check(unsafe { dpdk_sys::rte_eth_dev_info_get(self.id, info.as_mut_ptr()) }, "query", &self.name)?;
        // SAFETY: as above.
        Ok(unsafe { info.assume_init() })
    }

    pub(crate) fn mac(&self) -> Result<[u8; 6], Error> {
        let mut mac = dpdk_sys::rte_ether_addr { addr_bytes: [0; 6] };
        // SAFETY: `mac` is writable.
        check(unsafe { dpdk_sys::rte_eth_macaddr_get(self.id, &mut mac) }, "query the MAC address of", &self.name)?;
        Ok(mac.addr_bytes)
    }

    /// Returns whether receive interrupts were set up.
    fn configure_and_start(&mut self, config: &PortConfig, pool: &Mempool) -> Result<bool, Error> {
        let (id, name) = (self.id, self.name.as_str());
        let info = self.info()?;
        // SAFETY: `rte_eth_conf` is a C struct of integers and nullable pointers, for which all-zero is valid.
        let mut conf: dpdk_sys::rte_eth_conf = unsafe { core::mem::zeroed() };
        if let Some(mtu) = config.mtu {
            conf.rxmode.mtu = u32::from(mtu.clamp(info.min_mtu, info.max_mtu));
        }
        conf.intr_conf.set_rxq(config.rx_interrupts.into());
        let configure = |conf: &dpdk_sys::rte_eth_conf| {
            // SAFETY: the port is stopped and `conf` valid; the callee copies it.
            unsafe { dpdk_sys::rte_eth_dev_configure(id, config.rx_queues, config.tx_queues, conf) }
        };
        let mut rx_interrupts = config.rx_interrupts;
        let mut code = configure(&conf);
        if code < 0 && rx_interrupts {
            log::info!("port {name} cannot be configured with receive interrupts ({code}), polling it");
            rx_interrupts = false;
            conf.intr_conf.set_rxq(0);
            code = configure(&conf);
        }
        check(code, "configure", name)?;

        let (mut rx_descriptors, mut tx_descriptors) = (config.rx_descriptors, config.tx_descriptors);
        // SAFETY: both numbers are writable.
        let code = unsafe { dpdk_sys::rte_eth_dev_adjust_nb_rx_tx_desc(id, &mut rx_descriptors, &mut tx_descriptors) };
        check(code, "adjust the descriptors of", name)?;
        let socket = crate::mempool::SOCKET_ID_ANY as u32;
        for queue in 0..config.rx_queues {
            // SAFETY: the port is configured with this queue and stopped; pools are never freed.
            let code = unsafe {
                dpdk_sys::rte_eth_rx_queue_setup(id, queue, rx_descriptors, socket, core::ptr::null(), pool.as_ptr())
            };
            check(code, "set up a receive queue of", name)?;
        }
        for queue in 0..config.tx_queues {
            // SAFETY: the port is configured with this queue and stopped.
            let code =
                unsafe { dpdk_sys::rte_eth_tx_queue_setup(id, queue, tx_descriptors, socket, core::ptr::null()) };
            check(code, "set up a transmit queue of", name)?;
        }
        // SAFETY: the port is configured and all its queues are set up.
        check(unsafe { dpdk_sys::rte_eth_dev_start(id) }, "start", name)?;
        self.started = true;
        self.filter(config)?;
        Ok(rx_interrupts)
    }

    /// Has the port receive what is wanted, and no more where the device can filter exactly that.
    ///
    /// The order matters: starting a device forgets its filters, and a function that is promiscuous as far as its physical
    /// function lets it may lose its multicast filter by that (igb).
    fn filter(&self, config: &PortConfig) -> Result<(), Error> {
        let filters_multicast = self.receive_multicast(config.multicast);
        if filters_multicast && config.address.is_some_and(|wanted| self.mac().is_ok_and(|mac| mac == wanted.0)) {
            return Ok(());
        }
        // SAFETY: plain call on an open port.
        let code = unsafe { dpdk_sys::rte_eth_promiscuous_enable(self.id) };
        // Virtual devices without a filter have nothing to switch on.
        if code < 0 && code != -libc::ENOTSUP {
            return Err(refused(-code, "make promiscuous", &self.name));
        }
        Ok(())
    }

    /// Asks for the frames to these addresses; returns whether the device knows how to.
    fn receive_multicast(&self, addresses: &[MacAddr]) -> bool {
        if addresses.is_empty() {
            return true;
        }
        let mut list: Vec<_> =
            addresses.iter().map(|address| dpdk_sys::rte_ether_addr { addr_bytes: address.0 }).collect();
        // SAFETY: `list` has as many addresses as are told; they are copied.
        let code = unsafe { dpdk_sys::rte_eth_dev_set_mc_addr_list(self.id, list.as_mut_ptr(), list.len() as u32) };
        if code < 0 && code != -libc::ENOTSUP {
            let error = std::io::Error::from_raw_os_error(-code);
            log::warn!("port {} cannot ask for multicast frames: {error}", self.name);
        }
        code == 0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut open = control();
        open.remove(self.id);
        let name = &self.name;
        if self.started {
            // SAFETY: this is the last owner: no queue of the port exists any more.
            let code = unsafe { dpdk_sys::rte_eth_dev_stop(self.id) };
            if code < 0 {
                log::warn!("stopping port {name} failed: {code}");
            }
        }
        // Read before closing, which forgets it.
        let device = self.info().map_or(core::ptr::null_mut(), |info| info.device);
        // SAFETY: the port is stopped and nobody refers to it any more.
        let code = unsafe { dpdk_sys::rte_eth_dev_close(self.id) };
        if code < 0 {
            log::warn!("closing port {name} failed: {code}");
        }
        if self.detach && !device.is_null() {
            // SAFETY: closing a port does not free its device, which we attached and nobody else removes.
            let code = unsafe { dpdk_sys::rte_dev_remove(device) };
            if code < 0 {
                log::warn!("detaching {name} failed: {code}");
            }
        }
    }
}

/// The number of the port whose name is `name`, or whose device is called so.
pub(crate) fn find(name: &str) -> Result<u16, Error> {
    let c_name = c_string(name)?;
    let mut id = 0;
    // SAFETY: the name is NUL-terminated, `id` writable.
    if unsafe { dpdk_sys::rte_eth_dev_get_port_by_name(c_name.as_ptr(), &mut id) } == 0 {
        return Ok(id);
    }
    ports()
        .find(|&id| device_name(id).is_some_and(|device| device == name))
        .ok_or_else(|| Error::NoSuchPort(name.into()))
}

fn ports() -> impl Iterator<Item = u16> {
    let next = |id: u16| {
        // SAFETY: no preconditions; returns RTE_MAX_ETHPORTS past the last port.
        let next = unsafe { dpdk_sys::rte_eth_find_next(id) };
        (u32::from(next) < dpdk_sys::RTE_MAX_ETHPORTS).then_some(next)
    };
    core::iter::successors(next(0), move |&id| next(id + 1))
}

pub(crate) fn port_names() -> Vec<String> {
    let name = |id| {
        let mut name = [0 as c_char; dpdk_sys::RTE_ETH_NAME_MAX_LEN as usize];
        // SAFETY: `name` has the size that the callee requires; it is NUL-terminated afterwards.
        let code = unsafe { dpdk_sys::rte_eth_dev_get_name_by_port(id, name.as_mut_ptr()) };
        // SAFETY: as above.
        (code == 0).then(|| unsafe { lossy(name.as_ptr()) })
    };
    ports().filter_map(name).collect()
}

fn device_name(id: u16) -> Option<String> {
    let mut info = MaybeUninit::<rte_eth_dev_info>::zeroed();
    // SAFETY: `info` is writable and valid when zeroed; a device's name lives as long as the device.
    unsafe {
        if dpdk_sys::rte_eth_dev_info_get(id, info.as_mut_ptr()) < 0 {
            return None;
        }
        let device = info.assume_init().device;
        (!device.is_null()).then(|| lossy(dpdk_sys::rte_dev_name(device)))
    }
}

/// # Safety
/// `text` is null or NUL-terminated.
unsafe fn lossy(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: by this function's contract.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

//! Starting the environment abstraction layer (EAL), and attaching devices while it runs.

use crate::device::{Device, find};
use crate::error::{Error, check, refused};
use core::ffi::{CStr, c_char};
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

static STARTED: AtomicBool = AtomicBool::new(false);

/// DPDK's control path is not thread-safe: attaching, starting, stopping and removing take this lock.
static CONTROL: Mutex<OpenPorts> = Mutex::new(OpenPorts(0));

/// The ports that have a [`Device`] or queues in this process, so that none gets two owners.
pub(crate) struct OpenPorts(u32);

const _: () = assert!(dpdk_sys::RTE_MAX_ETHPORTS <= u32::BITS);

impl OpenPorts {
    /// Marks port `id` as open; false if it is already.
    pub(crate) fn insert(&mut self, id: u16) -> bool {
        let bit = 1 << id;
        let new = self.0 & bit == 0;
        self.0 |= bit;
        new
    }

    /// Marks port `id` as not open.
    pub(crate) fn remove(&mut self, id: u16) {
        self.0 &= !(1 << id);
    }
}

pub(crate) fn control() -> MutexGuard<'static, OpenPorts> {
    CONTROL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The running EAL. There is one in a process, and it lasts as long as the process.
///
/// The thread that starts it becomes DPDK's main lcore and is pinned to the CPUs that the arguments name.
#[derive(Debug)]
pub struct Eal(());

impl Eal {
    /// Starts the EAL with `arguments`, the program's name not among them. DPDK's log goes to the `log` crate.
    ///
    /// # Errors
    /// [`Error::AlreadyInitialised`] on a second call; [`Error::InvalidArgument`] for what would make DPDK print its
    /// usage and leave the process; [`Error::Refused`] for everything the EAL itself refuses.
    pub fn init<S: AsRef<str>>(arguments: impl IntoIterator<Item = S>) -> Result<Self, Error> {
        let mut owned = vec![c_string("slim")?];
        for argument in arguments {
            let argument = argument.as_ref();
            if asks_for_help(argument) {
                return Err(invalid(argument, "the EAL would print its usage and exit"));
            }
            owned.push(c_string(argument)?);
        }
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(Error::AlreadyInitialised);
        }
        // The EAL permutes the array and keeps pointers into the strings: they live as long as the process.
        let mut pointers: Vec<*mut c_char> = owned.into_iter().map(CString::into_raw).collect();
        let count = pointers.len() as i32;
        pointers.push(core::ptr::null_mut());
        let pointers = Vec::leak(pointers);

        crate::logging::capture();
        let _guard = control();
        // SAFETY: `pointers` holds `count` NUL-terminated strings and a closing null, all writable and never freed;
        // `STARTED` makes this the only call in the process.
        let code = unsafe { dpdk_sys::rte_eal_init(count, pointers.as_mut_ptr()) };
        if code < 0 {
            // SAFETY: reads a thread-local number.
            let errno = unsafe { dpdk_sys::slim_errno() };
            return Err(refused(errno, "start", "the EAL"));
        }
        remove_empty_runtime_dir();
        Ok(Self(()))
    }

    /// Attaches the device that `arguments` describe, as in `net_vhost0,iface=/run/nat-a.in.sock`, and opens its port.
    ///
    /// It is detached again when the port is dropped.
    ///
    /// # Errors
    /// [`Error::PortExists`] if there is a port of this name; [`Error::Refused`] if the driver refuses.
    pub fn attach(&self, arguments: &str) -> Result<Device, Error> {
        let c_arguments = c_string(arguments)?;
        let name = arguments.split(',').next().unwrap_or_default();
        let mut open = control();
        // DPDK would take this for success.
        if find(name).is_ok() {
            return Err(Error::PortExists(name.into()));
        }
        crate::logging::take_last_error();
        // SAFETY: the EAL runs, the string is NUL-terminated and copied by the callee, the control lock is held.
        check(unsafe { dpdk_sys::rte_dev_probe(c_arguments.as_ptr()) }, "attach", arguments)?;
        Device::open(&mut open, name, true)
    }

    /// Opens the port of a device that the EAL found at its start: a `--vdev`, or an allowed PCI address.
    ///
    /// # Errors
    /// [`Error::NoSuchPort`]; [`Error::PortExists`] if the port is open already.
    pub fn open(&self, name: &str) -> Result<Device, Error> {
        Device::open(&mut control(), name, false)
    }

    /// The names of all ports there are.
    pub fn port_names(&self) -> Vec<String> {
        crate::device::port_names()
    }

    /// Makes the calling thread an lcore of its own, so that mempools keep a cache for it.
    ///
    /// Worth it for a thread that handles packets and did not start the EAL. Lasts until the thread ends.
    pub fn register_thread(&self) -> Result<(), Error> {
        // SAFETY: no preconditions but a running EAL; registering twice is harmless.
        if unsafe { dpdk_sys::rte_thread_register() } < 0 {
            // SAFETY: reads a thread-local number.
            return Err(refused(unsafe { dpdk_sys::slim_errno() }, "register", "the thread"));
        }
        Ok(())
    }
}

/// Removes the directory that the EAL makes for files shared with other processes, if nothing is in it.
///
/// It would stay behind at the end, one for each `--file-prefix`.
fn remove_empty_runtime_dir() {
    // SAFETY: the EAL runs; the callee returns a NUL-terminated string that is never freed, or null.
    let dir = unsafe { dpdk_sys::rte_eal_get_runtime_dir() };
    if dir.is_null() {
        return;
    }
    // SAFETY: as above.
    let dir = unsafe { CStr::from_ptr(dir) };
    // Fails where other processes share something through it, as it should.
    let _ = std::fs::remove_dir(OsStr::from_bytes(dir.to_bytes()));
}

/// EAL arguments for a process on a host: no hugepages, no PCI devices, no files or sockets shared with other DPDK
/// processes, no privileges, and a main thread that may run on any of the CPUs it may run on now.
///
/// `memory_mb` must hold all mempools, and 10 to 20 MB beside them.
pub fn process_arguments(memory_mb: u32) -> Vec<String> {
    let cpus = allowed_cpus();
    let cpus = if cpus.is_empty() { "0".into() } else { cpus };
    let file_prefix = format!("slim-{}", std::process::id());
    let fixed = ["--no-huge", "--no-shconf", "--no-pci", "--no-telemetry"];
    let mut arguments: Vec<String> = fixed.map(String::from).into();
    arguments.extend([format!("--lcores=0@({cpus})"), format!("--file-prefix={file_prefix}")]);
    arguments.extend(["-m".into(), memory_mb.to_string()]);
    arguments
}

/// The CPUs that this thread may use, as a comma-separated list.
fn allowed_cpus() -> String {
    // SAFETY: an all-zero `cpu_set_t` is a valid, empty set.
    let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    // SAFETY: `set` is writable and of the size passed.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) } != 0 {
        return String::new();
    }
    // DPDK of Debian knows 128 lcores, and CPUs by their number below that.
    let cpus = (0..128usize).filter(|&cpu| {
        // SAFETY: `cpu` is below the 1024 bits of the set.
        unsafe { libc::CPU_ISSET(cpu, &set) }
    });
    cpus.map(|cpu| cpu.to_string()).collect::<Vec<_>>().join(",")
}

/// Whether the EAL's option parser would take this argument for `-h` or `--help`, abbreviations included.
fn asks_for_help(argument: &str) -> bool {
    match argument.strip_prefix("--") {
        Some(long) => long.len() >= 2 && "help".starts_with(long),
        None => argument.strip_prefix('-').is_some_and(|cluster| {
            // Options without a value may be clustered: h, v.
            cluster.chars().take_while(|option| matches!(option, 'h' | 'v')).any(|option| option == 'h')
        }),
    }
}

pub(crate) fn c_string(argument: &str) -> Result<CString, Error> {
    CString::new(argument).map_err(|_| invalid(argument, "it contains a NUL byte"))
}

pub(crate) fn invalid(argument: &str, reason: &'static str) -> Error {
    Error::InvalidArgument { argument: argument.into(), reason }
}

#[cfg(test)]
mod tests {
    use super::asks_for_help;

    #[test]
    fn help_is_recognised_in_all_its_spellings() {
        for argument in ["-h", "--help", "--he", "--hel", "-vh"] {
            assert!(asks_for_help(argument), "{argument}");
        }
        for argument in ["--huge-dir", "--huge-unlink", "-v", "-m", "--", "-l", "--vdev=net_ring0,help"] {
            assert!(!asks_for_help(argument), "{argument}");
        }
    }
}

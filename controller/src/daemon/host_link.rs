//! A stream between the machines that two instances run on, over both instances' links: a guest's memory shares them with
//! the guest's traffic.
//!
//! Here both machines are this one. Each gets a TAP interface of the switch, behind the instance's meter and delay line,
//! in a network namespace of its own, so that the kernel does not take the short way. The hypervisor speaks to Unix
//! sockets; two threads carry what it says to and fro.

use crate::fabric::{Fabric, FabricError};
use nix::sched::{CloneFlags, unshare};
use slim_core::protocol::control::PortKind;
use slim_core::protocol::{Name, Scheduling};
use socket2::SockRef;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

/// How long the two ends may take to find each other: ARP, a handshake, and what a busy machine adds.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// The ends' addresses in the management segment: link-local ones, which nobody else there has. One such stream at a time.
const ENDS: [(&str, Ipv4Addr); 2] =
    [("slim-host-a", Ipv4Addr::new(169, 254, 77, 1)), ("slim-host-b", Ipv4Addr::new(169, 254, 77, 2))];
const PREFIX_LEN: u8 = 30;
const PORT: u16 = 4444;

/// What may wait in our own end's kernel. Little, so that what the hypervisor has handed over is on the link, too.
const SEND_BUFFER_BYTES: usize = 256 << 10;

/// Why there is no such stream.
#[derive(Debug, thiserror::Error)]
pub(super) enum HostLinkError {
    /// The switch does not give the machines their ports.
    #[error(transparent)]
    Fabric(#[from] FabricError),
    /// Network namespaces take privileges.
    #[error(
        "a guest's memory cannot share the instances' links, which takes network namespaces: {0}; run the daemon as root"
    )]
    Namespace(String),
    /// The ends do not come together.
    #[error("the machines' ends of the links: {action}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// A stream over the links of two instances. Gone, ports included, when dropped.
pub(super) struct HostLink {
    fabric: Arc<dyn Fabric>,
    instances: [Name; 2],
    ports: [Name; 2],
    /// The Unix sockets that the source's hypervisor writes to and the destination's reads from.
    pub(super) outgoing: PathBuf,
    pub(super) incoming: PathBuf,
    carried: Arc<AtomicU64>,
    ends: Vec<TcpStream>,
}

impl HostLink {
    /// Makes it, with its Unix sockets in `folder`. The destination's hypervisor makes `incoming` itself.
    pub(super) fn new(
        fabric: &Arc<dyn Fabric>,
        source: &Name,
        destination: &Name,
        scheduling: Scheduling,
        folder: &Path,
    ) -> Result<Self, HostLinkError> {
        let port = |instance: &Name| {
            Name::try_from(format!("{instance}.host"))
                .map_err(|error| HostLinkError::Namespace(format!("no name for a port: {error}")))
        };
        let io = |action| move |source| HostLinkError::Io { action, source };
        let mut link = Self {
            fabric: Arc::clone(fabric),
            instances: [source.clone(), destination.clone()],
            ports: [port(source)?, port(destination)?],
            outgoing: folder.join(format!("{source}.out.sock")),
            incoming: folder.join(format!("{destination}.in.sock")),
            carried: Arc::default(),
            ends: Vec::new(),
        };
        // From here on dropping it takes away what there is.
        for ((instance, port), (interface, _)) in link.instances.iter().zip(&link.ports).zip(ENDS) {
            fabric.add_external(port, &PortKind::Tap { interface: interface.to_owned() })?;
            fabric.set_host_port(instance, Some(port))?;
        }
        let [(near, near_address), (far, far_address)] = ENDS;
        let listener = in_namespace(far, far_address, || TcpListener::bind((far_address, PORT)))?;
        let outbound = in_namespace(near, near_address, || {
            TcpStream::connect_timeout(&(far_address, PORT).into(), CONNECT_LIMIT)
        })?;
        let (inbound, _) = listener.accept().map_err(io("accept"))?;
        let dscp = u32::from(scheduling.snapshot_dscp());
        SockRef::from(&outbound).set_tos_v4(dscp << 2).map_err(io("mark"))?;
        SockRef::from(&outbound).set_send_buffer_size(SEND_BUFFER_BYTES).map_err(io("set the buffer"))?;

        for socket in [&link.outgoing, &link.incoming] {
            // Left over from one that was killed.
            let _ = std::fs::remove_file(socket);
        }
        let hypervisor = UnixListener::bind(&link.outgoing).map_err(io("listen for the hypervisor"))?;
        for end in [&outbound, &inbound] {
            link.ends.push(end.try_clone().map_err(io("share a socket"))?);
        }
        let carried = Arc::clone(&link.carried);
        spawn("memory-out", move || {
            let (from, _) = hypervisor.accept()?;
            carry(&from, &outbound, &carried)?;
            outbound.shutdown(Shutdown::Write)
        })?;
        let incoming = link.incoming.clone();
        spawn("memory-in", move || {
            // Nothing comes before the hypervisor at the other end has been told to send, and that is after this one
            // has been told to listen.
            let mut first = [0; 1];
            if inbound.peek(&mut first)? == 0 {
                return Ok(());
            }
            let to = UnixStream::connect(&incoming)?;
            carry(&inbound, &to, &AtomicU64::new(0))?;
            to.shutdown(Shutdown::Write)
        })?;
        Ok(link)
    }

    /// Bytes carried so far.
    pub(super) fn carried_bytes(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }
}

impl Drop for HostLink {
    fn drop(&mut self) {
        for end in &self.ends {
            let _ = end.shutdown(Shutdown::Both);
        }
        // The ports before the namespaces, which end with the last socket in them.
        for (instance, port) in self.instances.iter().zip(&self.ports) {
            let gone = self.fabric.set_host_port(instance, None).and_then(|()| self.fabric.remove_external(port));
            if let Err(error) = gone {
                log::warn!("{port}: {error}");
            }
        }
        for socket in [&self.outgoing, &self.incoming] {
            let _ = std::fs::remove_file(socket);
        }
    }
}

fn spawn(name: &'static str, work: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<(), HostLinkError> {
    let run = move || {
        if let Err(error) = work() {
            // Whoever waits for the stream sees it end.
            log::debug!("{name}: {error}");
        }
    };
    let spawned = std::thread::Builder::new().name(name.into()).spawn(run);
    spawned.map(drop).map_err(|source| HostLinkError::Io { action: "start a thread", source })
}

/// Carries bytes until there are no more, counting them.
fn carry(mut from: impl Read, mut to: impl Write, carried: &AtomicU64) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                to.write_all(&buffer[..count])?;
                carried.fetch_add(count as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Does `work` in a new network namespace with `interface` in it. The namespace lives as long as a socket made there.
fn in_namespace<T: Send>(
    interface: &str,
    address: Ipv4Addr,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> Result<T, HostLinkError> {
    let (entered, is_entered) = channel();
    let (moved, is_moved) = channel::<()>();
    std::thread::scope(|scope| {
        let inside = scope.spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| HostLinkError::Namespace(errno.to_string()))?;
            let thread = nix::unistd::gettid().as_raw();
            if entered.send(thread).is_err() || is_moved.recv().is_err() {
                return Err(HostLinkError::Namespace(format!("{interface} was not moved there")));
            }
            ip(&["address", "add", &format!("{address}/{PREFIX_LEN}"), "dev", interface])?;
            ip(&["link", "set", "dev", interface, "up"])?;
            work().map_err(|source| HostLinkError::Io { action: "connect", source })
        });
        if let Ok(thread) = is_entered.recv() {
            ip(&["link", "set", "dev", interface, "netns", &thread.to_string()])?;
            // It has not ended: it waits for this.
            let _ = moved.send(());
        }
        let lost = || Err(HostLinkError::Namespace("the thread in it has ended".into()));
        inside.join().unwrap_or_else(|_| lost())
    })
}

/// Runs `ip` in the calling thread's network namespace.
fn ip(words: &[&str]) -> Result<(), HostLinkError> {
    let failed = |why: String| HostLinkError::Namespace(format!("`ip {}`: {why}", words.join(" ")));
    let output = Command::new("ip").args(words).stdin(Stdio::null()).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

//! The emulated host as QEMU runs it.

use super::Parts;
use crate::words::{SHARE, Scenario, Word};
use anyhow::{Context, Result, bail};
use slim_controller::process::{Running, dying_with_us, spawn};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// What reading from a socket fails with that may have something to read later.
pub(super) const NOTHING_YET: [ErrorKind; 3] = [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::Interrupted];

/// The end of the NIC's cable at the emulated host, in the run's folder.
pub(super) const NIC_END: &str = "nic";

/// The end of the cable at the peer.
pub(super) const PEER_END: &str = "peer";

/// With two, one of about twenty-five guests went silent or reset itself while it booted, and once the host's second
/// CPU had lost its timer; with one, none of forty.
const CPUS: &str = "1";

/// Debian's kernel, the share's cache, a guest and QEMU beside it.
const MEMORY: &str = "1536M";

/// The same with two guests and a switch.
const MEMORY_FOR_TWO: &str = "2560M";

/// The emulated host, which ends with us.
pub(super) struct Machine {
    qemu: Running,
    line: UnixStream,
    received: Vec<u8>,
}

impl Machine {
    pub(super) fn start(parts: &Parts, scenario: &Scenario, folder: &Path, console: &Path) -> Result<Self> {
        let place = |name: &str| folder.join(name).display().to_string();
        let (iommu, memory) = match scenario {
            Scenario::Complete | Scenario::Command { .. } => ("on", MEMORY),
            Scenario::Migration => ("on", MEMORY_FOR_TWO),
            Scenario::NoIommu => ("off", MEMORY),
        };
        let mut command = dying_with_us(&parts.qemu)?;
        command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        // SVM with nested paging is emulated, so the host has a working KVM of its own.
        command.args(["-machine", "q35,usb=off,vmport=off", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"]);
        command.args(["-smp", CPUS, "-m", memory]);
        command.arg("-kernel").arg(&parts.kernel).arg("-initrd").arg(&parts.initramfs);
        command.arg("-append").arg(format!(
            "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check tsc=reliable audit=0 cryptomgr.notests=1 \
             intel_iommu={iommu}"
        ));
        command.args(["-device", "intel-iommu,intremap=on,caching-mode=on"]);
        // The cable of the SR-IOV NIC ends at the peer: a datagram for each frame.
        command.arg("-netdev").arg(format!(
            "dgram,id=cable,local.type=unix,local.path={},remote.type=unix,remote.path={}",
            place(NIC_END),
            place(PEER_END)
        ));
        command.args(["-device", "pcie-root-port,id=root1,slot=1"]);
        let nic_end = match scenario {
            Scenario::Migration => {
                // The switch's own interface hangs on the same cable.
                for end in ["0", "1"] {
                    command.args(["-netdev", &format!("hubport,id=hub{end},hubid=0")]);
                }
                command.args(["-netdev", "hubport,id=hub2,hubid=0,netdev=cable"]);
                command.args(["-device", "virtio-net-pci,netdev=hub1,romfile=,mac=52:54:00:00:00:02"]);
                "hub0"
            }
            Scenario::Complete | Scenario::NoIommu | Scenario::Command { .. } => "cable",
        };
        command.args(["-device", &format!("igb,bus=root1,netdev={nic_end},romfile=,mac=52:54:00:00:00:01")]);
        // Two devices behind a bridge that cannot tell them apart: one IOMMU group.
        command.args(["-device", "pcie-pci-bridge,id=bridge"]);
        for slot in ["1", "2"] {
            let mac = format!("52:54:00:00:01:0{slot}");
            command.args(["-device", &format!("e1000,bus=bridge,addr={slot},romfile=,mac={mac}")]);
        }
        // All our files, read-only: whatever the launcher needs is where it is here.
        command.args(["-fsdev", "local,id=share,path=/,security_model=none,readonly=on,multidevs=remap"]);
        command.args(["-device", &format!("virtio-9p-pci,fsdev=share,mount_tag={SHARE}")]);
        command.arg("-chardev").arg(format!("file,id=console,path={}", console.display()));
        command.args(["-serial", "chardev:console"]);
        command.arg("-chardev").arg(format!("socket,id=line,server=on,wait=off,path={}", place("line")));
        command.args(["-serial", "chardev:line"]);
        let log = File::create(console.with_extension("qemu.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut qemu = Running::Child(spawn(command).context("cannot start QEMU")?);
        let line = connect(&folder.join("line"), &mut qemu)?;
        line.set_read_timeout(Some(Duration::from_millis(200)))?;
        Ok(Self { qemu, line, received: Vec::new() })
    }

    /// The next word, waited for until `deadline`.
    pub(super) fn word(&mut self, deadline: Instant) -> Result<Word> {
        loop {
            if let Some(end) = self.received.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                if let Ok(word) = String::from_utf8_lossy(&line).parse() {
                    return Ok(word);
                }
                continue;
            }
            let mut buffer = [0; 4096];
            match self.line.read(&mut buffer) {
                Ok(0) => bail!("the emulated host ended before it was done"),
                Ok(length) => self.received.extend_from_slice(buffer.get(..length).unwrap_or_default()),
                Err(error) if NOTHING_YET.contains(&error.kind()) => {}
                Err(error) => return Err(error).context("the emulated host's serial line broke"),
            }
            if Instant::now() > deadline {
                bail!("the emulated host made no progress in time");
            }
        }
    }

    /// Says `text` to the emulated host.
    pub(super) fn say(&mut self, text: &str) -> Result<()> {
        writeln!(self.line, "{text}").context("cannot write to the emulated host's serial line")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.qemu.kill();
    }
}

fn connect(socket: &Path, qemu: &mut Running) -> Result<UnixStream> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() > deadline => return Err(error).context("QEMU offers no serial line"),
            Err(_) => {}
        }
        if let Some(status) = qemu.ended() {
            bail!("QEMU ended at once ({status})");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

//! Parts of QEMU's command line.

use crate::hypervisor::{Boots, ConfigDrive, Firmware, Link};
use crate::net::MacAddress;
use std::ffi::OsString;
use std::path::Path;

/// Deep enough for 20 ms of small packets at the default rate; the most that virtio-net on vhost-user takes.
const RING_SIZE: u16 = 1024;

/// Arguments under construction.
pub(super) struct Args(pub(super) Vec<OsString>);

impl Args {
    pub(super) fn flag(&mut self, flag: &str) -> &mut Self {
        self.0.push(flag.into());
        self
    }

    pub(super) fn pair(&mut self, flag: &str, value: &str) -> &mut Self {
        self.flag(flag).flag(value)
    }

    /// A flag whose value ends with a file name. QEMU wants commas doubled where options precede it.
    pub(super) fn path(&mut self, flag: &str, options: &str, path: &Path) -> &mut Self {
        use std::os::unix::ffi::{OsStrExt, OsStringExt};
        let mut value = options.as_bytes().to_vec();
        for &byte in path.as_os_str().as_bytes() {
            value.push(byte);
            if byte == b',' && !options.is_empty() {
                value.push(byte);
            }
        }
        self.flag(flag).0.push(OsString::from_vec(value));
        self
    }

    pub(super) fn firmware(&mut self, firmware: &Firmware) {
        self.path("-bios", "", &firmware.program);
        match &firmware.boots {
            Boots::Uki(file) => self.path("-kernel", "", file),
            Boots::Qcow2(file) => {
                self.path("-drive", "if=none,id=boot,format=qcow2,read-only=on,file=", file);
                self.pair("-device", "virtio-blk-pci,drive=boot,bootindex=0,disable-legacy=on")
            }
        };
    }

    pub(super) fn config_drive(&mut self, drive: &ConfigDrive) {
        self.path("-drive", "if=none,id=config,format=raw,read-only=on,file=", drive.file());
        match drive {
            ConfigDrive::Cd(_) => {
                self.pair("-device", "ahci,id=sata").pair("-device", "ide-cd,bus=sata.0,drive=config")
            }
            ConfigDrive::Disk(_) => self.pair("-device", "virtio-blk-pci,drive=config,disable-legacy=on"),
        };
    }

    pub(super) fn link(&mut self, index: usize, link: &Link) {
        match link {
            Link::VhostUser { socket } => {
                self.path("-chardev", &format!("socket,id=link{index},reconnect-ms=100,path="), socket);
                self.pair("-netdev", &format!("vhost-user,id=net{index},chardev=link{index}"));
            }
            Link::Tap { interface } => {
                self.pair("-netdev", &format!("tap,id=net{index},ifname={interface},script=no,downscript=no"));
            }
            Link::User { forward } => {
                let forward: String =
                    forward.iter().map(|(host, guest)| format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}")).collect();
                self.pair("-netdev", &format!("user,id=net{index}{forward}"));
            }
            Link::Unconnected => {
                self.pair("-netdev", &format!("hubport,id=net{index},hubid={index}"));
            }
        }
    }

    /// `options` begin with a comma, if there are any.
    pub(super) fn virtio(&mut self, index: usize, link: &Link, mac: MacAddress, options: &str) {
        // Without ROM and legacy registers there is less to map, and no I/O ports to run out of.
        let mut device = format!("virtio-net-pci,netdev=net{index},mac={mac},romfile=,rombar=0,disable-legacy=on");
        device += &format!(",rx_queue_size={RING_SIZE}");
        if matches!(link, Link::VhostUser { .. }) {
            device += &format!(",tx_queue_size={RING_SIZE}");
        }
        self.pair("-device", &(device + options));
    }
}

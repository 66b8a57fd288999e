//! QEMU's command line.

use super::args::Args;
use super::memory;
use crate::hypervisor::placement::Placement;
use crate::hypervisor::{Chipset, Launch, Nic};
use std::ffi::OsString;
use std::path::Path;

/// A machine with little more than PCIe and a serial port: what is absent need not be probed at boot.
fn machine(chipset: Chipset) -> &'static str {
    match chipset {
        Chipset::Q35 => "q35,sata=off,smbus=off,i8042=off,usb=off,vmport=off",
        Chipset::Microvm => "microvm,pcie=on,acpi=on,rtc=on,auto-kernel-cmdline=off",
    }
}

/// Emulated, a processor of all that QEMU knows, with exceptions. That single bytes are copied quickest is true of real
/// processors only, and the kernel would believe it; that words are copied quickly by one instruction is true, but the kernel
/// believes it of AMD's processors of this family and later. And whatever is turned on in the middle of a boot makes all code
/// be translated anew: wide registers, and a guard between kernel and its only program.
const EMULATED_CPU: &str = "max,family=16,-erms,-fsrm,-xsave,-smap";

/// The slot of the first NIC. Those before are QEMU's to give to drives.
const FIRST_SLOT: usize = 0x10;

/// The last slot that is free on every machine.
const LAST_SLOT: usize = 0x1e;

/// Every offload off. A frame then always carries complete checksums and fits the link, as the switch needs it.
const NO_OFFLOADS: &str = "csum=off,guest_csum=off,gso=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off,\
     guest_uso4=off,guest_uso6=off,host_tso4=off,host_tso6=off,host_ecn=off,host_ufo=off,host_uso=off,mrg_rxbuf=off";

/// What every guest's kernel is told, however it runs.
///
/// * A panic resets the machine, which ends QEMU as the launcher starts it (`-no-reboot`).
/// * Files that are never swapped need no file system that could.
/// * ACPI tells which PCI buses there are. A kernel that knows of no last one looks for more in 8192 places, and under KVM
///   that is 16,000 exits to QEMU.
/// * Parts of the kernel's start that nobody here uses and no configuration leaves out: a self-test, files in sysfs
///   about memory and caches, and events on a socket.
pub const GUEST_CMDLINE: &str = "console=ttyS0 quiet panic=-1 reboot=t rootfstype=ramfs pci=lastbus=0 \
     initcall_blacklist=blake2s_mod_init,slab_sysfs_init,cacheinfo_sysfs_init,acpi_event_init";

/// What of the host decides about the command line.
#[derive(Debug, Clone, Copy, Default)]
pub struct Host<'a> {
    /// Whether the guest runs with KVM.
    pub kvm: bool,
    /// The quickest firmware for a kernel that is entered directly. QEMU's default does far more than is needed.
    pub loader: Option<&'a Path>,
    /// The rate of its time-stamp counter, for an emulated guest: on a busy host it takes long to find that out, and on a
    /// machine without a second clock it cannot be found out at all.
    pub tsc_khz: Option<u64>,
}

/// The arguments of QEMU for `launch`, with the instance's configuration and identity in these files.
pub fn argv(
    launch: &Launch,
    host: Host<'_>,
    placement: &Placement,
    config_file: &Path,
    identity_file: Option<&Path>,
) -> Vec<OsString> {
    let mut args = Args(Vec::new());
    args.flag("-nodefaults").flag("-no-user-config").flag("-no-reboot");
    args.pair("-display", "none");
    args.pair("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny");
    // With names of threads, which `top -H` then shows.
    args.pair("-name", &format!("slim-{},debug-threads=on", launch.name));
    args.pair("-machine", &format!("{},memory-backend=memory", machine(launch.chipset)));
    if launch.chipset == Chipset::Q35 {
        // No slot is filled or emptied while a guest runs: a third of the hardware's description need not be interpreted.
        args.pair("-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off");
    }
    match host.kvm {
        true => args.pair("-accel", "kvm").pair("-cpu", "host"),
        false => args.pair("-accel", "tcg,thread=multi").pair("-cpu", EMULATED_CPU),
    };
    args.pair("-smp", &launch.vcpus.to_string());
    args.pair("-m", &format!("{}M", launch.memory_mb));
    args.pair("-object", &memory::object(launch, placement));

    match &launch.firmware {
        None => {
            args.path("-kernel", "", &launch.image.kernel);
            args.path("-initrd", "", &launch.image.initramfs);
            let rate = host.tsc_khz.map_or_else(String::new, |khz| format!(" tsc_early_khz={khz}"));
            args.pair("-append", &(cmdline(launch, host.kvm) + &rate + &for_vfio(launch)));
            if let Some(loader) = host.loader {
                args.path("-bios", "", loader);
            }
        }
        Some(firmware) => args.firmware(firmware),
    }
    match &launch.config_drive {
        None => {
            args.path("-fw_cfg", "name=opt/slim/config,file=", config_file);
            if let Some(file) = identity_file {
                // The name of a file only: what stands on a command line, everybody can read.
                args.path("-fw_cfg", "name=opt/slim/identity,file=", file);
            }
        }
        Some(drive) => args.config_drive(drive),
    }

    args.path("-chardev", "file,id=console,path=", &launch.console_log);
    args.pair("-serial", "chardev:console");
    args.path("-chardev", "socket,id=qmp,server=on,wait=off,path=", &launch.qmp_socket);
    args.pair("-mon", "chardev=qmp,mode=control");

    if launch.incoming {
        args.pair("-incoming", "defer");
    }

    for (index, nic) in launch.nics.iter().enumerate() {
        let slot = slot(index).map_or_else(String::new, |slot| format!(",addr={slot:#x}"));
        match nic {
            Nic::Dataplane { link, mac } => {
                args.link(index, link);
                args.virtio(index, link, *mac, &slot);
            }
            Nic::Management { link, mac } => {
                args.link(index, link);
                args.virtio(index, link, *mac, &format!("{slot},{NO_OFFLOADS}"));
            }
            Nic::Passthrough { address } => {
                args.pair("-device", &format!("vfio-pci,host={address},rombar=0{slot}"));
            }
        }
    }
    args.0
}

/// The PCI slot of a NIC, as far as there are enough.
fn slot(index: usize) -> Option<usize> {
    Some(index + FIRST_SLOT).filter(|slot| *slot <= LAST_SLOT)
}

/// Has the guest's kernel leave the dataplane's NICs to DPDK at once, rather than make interfaces of them first. A guest
/// that is not told binds them itself, which takes longer.
fn for_vfio(launch: &Launch) -> String {
    let dataplane = launch.nics.iter().enumerate().filter(|(_, nic)| !matches!(nic, Nic::Management { .. }));
    let addresses: Vec<_> =
        dataplane.filter_map(|(index, _)| Some(format!("0000:00:{:02x}.0", slot(index)?))).collect();
    match addresses.as_slice() {
        [] => String::new(),
        addresses => format!(" vfio.enable_unsafe_noiommu_mode=1 pci_vfio={}", addresses.join(",")),
    }
}

/// The guest kernel's command line.
pub(in crate::hypervisor) fn cmdline(launch: &Launch, kvm: bool) -> String {
    let mut words = vec![GUEST_CMDLINE];
    if launch.chipset == Chipset::Q35 {
        // The one device that could be found this way, the serial port, is where it always was.
        words.push("pnpacpi=off");
    }
    if !kvm {
        // Emulated timers need neither check nor watchdog, and ACPI's is another one that would be checked.
        words.extend(["no_timer_check", "tsc=reliable", "pmtmr=0"]);
        if launch.vcpus == 1 {
            // Else the kernel rewrites thousands of its locked instructions, for which emulation pays 100 ms.
            words.push("noreplace-smp");
        }
    }
    words.extend(launch.extra_cmdline.split_whitespace());
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::{Boots, ConfigDrive, Firmware, Image, Link};

    const TCG: Host<'_> = Host { kvm: false, loader: None, tsc_khz: None };

    fn launch() -> Launch {
        let image = Image { kernel: "/images/nat/kernel".into(), initramfs: "/images/nat/initramfs".into() };
        let mut launch = Launch::new("nat-a", image, Path::new("/run/slim"));
        launch.nics = vec![
            Nic::Management {
                link: Link::VhostUser { socket: "/run/slim/nat-a.mgmt.sock".into() },
                mac: "52:54:00:03:00:0b".parse().unwrap(),
            },
            Nic::Dataplane {
                link: Link::VhostUser { socket: "/run/slim/nat-a.in.sock".into() },
                mac: "52:54:00:01:00:0b".parse().unwrap(),
            },
            Nic::Passthrough { address: "03:10.0".parse().unwrap() },
        ];
        launch
    }

    fn anywhere() -> Placement {
        Placement::default()
    }

    /// The values of every occurrence of `flag`.
    fn values(args: &[OsString], flag: &str) -> Vec<String> {
        args.windows(2).filter(|pair| pair[0] == flag).map(|pair| pair[1].to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_vnf_gets_shared_memory_its_configuration_and_its_links() {
        let identity = Path::new("/run/slim/nat-a.identity.pem");
        let args = argv(&launch(), TCG, &anywhere(), Path::new("/run/slim/nat-a.toml"), Some(identity));
        assert_eq!(
            values(&args, "-object"),
            ["memory-backend-file,id=memory,size=256M,share=on,mem-path=/proc/self/fd/3,align=2M"]
        );
        assert!(values(&args, "-machine")[0].ends_with(",memory-backend=memory"));
        assert_eq!(
            values(&args, "-fw_cfg"),
            [
                "name=opt/slim/config,file=/run/slim/nat-a.toml",
                "name=opt/slim/identity,file=/run/slim/nat-a.identity.pem"
            ]
        );
        assert_eq!(values(&args, "-kernel"), ["/images/nat/kernel"]);
        assert_eq!(
            values(&args, "-chardev"),
            [
                "file,id=console,path=/run/slim/nat-a.console.log",
                "socket,id=qmp,server=on,wait=off,path=/run/slim/nat-a.qmp",
                "socket,id=link0,reconnect-ms=100,path=/run/slim/nat-a.mgmt.sock",
                "socket,id=link1,reconnect-ms=100,path=/run/slim/nat-a.in.sock",
            ]
        );
        assert_eq!(values(&args, "-netdev"), ["vhost-user,id=net0,chardev=link0", "vhost-user,id=net1,chardev=link1"]);
    }

    #[test]
    fn what_waits_for_a_guest_differs_from_one_that_boots_in_nothing_else() {
        let of = |incoming| argv(&Launch { incoming, ..launch() }, TCG, &anywhere(), Path::new("c"), None);
        let (boots, mut waits) = (of(false), of(true));
        assert_eq!(values(&waits, "-incoming"), ["defer"]);
        let at = waits.iter().position(|word| word == "-incoming").unwrap();
        waits.drain(at..at + 2);
        assert_eq!(boots, waits);
    }

    #[test]
    fn firmware_and_a_config_drive_take_the_place_of_kernel_and_files() {
        let mut launch = launch();
        launch.firmware =
            Some(Firmware { program: "/ovmf".into(), boots: Boots::Qcow2("/images/nat/a,b.qcow2".into()) });
        launch.config_drive = Some(ConfigDrive::Cd("/run/cidata.iso".into()));
        let args = argv(&launch, TCG, &anywhere(), Path::new("c"), Some(Path::new("i")));
        for absent in ["-kernel", "-initrd", "-append", "-fw_cfg"] {
            assert!(values(&args, absent).is_empty(), "{absent}");
        }
        assert_eq!(values(&args, "-bios"), ["/ovmf"]);
        let quick = Host { loader: Some(Path::new("/qboot.rom")), ..TCG };
        assert_eq!(values(&argv(&launch, quick, &anywhere(), Path::new("c"), None), "-bios"), ["/ovmf"]);
        let direct = Launch { firmware: None, ..launch.clone() };
        assert_eq!(values(&argv(&direct, quick, &anywhere(), Path::new("c"), None), "-bios"), ["/qboot.rom"]);
        assert_eq!(
            values(&args, "-drive"),
            [
                "if=none,id=boot,format=qcow2,read-only=on,file=/images/nat/a,,b.qcow2",
                "if=none,id=config,format=raw,read-only=on,file=/run/cidata.iso"
            ]
        );
        launch.firmware = Some(Firmware { program: "/ovmf".into(), boots: Boots::Uki("/uki".into()) });
        launch.config_drive = None;
        let args = argv(&launch, TCG, &anywhere(), Path::new("c"), None);
        assert_eq!((values(&args, "-kernel"), values(&args, "-fw_cfg").len()), (vec!["/uki".into()], 1));
        assert!(values(&args, "-append").is_empty(), "the image has its own");
    }

    #[test]
    fn memory_lies_where_the_guest_was_placed() {
        let placed = Placement { node: Some(1), huge_pages: true, ..anywhere() };
        let args = argv(&launch(), TCG, &placed, Path::new("c"), None);
        assert_eq!(
            values(&args, "-object"),
            ["memory-backend-memfd,id=memory,size=256M,share=on,hugetlb=on,hugetlbsize=2M,prealloc=on,host-nodes=1,\
              policy=bind"]
        );
    }

    #[test]
    fn only_the_management_interface_loses_its_offloads() {
        let devices = values(&argv(&launch(), TCG, &anywhere(), Path::new("c"), None), "-device");
        assert_eq!(devices.len(), 3);
        assert!(devices[0].contains("mac=52:54:00:03:00:0b") && devices[0].contains(",csum=off,guest_csum=off,"));
        assert_eq!(
            devices[1],
            "virtio-net-pci,netdev=net1,mac=52:54:00:01:00:0b,romfile=,rombar=0,disable-legacy=on,\
             rx_queue_size=1024,tx_queue_size=1024,addr=0x11"
        );
        assert_eq!(devices[2], "vfio-pci,host=0000:03:10.0,rombar=0,addr=0x12");
    }

    #[test]
    fn the_kernel_is_told_which_nics_of_those_that_fit_are_not_its_own() {
        let mac = "52:54:00:01:00:0c".parse().unwrap();
        let mut launch = launch();
        launch.nics = vec![Nic::Management { link: Link::Unconnected, mac }];
        assert!(!values(&argv(&launch, TCG, &anywhere(), Path::new("c"), None), "-append")[0].contains("vfio"));
        launch.nics.extend((1..17).map(|_| Nic::Dataplane { link: Link::Unconnected, mac }));
        let args = argv(&launch, TCG, &anywhere(), Path::new("c"), None);
        let devices = values(&args, "-device");
        assert!(devices[14].ends_with(",addr=0x1e") && !devices[15].contains("addr="));
        assert!(values(&args, "-append")[0].ends_with(",0000:00:1e.0"));
    }

    #[test]
    fn deep_transmit_rings_are_for_vhost_user_only() {
        let mut launch = launch();
        let mac = "52:54:00:01:00:0c".parse().unwrap();
        launch.nics = vec![
            Nic::Dataplane { link: Link::Unconnected, mac },
            Nic::Dataplane { link: Link::Tap { interface: "tap0".into() }, mac },
            Nic::Management { link: Link::User { forward: vec![(7101, 7001), (7102, 7002)] }, mac },
        ];
        let args = argv(&launch, TCG, &anywhere(), Path::new("c"), None);
        assert!(values(&args, "-device").iter().all(|device| !device.contains("tx_queue_size")));
        assert_eq!(
            values(&args, "-netdev"),
            [
                "hubport,id=net0,hubid=0",
                "tap,id=net1,ifname=tap0,script=no,downscript=no",
                "user,id=net2,hostfwd=tcp:127.0.0.1:7101-:7001,hostfwd=tcp:127.0.0.1:7102-:7002",
            ]
        );
    }

    #[test]
    fn the_accelerator_decides_cpu_and_timers() {
        let mut launch = launch();
        launch.extra_cmdline = "  debug foo=1 ".into();
        launch.vcpus = 2;
        let tcg = argv(&launch, TCG, &anywhere(), Path::new("c"), None);
        assert_eq!(values(&tcg, "-cpu"), ["max,family=16,-erms,-fsrm,-xsave,-smap"]);
        let vfio = "vfio.enable_unsafe_noiommu_mode=1 pci_vfio=0000:00:11.0,0000:00:12.0";
        let emulated = "no_timer_check tsc=reliable pmtmr=0";
        assert_eq!(values(&tcg, "-append"), [format!("{GUEST_CMDLINE} pnpacpi=off {emulated} debug foo=1 {vfio}")]);
        let alone = argv(&Launch { vcpus: 1, ..launch.clone() }, TCG, &anywhere(), Path::new("c"), None);
        assert!(values(&alone, "-append")[0].contains(" noreplace-smp "), "one CPU needs no locks rewritten");
        let timed = argv(&launch, Host { tsc_khz: Some(2_600_000), ..TCG }, &anywhere(), Path::new("c"), None);
        assert!(values(&timed, "-append")[0].contains(" tsc_early_khz=2600000 "));
        let kvm = argv(&launch, Host { kvm: true, ..TCG }, &anywhere(), Path::new("c"), None);
        assert_eq!(values(&kvm, "-accel"), ["kvm"]);
        assert_eq!(values(&kvm, "-cpu"), ["host"]);
        assert_eq!(values(&kvm, "-append"), [format!("{GUEST_CMDLINE} pnpacpi=off debug foo=1 {vfio}")]);
        assert_eq!(values(&kvm, "-smp"), ["2"]);
    }

    #[test]
    fn commas_in_paths_are_doubled_where_qemu_splits() {
        let mut launch = launch();
        launch.image.kernel = "/a,b/kernel".into();
        launch.qmp_socket = "/a,b/qmp".into();
        let args = argv(&launch, TCG, &anywhere(), Path::new("/a,b/config"), None);
        assert_eq!(values(&args, "-kernel"), ["/a,b/kernel"]);
        assert_eq!(values(&args, "-fw_cfg"), ["name=opt/slim/config,file=/a,,b/config"]);
        assert_eq!(values(&args, "-chardev")[1], "socket,id=qmp,server=on,wait=off,path=/a,,b/qmp");
    }
}

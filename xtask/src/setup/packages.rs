//! What SliM needs beyond a Rust toolchain, and what for.

/// A part of SliM that needs software of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Compiling the crates that contain DPDK.
    Dpdk,
    /// Building the guest's kernel, and packing images.
    Kernel,
    /// Packing images for firmware to boot.
    Formats,
    /// Booting images.
    Qemu,
    /// Booting images by firmware, configured by a drive.
    Firmware,
    /// Network namespaces and the programs sent through them.
    Testbed,
    /// Real clients and servers that are sent through the testbed.
    Programs,
    /// Formatting and linting the sources.
    Lint,
    /// Linking libFuzzer.
    Fuzz,
    /// Other NATs, to be measured beside ours.
    Peers,
    /// Judging and starting what we write for libvirt.
    Libvirt,
}

impl Need {
    /// All of them but the peers, which only a benchmark runs, and libvirt, which one check runs.
    pub const ALL: [Self; 9] = [
        Self::Dpdk,
        Self::Kernel,
        Self::Formats,
        Self::Qemu,
        Self::Firmware,
        Self::Testbed,
        Self::Programs,
        Self::Lint,
        Self::Fuzz,
    ];
}

/// A package of Debian.
#[derive(Debug)]
pub struct Package {
    /// Its name.
    pub name: &'static str,
    /// What needs it.
    pub need: Need,
    /// Its purpose, for the list of what is missing.
    pub purpose: &'static str,
    /// The least version that will do, if not any does.
    pub least: Option<&'static str>,
}

const fn package(need: Need, name: &'static str, purpose: &'static str) -> Package {
    Package { name, need, purpose, least: None }
}

/// The package with the kernel's source.
pub const KERNEL_SOURCE: &str = "linux-source-6.1";

/// The package with QEMU.
pub const QEMU: &str = "qemu-system-x86";

/// The least version of QEMU: guests connect to the switch again within 100 ms (`reconnect-ms`, from 9.2 on).
///
/// Debian 12 itself has 7.2; its backports have a newer one.
pub const QEMU_LEAST: &str = "1:9.2";

/// The packages, by need.
pub const PACKAGES: &[Package] = &[
    package(Need::Dpdk, "gcc", "compiles the shim around DPDK's inline functions, and links"),
    package(Need::Dpdk, "libc6-dev", "the C library, also static for the images"),
    package(Need::Dpdk, "libdpdk-dev", "DPDK 22.11: headers and static libraries"),
    package(Need::Dpdk, "libclang1-14", "reads DPDK's headers to make the bindings"),
    package(Need::Dpdk, "libclang-common-14-dev", "the compiler's own headers, for the same"),
    package(Need::Dpdk, "libnuma-dev", "linked into DPDK's EAL"),
    package(Need::Dpdk, "libbsd-dev", "linked into DPDK's EAL"),
    package(Need::Kernel, KERNEL_SOURCE, "the guest's kernel, with Debian's patches"),
    package(Need::Kernel, "gcc", "compiles the kernel"),
    package(Need::Kernel, "libc6-dev", "for the kernel's build tools"),
    package(Need::Kernel, "make", "drives the kernel's build"),
    package(Need::Kernel, "flex", "for the kernel's configuration language"),
    package(Need::Kernel, "bison", "for the kernel's configuration language"),
    package(Need::Kernel, "bc", "computes the kernel's time constants"),
    package(Need::Kernel, "libelf-dev", "for objtool, part of the kernel's build"),
    package(Need::Kernel, "libssl-dev", "for the kernel's build tools"),
    package(Need::Kernel, "cpio", "for the kernel's build"),
    package(Need::Kernel, "lz4", "compresses kernel and initramfs"),
    package(Need::Kernel, "xz-utils", "unpacks the kernel's source"),
    package(Need::Kernel, "patch", "applies SliM's patches to the kernel"),
    package(Need::Formats, "systemd-boot-efi", "the stub of unified kernel images"),
    package(Need::Formats, "binutils", "objcopy, which joins it with kernel and initramfs"),
    package(Need::Formats, "qemu-utils", "qemu-img, which makes disks smaller"),
    package(Need::Firmware, "ovmf", "UEFI firmware for QEMU"),
    package(Need::Firmware, "genisoimage", "makes config drives, as OpenStack does"),
    Package {
        name: QEMU,
        need: Need::Qemu,
        purpose: "boots the images, version 9.2 or newer",
        least: Some(QEMU_LEAST),
    },
    package(Need::Testbed, "iproute2", "network namespaces, TAP devices and their addresses"),
    package(Need::Testbed, "iputils-ping", "ping through the NAT"),
    package(Need::Testbed, "iperf3", "TCP through the NAT"),
    package(Need::Testbed, "curl", "downloads through the NAT"),
    package(Need::Programs, "traceroute", "sees the NAT and what is behind it"),
    package(Need::Programs, "dnsmasq-base", "a DNS server"),
    package(Need::Programs, "bind9-dnsutils", "dig, which asks it"),
    package(Need::Programs, "coturn", "a STUN server, and the client that tells what kind of NAT there is"),
    package(Need::Programs, "openssh-server", "a server to log in at"),
    package(Need::Programs, "openssh-client", "who logs in"),
    package(Need::Fuzz, "g++", "compiles libFuzzer and links it"),
    package(Need::Libvirt, "libvirt-clients", "virt-xml-validate, with libvirt's own schemas"),
    package(Need::Libvirt, "libxml2-utils", "xmllint, which that runs"),
    package(Need::Libvirt, "libvirt-daemon-driver-qemu", "virt-qemu-run, libvirt for QEMU in one process"),
    package(Need::Peers, "iproute2", "network namespaces and their interfaces"),
    package(Need::Peers, "nftables", "sets the kernel's NAT up"),
    package(Need::Peers, "openvswitch-switch-dpdk", "Open vSwitch in userspace"),
];

/// The parts of the Rust toolchain that are not always installed with it.
pub const COMPONENTS: &[(&str, &str)] = &[("rustfmt", "cargo-fmt"), ("clippy", "cargo-clippy")];

//! An emulated host with KVM, an IOMMU and an SR-IOV NIC, and what SliM's launcher has to do on it.
//!
//! ```text
//! this machine         peer ── datagrams, one per frame ──┐
//!   emulated host      igb (PF) ── VF 0, VF 1             │  QEMU without KVM: AMD SVM, intel-iommu, igb are emulated
//!     our launcher       └───────── vfio-pci              │  Debian's kernel, PID 1 from this crate, our files over 9p
//!       NAT image          in ── NAT ── out ──────────────┘  QEMU with accel=kvm
//! ```
//!
//! * [`outside`]: starts the emulated host and is the NAT's peer on its NIC's cable;
//! * [`inside`]: PID 1 of the emulated host, which runs the launcher and looks at what it leaves behind;
//! * [`words`]: what the two say to each other.

#![forbid(unsafe_code)]

pub mod inside;
#[cfg(feature = "outside")]
pub mod outside;
pub mod words;

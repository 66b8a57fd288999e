//! A guest's memory: a file in memory that the switch can map, too, in huge pages where the host has any to give.

use crate::hypervisor::Launch;
use crate::hypervisor::placement::Placement;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

/// The file's descriptor in QEMU.
pub(super) const DESCRIPTOR: RawFd = 3;

/// The value of QEMU's option `-object`.
///
/// QEMU would make the file itself, but then maps it at any page, and KVM gives a guest huge pages only where guest and
/// QEMU have them at the same offset. Only the address of a file that it opens can be aligned. That of reserved huge
/// pages always is.
pub(super) fn object(launch: &Launch, placement: &Placement) -> String {
    let size = launch.memory_mb;
    // Shared, so that the switch can read and write the rings in it: vhost-user needs nothing more.
    let mut memory = match placement.huge_pages {
        // All at once: a guest that touches a page when there are none left is killed.
        true => {
            format!("memory-backend-memfd,id=memory,size={size}M,share=on,hugetlb=on,hugetlbsize=2M,prealloc=on")
        }
        false => {
            format!("memory-backend-file,id=memory,size={size}M,share=on,mem-path=/proc/self/fd/{DESCRIPTOR},align=2M")
        }
    };
    if let Some(node) = placement.node {
        memory += &format!(",host-nodes={node},policy=bind");
    }
    memory
}

/// The file that QEMU needs as [`DESCRIPTOR`], if it needs one. Its pages are taken when they are touched.
pub(super) fn file(launch: &Launch, placement: &Placement) -> io::Result<Option<OwnedFd>> {
    if placement.huge_pages {
        return Ok(None);
    }
    let file = File::from(memfd_create("slim-memory", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    file.set_len(u64::from(launch.memory_mb) << 20)?;
    // Whoever is given it to share, as the switch is, cannot take it away by making it shorter.
    let seals = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(Some(file.into()))
}

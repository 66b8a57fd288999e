//! A unified kernel image: one program for UEFI firmware that contains kernel, initramfs and command line.
//!
//! systemd's stub is that program; what it starts stands in sections added to it, as binutils' objcopy can add them.
//!
//! ```text
//! .osrel    what this is, in the form of os-release      .linux    the kernel, a bzImage
//! .cmdline  its command line                             .initrd   the initramfs
//! ```
//! Source: the UAPI group's specification "Unified Kernel Image".

use crate::command;
use anyhow::{Context, Result};
use object::read::pe::PeFile64;
use object::{Object, ObjectSection};
use slim_controller::hypervisor::qemu::GUEST_CMDLINE;
use std::fs;
use std::path::Path;
use std::process::Command;

/// systemd's stub, as Debian has it.
const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";

/// Sections begin on pages.
const ALIGNMENT: u64 = 4096;

/// What the kernel is told beside [`GUEST_CMDLINE`]. How it will run is not known yet, so this is for all ways.
const EMULATED_TOO: &str = "no_timer_check";

/// Joins the kernel `bzimage` and `initramfs` to the program `output`, which calls itself `title`.
pub fn write(bzimage: &Path, initramfs: &Path, title: &str, output: &Path) -> Result<()> {
    let work = tempfile::tempdir()?;
    let text = |name: &str, content: String| {
        let path = work.path().join(name);
        fs::write(&path, content).map(|()| path)
    };
    let version = env!("CARGO_PKG_VERSION");
    let osrel = text("osrel", format!("ID=slim\nNAME=SliM\nPRETTY_NAME=\"{title}\"\nVERSION_ID={version}\n"))?;
    // The stub wants it ended.
    let cmdline = text("cmdline", format!("{GUEST_CMDLINE} {EMULATED_TOO}\0"))?;

    let stub = fs::read(STUB).with_context(|| format!("cannot read {STUB}: is systemd-boot-efi installed?"))?;
    let mut address = end(&stub).with_context(|| format!("{STUB} is not a program for UEFI"))?;
    let mut objcopy = Command::new("objcopy");
    for (name, file) in
        [(".osrel", osrel.as_path()), (".cmdline", cmdline.as_path()), (".linux", bzimage), (".initrd", initramfs)]
    {
        let bytes = file.metadata().with_context(|| format!("cannot read {}", file.display()))?.len();
        address = address.next_multiple_of(ALIGNMENT);
        objcopy.arg("--add-section").arg(format!("{name}={}", file.display()));
        objcopy.arg("--change-section-vma").arg(format!("{name}={address:#x}"));
        address += bytes;
    }
    command::output(objcopy.arg(STUB).arg(output))?;
    Ok(())
}

/// Where the last section of `program` ends, in memory.
fn end(program: &[u8]) -> Result<u64> {
    let file = PeFile64::parse(program)?;
    file.sections().map(|section| section.address() + section.size()).max().context("it has no sections")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_hold_what_was_given_and_do_not_overlap() {
        if !Path::new(STUB).exists() {
            panic!("{STUB} is missing: `cargo xtask setup` installs it");
        }
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = |name: &str| folder.path().join(name);
        fs::write(file("kernel"), vec![0xaa; 10_001]).expect("write");
        fs::write(file("initramfs"), vec![0xbb; 5_000]).expect("write");
        write(&file("kernel"), &file("initramfs"), "SliM nat", &file("uki")).expect("valid");
        let uki = fs::read(file("uki")).expect("written");
        let program = PeFile64::parse(uki.as_slice()).expect("a program");
        let mut sections: Vec<_> = program.sections().collect();
        sections.sort_by_key(ObjectSection::address);
        for pair in sections.windows(2) {
            assert!(pair[0].address() + pair[0].size() <= pair[1].address());
        }
        let content = |name: &str| {
            let section = program.section_by_name(name).expect("there");
            let data = section.data().expect("readable");
            data[..usize::try_from(section.size()).expect("small").min(data.len())].to_vec()
        };
        assert_eq!(content(".linux")[..10_001], vec![0xaa; 10_001]);
        assert_eq!(content(".initrd")[..5_000], vec![0xbb; 5_000]);
        assert!(content(".cmdline").starts_with(format!("{GUEST_CMDLINE} {EMULATED_TOO}\0").as_bytes()));
        assert!(String::from_utf8_lossy(&content(".osrel")).contains("PRETTY_NAME=\"SliM nat\""));
    }

    #[test]
    fn what_is_no_program_is_refused() {
        assert!(end(b"").is_err());
        assert!(end(b"MZ and nothing more").is_err());
    }
}

//! A disk that UEFI firmware boots from: a GPT, and one FAT partition with the unified kernel image where firmware looks.

use crate::command;
use anyhow::{Context, Result, ensure};
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use gptman::{GPT, GPTPartitionEntry};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;

const SECTOR_BYTES: u64 = 512;

/// The size of the disk. FAT32, the one kind that all firmware must know on disks, begins at 33 MiB.
const DISK_BYTES: u64 = 64 << 20;

/// Partitions begin on this.
const ALIGNMENT: u64 = (1 << 20) / SECTOR_BYTES;

/// "EFI System Partition", C12A7328-F81F-11D2-BA4B-00A0C93EC93B, in the order of its bytes on disk.
const ESP: [u8; 16] = [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];

/// Where firmware looks on a disk it has never seen.
const FOLDERS: [&str; 2] = ["EFI", "EFI/BOOT"];
const LOADER: &str = "EFI/BOOT/BOOTX64.EFI";

/// Writes a qcow2 that boots the unified kernel image `uki` to `output`.
pub fn write_qcow2(uki: &Path, output: &Path) -> Result<()> {
    let folder = output.parent().context("the disk needs a folder")?;
    let mut raw = tempfile::NamedTempFile::new_in(folder)?;
    let program = fs::read(uki).with_context(|| format!("cannot read {}", uki.display()))?;
    write_raw(&program, raw.as_file_mut())?;
    let mut convert = Command::new("qemu-img");
    convert.args(["convert", "-f", "raw", "-O", "qcow2"]).arg(raw.path()).arg(output);
    command::output(&mut convert)?;
    Ok(())
}

/// Writes the disk itself.
fn write_raw(program: &[u8], disk: &mut File) -> Result<()> {
    ensure!(
        program.len() as u64 <= DISK_BYTES - (8 << 20),
        "a program of {} bytes does not fit on a disk of {DISK_BYTES}",
        program.len()
    );
    disk.set_len(DISK_BYTES)?;
    // Equal programs make equal disks.
    let hash: [u8; 32] = Sha256::digest(program).into();
    let guid = |from: usize| <[u8; 16]>::try_from(&hash[from..from + 16]);
    let mut table = GPT::new_from(disk, SECTOR_BYTES, guid(0)?)?;
    let (first, last) = (ALIGNMENT, table.header.last_usable_lba);
    table[1] = GPTPartitionEntry {
        partition_type_guid: ESP,
        unique_partition_guid: guid(16)?,
        starting_lba: first,
        ending_lba: last,
        attribute_bits: 0,
        partition_name: "boot".into(),
    };
    GPT::write_protective_mbr_into(disk, SECTOR_BYTES)?;
    table.write_into(disk)?;

    let serial = u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]]);
    let mut part = Part { disk, start: first * SECTOR_BYTES, bytes: (last - first + 1) * SECTOR_BYTES, at: 0 };
    let options = FormatVolumeOptions::new().fat_type(FatType::Fat32).bytes_per_cluster(512);
    fatfs::format_volume(&mut part, options.volume_id(serial).volume_label(*b"SLIM       "))?;
    let volume = FileSystem::new(part, FsOptions::new())?;
    for folder in FOLDERS {
        volume.root_dir().create_dir(folder)?;
    }
    volume.root_dir().create_file(LOADER)?.write_all(program)?;
    volume.unmount()?;
    Ok(())
}

/// A part of a disk, as if it were one of its own.
struct Part<'a> {
    disk: &'a mut File,
    start: u64,
    bytes: u64,
    at: u64,
}

impl Part<'_> {
    /// Where the disk is to be read or written, and how much of it at most.
    fn seat(&mut self, wanted: usize) -> io::Result<usize> {
        self.disk.seek(SeekFrom::Start(self.start + self.at))?;
        let left = self.bytes.saturating_sub(self.at);
        Ok(wanted.min(usize::try_from(left).unwrap_or(usize::MAX)))
    }
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = self.seat(buffer.len())?;
        let count = self.disk.read(&mut buffer[..most])?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Write for Part<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let most = self.seat(buffer.len())?;
        let count = self.disk.write(&buffer[..most])?;
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.disk.flush()
    }
}

impl Seek for Part<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.bytes.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_finds_the_program_on_the_disk() {
        let program: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
        let mut disk = tempfile::tempfile().expect("temporary file");
        write_raw(&program, &mut disk).expect("written");
        let table = GPT::find_from(&mut disk).expect("a valid table");
        let entry = &table[1];
        assert_eq!(entry.partition_type_guid, ESP);
        let start = entry.starting_lba * SECTOR_BYTES;
        let bytes = (entry.ending_lba - entry.starting_lba + 1) * SECTOR_BYTES;
        let part = Part { disk: &mut disk, start, bytes, at: 0 };
        let volume = FileSystem::new(part, FsOptions::new()).expect("a FAT");
        assert_eq!(volume.fat_type(), FatType::Fat32);
        let mut found = Vec::new();
        volume.root_dir().open_file(LOADER).expect("there").read_to_end(&mut found).expect("readable");
        assert!(found == program);
    }

    #[test]
    fn equal_programs_make_equal_disks_and_large_ones_are_refused() {
        let disk = |program: &[u8]| {
            let mut disk = tempfile::tempfile()?;
            write_raw(program, &mut disk)?;
            let mut bytes = Vec::new();
            disk.seek(SeekFrom::Start(0))?;
            disk.read_to_end(&mut bytes)?;
            Ok::<_, anyhow::Error>(bytes)
        };
        let one = disk(b"one").expect("small");
        assert!(one == disk(b"one").expect("small"));
        assert!(one != disk(b"two").expect("small"));
        assert!(disk(&vec![0; 60 << 20]).is_err());
    }
}

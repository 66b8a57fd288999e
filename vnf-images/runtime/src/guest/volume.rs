//! Which file system a drive holds, and its label: read from the few bytes at its begin that say so.
//!
//! Sources: ECMA-119 (ISO 9660), 8.4; Microsoft's FAT specification 1.03, boot sector.

use std::io;
use std::os::unix::fs::FileExt;

/// A file system that config drives have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// Of CDs.
    Iso9660,
    /// FAT with long names.
    Vfat,
}

impl FileSystem {
    /// The kernel's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Iso9660 => "iso9660",
            Self::Vfat => "vfat",
        }
    }
}

/// A file system and its label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Without the padding.
    pub label: String,
    /// Its type.
    pub file_system: FileSystem,
}

/// The first volume descriptor of a CD, sixteen sectors of 2 KiB in.
const ISO_DESCRIPTOR: u64 = 16 * 2048;

/// Type and name of a primary volume descriptor.
const ISO_PRIMARY: &[u8] = b"\x01CD001";

/// Says what is on `drive`; `None` if it is neither of the two.
pub fn identify(drive: &impl FileExt) -> io::Result<Option<Volume>> {
    let mut descriptor = [0; 2048];
    let found = if read(drive, ISO_DESCRIPTOR, &mut descriptor)? && descriptor.starts_with(ISO_PRIMARY) {
        Some((FileSystem::Iso9660, &descriptor[40..72]))
    } else if read(drive, 0, &mut descriptor[..512])? && descriptor[510..512] == [0x55, 0xaa] {
        // Where the name of the type stands tells where the label does, too.
        match (&descriptor[54..59], &descriptor[82..87]) {
            (b"FAT12" | b"FAT16", _) => Some((FileSystem::Vfat, &descriptor[43..54])),
            (_, b"FAT32") => Some((FileSystem::Vfat, &descriptor[71..82])),
            _ => None,
        }
    } else {
        None
    };
    Ok(found.map(|(file_system, label)| {
        let label = String::from_utf8_lossy(label);
        Volume { label: label.trim_end_matches([' ', '\0']).to_owned(), file_system }
    }))
}

/// Fills `bytes`; says whether there were enough.
fn read(drive: &impl FileExt, at: u64, bytes: &mut [u8]) -> io::Result<bool> {
    match drive.read_exact_at(bytes, at) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        result => result.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn identified(bytes: &[u8]) -> Option<Volume> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        identify(&file).unwrap()
    }

    fn iso(label: &str) -> Vec<u8> {
        let mut bytes = vec![0; 18 * 2048];
        bytes[0x8000..0x8006].copy_from_slice(ISO_PRIMARY);
        bytes[0x8028..0x8048].fill(b' ');
        bytes[0x8028..0x8028 + label.len()].copy_from_slice(label.as_bytes());
        bytes
    }

    fn fat(kind: &[u8; 5], kind_at: usize, label_at: usize) -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        bytes[kind_at..kind_at + 5].copy_from_slice(kind);
        bytes[label_at..label_at + 11].copy_from_slice(b"CONFIG-2   ");
        bytes
    }

    #[test]
    fn labels_are_found_where_each_file_system_has_them() {
        let found = |label: &str, file_system| Some(Volume { label: label.into(), file_system });
        assert_eq!(identified(&iso("cidata")), found("cidata", FileSystem::Iso9660));
        for bytes in [fat(b"FAT12", 54, 43), fat(b"FAT16", 54, 43), fat(b"FAT32", 82, 71)] {
            assert_eq!(identified(&bytes), found("CONFIG-2", FileSystem::Vfat));
        }
    }

    #[test]
    fn other_drives_have_no_label() {
        assert_eq!(identified(&[]), None);
        assert_eq!(identified(&[0xff; 100]), None);
        assert_eq!(identified(&vec![0; 40_000]), None);
        assert_eq!(identified(&iso("cidata")[..0x8100]), None, "cut off");
        // A partition table ends like a FAT.
        let mut table = vec![0; 1024];
        table[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(identified(&table), None);
    }
}

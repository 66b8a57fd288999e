//! The archive format of an initramfs: cpio, "newc".
//!
//! ```text
//! entry    "070701" and 13 numbers of 8 hexadecimal digits, name, NUL, padding to 4, content, padding to 4
//! archive  entry*, an entry named "TRAILER!!!"
//! ```
//! Owners are root, times are zero, inodes are numbered in order: equal content gives equal bytes.
//!
//! Source: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.

use anyhow::{Result, ensure};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive under construction.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds an empty folder. A folder must come before what is in it.
    pub fn directory(&mut self, name: &str) -> Result<()> {
        self.entry(name, DIRECTORY | 0o755, (0, 0), &[])
    }

    /// Adds an executable file.
    pub fn executable(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.entry(name, REGULAR | 0o755, (0, 0), content)
    }

    /// Adds a file to be read.
    pub fn file(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.entry(name, REGULAR | 0o644, (0, 0), content)
    }

    /// Adds the node of a character device, which only root may use.
    pub fn character_device(&mut self, name: &str, major: u32, minor: u32) -> Result<()> {
        self.entry(name, CHARACTER_DEVICE | 0o600, (major, minor), &[])
    }

    /// The finished archive.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        Ok(self.bytes)
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) -> Result<()> {
        let size = u32::try_from(content.len());
        ensure!(size.is_ok(), "{name} is too large for an initramfs: {} bytes", content.len());
        self.entries += 1;
        let links = if mode & DIRECTORY != 0 { 2 } else { 1 };
        let numbers = [
            self.entries,
            mode,
            0, // user
            0, // group
            links,
            0, // time of modification
            size.unwrap_or(0),
            0, // device that holds the file
            0,
            device.0,
            device.1,
            u32::try_from(name.len() + 1)?,
            0, // checksum, unused
        ];
        self.bytes.extend_from_slice(b"070701");
        for number in numbers {
            self.bytes.extend_from_slice(format!("{number:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_laid_out_as_the_kernel_reads_it() {
        let mut archive = Archive::default();
        archive.executable("init", b"hello").expect("small");
        let bytes = archive.finish().expect("small");
        let header = "070701\
            00000001000081ED0000000000000000000000010000000000000005\
            000000000000000000000000000000000000000500000000";
        let mut expected = header.as_bytes().to_vec();
        expected.extend_from_slice(b"init\0\0");
        expected.extend_from_slice(b"hello\0\0\0");
        assert_eq!(header.len() + 6, 116, "the name ends on a multiple of 4");
        assert_eq!(bytes.get(..expected.len()), Some(expected.as_slice()));
        assert_eq!(bytes.len() % 4, 0);
    }
}

//! Takes the bare kernel out of a `bzImage`, once, instead of letting every emulated boot decompress it: XZ takes ten
//! seconds there.
//!
//! Source: the kernel's Documentation/arch/x86/boot.rst, "the real-mode kernel header".

use crate::command;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Where the header keeps the number of 512-byte sectors of set-up code; the one before is not counted.
const SETUP_SECTORS: usize = 0x1f1;

/// What marks the header.
const MAGIC: (usize, &[u8]) = (0x202, b"HdrS");

/// Where the compressed kernel starts behind the set-up code, and how long it is.
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// What XZ streams begin with.
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];

/// Writes the kernel inside of `bzimage` to `output`, an ELF file that QEMU enters directly.
pub fn extract(bzimage: &Path, output: &Path) -> Result<()> {
    let image = fs::read(bzimage).with_context(|| format!("cannot read {}", bzimage.display()))?;
    let payload = payload(&image).with_context(|| format!("{} is not what was expected", bzimage.display()))?;
    let packed = output.with_extension("xz");
    fs::write(&packed, payload).with_context(|| format!("cannot write {}", packed.display()))?;
    // Its length follows the stream.
    let mut unpack = Command::new("sh");
    unpack.args(["-c", "exec xz --decompress --single-stream --stdout < \"$0\" > \"$1\""]).arg(&packed).arg(output);
    command::output(&mut unpack)?;
    fs::remove_file(&packed)?;
    Ok(())
}

fn payload(image: &[u8]) -> Result<&[u8]> {
    let number = |at: usize| {
        let bytes = image.get(at..).and_then(|rest| rest.first_chunk()).context("it is too short")?;
        Ok::<usize, anyhow::Error>(u32::from_le_bytes(*bytes).try_into()?)
    };
    let (at, magic) = MAGIC;
    ensure!(image.get(at..at + magic.len()) == Some(magic), "it is not a bzImage");
    let setup = usize::from(*image.get(SETUP_SECTORS).context("it is too short")?) + 1;
    let start = setup * 512 + number(PAYLOAD_OFFSET)?;
    let end = start.checked_add(number(PAYLOAD_LENGTH)?).context("its payload ends nowhere")?;
    let payload = image.get(start..end).context("its payload ends behind the file")?;
    ensure!(payload.starts_with(XZ), "it is not compressed with XZ");
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bzImage with two sectors of set-up code besides the first, and `payload` 16 bytes behind them.
    fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 3 * 512 + 16];
        image[SETUP_SECTORS] = 2;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[PAYLOAD_OFFSET] = 16;
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend_from_slice(payload);
        image
    }

    #[test]
    fn the_compressed_kernel_is_found() {
        let compressed = [XZ, b"the rest, and the length behind it"].concat();
        assert_eq!(payload(&bzimage(&compressed)).expect("valid"), compressed);
    }

    #[test]
    fn other_files_are_refused() {
        assert!(payload(b"short").is_err());
        assert!(payload(&[0; 4096]).expect_err("no header").to_string().contains("bzImage"));
        assert!(payload(&bzimage(b"\x04\x22\x4d\x18")).expect_err("LZ4").to_string().contains("XZ"));
        let mut image = bzimage(XZ);
        image[PAYLOAD_LENGTH + 2] = 1;
        assert!(payload(&image).expect_err("too long").to_string().contains("behind the file"));
    }
}

//! Makes a `vmlinux` small enough to ship: only what is loaded, without the holes in between.
//!
//! QEMU enters such a kernel directly (PVH), which spares the guest its firmware's boot loader and the
//! decompressor: a quarter of a second under emulation. The linker aligns segments in the file as in memory, to 2 MiB, fills
//! what is between code and data so that each can have large pages of its own, and adds section headers nobody reads at
//! boot; two thirds of the file go.

use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::Path;

const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
const PAGE_BYTES: u64 = 4096;
/// Shorter fillings are not worth a segment.
const FILLING_BYTES: usize = 64 << 10;
/// What the linker fills with: nothing, and breakpoints.
const FILLERS: [u8; 2] = [0, 0xcc];
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;

/// Writes the loadable parts of the kernel at `input` to `output`.
pub fn compact(input: &Path, output: &Path) -> Result<()> {
    let elf = fs::read(input).with_context(|| format!("cannot read {}", input.display()))?;
    let small = compacted(&elf).with_context(|| format!("{} is not a kernel that QEMU can enter", input.display()))?;
    fs::write(output, small).with_context(|| format!("cannot write {}", output.display()))
}

/// A segment, from its program header.
#[derive(Debug, Clone, Copy)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    virtual_address: u64,
    physical_address: u64,
    file_bytes: u64,
    memory_bytes: u64,
    alignment: u64,
}

impl Segment {
    fn parse(header: &[u8]) -> Result<Self> {
        Ok(Self {
            kind: u32_at(header, 0)?,
            flags: u32_at(header, 4)?,
            offset: u64_at(header, 8)?,
            virtual_address: u64_at(header, 16)?,
            physical_address: u64_at(header, 24)?,
            file_bytes: u64_at(header, 32)?,
            memory_bytes: u64_at(header, 40)?,
            alignment: u64_at(header, 48)?,
        })
    }

    fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.kind.to_le_bytes());
        out.extend_from_slice(&self.flags.to_le_bytes());
        for number in [
            self.offset,
            self.virtual_address,
            self.physical_address,
            self.file_bytes,
            self.memory_bytes,
            self.alignment,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn content<'a>(&self, elf: &'a [u8]) -> Result<&'a [u8]> {
        let end = self.offset.checked_add(self.file_bytes).context("a segment's size overflows")?;
        elf.get(usize::try_from(self.offset)?..usize::try_from(end)?).context("a segment ends behind the file")
    }

    /// The parts of a loadable segment that are worth loading: those between long fillings. The last one has what is
    /// behind them in memory, too.
    fn pieces(&self, elf: &[u8]) -> Result<Vec<Self>> {
        let content = self.content(elf)?;
        let is_filling = |page: &&[u8]| FILLERS.iter().any(|filler| page.iter().all(|byte| byte == filler));
        let mut starts_and_ends = Vec::new();
        let (mut start, mut at) = (0, 0);
        while let Some(rest) = content.get(at..).filter(|rest| !rest.is_empty()) {
            let filling: usize = rest.chunks(PAGE_BYTES as usize).take_while(is_filling).map(<[u8]>::len).sum();
            if filling >= FILLING_BYTES {
                starts_and_ends.push((start, at));
                start = at + filling;
            }
            at += filling.max(PAGE_BYTES as usize);
        }
        starts_and_ends.push((start, content.len()));
        starts_and_ends.retain(|(start, end)| start < end);
        if starts_and_ends.is_empty() {
            starts_and_ends.push((0, 0));
        }
        let mut pieces = Vec::new();
        for (start, end) in starts_and_ends.into_iter().map(|(start, end)| (start as u64, end as u64)) {
            pieces.push(Self {
                offset: self.offset + start,
                virtual_address: self.virtual_address.wrapping_add(start),
                physical_address: self.physical_address.wrapping_add(start),
                file_bytes: end - start,
                memory_bytes: end - start,
                ..*self
            });
        }
        if let Some(last) = pieces.last_mut() {
            let before = last.offset - self.offset;
            last.memory_bytes = self.memory_bytes.saturating_sub(before).max(last.file_bytes);
        }
        Ok(pieces)
    }

    /// Whether `other`'s bytes in the file are among ours.
    fn contains(&self, other: &Self) -> bool {
        self.offset <= other.offset
            && other.offset.saturating_add(other.file_bytes) <= self.offset.saturating_add(self.file_bytes)
    }
}

fn compacted(elf: &[u8]) -> Result<Vec<u8>> {
    let mut header = elf.get(..HEADER_BYTES).context("it is too short")?.to_vec();
    ensure!(header.starts_with(b"\x7fELF\x02\x01"), "it is not a 64-bit little-endian ELF file");
    let first = usize::try_from(u64_at(elf, 32)?)?;
    let count = usize::from(u16_at(elf, 56)?);
    ensure!(usize::from(u16_at(elf, 54)?) == PROGRAM_HEADER_BYTES, "its program headers are of an unknown size");
    let end = count.checked_mul(PROGRAM_HEADER_BYTES).and_then(|bytes| bytes.checked_add(first));
    let table = end.and_then(|end| elf.get(first..end)).context("its program headers end behind the file")?;
    let segments = table.chunks(PROGRAM_HEADER_BYTES).map(Segment::parse).collect::<Result<Vec<_>>>()?;
    let mut kept = Vec::new();
    for segment in segments {
        match segment.kind {
            PT_LOAD => kept.extend(segment.pieces(elf)?),
            PT_NOTE => kept.push(segment),
            _ => {}
        }
    }
    if !kept.iter().any(|segment| segment.kind == PT_NOTE) {
        bail!("it has no notes, where the PVH entry would be");
    }

    let mut body = Vec::new();
    let mut placed: Vec<(Segment, u64)> = Vec::new();
    let body_start = (HEADER_BYTES + kept.len() * PROGRAM_HEADER_BYTES) as u64;
    for segment in kept.iter().filter(|segment| segment.kind == PT_LOAD) {
        // Offsets stay congruent to addresses, as the format wants it.
        let here = body_start + body.len() as u64;
        let padding = segment.virtual_address.wrapping_sub(here) % PAGE_BYTES;
        body.resize(body.len() + usize::try_from(padding)?, 0);
        placed.push((*segment, here + padding));
        body.extend_from_slice(segment.content(elf)?);
    }
    // No section headers: their place, entry size, number and names.
    header[32..40].copy_from_slice(&(HEADER_BYTES as u64).to_le_bytes());
    header[40..48].fill(0);
    header[56..58].copy_from_slice(&u16::try_from(kept.len())?.to_le_bytes());
    header[58..64].fill(0);
    let mut out = header;
    for segment in &kept {
        let home = placed.iter().find(|(load, _)| load.contains(segment));
        let (load, start) = home.context("its notes are in no loadable segment")?;
        let alignment = if segment.kind == PT_LOAD { PAGE_BYTES } else { segment.alignment };
        Segment { offset: start + (segment.offset - load.offset), alignment, ..*segment }.emit(&mut out);
    }
    out.extend_from_slice(&body);
    Ok(out)
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().context("it is cut off")
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    Ok(u16::from_le_bytes(bytes_at(bytes, at)?))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    Ok(u32::from_le_bytes(bytes_at(bytes, at)?))
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    Ok(u64::from_le_bytes(bytes_at(bytes, at)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(kind: u32, offset: u64, address: u64, bytes: u64) -> Segment {
        Segment {
            kind,
            flags: 5,
            offset,
            virtual_address: address,
            physical_address: address & 0xffff_ffff,
            file_bytes: bytes,
            memory_bytes: bytes + 16,
            alignment: if kind == PT_NOTE { 4 } else { 0x20_0000 },
        }
    }

    /// Text at 2 MiB with a note inside, data at 4 MiB, junk between and behind.
    fn sample() -> Vec<u8> {
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(HEADER_BYTES, 0);
        elf[24..32].copy_from_slice(&0x100_0000_u64.to_le_bytes());
        elf[32..40].copy_from_slice(&64_u64.to_le_bytes());
        elf[40..48].copy_from_slice(&0x50_0000_u64.to_le_bytes());
        elf[54..56].copy_from_slice(&56_u16.to_le_bytes());
        elf[56..58].copy_from_slice(&3_u16.to_le_bytes());
        elf[60..62].copy_from_slice(&9_u16.to_le_bytes());
        for segment in [
            segment(PT_LOAD, 0x20_0000, 0xffff_ffff_8100_0000, 0x1000),
            segment(PT_LOAD, 0x40_0000, 0xffff_ffff_8180_0123, 0x20),
            segment(PT_NOTE, 0x20_0100, 0xffff_ffff_8100_0100, 0x6c),
        ] {
            segment.emit(&mut elf);
        }
        elf.resize(0x50_0000, 0xee);
        elf[0x20_0000..0x20_1000].fill(0xaa);
        elf[0x20_0100..0x20_016c].fill(0xbb);
        elf[0x40_0000..0x40_0020].fill(0xcc);
        elf
    }

    #[test]
    fn segments_keep_addresses_and_content_and_lose_the_holes() {
        let elf = sample();
        let small = compacted(&elf).expect("valid");
        assert!(small.len() < 0x4000, "{} bytes", small.len());
        assert_eq!(small[24..32], elf[24..32], "the entry point");
        assert_eq!(small[40..48], [0; 8], "no section headers");
        let old = elf[64..].chunks(PROGRAM_HEADER_BYTES).take(3).map(|h| Segment::parse(h).expect("valid"));
        let new = small[64..].chunks(PROGRAM_HEADER_BYTES).take(3).map(|h| Segment::parse(h).expect("valid"));
        for (old, new) in old.zip(new) {
            assert_eq!((old.kind, old.flags), (new.kind, new.flags));
            assert_eq!((old.virtual_address, old.physical_address), (new.virtual_address, new.physical_address));
            assert_eq!((old.file_bytes, old.memory_bytes), (new.file_bytes, new.memory_bytes));
            assert_eq!(old.content(&elf).expect("inside"), new.content(&small).expect("inside"));
            assert_eq!(new.offset % PAGE_BYTES, new.virtual_address % PAGE_BYTES);
        }
    }

    #[test]
    fn long_fillings_are_not_loaded() {
        let mut elf = sample();
        // Code of 3 MiB in all: a little, breakpoints, zeros, a little, zeros.
        elf.resize(0x90_0000, 0);
        let code = Segment {
            offset: 0x60_0000,
            file_bytes: 0x30_0000,
            memory_bytes: 0x31_0000,
            ..segment(PT_LOAD, 0, 0x1000_0000, 0)
        };
        let mut header = Vec::new();
        code.emit(&mut header);
        elf[64 + 56..64 + 112].copy_from_slice(&header);
        elf[0x60_0000..0x60_1800].fill(0x90);
        elf[0x60_1800..0x70_0000].fill(0xcc);
        elf[0x80_0000..0x80_0800].fill(0x91);
        let pieces = code.pieces(&elf).expect("inside");
        let extents: Vec<_> =
            pieces.iter().map(|p| (p.offset, p.physical_address, p.file_bytes, p.memory_bytes)).collect();
        let at = code.physical_address;
        // Pages that are not filled throughout stay.
        assert_eq!(extents, [(0x60_0000, at, 0x2000, 0x2000), (0x80_0000, at + 0x20_0000, 0x1000, 0x11_0000)]);
        let small = compacted(&elf).expect("valid");
        assert!(small.len() < 0x8000, "{} bytes", small.len());
        assert_eq!(small[56..58], 4_u16.to_le_bytes());
    }

    #[test]
    fn a_segment_of_nothing_but_filling_keeps_its_place_in_memory() {
        let elf = vec![0; 0x20_0000];
        let pieces = segment(PT_LOAD, 0, 0x100_0000, 0x20_0000).pieces(&elf).expect("inside");
        assert_eq!((pieces.len(), pieces[0].file_bytes, pieces[0].memory_bytes), (1, 0, 0x20_0010));
    }

    #[test]
    fn what_is_not_a_kernel_is_refused() {
        let elf = sample();
        assert!(compacted(&elf[..40]).is_err());
        assert!(compacted(&elf[..0x40_0010]).is_err(), "cut off inside a segment");
        assert!(compacted(&[b"MZ", &elf[2..]].concat()).is_err());
        let mut without_notes = elf.clone();
        without_notes[56..58].copy_from_slice(&2_u16.to_le_bytes());
        assert!(compacted(&without_notes).is_err());
        let mut huge = elf;
        huge[64 + 32..64 + 40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(compacted(&huge).is_err());
    }
}

//! Snapshots of a network function with two tables and a register, whole and damaged.

use super::record::{HEADER_LEN, Kind};
use super::*;
use crate::crc::crc32c_append;
use crate::nf::{ConfigError, Environment, Gauge, InstallError, PortId, Shard, Verdict};
use crate::packet::PacketBuf;
use crate::table::{AdoptError, ArchiveError, ItemHeader, Register, SegmentedTable, StateItem};
use crate::time::Instant;
use proptest::prelude::*;
use std::ops::Range;

/// State without a function.
struct State {
    small: SegmentedTable<u32, u16>,
    large: SegmentedTable<u64, [u64; 4]>,
    clock: Register<u64>,
}

impl State {
    fn empty() -> Self {
        Self {
            small: SegmentedTable::with_capacity("small", 100, 1),
            large: SegmentedTable::with_capacity("large", 10_000, 2),
            clock: Register::new("clock", 0),
        }
    }

    fn with(small: u32, large: u64) -> Self {
        let mut state = Self::empty();
        (0..small).for_each(|key| assert_eq!(state.small.insert(key, key as u16), Ok(None)));
        (0..large).for_each(|key| assert_eq!(state.large.insert(key, [key; 4]), Ok(None)));
        state.clock.set(7);
        state
    }
}

impl NetworkFunction for State {
    const KIND: &'static str = "state";
    const SCHEMA: u64 = 1;
    const PORTS: &'static [&'static str] = &[];
    const DROP_REASONS: &'static [&'static str] = &["any"];
    type Config = ();

    fn new(_: &(), _: Shard, _: u64) -> Result<Self, ConfigError> {
        Ok(Self::empty())
    }
    fn process<P: PacketBuf, E: Environment>(&mut self, _: &mut E, _: PortId, _: &mut P) -> Verdict {
        Verdict::Drop(0)
    }
    fn tick<E: Environment>(&mut self, _: &mut E) {}
    fn install(&mut self, statelet_type: u16, _: &[u8]) -> Result<(), InstallError> {
        Err(InstallError::UnknownType(statelet_type))
    }
    fn take_over(&mut self, _: Instant) {}
    fn for_each_state(&mut self, f: &mut dyn FnMut(&mut dyn StateItem)) {
        f(&mut self.small);
        f(&mut self.large);
        f(&mut self.clock);
    }
    fn gauges(&self) -> Vec<Gauge> {
        Vec::new()
    }
}

fn write(state: &mut State, filler_bytes: u64) -> Vec<u8> {
    let mut writer = SnapshotWriter::new(freeze(state), filler_bytes);
    let mut stream = Vec::new();
    while writer.write_next(&mut stream).unwrap() {}
    assert!(!writer.write_next(&mut stream).unwrap(), "nothing follows the closing record");
    stream
}

fn read(stream: &[u8]) -> Result<State, SnapshotError> {
    let mut state = State::empty();
    let mut reader = SnapshotReader::new();
    reader.receive(stream, &mut state)?;
    reader.finish().map(|_| state)
}

/// Where the records of a stream are.
fn records(stream: &[u8]) -> Vec<Range<usize>> {
    let mut records = Vec::new();
    let mut begin = 0;
    while begin < stream.len() {
        let length = u32::from_be_bytes(stream[begin + 8..begin + 12].try_into().unwrap());
        records.push(begin..begin + HEADER_LEN + length as usize);
        begin = records[records.len() - 1].end;
    }
    records
}

/// Makes the checksum of the record at the begin of `bytes` right again.
fn repair(bytes: &mut [u8]) {
    let length = u32::from_be_bytes(bytes[8..12].try_into().unwrap()) as usize;
    let crc = crc32c_append(crc32c_append(0, &bytes[..12]), &bytes[16..16 + length]);
    bytes[12..16].copy_from_slice(&crc.to_be_bytes());
}

/// A small snapshot: records 0 and 1 are "small", 2 and 3 "large", 4 and 5 "clock", 6 filler, 7 closing.
fn sample() -> (Vec<u8>, Vec<Range<usize>>) {
    let stream = write(&mut State::with(2, 1), 20);
    let records = records(&stream);
    assert_eq!(records.len(), 8);
    (stream, records)
}

/// The sample with `change` made to one of its records, whose checksum is right all the same.
fn changed(record: usize, change: impl Fn(&mut [u8])) -> SnapshotError {
    let (mut stream, records) = sample();
    let record = &mut stream[records[record].clone()];
    change(record);
    repair(record);
    read(&stream).map(|_| ()).unwrap_err()
}

/// The sample with its records in another order.
fn reordered(order: &[usize]) -> Result<State, SnapshotError> {
    let (stream, records) = sample();
    read(&order.iter().flat_map(|record| stream[records[*record].clone()].iter().copied()).collect::<Vec<_>>())
}

#[test]
fn snapshot_round_trips() {
    for (small, large) in [(0, 0), (1, 0), (100, 10_000)] {
        let mut source = State::with(small, large);
        let stream = write(&mut source, 0);
        let mut destination = read(&stream).unwrap();
        assert_eq!(digest(&freeze(&mut destination)), digest(&freeze(&mut source)));
        assert_eq!(destination.large.len() as u64, large);
        assert_eq!(destination.clock.get(), 7);
    }
}

#[test]
fn snapshot_is_of_the_moment_of_the_freeze() {
    let mut source = State::with(100, 5000);
    let items = freeze(&mut source);
    let before = digest(&items);
    let mut writer = SnapshotWriter::new(items, 0);
    let mut stream = Vec::new();
    for key in 0..5000 {
        source.large.remove(&key);
        source.clock.set(key);
        writer.write_next(&mut stream).unwrap();
    }
    assert!(!writer.write_next(&mut stream).unwrap());
    assert_eq!(digest(&freeze(&mut read(&stream).unwrap())), before);
}

#[test]
fn empty_segments_do_not_travel() {
    let mut source = State::with(0, 1000);
    (1..1000).for_each(|key| assert!(source.large.remove(&key).is_some()));
    let stream = write(&mut source, 0);
    // Headers of three items, chunks of two, closing record.
    assert_eq!(records(&stream).len(), 6);
    assert!(stream.len() < 500, "{} bytes", stream.len());
}

#[test]
fn totals_agree_at_both_ends() {
    let mut source = State::with(100, 3000);
    let mut writer = SnapshotWriter::new(freeze(&mut source), 200_000);
    let mut stream = Vec::new();
    while writer.write_next(&mut stream).unwrap() {}
    let mut reader = SnapshotReader::new();
    reader.receive(&stream, &mut State::empty()).unwrap();
    assert!(reader.is_complete());
    assert_eq!(reader.finish(), Ok(*writer.totals()));
    let totals = writer.totals();
    assert_eq!((totals.items, totals.entries, totals.filler_bytes), (3, 3101, 200_000));
    let chunk_records = records(&stream).into_iter().filter(|record| stream[record.start] == 2);
    let (count, bytes) = chunk_records.fold((0, 0), |(n, sum), record| (n + 1, sum + record.len() - HEADER_LEN));
    assert_eq!((totals.chunks, totals.archive_bytes), (count, bytes as u64));
}

#[test]
fn digest_tells_items_apart() {
    let reference = digest(&freeze(&mut State::with(3, 3)));
    assert_eq!(digest(&freeze(&mut State::with(3, 3))), reference);
    assert_ne!(digest(&freeze(&mut State::with(3, 2))), reference);
    assert_ne!(digest(&freeze(&mut State::with(2, 3))), reference);
    let mut items = freeze(&mut State::with(3, 3));
    items.swap(0, 1);
    assert_ne!(digest(&items), reference);
}

#[test]
fn item_header_has_these_bytes() {
    let (stream, records) = sample();
    let header = freeze(&mut State::with(2, 1))[0].header();
    let mut expected = vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 41];
    expected.extend_from_slice(&stream[12..16]);
    expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0, 1]);
    expected.extend_from_slice(&header.layout.to_be_bytes());
    expected.extend_from_slice(&[0, 0, 0, 1, b's', b'm', b'a', b'l', b'l']);
    assert_eq!(stream[records[0].clone()], expected);
}

#[test]
fn every_truncation_is_noticed() {
    let (stream, _) = sample();
    for len in 0..stream.len() {
        assert!(matches!(read(&stream[..len]), Err(SnapshotError::Unfinished { .. })), "cut to {len} bytes");
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let (stream, _) = sample();
    for at in 0..stream.len() {
        for bit in 0..8 {
            let mut damaged = stream.clone();
            damaged[at] ^= 1 << bit;
            assert!(read(&damaged).is_err(), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn damaged_records_are_refused_by_name() {
    let flip = |record: usize, at: usize| {
        let (mut stream, records) = sample();
        stream[records[record].start + at] ^= 0x40;
        read(&stream).map(|_| ()).unwrap_err()
    };
    for record in 0..8 {
        assert_eq!(flip(record, 1), SnapshotError::Reserved);
        assert!(matches!(flip(record, 12), SnapshotError::Checksum { .. }));
        assert!(matches!(flip(record, 16), SnapshotError::Checksum { .. }));
        assert!(matches!(flip(record, 0), SnapshotError::Kind(kind) if kind > 0x40));
    }
}

#[test]
fn lengths_are_bounded_before_the_body_arrives() {
    for (kind, longest) in [(1, 100), (2, CHUNK_LEN_MAX), (3, 64 << 10), (4, 32)] {
        for length in [0, longest as u32 + 1, u32::MAX] {
            let mut header = [0; HEADER_LEN];
            header[0] = kind;
            header[8..12].copy_from_slice(&length.to_be_bytes());
            let mut reader = SnapshotReader::new();
            let error = reader.receive(&header, &mut State::empty()).unwrap_err();
            assert_eq!(error, SnapshotError::Length(length), "kind {kind}");
        }
    }
}

#[test]
fn reserved_fields_must_be_zero() {
    for (record, field) in [(0, 7), (4, 4), (6, 3), (6, 7), (7, 5)] {
        assert_eq!(changed(record, |bytes| bytes[field] = 1), SnapshotError::Reserved, "{record} {field}");
    }
}

#[test]
fn item_headers_must_fit() {
    let adopt = |item, error| SnapshotError::Adopt { item, error };
    let header = |reason| adopt(0, AdoptError::Header(reason));
    assert_eq!(changed(0, |bytes| bytes[3] = 1), SnapshotError::Order(1));
    assert_eq!(changed(2, |bytes| bytes[3] = 0), SnapshotError::Order(0));
    assert_eq!(changed(0, |bytes| bytes[16 + 36] = b'S'), SnapshotError::UnknownItem(0));
    assert!(matches!(changed(0, |bytes| bytes[16] = 1), SnapshotError::Adopt { item: 0, .. }));
    assert_eq!(changed(0, |bytes| bytes[16 + 8] = 1), header("its capacity is another"));
    assert_eq!(changed(0, |bytes| bytes[16 + 24] ^= 1), header("keys and values have another layout"));
    assert_eq!(
        changed(0, |bytes| bytes[16 + 35] = 9),
        header("its number of segments does not follow from its capacity")
    );
    // Another seed puts entries elsewhere, unless there is but one segment.
    let moved = changed(2, |bytes| bytes[16 + 16] ^= 1);
    assert!(matches!(moved, SnapshotError::Adopt { item: 1, error: AdoptError::Inconsistent(_) }), "{moved}");
    // One entry less than promised, and one more.
    assert_eq!(changed(0, |b| b[16 + 7] = 3), adopt(0, AdoptError::Incomplete { have: 2, want: 3 }));
    assert_eq!(changed(0, |b| b[16 + 7] = 1), adopt(0, AdoptError::Incomplete { have: 2, want: 1 }));
}

#[test]
fn chunks_must_fit() {
    assert_eq!(changed(1, |bytes| bytes[3] = 1), SnapshotError::Order(1));
    assert_eq!(changed(1, |bytes| bytes[7] = 1), SnapshotError::Adopt { item: 0, error: AdoptError::Segment(1) });
    let at_end = changed(1, |bytes| bytes.iter_mut().rev().take(8).for_each(|byte| *byte = 0xff));
    assert_eq!(at_end, SnapshotError::Adopt { item: 0, error: AdoptError::Archive(0) });
}

#[test]
fn closing_totals_must_agree() {
    assert_eq!(changed(7, |bytes| bytes[3] = 2), SnapshotError::Totals);
    for field in 0..4 {
        assert_eq!(changed(7, |bytes| bytes[16 + 8 * field + 7] ^= 1), SnapshotError::Totals, "field {field}");
    }
}

#[test]
fn records_must_be_in_order() {
    let error = |order: &[usize]| reordered(order).map(|_| ()).unwrap_err();
    assert!(reordered(&[0, 1, 2, 3, 4, 5, 6, 7]).is_ok());
    assert!(reordered(&[6, 0, 1, 2, 3, 4, 5, 7]).is_ok(), "filler may be anywhere");
    assert_eq!(error(&[1]), SnapshotError::Order(0));
    assert_eq!(error(&[2]), SnapshotError::Order(1));
    assert_eq!(error(&[0, 0]), SnapshotError::Order(0));
    assert_eq!(error(&[0, 3]), SnapshotError::Order(1));
    assert_eq!(error(&[0, 1, 2, 1]), SnapshotError::Order(0));
    assert_eq!(error(&[0, 1, 1]), SnapshotError::Adopt { item: 0, error: AdoptError::Segment(0) });
    let incomplete = AdoptError::Incomplete { have: 0, want: 2 };
    assert_eq!(error(&[0, 2]), SnapshotError::Adopt { item: 0, error: incomplete });
    assert_eq!(error(&[0, 1, 2, 3, 6, 7]), SnapshotError::Totals);
    assert_eq!(error(&[0, 1, 2, 3, 4, 5, 7]), SnapshotError::Totals);
    assert_eq!(error(&[0, 1, 2, 3, 4, 5, 6, 7, 7]), SnapshotError::AfterClosing);
}

#[test]
fn failed_reader_stays_failed() {
    let (stream, _) = sample();
    let mut reader = SnapshotReader::new();
    let mut state = State::empty();
    assert_eq!(reader.receive(&[9; 16], &mut state), Err(SnapshotError::Kind(9)));
    assert_eq!(reader.receive(&stream, &mut state), Err(SnapshotError::Kind(9)));
    assert_eq!(reader.finish(), Err(SnapshotError::Kind(9)));
    assert!(!reader.is_complete());
}

/// An item whose archives are `0` bytes long.
struct Oversized(usize);

impl FrozenItem for Oversized {
    fn name(&self) -> &'static str {
        "oversized"
    }
    fn header(&self) -> ItemHeader {
        ItemHeader { segments: 1, entries: 1, capacity: 1, hash_seed: 0, layout: 0 }
    }
    fn capacity_bytes(&self) -> u64 {
        0
    }
    fn archive_segment(&self, _: u32) -> Result<Option<rkyv::util::AlignedVec>, ArchiveError> {
        let mut archive = rkyv::util::AlignedVec::new();
        archive.resize(self.0, 0);
        Ok(Some(archive))
    }
    fn digest(&self) -> u128 {
        0
    }
}

#[test]
fn archive_that_does_not_fit_the_format_is_an_error_of_the_writer() {
    for (length, fits) in [(CHUNK_LEN_MAX, true), (CHUNK_LEN_MAX + 1, false), (0, false)] {
        let mut writer = SnapshotWriter::new(vec![Box::new(Oversized(length))], 0);
        let mut out = Vec::new();
        assert_eq!(writer.write_next(&mut out), Ok(true));
        let expected = if fits { Ok(true) } else { Err(WriteError::TooLong(length)) };
        assert_eq!(writer.write_next(&mut out), expected);
    }
}

#[test]
fn record_that_does_not_fit_leaves_no_trace() {
    let mut out = vec![5];
    let written = record::write(&mut out, Kind::Closing, 0, 0, |body| body.extend_from_slice(&[1; 33]));
    assert_eq!((written, out), (Err(33), vec![5]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn snapshot_arrives_in_any_pieces(
        small in 0u32..100,
        large in 0u64..2000,
        filler in 0u64..150_000,
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut source = State::with(small, large);
        let stream = write(&mut source, filler);
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.index(stream.len())).collect();
        cuts.sort_unstable();
        cuts.push(stream.len());
        let mut destination = State::empty();
        let mut reader = SnapshotReader::new();
        let mut begin = 0;
        for cut in cuts {
            reader.receive(&stream[begin..cut], &mut destination)?;
            begin = cut;
        }
        prop_assert_eq!(reader.finish()?.filler_bytes, filler);
        prop_assert_eq!(digest(&freeze(&mut destination)), digest(&freeze(&mut source)));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&bytes);
    }

    /// Records with right checksums around arbitrary content, so that it gets as far as it can.
    #[test]
    fn arbitrary_records_never_panic(
        changes in proptest::collection::vec((0usize..8, any::<prop::sample::Index>(), any::<u8>()), 1..6)
    ) {
        let (mut stream, records) = sample();
        for (record, at, byte) in changes {
            let record = &mut stream[records[record].clone()];
            let at = at.index(record.len());
            // Lengths stay, or the records after it would not be found.
            if !(8..12).contains(&at) {
                record[at] = byte;
                repair(record);
            }
        }
        let _ = read(&stream);
    }
}

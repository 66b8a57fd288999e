//! How tables travel, and one test per way a header or segment can be wrong.

use super::*;

/// All segments that travel.
fn archives(frozen: &dyn FrozenItem) -> Vec<(u32, rkyv::util::AlignedVec)> {
    (0..frozen.header().segments).filter_map(|index| Some((index, frozen.archive_segment(index).unwrap()?))).collect()
}

pub(super) fn adopt<T: StateItem>(table: &mut T, frozen: &dyn FrozenItem) -> Result<(), AdoptError> {
    table.begin_adopt(&frozen.header())?;
    for (index, archive) in archives(frozen) {
        table.adopt_segment(index, &archive)?;
    }
    table.finish_adopt()
}

pub(super) fn table_travels<T: Table<u32, Value>>() {
    for entries in [0, 1, 100, 2000] {
        let mut source: T = table_with(2000, 0..entries);
        let frozen = source.freeze();
        let mut destination = T::with_capacity("t", 2000, 99);
        // What the destination had before is gone.
        destination.insert(1_000_000, value(1)).unwrap();
        adopt(&mut destination, &*frozen).unwrap();
        assert_eq!(destination.freeze().digest(), frozen.digest());
        assert_eq!(destination.len(), entries as usize);
        // It goes on living like any other.
        for key in 0..2000 {
            let expected = (key < entries).then(|| value(key));
            assert_eq!(destination.insert(key, value(key + 1)), Ok(expected));
        }
        assert_eq!(destination.insert(5000, value(1)), Err(Full));
        for key in 0..2000 {
            assert_eq!(destination.remove(&key), Some(value(key + 1)));
        }
        assert!(destination.is_empty());
    }
}

pub(super) fn frozen_table_travels_as_it_was<T: Table<u32, Value>>() {
    let mut source: T = table_with(2000, 0..1500);
    let frozen = source.freeze();
    let before = frozen.digest();
    for key in 0..1500 {
        if key % 2 == 0 {
            source.remove(&key);
        } else {
            source.insert(key, value(0)).unwrap();
        }
    }
    let mut destination = T::with_capacity("t", 2000, 99);
    adopt(&mut destination, &*frozen).unwrap();
    assert_eq!(destination.freeze().digest(), before);
}

pub(super) fn segment_needs_a_header_first<T: Table<u32, Value>>() {
    let mut source: T = table_with(2000, 0..1000);
    let (index, archive) = archives(&*source.freeze()).remove(0);
    let mut table = T::with_capacity("t", 2000, 1);
    assert_eq!(table.adopt_segment(index, &archive), Err(AdoptError::Segment(index)));
    assert!(matches!(table.finish_adopt(), Err(AdoptError::Header(_))));
}

pub(super) fn header_must_fit<T: Table<u32, Value>>() {
    let mut source: T = table_with(2000, 0..1000);
    let right = source.freeze().header();
    let mut table = T::with_capacity("t", 2000, 1);
    let wrong = [
        ItemHeader { layout: right.layout ^ 1, ..right },
        ItemHeader { capacity: right.capacity + 1, ..right },
        ItemHeader { capacity: u64::MAX, segments: u32::MAX, entries: u64::MAX, ..right },
        ItemHeader { segments: right.segments + 1, ..right },
        ItemHeader { segments: 0, ..right },
        ItemHeader { entries: right.capacity + 1, ..right },
    ];
    for header in wrong {
        assert!(matches!(table.begin_adopt(&header), Err(AdoptError::Header(_))), "{header:?}");
    }
    table.begin_adopt(&right).unwrap();
}

pub(super) fn segment_must_be_new_and_in_range<T: Table<u32, Value>>() {
    let mut source: T = table_with(2000, 0..1000);
    let frozen = source.freeze();
    let (index, archive) = archives(&*frozen).remove(0);
    let mut table = T::with_capacity("t", 2000, 1);
    table.begin_adopt(&frozen.header()).unwrap();
    for beyond in [frozen.header().segments, u32::MAX] {
        assert_eq!(table.adopt_segment(beyond, &archive), Err(AdoptError::Segment(beyond)));
    }
    table.adopt_segment(index, &archive).unwrap();
    assert_eq!(table.adopt_segment(index, &archive), Err(AdoptError::Segment(index)));
}

pub(super) fn archive_may_lie_anywhere_in_memory<T: Table<u32, Value>>() {
    let mut source: T = table_with(2000, 0..100);
    let frozen = source.freeze();
    for offset in 0..16 {
        let mut table = T::with_capacity("t", 2000, 1);
        table.begin_adopt(&frozen.header()).unwrap();
        for (index, archive) in archives(&*frozen) {
            let mut shifted = rkyv::util::AlignedVec::<16>::new();
            shifted.extend_from_slice(&[0; 16][..offset]);
            shifted.extend_from_slice(&archive);
            table.adopt_segment(index, &shifted[offset..]).unwrap();
        }
        table.finish_adopt().unwrap();
        assert_eq!(table.freeze().digest(), frozen.digest());
    }
}

pub(super) fn damaged_archive_is_refused_or_harmless<T: Table<u32, Value>>() {
    let mut source: T = table_with(100, 0..5);
    let frozen = source.freeze();
    let (index, archive) = archives(&*frozen).remove(0);
    let attempt = |bytes: &[u8]| {
        let mut table = T::with_capacity("t", 100, 1);
        table.begin_adopt(&frozen.header()).unwrap();
        table.adopt_segment(index, bytes).and_then(|()| table.finish_adopt()).map(|()| table)
    };
    for len in 0..archive.len() {
        assert!(attempt(&archive[..len]).is_err(), "cut to {len} bytes");
    }
    for at in 0..archive.len() {
        for bit in 0..8 {
            let mut damaged = archive.clone();
            damaged[at] ^= 1 << bit;
            // Damage to a value is for the stream's checksum to find; anything else must not get through.
            if let Ok(mut table) = attempt(&damaged) {
                let contents = contents(&table.freeze_table());
                assert_eq!(contents.len(), 5);
                assert!(contents.iter().all(|(key, value)| table.get(key) == Some(*value)));
            }
        }
    }
}

pub(super) fn entries_must_add_up<T: Table<u32, Value>>() {
    let mut source: T = table_with(2000, 0..1000);
    let frozen = source.freeze();
    let header = frozen.header();
    let attempt = |entries, skipped| {
        let mut table = T::with_capacity("t", 2000, 1);
        table.begin_adopt(&ItemHeader { entries, ..header })?;
        for (index, archive) in archives(&*frozen).into_iter().skip(skipped) {
            table.adopt_segment(index, &archive)?;
        }
        table.finish_adopt()
    };
    assert_eq!(attempt(1000, 0), Ok(()));
    assert!(matches!(attempt(999, 0), Err(AdoptError::Incomplete { want: 999, .. })));
    assert_eq!(attempt(1001, 0), Err(AdoptError::Incomplete { have: 1000, want: 1001 }));
    assert!(matches!(attempt(1000, 1), Err(AdoptError::Incomplete { want: 1000, .. })));
    assert_eq!(attempt(0, usize::MAX), Ok(()));
}

pub(super) fn slots_must_ascend<T: Table<u32, Value>>() {
    let mut source: T = table_with(100, 0..2);
    let frozen = source.freeze();
    let attempt = |slots: &[u16], keys: &[u32], values: &[Value]| {
        let archive = archive::SegmentArchive { slots: slots.to_vec(), keys: keys.to_vec(), values: values.to_vec() };
        let mut table = T::with_capacity("t", 100, 1);
        table.begin_adopt(&frozen.header()).unwrap();
        table.adopt_segment(0, &rkyv::to_bytes::<rkyv::rancor::Failure>(&archive).unwrap())
    };
    let wrong = Err(AdoptError::Inconsistent(0));
    let (k, v) = ([3, 4], [value(3), value(4)]);
    assert_eq!(attempt(&[5, 6], &k, &v), Ok(()));
    assert_eq!(attempt(&[6, 5], &k, &v), wrong);
    assert_eq!(attempt(&[5, 5], &k, &v), wrong);
    assert_eq!(attempt(&[5, 512], &k, &v), wrong);
    assert_eq!(attempt(&[5, u16::MAX], &k, &v), wrong);
    assert_eq!(attempt(&[5], &k, &v), wrong);
    assert_eq!(attempt(&[5, 6], &k[..1], &v), wrong);
    assert_eq!(attempt(&[5, 6], &k, &v[..1]), wrong);
    assert_eq!(attempt(&[], &[], &[]), wrong);
    assert_eq!(attempt(&[5, 6], &[3, 3], &v), wrong);
}

//! What is true of any state a NAT can come to, however it did.

use crate::traffic;
use slim_core::snapshot::{self, SnapshotReader, SnapshotWriter};
use slim_nat::Nat;

/// Makes the state of `nat` the state of another, by way of a snapshot.
pub fn copy(nat: &mut Nat) -> Nat {
    let mut copy = traffic::nat(99);
    let mut reader = SnapshotReader::new();
    for record in records(nat) {
        reader.receive(&record, &mut copy).expect("a snapshot of valid state can be installed");
    }
    reader.finish().expect("a complete snapshot");
    copy
}

/// The records of a snapshot, one by one.
pub fn records(nat: &mut Nat) -> Vec<Vec<u8>> {
    let mut writer = SnapshotWriter::new(snapshot::freeze(nat), 100);
    let mut records = Vec::new();
    let mut record = Vec::new();
    while writer.write_next(&mut record).expect("state can be written") {
        records.push(core::mem::take(&mut record));
    }
    records
}

/// The state can be moved on, and is the same there.
///
/// # Panics
/// If not.
pub fn expect_to_travel(nat: &mut Nat) {
    let mut copy = copy(nat);
    let [here, there] = [nat, &mut copy].map(|nat| snapshot::digest(&snapshot::freeze(nat)));
    assert_eq!(here, there, "the state changed on its way");
}

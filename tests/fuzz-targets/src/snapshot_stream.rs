//! The snapshot stream into a real NAT: valid snapshots, damaged on purpose with their checksums made right again, so
//! that what the checksums would hide is reached; and arbitrary bytes.

use crate::input::Input;
use crate::{state, traffic};
use slim_core::nf::NetworkFunction;
use slim_core::nf::testing::TestEnvironment;
use slim_core::packet::OwnedPacket;
use slim_core::snapshot::{SnapshotError, SnapshotReader};
use slim_core::time::{Duration, Instant};
use slim_nat::Nat;
use std::sync::OnceLock;

/// Where a record's checksum is, and its body.
const CRC_AT: usize = 12;
const BODY_AT: usize = 16;

/// The records of a snapshot of a NAT that has seen some traffic.
fn sample() -> &'static [Vec<u8>] {
    static SAMPLE: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let mut nat = traffic::nat(1);
        let mut env = TestEnvironment::without_updates(Instant::from_millis(5));
        // Enough different bytes to bring about ARP entries, and sessions of both protocols.
        let bytes: Vec<u8> = (0..4000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 15) as u8).collect();
        for step in traffic::steps(&mut Input::new(&bytes), 400) {
            env.advance(step.pause.min(Duration::from_secs(2)));
            if let Some((port, frame)) = step.packet {
                nat.process(&mut env, port, &mut OwnedPacket::new(frame));
            }
        }
        state::records(&mut nat)
    })
}

/// CRC-32C, bit by bit: what a peer that lies would compute itself.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(byte), step))
}

/// Makes a record's length and checksum fit its body.
fn mend(record: &mut [u8], length_too: bool) {
    if record.len() < BODY_AT {
        return;
    }
    if length_too {
        let length = (record.len() - BODY_AT) as u32;
        record[8..CRC_AT].copy_from_slice(&length.to_be_bytes());
    }
    let crc = crc32c(record[..CRC_AT].iter().chain(&record[BODY_AT..]).copied());
    record[CRC_AT..BODY_AT].copy_from_slice(&crc.to_be_bytes());
}

/// Changes one record.
fn change(record: &mut Vec<u8>, input: &mut Input<'_>) {
    if record.is_empty() {
        return;
    }
    let at = usize::from(input.u16()) % record.len();
    match input.below(6) {
        0 => record[at] = input.byte(),
        1 => record[at] ^= 1 << input.below(8),
        2 => {
            let bytes = input.array::<8>();
            for (to, from) in record[at..].iter_mut().zip(bytes) {
                *to = from;
            }
        }
        3 => record.truncate(at.max(1)),
        4 => record.extend_from_slice(input.bytes(8)),
        _ => {
            // Another slot's content: the place that its hash does not lead to.
            let from = usize::from(input.u16()) % record.len();
            let len = input.below(64).min(record.len() - from.max(at));
            record.copy_within(from..from + len, at);
        }
    }
}

/// A snapshot with some mistakes.
fn mutated(input: &mut Input<'_>) -> Vec<u8> {
    let mut records = sample().to_vec();
    for _ in 0..input.below(6) {
        let index = input.below(records.len());
        match input.below(12) {
            0 => drop(records.remove(index)),
            1 => records.insert(index, records[index].clone()),
            2 => {
                let other = input.below(records.len());
                records.swap(index, other);
            }
            3 => {
                let length = input.below(200);
                let bytes = input.bytes(length).to_vec();
                records.insert(index, bytes);
            }
            _ => {
                change(&mut records[index], input);
                if !input.one_in(16) {
                    mend(&mut records[index], input.flag());
                }
            }
        }
        if records.is_empty() {
            break;
        }
    }
    records.concat()
}

/// What a NAT makes of a stream that arrives in these pieces.
fn receive(pieces: &[&[u8]]) -> (Nat, Result<(), SnapshotError>) {
    let mut nat = traffic::nat(2);
    let mut reader = SnapshotReader::new();
    let received = pieces.iter().try_for_each(|piece| reader.receive(piece, &mut nat));
    let outcome = received.and_then(|()| reader.finish().map(|_| ()));
    (nat, outcome)
}

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let raw = input.one_in(8);
    let mut cuts = Input::new(input.bytes(16));
    let stream = if raw { input.rest().to_vec() } else { mutated(&mut input) };
    let (_, whole) = receive(&[&stream]);
    let (mut nat, outcome) = receive(&cuts.cut(&stream));
    assert_eq!(outcome, whole, "the pieces matter");
    if outcome.is_err() {
        return;
    }
    // What has been accepted is a state like any other: it can be used, and moved on.
    state::expect_to_travel(&mut nat);
    nat.take_over(Instant::from_millis(77));
    let mut env = TestEnvironment::new(Instant::from_millis(77));
    for step in traffic::steps(&mut input, 50) {
        env.advance(step.pause);
        nat.tick(&mut env);
        if let Some((port, frame)) = step.packet {
            nat.process(&mut env, port, &mut OwnedPacket::new(frame));
        }
    }
    let mut nat_again = traffic::nat(3);
    for statelet in env.take_statelets() {
        // It may contradict the empty state; it must not do harm.
        let _ = nat_again.install(statelet.statelet_type, &statelet.value);
    }
    state::expect_to_travel(&mut nat);
}

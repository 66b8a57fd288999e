//! The statelet stream: any bytes, compressed or not, cut anywhere; and well-formed ones with their end record.

use crate::input::Input;
use slim_core::statelet::{
    Compressor, Decoder, End, Intake, IntakeError, Record, TYPE_ALIGN, TYPE_DROPS, TYPE_PACKET, TYPE_RESERVED, Tally,
};

/// The statelets a stream has, whole and one behind the other, their number, and how it ended.
type Outcome = (Vec<u8>, u64, Result<End, IntakeError>);

fn take_in(compressed: bool, pieces: &[&[u8]]) -> Outcome {
    let mut intake = Intake::new(compressed);
    let (mut whole, mut records) = (Vec::new(), 0);
    for piece in pieces {
        let mut piece = *piece;
        loop {
            let before = whole.len();
            match intake.receive(&mut piece, &mut whole) {
                Ok(Some(more)) => records += more,
                Ok(None) => break,
                // What came before the damage in the same call has been counted, though not returned.
                Err(error) => return (whole, intake.totals().records, Err(error)),
            }
            assert!(whole.len() - before < 70_000, "so much at once");
        }
        assert!(piece.is_empty(), "the intake left bytes behind");
    }
    assert_eq!(intake.totals().records, records);
    (whole, records, intake.finish())
}

/// Checks that `bytes` are `records` statelets, one behind the other.
fn check_whole(bytes: &[u8], records: u64) {
    let (mut decoder, mut input, mut found) = (Decoder::new(), bytes, 0);
    while let Some(record) = decoder.decode(&mut input).expect("it was decoded before") {
        let Record::Statelet { statelet_type, .. } = record else { panic!("{record:?} in st_q_in") };
        assert!(statelet_type < TYPE_RESERVED || matches!(statelet_type, TYPE_PACKET | TYPE_ALIGN | TYPE_DROPS));
        found += 1;
    }
    assert_eq!(found, records);
    assert_eq!(decoder.tally().bytes(), bytes.len() as u64, "a statelet is not whole");
}

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (well_formed, compressed) = (input.flag(), input.flag());
    let mut cuts = Input::new(input.bytes(32));
    let stream = input.rest();

    let (whole, records, end) = take_in(compressed, &[stream]);
    let cut = take_in(compressed, &cuts.cut(stream));
    if compressed {
        // Damage may be found a little earlier or later.
        assert_eq!(cut.2.is_ok(), end.is_ok());
        assert!(whole.starts_with(&cut.0) || cut.0.starts_with(&whole));
    } else {
        assert_eq!(cut, (whole.clone(), records, end), "the pieces matter");
        assert!(stream.starts_with(&whole), "what was decoded is not what arrived");
    }
    check_whole(&whole, records);

    if well_formed {
        let mut tally = Tally::new();
        tally.add_records(records, &whole);
        let plain = [&whole[..], &tally.end().encode()].concat();
        let stream = if compressed {
            let (mut compressor, mut out) = (Compressor::new(), Vec::new());
            for piece in cuts.cut(&plain) {
                compressor.compress(piece, &mut out).expect("anything can be compressed");
            }
            out
        } else {
            plain
        };
        assert_eq!(take_in(compressed, &cuts.cut(&stream)), (whole, records, Ok(tally.end())));
    }
}

//! The statelet stream: any bytes, cut anywhere; and well-formed ones with their end record.

use crate::input::Input;
use slim_core::statelet::{DecodeError, Decoder, Record, TYPE_RESERVED, Tally, encode};

type Statelets = Vec<(u16, Vec<u8>)>;

/// The statelets a stream has, and how it ended.
fn decode(pieces: &[&[u8]]) -> (Statelets, Result<u64, DecodeError>) {
    let mut decoder = Decoder::new();
    let mut statelets = Vec::new();
    for piece in pieces {
        let mut piece = *piece;
        loop {
            match decoder.decode(&mut piece) {
                Ok(Some(Record::Statelet { statelet_type, value })) => statelets.push((statelet_type, value.to_vec())),
                Ok(Some(Record::End(_))) => {}
                Ok(None) => break,
                Err(error) => return (statelets, Err(error)),
            }
        }
        assert!(piece.is_empty(), "the decoder left bytes behind");
    }
    let end = decoder.finish().map(|end| end.records);
    (statelets, end)
}

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let well_formed = input.flag();
    let mut cuts = Input::new(input.bytes(32));
    let stream = input.rest();

    let whole = decode(&[stream]);
    assert_eq!(whole, decode(&cuts.cut(stream)), "the pieces matter");
    let mut again = Vec::new();
    for (statelet_type, value) in &whole.0 {
        encode(*statelet_type, value, &mut again).expect("it fitted before");
    }
    assert!(stream.starts_with(&again), "what was decoded is not what arrived");

    if well_formed {
        let mut tally = Tally::new();
        tally.add_records(whole.0.len() as u64, &again);
        again.extend_from_slice(&tally.end().encode());
        let (statelets, end) = decode(&cuts.cut(&again));
        assert_eq!(end, Ok(whole.0.len() as u64));
        assert_eq!(statelets, whole.0);
        assert!(statelets.iter().all(|(statelet_type, _)| *statelet_type < TYPE_RESERVED));
    }
}

//! The statelet thread of the destination (T2): from the statelet stream to `st_q_in`.

use super::incoming::TakenOver;
use super::session::Session;
use super::st_q_in::{Ended, PushError, StQIn};
use slim_core::protocol::FailureCode;
use slim_core::protocol::control::StateletTotals;
use slim_core::protocol::stream::{StreamRole, encode_taken_over};
use slim_core::statelet::{DecodeError, Decoder, Record, encode};
use slim_core::vei::StreamEvent;
use slim_trust::Channel;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::mpsc::Receiver;
use std::time::Duration;

const READ_MAX: usize = 32 << 10;

/// How long the source has to close its end after the acknowledgement.
const LINGER: Duration = Duration::from_secs(5);

/// Why the thread ends before the end record.
#[derive(Debug, thiserror::Error)]
enum Ending {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Decode(#[from] DecodeError),
    #[error("{0}")]
    Queue(#[from] PushError),
}

/// Reads statelets until the end record, then waits for the word that this instance has taken over and passes it on.
pub fn run<F: Send + 'static>(
    session: &Session<F>,
    mut stream: Channel,
    st_q_in: &StQIn,
    acknowledge: &Receiver<TakenOver>,
) {
    match read(&mut stream, st_q_in) {
        Ok(()) => {}
        Err(reason) => return fail(session, &reason),
    }
    // No sender any more: the migration is undone.
    if acknowledge.recv().is_err() {
        return;
    }
    if let Err(error) = stream.write_all(&encode_taken_over(session.migration())) {
        log::warn!("migration {}: the source may not know that it is over: {error}", session.migration());
        return;
    }
    // Closing at once might discard the acknowledgement; the source closes when it has it.
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.set_timeouts(Some(LINGER), None);
    let _ = stream.read(&mut [0]);
}

fn read(stream: &mut Channel, st_q_in: &StQIn) -> Result<(), Ending> {
    let mut decoder = Decoder::new();
    let mut buffer = vec![0; READ_MAX];
    // Statelets that have arrived whole; they enter the queue together.
    let mut whole = Vec::with_capacity(READ_MAX);
    loop {
        let len = match stream.read(&mut buffer) {
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        if len == 0 {
            decoder.finish()?;
        }
        let mut input = &buffer[..len];
        let mut records = 0;
        let mut end = None;
        while let Some(record) = decoder.decode(&mut input)? {
            match record {
                Record::Statelet { statelet_type, value } => {
                    // Both came out of a record, so they fit into one.
                    if encode(statelet_type, value, &mut whole).is_ok() {
                        records += 1;
                    }
                }
                Record::End(record) => end = Some(record),
            }
        }
        if !whole.is_empty() {
            st_q_in.push(records, &whole)?;
            whole.clear();
        }
        if let Some(end) = end {
            st_q_in.end(Ended { end, received: decoder.tally().end(), totals: totals(&decoder) });
            return Ok(());
        }
    }
}

fn totals(decoder: &Decoder) -> StateletTotals {
    let tally = decoder.tally();
    StateletTotals { records: tally.records(), value_bytes: tally.value_bytes(), bytes: tally.bytes(), segments: 0 }
}

fn fail<F: Send + 'static>(session: &Session<F>, reason: &Ending) {
    let code = match reason {
        Ending::Io(_) | Ending::Decode(DecodeError::NoEnd(_)) => return session.lost(StreamRole::Statelets, reason),
        Ending::Decode(DecodeError::Count { .. } | DecodeError::Checksum { .. }) => FailureCode::EndMismatch,
        Ending::Decode(DecodeError::Reserved(_) | DecodeError::EndLength(_) | DecodeError::AfterEnd) => {
            FailureCode::StreamCorrupt
        }
        Ending::Queue(PushError::Full) => FailureCode::StateletBacklog,
        Ending::Queue(PushError::Closed) => return,
    };
    session.event(StreamEvent::Rejected(code, reason.to_string().into()));
}

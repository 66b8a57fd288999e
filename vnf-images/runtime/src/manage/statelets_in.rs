//! The statelet thread of the destination (T2): from the statelet stream to `st_q_in`.

use super::incoming::TakenOver;
use super::session::Session;
use super::st_q_in::{Ended, PushError, StQIn};
use slim_core::protocol::FailureCode;
use slim_core::protocol::stream::{StreamRole, encode_taken_over};
use slim_core::statelet::{Intake, IntakeError};
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
    Intake(#[from] IntakeError),
    #[error("{0}")]
    Queue(#[from] PushError),
}

/// Reads statelets until the end record, then waits for the word that this instance has taken over and passes it on.
pub fn run<F: Send + 'static>(
    session: &Session<F>,
    mut stream: Channel,
    mut intake: Intake,
    st_q_in: &StQIn,
    acknowledge: &Receiver<TakenOver>,
) {
    match read(&mut stream, &mut intake, st_q_in) {
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

fn read(stream: &mut Channel, intake: &mut Intake, st_q_in: &StQIn) -> Result<(), Ending> {
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
            intake.finish()?;
        }
        let mut input = &buffer[..len];
        let mut records = 0;
        while let Some(more) = intake.receive(&mut input, &mut whole)? {
            records += more;
            if whole.len() >= READ_MAX {
                st_q_in.push(std::mem::take(&mut records), &whole)?;
                whole.clear();
            }
        }
        if !whole.is_empty() {
            st_q_in.push(records, &whole)?;
            whole.clear();
        }
        if let Some(end) = intake.end() {
            st_q_in.end(Ended { end, received: intake.received(), totals: intake.totals() });
            return Ok(());
        }
    }
}

fn fail<F: Send + 'static>(session: &Session<F>, reason: &Ending) {
    let code = match reason {
        Ending::Io(_) => FailureCode::StreamLost,
        Ending::Intake(error) => error.code(),
        Ending::Queue(PushError::Full) => FailureCode::StateletBacklog,
        Ending::Queue(PushError::Closed) => return,
    };
    match code {
        FailureCode::StreamLost => session.lost(StreamRole::Statelets, reason),
        code => session.event(StreamEvent::Rejected(code, reason.to_string().into())),
    }
}

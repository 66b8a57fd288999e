//! The synchronisation thread of the destination: installs the snapshot, then applies `st_q_in` to it (§IV-B, step 2.4).

use super::inbox::News;
use super::incoming::Apply;
use super::session::Session;
use super::snapshot_out;
use super::st_q_in::{StQIn, Taken};
use slim_core::nf::{InstallError, NetworkFunction};
use slim_core::protocol::FailureCode;
use slim_core::protocol::control::SnapshotTotals;
use slim_core::protocol::stream::StreamRole;
use slim_core::snapshot::{SnapshotError, SnapshotReader};
use slim_core::statelet::{DecodeError, Decoder, Record};
use slim_core::vei::{Installer, StreamEvent};
use slim_trust::Channel;
use std::io::{self, Read};
use std::net::Shutdown;
use std::sync::mpsc::Receiver;

const READ_MAX: usize = 64 << 10;

/// Bytes of statelets applied between two reports.
const APPLY_MAX: usize = 64 << 10;

/// Why the snapshot or a statelet could not become part of the state.
#[derive(Debug, thiserror::Error)]
enum Ending {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Snapshot(#[from] SnapshotError),
    #[error("{0}")]
    Decode(#[from] DecodeError),
    #[error("statelet {number}: {error}")]
    Install { number: u64, error: InstallError },
    #[error("the migration is over")]
    Closed,
}

/// Makes `nf` what the source's is, and gives it to the management thread.
pub fn run<F: NetworkFunction>(
    session: &Session<F>,
    stream: Channel,
    st_q_in: &StQIn,
    mut nf: Box<F>,
    installer: Installer,
    apply: &Receiver<Apply>,
) {
    match install(stream, nf.as_mut()) {
        Ok(totals) => session.event(StreamEvent::SnapshotInstalled(totals)),
        Err(reason) => return fail(session, &reason),
    }
    // No sender any more: the migration is undone.
    if apply.recv().is_err() {
        return;
    }
    if let Err(reason) = synchronise(session, st_q_in, nf, installer) {
        fail(session, &reason);
    }
}

fn install<F: NetworkFunction>(mut stream: Channel, nf: &mut F) -> Result<SnapshotTotals, Ending> {
    let mut reader = SnapshotReader::new();
    let mut buffer = vec![0; READ_MAX];
    let mut bytes = 0;
    while !reader.is_complete() {
        let len = match stream.read(&mut buffer) {
            Ok(0) => return Err(reader.finish().map_or_else(Ending::from, |_| Ending::Closed)),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        reader.receive(&buffer[..len], nf)?;
        bytes += len as u64;
    }
    let _ = stream.shutdown(Shutdown::Both);
    Ok(snapshot_out::totals(reader.totals(), bytes))
}

fn synchronise<F: NetworkFunction>(
    session: &Session<F>,
    st_q_in: &StQIn,
    mut nf: Box<F>,
    mut installer: Installer,
) -> Result<(), Ending> {
    let mut decoder = Decoder::new();
    let mut buffer = Vec::new();
    let mut records = 0;
    let mut left = st_q_in.status().records;
    loop {
        session.event(StreamEvent::Applied { records, left });
        match st_q_in.take(APPLY_MAX, &mut buffer) {
            Taken::Statelets => {
                let before = records;
                let mut input = &buffer[..];
                while let Some(Record::Statelet { statelet_type, value }) = decoder.decode(&mut input)? {
                    records += 1;
                    installer
                        .install(nf.as_mut(), statelet_type, value)
                        .map_err(|error| Ending::Install { number: records, error })?;
                }
                buffer.clear();
                left = st_q_in.applied(records - before);
            }
            Taken::Ended(ended) => {
                // First the network function: with the end, the management thread may want to give it away.
                session.tell(News::Synchronised(installer.finish(nf)));
                let (end, received, totals) = (ended.end, ended.received, ended.totals);
                session.event(StreamEvent::EndReceived { end, received, totals });
                return Ok(());
            }
            Taken::Closed => return Ok(()),
        }
    }
}

fn fail<F: Send + 'static>(session: &Session<F>, reason: &Ending) {
    let code = match reason {
        Ending::Closed => return,
        Ending::Io(_) | Ending::Snapshot(SnapshotError::Unfinished { .. }) => {
            return session.lost(StreamRole::Snapshot, reason);
        }
        Ending::Snapshot(SnapshotError::Checksum { .. }) | Ending::Decode(_) => FailureCode::StreamCorrupt,
        Ending::Snapshot(_) => FailureCode::SnapshotRejected,
        Ending::Install { .. } => FailureCode::StateletRejected,
    };
    session.event(StreamEvent::Rejected(code, reason.to_string().into()));
}

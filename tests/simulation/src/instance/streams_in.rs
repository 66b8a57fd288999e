//! The destination's stream threads, as something that runs now and then instead of waiting.

use super::streams_out::totals;
use super::{News, Turn};
use crate::net::Conn;
use crate::scenario::Reading;
use crate::watch::{self, Watched};
use slim_core::nf::NetworkFunction;
use slim_core::protocol::FailureCode;
use slim_core::protocol::control::StateletTotals;
use slim_core::protocol::stream::StreamRole;
use slim_core::snapshot::{SnapshotError, SnapshotReader};
use slim_core::statelet::{Decoder, End, Intake, IntakeError, Record};
use slim_core::time::Instant;
use slim_core::vei::{Installer, StreamEvent};
use std::collections::VecDeque;

/// The destination's streams of one shard.
pub(crate) struct Incoming<N> {
    pub(crate) statelets: Option<StateletsIn>,
    pub(crate) snapshot: Option<SnapshotIn<N>>,
    st_q_in: StQIn,
    reading: Reading,
}

/// Statelets that have arrived and are not applied yet.
struct StQIn {
    bytes: VecDeque<u8>,
    records: u64,
    capacity: usize,
    applying: bool,
    end: Option<(End, End, StateletTotals)>,
    /// The end is reported when it arrives, and not when everything before it has been applied. Drivers may do either.
    early_ends: bool,
    end_reported: bool,
}

/// The statelet thread.
pub(crate) struct StateletsIn {
    pub(crate) conn: Conn,
    intake: Intake,
    /// Statelets that wait for room, and how many they are.
    whole: (u64, Vec<u8>),
    over: bool,
}

/// The synchronisation thread.
pub(crate) struct SnapshotIn<N> {
    pub(crate) conn: Conn,
    nf: Option<Box<Watched<N>>>,
    installer: Installer,
    reader: SnapshotReader,
    bytes: u64,
    installed: bool,
    apply: bool,
    decoder: Decoder,
    records: u64,
    /// What was last reported to have been applied.
    reported: Option<u64>,
    over: bool,
}

impl<N: NetworkFunction> Incoming<N> {
    pub(crate) fn new(st_q_in_bytes: usize, early_ends: bool, reading: Reading) -> Self {
        let st_q_in = StQIn {
            bytes: VecDeque::new(),
            records: 0,
            capacity: st_q_in_bytes,
            applying: false,
            end: None,
            early_ends,
            end_reported: false,
        };
        Self { statelets: None, snapshot: None, st_q_in, reading }
    }

    pub(crate) fn accept_statelets(&mut self, conn: Conn, compressed: bool) {
        let whole = (0, Vec::new());
        self.statelets = Some(StateletsIn { conn, intake: Intake::new(compressed), whole, over: false });
    }

    pub(crate) fn accept_snapshot(&mut self, conn: Conn, nf: Box<Watched<N>>, installer: Installer) {
        self.snapshot = Some(SnapshotIn {
            conn,
            nf: Some(nf),
            installer,
            reader: SnapshotReader::new(),
            bytes: 0,
            installed: false,
            apply: false,
            decoder: Decoder::new(),
            records: 0,
            reported: None,
            over: false,
        });
    }

    /// Whether the snapshot is installed.
    pub(crate) fn is_installed(&self) -> bool {
        self.snapshot.as_ref().is_some_and(|thread| thread.installed)
    }

    /// Has `st_q_in` applied.
    pub(crate) fn apply(&mut self) {
        self.st_q_in.applying = true;
        if let Some(thread) = &mut self.snapshot {
            thread.apply = true;
        }
    }

    /// The connections in use.
    pub(crate) fn connections(&self) -> impl Iterator<Item = Conn> {
        let snapshot = self.snapshot.as_ref().filter(|thread| !thread.installed).map(|thread| thread.conn);
        self.statelets.as_ref().map(|thread| thread.conn).into_iter().chain(snapshot)
    }

    /// Both threads run. Returns when they want to again, if nothing happens on their connections before.
    pub(crate) fn run(&mut self, turn: &mut Turn<'_, N>) -> Option<Instant> {
        let reading = self.reading;
        let statelets =
            self.statelets.as_mut().is_some_and(|thread| thread.run(turn, &mut self.st_q_in, reading.statelets));
        let snapshot = self.snapshot.as_mut().is_some_and(|thread| thread.run(turn, &mut self.st_q_in, reading));
        (statelets || snapshot).then_some(turn.now)
    }
}

impl StateletsIn {
    /// Whether there is more to do at once.
    fn run<N>(&mut self, turn: &mut Turn<'_, N>, st_q_in: &mut StQIn, most: u64) -> bool {
        if self.over {
            return false;
        }
        let (records, bytes) = &mut self.whole;
        if !bytes.is_empty() {
            if st_q_in.capacity - st_q_in.bytes.len() < bytes.len() {
                if !st_q_in.applying || bytes.len() > st_q_in.capacity {
                    self.reject(turn, FailureCode::StateletBacklog, "st_q_in is full");
                }
                return false;
            }
            st_q_in.bytes.extend(bytes.drain(..));
            st_q_in.records += std::mem::take(records);
        }
        if let Some(end) = self.intake.end() {
            let (received, totals) = (self.intake.received(), self.intake.totals());
            st_q_in.end = Some((end, received, totals));
            if st_q_in.early_ends && st_q_in.applying && !st_q_in.bytes.is_empty() {
                st_q_in.end_reported = true;
                turn.news.push(News::Event(StreamEvent::EndReceived { end, received, totals }));
            }
            self.over = true;
            return true;
        }
        let input = turn.host.receive(self.conn, 1 + turn.random.below(most) as usize);
        if input.is_empty() {
            if turn.host.is_dead(self.conn) {
                self.lose(turn, "reset");
            } else if turn.host.is_finished(self.conn) {
                match self.intake.finish() {
                    Err(error) => self.lose(turn, &error.to_string()),
                    Ok(_) => self.over = true,
                }
            }
            return false;
        }
        if let Err(error) = self.decode(&input) {
            self.reject(turn, error.code(), &error.to_string());
        }
        true
    }

    fn decode(&mut self, mut input: &[u8]) -> Result<(), IntakeError> {
        let (records, bytes) = &mut self.whole;
        while let Some(more) = self.intake.receive(&mut input, bytes)? {
            *records += more;
        }
        Ok(())
    }

    fn lose<N>(&mut self, turn: &mut Turn<'_, N>, reason: &str) {
        self.over = true;
        turn.news.push(News::Event(StreamEvent::Lost(StreamRole::Statelets, reason.into())));
    }

    fn reject<N>(&mut self, turn: &mut Turn<'_, N>, code: FailureCode, reason: &str) {
        self.over = true;
        turn.news.push(News::Event(StreamEvent::Rejected(code, reason.into())));
    }
}

impl<N: NetworkFunction> SnapshotIn<N> {
    /// Whether there is more to do at once.
    fn run(&mut self, turn: &mut Turn<'_, N>, st_q_in: &mut StQIn, reading: Reading) -> bool {
        match (self.over, self.installed, self.apply) {
            (true, ..) | (false, true, false) => false,
            (false, false, _) => self.install(turn, reading.snapshot),
            (false, true, true) => self.synchronise(turn, st_q_in, reading.apply),
        }
    }

    fn install(&mut self, turn: &mut Turn<'_, N>, most: u64) -> bool {
        let input = turn.host.receive(self.conn, 1 + turn.random.below(most) as usize);
        if input.is_empty() {
            if turn.host.is_dead(self.conn) || turn.host.is_finished(self.conn) {
                self.over = true;
                let reason = "ended before it was complete".into();
                turn.news.push(News::Event(StreamEvent::Lost(StreamRole::Snapshot, reason)));
            }
            return false;
        }
        let Some(nf) = &mut self.nf else { return false };
        self.bytes += input.len() as u64;
        if let Err(error) = self.reader.receive(&input, nf.as_mut()) {
            let code = match error {
                SnapshotError::Checksum { .. } => FailureCode::StreamCorrupt,
                _ => FailureCode::SnapshotRejected,
            };
            self.reject(turn, code, &error.to_string());
            return false;
        }
        if self.reader.is_complete() {
            self.installed = true;
            turn.host.close(self.conn);
            let totals = totals(self.reader.totals(), self.bytes);
            turn.news.push(News::Event(StreamEvent::SnapshotInstalled(totals)));
        }
        true
    }

    fn synchronise(&mut self, turn: &mut Turn<'_, N>, st_q_in: &mut StQIn, most: u64) -> bool {
        let Some(mut nf) = self.nf.take() else { return false };
        if st_q_in.end_reported && st_q_in.bytes.is_empty() {
            self.over = true;
            self.hand_over(turn, nf);
            turn.news.push(News::Event(StreamEvent::Applied { records: self.records, left: 0 }));
            return false;
        }
        if self.reported != Some(self.records) {
            self.reported = Some(self.records);
            let event = StreamEvent::Applied { records: self.records, left: st_q_in.records };
            turn.news.push(News::Event(event));
            self.nf = Some(nf);
            return true;
        }
        if st_q_in.bytes.is_empty() {
            let Some((end, received, totals)) = st_q_in.end else {
                self.nf = Some(nf);
                return false;
            };
            self.over = true;
            self.hand_over(turn, nf);
            turn.news.push(News::Event(StreamEvent::EndReceived { end, received, totals }));
            return false;
        }
        let len = (1 + turn.random.below(most) as usize).min(st_q_in.bytes.len());
        let bytes: Vec<u8> = st_q_in.bytes.drain(..len).collect();
        let mut input = &bytes[..];
        loop {
            match self.decoder.decode(&mut input) {
                Ok(Some(Record::Statelet { statelet_type, value })) => {
                    self.records += 1;
                    st_q_in.records = st_q_in.records.saturating_sub(1);
                    let installed = self.installer.install(nf.as_mut(), statelet_type, value);
                    // What is done twice does not count.
                    drop(watch::take_journal());
                    if let Err(error) = installed {
                        let reason = format!("statelet {}: {error}", self.records);
                        self.reject(turn, FailureCode::StateletRejected, &reason);
                        return false;
                    }
                }
                Ok(Some(Record::End(_)) | None) => break,
                Err(error) => {
                    self.reject(turn, FailureCode::StreamCorrupt, &error.to_string());
                    return false;
                }
            }
        }
        self.nf = Some(nf);
        true
    }

    /// Gives the network function away.
    fn hand_over(&mut self, turn: &mut Turn<'_, N>, nf: Box<Watched<N>>) {
        let synchronised = self.installer.finish(nf);
        drop(watch::take_journal());
        turn.news.push(News::Synchronised(synchronised));
    }

    fn reject(&mut self, turn: &mut Turn<'_, N>, code: FailureCode, reason: &str) {
        self.over = true;
        turn.news.push(News::Event(StreamEvent::Rejected(code, reason.into())));
    }
}

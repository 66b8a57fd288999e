//! The source's stream threads, as something that runs now and then instead of waiting.

use super::{News, Turn};
use crate::net::{Conn, Host};
use slim_core::protocol::MigrationId;
use slim_core::protocol::control::{SnapshotTotals, StartOptions};
use slim_core::protocol::stream::{Handshake, REPLY_LEN, StreamRole, TAKEN_OVER_LEN, check_taken_over, decode_reply};
use slim_core::snapshot::SnapshotWriter;
use slim_core::statelet::{End, Pump, PumpError, Step};
use slim_core::time::{Duration, Instant};
use slim_core::vei::StreamEvent;
use slim_core::vei::lcore::Frozen;

/// What a statelet segment holds.
pub(super) const SEGMENT_BYTES: usize = 1448;
/// How often a thread with nothing to send looks whether the peer is still there.
const LOOK: Duration = Duration::from_millis(20);

/// The source's streams of one shard.
pub(crate) struct Outgoing {
    migration: MigrationId,
    options: StartOptions,
    pub(crate) statelets: Option<StateletsOut>,
    pub(crate) snapshot: Option<SnapshotOut>,
}

/// A connection with what has still to be written to it and what has been read from it.
struct Wire {
    conn: Conn,
    out: Vec<u8>,
    read: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Connecting and sending the handshake.
    Hello,
    /// Waiting for its answer.
    Reply,
    /// Waiting for something to do.
    Ready,
    /// Sending statelets, or the snapshot.
    Sending,
    /// Everything has been sent; waiting to be told to end.
    Flushed,
    /// The end record is being sent; waiting for the acknowledgement.
    Ending,
    /// Nothing more to do.
    Over,
}

/// The statelet thread.
pub(crate) struct StateletsOut {
    wire: Wire,
    stage: Stage,
    pub(crate) pump: Option<Pump>,
    pub(crate) flushing: bool,
    pub(crate) end: Option<End>,
    waiting_since: Option<Instant>,
}

/// The snapshot thread.
pub(crate) struct SnapshotOut {
    wire: Wire,
    stage: Stage,
    pub(crate) frozen: Option<Frozen>,
    writer: Option<SnapshotWriter>,
    bytes: u64,
    due: Instant,
}

impl Wire {
    fn new(conn: Conn, hello: &Handshake) -> Self {
        Self { conn, out: hello.encode(), read: Vec::new() }
    }

    /// Writes on; whether all is written.
    fn write(&mut self, host: &mut Host) -> bool {
        let sent = host.send(self.conn, &self.out);
        self.out.drain(..sent);
        self.out.is_empty()
    }

    /// Reads on to `len` bytes; whether they are there.
    fn read(&mut self, host: &mut Host, len: usize) -> bool {
        let more = host.receive(self.conn, len - self.read.len());
        self.read.extend(more);
        self.read.len() == len
    }

    fn is_lost(&self, host: &Host) -> bool {
        host.is_dead(self.conn) || host.is_finished(self.conn)
    }

    /// Connects and shakes hands. Says how it ended, once it has.
    fn open(&mut self, stage: &mut Stage, role: StreamRole, host: &mut Host) -> Option<StreamEvent> {
        if *stage == Stage::Hello {
            if host.is_dead(self.conn) {
                return Some(lost(role, "could not be opened"));
            }
            if !host.is_established(self.conn) || !self.write(host) {
                return None;
            }
            *stage = Stage::Reply;
        }
        if !self.read(host, REPLY_LEN) {
            return self.is_lost(host).then(|| lost(role, "lost before its handshake was answered"));
        }
        let reply = self.read.first_chunk::<REPLY_LEN>().map(decode_reply);
        self.read.clear();
        *stage = Stage::Ready;
        Some(match reply {
            Some(Ok(Ok(_version))) => StreamEvent::Accepted(role),
            Some(Ok(Err(reason))) => StreamEvent::Refused(role, reason),
            Some(Err(_)) | None => lost(role, "the answer to the handshake is malformed"),
        })
    }
}

fn lost(role: StreamRole, reason: &str) -> StreamEvent {
    StreamEvent::Lost(role, reason.into())
}

impl Outgoing {
    pub(crate) fn new(migration: MigrationId, options: StartOptions) -> Self {
        Self { migration, options, statelets: None, snapshot: None }
    }

    pub(crate) fn connect(&mut self, conn: Conn, hello: &Handshake) {
        let (wire, stage) = (Wire::new(conn, hello), Stage::Hello);
        match hello.role {
            StreamRole::Statelets => {
                self.statelets =
                    Some(StateletsOut { wire, stage, pump: None, flushing: false, end: None, waiting_since: None });
            }
            StreamRole::Snapshot => {
                let due = Instant::ZERO;
                self.snapshot = Some(SnapshotOut { wire, stage, frozen: None, writer: None, bytes: 0, due });
            }
        }
    }

    /// How the migration is to be carried out.
    pub(crate) fn options(&self) -> &StartOptions {
        &self.options
    }

    /// The connections in use.
    pub(crate) fn connections(&self) -> impl Iterator<Item = Conn> {
        let statelets = self.statelets.as_ref().map(|thread| thread.wire.conn);
        statelets.into_iter().chain(self.snapshot.as_ref().map(|thread| thread.wire.conn))
    }

    /// Both threads run. Returns when they want to again, if nothing happens on their connections before.
    pub(crate) fn run<N>(&mut self, turn: &mut Turn<'_, N>) -> Option<Instant> {
        let statelets = self.statelets.as_mut().and_then(|thread| thread.run(turn, self.migration, &self.options));
        let snapshot = self.snapshot.as_mut().and_then(|thread| thread.run(turn, &self.options));
        statelets.into_iter().chain(snapshot).min()
    }
}

impl StateletsOut {
    fn run<N>(&mut self, turn: &mut Turn<'_, N>, migration: MigrationId, options: &StartOptions) -> Option<Instant> {
        let role = StreamRole::Statelets;
        match self.stage {
            Stage::Hello | Stage::Reply => {
                let event = self.wire.open(&mut self.stage, role, turn.host)?;
                if !matches!(event, StreamEvent::Accepted(_)) {
                    self.stage = Stage::Over;
                }
                turn.news.push(News::Event(event));
            }
            Stage::Ready | Stage::Flushed => {
                if self.wire.is_lost(turn.host) {
                    return self.fail(turn, "closed by dst_inst");
                }
                if self.stage == Stage::Ready && self.pump.is_some() {
                    self.stage = Stage::Sending;
                    return Some(turn.now);
                }
                if let (Stage::Flushed, Some(end), Some(pump)) = (self.stage, self.end.take(), &mut self.pump) {
                    match pump.end(end) {
                        Ok(bytes) => self.wire.out.extend(bytes),
                        Err(error) => return self.fail(turn, &error.to_string()),
                    }
                    self.stage = Stage::Ending;
                    return Some(turn.now);
                }
                return Some(turn.now + LOOK);
            }
            Stage::Sending => return self.pump(turn, options),
            Stage::Ending => {
                self.wire.write(turn.host);
                if self.wire.read(turn.host, TAKEN_OVER_LEN) {
                    let answer = self.wire.read.first_chunk::<TAKEN_OVER_LEN>();
                    if answer.is_some_and(|answer| check_taken_over(answer, migration).is_ok()) {
                        self.stage = Stage::Over;
                        turn.news.push(News::Event(StreamEvent::TakenOver));
                    } else {
                        return self.fail(turn, "the acknowledgement is malformed");
                    }
                } else if self.wire.is_lost(turn.host) {
                    return self.fail(turn, "lost before the acknowledgement");
                }
            }
            Stage::Over => {}
        }
        None
    }

    fn fail<N>(&mut self, turn: &mut Turn<'_, N>, reason: &str) -> Option<Instant> {
        self.stage = Stage::Over;
        turn.news.push(News::Event(lost(StreamRole::Statelets, reason)));
        None
    }

    /// Sends statelets until told to flush and `st_q_out` is empty.
    fn pump<N>(&mut self, turn: &mut Turn<'_, N>, options: &StartOptions) -> Option<Instant> {
        if self.wire.is_lost(turn.host) {
            return self.fail(turn, "closed by dst_inst");
        }
        if !self.wire.write(turn.host) {
            return None;
        }
        let delay = Duration::from_micros(options.statelet_delay_us.into());
        let due = self.waiting_since.is_some_and(|since| turn.now - since >= delay);
        let Some(pump) = &mut self.pump else { return None };
        match pump.step(|| Ok::<_, PumpError>(self.flushing), due) {
            Ok(Step::Send(bytes, more)) => {
                self.wire.out = bytes.to_vec();
                self.waiting_since = more.then_some(turn.now);
                return Some(turn.now);
            }
            Ok(Step::Flushed(end, totals)) => {
                self.stage = Stage::Flushed;
                turn.news.push(News::Event(StreamEvent::Flushed { end, totals }));
                return None;
            }
            Ok(Step::Wait(true)) => _ = self.waiting_since.get_or_insert(turn.now),
            Ok(Step::Wait(false)) => {}
            Err(error) => {
                let reason = error.to_string();
                return self.fail(turn, &reason);
            }
        }
        Some(turn.now + (delay / 2).clamp(Duration::from_micros(200), Duration::from_millis(2)))
    }
}

impl SnapshotOut {
    fn run<N>(&mut self, turn: &mut Turn<'_, N>, options: &StartOptions) -> Option<Instant> {
        let role = StreamRole::Snapshot;
        match self.stage {
            Stage::Hello | Stage::Reply => {
                let event = self.wire.open(&mut self.stage, role, turn.host)?;
                if !matches!(event, StreamEvent::Accepted(_)) {
                    self.stage = Stage::Over;
                }
                turn.news.push(News::Event(event));
                None
            }
            Stage::Ready => {
                let frozen = self.frozen.take()?;
                turn.host.mark(self.wire.conn, options.scheduling.snapshot_dscp());
                self.writer = Some(SnapshotWriter::new(frozen, options.filler_bytes));
                self.due = turn.now;
                self.stage = Stage::Sending;
                Some(turn.now)
            }
            Stage::Sending => self.send(turn, options),
            Stage::Flushed | Stage::Ending | Stage::Over => None,
        }
    }

    fn send<N>(&mut self, turn: &mut Turn<'_, N>, options: &StartOptions) -> Option<Instant> {
        if turn.host.is_dead(self.wire.conn) {
            self.stage = Stage::Over;
            self.writer = None;
            turn.news.push(News::Event(lost(StreamRole::Snapshot, "lost while it was being sent")));
            return None;
        }
        if turn.now < self.due {
            return Some(self.due);
        }
        if !self.wire.write(turn.host) {
            return None;
        }
        let writer = self.writer.as_mut()?;
        match writer.write_next(&mut self.wire.out) {
            Ok(true) => {
                let bytes = self.wire.out.len() as u64;
                self.bytes += bytes;
                if let Some(rate) = options.snapshot_rate_bytes_per_s.filter(|&rate| rate > 0) {
                    self.due = turn.now + Duration::from_nanos(bytes * 1_000_000_000 / rate);
                }
                Some(turn.now)
            }
            Ok(false) => {
                let totals = totals(writer.totals(), self.bytes);
                self.writer = None;
                self.stage = Stage::Over;
                turn.host.shut_down(self.wire.conn);
                turn.news.push(News::Event(StreamEvent::SnapshotSent(totals)));
                None
            }
            Err(error) => {
                self.stage = Stage::Over;
                turn.news.push(News::Event(lost(StreamRole::Snapshot, &error.to_string())));
                None
            }
        }
    }

    /// Whether it holds state.
    pub(crate) fn holds_state(&self) -> bool {
        self.frozen.is_some() || self.writer.is_some()
    }
}

/// The totals as they are reported, `bytes` having passed the stream.
pub(super) fn totals(totals: &slim_core::snapshot::SnapshotTotals, bytes: u64) -> SnapshotTotals {
    SnapshotTotals { bytes, chunks: totals.chunks, entries: totals.entries, filler_bytes: totals.filler_bytes }
}

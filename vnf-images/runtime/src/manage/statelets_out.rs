//! The statelet thread of the source (T1): from `st_q_out` to the statelet stream.
//!
//! It fills a segment before it sends, unless the oldest statelet has waited long enough. It polls `st_q_out`, for the
//! lcore must not spend a system call on waking it, and only while a migration lasts.

use super::net;
use super::outgoing::{StateletTask, StreamOptions};
use super::session::Session;
use slim_core::protocol::control::StateletTotals;
use slim_core::protocol::stream::{StreamRole, TAKEN_OVER_LEN, check_taken_over};
use slim_core::statelet::{Decoder, Record};
use slim_core::vei::StreamEvent;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

/// The most bytes written at a time.
const WRITE_MAX: usize = 32 << 10;

/// How often a thread with nothing to send looks whether the peer is still there.
const LOOK: Duration = Duration::from_millis(20);

/// Why the thread ends before its work is done.
#[derive(Debug, thiserror::Error)]
enum Ended {
    /// The migration is over; nobody wants to know.
    #[error("cancelled")]
    Cancelled,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("closed by dst_inst")]
    ClosedByPeer,
    #[error("{0}")]
    Malformed(String),
}

/// Carries out `tasks` on an open stream until the migration ends one way or the other.
pub fn run<F: Send + 'static>(
    session: &Session<F>,
    mut stream: TcpStream,
    tasks: &Receiver<StateletTask>,
    options: &StreamOptions,
) {
    crate::sys::exact_sleeps();
    match statelets(session, &mut stream, tasks, options) {
        Ok(()) => session.event(StreamEvent::TakenOver),
        Err(Ended::Cancelled) => {}
        Err(reason) => session.lost(StreamRole::Statelets, reason),
    }
}

fn statelets<F: Send + 'static>(
    session: &Session<F>,
    stream: &mut TcpStream,
    tasks: &Receiver<StateletTask>,
    options: &StreamOptions,
) -> Result<(), Ended> {
    let StateletTask::Pump(mut st_q_out) = next_task(stream, tasks)? else {
        return Err(Ended::Malformed("told to end before the begin".into()));
    };
    let (end, totals) = pump(stream, tasks, &mut st_q_out, options)?;
    session.event(StreamEvent::Flushed { end, totals });
    let StateletTask::End(end) = next_task(stream, tasks)? else {
        return Err(Ended::Malformed("told to go on after the end".into()));
    };
    stream.write_all(&end.encode())?;
    let mut answer = [0; TAKEN_OVER_LEN];
    stream.read_exact(&mut answer)?;
    check_taken_over(&answer, session.migration()).map_err(|error| Ended::Malformed(error.to_string()))
}

fn next_task(stream: &TcpStream, tasks: &Receiver<StateletTask>) -> Result<StateletTask, Ended> {
    loop {
        match tasks.recv_timeout(LOOK) {
            Ok(task) => return Ok(task),
            Err(RecvTimeoutError::Disconnected) => return Err(Ended::Cancelled),
            Err(RecvTimeoutError::Timeout) if net::is_closed_by_peer(stream) => return Err(Ended::ClosedByPeer),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Sends statelets until it is told to flush and `st_q_out` is empty.
fn pump(
    stream: &mut TcpStream,
    tasks: &Receiver<StateletTask>,
    st_q_out: &mut rtrb::Consumer<u8>,
    options: &StreamOptions,
) -> Result<(slim_core::statelet::End, StateletTotals), Ended> {
    let pause = (options.delay / 2).clamp(Duration::from_micros(50), Duration::from_millis(1));
    let mut decoder = Decoder::new();
    let mut segments = 0;
    let mut buffer = Vec::with_capacity(WRITE_MAX);
    let mut flushing = false;
    let mut waiting_since: Option<Instant> = None;
    let mut looked = Instant::now();
    loop {
        match tasks.try_recv() {
            Ok(StateletTask::Flush) => flushing = true,
            Ok(StateletTask::Pump(_) | StateletTask::End(_)) => {
                return Err(Ended::Malformed("told to end before the flush".into()));
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Err(Ended::Cancelled),
        }
        // The lcore had stopped before the flush was asked for, so what is there now is all there will be.
        let there = st_q_out.slots();
        let due = flushing || waiting_since.is_some_and(|since| since.elapsed() >= options.delay);
        let send = if due { there } else { there - there % options.segment_bytes };
        if send > 0 {
            let send = send.min(WRITE_MAX);
            buffer.resize(send, 0);
            st_q_out.pop_entire_slice(&mut buffer).map_err(|error| Ended::Malformed(error.to_string()))?;
            count(&mut decoder, &buffer)?;
            stream.write_all(&buffer)?;
            segments += send.div_ceil(options.segment_bytes) as u64;
            waiting_since = (there > send).then(Instant::now);
            continue;
        }
        if flushing {
            let tally = decoder.tally();
            let totals = StateletTotals {
                records: tally.records(),
                value_bytes: tally.value_bytes(),
                bytes: tally.bytes(),
                segments,
            };
            return Ok((tally.end(), totals));
        }
        if there > 0 {
            waiting_since.get_or_insert_with(Instant::now);
        }
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            if net::is_closed_by_peer(stream) {
                return Err(Ended::ClosedByPeer);
            }
        }
        std::thread::sleep(pause);
    }
}

/// Counts the statelets in `bytes`, the next piece of the stream.
fn count(decoder: &mut Decoder, mut bytes: &[u8]) -> Result<(), Ended> {
    while let Some(record) = decoder.decode(&mut bytes).map_err(|error| Ended::Malformed(error.to_string()))? {
        if let Record::End(_) = record {
            return Err(Ended::Malformed("the network function announced an end record".into()));
        }
    }
    Ok(())
}

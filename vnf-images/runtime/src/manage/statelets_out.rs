//! The statelet thread of the source (T1): from `st_q_out` to the statelet stream.
//!
//! What waits for what, and is sent when, a [`Pump`] decides. It polls `st_q_out`, for the
//! lcore must not spend a system call on waking it, and only while a migration lasts.

use super::outgoing::{StateletTask, StreamOptions};
use super::session::Session;
use slim_core::protocol::control::StateletTotals;
use slim_core::protocol::stream::{StreamRole, TAKEN_OVER_LEN, check_taken_over};
use slim_core::statelet::{End, Pump, PumpError, Step};
use slim_core::vei::StreamEvent;
use slim_trust::Channel;
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

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
    #[error(transparent)]
    Pump(#[from] PumpError),
    #[error("{0}")]
    Malformed(String),
}

/// Carries out `tasks` on an open stream until the migration ends one way or the other.
pub fn run<F: Send + 'static>(
    session: &Session<F>,
    mut stream: Channel,
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
    stream: &mut Channel,
    tasks: &Receiver<StateletTask>,
    options: &StreamOptions,
) -> Result<(), Ended> {
    let StateletTask::Pump(st_q_out) = next_task(stream, tasks)? else {
        return Err(Ended::Malformed("told to end before the begin".into()));
    };
    let mut pump = Pump::new(st_q_out, options.pump);
    let (end, totals) = send(stream, tasks, &mut pump, options.delay)?;
    session.event(StreamEvent::Flushed { end, totals });
    let StateletTask::End(end) = next_task(stream, tasks)? else {
        return Err(Ended::Malformed("told to go on after the end".into()));
    };
    stream.write_all(pump.end(end)?)?;
    let mut answer = [0; TAKEN_OVER_LEN];
    stream.read_exact(&mut answer)?;
    check_taken_over(&answer, session.migration()).map_err(|error| Ended::Malformed(error.to_string()))
}

fn next_task(stream: &Channel, tasks: &Receiver<StateletTask>) -> Result<StateletTask, Ended> {
    loop {
        match tasks.recv_timeout(LOOK) {
            Ok(task) => return Ok(task),
            Err(RecvTimeoutError::Disconnected) => return Err(Ended::Cancelled),
            Err(RecvTimeoutError::Timeout) if stream.is_closed_by_peer() => return Err(Ended::ClosedByPeer),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Sends statelets until it is told to flush and `st_q_out` is empty.
fn send(
    stream: &mut Channel,
    tasks: &Receiver<StateletTask>,
    pump: &mut Pump,
    delay: Duration,
) -> Result<(End, StateletTotals), Ended> {
    let pause = (delay / 2).clamp(Duration::from_micros(50), Duration::from_millis(1));
    let mut waiting_since: Option<Instant> = None;
    let mut looked = Instant::now();
    loop {
        let due = waiting_since.is_some_and(|since| since.elapsed() >= delay);
        match pump.step(|| is_to_flush(tasks), due)? {
            Step::Send(bytes, more) => {
                stream.write_all(bytes)?;
                waiting_since = more.then(Instant::now);
                continue;
            }
            Step::Flushed(end, totals) => return Ok((end, totals)),
            Step::Wait(false) => {}
            Step::Wait(true) => {
                waiting_since.get_or_insert_with(Instant::now);
            }
        }
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            if stream.is_closed_by_peer() {
                return Err(Ended::ClosedByPeer);
            }
        }
        std::thread::sleep(pause);
    }
}

fn is_to_flush(tasks: &Receiver<StateletTask>) -> Result<bool, Ended> {
    match tasks.try_recv() {
        Ok(StateletTask::Flush) => Ok(true),
        Ok(StateletTask::Pump(_) | StateletTask::End(_)) => {
            Err(Ended::Malformed("told to end before the flush".into()))
        }
        Err(TryRecvError::Empty) => Ok(false),
        Err(TryRecvError::Disconnected) => Err(Ended::Cancelled),
    }
}

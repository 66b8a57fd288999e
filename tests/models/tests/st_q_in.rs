//! `st_q_in`: the thread that receives and the one that applies, with the management thread beside them. No statelet is
//! lost, none comes twice, the end comes last, and nobody waits for ever.

mod common;

use common::{finds_a_fault, holds};
use loom::sync::Arc;
use loom::thread;
use slim_core::protocol::control::StateletTotals;
use slim_core::statelet::End;

macro_rules! hand_over {
    ($module:ident, $abort:expr) => {
        || {
            use slim_models::$module::{Ended, PushError, StQIn, Taken};

            let queue = Arc::new(StQIn::new(4));
            let end = End { records: 2, crc: 0 };
            let ended = Ended { end, received: end, totals: StateletTotals::default() };
            let receiver = thread::spawn({
                let queue = Arc::clone(&queue);
                move || {
                    // Each fills the queue: the second waits for room, or is told that nobody is going to make any.
                    for bytes in [b"abcd", b"efgh"] {
                        match queue.push(1, bytes) {
                            Ok(()) => {}
                            Err(PushError::Full) => {
                                queue.close();
                                return false;
                            }
                            Err(PushError::Closed) => return false,
                        }
                    }
                    queue.end(ended);
                    true
                }
            });
            let applier = thread::spawn({
                let queue = Arc::clone(&queue);
                move || {
                    let mut out = Vec::new();
                    loop {
                        match queue.take(4, &mut out) {
                            Taken::Statelets => drop(queue.applied(1)),
                            Taken::Ended(found) => {
                                assert_eq!(found, ended);
                                return (out, true);
                            }
                            Taken::Closed => return (out, false),
                        }
                    }
                }
            });
            // The management thread: the snapshot is installed; and, in one model, the migration is given up.
            queue.start_applying();
            if $abort {
                queue.close();
            }
            let (sent, (out, complete)) = (receiver.join().unwrap(), applier.join().unwrap());
            assert!(b"abcdefgh".starts_with(&out));
            assert!(!complete || (sent && out == b"abcdefgh"), "the end overtook a statelet");
            assert!($abort || sent == complete, "one side waits for the other in vain");
        }
    };
}

#[test]
fn every_statelet_is_handed_over_before_the_end() {
    holds(hand_over!(st_q_in, false));
}

#[test]
fn giving_up_ends_every_wait() {
    holds(hand_over!(st_q_in, true));
}

#[test]
fn an_end_that_nobody_is_told_of_is_found_out() {
    finds_a_fault("deadlock", hand_over!(st_q_in_silent, false));
}

//! `st_q_out`: whatever the lcore announces reaches the statelet thread whole and in order, up to the last one before
//! it stopped, and what was written before is seen before.

mod common;

use common::{finds_a_fault, holds};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use slim_core::statelet::{Decoder, Record};

/// One model of both ends, over a sound or a broken ring.
macro_rules! model {
    ($module:ident, $capacity:expr, $count:expr, $len:expr, $early_look:expr) => {
        move || {
            use slim_models::$module::announce::Announce;
            use slim_models::$module::pump::{Pump, PumpError, PumpOptions, Step};
            use slim_models::$module::rtrb::RingBuffer;

            let (producer, consumer) = RingBuffer::new($capacity);
            // What the lcore did before each announcement: loom tells if the reader can be too early for it.
            let before: Arc<Vec<UnsafeCell<u16>>> = Arc::new((0..$count).map(|_| UnsafeCell::new(0)).collect());
            // `Stopped`, and then the request to flush: two channels in the runtime, a flag with the same order here.
            let stopped = Arc::new(AtomicBool::new(false));
            let lcore = thread::spawn({
                let (before, stopped) = (Arc::clone(&before), Arc::clone(&stopped));
                move || {
                    let mut announce = Announce::off();
                    announce.start(producer);
                    for number in 0..$count {
                        before[usize::from(number)].with_mut(|cell| unsafe { *cell = number + 1 });
                        announce.announce(number, &[number as u8; $len]);
                        announce.flush();
                    }
                    let overflowed = announce.overflowed();
                    let totals = announce.stop();
                    stopped.store(true, Ordering::Release);
                    (totals.statelets, overflowed)
                }
            });
            let mut pump = Pump::new(consumer, PumpOptions { segment_bytes: 1, merge: None, compress: false });
            let mut decoder = Decoder::new();
            let mut expected = 0;
            let totals = loop {
                let ask = || Ok::<bool, PumpError>(stopped.load(Ordering::Acquire));
                // A reader that looks whether something is there, and only then whether the lcore has stopped.
                let early =
                    $early_look.then(|| matches!(pump.step(|| Ok::<_, PumpError>(false), false), Ok(Step::Wait(_))));
                if early == Some(true) && stopped.load(Ordering::Acquire) {
                    break decoder.tally().end().records;
                }
                match pump.step(ask, false).unwrap() {
                    Step::Send(mut bytes, _) => {
                        while let Some(record) = decoder.decode(&mut bytes).unwrap() {
                            let Record::Statelet { statelet_type, value } = record else { panic!("{record:?}") };
                            assert_eq!((statelet_type, value), (expected, &[expected as u8; $len][..]));
                            let seen = before[usize::from(expected)].with(|cell| unsafe { *cell });
                            assert_eq!(seen, expected + 1);
                            expected += 1;
                        }
                    }
                    Step::Wait(_) => thread::yield_now(),
                    Step::Flushed(end, totals) => {
                        assert_eq!(end.records, totals.records);
                        break totals.records;
                    }
                }
            };
            let (announced, overflowed) = lcore.join().unwrap();
            assert_eq!(totals, announced.records, "not all that was announced came out");
            assert_eq!(overflowed, announced.records < u64::from($count), "a statelet was lost and nobody knows");
        }
    };
}

#[test]
fn everything_announced_comes_out_before_the_end() {
    holds(model!(sound, 16, 2u16, 2, false));
}

#[test]
fn a_statelet_written_in_two_pieces_comes_out_whole() {
    holds(model!(sound, 300, 2u16, 129, false));
}

#[test]
fn an_overflow_is_told_and_leaves_whole_records() {
    holds(model!(sound, 8, 2u16, 2, false));
}

#[test]
fn a_ring_without_release_is_found_out() {
    finds_a_fault("Causality violation", model!(relaxed, 16, 2u16, 2, false));
}

#[test]
fn a_reader_that_looks_before_it_asks_is_found_out() {
    finds_a_fault("not all that was announced came out", model!(sound, 16, 1u16, 2, true));
}

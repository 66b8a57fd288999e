//! The way of a command to an lcore that sleeps: no order of pushing, waking, looking and waiting loses a wake-up.
//!
//! The lcore's side follows `dataplane/lcore.rs` and `dataplane/idle.rs`: look for a command, and if there is none, wait.
//! There every wait has a time-out besides; here it has none, so that a lost wake-up is a deadlock.

mod common;

use common::{finds_a_fault, holds};
use loom::thread;
use slim_core::nf::ShardId;
use slim_core::vei::lcore::Command;
use slim_models::epoll;

macro_rules! model {
    ($module:ident) => {
        || {
            use slim_models::$module::LcoreHandle;

            let (set, waker) = epoll::wait_set();
            let (producer, mut commands) = slim_models::sound::rtrb::RingBuffer::<Command<()>>::new(2);
            let lcore = thread::spawn(move || {
                let mut taken = Vec::new();
                while taken.len() < 2 {
                    match commands.pop() {
                        Ok(Command::Stop) => taken.push("stop"),
                        Ok(Command::Resume(_)) => taken.push("resume"),
                        Ok(_) => panic!("nobody asked for that"),
                        Err(_) => set.wait(),
                    }
                }
                taken
            });
            let mut handle = LcoreHandle::new(ShardId(0), producer, Some(waker));
            handle.command(Command::Stop).unwrap();
            handle.command(Command::Resume(None)).unwrap();
            assert_eq!(lcore.join().unwrap(), ["stop", "resume"]);
        }
    };
}

#[test]
fn a_sleeping_lcore_gets_every_command_in_order() {
    holds(model!(command));
}

#[test]
fn waking_before_the_command_is_there_is_found_out() {
    finds_a_fault("deadlock", model!(command_early));
}

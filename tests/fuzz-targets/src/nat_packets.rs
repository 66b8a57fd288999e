//! The NAT's packet path: any sequence of frames and pauses keeps the law and the bounds.

use crate::input::Input;
use crate::traffic;
use slim_core::nf::NetworkFunction;
use slim_core::nf::law;
use slim_core::nf::testing::TestEnvironment;
use slim_core::packet::OwnedPacket;
use slim_core::time::Instant;
use slim_nat::Nat;

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let steps = traffic::steps(&mut Input::new(bytes), 200);
    let mut nat = traffic::nat(1);
    let mut env = TestEnvironment::without_updates(Instant::from_millis(5));
    let (mut ticks, mut received, mut emitted) = (0, 0, 0);
    for step in &steps {
        env.advance(step.pause);
        nat.tick(&mut env);
        ticks += 1;
        if let Some((port, frame)) = &step.packet {
            nat.process(&mut env, *port, &mut OwnedPacket::from(frame.as_slice()));
            received += 1;
        }
        traffic::expect_bounded(&nat);
        // Some packets wait before they are let go or answered, several at once: fragments for the first of theirs,
        // unsolicited SYNs for six seconds. Of its own accord the NAT asks for its gateway, once a tick.
        emitted += env.take_emitted().len();
        assert!(emitted <= 2 * received + ticks, "{received} packets and {ticks} ticks make the NAT send {emitted}");
    }
    if let Err(violation) = law::check_with_snapshots::<Nat>(&traffic::config(), &steps, &[steps.len() / 2]) {
        panic!("{violation}");
    }
}

//! The NAT's `install`: any statelets, as a peer that lies could send them. Whatever it takes, the state is consistent.

use crate::input::Input;
use crate::{state, traffic};
use slim_core::nf::testing::TestEnvironment;
use slim_core::nf::{NetworkFunction, Verdict};
use slim_core::packet::OwnedPacket;
use slim_core::snapshot;
use slim_core::time::{Duration, Instant};
use slim_nat::{Drop, Nat};

/// The types there are, with the lengths of their values.
const TYPES: [(u16, usize); 15] = [
    (0x0001, 4),
    (0x0010, 18),
    (0x0011, 18),
    (0x0012, 12),
    (0x0013, 12),
    (0x0014, 12),
    (0x0015, 12),
    (0x0016, 13),
    (0x0020, 10),
    (0x0021, 10),
    (0x0022, 4),
    (0x0023, 4),
    (0x0030, 12),
    (0x0031, 12),
    (0x0032, 4),
];

/// The n-th address that a statelet may well have.
fn address(input: &mut Input<'_>) -> [u8; 4] {
    match input.below(8) {
        0 => [10, 2, 0, 1],
        1 => [10, 1, 0, 1],
        2 | 3 => [10, 1, 0, 10 + input.below(4) as u8],
        4 | 5 => [10, 2, 0, 10 + input.below(4) as u8],
        6 => [198, 51, 100, 9],
        _ => input.array(),
    }
}

/// A statelet with the right length, of addresses and ports that may fit together.
fn statelet(input: &mut Input<'_>) -> (u16, Vec<u8>) {
    let (statelet_type, len) = input.one_of(&TYPES);
    let port = |input: &mut Input<'_>| if input.one_in(8) { input.u16() } else { 2000 + input.below(8) as u16 };
    let mut value = Vec::new();
    match statelet_type {
        0x0001 => value.extend_from_slice(&u32::from(input.byte()).to_be_bytes()),
        0x0010 | 0x0011 => {
            // The interior and exterior addresses it should have, mostly.
            let plausible = [[10, 1, 0, 10 + input.below(4) as u8], [10, 2, 0, 1]];
            for expected in plausible {
                let other = input.one_in(8);
                value.extend_from_slice(&if other { address(input) } else { expected });
            }
            value.extend_from_slice(&address(input));
            (0..3).for_each(|_| value.extend_from_slice(&port(input).to_be_bytes()));
        }
        0x0012..=0x0016 => {
            value.extend_from_slice(&[10, 2, 0, 1]);
            value.extend_from_slice(&address(input));
            (0..2).for_each(|_| value.extend_from_slice(&port(input).to_be_bytes()));
            value.push(input.byte() % 8);
        }
        0x0020 | 0x0021 => {
            value.extend_from_slice(&address(input));
            value.extend_from_slice(&if input.flag() { [2, 0, 0, 0, 0, 1] } else { input.array::<6>() });
        }
        0x0030 | 0x0031 => {
            value.extend_from_slice(&address(input));
            let total = if input.one_in(8) { input.u64() } else { input.u16().into() };
            value.extend_from_slice(&total.to_be_bytes());
        }
        _ => value.extend_from_slice(&address(input)),
    }
    value.truncate(len);
    (statelet_type, value)
}

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut nat = traffic::nat(1);
    for _ in 0..300 {
        if input.is_empty() {
            break;
        }
        let (statelet_type, value) = if input.one_in(16) {
            let (statelet_type, len) = (input.u16(), input.below(32));
            (statelet_type, input.bytes(len).to_vec())
        } else if input.one_in(16) {
            // Packets in between: sessions that neighbours, ports and tables are there for.
            process(&mut nat, &mut input, Instant::from_millis(9));
            continue;
        } else {
            statelet(&mut input)
        };
        let before = input.one_in(8).then(|| snapshot::digest(&snapshot::freeze(&mut nat)));
        if nat.install(statelet_type, &value).is_err()
            && let Some(before) = before
        {
            assert_eq!(snapshot::digest(&snapshot::freeze(&mut nat)), before, "refused, but changed");
        }
        traffic::expect_bounded(&nat);
    }
    state::expect_to_travel(&mut nat);
    nat.take_over(Instant::from_millis(77));
    for round in 0..8 {
        process(&mut nat, &mut input, Instant::from_millis(77) + Duration::from_secs(100 * round));
        traffic::expect_bounded(&nat);
    }
}

fn process(nat: &mut Nat, input: &mut Input<'_>, now: Instant) {
    let mut env = TestEnvironment::new(now);
    nat.tick(&mut env);
    let (port, frame) = traffic::packet(input);
    let verdict = nat.process(&mut env, port, &mut OwnedPacket::new(frame));
    assert_ne!(
        verdict,
        Verdict::Drop(Drop::StateInconsistent as u16),
        "statelets have made the state contradict itself"
    );
}

//! The law, f(s, p) == h(s, g(s, p)) (§III), over random subscribers, hand-overs, pauses and noise.

mod common;

use common::*;
use proptest::prelude::*;
use slim_core::nf::PortId;
use slim_core::nf::law::{self, Step};
use slim_core::time::Duration;
use slim_gateway::{Config, Gateway, IN, OUT};

/// Small enough that the table fills up.
fn small() -> Config {
    Config { subscribers_max: 5, ..config() }
}

fn packet() -> impl Strategy<Value = (PortId, Vec<u8>)> {
    let subscribers = || (10u8..17).prop_map(subscriber);
    prop_oneof![
        6 => (subscribers(), 0u16..5, 0u16..5).prop_map(|(from, cell, to)| (IN, from_cell(from, cell, to))),
        3 => subscribers().prop_map(|to| (OUT, from_outside(to))),
        1 => (subscribers(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(from, at, byte)| {
            let mut frame = from_cell(from, 1, 0);
            let at = at.index(frame.len());
            frame[at] = byte;
            (IN, frame)
        }),
        1 => prop::collection::vec(any::<u8>(), 0..80).prop_map(|bytes| (IN, bytes)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let pause = prop_oneof![
        8 => (0u64..200).prop_map(Duration::from_millis),
        2 => (0u64..90).prop_map(Duration::from_secs),
    ];
    (pause, prop::option::weighted(0.9, packet())).prop_map(|(pause, packet)| Step { pause, packet })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn gateway_keeps_the_law(steps in prop::collection::vec(step(), 1..200)) {
        law::check::<Gateway>(&small(), &steps).map_err(|violation| TestCaseError::fail(violation.to_string()))?;
    }

    #[test]
    fn statelets_of_any_content_are_installed_or_refused(
        statelets in prop::collection::vec((0u16..4, prop::collection::vec(any::<u8>(), 0..60)), 0..50),
    ) {
        use slim_core::nf::NetworkFunction;
        let mut lab = Lab::new(&small());
        for (statelet_type, value) in statelets {
            // An error aborts the migration; what matters is that nothing panics.
            let _ = lab.gateway.install(statelet_type, &value);
        }
        lab.gateway.take_over(slim_core::time::Instant::from_millis(1));
        lab.gateway.tick(&mut lab.env);
    }
}

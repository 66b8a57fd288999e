//! Frames of lower effort among all others.

use super::bridge::{A, B, CONTROLLER, addressed};
use super::*;
use crate::fifo::Bounds;
use proptest::prelude::*;

/// A byte per microsecond, and a bucket of 31 frames.
const NARROW: LinkSettings = LinkSettings { rate_bps: 8_000_000, burst_bytes: 2_000, delay_us: 2_500 };

fn marked(mut frame: Vec<u8>) -> Vec<u8> {
    frame[15] = 1 << 2;
    frame
}

/// A switch that knows where management addresses are.
fn rig(link: LinkSettings) -> Rig {
    learn(Rig::new(link))
}

fn learn(mut rig: Rig) -> Rig {
    for (port, mac) in [("mgmt", CONTROLLER), ("nat-a.mgmt", A), ("nat-b.mgmt", B)] {
        rig.receive(port, addressed([0xff; 6], mac, 0));
    }
    rig.pass(Duration::from_millis(100));
    rig.pass(Duration::ZERO);
    for port in ["mgmt", "nat-a.mgmt", "nat-b.mgmt"] {
        rig.sent(port);
    }
    rig
}

#[test]
fn what_is_marked_waits_for_the_rest_of_the_meter_and_what_is_not_overtakes_it() {
    let mut rig = rig(NARROW);
    // More than the spare tokens last for.
    (0..200).for_each(|number| rig.receive("nat-a.mgmt", marked(addressed(CONTROLLER, A, number))));
    rig.pass(Duration::from_millis(1));
    rig.receive("nat-a.mgmt", addressed(CONTROLLER, A, 1_000));
    rig.pass(Duration::from_secs(1));
    let numbers = rig.numbers("mgmt");
    let at = numbers.iter().position(|&number| number == 1_000).unwrap();
    assert!((64..100).contains(&at), "at {at}");
    assert!(numbers.into_iter().filter(|&number| number != 1_000).eq(0..200));
    assert_eq!(rig.switch.totals().drops.total(), 0);
    rig.check();
}

#[test]
fn packets_of_the_dataplane_cannot_ask_to_wait() {
    let mut rig = rig(NARROW);
    for number in 0..40 {
        rig.receive("inside", marked(frame(number)));
        rig.receive("nat-a.out", marked(frame(number)));
    }
    assert_eq!(rig.dropped(DropCause::MeterToInstance), 9);
    assert_eq!(rig.dropped(DropCause::MeterFromInstance), 9);
    rig.pass(DELAY);
    rig.check();
}

#[test]
fn a_full_queue_drops_the_newest_marked_frame_and_nothing_else() {
    let lower_effort = Bounds { bytes: 64 << 10, packets: 8192 };
    let mut rig = learn(Rig::with(HeapBuffers, Limits { lower_effort, ..Limits::default() }, NARROW));
    (0..1_100).for_each(|number| rig.receive("mgmt", marked(addressed(A, CONTROLLER, number))));
    // 64 KiB are 1024 frames.
    assert_eq!(rig.dropped(DropCause::LowerEffortFull), 76);
    (0..31).for_each(|number| rig.receive("inside", frame(number)));
    rig.pass(Duration::from_secs(5));
    assert_eq!(rig.numbers("nat-a.in").len(), 31);
    assert_eq!(rig.numbers("nat-a.mgmt").len(), 1_024);
    assert_eq!(rig.switch.totals().drops.total(), 76);
    rig.check();
}

#[test]
fn the_drain_packet_does_not_wait_for_marked_frames_nor_overtake_packets() {
    let mut rig = rig(NARROW);
    (0..900).for_each(|number| rig.receive("mgmt", marked(addressed(A, CONTROLLER, number))));
    (0..20).for_each(|number| rig.receive("inside", frame(number)));
    rig.redirect("nat-a", "nat-b", 1, false);
    rig.receive("inside", frame(20));
    rig.pass(DELAY);
    let sent = rig.sent("nat-a.in");
    let (drain, packets) = sent.split_last().unwrap();
    assert!(as_drain(drain).is_some());
    assert!(packets.iter().map(|packet| number(packet)).eq(0..20));
    assert_eq!(rig.numbers("nat-b.in"), [20]);
    assert!(rig.numbers("nat-a.mgmt").len() < 200);
    rig.check();
}

#[test]
fn an_instance_that_goes_takes_what_waits_with_it() {
    let mut rig = rig(NARROW);
    (0..500).for_each(|number| rig.receive("nat-b.mgmt", marked(addressed(CONTROLLER, B, number))));
    rig.switch.remove_instance(rig.now, &name("nat-b")).unwrap();
    assert_eq!(rig.dropped(DropCause::Removed), 500);
    rig.check();
}

#[test]
fn a_link_without_meter_keeps_nobody_waiting() {
    let mut rig = rig(NARROW);
    (0..500).for_each(|number| rig.receive("nat-a.mgmt", marked(addressed(CONTROLLER, A, number))));
    rig.switch.set_link_settings(rig.now, &name("nat-a"), WIDE).unwrap();
    rig.receive("nat-a.mgmt", marked(addressed(CONTROLLER, A, 500)));
    rig.pass(DELAY);
    assert!(rig.numbers("mgmt").into_iter().eq(0..=500));
    rig.check();
}

/// What leaves by a port, and when.
type Seen = Vec<(Instant, &'static str, u32)>;

const DATA: [(&str, &str); 4] =
    [("inside", "nat-a.in"), ("outside", "nat-a.out"), ("nat-a.in", "inside"), ("nat-a.out", "outside")];

/// Bursts of packets at the dataplane's ports, statelets from one instance to the other, and as many marked frames
/// behind them as said.
fn play(link: LinkSettings, bursts: &[(u16, u8, u8)], marked_per_burst: impl Fn(usize) -> u32) -> (Seen, Vec<u32>) {
    let mut rig = rig(link);
    let (mut seen, mut lower) = (Seen::new(), Vec::new());
    let (mut next, mut next_marked) = (0, 1 << 20);
    for (index, &(gap_us, packets, port)) in bursts.iter().enumerate() {
        for _ in 0..packets {
            rig.receive(DATA[usize::from(port) % DATA.len()].0, frame(next));
            rig.receive("nat-a.mgmt", addressed(B, A, next + 1));
            next += 2;
        }
        for _ in 0..marked_per_burst(index) {
            rig.receive("nat-a.mgmt", marked(addressed(B, A, next_marked)));
            next_marked += 1;
        }
        rig.pass(Duration::from_micros(gap_us.into()));
        // The switch looks once more before more arrives: what it had not seen would be credited.
        rig.pass(Duration::ZERO);
        let now = rig.now;
        for (_, port) in DATA.into_iter().chain([("", "nat-b.mgmt")]) {
            for number in rig.numbers(port) {
                if number < 1 << 20 { seen.push((now, port, number)) } else { lower.push(number) }
            }
        }
        rig.check();
    }
    (seen, lower)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn packets_and_statelets_pass_as_if_no_marked_frame_were_there(
        bursts in prop::collection::vec((0u16..1_500, 0u8..30, any::<u8>()), 1..60),
        marked in prop::collection::vec(0u32..20, 60),
        rate_mbit in 2u64..40,
    ) {
        // Too short for a share to be overdue, however full the link.
        let link = LinkSettings { rate_bps: rate_mbit * 1_000_000, burst_bytes: 4_000, delay_us: 300 };
        let (alone, _) = play(link, &bursts, |_| 0);
        let (together, lower) = play(link, &bursts, |index| marked[index]);
        prop_assert_eq!(alone, together);
        prop_assert!(lower.is_sorted());
    }
}

#[test]
fn marked_frames_arrive_on_a_link_that_packets_fill() {
    // Ten times what the link takes, for a second.
    let bursts = vec![(1_000, 150, 0); 1_000];
    let link = LinkSettings { delay_us: 300, ..NARROW };
    let (alone, _) = play(link, &bursts, |_| 0);
    let (together, lower) = play(link, &bursts, |index| u32::from(index < 100));
    // One byte of a hundred are 10 KB in a second, but for the patience at the beginning.
    assert!(lower.len() >= 100, "{} arrived", lower.len());
    assert!(lower.is_sorted());
    let lost = alone.len() - together.len().min(alone.len());
    assert!(lost <= lower.len() + 2, "{lost} lost for {}", lower.len());
}

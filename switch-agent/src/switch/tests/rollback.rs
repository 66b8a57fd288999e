//! Rollback: handing back and holding.

use super::*;

fn finished(handed_back_packets: u64, held_packets: u64, dropped_packets: u64, timed_out: bool) -> SwitchEvent {
    SwitchEvent::RollbackFinished {
        migration: MIGRATION,
        nonce: Nonce(2),
        handed_back_packets,
        held_packets,
        dropped_packets,
        timed_out,
    }
}

/// A rig whose paths have gone to nat-b and come back, with packets 0 and 1 at nat-b and 2 on the way to it.
fn rolled_back(limits: Limits) -> Rig {
    let mut rig = Rig::with(HeapBuffers, limits, WIDE);
    rig.redirect("nat-a", "nat-b", 1, false);
    rig.receive("inside", frame(0));
    rig.receive("inside", frame(1));
    rig.pass(DELAY);
    assert_eq!(rig.numbers("nat-b.in"), [0, 1]);
    rig.receive("inside", frame(2));
    rig.redirect("nat-b", "nat-a", 2, true);
    rig.sent("nat-a.in");
    rig.sent("nat-a.out");
    rig.events();
    rig
}

#[test]
fn what_is_handed_back_comes_before_what_arrived_meanwhile() {
    let mut rig = rolled_back(Limits::default());
    rig.receive("inside", frame(3));
    rig.receive("outside", frame(10));
    rig.pass(DELAY);
    let sent = rig.sent("nat-b.in");
    assert_eq!((sent.len(), number(&sent[0])), (2, 2));
    assert_eq!(as_drain(&sent[1]).unwrap().nonce, Nonce(2), "the drain packet tells nat-b that nothing follows");
    for number in 0..3 {
        rig.receive("nat-b.in", hand_back(0, &frame(number)));
    }
    rig.receive("inside", frame(4));
    rig.pass(2 * DELAY);
    assert_eq!(rig.numbers("nat-a.in"), [0, 1, 2], "held until the end is told");
    assert_eq!(rig.switch.redirect_state(MIGRATION).unwrap().held_packets, 3);

    rig.receive("nat-b.in", hand_back_end(0));
    rig.receive("nat-b.in", hand_back_end(0));
    rig.pass(DELAY);
    rig.receive("inside", frame(5));
    rig.pass(DELAY);
    assert_eq!(rig.numbers("nat-a.in"), [3, 4, 5]);
    assert!(rig.sent("nat-a.out").is_empty(), "the other port is still held");
    assert_eq!(rig.events(), []);

    rig.receive("nat-b.out", hand_back_end(1));
    rig.pass(2 * DELAY);
    assert_eq!(rig.numbers("nat-a.out"), [10]);
    assert_eq!(rig.events(), [finished(3, 3, 0, false)]);
    assert!(rig.switch.redirect_state(MIGRATION).unwrap().finished);
    rig.check();
}

#[test]
fn a_hold_ends_by_its_time_out_without_loss() {
    let mut rig = rolled_back(Limits::default());
    rig.receive("inside", frame(3));
    rig.pass(HOLD - Duration::from_nanos(1));
    assert!(rig.sent("nat-a.in").is_empty());
    rig.pass(Duration::from_nanos(1));
    rig.receive("inside", frame(4));
    rig.pass(DELAY);
    assert_eq!(rig.numbers("nat-a.in"), [3, 4]);
    assert_eq!(rig.events(), [finished(0, 1, 0, true)]);
    assert_eq!(rig.counter("hold_timeouts"), 1);
    rig.receive("nat-b.in", hand_back_end(0));
    rig.pass(DELAY);
    assert_eq!(rig.counter("hand_back_ends_stale"), 1);
    rig.check();
}

#[test]
fn a_full_hold_drops_and_counts() {
    let mut limits = Limits::default();
    limits.hold.packets = 2;
    let mut rig = rolled_back(limits);
    for number in 3..6 {
        rig.receive("inside", frame(number));
    }
    assert_eq!(rig.dropped(DropCause::HoldFull), 1);
    rig.pass(HOLD + DELAY);
    assert_eq!(rig.numbers("nat-a.in"), [3, 4]);
    assert_eq!(rig.events(), [finished(0, 2, 1, true)]);
    rig.check();
}

#[test]
fn the_hold_ends_at_once_when_nobody_is_left_to_hand_back() {
    let mut rig = rolled_back(Limits::default());
    rig.receive("inside", frame(3));
    rig.switch.remove_instance(rig.now, &name("nat-b")).unwrap();
    rig.pass(DELAY);
    assert_eq!(rig.numbers("nat-a.in"), [3]);
    let events = rig.events();
    assert!(matches!(events[0], SwitchEvent::DrainGivenUp { .. }), "{events:?}");
    assert_eq!(events[1..], [finished(0, 1, 0, true)]);
    assert!(rig.dropped(DropCause::Removed) > 0, "what was on the way to nat-b");
    rig.check();
}

#[test]
fn only_the_one_that_was_redirected_from_can_end_the_hold() {
    let mut rig = rolled_back(Limits::default());
    rig.receive("inside", frame(3));
    rig.receive("nat-a.in", hand_back_end(0));
    rig.receive("nat-a.in", hand_back_end(1));
    rig.pass(2 * DELAY);
    assert!(rig.sent("nat-a.in").is_empty());
    assert_eq!(rig.counter("hand_back_ends_stale"), 2);
}

#[test]
fn the_drain_of_the_stage_that_is_undone_ends() {
    let mut rig = rolled_back(Limits::default());
    rig.pass(Duration::from_millis(100));
    assert!(rig.sent("nat-a.in").is_empty());
    assert_eq!(rig.sent("nat-b.in").iter().filter(|frame| as_drain(frame).is_some()).count(), 5);
}

#[test]
fn a_rollback_of_what_never_happened_succeeds_and_holds_nothing() {
    let mut rig = Rig::new(WIDE);
    rig.redirect("nat-b", "nat-a", 2, true);
    rig.receive("inside", frame(1));
    rig.pass(DELAY);
    assert_eq!(rig.numbers("nat-a.in"), [1]);
    let drained = SwitchEvent::Drained { migration: MIGRATION, nonce: Nonce(2) };
    assert_eq!(rig.events(), [drained, finished(0, 0, 0, false)]);
}

#[test]
fn without_hold_time_packets_go_straight_to_the_old_instance() {
    let mut rig = Rig::new(WIDE);
    rig.redirect("nat-a", "nat-b", 1, false);
    let request = Redirect {
        migration: MIGRATION,
        nonce: Nonce(2),
        from: name("nat-b"),
        to: name("nat-a"),
        rollback: true,
        hold_max: Duration::ZERO,
    };
    rig.switch.redirect(rig.now, request).unwrap();
    assert_eq!(rig.events(), [finished(0, 0, 0, false)]);
    rig.receive("inside", frame(1));
    rig.pass(DELAY);
    assert_eq!(number(rig.sent("nat-a.in").last().unwrap()), 1);
}

#[test]
fn nothing_is_redirected_or_rebound_while_packets_are_held() {
    let mut rig = rolled_back(Limits::default());
    let again = Redirect {
        migration: MigrationId(7),
        nonce: Nonce(1),
        from: name("nat-a"),
        to: name("nat-b"),
        rollback: false,
        hold_max: Duration::ZERO,
    };
    let unfinished = crate::TopologyError::RollbackUnfinished(name("nat-a"));
    assert_eq!(rig.switch.redirect(rig.now, again.clone()), Err(unfinished.clone()));
    assert_eq!(rig.switch.set_paths(&name("nat-a"), &[]), Err(unfinished));
    rig.pass(HOLD);
    assert_eq!(rig.switch.redirect(rig.now, again), Ok(()), "the source can migrate again");
}

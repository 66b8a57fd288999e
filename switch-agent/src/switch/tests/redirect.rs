//! Redirect and drain.

use super::*;
use slim_core::protocol::{PathIndex, PathSet};

fn path(index: u8) -> PathIndex {
    PathIndex::new(index).unwrap()
}

fn ack(drain: Drain) -> Vec<u8> {
    encode(Frame::DrainAck(drain))
}

fn drain(index: u8) -> Drain {
    Drain { migration: MIGRATION, nonce: Nonce(1), path: path(index), paths: PathSet::first(2) }
}

#[test]
fn the_drain_packet_is_the_last_of_each_path_and_everything_later_goes_the_new_way() {
    let mut rig = Rig::new(LinkSettings::default());
    for number in 0..5 {
        rig.receive("inside", frame(number));
        rig.receive("outside", frame(number));
    }
    rig.redirect("nat-a", "nat-b", 1, false);
    for number in 5..9 {
        rig.receive("inside", frame(number));
        rig.receive("outside", frame(number));
    }
    rig.pass(DELAY);
    for (index, port) in ["nat-a.in", "nat-a.out"].into_iter().enumerate() {
        let sent = rig.sent(port);
        assert_eq!(sent[..5].iter().map(|frame| number(frame)).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!(as_drain(&sent[5]), Some(drain(index as u8)));
        assert_eq!(sent.len(), 6);
    }
    assert_eq!(rig.numbers("nat-b.in"), [5, 6, 7, 8]);
    assert_eq!(rig.numbers("nat-b.out"), [5, 6, 7, 8]);
    rig.check();
}

#[test]
fn the_drain_packet_stays_behind_what_waits_in_the_egress_queue() {
    let mut rig = Rig::new(WIDE);
    rig.receive("inside", frame(1));
    rig.pass(DELAY);
    rig.redirect("nat-a", "nat-b", 1, false);
    rig.pass(DELAY);
    let sent = rig.sent("nat-a.in");
    assert_eq!((number(&sent[0]), as_drain(&sent[1])), (1, Some(drain(0))));
}

#[test]
fn drain_packets_pass_an_empty_meter_and_full_queues() {
    let mut limits = Limits::default();
    limits.egress.packets = 1;
    limits.delay_packets = 1;
    let mut rig = Rig::with(HeapBuffers, limits, LinkSettings { rate_bps: 1, burst_bytes: 1_600, delay_us: 0 });
    for number in 0..100 {
        rig.receive("inside", frame(number));
    }
    assert!(rig.dropped(DropCause::MeterToInstance) > 0 && rig.dropped(DropCause::DelayFull) > 0);
    rig.redirect("nat-a", "nat-b", 1, false);
    rig.pass(Duration::ZERO);
    let sent = rig.sent("nat-a.in");
    assert_eq!((sent.len(), number(&sent[0]), as_drain(&sent[1])), (2, 0, Some(drain(0))));
    assert_eq!(as_drain(&rig.sent("nat-a.out")[0]), Some(drain(1)));
    rig.check();
}

#[test]
fn drain_packets_are_sent_again_until_acknowledged() {
    let mut rig = Rig::new(WIDE);
    rig.redirect("nat-a", "nat-b", 1, false);
    rig.pass(Duration::from_millis(50));
    // At 0, 20 and 40 ms.
    assert_eq!(rig.sent("nat-a.in").len(), 3);
    rig.receive("nat-a.in", ack(drain(0)));
    rig.pass(Duration::from_millis(50));
    assert!(rig.sent("nat-a.in").is_empty());
    assert_eq!(rig.sent("nat-a.out").len(), 5);
    let acked = |index| SwitchEvent::DrainAcked { migration: MIGRATION, nonce: Nonce(1), path: path(index) };
    assert_eq!(rig.events(), [acked(0)]);
    assert!(!rig.switch.redirect_state(MIGRATION).unwrap().drained);

    rig.receive("nat-a.out", ack(drain(1)));
    rig.pass(Duration::from_millis(50));
    assert_eq!(rig.events(), [acked(1), SwitchEvent::Drained { migration: MIGRATION, nonce: Nonce(1) }]);
    let state = rig.switch.redirect_state(MIGRATION).unwrap();
    assert!(state.drained && state.finished);
    assert_eq!(state.paths.iter().map(|path| path.external.as_str()).collect::<Vec<_>>(), ["inside", "outside"]);
    assert_eq!(rig.switch.next_deadline(), None, "nothing is left to do");
    assert_eq!(rig.counter("drains_sent"), 9);
    rig.check();
}

#[test]
fn acknowledgements_count_once_and_only_those_of_this_stage_and_instance() {
    let mut rig = Rig::new(WIDE);
    rig.redirect("nat-a", "nat-b", 1, false);
    rig.receive("nat-a.in", ack(drain(0)));
    rig.receive("nat-a.in", ack(drain(0)));
    rig.receive("nat-a.in", ack(Drain { nonce: Nonce(0), ..drain(1) }));
    rig.receive("nat-a.in", ack(Drain { migration: MigrationId(1), ..drain(1) }));
    rig.receive("nat-a.in", ack(Drain { path: path(5), paths: PathSet::first(9), ..drain(1) }));
    rig.receive("nat-b.in", ack(drain(1)));
    rig.pass(DELAY);
    let counted = ["drain_acks", "drain_acks_duplicate", "drain_acks_stale"].map(|name| rig.counter(name));
    assert_eq!(counted, [1, 1, 4]);
    assert!(!rig.switch.redirect_state(MIGRATION).unwrap().drained);
    rig.check();
}

fn given_up(unacknowledged: &[u8]) -> SwitchEvent {
    let unacknowledged = unacknowledged.iter().map(|&index| path(index)).collect();
    SwitchEvent::DrainGivenUp { migration: MIGRATION, nonce: Nonce(1), unacknowledged }
}

#[test]
fn a_drain_is_given_up_when_its_instance_goes() {
    let mut rig = Rig::new(WIDE);
    rig.redirect("nat-a", "nat-b", 1, false);
    rig.receive("nat-a.in", ack(drain(0)));
    rig.pass(DELAY);
    rig.events();
    rig.switch.remove_instance(rig.now, &name("nat-a")).unwrap();
    assert_eq!(rig.events(), [given_up(&[1])]);
}

#[test]
fn an_unanswered_drain_is_given_up_in_the_end() {
    let limits = Limits { drain_attempts_max: 3, ..Limits::default() };
    let mut rig = Rig::with(HeapBuffers, limits, WIDE);
    rig.redirect("nat-a", "nat-b", 1, false);
    rig.pass(Duration::from_secs(1));
    assert_eq!((rig.sent("nat-a.in").len(), rig.counter("drains_given_up")), (3, 1));
    assert_eq!(rig.events(), [given_up(&[0, 1])]);
    assert_eq!(rig.switch.next_deadline(), None);
}

#[test]
fn repeating_a_redirect_changes_nothing_and_reusing_its_nonce_is_refused() {
    let mut rig = Rig::new(WIDE);
    rig.redirect("nat-a", "nat-b", 1, false);
    rig.redirect("nat-a", "nat-b", 1, false);
    rig.pass(DELAY);
    assert_eq!(rig.sent("nat-a.in").len(), 1);
    let other = Redirect {
        migration: MIGRATION,
        nonce: Nonce(1),
        from: name("nat-b"),
        to: name("nat-a"),
        rollback: true,
        hold_max: Duration::ZERO,
    };
    assert!(rig.switch.redirect(rig.now, other).is_err());
    assert_eq!(rig.switch.redirect_states().len(), 1);
}

/// A copy that comes late belongs to a migration that is over.
#[test]
fn a_redirect_that_was_refused_stays_refused() {
    let mut rig = Rig::new(WIDE);
    let request = |migration, from, to| Redirect {
        migration: MigrationId(migration),
        nonce: Nonce(1),
        from: name(from),
        to: name(to),
        rollback: false,
        hold_max: Duration::ZERO,
    };
    let early = request(8, "nat-b", "nat-a");
    let refusal = rig.switch.redirect(rig.now, early.clone()).unwrap_err();
    rig.redirect("nat-a", "nat-b", 1, false);
    assert_eq!(rig.switch.redirect(rig.now, early), Err(refusal));
    rig.switch.redirect(rig.now, request(9, "nat-b", "nat-a")).unwrap();
}

/// A controller that has given up undoing a migration goes on to others.
#[test]
fn a_refused_rollback_may_be_repeated_until_another_migration_has_redirected() {
    let mut rig = Rig::new(WIDE);
    let request = |migration, nonce, from, to, rollback| Redirect {
        migration: MigrationId(migration),
        nonce: Nonce(nonce),
        from: name(from),
        to: name(to),
        rollback,
        hold_max: Duration::ZERO,
    };
    let [repeated, late] = [1, 2].map(|nonce| request(8, nonce, "nat-b", "nat-a", true));
    rig.switch.set_paths(&name("nat-a"), &[]).unwrap();
    let refusals = [&repeated, &late].map(|request| rig.switch.redirect(rig.now, request.clone()).unwrap_err());
    rig.switch.set_paths(&name("nat-b"), &bindings(&["inside", "outside"])).unwrap();
    rig.switch.redirect(rig.now, repeated).unwrap();
    rig.switch.redirect(rig.now, request(9, 1, "nat-a", "nat-b", false)).unwrap();
    assert_eq!(rig.switch.redirect(rig.now, late), Err(refusals[1].clone()));
}

#[test]
fn the_source_can_still_send_after_the_redirect() {
    let mut rig = Rig::new(WIDE);
    rig.redirect("nat-a", "nat-b", 1, false);
    rig.receive("nat-a.out", frame(1));
    rig.receive("nat-b.out", frame(2));
    rig.pass(DELAY);
    assert_eq!(rig.numbers("outside"), [1, 2]);
}

#[test]
fn paths_go_there_and_back_many_times() {
    let mut rig = Rig::new(WIDE);
    for (nonce, (from, to)) in [("nat-a", "nat-b"), ("nat-b", "nat-a")].into_iter().cycle().take(80).enumerate() {
        let (from, to) = (name(from), name(to));
        let request = Redirect {
            migration: MigrationId(nonce as u64),
            nonce: Nonce(0),
            from,
            to: to.clone(),
            rollback: false,
            hold_max: Duration::ZERO,
        };
        rig.switch.redirect(rig.now, request).unwrap();
        rig.receive("inside", frame(nonce as u32));
        rig.pass(DELAY);
        let sent = rig.sent(&format!("{to}.in"));
        assert_eq!(number(sent.last().unwrap()), nonce as u32);
    }
    assert_eq!(rig.switch.redirect_states().len(), Limits::REDIRECTS_MAX);
    rig.check();
}

#[test]
fn packets_handed_back_late_follow_to_the_new_instance() {
    let mut rig = Rig::new(WIDE);
    rig.redirect("nat-a", "nat-b", 1, false);
    // Also through another port than it had arrived on.
    rig.receive("nat-a.in", hand_back(0, &frame(1)));
    rig.receive("nat-a.in", hand_back(1, &frame(2)));
    rig.pass(2 * DELAY);
    assert_eq!((rig.numbers("nat-b.in"), rig.numbers("nat-b.out")), (vec![1], vec![2]));
    assert_eq!(rig.switch.redirect_state(MIGRATION).unwrap().handed_back_packets, 2);
    rig.check();
}

#[test]
fn inband_frames_never_cross_the_switch() {
    let mut rig = Rig::new(WIDE);
    let forged = encode(Frame::Drain(drain(0)));
    rig.receive("inside", forged.clone());
    rig.receive("outside", hand_back(0, &frame(1)));
    assert_eq!(rig.dropped(DropCause::InbandForbidden), 2);
    rig.receive("nat-b.in", forged.clone());
    rig.receive("nat-b.in", forged[..20].to_vec());
    rig.redirect("nat-a", "nat-b", 1, false);
    rig.pass(DELAY);
    assert_eq!(rig.dropped(DropCause::InbandMalformed), 2);
    rig.receive("nat-a.in", hand_back(0, &forged));
    rig.receive("nat-a.in", hand_back(7, &frame(1)));
    rig.receive("nat-b.in", hand_back(0, &frame(2)));
    rig.pass(2 * DELAY);
    assert_eq!(rig.dropped(DropCause::InbandForbidden), 3);
    assert_eq!((rig.dropped(DropCause::NoPath), rig.dropped(DropCause::HandBackLooped)), (1, 1));
    assert!(rig.sent("nat-b.in").is_empty() && rig.sent("inside").is_empty());
    rig.check();
}

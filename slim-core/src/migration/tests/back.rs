//! The way back from every phase, and where it ends when somebody cannot be asked.

use super::*;

/// Answers everything that undoing asks for as healthy parties do.
fn undo(bench: &mut Bench) {
    while bench.coordinator.outcome().is_none() {
        match bench.coordinator.phase() {
            CoordinatorPhase::AbortingSource => {
                bench.answer(SOURCE, is_abort, Ok(InstanceReply::Done));
            }
            CoordinatorPhase::RedirectingBack => {
                bench.answer_switch(is_redirect_back, Ok(SwitchReply::Done {}));
            }
            CoordinatorPhase::AbortingDestination => {
                bench.answer(DESTINATION, is_abort, Ok(InstanceReply::Done));
            }
            CoordinatorPhase::HandingBack => {
                bench.destination_phase(DestinationPhase::Discarded);
                if bench.coordinator.outcome().is_none() {
                    bench.handle(rollback_finished(BACK));
                }
            }
            other => panic!("no undoing in {other:?}"),
        }
    }
}

fn rollback_finished(nonce: Nonce) -> CoordinatorEvent {
    CoordinatorEvent::Switch(crate::protocol::control::SwitchEvent::RollbackFinished {
        migration: MIGRATION,
        nonce,
        handed_back_packets: 1,
        held_packets: 2,
        dropped_packets: 0,
        timed_out: false,
    })
}

const FORWARD: [CoordinatorPhase; 5] = [
    CoordinatorPhase::Checking,
    CoordinatorPhase::Preparing,
    CoordinatorPhase::Transferring,
    CoordinatorPhase::Redirecting,
    CoordinatorPhase::Draining,
];

#[test]
fn every_phase_before_the_take_over_can_be_aborted() {
    for phase in FORWARD {
        let mut bench = Bench::reach(phase);
        bench.coordinator.abort(bench.now, "operator").unwrap();
        bench.collect();
        if phase == CoordinatorPhase::Redirecting {
            bench.answer(SOURCE, is_abort, Ok(InstanceReply::Done));
            let state = Some(redirect_state(false, false));
            bench.answer_switch(is_redirect_status, Ok(SwitchReply::Redirect { state }));
        }
        undo(&mut bench);
        assert_eq!(bench.rolled_back(), FailureCode::Aborted, "{phase:?}");
        assert_eq!(bench.coordinator.abort(bench.now, "again"), Ok(()));
    }
}

#[test]
fn every_phase_before_the_take_over_has_a_time_out() {
    for phase in FORWARD {
        let mut bench = Bench::reach(phase);
        bench.time_out();
        let expected =
            if phase < CoordinatorPhase::Transferring { None } else { Some(CoordinatorPhase::AbortingSource) };
        let next = bench.phases.iter().skip_while(|&&entered| entered != phase).nth(1).copied();
        match expected {
            Some(expected) => assert_eq!(next, Some(expected), "{phase:?}"),
            // The source has not been asked for anything: it need not be told.
            None => assert!(!bench.phases.contains(&CoordinatorPhase::AbortingSource)),
        }
    }
}

#[test]
fn a_migration_that_was_redirected_is_undone_in_this_order() {
    let mut bench = Bench::reach(CoordinatorPhase::Draining);
    bench.source_phase(SourcePhase::RollingBack);
    bench.failed(SOURCE, FailureCode::StreamLost);
    let abort = bench.answer(SOURCE, is_abort, Ok(InstanceReply::Done));
    assert!(matches!(abort, InstanceRequest::Abort { migration: MIGRATION, hand_back: None, .. }));
    assert!(bench.instance_calls.is_empty(), "the destination must not let go before the paths lead back");
    let back = bench.answer_switch(is_redirect_back, Ok(SwitchReply::Done {}));
    let (from, to, hold_ms) = (name("nat-b"), name("nat-a"), CoordinatorTimeouts::default().hold_ms);
    assert_eq!(back, SwitchRequest::Redirect { migration: MIGRATION, from, to, nonce: BACK, rollback: true, hold_ms });
    let abort = bench.answer(DESTINATION, is_abort, Ok(InstanceReply::Done));
    assert!(matches!(abort, InstanceRequest::Abort { hand_back: Some(BACK), .. }), "{abort:?}");
    bench.destination_phase(DestinationPhase::Discarded);
    bench.handle(rollback_finished(NONCE));
    assert!(bench.coordinator.outcome().is_none(), "that was another stage");
    bench.handle(rollback_finished(BACK));
    // The phase came before the reason, so the reason is not known for certain; it never is empty.
    assert!(matches!(bench.outcome(), Outcome::RolledBack { remark: None, .. }));
}

#[test]
fn a_destination_that_fails_names_the_reason() {
    let mut bench = Bench::reach(CoordinatorPhase::Transferring);
    bench.answer(SOURCE, is_start, Ok(InstanceReply::Done));
    bench.failed(DESTINATION, FailureCode::SnapshotRejected);
    bench.destination_phase(DestinationPhase::Failed);
    undo(&mut bench);
    assert_eq!(bench.rolled_back(), FailureCode::SnapshotRejected);
}

#[test]
fn the_switch_is_asked_how_far_the_rollback_is_in_case_its_event_got_lost() {
    let mut bench = Bench::reach(CoordinatorPhase::Draining);
    bench.coordinator.abort(bench.now, "operator").unwrap();
    bench.collect();
    bench.answer(SOURCE, is_abort, Ok(InstanceReply::Done));
    bench.answer_switch(is_redirect_back, Ok(SwitchReply::Done {}));
    bench.answer(DESTINATION, is_abort, Ok(InstanceReply::Done));
    bench.destination_phase(DestinationPhase::Discarded);
    for finished in [false, true] {
        assert!(bench.coordinator.outcome().is_none());
        bench.now += Duration::from_millis(500);
        bench.coordinator.handle_timeout(bench.now);
        bench.collect();
        let state = Some(redirect_state(true, finished));
        bench.answer_switch(is_redirect_status, Ok(SwitchReply::Redirect { state }));
    }
    assert_eq!(bench.rolled_back(), FailureCode::Aborted);
}

#[test]
fn a_refused_start_leaves_a_live_source_and_a_discarded_destination() {
    let mut bench = Bench::reach(CoordinatorPhase::Transferring);
    bench.answer(SOURCE, is_start, Err(refusal(ErrorCode::WrongRole)));
    bench.answer(SOURCE, is_abort, Err(refusal(ErrorCode::UnknownMigration)));
    let live = status("nat-a", InstanceRole::Live, None);
    bench.answer(SOURCE, is_status, Ok(InstanceReply::Status(Box::new(live))));
    let abort = bench.answer(DESTINATION, is_abort, Ok(InstanceReply::Done));
    assert!(matches!(abort, InstanceRequest::Abort { hand_back: None, .. }), "no path ever led there");
    bench.destination_phase(DestinationPhase::Discarded);
    assert_eq!(bench.rolled_back(), FailureCode::Refused);
}

#[test]
fn a_source_that_still_lets_go_of_the_migration_before_is_asked_again() {
    let mut bench = Bench::reach(CoordinatorPhase::Transferring);
    bench.answer(SOURCE, is_start, Err(refusal(ErrorCode::Busy)));
    bench.now += Duration::from_millis(250);
    bench.coordinator.handle_timeout(bench.now);
    bench.collect();
    bench.answer(SOURCE, is_start, Ok(InstanceReply::Done));
    assert_eq!(bench.coordinator.phase(), CoordinatorPhase::Transferring);
}

#[test]
fn a_refused_prepare_needs_no_undoing() {
    let mut bench = Bench::reach(CoordinatorPhase::Preparing);
    bench.answer(DESTINATION, is_prepare, Err(refusal(ErrorCode::Incompatible)));
    bench.answer(DESTINATION, is_abort, Err(refusal(ErrorCode::UnknownMigration)));
    assert_eq!(bench.rolled_back(), FailureCode::Incompatible);
}

#[test]
fn whether_a_redirect_was_carried_out_is_asked_before_it_is_undone() {
    for carried_out in [false, true] {
        let mut bench = Bench::reach(CoordinatorPhase::Redirecting);
        bench.answer_switch(is_redirect, Err(unreachable()));
        bench.coordinator.abort(bench.now, "operator").unwrap();
        bench.collect();
        bench.answer(SOURCE, is_abort, Ok(InstanceReply::Done));
        let state = carried_out.then(|| redirect_state(false, false));
        bench.answer_switch(is_redirect_status, Ok(SwitchReply::Redirect { state }));
        if carried_out {
            bench.answer_switch(is_redirect_back, Ok(SwitchReply::Done {}));
        }
        let abort = bench.answer(DESTINATION, is_abort, Ok(InstanceReply::Done));
        let InstanceRequest::Abort { hand_back, .. } = abort else { unreachable!() };
        assert_eq!(hand_back, carried_out.then_some(BACK));
    }
}

#[test]
fn an_instance_that_was_restarted_is_noticed() {
    for (role, instance) in [(SOURCE, "nat-a"), (DESTINATION, "nat-b")] {
        let mut bench = Bench::reach(CoordinatorPhase::Transferring);
        bench.answer(SOURCE, is_start, Ok(InstanceReply::Done));
        bench.now += Duration::from_millis(500);
        bench.coordinator.handle_timeout(bench.now);
        bench.collect();
        let fresh = status(instance, InstanceRole::Idle, None);
        bench.answer(role, is_status, Ok(InstanceReply::Status(Box::new(fresh))));
        assert_eq!(bench.coordinator.phase(), CoordinatorPhase::AbortingSource);
        assert_eq!(
            bench.coordinator.progress(bench.now).failure.map(|failure| failure.code),
            Some(FailureCode::Unreachable)
        );
    }
}

/// An abort that comes when the source has committed.
fn committed() -> Bench {
    let mut bench = Bench::reach(CoordinatorPhase::Draining);
    bench.coordinator.abort(bench.now, "operator").unwrap();
    bench.collect();
    bench.answer(SOURCE, is_abort, Err(refusal(ErrorCode::Committed)));
    assert_eq!(bench.coordinator.phase(), CoordinatorPhase::Resolving);
    bench
}

#[test]
fn an_abort_that_is_too_late_completes() {
    let mut bench = committed();
    bench.answer(DESTINATION, is_abort, Err(refusal(ErrorCode::Committed)));
    assert_eq!(bench.coordinator.abort(bench.now, "again"), Err(TooLate));
    bench.answer(SOURCE, is_release, Ok(InstanceReply::Done));
    bench.step();
    let Outcome::Completed { digests_equal: Some(true), remark: Some(remark), .. } = bench.outcome() else {
        panic!("{:?}", bench.outcome());
    };
    assert!(remark.as_str().contains("too late to undo: operator"), "{remark}");
}

#[test]
fn a_committed_source_resumes_once_the_destination_has_given_up() {
    let mut bench = committed();
    assert!(bench.switch_calls.is_empty() && bench.instance_calls.len() == 1);
    bench.answer(DESTINATION, is_abort, Ok(InstanceReply::Done));
    assert!(bench.switch_calls.is_empty(), "nobody would process what came back");
    bench.answer(SOURCE, is_resume, Ok(InstanceReply::Done));
    undo(&mut bench);
    assert_eq!(bench.rolled_back(), FailureCode::Aborted);
}

#[test]
fn a_committed_source_resumes_if_the_destination_was_restarted() {
    let mut bench = committed();
    bench.answer(DESTINATION, is_abort, Err(refusal(ErrorCode::UnknownMigration)));
    bench.answer(SOURCE, is_resume, Ok(InstanceReply::Done));
    bench.answer_switch(is_redirect_back, Ok(SwitchReply::Done {}));
    bench.answer(DESTINATION, is_abort, Err(refusal(ErrorCode::UnknownMigration)));
    bench.handle(rollback_finished(BACK));
    assert_eq!(bench.rolled_back(), FailureCode::Aborted);
}

#[test]
fn a_committed_source_must_not_resume_while_the_destination_cannot_be_asked() {
    let mut bench = committed();
    bench.time_out();
    let Outcome::Unresolved { failure, what_to_do } = bench.outcome() else { panic!("{:?}", bench.outcome()) };
    assert_eq!(failure.code, FailureCode::Aborted);
    assert!(what_to_do.as_str().contains("nat-b") && what_to_do.as_str().contains("nat-a"), "{what_to_do}");
    assert!(!bench.phases.contains(&CoordinatorPhase::RedirectingBack));
}

#[test]
fn a_source_that_cannot_be_asked_does_not_matter_if_the_destination_is_live() {
    let mut bench = Bench::reach(CoordinatorPhase::Draining);
    bench.coordinator.abort(bench.now, "operator").unwrap();
    bench.collect();
    bench.time_out();
    assert_eq!(bench.coordinator.phase(), CoordinatorPhase::Resolving);
    bench.handle(CoordinatorEvent::Connected(Party::Destination));
    bench.coordinator.handle_timeout(bench.now);
    bench.collect();
    bench.answer(DESTINATION, is_abort, Err(refusal(ErrorCode::Committed)));
    bench.finished(DESTINATION, 1);
    let Outcome::Completed { source: None, remark: Some(remark), .. } = bench.outcome() else {
        panic!("{:?}", bench.outcome());
    };
    assert!(remark.as_str().contains("nat-a"), "{remark}");
}

#[test]
fn a_source_that_is_gone_is_left_to_an_operator_with_the_paths_leading_back() {
    let mut bench = Bench::reach(CoordinatorPhase::Draining);
    bench.destination_phase(DestinationPhase::Failed);
    bench.answer(SOURCE, is_abort, Err(unreachable()));
    bench.time_out();
    bench.handle(CoordinatorEvent::Connected(Party::Destination));
    bench.coordinator.handle_timeout(bench.now);
    bench.collect();
    bench.answer(DESTINATION, is_abort, Ok(InstanceReply::Done));
    bench.answer_switch(is_redirect_back, Ok(SwitchReply::Done {}));
    bench.answer(DESTINATION, is_abort, Ok(InstanceReply::Done));
    bench.destination_phase(DestinationPhase::Discarded);
    bench.handle(rollback_finished(BACK));
    let Outcome::Unresolved { what_to_do, .. } = bench.outcome() else { panic!("{:?}", bench.outcome()) };
    assert!(what_to_do.as_str().contains("nat-a"), "{what_to_do}");
}

#[test]
fn a_source_that_was_restarted_has_lost_its_state() {
    let mut bench = Bench::reach(CoordinatorPhase::Draining);
    bench.destination_phase(DestinationPhase::Failed);
    bench.answer(SOURCE, is_abort, Err(refusal(ErrorCode::UnknownMigration)));
    let fresh = status("nat-a", InstanceRole::Idle, None);
    bench.answer(SOURCE, is_status, Ok(InstanceReply::Status(Box::new(fresh))));
    assert_eq!(bench.coordinator.phase(), CoordinatorPhase::Resolving);
}

#[test]
fn a_switch_that_is_gone_is_left_to_an_operator() {
    let mut bench = Bench::reach(CoordinatorPhase::Draining);
    bench.coordinator.abort(bench.now, "operator").unwrap();
    bench.collect();
    bench.answer(SOURCE, is_abort, Ok(InstanceReply::Done));
    bench.time_out();
    let Outcome::Unresolved { what_to_do, .. } = bench.outcome() else { panic!("{:?}", bench.outcome()) };
    assert!(what_to_do.as_str().contains("switch"), "{what_to_do}");
}

#[test]
fn a_destination_that_is_gone_is_remarked_upon() {
    let mut bench = Bench::reach(CoordinatorPhase::Transferring);
    bench.answer(SOURCE, is_start, Ok(InstanceReply::Done));
    bench.coordinator.abort(bench.now, "operator").unwrap();
    bench.collect();
    bench.answer(SOURCE, is_abort, Ok(InstanceReply::Done));
    bench.time_out();
    let Outcome::RolledBack { remark: Some(remark), .. } = bench.outcome() else { panic!("{:?}", bench.outcome()) };
    assert!(remark.as_str().contains("nat-b"), "{remark}");
}

#[test]
fn two_live_instances_are_an_operators_business() {
    let mut bench = Bench::reach(CoordinatorPhase::Draining);
    bench.coordinator.abort(bench.now, "operator").unwrap();
    bench.collect();
    bench.answer(SOURCE, is_abort, Ok(InstanceReply::Done));
    bench.answer_switch(is_redirect_back, Ok(SwitchReply::Done {}));
    bench.answer(DESTINATION, is_abort, Err(refusal(ErrorCode::Committed)));
    assert!(matches!(bench.outcome(), Outcome::Unresolved { .. }));
}

#[test]
fn replies_of_the_wrong_kind_are_failures_not_panics() {
    let mut bench = Bench::new();
    bench.answer(SOURCE, is_describe, Ok(InstanceReply::Done));
    assert_eq!(bench.rolled_back(), FailureCode::Refused);
    let mut bench = Bench::reach(CoordinatorPhase::Redirecting);
    bench.answer_switch(is_redirect, Ok(SwitchReply::Ports { ports: Vec::new() }));
    assert_eq!(bench.coordinator.phase(), CoordinatorPhase::AbortingSource);
}

#[test]
fn when_it_is_over_nothing_changes_any_more() {
    let mut bench = Bench::reach(CoordinatorPhase::Completed);
    let outcome = bench.outcome().clone();
    bench.destination_phase(DestinationPhase::Failed);
    bench.source_phase(SourcePhase::RolledBack);
    assert_eq!(*bench.outcome(), outcome);
    assert_eq!(bench.coordinator.poll_timeout(), None);
    assert_eq!(bench.coordinator.abort(bench.now, "late"), Err(TooLate));
}

//! A controller that was restarted: what it reads back decides how it goes on.

use super::*;

fn read(
    source: Option<SourcePhase>,
    destination: Option<DestinationPhase>,
    redirect: Option<RedirectState>,
) -> ReadBack {
    let source_role = if source.is_some() { InstanceRole::Source } else { InstanceRole::Live };
    let destination_role = if destination.is_some() { InstanceRole::Destination } else { InstanceRole::Idle };
    ReadBack {
        migration: MIGRATION,
        source: name("nat-a"),
        destination: name("nat-b"),
        source_status: Some(status("nat-a", source_role, source.map(MigrationPhase::Source))),
        destination_status: Some(status("nat-b", destination_role, destination.map(MigrationPhase::Destination))),
        redirect: Some(redirect),
        timeouts: CoordinatorTimeouts::default(),
    }
}

fn recovered(read: ReadBack) -> Bench {
    Bench::with(Coordinator::recover(Instant::ZERO, read))
}

#[test]
fn before_the_start_it_undoes() {
    let mut bench = recovered(read(None, Some(DestinationPhase::Armed), None));
    assert!(bench.switch_calls.is_empty());
    bench.answer(DESTINATION, is_abort, Ok(InstanceReply::Done));
    bench.destination_phase(DestinationPhase::Discarded);
    assert_eq!(bench.rolled_back(), FailureCode::Aborted);
}

#[test]
fn during_the_transfer_it_waits() {
    let mut bench = recovered(read(Some(SourcePhase::Transferring), Some(DestinationPhase::Installing), None));
    assert_eq!(bench.coordinator.phase(), CoordinatorPhase::Transferring);
    assert!(bench.switch_calls.is_empty() && bench.instance_calls.is_empty());
    bench.tell(DESTINATION, InstanceEvent::RedirectWanted { migration: MIGRATION });
    let redirect = bench.answer_switch(is_redirect, Ok(SwitchReply::Done {}));
    let SwitchRequest::Redirect { nonce, .. } = redirect else { unreachable!() };
    assert_eq!(nonce, NONCE, "the nonce that the source waits for");
    bench.step();
    bench.step();
    assert!(matches!(bench.outcome(), Outcome::Completed { .. }));
}

#[test]
fn a_redirect_that_is_wanted_is_made() {
    let mut bench = recovered(read(Some(SourcePhase::Draining), Some(DestinationPhase::Redirecting), None));
    bench.answer_switch(is_redirect, Ok(SwitchReply::Done {}));
    assert_eq!(bench.coordinator.phase(), CoordinatorPhase::Draining);
}

#[test]
fn a_redirect_of_which_nothing_is_known_is_repeated() {
    let read =
        ReadBack { redirect: None, ..read(Some(SourcePhase::Draining), Some(DestinationPhase::Redirecting), None) };
    let mut bench = recovered(read);
    bench.answer_switch(is_redirect, Ok(SwitchReply::Done {}));
    assert_eq!(bench.coordinator.phase(), CoordinatorPhase::Draining);
}

#[test]
fn after_the_redirect_it_waits_for_the_end() {
    let state = Some(redirect_state(false, false));
    let mut bench = recovered(read(Some(SourcePhase::Flushing), Some(DestinationPhase::Redirecting), state));
    assert_eq!(bench.coordinator.phase(), CoordinatorPhase::Draining);
    bench.step();
    bench.step();
    assert!(matches!(bench.outcome(), Outcome::Completed { .. }));
}

#[test]
fn what_is_done_is_recognised() {
    let state = Some(redirect_state(false, true));
    let bench = recovered(read(Some(SourcePhase::Released), Some(DestinationPhase::Live), state));
    assert!(matches!(bench.outcome(), Outcome::Completed { digests_equal: Some(true), .. }));
}

#[test]
fn a_source_that_waits_for_a_word_gets_it() {
    let state = Some(redirect_state(false, true));
    let mut bench = recovered(read(Some(SourcePhase::Unacknowledged), Some(DestinationPhase::Live), state));
    bench.answer(SOURCE, is_release, Ok(InstanceReply::Done));
    assert!(bench.phases.contains(&CoordinatorPhase::Finishing));
}

#[test]
fn undoing_goes_on() {
    let state = Some(redirect_state(true, false));
    let mut bench = recovered(read(Some(SourcePhase::RolledBack), Some(DestinationPhase::HandingBack), state));
    bench.answer(SOURCE, is_abort, Ok(InstanceReply::Done));
    let back = bench.answer_switch(is_redirect_back, Ok(SwitchReply::Done {}));
    let SwitchRequest::Redirect { nonce, .. } = back else { unreachable!() };
    assert_eq!(nonce, BACK);
    bench.answer(DESTINATION, is_abort, Ok(InstanceReply::Done));
    bench.destination_phase(DestinationPhase::Discarded);
    bench.now += Duration::from_millis(500);
    bench.coordinator.handle_timeout(bench.now);
    bench.collect();
    let state = Some(redirect_state(true, true));
    bench.answer_switch(is_redirect_status, Ok(SwitchReply::Redirect { state }));
    assert_eq!(bench.rolled_back(), FailureCode::Aborted);
}

#[test]
fn a_side_that_has_failed_meanwhile_is_undone() {
    for (source, destination) in [
        (SourcePhase::RolledBack, DestinationPhase::Failed),
        (SourcePhase::Transferring, DestinationPhase::Failed),
        (SourcePhase::RolledBack, DestinationPhase::Installing),
    ] {
        let mut bench = recovered(read(Some(source), Some(destination), None));
        bench.answer(SOURCE, is_abort, Ok(InstanceReply::Done));
        let abort = bench.answer(DESTINATION, is_abort, Ok(InstanceReply::Done));
        assert!(matches!(abort, InstanceRequest::Abort { hand_back: None, .. }));
    }
}

#[test]
fn an_instance_that_cannot_be_asked_may_have_begun() {
    let read = ReadBack { source_status: None, ..read(None, Some(DestinationPhase::Installing), None) };
    let bench = recovered(read);
    assert_eq!(bench.coordinator.phase(), CoordinatorPhase::Transferring);
}

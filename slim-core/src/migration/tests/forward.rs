//! The way forward, and what can stop it.

use super::*;

#[test]
fn everybody_is_asked_in_this_order() {
    let mut bench = Bench::new();
    assert_eq!((bench.instance_calls.len(), bench.switch_calls.len()), (2, 1));
    bench.check(|_, _, _| {});

    let prepare = bench.answer(DESTINATION, is_prepare, Ok(InstanceReply::Done));
    let options = PrepareOptions { source: Some(name("nat-a")), ..PrepareOptions::default() };
    let (kind, schema) = (name("nat"), Schema(1));
    assert_eq!(prepare, InstanceRequest::Prepare { migration: MIGRATION, kind, schema, shards: 1, options });
    assert_eq!(bench.coordinator.phase(), CoordinatorPhase::Preparing, "not armed yet");
    bench.destination_phase(DestinationPhase::Armed);

    let start = bench.answer(SOURCE, is_start, Ok(InstanceReply::Done));
    let expected = InstanceRequest::Start {
        migration: MIGRATION,
        destination: "10.3.0.12:7002".parse().unwrap(),
        paths: PathSet::first(2),
        nonce: NONCE,
        options: StartOptions { destination: Some(name("nat-b")), ..StartOptions::default() },
    };
    assert_eq!(start, expected);
    for phase in [DestinationPhase::Installing, DestinationPhase::Synchronising] {
        bench.destination_phase(phase);
        assert!(bench.switch_calls.is_empty(), "no redirect before it is wanted");
    }
    bench.tell(DESTINATION, InstanceEvent::RedirectWanted { migration: MIGRATION });

    let redirect = bench.answer_switch(is_redirect, Ok(SwitchReply::Done {}));
    let (from, to) = (name("nat-a"), name("nat-b"));
    let expected =
        SwitchRequest::Redirect { migration: MIGRATION, from, to, nonce: NONCE, rollback: false, hold_ms: 0 };
    assert_eq!(redirect, expected);
    bench.step();
    bench.step();
    let phases = [
        CoordinatorPhase::Checking,
        CoordinatorPhase::Preparing,
        CoordinatorPhase::Transferring,
        CoordinatorPhase::Redirecting,
        CoordinatorPhase::Draining,
        CoordinatorPhase::Finishing,
        CoordinatorPhase::Completed,
    ];
    assert_eq!(bench.phases, phases);
    assert_eq!(bench.instance_calls, []);
    assert_eq!(bench.switch_calls, []);
    let (source, destination) = (Some(report(1)), Some(report(1)));
    let expected = Outcome::Completed { source, destination, digests_equal: Some(true), remark: None };
    assert_eq!(*bench.outcome(), expected);
}

#[test]
fn digests_that_differ_are_reported() {
    let mut bench = Bench::reach(CoordinatorPhase::Finishing);
    bench.finished(SOURCE, 1);
    bench.finished(DESTINATION, 2);
    assert!(matches!(bench.outcome(), Outcome::Completed { digests_equal: Some(false), .. }));
}

#[test]
fn reports_that_do_not_come_are_not_waited_for_forever() {
    let mut bench = Bench::reach(CoordinatorPhase::Finishing);
    bench.finished(DESTINATION, 2);
    bench.time_out();
    let Outcome::Completed { source: None, destination: Some(_), digests_equal: None, remark: Some(_) } =
        bench.outcome()
    else {
        panic!("{:?}", bench.outcome());
    };
}

#[test]
fn what_does_not_fit_is_refused_before_anybody_is_asked_to_do_anything() {
    type Change = fn(&mut Description, &mut Description, &mut Vec<InstancePaths>);
    let changes: [(Change, FailureCode, &str); 9] = [
        (|_, destination, _| destination.kind = name("ids"), FailureCode::Incompatible, "kind"),
        (|_, destination, _| destination.schema = Schema(2), FailureCode::Incompatible, "schema"),
        (|source, _, _| source.shards = 2, FailureCode::Incompatible, "shards"),
        (|source, _, _| source.role = InstanceRole::Idle, FailureCode::Refused, "not live"),
        (|_, destination, _| destination.role = InstanceRole::Live, FailureCode::Refused, "not idle"),
        (|source, destination, _| source.name = destination.name.clone(), FailureCode::Refused, "same instance"),
        (|_, _, instances| drop(instances.pop()), FailureCode::Refused, "does not know"),
        (|_, _, instances| instances[0].paths.clear(), FailureCode::Refused, "no path"),
        (|_, _, instances| instances[1] = paths_of("nat-b", true), FailureCode::Refused, "already lead"),
    ];
    for (change, code, word) in changes {
        let mut bench = Bench::new();
        bench.check(change);
        assert_eq!(bench.rolled_back(), code, "{word}");
        let Outcome::RolledBack { failure, .. } = bench.outcome() else { unreachable!() };
        assert!(failure.message.as_str().contains(word), "{failure} does not say {word}");
        assert!(bench.instance_calls.is_empty() && bench.switch_calls.is_empty());
    }
}

#[test]
fn a_destination_without_room_for_the_state_is_refused_before_anything_begins() {
    let with = |capacity: &[(&str, u64)]| capacity.iter().map(|(name, value)| ((*name).into(), *value)).collect();
    let source = [("table.sessions", 1000), ("pkt_q_bytes", 5)];
    let roomy = [("table.sessions", 1000), ("memory_needed_bytes", 100), ("memory_available_bytes", 100)];
    let small = [("table.sessions", 500)];
    let large = [("table.sessions", 2000)];
    let other = [("table.hosts", 1000)];
    let short = [("table.sessions", 1000), ("memory_needed_bytes", 100), ("memory_available_bytes", 99)];
    type Capacity = [(&'static str, u64)];
    let cases: [(&Capacity, Option<(FailureCode, &str)>); 5] = [
        (&roomy, None),
        (&small, Some((FailureCode::Incompatible, "sessions holds up to 1000 entries in src_inst, 500 in dst_inst"))),
        (&large, Some((FailureCode::Incompatible, "2000 in dst_inst"))),
        (&other, Some((FailureCode::Incompatible, "dst_inst has no table sessions"))),
        (&short, Some((FailureCode::MemoryShort, "may need 100 bytes and has 99"))),
    ];
    for (destination, expected) in cases {
        let mut bench = Bench::new();
        bench.check(|described, other, _| {
            described.capacity = with(&source);
            other.capacity = with(destination);
        });
        let Some((code, words)) = expected else {
            assert_eq!(bench.coordinator.phase(), CoordinatorPhase::Preparing);
            continue;
        };
        assert_eq!(bench.rolled_back(), code);
        let Outcome::RolledBack { failure, .. } = bench.outcome() else { unreachable!() };
        assert!(failure.message.as_str().contains(words), "{failure} does not say {words}");
        assert!(bench.instance_calls.is_empty() && bench.switch_calls.is_empty());
    }
}

#[test]
fn ports_must_be_as_many() {
    let mut bench = Bench::new();
    bench.check(|_, _, instances| drop(instances[1].ports.pop()));
    assert_eq!(bench.rolled_back(), FailureCode::Refused);
}

#[test]
fn events_of_other_migrations_are_ignored() {
    let mut bench = Bench::reach(CoordinatorPhase::Transferring);
    bench.answer(SOURCE, is_start, Ok(InstanceReply::Done));
    let other = MigrationId(8);
    bench.tell(DESTINATION, InstanceEvent::RedirectWanted { migration: other });
    let phase = MigrationPhase::Destination(DestinationPhase::Failed);
    let instance_role = InstanceRole::Destination;
    bench.tell(DESTINATION, InstanceEvent::PhaseChanged { migration: other, phase, instance_role });
    // Nor does one side speak for the other.
    bench.tell(SOURCE, InstanceEvent::RedirectWanted { migration: MIGRATION });
    assert_eq!(bench.coordinator.phase(), CoordinatorPhase::Transferring);
}

#[test]
fn what_comes_twice_or_late_changes_nothing() {
    let mut bench = Bench::new();
    bench.echo = Some(Vec::new());
    while bench.coordinator.outcome().is_none() {
        bench.step();
    }
    let mut once = Bench::reach(CoordinatorPhase::Finishing);
    once.step();
    assert_eq!(bench.outcome(), once.outcome());
    assert_eq!(bench.phases.len(), 7, "no phase is entered twice: {:?}", bench.phases);
    assert_eq!((bench.instance_calls.len(), bench.switch_calls.len()), (0, 0), "nothing is asked for twice");
}

#[test]
fn what_could_not_be_sent_is_sent_again_soon_and_at_once_after_a_reconnection() {
    let mut bench = Bench::reach(CoordinatorPhase::Preparing);
    bench.answer(DESTINATION, is_prepare, Err(unreachable()));
    assert_eq!(bench.instance_calls, []);
    let due = bench.coordinator.poll_timeout().unwrap();
    assert_eq!(due, bench.now + Duration::from_millis(200));
    bench.now = due;
    bench.coordinator.handle_timeout(due);
    bench.collect();
    bench.answer(DESTINATION, is_prepare, Err(unreachable()));
    bench.handle(CoordinatorEvent::Connected(Party::Switch));
    assert!(!bench.instance_calls.iter().any(|(.., request)| is_prepare(request)), "that was somebody else");
    bench.handle(CoordinatorEvent::Connected(Party::Destination));
    assert_eq!(bench.coordinator.poll_timeout(), Some(bench.now));
    bench.coordinator.handle_timeout(bench.now);
    bench.collect();
    bench.answer(DESTINATION, is_prepare, Ok(InstanceReply::Done));
}

#[test]
fn a_status_tells_all_that_lost_events_told() {
    let mut bench = Bench::reach(CoordinatorPhase::Preparing);
    bench.answer(DESTINATION, is_prepare, Ok(InstanceReply::Done));
    let poll = |bench: &mut Bench, source: Option<SourcePhase>, destination: DestinationPhase| {
        bench.now += Duration::from_millis(500);
        bench.coordinator.handle_timeout(bench.now);
        bench.collect();
        if let Some(phase) = source {
            let status = status("nat-a", InstanceRole::Source, Some(MigrationPhase::Source(phase)));
            bench.answer(SOURCE, is_status, Ok(InstanceReply::Status(Box::new(status))));
        }
        let phase = Some(MigrationPhase::Destination(destination));
        let status = status("nat-b", InstanceRole::Destination, phase);
        bench.answer(DESTINATION, is_status, Ok(InstanceReply::Status(Box::new(status))));
    };
    poll(&mut bench, None, DestinationPhase::Armed);
    assert_eq!(bench.coordinator.phase(), CoordinatorPhase::Transferring);
    bench.answer(SOURCE, is_start, Ok(InstanceReply::Done));
    poll(&mut bench, Some(SourcePhase::Draining), DestinationPhase::Redirecting);
    bench.answer_switch(is_redirect, Ok(SwitchReply::Done {}));
    poll(&mut bench, Some(SourcePhase::Released), DestinationPhase::Live);
    assert_eq!(bench.coordinator.phase(), CoordinatorPhase::Finishing);
    poll(&mut bench, Some(SourcePhase::Released), DestinationPhase::Live);
    assert!(matches!(bench.outcome(), Outcome::Completed { digests_equal: Some(true), remark: None, .. }));
}

#[test]
fn an_acknowledgement_that_got_lost_is_made_good() {
    let mut bench = Bench::reach(CoordinatorPhase::Draining);
    bench.source_phase(SourcePhase::Unacknowledged);
    bench.failed(SOURCE, FailureCode::Unacknowledged);
    assert_eq!(bench.coordinator.phase(), CoordinatorPhase::Draining, "the destination may still take over");
    bench.destination_phase(DestinationPhase::TakingOver);
    bench.answer(SOURCE, is_release, Ok(InstanceReply::Done));
    assert_eq!(bench.coordinator.phase(), CoordinatorPhase::Finishing);
}

#[test]
fn a_released_source_implies_a_destination_that_has_taken_over() {
    let mut bench = Bench::reach(CoordinatorPhase::Draining);
    bench.source_phase(SourcePhase::Released);
    assert_eq!(bench.coordinator.phase(), CoordinatorPhase::Finishing);
}

#[test]
fn a_source_that_cannot_be_released_is_remarked_upon() {
    let mut bench = Bench::reach(CoordinatorPhase::Draining);
    bench.destination_phase(DestinationPhase::Live);
    bench.finished(DESTINATION, 1);
    bench.time_out();
    let Outcome::Completed { remark: Some(remark), .. } = bench.outcome() else { panic!("{:?}", bench.outcome()) };
    assert!(remark.as_str().contains("nat-a"), "{remark}");
}

#[test]
fn progress_shows_phases_and_reports() {
    let mut bench = Bench::reach(CoordinatorPhase::Draining);
    bench.now += Duration::from_millis(3);
    bench.source_phase(SourcePhase::Flushing);
    let progress = bench.coordinator.progress(bench.now);
    assert_eq!(progress.phase, CoordinatorPhase::Draining);
    assert_eq!(progress.in_phase, Duration::from_millis(3));
    assert_eq!(progress.source, Some(SourcePhase::Flushing));
    assert_eq!(progress.destination, Some(DestinationPhase::Redirecting));
    assert_eq!(progress.phases.last().map(|entry| entry.duration_us), Some(3000));
    assert_eq!(bench.coordinator.elapsed(bench.now), Duration::from_millis(3));
}

//! Instances that are gone for good, as the hypervisor tells or a fresh process shows, and drains that were given up.

use super::*;

impl Bench {
    /// The next poll finds that the instance's process has ended.
    fn gone(&mut self, role: MigrationRole) {
        while !self.instance_calls.iter().any(|(to, _, request)| *to == role && is_status(request)) {
            self.now = self.coordinator.poll_timeout().expect("a poll");
            self.coordinator.handle_timeout(self.now);
            self.collect();
        }
        self.answer(role, is_status, Err(refusal(ErrorCode::UnknownMigration)));
    }

    fn given_up(&mut self, nonce: Nonce) {
        let unacknowledged = PathSet::first(1);
        self.handle(CoordinatorEvent::Switch(SwitchEvent::DrainGivenUp {
            migration: MIGRATION,
            nonce,
            unacknowledged,
        }));
    }
}

#[test]
fn an_instance_that_is_gone_before_the_drain_fails_the_migration_at_once() {
    for phase in [CoordinatorPhase::Transferring, CoordinatorPhase::Redirecting, CoordinatorPhase::Draining] {
        let mut bench = Bench::reach(phase);
        let before = bench.now;
        bench.gone(DESTINATION);
        assert_eq!(bench.coordinator.phase(), CoordinatorPhase::AbortingSource, "{phase}");
        assert!(bench.now - before <= Duration::from_secs(1));
        bench.answer(SOURCE, is_abort, Ok(InstanceReply::Done));
    }
    let mut bench = Bench::reach(CoordinatorPhase::Transferring);
    bench.gone(SOURCE);
    assert_eq!(bench.coordinator.phase(), CoordinatorPhase::AbortingSource);
}

#[test]
fn a_source_that_is_gone_after_the_take_over_is_not_waited_for() {
    let mut bench = Bench::reach(CoordinatorPhase::Draining);
    bench.destination_phase(DestinationPhase::TakingOver);
    bench.gone(SOURCE);
    assert_eq!(bench.coordinator.phase(), CoordinatorPhase::Finishing);
    bench.finished(DESTINATION, 2);
    let Outcome::Completed { source: None, destination: Some(_), remark: Some(_), .. } = bench.outcome() else {
        panic!("{:?}", bench.outcome());
    };
    assert!(bench.now.as_millis() <= 1000, "{:?}", bench.now);

    let mut bench = Bench::reach(CoordinatorPhase::Finishing);
    bench.finished(DESTINATION, 2);
    bench.gone(SOURCE);
    assert!(matches!(bench.outcome(), Outcome::Completed { .. }));
}

#[test]
fn a_source_that_falls_silent_after_the_take_over_is_waited_for_no_longer_than_for_reports() {
    let mut bench = Bench::reach(CoordinatorPhase::Draining);
    bench.destination_phase(DestinationPhase::TakingOver);
    let before = bench.now;
    bench.time_out();
    assert_eq!(bench.coordinator.phase(), CoordinatorPhase::Finishing);
    let limit = Duration::from_millis(parameters().timeouts.finish_ms.into());
    assert_eq!(bench.now - before, limit);
}

/// It may have committed before: then the destination has, or will soon have, everything.
#[test]
fn with_a_source_that_is_gone_while_draining_the_destination_has_time_to_take_over() {
    let draining = || {
        let mut bench = Bench::reach(CoordinatorPhase::Draining);
        bench.gone(SOURCE);
        assert_eq!(bench.coordinator.phase(), CoordinatorPhase::Draining);
        bench
    };
    let mut bench = draining();
    bench.destination_phase(DestinationPhase::Live);
    assert_eq!(bench.coordinator.phase(), CoordinatorPhase::Finishing);
    bench.finished(DESTINATION, 1);
    assert!(matches!(bench.outcome(), Outcome::Completed { source: None, remark: Some(_), .. }));

    let mut bench = draining();
    let before = bench.now;
    bench.time_out();
    assert_eq!(bench.coordinator.phase(), CoordinatorPhase::AbortingSource);
    assert_eq!(bench.now - before, Duration::from_millis(parameters().timeouts.finish_ms.into()));

    let mut bench = draining();
    bench.failed(DESTINATION, FailureCode::StreamLost);
    bench.destination_phase(DestinationPhase::Failed);
    assert_eq!(bench.coordinator.phase(), CoordinatorPhase::AbortingSource, "the destination says that it cannot");
}

#[test]
fn a_destination_that_is_gone_after_its_take_over_is_told_of() {
    let mut bench = Bench::reach(CoordinatorPhase::Finishing);
    bench.finished(SOURCE, 1);
    bench.gone(DESTINATION);
    let Outcome::Completed { remark: Some(remark), .. } = bench.outcome() else { panic!("{:?}", bench.outcome()) };
    assert!(remark.as_str().contains("nat-b has taken over, and is gone since"), "{remark}");
}

#[test]
fn a_drain_that_was_given_up_fails_the_migration() {
    let mut bench = Bench::reach(CoordinatorPhase::Draining);
    bench.given_up(BACK);
    assert_eq!(bench.coordinator.phase(), CoordinatorPhase::Draining, "another stage's drain");
    bench.given_up(NONCE);
    assert_eq!(bench.coordinator.phase(), CoordinatorPhase::AbortingSource);
    assert_eq!(bench.coordinator.progress(bench.now).failure.unwrap().code, FailureCode::DrainLost);

    let mut bench = Bench::reach(CoordinatorPhase::Draining);
    bench.destination_phase(DestinationPhase::Live);
    bench.given_up(NONCE);
    assert_eq!(
        bench.coordinator.phase(),
        CoordinatorPhase::Draining,
        "the acknowledgements got lost, the drain did not"
    );
}

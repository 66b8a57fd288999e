//! Named cases: what has gone wrong once, and each fault at each step.

use crate::workload::NatPressure;
use crate::{Fault, Function, Noise, PlannedMigration, Run, Scenario, When, run_scenario, run_seed};
use slim_core::protocol::{DestinationPhase, MigrationPhase, SourcePhase};
use slim_core::time::Duration;

/// Everything large, no faults.
fn calm(seed: u64, function: Function, shards: u16, migrations: usize) -> Scenario {
    let base = (0..).map(Scenario::of_seed).find(|scenario| scenario.calm && !scenario.expiry);
    let planned = PlannedMigration { pause: Duration::from_millis(10), recycle: true, faults: Vec::new() };
    Scenario {
        seed,
        function,
        shards,
        noise: Noise::default(),
        migrations: vec![planned; migrations],
        ..base.expect("one of the first seeds is calm")
    }
}

const CHAIN: Function = Function::FlowChain { flows: 16, flows_max: 64 };
const NAT: Function = Function::Nat {
    pressure: NatPressure { sessions_max: 100, sessions_per_host_max: 50, hosts_max: 32, ports: 200 },
    hosts: 6,
    servers: 4,
};

#[track_caller]
fn clean(run: &Run) {
    assert_eq!(run.violation, None, "seed {}", run.seed);
}

fn outcomes(run: &Run, outcome: &str) -> u64 {
    run.stats.outcomes.iter().filter(|(text, _)| text.starts_with(outcome)).map(|(_, count)| count).sum()
}

#[test]
fn state_moves_there_and_back_and_there_again() {
    for (shards, function) in [(1, CHAIN), (2, CHAIN), (1, NAT), (2, NAT)] {
        let run = run_scenario(calm(1, function, shards, 3), false);
        clean(&run);
        assert_eq!(outcomes(&run, "completed"), 3, "{:?}", run.stats.outcomes);
        assert!(run.stats.processed > 100);
    }
}

#[test]
fn a_seed_repeats_itself() {
    for seed in [3, 4, 5] {
        assert_eq!(run_seed(seed, false).hash, run_seed(seed, true).hash);
    }
}

/// One migration with `fault` right behind every `stride`-th step of it, and another one after it.
fn at_each_step(stride: usize, fault: impl Fn(u64) -> Fault) -> Vec<Run> {
    let at = |step: u64| {
        let mut scenario = calm(step, if step.is_multiple_of(2) { CHAIN } else { NAT }, 1 + (step / 2 % 2) as u16, 2);
        scenario.calm = false;
        scenario.migrations[0].faults = vec![(When::Step(step), fault(step))];
        let run = run_scenario(scenario, false);
        assert_eq!(run.violation, None, "{:?} at step {step}", fault(step));
        run
    };
    (0..130).step_by(stride).map(at).collect()
}

fn count(runs: &[Run], outcome: &str) -> u64 {
    runs.iter().map(|run| outcomes(run, outcome)).sum()
}

#[test]
fn an_abort_at_any_step_leaves_everything_in_order() {
    let runs = at_each_step(5, |_| Fault::Abort);
    assert!(count(&runs, "rolled back: Aborted") > 8);
    assert!(count(&runs, "completed") > 26, "the one after it always is");
}

#[test]
fn a_stream_that_breaks_at_any_step_leaves_everything_in_order() {
    let runs = at_each_step(5, |step| Fault::ResetStream { choice: step });
    assert!(count(&runs, "rolled back: StreamLost") > 5);
}

#[test]
fn a_restarted_controller_completes_or_undoes() {
    let runs = at_each_step(5, |_| Fault::ControllerCrash(Duration::from_millis(20)));
    assert!(count(&runs, "completed") > 20);
}

#[test]
fn outages_of_control_connections_do_no_harm() {
    at_each_step(9, |_| Fault::SwitchOutage(Duration::from_millis(30)));
    at_each_step(9, |step| Fault::ResetControl { node: (step % 2) as usize, bytes: 0 });
}

#[test]
fn partitions_do_no_harm() {
    at_each_step(9, |step| Fault::Partition {
        host: (step % 3) as usize,
        peer: None,
        time: Duration::from_millis(400),
    });
}

#[test]
fn an_instance_that_dies_at_any_step_takes_nothing_with_it_but_what_it_holds() {
    for node in [0, 1] {
        at_each_step(7, |_| Fault::Crash { node, restart: Duration::from_millis(300) });
    }
}

#[test]
fn a_second_migration_is_refused_without_harm() {
    at_each_step(9, |_| Fault::SecondMigration);
}

/// A destination that hands back before the paths lead back would have its packets go astray.
#[test]
fn a_slow_control_path_loses_nothing_while_a_committed_source_is_resumed() {
    for step in 0..8 {
        let mut scenario = calm(step, CHAIN, 2, 1);
        scenario.calm = false;
        scenario.pkt_q_bytes = 700;
        let committed = When::Phase(MigrationPhase::Source(SourcePhase::Committed));
        // The controller cannot be reached for longer than two seconds in the middle of undoing.
        let slow = Fault::Partition { host: 2, peer: Some(0), time: Duration::from_millis(1_000 + 400 * step) };
        scenario.migrations[0].faults = vec![(committed, Fault::ResetStream { choice: step }), (committed, slow)];
        clean(&run_scenario(scenario, false));
    }
}

/// News of an earlier migration that comes late is nobody's any more.
#[test]
fn a_migration_right_after_an_aborted_one_is_completed() {
    for step in (0..130).step_by(13) {
        let mut scenario = calm(step, CHAIN, 2, 3);
        scenario.calm = false;
        scenario.migrations[0].faults = vec![(When::Step(step), Fault::Abort)];
        scenario.migrations[1].pause = Duration::ZERO;
        clean(&run_scenario(scenario, false));
    }
}

/// The next switch has no ports yet when packets arrive, and the controller dies before it has given it all of them.
#[test]
fn a_switch_that_restarts_gets_its_paths_back_although_the_controller_dies_meanwhile() {
    for delay_ms in (0..120).step_by(15) {
        let mut scenario = calm(delay_ms, NAT, 1, 1);
        scenario.calm = false;
        let at = |ms| When::After(Duration::from_millis(ms));
        scenario.migrations[0].faults = vec![
            (at(20), Fault::SwitchCrash(Duration::from_millis(5))),
            (at(20 + delay_ms), Fault::ControllerCrash(Duration::from_millis(25))),
        ];
        clean(&run_scenario(scenario, false));
    }
}

/// Faults that strike in these phases, at slightly different times.
fn in_phases(faults: &[(MigrationPhase, Fault)]) {
    for seed in 0..6 {
        let mut scenario = calm(seed, if seed % 2 == 0 { CHAIN } else { NAT }, 1, 2);
        scenario.calm = false;
        scenario.roomy = false;
        scenario.migrations[0].faults = faults.iter().map(|&(phase, fault)| (When::Phase(phase), fault)).collect();
        let run = run_scenario(scenario, false);
        assert_eq!(run.violation, None, "{faults:?} of seed {seed}");
    }
}

const TAKING_OVER: MigrationPhase = MigrationPhase::Destination(DestinationPhase::TakingOver);

/// Whoever resolved the source then, because the destination does not answer, would have two go on.
#[test]
fn a_destination_that_is_cut_off_for_long_when_it_takes_over_stays_the_only_one() {
    let cut_off = Fault::Partition { host: 1, peer: None, time: Duration::from_secs(40) };
    in_phases(&[(TAKING_OVER, cut_off)]);
    in_phases(&[(TAKING_OVER, cut_off), (MigrationPhase::Source(SourcePhase::Committed), Fault::Abort)]);
}

/// It has acknowledged, so the source has let go: the state is lost, and nobody may pretend otherwise.
#[test]
fn a_destination_that_dies_before_its_first_packet_takes_the_state_with_it() {
    for restart in [Duration::ZERO, Duration::from_millis(300)] {
        in_phases(&[(TAKING_OVER, Fault::Crash { node: 1, restart })]);
    }
}

/// The next switch must not be given the paths as they were before.
#[test]
fn a_switch_that_dies_after_the_take_over_leads_to_the_destination() {
    let live = MigrationPhase::Destination(DestinationPhase::Live);
    let switch = Fault::SwitchCrash(Duration::from_millis(15));
    in_phases(&[(live, switch)]);
    in_phases(&[(live, switch), (live, Fault::ControllerCrash(Duration::from_millis(100)))]);
    in_phases(&[(TAKING_OVER, Fault::SwitchOutage(Duration::from_millis(90))), (live, switch)]);
}

/// The destination gives up waiting for its drain packets, and the paths lead to it until the controller is back.
#[test]
fn a_controller_that_is_cut_off_for_long_after_the_redirect_leads_everything_back() {
    let cut_off = Fault::Partition { host: 2, peer: None, time: Duration::from_secs(40) };
    for phase in [SourcePhase::Draining, SourcePhase::Stopping, SourcePhase::RollingBack] {
        let draining = MigrationPhase::Source(SourcePhase::Draining);
        in_phases(&[(draining, Fault::Abort), (MigrationPhase::Source(phase), cut_off)]);
    }
}

/// It sets the paths for one instance while a migration is about to make the other one live.
#[test]
fn a_switch_that_dies_while_draining_leads_to_whoever_has_the_state_in_the_end() {
    let draining = MigrationPhase::Source(SourcePhase::Draining);
    let stalled = Fault::StalledReader { node: 0, time: Duration::from_secs(3) };
    in_phases(&[(draining, Fault::SwitchCrash(Duration::from_millis(10))), (draining, stalled)]);
}

/// The source wakes up while the next switch knows the ports again, but not yet whose they are: what acknowledges the
/// drain packets of the dead switch comes from nobody then.
#[test]
fn acknowledgements_for_a_dead_switch_do_no_harm() {
    let mut dropped = 0;
    for late_us in (0..1_400).step_by(20) {
        let mut scenario = calm(late_us, CHAIN, 1, 1);
        scenario.calm = false;
        let at = |ms| When::After(Duration::from_millis(ms));
        let stalled = |time| Fault::StalledLcores { node: 0, only: None, time };
        scenario.migrations[0].faults = vec![
            (at(20), stalled(Duration::from_millis(20))),
            (at(27), Fault::SwitchCrash(Duration::from_millis(10))),
            (at(27), stalled(Duration::from_micros(51_200 + late_us))),
        ];
        let run = run_scenario(scenario, false);
        clean(&run);
        dropped += run.stats.drops.get("inband_forbidden").copied().unwrap_or(0);
    }
    assert!(dropped > 0, "none came in that moment");
}

//! Whole migrations in virtual time: named cases first, then many seeds with everything that may go wrong.

use super::{ChainWorkload, Fault, FlowChain, Random, Scenario, World};
use slim_core::migration::{CoordinatorTimeouts, Outcome, Party};
use slim_core::protocol::FailureCode;
use slim_core::protocol::control::{
    DestinationTimeouts, InstanceRole, MigrationReport, PrepareOptions, SourceTimeouts, StartOptions,
};
use slim_core::time::Duration;

type ChainWorld = World<FlowChain, ChainWorkload>;

const WORKLOAD: ChainWorkload = ChainWorkload { flows_max: 4096 };

const fn micros(count: u64) -> Duration {
    Duration::from_micros(count)
}

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Time-outs fit for links of some 100 µs, so that tests of time-outs are short.
fn scenario(seed: u64, shards: u16) -> Scenario {
    Scenario {
        seed,
        shards,
        flows: 300,
        packet_interval: micros(120),
        link_delay: (micros(100), micros(250)),
        drain_loss_per_mille: 0,
        pkt_q_bytes: 1 << 20,
        st_q_out_bytes: 1 << 16,
        prepare: PrepareOptions {
            underrun_records: 0,
            timeouts: DestinationTimeouts {
                arm_ms: 20,
                connect_ms: 100,
                install_ms: 300,
                synchronise_ms: 100,
                redirect_ms: 150,
                hand_back_ms: 100,
                digest_ms: 50,
            },
        },
        start: StartOptions {
            timeouts: SourceTimeouts {
                connect_ms: 50,
                freeze_ms: 20,
                snapshot_ms: 300,
                drain_ms: 150,
                stop_ms: 50,
                flush_ms: 100,
                take_over_ms: 40,
                digest_ms: 50,
            },
            ..StartOptions::default()
        },
        timeouts: CoordinatorTimeouts {
            check_ms: 100,
            prepare_ms: 100,
            transfer_ms: 400,
            redirect_ms: 60,
            drain_ms: 300,
            finish_ms: 100,
            undo_ms: 400,
            hold_ms: 600,
            status_interval_ms: 15,
            retry_interval_ms: 3,
        },
    }
}

fn world(scenario: Scenario) -> ChainWorld {
    let mut world = World::new(scenario, WORKLOAD);
    world.run(millis(30));
    world
}

#[track_caller]
fn completed(outcome: Outcome) -> (Box<MigrationReport>, Box<MigrationReport>) {
    let Outcome::Completed { source: Some(source), destination: Some(destination), digests_equal, remark } = outcome
    else {
        panic!("{outcome:?}");
    };
    assert_eq!((digests_equal, remark), (Some(true), None));
    (source, destination)
}

#[track_caller]
fn rolled_back(outcome: Outcome) -> FailureCode {
    let Outcome::RolledBack { failure, .. } = outcome else { panic!("{outcome:?}") };
    failure.code
}

#[test]
fn state_moves_there_and_back_and_there_again() {
    for shards in [1, 2] {
        let mut world = world(scenario(1, shards));
        for round in 0..3 {
            assert_eq!(world.live(), round % 2);
            let (source, destination) = completed(world.migrate(&[]));
            assert_eq!(world.live(), (round + 1) % 2);
            assert!(source.digest.is_some() && source.digest == destination.digest);
            assert!(source.workload.packets > 0 && source.statelets.records == destination.statelets.records);
            assert!(destination.pkt_q.packets > 0 && destination.pkt_q.dropped_packets == 0);
            assert_eq!(source.snapshot.entries, destination.snapshot.entries);
            world.recycle();
            world.run(millis(10));
        }
        world.settle();
        assert!(world.oracle().packets() > 1000);
    }
}

#[test]
fn filler_makes_a_snapshot_longer_and_is_discarded() {
    let mut scenario = scenario(2, 1);
    scenario.start.filler_bytes = 3_000_000;
    let mut world = world(scenario);
    let (source, destination) = completed(world.migrate(&[]));
    assert_eq!(source.snapshot.filler_bytes, 3_000_000);
    assert_eq!(destination.snapshot.filler_bytes, 3_000_000);
    world.recycle();
    world.settle();
}

#[test]
fn drain_packets_that_get_lost_are_sent_again() {
    let mut scenario = scenario(3, 2);
    scenario.drain_loss_per_mille = 700;
    let mut world = world(scenario);
    completed(world.migrate(&[]));
    world.recycle();
    world.settle();
}

#[test]
fn a_full_st_q_out_undoes_the_migration_and_the_next_one_succeeds() {
    let mut scenario = scenario(4, 1);
    scenario.st_q_out_bytes = 20;
    scenario.start.filler_bytes = 1_000_000;
    let mut world = world(scenario.clone());
    assert_eq!(rolled_back(world.migrate(&[])), FailureCode::StateletOverflow);
    assert_eq!(world.live(), 0);
    world.recycle();
    world.settle();

    scenario.st_q_out_bytes = 1 << 16;
    let mut world = self::world(scenario);
    completed(world.migrate(&[]));
}

/// Runs one migration with a fault for each of `count` moments, and lets `check` judge; then everything has to be in
/// order, and another migration has to succeed.
fn at_each_moment(
    scenario: impl Fn(u64) -> Scenario,
    count: u64,
    step: Duration,
    fault: impl Fn(u64) -> Fault,
    mut check: impl FnMut(&ChainWorld, &Outcome),
) {
    for moment in 0..count {
        let mut world = world(scenario(moment));
        let after = step * moment as u32;
        let outcome = world.migrate(&[(after, fault(moment))]);
        println!("{:?} after {after:?}: {outcome:?}", fault(moment));
        let live = match outcome {
            Outcome::Completed { .. } => 1,
            Outcome::RolledBack { .. } => 0,
            Outcome::Unresolved { .. } => panic!("unresolved though everybody could be reached"),
        };
        assert_eq!(world.live(), live);
        check(&world, &outcome);
        world.recycle();
        completed(world.migrate(&[]));
        world.recycle();
        world.settle();
    }
}

#[test]
fn an_abort_at_any_time_leaves_everything_in_order() {
    let (mut undone, mut completed, mut handed_back) = (0, 0, 0);
    let shards = |moment| scenario(5, 1 + (moment % 2) as u16);
    at_each_moment(
        shards,
        60,
        micros(500),
        |_| Fault::Abort,
        |world, outcome| {
            match outcome {
                Outcome::RolledBack { failure, .. } => {
                    assert_eq!(failure.code, FailureCode::Aborted);
                    undone += 1;
                }
                _ => completed += 1,
            }
            handed_back += world.handed_back_packets();
        },
    );
    assert!(undone > 20 && completed > 5 && handed_back > 20, "{undone} {completed} {handed_back}");
}

#[test]
fn a_stream_that_breaks_at_any_time_leaves_everything_in_order() {
    let mut undone = 0;
    at_each_moment(
        |_| scenario(6, 1),
        60,
        micros(500),
        Fault::BreakStream,
        |_, outcome| {
            if let Outcome::RolledBack { failure, .. } = outcome {
                assert_eq!(failure.code, FailureCode::StreamLost);
                undone += 1;
            }
        },
    );
    assert!(undone > 10, "{undone}");
}

#[test]
fn a_restarted_controller_completes_or_undoes() {
    let mut undone = 0;
    at_each_moment(
        |_| scenario(7, 1),
        50,
        micros(600),
        |_| Fault::ControllerCrash(millis(5)),
        |_, outcome| {
            undone += u32::from(matches!(outcome, Outcome::RolledBack { .. }));
        },
    );
    assert!((5..45).contains(&undone), "{undone} of 50 undone");
}

#[test]
fn outages_of_control_connections_do_no_harm() {
    let party = |moment| [Party::Source, Party::Destination, Party::Switch][moment as usize % 3];
    let outage = |moment| Fault::ControlOutage(party(moment), millis(20));
    at_each_moment(
        |_| scenario(8, 1),
        45,
        micros(700),
        outage,
        |_, outcome| {
            assert!(matches!(outcome, Outcome::Completed { digests_equal: Some(true), .. }));
        },
    );
}

/// Shows that the oracle is not blind, and why the switch has to hold packets.
#[test]
#[should_panic(expected = "lost, doubled or overtaken")]
fn without_a_hold_an_undone_redirect_would_reorder() {
    let without_hold = |moment| {
        let mut scenario = scenario(9 + moment, 1);
        scenario.timeouts.hold_ms = 0;
        scenario.flows = 2;
        scenario
    };
    at_each_moment(without_hold, 60, micros(500), |_| Fault::Abort, |_, _| {});
}

/// Shows that the oracle is not blind, and why `pkt_q` is needed.
#[test]
#[should_panic(expected = "lost, doubled or overtaken")]
fn without_a_pkt_q_packets_would_be_lost() {
    let mut scenario = scenario(10, 1);
    scenario.pkt_q_bytes = 0;
    let mut world = world(scenario);
    world.migrate(&[]);
    world.run(millis(20));
    world.settle();
}

#[test]
fn a_destination_that_dies_leaves_the_source_live_unless_it_had_taken_over() {
    let mut undone = 0;
    for after in (0..30).map(millis) {
        let mut world = world(scenario(11, 1));
        let outcome = world.migrate(&[(after, Fault::DestinationCrash)]);
        match outcome {
            Outcome::RolledBack { .. } => {
                undone += 1;
                assert_eq!((world.live(), world.role(0)), (0, InstanceRole::Live));
                world.run(millis(50));
                world.settle();
            }
            Outcome::Completed { .. } => assert_eq!(world.live(), 1),
            Outcome::Unresolved { .. } => {
                assert_eq!(world.role(0), InstanceRole::Source, "it has committed and waits for a word");
            }
        }
    }
    assert!(undone > 10, "{undone}");
}

#[test]
fn a_source_that_dies_is_reported_unless_the_destination_can_go_on() {
    let (mut completed, mut unresolved) = (0, 0);
    for after in (0..30).map(millis) {
        let mut world = world(scenario(12, 1));
        match world.migrate(&[(after, Fault::SourceCrash)]) {
            Outcome::Completed { .. } => {
                completed += 1;
                assert_eq!((world.live(), world.role(1)), (1, InstanceRole::Live));
                world.run(millis(50));
                world.settle();
            }
            Outcome::Unresolved { .. } => unresolved += 1,
            // It died before it was asked for anything.
            Outcome::RolledBack { .. } => assert!(after < millis(10), "{after:?}"),
        }
    }
    assert!(completed > 5 && unresolved > 5, "{completed} {unresolved}");
}

/// Everything that may go wrong in one run; some kinds are left out of each run entirely.
fn random_faults(random: &mut Random) -> Vec<(Duration, Fault)> {
    let parties = [Party::Source, Party::Destination, Party::Switch];
    let allowed: Vec<bool> = (0..4).map(|_| random.chance(500)).collect();
    let mut faults = Vec::new();
    for _ in 0..random.below(4) {
        let after = random.time(Duration::ZERO, millis(40));
        let fault = match random.below(4) {
            0 if allowed[0] => Fault::Abort,
            1 if allowed[1] => Fault::BreakStream(random.number()),
            2 if allowed[2] => {
                let party = parties[random.below(3) as usize];
                Fault::ControlOutage(party, random.time(millis(1), millis(30)))
            }
            3 if allowed[3] => Fault::ControllerCrash(random.time(millis(1), millis(30))),
            _ => continue,
        };
        faults.push((after, fault));
    }
    faults
}

fn random_run(seed: u64) {
    let mut random = Random::new(seed);
    let mut scenario = scenario(random.number(), random.between(1, 2) as u16);
    scenario.link_delay = (micros(random.between(10, 200)), micros(random.between(200, 1500)));
    scenario.flows = random.between(1, 600) as u32;
    scenario.packet_interval = micros(random.between(80, 400));
    scenario.start.filler_bytes = random.below(500_000);
    scenario.prepare.underrun_records = random.below(4);
    if random.chance(400) {
        scenario.drain_loss_per_mille = random.below(600);
    }
    println!("seed {seed}: {scenario:?}");
    let mut world = world(scenario);
    for _ in 0..3 {
        let faults = random_faults(&mut random);
        println!("faults: {faults:?}");
        let before = world.live();
        let outcome = world.migrate(&faults);
        println!("outcome: {outcome:?}");
        match outcome {
            Outcome::Completed { digests_equal, .. } => {
                assert_ne!(digests_equal, Some(false));
                assert_eq!(world.live(), 1 - before);
            }
            Outcome::RolledBack { .. } => {
                assert!(!faults.is_empty(), "undone without a fault");
                assert_eq!(world.live(), before);
            }
            Outcome::Unresolved { .. } => panic!("unresolved though everybody could be reached"),
        }
        world.recycle();
        world.run(millis(5));
    }
    world.settle();
}

/// More seeds with `SLIM_SEEDS=from..to`; a failing one is printed by its run.
#[test]
fn random_faults_lose_double_and_reorder_nothing() {
    let range = std::env::var("SLIM_SEEDS").ok();
    let (from, to) = range.as_deref().and_then(|range| range.split_once("..")).unwrap_or(("0", "40"));
    for seed in from.parse::<u64>().expect("SLIM_SEEDS")..to.parse().expect("SLIM_SEEDS") {
        random_run(seed);
    }
}

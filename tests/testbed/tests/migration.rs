//! Booted images, a real switch, a real controller: a migration under load, judged by the recorder.
//!
//! These need built images and programs, which `cargo xtask test` makes and names in `SLIM_ARTIFACTS`.

use slim_controller::api::{DestinationFrom, MigrationOutcome};
use slim_testbed::artifacts::Artifacts;
use slim_testbed::chaos::{Blow, ChaosSpec, Matrix, Party, Phase};
use slim_testbed::demo::{AFTER, DURING, DemoSpec, InstanceArguments, MoveArguments, Outcome};
use slim_testbed::download::{DownloadOutcome, DownloadSpec};
use slim_testbed::impair::Impairment;
use slim_testbed::load::LoadSpec;
use slim_testbed::load::report::{BEFORE, PhaseReport};
use slim_testbed::pool::PoolRun;
use slim_testbed::precopy::{PrecopyRun, PrecopySpec};
use slim_testbed::programs::{self, ProgramsSpec};
use slim_testbed::sandbox;

/// Runs `what` in a sandbox with its logs kept under the target folder.
fn run<O: serde::de::DeserializeOwned>(name: &str, what: &str, spec: &impl serde::Serialize) -> O {
    let artifacts = Artifacts::from_env().expect("has artifacts");
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    sandbox::run(what, spec, &artifacts, &folder).expect("runs")
}

fn demo(name: &str, spec: &DemoSpec) {
    let outcome: Outcome = run(name, "demo", spec);
    println!("{outcome}");
    assert!(outcome.is_seamless(), "{:?}", outcome.complaints);
}

#[test]
#[ignore = "boots images; run by `cargo xtask test`"]
fn booted_nat_moves_under_load_without_loss() {
    demo("booted_nat_moves", &DemoSpec::default());
}

#[test]
#[ignore = "runs the built programs; run by `cargo xtask test`"]
fn nat_process_moves_under_load_without_loss() {
    let instances = InstanceArguments { process: true, ..InstanceArguments::default() };
    demo("nat_process_moves", &DemoSpec { instances, ..DemoSpec::default() });
}

#[test]
#[ignore = "boots images; run by `cargo xtask test`"]
fn a_warm_instance_takes_over_without_a_boot() {
    let run: PoolRun = run("pool", "pool", &InstanceArguments::default());
    let found = |outcome: &MigrationOutcome| outcome.destination_ready.expect("nobody has named it");
    let (warm, cold) = (found(&run.warm), found(&run.cold));
    assert_eq!((warm.from, cold.from), (DestinationFrom::Pool, DestinationFrom::Boot));
    for outcome in [&run.warm, &run.cold] {
        assert_eq!((outcome.failure(), outcome.digests_equal()), (None, Some(true)));
    }
    println!(
        "a destination out of the pool was ready after {} µs, a booted one after {} µs",
        warm.after_us, cold.after_us
    );
}

fn precopy(name: &str, rounds: u32, link_rate: u64, patience_s: f64) -> PrecopyRun {
    let demo = DemoSpec {
        load: LoadSpec { rate_mbit: 5.0, duration_s: 120.0, ..LoadSpec::default() },
        migrate_at: 0.5,
        moving: MoveArguments { patience: Some(patience_s), stop_after: Some(1.0), ..MoveArguments::default() },
        instances: InstanceArguments { link_rate, ..InstanceArguments::default() },
    };
    let run: PrecopyRun = run(name, "precopy", &PrecopySpec { demo, rounds });
    println!("{:#?}", run.outcome);
    run
}

#[test]
#[ignore = "boots images; run by `cargo xtask test`"]
fn a_guest_whose_move_is_given_up_goes_on_where_it_is() {
    // Not even its kernel's pages pass the link in that time.
    let run = precopy("precopy_given_up", 10, 20, 2.0);
    assert_eq!(run.outcome.failure.as_deref(), Some("it was not over after 2 s"));
    for phase in [BEFORE, DURING, AFTER] {
        assert_eq!(run.load.phase(phase).map(PhaseReport::lost), Some(0), "{phase}");
    }
}

#[test]
#[ignore = "boots images; run by `cargo xtask test`"]
fn a_whole_guest_moves_over_its_own_link_and_packets_are_lost_while_it_stands_still_only() {
    let link_rate = 200;
    let run = precopy("precopy", 3, link_rate, 90.0);
    let outcome = &run.outcome;
    assert_eq!(outcome.failure, None);
    assert!(outcome.downtime_us > Some(0) && outcome.stream_bytes > 10_000_000);
    // What the meter lets through: its burst, and its rate.
    let most = link_rate as f64 * 1e6 / 8.0 * (outcome.total_us as f64 / 1e6 + 0.02);
    assert!(outcome.stream_bytes as f64 <= most, "{} bytes are more than the link carries", outcome.stream_bytes);
    for phase in &run.load.phases {
        let (out, back) = (&phase.outbound, &phase.inbound);
        let damaged = [out, back].map(|one| one.corrupt + one.mistranslated + one.duplicated);
        assert_eq!(damaged, [0, 0], "{}", phase.name);
        assert!(out.received > 0, "{}", phase.name);
    }
    let lost = |phase: &str| run.load.phase(phase).map(PhaseReport::lost);
    assert_eq!((lost(BEFORE), lost(AFTER)), (Some(0), Some(0)));
    assert!(lost(DURING) > Some(0), "it stood still");
}

#[test]
#[ignore = "boots images; run by `cargo xtask test`"]
fn tcp_download_survives_migrations_to_and_fro() {
    let spec = DownloadSpec { seconds: 60, rate_mbit: 50, migrations: 3, instances: InstanceArguments::default() };
    let outcome: DownloadOutcome = run("tcp_download", "download", &spec);
    println!("{outcome:#?}");
    assert_eq!(outcome.received.sha256, outcome.sent.sha256);
    assert_eq!(outcome.received.bytes, outcome.sent.bytes);
    for migration in &outcome.migrations {
        assert_eq!(migration.failure(), None);
        assert_eq!(migration.digests_equal(), Some(true));
    }
    // A shared machine may pause for longer than the network does, so only the report tells the longest stall.
    assert_eq!(outcome.migrations.len(), 3);
}

fn real_programs(name: &str, impaired: bool, instances: InstanceArguments) {
    let impairment = Impairment { loss: 0.5, reorder: 0.5, hold: 5 };
    let spec = ProgramsSpec { seconds: 20, stay: 1000, impaired, impairment, instances };
    let outcome: programs::Outcome = run(name, "programs", &spec);
    println!("{outcome}");
    assert_eq!(outcome.complaints(), Vec::<String>::new());
}

/// Which requirements of the RFCs are seen here is in docs/nat.md.
#[test]
#[ignore = "runs the built programs; run by `cargo xtask test`"]
fn real_programs_do_not_notice_that_a_nat_process_moves() {
    real_programs("programs_process", false, InstanceArguments { process: true, ..InstanceArguments::default() });
}

#[test]
#[ignore = "runs the built programs; run by `cargo xtask test`"]
fn real_programs_get_along_on_a_line_that_loses_and_reorders_while_the_nat_moves() {
    real_programs("programs_impaired", true, InstanceArguments { process: true, ..InstanceArguments::default() });
}

#[test]
#[ignore = "boots images; run by `cargo xtask test`"]
fn real_programs_do_not_notice_that_a_booted_nat_moves() {
    real_programs("programs_images", false, InstanceArguments::default());
}

#[test]
#[ignore = "runs the built programs; run by `cargo xtask test`"]
fn migrations_survive_the_death_of_each_party() {
    for (party, phase) in [
        (Party::Source, Phase::TransferringEarly),
        (Party::Destination, Phase::Draining),
        (Party::Switch, Phase::Draining),
        (Party::Controller, Phase::Draining),
    ] {
        let (party, phase, fault) = (vec![party], vec![phase], vec![Blow::Kill]);
        let spec = ChaosSpec { party, phase, fault, repeat: 1, process: true, accel: "auto".into() };
        let matrix: Matrix = run("chaos", "chaos", &spec);
        println!("{matrix}");
        assert_eq!(matrix.broken().count(), 0);
    }
}

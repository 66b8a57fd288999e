//! Booted images, a real switch, a real controller: a migration under load, judged by the recorder.
//!
//! These need built images and programs, which `cargo xtask test` makes and names in `SLIM_ARTIFACTS`.

use slim_testbed::artifacts::Artifacts;
use slim_testbed::chaos::{Blow, ChaosSpec, Matrix, Party, Phase};
use slim_testbed::demo::{DemoSpec, InstanceArguments, Outcome};
use slim_testbed::download::{DownloadOutcome, DownloadSpec};
use slim_testbed::impair::Impairment;
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

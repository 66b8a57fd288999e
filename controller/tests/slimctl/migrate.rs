//! Migrations as an operator types them: the real slimctl and daemon, the real VEIs, a switch without packets.

use crate::world::instance::Faults;
use crate::world::{World, typed, until};
use std::process::Stdio;

#[test]
fn a_migration_moves_the_paths_and_reports() {
    let world = World::new();
    let _a = world.instance("nat-a", true, Faults::default());
    let _b = world.instance("nat-b", false, Faults::default());
    assert_eq!(world.switch.leads_to(), ["nat-a"]);

    let typed = world.slimctl(&["migrate", "nat-a", "nat-b", "--snapshot-filler", "20MB"]);
    assert_eq!(typed.code(), 0, "{typed:?}");
    for part in [
        "nat-a has moved to nat-b",
        "the state at take-over equals",
        "20,070,000 B (20.1 MB)",
        "statelet factor σ, payload",
        "0.0234",
        "17 packets",
        "00000000000000000000000000000001",
    ] {
        assert!(typed.out.contains(part), "{part:?} is not in {}", typed.out);
    }
    for part in
        ["controller     transferring", "nat-b          armed", "nat-a          released", "controller     completed"]
    {
        assert!(typed.err.contains(part), "{part:?} is not in {}", typed.err);
    }
    assert!(!typed.err.contains('\x1b'), "no terminal, no escape sequences: {}", typed.err);
    assert_eq!(world.switch.leads_to(), ["nat-b"]);
    assert_eq!((world.role("nat-a").as_str(), world.role("nat-b").as_str()), ("released", "live"));

    let status = world.done(&["status"]);
    assert_eq!(status["past_migrations"][0]["result"], "completed");
    assert_eq!(status["migrations"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_network_function_moves_there_and_back_again() {
    let world = World::new();
    let _a = world.instance("nat-a", true, Faults::default());
    let _b = world.instance("nat-b", false, Faults::default());
    for (source, destination) in [("nat-a", "nat-b"), ("nat-b", "nat-a"), ("nat-a", "nat-b"), ("nat-b", "nat-a")] {
        let outcome = world.done(&["migrate", source, destination]);
        assert_eq!(outcome["outcome"]["digests_equal"], true, "{outcome}");
        assert_eq!(world.switch.leads_to(), [destination]);
    }
}

#[test]
fn the_source_can_be_retired_with_the_migration() {
    let world = World::new();
    let _a = world.instance("nat-a", true, Faults::default());
    let _b = world.instance("nat-b", false, Faults::default());
    let outcome = world.done(&["migrate", "nat-a", "nat-b", "--retire"]);
    assert_eq!(outcome["warnings"], serde_json::Value::Null, "{outcome}");
    let typed = world.slimctl(&["instance", "show", "nat-a"]);
    assert_eq!(typed.code(), 4, "{typed:?}");
    assert!(typed.err.contains("no instance nat-a; there are nat-b"), "{typed:?}");
    let state = world.switch.state.lock().unwrap();
    let ports: Vec<&str> = state.ports.keys().map(|port| port.as_str()).collect();
    assert_eq!(ports, ["nat-b.in", "nat-b.out"], "the retired instance's ports are closed");
}

#[test]
fn an_aborted_migration_leaves_everything_as_it_was() {
    let world = World::new();
    let _a = world.instance("nat-a", true, Faults { endless_snapshot: true, ..Faults::default() });
    let _b = world.instance("nat-b", false, Faults::default());
    let migration = world.command(&["migrate", "nat-a", "nat-b"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    until("the transfer", || {
        let status = world.done(&["status"]);
        status["migrations"][0]["detail"] == "transferring"
    });
    for (arguments, part) in [
        (&["migrate", "nat-a", "nat-b"][..], "takes part in migration"),
        (&["instance", "retire", "nat-b"], "takes part in migration"),
    ] {
        let typed = world.slimctl(arguments);
        assert_eq!(typed.code(), 5, "{typed:?}");
        assert!(typed.err.contains(part), "{typed:?}");
    }
    world.done(&["abort", "nat-b"]);

    let typed = typed(migration.unwrap().wait_with_output().unwrap());
    assert_eq!(typed.code(), 6, "{typed:?}");
    assert!(typed.out.contains("was undone") && typed.out.contains("the operator gave up"), "{typed:?}");
    assert_eq!(world.switch.leads_to(), ["nat-a"]);
    assert_eq!(world.role("nat-a"), "live");
    let again = world.slimctl(&["abort"]);
    assert_eq!(again.code(), 4, "{again:?}");
    assert!(again.err.contains("no migration is under way"), "{again:?}");
}

#[test]
fn the_outcome_names_the_phase_that_took_too_long_and_the_next_attempt_may_follow_at_once() {
    let world = World::new();
    let _a = world.instance("nat-a", true, Faults { endless_snapshot: true, ..Faults::default() });
    let _b = world.instance("nat-b", false, Faults::default());
    for (timeout, words) in [
        ("controller.transfer=300", "the migration was longer than 300 ms in phase transferring"),
        ("source.snapshot=200", "src_inst was longer than 200 ms in phase transferring"),
        ("destination.install=250", "dst_inst was longer than 250 ms in phase installing"),
    ] {
        let typed = world.slimctl(&["--json", "migrate", "nat-a", "nat-b", "--timeout", timeout]);
        assert_eq!(typed.code(), 6, "{typed:?}");
        let failure = &typed.json()["outcome"]["failure"];
        assert_eq!((&failure["code"], &failure["message"]), (&"time_out".into(), &words.into()));
        assert_eq!((world.role("nat-a").as_str(), world.switch.leads_to()), ("live", vec!["nat-a".to_string()]));
    }
}

#[test]
fn a_destination_that_vanishes_costs_nothing_but_the_attempt() {
    let world = World::new();
    let _a = world.instance("nat-a", true, Faults::default());
    let _b = world.instance("nat-b", false, Faults { vanishes_when_armed: true, ..Faults::default() });
    let typed = world.slimctl(&["--json", "migrate", "nat-a", "nat-b"]);
    assert_eq!(typed.code(), 6, "{typed:?}");
    let outcome = typed.json();
    assert_eq!(outcome["outcome"]["outcome"], "rolled_back", "{outcome}");
    assert_eq!(world.switch.leads_to(), ["nat-a"]);
    assert_eq!(world.role("nat-a"), "live");

    let _c = world.instance("nat-c", false, Faults::default());
    world.done(&["migrate", "nat-a", "nat-c"]);
    assert_eq!(world.switch.leads_to(), ["nat-c"]);
}

#[test]
fn states_that_differ_are_not_passed_over() {
    let world = World::new();
    let _a = world.instance("nat-a", true, Faults::default());
    let _b = world.instance("nat-b", false, Faults { other_state: true, ..Faults::default() });
    let typed = world.slimctl(&["migrate", "nat-a", "nat-b"]);
    assert_eq!(typed.code(), 8, "{typed:?}");
    assert!(typed.out.contains("DIFFERS"), "{typed:?}");
}

#[test]
fn a_live_instance_is_not_retired_by_accident() {
    let world = World::new();
    let _a = world.instance("nat-a", true, Faults::default());
    let typed = world.slimctl(&["instance", "retire", "nat-a"]);
    assert_eq!(typed.code(), 5, "{typed:?}");
    assert!(typed.err.contains("--force"), "{typed:?}");
    world.done(&["instance", "retire", "nat-a", "--force"]);
    assert_eq!(world.done(&["instance", "list"]).as_array().map(Vec::len), Some(0));
    assert!(world.switch.state.lock().unwrap().instances.is_empty());
}

#[test]
fn what_cannot_be_migrated_is_said_in_words() {
    let world = World::new();
    let _a = world.instance("nat-a", true, Faults::default());
    let typed = world.slimctl(&["migrate", "nat-a", "nat-a"]);
    assert_eq!(typed.code(), 1, "{typed:?}");
    assert!(typed.err.contains("cannot migrate to itself"), "{typed:?}");
    let _b = world.instance("nat-b", false, Faults::default());
    let typed = world.slimctl(&["migrate", "nat-b", "nat-a"]);
    assert_eq!(typed.code(), 6, "{typed:?}");
    assert!(typed.out.contains("nat-b is idle, not live"), "{typed:?}");
}

#[test]
fn only_guests_move_by_precopy() {
    let world = World::new();
    let _a = world.instance("nat-a", true, Faults::default());
    let typed = world.slimctl(&["migrate", "nat-a", "nat-b", "--mode", "precopy"]);
    assert_eq!(typed.code(), 1, "{typed:?}");
    assert!(typed.err.contains("nat-a is no guest of ours, so no hypervisor can move it"), "{typed:?}");
    assert_eq!(world.switch.leads_to(), ["nat-a"]);
    assert_eq!(world.role("nat-a"), "live");
    let typed = world.slimctl(&["migrate", "nat-a", "nat-b", "--mode", "precopy", "--plan"]);
    assert!(typed.code() == 1 && typed.err.contains("--plan measures statelets"), "{typed:?}");
    // Nothing is left of it.
    let status = world.done(&["status"]);
    assert_eq!(status["instances"].as_array().map(Vec::len), Some(1), "{status}");
}

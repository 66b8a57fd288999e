//! What slimctl says of a migration beforehand, and which it refuses to begin.

use crate::world::World;
use crate::world::instance::{Faults, name_of};
use serde_json::Value;

/// A busy instance and an idle one, whose state passes the switch and its link of 1 Gbit/s.
fn world(load_mbit: u64) -> World {
    let world = World::new();
    let _a = world.instance("nat-a", true, Faults { load_mbit, ..Faults::default() });
    let _b = world.instance("nat-b", false, Faults::default());
    has_management(&world, true);
    world
}

/// Whether the instances are reached through the switch, as guests are.
fn has_management(world: &World, yes: bool) {
    for (name, plugged) in &mut world.switch.state.lock().unwrap().instances {
        plugged.management = yes.then(|| name_of(&format!("{name}.mgmt")));
    }
}

fn mode<'a>(plan: &'a Value, name: &str) -> &'a Value {
    plan["modes"].as_array().unwrap().iter().find(|forecast| forecast["mode"] == name).unwrap()
}

#[test]
fn a_plan_says_how_every_mode_will_go_and_moves_nothing() {
    let world = world(600);
    let plan = world.done(&["migrate", "nat-a", "nat-b", "--plan", "--snapshot-filler", "20MB"]);
    let measured = &plan["measured"];
    assert_eq!((&measured["link_bps"], &measured["pace_bps"]), (&1_000_000_000u64.into(), &Value::Null), "{plan}");
    assert_eq!(measured["snapshot_bytes"], 20_070_000);
    let load = measured["load_bps"].as_f64().unwrap();
    assert!((load / 600e6 - 1.0).abs() < 1e-4, "{load}");
    assert!((measured["sigma_payload"].as_f64().unwrap() - 12.0 / 512.0).abs() < 1e-9, "{plan}");

    // 20.07 MB with headers through what 600 Mbit/s and their statelets leave of 1 Gbit/s, and 0.1 s.
    let statelets = measured["statelets_bps"].as_f64().unwrap();
    let expected_s = 0.1 + 20_070_000.0 * 8.0 * (1518.0 / 1448.0) / (1e9 - load - statelets);
    let duration_ms = mode(&plan, "statelet")["duration_ms"].as_f64().unwrap();
    assert!((duration_ms / 1e3 / expected_s - 1.0).abs() < 0.01, "{duration_ms} ms, not {expected_s} s");
    assert_eq!(
        (&mode(&plan, "statelet")["converges"], &mode(&plan, "duplicate")["converges"]),
        (&true.into(), &false.into())
    );
    assert!(mode(&plan, "stop-and-copy")["remark"].as_str().unwrap().starts_with("loses "), "{plan}");
    assert_eq!(world.role("nat-a"), "live");

    let paced = world.done(&["migrate", "nat-a", "nat-b", "--plan", "--scheduling", "best-effort"]);
    assert_eq!(paced["measured"]["pace_bps"], 250_000_000, "{paced}");
    let text = world.slimctl(&["migrate", "nat-a", "nat-b", "--plan"]);
    for part in ["nat-a to nat-b", "1000.0 Mbit/s", "0.0234", "duplicate", "does not end: the link lacks"] {
        assert!(text.out.contains(part), "{part:?} is not in {}", text.out);
    }
}

#[test]
fn a_migration_that_would_not_end_is_refused_unless_forced() {
    let world = world(600);
    for arguments in [&["--plan"][..], &[]] {
        let arguments = [&["migrate", "nat-a", "nat-b", "--mode", "duplicate"], arguments].concat();
        let typed = world.slimctl(&arguments);
        assert_eq!(typed.code(), 9, "{typed:?}");
        assert_eq!((world.role("nat-a").as_str(), world.role("nat-b").as_str()), ("live", "idle"));
    }
    let typed = world.slimctl(&["migrate", "nat-a", "nat-b", "--mode", "duplicate"]);
    assert!(typed.err.contains("in mode duplicate that would not end; --force does it"), "{typed:?}");
    world.done(&["migrate", "nat-a", "nat-b", "--mode", "duplicate", "--force"]);
    assert_eq!(world.switch.leads_to(), ["nat-b"]);
}

#[test]
fn a_load_that_leaves_room_for_statelets_only_is_migrated_with_them_without_a_word() {
    let world = world(900);
    let outcome = world.done(&["migrate", "nat-a", "nat-b"]);
    assert_eq!(outcome["outcome"]["digests_equal"], true, "{outcome}");
}

#[test]
fn packets_that_would_not_fit_into_pkt_q_are_foreseen() {
    let world = world(600);
    let plan = world.slimctl(&[
        "--json",
        "migrate",
        "nat-a",
        "nat-b",
        "--plan",
        "--mode",
        "buffer",
        "--snapshot-filler",
        "60MB",
    ]);
    assert_eq!(plan.code(), 9, "{plan:?}");
    let plan = plan.json();
    let remark = mode(&plan, "buffer")["remark"].as_str().unwrap();
    assert!(remark.starts_with("would be undone: "), "{remark}");
    assert_eq!(mode(&plan, "statelet")["converges"], true);
}

#[test]
fn state_that_does_not_pass_the_link_is_not_limited_by_it() {
    let world = world(2_000);
    has_management(&world, false);
    let plan = world.done(&["migrate", "nat-a", "nat-b", "--plan"]);
    assert_eq!(plan["measured"]["link_bps"], Value::Null);
    assert_eq!(mode(&plan, "duplicate")["converges"], true);
}

#[test]
fn what_cannot_be_planned_is_said_in_words() {
    let world = world(0);
    let idle = world.slimctl(&["migrate", "nat-b", "nat-a", "--plan"]);
    assert_eq!(idle.code(), 5, "{idle:?}");
    let unknown = world.slimctl(&["migrate", "nat-a", "nat-c", "--plan"]);
    assert_eq!(unknown.code(), 4, "{unknown:?}");
}

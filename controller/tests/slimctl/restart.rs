//! Restarts: of the daemon in the middle of a migration, and of the switch.

use crate::world::instance::{Faults, Input};
use crate::world::{World, until};

/// A world whose instances outlive the daemon.
fn keeping() -> World {
    let mut world = World::without_daemon();
    world.change_deployment("run_dir = \"run\"", "run_dir = \"run\"\nkeep = true");
    world.start_daemon();
    world
}

fn transferring(world: &World) {
    until("the transfer", || world.done(&["status"])["migrations"][0]["detail"] == "transferring");
}

#[test]
fn a_new_daemon_completes_the_migration_it_finds() {
    let mut world = keeping();
    let a = world.instance("nat-a", true, Faults { endless_snapshot: true, ..Faults::default() });
    let _b = world.instance("nat-b", false, Faults::default());
    let mut migrate = world.command(&["migrate", "nat-a", "nat-b"]).spawn().unwrap();
    transferring(&world);
    world.kill_daemon();
    assert_eq!(migrate.wait().unwrap().code(), Some(1), "whether it was carried out is not known here");

    world.start_daemon();
    transferring(&world);
    a.inputs.send(Input::EndSnapshot).unwrap();
    until("the end of the migration", || world.done(&["status"])["past_migrations"][0]["result"] == "completed");
    assert_eq!(world.switch.leads_to(), ["nat-b"]);
    assert_eq!((world.role("nat-a").as_str(), world.role("nat-b").as_str()), ("released", "live"));
}

#[test]
fn a_migration_that_was_picked_up_can_be_aborted() {
    let mut world = keeping();
    let _a = world.instance("nat-a", true, Faults { endless_snapshot: true, ..Faults::default() });
    let _b = world.instance("nat-b", false, Faults::default());
    let mut migrate = world.command(&["migrate", "nat-a", "nat-b"]).spawn().unwrap();
    transferring(&world);
    world.kill_daemon();
    migrate.wait().unwrap();
    world.start_daemon();
    transferring(&world);
    world.done(&["abort"]);
    until("the end of the migration", || world.done(&["status"])["past_migrations"][0]["result"] == "rolled_back");
    assert_eq!(world.switch.leads_to(), ["nat-a"]);
    assert_eq!(world.role("nat-a"), "live");
}

#[test]
fn attaching_the_second_instance_again_picks_the_migration_up() {
    let mut world = World::new();
    let a = world.instance("nat-a", true, Faults { endless_snapshot: true, ..Faults::default() });
    let b = world.instance("nat-b", false, Faults::default());
    let mut migrate = world.command(&["migrate", "nat-a", "nat-b"]).spawn().unwrap();
    transferring(&world);
    world.kill_daemon();
    migrate.wait().unwrap();

    // Without `keep`, the switch is cleaned up for a new start; these instances were not ours to end, though.
    let instances = world.switch.state.lock().unwrap().instances.clone();
    world.start_daemon();
    world.switch.state.lock().unwrap().instances = instances;
    a.inputs.send(Input::EndSnapshot).unwrap();
    for (name, instance) in [("nat-b", &b), ("nat-a", &a)] {
        world.done(&["instance", "attach", name, "--control", &instance.control.to_string()]);
    }
    until("the end of the migration", || world.done(&["status"])["past_migrations"][0]["result"] == "completed");
    assert_eq!(world.switch.leads_to(), ["nat-b"]);
}

#[test]
fn a_daemon_that_ends_in_order_leaves_instances_or_retires_them() {
    let mut world = keeping();
    let _a = world.instance("nat-a", true, Faults::default());
    world.done(&["shutdown"]);
    world.daemon().wait().unwrap();
    assert_eq!(world.switch.leads_to(), ["nat-a"]);
    world.start_daemon();
    assert_eq!(world.role("nat-a"), "live");
    world.done(&["shutdown", "--retire"]);
    world.daemon().wait().unwrap();
    assert!(world.switch.state.lock().unwrap().instances.is_empty());
    world.start_daemon();
    assert_eq!(world.done(&["instance", "list"]).as_array().map(Vec::len), Some(0));
}

#[test]
fn what_a_killed_daemon_left_in_the_switch_does_not_hinder_the_next() {
    let mut world = World::new();
    let _a = world.instance("nat-a", true, Faults::default());
    world.kill_daemon();
    assert_eq!(world.switch.leads_to(), ["nat-a"]);
    world.start_daemon();
    assert!(world.switch.leads_to().is_empty());
    let _a = world.instance("nat-a", true, Faults::default());
    assert_eq!(world.switch.leads_to(), ["nat-a"]);
}

#[test]
fn a_switch_that_was_restarted_gets_its_ports_and_paths_again() {
    let world = World::new();
    let _a = world.instance("nat-a", true, Faults::default());
    let _b = world.instance("nat-b", false, Faults::default());
    world.switch.restart();
    until("the paths", || world.switch.leads_to() == ["nat-a"]);
    world.done(&["migrate", "nat-a", "nat-b"]);
    assert_eq!(world.switch.leads_to(), ["nat-b"]);
    world.switch.restart();
    until("the paths", || world.switch.leads_to() == ["nat-b"]);
    assert_eq!(world.switch.state.lock().unwrap().instances.len(), 2);
}

#[test]
fn a_new_daemon_leads_the_traffic_to_whoever_has_the_state() {
    let mut world = keeping();
    let _a = world.instance("nat-a", true, Faults::default());
    let _b = world.instance("nat-b", false, Faults::default());
    world.done(&["migrate", "nat-a", "nat-b"]);
    // As after a switch that was restarted during the migration, and given its old paths by a daemon that died then.
    world.kill_daemon();
    world.switch.lead_to(Some("nat-a"));
    world.start_daemon();
    assert_eq!(world.switch.leads_to(), ["nat-b"]);
    // As after a daemon that died between giving a switch its ports and its paths.
    world.kill_daemon();
    world.switch.lead_to(None);
    world.start_daemon();
    assert_eq!(world.switch.leads_to(), ["nat-b"]);
}

#[test]
fn the_operator_has_the_last_word() {
    let world = World::new();
    let _a = world.instance("nat-a", true, Faults::default());
    let _b = world.instance("nat-b", false, Faults::default());
    let typed = world.slimctl(&["instance", "resolve", "nat-a", "resume"]);
    assert_eq!(typed.code(), 4, "{typed:?}");
    assert!(typed.err.contains("nat-a is not the source of a migration"), "{typed:?}");
    let typed = world.slimctl(&["instance", "reset", "nat-a"]);
    assert_eq!(typed.code(), 5, "a live instance is not emptied: {typed:?}");

    world.done(&["migrate", "nat-a", "nat-b"]);
    world.done(&["instance", "reset", "nat-a"]);
    assert_eq!(world.role("nat-a"), "idle");
    world.done(&["path", "set", "nat-a"]);
    assert_eq!(world.switch.leads_to(), ["nat-a"]);
}

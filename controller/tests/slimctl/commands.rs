//! Commands as an operator types them, above all the wrong ones: each answer says what to do, each has its exit status.

use crate::world::instance::Faults;
use crate::world::{World, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::fs::PermissionsExt;

#[test]
fn without_a_daemon_the_way_to_one_is_shown() {
    let world = World::without_daemon();
    let typed = world.slimctl(&["status"]);
    assert_eq!(typed.code(), 3, "{typed:?}");
    assert!(typed.err.contains("slimctl daemon --config"), "{typed:?}");
    let typed = world.slimctl(&["--json", "status"]);
    assert_eq!(typed.json()["error"]["exit"], 3, "{typed:?}");
}

#[test]
fn a_socket_left_behind_does_not_hinder_a_new_daemon_but_a_live_one_does() {
    let mut world = World::new();
    let config = world.path("deployment.toml");
    let second = world.slimctl(&["daemon", "--config", config.to_str().unwrap()]);
    assert_eq!(second.code(), 1, "{second:?}");
    assert!(second.err.contains("a daemon listens on"), "{second:?}");

    world.kill_daemon();
    assert!(world.path("slimctl.sock").exists());
    world.start_daemon();
    world.done(&["status"]);
}

#[test]
fn shutdown_and_signals_end_the_daemon() {
    let mut world = World::new();
    world.done(&["shutdown"]);
    assert!(world.daemon().wait().unwrap().success());
    assert!(!world.path("slimctl.sock").exists());

    world.start_daemon();
    kill(Pid::from_raw(world.daemon().id() as i32), Signal::SIGTERM).unwrap();
    assert!(world.daemon().wait().unwrap().success());
}

#[test]
fn a_deployment_is_checked_by_key_before_anything_starts() {
    let world = World::without_daemon();
    let config = world.path("deployment.toml");
    let check = || world.slimctl(&["daemon", "--check", "--config", config.to_str().unwrap()]);
    assert_eq!(check().code(), 0);
    world.change_deployment("external = \"outside\"", "external = \"outsid\"");
    let typed = check();
    assert_eq!(typed.code(), 1, "{typed:?}");
    assert!(typed.err.contains("vnf.nat.port") && typed.err.contains("inside, outside"), "{typed:?}");
    let typed = world.slimctl(&["daemon", "--config", "/nowhere/deployment.toml"]);
    assert!(typed.err.contains("cannot read /nowhere/deployment.toml"), "{typed:?}");
}

#[test]
fn a_daemon_without_a_switch_says_so() {
    let world = World::without_daemon();
    let config = world.path("deployment.toml");
    world.change_deployment("switch.sock", "no-switch.sock");
    let typed = world.slimctl(&["daemon", "--config", config.to_str().unwrap()]);
    assert_eq!(typed.code(), 1, "{typed:?}");
    assert!(typed.err.contains("is `slim-switch` running?") && typed.err.contains("no-switch.sock"), "{typed:?}");
}

#[test]
fn unknown_names_are_answered_with_the_known_ones() {
    let world = World::new();
    let typed = world.slimctl(&["instance", "show", "nat-x"]);
    assert_eq!(typed.code(), 4, "{typed:?}");
    assert!(typed.err.contains("slimctl instance boot"), "{typed:?}");
    let _a = world.instance("nat-a", false, Faults::default());
    let typed = world.slimctl(&["migrate", "nat-x", "nat-a"]);
    assert_eq!(typed.code(), 4, "{typed:?}");
    assert!(typed.err.contains("there are nat-a"), "{typed:?}");
    let typed = world.slimctl(&["instance", "boot", "nat-b", "--vnf", "gateway"]);
    assert_eq!(typed.code(), 4, "{typed:?}");
    assert!(typed.err.contains("no [vnf.gateway]; it has nat"), "{typed:?}");
    let typed = world.slimctl(&["instance", "boot", "nat-a"]);
    assert_eq!(typed.code(), 5, "{typed:?}");
    assert!(typed.err.contains("there is an instance nat-a already"), "{typed:?}");
}

#[test]
fn an_instance_that_does_not_boot_leaves_nothing_behind() {
    let world = World::new();
    let typed = world.slimctl(&["instance", "boot", "nat-a"]);
    assert_eq!(typed.code(), 1, "{typed:?}");
    assert!(typed.err.contains("there is no program"), "{typed:?}");

    std::fs::write(world.path("nat"), "#!/bin/sh\necho no hugepages >&2\nexit 3\n").unwrap();
    std::fs::set_permissions(world.path("nat"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let typed = world.slimctl(&["instance", "boot", "nat-a"]);
    assert_eq!(typed.code(), 1, "{typed:?}");
    assert!(typed.err.contains("exit status: 3") && typed.err.contains("no hugepages"), "{typed:?}");
    assert_eq!(world.done(&["instance", "list"]).as_array().map(Vec::len), Some(0));
    let state = world.switch.state.lock().unwrap();
    assert!(state.instances.is_empty() && state.ports.is_empty(), "ports are left behind");
}

#[test]
fn a_booting_instance_can_be_retired_and_its_process_ends() {
    let world = World::new();
    std::fs::write(
        world.path("nat"),
        "#!/bin/sh\necho $$ > pid; exec sleep 600\n".replace("pid", world.path("pid").to_str().unwrap()),
    )
    .unwrap();
    std::fs::set_permissions(world.path("nat"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut boot = world.command(&["instance", "boot", "nat-a"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    until("the process", || std::fs::read_to_string(world.path("pid")).is_ok_and(|pid| pid.ends_with('\n')));
    let pid: i32 = std::fs::read_to_string(world.path("pid")).unwrap().trim().parse().unwrap();
    world.done(&["instance", "retire", "nat-a"]);
    assert_eq!(boot.wait().unwrap().code(), Some(5));
    until("the end of the process", || kill(Pid::from_raw(pid), None).is_err());
}

#[test]
fn a_killed_daemon_takes_its_processes_with_it() {
    let mut world = World::new();
    std::fs::write(
        world.path("nat"),
        "#!/bin/sh\necho $$ > pid; exec sleep 600\n".replace("pid", world.path("pid").to_str().unwrap()),
    )
    .unwrap();
    std::fs::set_permissions(world.path("nat"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut boot = world.command(&["instance", "boot", "nat-a"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    until("the process", || std::fs::read_to_string(world.path("pid")).is_ok_and(|pid| pid.ends_with('\n')));
    let pid: i32 = std::fs::read_to_string(world.path("pid")).unwrap().trim().parse().unwrap();
    world.kill_daemon();
    assert_eq!(boot.wait().unwrap().code(), Some(1));
    until("the end of the process", || kill(Pid::from_raw(pid), None).is_err());
}

#[test]
fn instances_and_paths_are_shown_with_their_counters() {
    let world = World::new();
    let _a = world.instance("nat-a", true, Faults::default());
    let _b = world.instance("nat-b", false, Faults::default());
    let list = world.slimctl(&["instance", "list"]);
    assert!(list.out.contains("nat-a") && list.out.contains("live") && list.out.contains("idle"), "{list:?}");
    let show = world.slimctl(&["instance", "show", "nat-a"]);
    assert!(show.out.contains("port.in.rx_packets") && show.out.contains("1,234,567"), "{show:?}");
    assert!(show.out.contains("nat.sessions") && show.out.contains("pkt_q"), "{show:?}");
    assert!(show.out.contains("3 subscribers\n") && show.out.contains("9,000,000"), "{show:?}");
    let show = world.slimctl(&["instance", "show", "nat-a", "--subscribers", "2"]);
    assert!(show.out.contains("2 of 3 subscribers: those with the most bytes_inbound"), "{show:?}");
    let places = ["10.0.0.2", "10.0.0.3", "10.0.0.1"].map(|address| show.out.find(address));
    assert!(places[0] < places[1] && places[0].is_some() && places[2].is_none(), "{show:?}");
    let show = world.slimctl(&["--json", "instance", "show", "nat-a", "--subscribers", "0"]);
    assert!(!show.out.contains("10.0.0.2") && show.out.contains("nat.sessions"), "{show:?}");
    let paths = world.slimctl(&["path", "list"]);
    for part in ["inside", "nat-a.out", "1,000 Mbit/s", "2.5 ms", "packets 1,000,000", "no traffic leads to it"] {
        assert!(paths.out.contains(part), "{part:?} is not in {}", paths.out);
    }
    let status = world.slimctl(&["status"]);
    assert!(status.out.contains("drop.meter_packets") && status.out.contains("nat-b"), "{status:?}");
}

#[test]
fn only_one_instance_is_active_for_the_same_traffic() {
    let world = World::new();
    let _a = world.instance("nat-a", true, Faults::default());
    let typed = world.slimctl(&["instance", "boot", "nat-b", "--active"]);
    assert_eq!(typed.code(), 5, "{typed:?}");
    assert!(typed.err.contains("leads to nat-a already"), "{typed:?}");
}

#[test]
fn an_instance_that_is_somebody_else_is_not_taken_charge_of() {
    let world = World::new();
    let a = world.instance("nat-a", false, Faults::default());
    let control = a.control.to_string();
    let typed = world.slimctl(&["instance", "attach", "nat-b", "--control", &control, "--vnf", "nat"]);
    assert_eq!(typed.code(), 5, "{typed:?}");
    assert!(typed.err.contains("is nat-a, not nat-b"), "{typed:?}");
}

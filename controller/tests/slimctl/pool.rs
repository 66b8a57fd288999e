//! Pools of idle instances. The daemon boots a program that does nothing; the instance itself waits at its address.

use crate::world::instance::{Faults, TestInstance};
use crate::world::{World, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use slim_controller::process::ProcessId;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;

/// A world whose instances have addresses that no other test has, `number` being its own.
struct Pooling {
    world: World,
    network: Ipv4Addr,
    waiting: Vec<TestInstance>,
}

impl Pooling {
    fn new(number: u8, daemon: &str, vnf: &str) -> Self {
        let world = World::without_daemon();
        let network = Ipv4Addr::new(127, 20 + (std::process::id() % 200) as u8, number, 0);
        let first = Ipv4Addr::from(network.to_bits() + 11);
        let management = "address = \"127.0.0.1/8\"";
        world.change_deployment(management, &format!("{management}\nfirst_instance = \"{first}\""));
        world.change_deployment("run_dir = \"run\"", &format!("run_dir = \"run\"\n{daemon}"));
        world.change_deployment("program = \"nat\"", &format!("program = \"nat\"\n{vnf}"));
        let mut pooling = Self { world, network, waiting: Vec::new() };
        pooling.program("echo slim: ready; exec sleep 600");
        pooling.world.start_daemon();
        pooling
    }

    /// What the daemon boots from now on.
    fn program(&self, script: &str) {
        let (new, program) = (self.world.path("nat.new"), self.world.path("nat"));
        std::fs::write(&new, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(&new, &program).unwrap();
    }

    /// The instance that will be `name`, the `index`th that the daemon counts.
    fn wait_for(&mut self, name: &str, index: u32, faults: Faults) {
        let address = SocketAddr::new(Ipv4Addr::from(self.network.to_bits() + 11 + index).into(), 7001);
        self.waiting.push(self.world.unattached(name, address, faults));
    }

    fn pool(&self) -> Value {
        self.world.done(&["pool"])[0].clone()
    }

    fn until_ready(&self, names: &[&str]) {
        until(&format!("the pool with {names:?}"), || self.pool()["ready"] == json!(names));
    }

    fn process(&self, name: &str) -> u32 {
        self.world.done(&["instance", "show", name])["process_id"].as_u64().unwrap() as u32
    }
}

#[test]
fn a_pool_is_filled_and_a_migration_takes_what_it_needs() {
    let mut pooling = Pooling::new(1, "", "");
    for (name, index) in [("nat-p1", 1), ("nat-p2", 2), ("nat-p3", 0)] {
        // The third gets the number, and with it the address, of what is retired.
        pooling.wait_for(name, index, Faults::default());
    }
    let world = &pooling.world;
    let _a = world.instance("nat-a", true, Faults::default());
    assert_eq!(pooling.pool()["size"], 0, "there is none unless somebody wants it");
    world.done(&["pool", "--size", "2"]);
    pooling.until_ready(&["nat-p1", "nat-p2"]);
    let list = world.slimctl(&["instance", "list"]).out;
    assert_eq!(list.matches("up, in the pool").count(), 2, "{list}");

    let plan = world.slimctl(&["migrate", "nat-a", "--plan"]);
    assert!(plan.out.contains("nat-a to an instance of the pool"), "{plan:?}");
    let typed = world.slimctl(&["migrate", "nat-a", "--retire"]);
    assert_eq!(typed.code(), 0, "{typed:?}");
    assert!(typed.out.contains("nat-a has moved to nat-p1"), "{typed:?}");
    assert!(typed.out.contains("nat-p1 was taken out of the pool, and was ready"), "{typed:?}");
    assert_eq!((world.switch.leads_to(), world.role("nat-p1").as_str()), (vec!["nat-p1".to_owned()], "live"));
    until("the pool is full again", || pooling.pool()["ready"].as_array().is_some_and(|ready| ready.len() == 2));
    assert_eq!((&pooling.pool()["taken"], &pooling.pool()["replaced"]), (&json!(1), &json!(0)));
    let shown = world.slimctl(&["pool"]).out;
    assert!(shown.contains("nat-p2, nat-p"), "{shown}");

    world.done(&["pool", "--size", "0"]);
    pooling.until_ready(&[]);
    assert_eq!(world.role("nat-p1"), "live", "what was taken is nobody else's");
    assert_eq!(world.slimctl(&["pool", "--size", "65"]).code(), 5);
}

#[test]
fn what_ends_or_is_of_an_older_image_is_replaced() {
    let mut pooling = Pooling::new(2, "", "pool = 1");
    pooling.wait_for("nat-p1", 0, Faults::default());
    pooling.until_ready(&["nat-p1"]);
    let first = pooling.process("nat-p1");
    kill(Pid::from_raw(first as i32), Signal::SIGKILL).unwrap();
    until("the death is noticed", || pooling.pool()["replaced"] == 1);
    let error = pooling.pool()["last_error"].as_str().unwrap().to_owned();
    assert!(error.contains("nat-p1: its process ended by itself"), "{error}");
    pooling.until_ready(&["nat-p1"]);
    let second = pooling.process("nat-p1");
    assert_ne!(first, second);

    pooling.program("echo slim: ready; echo newer; exec sleep 600");
    until("the newer image is noticed", || pooling.pool()["replaced"] == 2);
    pooling.until_ready(&["nat-p1"]);
    assert_ne!(second, pooling.process("nat-p1"));
}

#[test]
fn a_pool_that_cannot_be_filled_says_why_and_tries_again() {
    let mut pooling = Pooling::new(3, "", "");
    pooling.program("echo the disk is full; exit 3");
    pooling.wait_for("nat-p1", 0, Faults::default());
    pooling.world.done(&["pool", "--vnf", "nat", "--size", "1"]);
    until("the failure", || pooling.pool()["last_error"].as_str().is_some_and(|error| error.contains("disk is full")));
    assert!(pooling.world.slimctl(&["pool"]).out.contains("the disk is full"));
    pooling.program("echo slim: ready; exec sleep 600");
    pooling.until_ready(&["nat-p1"]);
    assert_eq!(pooling.pool()["last_error"], Value::Null);
}

#[test]
fn without_a_fitting_instance_at_hand_one_is_booted() {
    let mut pooling = Pooling::new(4, "", "pool = 1");
    pooling.wait_for("nat-p1", 0, Faults { other_schema: true, ..Faults::default() });
    pooling.until_ready(&["nat-p1"]);
    pooling.wait_for("nat-p2", 2, Faults::default());
    let world = &pooling.world;
    let _a = world.instance("nat-a", true, Faults::default());
    let outcome = world.done(&["migrate", "nat-a"]);
    assert_eq!(outcome["destination"], "nat-p2");
    assert_eq!(outcome["destination_ready"]["from"], "boot");
    assert_eq!(world.switch.leads_to(), ["nat-p2"]);
    pooling.until_ready(&["nat-p1"]);

    let idle = world.slimctl(&["migrate", "nat-a", "--force"]);
    assert_eq!(idle.code(), 5, "nothing is booted for a migration that cannot be: {idle:?}");
    assert!(idle.err.contains("nat-a is not live, but released"), "{idle:?}");
}

#[test]
fn what_a_migration_has_used_in_vain_is_retired_and_what_is_named_is_taken() {
    let mut pooling = Pooling::new(5, "", "pool = 1");
    pooling.wait_for("nat-p1", 0, Faults::default());
    pooling.until_ready(&["nat-p1"]);
    pooling.wait_for("nat-p2", 2, Faults::default());
    let world = &pooling.world;
    let _a = world.instance("nat-a", true, Faults { endless_snapshot: true, ..Faults::default() });
    let first = pooling.process("nat-p1");
    let undone = world.slimctl(&["migrate", "nat-a", "--force", "--timeout", "controller.transfer=200"]);
    assert_eq!(undone.code(), 6, "{undone:?}");
    assert_eq!((world.role("nat-a").as_str(), world.switch.leads_to()), ("live", vec!["nat-a".to_owned()]));
    // Under its name or the next one there is another.
    until("the pool is full again", || pooling.pool()["ready"].as_array().is_some_and(|ready| ready.len() == 1));
    let ready = pooling.pool()["ready"][0].as_str().unwrap().to_owned();
    assert_ne!(pooling.process(&ready), first);

    let named = world.slimctl(&["migrate", "nat-a", &ready, "--force", "--timeout", "controller.transfer=200"]);
    assert_eq!(named.code(), 6, "{named:?}");
    assert_eq!(world.role(&ready), "discarded", "whoever names it decides what becomes of it");
    assert!(!pooling.pool()["ready"].as_array().unwrap().contains(&json!(ready)));
}

#[test]
fn a_new_daemon_finds_the_pool_as_it_was() {
    let mut pooling = Pooling::new(6, "keep = true", "");
    pooling.wait_for("nat-p1", 0, Faults::default());
    pooling.wait_for("nat-p2", 1, Faults::default());
    pooling.world.done(&["pool", "--size", "1"]);
    pooling.until_ready(&["nat-p1"]);
    let process = pooling.process("nat-p1");
    pooling.world.kill_daemon();
    pooling.world.start_daemon();
    assert_eq!((&pooling.pool()["size"], &pooling.pool()["ready"]), (&json!(1), &json!(["nat-p1"])));
    assert_eq!(pooling.process("nat-p1"), process);
    pooling.world.done(&["shutdown"]);
    pooling.world.daemon().wait().unwrap();
    pooling.world.start_daemon();
    assert_eq!(pooling.pool()["ready"], json!(["nat-p1"]), "it goes on, as others do");
    pooling.world.done(&["shutdown", "--retire"]);
    pooling.world.daemon().wait().unwrap();
    assert!(pooling.world.switch.state.lock().unwrap().instances.is_empty());
    assert_eq!(ProcessId::of(process), None);
}

//! Changes of the topology: each is whole or refused.

use super::*;
use crate::TopologyError;
use slim_core::protocol::control::ErrorCode;

#[test]
fn every_refusal_names_its_reason() {
    let mut rig = Rig::new(WIDE);
    let (a, b) = (name("nat-a"), name("nat-b"));
    let in_use = |port: &str, by: &str| TopologyError::PortInUse { port: name(port), by: by.into() };
    let switch = &mut rig.switch;
    assert_eq!(switch.add_port(name("inside")), Err(TopologyError::PortExists(name("inside"))));
    assert_eq!(switch.remove_port(&name("none")), Err(TopologyError::NoSuchPort(name("none"))));
    assert_eq!(switch.remove_port(&name("inside")), Err(in_use("inside", "its traffic goes to nat-a")));
    assert_eq!(switch.remove_port(&name("nat-b.in")), Err(in_use("nat-b.in", "it is a dataplane port of nat-b")));
    assert_eq!(
        switch.set_management(&names(&["nat-a.mgmt"])),
        Err(in_use("nat-a.mgmt", "it is the management port of nat-a"))
    );
    assert_eq!(switch.set_management(&names(&["mgmt", "mgmt"])), Err(TopologyError::PortTwice(name("mgmt"))));
    assert_eq!(switch.remove_instance(rig.now, &a), Err(TopologyError::InstanceInUse(a.clone())));
    assert_eq!(
        switch.set_paths(&b, &bindings(&["inside"])),
        Err(TopologyError::PortCount { instance: b.clone(), ports: 2, externals: 1 })
    );
    assert_eq!(
        switch.set_paths(&b, &bindings(&["outside", "inside"])),
        Err(in_use("outside", "its traffic goes to nat-a"))
    );
    assert_eq!(
        switch.set_paths(&a, &bindings(&["mgmt", "outside"])),
        Err(in_use("mgmt", "it belongs to the management segment"))
    );
    assert_eq!(switch.set_paths(&name("x"), &[]), Err(TopologyError::NoSuchInstance(name("x"))));
    assert_eq!(switch.add_instance(rig.now, name("c"), &[], None, WIDE), Err(TopologyError::InstancePorts(0)));
    assert_eq!(
        switch.add_instance(rig.now, name("c"), &names(&["nat-a.in"]), None, WIDE),
        Err(in_use("nat-a.in", "it is a dataplane port of nat-a"))
    );
    assert_eq!(
        switch.add_instance(rig.now, a.clone(), &names(&["nat-a.in"]), None, WIDE),
        Err(TopologyError::InstanceExists(a.clone()))
    );
    let link = |burst_bytes| LinkSettings { rate_bps: 1, burst_bytes, delay_us: 0 };
    assert_eq!(switch.set_link_settings(rig.now, &a, link(1_599)), Err(TopologyError::BurstTooSmall));
    assert_eq!(switch.set_link_settings(rig.now, &a, link((1 << 30) + 1)), Err(TopologyError::BurstTooLarge));
}

#[test]
fn redirects_that_make_no_sense_are_refused() {
    let mut rig = Rig::new(WIDE);
    rig.add_port("c.in");
    rig.switch.add_instance(rig.now, name("c"), &names(&["c.in"]), None, WIDE).unwrap();
    let mut refused = |from: &str, to: &str| {
        let (from, to, hold_max) = (name(from), name(to), Duration::ZERO);
        let request = Redirect { migration: MIGRATION, nonce: Nonce(1), from, to, rollback: false, hold_max };
        rig.switch.redirect(rig.now, request).unwrap_err().code()
    };
    assert_eq!(refused("nat-a", "nat-a"), ErrorCode::Malformed);
    assert_eq!(refused("nat-b", "nat-a"), ErrorCode::NotFound);
    assert_eq!(refused("nat-a", "c"), ErrorCode::Incompatible);
    assert_eq!(refused("nat-a", "x"), ErrorCode::NotFound);
    rig.receive("inside", frame(1));
    rig.pass(DELAY);
    assert_eq!(rig.numbers("nat-a.in"), [1], "nothing has changed");
}

#[test]
fn repeating_a_request_changes_nothing() {
    let mut rig = Rig::new(WIDE);
    let before = rig.switch.instances();
    let data = names(&["nat-a.in", "nat-a.out"]);
    rig.switch.add_instance(rig.now, name("nat-a"), &data, Some(&name("nat-a.mgmt")), WIDE).unwrap();
    rig.switch.set_paths(&name("nat-a"), &bindings(&["inside", "outside"])).unwrap();
    rig.switch.set_management(&names(&["mgmt"])).unwrap();
    assert_eq!(rig.switch.instances(), before);
    rig.receive("inside", frame(1));
    rig.pass(DELAY);
    assert_eq!(rig.numbers("nat-a.in"), [1]);
}

#[test]
fn a_removed_instance_leaves_its_ports_and_a_new_one_can_have_them() {
    let mut rig = Rig::new(WIDE);
    rig.receive("inside", frame(1));
    rig.switch.set_paths(&name("nat-a"), &[]).unwrap();
    rig.switch.remove_instance(rig.now, &name("nat-a")).unwrap();
    assert_eq!(rig.dropped(DropCause::Removed), 1);
    let data = names(&["nat-a.in", "nat-a.out"]);
    rig.switch.add_instance(rig.now, name("fresh"), &data, None, WIDE).unwrap();
    rig.switch.set_paths(&name("fresh"), &bindings(&["inside", "outside"])).unwrap();
    rig.switch.remove_port(&name("nat-a.mgmt")).unwrap();
    rig.receive("inside", frame(2));
    rig.pass(DELAY);
    assert_eq!(rig.numbers("nat-a.in"), [2]);
    assert_eq!(rig.switch.instance_of(rig.port("nat-a.in")), Some(name("fresh")));
    rig.check();
}

#[test]
fn a_removed_port_keeps_its_place_in_the_totals() {
    let mut rig = Rig::new(WIDE);
    rig.receive("nat-a.out", frame(1));
    rig.receive("nat-a.out", frame(2));
    rig.pass(DELAY);
    let outside = rig.port("outside");
    rig.switch.send(outside, |queue| drop(queue.pop_front()));
    rig.switch.set_paths(&name("nat-a"), &[]).unwrap();
    rig.switch.remove_port(&name("outside")).unwrap();
    assert_eq!((rig.dropped(DropCause::Removed), rig.counter("sent_packets")), (1, 1));
    rig.switch.receive(rig.now, outside, OwnedPacket::new(frame(3)));
    assert_eq!(rig.dropped(DropCause::Removed), 2);
    rig.check();
}

#[test]
fn there_is_room_for_64_ports_and_a_clear_word_for_the_65th() {
    let mut switch = Switch::new(HeapBuffers, Limits::default());
    for number in 0..64 {
        switch.add_port(name(&format!("p{number}"))).unwrap();
    }
    assert_eq!(switch.add_port(name("p64")), Err(TopologyError::Limit(64)));
    switch.remove_port(&name("p7")).unwrap();
    assert_eq!(switch.add_port(name("p64")), Ok(PortIndex(7)));
}

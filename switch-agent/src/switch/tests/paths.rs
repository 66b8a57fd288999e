//! Paths, meters and delay lines.

use super::*;

#[test]
fn a_packet_reaches_its_instance_after_exactly_the_delay() {
    let mut rig = Rig::new(LinkSettings::default());
    rig.receive("inside", frame(1));
    rig.pass(DELAY - Duration::from_nanos(1));
    assert!(rig.sent("nat-a.in").is_empty());
    rig.pass(Duration::from_nanos(1));
    assert_eq!(rig.numbers("nat-a.in"), [1]);
    rig.check();
}

#[test]
fn all_four_paths_lead_where_they_should() {
    let mut rig = Rig::new(LinkSettings::default());
    let ends = [("inside", "nat-a.in"), ("outside", "nat-a.out"), ("nat-a.in", "inside"), ("nat-a.out", "outside")];
    for (number, (from, _)) in ends.iter().enumerate() {
        rig.receive(from, frame(number as u32));
    }
    rig.pass(DELAY);
    for (number, (_, to)) in ends.iter().enumerate() {
        assert_eq!(rig.numbers(to), [number as u32]);
    }
    for instance in rig.switch.instances() {
        let counted: Vec<_> = instance.paths.iter().map(|path| path.counters["passed_packets"]).collect();
        assert_eq!(counted, if instance.instance == name("nat-a") { vec![1; 4] } else { vec![] });
    }
    rig.check();
}

#[test]
fn an_instance_without_paths_reaches_nobody() {
    let mut rig = Rig::new(LinkSettings::default());
    rig.receive("nat-b.in", frame(1));
    rig.pass(DELAY);
    assert_eq!(rig.dropped(DropCause::NoPath), 1);
    rig.switch.set_paths(&name("nat-a"), &[]).unwrap();
    rig.receive("inside", frame(2));
    assert_eq!(rig.dropped(DropCause::NoPath), 2);
    rig.check();
}

#[test]
fn each_direction_has_one_meter_for_all_ports_management_included() {
    let link = LinkSettings { rate_bps: 8_000_000, burst_bytes: 2_000, delay_us: 0 };
    let mut rig = Rig::new(link);
    // 64-byte frames: 31 fit the bucket of each direction, whatever the port.
    for number in 0..30 {
        let (to, from) = [("inside", "nat-a.in"), ("outside", "nat-a.out")][number as usize % 2];
        rig.receive(to, frame(number));
        rig.receive(from, frame(number));
    }
    rig.receive("mgmt", frame(30));
    rig.receive("nat-a.mgmt", frame(30));
    rig.pass(Duration::ZERO);
    assert_eq!(rig.dropped(DropCause::MeterToInstance) + rig.dropped(DropCause::MeterFromInstance), 0);
    rig.receive("inside", frame(31));
    rig.receive("nat-a.out", frame(31));
    rig.receive("nat-a.mgmt", frame(31));
    assert_eq!(rig.dropped(DropCause::MeterToInstance), 1);
    assert_eq!(rig.dropped(DropCause::MeterFromInstance), 2);
    // A byte per microsecond.
    rig.pass(Duration::from_micros(64));
    rig.receive("inside", frame(32));
    assert_eq!(rig.dropped(DropCause::MeterToInstance), 1);
    rig.pass(Duration::ZERO);
    rig.check();
}

#[test]
fn frames_of_other_lengths_pass_whole() {
    let mut rig = Rig::new(LinkSettings::default());
    for len in [14, 59, 60, 1514, 1600, 2000] {
        rig.receive("inside", vec![1; len]);
    }
    rig.receive("inside", vec![1; 13]);
    rig.pass(DELAY);
    let lens: Vec<_> = rig.sent("nat-a.in").iter().map(Vec::len).collect();
    assert_eq!(lens, [14, 59, 60, 1514, 1600, 2000]);
    assert_eq!(rig.dropped(DropCause::Runt), 1);
    rig.check();
}

#[test]
fn a_slow_peer_gets_its_packets_late_but_in_order_until_the_bound() {
    let mut limits = Limits::default();
    limits.egress.packets = 4;
    let mut rig = Rig::with(HeapBuffers, limits, WIDE);
    for number in 0..6 {
        rig.receive("inside", frame(number));
    }
    rig.pass(DELAY);
    assert_eq!(rig.dropped(DropCause::EgressFull), 2);
    let port = rig.port("nat-a.in");
    let mut taken = Vec::new();
    for _ in 0..4 {
        rig.switch.send(port, |queue| taken.extend(queue.pop_front().map(|packet| number(packet.bytes()))));
        rig.check();
    }
    assert_eq!(taken, [0, 1, 2, 3]);
    assert_eq!(rig.switch.port_counters(port)["egress_waiting_packets_max"], 4);
}

#[test]
fn packets_for_a_port_that_is_down_are_dropped_and_counted() {
    let mut rig = Rig::new(WIDE);
    let port = rig.port("nat-a.in");
    rig.receive("inside", frame(1));
    rig.pass(DELAY);
    rig.switch.set_link(port, false);
    assert_eq!(rig.dropped(DropCause::LinkDown), 1, "what waited");
    rig.receive("inside", frame(2));
    rig.pass(DELAY);
    assert_eq!(rig.dropped(DropCause::LinkDown), 2, "what came");
    rig.switch.set_link(port, true);
    rig.switch.set_link(port, true);
    assert!(rig.sent("nat-a.in").is_empty());
    let link = |up| SwitchEvent::PortLink { port: name("nat-a.in"), up };
    assert_eq!(rig.events(), [link(false), link(true)]);
    rig.check();
}

#[test]
fn flow_spaces_split_an_external_port_between_instances() {
    let mut rig = Rig::new(WIDE);
    let odd = FlowSpace { source: "0.0.0.1/0.0.0.1".parse().unwrap(), ..FlowSpace::ANY };
    let mut split = bindings(&["inside", "outside"]);
    split.iter_mut().for_each(|binding| binding.flow_space = odd);
    rig.switch.set_paths(&name("nat-b"), &split).unwrap();
    let mut from_odd = frame(1);
    from_odd[29] = 7;
    let mut from_even = frame(2);
    from_even[29] = 8;
    let mut arp = frame(3);
    arp[13] = 6;
    for frame in [from_odd, from_even, arp] {
        rig.receive("inside", frame);
    }
    rig.pass(DELAY);
    assert_eq!(rig.numbers("nat-b.in"), [1]);
    assert_eq!(rig.numbers("nat-a.in"), [2, 3]);
    rig.check();
}

#[test]
fn a_new_link_setting_keeps_what_is_on_the_way_in_order() {
    let mut rig = Rig::new(WIDE);
    rig.receive("inside", frame(1));
    rig.switch.set_link_settings(rig.now, &name("nat-a"), LinkSettings { delay_us: 0, ..WIDE }).unwrap();
    rig.receive("inside", frame(2));
    rig.pass(Duration::from_micros(2_499));
    assert!(rig.sent("nat-a.in").is_empty());
    rig.pass(Duration::from_micros(1));
    assert_eq!(rig.numbers("nat-a.in"), [1, 2]);
}

#[test]
fn what_gathered_in_the_rings_while_the_switch_did_not_run_passes_the_meter() {
    // 20 ms at 100 kB/s are 2,000 bytes; 31 frames of 64 bytes.
    let mut rig = Rig::new(LinkSettings { rate_bps: 800_000, burst_bytes: 2_000, delay_us: 0 });
    rig.switch.advance(rig.now);
    // It stands still for 64 ms, in which 100 frames may come; they take several rounds.
    rig.now += Duration::from_millis(64);
    for round in 0..4 {
        for number in 0..32 {
            rig.receive("inside", frame(32 * round + number));
        }
        rig.switch.set_backlog(round < 3);
        rig.switch.advance(rig.now);
    }
    assert_eq!(rig.dropped(DropCause::MeterToInstance), 0);
    // Beyond burst and rate nothing passes, and nothing is left over once the switch has caught up.
    for number in 0..10 {
        rig.receive("inside", frame(number));
    }
    assert_eq!(rig.dropped(DropCause::MeterToInstance), 7);
    rig.check();
}

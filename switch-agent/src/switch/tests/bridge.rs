//! The management segment.

use super::*;

pub(super) const CONTROLLER: [u8; 6] = [2, 0, 0, 0, 0, 0xc];
pub(super) const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
pub(super) const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];

pub(super) fn addressed(to: [u8; 6], from: [u8; 6], number: u32) -> Vec<u8> {
    let mut frame = frame(number);
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
    frame
}

#[test]
fn management_frames_flood_first_and_then_find_their_port() {
    let mut rig = Rig::new(LinkSettings::default());
    rig.receive("mgmt", addressed([0xff; 6], CONTROLLER, 1));
    rig.pass(DELAY);
    assert_eq!((rig.numbers("nat-a.mgmt"), rig.numbers("nat-b.mgmt")), (vec![1], vec![1]));
    assert!(rig.sent("mgmt").is_empty(), "never back to where it came from");
    rig.receive("nat-a.mgmt", addressed(CONTROLLER, A, 2));
    rig.pass(DELAY);
    assert_eq!(rig.numbers("mgmt"), [2]);
    assert!(rig.sent("nat-b.mgmt").is_empty());
    for port in ["inside", "outside", "nat-a.in", "nat-b.out"] {
        assert!(rig.sent(port).is_empty(), "{port}");
    }
    rig.check();
}

#[test]
fn traffic_between_instances_passes_both_links() {
    let mut rig = Rig::new(LinkSettings::default());
    rig.receive("nat-b.mgmt", addressed([0xff; 6], B, 0));
    rig.pass(2 * DELAY);
    rig.sent("nat-a.mgmt");
    rig.sent("mgmt");
    rig.receive("nat-a.mgmt", addressed(B, A, 1));
    rig.pass(2 * DELAY - Duration::from_nanos(1));
    assert!(rig.sent("nat-b.mgmt").is_empty());
    rig.pass(Duration::from_nanos(1));
    assert_eq!(rig.numbers("nat-b.mgmt"), [1]);
    assert!(rig.sent("mgmt").is_empty());
    rig.check();
}

#[test]
fn without_buffers_a_flood_reaches_one_port_and_the_rest_is_counted() {
    struct NoBuffers;
    impl Buffers for NoBuffers {
        type Packet = OwnedPacket;
        fn copy_of(&mut self, _: &[u8]) -> Option<OwnedPacket> {
            None
        }
    }
    let mut rig = Rig::with(NoBuffers, Limits::default(), WIDE);
    rig.receive("mgmt", addressed([0xff; 6], CONTROLLER, 1));
    rig.pass(DELAY);
    assert_eq!(rig.sent("nat-a.mgmt").len() + rig.sent("nat-b.mgmt").len(), 1);
    assert_eq!(rig.dropped(DropCause::NoBuffer), 1);
    rig.check();
}

#[test]
fn frames_that_bridges_keep_are_dropped_and_counted() {
    let mut rig = Rig::new(WIDE);
    rig.receive("mgmt", addressed([1, 0x80, 0xc2, 0, 0, 0], CONTROLLER, 1));
    rig.receive("mgmt", addressed([0xff; 6], A, 2));
    rig.receive("mgmt", addressed(A, CONTROLLER, 3));
    assert_eq!((rig.dropped(DropCause::BridgeReserved), rig.dropped(DropCause::BridgeSamePort)), (1, 1));
    rig.receive("mgmt", hand_back_end(0));
    rig.receive("nat-a.mgmt", hand_back_end(0));
    assert_eq!(rig.dropped(DropCause::InbandForbidden), 2);
    rig.check();
}

#[test]
fn a_port_that_leaves_the_segment_gets_no_more_of_it() {
    let mut rig = Rig::new(WIDE);
    rig.receive("nat-a.mgmt", addressed([0xff; 6], A, 1));
    rig.pass(2 * DELAY);
    assert_eq!((rig.numbers("mgmt"), rig.numbers("nat-b.mgmt")), (vec![1], vec![1]));
    rig.switch.set_management(&[]).unwrap();
    rig.receive("nat-a.mgmt", addressed([0xff; 6], A, 2));
    rig.receive("mgmt", addressed(A, CONTROLLER, 3));
    rig.pass(2 * DELAY);
    assert!(rig.sent("mgmt").is_empty() && rig.sent("nat-a.mgmt").is_empty());
    assert_eq!(rig.dropped(DropCause::NoPath), 1);
    rig.check();
}

/// A hypervisor that moves a guest: its stream takes what the guest's traffic leaves, on both links.
#[test]
fn the_machine_an_instance_runs_on_shares_its_link() {
    let link = LinkSettings { rate_bps: 8_000_000, burst_bytes: 2_000, delay_us: 2_500 };
    let mut rig = Rig::new(link);
    for (port, instance) in [("a.host", "nat-a"), ("b.host", "nat-b")] {
        rig.add_port(port);
        rig.switch.set_host_port(&name(instance), Some(&name(port))).unwrap();
        rig.switch.set_host_port(&name(instance), Some(&name(port))).unwrap();
    }
    let (host_a, host_b) = ([2, 0, 0, 0, 0, 0x1a], [2, 0, 0, 0, 0, 0x1b]);
    rig.receive("b.host", addressed([0xff; 6], host_b, 0));
    rig.pass(2 * DELAY);
    for port in ["a.host", "mgmt", "nat-a.mgmt", "nat-b.mgmt"] {
        rig.sent(port);
    }
    rig.pass(Duration::from_millis(10));
    rig.switch.advance(rig.now);
    // 2,000 bytes of burst are 31 frames of 64: the guest's and its host's together.
    for number in 0..20 {
        rig.receive("nat-a.in", frame(number));
        rig.receive("a.host", addressed(host_b, host_a, number));
    }
    rig.pass(2 * DELAY);
    assert_eq!((rig.sent("inside").len(), rig.sent("b.host").len()), (16, 15));
    assert!(rig.sent("nat-b.mgmt").is_empty());

    let in_use = rig.switch.remove_port(&name("a.host")).unwrap_err().to_string();
    assert!(in_use.contains("it is the host port of nat-a"), "{in_use}");
    rig.switch.set_host_port(&name("nat-a"), None).unwrap();
    rig.switch.remove_port(&name("a.host")).unwrap();
    assert!(rig.switch.set_host_port(&name("nat-b"), Some(&name("nat-b.in"))).is_err(), "a dataplane port");
    rig.switch.remove_instance(rig.now, &name("nat-b")).unwrap();
    rig.switch.remove_port(&name("b.host")).unwrap();
    rig.check();
}

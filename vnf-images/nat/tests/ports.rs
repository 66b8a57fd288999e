//! What exterior ports are like: classes, parity, contiguity, preservation.

mod common;

use common::*;
use slim_nat::Config;

#[test]
fn rfc4787_r3_port_classes_are_kept_where_well_known_ports_are_lent() {
    let mut lab = Lab::resolved(&Config { port_first: 1000, port_last: 1100, ..config() });
    for n in 10..20 {
        assert!(lab.udp_out(socket(host(n), 500), socket(server(10), 7)).port() < 1024);
        assert!(lab.udp_out(socket(host(n), 5000), socket(server(10), 7)).port() >= 1024);
    }
    // Others are for whoever finds no well-known port left, but not the other way round.
    for n in 10..25 {
        let exterior = lab.udp_out(socket(host(n), 501), socket(server(10), 7));
        assert_eq!(exterior.port() < 1024, n < 24, "{n}: {exterior}");
    }
}

#[test]
fn rfc4787_r4_parity_and_contiguity_are_kept_if_asked_for() {
    let mut lab = Lab::resolved(&Config { port_parity: true, port_first: 2000, port_last: 2019, ..config() });
    for (n, first) in [(10, 5000), (11, 5001), (12, 5002), (13, 5003), (14, 5004)] {
        let one = lab.udp_out(socket(host(n), first), socket(server(10), 7)).port();
        let other = lab.udp_out(socket(host(n), first ^ 1), socket(server(10), 7)).port();
        assert_eq!((one % 2, other), (first % 2, one ^ 1), "neighbours stay neighbours");
    }
    for i in 0..5 {
        assert_eq!(lab.udp_out(socket(host(15), 6000 + 2 * i), socket(server(10), 7)).port() % 2, 0);
    }
    // No even port is left: an odd one is better than none.
    assert_eq!(lab.udp_out(socket(host(16), 6000), socket(server(10), 7)).port() % 2, 1);
}

#[test]
fn rfc4787_s4_2_1_ports_are_preserved_if_asked_for() {
    let mut lab = Lab::resolved(&Config { port_preservation: true, port_last: 5999, ..config() });
    assert_eq!(lab.udp_out(socket(host(10), 5000), socket(server(10), 7)).port(), 5000);
    assert_eq!(lab.tcp_out(socket(host(11), 5000), socket(server(10), 7), SYN).port(), 5000);
    // Taken, or not lent at all: another, and nobody's twice (R3).
    let other = lab.udp_out(socket(host(11), 5000), socket(server(10), 7)).port();
    assert!(other != 5000 && (1024..6000).contains(&other));
    assert!((1024..6000).contains(&lab.udp_out(socket(host(10), 7000), socket(server(10), 7)).port()));
}

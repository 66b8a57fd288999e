//! What the operator's log is told.

mod common;

use common::*;
use slim_core::nf::NetworkFunction;
use slim_nat::Config;
use slim_nat::config::LogLevel;

const SERVER: u8 = 10;

fn lab(log: LogLevel) -> Lab {
    let port_block_size = (log == LogLevel::Blocks).then_some(8);
    Lab::resolved(&Config { log, port_block_size, port_first: 2000, port_last: 2007, ..config() })
}

/// Two sessions of one endpoint, one of another, a query; then all of it expires.
fn life(lab: &mut Lab) -> (Vec<String>, Vec<String>) {
    lab.udp_out(socket(host(10), 5000), socket(server(SERVER), 7));
    lab.udp_out(socket(host(10), 5000), socket(server(SERVER), 8));
    lab.udp_out(socket(host(10), 5001), socket(server(SERVER), 7));
    lab.outbound(&echo(IN, host(10), server(SERVER), 8, 77)).sent_to(OUT);
    let began = lab.log();
    lab.pass(301);
    lab.pass(121);
    (began, lab.log())
}

fn count(lines: &[String], event: &str) -> usize {
    lines.iter().filter(|line| line.starts_with(&format!("\"event\":\"{event}\","))).count()
}

#[test]
fn nothing_is_logged_unless_asked_for() {
    assert_eq!(life(&mut lab(LogLevel::Off)), (vec![], vec![]));
}

#[test]
fn rfc6888_r14_blocks_are_logged_once_for_all_of_their_ports() {
    let (began, ended) = life(&mut lab(LogLevel::Blocks));
    let block = "\"host\":\"10.1.0.10\",\"exterior\":\"10.2.0.1\",\"first_port\":2000,\"last_port\":2007";
    assert_eq!(began, [format!("\"event\":\"block_lent\",{block}")]);
    assert_eq!(ended, [format!("\"event\":\"block_returned\",{block}")]);
}

#[test]
fn rfc6888_r12_mappings_are_logged_without_destinations() {
    let mut lab = lab(LogLevel::Mappings);
    let (began, ended) = life(&mut lab);
    assert_eq!((count(&began, "mapping_begins"), began.len()), (3, 3));
    assert_eq!((count(&ended, "mapping_ends"), ended.len()), (3, 3));
    assert!(began.iter().chain(&ended).all(|line| !line.contains(&server(SERVER).to_string())));
    lab.arp_reply(OUT, server(SERVER));
    let exterior = lab.udp_out(socket(host(11), 5000), socket(server(SERVER), 7));
    let expected = format!(
        "\"event\":\"mapping_begins\",\"protocol\":\"udp\",\"host\":\"10.1.0.11\",\"port\":5000,\
         \"exterior\":\"10.2.0.1\",\"exterior_port\":{}",
        exterior.port()
    );
    assert_eq!(lab.log(), [expected]);
}

#[test]
fn sessions_are_logged_with_both_ends() {
    let mut lab = lab(LogLevel::Sessions);
    let (began, ended) = life(&mut lab);
    assert_eq!((count(&began, "session_begins"), began.len()), (4, 4));
    assert_eq!((count(&ended, "session_ends"), ended.len()), (4, 4));
    assert!(began[1].ends_with("\"server\":\"10.2.0.10\",\"server_port\":8"), "{}", began[1]);
    assert!(began[3].contains("\"protocol\":\"icmp\",\"host\":\"10.1.0.10\",\"port\":77,"), "{}", began[3]);
}

#[test]
fn each_event_is_logged_by_one_instance_only() {
    let config = Config { log: LogLevel::Mappings, ..config() };
    let (mut source, mut follower) = (Lab::resolved(&config), Lab::with_seed(&config, 9));
    adopt(&mut follower.nat, &source.freeze());
    source.bench.upd_enable = true;
    source.udp_out(socket(host(10), 5000), socket(server(SERVER), 7));
    for (statelet_type, value) in source.statelets() {
        follower.nat.install(statelet_type, &value).unwrap();
    }
    follower.nat.take_over(follower.bench.now);
    assert_eq!((source.log().len(), follower.log().len()), (1, 0));
    follower.pass(301);
    assert_eq!((count(&follower.log(), "mapping_ends"), source.log().len()), (1, 0));
}

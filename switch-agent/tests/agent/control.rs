//! The control socket: what is refused and why, several clients, and lines that are no requests.

use crate::rig::*;
use slim_core::protocol::control::{
    ErrorCode, LINE_BYTES_MAX, PortKind, ServerMessage, SwitchEvent, SwitchReply, SwitchRequest,
};

fn vhost(port: &str, socket: impl Into<String>) -> SwitchRequest {
    SwitchRequest::PortAdd { name: name(port), kind: PortKind::VhostUser { socket: socket.into() } }
}

#[test]
fn lines_that_are_no_requests_are_answered_and_the_next_one_is_served() {
    let mut agent = Agent::start();
    for (line, id, code) in [
        ("nonsense\n", 0, ErrorCode::Malformed),
        ("{\"v\":1,\"id\":5}\n", 5, ErrorCode::Malformed),
        ("{\"v\":1,\"id\":6,\"request\":{\"type\":\"dance\"}}\n", 6, ErrorCode::Malformed),
        ("{\"v\":1,\"id\":7,\"request\":{\"type\":\"status\",\"more\":1}}\n", 7, ErrorCode::Malformed),
        ("{\"v\":9,\"id\":8,\"request\":{\"type\":\"status\"}}\n", 8, ErrorCode::UnsupportedVersion),
        ("\u{1}\u{2}\u{3}\n", 0, ErrorCode::Malformed),
    ] {
        agent.control.send(line.as_bytes());
        let (replied, result) = agent.control.reply();
        assert_eq!((replied, result.expect_err("refused").code), (id, code), "{line:?}");
    }
    agent.control.send(b"\n\n{\"v\":1,\"id\":70,\"request\":{\"type\":\"port_list\"}}\n");
    assert_eq!(agent.control.reply(), (70, Ok(SwitchReply::Ports { ports: vec![] })));
}

#[test]
fn a_line_without_end_costs_the_connection_and_nothing_else() {
    let mut agent = Agent::start();
    let mut other = Control::connect(&agent.socket("control"));
    let endless = vec![b' '; LINE_BYTES_MAX + 2];
    other.send(&endless);
    assert!(other.receive().is_none());
    agent.status();
}

#[test]
fn a_client_that_only_asks_and_closes_its_side_gets_its_answers() {
    let agent = Agent::start();
    for _ in 0..20 {
        let mut other = Control::connect(&agent.socket("control"));
        other.send(b"{\"v\":1,\"id\":1,\"request\":{\"type\":\"port_list\"}}\nnonsense\n");
        other.close_write();
        assert_eq!(other.reply(), (1, Ok(SwitchReply::Ports { ports: vec![] })));
        assert!(other.reply().1.is_err());
        assert!(other.receive().is_none(), "then the switch closes its side");
    }
}

#[test]
fn every_client_hears_of_every_event() {
    let mut agent = Agent::start();
    let mut clients: Vec<Control> = (0..4).map(|_| Control::connect(&agent.socket("control"))).collect();
    // A client is known once it has had an answer.
    for client in &mut clients {
        client.ask(SwitchRequest::Status {}).expect("a status");
    }
    // One that leaves without a word is no hindrance.
    drop(clients.pop());
    agent.add_vhost("p");
    let _peer = agent.peer("p");
    let up = SwitchEvent::PortLink { port: name("p"), up: true };
    for client in &mut clients {
        assert!(matches!(client.receive(), Some(ServerMessage::Event(event)) if event == up));
    }
}

#[test]
fn what_is_in_use_or_impossible_is_refused_by_name() {
    let mut agent = Agent::start();
    agent.add_vhost("p");
    let socket = |port: &str| agent.folder.path().join(format!("{port}.sock")).display().to_string();
    let plain = agent.folder.path().join("plain");
    std::fs::write(&plain, "precious").expect("writes");
    let (used, control) = (socket("p"), socket("control"));
    let tap = |interface: &str| SwitchRequest::PortAdd {
        name: name("t"),
        kind: PortKind::Tap { interface: interface.into() },
    };
    let vdev =
        |devargs: &str| SwitchRequest::PortAdd { name: name("v"), kind: PortKind::Vdev { devargs: devargs.into() } };
    for (request, code, words) in [
        (vhost("p", socket("other")), ErrorCode::AlreadyExists, "port named p already"),
        (vhost("q", &used), ErrorCode::AlreadyExists, "is port p's already"),
        (vhost("q", &control), ErrorCode::Io, "a running process listens on it"),
        (vhost("q", plain.display().to_string()), ErrorCode::Io, "is not a socket"),
        (vhost("q", "/nowhere/at/all.sock"), ErrorCode::Io, "no folder /nowhere/at"),
        (vhost("q", "/tmp/a,b"), ErrorCode::Malformed, "no comma"),
        (vhost("q", "x".repeat(200)), ErrorCode::Malformed, "1 to 107 bytes"),
        (tap("much-too-long-name"), ErrorCode::Malformed, "1 to 15 bytes"),
        (tap("lo"), ErrorCode::Io, "lo"),
        (vdev("net_nonsense0"), ErrorCode::Io, "net_nonsense0"),
        (vdev(""), ErrorCode::Malformed, "begin with a device"),
        (SwitchRequest::PortRemove { name: name("none") }, ErrorCode::NotFound, "no port named none"),
        (
            SwitchRequest::PathsSet { instance: name("none"), externals: vec![] },
            ErrorCode::NotFound,
            "no instance named none",
        ),
    ] {
        let error = agent.control.refused(request.clone());
        assert_eq!(error.code, code, "{request:?}: {error}");
        assert!(error.message.as_str().contains(words), "{request:?}: {error}");
    }
    assert_eq!(std::fs::read_to_string(&plain).expect("still there"), "precious");
    // Nothing is left of what was refused.
    agent.control.done(vhost("q", socket("q")));
    let _peer = agent.peer("q");
}

#[test]
fn requests_can_be_repeated() {
    let mut agent = Agent::with_instances(WIDE);
    for _ in 0..2 {
        agent.add_vhost("inside");
        agent.control.done(SwitchRequest::InstanceAdd {
            name: name("nat-a"),
            ports: names(&["nat-a.in", "nat-a.out"]),
            mgmt: Some(name("nat-a.mgmt")),
            link: WIDE,
        });
        agent
            .control
            .done(SwitchRequest::PathsSet { instance: name("nat-a"), externals: names(&["inside", "outside"]) });
    }
    let SwitchReply::Paths { instances } = agent.control.ask(SwitchRequest::PathList {}).expect("a list") else {
        panic!("another reply");
    };
    let paths: Vec<_> = instances[0].paths.iter().map(|path| format!("{}→{}", path.from, path.to)).collect();
    assert_eq!(paths, ["inside→nat-a.in", "nat-a.in→inside", "outside→nat-a.out", "nat-a.out→outside"]);
    assert!(instances[1].paths.is_empty());
}

#[test]
fn ports_come_and_go_while_others_are_in_use() {
    let mut agent = Agent::with_instances(WIDE);
    let (mut outer, mut inner) = (agent.peer("inside"), agent.peer("nat-a.in"));
    for round in 0..5 {
        agent.add_vhost("guest");
        let guest = agent.peer("guest");
        outer.send(&frame(round, 90));
        assert_eq!(inner.receive(1), [frame(round, 90)]);
        assert!(agent.socket("guest").exists());
        agent.control.done(SwitchRequest::PortRemove { name: name("guest") });
        assert!(!agent.socket("guest").exists());
        drop(guest);
    }
    agent.settled_counters();
}

#[test]
fn the_socket_is_its_owners_only() {
    use std::os::unix::fs::MetadataExt;
    let agent = Agent::start();
    let metadata = agent.socket("control").metadata().expect("it exists");
    assert_eq!(metadata.mode() & 0o777, 0o600);
}

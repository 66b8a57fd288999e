//! Start and end of the agent.

use crate::rig::*;
use nix::sys::signal::Signal;
use slim_core::protocol::control::{ServerMessage, SwitchRequest};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_slim-switch")).args(arguments).output().expect("it runs")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn both_signals_end_it_in_order_and_nothing_is_left() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut agent = Agent::with_instances(WIDE);
        let mut outer = agent.peer("inside");
        outer.send(&frame(0, 60));
        let mut sockets = vec![agent.socket("control")];
        sockets.extend(["inside", "nat-a.in", "nat-b.mgmt"].map(|port| agent.socket(port)));
        assert!(sockets.iter().all(|socket| socket.exists()));
        agent.signal(signal);
        assert_eq!(agent.wait_exit().code(), Some(0));
        assert_eq!(sockets.iter().find(|socket| socket.exists()), None);
        // Clients are let go, after the last events.
        while let Some(message) = agent.control.receive() {
            assert!(matches!(message, ServerMessage::Event(_)), "{message:?}");
        }
    }
}

#[test]
fn a_request_ends_it_too() {
    let mut agent = Agent::start();
    agent.control.done(SwitchRequest::Shutdown {});
    assert_eq!(agent.wait_exit().code(), Some(0));
    assert!(!agent.socket("control").exists());
}

#[test]
fn a_socket_in_use_is_refused_and_a_stale_one_replaced() {
    let mut agent = Agent::start();
    let control = agent.socket("control");
    let second = run(&["--control", text(&control)]);
    assert_eq!(second.status.code(), Some(3));
    assert!(words(&second).contains("is in use"), "{}", words(&second));
    agent.status();

    // A vhost socket and a control socket of a switch that was killed.
    agent.add_vhost("p");
    let port = agent.socket("p");
    agent.signal(Signal::SIGKILL);
    agent.wait_exit();
    assert!(control.exists() && port.exists());
    let mut next = Command::new(env!("CARGO_BIN_EXE_slim-switch"));
    let config = agent.folder.path().join("next.toml");
    let kind = format!("{{ type = \"vhost_user\", socket = \"{}\" }}", text(&port));
    std::fs::write(&config, format!("[[port]]\nname = \"p\"\nkind = {kind}\n")).expect("writes");
    next.args(["--mbufs", "16383", "--control", text(&control), "--config", text(&config)]);
    agent.child = next.spawn().expect("it starts");
    wait_until("the next switch", || std::os::unix::net::UnixStream::connect(&control).is_ok());
    agent.control = Control::connect(&control);
    // Answered once the configuration is applied.
    agent.status();
    let _peer = agent.peer("p");
}

#[test]
fn what_cannot_work_is_said_before_anything_is_opened() {
    let folder = tempfile::tempdir().expect("a folder");
    let control = folder.path().join("control.sock");
    let config = folder.path().join("switch.toml");
    let tried = |content: &str, more: &[&str]| {
        std::fs::write(&config, content).expect("writes");
        let output = run(&[&["--control", text(&control), "--config", text(&config)], more].concat());
        (output.status.code(), words(&output))
    };
    let (code, said) = tried("[[prot]]\n", &[]);
    assert!(code == Some(2) && said.contains("unknown field `prot`") && said.contains("switch.toml"), "{said}");
    let (code, said) = tried("management = [\"mgmt\"]\n", &[]);
    assert!(code == Some(2) && said.contains("there is no port named mgmt"), "{said}");
    let (code, said) = tried("", &["--eal=--no-such-option"]);
    assert!(code == Some(4) && said.contains("DPDK does not start"), "{said}");
    assert_eq!(tried("", &["--check"]).0, Some(0));
    assert_eq!(tried("", &["--mbufs", "7"]).0, Some(2));
    assert_eq!(run(&[]).status.code(), Some(2));
    assert!(!control.exists());

    let taken = folder.path().join("taken.sock");
    let _listener = UnixListener::bind(&taken).expect("listens");
    let kind = format!("{{ type = \"vhost_user\", socket = \"{}\" }}", text(&taken));
    let (code, said) = tried(&format!("[[port]]\nname = \"p\"\nkind = {kind}\n"), &[]);
    assert!(code == Some(3) && said.contains("port p: ") && said.contains("is in use"), "{said}");
    assert!(!control.exists() && taken.exists());
}

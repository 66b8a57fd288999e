//! TAP interfaces, in a network namespace of the agent's own.

use crate::rig::*;
use nix::sys::signal::Signal;
use slim_core::protocol::control::{PortKind, SwitchRequest};
use std::process::{Child, Command, Output, Stdio};

/// A command inside the namespaces of process `pid`.
fn inside(pid: u32, arguments: &[&str]) -> Output {
    let mut command = Command::new("nsenter");
    command.args(["--preserve-credentials", "--user", "--net", "--target", &pid.to_string(), "--"]);
    command.args(arguments).output().expect("nsenter")
}

fn inside_ok(pid: u32, arguments: &[&str]) -> String {
    let output = inside(pid, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What the kernel has received on `interface`: what the switch has sent.
fn kernel_received(pid: u32, interface: &str) -> u64 {
    let json = inside_ok(pid, &["ip", "-s", "-j", "link", "show", "dev", interface]);
    let links: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    links[0]["stats64"]["rx"]["packets"].as_u64().expect("a count")
}

/// The MAC address of `interface`.
fn address(pid: u32, interface: &str) -> String {
    let links: serde_json::Value =
        serde_json::from_str(&inside_ok(pid, &["ip", "-j", "link", "show", "dev", interface])).expect("JSON");
    links[0]["address"].as_str().expect("an address").to_owned()
}

/// A process that does nothing in a network namespace of its own, below the agent's.
struct Elsewhere(Child);

impl Elsewhere {
    fn new(agent: u32) -> Self {
        let mut command = Command::new("nsenter");
        command.args(["--preserve-credentials", "--user", "--net", "--target", &agent.to_string(), "--"]);
        command.args(["unshare", "--net", "sleep", "1000"]).stdin(Stdio::null());
        let child = command.spawn().expect("nsenter");
        let net = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        wait_until("the other namespace", || {
            let theirs = net(child.id());
            // Neither ours nor the agent's: `unshare` has done its work.
            theirs.is_some() && theirs != net(agent) && theirs != net(std::process::id())
        });
        Self(child)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a datagram through `interface`, which is brought up, and receives it behind the switch; then one back.
fn exchange(agent: &mut Agent, pid: u32, interface: &str, port: &str, peer: &mut Peer) {
    inside_ok(pid, &["ip", "address", "replace", "10.9.0.1/24", "dev", interface]);
    inside_ok(pid, &["ip", "link", "set", interface, "up"]);
    inside_ok(pid, &["ip", "neighbour", "replace", "10.9.0.2", "lladdr", "02:00:00:00:00:09", "dev", interface]);
    agent.wait_link(port, true);
    inside_ok(pid, &["bash", "-c", "echo through the switch > /dev/udp/10.9.0.2/9"]);
    let is_ours = |frame: &Vec<u8>| frame.windows(18).any(|bytes| bytes == b"through the switch");
    // The kernel says a thing or two of its own when an interface comes up.
    wait_until("the datagram", || peer.received().iter().any(is_ours));

    let before = kernel_received(pid, interface);
    for number in 0..50 {
        peer.send(&frame(number, 60 + 29 * number as usize));
    }
    wait_until("frames in the kernel", || kernel_received(pid, interface) >= before + 50);
}

#[test]
fn frames_pass_a_tap_interface_wherever_it_goes_and_it_vanishes_with_the_switch() {
    let mut agent = Agent::start_with("", |program| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "--"]).arg(program);
        command
    });
    let pid = agent.child.id();
    for port in ["inside", "outside"] {
        let kind = PortKind::Tap { interface: format!("t-{port}") };
        agent.control.done(SwitchRequest::PortAdd { name: name(port), kind });
    }
    agent.add_instance("nat-a", WIDE);
    agent.control.done(SwitchRequest::PathsSet { instance: name("nat-a"), externals: names(&["inside", "outside"]) });
    let mut peer = agent.peer("nat-a.in");

    // Frames for an interface that is down are dropped and counted.
    assert!(!agent.port("inside").up);
    peer.send(&frame(0, 60));
    wait_until("the drop", || agent.port("inside").counters.get("dropped_link_down") == Some(&1));

    exchange(&mut agent, pid, "t-inside", "inside", &mut peer);

    let elsewhere = Elsewhere::new(pid);
    inside_ok(pid, &["ip", "link", "set", "t-inside", "netns", &elsewhere.pid().to_string()]);
    agent.wait_link("inside", false);
    exchange(&mut agent, elsewhere.pid(), "t-inside", "inside", &mut peer);

    // A name that is taken is refused; one that was given back can be had again.
    let tap = |interface: &str| SwitchRequest::PortAdd {
        name: name("more"),
        kind: PortKind::Tap { interface: interface.into() },
    };
    let error = agent.control.refused(tap("lo"));
    assert!(error.message.as_str().contains("lo exists and is not a TAP interface"), "{error}");
    assert!(agent.control.refused(tap("t-outside")).message.as_str().contains("is port outside's already"));
    agent.control.done(tap("t-more"));
    let first = address(pid, "t-more");
    agent.control.done(SwitchRequest::PortRemove { name: name("more") });
    assert!(!inside(pid, &["ip", "link", "show", "dev", "t-more"]).status.success());
    agent.control.done(tap("t-more"));
    assert_eq!(address(pid, "t-more"), first, "neighbours remember an interface's address");
    assert_ne!(address(pid, "t-outside"), first);

    // Seen from below: the agent's own namespace goes with it.
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.wait_exit().code(), Some(0));
    assert!(!inside(elsewhere.pid(), &["ip", "link", "show", "dev", "t-inside"]).status.success());
}

//! Peers that should not be talked to, some of them at the worst moment.

use crate::control::Control;
use crate::instance::Instance;
use crate::peer::{handshake, open_as};
use crate::trust::{self, DAY, any_instance, name};
use crate::world::{A, B, World};
use slim_core::protocol::FailureCode;
use slim_core::protocol::control::{ErrorCode, InstanceRequest, InstanceRole, PrepareOptions, StartOptions};
use slim_core::protocol::stream::{Rejection, StreamRole};
use slim_trust::{Authority, Role, Security};
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Connects from an address of its own, as a stranger in the management network would.
fn connect_from(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddrV4::new(Ipv4Addr::from(from), 0).into()).expect("all of 127/8 is ours");
    socket.connect(&to.into()).expect("it listens");
    socket.into()
}

/// One after the other, everything that a stranger can try at `addresses`, until told to stop.
fn besiege(addresses: &[SocketAddr], stop: &AtomicBool) -> usize {
    let elsewhere = Authority::new(name("test")).expect("an authority");
    let disguises: Vec<Security> = [
        trust::expired_pem(Role::Controller, "test"),
        trust::expired_pem(Role::Instance, "a"),
        elsewhere.issue(Role::Controller, &name("test"), DAY).expect("an identity"),
        trust::authority().issue(Role::Switch, &name("switch"), DAY).expect("an identity"),
    ]
    .iter()
    .map(|pem| trust::security(pem))
    .collect();
    let garbage: [&[u8]; 5] =
        [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", &[0; 4096], b"SLiM", &[22, 3, 1, 2, 0], &[22; 4096]];
    let mut silent = Vec::new();
    let mut attempts = 0;
    let mut from = (2..=250_u8).map(|last| [127, 0, 0, last]).cycle();
    while !stop.load(Ordering::Relaxed) {
        for &address in addresses {
            let mut next = || connect_from(from.next().expect("endless"), address);
            for bytes in garbage {
                // It may have been refused already.
                let _ = next().write_all(bytes);
            }
            for disguise in &disguises {
                let deadline = Instant::now() + Duration::from_secs(5);
                let let_in = slim_trust::connect(next(), disguise, &any_instance(), Duration::ZERO, deadline)
                    .and_then(|channel| channel.wait_for_data(deadline));
                assert!(let_in.is_err());
            }
            silent.extend((0..20).map(|_| next()));
            attempts += garbage.len() + disguises.len() + 20;
        }
        // As many as descriptors last.
        silent.drain(..silent.len().saturating_sub(200));
        std::thread::sleep(Duration::from_millis(20));
    }
    attempts
}

#[test]
fn a_siege_by_strangers_changes_nothing_about_a_migration() {
    let mut world = World::live("");
    world.fill(2000);
    let addresses: Vec<SocketAddr> =
        world.instances.iter().flat_map(|instance| [instance.control_address, instance.state_address]).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let siege = scope.spawn(|| besiege(&addresses, &stop));
        world.run_for(Duration::from_millis(500));
        for (from, to) in [(A, B), (B, A)] {
            let options = StartOptions { filler_bytes: 1_000_000, ..StartOptions::default() };
            let [source, destination] = world.migrate(from, to, options);
            assert_eq!(source.digest, destination.digest);
            world.ask(from, InstanceRequest::Reset {}).expect("resets");
        }
        stop.store(true, Ordering::Relaxed);
        assert!(siege.join().expect("nobody was let in") > 0);
    });
    let counters = world.status(A).counters;
    for cause in ["plaintext", "expired", "crowd"] {
        assert!(counters[&format!("state.refused.{cause}")] > 0, "{cause}: {counters:?}");
    }
    assert!(counters["control.refused.plaintext"] > 0);
    world.must_be_perfect();
}

#[test]
fn each_port_is_for_one_role_only() {
    let mut world = World::live("");
    let Instance { control_address, state_address, .. } = world.instances[A];
    let refused = |address, who: &Security| {
        let deadline = Instant::now() + Duration::from_secs(20);
        let tcp = TcpStream::connect(address).expect("it listens");
        let mut channel = slim_trust::connect(tcp, who, &any_instance(), Duration::ZERO, deadline)?;
        // It may be refused already.
        let _ = channel.write_all(b"x");
        channel.wait_for_data(deadline)
    };
    assert!(Control::connect(control_address, &trust::instance("b")).is_err());
    assert!(refused(state_address, &trust::controller()).is_err());
    let counters = world.status(A).counters;
    assert_eq!((counters["control.refused.role"], counters["state.refused.role"]), (1, 1));
}

#[test]
fn plaintext_is_answered_in_plain_words() {
    let world = World::new("");
    let Instance { control_address, state_address, .. } = world.instances[A];
    for (address, answer) in [(control_address, &b"{\"v\":1,\"id\":0,\"error\""[..]), (state_address, b"SLiM")] {
        let mut plain = TcpStream::connect(address).expect("it listens");
        plain.write_all(b"{\"v\":1,\"id\":7,\"request\":{\"type\":\"status\"}}\n").expect("it listens");
        plain.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
        let mut answered = vec![0; answer.len()];
        plain.read_exact(&mut answered).expect("an answer");
        assert_eq!(answered, answer);
    }
}

#[test]
fn only_the_announced_source_may_open_streams() {
    let mut world = World::live("");
    let ids = world.new_migration();
    world.prepare(B, ids.0);
    let address = world.instances[B].state_address;
    let hello = handshake(ids.0, StreamRole::Snapshot);
    assert_eq!(open_as(&trust::instance("c"), address, &hello).1, Err(Rejection::Stranger));
    // It was no more than a nuisance: the migration goes on.
    world.start(A, ids, address, StartOptions::default());
    world.redirect_wanted(B);
    world.fabric.redirect(B, ids.0, ids.1);
    assert_eq!(world.finished(A).digest, world.finished(B).digest);

    world.ask(A, InstanceRequest::Reset {}).expect("resets");
    let (migration, _) = world.new_migration();
    let (kind, schema) = (name("numberer"), slim_core::protocol::Schema(1));
    let options = PrepareOptions::default();
    world.ask(A, InstanceRequest::Prepare { migration, kind, schema, shards: 1, options }).expect("prepares");
    let armed = slim_core::protocol::DestinationPhase::Armed;
    world.phase(A, slim_core::protocol::MigrationPhase::Destination(armed));
    let hello = handshake(migration, StreamRole::Snapshot);
    let refused = open_as(&trust::instance("b"), world.instances[A].state_address, &hello).1;
    assert_eq!(refused, Err(Rejection::Stranger), "nobody was announced");
    world.must_be_perfect();
}

#[test]
fn state_is_given_to_nobody_else_than_the_named_destination() {
    let mut world = World::live("");
    let (migration, nonce) = world.new_migration();
    world.prepare(B, migration);
    let destination = world.instances[B].state_address;
    let options = StartOptions { destination: Some(name("c")), ..StartOptions::default() };
    world.start(A, (migration, nonce), destination, options);
    let failure = world.failed(A);
    assert_eq!(failure.code, FailureCode::StreamLost);
    assert!(failure.message.as_str().contains("only instance c may speak here"), "{failure}");
    world.must_flow();
    world.must_be_perfect();
    assert_eq!(world.role(A), InstanceRole::Live);
}

#[test]
fn an_expired_identity_fails_a_migration_and_its_renewal_lets_it_succeed() {
    let pem = |who: &str| if who == "b" { trust::expired_pem(Role::Instance, who) } else { trust::instance_pem(who) };
    let mut world = World::with_identities("", pem).activated();
    assert_eq!(world.status(B).gauges["identity.valid_s"], 0);
    let ids = world.new_migration();
    world.prepare(B, ids.0);
    world.start(A, ids, world.instances[B].state_address, StartOptions::default());
    let failure = world.failed(A);
    assert!(failure.message.as_str().contains("has expired"), "{failure}");
    let (migration, reason) = (ids.0, "test".into());
    world.ask(B, InstanceRequest::Abort { migration, reason, hand_back: None }).expect("aborts");
    world.wait("it is discarded", |world| world.role(B) == InstanceRole::Discarded);
    world.ask(B, InstanceRequest::Reset {}).expect("resets");

    let renew = |who: &str| InstanceRequest::RenewIdentity { identity: trust::instance_pem(who).to_string().into() };
    let refused = world.ask(B, renew("a")).expect_err("somebody else's");
    assert_eq!(refused.code, ErrorCode::Malformed);
    let request = renew("b");
    world.ask(B, request.clone()).expect("renews");
    world.ask(B, request).expect("again is fine");
    assert!(world.status(B).gauges["identity.valid_s"] > 80_000);
    let [source, destination] = world.migrate(A, B, StartOptions::default());
    assert_eq!(source.digest, destination.digest);
    world.must_be_perfect();
}

/// The inodes in one of the kernel's tables of sockets, with each socket's state.
fn sockets(table: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
    let field = |line: &str, number| line.split_whitespace().nth(number).unwrap_or_default().to_owned();
    text.lines().skip(1).map(|line| (field(line, 9), field(line, 3))).collect()
}

#[test]
fn an_instance_listens_at_its_two_ports_and_nowhere_else() {
    const LISTENING: &str = "0A";
    let world = World::new("");
    for instance in &world.instances {
        let own: Vec<String> = std::fs::read_dir(format!("/proc/{}/fd", instance.process_id()))
            .expect("it runs")
            .filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
            .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
            .collect();
        let mine = |(inode, _): &(String, String)| own.contains(inode);
        let tcp: Vec<_> = ["tcp", "tcp6"].into_iter().flat_map(sockets).filter(mine).collect();
        assert_eq!(tcp.iter().filter(|(_, state)| state == LISTENING).count(), 2, "{tcp:?}");
        let others: Vec<_> = ["udp", "udp6", "raw", "raw6"].into_iter().flat_map(sockets).filter(mine).collect();
        assert_eq!(others, []);
    }
}

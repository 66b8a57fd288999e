//! A daemon and instances that know each other: identities made, handed over, refused and renewed.

use crate::world::instance::name_of;
use crate::world::{Typed, World, typed};
use slim_core::protocol::Schema;
use slim_core::protocol::control::{
    ControlError, Description, ErrorCode, Event, InstanceEvent, InstanceReply, InstanceRequest, InstanceRole,
    LineBuffer, Reply, Request, decode_request, encode,
};
use slim_trust::{Authority, Channel, Door, DoorLimits, Expected, Identity, Keyring, Role, Security};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A world whose deployment is not in plaintext, and whose identities have been made by `slimctl init`.
fn secure_world() -> (World, Authority) {
    let world = World::without_daemon();
    world.change_deployment("plaintext = true", "identity_hours = 24");
    let trust = world.path("trust");
    let made = typed(world.command(&["init", "--name", "lab", "--dir", trust.to_str().unwrap()]).output().unwrap());
    assert_eq!(made.code(), 0, "{made:?}");
    let authority = Authority::read(&trust).unwrap();
    (world, authority)
}

/// Something that listens like an instance, with an identity of the test's choice, and refuses everything but its
/// renewal.
struct Impostor {
    control: SocketAddr,
    keyring: Arc<Keyring>,
    renewed: Receiver<String>,
}

impl Impostor {
    fn start(pem: &str) -> Self {
        let keyring = Keyring::new(Identity::from_pem(pem).unwrap());
        let security = Security::Tls(Arc::clone(&keyring));
        Self::start_with(keyring, security)
    }

    fn start_with(keyring: Arc<Keyring>, security: Security) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let control = listener.local_addr().unwrap();
        let door = Door::new("control", security, Expected::any(Role::Controller), DoorLimits::default(), Vec::new());
        let (sender, renewed) = channel();
        let of_door = Arc::clone(&keyring);
        door.serve(listener, move |admission| {
            let (channel, _) = admission.enter();
            serve(channel, &of_door, |pem| sender.send(pem).unwrap());
        })
        .unwrap();
        Self { control, keyring, renewed }
    }
}

fn serve(mut channel: Channel, keyring: &Keyring, renewed: impl Fn(String)) {
    let ready = InstanceEvent::Ready { name: name_of("nat-a"), role: InstanceRole::Idle };
    channel.write_all(encode(&Event::new(ready)).unwrap().as_bytes()).unwrap();
    let mut lines = LineBuffer::new();
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = channel.read(&mut bytes) {
        lines.extend(&bytes[..count]);
        while let Some(line) = lines.next_line().unwrap() {
            let Request { id, request, .. } = decode_request::<InstanceRequest>(line).unwrap();
            let result = match request {
                InstanceRequest::RenewIdentity { identity } => {
                    keyring.renew(identity.reveal()).unwrap();
                    renewed(identity.reveal().to_owned());
                    Ok(InstanceReply::Done)
                }
                InstanceRequest::Describe {} => Ok(InstanceReply::Description(describe(&channel))),
                _ => Err(ControlError::new(ErrorCode::Unsupported, "not here")),
            };
            channel.write_all(encode(&Reply::new(id, result)).unwrap().as_bytes()).unwrap();
        }
    }
}

fn describe(channel: &Channel) -> Description {
    Description {
        name: name_of("nat-a"),
        kind: name_of("nat"),
        schema: Schema(7),
        software: "test".into(),
        shards: 1,
        ports: vec![name_of("in"), name_of("out")],
        role: InstanceRole::Idle,
        state_address: channel.tcp().local_addr().unwrap(),
        capacity: Default::default(),
        boot_ms: 1,
    }
}

fn attach(world: &World, instance: &Impostor) -> Typed {
    world.slimctl(&["instance", "attach", "nat-a", "--control", &instance.control.to_string(), "--vnf", "nat"])
}

#[test]
fn a_deployment_is_made_once_and_its_daemon_says_what_is_missing() {
    let world = World::without_daemon();
    world.change_deployment("plaintext = true", "");
    let file = world.path("deployment.toml");
    let daemon = ["daemon", "--config", file.to_str().unwrap()];
    let refused = typed(world.command(&daemon).output().unwrap());
    assert_eq!(refused.code(), 1);
    let trust = world.path("trust");
    let words = format!("slimctl init --dir {}", trust.display());
    assert!(refused.err.contains(&words), "{refused:?}");

    let init = ["init", "--dir", trust.to_str().unwrap()];
    assert_eq!(typed(world.command(&init).output().unwrap()).code(), 0);
    let again = typed(world.command(&init).output().unwrap());
    assert_eq!(again.code(), 1);
    assert!(again.err.contains("exists already"), "{again:?}");
    for name in std::fs::read_dir(&trust).unwrap() {
        use std::os::unix::fs::MetadataExt;
        assert_eq!(name.unwrap().metadata().unwrap().mode() & 0o077, 0, "nobody else's");
    }
}

#[test]
fn an_instance_with_an_identity_is_taken_charge_of_and_renewed() {
    let (mut world, _) = secure_world();
    world.start_daemon();
    let (trust, out) = (world.path("trust"), world.path("nat-a.pem"));
    let [trust, file] = [&trust, &out].map(|path| path.to_str().unwrap());
    let made =
        typed(world.command(&["identity", "nat-a", "--dir", trust, "--out", file, "--hours", "1"]).output().unwrap());
    assert_eq!(made.code(), 0, "{made:?}");
    let pem = std::fs::read_to_string(&out).unwrap();
    let instance = Impostor::start(&pem);
    let before_s = instance.keyring.identity().not_after_s();
    let attached = attach(&world, &instance);
    assert_eq!(attached.code(), 0, "{attached:?}");
    // It was not the daemon who made its identity, nor does it know for how long it lasts.
    let renewed = instance.renewed.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_ne!(renewed, pem);
    assert!(instance.keyring.identity().not_after_s() > before_s + 20 * 3600);
}

#[test]
fn an_instance_is_refused_that_is_not_who_it_should_be() {
    let (mut world, authority) = secure_world();
    world.start_daemon();
    let elsewhere = Authority::new(name_of("lab")).unwrap();
    let issue = |authority: &Authority, role, name: &str| authority.issue(role, &name_of(name), DAY).unwrap();
    let expired = authority.issue_at(Role::Instance, &name_of("nat-a"), SystemTime::now() - 2 * DAY, DAY).unwrap();
    for (pem, words) in [
        (issue(&authority, Role::Instance, "nat-b"), "it is slim://lab/instance/nat-b, only instance nat-a"),
        (issue(&authority, Role::Switch, "nat-a"), "it is slim://lab/switch/nat-a, only instance nat-a"),
        (issue(&elsewhere, Role::Instance, "nat-a"), "not from this deployment's authority"),
        (expired, "has expired"),
    ] {
        let instance = Impostor::start(&pem);
        let refused = attach(&world, &instance);
        assert_eq!(refused.code(), 1, "{refused:?}");
        assert!(refused.err.contains(words), "{refused:?}");
        assert!(instance.renewed.try_recv().is_err());
    }
}

#[test]
fn an_instance_that_expired_while_no_daemon_was_there_is_taken_back_on_request() {
    let (mut world, authority) = secure_world();
    let expired = authority.issue_at(Role::Instance, &name_of("nat-a"), SystemTime::now() - 2 * DAY, DAY).unwrap();
    world.change_deployment("identity_hours = 24", "identity_hours = 24\nlate_hours = 48");
    world.start_daemon();
    let instance = Impostor::start(&expired);
    assert_eq!(attach(&world, &instance).code(), 0);
    instance.renewed.recv_timeout(Duration::from_secs(30)).unwrap();
}

#[test]
fn a_plaintext_instance_is_refused_with_the_reason() {
    let (mut world, authority) = secure_world();
    world.start_daemon();
    let keyring =
        Keyring::new(Identity::from_pem(&authority.issue(Role::Instance, &name_of("nat-a"), DAY).unwrap()).unwrap());
    let refused = attach(&world, &Impostor::start_with(keyring, Security::Plaintext));
    assert!(refused.err.contains("it speaks plaintext, TLS is expected here"), "{refused:?}");
}

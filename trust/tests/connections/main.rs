//! Two parties over loopback: who gets through, who does not, and what happens to a channel then.

mod careless;

use slim_core::protocol::Name;
use slim_trust::{
    Admission, Authority, Channel, Door, DoorLimits, Expected, Identity, Keyring, Refused, Role, Security, connect,
};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 3600);
const PATIENCE: Duration = Duration::from_secs(10);

fn name(text: &str) -> Name {
    text.try_into().unwrap()
}

fn authority() -> Authority {
    Authority::new(name("lab")).unwrap()
}

fn tls(pem: &str) -> Security {
    Security::Tls(Keyring::new(Identity::from_pem(pem).unwrap()))
}

fn issue(authority: &Authority, role: Role, who: &str) -> Security {
    tls(&authority.issue(role, &name(who), DAY).unwrap())
}

/// A door for controllers, as an instance has it.
struct Instance {
    door: Arc<Door>,
    address: SocketAddr,
    admitted: Receiver<Admission>,
}

impl Instance {
    fn new(security: Security) -> Self {
        Self::with_limits(security, DoorLimits::default())
    }

    fn with_limits(security: Security, limits: DoorLimits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let door = Door::new("control", security, Expected::any(Role::Controller), limits, b"plainly no\n".to_vec());
        let (sender, admitted) = channel();
        door.serve(listener, move |admission| {
            // Instances speak first.
            let _ = (&admission.channel).write_all(b"ready\n");
            let _ = sender.send(admission);
        })
        .unwrap();
        Self { door, address, admitted }
    }

    fn connect(&self, security: &Security, expected: &Expected) -> Result<Channel, Refused> {
        self.connect_late(security, expected, Duration::ZERO)
    }

    fn connect_late(&self, security: &Security, expected: &Expected, late: Duration) -> Result<Channel, Refused> {
        let tcp = TcpStream::connect(self.address).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let channel = connect(tcp, security, expected, late, deadline)?;
        channel.wait_for_data(deadline)?;
        let mut ready = [0; 6];
        (&channel).read_exact(&mut ready).unwrap();
        assert_eq!(&ready, b"ready\n");
        Ok(channel)
    }

    fn refused(&self) -> BTreeMap<String, u64> {
        self.door.counters().filter(|(name, count)| name.contains("refused") && *count > 0).collect()
    }

    /// Waits until exactly one was refused, for `cause`.
    fn refused_for(&self, cause: &str) {
        let wanted = BTreeMap::from([(format!("control.refused.{cause}"), 1)]);
        let deadline = Instant::now() + PATIENCE;
        while self.refused() != wanted {
            assert!(Instant::now() < deadline, "{:?} instead of {wanted:?}", self.refused());
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(self.admitted.try_recv().is_err());
    }

    fn admit(&self) -> Channel {
        self.admitted.recv_timeout(PATIENCE).unwrap().enter().0
    }
}

fn any_instance() -> Expected {
    Expected::any(Role::Instance)
}

#[test]
fn a_controller_and_an_instance_know_each_other() {
    let authority = authority();
    let instance = Instance::new(issue(&authority, Role::Instance, "nat-a"));
    let controller = issue(&authority, Role::Controller, "controller");
    let channel = instance.connect(&controller, &Expected::one(Role::Instance, name("nat-a"))).unwrap();
    assert_eq!(channel.peer().unwrap().to_string(), "slim://lab/instance/nat-a");
    let inside = instance.admit();
    assert_eq!(inside.peer().unwrap().to_string(), "slim://lab/controller/controller");
    assert_eq!(instance.refused(), BTreeMap::new());
}

#[test]
fn who_is_not_expected_is_refused_with_the_reason() {
    let lab = authority();
    let elsewhere = authority();
    let two_days_ago = SystemTime::now() - 2 * DAY;
    let controller = name("controller");
    let expired = lab.issue_at(Role::Controller, &controller, two_days_ago, DAY).unwrap();
    let future = lab.issue_at(Role::Controller, &controller, SystemTime::now() + DAY, DAY).unwrap();
    let other_deployment = Authority::new(name("other")).unwrap();
    for (pem, cause) in [
        (elsewhere.issue(Role::Controller, &controller, DAY).unwrap(), "unknown_ca"),
        (other_deployment.issue(Role::Controller, &controller, DAY).unwrap(), "unknown_ca"),
        (expired, "expired"),
        (future, "expired"),
        (lab.issue(Role::Instance, &name("nat-b"), DAY).unwrap(), "role"),
        (lab.issue(Role::Switch, &name("switch"), DAY).unwrap(), "no_identity"),
    ] {
        let instance = Instance::new(issue(&lab, Role::Instance, "nat-a"));
        let told = careless::connect(instance.address, Some(&pem));
        assert!(told.contains("CertificateUnknown"), "{cause}: {told}");
        instance.refused_for(cause);
    }
    let instance = Instance::new(issue(&lab, Role::Instance, "nat-a"));
    let told = careless::connect(instance.address, None);
    assert!(told.contains("CertificateRequired"), "{told}");
    instance.refused_for("no_identity");
}

#[test]
fn a_client_refuses_servers_that_are_not_expected() {
    let lab = authority();
    let elsewhere = authority();
    let controller = issue(&lab, Role::Controller, "controller");
    let refusal = |security: Security, expected: &Expected| {
        Instance::new(security).connect(&controller, expected).map(drop).unwrap_err()
    };
    let nat_a = Expected::one(Role::Instance, name("nat-a"));
    let wrong_name = refusal(issue(&lab, Role::Instance, "nat-b"), &nat_a);
    assert!(matches!(wrong_name, Refused::Stranger { .. }), "{wrong_name}");
    assert!(wrong_name.to_string().contains("slim://lab/instance/nat-b"), "{wrong_name}");
    let wrong_role = refusal(issue(&lab, Role::Switch, "nat-a"), &nat_a);
    assert!(matches!(wrong_role, Refused::Stranger { .. }), "{wrong_role}");
    assert_eq!(refusal(issue(&elsewhere, Role::Instance, "nat-a"), &nat_a), Refused::UnknownAuthority);
    let client_only = refusal(issue(&lab, Role::Controller, "nat-a"), &nat_a);
    assert!(matches!(client_only, Refused::NotAnIdentity(_)), "{client_only}");
}

#[test]
fn only_a_controller_that_says_so_takes_an_instance_back_that_has_expired() {
    let lab = authority();
    let pem = lab.issue_at(Role::Instance, &name("nat-a"), SystemTime::now() - 3 * DAY, DAY).unwrap();
    let controller = issue(&lab, Role::Controller, "controller");
    let instance = Instance::new(tls(&pem));
    for (late, accepted) in [(Duration::ZERO, false), (DAY, false), (3 * DAY, true)] {
        let result = instance.connect_late(&controller, &any_instance(), late);
        assert_eq!(result.is_ok(), accepted, "{result:?}");
        if let Err(refused) = result {
            assert!(matches!(refused, Refused::Expired { .. }), "{refused}");
        }
    }
}

#[test]
fn plaintext_and_tls_do_not_mix_and_each_side_says_so() {
    let lab = authority();
    let controller = issue(&lab, Role::Controller, "controller");
    let instance = Instance::new(issue(&lab, Role::Instance, "nat-a"));
    let mut plain = TcpStream::connect(instance.address).unwrap();
    plain.write_all(b"{\"v\":1,\"id\":1}\n").unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "plainly no\n");
    instance.refused_for("plaintext");

    let open = Instance::new(Security::Plaintext);
    let refused = open.connect(&controller, &any_instance()).unwrap_err();
    assert_eq!(refused, Refused::Plaintext);
    let error = open.admit().read(&mut [0; 100]).unwrap_err();
    assert!(error.to_string().contains("it speaks TLS"), "{error}");

    let both_open = open.connect(&Security::Plaintext, &any_instance()).unwrap();
    assert_eq!(both_open.peer(), None);
}

#[test]
fn strangers_neither_delay_nor_crowd_out_who_is_expected() {
    let lab = authority();
    let limits = DoorLimits { handshakes: 4, patience: Duration::from_secs(300), ..DoorLimits::default() };
    let instance = Instance::with_limits(issue(&lab, Role::Instance, "nat-a"), limits);
    let from = |address: [u8; 4]| {
        let socket = std::net::SocketAddr::from((Ipv4Addr::from(address), 0));
        let tcp = nix::sys::socket::socket(
            nix::sys::socket::AddressFamily::Inet,
            nix::sys::socket::SockType::Stream,
            nix::sys::socket::SockFlag::empty(),
            None,
        )
        .unwrap();
        use std::os::fd::AsRawFd;
        nix::sys::socket::bind(tcp.as_raw_fd(), &nix::sys::socket::SockaddrStorage::from(socket)).unwrap();
        let to = nix::sys::socket::SockaddrStorage::from(instance.address);
        nix::sys::socket::connect(tcp.as_raw_fd(), &to).unwrap();
        TcpStream::from(tcp)
    };
    // Silent ones, some with the begin of a handshake, from two addresses and in greater numbers than there are seats.
    let mut silent: Vec<TcpStream> = (0..12).map(|number| from([127, 0, 0, 2 + number % 2])).collect();
    silent.iter_mut().step_by(3).for_each(|tcp| tcp.write_all(&[22, 3, 1, 2, 0, 1]).unwrap());
    let controller = issue(&lab, Role::Controller, "controller");
    let begun = Instant::now();
    let channels: Vec<Channel> = (0..3).map(|_| instance.connect(&controller, &any_instance()).unwrap()).collect();
    assert!(begun.elapsed() < PATIENCE, "nobody was waited for");
    assert_eq!(channels.len(), 3);
    let refused = instance.refused();
    assert!(refused["control.refused.crowd"] >= 8, "{refused:?}");

    // A flood from one address is its own problem.
    let flood: Vec<TcpStream> = (0..200).map(|_| from([127, 0, 0, 9])).collect();
    let _one_more = instance.connect(&controller, &any_instance()).unwrap();
    drop(flood);
}

#[test]
fn a_handshake_has_its_time_however_busy_the_peer_seems() {
    let lab = authority();
    let limits = DoorLimits { patience: Duration::from_millis(300), ..DoorLimits::default() };
    let instance = Instance::with_limits(issue(&lab, Role::Instance, "nat-a"), limits);
    let mut trickle = TcpStream::connect(instance.address).unwrap();
    // A record of 512 bytes, one by one.
    let begun = Instant::now();
    let mut bytes = [22, 3, 1, 2, 0].into_iter().chain(std::iter::repeat(1));
    while trickle.write_all(&[bytes.next().unwrap()]).is_ok() {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(20));
    }
    instance.refused_for("slow");
}

/// Two ends of one channel.
fn pair() -> (Channel, Channel) {
    let lab = authority();
    let instance = Instance::new(issue(&lab, Role::Instance, "nat-a"));
    let outside = instance.connect(&issue(&lab, Role::Controller, "c"), &any_instance()).unwrap();
    (outside, instance.admit())
}

#[test]
fn both_directions_carry_megabytes_at_once() {
    let (one, other) = pair();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|number| (number * 7 / 3) as u8).collect();
    std::thread::scope(|scope| {
        for channel in [&one, &other] {
            let sent = &sent;
            scope.spawn(move || {
                sent.chunks(70_001).for_each(|piece| (&mut { channel }).write_all(piece).unwrap());
                channel.shutdown(Shutdown::Write).unwrap();
            });
            scope.spawn(move || {
                let mut received = Vec::new();
                (&mut { channel }).read_to_end(&mut received).unwrap();
                assert!(received == *sent);
                assert!(channel.is_closed_by_peer());
            });
        }
    });
}

#[test]
fn an_end_and_a_cut_are_told_apart() {
    let (one, other) = pair();
    (&one).write_all(b"last words").unwrap();
    one.shutdown(Shutdown::Both).unwrap();
    let mut received = String::new();
    (&other).read_to_string(&mut received).unwrap();
    assert_eq!(received, "last words");

    let (one, other) = pair();
    (&one).write_all(b"last w").unwrap();
    one.tcp().shutdown(Shutdown::Both).unwrap();
    let error = (&other).read_to_string(&mut String::new()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
}

#[test]
fn a_look_at_the_connection_takes_nothing_from_it() {
    let (one, other) = pair();
    assert!(!other.is_closed_by_peer());
    (&one).write_all(b"x").unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert!(!other.is_closed_by_peer());
    one.shutdown(Shutdown::Both).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert!(!other.is_closed_by_peer(), "there is something to read yet");
    (&other).read_exact(&mut [0]).unwrap();
    assert!(other.is_closed_by_peer());
    assert_eq!((&other).read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_reader_wakes_up_when_another_thread_ends_the_connection() {
    let (one, other) = pair();
    let reading = other.clone();
    let reader = std::thread::spawn(move || (&reading).read(&mut [0]).is_ok_and(|len| len > 0));
    std::thread::sleep(Duration::from_millis(50));
    other.shutdown(Shutdown::Both).unwrap();
    assert!(!reader.join().unwrap());
    assert!((&one).read(&mut [0]).is_ok_and(|len| len == 0), "the peer hears of an end");
}

#[test]
fn a_read_and_a_write_have_their_time() {
    let (one, _other) = pair();
    one.set_timeouts(Some(Duration::from_millis(50)), Some(Duration::from_millis(50))).unwrap();
    let kind = (&one).read(&mut [0]).unwrap_err().kind();
    assert!(matches!(kind, std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{kind}");
    let kind = (0..10_000).find_map(|_| (&one).write_all(&[0; 10_000]).err()).unwrap().kind();
    assert!(matches!(kind, std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{kind}");
}

#[test]
fn an_identity_is_renewed_while_connections_go_on() {
    let lab = authority();
    let begin = SystemTime::now() - 2 * DAY;
    let short = lab.issue_at(Role::Instance, &name("nat-a"), begin, DAY).unwrap();
    let keyring = Keyring::new(Identity::from_pem(&short).unwrap());
    let instance = Instance::new(Security::Tls(Arc::clone(&keyring)));
    let controller = issue(&lab, Role::Controller, "controller");
    let old = instance.connect_late(&controller, &any_instance(), 2 * DAY).unwrap();
    assert!(matches!(instance.connect(&controller, &any_instance()), Err(Refused::Expired { .. })));

    let elsewhere = Authority::new(name("lab")).unwrap();
    for wrong in [
        lab.issue(Role::Instance, &name("nat-b"), DAY).unwrap(),
        lab.issue(Role::Controller, &name("nat-a"), DAY).unwrap(),
        elsewhere.issue(Role::Instance, &name("nat-a"), DAY).unwrap(),
        "nothing".to_owned().into(),
    ] {
        assert!(keyring.renew(&wrong).is_err());
    }
    let new = lab.issue(Role::Instance, &name("nat-a"), DAY).unwrap();
    let until_s = keyring.renew(&new).unwrap().not_after_s();
    assert_eq!(keyring.renew(&new).unwrap().not_after_s(), until_s, "again is fine");
    assert_eq!(keyring.renew(&short).unwrap().not_after_s(), until_s, "an older one changes nothing");
    let fresh = instance.connect(&controller, &any_instance()).unwrap();
    for channel in [old, fresh] {
        let inside = instance.admit();
        (&inside).write_all(b"x").unwrap();
        (&channel).read_exact(&mut [0]).unwrap();
    }
}

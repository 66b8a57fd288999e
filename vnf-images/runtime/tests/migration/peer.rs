//! The far end of a stream, misbehaving as a test wants it.

use crate::trust;
use slim_core::nf::ShardId;
use slim_core::protocol::stream::{
    HANDSHAKE_LEN_MAX, Handshake, HandshakeReply, REPLY_LEN, StreamRole, VERSION_MAX, VERSION_MIN, decode_reply,
    encode_reply,
};
use slim_core::protocol::{MigrationId, Schema};
use slim_trust::{Channel, Expected, Role, Security};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// A destination that accepts both streams and hands them to the test. It says that it is instance `b`.
pub struct FakeDestination {
    pub address: SocketAddr,
    streams: Receiver<(StreamRole, Channel)>,
}

impl FakeDestination {
    pub fn new(reply: HandshakeReply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (sender, streams) = channel();
        let security = trust::instance("b");
        thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                let expected = Expected::one(Role::Instance, trust::name("a"));
                let deadline = Instant::now() + PATIENCE;
                let mut stream = slim_trust::accept(tcp, &security, &expected, deadline, b"").expect("it is a");
                let mut bytes = Vec::new();
                let role = loop {
                    let mut piece = [0; HANDSHAKE_LEN_MAX];
                    let len = stream.read(&mut piece).expect("a handshake");
                    bytes.extend_from_slice(&piece[..len]);
                    if let Some((handshake, _)) = Handshake::decode(&bytes).expect("a sound handshake") {
                        break handshake.role;
                    }
                };
                stream.write_all(&encode_reply(reply)).expect("the source reads");
                if sender.send((role, stream)).is_err() {
                    return;
                }
            }
        });
        Self { address, streams }
    }

    /// The two streams: statelets and snapshot.
    pub fn streams(&self) -> Option<[Channel; 2]> {
        let mut found = [None, None];
        while found.iter().any(Option::is_none) {
            let (role, stream) = self.streams.recv_timeout(PATIENCE).ok()?;
            found[usize::from(role == StreamRole::Snapshot)] = Some(stream);
        }
        let [statelets, snapshot] = found;
        Some([statelets?, snapshot?])
    }
}

/// Reads a stream in the background until it ends or is cut; returns how much that was when joined.
pub fn swallow(mut stream: Channel) -> thread::JoinHandle<u64> {
    thread::spawn(move || {
        let (mut piece, mut total) = (vec![0; 64 << 10], 0);
        while let Ok(len @ 1..) = stream.read(&mut piece) {
            total += len as u64;
        }
        total
    })
}

pub fn handshake(migration: MigrationId, role: StreamRole) -> Handshake {
    Handshake {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        role,
        compressed: false,
        shard: ShardId(0),
        shards: 1,
        schema: Schema(1),
        migration,
        kind: "numberer".try_into().expect("a name"),
    }
}

/// Opens a stream as the source `a` would, and returns the answer.
pub fn open(address: SocketAddr, handshake: &Handshake) -> (Channel, HandshakeReply) {
    open_as(&trust::instance("a"), address, handshake)
}

/// Opens a stream as somebody else.
pub fn open_as(who: &Security, address: SocketAddr, handshake: &Handshake) -> (Channel, HandshakeReply) {
    let tcp = TcpStream::connect(address).expect("the instance listens");
    let deadline = Instant::now() + PATIENCE;
    let expected = trust::any_instance();
    let mut stream = slim_trust::connect(tcp, who, &expected, Duration::ZERO, deadline).expect("an instance");
    stream.set_timeouts(Some(PATIENCE), None).expect("a time-out");
    stream.write_all(&handshake.encode()).expect("the instance reads");
    let mut reply = [0; REPLY_LEN];
    stream.read_exact(&mut reply).expect("the instance answers");
    let reply = decode_reply(&reply).expect("a sound reply");
    (stream, reply)
}

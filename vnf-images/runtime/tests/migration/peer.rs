//! The far end of a stream, misbehaving as a test wants it.

use slim_core::nf::ShardId;
use slim_core::protocol::stream::{
    HANDSHAKE_LEN_MAX, Handshake, HandshakeReply, REPLY_LEN, StreamRole, VERSION_MAX, VERSION_MIN, decode_reply,
    encode_reply,
};
use slim_core::protocol::{MigrationId, Schema};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// A destination that accepts both streams and hands them to the test.
pub struct FakeDestination {
    pub address: SocketAddr,
    streams: Receiver<(StreamRole, TcpStream)>,
}

impl FakeDestination {
    pub fn new(reply: HandshakeReply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (sender, streams) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut stream = stream;
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
    pub fn streams(&self) -> Option<[TcpStream; 2]> {
        let mut found = [None, None];
        while found.iter().any(Option::is_none) {
            let (role, stream) = self.streams.recv_timeout(Duration::from_secs(20)).ok()?;
            found[usize::from(role == StreamRole::Snapshot)] = Some(stream);
        }
        let [statelets, snapshot] = found;
        Some([statelets?, snapshot?])
    }
}

/// Reads a stream to its end in the background; returns how much that was when joined.
pub fn swallow(mut stream: TcpStream) -> thread::JoinHandle<u64> {
    thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()).unwrap_or(0))
}

pub fn handshake(migration: MigrationId, role: StreamRole) -> Handshake {
    Handshake {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        role,
        shard: ShardId(0),
        shards: 1,
        schema: Schema(1),
        migration,
        kind: "numberer".try_into().expect("a name"),
    }
}

/// Opens a stream as a source would, and returns the answer.
pub fn open(address: SocketAddr, handshake: &Handshake) -> (TcpStream, HandshakeReply) {
    let mut stream = TcpStream::connect(address).expect("the instance listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
    stream.write_all(&handshake.encode()).expect("the instance reads");
    let mut reply = [0; REPLY_LEN];
    stream.read_exact(&mut reply).expect("the instance answers");
    let reply = decode_reply(&reply).expect("a sound reply");
    (stream, reply)
}

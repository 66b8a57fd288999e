//! Peers against real sockets, with the test as the other side.

use super::*;
use slim_core::protocol::control::{ErrorCode, SwitchEvent, SwitchReply, SwitchRequest};
use std::io::{BufRead, BufReader};
use std::os::unix::net::{UnixListener, UnixStream};

const LIMIT: Duration = Duration::from_secs(10);

struct Server {
    folder: tempfile::TempDir,
    listener: UnixListener,
}

impl Server {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        Self { folder, listener }
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::Unix(self.folder.path().join("socket"))
    }

    fn accept(&self) -> BufReader<UnixStream> {
        BufReader::new(self.listener.accept().unwrap().0)
    }
}

/// No trust is needed at a Unix socket.
fn open() -> Trust {
    let expected = slim_trust::Expected::any(slim_trust::Role::Switch);
    Trust { security: slim_trust::Security::Plaintext, expected, late: Duration::ZERO }
}

fn read_request(stream: &mut BufReader<UnixStream>) -> Request<SwitchRequest> {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    control::decode_request(line.as_bytes()).unwrap()
}

fn say(stream: &mut BufReader<UnixStream>, message: ServerMessage<SwitchReply, SwitchEvent>) {
    stream.get_mut().write_all(control::encode(&message).unwrap().as_bytes()).unwrap();
}

fn done(id: u64) -> ServerMessage<SwitchReply, SwitchEvent> {
    ServerMessage::Reply(Reply::new(id, Ok(SwitchReply::Done {})))
}

#[test]
fn replies_find_their_requests_in_any_order() {
    let server = Server::new();
    let peer = SwitchPeer::new(server.endpoint(), open()).unwrap();
    let mut stream = server.accept();
    let (answers, received) = channel();
    assert!(peer.wait_up(LIMIT));
    for number in 0..2 {
        let answers = answers.clone();
        peer.send(SwitchRequest::PortList {}, move |answer| answers.send((number, answer)).unwrap());
    }
    let (first, second) = (read_request(&mut stream), read_request(&mut stream));
    let refusal = ControlError::new(ErrorCode::NotFound, "no such port");
    say(&mut stream, ServerMessage::Reply(Reply::new(second.id, Err(refusal.clone()))));
    say(&mut stream, done(first.id));
    assert_eq!(received.recv_timeout(LIMIT).unwrap(), (1, Err(CallError::Refused(refusal))));
    assert_eq!(received.recv_timeout(LIMIT).unwrap(), (0, Ok(SwitchReply::Done {})));
}

#[test]
fn a_broken_connection_fails_what_is_open_and_comes_back() {
    let server = Server::new();
    let peer = SwitchPeer::new(server.endpoint(), open()).unwrap();
    let mut stream = server.accept();
    let (events, told) = channel();
    assert!(peer.wait_up(LIMIT));
    peer.subscribe(move |event| events.send(event).is_ok());
    let (answers, received) = channel();
    peer.send(SwitchRequest::Status {}, move |answer| answers.send(answer).unwrap());
    read_request(&mut stream);
    drop(stream);
    assert!(matches!(received.recv_timeout(LIMIT).unwrap(), Err(CallError::Lost { .. })));

    let mut stream = server.accept();
    let port = "inside".try_into().unwrap();
    say(&mut stream, ServerMessage::Event(SwitchEvent::PortLink { port, up: true }));
    assert_eq!(told.recv_timeout(LIMIT).unwrap(), PeerEvent::Up, "subscribed while there was a connection");
    assert_eq!(told.recv_timeout(LIMIT).unwrap(), PeerEvent::Down);
    assert_eq!(told.recv_timeout(LIMIT).unwrap(), PeerEvent::Up);
    assert!(matches!(told.recv_timeout(LIMIT).unwrap(), PeerEvent::Event(SwitchEvent::PortLink { up: true, .. })));
    let answering = std::thread::spawn(move || {
        let request = read_request(&mut stream);
        say(&mut stream, done(request.id));
        stream
    });
    assert_eq!(peer.call(SwitchRequest::Status {}, LIMIT), Ok(SwitchReply::Done {}));
    answering.join().unwrap();
}

#[test]
fn nobody_there_is_said_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let peer = SwitchPeer::new(Endpoint::Unix(folder.path().join("socket")), open()).unwrap();
    let error = peer.call(SwitchRequest::Status {}, Duration::from_millis(200)).unwrap_err().to_string();
    assert!(error.contains("cannot be reached") && error.contains("No such file"), "{error}");
}

#[test]
fn a_silent_peer_runs_into_the_limit() {
    let server = Server::new();
    let peer = SwitchPeer::new(server.endpoint(), open()).unwrap();
    let _stream = server.accept();
    let error = peer.call(SwitchRequest::Status {}, Duration::from_millis(200)).unwrap_err();
    assert!(matches!(error, CallError::TimeOut { limit_ms: 200, .. }), "{error}");
}

#[test]
fn garbage_is_survived_and_answers_its_request() {
    let server = Server::new();
    let peer = SwitchPeer::new(server.endpoint(), open()).unwrap();
    let mut stream = server.accept();
    let answering = std::thread::spawn(move || {
        stream.get_mut().write_all(b"hello\n{}\n\x00\xff\n{\"v\":1,\"id\":999,\"ok\":{\"type\":\"done\"}}\n").unwrap();
        let request = read_request(&mut stream);
        stream.get_mut().write_all(format!("{{\"v\":2,\"id\":{},\"ok\":{{}}}}\n", request.id).as_bytes()).unwrap();
        let request = read_request(&mut stream);
        say(&mut stream, done(request.id));
        stream
    });
    let error = peer.call(SwitchRequest::Status {}, LIMIT).unwrap_err();
    assert!(matches!(&error, CallError::Refused(refusal) if refusal.code == ErrorCode::UnsupportedVersion), "{error}");
    assert_eq!(peer.call(SwitchRequest::Status {}, LIMIT), Ok(SwitchReply::Done {}));
    answering.join().unwrap();
}

#[test]
fn a_line_without_end_ends_the_connection() {
    let server = Server::new();
    let peer = SwitchPeer::new(server.endpoint(), open()).unwrap();
    let mut stream = server.accept();
    let flooding = std::thread::spawn(move || {
        let block = [b'x'; 1 << 16];
        while stream.get_mut().write_all(&block).is_ok() {}
    });
    flooding.join().unwrap();
    server.accept();
    drop(peer);
}

#[test]
fn dropping_the_peer_ends_the_connection() {
    let server = Server::new();
    let peer = SwitchPeer::new(server.endpoint(), open()).unwrap();
    let mut stream = server.accept();
    assert!(peer.wait_up(LIMIT));
    drop(peer);
    let mut rest = String::new();
    assert_eq!(stream.read_line(&mut rest).unwrap(), 0);
}

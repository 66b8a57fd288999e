//! The control server: JSON lines from controllers, several at a time, each of them bounded.
//!
//! Per client, one thread reads and one writes. The reader hands requests to the management thread and answers what is
//! not a request itself. A client that does not read what it is sent loses its connection: nobody waits for it.

use slim_core::protocol::control::{
    ControlError, DecodeError, ErrorCode, InstanceEvent, InstanceReply, InstanceRequest, LineBuffer, LineTooLong,
    ServerMessage, decode_request, encode,
};
use slim_core::protocol::control::{Reply, Request};
use slim_trust::{Channel, Door, DoorLimits, Expected, Role, Security};
use socket2::{SockRef, TcpKeepalive};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// The most clients at a time.
pub const CLIENTS_MAX: usize = 8;

/// Lines that may wait for a client to read them.
const LINES_MAX: usize = 256;

/// How long a write may take, and how long data may stay unacknowledged.
const PATIENCE: Duration = Duration::from_secs(10);

const STACK_BYTES: usize = 256 << 10;

type Line = Arc<str>;
type Message = ServerMessage<InstanceReply, InstanceEvent>;

/// A connection, counted since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(u64);

/// What the server tells the management thread.
#[derive(Debug)]
pub enum FromClient {
    /// A client has connected.
    Connected(ClientId, Client),
    /// It asks for something.
    Asked(ClientId, Request<InstanceRequest>),
    /// It is gone.
    Gone(ClientId),
}

/// The way to a connected client.
#[derive(Debug)]
pub struct Client {
    lines: SyncSender<Line>,
    /// Lines queued and not yet written.
    unwritten: Arc<AtomicUsize>,
    stream: Channel,
    peer: SocketAddr,
}

/// All connected clients.
#[derive(Debug, Default)]
pub struct Clients(BTreeMap<ClientId, Client>);

/// Accepts clients at `listener`, each of which reports through `inbox` until that returns false.
///
/// # Errors
/// If no thread can be started.
pub fn serve(
    listener: TcpListener,
    security: Security,
    inbox: impl Fn(FromClient) -> bool + Clone + Send + 'static,
) -> io::Result<Arc<Door>> {
    let no_plaintext = ControlError::new(ErrorCode::Malformed, "plaintext is not spoken here, only TLS");
    let no_plaintext = refusal(0, no_plaintext).as_bytes().to_vec();
    let expected = Expected::any(Role::Controller);
    let door = Door::new("control", security, expected, DoorLimits::default(), no_plaintext);
    let (connected, ids) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
    door.serve(listener, move |admission| {
        let (stream, peer) = admission.enter();
        let id = ClientId(ids.fetch_add(1, Ordering::Relaxed));
        if let Err(error) = admit(id, stream, peer, Seat::take(&connected), inbox.clone()) {
            log::warn!("control: a connection could not be served: {error}");
        }
    })?;
    Ok(door)
}

/// A client's place among [`CLIENTS_MAX`], free again when dropped.
struct Seat(Arc<AtomicUsize>);

impl Seat {
    fn take(connected: &Arc<AtomicUsize>) -> Option<Self> {
        let seat = Self(Arc::clone(connected));
        (connected.fetch_add(1, Ordering::Relaxed) < CLIENTS_MAX).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn admit(
    id: ClientId,
    mut stream: Channel,
    peer: SocketAddr,
    seat: Option<Seat>,
    inbox: impl Fn(FromClient) -> bool + Send + 'static,
) -> io::Result<()> {
    stream.set_timeouts(None, Some(PATIENCE))?;
    stream.tcp().set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(PATIENCE).with_interval(PATIENCE / 4).with_retries(4);
    SockRef::from(stream.tcp()).set_tcp_keepalive(&keepalive)?;
    SockRef::from(stream.tcp()).set_tcp_user_timeout(Some(PATIENCE))?;
    let Some(seat) = seat else {
        log::warn!("control: {peer} refused, there are {CLIENTS_MAX} clients already");
        let error = ControlError::with(ErrorCode::Limit, format!("at most {CLIENTS_MAX} connections at a time"));
        return stream.write_all(refusal(0, error).as_bytes());
    };
    match stream.peer() {
        Some(principal) => log::debug!("control: {principal} connected from {peer}"),
        None => log::debug!("control: {peer} connected"),
    }
    let (lines, queue) = sync_channel(LINES_MAX);
    let writer = stream.clone();
    let reader = stream.clone();
    let refuse = lines.clone();
    let unwritten = Arc::new(AtomicUsize::new(0));
    let written = Arc::clone(&unwritten);
    spawn("control-write", move || write(writer, &queue, &written))?;
    spawn("control-read", move || {
        let _seat = seat;
        let client = Client { lines, unwritten, stream, peer };
        if inbox(FromClient::Connected(id, client)) {
            read(reader, peer, &refuse, |request| inbox(FromClient::Asked(id, request)));
            inbox(FromClient::Gone(id));
        }
    })?;
    Ok(())
}

/// Reads requests until the connection or the server ends.
fn read(
    mut stream: Channel,
    peer: SocketAddr,
    answers: &SyncSender<Line>,
    mut asked: impl FnMut(Request<InstanceRequest>) -> bool,
) {
    let mut lines = LineBuffer::new();
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(len) => lines.extend(&bytes[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // Our own words: what it sends cannot be understood.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                log::warn!("control: {peer}: {error}");
                return;
            }
            Err(error) => {
                log::debug!("control: {peer}: {error}");
                return;
            }
        }
        loop {
            let refused = match lines.next_line() {
                Ok(None) => break,
                Ok(Some(line)) => match decode_request(line) {
                    Ok(request) => {
                        if !asked(request) {
                            return;
                        }
                        continue;
                    }
                    Err(error) => Refused::Line(error),
                },
                Err(error) => Refused::Connection(error),
            };
            log::warn!("control: {peer}: {refused}");
            // A full queue is a slow reader: the next line it is sent ends the connection.
            let _ = answers.try_send(refused.answer());
            if let Refused::Connection(_) = refused {
                return;
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    Line(DecodeError),
    #[error("{0}")]
    Connection(LineTooLong),
}

impl Refused {
    fn answer(&self) -> Line {
        match self {
            Self::Line(error) => refusal(error.id().unwrap_or(0), error.to_control_error()),
            Self::Connection(error) => refusal(0, ControlError::with(ErrorCode::Malformed, error.to_string())),
        }
    }
}

fn refusal(id: u64, error: ControlError) -> Line {
    line(Message::Reply(Reply::new(id, Err(error))))
}

fn line(message: Message) -> Line {
    match encode(&message) {
        Ok(line) => line.into(),
        Err(error) => {
            log::error!("control: a message is not sent: {error}");
            let id = if let Message::Reply(reply) = &message { reply.id } else { 0 };
            refusal(id, ControlError::with(ErrorCode::Internal, error.to_string()))
        }
    }
}

/// Writes what is queued until the connection or the server ends.
fn write(mut stream: Channel, queue: &Receiver<Line>, unwritten: &AtomicUsize) {
    while let Ok(line) = queue.recv() {
        if let Err(error) = stream.write_all(line.as_bytes()) {
            log::debug!("control: a client does not read: {error}");
            break;
        }
        // Refusals of the reader are not counted: nobody waits for them.
        let _ = unwritten.fetch_update(Ordering::AcqRel, Ordering::Acquire, |lines| lines.checked_sub(1));
    }
    unwritten.store(0, Ordering::Release);
    let _ = stream.shutdown(Shutdown::Both);
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name.into()).stack_size(STACK_BYTES).spawn(body)
}

impl Clients {
    /// Adds a client that connected.
    pub fn insert(&mut self, id: ClientId, client: Client) {
        self.0.insert(id, client);
    }

    /// Forgets a client that is gone.
    pub fn remove(&mut self, id: ClientId) {
        self.0.remove(&id);
    }

    /// Answers request `request_id` of a client.
    pub fn reply(&mut self, id: ClientId, request_id: u64, result: Result<InstanceReply, ControlError>) {
        self.send(id, line(Message::Reply(Reply::new(request_id, result))));
    }

    /// Tells one client of an event.
    pub fn tell(&mut self, id: ClientId, event: InstanceEvent) {
        self.send(id, line(Message::Event(event)));
    }

    /// Tells every client of an event.
    pub fn tell_all(&mut self, event: InstanceEvent) {
        if self.0.is_empty() {
            return;
        }
        let line = line(Message::Event(event));
        let ids: Vec<ClientId> = self.0.keys().copied().collect();
        for id in ids {
            self.send(id, line.clone());
        }
    }

    /// Waits until clients have been sent what they are owed, for `limit` at most.
    pub fn flush(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let owed = || self.0.values().any(|client| client.unwritten.load(Ordering::Acquire) > 0);
        while owed() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn send(&mut self, id: ClientId, line: Line) {
        let Some(client) = self.0.get(&id) else { return };
        client.unwritten.fetch_add(1, Ordering::AcqRel);
        match client.lines.try_send(line) {
            Ok(()) => {}
            Err(reason) => {
                if let TrySendError::Full(_) = reason {
                    log::warn!("control: {} does not read what it is sent, disconnected", client.peer);
                }
                let _ = client.stream.shutdown(Shutdown::Both);
                self.0.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slim_core::protocol::Name;
    use slim_core::protocol::control::InstanceRole;
    use std::io::{BufRead, BufReader};
    use std::net::TcpStream;
    use std::sync::mpsc;

    /// A server whose management thread answers `Done` to everything but floods on `Shutdown`.
    fn server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, inbox) = mpsc::sync_channel(16);
        serve(listener, Security::Plaintext, move |event| sender.send(event).is_ok()).unwrap();
        thread::spawn(move || {
            let mut clients = Clients::default();
            let ready = || InstanceEvent::Ready { name: Name::try_from("x").unwrap(), role: InstanceRole::Idle };
            for event in inbox {
                match event {
                    FromClient::Connected(id, client) => {
                        clients.insert(id, client);
                        clients.tell(id, ready());
                    }
                    FromClient::Asked(id, request) => match request.request {
                        InstanceRequest::Shutdown {} => (0..1_000_000).for_each(|_| clients.tell(id, ready())),
                        InstanceRequest::Describe {} => clients.tell_all(ready()),
                        _ => clients.reply(id, request.id, Ok(InstanceReply::Done)),
                    },
                    FromClient::Gone(id) => clients.remove(id),
                }
            }
        });
        address
    }

    fn connect(address: SocketAddr) -> BufReader<TcpStream> {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        BufReader::new(stream)
    }

    fn receive(client: &mut BufReader<TcpStream>) -> String {
        let mut line = String::new();
        client.read_line(&mut line).unwrap();
        line
    }

    const READY: &str = "{\"v\":1,\"event\":{\"type\":\"ready\",\"name\":\"x\",\"role\":\"idle\"}}\n";

    #[test]
    fn malformed_lines_are_answered_and_the_connection_goes_on() {
        let mut client = connect(server());
        assert_eq!(receive(&mut client), READY);
        let bad = b"GET / HTTP/1.1\r\n\n{\"v\":2,\"id\":3,\"request\":{\"type\":\"status\"}}\n\xff\xfe\n";
        client.get_mut().write_all(bad).unwrap();
        assert!(receive(&mut client).contains("\"id\":0,\"error\":{\"code\":\"malformed\""));
        assert!(receive(&mut client).contains("\"id\":3,\"error\":{\"code\":\"unsupported_version\""));
        assert!(receive(&mut client).contains("\"code\":\"malformed\""));
        client.get_mut().write_all(b"{\"v\":1,\"id\":7,\"request\":{\"type\":\"activate\"}}\n").unwrap();
        assert_eq!(receive(&mut client), "{\"v\":1,\"id\":7,\"ok\":{\"type\":\"done\"}}\n");
    }

    #[test]
    fn endless_line_ends_the_connection_with_a_reason() {
        let mut client = connect(server());
        receive(&mut client);
        let chunk = vec![b'x'; 64 << 10];
        // The server hangs up somewhere along the way.
        let mut writer = client.get_ref().try_clone().unwrap();
        let flood = thread::spawn(move || (0..64).try_for_each(|_| writer.write_all(&chunk)));
        let answer = receive(&mut client);
        assert!(answer.contains("longer than"), "{answer}");
        let _ = flood.join();
    }

    #[test]
    fn events_reach_every_client() {
        let address = server();
        let mut clients = [connect(address), connect(address)];
        clients.iter_mut().for_each(|client| assert_eq!(receive(client), READY));
        clients[0].get_mut().write_all(b"{\"v\":1,\"id\":1,\"request\":{\"type\":\"describe\"}}\n").unwrap();
        clients.iter_mut().for_each(|client| assert_eq!(receive(client), READY));
    }

    #[test]
    fn a_client_that_does_not_read_is_disconnected_and_others_are_served() {
        let address = server();
        let mut slow = connect(address);
        slow.get_mut().write_all(b"{\"v\":1,\"id\":1,\"request\":{\"type\":\"shutdown\"}}\n").unwrap();
        let mut other = connect(address);
        assert_eq!(receive(&mut other), READY);
        let received = io::copy(&mut slow, &mut io::sink());
        // Whatever was in flight, then the end: not the million lines it was to be sent.
        assert!(received.is_err() || received.is_ok_and(|bytes| bytes < 1_000_000 * READY.len() as u64));
    }

    #[test]
    fn clients_beyond_the_bound_are_told_so() {
        let address = server();
        let mut clients: Vec<_> = (0..CLIENTS_MAX).map(|_| connect(address)).collect();
        clients.iter_mut().for_each(|client| assert_eq!(receive(client), READY));
        assert!(receive(&mut connect(address)).contains("\"code\":\"limit\""));
        clients.pop();
        // The seat is free again as soon as the server has seen the end.
        let again = (0..200).find_map(|_| {
            let mut client = connect(address);
            let line = receive(&mut client);
            thread::sleep(Duration::from_millis(10));
            (line == READY).then_some(client)
        });
        assert!(again.is_some());
    }
}

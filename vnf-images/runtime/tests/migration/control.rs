//! A control connection that never blocks: a thread reads it.

use crate::trust::{DAY, any_instance};
use slim_core::protocol::control::{
    ControlError, InstanceEvent, InstanceReply, InstanceRequest, LineBuffer, Request, ServerMessage, decode, encode,
};
use slim_trust::{Channel, Refused, Security};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

type Message = ServerMessage<InstanceReply, InstanceEvent>;

pub struct Control {
    channel: Channel,
    received: Receiver<Message>,
    next_id: u64,
    replies: BTreeMap<u64, Result<InstanceReply, ControlError>>,
    pub events: Vec<InstanceEvent>,
    pub closed: bool,
}

impl Control {
    /// Connects as `security`; an instance that has been expired for some days will do.
    pub fn connect(address: SocketAddr, security: &Security) -> Result<Self, Refused> {
        let tcp = TcpStream::connect(address).expect("the instance listens");
        tcp.set_nodelay(true).expect("no delay");
        let deadline = Instant::now() + Duration::from_secs(30);
        let channel_ = slim_trust::connect(tcp, security, &any_instance(), 7 * DAY, deadline)?;
        channel_.wait_for_data(deadline)?;
        let (sender, received) = channel();
        let mut reading = channel_.clone();
        std::thread::spawn(move || {
            let mut lines = LineBuffer::new();
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = reading.read(&mut bytes) {
                lines.extend(&bytes[..len]);
                while let Some(line) = lines.next_line().expect("lines of bounded length") {
                    if sender.send(decode(line).expect("an instance's message")).is_err() {
                        return;
                    }
                }
            }
        });
        let (replies, events) = (BTreeMap::new(), Vec::new());
        Ok(Self { channel: channel_, received, next_id: 1, replies, events, closed: false })
    }

    pub fn send(&mut self, request: InstanceRequest) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let line = encode(&Request::new(id, request)).expect("a short line");
        self.channel.write_all(line.as_bytes()).expect("the instance reads");
        id
    }

    pub fn take_reply(&mut self, id: u64) -> Option<Result<InstanceReply, ControlError>> {
        self.replies.remove(&id)
    }

    pub fn poll(&mut self) {
        loop {
            match self.received.try_recv() {
                Ok(ServerMessage::Reply(reply)) => {
                    self.replies.insert(reply.id, reply.result);
                }
                Ok(ServerMessage::Event(event)) => self.events.push(event),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.closed = true;
                    return;
                }
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Wakes its thread. The instance may be gone.
        let _ = self.channel.shutdown(std::net::Shutdown::Both);
    }
}

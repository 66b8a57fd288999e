//! A control connection that never blocks.

use slim_core::protocol::control::{
    ControlError, InstanceEvent, InstanceReply, InstanceRequest, LineBuffer, Request, ServerMessage, decode, encode,
};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

pub struct Control {
    stream: TcpStream,
    lines: LineBuffer,
    next_id: u64,
    replies: BTreeMap<u64, Result<InstanceReply, ControlError>>,
    pub events: Vec<InstanceEvent>,
    pub closed: bool,
}

impl Control {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the instance listens");
        stream.set_nonblocking(true).expect("nonblocking");
        stream.set_nodelay(true).expect("no delay");
        Self {
            stream,
            lines: LineBuffer::new(),
            next_id: 1,
            replies: BTreeMap::new(),
            events: Vec::new(),
            closed: false,
        }
    }

    pub fn send(&mut self, request: InstanceRequest) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let line = encode(&Request::new(id, request)).expect("a short line");
        self.stream.write_all(line.as_bytes()).expect("the instance reads");
        id
    }

    pub fn take_reply(&mut self, id: u64) -> Option<Result<InstanceReply, ControlError>> {
        self.replies.remove(&id)
    }

    pub fn poll(&mut self) {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(0) => self.closed = true,
            Ok(len) => self.lines.extend(&bytes[..len]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(_) => self.closed = true,
        }
        while let Some(line) = self.lines.next_line().expect("lines of bounded length") {
            match decode(line).expect("an instance's message") {
                ServerMessage::Reply(reply) => {
                    self.replies.insert(reply.id, reply.result);
                }
                ServerMessage::Event(event) => self.events.push(event),
            }
        }
    }
}

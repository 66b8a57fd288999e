//! Statelet and snapshot streams: what the stream threads of both ends do, over connections that keep the order.

use super::Workload;
use super::world::{Happening, World};
use slim_core::nf::{NetworkFunction, ShardId};
use slim_core::protocol::Text;
use slim_core::protocol::control::{SnapshotTotals, StateletTotals};
use slim_core::protocol::stream::{
    Handshake, REPLY_LEN, StreamRole, TAKEN_OVER_LEN, check_taken_over, decode_reply, encode_reply, encode_taken_over,
};
use slim_core::snapshot::SnapshotWriter;
use slim_core::statelet::Tally;
use slim_core::time::Duration;
use slim_core::vei::{StreamCommand, StreamEvent};

/// A connection between the two instances.
pub(super) struct Connection {
    pub(super) source: usize,
    pub(super) destination: usize,
    pub(super) role: StreamRole,
    pub(super) shard: ShardId,
    source_open: bool,
    destination_open: bool,
    /// The destination has answered the handshake, or the source has read the answer.
    destination_greeted: bool,
    source_greeted: bool,
    /// Nothing gets through any more.
    broken: bool,
}

/// What travels on a connection.
#[derive(Debug)]
pub(super) enum Segment {
    Bytes(Vec<u8>),
    /// The other end has closed.
    Fin,
    /// The connection broke.
    Reset,
}

/// A thread that has something to do now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thread {
    SendSnapshot,
    SendStatelets,
    ApplyStatelets,
}

impl<N: NetworkFunction, W: Workload<N>> World<N, W> {
    /// Carries out a command to a shard's stream threads.
    pub(super) fn command_streams(&mut self, node: usize, shard: ShardId, command: StreamCommand) {
        let index = usize::from(shard.0);
        match command {
            StreamCommand::Connect(role) => self.connect(node, shard, role),
            StreamCommand::SendSnapshot => {
                let outgoing = &mut self.nodes[node].outgoing[index];
                outgoing.writer =
                    outgoing.frozen.take().map(|frozen| SnapshotWriter::new(frozen, self.scenario.start.filler_bytes));
                self.wake(node, shard, Thread::SendSnapshot);
            }
            StreamCommand::SendStatelets => {
                let outgoing = &mut self.nodes[node].outgoing[index];
                outgoing.sending = true;
                outgoing.tally = Tally::new();
                outgoing.segments = 0;
                self.wake(node, shard, Thread::SendStatelets);
            }
            StreamCommand::Flush => self.nodes[node].outgoing[index].flushing = true,
            StreamCommand::SendEnd(end) => {
                let outgoing = &mut self.nodes[node].outgoing[index];
                outgoing.sending = false;
                if let Some(connection) = outgoing.statelets {
                    self.send(connection, true, Segment::Bytes(end.encode().to_vec()));
                }
            }
            StreamCommand::ApplyStatelets => {
                self.nodes[node].incoming[index].applying = true;
                self.wake(node, shard, Thread::ApplyStatelets);
            }
            StreamCommand::SendTakenOver => {
                let migration =
                    self.nodes[node].vei.destination().map(|destination| destination.parameters().migration);
                if let (Some(connection), Some(migration)) = (self.nodes[node].incoming[index].statelets, migration) {
                    self.send(connection, false, Segment::Bytes(encode_taken_over(migration).to_vec()));
                }
            }
            StreamCommand::Close => self.close_streams(node, shard),
        }
    }

    fn connect(&mut self, node: usize, shard: ShardId, role: StreamRole) {
        let Some(handshake) = self.nodes[node].vei.source().map(|source| source.handshake(shard, role)) else { return };
        let connection = self.connections.len();
        self.connections.push(Connection {
            source: node,
            destination: 1 - node,
            role,
            shard,
            source_open: true,
            destination_open: true,
            destination_greeted: false,
            source_greeted: false,
            broken: false,
        });
        let outgoing = &mut self.nodes[node].outgoing[usize::from(shard.0)];
        match role {
            StreamRole::Statelets => outgoing.statelets = Some(connection),
            StreamRole::Snapshot => outgoing.snapshot = Some(connection),
        }
        self.send(connection, true, Segment::Bytes(handshake.encode()));
    }

    fn close_streams(&mut self, node: usize, shard: ShardId) {
        let index = usize::from(shard.0);
        let outgoing = core::mem::take(&mut self.nodes[node].outgoing[index]);
        let incoming = core::mem::take(&mut self.nodes[node].incoming[index]);
        let ends = [outgoing.statelets, outgoing.snapshot, incoming.statelets, incoming.snapshot];
        for connection in ends.into_iter().flatten() {
            self.close(connection, node);
        }
        self.report_stream(node, shard, StreamEvent::Closed);
    }

    /// One end closes: it hears nothing more, the other end hears of it after everything sent before.
    fn close(&mut self, connection: usize, node: usize) {
        let known = &mut self.connections[connection];
        let to_destination = node == known.source;
        let open = if to_destination { &mut known.source_open } else { &mut known.destination_open };
        if core::mem::replace(open, false) {
            self.send(connection, to_destination, Segment::Fin);
        }
    }

    /// Breaks one of the connections that are open at present, if there is one; says whether.
    pub(super) fn break_stream(&mut self, choice: u64) -> bool {
        let open: Vec<usize> = (0..self.connections.len())
            .filter(|&index| {
                let known = &self.connections[index];
                !known.broken && (known.source_open && known.destination_open)
            })
            .collect();
        if open.is_empty() {
            return false;
        }
        let connection = open[(choice % open.len() as u64) as usize];
        self.connections[connection].broken = true;
        for to_destination in [true, false] {
            self.send(connection, to_destination, Segment::Reset);
        }
        true
    }

    /// Nobody is left at this instance to hear of its connections.
    pub(super) fn forget_connections(&mut self, node: usize) {
        for known in &mut self.connections {
            if known.source == node {
                known.source_open = false;
            } else {
                known.destination_open = false;
            }
        }
    }

    fn send(&mut self, connection: usize, to_destination: bool, segment: Segment) {
        let known = &self.connections[connection];
        let from = if to_destination { known.source } else { known.destination };
        let at = self.leave_node(from);
        self.agenda.enter(at, Happening::SegmentAtSwitch { connection, to_destination, segment });
    }

    /// A segment passes the switch and goes on over the other link.
    pub(super) fn pass_segment(&mut self, connection: usize, to_destination: bool, segment: Segment) {
        let known = &self.connections[connection];
        let to = if to_destination { known.destination } else { known.source };
        let at = self.reach_node(to);
        self.agenda.enter(at, Happening::Segment { connection, to_destination, segment });
    }

    pub(super) fn receive_segment(&mut self, connection: usize, to_destination: bool, segment: Segment) {
        let known = &self.connections[connection];
        let open = if to_destination { known.destination_open } else { known.source_open };
        let lost = known.broken && !matches!(segment, Segment::Reset);
        if !open || lost {
            return;
        }
        let node = if to_destination { known.destination } else { known.source };
        let (shard, role, greeted) = (known.shard, known.role, known.destination_greeted);
        match segment {
            Segment::Bytes(bytes) if !to_destination => self.receive_at_source(connection, &bytes),
            Segment::Bytes(bytes) => self.receive_at_destination(connection, &bytes),
            // Nobody has been told of a connection that was never accepted.
            Segment::Fin | Segment::Reset if to_destination && !greeted => {}
            Segment::Fin => self.report_stream(node, shard, StreamEvent::Lost(role, Text::from("closed by the peer"))),
            Segment::Reset => {
                self.report_stream(node, shard, StreamEvent::Lost(role, Text::from("connection reset")));
            }
        }
    }

    fn receive_at_destination(&mut self, connection: usize, bytes: &[u8]) {
        let known = &mut self.connections[connection];
        let (node, shard, role) = (known.destination, known.shard, known.role);
        let index = usize::from(shard.0);
        if !known.destination_greeted {
            let Ok(Some((handshake, _))) = Handshake::decode(bytes) else { panic!("a handshake does not decode") };
            let reply = self.nodes[node].vei.accept(self.now, &handshake);
            self.send(connection, false, Segment::Bytes(encode_reply(reply).to_vec()));
            if reply.is_ok() {
                self.connections[connection].destination_greeted = true;
                let incoming = &mut self.nodes[node].incoming[index];
                match role {
                    StreamRole::Statelets => incoming.statelets = Some(connection),
                    StreamRole::Snapshot => incoming.snapshot = Some(connection),
                }
            } else {
                self.close(connection, node);
            }
            self.carry_out(node);
            return;
        }
        let incoming = &mut self.nodes[node].incoming[index];
        let event = match role {
            StreamRole::Statelets => incoming.receive_statelets(bytes),
            StreamRole::Snapshot => incoming.receive_snapshot(bytes),
        };
        if let Some(event) = event {
            if matches!(event, StreamEvent::SnapshotInstalled(_)) {
                self.close(connection, node);
            }
            self.report_stream(node, shard, event);
        }
    }

    fn receive_at_source(&mut self, connection: usize, bytes: &[u8]) {
        let known = &mut self.connections[connection];
        let (node, shard, role) = (known.source, known.shard, known.role);
        let event = if !core::mem::replace(&mut known.source_greeted, true) {
            let Ok(reply) = <[u8; REPLY_LEN]>::try_from(bytes) else { panic!("a reply of {} bytes", bytes.len()) };
            match decode_reply(&reply) {
                Ok(Ok(_)) => StreamEvent::Accepted(role),
                Ok(Err(reason)) => StreamEvent::Refused(role, reason),
                Err(error) => panic!("a reply does not decode: {error}"),
            }
        } else {
            let Ok(bytes) = <[u8; TAKEN_OVER_LEN]>::try_from(bytes) else { panic!("{} bytes back", bytes.len()) };
            let Some(migration) = self.nodes[node].vei.source().map(|source| source.parameters().migration) else {
                return;
            };
            check_taken_over(&bytes, migration).unwrap_or_else(|error| panic!("{error}"));
            StreamEvent::TakenOver
        };
        self.report_stream(node, shard, event);
    }

    /// A thread gets to run.
    pub(super) fn run_thread(&mut self, node: usize, shard: ShardId, thread: Thread) {
        let index = usize::from(shard.0);
        let count = self.random.between(1, 40) as usize;
        match thread {
            Thread::SendSnapshot => {
                let outgoing = &mut self.nodes[node].outgoing[index];
                let (Some(connection), Some(writer)) = (outgoing.snapshot, &mut outgoing.writer) else { return };
                let mut bytes = Vec::new();
                match writer.write_next(&mut bytes) {
                    Ok(true) => {
                        self.send(connection, true, Segment::Bytes(bytes));
                        self.wake(node, shard, thread);
                    }
                    Ok(false) => {
                        let totals = writer.totals();
                        let totals = SnapshotTotals {
                            bytes: totals.archive_bytes + totals.filler_bytes,
                            chunks: totals.chunks,
                            entries: totals.entries,
                            filler_bytes: totals.filler_bytes,
                        };
                        outgoing.writer = None;
                        outgoing.snapshot = None;
                        self.report_stream(node, shard, StreamEvent::SnapshotSent(totals));
                        self.close(connection, node);
                    }
                    Err(error) => panic!("the snapshot cannot be written: {error}"),
                }
            }
            Thread::SendStatelets => {
                let world = &mut self.nodes[node];
                let (lcore, outgoing) = (&mut world.lcores[index], &mut world.outgoing[index]);
                let Some(connection) = outgoing.statelets.filter(|_| outgoing.sending) else { return };
                let mut bytes = Vec::new();
                for record in core::iter::from_fn(|| lcore.announced.pop()).take(count) {
                    outgoing.tally.add_record(&record);
                    bytes.extend_from_slice(&record);
                }
                let empty = bytes.is_empty();
                let flushed = empty && core::mem::take(&mut outgoing.flushing);
                let end = outgoing.tally.end();
                outgoing.segments += u64::from(!empty);
                let totals = StateletTotals {
                    records: outgoing.tally.records(),
                    value_bytes: outgoing.tally.value_bytes(),
                    bytes: outgoing.tally.bytes(),
                    segments: outgoing.segments,
                };
                if !empty {
                    self.send(connection, true, Segment::Bytes(bytes));
                }
                if flushed {
                    self.report_stream(node, shard, StreamEvent::Flushed { end, totals });
                } else {
                    self.wake(node, shard, thread);
                }
            }
            Thread::ApplyStatelets => {
                if let Some(event) = self.nodes[node].incoming[index].apply(count) {
                    let stop = matches!(event, StreamEvent::Rejected(..));
                    self.report_stream(node, shard, event);
                    if !stop {
                        self.wake(node, shard, thread);
                    }
                }
            }
        }
    }

    pub(super) fn wake(&mut self, node: usize, shard: ShardId, thread: Thread) {
        let pause = match thread {
            Thread::SendSnapshot => self.random.time(Duration::from_micros(10), Duration::from_micros(300)),
            Thread::SendStatelets | Thread::ApplyStatelets => {
                self.random.time(Duration::from_micros(20), Duration::from_micros(400))
            }
        };
        self.agenda.enter(self.now + pause, Happening::Thread { node, shard, thread });
    }
}

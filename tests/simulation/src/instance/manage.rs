//! The management thread: owns the state machine, feeds it what happens, carries out what it decides.

use super::clients::{Client, ServerLine};
use super::shard::Streams;
use super::streams_in::Incoming;
use super::streams_out::{Outgoing, SEGMENT_BYTES};
use super::{Acknowledging, CONTROL_PORT, Message, News, Node, Opening, STATE_PORT, Turn};
use crate::net::{Conn, Host};
use crate::watch::Watched;
use crate::{Random, Trace};
use slim_core::nf::{NetworkFunction, ShardId};
use slim_core::protocol::control::{
    ConfigInForce, Counters, Description, InstanceEvent, InstanceReply, InstanceRequest, InstanceStatus, Reply,
    Request, ServerMessage, StartOptions, SubscriberPage,
};
use slim_core::protocol::stream::{Handshake, Rejection, StreamRole, encode_reply, encode_taken_over};
use slim_core::protocol::{DestinationPhase, Name, Schema, Text};
use slim_core::statelet::{Pump, PumpOptions};
use slim_core::time::{Duration, Instant};
use slim_core::vei::lcore::{Announcing, Command};
use slim_core::vei::{Action, Event, Handled, Installer, LcoreCommand, StreamCommand, StreamEvent};
use std::collections::BTreeMap;

/// How long stream threads may need to end.
const CLOSE: Duration = Duration::from_millis(20);
/// The longest a handshake may take.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(5);
/// How long the source has to close its end after the acknowledgement.
const LINGER: Duration = Duration::from_secs(5);

impl<N: NetworkFunction> Node<N> {
    /// The management side gets to run. Returns when it wants to again, if nothing arrives before.
    pub(crate) fn manage(&mut self, now: Instant, random: &mut Random, trace: &mut Trace) -> Option<Instant> {
        if now < self.stalled_until {
            return Some(self.stalled_until);
        }
        let mut wake = self.serve_connections(now, random, trace);
        loop {
            let due = self.inbox.first_key_value().is_some_and(|(&(at, _), _)| at <= now);
            let Some((_, message)) = due.then(|| self.inbox.pop_first()).flatten() else { break };
            self.handle(now, random, trace, message);
            self.carry_out(now, random, trace);
        }
        if self.vei.poll_timeout().is_some_and(|due| due <= now) {
            self.tell(trace, now, format_args!("time-out"));
            let destination = self.vei.destination().map(|destination| destination.phase());
            self.hand_back_given_up |= destination == Some(DestinationPhase::HandingBack);
            self.vei.handle_timeout(now);
            self.carry_out(now, random, trace);
        }
        for client in &mut self.clients {
            client.flush(&mut self.host);
        }
        let inbox = self.inbox.first_key_value().map(|(&(at, _), _)| at);
        for at in [inbox, self.vei.poll_timeout()].into_iter().flatten() {
            wake = Some(wake.map_or(at, |wake| wake.min(at)));
        }
        wake
    }

    fn serve_connections(&mut self, now: Instant, random: &mut Random, trace: &mut Trace) -> Option<Instant> {
        while let Some(conn) = self.host.accept(CONTROL_PORT) {
            self.clients_seen += 1;
            let mut client = Client::new(self.clients_seen, conn);
            let ready = InstanceEvent::Ready { name: self.name.clone(), role: self.role() };
            client.send(&ServerMessage::Event(ready));
            self.clients.push(client);
        }
        let mut asked = Vec::new();
        for client in &mut self.clients {
            asked.extend(client.serve(&mut self.host).into_iter().map(|request| (client.id, request)));
        }
        for (id, request) in asked {
            self.send_later(now, random, Message::Asked(id, request));
        }
        let host = &mut self.host;
        self.clients.retain(|client| {
            if client.is_gone() {
                host.close(client.conn);
            }
            !client.is_gone()
        });
        let openings = self.serve_openings(now, random);
        let acknowledging = self.serve_acknowledging(now, random);
        let mut wake = openings.into_iter().chain(acknowledging).min();
        for index in 0..self.shards.len() {
            let mut news = Vec::new();
            let mut turn = Turn { now, host: &mut self.host, random: &mut *random, news: &mut news };
            let again = self.shards[index].run(&mut turn);
            // A thread that goes on is not always the next to run.
            let again = again.map(|at| at.max(now + random.time(Duration::from_micros(5), Duration::from_micros(120))));
            wake = wake.into_iter().chain(again).min();
            let (shard, session) = (ShardId(index as u16), self.shards[index].session());
            for news in news {
                trace.event(now, self.label, format_args!("stream of shard {index}: {}", news.describe()));
                self.send_later(now, random, Message::Stream(shard, session, news));
            }
        }
        wake
    }

    fn serve_openings(&mut self, now: Instant, random: &mut Random) -> Option<Instant> {
        while let Some(conn) = self.host.accept(STATE_PORT) {
            self.openings.push(Opening { conn, bytes: Vec::new(), deadline: now + HANDSHAKE_PATIENCE });
        }
        let mut wake: Option<Instant> = None;
        for mut opening in std::mem::take(&mut self.openings) {
            opening.bytes.extend(self.host.receive(opening.conn, 512));
            match Handshake::decode(&opening.bytes) {
                Ok(Some((handshake, len))) if len == opening.bytes.len() => {
                    self.send_later(now, random, Message::Opening(opening.conn, handshake));
                }
                Ok(None) if now < opening.deadline && !is_lost(&self.host, opening.conn) => {
                    wake = Some(wake.map_or(opening.deadline, |wake| wake.min(opening.deadline)));
                    self.openings.push(opening);
                }
                Ok(_) | Err(_) => {
                    self.host.send(opening.conn, &encode_reply(Err(Rejection::Malformed)));
                    self.host.close(opening.conn);
                }
            }
        }
        wake
    }

    fn serve_acknowledging(&mut self, now: Instant, random: &mut Random) -> Option<Instant> {
        for mut stream in std::mem::take(&mut self.acknowledging) {
            let sent = self.host.send(stream.conn, &stream.out);
            stream.out.drain(..sent);
            if stream.out.is_empty() {
                self.host.shut_down(stream.conn);
            }
            if is_lost(&self.host, stream.conn) || now >= stream.deadline {
                self.host.close(stream.conn);
                let closed = News::Event(StreamEvent::Closed);
                self.send_later(now, random, Message::Stream(stream.shard, stream.session, closed));
            } else {
                self.acknowledging.push(stream);
            }
        }
        self.acknowledging.iter().map(|stream| stream.deadline).min()
    }

    fn handle(&mut self, now: Instant, random: &mut Random, trace: &mut Trace, message: Message<N>) {
        match message {
            Message::Asked(client, request) => self.answer(now, random, trace, client, request),
            Message::Lcore(shard, event) => self.event(now, trace, Event::Lcore { shard, event }),
            Message::Stream(shard, session, news) => {
                if session != self.shards[usize::from(shard.0)].session() {
                    return;
                }
                match news {
                    News::Event(event) => self.event(now, trace, Event::Stream { shard, event }),
                    News::Synchronised(synchronised) => self.shards[usize::from(shard.0)].synchronised(synchronised),
                }
            }
            Message::Digest(shard, session, digest) => {
                if session == self.shards[usize::from(shard.0)].session() {
                    self.event(now, trace, Event::Digest { shard, digest });
                }
            }
            Message::Opening(conn, handshake) => self.open(now, random, trace, conn, &handshake),
        }
    }

    fn event(&mut self, now: Instant, trace: &mut Trace, event: Event) {
        self.tell(trace, now, format_args!("{event:?}"));
        let shown = format!("{event:?}");
        if let Err(error) = self.vei.handle(now, event) {
            self.tell(trace, now, format_args!("did not expect this: {error}"));
            self.complaint.get_or_insert_with(|| format!("{} did not expect {shown}: {error}", self.label));
        }
    }

    fn answer(
        &mut self,
        now: Instant,
        random: &mut Random,
        trace: &mut Trace,
        client: u64,
        request: Request<InstanceRequest>,
    ) {
        let result = self.vei.request(now, &request.request).map(|handled| match (handled, &request.request) {
            (Handled::Done, InstanceRequest::Activate {}) => {
                self.activated = true;
                InstanceReply::Done
            }
            (Handled::Done, _) => InstanceReply::Done,
            (Handled::ByDriver, InstanceRequest::Describe {}) => InstanceReply::Description(self.description()),
            (Handled::ByDriver, InstanceRequest::Config {}) => {
                InstanceReply::Config(ConfigInForce { toml: String::new() })
            }
            // Nobody asks for subscribers here.
            (Handled::ByDriver, InstanceRequest::Subscribers { .. }) => {
                InstanceReply::Subscribers(SubscriberPage::default())
            }
            (Handled::ByDriver, _) => InstanceReply::Status(Box::new(self.status(now))),
        });
        match &result {
            Ok(_) => self.tell(trace, now, format_args!("{:?}: done", request.request)),
            Err(error) => self.tell(trace, now, format_args!("{:?}: refused, {error}", request.request)),
        }
        // What follows from it begins before the requester hears of it.
        self.carry_out(now, random, trace);
        let line: ServerLine = ServerMessage::Reply(Reply::new(request.id, result));
        if let Some(client) = self.clients.iter_mut().find(|one| one.id == client) {
            client.send(&line);
        }
    }

    fn open(&mut self, now: Instant, random: &mut Random, trace: &mut Trace, conn: Conn, handshake: &Handshake) {
        let reply = self.vei.accept(now, handshake);
        let (shard, role) = (handshake.shard, handshake.role);
        self.tell(trace, now, format_args!("{role:?} stream of shard {}: {reply:?}", shard.0));
        // The answer is short and the first thing written, so there is room for it.
        self.host.send(conn, &encode_reply(reply));
        if reply.is_err() || usize::from(shard.0) >= self.shards.len() {
            self.host.close(conn);
            return;
        }
        let nf = match role {
            StreamRole::Statelets => None,
            StreamRole::Snapshot => match self.fresh(shard, random.number()) {
                Some(nf) => Some(nf),
                None => return,
            },
        };
        let st_q_in_bytes = self.options.st_q_in_bytes;
        // Without a destination nothing was accepted.
        let options = self.vei.destination().map(|destination| destination.parameters().options.clone());
        let options = options.unwrap_or_default();
        let managed = &mut self.shards[usize::from(shard.0)];
        if let Streams::None = managed.streams {
            managed.next_session();
            managed.streams =
                Streams::Incoming(Incoming::new(st_q_in_bytes, self.options.early_ends, self.options.reading));
        }
        if let Streams::Incoming(streams) = &mut managed.streams {
            match nf {
                None => streams.accept_statelets(conn, handshake.compressed),
                Some((seed, nf)) => {
                    self.host.mark(conn, options.scheduling.snapshot_dscp());
                    streams.accept_snapshot(conn, nf, Installer::new(options.mode, seed));
                    managed.arriving_seed = seed;
                }
            }
        }
        self.carry_out(now, random, trace);
    }

    /// A network function with empty state and random choices of its own.
    fn fresh(&mut self, shard: ShardId, seed: u64) -> Option<(u64, Box<Watched<N>>)> {
        let shard = self.shards[usize::from(shard.0)].shard;
        match Watched::new(&self.config, shard, seed) {
            Ok(nf) => Some((seed, Box::new(nf))),
            Err(error) => {
                self.complaint.get_or_insert_with(|| format!("no network function: {error}"));
                None
            }
        }
    }

    /// Does what the state machine has decided.
    fn carry_out(&mut self, now: Instant, random: &mut Random, trace: &mut Trace) {
        while let Some(action) = self.vei.poll_action() {
            match action {
                Action::Lcore { shard, command } => self.command_lcore(now, random, trace, shard, command),
                Action::Stream { shard, command } => self.command_streams(now, random, trace, shard, command),
                Action::Notify(event) => {
                    if let InstanceEvent::PhaseChanged { phase, .. } = &event {
                        self.tell(trace, now, format_args!("{phase:?}"));
                        self.phases.push(*phase);
                    }
                    let line: ServerLine = ServerMessage::Event(event);
                    for client in &mut self.clients {
                        client.send(&line);
                    }
                }
            }
        }
    }

    fn command_lcore(
        &mut self,
        now: Instant,
        random: &mut Random,
        trace: &mut Trace,
        shard: ShardId,
        command: LcoreCommand,
    ) {
        self.tell(trace, now, format_args!("tells lcore {} to {command:?}", shard.0));
        let index = usize::from(shard.0);
        let command = match command {
            LcoreCommand::Activate => {
                let seed = random.number();
                let Some((seed, nf)) = self.fresh(shard, seed) else { return };
                self.seeds[index] = seed;
                Command::Activate(nf)
            }
            LcoreCommand::Freeze(mode, pace) => {
                let (producer, consumer) = rtrb::RingBuffer::new(self.options.st_q_out_bytes);
                self.shards[index].st_q_out = Some(consumer);
                Command::Freeze(producer, Announcing::of(mode, random.number()), pace)
            }
            LcoreCommand::Stop => Command::Stop,
            LcoreCommand::Resume(pace) => Command::Resume(pace),
            LcoreCommand::Release(migration) => Command::Release(migration),
            LcoreCommand::ArmPktQ => Command::ArmPktQ,
            LcoreCommand::TakeOver(pace) => {
                let Some(synchronised) = self.shards[index].take_synchronised() else {
                    self.complaint.get_or_insert_with(|| "take over without a network function".into());
                    return;
                };
                self.seeds[index] = self.shards[index].arriving_seed;
                Command::TakeOver(synchronised, pace)
            }
            LcoreCommand::HandBack(migration, pace) => Command::HandBack(migration, pace),
            LcoreCommand::Discard => Command::Discard,
            LcoreCommand::Reset => {
                // Threads of the migration before may still tell that they have ended.
                self.shards[index].next_session();
                Command::Reset
            }
        };
        self.commands[index].push_back(command);
    }

    fn command_streams(
        &mut self,
        now: Instant,
        random: &mut Random,
        trace: &mut Trace,
        shard: ShardId,
        command: StreamCommand,
    ) {
        self.tell(trace, now, format_args!("tells streams of shard {} to {command:?}", shard.0));
        let index = usize::from(shard.0);
        let source = self.vei.source();
        let managed = &mut self.shards[index];
        let session = managed.session();
        match (command, &mut managed.streams) {
            (StreamCommand::Connect(role), Streams::None | Streams::Outgoing(_)) => {
                let Some(source) = source else { return };
                let parameters = source.parameters();
                let hello = source.handshake(shard, role);
                if let Streams::None = managed.streams {
                    let options = parameters.options.clone();
                    managed.streams = Streams::Outgoing(Outgoing::new(parameters.migration, options));
                    managed.next_session();
                }
                let Some(conn) = self.host.connect(parameters.destination) else { return };
                if let Streams::Outgoing(streams) = &mut managed.streams {
                    streams.connect(conn, &hello);
                }
            }
            (StreamCommand::SendSnapshot, Streams::Outgoing(streams)) => {
                if let Some(thread) = &mut streams.snapshot {
                    thread.frozen = managed.frozen.take();
                }
            }
            (StreamCommand::SendStatelets, Streams::Outgoing(streams)) => {
                let StartOptions { coalesce, compress, .. } = *streams.options();
                if let Some(thread) = &mut streams.statelets {
                    let options = PumpOptions::new::<Watched<N>>(SEGMENT_BYTES, coalesce, compress);
                    thread.pump = managed.st_q_out.take().map(|st_q_out| Pump::new(st_q_out, options));
                }
            }
            (StreamCommand::Flush, Streams::Outgoing(streams)) => {
                if let Some(thread) = &mut streams.statelets {
                    thread.flushing = true;
                }
            }
            (StreamCommand::SendEnd(end), Streams::Outgoing(streams)) => {
                if let Some(thread) = &mut streams.statelets {
                    thread.end = Some(end);
                }
            }
            (StreamCommand::ApplyStatelets, Streams::Incoming(streams)) if streams.is_installed() => streams.apply(),
            (StreamCommand::SendTakenOver, Streams::Incoming(streams)) => {
                let migration = self.vei.destination().map(|destination| destination.parameters().migration);
                if let (Some(thread), Some(migration)) = (&streams.statelets, migration) {
                    self.acknowledging.push(Acknowledging {
                        shard,
                        session,
                        conn: thread.conn,
                        out: encode_taken_over(migration).to_vec(),
                        deadline: now + LINGER,
                    });
                }
                managed.streams = Streams::None;
            }
            (StreamCommand::Close, _) => {
                let closed = Message::Stream(shard, session, News::Event(StreamEvent::Closed));
                if managed.close(&mut self.host) {
                    // Threads that sleep find out a little later.
                    let at = now + random.time(Duration::ZERO, CLOSE);
                    self.inbox_seen += 1;
                    self.inbox.insert((at, self.inbox_seen), closed);
                } else {
                    self.send_later(now, random, closed);
                }
            }
            (command, _) => {
                let complaint = format!("streams of shard {index} cannot {command:?} now");
                self.complaint.get_or_insert(complaint);
            }
        }
    }

    fn description(&self) -> Description {
        Description {
            name: self.name.clone(),
            // It is a name: the VEI has been made with it.
            kind: Name::try_from(N::KIND).unwrap_or_else(|_| self.name.clone()),
            schema: Schema(N::SCHEMA),
            software: Text::from("simulated"),
            shards: self.shards.len() as u16,
            ports: N::PORTS.iter().filter_map(|&port| Name::try_from(port).ok()).collect(),
            role: self.role(),
            state_address: Host::socket_address(self.number, STATE_PORT),
            capacity: Counters::new(),
            boot_ms: 0,
        }
    }

    fn status(&self, now: Instant) -> InstanceStatus {
        InstanceStatus {
            name: self.name.clone(),
            role: self.role(),
            uptime_ms: (now - self.began).as_millis() as u64,
            migration: self.vei.migration_status(now),
            counters: Counters::new(),
            gauges: Counters::new(),
            queues: BTreeMap::new(),
        }
    }

    /// Begins to process packets without being asked over the network, as at the very begin of a run.
    pub(crate) fn activate(&mut self, now: Instant, random: &mut Random, trace: &mut Trace) -> Result<(), String> {
        self.vei.request(now, &InstanceRequest::Activate {}).map_err(|error| error.to_string())?;
        self.activated = true;
        self.carry_out(now, random, trace);
        Ok(())
    }
}

fn is_lost(host: &Host, conn: Conn) -> bool {
    host.is_dead(conn) || host.is_finished(conn)
}

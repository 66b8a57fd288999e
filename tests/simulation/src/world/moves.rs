//! Who runs, and what moves between them.

use super::{Actor, CONTROLLER, Happening, Outcome, World};
use crate::Workload;
use crate::controller::{Controller, Surroundings};
use crate::fabric::Behind;
use crate::net::Host;
use crate::watch::{Entry, take_journal};
use slim_core::nf::{NetworkFunction, PortId, Shard, ShardId};
use slim_core::protocol::control::{ErrorCode, LineBuffer, Reply, ServerMessage, SwitchEvent, SwitchReply};
use slim_core::protocol::control::{SwitchRequest, decode_request, encode};
use slim_core::protocol::inband::{Frame, is_inband};
use slim_core::snapshot;
use slim_core::time::Duration;
use slim_core::vei::lcore::{Command, Patience, Report};
use std::collections::BTreeMap;

const fn micros(count: u64) -> Duration {
    Duration::from_micros(count)
}

impl<N: NetworkFunction, W: Workload<N>> World<N, W> {
    /// A host's stack, while the host is there.
    pub(super) fn host(&mut self, host: usize) -> Option<&mut Host> {
        if host == CONTROLLER {
            self.controller.as_mut().map(|controller| &mut controller.host)
        } else {
            self.nodes[host].as_mut().map(|node| &mut node.host)
        }
    }

    /// The stack works; its frames leave.
    pub(super) fn run_host(&mut self, host: usize) {
        let now = self.now;
        let Some(stack) = self.host(host) else { return };
        let changed = stack.poll(now);
        let frames: Vec<Vec<u8>> = std::iter::from_fn(|| stack.take_frame()).collect();
        let poll_at = stack.poll_at(now);
        if let Some(at) = poll_at {
            // A timer that is due again at once would let no time pass.
            self.wake(Actor::Host(host), at.max(now + micros(1)));
        }
        if changed {
            let actor = if host == CONTROLLER { Actor::Controller } else { Actor::Node(host) };
            self.wake_soon(actor, micros(120));
        }
        for frame in frames {
            self.on_wire(host, frame, |host, frame| Happening::FrameToSwitch { host, frame });
        }
    }

    /// A management frame is on the wire between a host and the switch.
    fn on_wire(&mut self, host: usize, frame: Vec<u8>, arrive: impl Fn(usize, Vec<u8>) -> Happening) {
        self.stats.management_frames += 1;
        let noise = self.scenario.noise;
        if self.is_cut_off(&frame) {
            return;
        }
        if self.random.chance(noise.mgmt_loss) {
            self.stats.fault("management frame lost");
            return;
        }
        let twice = self.random.chance(noise.mgmt_duplicate);
        for _ in 0..1 + u32::from(twice) {
            let at = self.now + micros(2) + self.random.time(Duration::ZERO, noise.mgmt_jitter);
            self.agenda.enter(at, arrive(host, frame.clone()));
        }
        if twice {
            self.stats.fault("management frame duplicated");
        }
    }

    /// Whether a frame does not get through because of a partition.
    fn is_cut_off(&self, frame: &[u8]) -> bool {
        let host_of = |mac: Option<&u8>| match mac {
            Some(11) => Some(0),
            Some(12) => Some(1),
            Some(1) => Some(CONTROLLER),
            _ => None,
        };
        let (Some(from), to) = (host_of(frame.get(11)), host_of(frame.get(5))) else { return false };
        match to {
            Some(to) => self.now < self.partitioned_until[from][to],
            // To everybody.
            None => (0..3).all(|to| to == from || self.now < self.partitioned_until[from][to]),
        }
    }

    pub(super) fn run_management(&mut self, node: usize) -> Outcome {
        let Some(instance) = &mut self.nodes[node] else { return Ok(()) };
        let wake = instance.manage(self.now, &mut self.random, &mut self.trace);
        if let Some(at) = wake {
            self.wake(Actor::Node(node), at.max(self.now + micros(1)));
        }
        self.after_management(node)
    }

    /// What the management side may have caused elsewhere.
    pub(super) fn after_management(&mut self, node: usize) -> Outcome {
        let Some(instance) = &mut self.nodes[node] else { return Ok(()) };
        if let Some(complaint) = instance.complaint.take() {
            return Err(complaint);
        }
        if std::mem::take(&mut instance.activated) {
            self.oracle.begin(&instance.seeds)?;
            self.holder.fill(Some((node, self.lives[node])));
        }
        let phases = std::mem::take(&mut instance.phases);
        let commanded: Vec<usize> =
            (0..instance.commands.len()).filter(|&shard| !instance.commands[shard].is_empty()).collect();
        for shard in commanded {
            self.wake_soon(Actor::Lcore(node, shard), self.scenario.lcore_delay);
        }
        self.wake(Actor::Host(node), self.now);
        self.strike_at_phases(&phases);
        Ok(())
    }

    /// Which instances run.
    fn running(&self) -> [bool; 2] {
        [self.nodes[0].is_some(), self.nodes[1].is_some()]
    }

    /// Does something with the controller and what it needs, after which it gets to run.
    pub(super) fn with_controller<R>(
        &mut self,
        act: impl FnOnce(&mut Controller, &mut Surroundings<'_>) -> R,
    ) -> Option<R> {
        let result = self.lend_to_controller(act)?;
        self.wake(Actor::Controller, self.now);
        Some(result)
    }

    fn lend_to_controller<R>(&mut self, act: impl FnOnce(&mut Controller, &mut Surroundings<'_>) -> R) -> Option<R> {
        let running = self.running();
        let controller = self.controller.as_mut()?;
        let mut surroundings = Surroundings {
            now: self.now,
            pipe: &mut self.pipe,
            random: &mut self.random,
            trace: &mut self.trace,
            running,
        };
        Some(act(controller, &mut surroundings))
    }

    pub(super) fn run_controller(&mut self) {
        let Some(wake) = self.lend_to_controller(Controller::run) else { return };
        if let Some(at) = wake {
            self.wake(Actor::Controller, at.max(self.now + micros(1)));
        }
        if let Some(at) = self.pipe.arrivals().0 {
            self.wake(Actor::Switch, at);
        }
        self.wake(Actor::Host(CONTROLLER), self.now);
    }

    /// One round of the switch's loop: requests first, between two bursts.
    pub(super) fn run_switch(&mut self) -> Outcome {
        self.serve_switch()?;
        let Some(fabric) = &mut self.fabric else { return Ok(()) };
        let (nodes, workload, shards) = (&self.nodes, &self.workload, self.scenario.shards);
        let ring_frames = self.scenario.ring_frames;
        let mut taken: BTreeMap<Behind, Vec<usize>> = BTreeMap::new();
        let has_room = |behind: Behind, frame: &[u8]| match behind {
            Behind::Data(node, port) => {
                let Some(instance) = &nodes[node] else { return false };
                let shard = shard_of::<N, W>(workload, frame, shards);
                let taken = taken.entry(behind).or_insert_with(|| vec![0; usize::from(shards)]);
                let room = instance.lcores[shard].io().waiting(port) + taken[shard] < ring_frames;
                taken[shard] += usize::from(room);
                room
            }
            Behind::Outside(_) | Behind::Management | Behind::InstanceManagement(_) => true,
        };
        let round = fabric.round(self.now, has_room);
        if let Some(at) = round.wake {
            self.wake(Actor::Switch, at.max(self.now + micros(1)));
        }
        for frame in round.lost {
            let frame = inner(&frame).to_vec();
            self.oracle.lose(&self.workload, &frame);
        }
        for (behind, frame) in round.sent {
            self.leave_switch(behind, frame)?;
        }
        for event in round.events {
            if let SwitchEvent::RollbackFinished { timed_out: true, .. } = event
                && self.now >= self.hold_until
            {
                // What is handed back after that is late, as the switch says.
                self.oracle.excuse_order();
            }
            self.trace.event(self.now, "switch", format_args!("{event:?}"));
            let line: ServerMessage<SwitchReply, SwitchEvent> = ServerMessage::Event(event);
            self.tell_controller(&line);
        }
        Ok(())
    }

    fn tell_controller(&mut self, line: &ServerMessage<SwitchReply, SwitchEvent>) {
        if let Ok(line) = encode(line) {
            self.pipe.send_to_controller(self.now, &mut self.random, line.as_bytes());
        }
        if let Some(at) = self.pipe.arrivals().1 {
            self.wake(Actor::Controller, at);
        }
    }

    /// Carries out the requests that have arrived.
    fn serve_switch(&mut self) -> Outcome {
        while let Some((epoch, bytes)) = self.pipe.receive_at_switch(self.now) {
            if self.switch_lines.0 != epoch {
                self.switch_lines = (epoch, LineBuffer::new());
            }
            self.switch_lines.1.extend(&bytes);
            loop {
                let request = match self.switch_lines.1.next_line() {
                    Ok(Some(line)) => decode_request::<SwitchRequest>(line).map_err(|error| error.to_string())?,
                    Ok(None) => break,
                    Err(error) => return Err(error.to_string()),
                };
                let Some(fabric) = &mut self.fabric else { continue };
                let shown = format!("{:?}", request.request);
                // Being asked once more, the switch holds no longer.
                if let SwitchRequest::Redirect { rollback: true, hold_ms, migration, .. } = &request.request
                    && self.hold_of.replace(*migration) != Some(*migration)
                {
                    self.hold_until = self.now + Duration::from_millis(u64::from(*hold_ms));
                }
                let result = fabric.execute(self.now, request.request);
                match &result {
                    Ok(_) => self.trace.event(self.now, "switch", format_args!("{shown}: done")),
                    Err(error) => self.trace.event(self.now, "switch", format_args!("{shown}: refused, {error}")),
                }
                if result.as_ref().is_err_and(|error| error.code == ErrorCode::Malformed) {
                    return Err(format!("the switch was asked for {shown}"));
                }
                if epoch == self.pipe.epoch {
                    let reply: ServerMessage<SwitchReply, SwitchEvent> =
                        ServerMessage::Reply(Reply::new(request.id, result));
                    self.tell_controller(&reply);
                }
            }
        }
        if let Some(at) = self.pipe.arrivals().0 {
            self.wake(Actor::Switch, at);
        }
        Ok(())
    }

    fn leave_switch(&mut self, behind: Behind, frame: Vec<u8>) -> Outcome {
        match behind {
            Behind::Outside(port) => {
                self.trace.detail(self.now, "outside", frame.len() as u64, || match self.workload.identify(&frame) {
                    Some(id) => format!("{id:?} leaves through port {}", port.0),
                    None => format!("a frame of {} bytes leaves through port {}", frame.len(), port.0),
                });
                self.oracle.leave(&self.workload, port, &frame)?;
                if let Some((port, flow)) = self.workload.react(self.now, port, &frame) {
                    let (least, most) = self.scenario.think_time;
                    let at = self.now + self.random.time(least, most);
                    self.agenda.enter(at, Happening::React { port, flow });
                }
            }
            Behind::Management => self.reach_host(CONTROLLER, frame),
            Behind::InstanceManagement(node) => self.reach_host(node, frame),
            Behind::Data(node, port) => self.reach_instance(node, port, frame),
        }
        Ok(())
    }

    fn reach_host(&mut self, host: usize, frame: Vec<u8>) {
        let life = self.lives[host];
        self.on_wire(host, frame, |host, frame| Happening::FrameToHost { host, life, frame });
    }

    /// A frame enters a receive ring, unless it gets lost on the way.
    fn reach_instance(&mut self, node: usize, port: PortId, frame: Vec<u8>) {
        let copies = self.copies(&frame);
        if copies == 0 {
            let frame = inner(&frame).to_vec();
            self.oracle.lose_in(&self.workload, &frame);
            return;
        }
        if copies > 1 {
            let at = self.now + self.random.time(Duration::ZERO, self.scenario.noise.inband_late);
            let (life, frame) = (self.lives[node], frame.clone());
            self.agenda.enter(at, Happening::LateToInstance { node, life, port, frame });
        }
        self.put_in_ring(node, port, frame);
    }

    pub(super) fn put_in_ring(&mut self, node: usize, port: PortId, frame: Vec<u8>) {
        let shard = shard_of::<N, W>(&self.workload, &frame, self.scenario.shards);
        let Some(instance) = &mut self.nodes[node] else { return };
        instance.lcores[shard].io_mut().put(port, frame);
        self.wake_soon(Actor::Lcore(node, shard), self.scenario.lcore_delay);
    }

    pub(super) fn put_to_switch(&mut self, node: usize, port: PortId, frame: Vec<u8>) {
        if let Some(fabric) = &mut self.fabric {
            fabric.incoming.push_back((Behind::Data(node, port), frame));
            self.wake_soon(Actor::Switch, micros(30));
        }
    }

    /// How often a frame arrives that is sent between switch and instance.
    fn copies(&mut self, frame: &[u8]) -> usize {
        let noise = self.scenario.noise;
        if !is_inband(frame) || matches!(Frame::decode(frame), Ok(Frame::HandBack { .. })) {
            let lost = self.random.chance(noise.data_loss);
            if lost {
                self.stats.fault("packet lost");
            }
            return usize::from(!lost);
        }
        if self.random.chance(noise.inband_loss) {
            self.stats.fault("in-band frame lost");
            return 0;
        }
        let twice = self.random.chance(noise.inband_duplicate);
        if twice {
            self.stats.fault("in-band frame duplicated");
        }
        1 + usize::from(twice)
    }

    /// Somebody outside sends the next packet of a flow.
    pub(super) fn send_in(&mut self, port: PortId, flow: u32) {
        let id = self.oracle.generate(port, flow);
        let frame = self.workload.frame(self.now, id, &mut self.random);
        self.trace.detail(self.now, "outside", u64::from(flow), || format!("{id:?} is sent"));
        match &mut self.fabric {
            Some(fabric) => {
                fabric.incoming.push_back((Behind::Outside(port), frame));
                self.wake_soon(Actor::Switch, micros(40));
            }
            None => self.oracle.lose_in(&self.workload, &frame),
        }
    }

    /// One pass of an lcore, and what the judge says to it.
    pub(super) fn run_lcore(&mut self, node: usize, shard: usize) -> Outcome {
        let stalled_until = self.lcores_stalled_until[node][shard];
        if self.now < stalled_until {
            self.wake(Actor::Lcore(node, shard), stalled_until);
            return Ok(());
        }
        let Some(instance) = &mut self.nodes[node] else { return Ok(()) };
        let command = instance.commands[shard].pop_front();
        let lcore = &mut instance.lcores[shard];
        if matches!(command, Some(Command::Discard | Command::Reset | Command::ArmPktQ)) {
            let records = lcore.pkt_q().records;
            self.discarded += records;
            self.oracle.count_in(records);
        }
        let passed = lcore.pass(self.now, command);
        let reports: Vec<_> = std::iter::from_fn(|| lcore.poll_report()).collect();
        let sent = lcore.io_mut().take_sent();
        let patience = lcore.patience();
        let label = instance.label();
        self.trace.detail(self.now, label, passed.received as u64, || {
            format!("lcore {shard} receives {} and sends {} frames", passed.received, sent.len())
        });
        let taken_over = self.judge_journal(node, shard)?;
        self.take_reports(node, shard, reports, taken_over)?;
        let work = self.nodes[node].as_ref().is_some_and(|instance| instance.lcore_has_work(shard));
        let actor = Actor::Lcore(node, shard);
        match patience {
            _ if passed.busy || work => self.wake_soon(actor, self.scenario.lcore_delay / 2),
            Patience::None => self.wake_soon(actor, self.scenario.lcore_delay / 2),
            Patience::Tick => {
                let at = self.now + self.random.time(Duration::from_millis(2), Duration::from_millis(25));
                self.wake(actor, at);
            }
            Patience::Forever => {}
        }
        for (port, frame) in sent {
            self.leave_instance(node, port, frame);
        }
        Ok(())
    }

    /// Has the judge look at what an lcore did with its network function. Returns the digest at a take-over.
    fn judge_journal(&mut self, node: usize, shard: usize) -> Outcome<Option<u128>> {
        let me = (node, self.lives[node]);
        let id = ShardId(shard as u16);
        let mut taken_over = None;
        for entry in take_journal() {
            if let Some((holder, life)) = self.holder[shard]
                && self.lives[holder] != life
                && node != holder
                && !matches!(entry, Entry::TakenOver { .. })
            {
                // The destination died with the state right after it had taken over, and the source went on from its own.
                self.oracle.lose_state();
                self.holder[shard] = Some(me);
            }
            if !matches!(entry, Entry::TakenOver { .. }) && self.holder[shard] != Some(me) {
                let holder = self.holder[shard].map(|(node, _)| node);
                return Err(format!("instance {node} processes packets of shard {shard}, which {holder:?} holds"));
            }
            match entry {
                Entry::Processed { port, before, verdict, after } => {
                    self.oracle.process(self.now, &self.workload, id, (port, before), (verdict, &after))?;
                }
                Entry::Ticked => self.oracle.tick(self.now, id),
                Entry::Aligned { seed } => self.oracle.align(self.now, id, seed),
                Entry::TakenOver { digest } => {
                    let seed = self.nodes[node].as_ref().map_or(0, |instance| instance.seeds[shard]);
                    let shard_of = Shard { id, count: self.scenario.shards };
                    self.oracle.take_over(self.now, shard_of, seed, digest)?;
                    self.holder[shard] = Some(me);
                    taken_over = Some(digest);
                }
            }
        }
        Ok(taken_over)
    }

    fn take_reports<F>(
        &mut self,
        node: usize,
        shard: usize,
        reports: Vec<Report<F>>,
        taken_over: Option<u128>,
    ) -> Outcome {
        let id = ShardId(shard as u16);
        for report in reports {
            let Some(instance) = &mut self.nodes[node] else { return Ok(()) };
            match report {
                Report::Event(event) => instance.lcore_event(self.now, &mut self.random, id, event),
                Report::Snapshot(frozen) => instance.frozen(id, frozen),
                Report::Digest(frozen) => {
                    let digest = snapshot::digest(&frozen);
                    drop(frozen);
                    match taken_over {
                        Some(expected) if expected != digest => {
                            return Err(format!("the digest of shard {shard} at take-over is not of its state"));
                        }
                        Some(_) => {}
                        None => self.oracle.compare(id, digest, "at the source's end")?,
                    }
                    instance.digest(self.now, &mut self.random, id, digest);
                }
                Report::Impossible(command) => return Err(format!("an lcore cannot {command}")),
                Report::Sample(_) | Report::Gauges(_) | Report::Subscribers(..) | Report::Retired(_) => {}
            }
        }
        self.wake_soon(Actor::Node(node), micros(120));
        Ok(())
    }

    /// A frame leaves an instance, unless it gets lost on the way to the switch.
    fn leave_instance(&mut self, node: usize, port: PortId, frame: Vec<u8>) {
        let copies = self.copies(&frame);
        let handed_back = is_inband(&frame);
        match &self.fabric {
            Some(_) if copies > 0 => {
                if copies > 1 {
                    let at = self.now + self.random.time(Duration::ZERO, self.scenario.noise.inband_late);
                    self.agenda.enter(at, Happening::LateFromInstance { node, port, frame: frame.clone() });
                }
                self.put_to_switch(node, port, frame);
            }
            _ if handed_back => {
                let frame = inner(&frame).to_vec();
                self.oracle.lose_in(&self.workload, &frame);
            }
            _ => self.oracle.lose_out(&self.workload, &frame),
        }
    }
}

/// The frame that is handed back, or the frame itself.
pub(super) fn inner(frame: &[u8]) -> &[u8] {
    match Frame::decode(frame) {
        Ok(Frame::HandBack { frame, .. }) => frame,
        _ => frame,
    }
}

fn shard_of<N: NetworkFunction, W: Workload<N>>(workload: &W, frame: &[u8], shards: u16) -> usize {
    workload.identify(frame).map_or(0, |id| usize::from(workload.shard(id, shards)))
}

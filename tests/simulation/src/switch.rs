//! The switch, as far as a migration sees it: which instance a packet goes to, drains, and holding packets back.

use slim_core::nf::PortId;
use slim_core::protocol::control::{
    ControlError, Counters, ErrorCode, InstancePaths, LinkSettings, PathDrain, PathStatus, RedirectState, SwitchEvent,
    SwitchReply, SwitchRequest,
};
use slim_core::protocol::inband::{Drain, Frame, HandBackEnd};
use slim_core::protocol::{MigrationId, Name, Nonce, PathIndex, PathSet};
use std::collections::{BTreeSet, VecDeque};

/// Where a frame is to go next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Forward {
    /// Towards an instance; `shard` where the switch decides, not the frame's flow.
    ToInstance { node: usize, port: PortId, shard: Option<u16>, frame: Vec<u8> },
    /// Out of an external port.
    Out { port: PortId, frame: Vec<u8> },
    /// Tell the controller.
    Notify(SwitchEvent),
}

pub(super) struct Switch {
    names: [Name; 2],
    ports: u8,
    shards: u16,
    /// The instance that all paths lead to.
    live: usize,
    redirects: Vec<Redirect>,
    pub(super) dropped_packets: u64,
}

struct Redirect {
    migration: MigrationId,
    from: usize,
    to: usize,
    nonce: Nonce,
    rollback: bool,
    paths: PathSet,
    acked: PathSet,
    sent: u32,
    /// Packets held until everything has been handed back; `None` once the hold is over.
    hold: Option<VecDeque<(PortId, Vec<u8>)>>,
    ends: BTreeSet<(u8, u16)>,
    handed_back_packets: u64,
    held_packets: u64,
}

impl Switch {
    pub(super) fn new(names: [Name; 2], ports: u8, shards: u16) -> Self {
        Self { names, ports, shards, live: 0, redirects: Vec::new(), dropped_packets: 0 }
    }

    /// The instance that packets from outside go to.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// Whether any packet is held.
    pub(super) fn is_clean(&self) -> bool {
        self.redirects.iter().all(|redirect| redirect.hold.is_none())
    }

    /// Packets handed back in all redirects that were undone.
    pub(super) fn handed_back_packets(&self) -> u64 {
        self.redirects.iter().map(|redirect| redirect.handed_back_packets).sum()
    }

    /// A frame from outside.
    pub(super) fn route_from_outside(&mut self, port: PortId, frame: Vec<u8>) -> Option<Forward> {
        let live = self.live;
        if let Some(redirect) =
            self.redirects.iter_mut().find(|redirect| redirect.to == live && redirect.hold.is_some())
            && let Some(hold) = &mut redirect.hold
        {
            redirect.held_packets += 1;
            hold.push_back((port, frame));
            return None;
        }
        Some(Forward::ToInstance { node: live, port, shard: None, frame })
    }

    /// A frame from an instance.
    pub(super) fn route_from_instance(&mut self, node: usize, port: PortId, frame: Vec<u8>) -> Vec<Forward> {
        if !slim_core::protocol::inband::is_inband(&frame) {
            return vec![Forward::Out { port, frame }];
        }
        match Frame::decode(&frame) {
            Ok(Frame::DrainAck(drain)) => self.acknowledged(node, &drain),
            Ok(Frame::HandBack { migration, port: entered, frame }) => {
                assert_eq!(entered, port, "a frame is handed back on the port it came in on");
                let frame = frame.to_vec();
                for redirect in &mut self.redirects {
                    if redirect.migration == migration && redirect.from == node && redirect.rollback {
                        redirect.handed_back_packets += 1;
                    }
                }
                vec![Forward::ToInstance { node: self.live, port, shard: None, frame }]
            }
            Ok(Frame::HandBackEnd(end)) => self.handed_back(node, &end),
            Ok(Frame::Drain(_)) | Err(_) => {
                self.dropped_packets += 1;
                Vec::new()
            }
        }
    }

    fn acknowledged(&mut self, node: usize, drain: &Drain) -> Vec<Forward> {
        let same = |redirect: &&mut Redirect| {
            redirect.migration == drain.migration && redirect.nonce == drain.nonce && redirect.from == node
        };
        let Some(redirect) = self.redirects.iter_mut().find(same) else { return Vec::new() };
        if !redirect.acked.insert(drain.path) {
            return Vec::new();
        }
        let (migration, nonce, path) = (drain.migration, drain.nonce, drain.path);
        let mut told = vec![Forward::Notify(SwitchEvent::DrainAcked { migration, nonce, path })];
        if redirect.acked.covers(redirect.paths) {
            told.push(Forward::Notify(SwitchEvent::Drained { migration, nonce }));
        }
        told
    }

    fn handed_back(&mut self, node: usize, end: &HandBackEnd) -> Vec<Forward> {
        let all = usize::from(self.ports) * usize::from(end.shards);
        let same = |redirect: &&mut Redirect| {
            redirect.migration == end.migration && redirect.rollback && redirect.from == node
        };
        let Some(redirect) = self.redirects.iter_mut().find(same) else { return Vec::new() };
        redirect.ends.insert((end.port.0, end.shard.0));
        if redirect.ends.len() == all { self.release(end.migration, false) } else { Vec::new() }
    }

    /// Sends on what was held back, because everything before it has been sent on, or because it takes too long.
    pub(super) fn release(&mut self, migration: MigrationId, timed_out: bool) -> Vec<Forward> {
        let live = self.live;
        let same = |redirect: &&mut Redirect| redirect.migration == migration && redirect.hold.is_some();
        let Some(redirect) = self.redirects.iter_mut().find(same) else { return Vec::new() };
        let held = redirect.hold.take().unwrap_or_default();
        let forward = |(port, frame)| Forward::ToInstance { node: live, port, shard: None, frame };
        let mut forwards: Vec<_> = held.into_iter().map(forward).collect();
        forwards.push(Forward::Notify(SwitchEvent::RollbackFinished {
            migration,
            nonce: redirect.nonce,
            handed_back_packets: redirect.handed_back_packets,
            held_packets: redirect.held_packets,
            dropped_packets: 0,
            timed_out,
        }));
        forwards
    }

    /// The drain packets that have not been acknowledged.
    pub(super) fn drains(&mut self, migration: MigrationId, nonce: Nonce) -> Vec<Forward> {
        let shards = self.shards;
        let same = |redirect: &&mut Redirect| redirect.migration == migration && redirect.nonce == nonce;
        let Some(redirect) = self.redirects.iter_mut().find(same) else { return Vec::new() };
        redirect.sent += 1;
        let node = redirect.from;
        let open = redirect.paths.iter().filter(|&path| !redirect.acked.contains(path));
        open.map(|path| {
            let drain = Drain { migration, nonce, path, paths: redirect.paths };
            let mut frame = vec![0; slim_core::protocol::inband::FRAME_LEN];
            Frame::Drain(drain).encode(&mut frame).unwrap_or_else(|error| panic!("no drain packet: {error}"));
            let port = PortId((u16::from(path.get()) / shards) as u8);
            let shard = Some(u16::from(path.get()) % shards);
            Forward::ToInstance { node, port, shard, frame }
        })
        .collect()
    }

    /// Answers a request; a redirect's drain packets are the caller's to fetch with [`drains`](Self::drains).
    pub(super) fn request(&mut self, request: &SwitchRequest) -> Result<SwitchReply, ControlError> {
        match request {
            SwitchRequest::PathList {} => Ok(SwitchReply::Paths { instances: self.paths() }),
            SwitchRequest::Redirect { migration, from, to, nonce, rollback, hold_ms } => {
                self.redirect(*migration, from, to, *nonce, *rollback, *hold_ms > 0)
            }
            SwitchRequest::RedirectStatus { migration } => {
                let last = self.redirects.iter().rev().find(|redirect| redirect.migration == *migration);
                Ok(SwitchReply::Redirect { state: last.map(|redirect| self.state(redirect)) })
            }
            _ => Err(ControlError::new(ErrorCode::Unsupported, "not simulated")),
        }
    }

    fn redirect(
        &mut self,
        migration: MigrationId,
        from: &Name,
        to: &Name,
        nonce: Nonce,
        rollback: bool,
        hold: bool,
    ) -> Result<SwitchReply, ControlError> {
        if self.redirects.iter().any(|redirect| redirect.migration == migration && redirect.nonce == nonce) {
            return Ok(SwitchReply::Done {});
        }
        let node = |name: &Name| {
            let unknown = || ControlError::new(ErrorCode::NotFound, "no such instance");
            self.names.iter().position(|known| known == name).ok_or_else(unknown)
        };
        let (from, to) = (node(from)?, node(to)?);
        if self.live != from {
            return Err(ControlError::new(ErrorCode::NotFound, "no path leads there"));
        }
        self.live = to;
        self.redirects.push(Redirect {
            migration,
            from,
            to,
            nonce,
            rollback,
            paths: PathSet::first((u16::from(self.ports) * self.shards) as u8),
            acked: PathSet::EMPTY,
            sent: 0,
            hold: (rollback && hold).then(VecDeque::new),
            ends: BTreeSet::new(),
            handed_back_packets: 0,
            held_packets: 0,
        });
        Ok(SwitchReply::Done {})
    }

    fn paths(&self) -> Vec<InstancePaths> {
        let indexes = PathSet::first((u16::from(self.ports) * self.shards) as u8);
        let entry = |node: usize| InstancePaths {
            instance: self.names[node].clone(),
            ports: (0..self.ports).map(|port| port_name(node, port)).collect(),
            mgmt: None,
            link: LinkSettings::default(),
            paths: indexes
                .iter()
                .filter(|_| node == self.live)
                .map(|index| PathStatus {
                    from: external_name(index, self.shards),
                    to: port_name(node, (u16::from(index.get()) / self.shards) as u8),
                    index: Some(index),
                    counters: Counters::new(),
                })
                .collect(),
        };
        vec![entry(0), entry(1)]
    }

    fn state(&self, redirect: &Redirect) -> RedirectState {
        let drain = |path: PathIndex| PathDrain {
            path,
            external: external_name(path, self.shards),
            sent: redirect.sent,
            acked: redirect.acked.contains(path),
        };
        RedirectState {
            migration: redirect.migration,
            from: self.names[redirect.from].clone(),
            to: self.names[redirect.to].clone(),
            nonce: redirect.nonce,
            rollback: redirect.rollback,
            paths: redirect.paths.iter().map(drain).collect(),
            drained: redirect.acked.covers(redirect.paths),
            finished: redirect.rollback && redirect.hold.is_none(),
            handed_back_packets: redirect.handed_back_packets,
            held_packets: redirect.held_packets,
        }
    }
}

fn name(text: String) -> Name {
    text.try_into().unwrap_or_else(|error| panic!("not a name: {error}"))
}

fn port_name(node: usize, port: u8) -> Name {
    name(format!("node{node}.{port}"))
}

fn external_name(path: PathIndex, shards: u16) -> Name {
    name(format!("external{}", u16::from(path.get()) / shards))
}

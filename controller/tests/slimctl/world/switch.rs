//! A switch without packets: ports, instances, paths and redirects as the control protocol has them, and drain packets
//! handed straight to the instances.

use super::instance::Input;
use slim_core::protocol::control::{
    ControlError, ErrorCode, Event, InstancePaths, LineBuffer, LinkSettings, PathDrain, PathStatus, PortKind,
    PortStatus, RedirectState, Reply, Request, SwitchEvent, SwitchReply, SwitchRequest, SwitchStatus, decode_request,
    encode,
};
use slim_core::protocol::inband::Drain;
use slim_core::protocol::{MigrationId, Name, Nonce, PathIndex, PathSet};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};

/// What the switch knows.
#[derive(Default)]
pub struct State {
    pub ports: BTreeMap<Name, PortKind>,
    pub management: Vec<Name>,
    pub instances: BTreeMap<Name, Plugged>,
    pub redirects: Vec<RedirectState>,
    clients: Vec<UnixStream>,
    /// Each instance's lcore, for drain packets.
    pub lcores: BTreeMap<Name, Sender<Input>>,
}

/// An instance as the switch knows it.
#[derive(Clone)]
pub struct Plugged {
    pub ports: Vec<Name>,
    pub management: Option<Name>,
    pub link: LinkSettings,
    pub externals: Vec<Name>,
}

/// A running switch.
pub struct TestSwitch {
    pub state: Arc<Mutex<State>>,
}

impl TestSwitch {
    /// Starts a switch whose control socket is `socket`. Instances say on `handed_back` that they have handed back all.
    pub fn start(socket: &Path, handed_back: Receiver<MigrationId>) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let of_clients = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, state) = (stream.unwrap(), Arc::clone(&of_clients));
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        let of_hand_back = Arc::clone(&state);
        std::thread::spawn(move || {
            for migration in handed_back {
                of_hand_back.lock().unwrap().finish_rollback(migration);
            }
        });
        Self { state }
    }

    /// Forgets everything and breaks every connection, as a restart does.
    pub fn restart(&self) {
        let mut state = self.state.lock().unwrap();
        for client in state.clients.drain(..) {
            client.shutdown(std::net::Shutdown::Both).unwrap();
        }
        let lcores = std::mem::take(&mut state.lcores);
        *state = State { lcores, ..State::default() };
    }

    /// Leads all traffic to an instance, or nowhere, without being asked.
    pub fn lead_to(&self, wanted: Option<&str>) {
        let mut state = self.state.lock().unwrap();
        let all: Vec<Name> = state.instances.values_mut().flat_map(|plugged| plugged.externals.drain(..)).collect();
        if let Some(wanted) = wanted {
            let plugged = state.instances.get_mut(&Name::try_from(wanted).unwrap()).expect("an instance");
            plugged.externals = all;
        }
    }

    /// The instance that traffic leads to.
    pub fn leads_to(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let bound = state.instances.iter().filter(|(_, plugged)| !plugged.externals.is_empty());
        bound.map(|(name, _)| name.to_string()).collect()
    }
}

fn serve(mut stream: UnixStream, state: &Mutex<State>) {
    state.lock().unwrap().clients.push(stream.try_clone().unwrap());
    let mut lines = LineBuffer::new();
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        lines.extend(&bytes[..count]);
        while let Some(line) = lines.next_line().unwrap() {
            let Request { id, request, .. } = decode_request::<SwitchRequest>(line).unwrap();
            let result = state.lock().unwrap().handle(request);
            let line = encode(&Reply::new(id, result)).unwrap();
            if stream.write_all(line.as_bytes()).is_err() {
                return;
            }
        }
    }
}

impl State {
    fn handle(&mut self, request: SwitchRequest) -> Result<SwitchReply, ControlError> {
        let not_found = |what: &Name| ControlError::new(ErrorCode::NotFound, format!("no {what}"));
        match request {
            SwitchRequest::PortAdd { name, kind } => match self.ports.insert(name, kind.clone()) {
                Some(before) if before != kind => Err(ControlError::new(ErrorCode::AlreadyExists, "another port")),
                _ => Ok(SwitchReply::Done {}),
            },
            SwitchRequest::PortRemove { name } => {
                if self.instances.values().any(|plugged| plugged.ports.contains(&name)) {
                    return Err(ControlError::new(ErrorCode::Busy, "in use"));
                }
                self.ports.remove(&name).map(|_| SwitchReply::Done {}).ok_or_else(|| not_found(&name))
            }
            SwitchRequest::PortList {} => Ok(SwitchReply::Ports { ports: self.port_list() }),
            SwitchRequest::ManagementSet { ports } => {
                self.management = ports;
                Ok(SwitchReply::Done {})
            }
            SwitchRequest::InstanceAdd { name, ports, mgmt, link } => {
                if let Some(missing) = ports.iter().chain(&mgmt).find(|port| !self.ports.contains_key(*port)) {
                    return Err(not_found(missing));
                }
                let new = Plugged { ports, management: mgmt, link, externals: Vec::new() };
                self.instances.entry(name).or_insert(new);
                Ok(SwitchReply::Done {})
            }
            SwitchRequest::InstanceRemove { name } => match self.instances.get(&name) {
                None => Err(not_found(&name)),
                Some(plugged) if !plugged.externals.is_empty() => Err(ControlError::new(ErrorCode::Busy, "has paths")),
                Some(_) => {
                    self.instances.remove(&name);
                    Ok(SwitchReply::Done {})
                }
            },
            SwitchRequest::PathsSet { instance, externals } => {
                let plugged = self.instances.get_mut(&instance).ok_or_else(|| not_found(&instance))?;
                plugged.externals = externals;
                Ok(SwitchReply::Done {})
            }
            SwitchRequest::PathList {} => Ok(SwitchReply::Paths { instances: self.path_list() }),
            SwitchRequest::Redirect { migration, from, to, nonce, rollback, .. } => {
                self.redirect(migration, &from, &to, nonce, rollback);
                Ok(SwitchReply::Done {})
            }
            SwitchRequest::RedirectStatus { migration } => {
                let state = self.redirects.iter().rfind(|redirect| redirect.migration == migration).cloned();
                Ok(SwitchReply::Redirect { state })
            }
            SwitchRequest::Status {} => {
                let status = SwitchStatus {
                    software: "test".into(),
                    uptime_ms: 1,
                    counters: BTreeMap::from([("drop.meter_packets".to_owned(), 3)]),
                    instances: BTreeMap::new(),
                    ports: self.port_list(),
                    redirects: self.redirects.clone(),
                };
                Ok(SwitchReply::Status { status: Box::new(status) })
            }
            SwitchRequest::HostPortSet { .. } | SwitchRequest::LinkSet { .. } | SwitchRequest::Shutdown {} => {
                Err(ControlError::new(ErrorCode::Unsupported, "not here"))
            }
        }
    }

    fn port_list(&self) -> Vec<PortStatus> {
        let port = |(name, kind): (&Name, &PortKind)| PortStatus {
            name: name.clone(),
            kind: kind.clone(),
            up: true,
            instance: None,
            counters: BTreeMap::new(),
        };
        self.ports.iter().map(port).collect()
    }

    fn path_list(&self) -> Vec<InstancePaths> {
        let of_instance = |(name, plugged): (&Name, &Plugged)| {
            let pairs = plugged.externals.iter().zip(&plugged.ports).enumerate();
            let counters = BTreeMap::from([("packets".to_owned(), 1_000_000)]);
            let paths = pairs.flat_map(|(index, (external, port))| {
                let index = PathIndex::new(index as u8);
                let towards =
                    PathStatus { from: external.clone(), to: port.clone(), index, counters: counters.clone() };
                let back =
                    PathStatus { from: port.clone(), to: external.clone(), index: None, counters: counters.clone() };
                [towards, back]
            });
            InstancePaths {
                instance: name.clone(),
                ports: plugged.ports.clone(),
                mgmt: plugged.management.clone(),
                link: plugged.link,
                paths: paths.collect(),
            }
        };
        self.instances.iter().map(of_instance).collect()
    }

    fn redirect(&mut self, migration: MigrationId, from: &Name, to: &Name, nonce: Nonce, rollback: bool) {
        if self.redirects.iter().any(|redirect| redirect.migration == migration && redirect.nonce == nonce) {
            return;
        }
        let externals = std::mem::take(&mut self.instances.get_mut(from).unwrap().externals);
        let count = externals.len() as u8;
        let paths = PathSet::first(count);
        let drained = externals.iter().zip(paths.iter()).map(|(external, path)| PathDrain {
            path,
            external: external.clone(),
            sent: 1,
            acked: true,
        });
        self.redirects.push(RedirectState {
            migration,
            from: from.clone(),
            to: to.clone(),
            nonce,
            rollback,
            paths: drained.collect(),
            drained: true,
            finished: false,
            handed_back_packets: 0,
            held_packets: 0,
        });
        self.instances.get_mut(to).unwrap().externals = externals;
        if let Some(lcore) = self.lcores.get(from) {
            for path in paths.iter() {
                // An instance that is gone sees no drain packet.
                let _ = lcore.send(Input::Drain(Drain { migration, nonce, path, paths }));
            }
        }
        self.tell(SwitchEvent::Drained { migration, nonce });
    }

    fn finish_rollback(&mut self, migration: MigrationId) {
        for redirect in
            self.redirects.iter_mut().filter(|redirect| redirect.migration == migration && redirect.rollback)
        {
            redirect.finished = true;
            let event = SwitchEvent::RollbackFinished {
                migration,
                nonce: redirect.nonce,
                handed_back_packets: 0,
                held_packets: 0,
                dropped_packets: 0,
                timed_out: false,
            };
            let line = encode(&Event::new(event)).unwrap();
            self.clients.retain_mut(|client| client.write_all(line.as_bytes()).is_ok());
        }
    }

    fn tell(&mut self, event: SwitchEvent) {
        let line = encode(&Event::new(event)).unwrap();
        self.clients.retain_mut(|client| client.write_all(line.as_bytes()).is_ok());
    }
}

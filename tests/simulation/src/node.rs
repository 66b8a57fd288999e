//! An instance: its VEI, its lcores, and the threads behind its streams.

use super::Workload;
use super::lcore::{Frozen, Lcore};
use slim_core::nf::{NetworkFunction, Shard, ShardId};
use slim_core::protocol::control::{Counters, Description, InstanceStatus, SnapshotTotals, StateletTotals};
use slim_core::protocol::{FailureCode, Name, Schema, Text};
use slim_core::snapshot::{SnapshotReader, SnapshotWriter};
use slim_core::statelet::{Decoder, Record, Tally};
use slim_core::time::Instant;
use slim_core::vei::{Identity, Instance, StreamEvent};
use std::collections::{BTreeMap, VecDeque};

pub(super) struct Node<N: NetworkFunction> {
    pub(super) name: Name,
    pub(super) vei: Instance,
    pub(super) lcores: Vec<Lcore<N>>,
    pub(super) outgoing: Vec<Outgoing>,
    pub(super) incoming: Vec<Incoming<N>>,
    config: N::Config,
    seed: u64,
}

/// What a source's stream threads hold for one shard. Connections are numbers in the world's list.
#[derive(Default)]
pub(super) struct Outgoing {
    pub(super) statelets: Option<usize>,
    pub(super) snapshot: Option<usize>,
    pub(super) frozen: Option<Frozen>,
    pub(super) writer: Option<SnapshotWriter>,
    pub(super) sending: bool,
    pub(super) flushing: bool,
    pub(super) tally: Tally,
    pub(super) segments: u64,
}

/// What a destination's stream threads hold for one shard.
pub(super) struct Incoming<N> {
    pub(super) statelets: Option<usize>,
    pub(super) snapshot: Option<usize>,
    pub(super) network_function: Option<N>,
    reader: SnapshotReader,
    installed: bool,
    decoder: Decoder,
    received: Tally,
    st_q_in: VecDeque<(u16, Vec<u8>)>,
    pub(super) applying: bool,
    applied_records: u64,
}

impl<N> Default for Incoming<N> {
    fn default() -> Self {
        Self {
            statelets: None,
            snapshot: None,
            network_function: None,
            reader: SnapshotReader::new(),
            installed: false,
            decoder: Decoder::new(),
            received: Tally::new(),
            st_q_in: VecDeque::new(),
            applying: false,
            applied_records: 0,
        }
    }
}

impl<N: NetworkFunction> Incoming<N> {
    /// The snapshot thread: takes bytes as they arrive.
    pub(super) fn receive_snapshot(&mut self, bytes: &[u8]) -> Option<StreamEvent> {
        let network_function = self.network_function.as_mut()?;
        if let Err(error) = self.reader.receive(bytes, network_function) {
            return Some(StreamEvent::Rejected(FailureCode::SnapshotRejected, Text::from(error.to_string())));
        }
        if self.reader.is_complete() && !core::mem::replace(&mut self.installed, true) {
            let totals = self.reader.totals();
            return Some(StreamEvent::SnapshotInstalled(SnapshotTotals {
                bytes: totals.archive_bytes + totals.filler_bytes,
                chunks: totals.chunks,
                entries: totals.entries,
                filler_bytes: totals.filler_bytes,
            }));
        }
        None
    }

    /// The statelet thread: puts records into `st_q_in`.
    pub(super) fn receive_statelets(&mut self, mut bytes: &[u8]) -> Option<StreamEvent> {
        loop {
            match self.decoder.decode(&mut bytes) {
                Ok(Some(Record::Statelet { statelet_type, value })) => {
                    let mut record = Vec::new();
                    if slim_core::statelet::encode(statelet_type, value, &mut record).is_ok() {
                        self.received.add_record(&record);
                    }
                    self.st_q_in.push_back((statelet_type, value.to_vec()));
                }
                Ok(Some(Record::End(end))) => {
                    let totals = StateletTotals {
                        records: self.received.records(),
                        value_bytes: self.received.value_bytes(),
                        bytes: self.received.bytes(),
                        segments: 0,
                    };
                    return Some(StreamEvent::EndReceived { end, received: self.received.end(), totals });
                }
                Ok(None) => return None,
                Err(error) => {
                    return Some(StreamEvent::Rejected(FailureCode::StreamCorrupt, Text::from(error.to_string())));
                }
            }
        }
    }

    /// The synchronisation thread: applies up to `count` statelets and says how many are left.
    pub(super) fn apply(&mut self, count: usize) -> Option<StreamEvent> {
        if !self.applying {
            return None;
        }
        let network_function = self.network_function.as_mut()?;
        for _ in 0..count {
            let Some((statelet_type, value)) = self.st_q_in.pop_front() else { break };
            if let Err(error) = network_function.install(statelet_type, &value) {
                return Some(StreamEvent::Rejected(FailureCode::StateletRejected, Text::from(error.to_string())));
            }
            self.applied_records += 1;
        }
        Some(StreamEvent::Applied { records: self.applied_records, left: self.st_q_in.len() as u64 })
    }
}

impl<N: NetworkFunction> Node<N> {
    pub(super) fn new<W: Workload<N>>(
        name: Name,
        workload: &W,
        shards: u16,
        pkt_q_bytes: usize,
        st_q_out_bytes: usize,
        seed: u64,
    ) -> Self {
        let kind = Name::try_from(N::KIND).unwrap_or_else(|error| panic!("{}: {error}", N::KIND));
        let identity = Identity { kind, schema: Schema(N::SCHEMA), shards };
        let ids = (0..shards).map(ShardId);
        Self {
            name,
            vei: Instance::new(identity),
            lcores: ids.clone().map(|id| Lcore::new(id, shards, pkt_q_bytes, st_q_out_bytes)).collect(),
            outgoing: ids.clone().map(|_| Outgoing::default()).collect(),
            incoming: ids.map(|_| Incoming::default()).collect(),
            config: workload.config(),
            seed,
        }
    }

    /// A network function with empty state, as the management side makes one.
    pub(super) fn fresh(&self, shard: ShardId, seed: u64) -> N {
        let shard = Shard { id: shard, count: self.lcores.len() as u16 };
        N::new(&self.config, shard, self.seed ^ seed).unwrap_or_else(|error| panic!("no network function: {error}"))
    }

    /// Whether no queue and no thread holds anything of a migration.
    pub(super) fn is_clean(&self) -> bool {
        self.lcores.iter().all(Lcore::is_clean)
            && self
                .outgoing
                .iter()
                .all(|outgoing| outgoing.statelets.is_none() && outgoing.frozen.is_none() && outgoing.writer.is_none())
            && self.incoming.iter().all(|incoming| incoming.network_function.is_none())
    }

    pub(super) fn description(&self) -> Description {
        let text = |text: &str| Name::try_from(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        Description {
            name: self.name.clone(),
            kind: text(N::KIND),
            schema: Schema(N::SCHEMA),
            software: Text::from("simulated"),
            shards: self.lcores.len() as u16,
            ports: N::PORTS.iter().map(|port| text(port)).collect(),
            role: self.vei.role(),
            state_address: ([127, 0, 0, 1], 7002).into(),
            capacity: Counters::new(),
            boot_ms: 0,
        }
    }

    pub(super) fn status(&self, now: Instant) -> InstanceStatus {
        InstanceStatus {
            name: self.name.clone(),
            role: self.vei.role(),
            uptime_ms: now.as_millis(),
            migration: self.vei.migration_status(now),
            counters: Counters::new(),
            gauges: Counters::new(),
            queues: BTreeMap::new(),
        }
    }
}

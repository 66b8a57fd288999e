//! One shard, seen from the management thread: its streams while a migration lasts.

use super::streams_in::Incoming;
use super::streams_out::Outgoing;
use super::{News, Turn};
use crate::net::{Conn, Host};
use crate::watch::Watched;
use slim_core::nf::{NetworkFunction, Shard};
use slim_core::time::Instant;
use slim_core::vei::lcore::{Frozen, Synchronised};

pub(super) struct ManagedShard<N> {
    pub(super) shard: Shard,
    pub(super) streams: Streams<N>,
    session: u64,
    /// Where the lcore's statelets come out, between the freeze and the first task of the statelet thread.
    pub(super) st_q_out: Option<rtrb::Consumer<u8>>,
    /// The frozen state, between the freeze and the snapshot thread.
    pub(super) frozen: Option<Frozen>,
    /// The network function, between its synchronisation and the lcore, and the seed it was made with.
    synchronised: Option<Synchronised<Watched<N>>>,
    pub(super) arriving_seed: u64,
}

pub(super) enum Streams<N> {
    None,
    Outgoing(Outgoing),
    Incoming(Incoming<N>),
}

impl<N: NetworkFunction> ManagedShard<N> {
    pub(super) fn new(shard: Shard) -> Self {
        Self {
            shard,
            streams: Streams::None,
            session: 0,
            st_q_out: None,
            frozen: None,
            synchronised: None,
            arriving_seed: 0,
        }
    }

    /// The last session begun: news of an earlier one is no longer of interest.
    pub(super) fn session(&self) -> u64 {
        self.session
    }

    pub(super) fn next_session(&mut self) -> u64 {
        self.session += 1;
        self.session
    }

    pub(super) fn connections(&self) -> Vec<Conn> {
        match &self.streams {
            Streams::None => Vec::new(),
            Streams::Outgoing(streams) => streams.connections().collect(),
            Streams::Incoming(streams) => streams.connections().collect(),
        }
    }

    pub(super) fn take_synchronised(&mut self) -> Option<Synchronised<Watched<N>>> {
        self.synchronised.take()
    }

    pub(super) fn run(&mut self, turn: &mut Turn<'_, N>) -> Option<Instant> {
        match &mut self.streams {
            Streams::None => None,
            Streams::Outgoing(streams) => streams.run(turn),
            Streams::Incoming(streams) => streams.run(turn),
        }
    }

    /// Keeps the network function until it is to be given to the lcore, unless the streams have been closed meanwhile.
    pub(super) fn synchronised(&mut self, synchronised: Synchronised<Watched<N>>) {
        if let Streams::Incoming(_) = self.streams {
            self.synchronised = Some(synchronised);
        }
    }

    /// Closes the streams and lets go of everything held for them. Returns whether there were any.
    pub(super) fn close(&mut self, host: &mut Host) -> bool {
        self.st_q_out = None;
        self.frozen = None;
        self.synchronised = None;
        for conn in self.connections() {
            host.close(conn);
        }
        !matches!(std::mem::replace(&mut self.streams, Streams::None), Streams::None)
    }

    pub(super) fn holds_something(&self) -> bool {
        let sends = matches!(&self.streams, Streams::Outgoing(streams)
            if streams.snapshot.as_ref().is_some_and(super::streams_out::SnapshotOut::holds_state));
        sends
            || self.st_q_out.is_some()
            || self.frozen.is_some()
            || self.synchronised.is_some()
            || !matches!(self.streams, Streams::None)
    }
}

impl<N> News<N> {
    /// In words, for the trace.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Event(event) => format!("{event:?}"),
            Self::Synchronised(_) => "network function synchronised".into(),
        }
    }
}

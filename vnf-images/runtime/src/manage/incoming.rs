//! The destination's streams: a thread that enqueues statelets (T2, §IV-B step 2.3) and the synchronisation thread
//! (step 2.4), which owns the network function until it is given to an lcore.

use super::inbox::{Sender, SessionId};
use super::session::Session;
use super::st_q_in::StQIn;
use super::{statelets_in, synchronise};
use slim_core::nf::{NetworkFunction, ShardId};
use slim_core::protocol::MigrationId;
use slim_core::protocol::control::QueueStatus;
use slim_core::protocol::stream::StreamRole;
use slim_core::statelet::Intake;
use slim_core::vei::Installer;
use slim_trust::Channel;
use std::sync::Arc;
use std::sync::mpsc;

/// The statelet thread is told to acknowledge: the instance has taken over.
pub struct TakenOver;

/// The synchronisation thread is told to apply `st_q_in`.
pub struct Apply;

/// The destination's streams of one shard.
pub struct Incoming<F: Send + 'static> {
    session: Arc<Session<F>>,
    st_q_in: Arc<StQIn>,
    acknowledge: Option<mpsc::Sender<TakenOver>>,
    apply: Option<mpsc::Sender<Apply>>,
}

impl<F: NetworkFunction> Incoming<F> {
    /// No stream has been accepted yet.
    pub fn new(shard: ShardId, id: SessionId, migration: MigrationId, inbox: Sender<F>, st_q_in_bytes: usize) -> Self {
        Self {
            session: Session::new(shard, id, migration, inbox),
            st_q_in: Arc::new(StQIn::new(st_q_in_bytes)),
            acknowledge: None,
            apply: None,
        }
    }

    /// Reads statelets from `stream`, which is compressed or not, into `st_q_in`.
    pub fn accept_statelets(&mut self, stream: Channel, compressed: bool) {
        let (sender, acknowledge) = mpsc::channel();
        self.acknowledge = Some(sender);
        let st_q_in = Arc::clone(&self.st_q_in);
        let started = self.session.register(stream.tcp()).and_then(|()| {
            self.session.spawn("statelets-in", 0, move |session| {
                statelets_in::run(session, stream, Intake::new(compressed), &st_q_in, &acknowledge);
            })
        });
        if let Err(error) = started {
            self.session.lost(StreamRole::Statelets, error);
        }
    }

    /// Reads the snapshot from `stream` into `nf`, which is empty, and has `installer` install what follows.
    pub fn accept_snapshot(&mut self, stream: Channel, nf: Box<F>, installer: Installer) {
        let (sender, apply) = mpsc::channel();
        self.apply = Some(sender);
        let st_q_in = Arc::clone(&self.st_q_in);
        let started = self.session.register(stream.tcp()).and_then(|()| {
            self.session.spawn("synchronise", 0, move |session| {
                synchronise::run(session, stream, &st_q_in, nf, installer, &apply);
            })
        });
        if let Err(error) = started {
            self.session.lost(StreamRole::Snapshot, error);
        }
    }

    /// Has `st_q_in` applied. If the thread has ended, it has reported why.
    pub fn apply(&self) {
        self.st_q_in.start_applying();
        if let Some(apply) = &self.apply {
            let _ = apply.send(Apply);
        }
    }

    /// Acknowledges to the source. The streams close by themselves then.
    pub fn acknowledge(self) {
        if let Some(acknowledge) = &self.acknowledge {
            let _ = acknowledge.send(TakenOver);
        }
    }

    /// Closes the streams. `Closed` is reported when the threads have ended.
    pub fn close(self) {
        self.st_q_in.close();
        self.session.cancel();
    }

    /// How full `st_q_in` is and has been.
    pub fn st_q_in_status(&self) -> QueueStatus {
        self.st_q_in.status()
    }
}

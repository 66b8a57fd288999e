//! An environment that records what a network function does, for tests.

use super::{Environment, PortId, STATELET_TYPE_RESERVED};
use crate::statelet::VALUE_LEN_MAX;
use crate::time::{Duration, Instant};

/// A statelet that was announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statelet {
    /// Its type.
    pub statelet_type: u16,
    /// Its value.
    pub value: Vec<u8>,
}

/// An [`Environment`] whose time is set by hand and that keeps what is announced and emitted.
#[derive(Debug, Clone)]
pub struct TestEnvironment {
    now: Instant,
    upd_enable: bool,
    statelets: Vec<Statelet>,
    emitted: Vec<(PortId, Vec<u8>)>,
}

impl TestEnvironment {
    /// An environment at this time, with `upd_enable` set.
    pub fn new(now: Instant) -> Self {
        Self { now, upd_enable: true, statelets: Vec::new(), emitted: Vec::new() }
    }

    /// An environment at this time in which no statelets are wanted.
    pub fn without_updates(now: Instant) -> Self {
        Self { upd_enable: false, ..Self::new(now) }
    }

    /// Sets the time.
    pub fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// Lets time pass.
    pub fn advance(&mut self, duration: Duration) {
        self.now += duration;
    }

    /// Sets whether statelets are wanted.
    pub fn set_upd_enable(&mut self, upd_enable: bool) {
        self.upd_enable = upd_enable;
    }

    /// The statelets announced since the last call, oldest first.
    pub fn take_statelets(&mut self) -> Vec<Statelet> {
        core::mem::take(&mut self.statelets)
    }

    /// The frames emitted since the last call, oldest first.
    pub fn take_emitted(&mut self) -> Vec<(PortId, Vec<u8>)> {
        core::mem::take(&mut self.emitted)
    }
}

impl Environment for TestEnvironment {
    fn now(&self) -> Instant {
        self.now
    }

    fn upd_enable(&self) -> bool {
        self.upd_enable
    }

    /// # Panics
    /// If the statelet's type is reserved or its value too long: the network function is wrong.
    fn announce(&mut self, statelet_type: u16, value: &[u8]) {
        assert!(statelet_type < STATELET_TYPE_RESERVED, "statelet type {statelet_type:#06x} is reserved");
        assert!(value.len() <= VALUE_LEN_MAX, "value of {} bytes", value.len());
        if self.upd_enable {
            self.statelets.push(Statelet { statelet_type, value: value.to_vec() });
        }
    }

    fn emit(&mut self, port: PortId, frame: &[u8]) {
        self.emitted.push((port, frame.to_vec()));
    }
}

//! The state: who is in which cell, and the clock. Every change of it, shared by processing (f) and installing (h).

use crate::config::Config;
use crate::statelet::{Statelet, Subscriber};
use core::net::Ipv4Addr;
use slim_core::nf::InstallError;
use slim_core::table::{Full, Register, ScanCursor, SegmentedTable, StateItem};

slim_core::pod! {
    /// A [`Subscriber`] as the table's key.
    pub struct SubscriberKey {
        /// The address, in host order.
        pub address: u32,
        /// The port.
        pub port: u16,
    }
}

slim_core::pod! {
    /// Where a subscriber is.
    pub struct Association {
        /// The cell that packets for it go to. Never 0.
        pub cell: u16,
        /// How often it has been handed over since it attached.
        pub hand_overs: u32,
        /// The tick at which that was last announced.
        pub last_seen: u32,
    }
}

/// The subscribers and the clock.
///
/// The clock shows when the state last changed: the time since then is known to the holder alone and lost in a
/// migration, so that a subscriber may stay attached that much longer.
pub(crate) struct State {
    clock: Register<u32>,
    subscribers: SegmentedTable<SubscriberKey, Association>,
}

impl From<Subscriber> for SubscriberKey {
    fn from(subscriber: Subscriber) -> Self {
        Self { address: subscriber.address.to_bits(), port: subscriber.port }
    }
}

impl From<SubscriberKey> for Subscriber {
    fn from(key: SubscriberKey) -> Self {
        Self { address: Ipv4Addr::from_bits(key.address), port: key.port }
    }
}

impl State {
    pub(crate) fn new(config: &Config, seed: u64) -> Self {
        Self {
            clock: Register::new("clock", 0),
            subscribers: SegmentedTable::with_capacity("subscribers", config.subscribers_max as usize, seed),
        }
    }

    pub(crate) fn clock(&self) -> u32 {
        self.clock.get()
    }

    pub(crate) fn subscribers(&self) -> &SegmentedTable<SubscriberKey, Association> {
        &self.subscribers
    }

    #[inline]
    pub(crate) fn association(&self, subscriber: Subscriber) -> Option<&Association> {
        self.subscribers.get(&subscriber.into())
    }

    /// Attaches a subscriber or changes its association.
    pub(crate) fn associate(&mut self, subscriber: Subscriber, association: Association) -> Result<(), Full> {
        self.subscribers.insert(subscriber.into(), association)?;
        self.clock.set(self.clock.get().max(association.last_seen));
        Ok(())
    }

    /// Detaches a subscriber. Returns whether it was attached.
    pub(crate) fn detach(&mut self, subscriber: Subscriber, ticks: u32) -> bool {
        let attached = self.subscribers.remove(&subscriber.into()).is_some();
        if attached {
            self.clock.set(self.clock.get().max(ticks));
        }
        attached
    }

    /// The next subscriber that has not been heard of for longer than `timeout`, among up to `slots` places.
    pub(crate) fn find_silent(
        &self,
        cursor: &mut ScanCursor,
        slots: &mut usize,
        now: u32,
        timeout: u32,
    ) -> Option<Subscriber> {
        let silent = |_: &SubscriberKey, known: &Association| now.saturating_sub(known.last_seen) > timeout;
        self.subscribers.scan(cursor, slots, silent).map(|(key, _)| key.into())
    }

    /// Applies a statelet.
    pub(crate) fn install(&mut self, statelet_type: u16, statelet: &Statelet) -> Result<(), InstallError> {
        match *statelet {
            Statelet::Association(subscriber, association) => self
                .associate(subscriber, association)
                .map_err(|_| InstallError::TableFull { table: self.subscribers.name() }),
            Statelet::Detach { subscriber, ticks } if self.detach(subscriber, ticks) => Ok(()),
            Statelet::Detach { .. } => Err(InstallError::Inconsistent(statelet_type)),
        }
    }

    pub(crate) fn for_each(&mut self, f: &mut dyn FnMut(&mut dyn StateItem)) {
        f(&mut self.clock);
        f(&mut self.subscribers);
    }
}

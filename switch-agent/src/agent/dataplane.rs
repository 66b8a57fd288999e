//! The thread that moves packets, and the way for others to reach it.

use crate::device::{Burst, Device};
use dpdk::{Clock, Mbuf, Mempool};
use slim_core::protocol::Name;
use slim_core::protocol::control::{Counters, RedirectState, SwitchEvent};
use slim_core::time::{Duration, Instant};
use slim_switch::{Buffers, Limits, PortIndex, Switch, TopologyError};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, sync_channel};

/// The shortest sleep after a round without packets. A packet leaves its delay line at most about this much late.
const SLEEP_MIN: Duration = Duration::from_micros(50);
/// The longest sleep, if nothing is due before.
const SLEEP_MAX: Duration = Duration::from_micros(100);
/// How often it looks at link states and at what is left of the mempool.
const HOUSEKEEPING: Duration = Duration::from_millis(10);

/// The switch's buffers: mbufs of one pool.
#[derive(Debug, Clone, Copy)]
pub struct Pool(pub Mempool);

impl Buffers for Pool {
    type Packet = Mbuf;

    #[inline]
    fn copy_of(&mut self, frame: &[u8]) -> Option<Mbuf> {
        self.0.alloc_copy(frame)
    }
}

/// Something for the dataplane's thread to do between two bursts. It must not block.
pub type Command = Box<dyn FnOnce(&mut Dataplane) + Send>;

/// The switch with its devices, owned by the thread that runs it.
pub struct Dataplane {
    /// What decides.
    pub switch: Switch<Pool>,
    devices: Vec<Attached>,
    pool: Mempool,
    clock: Clock,
    events: Sender<SwitchEvent>,
    counts: Counts,
}

struct Attached {
    index: PortIndex,
    device: Device,
}

#[derive(Debug, Default)]
struct Counts {
    rounds: u64,
    rounds_empty: u64,
    /// Looks at the pool that found nothing in it.
    pool_found_empty: u64,
    pool_in_use_max: u32,
}

/// Everything `status` tells that only the dataplane's thread knows.
pub struct Snapshot {
    pub uptime_ms: u64,
    pub counters: Counters,
    pub instances: BTreeMap<Name, Counters>,
    pub redirects: Vec<RedirectState>,
}

/// What `port_list` tells of a port that only the dataplane's thread knows.
pub struct PortSnapshot {
    pub up: bool,
    pub instance: Option<Name>,
    pub counters: Counters,
}

impl Dataplane {
    /// A switch without ports. Its time begins now.
    pub fn new(pool: Mempool, clock: Clock, limits: Limits, events: Sender<SwitchEvent>) -> Self {
        let switch = Switch::new(Pool(pool), limits);
        Self { switch, devices: Vec::new(), pool, clock, events, counts: Counts::default() }
    }

    /// Moves packets and runs commands until `stop` is set. The calling thread should do nothing else.
    pub fn run(&mut self, commands: &Receiver<Command>, stop: &AtomicBool) {
        let mut burst = Burst::new();
        let mut housekept = Instant::ZERO;
        while !stop.load(Ordering::Relaxed) {
            while let Ok(command) = commands.try_recv() {
                command(self);
            }
            let mut now = self.clock.now();
            let mut moved = 0;
            let mut backlog = false;
            for attached in &mut self.devices {
                attached.device.receive(&self.pool, &mut burst);
                if burst.is_empty() {
                    continue;
                }
                moved += burst.len() as u64;
                backlog |= burst.is_full();
                // After the packets' arrival, so that no packet spends less than the delay on its line.
                now = self.clock.now();
                for packet in burst.drain(..) {
                    self.switch.receive(now, attached.index, packet);
                }
            }
            self.switch.set_backlog(backlog);
            self.switch.advance(now);
            for Attached { index, device } in &mut self.devices {
                moved += self.switch.send(*index, |queue| device.send(queue));
            }
            if now.saturating_since(housekept) >= HOUSEKEEPING {
                housekept = now;
                self.keep_house();
            }
            while let Some(event) = self.switch.poll_event() {
                // Without a listener there is nobody to tell.
                let _ = self.events.send(event);
            }
            self.counts.rounds += 1;
            if moved == 0 {
                self.counts.rounds_empty += 1;
                let due = self.switch.next_deadline().map_or(SLEEP_MAX, |next| next.saturating_since(now));
                std::thread::sleep(due.clamp(SLEEP_MIN, SLEEP_MAX));
            }
        }
    }

    /// The present time.
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Attaches an open device. Gives it back if there is a port of this name.
    pub fn add_port(&mut self, name: Name, device: Device) -> Result<(), (TopologyError, Device)> {
        match self.switch.add_port(name) {
            Ok(index) => {
                self.switch.set_link(index, device.link_up());
                self.devices.push(Attached { index, device });
                Ok(())
            }
            Err(error) => Err((error, device)),
        }
    }

    /// Removes a port and gives its device, for another thread to close.
    pub fn remove_port(&mut self, name: &Name) -> Result<Option<Device>, TopologyError> {
        let index = self.switch.remove_port(name)?;
        let at = self.devices.iter().position(|attached| attached.index == index);
        Ok(at.map(|at| self.devices.remove(at).device))
    }

    /// What there is to tell of a port.
    pub fn port(&self, name: &Name) -> Option<PortSnapshot> {
        let index = self.switch.port_named(name).ok()?;
        let mut counters = self.switch.port_counters(index);
        if let Some(attached) = self.devices.iter().find(|attached| attached.index == index) {
            attached.device.add_counters(&mut counters);
        }
        Some(PortSnapshot { up: self.switch.is_up(index), instance: self.switch.instance_of(index), counters })
    }

    /// What there is to tell of the rest.
    pub fn snapshot(&self) -> Snapshot {
        let mut counters = self.switch.counters();
        let mut add = |name: &str, value: u64| counters.insert(name.into(), value);
        add("rounds", self.counts.rounds);
        add("rounds_empty", self.counts.rounds_empty);
        add("mbufs_available", self.pool.available().into());
        add("mbufs_in_use_max", self.counts.pool_in_use_max.into());
        add("mbufs_found_exhausted", self.counts.pool_found_empty);
        Snapshot {
            uptime_ms: self.clock.now().as_millis(),
            counters,
            instances: self.switch.instance_counters().collect(),
            redirects: self.switch.redirect_states(),
        }
    }

    fn keep_house(&mut self) {
        for Attached { index, device } in &self.devices {
            self.switch.set_link(*index, device.link_up());
        }
        self.counts.pool_in_use_max = self.counts.pool_in_use_max.max(self.pool.in_use());
        self.counts.pool_found_empty += u64::from(self.pool.available() == 0);
    }
}

/// The dataplane's thread has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the switch is stopping")]
pub struct Stopped;

/// The way to the dataplane's thread.
#[derive(Debug, Clone)]
pub struct Handle(pub Sender<Command>);

impl Handle {
    /// Has `work` done between two bursts, and waits for its result.
    pub fn call<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Dataplane) -> R + Send + 'static,
    ) -> Result<R, Stopped> {
        let (sender, receiver) = sync_channel(1);
        let command = move |dataplane: &mut Dataplane| {
            // Nobody waits any more only if the caller's thread has died.
            let _ = sender.send(work(dataplane));
        };
        self.0.send(Box::new(command)).map_err(|_| Stopped)?;
        receiver.recv().map_err(|_| Stopped)
    }
}

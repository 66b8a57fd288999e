//! Warm instances: booted, idle and connected before anybody asks for one.
//!
//! A pool holds as many of a network function as the deployment or the operator says. A thread tends it: it boots what is
//! missing one after the other, replaces what has ended, does not answer or is of an older image, and retires what is too much. An instance in
//! a pool is like any other, plugged into the switch and with an identity that is renewed. When it is [taken](Daemon::take)
//! it merely stops to be counted, and keeps its name.

use super::Daemon;
use super::blueprint::Origin;
use super::lifecycle::Order;
use super::registry::{Entry, Stage};
use crate::api::PoolInfo;
use slim_core::protocol::Name;
use slim_core::protocol::control::{ControlError, Description, ErrorCode, InstanceRole};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The most that a pool holds. Addresses end at 256 instances, and machines sooner.
pub const POOL_MAX: usize = 64;

/// How often is looked whether something is to be done.
const PULSE: Duration = Duration::from_millis(100);

/// How long an instance may not answer until it is replaced.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);

/// How long is waited after a failure; twice as long after each further one.
const FIRST_DELAY: Duration = Duration::from_secs(1);

/// The longest of these.
const LAST_DELAY: Duration = Duration::from_secs(60);

/// When a failure is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

/// The pools, by network function.
#[derive(Default)]
pub(super) struct Pools {
    stocks: Mutex<BTreeMap<Name, Stock>>,
}

/// What is known of a pool besides its instances.
#[derive(Debug, Clone, Default)]
struct Stock {
    size: usize,
    /// Whether the size is the operator's, and not the deployment's.
    ordered: bool,
    taken: u64,
    replaced: u64,
    failures: Failures,
    last_error: Option<String>,
}

/// Failures in a row, and when to try again.
#[derive(Debug, Clone, Copy, Default)]
struct Failures {
    count: u32,
    last: Option<Instant>,
}

impl Failures {
    fn add(&mut self, now: Instant) {
        let forgotten = self.last.is_none_or(|last| now.duration_since(last) > FORGOTTEN_AFTER);
        self.count = if forgotten { 1 } else { self.count.saturating_add(1) };
        self.last = Some(now);
    }

    fn delay(&self) -> Duration {
        match self.count {
            0 => Duration::ZERO,
            count => FIRST_DELAY.saturating_mul(1 << (count - 1).min(16)).min(LAST_DELAY),
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        self.last.is_none_or(|last| now.duration_since(last) >= self.delay())
    }
}

impl Pools {
    fn with<R>(&self, vnf: &Name, work: impl FnOnce(&mut Stock) -> R) -> R {
        work(self.stocks.lock().unwrap_or_else(PoisonError::into_inner).entry(vnf.clone()).or_default())
    }

    /// The sizes that the operator has set.
    pub(super) fn ordered(&self) -> BTreeMap<Name, usize> {
        let stocks = self.stocks.lock().unwrap_or_else(PoisonError::into_inner);
        stocks.iter().filter(|(_, stock)| stock.ordered).map(|(vnf, stock)| (vnf.clone(), stock.size)).collect()
    }
}

/// When instances in pools were first found not to answer.
type Silent = BTreeMap<Name, Instant>;

impl Daemon {
    /// Takes the sizes from the deployment, and from what the operator has said to an earlier daemon.
    pub(super) fn fill_pools(&self, ordered: &BTreeMap<Name, usize>) {
        for (name, vnf) in &self.deployment.vnfs {
            let order = ordered.get(name);
            self.pools.with(name, |stock| {
                stock.size = order.copied().unwrap_or(vnf.pool).min(POOL_MAX);
                stock.ordered = order.is_some();
            });
        }
    }

    /// Sets a pool's size, if one is given, and says how it is; of all network functions if none is named.
    pub(super) fn pool(&self, vnf: Option<&Name>, size: Option<usize>) -> Result<Vec<PoolInfo>, ControlError> {
        if let Some(size) = size {
            if size > POOL_MAX {
                let text = format!("a pool holds {POOL_MAX} instances at most, not {size}");
                return Err(ControlError::with(ErrorCode::Limit, text));
            }
            let (name, _) = self.vnf(vnf)?;
            self.pools.with(name, |stock| {
                stock.size = size;
                stock.ordered = true;
                // The operator may have mended what was wrong.
                stock.failures = Failures::default();
            });
            self.write_kept();
        }
        let names: Vec<&Name> = match vnf {
            Some(_) => vec![self.vnf(vnf)?.0],
            None => self.deployment.vnfs.keys().collect(),
        };
        Ok(names.into_iter().map(|name| self.pool_info(name)).collect())
    }

    fn pool_info(&self, vnf: &Name) -> PoolInfo {
        let stock = self.pools.with(vnf, |stock| stock.clone());
        let mut info = PoolInfo {
            vnf: vnf.clone(),
            size: stock.size,
            ready: Vec::new(),
            booting: Vec::new(),
            taken: stock.taken,
            replaced: stock.replaced,
            last_error: stock.last_error,
        };
        for entry in self.pooled(vnf) {
            match entry.state().stage {
                Stage::Running => info.ready.push(entry.name.clone()),
                Stage::Booting => info.booting.push(entry.name.clone()),
                Stage::Ended(_) | Stage::Retiring => {}
            }
        }
        info
    }

    fn pooled(&self, vnf: &Name) -> Vec<Arc<Entry>> {
        let mut entries = self.registry.all();
        entries.retain(|entry| entry.vnf.as_ref() == Some(vnf) && entry.state().pooled);
        entries
    }

    /// An idle instance of `vnf` out of its pool that `fits`, if there is one at hand.
    pub(super) fn take(&self, vnf: &Name, fits: impl Fn(&Description) -> bool) -> Option<Arc<Entry>> {
        for entry in self.pooled(vnf) {
            {
                let mut state = entry.state();
                let fits = state.description.as_ref().is_some_and(&fits);
                let connected = state.peer.as_ref().is_some_and(|peer| peer.is_up());
                // Nobody else can have it from here on.
                if !state.pooled || state.stage != Stage::Running || state.migration.is_some() || !fits || !connected {
                    continue;
                }
                state.pooled = false;
            }
            match entry.status().map(|status| status.role) {
                Some(InstanceRole::Idle) => {
                    self.pools.with(vnf, |stock| stock.taken += 1);
                    log::info!("{}: taken from the pool of {vnf}", entry.name);
                    return Some(entry);
                }
                Some(role) => log::warn!("{}: is {role} and no longer belongs to the pool of {vnf}", entry.name),
                // The pool's own thread finds out whether it ever answers again.
                None => entry.state().pooled = true,
            }
        }
        None
    }

    /// An idle instance of `vnf` that `fits`: out of its pool, else booted now. Says whether it was at hand.
    pub(super) fn take_or_boot(
        &self,
        vnf: &Name,
        fits: impl Fn(&Description) -> bool,
    ) -> Result<(Arc<Entry>, bool), ControlError> {
        if let Some(entry) = self.take(vnf, fits) {
            return Ok((entry, true));
        }
        log::info!("the pool of {vnf} has no instance at hand: one is booted");
        let name = self.free_name(vnf)?;
        self.boot(&name, Some(vnf), &Order::default())?;
        Ok((self.registry.get(&name)?, false))
    }

    /// Puts back what was taken in vain.
    pub(super) fn put_back(&self, entry: &Entry) {
        entry.state().pooled = true;
    }

    /// The first of `nat-p1`, `nat-p2` … that no instance has.
    fn free_name(&self, vnf: &Name) -> Result<Name, ControlError> {
        let names = (1_u32..).map(|number| Name::try_from(format!("{vnf}-p{number}")));
        for name in names {
            let name = name.map_err(|error| ControlError::with(ErrorCode::Limit, error.to_string()))?;
            if self.registry.get(&name).is_err() {
                return Ok(name);
            }
        }
        Err(ControlError::new(ErrorCode::Limit, "there is no name left"))
    }

    /// Starts to tend the pools, until the daemon is to end.
    pub(super) fn tend_pools(self: &Arc<Self>) -> std::io::Result<JoinHandle<()>> {
        let daemon = Arc::clone(self);
        let tend = move || {
            let mut silent = Silent::new();
            while !daemon.stop.is_set() {
                for vnf in daemon.deployment.vnfs.keys() {
                    daemon.tend(vnf, &mut silent);
                }
                std::thread::sleep(PULSE);
            }
        };
        std::thread::Builder::new().name("pools".into()).spawn(tend)
    }

    /// Waits until no instance is booted for a pool any more. The daemon is to end.
    pub(super) fn leave_pools(&self, tending: JoinHandle<()>) {
        while !tending.is_finished() {
            for entry in self.registry.all() {
                let mut state = entry.state();
                if state.pooled && state.stage == Stage::Booting {
                    state.stage = Stage::Retiring;
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        if tending.join().is_err() {
            log::error!("the thread that tends the pools has failed");
        }
    }

    /// Does at most one thing that takes long.
    fn tend(&self, vnf: &Name, silent: &mut Silent) {
        let now = Instant::now();
        for entry in self.pooled(vnf) {
            if let Some(reason) = unfit(&entry, silent, now) {
                log::warn!("{}: {reason}; it is replaced in the pool of {vnf}", entry.name);
                silent.remove(&entry.name);
                self.note_failure(vnf, format!("{}: {reason}", entry.name));
                self.pools.with(vnf, |stock| stock.replaced += 1);
                self.retire_pooled(&entry);
                return;
            }
            if is_outdated(&entry) {
                log::info!("{}: there is a newer image; it is replaced in the pool of {vnf}", entry.name);
                self.pools.with(vnf, |stock| stock.replaced += 1);
                self.retire_pooled(&entry);
                return;
            }
        }
        let (size, may_try) = self.pools.with(vnf, |stock| (stock.size, stock.failures.is_over(now)));
        let pooled = self.pooled(vnf);
        if let Some(entry) = pooled.get(size) {
            log::info!("{}: is more than the pool of {vnf} is to hold", entry.name);
            self.retire_pooled(entry);
        } else if pooled.len() < size && may_try && !self.stop.is_set() {
            let booted = self
                .free_name(vnf)
                .and_then(|name| self.boot(&name, Some(vnf), &Order { pooled: true, ..Order::default() }));
            match booted {
                Ok(instance) => {
                    log::info!("{}: waits in the pool of {vnf}", instance.name);
                    self.pools.with(vnf, |stock| stock.last_error = None);
                }
                // Retired while it booted, on somebody's word.
                Err(error) if error.code == ErrorCode::Busy => log::info!("pool of {vnf}: {error}"),
                Err(error) => {
                    log::warn!("the pool of {vnf} cannot be filled: {error}");
                    self.note_failure(vnf, error.to_string());
                }
            }
            self.write_kept();
        }
    }

    fn note_failure(&self, vnf: &Name, error: String) {
        self.pools.with(vnf, |stock| {
            stock.failures.add(Instant::now());
            stock.last_error = Some(error);
        });
    }

    /// Ends an instance, unless it has been taken in this moment.
    fn retire_pooled(&self, entry: &Arc<Entry>) {
        let peer = {
            let mut state = entry.state();
            if !state.pooled || state.stage == Stage::Booting || state.stage == Stage::Retiring {
                return;
            }
            state.stage = Stage::Retiring;
            state.peer.take()
        };
        self.take_down(entry, peer);
        self.write_kept();
    }
}

/// Why an instance is of no use in a pool any more.
fn unfit(entry: &Entry, silent: &mut Silent, now: Instant) -> Option<String> {
    let state = entry.state();
    match &state.stage {
        Stage::Ended(reason) => Some(reason.clone()),
        Stage::Running if state.peer.as_ref().is_none_or(|peer| !peer.is_up()) => {
            let since = *silent.entry(entry.name.clone()).or_insert(now);
            (now.duration_since(since) > SILENCE_LIMIT)
                .then(|| format!("does not answer for {} s", SILENCE_LIMIT.as_secs()))
        }
        _ => {
            silent.remove(&entry.name);
            None
        }
    }
}

/// Whether the files that it was booted from have been replaced since.
fn is_outdated(entry: &Entry) -> bool {
    let state = entry.state();
    let origin = state.origin.as_ref().filter(|_| state.stage == Stage::Running).zip(entry.blueprint.as_ref());
    origin.is_some_and(|(origin, blueprint)| *origin != Origin::of(&blueprint.vnf.source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_are_waited_for_ever_longer_and_forgotten_in_the_end() {
        let mut failures = Failures::default();
        let begin = Instant::now();
        assert!(failures.is_over(begin));
        let mut delays = Vec::new();
        for _ in 0..9 {
            failures.add(begin);
            delays.push(failures.delay().as_secs());
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert!(!failures.is_over(begin + Duration::from_secs(59)) && failures.is_over(begin + LAST_DELAY));
        failures.add(begin + FORGOTTEN_AFTER * 2);
        assert_eq!(failures.delay(), FIRST_DELAY);
    }
}

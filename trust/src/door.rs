//! A listener whose strangers can neither delay nor crowd out those who are expected.
//!
//! Accepting never waits for anybody: each handshake has a thread, a time, and a seat. Seats are few. Who finds none
//! free gets that of the oldest handshake of whichever address has the most, so that many strangers are in each other's
//! way and in nobody else's. An address that connects too often is turned away before anything is computed for it.
//! Everybody who is refused is counted by cause, and logged, though not more often than once a second.

use crate::channel::Channel;
use crate::handshake::{Security, accept};
use crate::principal::Expected;
use crate::refused::Refused;
use std::collections::BTreeMap;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use std::{fmt, io};

const STACK_BYTES: usize = 256 << 10;

/// How often refusals are logged, at most.
const LOG_PAUSE: Duration = Duration::from_secs(1);

/// Addresses whose rate is remembered.
const ADDRESSES_MAX: usize = 256;

/// Bounds of a door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorLimits {
    /// Handshakes that may be under way.
    pub handshakes: usize,
    /// How long one may take, with everything that the [`Admission`] is kept for.
    pub patience: Duration,
    /// Connections per second from one address, in the long run,
    pub per_address_per_s: u32,
    /// and at once.
    pub per_address_burst: u32,
}

impl Default for DoorLimits {
    fn default() -> Self {
        Self { handshakes: 16, patience: Duration::from_secs(5), per_address_per_s: 20, per_address_burst: 60 }
    }
}

/// A listener's rules and counters.
#[derive(Debug)]
pub struct Door {
    name: &'static str,
    security: Security,
    expected: Expected,
    limits: DoorLimits,
    plaintext_answer: Vec<u8>,
    seats: Mutex<Seats>,
    visitors: Mutex<Visitors>,
    log: Mutex<Log>,
    admitted: AtomicU64,
    refused: [AtomicU64; Refused::CAUSES.len()],
}

/// A peer that has been let in. Its seat at the door is free again when this is dropped.
#[derive(Debug)]
pub struct Admission {
    /// The open channel.
    pub channel: Channel,
    /// Where the peer is.
    pub address: SocketAddr,
    /// Until when the seat may be kept.
    pub deadline: Instant,
    seat: Seat,
}

impl Admission {
    /// The channel alone; the seat is free again.
    pub fn enter(self) -> (Channel, SocketAddr) {
        drop(self.seat);
        (self.channel, self.address)
    }
}

impl Door {
    /// A door called `name` in logs and counters, which lets `expected` in. Who speaks plaintext where TLS is expected
    /// gets `plaintext_answer`.
    pub fn new(
        name: &'static str,
        security: Security,
        expected: Expected,
        limits: DoorLimits,
        plaintext_answer: Vec<u8>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name,
            security,
            expected,
            limits,
            plaintext_answer,
            seats: Mutex::default(),
            visitors: Mutex::default(),
            log: Mutex::default(),
            admitted: AtomicU64::new(0),
            refused: Default::default(),
        })
    }

    /// Accepts at `listener` for good, and calls `enter` on a thread of its own with each peer that is let in.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn serve(
        self: &Arc<Self>,
        listener: TcpListener,
        enter: impl Fn(Admission) + Clone + Send + 'static,
    ) -> io::Result<()> {
        let door = Arc::clone(self);
        let accept = move || {
            loop {
                match listener.accept() {
                    Ok((tcp, address)) => door.knock(tcp, address, enter.clone()),
                    Err(error) => {
                        log::warn!("{} port: accept failed: {error}", door.name);
                        thread::sleep(Duration::from_millis(100));
                    }
                }
            }
        };
        spawn(self.name, accept)
    }

    /// Counts and logs a refusal, here or by those who were to serve the peer.
    pub fn refuse(&self, address: SocketAddr, reason: &Refused) {
        let cause = Refused::CAUSES.iter().position(|cause| *cause == reason.cause()).unwrap_or_default();
        self.refused[cause].fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut log = lock(&self.log);
        if log.until.is_some_and(|until| now < until) {
            log.silent += 1;
            return;
        }
        let before = match std::mem::take(&mut log.silent) {
            0 => String::new(),
            silent => format!(" ({silent} more were refused before)"),
        };
        log.until = Some(now + LOG_PAUSE);
        log::warn!("{} port: {address} refused: {reason}{before}", self.name);
    }

    /// Peers let in, and peers refused by cause, as `<name>.admitted` and `<name>.refused.<cause>`.
    pub fn counters(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        let admitted = (format!("{}.admitted", self.name), self.admitted.load(Ordering::Relaxed));
        let refused = Refused::CAUSES.iter().zip(&self.refused);
        let refused =
            refused.map(|(cause, count)| (format!("{}.refused.{cause}", self.name), count.load(Ordering::Relaxed)));
        std::iter::once(admitted).chain(refused)
    }

    fn knock(self: &Arc<Self>, tcp: TcpStream, address: SocketAddr, enter: impl FnOnce(Admission) + Send + 'static) {
        if !lock(&self.visitors).may_enter(address.ip(), Instant::now(), &self.limits) {
            return self.refuse(address, &Refused::Crowd);
        }
        let seat = match self.take_seat(&tcp, address) {
            Ok(seat) => seat,
            Err(error) => return self.refuse(address, &Refused::Io(error.to_string())),
        };
        let door = Arc::clone(self);
        let open = move || {
            let deadline = Instant::now() + door.limits.patience;
            match accept(tcp, &door.security, &door.expected, deadline, &door.plaintext_answer) {
                Ok(channel) => {
                    door.admitted.fetch_add(1, Ordering::Relaxed);
                    enter(Admission { channel, address, deadline, seat });
                }
                Err(_) if seat.is_taken_away() => door.refuse(address, &Refused::Evicted),
                Err(reason) => door.refuse(address, &reason),
            }
        };
        if let Err(error) = spawn("handshake", open) {
            self.refuse(address, &Refused::Io(error.to_string()));
        }
    }

    fn take_seat(self: &Arc<Self>, tcp: &TcpStream, address: SocketAddr) -> io::Result<Seat> {
        let tcp = tcp.try_clone()?;
        let mut seats = lock(&self.seats);
        if seats.taken.len() >= self.limits.handshakes
            && let Some(oldest) = seats.oldest_of_most()
            && let Some((_, tcp)) = seats.taken.remove(&oldest)
        {
            // Its thread ends with an error.
            let _ = tcp.shutdown(Shutdown::Both);
        }
        seats.next += 1;
        let number = seats.next;
        seats.taken.insert(number, (address.ip(), tcp));
        Ok(Seat { door: Arc::clone(self), number })
    }
}

/// Handshakes under way, oldest first.
#[derive(Debug, Default)]
struct Seats {
    next: u64,
    taken: BTreeMap<u64, (IpAddr, TcpStream)>,
}

impl Seats {
    /// The oldest handshake of the address that has the most.
    fn oldest_of_most(&self) -> Option<u64> {
        let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for (address, _) in self.taken.values() {
            *counts.entry(*address).or_default() += 1;
        }
        let most = counts.values().max()?;
        self.taken.iter().find(|(_, (address, _))| counts.get(address) == Some(most)).map(|(number, _)| *number)
    }
}

/// A handshake's place at the door.
struct Seat {
    door: Arc<Door>,
    number: u64,
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seat({})", self.number)
    }
}

impl Seat {
    fn is_taken_away(&self) -> bool {
        !lock(&self.door.seats).taken.contains_key(&self.number)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.door.seats).taken.remove(&self.number);
    }
}

/// How often addresses have connected of late: a token bucket each.
#[derive(Debug, Default)]
struct Visitors(BTreeMap<IpAddr, (f64, Instant)>);

impl Visitors {
    fn may_enter(&mut self, address: IpAddr, now: Instant, limits: &DoorLimits) -> bool {
        let (rate, burst) = (f64::from(limits.per_address_per_s), f64::from(limits.per_address_burst));
        let refilled = |(tokens, since): (f64, Instant)| {
            (tokens + now.saturating_duration_since(since).as_secs_f64() * rate).min(burst)
        };
        if self.0.len() >= ADDRESSES_MAX && !self.0.contains_key(&address) {
            // Those who have been away for long are new again; if nobody has, whoever has the most left.
            self.0.retain(|_, bucket| refilled(*bucket) < burst);
            if self.0.len() >= ADDRESSES_MAX
                && let Some(least) = self.0.iter().max_by(|a, b| refilled(*a.1).total_cmp(&refilled(*b.1)))
            {
                let least = *least.0;
                self.0.remove(&least);
            }
        }
        let bucket = self.0.entry(address).or_insert((burst, now));
        let tokens = refilled(*bucket);
        *bucket = if tokens >= 1.0 { (tokens - 1.0, now) } else { (tokens, now) };
        tokens >= 1.0
    }
}

#[derive(Debug, Default)]
struct Log {
    until: Option<Instant>,
    silent: u64,
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.into()).stack_size(STACK_BYTES).spawn(body).map(drop)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_comes_too_often_is_turned_away_and_others_are_not() {
        let limits = DoorLimits { per_address_per_s: 10, per_address_burst: 5, ..DoorLimits::default() };
        let mut visitors = Visitors::default();
        let [one, other]: [IpAddr; 2] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        let now = Instant::now();
        let let_in = |visitors: &mut Visitors, address, now| visitors.may_enter(address, now, &limits);
        assert_eq!((0..20).filter(|_| let_in(&mut visitors, one, now)).count(), 5);
        assert!(let_in(&mut visitors, other, now));
        let later = now + Duration::from_secs(1);
        assert_eq!((0..20).filter(|_| let_in(&mut visitors, one, later)).count(), 5, "ten, but at most the burst");
        // Nor does it help to come from everywhere: memory is bounded, and who was turned away stays known.
        for number in 0..2_000_u32 {
            let_in(&mut visitors, IpAddr::from(number.to_be_bytes()), later);
        }
        assert!(visitors.0.len() <= ADDRESSES_MAX);
        assert!(!let_in(&mut visitors, one, later));
    }
}

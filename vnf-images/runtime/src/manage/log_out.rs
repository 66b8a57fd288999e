//! The way of the network function's events to the operator's collector: a line of JSON each, over the management network.
//!
//! The lcore puts events into a bounded ring and goes on; one thread takes them out, puts them into words and sends them.
//! What finds no room in the ring is counted by the lcore, and told in the log itself once it can be.

use crate::config::{Log, Transport};
use crate::dataplane::Counters;
use slim_core::nf::{LogEvent, NetworkFunction};
use slim_core::protocol::Name;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How often the ring is looked at. An event's time is told as exactly.
const PERIOD: Duration = Duration::from_millis(100);

/// How long a connection attempt or a write may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait before the next attempt.
const PAUSE: Duration = Duration::from_secs(1);

/// Events sent together.
const BATCH_EVENTS: usize = 256;

/// The open way to the collector.
enum Way {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl Way {
    fn open(log: &Log) -> io::Result<Self> {
        let collector = SocketAddr::from(log.collector);
        match log.transport {
            Transport::Tcp => {
                let stream = TcpStream::connect_timeout(&collector, PATIENCE)?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Ok(Self::Tcp(stream))
            }
            Transport::Udp => {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                socket.connect(collector)?;
                Ok(Self::Udp(socket))
            }
        }
    }

    fn send(&mut self, lines: &str) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(lines.as_bytes()),
            Self::Udp(socket) => lines.lines().try_for_each(|line| socket.send(line.as_bytes()).map(|_| ())),
        }
    }
}

/// Puts events into words.
struct Writer {
    name: Name,
    /// The number of the next line.
    sequence: u64,
    /// Events lost, as far as the log tells.
    lost_told: u64,
}

impl Writer {
    fn line(&mut self, lines: &mut String, time_ms: u128, members: &str) {
        let Self { name, sequence, .. } = self;
        // Names need no quoting.
        let _ = writeln!(lines, "{{\"time_ms\":{time_ms},\"instance\":\"{name}\",\"sequence\":{sequence},{members}}}");
        self.sequence += 1;
    }

    /// Adds what has been lost since it was told last.
    fn tell_lost(&mut self, lines: &mut String, time_ms: u128, lost: u64) {
        if lost != self.lost_told {
            let more = lost.wrapping_sub(self.lost_told);
            self.line(lines, time_ms, &format!("\"event\":\"events_lost\",\"events\":{more}"));
            self.lost_told = lost;
        }
    }
}

/// Sends what comes out of `events` to the collector, on a thread of its own, until the dataplane is gone.
///
/// # Errors
/// If the thread cannot be started.
pub fn serve<F: NetworkFunction>(
    log: Log,
    name: Name,
    counters: Arc<Counters>,
    mut events: rtrb::Consumer<LogEvent>,
) -> io::Result<()> {
    let work = move || {
        crate::sys::set_nice(crate::NICE_BULK);
        let mut writer = Writer { name, sequence: 0, lost_told: 0 };
        let (mut way, mut reachable) = (None, true);
        let mut lines = String::new();
        loop {
            if lines.is_empty() {
                collect::<F>(&mut writer, &mut events, counters.events_lost.get(), &mut lines);
            }
            if lines.is_empty() {
                if events.is_abandoned() {
                    return;
                }
                std::thread::sleep(PERIOD);
                continue;
            }
            match send(&log, &mut way, &lines) {
                Ok(()) => {
                    lines.clear();
                    if !std::mem::replace(&mut reachable, true) {
                        log::info!("log: {} is reached again", log.collector);
                    }
                }
                // The lines are sent again, all of them: the collector knows them by their numbers.
                Err(error) => {
                    way = None;
                    if std::mem::replace(&mut reachable, false) {
                        log::warn!("log: {} cannot be reached: {error}", log.collector);
                    }
                    if events.is_abandoned() {
                        return;
                    }
                    std::thread::sleep(PAUSE);
                }
            }
        }
    };
    std::thread::Builder::new().name("log".into()).spawn(work).map(drop)
}

fn send(log: &Log, way: &mut Option<Way>, lines: &str) -> io::Result<()> {
    match way {
        Some(way) => way.send(lines),
        None => way.insert(Way::open(log)?).send(lines),
    }
}

fn collect<F: NetworkFunction>(
    writer: &mut Writer,
    events: &mut rtrb::Consumer<LogEvent>,
    lost: u64,
    lines: &mut String,
) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let time_ms = now.map_or(0, |now| now.as_millis());
    for _ in 0..BATCH_EVENTS {
        let Ok(event) = events.pop() else { break };
        if let Some(members) = F::describe(&event) {
            writer.line(lines, time_ms, &members);
        }
    }
    writer.tell_lost(lines, time_ms, lost);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toy::Toy;
    use std::io::{BufRead as _, BufReader};
    use std::net::TcpListener;

    fn log(collector: SocketAddr, transport: Transport) -> Log {
        let SocketAddr::V4(collector) = collector else { panic!("{collector}") };
        Log { collector, transport, events_max: 4 }
    }

    fn start(log: Log) -> (rtrb::Producer<LogEvent>, Arc<Counters>) {
        let (producer, events) = rtrb::RingBuffer::new(log.events_max);
        let counters = Arc::new(Counters::default());
        serve::<Toy>(log, Name::try_from("toy-a").unwrap(), Arc::clone(&counters), events).unwrap();
        (producer, counters)
    }

    fn without_time(line: &str) -> String {
        let rest = line.strip_prefix("{\"time_ms\":").unwrap();
        rest.trim_start_matches(|c: char| c.is_ascii_digit()).trim_end().to_owned()
    }

    #[test]
    fn events_become_lines_that_are_numbered() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut events, counters) = start(log(listener.local_addr().unwrap(), Transport::Tcp));
        for number in 1..=3 {
            events.push(LogEvent::new(&[number])).unwrap();
        }
        let mut lines = BufReader::new(listener.accept().unwrap().0).lines().map(Result::unwrap);
        for number in 1..=3u64 {
            let expected = format!(",\"instance\":\"toy-a\",\"sequence\":{},\"event\":{number}}}", number - 1);
            assert_eq!(without_time(&lines.next().unwrap()), expected);
        }
        // What the ring had no room for.
        counters.events_lost.add(7);
        let told = lines.next().unwrap();
        assert!(told.ends_with("\"sequence\":3,\"event\":\"events_lost\",\"events\":7}"), "{told}");
        drop(events);
        assert_eq!(lines.next(), None, "the log ends with the dataplane");
    }

    #[test]
    fn a_collector_that_comes_back_gets_what_waited() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let (mut events, _) = start(log(address, Transport::Tcp));
        events.push(LogEvent::new(&[9])).unwrap();
        std::thread::sleep(PERIOD * 3);
        let listener = TcpListener::bind(address).unwrap();
        let mut line = String::new();
        BufReader::new(listener.accept().unwrap().0).read_line(&mut line).unwrap();
        assert!(line.ends_with("\"sequence\":0,\"event\":9}\n"), "{line}");
    }

    #[test]
    fn datagrams_hold_one_event_each() {
        let collector = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (mut events, _) = start(log(collector.local_addr().unwrap(), Transport::Udp));
        events.push(LogEvent::new(&[1])).unwrap();
        events.push(LogEvent::new(&[2])).unwrap();
        for number in [1, 2] {
            let mut datagram = [0; 1500];
            let len = collector.recv(&mut datagram).unwrap();
            let text = std::str::from_utf8(&datagram[..len]).unwrap();
            assert!(text.ends_with(&format!("\"event\":{number}}}")), "{text}");
        }
    }
}

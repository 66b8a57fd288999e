//! The recorder: what became of every packet, in both directions, phase by phase.

use super::report::{DirectionReport, PhaseReport, RttReport, WARMUP};
use super::sequence::{Counts, NeverSent, Sequence};
use super::stamp::Direction;
use core::time::Duration;
use hdrhistogram::Histogram;
use slim_core::time::Instant;

/// Round-trip times are kept in nanoseconds with three significant digits, up to a minute.
const RTT_MAX_NS: u64 = 60_000_000_000;

/// The intervals of figure 14.
const INTERVAL: Duration = Duration::from_millis(500);

/// Records sending and arrival of packets of a fixed number of flows.
#[derive(Debug)]
pub struct Recorder {
    outbound: Vec<Sequence>,
    inbound: Vec<Sequence>,
    phases: Vec<Phase>,
    late: Duration,
    /// Sum in nanoseconds and number of the round trips of each [`INTERVAL`] since the warm-up's end.
    intervals: Vec<(u64, u64)>,
    /// When the last packet of each direction arrived, in this or an earlier phase.
    last_arrival: [Option<Instant>; 2],
    ended: Option<Instant>,
}

/// What is counted for all flows together.
#[derive(Debug)]
struct Phase {
    name: String,
    begun: Instant,
    rtt: Histogram<u64>,
    late: u64,
    own_pause_max: Duration,
    directions: [Shared; 2],
}

/// What is counted per direction for all flows together.
#[derive(Debug, Clone, Copy, Default)]
struct Shared {
    corrupt: u64,
    misdirected: u64,
    unsent: u64,
    gap_max: Duration,
}

impl Phase {
    fn new(name: &str, begun: Instant) -> Self {
        Self {
            name: name.into(),
            begun,
            rtt: histogram(),
            late: 0,
            own_pause_max: Duration::ZERO,
            directions: [Shared::default(); 2],
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, RTT_MAX_NS, 3).expect("the bounds are constants that fit")
}

impl Recorder {
    /// A recorder for `flows` flows, in the phase [`WARMUP`] from `now` on, with memory for `packets_per_flow`.
    ///
    /// Round trips longer than `late` are counted as late.
    pub fn new(flows: usize, packets_per_flow: usize, late: Duration, now: Instant) -> Self {
        let sequences = || (0..flows).map(|_| Sequence::new(packets_per_flow)).collect();
        Self {
            outbound: sequences(),
            inbound: sequences(),
            phases: vec![Phase::new(WARMUP, now)],
            late,
            intervals: Vec::new(),
            last_arrival: [None; 2],
            ended: None,
        }
    }

    /// Begins the first phase anew: nothing has been sent yet.
    pub fn begin(&mut self, now: Instant) {
        *self.present_mut() = Phase::new(WARMUP, now);
    }

    /// Begins a phase: packets sent from now on belong to it.
    pub fn begin_phase(&mut self, name: &str, now: Instant) {
        self.phases.push(Phase::new(name, now));
        self.outbound.iter_mut().chain(&mut self.inbound).for_each(Sequence::begin_phase);
    }

    /// The name of the present phase.
    pub fn phase(&self) -> &str {
        &self.present().name
    }

    /// Ends the last phase: nothing is sent any more, packets under way still count.
    pub fn end(&mut self, now: Instant) {
        // Silence up to now is a gap, too.
        for direction in [Direction::Outbound, Direction::Inbound] {
            self.note_gap(direction, now);
        }
        self.ended = Some(now);
    }

    /// Takes the counter of `flow`'s next packet, which is sent now.
    pub fn send(&mut self, direction: Direction, flow: u16) -> Option<u32> {
        self.sequence(direction, flow).map(Sequence::send)
    }

    /// Takes back `flow`'s last packet, which did not get out.
    pub fn retract(&mut self, direction: Direction, flow: u16) {
        if let Some(sequence) = self.sequence(direction, flow) {
            sequence.retract();
            self.unsent(direction, 1);
        }
    }

    /// Notes that packets were due but not sent.
    pub fn unsent(&mut self, direction: Direction, packets: u64) {
        self.shared(direction).unsent += packets;
    }

    /// Notes the arrival of a packet.
    ///
    /// # Errors
    /// [`NeverSent`] if no such packet was sent.
    pub fn receive(&mut self, direction: Direction, flow: u16, counter: u32, now: Instant) -> Result<(), NeverSent> {
        self.sequence(direction, flow).ok_or(NeverSent(counter))?.receive(counter)?;
        self.note_gap(direction, now);
        self.last_arrival[index(direction)] = Some(now);
        Ok(())
    }

    /// Notes a round trip that ends `now`.
    pub fn round_trip(&mut self, sent_at: Instant, now: Instant) {
        let rtt = now.saturating_since(sent_at);
        let late = rtt > self.late;
        // The warm-up begins before everything else.
        let phase = self.phases.iter_mut().rev().find(|phase| phase.begun <= sent_at);
        if let Some(phase) = phase {
            phase.rtt.saturating_record(rtt.as_nanos() as u64);
            phase.late += u64::from(late);
        }
        if let Some(measured) = self.phases.get(1).filter(|phase| phase.begun <= sent_at) {
            let index = ((sent_at - measured.begun).as_nanos() / INTERVAL.as_nanos()) as usize;
            if index >= self.intervals.len() {
                self.intervals.resize(index + 1, (0, 0));
            }
            let (sum, count) = &mut self.intervals[index];
            *sum += rtt.as_nanos() as u64;
            *count += 1;
        }
    }

    /// The mean round trip of that half second since the warm-up's end whose mean is greatest.
    pub fn interval_mean_max(&self) -> Duration {
        let means = self.intervals.iter().filter(|(_, count)| *count > 0).map(|(sum, count)| sum / count);
        Duration::from_nanos(means.max().unwrap_or(0))
    }

    /// Notes the arrival of a packet that is not as it was sent.
    pub fn corrupt(&mut self, direction: Direction) {
        self.shared(direction).corrupt += 1;
    }

    /// Notes that a packet came to a wrong cell, in addition to its arrival.
    pub fn misdirected(&mut self, direction: Direction) {
        self.shared(direction).misdirected += 1;
    }

    /// Notes that a packet arrived with wrong addresses or ports, in addition to its arrival.
    pub fn mistranslated(&mut self, direction: Direction, flow: u16, counter: u32) {
        if let Some(sequence) = self.sequence(direction, flow) {
            sequence.mistranslated(counter);
        }
    }

    /// Notes that nobody looked for packets for so long.
    pub fn own_pause(&mut self, pause: Duration) {
        let phase = self.present_mut();
        phase.own_pause_max = phase.own_pause_max.max(pause);
    }

    /// The phases, each with what became of its packets so far, and all but the first together.
    pub fn report(&self, now: Instant) -> (Vec<PhaseReport>, PhaseReport) {
        let end = self.ended.unwrap_or(now);
        let mut total = PhaseReport { name: "total".into(), ..PhaseReport::default() };
        let mut all_rtt = histogram();
        let mut reports = Vec::with_capacity(self.phases.len());
        for (at, phase) in self.phases.iter().enumerate() {
            let until = self.phases.get(at + 1).map_or(end, |next| next.begun);
            let report = PhaseReport {
                name: phase.name.clone(),
                duration_ms: until.saturating_since(phase.begun).as_millis() as u64,
                outbound: self.direction_report(Direction::Outbound, at),
                inbound: self.direction_report(Direction::Inbound, at),
                rtt: rtt_report(&phase.rtt),
                late: phase.late,
                own_pause_max_us: phase.own_pause_max.as_micros() as u64,
            };
            if at > 0 {
                total.duration_ms += report.duration_ms;
                total.outbound.merge(&report.outbound);
                total.inbound.merge(&report.inbound);
                total.late += report.late;
                total.own_pause_max_us = total.own_pause_max_us.max(report.own_pause_max_us);
                // Cannot fail: both have the same bounds.
                let _ = all_rtt.add(&phase.rtt);
            }
            reports.push(report);
        }
        total.rtt = rtt_report(&all_rtt);
        (reports, total)
    }

    /// What became of one flow's packets in the phases from number `first` on.
    pub fn flow_report(&self, direction: Direction, flow: u16, first: usize) -> DirectionReport {
        let mut report = DirectionReport::default();
        if let Some(sequence) = self.sequences(direction).get(usize::from(flow)) {
            sequence.phases().skip(first).for_each(|counts| report.merge(&counts_report(counts)));
        }
        report
    }

    /// All phases of one direction together, packets under way counted as lost.
    pub fn so_far(&self, direction: Direction) -> DirectionReport {
        let mut report = DirectionReport::default();
        (0..self.phases.len()).for_each(|phase| report.merge(&self.direction_report(direction, phase)));
        report
    }

    fn direction_report(&self, direction: Direction, phase: usize) -> DirectionReport {
        let mut report = DirectionReport::default();
        for sequence in self.sequences(direction) {
            if let Some(counts) = sequence.phases().nth(phase) {
                report.merge(&counts_report(counts));
            }
        }
        let shared = &self.phases[phase].directions[index(direction)];
        report.corrupt = shared.corrupt;
        report.misdirected = shared.misdirected;
        report.unsent = shared.unsent;
        report.gap_max_us = shared.gap_max.as_micros() as u64;
        report
    }

    fn note_gap(&mut self, direction: Direction, now: Instant) {
        if let Some(last) = self.last_arrival[index(direction)].filter(|_| self.ended.is_none()) {
            let gap = now.saturating_since(last);
            let shared = self.shared(direction);
            shared.gap_max = shared.gap_max.max(gap);
        }
    }

    fn sequences(&self, direction: Direction) -> &[Sequence] {
        match direction {
            Direction::Outbound => &self.outbound,
            Direction::Inbound => &self.inbound,
        }
    }

    fn sequence(&mut self, direction: Direction, flow: u16) -> Option<&mut Sequence> {
        let sequences = match direction {
            Direction::Outbound => &mut self.outbound,
            Direction::Inbound => &mut self.inbound,
        };
        sequences.get_mut(usize::from(flow))
    }

    fn present(&self) -> &Phase {
        self.phases.last().expect("there is a phase from the beginning")
    }

    fn present_mut(&mut self) -> &mut Phase {
        self.phases.last_mut().expect("there is a phase from the beginning")
    }

    fn shared(&mut self, direction: Direction) -> &mut Shared {
        &mut self.present_mut().directions[index(direction)]
    }
}

fn index(direction: Direction) -> usize {
    match direction {
        Direction::Outbound => 0,
        Direction::Inbound => 1,
    }
}

fn counts_report(counts: &Counts) -> DirectionReport {
    DirectionReport {
        sent: counts.sent,
        received: counts.received,
        lost: counts.lost(),
        duplicated: counts.duplicated,
        reordered: counts.reordered,
        reordering_extent_max: counts.reordering_extent_max,
        mistranslated: counts.mistranslated,
        ..DirectionReport::default()
    }
}

fn rtt_report(rtt: &Histogram<u64>) -> RttReport {
    if rtt.is_empty() {
        return RttReport::default();
    }
    let at = |quantile: f64| rtt.value_at_quantile(quantile) / 1_000;
    RttReport {
        count: rtt.len(),
        min_us: rtt.min() / 1_000,
        mean_us: (rtt.mean() / 1e3) as u64,
        p50_us: at(0.5),
        p90_us: at(0.9),
        p99_us: at(0.99),
        p999_us: at(0.999),
        max_us: rtt.max() / 1_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Inbound, Outbound};

    fn ms(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn recorder(flows: usize) -> Recorder {
        Recorder::new(flows, 100, Duration::from_millis(15), ms(0))
    }

    #[test]
    fn phases_split_everything_by_when_it_was_sent() {
        let mut recorder = recorder(1);
        let warm = recorder.send(Outbound, 0).unwrap();
        recorder.begin_phase("before", ms(10));
        let before = recorder.send(Outbound, 0).unwrap();
        recorder.begin_phase("during", ms(20));
        let during = recorder.send(Outbound, 0).unwrap();
        // All arrive during "during": the second one last, one of them twice.
        for counter in [warm, during, before, before] {
            recorder.receive(Outbound, 0, counter, ms(30)).unwrap();
        }
        recorder.round_trip(ms(9), ms(30));
        recorder.round_trip(ms(19), ms(30));
        recorder.round_trip(ms(20), ms(30));
        recorder.end(ms(40));
        let (phases, total) = recorder.report(ms(100));
        let summary = |phase: &PhaseReport| {
            let out = &phase.outbound;
            (phase.duration_ms, out.sent, out.received, out.reordered, out.duplicated, phase.rtt.count, phase.late)
        };
        let names: Vec<_> = phases.iter().map(|phase| phase.name.as_str()).collect();
        assert_eq!(names, [WARMUP, "before", "during"]);
        assert_eq!(
            phases.iter().map(summary).collect::<Vec<_>>(),
            [(10, 1, 1, 0, 0, 1, 1), (10, 1, 1, 1, 1, 1, 0), (20, 1, 1, 0, 0, 1, 0),]
        );
        assert_eq!(summary(&total), (30, 2, 2, 1, 1, 2, 0));
        assert!(!total.is_clean());
    }

    #[test]
    fn directions_and_flows_are_apart() {
        let mut recorder = recorder(2);
        recorder.begin_phase("before", ms(0));
        recorder.send(Outbound, 0).unwrap();
        recorder.send(Outbound, 1).unwrap();
        recorder.send(Inbound, 1).unwrap();
        recorder.receive(Outbound, 1, 0, ms(1)).unwrap();
        recorder.mistranslated(Outbound, 1, 0);
        recorder.corrupt(Inbound);
        recorder.unsent(Inbound, 3);
        let (_, total) = recorder.report(ms(2));
        assert_eq!((total.outbound.lost, total.inbound.lost), (1, 1));
        assert_eq!((total.outbound.mistranslated, total.inbound.mistranslated), (1, 0));
        assert_eq!((total.outbound.corrupt, total.inbound.corrupt), (0, 1));
        assert_eq!((total.outbound.unsent, total.inbound.unsent), (0, 3));
        assert_eq!(recorder.flow_report(Outbound, 0, 1).lost, 1);
        assert_eq!(recorder.flow_report(Outbound, 1, 1).lost, 0);
        assert_eq!(recorder.flow_report(Inbound, 1, 1).lost, 1);
    }

    #[test]
    fn what_does_not_get_out_is_not_lost() {
        let mut recorder = recorder(1);
        recorder.begin_phase("before", ms(0));
        recorder.send(Inbound, 0).unwrap();
        recorder.send(Inbound, 0).unwrap();
        recorder.receive(Inbound, 0, 0, ms(1)).unwrap();
        recorder.retract(Inbound, 0);
        let (_, total) = recorder.report(ms(2));
        assert_eq!((total.inbound.sent, total.inbound.lost, total.inbound.unsent), (1, 0, 1));
        assert!(total.is_clean());
    }

    #[test]
    fn the_longest_gap_includes_silence_at_the_end_but_not_the_drain() {
        let mut recorder = recorder(1);
        recorder.begin_phase("before", ms(0));
        for at in [5, 6, 10] {
            let counter = recorder.send(Outbound, 0).unwrap();
            recorder.receive(Outbound, 0, counter, ms(at)).unwrap();
        }
        assert_eq!(recorder.report(ms(10)).1.outbound.gap_max_us, 4_000);
        recorder.begin_phase("during", ms(20));
        let last = recorder.send(Outbound, 0).unwrap();
        recorder.end(ms(35));
        recorder.receive(Outbound, 0, last, ms(90)).unwrap();
        let (phases, total) = recorder.report(ms(100));
        assert_eq!((phases[1].outbound.gap_max_us, phases[2].outbound.gap_max_us), (4_000, 25_000));
        assert_eq!((total.outbound.gap_max_us, total.outbound.lost), (25_000, 0));
    }

    #[test]
    fn round_trip_quantiles_are_in_microseconds() {
        let mut recorder = recorder(1);
        recorder.begin_phase("before", ms(0));
        (1..=100u64).for_each(|us| recorder.round_trip(ms(1), Instant::from_nanos(1_000_000 + us * 1_000)));
        recorder.round_trip(ms(1), ms(17));
        let (_, total) = recorder.report(ms(20));
        assert_eq!((total.rtt.count, total.rtt.min_us, total.late), (101, 1, 1));
        assert!((50..=51).contains(&total.rtt.p50_us), "{:?}", total.rtt);
        assert!((15_990..=16_010).contains(&total.rtt.max_us), "{:?}", total.rtt);
    }

    #[test]
    fn the_worst_half_second_counts_from_the_end_of_the_warm_up() {
        let mut recorder = recorder(1);
        recorder.round_trip(ms(0), ms(900));
        assert_eq!(recorder.interval_mean_max(), Duration::ZERO);
        recorder.begin_phase("before", ms(1_000));
        recorder.begin_phase("during", ms(1_600));
        // By when they were sent: two in the first interval, one in the second, the warm-up's in none.
        recorder.round_trip(ms(999), ms(2_500));
        recorder.round_trip(ms(1_000), ms(1_010));
        recorder.round_trip(ms(1_499), ms(1_529));
        recorder.round_trip(ms(1_500), ms(1_515));
        assert_eq!(recorder.interval_mean_max(), Duration::from_millis(20));
    }

    #[test]
    fn unknown_flows_are_refused() {
        let mut recorder = recorder(1);
        assert_eq!(recorder.send(Outbound, 1), None);
        assert_eq!(recorder.receive(Outbound, 1, 0, ms(0)), Err(NeverSent(0)));
    }
}

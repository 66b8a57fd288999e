//! Figures 11 to 18, and what the paper does not show: all modes beside each other.

use super::{Figure, Look, Marker, Point, Series};
use crate::grid::{Mode, PACKET_SIZES_BYTES, RATES_MBIT, Scheduling, Setup, Variation, Vnf};
use crate::record::{Ended, Run};
use crate::results::Results;
use slim_core::model::Scenario;

/// What a figure shows of each run; `None` where it does not apply.
type Metric = fn(&Run) -> Option<f64>;

const X_LABEL: &str = "Load, sum of both directions, Mbit/s";

/// A measured figure of the paper.
struct Plan {
    id: &'static str,
    title: &'static str,
    y_label: &'static str,
    y_max: Option<f64>,
    vnf: Vnf,
    metric: Metric,
    model: Option<fn(Setup, f64) -> Option<f64>>,
}

/// Seconds of loss. Whether the migration succeeded does not matter: lost is lost.
fn loss(run: &Run) -> Option<f64> {
    Some(run.traffic.loss_s())
}

fn late(run: &Run) -> Option<f64> {
    Some(run.traffic.late_s())
}

fn worst_interval(run: &Run) -> Option<f64> {
    Some(run.rtt.worst_interval_mean_ms)
}

fn duration(run: &Run) -> Option<f64> {
    run.duration_s
}

fn pkt_q(run: &Run) -> Option<f64> {
    (run.ended == Ended::Completed || run.pkt_q_packets > 0).then_some(run.pkt_q_packets as f64 * run.scale)
}

fn volume(run: &Run) -> Option<f64> {
    (run.transfer.snapshot_bytes > 0).then(|| run.transfer.total_bytes() as f64 * run.scale / 1e6)
}

/// Equation 3 in the testbed, with the σ that was measured.
pub fn model_duration_s(setup: Setup, sigma: f64) -> Option<f64> {
    Scenario::testbed(f64::from(setup.rate_mbit) * 1e6, sigma).duration_s()
}

/// What both streams carry until equation 3 is over, in MB.
fn model_volume(setup: Setup, sigma: f64) -> Option<f64> {
    let workload_bps = f64::from(setup.rate_mbit) * 1e6;
    let scenario = Scenario::testbed(workload_bps, sigma);
    let transfer_s = scenario.duration_s()? - scenario.local_s;
    Some((scenario.snapshot_bits + sigma * workload_bps * transfer_s) / 8e6)
}

const PLANS: [Plan; 8] = [
    Plan {
        id: "figure-11",
        title: "Figure 11: packet loss, NAT",
        y_label: "Seconds of packet loss",
        y_max: Some(2.5),
        vnf: Vnf::Nat,
        metric: loss,
        model: None,
    },
    Plan {
        id: "figure-12",
        title: "Figure 12: packet loss, packet gateway",
        y_label: "Seconds of packet loss",
        y_max: Some(2.5),
        vnf: Vnf::Gateway,
        metric: loss,
        model: None,
    },
    Plan {
        id: "figure-13",
        title: "Figure 13: packets lost or later than 15 ms, NAT",
        y_label: "Seconds of RTT larger than 15 ms",
        y_max: Some(4.0),
        vnf: Vnf::Nat,
        metric: late,
        model: None,
    },
    Plan {
        id: "figure-14",
        title: "Figure 14: the 500 ms with the longest mean RTT, NAT",
        y_label: "Mean RTT, ms",
        y_max: Some(1000.0),
        vnf: Vnf::Nat,
        metric: worst_interval,
        model: None,
    },
    Plan {
        id: "figure-15",
        title: "Figure 15: migration duration, NAT",
        y_label: "Duration, s",
        y_max: Some(6.0),
        vnf: Vnf::Nat,
        metric: duration,
        model: Some(model_duration_s),
    },
    Plan {
        id: "figure-16",
        title: "Figure 16: migration duration, packet gateway",
        y_label: "Duration, s",
        y_max: Some(6.0),
        vnf: Vnf::Gateway,
        metric: duration,
        model: Some(model_duration_s),
    },
    Plan {
        id: "figure-17",
        title: "Figure 17: longest pkt_q, NAT",
        y_label: "Packets in pkt_q",
        y_max: None,
        vnf: Vnf::Nat,
        metric: pkt_q,
        model: None,
    },
    Plan {
        id: "figure-18",
        title: "Figure 18: bytes of the state transfer, NAT",
        y_label: "Snapshot and statelets, MB",
        y_max: Some(250.0),
        vnf: Vnf::Nat,
        metric: volume,
        model: Some(model_volume),
    },
];

/// The lines of figures 11 to 18: what the paper has, and `dataplane-first` beside it.
const STYLES: [(Mode, Scheduling, &str, usize, [Marker; 2]); 3] = [
    (Mode::Statelet, Scheduling::BestEffort, "SliM", 0, [Marker::Circle, Marker::Disc]),
    (Mode::Duplicate, Scheduling::BestEffort, "Duplication", 1, [Marker::OpenSquare, Marker::Square]),
    (Mode::Statelet, Scheduling::DataplaneFirst, "SliM, dataplane first", 2, [Marker::OpenTriangle, Marker::Triangle]),
];

/// How the lines of booted images look, in the order of `STYLES`. Their sizes are multiplied by the scale again.
const IMAGES_COLOURS: [usize; 3] = [4, 5, 3];
const IMAGES: &str = "Images: ";

/// Figures 11 to 18 from the simulation's results, and those of booted images beside them; only those for which there is
/// something.
pub fn figures(simulated: &Results, booted: &Results) -> Vec<Figure> {
    PLANS.iter().map(|plan| figure(plan, simulated, booted)).filter(|figure| !figure.is_empty()).collect()
}

/// All modes beside each other, which the paper does not show: NAT, 1400 B, best-effort.
pub fn modes(simulated: &Results, booted: &Results) -> Vec<Figure> {
    const MODES: [(Mode, &str, usize, Marker); 4] = [
        (Mode::Statelet, "Statelets (SliM)", 0, Marker::Disc),
        (Mode::Duplicate, "Duplication", 1, Marker::Square),
        (Mode::Buffer, "Buffering", 3, Marker::Triangle),
        (Mode::StopAndCopy, "Stop and copy", 5, Marker::OpenSquare),
    ];
    let figure = |id: &str, title: &str, y_label: &str, metric: Metric| {
        let series = |results: &Results, of: &str, mode, name: &str, colour, marker| {
            let setup = |rate_mbit| Setup {
                vnf: Vnf::Nat,
                packet_size_bytes: 1400,
                rate_mbit,
                mode,
                scheduling: Scheduling::BestEffort,
                variation: Variation::default(),
            };
            let look = Look { colour, marker, dashed: false };
            Series { name: format!("{of}{name}"), look, points: line(results, setup, metric) }
        };
        let simulated = MODES.map(|(mode, name, colour, marker)| series(simulated, "", mode, name, colour, marker));
        let booted =
            MODES.map(|(mode, name, colour, _)| series(booted, IMAGES, mode, name, colour, Marker::OpenTriangle));
        Figure {
            id: id.into(),
            title: title.into(),
            x_label: X_LABEL.into(),
            y_label: y_label.into(),
            x_range: (0.0, 1000.0),
            y_max: None,
            series: simulated.into_iter().chain(booted).filter(|series| !series.points.is_empty()).collect(),
        }
    };
    let figures = [
        figure("modes-loss", "All modes: packet loss, NAT, 1400 B", "Seconds of packet loss", loss),
        figure(
            "modes-late",
            "All modes: packets lost or later than 15 ms, NAT, 1400 B",
            "Seconds of RTT larger than 15 ms",
            late,
        ),
        figure("modes-duration", "All modes: migration duration, NAT, 1400 B", "Duration, s", duration),
    ];
    figures.into_iter().filter(|figure| !figure.is_empty()).collect()
}

/// The points of a line: one per rate that was run.
fn line(results: &Results, of_rate: impl Fn(u32) -> Setup, metric: Metric) -> Vec<Point> {
    let point = |rate_mbit: u32| {
        let setup = of_rate(rate_mbit);
        let failed = results.of(&setup).iter().filter(|run| run.ended != Ended::Completed).count();
        Some(Point::measured(rate_mbit.into(), &results.summary(&setup, metric)?, failed))
    };
    RATES_MBIT.into_iter().filter_map(point).collect()
}

/// Loads of booted images are shown as they would be at full scale.
fn figure(plan: &Plan, simulated: &Results, booted: &Results) -> Figure {
    let mut series = lines(plan, simulated, "", STYLES.map(|(.., colour, _)| colour));
    series.extend(lines(plan, booted, IMAGES, IMAGES_COLOURS));
    if !series.is_empty() {
        series.extend(plan.model.into_iter().flat_map(|model| model_lines(plan.vnf, simulated, model)));
    }
    Figure {
        id: plan.id.into(),
        title: plan.title.into(),
        x_label: X_LABEL.into(),
        y_label: plan.y_label.into(),
        x_range: (0.0, 1000.0),
        y_max: plan.y_max,
        series,
    }
}

/// What was measured: a line for each mode and packet size that was run.
fn lines(plan: &Plan, results: &Results, of: &str, colours: [usize; 3]) -> Vec<Series> {
    let mut series = Vec::new();
    for ((mode, scheduling, name, _, markers), colour) in STYLES.into_iter().zip(colours) {
        for (packet_size_bytes, marker) in PACKET_SIZES_BYTES.into_iter().zip(markers) {
            let setup = |rate_mbit| Setup {
                vnf: plan.vnf,
                packet_size_bytes,
                rate_mbit,
                mode,
                scheduling,
                variation: Variation::default(),
            };
            let points = line(results, setup, plan.metric);
            if !points.is_empty() {
                let look = Look { colour, marker, dashed: false };
                series.push(Series { name: format!("{of}{name}, {packet_size_bytes} B"), look, points });
            }
        }
    }
    series
}

/// What the model says for statelets, with σ as measured, and for duplication.
fn model_lines(vnf: Vnf, results: &Results, model: fn(Setup, f64) -> Option<f64>) -> Vec<Series> {
    let any = |mode| Setup {
        vnf,
        packet_size_bytes: 512,
        rate_mbit: 0,
        mode,
        scheduling: Scheduling::BestEffort,
        variation: Variation::default(),
    };
    let of = |name: String, mode: Mode, sigma: f64, colour: usize| {
        let points = (10..=990).step_by(10).filter_map(|rate_mbit| {
            let value = model(Setup { rate_mbit, ..any(mode) }, sigma)?;
            Some(Point::computed(rate_mbit.into(), value))
        });
        let look = Look { colour, marker: Marker::None, dashed: true };
        Series { name, look, points: points.collect() }
    };
    let mut lines = Vec::new();
    if let Some(sigma) = sigma_wire(results, vnf, 512) {
        lines.push(of(format!("Equation 3, σ = {sigma:.4}"), Mode::Statelet, sigma, 6));
    }
    lines.push(of("Equation 3, σ = 1".into(), Mode::Duplicate, 1.0, 7));
    lines
}

/// The mean σ on the wire of plain statelets, over all loads.
pub fn sigma_wire(results: &Results, vnf: Vnf, packet_size_bytes: u16) -> Option<f64> {
    let wanted = |setup: &Setup| {
        setup.vnf == vnf
            && setup.packet_size_bytes == packet_size_bytes
            && setup.mode == Mode::Statelet
            && setup.scheduling == Scheduling::BestEffort
            && setup.variation == Variation::default()
    };
    let runs = results.iter().filter(|(setup, _)| wanted(setup)).flat_map(|(_, runs)| runs);
    let sigmas: Vec<f64> = runs.filter_map(|run| run.transfer.sigma_wire).collect();
    (!sigmas.is_empty()).then(|| sigmas.iter().sum::<f64>() / sigmas.len() as f64)
}

//! Figures 6 and 7: what §V predicts.

use super::{Figure, Look, Marker, Point, Series};
use crate::grid::{Mode, RATES_MBIT, Scheduling, Setup, TESTBED, Vnf};
use crate::record::{Ended, Run};
use crate::results::Results;
use slim_core::model::{PreCopy, Prediction, Scenario};

/// The durations of figure 6, in seconds.
const DURATIONS_S: [f64; 6] = [0.5, 0.75, 1.0, 2.0, 5.0, 10.0];

/// The memory of the virtual machine in figure 7, in MiB; the paper does not say. Ours is that of the image's guest.
pub const MEMORY_MIB: f64 = 256.0;

fn curve(name: String, colour: usize, dashed: bool, points: impl Iterator<Item = (f64, f64)>) -> Series {
    let points = points.map(|(x, y)| Point::computed(x, y)).collect();
    Series { name, look: Look { colour, marker: Marker::None, dashed }, points }
}

/// Figure 6: the greatest statelet factor with which a migration takes a given time.
pub fn figure_6() -> Figure {
    let series = DURATIONS_S.iter().enumerate().map(|(colour, &duration_s)| {
        let sigma = |flow_mbit: u32| {
            let flow_bps = f64::from(flow_mbit) * 1e6;
            Some((f64::from(flow_mbit), Scenario::figure_6(flow_bps, 0.0).sigma_bound(duration_s)?))
        };
        curve(format!("T = {duration_s} s"), colour, false, (10..=1000).step_by(5).filter_map(sigma))
    });
    let duplication = curve("duplication (σ = 1)".into(), 7, true, [(0.0, 1.0), (1000.0, 1.0)].into_iter());
    Figure {
        id: "figure-6".into(),
        title: "Figure 6: greatest statelet factor for a migration that takes T (model)".into(),
        x_label: "Traffic in each direction, Mbit/s".into(),
        y_label: "Statelet factor σ".into(),
        x_range: (0.0, 1000.0),
        y_max: Some(2.0),
        series: series.chain([duplication]).collect(),
    }
}

/// The paper's guest has a ring of 65,536 packet buffers that get dirty; ours has two of 1024.
const RING_BUFFERS: f64 = 2.0 * 1024.0;

fn figure_7_model(load_mbit: u32) -> PreCopy {
    PreCopy::figure_7(f64::from(load_mbit) * 1e6, MEMORY_MIB * 1024.0 * 1024.0 * 8.0)
}

/// The least that precopy takes of our own image at full scale, with the dataplane off in the last round.
pub fn precopy_bound(setup: &Setup) -> Option<Prediction> {
    let ring_bits = RING_BUFFERS * f64::from(setup.packet_size_bytes) * 8.0;
    PreCopy { ring_bits, ..figure_7_model(setup.rate_mbit) }.predict(false)
}

/// What was measured of booted images. A guest's memory does not scale, so on a link of a tenth all takes ten times as
/// long: times are divided by the scale.
fn measured(booted: &Results, value: impl Fn(&Run) -> Option<f64>) -> Series {
    let points = RATES_MBIT.into_iter().filter_map(|load_mbit| {
        let setup = precopy_setup(load_mbit);
        let failed = booted.of(&setup).iter().filter(|run| run.ended != Ended::Completed).count();
        let summary = booted.summary(&setup, |run| Some(value(run)? / run.scale))?;
        Some(Point::measured(load_mbit.into(), &summary, failed))
    });
    let look = Look { colour: 1, marker: Marker::Disc, dashed: false };
    Series { name: "QEMU, measured".into(), look, points: points.collect() }
}

/// Where in the grid precopy is measured.
pub fn precopy_setup(rate_mbit: u32) -> Setup {
    Setup {
        vnf: Vnf::Nat,
        packet_size_bytes: 1400,
        rate_mbit,
        mode: Mode::Precopy,
        scheduling: Scheduling::DataplaneFirst,
        variation: TESTBED,
    }
}

/// Figure 7: downtime and duration of a hypervisor's live migration, at best, and what was measured of booted images.
pub fn figure_7(booted: &Results) -> [Figure; 2] {
    let predict = |load_mbit: u32, dataplane_on: bool| {
        figure_7_model(load_mbit).predict(dataplane_on).map(|prediction| (f64::from(load_mbit), prediction))
    };
    let names = [(true, "dataplane on in the last round", 5), (false, "dataplane off in the last round", 6)];
    let series = |value: fn(&Prediction) -> f64| {
        let of = |(on, name, colour): (bool, &str, usize)| {
            let points = (50..=950).step_by(10).filter_map(move |load| predict(load, on));
            curve(name.into(), colour, !on, points.map(|(x, prediction)| (x, value(&prediction))))
        };
        names.map(of)
    };
    let own = |value: fn(&Prediction) -> f64| {
        let of = |load: u32| Some((f64::from(load), value(&precopy_bound(&precopy_setup(load))?)));
        curve("our rings, dataplane off".into(), 2, true, (50..=950).step_by(10).filter_map(of))
    };
    let beside = |model: [Series; 2], own: Series, measured: Series| {
        let measured = Some(measured).filter(|series| !series.points.is_empty());
        model.into_iter().chain(measured.map(|measured| [own, measured]).into_iter().flatten()).collect()
    };
    let downtime = measured(booted, |run| run.precopy?.downtime_s);
    let duration = measured(booted, |run| run.duration_s);
    let figure = |id: &str, title: &str, y_label: &str, series| Figure {
        id: id.into(),
        title: title.into(),
        x_label: "Dataplane load, Mbit/s".into(),
        y_label: y_label.into(),
        x_range: (0.0, 1000.0),
        y_max: None,
        series,
    };
    [
        figure(
            "figure-7-downtime",
            "Figure 7, top: downtime of a VM's live migration, at best (model)",
            "Downtime, s",
            beside(series(|prediction| prediction.downtime_s), own(|prediction| prediction.downtime_s), downtime),
        ),
        figure(
            "figure-7-duration",
            "Figure 7, bottom: duration of a VM's live migration, at best (model)",
            "Duration of ten rounds, s",
            beside(series(|prediction| prediction.duration_s), own(|prediction| prediction.duration_s), duration),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(series: &Series, x: f64) -> f64 {
        series.points.iter().find(|point| point.x == x).unwrap().y
    }

    #[test]
    fn curves_of_figure_6_meet_the_axis_where_the_snapshot_alone_takes_that_long() {
        let figure = figure_6();
        let bounds = [200.0, 644.0, 771.4, 905.9, 966.0, 983.5];
        for (series, bound) in figure.series.iter().zip(bounds) {
            let last = series.points.last().unwrap();
            assert!(last.x <= bound && bound - last.x <= 5.0, "{}: {} for {bound}", series.name, last.x);
        }
        // A third of the load without statelets is what duplication bears.
        assert!((at(&figure.series[3], 300.0) - 1.0).abs() < 0.02);
    }

    #[test]
    fn figure_7_bends_where_the_ring_wraps() {
        let [downtime, _] = figure_7(&Results::default());
        assert!((at(&downtime.series[0], 800.0) - 3.67).abs() < 0.01);
        assert!((at(&downtime.series[1], 800.0) - 0.734).abs() < 0.001);
        assert!(at(&downtime.series[0], 400.0) < 0.06);
    }
}

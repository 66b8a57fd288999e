//! Figures: series of points with their confidence intervals, as data and as pictures.
//!
//! [`model`] has those that are computed, [`measured`] those that come from runs, [`draw`] makes SVG of either.

pub mod draw;
pub mod measured;
pub mod model;

use crate::stats::Summary;
use serde::Serialize;
use std::fmt::Write as _;

/// A figure, ready to be drawn.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// Its name in file names, such as `figure-11`.
    pub id: String,
    /// What it shows, with the paper's number.
    pub title: String,
    /// The x-axis with its unit.
    pub x_label: String,
    /// The y-axis with its unit.
    pub y_label: String,
    /// The x-axis's range.
    pub x_range: (f64, f64),
    /// The y-axis ends here though there may be points beyond, which are marked; without, it holds all points.
    pub y_max: Option<f64>,
    /// The lines.
    pub series: Vec<Series>,
}

/// One line of a figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// How it looks.
    #[serde(skip)]
    pub look: Look,
    /// Its points by x.
    pub points: Vec<Point>,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Which colour of the palette.
    pub colour: usize,
    /// What its points are marked with.
    pub marker: Marker,
    /// Whether it is dashed: the model's lines are.
    pub dashed: bool,
}

/// What points are marked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    /// Nothing.
    None,
    /// A disc.
    Disc,
    /// A circle.
    Circle,
    /// A filled square.
    Square,
    /// The outline of a square.
    OpenSquare,
    /// A filled triangle.
    Triangle,
    /// The outline of a triangle.
    OpenTriangle,
}

/// A point with what is known of its certainty.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// x.
    pub x: f64,
    /// y: a mean, if there are several values.
    pub y: f64,
    /// Half of the 95 % confidence interval, where there are at least two values.
    pub ci95: Option<f64>,
    /// Values behind it; 0 if it is computed.
    pub count: usize,
    /// Runs at this point whose migration was not completed.
    pub failed: usize,
    /// The least value.
    pub min: f64,
    /// The greatest value.
    pub max: f64,
}

impl Point {
    /// A computed point.
    pub const fn computed(x: f64, y: f64) -> Self {
        Self { x, y, ci95: None, count: 0, failed: 0, min: y, max: y }
    }

    /// A measured point with `failed` migrations that were not completed.
    pub const fn measured(x: f64, summary: &Summary, failed: usize) -> Self {
        let Summary { count, mean, ci95, min, max } = *summary;
        Self { x, y: mean, ci95, count, failed, min, max }
    }
}

impl Figure {
    /// Whether there is anything to see.
    pub fn is_empty(&self) -> bool {
        self.series.iter().all(|series| series.points.is_empty())
    }

    /// The data as CSV: one line per point.
    pub fn csv(&self) -> String {
        let mut csv = String::from("series,x,y,ci95,runs,failed,min,max\n");
        for series in &self.series {
            for Point { x, y, ci95, count, failed, min, max } in &series.points {
                let ci95 = ci95.map(|half| format!("{half:.6}")).unwrap_or_default();
                // Writing to a string cannot fail. Names have no quotes.
                let _ = writeln!(csv, "\"{}\",{x},{y:.6},{ci95},{count},{failed},{min:.6},{max:.6}", series.name);
            }
        }
        csv
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_has_a_line_per_point_and_leaves_unknown_intervals_empty() {
        let look = Look { colour: 0, marker: Marker::Disc, dashed: false };
        let summary = Summary { count: 2, mean: 1.5, ci95: Some(0.25), min: 1.0, max: 2.0 };
        let points = vec![Point::measured(100.0, &summary, 1), Point::computed(200.0, 3.0)];
        let figure = Figure {
            id: "figure".into(),
            title: "A figure".into(),
            x_label: "x".into(),
            y_label: "y".into(),
            x_range: (0.0, 300.0),
            y_max: None,
            series: vec![Series { name: "SliM, 512 B".into(), look, points }],
        };
        assert_eq!(
            figure.csv(),
            "series,x,y,ci95,runs,failed,min,max\n\"SliM, 512 B\",100,1.500000,0.250000,2,1,1.000000,2.000000\n\
             \"SliM, 512 B\",200,3.000000,,0,0,3.000000,3.000000\n"
        );
    }
}

//! Figures as SVG.

use super::{Figure, Look, Marker, Point, Series};
use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use slim_controller::units::grouped;

/// The palette of Okabe and Ito, which people who confuse colours can tell apart, yellow replaced by grey.
const PALETTE: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(110, 110, 110),
    RGBColor(0, 0, 0),
];

const WIDTH: u32 = 960;
const HEIGHT: u32 = 460;
const LEGEND_WIDTH: i32 = 262;
const LEGEND_LINE: i32 = 23;
const FONT: &str = "sans-serif";

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Pixel = (i32, i32);

/// The figure as an SVG document.
///
/// # Errors
/// If it cannot be laid out.
pub fn svg(figure: &Figure) -> Result<String> {
    let mut svg = String::new();
    draw(figure, &mut svg).map_err(|error| anyhow!("{} cannot be drawn: {error}", figure.id))?;
    Ok(svg)
}

fn draw(figure: &Figure, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, (WIDTH, HEIGHT)).into_drawing_area();
    root.fill(&WHITE)?;
    root.draw(&Text::new(figure.title.clone(), (16, 12), (FONT, 19).into_font().color(&BLACK)))?;
    let (left, _) = root.split_horizontally(WIDTH as i32 - LEGEND_WIDTH);
    let top = top(figure);
    let mut chart = ChartBuilder::on(&left)
        .margin_top(48)
        .margin_right(22)
        .margin_bottom(10)
        .margin_left(8)
        .x_label_area_size(46)
        .y_label_area_size(66)
        .build_cartesian_2d(figure.x_range.0..figure.x_range.1, 0.0..top)?;
    chart
        .configure_mesh()
        .x_desc(figure.x_label.as_str())
        .y_desc(figure.y_label.as_str())
        .axis_desc_style((FONT, 16))
        .label_style((FONT, 14))
        .x_labels(11)
        .y_labels(8)
        .max_light_lines(0)
        .bold_line_style(BLACK.mix(0.12))
        .axis_style(BLACK.mix(0.7))
        .x_label_formatter(&|value| number(*value))
        .y_label_formatter(&|value| number(*value))
        .draw()?;
    let pixel = |x: f64, y: f64| chart.backend_coord(&(x, y));
    for series in &figure.series {
        line(&root, series, top, &pixel)?;
    }
    for series in &figure.series {
        points(&root, series, top, &pixel)?;
    }
    legend(&root, figure, top)?;
    root.present()?;
    Ok(())
}

/// Where the y-axis ends: a round number.
fn top(figure: &Figure) -> f64 {
    let points = figure.series.iter().flat_map(|series| &series.points);
    let highest = points.map(|point| point.y + point.ci95.unwrap_or(0.0)).fold(0.0, f64::max);
    let wanted = figure.y_max.map_or(highest * 1.04, |limit| limit.min(highest * 1.04));
    if wanted <= 0.0 {
        return 1.0;
    }
    let unit = 10f64.powf(wanted.log10().floor()) / 5.0;
    (wanted / unit).ceil() * unit
}

/// As many digits as it takes to tell labels apart, thousands in groups.
fn number(value: f64) -> String {
    if value.abs() >= 1000.0 {
        return grouped(value.round() as u64);
    }
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The part of the line between two points that is below `top`.
fn clipped(from: &Point, to: &Point, top: f64) -> Option<[(f64, f64); 2]> {
    let at_top = || {
        let share = (top - from.y) / (to.y - from.y);
        (from.x + share * (to.x - from.x), top)
    };
    match (from.y <= top, to.y <= top) {
        (true, true) => Some([(from.x, from.y), (to.x, to.y)]),
        (true, false) => Some([(from.x, from.y), at_top()]),
        (false, true) => Some([at_top(), (to.x, to.y)]),
        (false, false) => None,
    }
}

fn line(
    root: &Area<'_>,
    series: &Series,
    top: f64,
    pixel: &dyn Fn(f64, f64) -> Pixel,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut dash = Dash::default();
    for pair in series.points.windows(2) {
        if let Some(ends) = clipped(&pair[0], &pair[1], top) {
            let ends = ends.map(|(x, y)| pixel(x, y));
            stroke(root, series.look, ends, &mut dash)?;
        }
    }
    Ok(())
}

/// Where in its pattern a dashed line is, in pixels, so that it goes on over short pieces.
#[derive(Default)]
struct Dash(f64);

impl Dash {
    const ON: f64 = 7.0;
    const PERIOD: f64 = 12.0;
}

fn stroke(
    root: &Area<'_>,
    look: Look,
    [from, to]: [Pixel; 2],
    dash: &mut Dash,
) -> Result<(), Box<dyn std::error::Error>> {
    let style = colour(look).stroke_width(2);
    if !look.dashed {
        root.draw(&PathElement::new([from, to], style))?;
        return Ok(());
    }
    let length = f64::from(to.0 - from.0).hypot(f64::from(to.1 - from.1));
    let at = |distance: f64| {
        let share = if length > 0.0 { (distance / length).clamp(0.0, 1.0) } else { 0.0 };
        let between = |a: i32, b: i32| a + (f64::from(b - a) * share).round() as i32;
        (between(from.0, to.0), between(from.1, to.1))
    };
    // The dash that is under way began before this piece.
    let mut begin = -dash.0;
    while begin < length {
        if begin + Dash::ON > 0.0 {
            root.draw(&PathElement::new([at(begin), at(begin + Dash::ON)], style))?;
        }
        begin += Dash::PERIOD;
    }
    dash.0 = (dash.0 + length) % Dash::PERIOD;
    Ok(())
}

fn points(
    root: &Area<'_>,
    series: &Series,
    top: f64,
    pixel: &dyn Fn(f64, f64) -> Pixel,
) -> Result<(), Box<dyn std::error::Error>> {
    if series.look.marker == Marker::None {
        return Ok(());
    }
    for point in &series.points {
        if point.y > top {
            // Beyond the axis: an arrow; the legend has the value.
            let (x, y) = pixel(point.x, top);
            let tip = [(x, y - 9), (x - 5, y - 1), (x + 5, y - 1)];
            root.draw(&Polygon::new(tip, colour(series.look).filled()))?;
            continue;
        }
        if let Some(half) = point.ci95.filter(|half| *half > 0.0) {
            let ends = [(point.y - half).max(0.0), (point.y + half).min(top)].map(|y| pixel(point.x, y));
            let style = colour(series.look).stroke_width(1);
            root.draw(&PathElement::new(ends, style))?;
            for (x, y) in ends {
                root.draw(&PathElement::new([(x - 4, y), (x + 4, y)], style))?;
            }
        }
        let at = pixel(point.x, point.y);
        marker(root, series.look, at)?;
        if point.failed > 0 {
            cross(root, at)?;
        }
    }
    Ok(())
}

/// Marks a point with migrations that were not completed.
fn cross(root: &Area<'_>, (x, y): Pixel) -> Result<(), Box<dyn std::error::Error>> {
    for ends in [[(x - 6, y - 6), (x + 6, y + 6)], [(x - 6, y + 6), (x + 6, y - 6)]] {
        root.draw(&PathElement::new(ends, BLACK.stroke_width(2)))?;
    }
    Ok(())
}

fn marker(root: &Area<'_>, look: Look, (x, y): Pixel) -> Result<(), Box<dyn std::error::Error>> {
    let filled = colour(look).filled();
    let outline = colour(look).stroke_width(2);
    let square = [(x - 4, y - 4), (x + 4, y + 4)];
    let triangle = [(x, y - 5), (x - 5, y + 4), (x + 5, y + 4), (x, y - 5)];
    match look.marker {
        Marker::None => {}
        Marker::Disc => root.draw(&Circle::new((x, y), 4, filled))?,
        Marker::Circle => {
            root.draw(&Circle::new((x, y), 4, WHITE.filled()))?;
            root.draw(&Circle::new((x, y), 4, outline))?;
        }
        Marker::Square => root.draw(&Rectangle::new(square, filled))?,
        Marker::OpenSquare => {
            root.draw(&Rectangle::new(square, WHITE.filled()))?;
            root.draw(&Rectangle::new(square, outline))?;
        }
        Marker::Triangle => root.draw(&Polygon::new(triangle, filled))?,
        Marker::OpenTriangle => {
            root.draw(&Polygon::new(triangle, WHITE.filled()))?;
            root.draw(&PathElement::new(triangle, outline))?;
        }
    }
    Ok(())
}

/// Beside the data, so that it covers none; below it, what the picture cannot show.
fn legend(root: &Area<'_>, figure: &Figure, top: f64) -> Result<(), Box<dyn std::error::Error>> {
    let x = WIDTH as i32 - LEGEND_WIDTH + 6;
    let text = |text: &str, x: i32, y: i32, size: i32| {
        let font = (FONT, size).into_font().color(&BLACK).pos(Pos::new(HPos::Left, VPos::Center));
        root.draw(&Text::new(text.to_owned(), (x, y), font))
    };
    let mut y = 62;
    for series in &figure.series {
        stroke(root, series.look, [(x, y), (x + 30, y)], &mut Dash::default())?;
        marker(root, series.look, (x + 15, y))?;
        text(&series.name, x + 38, y, 14)?;
        y += LEGEND_LINE;
    }
    if figure.series.iter().flat_map(|series| &series.points).any(|point| point.failed > 0) {
        cross(root, (x + 15, y))?;
        text("migrations rolled back", x + 38, y, 14)?;
        y += LEGEND_LINE;
    }
    let marked = figure.series.iter().filter(|series| series.look.marker != Marker::None);
    let beyond: Vec<String> = marked
        .flat_map(|series| series.points.iter().filter(|point| point.y > top).map(move |point| (series, point)))
        .map(|(series, point)| format!("{} at {}: {}", series.name, number(point.x), short(point.y)))
        .collect();
    if !beyond.is_empty() {
        y += LEGEND_LINE / 2;
        text("Beyond the axis:", x, y, 12)?;
    }
    for line in &beyond {
        y += 17;
        text(line, x, y, 12)?;
    }
    Ok(())
}

/// Three digits or so.
fn short(value: f64) -> String {
    if value >= 100.0 { number(value.round()) } else { format!("{value:.1}") }
}

fn colour(look: Look) -> RGBColor {
    PALETTE[look.colour % PALETTE.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::model;

    #[test]
    fn a_figure_has_its_title_axes_and_every_series_in_its_legend() {
        let figure = model::figure_6();
        let svg = svg(&figure).unwrap();
        for text in
            [&figure.title, &figure.x_label, &figure.y_label].into_iter().chain(figure.series.iter().map(|s| &s.name))
        {
            assert!(svg.contains(text.as_str()), "{text}");
        }
    }

    #[test]
    fn lines_end_where_the_axis_does() {
        let (low, high) = (Point::computed(0.0, 1.0), Point::computed(10.0, 3.0));
        assert_eq!(clipped(&low, &high, 2.0), Some([(0.0, 1.0), (5.0, 2.0)]));
        assert_eq!(clipped(&high, &low, 2.0), Some([(5.0, 2.0), (0.0, 1.0)]));
        assert_eq!(clipped(&high, &high, 2.0), None);
        assert_eq!(clipped(&low, &high, 3.0), Some([(0.0, 1.0), (10.0, 3.0)]));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 0.5, 12.0, 1000.0, 65_536.0].map(number), ["0", "0.5", "12", "1,000", "65,536"]);
    }
}

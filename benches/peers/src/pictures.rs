//! Pictures of the results, as SVG.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::cells::open_cell;
use crate::child::End;
use crate::goal::short;
use crate::measure::{QUANTILES, float, quantile_name};
use crate::options::Options;
use crate::peer::{Failure, Kind};
use crate::peers;
use crate::results::Results;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// A peer's line.
type Line = (&'static Kind, Vec<(f64, f64)>);

/// What the names of the peers take beside a chart.
const LEGEND_PIXELS: u32 = 100;
/// Threads of the durable cells.
const CLIENTS: [(&str, f64); 4] = [("W1", 1.0), ("W2-8", 8.0), ("W2-32", 32.0), ("W2-64", 64.0)];

/// Draws what was measured; what was not leaves its picture out.
pub fn draw(directory: &Path, options: &Options, results: &Results) -> Result<(), Failure> {
    std::fs::create_dir_all(directory)?;
    latency(&directory.join("latency.svg"), results)?;
    throughput(&directory.join("throughput.svg"), results)?;
    open(&directory.join("open.svg"), options, results)
}

/// A chart with two logarithmic axes.
struct Chart<'a> {
    title: String,
    x: &'a str,
    y: &'a str,
    /// What the marks of the lower axis are powers of, and what is written there.
    x_base: f64,
    x_label: &'a dyn Fn(&f64) -> String,
    lines: Vec<Line>,
}

/// How long a durable append takes: the share of appends that take no longer, for 1 to 64 clients.
fn latency(path: &Path, results: &Results) -> Result<(), Failure> {
    let charts = CLIENTS.map(|(cell, clients)| Chart {
        title: format!("durable append, {clients} client{}", if clients > 1.0 { "s" } else { "" }),
        x: "percent of the appends",
        y: "microseconds at most",
        x_base: 10.0,
        x_label: &|x| format!("{}", 100.0 - 100.0 / x),
        lines: lines(|kind| {
            let point = |percent: f64| {
                // Nines are apart as powers of ten are.
                let x = 100.0 / (100.0 - percent);
                Some((x, results.median(cell, kind.name, &quantile_name(percent))?))
            };
            QUANTILES.into_iter().filter(|percent| *percent >= 10.0).filter_map(point).collect()
        }),
    });
    picture(path, (1200, 900), (2, 2), charts.into())
}

/// Durable events a second by clients.
fn throughput(path: &Path, results: &Results) -> Result<(), Failure> {
    let lines = lines(|kind| {
        let point =
            |(cell, clients): (&str, f64)| Some((clients, results.median(cell, kind.name, "events_per_s")?));
        CLIENTS.into_iter().filter_map(point).collect()
    });
    let chart = Chart {
        title: "durable appends, one event each".to_owned(),
        x: "clients",
        y: "events a second",
        x_base: 2.0,
        x_label: &|x| format!("{x:.0}"),
        lines,
    };
    picture(path, (800, 520), (1, 1), vec![chart])
}

/// How long opening takes, by the number of events.
fn open(path: &Path, options: &Options, results: &Results) -> Result<(), Failure> {
    let chart = |(end, words): (End, &str)| Chart {
        title: format!("open after {words}"),
        x: "events",
        y: "milliseconds",
        x_base: 10.0,
        x_label: &|x| format!("{x:.0}"),
        lines: lines(|kind| {
            let point = |size: &u64| {
                Some((float(*size), results.median(&open_cell(end, *size), kind.name, "open_ms")?))
            };
            options.sizes.iter().filter_map(point).collect()
        }),
    };
    let charts = [(End::Closed, "a clean close"), (End::Killed, "kill -9")].map(chart);
    picture(path, (1200, 520), (1, 2), charts.into())
}

fn lines(points: impl Fn(&'static Kind) -> Vec<(f64, f64)>) -> Vec<Line> {
    let lines = peers::ALL.iter().map(|kind| (kind, points(kind)));
    lines.filter(|(_, points)| points.len() > 1).collect()
}

fn picture(
    path: &Path,
    size: (u32, u32),
    grid: (usize, usize),
    charts: Vec<Chart<'_>>,
) -> Result<(), Failure> {
    if charts.iter().all(|chart| chart.lines.is_empty()) {
        return Ok(());
    }
    let root = SVGBackend::new(path, size).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, chart) in root.split_evenly(grid).iter().zip(&charts) {
        chart.draw(area)?;
    }
    Ok(root.present()?)
}

impl Chart<'_> {
    fn draw(&self, area: &Area<'_>) -> Result<(), Failure> {
        let points = || self.lines.iter().flat_map(|(_, points)| points);
        let least = |at: fn(&(f64, f64)) -> f64| points().map(at).fold(f64::INFINITY, f64::min);
        let most = |at: fn(&(f64, f64)) -> f64| points().map(at).fold(f64::NEG_INFINITY, f64::max);
        if points().next().is_none() {
            return Ok(());
        }
        let across = (least(|point| point.0)..most(|point| point.0)).log_scale().base(self.x_base);
        let up = (least(|point| point.1) / 1.5..most(|point| point.1) * 1.5).log_scale();
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 18))
            .margin(14)
            .margin_right(LEGEND_PIXELS + 14)
            .x_label_area_size(36)
            .y_label_area_size(64)
            .build_cartesian_2d(across, up)?;
        chart
            .configure_mesh()
            .x_desc(self.x)
            .y_desc(self.y)
            .x_label_formatter(&self.x_label)
            .y_label_formatter(&|y| short(*y))
            .x_labels(7)
            .max_light_lines(0)
            .draw()?;
        for (kind, points) in &self.lines {
            chart.draw_series(LineSeries::new(points.iter().copied(), style(kind)).point_size(2))?;
        }
        self.legend(area)
    }

    /// Names the lines, beside them, so that it hides none.
    fn legend(&self, area: &Area<'_>) -> Result<(), Failure> {
        let x = i32::try_from(area.dim_in_pixel().0.saturating_sub(LEGEND_PIXELS))?;
        for (y, (kind, _)) in (60..).step_by(20).zip(&self.lines) {
            area.draw(&PathElement::new(vec![(x, y), (x + 20, y)], style(kind)))?;
            area.draw(&Text::new(kind.name, (x + 26, y - 7), ("sans-serif", 14)))?;
        }
        Ok(())
    }
}

/// Ours stands out; the others have a colour each.
fn style(kind: &Kind) -> ShapeStyle {
    const COLOURS: [RGBColor; 8] = [
        RGBColor(214, 39, 40),
        RGBColor(44, 160, 44),
        RGBColor(227, 160, 8),
        RGBColor(31, 119, 180),
        RGBColor(140, 86, 75),
        RGBColor(148, 103, 189),
        RGBColor(23, 170, 190),
        BLACK,
    ];
    let number = peers::ALL.iter().position(|other| other == kind).unwrap_or_default();
    let width = if kind.name == peers::OURS { 3 } else { 1 };
    COLOURS[number % COLOURS.len()].stroke_width(width)
}

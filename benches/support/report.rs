//! What a bench says: a table of medians for people, JSON lines for programs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Failure;
use super::calibration::Cal;
use super::options::{Options, Scale};
use super::place::Place;
use super::rounds::{Bench, Cell, Measured};
use super::sample::{ENTITIES, PAYLOAD_BYTES};

/// Figures with their names, units included.
pub type Figures = Vec<(&'static str, f64)>;

/// A column of the table: which figure, and what stands above it.
pub struct Column {
    pub figure: &'static str,
    pub title: &'static str,
}

/// What a figure should reach.
#[derive(Clone, Copy)]
pub struct Goal {
    pub figure: &'static str,
    pub at_least: f64,
}

pub struct Report<'a> {
    bench: &'a Bench,
    /// What holds for all cells.
    common: Map<String, Value>,
    json: Option<Box<dyn Write>>,
    /// By cell, then by figure: one value per round.
    values: BTreeMap<(String, &'static str), Vec<f64>>,
    notes: Vec<String>,
    text: Text,
}

/// Where the text goes: beside JSON lines on standard output, to standard error.
#[derive(Clone, Copy)]
enum Text {
    Out,
    Error,
}

impl<'a> Report<'a> {
    /// Opens the output and prints what the bench runs with.
    pub fn new(bench: &'a Bench, options: &Options, place: &Place) -> Result<Report<'a>, Failure> {
        let text = if options.json.as_deref() == Some("-") { Text::Error } else { Text::Out };
        let common = parameters(options, place);
        let words: Vec<String> =
            common.iter().map(|(name, value)| format!("{name} {}", plain(value))).collect();
        text.line(&format!("{}: {}", bench.name, words.join(", ")));
        let json = options.json.as_deref().map(sink).transpose()?;
        Ok(Report { bench, common, json, values: BTreeMap::new(), notes: Vec::new(), text })
    }

    /// Takes one measurement of a cell, made between the samples of `cal`.
    pub fn record(
        &mut self,
        cell: &Cell<'_>,
        round: u32,
        measured: Measured,
        cal: &Cal,
    ) -> Result<(), Failure> {
        let mut figures = vec![("cal_mean_us", micros(cal.mean())), ("cal_p50_us", micros(cal.p50()))];
        figures.extend(measured.figures);
        if let Some(rate) = figure(&figures, "events_per_s").filter(|_| cell.is_durable) {
            figures.push(("per_cal", rate * cal.mean().as_secs_f64()));
        }
        for (name, value) in &figures {
            self.values.entry((cell.name.clone(), name)).or_default().push(*value);
        }
        let mut line = self.line(cell);
        line.insert("round".to_owned(), round.into());
        line.insert("cal_samples".to_owned(), cal.samples().into());
        line.extend(figures.iter().map(|(name, value)| ((*name).to_owned(), json!(value))));
        if let Some(note) = measured.note {
            self.notes.push(format!("{} (round {round}): {note}", cell.name));
            line.insert("note".to_owned(), note.into());
        }
        self.write_json(&line)
    }

    /// Prints the medians: the table, and a last JSON line per cell.
    pub fn finish(mut self, cells: &[Cell<'_>]) -> Result<(), Failure> {
        for cell in cells {
            let line = self.summary(cell);
            self.write_json(&line)?;
        }
        let header = ["cell"].into_iter().chain(self.bench.columns.iter().map(|column| column.title));
        let header = header.chain(["goal", "met"]).map(str::to_owned).collect();
        let rows = cells.iter().map(|cell| self.row(cell));
        self.text.table(&[header].into_iter().chain(rows).collect::<Vec<_>>());
        for note in self.notes.iter().chain(&self.disturbance()) {
            self.text.line(note);
        }
        Ok(())
    }

    /// A warning, if "cal" moved so much that others must have used the disk or the processor.
    fn disturbance(&self) -> Option<String> {
        const CALM: f64 = 1.5;
        let cals = self.values.iter().filter(|((_, figure), _)| *figure == "cal_mean_us");
        let cals = || cals.clone().flat_map(|(_, rounds)| rounds.iter().copied());
        let (least, most) = (cals().fold(f64::INFINITY, f64::min), cals().fold(0.0, f64::max));
        let text = format!(
            "DISTURBED: cal went from {} to {} us during this run; measure again on an idle machine",
            number(least),
            number(most)
        );
        (most > CALM * least).then_some(text)
    }

    fn row(&self, cell: &Cell<'_>) -> Vec<String> {
        let shown = |column: &Column| self.rounds(cell, column.figure).map_or("-".to_owned(), shown);
        let mut row = vec![cell.name.clone()];
        row.extend(self.bench.columns.iter().map(shown));
        row.extend(match (&cell.goal, self.met(cell)) {
            (Some(goal), Some(met)) => [
                format!(">= {} {}", number(goal.at_least), goal.figure),
                if met { "yes" } else { "NO" }.to_owned(),
            ],
            _ => [String::new(), String::new()],
        });
        row
    }

    /// All parameters, and every figure's median and spread over the rounds.
    fn summary(&self, cell: &Cell<'_>) -> Map<String, Value> {
        let mut line = self.line(cell);
        let (mut medians, mut spreads) = (Map::new(), Map::new());
        for ((_, name), rounds) in self.values.iter().filter(|((of, _), _)| *of == cell.name) {
            medians.insert((*name).to_owned(), json!(median(rounds)));
            spreads.insert((*name).to_owned(), json!(spread_percent(rounds)));
        }
        line.insert("median".to_owned(), medians.into());
        line.insert("spread_percent".to_owned(), spreads.into());
        if let (Some(goal), Some(met)) = (&cell.goal, self.met(cell)) {
            let goal = json!({ "figure": goal.figure, "at_least": goal.at_least, "met": met });
            line.insert("goal".to_owned(), goal);
        }
        line
    }

    fn line(&self, cell: &Cell<'_>) -> Map<String, Value> {
        let mut line = Map::new();
        line.insert("bench".to_owned(), self.bench.name.into());
        line.insert("cell".to_owned(), cell.name.clone().into());
        line.extend(self.common.clone());
        line.extend(cell.parameters.clone());
        line
    }

    /// Whether the median reaches the goal.
    fn met(&self, cell: &Cell<'_>) -> Option<bool> {
        let goal = cell.goal.as_ref()?;
        Some(median(self.rounds(cell, goal.figure)?) >= goal.at_least)
    }

    fn rounds(&self, cell: &Cell<'_>, figure: &'static str) -> Option<&[f64]> {
        self.values.get(&(cell.name.clone(), figure)).map(Vec::as_slice)
    }

    fn write_json(&mut self, line: &Map<String, Value>) -> Result<(), Failure> {
        let Some(json) = &mut self.json else { return Ok(()) };
        serde_json::to_writer(&mut *json, line)?;
        Ok(json.write_all(b"\n")?)
    }
}

impl Text {
    fn line(self, line: &str) {
        match self {
            Text::Out => println!("{line}"),
            Text::Error => eprintln!("{line}"),
        }
    }

    /// Prints rows of cells: the first column to the left, the others to the right.
    fn table(self, rows: &[Vec<String>]) {
        let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            rows.iter().filter_map(move |row| row.get(column)).map(|cell| cell.chars().count())
        };
        let widths: Vec<usize> = (0..columns).map(|column| width(column).max().unwrap_or_default()).collect();
        for row in rows {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("  {cell:>width$}"),
            });
            self.line(cells.collect::<String>().trim_end());
        }
    }
}

/// What every measurement of this run has in common.
fn parameters(options: &Options, place: &Place) -> Map<String, Value> {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let parameters = [
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("scale", json!(if options.scale == Scale::Bench { "bench" } else { "smoke" })),
        ("rounds", json!(options.rounds)),
        ("seconds", json!(options.time.as_secs_f64())),
        ("payload_bytes", json!(PAYLOAD_BYTES)),
        ("entities", json!(ENTITIES)),
        ("cores", json!(cores)),
        ("directory", json!(place.path())),
        ("file_system", json!(place.file_system())),
    ];
    parameters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn sink(target: &str) -> io::Result<Box<dyn Write>> {
    match target {
        "-" => Ok(Box::new(io::stdout())),
        path => Ok(Box::new(File::create(path)?)),
    }
}

fn figure(figures: &[(&'static str, f64)], name: &str) -> Option<f64> {
    figures.iter().find(|(other, _)| *other == name).map(|(_, value)| *value)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn median(rounds: &[f64]) -> f64 {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.get((sorted.len().max(1) - 1) / 2), sorted.get(sorted.len() / 2)) {
        (Some(low), Some(high)) => f64::midpoint(*low, *high),
        _ => f64::NAN,
    }
}

/// Half of what lies between the extremes, relative to the median.
fn spread_percent(rounds: &[f64]) -> f64 {
    let least = rounds.iter().copied().fold(f64::INFINITY, f64::min);
    let most = rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    // Of rounds that were all nothing there is no relative spread.
    if most > least { 50.0 * (most - least) / median(rounds) } else { 0.0 }
}

/// The median, and the spread where there is one.
fn shown(rounds: &[f64]) -> String {
    match rounds {
        [one] => number(*one),
        rounds => format!("{} ±{:.0}%", number(median(rounds)), spread_percent(rounds)),
    }
}

/// A number with about three digits, and thousands set apart.
fn number(value: f64) -> String {
    match value.abs() {
        small if small < 10.0 => format!("{value:.2}"),
        medium if medium < 100.0 => format!("{value:.1}"),
        _ => grouped(&format!("{value:.0}")),
    }
}

fn grouped(digits: &str) -> String {
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).expect("digits")).collect();
    groups.join(",")
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

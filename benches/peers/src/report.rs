//! What comes out: a table for people, in Markdown, and JSON lines for programs.

use std::fs::File;
use std::io::{self, Write};

use serde_json::{Value, json};

use crate::accounts;
use crate::goal::{ahead_of_best, short};
use crate::limits;
use crate::machine;
use crate::measure::{median, spread_percent};
use crate::options::Options;
use crate::peer::{Class, Failure, Kind};
use crate::peers;
use crate::results::{CAL, Results};
use crate::rows::{Row, Unit};

/// The JSON lines as they come, and what failed.
pub struct Journal {
    file: Option<File>,
    common: Value,
    failures: Vec<String>,
}

impl Journal {
    /// Lines go to the file that the options name, if they name one.
    pub fn new(options: &Options, machine: &str) -> io::Result<Journal> {
        let file = options.json.as_ref().map(File::create).transpose()?;
        let common = json!({
            "date": machine::date(),
            "machine": machine,
            "rounds": options.rounds,
            "seconds": options.time.as_secs_f64(),
            "is_quick": options.is_quick,
        });
        Ok(Journal { file, common, failures: Vec::new() })
    }

    pub fn write(&mut self, line: Value) -> Result<(), Failure> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut all = self.common.clone();
        if let (Value::Object(all), Value::Object(line)) = (&mut all, line) {
            all.extend(line);
        }
        Ok(writeln!(file, "{all}")?)
    }

    /// Remembers a measurement that failed, to be told below the table.
    pub fn failed(&mut self, what: String) {
        self.failures.push(what);
    }
}

/// Prints the table and what belongs to it, and writes each row as a last JSON line. Fails if a
/// measurement did.
pub fn finish(
    out: &mut dyn Write,
    options: &Options,
    machine: &str,
    rows: &[Row],
    results: &Results,
    mut journal: Journal,
) -> Result<(), Failure> {
    let kinds: Vec<&Kind> = peers::ALL.iter().filter(|kind| options.wants_peer(kind)).collect();
    let measured = |row: &&Row| kinds.iter().any(|kind| !rounds(row, kind, results).is_empty());
    let rows: Vec<&Row> = rows.iter().filter(measured).collect();
    for row in &rows {
        journal.write(summary(row, &kinds, results))?;
    }
    writeln!(out, "annals beside its peers, {}; {machine}", machine::date())?;
    writeln!(out, "{}; {}", medians(options.rounds), versions(&kinds))?;
    if options.is_quick {
        writeln!(out, "QUICK: this shows that it works; the figures say little")?;
    }
    writeln!(out)?;
    limits_table(out, results)?;
    let mut lines = vec![header(&kinds)];
    lines.extend(rows.iter().map(|row| cells(row, &kinds, results)));
    table(out, &lines)?;
    writeln!(out, "\n{LEGEND}")?;
    for account in accounts::ALL.iter().filter(|account| rows.iter().any(|row| row.title == account.name)) {
        writeln!(out, "- {}: {}", account.name, account.note)?;
    }
    for line in journal.failures.iter().chain(&disturbance(&rows, &kinds, results)) {
        writeln!(out, "{line}")?;
    }
    match journal.failures.len() {
        0 => Ok(()),
        failures => Err(format!("{failures} measurements failed").into()),
    }
}

const LEGEND: &str = "\
limit: what the machine allows, measured in this run (cal: 256 bytes overwritten and fdatasync)
x store: how many times better annals is than the best of batpak, tephra, umadb; x peer: sqlite, fjall, redb too (okaywal is
a bare log: a ceiling, no peer); of limit: 1 is the limit; -: cannot, or no such promise
durable: acknowledged after the sync, for everyone; buffered: before it (redb's buffered does not survive kill -9)";

fn rounds<'a>(row: &Row, kind: &Kind, results: &'a Results) -> &'a [f64] {
    results.rounds(&row.cell, kind.name, row.figure)
}

fn header(kinds: &[&Kind]) -> Vec<String> {
    let names = kinds.iter().map(|kind| kind.name);
    let all = ["workload", "limit"].into_iter().chain(names);
    all.chain(["x store", "x peer", "of limit", "goal", "met"]).map(str::to_owned).collect()
}

fn cells(row: &Row, kinds: &[&Kind], results: &Results) -> Vec<String> {
    let limit = row.limit.and_then(|limit| limit.value(row, results));
    let ours = results.median(&row.cell, peers::OURS, row.figure);
    let of_limit = limit.zip(ours).map(
        |(limit, ours)| {
            if row.unit.is_more_better() { ours / limit } else { limit / ours }
        },
    );
    let times = |ratio: Option<f64>| ratio.map_or("-".to_owned(), short);
    let mut cells = vec![row.title.clone(), limit.map_or("-".to_owned(), |limit| shown(row.unit, limit))];
    cells.extend(kinds.iter().map(|kind| with_spread(row.unit, rounds(row, kind, results))));
    cells.push(times(ahead_of_best(row, results, &[Class::EventStore])));
    cells.push(times(ahead_of_best(row, results, &[Class::EventStore, Class::Database])));
    cells.push(times(of_limit));
    let goals = row.goals.iter().filter(|_| ours.is_some());
    let judged: Vec<(String, Option<bool>)> =
        goals.map(|goal| (goal.text(), goal.is_met(row, results))).collect();
    cells.push(judged.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>().join("; "));
    let met = |met: &Option<bool>| met.map_or("?", |met| if met { "yes" } else { "NO" });
    cells.push(judged.iter().map(|(_, is_met)| met(is_met)).collect::<Vec<_>>().join("; "));
    cells
}

fn summary(row: &Row, kinds: &[&Kind], results: &Results) -> Value {
    let of_peer = |kind: &&Kind| {
        let rounds = rounds(row, kind, results);
        let value =
            json!({ "median": median(rounds), "spread_percent": spread_percent(rounds), "rounds": rounds });
        (!rounds.is_empty()).then(|| (kind.name.to_owned(), value))
    };
    let goals: Vec<Value> = row
        .goals
        .iter()
        .map(|goal| json!({ "goal": goal.text(), "met": goal.is_met(row, results) }))
        .collect();
    json!({
        "row": row.title, "cell": row.cell, "figure": row.figure, "unit": format!("{:?}", row.unit),
        "limit": row.limit.and_then(|limit| limit.value(row, results)),
        "peers": kinds.iter().filter_map(of_peer).collect::<serde_json::Map<_, _>>(),
        "times_best_event_store": ahead_of_best(row, results, &[Class::EventStore]),
        "times_best_peer": ahead_of_best(row, results, &[Class::EventStore, Class::Database]),
        "goals": goals,
    })
}

fn limits_table(out: &mut dyn Write, results: &Results) -> io::Result<()> {
    let lines = limits::NAMES.iter().filter_map(|(figure, words)| {
        results.machine(figure).map(|value| vec![(*words).to_owned(), short(value)])
    });
    let header = vec!["the machine, in this run".to_owned(), String::new()];
    let lines: Vec<_> = [header].into_iter().chain(lines).collect();
    table(out, &lines)?;
    writeln!(out)
}

fn medians(rounds: u32) -> String {
    match rounds {
        1 => "one round".to_owned(),
        _ => format!("medians of {rounds} rounds (± half of what lies between the extremes)"),
    }
}

/// A warning, if "cal" moved so much that others must have used the disk or the processor.
fn disturbance(rows: &[&Row], kinds: &[&Kind], results: &Results) -> Option<String> {
    const CALM: f64 = 1.5;
    let cals = || {
        let of_row = |row: &&Row| {
            kinds.iter().flat_map(|kind| results.rounds(&row.cell, kind.name, CAL)).collect::<Vec<_>>()
        };
        rows.iter().flat_map(of_row).copied()
    };
    let (least, most) = (cals().fold(f64::INFINITY, f64::min), cals().fold(0.0, f64::max));
    (most > CALM * least).then(|| {
        format!("DISTURBED: cal went from {least:.0} to {most:.0} us in this run; measure again on an idle machine")
    })
}

fn versions(kinds: &[&Kind]) -> String {
    let version = |kind: &&Kind| format!("{} {}", kind.package, machine::version(kind.package));
    kinds.iter().map(version).collect::<Vec<_>>().join(", ")
}

/// The median, and the spread where there is one.
fn with_spread(unit: Unit, rounds: &[f64]) -> String {
    match rounds {
        [] => "-".to_owned(),
        [one] => shown(unit, *one),
        rounds => format!("{} ±{:.0}%", shown(unit, median(rounds)), spread_percent(rounds)),
    }
}

/// A value with its unit, for people.
fn shown(unit: Unit, value: f64) -> String {
    match unit {
        Unit::PerSecond => format!("{}/s", short(value)),
        Unit::Millis => shown(Unit::Micros, value * 1e3),
        Unit::Micros if value < 0.1 => format!("{:.0} ns", value * 1e3),
        Unit::Micros if value < 1e3 => format!("{} us", short(value)),
        Unit::Micros if value < 1e6 => format!("{} ms", short(value / 1e3)),
        Unit::Micros => format!("{} s", short(value / 1e6)),
        Unit::Mebibytes => format!("{} MiB", short(value)),
        Unit::Bytes => format!("{} B", short(value)),
    }
}

/// Prints rows of cells as Markdown, columns below one another: the first to the left, the others to the
/// right.
fn table(out: &mut dyn Write, rows: &[Vec<String>]) -> io::Result<()> {
    let columns = rows.first().map_or(0, Vec::len);
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default().max(3);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for (number, row) in rows.iter().enumerate() {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            match column {
                0 => write!(out, "| {cell:<width$} ")?,
                _ => write!(out, "| {cell:>width$} ")?,
            }
        }
        writeln!(out, "|")?;
        if number == 0 {
            for (column, width) in widths.iter().enumerate() {
                let (dashes, end) = ("-".repeat(width + 1), if column == 0 { "-" } else { ":" });
                write!(out, "|{dashes}{end}")?;
            }
            writeln!(out, "|")?;
        }
    }
    Ok(())
}

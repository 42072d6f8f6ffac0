//! annals beside batpak 0.10: the same operations, in one process, in turns.
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- --rounds 5
//! ```

mod cells;
mod machine;
mod measure;
mod ours;
mod peer;
mod theirs;

use std::path::PathBuf;

use cells::{Bench, Cell};
use measure::{Failure, median};
use serde_json::json;

const HELP: &str = "\
cargo run --release --manifest-path benches/peers/Cargo.toml -- [options]
  --rounds N   rounds; annals and batpak take turns, the table has medians (default: 3)
  --events N   events of the entity that is rebuilt and loaded (default: 10000)
  --only TEXT  only cells whose name contains it
  --dir PATH   measure on the disk of this directory (default: this package's target/)
  --json       one JSON object per cell instead of the table";

struct Options {
    rounds: u32,
    events: u64,
    only: String,
    directory: PathBuf,
    json: bool,
}

/// What the rounds gave for one cell.
struct Row<'a> {
    cell: &'a Cell,
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

fn main() {
    let options = parse(std::env::args().skip(1)).unwrap_or_else(|what| {
        eprintln!("{what}\n{HELP}");
        std::process::exit(2)
    });
    if let Err(failure) = run(&options) {
        eprintln!("stopped: {failure}");
        std::process::exit(1)
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target");
    let mut options = Options { rounds: 3, events: 10_000, only: String::new(), directory, json: false };
    while let Some(name) = arguments.next() {
        if name == "--json" {
            options.json = true;
            continue;
        }
        let value = arguments.next().ok_or_else(|| format!("{name} is no option, or needs a value"))?;
        let wrong = || format!("{name} {value} makes no sense");
        match name.as_str() {
            "--rounds" => options.rounds = value.parse().ok().filter(|n| *n > 0).ok_or_else(wrong)?,
            "--events" => options.events = value.parse().ok().filter(|n| *n > 0).ok_or_else(wrong)?,
            "--only" => options.only = value,
            "--dir" => options.directory = value.into(),
            _ => return Err(format!("{name} is no option")),
        }
    }
    Ok(options)
}

fn run(options: &Options) -> Result<(), Failure> {
    let directory = options.directory.join(format!("annals-peers-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let bench = Bench { directory: directory.canonicalize()?, events: options.events, stores: 0.into() };
    let measured = measure(&bench, options);
    std::fs::remove_dir_all(&bench.directory)?;
    measured
}

fn measure(bench: &Bench, options: &Options) -> Result<(), Failure> {
    let mut cells = cells::all();
    cells.retain(|cell| cell.name.contains(&options.only));
    let mut rows: Vec<Row<'_>> =
        cells.iter().map(|cell| Row { cell, ours: Vec::new(), theirs: Vec::new() }).collect();
    for round in 0..options.rounds {
        for row in &mut rows {
            eprint!("\rround {} of {}: {:<40}", round + 1, options.rounds, row.cell.name);
            // Whoever comes first may find the disk busier: they take turns in that, too.
            if round % 2 == 0 {
                row.ours.push((row.cell.ours)(bench)?);
            }
            if let Some(theirs) = row.cell.theirs {
                row.theirs.push(theirs(bench)?);
            }
            if round % 2 == 1 {
                row.ours.push((row.cell.ours)(bench)?);
            }
        }
    }
    eprintln!("\r{:<70}", "");
    let machine = machine::describe(&bench.directory)?;
    let events = options.events;
    let rounds = options.rounds;
    if options.json {
        for row in &rows {
            println!("{}", row.json(&machine, events));
        }
        return Ok(());
    }
    println!("annals {} beside batpak 0.10.0", machine::annals_version());
    println!("{machine}");
    println!(
        "payload and state {{ cents: u64 }}; {events} events; medians of {rounds} rounds, taken in turns\n"
    );
    println!("{:<28} {:>12} {:>12} {:>8}   ", "", "annals", "batpak", "ratio");
    rows.iter().for_each(|row| println!("{}", row.line()));
    println!("\nratio: how many times faster annals is; below 1 it is slower");
    rows.iter().for_each(|row| println!("- {}: {}", row.cell.name, row.cell.note));
    Ok(())
}

/// A ratio with two digits at least.
fn times(ratio: f64) -> String {
    if ratio < 0.1 { format!("{ratio:.4}") } else { format!("{ratio:.2}") }
}

impl Row<'_> {
    fn line(&self) -> String {
        let (unit, ours) = (self.cell.unit, median(self.ours.clone()));
        let theirs = self.cell.theirs.map(|_| median(self.theirs.clone()));
        let ratio = theirs.map_or("-".to_owned(), |theirs| times(unit.ratio(ours, theirs)));
        let theirs = theirs.map_or("-".to_owned(), |theirs| unit.show(theirs));
        format!("{:<28} {:>12} {:>12} {:>8}", self.cell.name, unit.show(ours), theirs, ratio)
    }

    fn json(&self, machine: &str, events: u64) -> String {
        let unit = if self.cell.unit == measure::Unit::Seconds { "s" } else { "1/s" };
        json!({
            "cell": self.cell.name, "unit": unit, "note": self.cell.note, "machine": machine, "events": events,
            "annals": self.ours, "batpak": self.theirs,
        })
        .to_string()
    }
}

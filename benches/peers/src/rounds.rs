//! The order of measuring: every cell once per round and peer, a calibration between any two.

use std::io::{self, IsTerminal};

use serde_json::{Map, Value, json};

use crate::cells::{Bench, Cell};
use crate::limits::{self, Cal};
use crate::machine;
use crate::peer::{Failure, Kind};
use crate::peers;
use crate::report::Journal;
use crate::results::{CAL, MACHINE, Results};

/// Rounds are the outer loop. So a bad second of the device hits one round of a few cells, and not all rounds
/// of one. The first peer of a round may find the disk busier, so every other round has the reverse order.
pub fn run(bench: &Bench<'_>, cells: &[Cell], journal: &mut Journal) -> Result<Results, Failure> {
    let options = bench.options;
    let mut results = Results::default();
    let mut cal = Cal::new(bench.place.path(), if options.is_quick { 20 } else { 300 })?;
    for round in 1..=options.rounds {
        tell(&format!("round {round} of {}: the machine", options.rounds));
        let limits = limits::measure(bench.place.path(), options.is_quick)?;
        results.add(MACHINE, MACHINE, &limits);
        journal.write(json!({ "cell": MACHINE, "round": round, "figures": limits }))?;
        let mut before = cal.measure()?;
        for cell in cells {
            for kind in in_turn(bench, cell, round) {
                tell(&format!("round {round} of {}: {}, {}", options.rounds, cell.name, kind.name));
                let measured = (cell.measure)(bench, kind);
                let after = cal.measure()?;
                let line = line(cell, kind, round);
                match measured {
                    Ok(None) => {}
                    Ok(Some(mut figures)) => {
                        figures.insert(CAL.to_owned(), f64::midpoint(before, after));
                        results.add(&cell.name, kind.name, &figures);
                        journal.write(with(line, "figures", json!(figures)))?;
                    }
                    // One that fails does not end the others.
                    Err(failure) => {
                        journal.failed(format!(
                            "FAILED in round {round}: {}, {}: {failure}",
                            cell.name, kind.name
                        ));
                        journal.write(with(line, "failure", json!(failure.to_string())))?;
                    }
                }
                before = after;
            }
        }
    }
    tell("");
    Ok(results)
}

fn in_turn(bench: &Bench<'_>, cell: &Cell, round: u32) -> Vec<&'static Kind> {
    let wanted = |kind: &&Kind| bench.options.wants_peer(kind) && (cell.is_for)(kind);
    let mut kinds: Vec<&Kind> = peers::ALL.iter().filter(wanted).collect();
    if round.is_multiple_of(2) {
        kinds.reverse();
    }
    kinds
}

fn line(cell: &Cell, kind: &Kind, round: u32) -> Value {
    let mut line = cell.parameters.as_object().cloned().unwrap_or_default();
    line.extend(Map::from_iter([
        ("cell".to_owned(), json!(cell.name)),
        ("peer".to_owned(), json!(kind.name)),
        ("version".to_owned(), json!(machine::version(kind.package))),
        ("round".to_owned(), json!(round)),
        ("load".to_owned(), json!(machine::load())),
    ]));
    line.into()
}

fn with(mut line: Value, name: &str, value: Value) -> Value {
    line[name] = value;
    line
}

/// Says what is going on; in a terminal over what it said before, otherwise not at all.
fn tell(what: &str) {
    if io::stderr().is_terminal() {
        eprint!("\r{what:<110}\r{what}");
    }
}

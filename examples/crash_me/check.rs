//! Proves every acknowledged event, and prints the events of a store.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{BufRead, BufWriter, Write as _};

use annals::{Error, Position, Query, Store};

use crate::{payload, say};

/// Faults that are printed one by one.
const FAULTS_SHOWN: u64 = 10;

pub enum Verdict {
    Fine(String),
    /// An acknowledged event is missing or wrong.
    Lost(String),
    /// The store reports damage.
    Damaged(String),
}

impl Verdict {
    pub fn text(&self) -> &str {
        match self {
            Verdict::Fine(text) | Verdict::Lost(text) | Verdict::Damaged(text) => text,
        }
    }
}

/// Verifies the store, and compares the event of each `ack` line with its content.
///
/// Other lines are passed over. The last line may be torn. Its position without the last digits is smaller,
/// so an event at it exists as well; but it may come twice.
pub fn check(store: &Store, mut lines: impl BufRead) -> Result<Verdict, Error> {
    // Opening does not read sealed segments.
    let report = store.verify()?;
    if !report.is_clean() {
        return Ok(Verdict::Damaged(report.to_string()));
    }
    let mut seen = HashSet::new();
    let mut faults = 0;
    let mut passed_over = 0_u64;
    let mut line = Vec::new();
    while matches!(lines.read_until(b'\n', &mut line), Ok(1..)) {
        match acknowledged(&line) {
            Some(position) => {
                let is_new = seen.insert(position) || !line.ends_with(b"\n");
                let fault = if is_new { fault_at(store, position)? } else { Some("was acknowledged twice") };
                if let Some(fault) = fault {
                    faults += 1;
                    if faults <= FAULTS_SHOWN {
                        say(&format!("the event at position {position} {fault}"));
                    }
                }
            }
            None => passed_over += 1,
        }
        line.clear();
    }
    let counted = format!("{} acknowledged, {passed_over} other lines, {faults} faults", seen.len());
    Ok(if faults == 0 { Verdict::Fine(counted) } else { Verdict::Lost(counted) })
}

fn acknowledged(line: &[u8]) -> Option<Position> {
    std::str::from_utf8(line).ok()?.strip_prefix("ack ")?.trim_end().parse().ok()
}

fn fault_at(store: &Store, position: Position) -> Result<Option<&'static str>, Error> {
    match store.at(position)? {
        Some(event) => payload::fault_of(&event),
        None => Ok(Some("is missing")),
    }
}

/// Prints position, id and chain hash of every event in order, then verifies the whole store.
pub fn dump(store: &Store) -> Result<Verdict, Error> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    for event in store.read(Query::all()) {
        let event = event?;
        if writeln!(out, "{} {} {}", event.position(), event.id(), hex(&event.chain())).is_err() {
            break;
        }
    }
    let _ = out.flush();
    let report = store.verify()?;
    Ok(if report.is_clean() {
        Verdict::Fine(report.to_string())
    } else {
        Verdict::Damaged(report.to_string())
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

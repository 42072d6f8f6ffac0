//! How fast a store is verified, on one thread: checksums, hash chain, positions, versions.
//!
//! Two stores of about the same number of bytes, each filled once. One has `--size` events with a payload of
//! 177 bytes, an append each; the other has frames of 64 KiB. The page cache is warm.
//!
//! `cargo bench --bench verify -- --help` names the options.

mod support;

use std::time::Instant;

use annals::{Append, Error, EventData, Store};
use support::options::{Options, Scale};
use support::place::Place;
use support::report::{Column, Goal};
use support::rounds::{Bench, Cell, run};
use support::sample::{Sample, open_buffered};
use support::{Failure, float};

const BENCH: Bench = Bench {
    name: "verify",
    columns: &[
        Column { figure: "mb_per_s", title: "MB/s" },
        Column { figure: "events_per_s", title: "events/s" },
        Column { figure: "bytes_per_event", title: "bytes/event" },
    ],
};

/// A payload of these bytes.
struct Blob(Vec<u8>);

impl EventData for Blob {
    fn kind(&self) -> &str {
        "blob.stored"
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        out.extend_from_slice(&self.0);
        Ok(())
    }
}

fn main() -> Result<(), Failure> {
    let options = Options::from_command_line();
    let place = Place::new(&options.directory, BENCH.name)?;
    let small = open_buffered(&place.store("small"))?;
    Sample::new().fill(&small, options.events)?;
    let large = open_buffered(&place.store("large"))?;
    let blob = Blob((0..64 << 10).map(|number: u32| number.to_le_bytes()[0]).collect());
    for number in 0..(options.events / 180).max(1) {
        Append::to(format!("blob:{number}")).event(&blob).commit(&large)?;
    }
    let mut cells = vec![cell("events", 400.0, &small), cell("frames-64k", 1000.0, &large)];
    for cell in &mut cells {
        cell.parameters.insert("size_events".to_owned(), options.events.into());
        if options.scale == Scale::Smoke {
            cell.goal = None;
        }
    }
    run(&BENCH, &options, &place, cells)?;
    small.close()?;
    Ok(large.close()?)
}

fn cell<'a>(name: &str, goal: f64, store: &'a Store) -> Cell<'a> {
    Cell {
        name: name.to_owned(),
        parameters: serde_json::Map::new(),
        goal: Some(Goal { figure: "mb_per_s", at_least: goal }),
        is_durable: false,
        measure: Box::new(move || {
            let began = Instant::now();
            let report = store.verify()?;
            let seconds = began.elapsed().as_secs_f64();
            assert!(report.is_clean(), "{report}");
            let (bytes, events) = (float(report.bytes), float(report.events));
            let figures = vec![
                ("mb_per_s", bytes / seconds / 1e6),
                ("events_per_s", events / seconds),
                ("bytes_per_event", bytes / events),
            ];
            Ok(figures.into())
        }),
    }
}

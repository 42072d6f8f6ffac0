//! How fast reads are: replay, streams, single events by id, the newest few.
//!
//! One store of `--size` events, filled once and made durable; nothing is appended during a read. "Raw" looks
//! at every byte of a payload without decoding it. Checksums are verified on every read, as always.
//!
//! `cargo bench --bench read -- --help` names the options.

mod support;

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use annals::{Error, EventId, Position, Query, RecordedEvent, Store};
use serde_json::json;
use support::latency::Latency;
use support::options::Options;
use support::place::{Place, bytes_in};
use support::report::{Column, Figures, Goal};
use support::rounds::{Bench, Cell, run};
use support::sample::{ENTITIES, Order, OrderRef, Sample, entity, open_buffered, scattered};
use support::{Failure, float};

const BENCH: Bench = Bench {
    name: "read",
    columns: &[
        Column { figure: "events_per_s", title: "events/s" },
        Column { figure: "p50_us", title: "p50 us" },
        Column { figure: "p99_us", title: "p99 us" },
        Column { figure: "p99_9_us", title: "p99.9 us" },
        Column { figure: "max_us", title: "max us" },
        Column { figure: "bytes_per_event", title: "bytes/event" },
    ],
};

/// How many different events are fetched by id.
const IDS: u64 = 100_000;

fn main() -> Result<(), Failure> {
    let options = Options::from_command_line();
    let place = Place::new(&options.directory, BENCH.name)?;
    let sizes = &options.append_sizes;
    let stores = sizes.iter().map(|size| SizedStore::fill(&place, &options, *size));
    let stores = stores.collect::<Result<Vec<_>, Failure>>()?;
    let mut cells = Vec::new();
    for sized in &stores {
        cells.extend(sized.cells(&options)?);
    }
    run(&BENCH, &options, &place, cells)?;
    Ok(())
}

/// A store that was filled by appends of one size, closed, and opened again: whole, and with no segment in
/// memory. The index is.
struct SizedStore {
    append_size: u64,
    directory: PathBuf,
    resident: Store,
    from_file: Store,
}

impl SizedStore {
    fn fill(place: &Place, options: &Options, append_size: u64) -> Result<SizedStore, Failure> {
        let directory = place.store(&format!("store-{append_size}"));
        let store = open_buffered(&directory)?;
        Sample::new().fill_by(&store, options.events, append_size)?;
        store.close()?;
        let open =
            |segment_bytes| Store::builder(&directory).segment_memory_bytes(segment_bytes).open_read_only();
        let resident = open(u64::MAX)?;
        let from_file = open(0)?;
        Ok(SizedStore { append_size, directory, resident, from_file })
    }

    fn cells(&self, options: &Options) -> Result<Vec<Cell<'_>>, Failure> {
        let events = options.events;
        let time = options.time;
        let resident = Stored { store: &self.resident, events, time };
        let from_file = Stored { store: &self.from_file, events, time };
        let ids = resident.ids()?;
        let ids_from_file = ids.clone();
        let mut cells = resident.cells(ids)?;
        cells.push(from_file.stream("stream/raw-from-file", raw));
        cells.push(cell("get-from-file", None, move || from_file.get(&ids_from_file)));
        cells.push(cell("replay/raw-from-file", None, move || from_file.replay(raw)));
        let directory = &self.directory;
        cells.push(cell("open", None, move || open_again_and_again(directory, time)));
        let disk = float(bytes_in(&self.directory)?) / float(events);
        cells.push(cell("disk", None, move || Ok(vec![("bytes_per_event", disk)])));
        for cell in &mut cells {
            if self.append_size > 1 {
                cell.name = format!("{}/append-{}", cell.name, self.append_size);
            }
            cell.parameters.insert("size_events".to_owned(), events.into());
            cell.parameters.insert("append_size".to_owned(), self.append_size.into());
        }
        Ok(cells)
    }
}

/// Opens the store for writing and closes it, again and again until the time is up.
fn open_again_and_again(directory: &Path, time: Duration) -> Result<Figures, Error> {
    let mut latency = Latency::new();
    let deadline = Instant::now() + time;
    while latency.count() == 0 || Instant::now() < deadline {
        let began = Instant::now();
        let store = Store::open(directory)?;
        latency.record(began.elapsed());
        store.close()?;
    }
    Ok(latency.figures())
}

fn cell<'a>(
    name: &str,
    goal: Option<Goal>,
    mut measure: impl FnMut() -> Result<Figures, Error> + 'a,
) -> Cell<'a> {
    Cell {
        name: name.to_owned(),
        parameters: serde_json::Map::new(),
        goal,
        is_durable: false,
        measure: Box::new(move || Ok(measure()?.into())),
    }
}

/// The store that is read, and for how long.
#[derive(Clone, Copy)]
struct Stored<'a> {
    store: &'a Store,
    events: u64,
    time: Duration,
}

impl<'a> Stored<'a> {
    fn cells(self, ids: Vec<EventId>) -> Result<Vec<Cell<'a>>, Error> {
        let decoded = Goal { figure: "events_per_s", at_least: 3e6 };
        Ok(vec![
            cell("replay/raw", None, move || self.replay(raw)),
            cell("replay/decoded", None, move || self.replay(owned)),
            cell("replay/decoded-borrowed", None, move || self.replay(borrowed)),
            cell("replay/decoded-read-ahead", None, move || self.replay_ahead()),
            cell("replay/decoded-by-2-threads", Some(decoded), move || self.replay_in_halves()),
            cell("decode-without-store", None, move || self.decode()),
            self.stream("stream/raw", raw),
            self.stream("stream/decoded", owned),
            cell("stream/newest-10", None, move || {
                self.over_entities(|entity| each(self.store.stream(entity).backwards().limit(10), raw))
            }),
            cell("all/newest-10", None, move || {
                self.over_entities(|_| each(self.store.read(Query::all()).backwards().limit(10), raw))
            }),
            cell("get", None, move || self.get(&ids)),
        ])
    }

    /// Reads everything, again and again until the time is up.
    fn replay(&self, look: fn(&RecordedEvent) -> Result<(), Error>) -> Result<Figures, Error> {
        self.again_and_again(|| each(self.store.read(Query::all()), look))
    }

    fn again_and_again(&self, replay: impl Fn() -> Result<u64, Error>) -> Result<Figures, Error> {
        let began = Instant::now();
        let mut events = 0;
        while events == 0 || began.elapsed() < self.time {
            events += replay()?;
        }
        assert!(events.is_multiple_of(self.events), "a replay sees every event");
        Ok(vec![("events_per_s", float(events) / began.elapsed().as_secs_f64())])
    }

    /// One thread decodes everything, while another one reads ahead.
    fn replay_ahead(&self) -> Result<Figures, Error> {
        self.again_and_again(|| each(self.store.read(Query::all()).read_ahead(), owned))
    }

    /// Two threads read and decode one half each, again and again until the time is up.
    fn replay_in_halves(&self) -> Result<Figures, Error> {
        let half = self.events / 2;
        let read = || self.store.read(Query::all());
        self.again_and_again(|| {
            std::thread::scope(|scope| {
                let first = scope.spawn(|| each(read().limit(half), owned));
                let second = each(read().after(Position::from(half)), owned)?;
                Ok(first.join().expect("the other half does not panic")? + second)
            })
        })
    }

    /// Decodes as many payloads as a replay does, but from memory: what no store could be faster than.
    fn decode(&self) -> Result<Figures, Error> {
        let payloads: Vec<Vec<u8>> = Sample::new().payloads().collect();
        let began = Instant::now();
        for payload in payloads.iter().cycle().zip(0..self.events).map(|(payload, _)| payload) {
            black_box(rmp_serde::from_slice::<Order>(payload).expect("it was just encoded"));
        }
        Ok(vec![("events_per_s", float(self.events) / began.elapsed().as_secs_f64())])
    }

    /// Reads one entity's whole stream after the other's.
    fn stream(self, name: &str, look: fn(&RecordedEvent) -> Result<(), Error>) -> Cell<'a> {
        let measure = move || self.over_entities(|entity| each(self.store.stream(entity), look));
        let mut cell = cell(name, None, measure);
        cell.parameters.insert("events_per_stream".to_owned(), json!(self.events / ENTITIES));
        cell
    }

    /// Times a read per entity, entities in no visible order, until the time is up.
    fn over_entities(&self, read: impl Fn(String) -> Result<u64, Error>) -> Result<Figures, Error> {
        let mut latency = Latency::new();
        let deadline = Instant::now() + self.time;
        for step in 0.. {
            let entity = entity(scattered(step, ENTITIES));
            let began = Instant::now();
            let events = read(entity)?;
            latency.record(began.elapsed());
            assert!(events > 0, "every entity has events");
            if Instant::now() >= deadline {
                break;
            }
        }
        Ok(latency.figures())
    }

    /// Fetches each event once. A look at the clock, some 20 ns, is in each time.
    fn get(&self, ids: &[EventId]) -> Result<Figures, Error> {
        let mut latency = Latency::new();
        for id in ids {
            let began = Instant::now();
            let event = self.store.get(*id)?.expect("the id is of an event that is there");
            raw(&event)?;
            latency.record(began.elapsed());
        }
        Ok(latency.figures())
    }

    /// The ids of different events all over the store, in no visible order.
    fn ids(&self) -> Result<Vec<EventId>, Error> {
        let positions = (0..IDS.min(self.events)).map(|step| 1 + scattered(step, self.events));
        positions
            .map(|position| {
                let event = self.store.at(Position::from(position))?;
                Ok(event.expect("positions have no gaps").id())
            })
            .collect()
    }
}

/// Looks at every event of a read, and counts them.
fn each(
    read: impl Iterator<Item = Result<RecordedEvent, Error>>,
    look: impl Fn(&RecordedEvent) -> Result<(), Error>,
) -> Result<u64, Error> {
    let mut events = 0;
    for event in read {
        look(&event?)?;
        events += 1;
    }
    Ok(events)
}

/// Looks at every byte of the payload.
fn raw(event: &RecordedEvent) -> Result<(), Error> {
    let sum = event.payload()?.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    black_box(sum);
    Ok(())
}

fn owned(event: &RecordedEvent) -> Result<(), Error> {
    black_box(event.decode::<Order>()?);
    Ok(())
}

fn borrowed(event: &RecordedEvent) -> Result<(), Error> {
    black_box(event.decode::<OrderRef<'_>>()?);
    Ok(())
}

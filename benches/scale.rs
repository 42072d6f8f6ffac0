//! What does not grow with the log: look-ups over hundreds of segments, a rare query, a long stream.
//!
//! One store of `--size` events in some 300 segments, whose streams are of 1,000 events each; ten events have
//! a tag of their own. It is filled, closed, and opened again, so that everything is looked up in index
//! files. Each cell is run for a while before it counts: what is read often is loaded then. "exact" reads
//! from a store that keeps no segments in memory.
//!
//! `cargo bench --bench scale -- --help` names the options.

mod support;

use std::cell::Cell as Counter;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use annals::{Builder, Error, EventId, Query, RecordedEvent, Store};
use support::Failure;
use support::flight::Flight;
use support::latency::Latency;
use support::options::Options;
use support::place::Place;
use support::report::{Column, Figures};
use support::rounds::{Bench, Cell, run};
use support::sample::{Order, Sample, buffered, scattered};

const BENCH: Bench = Bench {
    name: "scale",
    columns: &[
        Column { figure: "p50_us", title: "p50 us" },
        Column { figure: "p99_us", title: "p99 us" },
        Column { figure: "max_us", title: "max us" },
        Column { figure: "segments", title: "segments" },
        Column { figure: "index_mib", title: "index MiB" },
        Column { figure: "segments_mib", title: "segments MiB" },
    ],
};

/// Events of a stream, and events with the rare tag.
const STREAM: u64 = 1_000;
const RARE: u64 = 10;
const SEGMENTS: u64 = 300;
/// What an event takes in a segment, about.
const EVENT_BYTES: u64 = 320;

fn main() -> Result<(), Failure> {
    let options = Options::from_command_line();
    let place = Place::new(&options.directory, BENCH.name)?;
    let directory = place.store("store");
    let events = options.events.next_multiple_of(STREAM);
    fill(&directory, events)?;
    let store = builder(&directory, events).open()?;
    let exact = builder(&directory, events).segment_memory_bytes(0).open_read_only()?;
    let [kept, plain] = [&store, &exact].map(|store| Stored { store, events, time: options.time });
    let ids = kept.ids()?;
    let news = Counter::new(0);
    let mut cells = vec![
        kept.cell("head/new-entity", |store, number| store.version(&format!("new:{number}")).map(drop)),
        kept.cell("head/known-entity", |store, number| {
            store.version(&entity(scattered(number, events / STREAM))).map(drop)
        }),
        kept.cell("append/new-entity", |store, _| {
            news.set(news.get() + 1);
            let ticket = annals::Append::to(format!("fresh:{}", news.get()))
                .event(&annals::Raw("order.opened", &()))
                .submit(store)?;
            drop(ticket);
            Ok(())
        }),
        kept.cell("query/10-of-all", |store, _| count(store.read(rare()), RARE, raw)),
        kept.cell("query/last", |store, _| store.last(rare()).map(drop)),
        kept.cell("query/newest-10", |store, _| {
            count(store.read(Query::all()).backwards().limit(10), 10, raw)
        }),
    ];
    for (name, stored) in [("kept", kept), ("exact", plain)] {
        cells.push(stored.stream(&format!("stream/raw/{name}"), raw));
        cells.push(stored.stream(&format!("stream/decoded/{name}"), owned));
        let ids = &ids;
        cells.push(stored.cell(&format!("get/{name}"), move |store, number| {
            let at = usize::try_from(number % ids.len() as u64).expect("an index");
            store.get(ids[at]).map(drop)
        }));
    }
    for cell in &mut cells {
        cell.parameters.insert("size_events".to_owned(), events.into());
    }
    run(&BENCH, &options, &place, cells)?;
    exact.close()?;
    Ok(store.close()?)
}

fn builder(directory: &Path, events: u64) -> Builder {
    let bytes = (events * EVENT_BYTES / SEGMENTS).clamp(16 << 10, 1 << 30);
    let bytes = u32::try_from(bytes).expect("at most 1 GiB");
    Store::builder(directory).segment_bytes_max(bytes).durability(buffered()).queue_commands_max(1 << 16)
}

fn fill(directory: &Path, events: u64) -> Result<(), Failure> {
    let (sample, store) = (Sample::new(), builder(directory, events).open()?);
    let mut flight = Flight::new(&store);
    for number in 0..events {
        let append = sample.append_to(&entity(number % (events / STREAM)), number);
        let is_rare = number % (events / RARE) == events / RARE / 2;
        flight.submit(if is_rare { append.tag("rare") } else { append })?;
    }
    flight.land()?;
    Ok(store.close()?)
}

fn entity(number: u64) -> String {
    format!("customer:{number:07}")
}

fn rare() -> Query {
    Query::all().tag("rare")
}

/// A store that is asked, and for how long.
#[derive(Clone, Copy)]
struct Stored<'a> {
    store: &'a Store,
    events: u64,
    time: Duration,
}

impl<'a> Stored<'a> {
    fn cell(self, name: &str, ask: impl Fn(&Store, u64) -> Result<(), Error> + 'a) -> Cell<'a> {
        Cell {
            name: name.to_owned(),
            parameters: serde_json::Map::new(),
            goal: None,
            is_durable: false,
            measure: Box::new(move || Ok(self.asked(&ask)?.into())),
        }
    }

    /// Asks for a while without counting, and then for as long.
    fn asked(&self, ask: &dyn Fn(&Store, u64) -> Result<(), Error>) -> Result<Figures, Error> {
        let mut number = 0;
        for is_counted in [false, true] {
            let (mut latency, began) = (Latency::new(), Instant::now());
            while latency.count() == 0 || began.elapsed() < self.time {
                let asked = Instant::now();
                ask(self.store, number)?;
                latency.record(asked.elapsed());
                number += 1;
            }
            if is_counted {
                return Ok(self.with_memory(latency.figures()));
            }
        }
        unreachable!("the second time counts")
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn with_memory(&self, mut figures: Figures) -> Figures {
        let stats = self.store.stats();
        figures.push(("segments", stats.segments as f64));
        figures.push(("index_mib", stats.index_bytes as f64 / f64::from(1 << 20)));
        figures.push(("segments_mib", stats.resident_bytes as f64 / f64::from(1 << 20)));
        figures
    }

    /// Whole streams, one after the other in no visible order.
    fn stream(self, name: &str, look: fn(&RecordedEvent) -> Result<(), Error>) -> Cell<'a> {
        let streams = self.events / STREAM;
        self.cell(name, move |store, number| {
            count(store.stream(entity(scattered(number, streams))), STREAM, look)
        })
    }

    /// Of 100,000 events at most, in no visible order.
    fn ids(&self) -> Result<Vec<EventId>, Error> {
        let many = self.events.min(100_000);
        let position = |step| (scattered(step, self.events) + 1).into();
        (0..many).map(|step| Ok(self.store.at(position(step))?.expect("it is there").id())).collect()
    }
}

fn count(
    read: impl Iterator<Item = Result<RecordedEvent, Error>>,
    right: u64,
    look: fn(&RecordedEvent) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut found = 0;
    for event in read {
        look(&event?)?;
        found += 1;
    }
    assert_eq!(found, right);
    Ok(())
}

fn raw(event: &RecordedEvent) -> Result<(), Error> {
    let sum = event.payload()?.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    black_box(sum);
    Ok(())
}

fn owned(event: &RecordedEvent) -> Result<(), Error> {
    black_box(event.decode::<Order>()?);
    Ok(())
}

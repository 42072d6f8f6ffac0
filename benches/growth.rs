//! What an event costs as the log grows: time, disk, memory, opening and looking up, by size, entities and
//! tags.
//!
//! One store grows through the sizes 10,000, 100,000 ... up to `--size`: each cell adds the missing events,
//! closes the store, and opens it again. The cells of entities and tags have stores of their own, of a tenth
//! of `--size`, at most 1,000,000. With more than one round what was filled is only opened and read again;
//! `append_ns` is then that of the first. Appends are buffered, 10,000 in flight from one thread.
//!
//! `cargo bench --bench growth -- --size 50000000 --rounds 1`

mod support;

use std::path::{Path, PathBuf};
use std::time::Instant;

use annals::{Append, Error, Query, Raw, Store};
use serde_json::json;
use support::flight::{Flight, QUEUE_COMMANDS_MAX};
use support::latency::Latency;
use support::options::Options;
use support::place::Place;
use support::report::{Column, Figures};
use support::rounds::{Bench, Cell, run};
use support::sample::{ENTITIES, Sample, buffered, scattered};
use support::{Failure, float};

const BENCH: Bench = Bench {
    name: "growth",
    columns: &[
        Column { figure: "append_ns", title: "append ns/event" },
        Column { figure: "log_bytes", title: "log B/event" },
        Column { figure: "index_bytes", title: "index B/event" },
        Column { figure: "segments", title: "segments" },
        Column { figure: "manifest_bytes", title: "MANIFEST B" },
        Column { figure: "open_ms", title: "open ms" },
        Column { figure: "new_entity_us", title: "new entity us" },
        Column { figure: "known_entity_us", title: "known entity us" },
        Column { figure: "last_100_us", title: "last 100 of a stream us" },
        Column { figure: "newest_us", title: "newest event us" },
        Column { figure: "index_mib", title: "index in memory MiB" },
    ],
};

/// What a store is made of.
#[derive(Clone)]
struct Shape {
    directory: PathBuf,
    events: u64,
    entities: u64,
    tags: u64,
}

fn main() -> Result<(), Failure> {
    let options = Options::from_command_line();
    let (place, sample) = (Place::new(&options.directory, BENCH.name)?, Sample::new());
    let mut shapes: Vec<(String, Shape)> = Vec::new();
    let sizes =
        std::iter::successors(Some(10_000), |size| Some(size * 10)).take_while(|size| *size < options.events);
    for events in sizes.chain([options.events]) {
        let shape = Shape { directory: place.store("grows"), events, entities: ENTITIES, tags: 0 };
        shapes.push((format!("size/{events}"), shape));
    }
    let events = (options.events / 10).clamp(1_000, 1_000_000);
    for entities in [1, ENTITIES, events] {
        let directory = place.store(&format!("entities-{entities}"));
        shapes.push((format!("entities/{entities}"), Shape { directory, events, entities, tags: 0 }));
    }
    for tags in [1, 3, 10] {
        let directory = place.store(&format!("tags-{tags}"));
        shapes.push((format!("tags/{tags}"), Shape { directory, events, entities: ENTITIES, tags }));
    }
    let cells = shapes.into_iter().map(|(name, shape)| {
        let (sample, mut append_ns) = (&sample, None);
        Cell {
            name,
            parameters: serde_json::Map::from_iter([
                ("size_events".to_owned(), json!(shape.events)),
                ("entities".to_owned(), json!(shape.entities)),
                ("tags".to_owned(), json!(shape.tags)),
            ]),
            goal: None,
            is_durable: false,
            measure: Box::new(move || {
                let nanos = shape.grow(sample)?;
                append_ns = append_ns.or(nanos);
                let mut figures: Figures = append_ns.map(|nanos| ("append_ns", nanos)).into_iter().collect();
                figures.extend(shape.figures(options.time)?);
                Ok(figures.into())
            }),
        }
    });
    run(&BENCH, &options, &place, cells.collect())
}

impl Shape {
    fn open(&self) -> Result<Store, Error> {
        Store::builder(&self.directory).durability(buffered()).queue_commands_max(QUEUE_COMMANDS_MAX).open()
    }

    fn entity(&self, number: u64) -> String {
        format!("customer:{:08}", number % self.entities)
    }

    fn append(&self, sample: &Sample, number: u64) -> Append {
        let append = sample.append_to(&self.entity(number), number);
        (0..self.tags)
            .fold(append, |append, tag| append.tag(format!("label-{tag}:{:06}", (number + tag) % 10_000)))
    }

    /// Adds what is missing; says how long that took for each event, if anything was.
    fn grow(&self, sample: &Sample) -> Result<Option<f64>, Error> {
        let store = self.open()?;
        let there = store.head()?.position().get();
        let (mut flight, began) = (Flight::new(&store), Instant::now());
        for number in there..self.events {
            flight.submit(self.append(sample, number))?;
        }
        flight.land()?;
        store.sync()?;
        let took = began.elapsed();
        store.close()?;
        let added = self.events.saturating_sub(there);
        Ok((added > 0).then(|| took.as_secs_f64() * 1e9 / float(added)))
    }

    fn figures(&self, time: std::time::Duration) -> Result<Figures, Failure> {
        let [log, index] = ["seg", "idx"].map(|ending| bytes_of(&self.directory.join("segments"), ending));
        let manifest = std::fs::metadata(self.directory.join("MANIFEST"))?.len();
        let began = Instant::now();
        let store = self.open()?;
        let open = began.elapsed();
        let events = store.head()?.position().get();
        let streams = self.entities.min(events);
        let mut figures = vec![
            ("log_bytes", float(log?) / float(events)),
            ("index_bytes", float(index?) / float(events)),
            ("segments", float(u64::try_from(store.stats().segments)?)),
            ("manifest_bytes", float(manifest)),
            ("open_ms", open.as_secs_f64() * 1e3),
        ];
        let asked = [
            p50("new_entity_us", time, |step| store.version(&format!("new:{step}")).map(drop)),
            p50("known_entity_us", time, |step| {
                store.version(&self.entity(scattered(step, streams))).map(drop)
            }),
            p50("last_100_us", time, |step| {
                let mut newest = store.stream(self.entity(scattered(step, streams))).backwards().limit(100);
                newest.try_for_each(|event| event.map(drop))
            }),
            p50("newest_us", time, |_| store.last(Query::all()).map(drop)),
        ];
        figures.extend(asked.into_iter().collect::<Result<Figures, Error>>()?);
        figures.push(("index_mib", float(store.stats().index_bytes) / float(1 << 20)));
        store.append("growth", &Raw("opened", &()))?;
        store.close()?;
        Ok(figures)
    }
}

fn p50(
    name: &'static str,
    time: std::time::Duration,
    ask: impl Fn(u64) -> Result<(), Error>,
) -> Result<(&'static str, f64), Error> {
    let (mut latency, began) = (Latency::new(), Instant::now());
    while latency.count() == 0 || began.elapsed() < time {
        let asked = Instant::now();
        ask(latency.count())?;
        latency.record(asked.elapsed());
    }
    let figures = latency.figures();
    let (_, value) =
        figures.iter().find(|(figure, _)| *figure == "p50_us").expect("every latency has a median");
    Ok((name, *value))
}

/// The bytes of the files in a directory whose names end so.
fn bytes_of(directory: &Path, ending: &str) -> std::io::Result<u64> {
    let entries = std::fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()?;
    let meant = entries.iter().filter(|entry| entry.path().extension().is_some_and(|end| end == ending));
    meant.map(|entry| Ok(entry.metadata()?.len())).sum()
}

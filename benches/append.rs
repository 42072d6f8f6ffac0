//! How fast appends are: durable and buffered, from one thread and many, one by one, in batches,
//! and in flight.
//!
//! Every cell has a new store. "Durable" means acknowledged after the sync. `per_cal` is events per second
//! times the mean time of one small overwrite and its sync, measured beside the cell. A thread that does only
//! that reaches 1.0. Times run from before an append is put together until it is acknowledged.
//!
//! `cargo bench --bench append -- --help` names the options.

mod support;

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use annals::{Append, Durability, Error, Store};
use serde_json::{Map, Value, json};
use support::Failure;
use support::flight::{Flight, QUEUE_COMMANDS_MAX, WINDOW};
use support::latency::Latency;
use support::options::Options;
use support::place::Place;
use support::report::{Column, Figures, Goal};
use support::rounds::{Bench, Cell, Measured, run};
use support::sample::{Sample, buffered};

const BENCH: Bench = Bench {
    name: "append",
    columns: &[
        Column { figure: "events_per_s", title: "events/s" },
        Column { figure: "per_cal", title: "per cal" },
        Column { figure: "p50_us", title: "p50 us" },
        Column { figure: "p99_us", title: "p99 us" },
        Column { figure: "p99_9_us", title: "p99.9 us" },
        Column { figure: "max_us", title: "max us" },
        Column { figure: "events_per_group", title: "events/group" },
        Column { figure: "cal_mean_us", title: "cal us" },
    ],
};

/// What is appended, and how.
#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    durability: Durability,
    threads: u32,
    batch: Batch,
    hand_over: HandOver,
    goal: Option<Goal>,
}

/// What one append holds.
#[derive(Clone, Copy)]
enum Batch {
    One,
    /// This number of events of one entity.
    OfOneEntity(u64),
    /// This number of events, each of another entity.
    AcrossEntities(u64),
}

/// How an append gets to the writer.
#[derive(Clone, Copy)]
enum HandOver {
    /// One at a time per thread: wait for each.
    Commit,
    /// A window of tickets in flight.
    Tickets,
}

fn main() -> Result<(), Failure> {
    let options = Options::from_command_line();
    let place = Place::new(&options.directory, BENCH.name)?;
    let sample = Sample::new();
    let cells = loads().into_iter().map(|load| cell(load, &options, &place, &sample)).collect();
    run(&BENCH, &options, &place, cells)
}

/// All cells, with the goals of the issue that asked for them.
fn loads() -> Vec<Load> {
    use Batch::{AcrossEntities, OfOneEntity};
    let per_cal = |at_least| Some(Goal { figure: "per_cal", at_least });
    let per_second = |at_least| Some(Goal { figure: "events_per_s", at_least });
    let durable = Load {
        name: "durable/1",
        durability: Durability::Synced,
        threads: 1,
        batch: Batch::One,
        hand_over: HandOver::Commit,
        goal: per_cal(0.8),
    };
    let batch = Load { goal: per_second(300e3), ..durable };
    let tickets = Load { hand_over: HandOver::Tickets, goal: None, ..durable };
    let lazy = Load { durability: buffered(), goal: None, ..durable };
    vec![
        durable,
        Load { name: "durable/2", threads: 2, goal: None, ..durable },
        Load { name: "durable/8", threads: 8, goal: per_cal(3.5), ..durable },
        Load { name: "durable/32", threads: 32, goal: per_cal(8.0), ..durable },
        Load { name: "durable/64", threads: 64, goal: per_cal(12.0), ..durable },
        Load { name: "durable-batch/one-entity", batch: OfOneEntity(100), ..batch },
        Load { name: "durable-batch/100-entities", batch: AcrossEntities(100), ..batch },
        Load { name: "durable-tickets/1", ..tickets },
        Load { name: "buffered/1", ..lazy },
        Load { name: "buffered/8", threads: 8, ..lazy },
        Load { name: "buffered-tickets/1", durability: buffered(), goal: per_second(800e3), ..tickets },
    ]
}

fn cell<'a>(load: Load, options: &'a Options, place: &'a Place, sample: &'a Sample) -> Cell<'a> {
    Cell {
        name: load.name.to_owned(),
        parameters: load.parameters(),
        goal: load.goal,
        is_durable: load.durability == Durability::Synced,
        measure: Box::new(move || measure(&load, options.time, place, sample)),
    }
}

/// Runs a load on a store of its own. The store must have all that was acknowledged.
fn measure(load: &Load, time: Duration, place: &Place, sample: &Sample) -> Result<Measured, Failure> {
    let directory = place.store(load.name);
    let builder = Store::builder(&directory).durability(load.durability);
    let store = builder.queue_commands_max(QUEUE_COMMANDS_MAX).open()?;
    let race = Race::run(load, time, &store, sample)?;
    assert_eq!(
        store.head()?.position().get(),
        race.appends * load.batch.events(),
        "all that was acknowledged"
    );
    let figures = race.figures(load, &store);
    store.close()?;
    place.clear(&directory)?;
    Ok(figures.into())
}

/// What all threads of a load did together.
struct Race {
    began: Instant,
    ended: Instant,
    appends: u64,
    latency: Latency,
}

impl Race {
    /// Starts the threads on a barrier. The time is from the first start to the last end.
    fn run(load: &Load, time: Duration, store: &Store, sample: &Sample) -> Result<Race, Failure> {
        let barrier = &Barrier::new(usize::try_from(load.threads)?);
        let races = thread::scope(|scope| {
            let start = |thread| {
                scope.spawn(move || {
                    barrier.wait();
                    Race::of_thread(load, thread, time, store, sample)
                })
            };
            let threads: Vec<_> = (0..load.threads).map(start).collect();
            let join =
                |thread: thread::ScopedJoinHandle<'_, _>| thread.join().expect("the thread did not panic");
            threads.into_iter().map(join).collect::<Result<Vec<Race>, Error>>()
        })?;
        Ok(races.into_iter().reduce(Race::with).expect("there is a thread"))
    }

    fn of_thread(
        load: &Load,
        thread: u32,
        time: Duration,
        store: &Store,
        sample: &Sample,
    ) -> Result<Race, Error> {
        let began = Instant::now();
        let appends = (u64::from(thread)..).step_by(usize::try_from(load.threads).expect("at most 64"));
        let appends = appends.map(|number| load.batch.append(sample, number));
        let latency = match load.hand_over {
            HandOver::Commit => commit(appends, store, began + time)?,
            HandOver::Tickets => submit(appends, store, began + time)?,
        };
        Ok(Race { began, ended: Instant::now(), appends: latency.count(), latency })
    }

    fn with(mut self, other: Race) -> Race {
        self.latency.add(&other.latency);
        Race {
            began: self.began.min(other.began),
            ended: self.ended.max(other.ended),
            appends: self.appends + other.appends,
            latency: self.latency,
        }
    }

    fn figures(&self, load: &Load, store: &Store) -> Figures {
        let events = support::float(self.appends * load.batch.events());
        let stats = store.stats();
        let mut figures = vec![
            ("events_per_s", events / (self.ended - self.began).as_secs_f64()),
            ("events_per_group", stats.events_per_group()),
            ("sync_p50_us", stats.sync_p50.as_secs_f64() * 1e6),
            ("sync_p99_us", stats.sync_p99.as_secs_f64() * 1e6),
        ];
        figures.extend(self.latency.figures());
        figures
    }
}

/// Appends one after the other until the deadline. One look at the clock per append: the end of
/// one is the beginning of the next.
fn commit(appends: impl Iterator<Item = Append>, store: &Store, deadline: Instant) -> Result<Latency, Error> {
    let mut latency = Latency::new();
    let mut began = Instant::now();
    for append in appends {
        append.commit(store)?;
        let now = Instant::now();
        latency.record(now - began);
        began = now;
        if now >= deadline {
            break;
        }
    }
    Ok(latency)
}

/// Keeps a window of appends in flight until the deadline, then lets them land.
fn submit(appends: impl Iterator<Item = Append>, store: &Store, deadline: Instant) -> Result<Latency, Error> {
    let mut flight = Flight::new(store);
    for append in appends {
        if flight.submit(append)? >= deadline {
            break;
        }
    }
    flight.land()
}

impl Batch {
    fn events(self) -> u64 {
        match self {
            Batch::One => 1,
            Batch::OfOneEntity(events) | Batch::AcrossEntities(events) => events,
        }
    }

    fn append(self, sample: &Sample, number: u64) -> Append {
        match self {
            Batch::One => sample.append(number),
            Batch::OfOneEntity(events) => sample.append_many(number, events),
            Batch::AcrossEntities(events) => sample.append_across(number, events),
        }
    }
}

impl Load {
    fn parameters(&self) -> Map<String, Value> {
        let (durability, flush_every_ms) = match self.durability {
            Durability::Synced => ("synced", None),
            Durability::Buffered { flush_every } => ("buffered", Some(flush_every.as_millis())),
        };
        let (hand_over, window) = match self.hand_over {
            HandOver::Commit => ("commit", 1),
            HandOver::Tickets => ("tickets", WINDOW),
        };
        let entities_per_append = match self.batch {
            Batch::AcrossEntities(events) => events,
            _ => 1,
        };
        let parameters = json!({
            "durability": durability,
            "flush_every_ms": flush_every_ms,
            "threads": self.threads,
            "events_per_append": self.batch.events(),
            "entities_per_append": entities_per_append,
            "hand_over": hand_over,
            "appends_in_flight_per_thread": window,
        });
        parameters.as_object().cloned().unwrap_or_default()
    }
}

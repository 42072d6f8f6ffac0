//! How fast reactors react, and how soon.
//!
//! Every cell has a new store. In a "backlog" cell a number of events are there when the reactor starts, and
//! the reactor handles them for the given time. Each reaction is one event more, durable with its checkpoint.
//! `in_flight` is the largest number of reactions that are not durable yet. "handled" cells append nothing,
//! so only checkpoints are written, now and then. In a "latency" cell one thread appends and waits until the
//! reaction is durable. Times count from before the append (`reacted`), and from its acknowledgement
//! (`after_ack`).
//!
//! `cargo bench --bench react -- --help` names the options.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use annals::{Error, Query, Raw, Reaction, RecordedEvent, Store, Worker};
use serde_json::{Map, Value, json};
use support::flight::{Flight, QUEUE_COMMANDS_MAX};
use support::latency::Latency;
use support::options::Options;
use support::place::Place;
use support::report::{Column, Figures};
use support::rounds::{Bench, Cell, Measured, run};
use support::sample::Sample;
use support::{Failure, float};

const BENCH: Bench = Bench {
    name: "react",
    columns: &[
        Column { figure: "events_per_s", title: "events/s" },
        Column { figure: "per_cal", title: "per cal" },
        Column { figure: "reacted_p50_us", title: "reacted p50 us" },
        Column { figure: "reacted_p99_us", title: "reacted p99 us" },
        Column { figure: "after_ack_p50_us", title: "after ack p50 us" },
        Column { figure: "after_ack_p99_us", title: "after ack p99 us" },
        Column { figure: "cal_mean_us", title: "cal us" },
    ],
};

const REACTION: &str = "order.answered";

/// What works on the events.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Appends one event for each, with at most this many appends in flight.
    React { in_flight_max: usize },
    /// Appends nothing, on this number of threads; 0 is a reactor without outputs.
    Handle { threads: usize },
    /// A reaction to one event at a time.
    Answer,
}

fn main() -> Result<(), Failure> {
    let options = Options::from_command_line();
    let place = Place::new(&options.directory, BENCH.name)?;
    let sample = Sample::new();
    let works = [
        Work::React { in_flight_max: 1 },
        Work::React { in_flight_max: 16 },
        Work::React { in_flight_max: 256 },
        Work::Handle { threads: 0 },
        Work::Handle { threads: 4 },
        Work::Answer,
    ];
    let cells = works.into_iter().map(|work| cell(work, &options, &place, &sample)).collect();
    run(&BENCH, &options, &place, cells)
}

fn cell<'a>(work: Work, options: &'a Options, place: &'a Place, sample: &'a Sample) -> Cell<'a> {
    let name = match work {
        Work::React { in_flight_max } => format!("backlog/in-flight-{in_flight_max}"),
        Work::Handle { threads: 0 } => "handled/reactor".to_owned(),
        Work::Handle { threads } => format!("handled/partitions-{threads}"),
        Work::Answer => "latency".to_owned(),
    };
    Cell {
        name: name.clone(),
        parameters: work.parameters(),
        goal: None,
        is_durable: !matches!(work, Work::Handle { .. }),
        measure: Box::new(move || {
            let directory = place.store(&name);
            let store = Store::builder(&directory).queue_commands_max(QUEUE_COMMANDS_MAX).open()?;
            let figures = match work {
                Work::Answer => answer(options.time, &store, sample)?,
                work => work_off(work, options, &store, sample)?,
            };
            store.close()?;
            place.clear(&directory)?;
            Ok(Measured::from(figures))
        }),
    }
}

/// Works a backlog off until it is through or the time is up.
fn work_off(work: Work, options: &Options, store: &Store, sample: &Sample) -> Result<Figures, Failure> {
    let events = options.events / 5;
    let mut flight = Flight::new(store);
    for number in 0..events {
        flight.submit(sample.append(number))?;
    }
    flight.land()?;
    let handled = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let worker = work.start(store, handled.clone())?;
    loop {
        let status = worker.status()?;
        // However short the time, one event is handled.
        if status.behind == 0 || (began.elapsed() >= options.time && status.behind < events) {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    worker.stop();
    let took = began.elapsed();
    let count = match work {
        Work::Handle { .. } => handled.load(Ordering::Relaxed),
        _ => store.count(Query::all().kind(REACTION))?,
    };
    assert!(count > 0 && count <= events, "{count} reactions to {events} events");
    Ok(vec![("events_per_s", float(count) / took.as_secs_f64())])
}

/// One event at a time, each waited for until its reaction is durable.
fn answer(time: Duration, store: &Store, sample: &Sample) -> Result<Figures, Failure> {
    let worker = Work::Answer.start(store, Arc::default())?;
    let mut answers = store.subscribe(Query::all().kind(REACTION)).durable();
    let (mut since_append, mut since_ack) = (Latency::new(), Latency::new());
    let began = Instant::now();
    for number in 0.. {
        let before = Instant::now();
        sample.append(number).commit(store)?;
        let acknowledged = Instant::now();
        answers.next_timeout(Duration::from_secs(10))?.ok_or("no reaction came")?;
        let reacted = Instant::now();
        since_append.record(reacted - before);
        since_ack.record(reacted - acknowledged);
        if began.elapsed() >= time {
            break;
        }
    }
    let took = began.elapsed();
    worker.stop();
    let at = |latency: &Latency, figure| {
        let figures = latency.figures();
        figures.iter().find(|(name, _)| *name == figure).map_or(f64::NAN, |(_, value)| *value)
    };
    Ok(vec![
        ("events_per_s", float(since_append.count()) / took.as_secs_f64()),
        ("reacted_p50_us", at(&since_append, "p50_us")),
        ("reacted_p99_us", at(&since_append, "p99_us")),
        ("after_ack_p50_us", at(&since_ack, "p50_us")),
        ("after_ack_p99_us", at(&since_ack, "p99_us")),
    ])
}

impl Work {
    fn start(self, store: &Store, handled: Arc<AtomicU64>) -> Result<Worker, Error> {
        let query = Query::all().kind("order.accepted");
        match self {
            Work::Handle { threads: 0 } => {
                store.react("work", query, move |_: &RecordedEvent, _: &mut Reaction<'_>| {
                    handled.fetch_add(1, Ordering::Relaxed);
                    Ok(())
                })
            }
            Work::Handle { threads } => store.consume_partitioned("work", query, threads, move |_| {
                handled.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }),
            work => {
                let in_flight_max = match work {
                    Work::React { in_flight_max } => in_flight_max,
                    _ => 1,
                };
                let worker = store.worker("work", query).in_flight_max(in_flight_max);
                worker.react(|order: &RecordedEvent, reaction: &mut Reaction<'_>| {
                    reaction.append(order.entity(), &Raw(REACTION, &order.position().get()));
                    Ok(())
                })
            }
        }
    }

    fn parameters(self) -> Map<String, Value> {
        let parameters = match self {
            Work::React { in_flight_max } => json!({ "reactions_in_flight": in_flight_max }),
            Work::Handle { threads } => json!({ "threads": threads.max(1), "partitioned": threads > 0 }),
            Work::Answer => json!({ "reactions_in_flight": 1 }),
        };
        parameters.as_object().cloned().unwrap_or_default()
    }
}

//! Appends beside everything else: the same load alone, beside a replay, and beside a replay and four
//! subscriptions.
//!
//! Every cell has a store of `--size` events (up to 1,000,000), opened anew. Eight threads append one event
//! at a time, durable or buffered, and wait for each. Beside them one thread reads and decodes the whole
//! store again and again, and four follow the new events. All of them share the processor.
//! `writer_us_per_group` is what the writer thread itself computed, by the system's account; what a caller
//! did in its place is not in it.
//!
//! `cargo bench --bench mixed -- --help` names the options.

mod support;

use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use annals::{Durability, Error, Query, Store};
use serde_json::json;
use support::flight::QUEUE_COMMANDS_MAX;
use support::latency::Latency;
use support::options::Options;
use support::place::Place;
use support::report::{Column, Figures};
use support::rounds::{Bench, Cell, run};
use support::sample::{Order, Sample, buffered, open_buffered};
use support::{Failure, float};

const BENCH: Bench = Bench {
    name: "mixed",
    columns: &[
        Column { figure: "events_per_s", title: "events/s" },
        Column { figure: "per_cal", title: "per cal" },
        Column { figure: "p50_us", title: "p50 us" },
        Column { figure: "p99_us", title: "p99 us" },
        Column { figure: "p99_9_us", title: "p99.9 us" },
        Column { figure: "appends_per_group", title: "appends/group" },
        Column { figure: "writer_us_per_group", title: "writer us/group" },
        Column { figure: "replayed_per_s", title: "replayed/s" },
        Column { figure: "followed_per_s", title: "followed/s" },
        Column { figure: "cal_mean_us", title: "cal us" },
    ],
};

const APPENDERS: u64 = 8;
const EVENTS_MAX: u64 = 1_000_000;

/// Who else is at work.
#[derive(Clone, Copy)]
struct Beside {
    name: &'static str,
    replays: u32,
    subscriptions: u32,
}

const BESIDE: [Beside; 3] = [
    Beside { name: "alone", replays: 0, subscriptions: 0 },
    Beside { name: "replay", replays: 1, subscriptions: 0 },
    Beside { name: "replay-and-4-subscriptions", replays: 1, subscriptions: 4 },
];

fn main() -> Result<(), Failure> {
    let options = Options::from_command_line();
    let place = Place::new(&options.directory, BENCH.name)?;
    let (directory, sample) = (place.store("store"), Sample::new());
    let events = options.events.min(EVENTS_MAX);
    let store = open_buffered(&directory)?;
    sample.fill(&store, events)?;
    store.close()?;
    let mut cells = Vec::new();
    for (name, durability) in [("durable", Durability::Synced), ("buffered", buffered())] {
        for beside in BESIDE {
            let (directory, sample) = (&directory, &sample);
            cells.push(Cell {
                name: format!("{name}/{}", beside.name),
                parameters: serde_json::Map::from_iter([
                    ("size_events".to_owned(), json!(events)),
                    ("appending_threads".to_owned(), json!(APPENDERS)),
                ]),
                goal: None,
                is_durable: durability == Durability::Synced,
                measure: Box::new(move || {
                    let store = open(directory, durability)?;
                    let figures = measure(&store, beside, options.time, sample)?;
                    store.close()?;
                    Ok(figures.into())
                }),
            });
        }
    }
    run(&BENCH, &options, &place, cells)
}

fn open(directory: &Path, durability: Durability) -> Result<Store, Error> {
    Store::builder(directory).durability(durability).queue_commands_max(QUEUE_COMMANDS_MAX).open()
}

fn measure(store: &Store, beside: Beside, time: Duration, sample: &Sample) -> Result<Figures, Error> {
    let (is_over, replayed, followed) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..beside.replays {
            scope.spawn(|| replay(store, &is_over, &replayed));
        }
        for _ in 0..beside.subscriptions {
            scope.spawn(|| follow(store, &is_over, &followed));
        }
        let (groups, writer) = (store.stats().groups, writer_nanos());
        let began = Instant::now();
        let appenders: Vec<_> =
            (0..APPENDERS).map(|thread| scope.spawn(move || append(store, thread, time, sample))).collect();
        let latencies: Result<Vec<Latency>, Error> =
            appenders.into_iter().map(|thread| thread.join().expect("it does not panic")).collect();
        let seconds = began.elapsed().as_secs_f64();
        let groups = float((store.stats().groups - groups).max(1));
        let writer = float(writer_nanos().saturating_sub(writer)) / 1e3;
        is_over.store(true, Ordering::Relaxed);
        let mut all = Latency::new();
        latencies?.iter().for_each(|latency| all.add(latency));
        let mut figures = all.figures();
        figures.extend([
            ("events_per_s", float(all.count()) / seconds),
            ("appends_per_group", float(all.count()) / groups),
            ("writer_us_per_group", writer / groups),
            ("replayed_per_s", float(replayed.load(Ordering::Relaxed)) / seconds),
            ("followed_per_s", float(followed.load(Ordering::Relaxed)) / seconds),
        ]);
        Ok(figures)
    })
}

fn append(store: &Store, thread: u64, time: Duration, sample: &Sample) -> Result<Latency, Error> {
    let (mut latency, began, mut number) = (Latency::new(), Instant::now(), thread);
    while began.elapsed() < time {
        let asked = Instant::now();
        sample.append(number).commit(store)?;
        latency.record(asked.elapsed());
        number += APPENDERS;
    }
    Ok(latency)
}

/// Reads everything, again and again.
fn replay(store: &Store, is_over: &AtomicBool, replayed: &AtomicU64) {
    while !is_over.load(Ordering::Relaxed) {
        for event in store.read(Query::all()).take_while(|_| !is_over.load(Ordering::Relaxed)) {
            let order: Order = event.and_then(|event| event.decode()).expect("it was written here");
            black_box(order);
            replayed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Reads what comes.
fn follow(store: &Store, is_over: &AtomicBool, followed: &AtomicU64) {
    let mut subscription = store.subscribe(Query::all()).after_head();
    while !is_over.load(Ordering::Relaxed) {
        if let Some(event) = subscription.next_timeout(Duration::from_millis(5)).expect("the store is open") {
            black_box(event);
            followed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What the writer threads of this process have computed so far; 0 where the system does not tell.
fn writer_nanos() -> u64 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return 0 };
    let of_writers = tasks.flatten().filter(|task| {
        std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "annals-writer")
    });
    let nanos = of_writers.filter_map(|task| {
        let stat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<u64>().ok()
    });
    nanos.sum()
}

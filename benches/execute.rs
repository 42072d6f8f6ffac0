//! How fast decisions are: load an aggregate, decide, append what was decided, durable.
//!
//! Every cell has a new store. Each thread executes on accounts of its own, ten of them in turn, or all on
//! one. "per cal" is as in the bench `append`: executions per second times the time of one small overwrite
//! and its sync. With a key each command is looked up first, which is a round trip to the writer.
//!
//! `cargo bench --bench execute -- --help` names the options.

mod support;

use std::convert::Infallible;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use annals::{Aggregate, DomainEvent, Meta, Projection, Refused, Store};
use serde::{Deserialize, Serialize};
use serde_json::json;
use support::Failure;
use support::latency::Latency;
use support::options::Options;
use support::place::Place;
use support::report::{Column, Figures};
use support::rounds::{Bench, Cell, Measured, run};

const BENCH: Bench = Bench {
    name: "execute",
    columns: &[
        Column { figure: "executions_per_s", title: "executions/s" },
        Column { figure: "per_cal", title: "per cal" },
        Column { figure: "p50_us", title: "p50 us" },
        Column { figure: "p99_us", title: "p99 us" },
        Column { figure: "conflicts_per_execution", title: "conflicts each" },
        Column { figure: "cal_mean_us", title: "cal us" },
    ],
};

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(kind = "account.deposited")]
struct Deposited {
    cents: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Account {
    cents: u64,
}

impl Projection for Account {
    type Event = Deposited;
    const NAME: &'static str = "account";

    fn apply(&mut self, event: Deposited, _: &Meta<'_>) {
        self.cents += event.cents;
    }
}

impl Aggregate for Account {
    type Command = u64;
    type Error = Infallible;

    fn decide(&self, cents: &u64) -> Result<Vec<Deposited>, Infallible> {
        Ok(vec![Deposited { cents: *cents }])
    }
}

#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    threads: u64,
    accounts: Accounts,
    keyed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Accounts {
    /// Ten a thread.
    Own,
    /// One for all.
    Shared,
}

const LOADS: [Load; 5] = [
    Load { name: "durable/1", threads: 1, accounts: Accounts::Own, keyed: false },
    Load { name: "durable/32", threads: 32, accounts: Accounts::Own, keyed: false },
    Load { name: "durable-keyed/1", threads: 1, accounts: Accounts::Own, keyed: true },
    Load { name: "durable-keyed/32", threads: 32, accounts: Accounts::Own, keyed: true },
    Load { name: "durable-one-account/8", threads: 8, accounts: Accounts::Shared, keyed: false },
];

fn main() -> Result<(), Failure> {
    let options = Options::from_command_line();
    let place = Place::new(&options.directory, BENCH.name)?;
    let cells = LOADS.iter().map(|load| cell(*load, &options, &place)).collect();
    run(&BENCH, &options, &place, cells)
}

fn cell<'a>(load: Load, options: &'a Options, place: &'a Place) -> Cell<'a> {
    let parameters = [
        ("durability", json!("synced")),
        ("threads", json!(load.threads)),
        ("entities", json!(if load.accounts == Accounts::Own { load.threads * 10 } else { 1 })),
        ("keyed", json!(load.keyed)),
    ];
    Cell {
        name: load.name.to_owned(),
        parameters: parameters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        goal: None,
        is_durable: true,
        measure: Box::new(move || measure(&load, options.time, place)),
    }
}

/// Runs a load on a store of its own. What was deposited must be there.
fn measure(load: &Load, time: Duration, place: &Place) -> Result<Measured, Failure> {
    let directory = place.store(load.name);
    let store = Store::open(&directory)?;
    let barrier = Barrier::new(usize::try_from(load.threads)?);
    let began = Instant::now();
    let races = thread::scope(|scope| {
        let start = |number| {
            let (store, barrier) = (&store, &barrier);
            scope.spawn(move || {
                barrier.wait();
                race(load, number, Instant::now() + time, store)
            })
        };
        let threads: Vec<_> = (0..load.threads).map(start).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().expect("the thread did not panic");
        threads.into_iter().map(join).collect::<Result<Vec<_>, Refused<Infallible>>>()
    });
    let races = races.map_err(|error| error.to_string())?;
    let took = began.elapsed();
    let mut latency = Latency::new();
    let mut conflicts = 0;
    for (of_thread, met) in &races {
        latency.add(of_thread);
        conflicts += met;
    }
    assert_eq!(store.head()?.position().get(), latency.count(), "one event for each execution");
    let executions = support::float(latency.count());
    let mut figures: Figures = latency.figures();
    figures.push(("executions_per_s", executions / took.as_secs_f64()));
    figures.push(("events_per_s", executions / took.as_secs_f64()));
    figures.push(("conflicts_per_execution", support::float(conflicts) / executions));
    store.close()?;
    place.clear(&directory)?;
    Ok(figures.into())
}

/// What one thread does: its latencies, and the conflicts it met.
fn race(
    load: &Load,
    thread: u64,
    end: Instant,
    store: &Store,
) -> Result<(Latency, u64), Refused<Infallible>> {
    let (mut latency, mut conflicts) = (Latency::new(), 0);
    for number in 0_u64.. {
        let account = match load.accounts {
            Accounts::Own => format!("account:{thread}:{}", number % 10),
            Accounts::Shared => "account:shared".to_owned(),
        };
        let began = Instant::now();
        if began >= end {
            break;
        }
        let executed = match load.keyed {
            false => store.execute::<Account>(account, &1)?,
            true => {
                let key = format!("{thread}:{number}");
                store.execute_with::<Account>(account, &1, |append| append.key(&key))?
            }
        };
        latency.record(began.elapsed());
        conflicts += u64::from(executed.conflicts());
    }
    Ok((latency, conflicts))
}

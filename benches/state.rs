//! How fast states are had: folded from nothing, looked up, folded on by an event, found on the disk.
//!
//! Each measurement has a store of its own. It holds one aggregate of 10,000 events `{cents: u64}`, appended
//! one by one, and 1,000 aggregates of 100 events, appended in turn. Appends are buffered, so that a state is
//! saved soon; only loads are timed. A look at the clock, some 20 ns, is in each time. Unchanged states are
//! timed a hundred at a time, and hardly include it.
//!
//! `cargo bench --bench state -- --help` names the options.

mod support;

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use annals::{Append, DomainEvent, Error, Meta, Projection, Store};
use serde::{Deserialize, Serialize};
use serde_json::json;
use support::Failure;
use support::latency::Latency;
use support::options::{Options, Scale};
use support::place::Place;
use support::report::{Column, Figures, Goal};
use support::rounds::{Bench, Cell, Measured, run};
use support::sample::{buffered, open_buffered, scattered};

const BENCH: Bench = Bench {
    name: "state",
    columns: &[
        Column { figure: "loads_per_s", title: "loads/s at p50" },
        Column { figure: "p50_us", title: "p50 us" },
        Column { figure: "p99_us", title: "p99 us" },
        Column { figure: "max_us", title: "max us" },
    ],
};

const LONG: &str = "account:long";
/// Unchanged states are loaded so often between two looks at the clock.
const AT_ONCE: u32 = 100;

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(kind = "account.deposited")]
struct Deposited {
    cents: u64,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Account {
    cents: u64,
    deposits: u64,
}

impl Projection for Account {
    type Event = Deposited;
    const NAME: &'static str = "account";

    fn apply(&mut self, event: Deposited, _: &Meta<'_>) {
        self.cents += event.cents;
        self.deposits += 1;
    }
}

fn main() -> Result<(), Failure> {
    let options = Options::from_command_line();
    let place = Place::new(&options.directory, BENCH.name)?;
    let size = match options.scale {
        Scale::Smoke => Size { long: 300, accounts: 20, each: 40 },
        Scale::Bench => Size { long: 10_000, accounts: 1_000, each: 100 },
    };
    let states = States { place: &place, size, time: options.time };
    run(&BENCH, &options, &place, states.cells())
}

/// Events of the long account; how many short ones there are, and the events of each.
#[derive(Clone, Copy)]
struct Size {
    long: u64,
    accounts: u64,
    each: u64,
}

#[derive(Clone, Copy)]
struct States<'a> {
    place: &'a Place,
    size: Size,
    time: Duration,
}

impl<'a> States<'a> {
    fn cells(self) -> Vec<Cell<'a>> {
        vec![
            self.cell("fold/cold", 333.0, Self::cold),
            self.cell("load/unchanged", 1e6, Self::unchanged),
            self.cell("load/one-more-event", 333e3, Self::one_more),
            self.cell("load/of-many", 333e3, Self::of_many),
            self.cell("load/first-from-file", 20e3, Self::first_from_file),
        ]
    }

    fn cell(
        self,
        name: &str,
        at_least: f64,
        measure: fn(&States<'a>, &Path) -> Result<Latency, Error>,
    ) -> Cell<'a> {
        let Size { long, accounts, each } = self.size;
        let sizes = json!({ "events_long": long, "accounts": accounts, "events_each": each });
        Cell {
            name: name.to_owned(),
            parameters: sizes.as_object().cloned().unwrap_or_default(),
            goal: Some(Goal { figure: "loads_per_s", at_least }),
            is_durable: false,
            measure: Box::new(move || {
                let directory = self.place.store("store");
                let latency = measure(&self, &directory)?;
                self.place.clear(&directory)?;
                Ok(Measured::from(figures(&latency)))
            }),
        }
    }

    fn fill(&self, store: &Store) -> Result<(), Error> {
        for cents in 0..self.size.long {
            drop(Append::to(LONG).event(&Deposited { cents }).submit(store)?);
        }
        for cents in 0..self.size.each {
            for number in 0..self.size.accounts {
                drop(Append::to(account(number)).event(&Deposited { cents }).submit(store)?);
            }
        }
        store.sync().map(drop)
    }

    /// Times something, again and again until the time is up.
    fn again(&self, mut timed: impl FnMut(u64) -> Result<Duration, Error>) -> Result<Latency, Error> {
        let mut latency = Latency::new();
        let began = Instant::now();
        for step in 0.. {
            latency.record(timed(step)?);
            if began.elapsed() >= self.time {
                break;
            }
        }
        Ok(latency)
    }

    /// Nothing is kept: all events are folded every time.
    fn cold(&self, directory: &Path) -> Result<Latency, Error> {
        let builder = Store::builder(directory).durability(buffered());
        let store = builder.cache_memory_bytes(0).cache_disk_bytes(0).open()?;
        self.fill(&store)?;
        self.again(|_| timed(&store, LONG, self.size.long))
    }

    fn unchanged(&self, directory: &Path) -> Result<Latency, Error> {
        let store = open_buffered(directory)?;
        self.fill(&store)?;
        timed(&store, LONG, self.size.long)?;
        self.again(|_| {
            let began = Instant::now();
            for _ in 0..AT_ONCE {
                black_box(store.load::<Account>(LONG)?);
            }
            Ok(began.elapsed() / AT_ONCE)
        })
    }

    fn one_more(&self, directory: &Path) -> Result<Latency, Error> {
        let store = open_buffered(directory)?;
        self.fill(&store)?;
        timed(&store, LONG, self.size.long)?;
        self.again(|step| {
            store.append(LONG, &Deposited { cents: step })?;
            timed(&store, LONG, self.size.long + step + 1)
        })
    }

    /// In no visible order, all of them in memory; another entity has been appended to since each was looked
    /// at.
    fn of_many(&self, directory: &Path) -> Result<Latency, Error> {
        let store = open_buffered(directory)?;
        self.fill(&store)?;
        for number in 0..self.size.accounts {
            timed(&store, &account(number), self.size.each)?;
        }
        self.again(|step| {
            if step.is_multiple_of(self.size.accounts) {
                store.append(LONG, &Deposited { cents: step })?;
            }
            timed(&store, &account(scattered(step, self.size.accounts)), self.size.each)
        })
    }

    /// Every time around, the store is opened again; the first load opens the file, and is not timed.
    fn first_from_file(&self, directory: &Path) -> Result<Latency, Error> {
        let store = open_buffered(directory)?;
        self.fill(&store)?;
        for number in 0..self.size.accounts {
            timed(&store, &account(number), self.size.each)?;
        }
        timed(&store, LONG, self.size.long)?;
        store.close()?;
        let mut latency = Latency::new();
        let began = Instant::now();
        while latency.count() == 0 || began.elapsed() < self.time {
            let store = Store::open(directory)?;
            timed(&store, LONG, self.size.long)?;
            for step in 0..self.size.accounts {
                let account = account(scattered(step, self.size.accounts));
                latency.record(timed(&store, &account, self.size.each)?);
            }
            assert_eq!(store.stats().cache.misses, 0, "all states are found");
            store.close()?;
        }
        Ok(latency)
    }
}

fn account(number: u64) -> String {
    format!("account:{number:04}")
}

/// Times one load, and looks whether it is all there.
fn timed(store: &Store, entity: &str, events: u64) -> Result<Duration, Error> {
    let began = Instant::now();
    let account = store.load::<Account>(entity)?;
    let time = began.elapsed();
    assert_eq!(account.deposits, events, "{entity}");
    Ok(time)
}

fn figures(latency: &Latency) -> Figures {
    let mut figures = latency.figures();
    let (_, p50) = figures[0];
    figures.push(("loads_per_s", 1e6 / p50.max(f64::MIN_POSITIVE)));
    figures
}

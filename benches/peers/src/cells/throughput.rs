//! W1-W4: how many events go in, one by one from one thread and many, in batches, in flight.
//!
//! Every measurement has a new store. Times run from before an append is encoded until it is acknowledged.
//! The first tenth of the time is not counted. Afterwards the store must have all that was acknowledged.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Bench, Cell};
use crate::measure::{Figures, Latency, figures, float};
use crate::peer::{Can, Class, Failure, Kind, Look, Opening, Peer};
use crate::sample::{PAYLOAD_BYTES, Sample};

/// Who appends, and how.
#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    opening: Opening,
    threads: u32,
    /// Events of one append, each of another entity.
    batch: u64,
    /// Whether a thread waits for each append before the next.
    is_waiting: bool,
}

pub fn cells() -> Vec<Cell> {
    let durable = Load { name: "W1", opening: Opening::Synced, threads: 1, batch: 1, is_waiting: true };
    let buffered = Load { name: "W4-1", opening: Opening::Buffered, ..durable };
    let loads = [
        durable,
        Load { name: "W2-8", threads: 8, ..durable },
        Load { name: "W2-32", threads: 32, ..durable },
        Load { name: "W2-64", threads: 64, ..durable },
        Load { name: "W3", batch: 100, ..durable },
        Load { name: "W3p", is_waiting: false, ..durable },
        buffered,
        Load { name: "W4-8", threads: 8, ..buffered },
        Load { name: "W4p", is_waiting: false, ..buffered },
    ];
    loads.into_iter().map(cell).collect()
}

fn cell(load: Load) -> Cell {
    let parameters = json!({
        "durability": if load.opening == Opening::Synced { "synced" } else { "buffered" },
        "threads": load.threads,
        "events_per_append": load.batch,
        "is_waiting_for_each": load.is_waiting,
        "payload_bytes": PAYLOAD_BYTES,
    });
    Cell {
        name: load.name.to_owned(),
        parameters,
        is_for: |_| true,
        measure: Box::new(move |bench, kind| measure(bench, kind, load)),
    }
}

fn measure(bench: &Bench<'_>, kind: &Kind, load: Load) -> Can<Figures> {
    bench.place.with_store(|directory| {
        let Some(store) = (kind.open)(directory, load.opening)? else { return Ok(None) };
        let race = if load.is_waiting {
            Some(Race::run(&load, bench.options.time, &*store, &bench.sample)?)
        } else {
            Race::in_flight(bench.options.time, &*store, &bench.sample)?
        };
        if let Some(race) = &race
            && kind.class != Class::Ceiling
        {
            let there = store.replay(Look::Raw)?.map(|tally| tally.events);
            if there != Some(race.appends * load.batch) {
                return Err(format!(
                    "{} appends were acknowledged, but {there:?} events are there",
                    race.appends
                )
                .into());
            }
        }
        store.close()?;
        Ok(race.map(|race| race.figures(load.batch)))
    })
}

/// What all threads of a load did together.
struct Race {
    began: Instant,
    ended: Instant,
    /// All of them, those before counting began included.
    appends: u64,
    /// Those that counted.
    counted: u64,
    /// The latency of those appends; empty if the threads did not wait for each.
    latency: Latency,
}

impl Race {
    /// Starts the threads on a barrier. The time is from when the first begins to count to the last end.
    fn run(load: &Load, time: Duration, store: &dyn Peer, sample: &Sample) -> Result<Race, Failure> {
        let barrier = &Barrier::new(usize::try_from(load.threads)?);
        let races = thread::scope(|scope| {
            let start = |thread| {
                scope.spawn(move || {
                    barrier.wait();
                    Race::of_thread(load, thread, time, store, sample)
                })
            };
            let threads: Vec<_> = (0..load.threads).map(start).collect();
            let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().expect("no thread panics");
            threads.into_iter().map(join).collect::<Result<Vec<Race>, Failure>>()
        })?;
        races.into_iter().reduce(Race::with).ok_or_else(|| "a load has a thread".into())
    }

    /// Appends one after the other until the time is up. One look at the clock per append: the end of one
    /// is the beginning of the next.
    fn of_thread(
        load: &Load,
        thread: u32,
        time: Duration,
        store: &dyn Peer,
        sample: &Sample,
    ) -> Result<Race, Failure> {
        let started = Instant::now();
        let (counts_from, ends) = (started + time / 10, started + time / 10 + time);
        let mut race =
            Race { began: started, ended: started, appends: 0, counted: 0, latency: Latency::new() };
        while race.ended < ends {
            let number = (race.appends * u64::from(load.threads) + u64::from(thread)) * load.batch;
            if load.batch == 1 {
                let (entity, order) = sample.event(number);
                store.append(entity, order)?;
            } else {
                store.append_batch(&sample.batch(number, load.batch))?;
            }
            race.appends += 1;
            let (began, now) = (race.ended, Instant::now());
            race.ended = now;
            if began >= counts_from {
                race.counted += 1;
                race.latency.record(now - began);
            } else {
                race.began = now;
            }
        }
        Ok(race)
    }

    /// One thread hands appends over without waiting for each, and counts until the last has landed.
    fn in_flight(time: Duration, store: &dyn Peer, sample: &Sample) -> Can<Race> {
        let Some(mut pipeline) = store.pipeline()? else { return Ok(None) };
        let began = Instant::now();
        let mut appends = 0;
        while began.elapsed() < time {
            let (entity, order) = sample.event(appends);
            pipeline.submit(entity, order)?;
            appends += 1;
        }
        pipeline.land()?;
        let ended = Instant::now();
        Ok(Some(Race { began, ended, appends, counted: appends, latency: Latency::new() }))
    }

    fn with(mut self, other: Race) -> Race {
        self.latency.add(&other.latency);
        Race {
            began: self.began.min(other.began),
            ended: self.ended.max(other.ended),
            appends: self.appends + other.appends,
            counted: self.counted + other.counted,
            latency: self.latency,
        }
    }

    fn figures(&self, batch: u64) -> Figures {
        let seconds = (self.ended - self.began).as_secs_f64();
        let mut all = figures([("events_per_s", float(self.counted * batch) / seconds)]);
        if self.latency.count() > 0 {
            all.extend(self.latency.figures());
        }
        all
    }
}

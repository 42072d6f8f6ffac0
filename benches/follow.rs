//! Followers: the time from an append to the follower that it wakes, and appends beside followers.
//!
//! Every cell has a new store. In a "wake" cell one thread appends, and waits until the one follower has the
//! event. The follower has a thread of its own. Times count from before the append is built (`woken`), and
//! from its acknowledgement (`after_ack`; 0 if the follower was first). The other cells append beside a
//! number of followers, each of which asks for every event. `behind_ms` is the time from the last
//! acknowledgement until the last follower has the last event. All threads share the processor, so the time
//! of followers is missing elsewhere.
//!
//! `cargo bench --bench follow -- --help` names the options.

mod support;

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use annals::{Durability, Error, Notice, Query, Store};
use serde_json::{Map, Value, json};
use support::flight::{Flight, QUEUE_COMMANDS_MAX, WINDOW};
use support::latency::Latency;
use support::options::Options;
use support::place::Place;
use support::report::{Column, Figures};
use support::rounds::{Bench, Cell, Measured, run};
use support::sample::{Sample, buffered};
use support::{Failure, float};

const BENCH: Bench = Bench {
    name: "follow",
    columns: &[
        Column { figure: "events_per_s", title: "events/s" },
        Column { figure: "per_cal", title: "per cal" },
        Column { figure: "woken_p50_us", title: "woken p50 us" },
        Column { figure: "woken_p99_us", title: "woken p99 us" },
        Column { figure: "after_ack_p50_us", title: "after ack p50 us" },
        Column { figure: "after_ack_p99_us", title: "after ack p99 us" },
        Column { figure: "behind_ms", title: "behind ms" },
        Column { figure: "missed_percent", title: "missed %" },
        Column { figure: "cal_mean_us", title: "cal us" },
    ],
};

/// How a follower gets its events.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Subscription,
    Notifications,
}

/// Who appends, and who follows.
#[derive(Clone, Copy)]
struct Load {
    durability: Durability,
    /// Threads that append one by one; 0 is one thread with a window of tickets.
    threads: u32,
    how: How,
    followers: u32,
}

fn main() -> Result<(), Failure> {
    let options = Options::from_command_line();
    let place = Place::new(&options.directory, BENCH.name)?;
    let sample = Sample::new();
    let mut cells = Vec::new();
    for durability in [Durability::Synced, buffered()] {
        for how in [How::Subscription, How::Notifications] {
            let load = Load { durability, threads: 1, how, followers: 1 };
            cells.push(cell(load, "wake", &options, &place, &sample, wake));
        }
    }
    for (durability, threads) in [(Durability::Synced, 8), (Durability::Synced, 0), (buffered(), 0)] {
        for (how, followers) in [How::Subscription, How::Notifications]
            .into_iter()
            .flat_map(|how| [0, 1, 4, 16].map(|followers| (how, followers)))
            .filter(|(how, followers)| *followers > 0 || *how == How::Subscription)
        {
            let load = Load { durability, threads, how, followers };
            cells.push(cell(load, "append", &options, &place, &sample, beside));
        }
    }
    run(&BENCH, &options, &place, cells)
}

type Measure = fn(&Load, Duration, &Store, &Sample) -> Result<Figures, Failure>;

fn cell<'a>(
    load: Load,
    what: &str,
    options: &'a Options,
    place: &'a Place,
    sample: &'a Sample,
    measure: Measure,
) -> Cell<'a> {
    let name = load.name(what);
    Cell {
        name: name.clone(),
        parameters: load.parameters(),
        goal: None,
        is_durable: load.durability == Durability::Synced,
        measure: Box::new(move || {
            let directory = place.store(&name);
            let builder = Store::builder(&directory).durability(load.durability);
            let store = builder.queue_commands_max(QUEUE_COMMANDS_MAX).open()?;
            let figures = measure(&load, options.time, &store, sample)?;
            store.close()?;
            place.clear(&directory)?;
            Ok(Measured::from(figures))
        }),
    }
}

/// One append at a time, each waited for at both ends.
fn wake(load: &Load, time: Duration, store: &Store, sample: &Sample) -> Result<Figures, Failure> {
    let (woken, wakings) = mpsc::channel();
    let follow = load.follower(store);
    thread::scope(|scope| {
        let follower = scope.spawn(move || {
            // A send fails once the measurement is over, and its time is not needed any more.
            follow(&mut |_| woken.send(Instant::now()).unwrap_or_default())
        });
        let began = Instant::now();
        let measured = wake_one_by_one(began + time, store, sample, &wakings);
        let took = began.elapsed();
        // Closed before any error is returned: only the close ends the follower, and the scope waits for it.
        store.clone().close()?;
        let followed = follower.join().expect("the follower does not panic")?;
        let (since_append, since_ack) = measured?;
        assert_eq!(followed, Followed { seen: since_append.count(), missed: 0 });
        let at = |latency: &Latency, figure| {
            let figures = latency.figures();
            figures.iter().find(|(name, _)| *name == figure).map_or(f64::NAN, |(_, value)| *value)
        };
        Ok(vec![
            ("events_per_s", float(since_append.count()) / took.as_secs_f64()),
            ("woken_p50_us", at(&since_append, "p50_us")),
            ("woken_p99_us", at(&since_append, "p99_us")),
            ("after_ack_p50_us", at(&since_ack, "p50_us")),
            ("after_ack_p99_us", at(&since_ack, "p99_us")),
        ])
    })
}

/// The times until the follower had each event: since before the append, and since it was acknowledged.
fn wake_one_by_one(
    deadline: Instant,
    store: &Store,
    sample: &Sample,
    wakings: &mpsc::Receiver<Instant>,
) -> Result<(Latency, Latency), Failure> {
    let (mut since_append, mut since_ack) = (Latency::new(), Latency::new());
    for number in 0.. {
        let before = Instant::now();
        sample.append(number).commit(store)?;
        let acknowledged = Instant::now();
        let woken = wakings.recv()?;
        since_append.record(woken - before);
        since_ack.record(woken.saturating_duration_since(acknowledged));
        if Instant::now() >= deadline {
            break;
        }
    }
    Ok((since_append, since_ack))
}

/// As many appends as go, beside the followers.
fn beside(load: &Load, time: Duration, store: &Store, sample: &Sample) -> Result<Figures, Failure> {
    thread::scope(|scope| {
        let follow = |_| {
            let follow = load.follower(store);
            scope.spawn(move || follow(&mut |_| ()).map(|followed| (followed, Instant::now())))
        };
        let followers: Vec<_> = (0..load.followers).map(follow).collect();
        let appender = |thread| scope.spawn(move || append(load, thread, time, store, sample));
        let began = Instant::now();
        let appenders: Vec<_> = (0..load.threads.max(1)).map(appender).collect();
        let join = |appender: thread::ScopedJoinHandle<'_, _>| appender.join().expect("it does not panic");
        let appended: Result<u64, Error> = appenders.into_iter().map(join).sum();
        let ended = Instant::now();
        // Closed before any error is returned: only the close ends the followers, and the scope waits for them.
        store.clone().close()?;
        let appended = appended?;
        let mut figures = vec![("events_per_s", float(appended) / (ended - began).as_secs_f64())];
        let (mut last, mut missed) = (ended, 0);
        for follower in followers {
            let (followed, through) = follower.join().expect("the follower does not panic")?;
            assert_eq!(
                followed.seen + followed.missed,
                appended,
                "everything was seen, or said to be missed"
            );
            last = last.max(through);
            missed += followed.missed;
        }
        if load.followers > 0 {
            let all = float(appended * u64::from(load.followers));
            figures.push(("behind_ms", (last - ended).as_secs_f64() * 1e3));
            if load.how == How::Notifications {
                figures.push(("missed_percent", 100.0 * float(missed) / all));
            }
        }
        Ok(figures)
    })
}

/// Appends until the time is up; says how many.
fn append(load: &Load, thread: u32, time: Duration, store: &Store, sample: &Sample) -> Result<u64, Error> {
    let deadline = Instant::now() + time;
    let numbers = (u64::from(thread)..).step_by(usize::try_from(load.threads.max(1)).expect("at most 8"));
    let mut appends = numbers.map(|number| sample.append(number));
    if load.threads == 0 {
        let mut flight = Flight::new(store);
        while flight.submit(appends.next().expect("numbers do not end"))? < deadline {}
        return Ok(flight.land()?.count());
    }
    let mut count = 0;
    while Instant::now() < deadline {
        appends.next().expect("numbers do not end").commit(store)?;
        count += 1;
    }
    Ok(count)
}

/// What a follower saw until the store was closed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Followed {
    seen: u64,
    missed: u64,
}

/// Follows to the end; tells of each event or notice.
type Follow = Box<dyn FnOnce(&mut dyn FnMut(u64)) -> Result<Followed, Error> + Send>;

impl Load {
    fn follower(&self, store: &Store) -> Follow {
        match self.how {
            How::Subscription => {
                let subscription = store.subscribe(Query::all());
                Box::new(|told| {
                    let mut followed = Followed::default();
                    for event in subscription {
                        told(event?.position().get());
                        followed.seen += 1;
                    }
                    Ok(followed)
                })
            }
            How::Notifications => {
                let notifications = store.notifications(Query::all());
                Box::new(|told| {
                    let mut followed = Followed::default();
                    for notice in notifications {
                        match notice? {
                            Notice::Events(events) => {
                                told(events[0].position().get());
                                followed.seen += u64::try_from(events.len()).expect("a count");
                            }
                            Notice::Lagged { missed, .. } => followed.missed += missed,
                        }
                    }
                    Ok(followed)
                })
            }
        }
    }

    fn name(&self, what: &str) -> String {
        let durability = if self.durability == Durability::Synced { "durable" } else { "buffered" };
        let hand_over = match (what, self.threads) {
            ("wake", _) => String::new(),
            (_, 0) => "-tickets".to_owned(),
            (_, threads) => format!("-{threads}"),
        };
        let followers = match (what, self.followers, self.how) {
            ("wake", _, How::Subscription) => "subscription".to_owned(),
            ("wake", _, How::Notifications) => "notifications".to_owned(),
            (_, 0, _) => "none".to_owned(),
            (_, count, How::Subscription) => format!("{count}-subscriptions"),
            (_, count, How::Notifications) => format!("{count}-receivers"),
        };
        format!("{what}/{durability}{hand_over}/{followers}")
    }

    fn parameters(&self) -> Map<String, Value> {
        let subscriptions = if self.how == How::Subscription { self.followers } else { 0 };
        let parameters = json!({
            "durability": if self.durability == Durability::Synced { "synced" } else { "buffered" },
            "threads": self.threads.max(1),
            "appends_in_flight_per_thread": if self.threads == 0 { WINDOW } else { 1 },
            "subscriptions": subscriptions,
            "notification_receivers": self.followers - subscriptions,
        });
        parameters.as_object().cloned().unwrap_or_default()
    }
}

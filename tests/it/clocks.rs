//! Which clock counts: what is compared with times goes by the store's, also when that was wrong once.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use annals::disk::MemDisk;
use annals::test::Clock;
use annals::{Append, Freshness, Query, Raw, Store, Timer};

use crate::account::{Account, AccountEvent};

const MINUTE: Duration = Duration::from_secs(60);
/// From 2026 to 2099, about.
const LIFETIME: Duration = Duration::from_secs(73 * 365 * 24 * 60 * 60);

fn deposit(store: &Store) {
    store.append("a", &AccountEvent::Deposited { cents: 1, id: 0 }).unwrap();
}

/// A clock that may also go back.
#[derive(Clone)]
struct Wild(Arc<Mutex<SystemTime>>);

impl Wild {
    fn new() -> Wild {
        Wild(Arc::new(Mutex::new(Clock::new().now())))
    }

    fn set(&self, time: SystemTime) {
        *self.0.lock().unwrap() = time;
    }

    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }

    fn open(&self, disk: &MemDisk) -> Store {
        let clock = self.clone();
        Store::on(disk.clone()).clock(move || clock.now()).open().unwrap()
    }
}

/// `MaxStale` went by the system's clock: with the store's an hour further the old state was still new
/// enough.
#[test]
fn how_old_a_state_is_goes_by_the_stores_clock() {
    let clock = Wild::new();
    let store = clock.open(&MemDisk::new());
    let cents = |most: Duration| store.load_with::<Account>("a", Freshness::MaxStale(most)).unwrap().cents;
    deposit(&store);
    assert_eq!(cents(MINUTE), 1);
    deposit(&store);
    assert_eq!(cents(MINUTE), 1);
    clock.set(clock.now() + MINUTE);
    assert_eq!(cents(MINUTE), 1, "just as old as it may be");
    clock.set(clock.now() + Duration::from_micros(1));
    assert_eq!(cents(MINUTE), 2);
    // A state that was looked at later than now is of no known age: it is looked at again.
    deposit(&store);
    clock.set(clock.now() - MINUTE * 60);
    assert_eq!(cents(MINUTE), 3);
    deposit(&store);
    assert_eq!(cents(MINUTE), 3);
}

/// One append in 2099, then the clock was right again: a timer set for a minute was due in 2099.
#[test]
fn a_timer_counts_from_the_clock_and_not_from_recorded_at() {
    let (clock, disk) = (Wild::new(), MemDisk::new());
    let store = clock.open(&disk);
    let right = clock.now();
    clock.set(right + LIFETIME);
    store.append("a", &Raw("k", &())).unwrap();
    clock.set(right);
    let timer = || Timer::after(MINUTE, Append::to("order:1").event(&Raw("order.expired", &())));
    let set = || Append::to("order:1").event(&Raw("order.placed", &())).timer("t", timer()).key("once");
    let receipt = set().commit(&store).unwrap();
    assert_eq!(receipt.recorded_at(), right + LIFETIME, "recorded-at never goes back");
    assert_eq!(store.timers().unwrap()[0].due, right + MINUTE);
    // A retry is the same append, although the clock went on.
    clock.set(right + MINUTE - Duration::from_micros(1));
    assert!(set().commit(&store).unwrap().replayed());
    assert_eq!(store.fire_timers().unwrap(), 0);
    store.close().unwrap();
    let store = clock.open(&disk);
    clock.set(right + MINUTE);
    assert_eq!(store.timers().unwrap()[0].due, right + MINUTE);
    assert_eq!(store.fire_timers().unwrap(), 1);
    assert_eq!(store.last(Query::entity("order:1")).unwrap().unwrap().kind(), "order.expired");
}

/// Nothing said that recorded-at stands in 2099; and there was no way on.
#[cfg(feature = "jsonl")]
#[test]
fn a_clock_that_was_wrong_once_is_told_and_there_is_a_way_on() {
    let (clock, disk) = (Wild::new(), MemDisk::new());
    let store = clock.open(&disk);
    let right = clock.now();
    store.append("a", &Raw("k", &1)).unwrap();
    assert_eq!(
        (store.open_report().recorded_ahead, store.stats().recorded_ahead),
        (Duration::ZERO, Duration::ZERO)
    );
    clock.set(right + LIFETIME);
    store.append("a", &Raw("k", &2)).unwrap();
    clock.set(right + MINUTE);
    store.append("a", &Raw("k", &3)).unwrap();
    store.append("b", &Raw("k", &4)).unwrap();
    let ahead = LIFETIME - MINUTE;
    assert_eq!(store.stats().recorded_ahead, ahead);
    store.close().unwrap();
    let store = clock.open(&disk);
    assert_eq!(store.open_report().recorded_ahead, ahead);
    assert!(store.open_report().to_string().contains("ahead of the clock"), "{}", store.open_report());
    let now = clock.clone();
    let reader = Store::on(disk.clone()).clock(move || now.now()).open_read_only().unwrap();
    assert_eq!((reader.open_report().recorded_ahead, reader.stats().recorded_ahead), (ahead, ahead));

    // A fork from before it, and the rest imported without the times that are wrong.
    let forked = MemDisk::new();
    store.fork_on(forked.clone(), annals::Position::from(1)).run().unwrap();
    let mut lines = Vec::new();
    store.export(Query::all()).after(annals::Position::from(1)).write_to(&mut lines).unwrap();
    let lines: String = std::str::from_utf8(&lines)
        .unwrap()
        .lines()
        .map(|line| {
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
            line.as_object_mut().unwrap().remove("recorded_at");
            format!("{line}\n")
        })
        .collect();
    let copy = clock.open(&forked);
    copy.import("the rest", lines.as_bytes()).run().unwrap();
    for event in store.read(Query::all()) {
        let event = event.unwrap();
        let copied = copy.get(event.id()).unwrap().unwrap();
        assert_eq!((copied.entity(), copied.version()), (event.entity(), event.version()));
        assert_eq!(copied.payload().unwrap(), event.payload().unwrap());
        assert!(copied.recorded_at() <= clock.now());
        assert_eq!(copied.occurred_at(), None);
    }
    assert_eq!(copy.stats().recorded_ahead, Duration::ZERO);
}

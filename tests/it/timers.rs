//! Timers: a timer fires once, under any runner and after any stop.

use std::time::Duration;

use annals::disk::{MemDisk, SimDisk};
use annals::test::{Clock, Crash};
use annals::{
    Append, Cause, Durability, ErrorKind, Expected, Limits, Query, Raw, Reaction, RecordedEvent, Store,
    Timer, TimerStatus,
};

use crate::support::{FOREVER, eventually, kind_of, within};

const MINUTE: Duration = Duration::from_secs(60);

fn expire(order: &str) -> Append {
    Append::to(order).event(&Raw("order.expired", &order))
}

fn open(disk: &MemDisk, clock: &Clock) -> Store {
    Store::on(disk.clone()).clock(clock.source()).open().unwrap()
}

fn kinds(store: &Store, entity: &str) -> Vec<String> {
    store.stream(entity).map(|event| event.unwrap().kind().to_owned()).collect()
}

fn history(store: &Store, timer: &str) -> Vec<String> {
    kinds(store, &format!("$timer/{timer}"))
}

fn names(timers: &[TimerStatus]) -> Vec<&str> {
    timers.iter().map(|timer| timer.name.as_str()).collect()
}

#[test]
fn timers_fire_once_in_the_order_in_which_they_came_due() {
    let (disk, clock) = (MemDisk::new(), Clock::new());
    let store = open(&disk, &clock);
    for (name, minutes) in [("c", 3), ("a", 1), ("b", 2), ("d", 9)] {
        store.set_timer(name, Timer::after(MINUTE * minutes, expire(name))).unwrap();
    }
    store.set_timer("e", Timer::at(clock.now() + MINUTE * 2, expire("e"))).unwrap();
    assert_eq!(names(&store.timers().unwrap()), ["a", "b", "e", "c", "d"]);
    assert_eq!(store.timers().unwrap()[4].due, clock.now() + MINUTE * 9);
    clock.advance(MINUTE - Duration::from_micros(1));
    assert_eq!(store.fire_timers().unwrap(), 0);
    clock.advance(Duration::from_micros(1));
    assert_eq!(store.fire_timers().unwrap(), 1);
    // No runner fires timers for a while, and the store is closed and opened.
    store.close().unwrap();
    clock.advance(MINUTE * 5);
    let store = open(&disk, &clock);
    assert_eq!(store.fire_timers().unwrap(), 3);
    assert_eq!(store.fire_timers().unwrap(), 0);
    let fired: Vec<String> =
        store.read(Query::all()).map(|event| event.unwrap().entity().to_owned()).collect();
    assert_eq!(fired, ["a", "b", "e", "c"]);
    assert_eq!(names(&store.timers().unwrap()), ["d"]);
    assert_eq!(history(&store, "a"), ["$timer.set", "$timer.fired"]);
}

#[test]
fn what_comes_before_cancels_replaces_or_takes_back() {
    let (disk, clock) = (MemDisk::new(), Clock::new());
    let store = open(&disk, &clock);
    store.append("order:early", &Raw("order.paid", &())).unwrap();
    for order in ["order:paid", "order:early", "order:back"] {
        let unless = Query::entity(order).kind("order.paid");
        store.set_timer(order, Timer::after(MINUTE, expire(order)).unless(unless)).unwrap();
    }
    store.set_timer("order:moved", Timer::after(MINUTE, expire("order:moved"))).unwrap();
    store.set_timer("order:moved", Timer::after(MINUTE * 2, expire("order:moved"))).unwrap();
    let paid = store.append("order:paid", &Raw("order.paid", &())).unwrap();
    assert!(store.cancel_timer("order:back").unwrap());
    assert!(!store.cancel_timer("order:back").unwrap());
    assert!(!store.cancel_timer("never").unwrap());
    clock.advance(MINUTE);
    assert_eq!(store.fire_timers().unwrap(), 1, "only what was paid before the timer was set");
    assert_eq!(kinds(&store, "order:early"), ["order.paid", "order.expired"]);
    assert_eq!(kinds(&store, "order:paid"), ["order.paid"]);
    assert_eq!(history(&store, "order:paid"), ["$timer.set", "$timer.cancelled"]);
    let cancelled = store.last(Query::entity("$timer/order:paid")).unwrap().unwrap();
    let by: std::collections::BTreeMap<String, u64> = cancelled.decode().unwrap();
    assert_eq!(by["by"], paid.position().get());
    clock.advance(MINUTE);
    assert_eq!(store.fire_timers().unwrap(), 1);
    assert_eq!(history(&store, "order:moved"), ["$timer.set", "$timer.set", "$timer.fired"]);
    assert_eq!(kinds(&store, "order:moved"), ["order.expired"]);
    assert!(store.timers().unwrap().is_empty());
    // A name is free again once its timer is done.
    store.set_timer("order:paid", Timer::after(MINUTE, expire("order:paid"))).unwrap();
    clock.advance(MINUTE);
    assert_eq!(store.fire_timers().unwrap(), 1);
}

#[test]
fn a_timer_is_part_of_the_append_that_sets_it_and_of_no_answer() {
    let (disk, clock) = (MemDisk::new(), Clock::new());
    let store = open(&disk, &clock);
    let placed = || {
        let append = Append::to("order:1").event(&Raw("order.placed", &()));
        let append = append.timer("expiry", Timer::after(MINUTE, expire("order:1"))).tag("late");
        append.and_to("stock:1").event(&Raw("stock.reserved", &())).key("k")
    };
    let conflict = placed().expect(Expected::StreamExists).commit(&store);
    assert_eq!(kind_of(conflict), ErrorKind::Conflict);
    assert!(store.timers().unwrap().is_empty());
    let receipt = placed().commit(&store).unwrap();
    let again = placed().commit(&store).unwrap();
    assert!(again.replayed());
    for receipt in [receipt, again] {
        // The timer's event stands behind those of the caller, and no receipt counts it.
        assert_eq!((receipt.events(), receipt.position().get(), receipt.version().get()), (2, 2, 1));
        assert_eq!(store.get(receipt.id()).unwrap().unwrap().kind(), "stock.reserved");
    }
    assert_eq!(store.count(Query::all()).unwrap(), 2);
    let events: Vec<RecordedEvent> = store.read(Query::all()).map(Result::unwrap).collect();
    assert_eq!(events[0].tags().collect::<Vec<_>>(), ["late"]);
    clock.advance(MINUTE);
    assert_eq!(store.fire_timers().unwrap(), 1);
    let expired = store.last(Query::entity("order:1")).unwrap().unwrap();
    assert_eq!(expired.cause(), Some(Cause::Event(events[0].id())));
    assert_eq!(expired.correlation(), events[0].correlation());
    assert_eq!(expired.decode::<String>().unwrap(), "order:1");
}

/// A reactor that is late sets its timer behind what was to cancel it: the order was paid at once, and
/// expired all the same.
#[test]
fn a_reaction_counts_from_the_event_it_reacts_to() {
    let (disk, clock) = (MemDisk::new(), Clock::new());
    let store = open(&disk, &clock);
    for order in ["order:1", "order:2"] {
        store.append(order, &Raw("order.placed", &())).unwrap();
    }
    store.append("order:2", &Raw("order.paid", &())).unwrap();
    let placed = Query::all().kind("order.placed");
    let react = |event: &RecordedEvent, reaction: &mut Reaction<'_>| {
        let order = event.entity();
        let expiry = Timer::after(MINUTE, expire(order)).unless(Query::entity(order).kind("order.paid"));
        reaction.add(Append::to(order).event(&Raw("order.noted", &())).timer(order, expiry));
        Ok(())
    };
    let worker = store.react("expiry", placed, react).unwrap();
    assert!(store.wait_for("expiry", store.head().unwrap().position(), FOREVER).unwrap());
    worker.stop();
    clock.advance(MINUTE);
    assert_eq!(store.fire_timers().unwrap(), 1);
    assert_eq!(kinds(&store, "order:1"), ["order.placed", "order.noted", "order.expired"]);
    assert_eq!(kinds(&store, "order:2"), ["order.placed", "order.paid", "order.noted"]);
    assert_eq!(history(&store, "order:2"), ["$timer.set", "$timer.cancelled"]);
    let (first, expired) = (store.stream("order:1").next(), store.last(Query::entity("order:1")));
    let (first, expired) = (first.unwrap().unwrap(), expired.unwrap().unwrap());
    assert_eq!(
        (expired.cause(), expired.correlation()),
        (Some(Cause::Event(first.id())), first.correlation())
    );
}

#[test]
fn what_waits_keeps_its_scope_tags_and_version() {
    let (disk, clock) = (MemDisk::new(), Clock::new());
    let store = open(&disk, &clock);
    let append = Append::to(("a", "tenant:acme")).event(&Raw("k", &vec![1u8, 2])).tag("one").tag("two");
    let append = append.and_to("b").event(&Raw("l", &()));
    store.set_timer("t", Timer::after(Duration::ZERO, append)).unwrap();
    assert_eq!(store.fire_timers().unwrap(), 1);
    let events: Vec<RecordedEvent> = store.read(Query::all()).map(Result::unwrap).collect();
    assert_eq!((events[0].entity(), events[0].scope(), events[0].kind()), ("a", "tenant:acme", "k"));
    assert_eq!(events[0].tags().collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(events[0].decode::<Vec<u8>>().unwrap(), [1, 2]);
    assert_eq!((events[1].entity(), events[1].scope(), events[1].tags().count()), ("b", "default", 0));
    assert_eq!(events[0].cause(), None);
}

#[test]
fn what_cannot_be_a_timer_is_refused() {
    let store = Store::in_memory().unwrap();
    let soon = |append: Append| Timer::after(MINUTE, append);
    let refused = [
        ("t", soon(expire("a").expect(Expected::NoStream)), "expectation"),
        ("t", soon(expire("a").key("k")), "a key"),
        ("t", soon(Append::to("a")), "has no event"),
        ("t", soon(expire("a").timer("inner", soon(expire("b")))), "sets a timer itself"),
        ("t", soon(Append::to("").event(&Raw("k", &()))), "empty"),
        (
            "t",
            soon(expire("a")).unless(Query::correlation(annals::EventId::from_bytes([1; 16]))),
            "correlation",
        ),
        ("$t", soon(expire("a")), "begins with `$`"),
        ("", soon(expire("a")), "empty"),
    ];
    for (name, timer, text) in refused {
        let error = store.set_timer(name, timer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(text), "{text:?} in {error}");
    }
    assert_eq!(store.head().unwrap().position().get(), 0);
}

#[test]
fn what_is_refused_for_good_is_said_and_the_others_go_on() {
    let (disk, clock) = (MemDisk::new(), Clock::new());
    let store = open(&disk, &clock);
    let large = Append::to("a").event(&Raw("k", &"x".repeat(500)));
    store.set_timer("large", Timer::after(MINUTE, large)).unwrap();
    store.set_timer("small", Timer::after(MINUTE, expire("b"))).unwrap();
    store.close().unwrap();
    clock.advance(MINUTE);
    let limits = Limits { payload_bytes_max: 100, ..Limits::default() };
    let store = Store::on(disk.clone()).clock(clock.source()).limits(limits).open().unwrap();
    assert_eq!(store.fire_timers().unwrap(), 1);
    assert_eq!(store.fire_timers().unwrap(), 0, "what failed is not tried again by itself");
    let timers = store.timers().unwrap();
    assert_eq!(names(&timers), ["large"]);
    assert!(timers[0].failure.as_ref().unwrap().contains("payload_bytes_max"), "{timers:?}");
    assert!(store.cancel_timer("large").unwrap());
    assert!(store.timers().unwrap().is_empty());
}

#[test]
fn a_thread_fires_them_and_ends_with_the_store() {
    for durability in [Durability::Synced, Durability::Buffered { flush_every: Duration::from_millis(1) }] {
        let clock = Clock::new();
        let store = Store::on(MemDisk::new()).clock(clock.source()).durability(durability).open().unwrap();
        store.set_timer("first", Timer::after(Duration::ZERO, expire("first"))).unwrap();
        let timers = store.run_timers().unwrap();
        let mut events = store.subscribe(Query::all());
        let mut next = || events.next_timeout(FOREVER).unwrap().map(|event| event.entity().to_owned());
        assert_eq!(next().as_deref(), Some("first"));
        store.set_timer("second", Timer::after(Duration::ZERO, expire("second"))).unwrap();
        assert_eq!(next().as_deref(), Some("second"));
        for number in 0..20 {
            store.set_timer(format!("{number:02}"), Timer::after(MINUTE, expire("many"))).unwrap();
        }
        clock.advance(MINUTE);
        timers.check();
        assert!((0..20).all(|_| next().as_deref() == Some("many")));
        assert!(timers.is_running());
        timers.stop().unwrap();
        store.set_timer("third", Timer::after(Duration::ZERO, expire("third"))).unwrap();
        assert!(history(&store, "third") == ["$timer.set"]);
        let timers = store.run_timers().unwrap();
        assert_eq!(next().as_deref(), Some("third"));
        // The thread keeps no store open.
        drop(store);
        eventually("the timers end with the store", || !timers.is_running());
        timers.stop().unwrap();
    }
}

#[test]
fn a_store_that_fails_is_said_by_stop() {
    let disk = SimDisk::new(1);
    let store = Store::on(disk.clone()).open().unwrap();
    let timers = store.run_timers().unwrap();
    disk.fail_from(0, annals::disk::Fault::Error(std::io::ErrorKind::Other));
    assert!(store.append("a", &Raw("k", &())).is_err());
    eventually("the timers end with the writer", || !timers.is_running());
    assert_eq!(timers.stop().unwrap_err().kind(), ErrorKind::Poisoned);
    let closed = Store::in_memory().unwrap();
    let handle = closed.clone();
    closed.close().unwrap();
    assert_eq!(handle.run_timers().map(drop).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn several_who_run_timers_fire_each_once() {
    let clock = Clock::new();
    let store = Store::on(MemDisk::new()).clock(clock.source()).open().unwrap();
    for number in 0..200u64 {
        store.set_timer(format!("{number}"), Timer::after(MINUTE, expire("many"))).unwrap();
    }
    clock.advance(MINUTE);
    let threads: Vec<_> = (0..3).map(|_| store.run_timers().unwrap()).collect();
    let by_hand = {
        let store = store.clone();
        within(FOREVER, "firing by hand", move || store.fire_timers())
    };
    by_hand.unwrap();
    eventually("all have fired", || store.timers().unwrap().is_empty());
    threads.into_iter().for_each(|timers| timers.stop().unwrap());
    assert_eq!(store.count(Query::entity("many")).unwrap(), 200);
    assert!((0..200).all(|number| history(&store, &number.to_string()) == ["$timer.set", "$timer.fired"]));
}

#[test]
fn a_crash_anywhere_fires_each_once() {
    let work = |store: &Store, said: &annals::test::Said| {
        for number in 0..6u64 {
            let order = format!("order:{number}");
            let timer =
                Timer::after(Duration::ZERO, expire(&order)).unless(Query::entity(&order).kind("order.paid"));
            let placed = Append::to(order.as_str()).event(&Raw("order.placed", &())).timer(&order, timer);
            placed.commit(store).unwrap();
            if number % 3 == 0 {
                store.append(order.as_str(), &Raw("order.paid", &())).unwrap();
            }
            said.say(number);
            store.fire_timers().unwrap();
        }
    };
    let check = |store: &Store, said: &[u64]| {
        store.fire_timers().unwrap();
        assert!(store.timers().unwrap().is_empty());
        for number in 0..6u64 {
            let order = format!("order:{number}");
            let kinds = kinds(store, &order);
            if said.contains(&number) {
                let ended = if number % 3 == 0 { "order.paid" } else { "order.expired" };
                assert_eq!(kinds, ["order.placed", ended]);
            }
            assert!(kinds.iter().filter(|kind| *kind == "order.expired").count() <= 1, "{kinds:?}");
        }
    };
    let report = Crash::new(7).run(work, check);
    println!("crash images: {} over {} operations", report.images, report.operations);
    assert!(report.images > 200);
}

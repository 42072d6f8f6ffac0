//! Consumers: acknowledgements and what they survive, moves, states, waiting; partitioned consumption.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant, SystemTime};

use annals::disk::MemDisk;
use annals::{
    Consumer, ConsumerState, ConsumerStatus, Durability, ErrorKind, Position, Query, Raw, RecordedEvent,
    Retry, StopReason, Store, Worker,
};

use crate::support::{Behind, FOREVER, GatedDisk, eventually, fill, kind_of, within};

const QUICK: Retry =
    Retry { attempts: 2, first: Duration::from_millis(1), longest: Duration::from_millis(2) };

fn filled() -> Query {
    Query::all().kind("filled")
}

fn number(event: &RecordedEvent) -> u64 {
    event.decode().unwrap()
}

/// The numbers that come now.
fn numbers(consumer: &mut Consumer) -> Vec<u64> {
    let mut numbers = Vec::new();
    while let Some(event) = consumer.try_next().unwrap() {
        numbers.push(number(&event));
    }
    numbers
}

fn history(store: &Store, name: &str) -> Vec<String> {
    let kinds = store.stream(format!("$consumer/{name}")).map(|event| event.unwrap().kind().to_owned());
    kinds.map(|kind| kind.trim_start_matches("$consumer.").to_owned()).collect()
}

fn status(store: &Store, name: &str) -> ConsumerStatus {
    let found = store.consumers().unwrap().into_iter().find(|consumer| consumer.name == name);
    found.unwrap_or_else(|| panic!("there is no {name}"))
}

fn head(store: &Store) -> Position {
    store.head().unwrap().position()
}

fn wait(worker: &Worker) -> StopReason {
    worker.wait_timeout(FOREVER).expect("it stands still")
}

/// How many of five events are taken, how many of those acknowledged, and what comes after a restart.
#[test]
fn what_was_not_acknowledged_comes_again() {
    let table: [(usize, usize, &[u64]); 4] =
        [(0, 0, &[0, 1, 2, 3, 4]), (3, 0, &[0, 1, 2, 3, 4]), (3, 2, &[2, 3, 4]), (5, 5, &[])];
    for (taken, acknowledged, again) in table {
        for ends in ["drops it", "flushes and is killed", "closes"] {
            let disk = MemDisk::new();
            let store = Store::on(disk.clone()).open().unwrap();
            fill(&store, "e", 5);
            let mut consumer = store.consumer("c", filled()).unwrap();
            let events: Vec<_> = (0..taken).map(|_| consumer.try_next().unwrap().unwrap()).collect();
            for event in &events[..acknowledged] {
                consumer.ack(event.position()).unwrap();
            }
            match ends {
                "drops it" => drop(consumer),
                "flushes and is killed" => {
                    consumer.flush().unwrap();
                    store.clone().close().unwrap();
                }
                _ => {
                    drop(consumer);
                    store.clone().close().unwrap();
                }
            }
            drop(store);
            let store = Store::on(disk).open().unwrap();
            let mut consumer = store.consumer("c", filled()).unwrap();
            assert_eq!(numbers(&mut consumer), again, "{taken} taken, {acknowledged} acknowledged, {ends}");
        }
    }
}

#[test]
fn acknowledgements_are_written_together_and_wake_no_consumer() {
    let store = Store::in_memory().unwrap();
    fill(&store, "e", 2500);
    let mut consumer = store.consumer("c", filled()).unwrap();
    while let Some(event) = consumer.try_next().unwrap() {
        consumer.ack(event.position()).unwrap();
    }
    assert_eq!(history(&store, "c"), ["registered", "acked", "acked"], "one after 1,024 events each");
    // Before it sleeps it writes the rest; then its own event, and those of others, leave nothing to write.
    assert!(consumer.next_timeout(Duration::from_millis(1)).unwrap().is_none());
    let written = head(&store);
    for other in 0..3 {
        assert!(consumer.next_timeout(Duration::from_millis(1)).unwrap().is_none());
        store.append("other", &Raw("other", &other)).unwrap();
    }
    assert!(consumer.next_timeout(Duration::from_millis(1)).unwrap().is_none());
    assert_eq!(head(&store).get(), written.get() + 3);
    assert_eq!(history(&store, "c").len(), 4);
    assert_eq!(consumer.position(), head(&store), "nothing more matches up to there");
    drop(consumer);
    assert_eq!(head(&store).get(), written.get() + 3, "there is nothing to write");
}

#[test]
fn acknowledging_goes_only_forward_and_no_further_than_what_was_handed_out() {
    let store = Store::in_memory().unwrap();
    fill(&store, "e", 5);
    let mut consumer = store.consumer("c", filled()).unwrap();
    let batch = consumer.next_batch(3).unwrap();
    let refused = consumer.ack(batch[2].position().get().saturating_add(1).into()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(refused.to_string().contains("up to position 3"), "{refused}");
    consumer.ack(batch[1].position()).unwrap();
    consumer.ack(batch[0].position()).unwrap();
    assert_eq!(consumer.position(), batch[1].position());
    assert_eq!(format!("{consumer:?}"), r#"Consumer { name: "c", position: 2, .. }"#);
    drop(consumer);
    assert_eq!(numbers(&mut store.consumer("c", filled()).unwrap()), [2, 3, 4]);
}

#[test]
fn a_halted_consumer_says_so_until_it_is_resumed() {
    let disk = MemDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    fill(&store, "e", 3);
    let mut consumer = store.consumer("c", filled()).unwrap();
    let first = consumer.try_next().unwrap().unwrap();
    consumer.ack(first.position()).unwrap();
    store.consumer_control("c").by("alice").halt("her printer has no ink").unwrap();
    for _ in 0..2 {
        let error = consumer.next_timeout(FOREVER).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Halted);
        assert!(error.to_string().contains("halted by alice: her printer has no ink"), "{error}");
    }
    let ConsumerState::Halted(halt) = status(&store, "c").state else { panic!() };
    assert_eq!((halt.at, halt.by.as_str(), halt.reason.as_str()), (None, "alice", "her printer has no ink"));
    drop(consumer);
    store.close().unwrap();

    let store = Store::on(disk).open().unwrap();
    let ended: Vec<_> =
        store.consumer("c", filled()).unwrap().map(|item| item.map(|_| ()).unwrap_err().kind()).collect();
    assert_eq!(ended, [ErrorKind::Halted], "the iterator says it once and ends");
    let mut consumer = store.consumer("c", filled()).unwrap();
    assert_eq!(kind_of(consumer.try_next()), ErrorKind::Halted);
    store.consumer_control("c").resume().unwrap();
    assert_eq!(numbers(&mut consumer), [1, 2], "what was acknowledged before stays so");
}

#[test]
fn a_waiting_caller_is_woken_when_the_consumer_is_moved() {
    let store = Store::in_memory().unwrap();
    fill(&store, "e", 3);
    let mut consumer = store.consumer("c", filled()).unwrap();
    let last = consumer.next_batch(3).unwrap().pop().unwrap();
    consumer.ack(last.position()).unwrap();
    let (sender, received) = mpsc::channel();
    let waiting = std::thread::spawn(move || {
        for event in consumer {
            sender.send(number(&event.unwrap())).unwrap();
        }
    });
    eventually("it has written and sleeps", || history(&store, "c").len() == 2);
    store.consumer_control("c").rewind(1.into(), "2 and 3 once more").unwrap();
    let again: Vec<u64> = (0..2).map(|_| received.recv_timeout(FOREVER).unwrap()).collect();
    assert_eq!(again, [1, 2]);
    store.close().unwrap();
    within(FOREVER, "the end", move || waiting.join().unwrap());
}

#[test]
fn an_acknowledgement_that_comes_after_a_rewind_changes_nothing() {
    let store = Store::in_memory().unwrap();
    fill(&store, "e", 3);
    let mut consumer = store.consumer("c", filled()).unwrap();
    let events = consumer.next_batch(3).unwrap();
    consumer.ack(events[2].position()).unwrap();
    consumer.flush().unwrap();
    store.consumer_control("c").reset("from the beginning").unwrap();
    consumer.ack(events[2].position()).unwrap();
    assert_eq!(numbers(&mut consumer), [0, 1, 2]);
    store.consumer_control("c").skip(events[1].position(), "known").unwrap();
    assert_eq!(numbers(&mut consumer), [2]);
    assert_eq!(history(&store, "c"), ["registered", "acked", "reset", "skipped"]);
}

#[test]
fn a_new_query_is_recorded_and_holds_from_the_checkpoint_on() {
    let store = Store::in_memory().unwrap();
    let put = |kind: &str, number: u64| drop(store.append("e", &Raw(kind, &number)).unwrap());
    put("a", 1);
    put("b", 2);
    let kind = |kind: &str| Query::all().kind(kind);
    let mut consumer = store.consumer("c", kind("a")).unwrap();
    assert_eq!(numbers(&mut consumer), [1]);
    consumer.ack(1.into()).unwrap();
    drop(consumer);
    put("a", 3);
    for query in [kind("a").or(kind("b")), kind("a").or(kind("b")), kind("b")] {
        let mut consumer = store.consumer("c", query.clone()).unwrap();
        let expected: &[u64] = if query == kind("b") { &[2] } else { &[2, 3] };
        assert_eq!(numbers(&mut consumer), expected);
        assert_eq!(status(&store, "c").query, Some(query));
    }
    assert_eq!(history(&store, "c"), ["registered", "acked", "registered", "registered"]);
}

#[test]
fn a_new_name_may_begin_with_what_is_new() {
    let store = Store::in_memory().unwrap();
    fill(&store, "e", 3);
    let mut consumer = store.consumer("c", filled()).unwrap().only_new().unwrap();
    assert_eq!(numbers(&mut consumer), [0; 0]);
    drop(consumer);
    fill(&store, "f", 2);
    let mut consumer = store.consumer("c", filled()).unwrap().only_new().unwrap();
    assert_eq!(numbers(&mut consumer), [0, 1], "the name is not new any more");
}

#[test]
fn the_end_of_the_store_ends_it() {
    let disk = GatedDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    fill(&store, "e", 2);
    let mut consumer = store.consumer("c", filled()).unwrap();
    let first = consumer.try_next().unwrap().unwrap();
    store.clone().close().unwrap();
    // What was there still comes, as from a subscription.
    assert_eq!(numbers_until_closed(&mut consumer), [1]);
    assert_eq!(kind_of(consumer.ack(first.position())), ErrorKind::Closed);
    assert_eq!(consumer.map(Result::unwrap).count(), 0);
    assert_eq!(kind_of(store.consumer("c", filled())), ErrorKind::Closed);
    assert_eq!(kind_of(store.consumers()), ErrorKind::Closed);

    let store = Store::on(disk.clone()).open().unwrap();
    let mut consumer = store.consumer("c", filled()).unwrap();
    disk.gate().set_behind(Behind::Fail);
    assert_eq!(kind_of(store.append("e", &Raw("filled", &2))), ErrorKind::CommitUnknown);
    let kinds: Vec<_> =
        consumer.by_ref().map(|item| item.map_or_else(|error| Some(error.kind()), |_| None)).collect();
    assert_eq!(kinds, [None, None, Some(ErrorKind::Poisoned)]);
    assert_eq!(kind_of(consumer.next_timeout(FOREVER)), ErrorKind::Poisoned);
}

fn numbers_until_closed(consumer: &mut Consumer) -> Vec<u64> {
    let mut numbers = Vec::new();
    loop {
        match consumer.next_timeout(FOREVER) {
            Ok(event) => numbers.push(number(&event.unwrap())),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Closed);
                return numbers;
            }
        }
    }
}

#[test]
fn only_what_is_durable_comes() {
    let buffered = Durability::Buffered { flush_every: Duration::from_secs(3600) };
    let store = Store::on(MemDisk::new()).durability(buffered).open().unwrap();
    let mut consumer = store.consumer("c", filled()).unwrap();
    fill(&store, "e", 2);
    assert_eq!(numbers(&mut consumer), [0; 0]);
    store.sync().unwrap();
    assert_eq!(numbers(&mut consumer), [0, 1]);
}

#[test]
fn each_state_is_what_it_says() {
    let clock = Arc::new(AtomicU64::new(1_000_000_000));
    let seconds = clock.clone();
    let now = move || SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.load(Ordering::Relaxed));
    let store = Store::on(MemDisk::new()).clock(now).open().unwrap();
    assert!(store.consumers().unwrap().is_empty());
    let mut consumer = store.consumer("c", filled()).unwrap();
    assert_eq!((status(&store, "c").state, status(&store, "c").is_running), (ConsumerState::Idle, true));
    // Events of others do not count.
    store.append("e", &Raw("other", &())).unwrap();
    assert_eq!(status(&store, "c").state, ConsumerState::Idle);

    fill(&store, "e", 10);
    clock.fetch_add(60, Ordering::Relaxed);
    let just_begun = status(&store, "c");
    assert!(matches!(
        just_begun.state,
        ConsumerState::Lagging { events: 10, .. } | ConsumerState::CatchingUp { .. }
    ));
    drop(consumer);
    let lagging = status(&store, "c");
    assert_eq!(lagging.state, ConsumerState::Lagging { events: 10, oldest: Duration::from_secs(60) });
    assert_eq!((lagging.is_running, lagging.behind, lagging.position), (false, 10, Position::START));
    assert_eq!(lagging.to_string(), "c at 0, not running: lagging, 10 events left, the oldest of 60.0s ago");

    // One that works off a backlog gets nearer to the head, and it is said when it will be there.
    consumer = store.consumer("c", filled()).unwrap();
    for event in consumer.next_batch(4).unwrap() {
        consumer.ack(event.position()).unwrap();
    }
    let ConsumerState::CatchingUp { events, per_second, remaining } = status(&store, "c").state else {
        panic!("{:?}", status(&store, "c"));
    };
    assert_eq!(events, 6);
    assert!(per_second > 0.0 && remaining.is_some_and(|left| left < FOREVER), "{per_second} {remaining:?}");

    store.consumer_control("c").by("alice").halt("lunch").unwrap();
    let ConsumerState::Halted(halt) = status(&store, "c").state else { panic!() };
    assert_eq!(halt.since, SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_060));
    assert_eq!(status(&store, "c").to_string(), "c at 6: halted by alice: lunch");

    // A consumer outside annals.
    store.consumer_control("outside").halt("wait").unwrap();
    let outside = status(&store, "outside");
    assert_eq!((outside.query, outside.is_running), (None, false));
    store.consumer_control("outside").resume().unwrap();
    assert_eq!(status(&store, "outside").state, ConsumerState::Idle);

    let stuck = store
        .worker("stuck", filled())
        .retry(Retry { attempts: 1000, first: FOREVER, longest: FOREVER })
        .consume_partitioned(2, |_| Err("no".into()))
        .unwrap();
    eventually("it is stuck", || matches!(status(&store, "stuck").state, ConsumerState::Stuck { .. }));
    let ConsumerState::Stuck { at, attempts, reason } = status(&store, "stuck").state else { panic!() };
    assert_eq!((at.get(), attempts, reason.as_str()), (3, 1, "no"));
    assert!(matches!(stuck.stop(), StopReason::Stopped), "waiting for the next attempt ends");
    let names: Vec<String> = store.consumers().unwrap().into_iter().map(|consumer| consumer.name).collect();
    assert_eq!(names, ["c", "outside", "stuck"]);
}

#[test]
fn waiting_for_a_consumer() {
    let store = Store::in_memory().unwrap();
    let soon = Duration::from_millis(1);
    let waits = |position: Position, timeout| store.wait_for("c", position, timeout);
    fill(&store, "e", 2);
    assert!(!waits(2.into(), soon).unwrap(), "it never ran");
    let mut consumer = store.consumer("c", filled()).unwrap();
    assert!(waits(Position::START, soon).unwrap());
    assert!(!waits(1.into(), soon).unwrap());
    let batch = consumer.next_batch(2).unwrap();
    assert!(!waits(1.into(), soon).unwrap(), "handed out is not handled");
    consumer.ack(batch[0].position()).unwrap();
    assert!(waits(1.into(), soon).unwrap(), "before it is written");
    assert!(!waits(2.into(), soon).unwrap());
    consumer.ack(batch[1].position()).unwrap();
    store.append("e", &Raw("other", &())).unwrap();
    assert!(waits(head(&store), soon).unwrap(), "nothing there matches");
    assert!(!waits((head(&store).get() + 1).into(), soon).unwrap(), "that is still to come");

    // Also of one that does not run, by its checkpoint.
    drop(consumer);
    let known = head(&store);
    assert!(waits(known, soon).unwrap());
    fill(&store, "e", 1);
    assert!(!waits(head(&store), soon).unwrap());
    // Rewound, it is not as far any more.
    store.consumer_control("c").rewind(1.into(), "").unwrap();
    assert!(waits(1.into(), soon).unwrap() && !waits(2.into(), soon).unwrap());

    // Later acknowledgements wake the waiting caller.
    let position = head(&store);
    let waiting = store.clone();
    let waiter = std::thread::spawn(move || waiting.wait_for("c", position, FOREVER));
    let mut consumer = store.consumer("c", filled()).unwrap();
    let last = consumer.next_batch(10).unwrap().pop().unwrap();
    consumer.ack(last.position()).unwrap();
    assert!(waiter.join().unwrap().unwrap());
    // ... and by the end.
    let waiting = store.clone();
    let waiter = std::thread::spawn(move || waiting.wait_for("c", 1_000.into(), FOREVER));
    store.close().unwrap();
    assert_eq!(kind_of(within(FOREVER, "the end", move || waiter.join().unwrap())), ErrorKind::Closed);
}

#[test]
fn the_streams_of_consumers_are_seen_by_who_asks_for_them() {
    let store = Store::in_memory().unwrap();
    fill(&store, "e", 1);
    drop(store.consumer("c", filled()).unwrap());
    let names = |prefix: &str| -> Vec<String> {
        store.entities().prefix(prefix).map(|listed| listed.unwrap().name).collect()
    };
    assert_eq!(names(""), ["e"]);
    assert_eq!(names("$"), ["$consumer/c"]);
    assert_eq!(store.count(Query::all()).unwrap(), 1);
    assert_eq!(store.kinds().prefix("$consumer.").count(), 1);
}

/// What each entity's events were handled as, in order.
type Seen = Arc<Mutex<BTreeMap<String, Vec<u64>>>>;

#[test]
fn partitions_keep_the_order_of_each_entity() {
    const ENTITIES: u64 = 20;
    const EVENTS: u64 = 100;
    for threads in [0, 1, 3, 8] {
        let store = Store::in_memory().unwrap();
        let seen = Seen::default();
        let used: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let (sees, uses) = (seen.clone(), used.clone());
        let worker = store
            .consume_partitioned("p", filled(), threads, move |event| {
                let thread = std::thread::current().name().unwrap().to_owned();
                uses.lock().unwrap().insert(thread);
                sees.lock().unwrap().entry(event.entity().to_owned()).or_default().push(number(event));
                Ok(())
            })
            .unwrap();
        let tickets = (0..ENTITIES * EVENTS).map(|n| {
            let append =
                annals::Append::to(format!("e:{}", n % ENTITIES)).event(&Raw("filled", &(n / ENTITIES)));
            append.submit(&store).unwrap()
        });
        tickets.collect::<Vec<_>>().into_iter().for_each(|ticket| drop(ticket.wait().unwrap()));
        assert!(store.wait_for("p", head(&store), FOREVER).unwrap());
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len() as u64, ENTITIES);
        for (entity, numbers) in seen.iter() {
            assert_eq!(*numbers, (0..EVENTS).collect::<Vec<_>>(), "{entity} with {threads} threads");
        }
        assert_eq!(used.lock().unwrap().len(), threads.max(1));
        assert!(matches!(worker.stop(), StopReason::Stopped));
        assert_eq!(status(&store, "p").state, ConsumerState::Idle, "the checkpoint was written");
    }
}

#[test]
fn a_partition_that_fails_halts_behind_everything_before_it() {
    for panics in [false, true] {
        let store = Store::in_memory().unwrap();
        for n in 0..200_u64 {
            store.append(format!("e:{}", n % 10), &Raw("filled", &n)).unwrap();
        }
        let handled: Arc<Mutex<Vec<u64>>> = Arc::default();
        let mended = Arc::new(AtomicBool::new(false));
        let (handles, is_mended) = (handled.clone(), mended.clone());
        // The thread that fails, how often it has, and the store to see whether that halts it too early.
        let (bad_thread, failures) = (Mutex::new(None), AtomicU64::new(0));
        let watched = store.clone();
        let worker = store
            .worker("p", filled())
            .retry(QUICK)
            .consume_partitioned(4, move |event| {
                let number = number(event);
                let thread = std::thread::current().name().map(str::to_owned);
                if number == 7 {
                    bad_thread.lock().unwrap().clone_from(&thread);
                }
                if (48..57).contains(&number) && !is_mended.load(Ordering::Relaxed) {
                    // What is at work on other threads when it fails for good is finished first.
                    eventually("the thread is known", || bad_thread.lock().unwrap().is_some());
                    if *bad_thread.lock().unwrap() != thread {
                        eventually("it fails", || {
                            failures.load(Ordering::Relaxed) >= u64::from(QUICK.attempts)
                        });
                        let began = Instant::now();
                        let is_halted = || history(&watched, "p").contains(&"halted".to_owned());
                        while !is_halted() && began.elapsed() < Duration::from_millis(20) {
                            std::thread::yield_now();
                        }
                    }
                }
                if number == 57 {
                    failures.fetch_add(1, Ordering::Relaxed);
                }
                if number == 57 && !is_mended.load(Ordering::Relaxed) {
                    assert!(!panics, "57 is too much, on purpose");
                    return Err("57 is too much".into());
                }
                handles.lock().unwrap().push(number);
                Ok(())
            })
            .unwrap();
        match wait(&worker) {
            StopReason::FailedAt { position, error } if !panics => {
                assert_eq!((position.get(), error.as_str()), (58, "57 is too much"));
            }
            StopReason::PanickedAt { position, error } if panics => {
                assert!(position.get() == 58 && error.contains("57 is too much"), "{position} {error}");
            }
            other => panic!("{other:?}"),
        }
        let before: BTreeSet<u64> = handled.lock().unwrap().iter().copied().filter(|n| *n < 57).collect();
        assert_eq!(before.len(), 57, "everything before it was handled");
        assert_eq!(status(&store, "p").position.get(), 57);
        if panics {
            mended.store(true, Ordering::Relaxed);
            store.consumer_control("p").resume().unwrap();
        } else {
            store.consumer_control("p").skip(58.into(), "57 is given up").unwrap();
        }
        assert!(store.wait_for("p", head(&store), FOREVER).unwrap());
        let all: BTreeSet<u64> = handled.lock().unwrap().iter().copied().collect();
        assert_eq!(all.len(), if panics { 200 } else { 199 }, "only the operator skips events");
        assert!(matches!(worker.stop(), StopReason::Stopped));
    }
}

#[test]
fn one_partition_in_trouble_holds_up_no_other() {
    let store = Store::in_memory().unwrap();
    let others = Arc::new(AtomicU64::new(0));
    let counts = others.clone();
    let worker = store
        .worker("p", filled())
        .retry(Retry { attempts: 2, first: FOREVER, longest: FOREVER })
        .consume_partitioned(8, move |event| match event.entity() {
            "bad" => Err("never".into()),
            _ => {
                counts.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        })
        .unwrap();
    fill(&store, "bad", 1);
    // Whichever thread it has, some of these have another one.
    for entity in 0..50 {
        fill(&store, &format!("e:{entity}"), 1);
    }
    eventually("others go on", || others.load(Ordering::Relaxed) >= 25);
    eventually(
        "it is stuck",
        || matches!(status(&store, "p").state, ConsumerState::Stuck { at, .. } if at.get() == 2),
    );
    // The store ends under it.
    drop(store);
    assert!(matches!(within(FOREVER, "the end", move || worker.stop()), StopReason::StoreClosed));
}

#[test]
fn a_partitioned_handler_may_stop_and_move_its_own_work() {
    let store = Store::in_memory().unwrap();
    let own: Arc<Mutex<Option<Worker>>> = Arc::default();
    let (of_handler, moving) = (own.clone(), Mutex::new(Some(store.consumer_control("p"))));
    let handled = Arc::new(AtomicU64::new(0));
    let counts = handled.clone();
    let worker = store
        .consume_partitioned("p", filled(), 2, move |event| {
            counts.fetch_add(1, Ordering::Relaxed);
            if number(event) == 1
                && let Some(control) = moving.lock().unwrap().take()
            {
                control.reset("once more")?;
            }
            // The first time it may come before the reset has been noticed.
            if number(event) == 2
                && counts.load(Ordering::Relaxed) >= 5
                && let Some(worker) = of_handler.lock().unwrap().take()
            {
                assert!(matches!(worker.stop(), StopReason::Stopped));
            }
            Ok(())
        })
        .unwrap();
    *own.lock().unwrap() = Some(worker);
    for n in 0..3 {
        store.append("e", &Raw("filled", &n)).unwrap();
    }
    eventually("it has ended", || !status(&store, "p").is_running);
    let handled = handled.load(Ordering::Relaxed);
    assert!(handled >= 5, "{handled}: reset at the second, it began again");
    assert_eq!(status(&store, "p").state, ConsumerState::Idle);
}

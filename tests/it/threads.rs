//! Many appenders and readers; the order of tickets; no lost acknowledgement; no thread waits for ever.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use annals::disk::{Fault, MemDisk, SimDisk};
use annals::{
    Append, Durability, Error, ErrorKind, Expected, OpenReport, Position, Query, Raw, Read, RecordedEvent,
    Stats, Store, Ticket,
};

use crate::support::{Behind, FOREVER, GatedDisk, Random, all, eventually, fill, kind_of, positions};

const THREADS: u64 = 8;
const APPENDS: u64 = 2000;

#[test]
fn handles_go_to_any_thread() {
    fn goes<T: Send + 'static>() {}
    fn is_shared<T: Send + Sync + 'static>() {}
    is_shared::<Store>();
    is_shared::<Error>();
    is_shared::<RecordedEvent>();
    is_shared::<OpenReport>();
    is_shared::<Stats>();
    goes::<Append>();
    goes::<Ticket>();
    goes::<annals::Pending>();
    goes::<Read>();
    goes::<annals::Builder>();
}

#[test]
fn many_appenders_share_one_order() {
    let store = Store::on(MemDisk::new()).segment_bytes_max(100_000).open().unwrap();
    let done = AtomicBool::new(false);
    let receipts = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    let head = store.head().unwrap().position();
                    let newest = positions(store.read(Query::all()).backwards().limit(50));
                    assert!(newest.first().is_none_or(|newest| *newest >= head.get()));
                }
            });
        }
        let appender = |thread: u64| {
            let store = &store;
            move || {
                let append = |number: u64| {
                    let append = Append::to(format!("own:{thread}")).event(&Raw("k", &(thread, number)));
                    let append = append.and_to("shared").event(&Raw("k", &(thread, number)));
                    append.expect(Expected::Any).commit(store).unwrap()
                };
                (0..APPENDS).map(append).collect::<Vec<_>>()
            }
        };
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(appender(thread))).collect();
        let receipts: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        done.store(true, Ordering::Release);
        receipts
    });
    let events = all(store.read(Query::all()));
    assert_eq!(events.len(), usize::try_from(2 * THREADS * APPENDS).unwrap());
    let mut shared = 0;
    for (thread, receipts) in (0_u64..).zip(receipts) {
        assert!(receipts.is_sorted_by_key(|receipt| receipt.position()));
        for (number, receipt) in (0_u64..).zip(receipts) {
            let at = usize::try_from(receipt.position().get()).unwrap();
            let [own, other] = &events[at - 2..at] else { panic!("two events") };
            assert_eq!((own.version().get(), receipt.first_position()), (number + 1, own.position()));
            assert_eq!(own.decode::<(u64, u64)>().unwrap(), (thread, number));
            assert_eq!((other.decode::<(u64, u64)>().unwrap(), other.id()), ((thread, number), receipt.id()));
            shared += 1;
        }
    }
    assert_eq!(store.version("shared").unwrap().get(), shared);
    assert!(store.verify().unwrap().is_clean());
    assert!(store.stats().events_per_group() >= 2.0);
}

/// Reads the sum and appends it increased, again and again until no other append came between.
fn increment(store: &Store, by: u64) -> u64 {
    let mut tries = 0;
    loop {
        tries += 1;
        let last = store.stream("counter").backwards().limit(1).next().transpose().unwrap();
        let (sum, version) = match &last {
            Some(event) => (event.decode::<u64>().unwrap(), event.version().get()),
            None => (0, 0),
        };
        let append = Append::to("counter").expect(Expected::exact(version)).event(&Raw("set", &(sum + by)));
        match append.commit(store) {
            Ok(receipt) => {
                assert_eq!(receipt.version().get(), version + 1);
                return tries;
            }
            Err(error) => {
                let conflict = error.conflict().unwrap_or_else(|| panic!("{error}"));
                assert!(conflict.actual.get() > version);
                // What conflicted can be read already: reading up to it makes the next try a fair one.
                assert!(store.head().unwrap().position() >= conflict.last);
            }
        }
    }
}

#[test]
fn increments_are_never_lost() {
    let store = Store::on(MemDisk::new()).segment_bytes_max(20_000).open().unwrap();
    let tries: u64 = std::thread::scope(|scope| {
        let adder = |thread: u64| {
            let store = &store;
            move || (0..APPENDS / 4).map(|_| increment(store, thread)).sum::<u64>()
        };
        let threads: Vec<_> = (1..=THREADS).map(|thread| scope.spawn(adder(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let right: u64 = (1..=THREADS).map(|thread| thread * (APPENDS / 4)).sum();
    let last = all(store.stream("counter").backwards().limit(1)).remove(0);
    assert_eq!((last.decode::<u64>().unwrap(), last.version().get()), (right, THREADS * APPENDS / 4));
    assert!(tries > THREADS * APPENDS / 4, "there was no conflict in {tries} tries; nothing was tested");
}

#[test]
fn one_key_from_many_threads_is_written_once() {
    let store = Store::in_memory().unwrap();
    for round in 0..200_u64 {
        let append =
            || Append::to("e").key(round.to_le_bytes()).event(&Raw("k", &round)).commit(&store).unwrap();
        let receipts = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(append)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(receipts.iter().all(|receipt| receipt.position().get() == round + 1));
        assert_eq!(receipts.iter().filter(|receipt| !receipt.replayed()).count(), 1);
    }
}

// Small queues make senders wait, and let them overtake one another; one thread's own never may.
#[test]
fn tickets_of_one_thread_keep_their_order() {
    for (commands, bytes) in [(1, usize::MAX), (4096, 500), (3, 300), (4096, usize::MAX)] {
        let store = Store::on(MemDisk::new()).queue_commands_max(commands).queue_bytes_max(bytes);
        let store = store.group_commands_max(5).open().unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let store = &store;
                scope.spawn(move || {
                    let submit = |number: u64| {
                        let append = Append::to(format!("e{thread}")).event(&Raw("k", &number));
                        append.expect(Expected::exact(number)).submit(store).unwrap()
                    };
                    let tickets: Vec<Ticket> = (0..500).map(submit).collect();
                    let receipts = tickets.into_iter().map(|ticket| ticket.wait().unwrap());
                    assert!(receipts.map(|receipt| receipt.version().get()).eq(1..=500));
                });
            }
        });
        assert_eq!(store.head().unwrap().position().get(), 2000);
    }
}

/// What a caller was told about each of its appends.
type Told = BTreeMap<(u64, u64), bool>;

/// Appends until the store refuses; what it was told of each append for certain.
fn append_until_refused(store: &Store, thread: u64, kinds: &[ErrorKind]) -> Told {
    let mut told = Told::new();
    let mut in_flight = Vec::new();
    for number in 0.. {
        let append = Append::to(format!("e{thread}")).event(&Raw("k", &(thread, number)));
        match append.submit(store) {
            Ok(ticket) => in_flight.push((number, ticket)),
            Err(error) => {
                assert!(kinds.contains(&error.kind()), "{error:?}");
                break;
            }
        }
        if in_flight.len() == 10 {
            let (number, ticket) = in_flight.remove(0);
            let outcome = outcome_of(ticket);
            told.extend(outcome.map(|written| ((thread, number), written)));
            if outcome != Some(true) {
                break;
            }
        }
    }
    let rest = in_flight.into_iter();
    told.extend(rest.filter_map(|(number, ticket)| Some(((thread, number), outcome_of(ticket)?))));
    told
}

fn outcome_of(ticket: Ticket) -> Option<bool> {
    match ticket.wait() {
        Ok(_) => Some(true),
        Err(error) if error.is_definite() => Some(false),
        Err(_) => None,
    }
}

fn check_told(store: &Store, told: &Told) {
    let found: Vec<(u64, u64)> = all(store.read(Query::all())).iter().map(|e| e.decode().unwrap()).collect();
    let there: std::collections::BTreeSet<_> = found.iter().copied().collect();
    assert_eq!(there.len(), found.len(), "an append was written twice");
    for (append, written) in told {
        assert_eq!(there.contains(append), *written, "{append:?}");
    }
}

#[test]
fn closing_during_appends_loses_no_acknowledgement() {
    let mut acknowledged = 0;
    for round in 0..20 {
        let disk = MemDisk::new();
        let store = Store::on(disk.clone()).queue_commands_max(1 + round).open().unwrap();
        let told = std::thread::scope(|scope| {
            let appender = |thread| {
                let store = store.clone();
                move || append_until_refused(&store, thread, &[ErrorKind::Closed])
            };
            let threads: Vec<_> = (0..4).map(|thread| scope.spawn(appender(thread))).collect();
            eventually("some appends", || store.stats().appends > 50);
            store.close().unwrap();
            let told = threads.into_iter().map(|thread| thread.join().unwrap());
            told.reduce(|mut all, told| {
                all.extend(told);
                all
            })
        });
        let told = told.unwrap();
        assert!(told.values().all(|written| *written), "everything submitted is written");
        acknowledged += told.len();
        let store = Store::on(disk).open().unwrap();
        assert!(store.open_report().clean);
        assert_eq!(store.head().unwrap().position().get(), u64::try_from(told.len()).unwrap());
        check_told(&store, &told);
    }
    assert!(acknowledged > 20 * 50);
}

#[test]
fn a_failing_disk_loses_no_acknowledgement_and_stops_no_thread() {
    let mut random = Random::for_test("a_failing_disk_loses_no_acknowledgement_and_stops_no_thread");
    let mut acknowledged = 0;
    for round in 0..40 {
        let disk = SimDisk::new(random.next());
        let store = Store::on(disk.clone()).segment_bytes_max(5000).group_commands_max(6).open().unwrap();
        disk.fail_from(300 + random.below(300), Fault::Error(std::io::ErrorKind::Other));
        let told = std::thread::scope(|scope| {
            let appender = |thread| {
                let store = &store;
                move || append_until_refused(store, thread, &[ErrorKind::Poisoned])
            };
            let threads: Vec<_> = (0..4).map(|thread| scope.spawn(appender(thread))).collect();
            let told = threads.into_iter().map(|thread| thread.join().unwrap());
            told.reduce(|mut all, told| {
                all.extend(told);
                all
            })
        });
        let told = told.unwrap();
        disk.heal();
        let published = store.head().unwrap();
        let closed = store.close();
        let store = Store::on(disk).open().unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert!(store.head().unwrap().position() >= published.position(), "{closed:?}");
        assert_eq!(store.at(published.position()).unwrap().unwrap().chain(), published.chain());
        check_told(&store, &told);
        acknowledged += told.values().filter(|written| **written).count();
    }
    assert!(acknowledged > 40 * 20, "only {acknowledged} appends came before the faults");
}

type Call = (&'static str, fn(&Store) -> Result<(), Error>);

/// Every call there is, while nothing can be written.
fn calls() -> [Call; 8] {
    [
        ("append", |store| store.append("e", &Raw("k", &())).map(drop)),
        ("submit", |store| Append::to("e").event(&Raw("k", &())).submit(store)?.wait().map(drop)),
        ("try_submit", |store| Append::to("e").event(&Raw("k", &())).try_submit(store)?.wait().map(drop)),
        ("sync", |store| store.sync().map(drop)),
        ("head", |store| store.head().map(drop)),
        ("version", |store| store.version("e").map(drop)),
        ("at", |store| store.at(Position::from(1)).map(drop)),
        ("read", |store| store.read(Query::all()).try_for_each(|event| event.map(drop))),
    ]
}

// The disk hangs with a group in flight, more waiting in the queue, and callers waiting for a place
// in the queue. Then the sync fails, or its code panics, which takes the writer thread along. Within a
// second everybody must have an answer. Those in the queue once had none for ever after a panic.
#[test]
fn after_a_failure_everybody_is_answered() {
    for behind in [Behind::Fail, Behind::Panic] {
        let disk = GatedDisk::new();
        let store = Store::on(disk.clone()).queue_commands_max(3).queue_bytes_max(1000).open().unwrap();
        fill(&store, "e", 2);
        let (told, outcomes) = mpsc::channel();
        let (held, in_flight) =
            disk.gate().hold_up(|| Append::to("e").event(&Raw("k", &())).submit(&store).unwrap());
        let queued: Vec<_> =
            (0..2).map(|_| Append::to("e").event(&Raw("k", &())).submit(&store).unwrap()).collect();
        let before = store.stats().queue_bytes;
        let mut waiting = 0;
        for number in 0..6 {
            for (name, call) in calls().into_iter().take(2 + usize::from(number == 0) * 2) {
                let (store, told) = (store.clone(), told.clone());
                std::thread::spawn(move || told.send((name, call(&store))));
                waiting += 1;
            }
        }
        eventually("callers wait", || store.stats().queue_bytes > before);
        disk.gate().set_behind(behind);
        drop(held);
        let failed = Instant::now();
        let limit = Duration::from_secs(1);
        let left = || limit.checked_sub(failed.elapsed()).unwrap_or_default();
        assert_eq!(kind_of(in_flight.wait_timeout(left()).map_err(drop).unwrap()), ErrorKind::CommitUnknown);
        let refused = [ErrorKind::CommitUnknown, ErrorKind::Poisoned];
        for ticket in queued {
            let kind =
                kind_of(ticket.wait_timeout(left()).map_err(drop).expect("a queued append is answered"));
            assert!(refused.contains(&kind), "{kind:?}");
        }
        for _ in 0..waiting {
            let (name, outcome) = outcomes.recv_timeout(left()).expect("a waiting caller is answered");
            let kind = kind_of(outcome);
            // A queue that is full just then is an answer, too.
            let is_busy = name == "try_submit" && kind == ErrorKind::Busy;
            assert!(refused.contains(&kind) || is_busy, "{name}: {kind:?}");
        }
        for (name, call) in calls() {
            let started = Instant::now();
            match call(&store) {
                Ok(()) => assert!(["head", "version", "at", "read"].contains(&name), "{name} went through"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Poisoned, "{name}"),
            }
            assert!(started.elapsed() < limit, "{name} took {:?}", started.elapsed());
        }
        assert_eq!(positions(store.read(Query::all())), [1, 2]);
        assert_eq!(store.head().unwrap().position().get(), 2);
        let started = Instant::now();
        assert!(refused.contains(&kind_of(store.close())));
        assert!(started.elapsed() < limit);
        disk.gate().set_behind(Behind::Sync);
        let reopened = Store::on(disk).open_within(FOREVER).unwrap();
        assert!((2..=3).contains(&reopened.version("e").unwrap().get()));
        fill(&reopened, "e", 1);
    }
}

#[test]
fn buffered_and_synced_appends_mix() {
    let store = Store::on(MemDisk::new()).segment_bytes_max(50_000).open().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let store = &store;
            scope.spawn(move || {
                for number in 0..500 {
                    let flush_every = Duration::from_millis(number % 3);
                    let durability = match (number + thread) % 3 {
                        0 => Durability::Synced,
                        _ => Durability::Buffered { flush_every },
                    };
                    let append = Append::to(format!("e{thread}")).event(&Raw("k", &number));
                    let receipt = append.durability(durability).commit(store).unwrap();
                    let durable = store.durable_head().unwrap().position();
                    assert!(durability != Durability::Synced || durable >= receipt.position());
                    assert!(store.head().unwrap().position() >= receipt.position());
                }
            });
        }
    });
    eventually("all is durable", || store.durable_head().unwrap() == store.head().unwrap());
    assert_eq!(store.head().unwrap().position().get(), 2000);
}

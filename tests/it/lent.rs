//! Appends that their callers write themselves, in the writer's place: order, what falls due, misbehaviour.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use annals::disk::MemDisk;
use annals::{Append, Builder, Durability, Error, ErrorKind, Query, Raw, RestartPolicy, Store};

use crate::support::{Behind, FOREVER, GatedDisk, all, eventually, fill, kind_of, within};

/// After this number of appends of one thread the store takes that thread for its only caller.
const ALONE: u64 = 20;

fn buffered(flush_every: Duration) -> Durability {
    Durability::Buffered { flush_every }
}

fn durabilities() -> [Durability; 2] {
    [Durability::Synced, buffered(FOREVER)]
}

fn numbered(number: u64) -> Append {
    Append::to("e").event(&Raw("k", &number))
}

// A caller that writes by itself could overtake a queued append: its own, or one that it heard of.
#[test]
fn no_append_overtakes_what_was_submitted_before() {
    for durability in durabilities() {
        let store = Store::on(MemDisk::new()).durability(durability).open().unwrap();
        let mut number = 0;
        let mut next = || {
            number += 1;
            numbered(number)
        };
        for round in 0..3_000 {
            let tickets: Vec<_> = (0..round % 4).map(|_| next().submit(&store).unwrap()).collect();
            let append = next();
            if round % 3 == 0 {
                let store = store.clone();
                std::thread::scope(|scope| scope.spawn(move || append.commit(&store).map(drop)).join())
                    .unwrap()
                    .unwrap();
            } else {
                append.commit(&store).unwrap();
            }
            assert!(tickets.iter().all(annals::Ticket::is_done), "they were decided first");
        }
        let numbers: Vec<u64> = all(store.stream("e")).iter().map(|event| event.decode().unwrap()).collect();
        assert_eq!(numbers, (1..=number).collect::<Vec<u64>>());
    }
}

#[test]
fn threads_that_come_and_go_lose_nothing() {
    const THREADS: u64 = 4;
    const APPENDS: u64 = 2_000;
    for durability in durabilities() {
        let store =
            Store::on(MemDisk::new()).durability(durability).segment_bytes_max(1 << 16).open().unwrap();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let store = &store;
                scope.spawn(move || fill(store, &format!("e:{thread}"), APPENDS));
            }
        });
        assert_eq!(store.head().unwrap().position().get(), THREADS * APPENDS);
        for thread in 0..THREADS {
            assert_eq!(store.version(&format!("e:{thread}")).unwrap().get(), APPENDS);
        }
        assert!(store.verify().unwrap().is_clean());
        store.close().unwrap();
    }
}

// The thread slept for ever, because nothing was due when it went to sleep.
#[test]
fn what_a_caller_leaves_to_do_is_done_in_time() {
    let store = Store::on(MemDisk::new()).durability(buffered(Duration::from_millis(1))).open().unwrap();
    let mut durable = store.subscribe(Query::all()).durable();
    for number in 1..=200 {
        numbered(number).commit(&store).unwrap();
        let seen = durable.next_timeout(FOREVER).unwrap().expect("it is synced without another append");
        assert_eq!(seen.position().get(), number);
    }
}

#[test]
fn a_panic_is_answered_on_the_callers_thread() {
    for (restart, again) in [(RestartPolicy::Never, Err(ErrorKind::Poisoned)), (RestartPolicy::Once, Ok(()))]
    {
        let disk = GatedDisk::new();
        let store = Store::on(disk.clone()).restart(restart).open().unwrap();
        fill(&store, "e", ALONE);
        disk.gate().set_behind(Behind::PanicOnce);
        assert_eq!(kind_of(numbered(0).commit(&store)), ErrorKind::CommitUnknown);
        let next = numbered(1).commit(&store).map(drop).map_err(|error: Error| error.kind());
        assert_eq!(next, again, "{restart:?}");
        assert!(store.version("e").unwrap().get() >= ALONE);
        assert_eq!(store.close().is_ok(), again.is_ok(), "{restart:?}");
    }
}

#[test]
fn a_failed_sync_poisons_also_the_caller_that_wrote() {
    let disk = GatedDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    fill(&store, "e", ALONE);
    disk.gate().set_behind(Behind::Fail);
    assert_eq!(kind_of(numbered(0).commit(&store)), ErrorKind::CommitUnknown);
    assert_eq!(kind_of(numbered(1).commit(&store)), ErrorKind::Poisoned);
    assert_eq!(store.version("e").unwrap().get(), ALONE, "nothing of it is seen");
    assert_eq!(kind_of(store.close()), ErrorKind::Poisoned);
}

// A caller that writes by itself cannot stop waiting. With a deadline the writer thread does the work.
#[test]
fn a_deadline_holds_for_a_single_caller() {
    let disk = GatedDisk::new();
    let store = Store::on(disk.clone()).ack_deadline(Duration::from_millis(20)).open().unwrap();
    fill(&store, "e", ALONE);
    let held = disk.gate().hold();
    let other = store.clone();
    let told = within(FOREVER, "the deadline", move || kind_of(numbered(0).commit(&other)));
    assert_eq!(told, ErrorKind::CommitUnknown);
    drop(held);
    store.close().unwrap();
}

struct Closing {
    store: Mutex<Option<Store>>,
    has_closed: AtomicBool,
}

impl Wake for Closing {
    fn wake(self: Arc<Closing>) {
        let store = self.store.lock().unwrap().take().unwrap();
        self.has_closed.store(store.close().is_ok(), Ordering::SeqCst);
    }
}

// A waker that closes the store would wait for the thread, and the thread for the caller it runs on.
#[test]
fn a_waker_may_close_the_store_on_the_callers_thread() {
    for durability in durabilities() {
        within(FOREVER, "closing from a waker", move || {
            let store = Store::on(MemDisk::new()).durability(durability).open().unwrap();
            fill(&store, "e", ALONE);
            let closing = Arc::new(Closing {
                store: Mutex::new(Some(store.clone())),
                has_closed: AtomicBool::new(false),
            });
            let mut follower = pin!(store.subscribe(Query::all()).after_head());
            let waker = Waker::from(closing.clone());
            assert!(follower.as_mut().poll_next(&mut Context::from_waker(&waker)).is_pending());
            numbered(0).commit(&store).unwrap();
            eventually("the waker has closed the store", || closing.has_closed.load(Ordering::SeqCst));
            assert_eq!(kind_of(numbered(1).commit(&store)), ErrorKind::Closed);
        });
    }
}

// The clock is asked while the role is lent: code of others, within an append.
#[test]
fn a_clock_may_close_the_store_on_the_callers_thread() {
    for durability in durabilities() {
        within(FOREVER, "closing from the clock", move || {
            let closed_by: Arc<Mutex<Option<Store>>> = Arc::default();
            let of_clock = closed_by.clone();
            let clock = move || {
                if let Some(store) = of_clock.lock().unwrap().take() {
                    store.close().unwrap();
                }
                std::time::SystemTime::UNIX_EPOCH
            };
            let store = Store::on(MemDisk::new()).durability(durability).clock(clock).open().unwrap();
            fill(&store, "e", ALONE);
            *closed_by.lock().unwrap() = Some(store.clone());
            assert_eq!(numbered(0).commit(&store).unwrap().position().get(), ALONE + 1);
            assert_eq!(kind_of(numbered(1).commit(&store)), ErrorKind::Closed);
        });
    }
}

#[test]
fn closing_waits_for_the_caller_that_writes() {
    fn check(builder: impl Fn(GatedDisk) -> Builder) {
        let disk = GatedDisk::new();
        let store = builder(disk.clone()).open().unwrap();
        fill(&store, "e", ALONE);
        let other = store.clone();
        let (held, writer) = disk.gate().hold_up(|| {
            std::thread::spawn(move || numbered(0).durability(Durability::Synced).commit(&other))
        });
        let closer = std::thread::spawn(move || store.close());
        drop(held);
        assert_eq!(writer.join().unwrap().unwrap().position().get(), ALONE + 1);
        closer.join().unwrap().unwrap();
        let store = builder(disk).open().unwrap();
        assert_eq!(store.version("e").unwrap().get(), ALONE + 1);
    }
    check(Store::on);
    check(|disk| Store::on(disk).durability(buffered(FOREVER)));
}

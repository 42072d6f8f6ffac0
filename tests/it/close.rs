//! Close and drop in every order, what outlives the store, tickets, a full queue.

use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use annals::disk::{Disk, MemDisk};
use annals::{Append, Appended, Durability, Error, ErrorKind, EventId, Position, Query, Raw, Store, Ticket};

use crate::support::{
    Behind, Bytes, FOREVER, GatedDisk, all, eventually, fill, kind_of, outcome, positions, within,
};

fn one() -> Append {
    Append::to("e").event(&Raw("k", &()))
}

fn is_locked(disk: &MemDisk) -> bool {
    disk.is_locked().unwrap()
}

#[test]
fn a_closed_store_is_closed_for_all_its_handles() {
    let store = Store::in_memory().unwrap();
    fill(&store, "e", 2);
    let other = store.clone();
    store.close().unwrap();
    let answers = [
        kind_of(other.append("e", &Raw("k", &()))),
        kind_of(one().submit(&other)),
        kind_of(one().try_submit(&other)),
        kind_of(other.get(EventId::from_bytes([0; 16]))),
        kind_of(other.at(Position::from(1))),
        kind_of(other.version("e")),
        kind_of(other.head()),
        kind_of(other.durable_head()),
        kind_of(other.sync()),
        kind_of(other.verify()),
        kind_of(other.read(Query::all()).next().unwrap()),
        kind_of(other.stream("e").backwards().next().unwrap()),
    ];
    assert!(answers.iter().all(|kind| *kind == ErrorKind::Closed), "{answers:?}");
    let mut read = other.stream("e");
    assert!(read.next().unwrap().is_err() && read.next().is_none());
    assert_eq!((other.stats().events, other.open_report().created), (2, true));
    assert!(format!("{other:?}").contains('2'));
    other.clone().close().expect("closing twice is fine");
    other.close().expect("closing again is fine");
}

#[test]
fn a_store_read_only_closes_as_well() {
    let disk = MemDisk::new();
    fill(&Store::on(disk.clone()).open().unwrap(), "e", 2);
    let store = Store::on(disk.clone()).open_read_only().unwrap();
    let other = store.clone();
    assert_eq!(store.sync().unwrap().get(), 2);
    store.close().unwrap();
    assert_eq!(kind_of(other.head()), ErrorKind::Closed);
    assert_eq!(kind_of(other.read(Query::all()).next().unwrap()), ErrorKind::Closed);
    other.close().unwrap();
}

// Every caller of close hears how it ended, also if another caller closed first.
#[test]
fn everybody_who_closes_hears_how_it_ended() {
    let disk = GatedDisk::new();
    let buffered = Durability::Buffered { flush_every: Duration::MAX };
    let store = Store::on(disk.clone()).durability(buffered).open().unwrap();
    fill(&store, "e", 1);
    disk.gate().set_behind(Behind::Fail);
    let (first, second, third) = (store.clone(), store.clone(), store);
    let arrived = disk.gate().arrived();
    let held = disk.gate().hold();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| first.close());
        disk.gate().wait_for_sync(arrived);
        let second = scope.spawn(|| second.close());
        drop(held);
        for closed in [first.join().unwrap(), second.join().unwrap()] {
            assert_eq!(kind_of(closed), ErrorKind::Io);
        }
    });
    assert!(third.close().unwrap_err().to_string().contains("the gate fails this sync"));
}

/// Things that hang on a store.
enum Thing {
    Store(Store),
    #[expect(dead_code, reason = "only dropped")]
    Ticket(Ticket),
    #[expect(dead_code, reason = "only dropped")]
    Read(Box<annals::Read>),
    Event(annals::RecordedEvent),
}

#[test]
fn everything_may_be_dropped_in_every_order() {
    let mut orders = 0;
    permute(&mut [0, 1, 2, 3, 4, 5], 0, &mut |order| {
        orders += 1;
        let disk = MemDisk::new();
        let store = Store::on(disk.clone()).open().unwrap();
        fill(&store, "e", 3);
        let mut begun = store.read(Query::all());
        let event = begun.next().unwrap().unwrap();
        let ticket = one().submit(&store).unwrap();
        let things = [
            Thing::Read(Box::new(store.stream("e"))),
            Thing::Read(Box::new(begun)),
            Thing::Ticket(ticket),
            Thing::Event(event),
            Thing::Store(store.clone()),
            Thing::Store(store),
        ];
        let mut things = things.map(Some);
        for index in order {
            things[*index] = None;
            let is_open = things.iter().flatten().any(|thing| matches!(thing, Thing::Store(_)));
            assert_eq!(is_locked(&disk), is_open, "{order:?} at {index}");
            for thing in things.iter().flatten() {
                match thing {
                    Thing::Event(event) => assert_eq!(event.decode::<u8>().unwrap(), 0),
                    Thing::Store(store) => assert!(store.head().unwrap().position().get() >= 3),
                    _ => {}
                }
            }
        }
        let store = Store::on(disk).open().unwrap();
        assert_eq!((store.version("e").unwrap().get(), store.open_report().clean), (4, true), "{order:?}");
    });
    assert_eq!(orders, 720);
}

fn permute(order: &mut [usize; 6], fixed: usize, visit: &mut impl FnMut(&[usize; 6])) {
    if fixed == order.len() {
        return visit(order);
    }
    for next in fixed..order.len() {
        order.swap(fixed, next);
        permute(order, fixed + 1, visit);
        order.swap(fixed, next);
    }
}

#[test]
fn what_was_submitted_is_written_before_the_last_handle_is_gone() {
    for close in [true, false] {
        let disk = MemDisk::new();
        let mut total = 0;
        for round in 1..=20 {
            let store = Store::on(disk.clone()).group_commands_max(7).open().unwrap();
            assert_eq!(store.version("e").unwrap().get(), total);
            for _ in 0..round * 10 {
                drop(one().submit(&store).unwrap());
                total += 1;
            }
            if close {
                store.close().unwrap()
            } else {
                drop(store)
            }
            assert!(!is_locked(&disk));
        }
    }
}

#[test]
fn reads_and_tickets_outlive_the_store() {
    let disk = MemDisk::new();
    let store = Store::on(disk.clone()).segment_bytes_max(0).open().unwrap();
    fill(&store, "e", 5);
    let mut begun = store.read(Query::all());
    begun.next().unwrap().unwrap();
    let fill_again = Append::to("e").event(&Raw("k", &())).key("k");
    let ticket = fill_again.submit(&store).unwrap();
    let replay = one().key("k").submit(&store).unwrap();
    store.close().unwrap();
    // Another writer appends in the meantime.
    let next = Store::on(disk).segment_bytes_max(0).open().unwrap();
    fill(&next, "e", 2);
    assert_eq!(positions(begun), [2, 3, 4, 5]);
    assert_eq!(outcome(&ticket.wait()), "v6 @6");
    assert_eq!(outcome(&replay.wait()), "replayed v6 @6");
}

#[test]
fn a_ticket_can_be_polled_and_waited_for() {
    let disk = GatedDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    let held = disk.gate().hold();
    let mut ticket = one().submit(&store).unwrap();
    for millis in [0, 1, 5] {
        assert!(!ticket.is_done());
        let started = Instant::now();
        ticket = ticket.wait_timeout(Duration::from_millis(millis)).map(drop).unwrap_err();
        assert!(started.elapsed() >= Duration::from_millis(millis));
    }
    assert_eq!(store.head().unwrap().position(), Position::START, "not visible before it is durable");
    drop(held);
    eventually("the ticket is done", || ticket.is_done());
    assert_eq!(outcome(&ticket.wait_timeout(Duration::ZERO).map_err(drop).unwrap()), "v1 @1");
    drop(one().submit(&store).unwrap());
    let third = one().submit(&store).unwrap();
    assert_eq!(outcome(&third.wait()), "v3 @3", "the dropped ticket's append was not cancelled");
}

/// Wakes the thread that waits in [`block_on`].
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Bell {
    fn wake(self: Arc<Bell>) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

/// The smallest executor.
fn block_on<F: Future>(future: F) -> F::Output {
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(bell.clone());
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let rung = bell.rung.lock().unwrap();
        let (mut rung, timeout) = bell.changed.wait_timeout_while(rung, FOREVER, |rung| !*rung).unwrap();
        assert!(!timeout.timed_out(), "no wake-up came");
        *rung = false;
    }
}

#[test]
fn a_ticket_can_be_awaited() {
    let disk = GatedDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    let appended = block_on(async {
        let first = one().submit(&store)?.await?;
        let tickets: Vec<Ticket> = (0..10).map(|_| one().submit(&store)).collect::<Result<_, _>>()?;
        let mut last = first;
        for ticket in tickets {
            last = ticket.await?;
        }
        Ok::<Appended, Error>(last)
    });
    assert_eq!(outcome(&appended), "v11 @11");
    let conflict = one().expect(annals::Expected::NoStream).submit(&store).unwrap();
    assert_eq!(kind_of(block_on(conflict.into_future())), ErrorKind::Conflict);
    let replayed = async {
        one().key("k").submit(&store)?.await?;
        one().key("k").submit(&store)?.await
    };
    assert_eq!(outcome(&block_on(replayed)), "replayed v12 @12");
}

// An executor may move a task: the waker of the last poll counts. A future may also be dropped.
#[test]
fn the_waker_of_the_last_poll_is_woken() {
    let disk = GatedDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    let held = disk.gate().hold();
    let bells = [Arc::new(Bell::default()), Arc::new(Bell::default())];
    let mut future = pin!(one().submit(&store).unwrap().into_future());
    let dropped = one().submit(&store).unwrap();
    {
        let mut dropped = pin!(dropped.into_future());
        assert!(dropped.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    for bell in &bells {
        let waker = Waker::from(bell.clone());
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    drop(held);
    eventually("the second bell rings", || *bells[1].rung.lock().unwrap());
    assert!(!*bells[0].rung.lock().unwrap());
    let waker = Waker::from(bells[1].clone());
    let Poll::Ready(outcome_of_poll) = future.as_mut().poll(&mut Context::from_waker(&waker)) else {
        panic!("woken, but not ready");
    };
    assert_eq!(outcome(&outcome_of_poll), "v1 @1");
    eventually("the dropped future's append is there", || store.version("e").unwrap().get() == 2);
}

struct Rude(AtomicBool);

impl Wake for Rude {
    fn wake(self: Arc<Rude>) {
        self.0.store(true, Ordering::SeqCst);
        panic!("this waker panics, on purpose");
    }
}

// Wakers run on the writer thread. One that panicked once took the writer with it.
#[test]
fn a_waker_that_panics_harms_only_itself() {
    let disk = GatedDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    let arrived = disk.gate().arrived();
    let held = disk.gate().hold();
    let rude = Arc::new(Rude(AtomicBool::new(false)));
    let waker = Waker::from(rude.clone());
    let mut future = pin!(one().submit(&store).unwrap().into_future());
    assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    disk.gate().wait_for_sync(arrived);
    let polite = one().submit(&store).unwrap();
    drop(held);
    assert_eq!(outcome(&polite.wait()), "v2 @2");
    assert!(rude.0.load(Ordering::SeqCst));
    let Poll::Ready(first) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("the outcome is there, also after a panic of the waker");
    };
    assert_eq!(outcome(&first), "v1 @1");
    fill(&store, "e", 3);
    store.close().unwrap();
}

struct Last(Mutex<Option<Store>>);

impl Wake for Last {
    fn wake(self: Arc<Last>) {
        drop(self.0.lock().unwrap().take());
    }
}

#[test]
fn the_last_handle_may_be_dropped_on_the_writer_thread() {
    for close in [false, true] {
        let disk = GatedDisk::new();
        let store = Store::on(disk.clone()).open().unwrap();
        let held = disk.gate().hold();
        let ticket = one().submit(&store).unwrap();
        drop(one().submit(&store).unwrap());
        let last = Arc::new(Last(Mutex::new(Some(store.clone()))));
        let waker = Waker::from(last);
        let mut future = Box::pin(ticket.into_future());
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        if close {
            // One caller closes and waits for the writer, which drops a handle at that time.
            let closing = std::thread::spawn(move || store.close());
            drop(held);
            within(FOREVER, "closing", move || closing.join().unwrap()).unwrap();
        } else {
            drop((store, held));
        }
        let unlocked = {
            let disk = disk.clone();
            move || Store::on(disk.clone()).open_within(FOREVER).unwrap()
        };
        let store = within(FOREVER, "the writer ends by itself", unlocked);
        assert_eq!(store.version("e").unwrap().get(), 2);
    }
}

#[test]
fn a_full_queue_is_busy() {
    let disk = GatedDisk::new();
    let store = Store::on(disk.clone()).queue_commands_max(1).open().unwrap();
    let (held, written) = disk.gate().hold_up(|| one().submit(&store).unwrap());
    let waiting = one().try_submit(&store).unwrap();
    for _ in 0..3 {
        let busy = one().try_submit(&store).map(drop).unwrap_err();
        assert_eq!((busy.kind(), busy.is_definite(), busy.is_retryable()), (ErrorKind::Busy, true, true));
    }
    assert_eq!(store.stats().queue_commands, 1);
    drop(held);
    assert_eq!(outcome(&written.wait()), "v1 @1");
    assert_eq!(outcome(&waiting.wait()), "v2 @2");
    one().try_submit(&store).unwrap().wait().unwrap();
    assert_eq!((store.version("e").unwrap().get(), store.stats().queue_bytes), (3, 0));
}

#[test]
fn a_queue_deadline_is_busy_in_time() {
    let disk = GatedDisk::new();
    let deadline = Duration::from_millis(20);
    let store = Store::on(disk.clone()).queue_commands_max(1).queue_deadline(deadline).open().unwrap();
    let (held, written) = disk.gate().hold_up(|| one().submit(&store).unwrap());
    let waiting = one().submit(&store).unwrap();
    type Call = fn(&Store) -> Result<(), Error>;
    let calls: [Call; 3] = [
        |store| one().submit(store).map(drop),
        |store| one().commit(store).map(drop),
        |store| store.sync().map(drop),
    ];
    for call in calls {
        let started = Instant::now();
        assert_eq!(kind_of(call(&store)), ErrorKind::Busy);
        assert!((deadline..Duration::from_secs(2)).contains(&started.elapsed()), "{:?}", started.elapsed());
    }
    drop(held);
    written.wait().unwrap();
    waiting.wait().unwrap();
    assert_eq!(store.version("e").unwrap().get(), 2);
    assert_eq!(store.stats().queue_bytes, 0, "what was refused takes no room");
}

#[test]
fn an_ack_deadline_leaves_it_open() {
    let disk = GatedDisk::new();
    let deadline = Duration::from_millis(20);
    let store = Store::on(disk.clone()).ack_deadline(deadline).open().unwrap();
    let held = disk.gate().hold();
    let started = Instant::now();
    let error = one().key("k").commit(&store).unwrap_err();
    assert!(started.elapsed() >= deadline);
    assert_eq!((error.kind(), error.is_definite()), (ErrorKind::CommitUnknown, false));
    drop(held);
    eventually("it was written all the same", || store.version("e").unwrap().get() == 1);
    assert_eq!(outcome(&one().key("k").commit(&store)), "replayed v1 @1");
}

#[test]
fn bytes_in_the_queue_are_limited_too() {
    let disk = GatedDisk::new();
    let store = Store::on(disk.clone()).queue_bytes_max(2000).open().unwrap();
    let append = |bytes: usize| Append::to("e").event(&Bytes("k", vec![1; bytes]));
    let (held, written) = disk.gate().hold_up(|| one().submit(&store).unwrap());
    let large = append(5000).try_submit(&store).expect("one append always fits");
    assert_eq!(kind_of(one().try_submit(&store)), ErrorKind::Busy);
    assert!(store.stats().queue_bytes >= 5000);
    // A caller that waits for room gets it when the large one is taken.
    let blocked = std::thread::scope(|scope| {
        let blocked = scope.spawn(|| one().submit(&store).unwrap().wait());
        drop(held);
        blocked.join().unwrap()
    });
    written.wait().unwrap();
    assert_eq!(outcome(&large.wait()), "v2 @2");
    assert_eq!(outcome(&blocked), "v3 @3");

    let (held, written) = disk.gate().hold_up(|| one().submit(&store).unwrap());
    let small: Vec<Ticket> = std::iter::from_fn(|| append(400).try_submit(&store).ok()).collect();
    assert_eq!(small.len(), 4, "of about 450 bytes each in 2,000");
    drop(held);
    written.wait().unwrap();
    small.into_iter().for_each(|ticket| drop(ticket.wait().unwrap()));
    assert_eq!(store.stats().queue_bytes, 0);
}

// A caller blocked by a full queue once held a lock that close needed. Every later caller waited behind close
// for as long as the disk hung: reads, and appends beyond their deadline.
#[test]
fn closing_while_the_disk_hangs_stops_no_other_caller() {
    let disk = GatedDisk::new();
    let store = Store::on(disk.clone()).queue_commands_max(1).open().unwrap();
    let (held, written) = disk.gate().hold_up(|| one().submit(&store).unwrap());
    let waiting = one().submit(&store).unwrap();
    let before = store.stats().queue_bytes;
    let blocked = {
        let store = store.clone();
        std::thread::spawn(move || one().submit(&store).and_then(Ticket::wait))
    };
    eventually("a caller waits for a place", || store.stats().queue_bytes > before);
    let closing = {
        let store = store.clone();
        std::thread::spawn(move || store.close())
    };
    let other = store.clone();
    within(Duration::from_secs(5), "asking a store that is being closed", move || {
        while other.head().is_ok() {}
        assert_eq!(kind_of(other.head()), ErrorKind::Closed);
        assert_eq!(kind_of(one().commit(&other)), ErrorKind::Closed);
        assert_eq!(kind_of(one().try_submit(&other)), ErrorKind::Closed);
    });
    drop(held);
    closing.join().unwrap().unwrap();
    assert_eq!(outcome(&written.wait()), "v1 @1");
    assert_eq!(outcome(&waiting.wait()), "v2 @2");
    assert_eq!(outcome(&blocked.join().unwrap()), "v3 @3", "it was in before the store was closed");
    drop(store);
    assert_eq!(all(Store::on(disk).open().unwrap().stream("e")).len(), 3);
}

//! How following ends, and who is woken: by the end, by events; wakers of all manners.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use annals::disk::MemDisk;
use annals::{Append, Error, ErrorKind, Notice, Query, Raw, RecordedEvent, Store, Subscription};

use crate::follow::{lazy, taken, three, told};
use crate::support::{Behind, FOREVER, GatedDisk, fill, kind_of, within};

/// Everybody must be awake by then.
const AWAKE: Duration = Duration::from_secs(1);

/// How a store can end, and what those who follow are told then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Close,
    DropLast,
    SyncFails,
    WriterPanics,
}

const ENDINGS: [Ending; 4] = [Ending::Close, Ending::DropLast, Ending::SyncFails, Ending::WriterPanics];

impl Ending {
    /// Ends a store; what it tried to append last, if anything, is not published. A failure shows before
    /// the store is closed, so it is given back.
    fn end(self, store: Store, disk: &GatedDisk) -> Option<Store> {
        match self {
            Ending::Close => store.close().map(|()| None).unwrap(),
            Ending::DropLast => None,
            Ending::SyncFails | Ending::WriterPanics => {
                let behind = if self == Ending::SyncFails { Behind::Fail } else { Behind::Panic };
                disk.gate().set_behind(behind);
                assert_eq!(kind_of(store.append("e", &Raw("k", &()))), ErrorKind::CommitUnknown);
                Some(store)
            }
        }
    }

    fn kind(self) -> ErrorKind {
        match self {
            Ending::Close | Ending::DropLast => ErrorKind::Closed,
            Ending::SyncFails | Ending::WriterPanics => ErrorKind::Poisoned,
        }
    }

    /// What an iterator gives behind the last event.
    fn items(self) -> Vec<ErrorKind> {
        match self.kind() {
            ErrorKind::Closed => Vec::new(),
            kind => vec![kind],
        }
    }
}

type Positions = Vec<Result<u64, ErrorKind>>;

fn with_end(events: std::ops::RangeInclusive<u64>, end: impl IntoIterator<Item = ErrorKind>) -> Positions {
    events.map(Ok).chain(end.into_iter().map(Err)).collect()
}

/// What is left comes first, then how the store ended, as often as it is asked for.
#[test]
fn what_is_left_comes_before_the_end() {
    for ending in ENDINGS {
        for already in 0..=3 {
            let (disk, store) = three();
            let subscribe = || {
                let mut subscription = store.subscribe(Query::all());
                let first = (0..already).map(|_| subscription.next().unwrap().unwrap().position().get());
                assert!(first.eq(1..=already));
                subscription
            };
            let (mut iterated, mut tried, mut timed, mut batched) =
                (subscribe(), subscribe(), subscribe(), subscribe());
            let mut polled = subscribe();
            let _kept = ending.end(store, &disk);
            let place = format!("{ending:?} after {already}");
            let kinds = |item: Result<RecordedEvent, Error>| match item {
                Ok(event) => Ok(event.position().get()),
                Err(error) => Err(error.kind()),
            };
            let left = already + 1..=3;
            let items: Positions = iterated.by_ref().map(kinds).collect();
            assert_eq!(items, with_end(left.clone(), ending.items()), "{place}");
            assert!(iterated.next().is_none(), "{place}");
            let mut context = Context::from_waker(Waker::noop());
            let items = std::iter::from_fn(|| match polled.poll_next(&mut context) {
                Poll::Ready(item) => item,
                Poll::Pending => panic!("{place}: there is nothing to wait for"),
            });
            assert_eq!(
                items.map(kinds).collect::<Positions>(),
                with_end(left.clone(), ending.items()),
                "{place}"
            );
            let twice = || with_end(left.clone(), [ending.kind(), ending.kind()]);
            let calls = 5 - usize::try_from(already).unwrap();
            let try_next = (0..calls).map(|_| kinds(tried.try_next().map(Option::unwrap)));
            assert_eq!(try_next.collect::<Positions>(), twice(), "{place}");
            let in_time = (0..calls).map(|_| kinds(timed.next_timeout(FOREVER).map(Option::unwrap)));
            assert_eq!(in_time.collect::<Positions>(), twice(), "{place}");
            if already < 3 {
                let batch = batched.next_batch(10).unwrap();
                assert!(batch.iter().map(|event| event.position().get()).eq(left.clone()), "{place}");
            }
            assert_eq!(kind_of(batched.next_batch(10)), ending.kind(), "{place}");
            assert_eq!(kind_of(batched.next_batch(1)), ending.kind(), "{place}");
        }
    }
}

#[test]
fn notifications_end_as_the_store_does() {
    for ending in ENDINGS {
        for is_full in [false, true] {
            let (disk, store) = three();
            let listen = || store.notifications(Query::all()).capacity(if is_full { 1 } else { 10 });
            let (mut iterated, mut tried, mut timed, mut polled) = (listen(), listen(), listen(), listen());
            fill(&store, "e", 3);
            // What was acknowledged before it was made is none of its business, told or not.
            let mut late = listen();
            let _kept = ending.end(store, &disk);
            let place = format!("{ending:?}, full: {is_full}");
            let kinds = |item: Result<Notice, Error>| match item {
                Ok(notice) => Ok(told(&notice)),
                Err(error) => Err(error.kind()),
            };
            let notices = if is_full {
                vec![Ok(Ok(vec![4])), Ok(Err((2, 4)))]
            } else {
                vec![Ok(Ok(vec![4])), Ok(Ok(vec![5])), Ok(Ok(vec![6]))]
            };
            let right = |end: Vec<ErrorKind>| {
                notices.iter().cloned().chain(end.into_iter().map(Err)).collect::<Vec<_>>()
            };
            let items: Vec<_> = iterated.by_ref().map(kinds).collect();
            assert_eq!(items, right(ending.items()), "{place}");
            assert!(iterated.next().is_none(), "{place}");
            let mut context = Context::from_waker(Waker::noop());
            let items = std::iter::from_fn(|| match polled.poll_next(&mut context) {
                Poll::Ready(item) => item,
                Poll::Pending => panic!("{place}: there is nothing to wait for"),
            });
            assert_eq!(items.map(kinds).collect::<Vec<_>>(), right(ending.items()), "{place}");
            let twice = right(vec![ending.kind(); 2]);
            let calls = twice.len();
            let items = (0..calls).map(|_| kinds(tried.try_next().map(Option::unwrap)));
            assert_eq!(items.collect::<Vec<_>>(), twice, "{place}");
            let items = (0..calls).map(|_| kinds(timed.next_timeout(FOREVER).map(Option::unwrap)));
            assert_eq!(items.collect::<Vec<_>>(), twice, "{place}");
            assert_eq!(kind_of(late.try_next()), ending.kind(), "{place}");
        }
    }
}

/// A store that ended, or of which only the remains are read, says so.
#[test]
fn what_cannot_be_followed_says_why() {
    let (disk, store) = three();
    let closed = store.clone();
    store.close().unwrap();
    let salvaged = Store::on(disk.clone()).salvage().unwrap();
    let poisoned = Store::on(disk.clone()).open().unwrap();
    disk.gate().set_behind(Behind::Fail);
    assert_eq!(kind_of(poisoned.append("e", &Raw("k", &()))), ErrorKind::CommitUnknown);
    let table = [
        ("closed", &closed, 0, ErrorKind::Closed),
        ("salvaged", &salvaged, 0, ErrorKind::Invalid),
        ("poisoned", &poisoned, 3, ErrorKind::Poisoned),
    ];
    for (name, store, events, kind) in table {
        let items: Vec<_> =
            store.subscribe(Query::all()).map(|item| item.map_err(|error| error.kind())).collect();
        assert_eq!(items.len(), events + 1, "{name}");
        assert_eq!(items.last().unwrap().as_ref().unwrap_err(), &kind, "{name}");
        let items: Vec<_> = store.notifications(Query::all()).map(kind_of).collect();
        assert_eq!(items, [kind], "{name}");
        let mut subscription = store.subscribe(Query::all()).after_head();
        for _ in 0..2 {
            assert_eq!(kind_of(subscription.try_next()), kind, "{name}");
            assert_eq!(kind_of(subscription.next_timeout(FOREVER)), kind, "{name}");
            assert_eq!(kind_of(subscription.next_batch(3)), kind, "{name}");
            assert_eq!(kind_of(store.notifications(Query::all()).next_timeout(FOREVER)), kind, "{name}");
        }
        assert_eq!(subscription.behind(), 0, "{name}");
    }
}

/// Ways to wait at the head for ever; each gives the kinds of errors it ends with.
type Sleeper = (&'static str, fn(&Store) -> Box<dyn FnOnce() -> Vec<ErrorKind> + Send>);

fn sleepers() -> [Sleeper; 7] {
    fn kinds<T>(items: impl Iterator<Item = Result<T, Error>>) -> Vec<ErrorKind> {
        items.map(kind_of).collect()
    }
    [
        ("next", |store| {
            let subscription = store.subscribe(Query::all()).after_head();
            Box::new(|| kinds(subscription))
        }),
        ("next, nothing matches", |store| {
            let subscription = store.subscribe(Query::entity("unknown"));
            Box::new(|| kinds(subscription))
        }),
        ("next, durable", |store| {
            let subscription = store.subscribe(Query::all()).after_head().durable();
            Box::new(|| kinds(subscription))
        }),
        ("next_timeout", |store| {
            let mut subscription = store.subscribe(Query::all()).after_head();
            Box::new(move || vec![kind_of(subscription.next_timeout(Duration::MAX))])
        }),
        ("next_batch", |store| {
            let mut subscription = store.subscribe(Query::all()).after_head();
            Box::new(move || vec![kind_of(subscription.next_batch(7))])
        }),
        ("notifications", |store| {
            let notifications = store.notifications(Query::all());
            Box::new(|| kinds(notifications))
        }),
        ("next_timeout of notifications", |store| {
            let mut notifications = store.notifications(Query::all());
            Box::new(move || vec![kind_of(notifications.next_timeout(FOREVER))])
        }),
    ]
}

#[test]
fn the_end_wakes_everybody_at_once() {
    for ending in ENDINGS {
        let (disk, store) = three();
        let (woken, wakings) = mpsc::channel();
        let sleepers = sleepers();
        let begun = Arc::new(Barrier::new(sleepers.len() + 1));
        for (name, sleeper) in sleepers {
            let (sleep, woken, begun) = (sleeper(&store), woken.clone(), begun.clone());
            thread::spawn(move || {
                begun.wait();
                let kinds = sleep();
                woken.send((name, kinds))
            });
        }
        // Some may not sleep yet when the end comes: that must not matter either.
        begun.wait();
        let ended = Instant::now();
        let _kept = ending.end(store, &disk);
        for _ in 0..7 {
            let left = AWAKE.checked_sub(ended.elapsed()).unwrap_or_default();
            let (name, kinds) = wakings.recv_timeout(left).expect("every sleeping follower is woken");
            let right = match (name, ending.kind()) {
                ("next_timeout" | "next_batch" | "next_timeout of notifications", kind) => vec![kind],
                _ => ending.items(),
            };
            assert_eq!(kinds, right, "{ending:?}: {name}");
        }
    }
}

/// A store, a subscription, a receiver and an event are dropped in every order there is.
#[test]
fn the_rest_works_in_any_order_of_drops() {
    for order in 0..24_usize {
        let disk = MemDisk::new();
        let mut store = Some(Store::on(disk.clone()).open().unwrap());
        let followed = store.as_ref().unwrap();
        let mut subscription = Some(followed.subscribe(Query::all()));
        let mut notifications = Some(followed.notifications(Query::all()));
        fill(followed, "e", 2);
        let mut event = subscription.as_mut().unwrap().next().transpose().unwrap();
        let mut left = vec!["store", "subscription", "notifications", "event"];
        let mut code = order;
        while !left.is_empty() {
            let next = code % left.len();
            code /= left.len();
            match left.remove(next) {
                "store" => drop(store.take()),
                "subscription" => drop(subscription.take()),
                "notifications" => drop(notifications.take()),
                _ => drop(event.take()),
            }
            let stats = store.as_ref().map(Store::stats).unwrap_or_default();
            let there = |what: bool| usize::from(what && store.is_some());
            assert_eq!(stats.subscriptions, there(subscription.is_some()), "order {order}");
            assert_eq!(stats.notification_receivers, there(notifications.is_some()), "order {order}");
            assert!(event.as_ref().is_none_or(|event| event.decode::<u64>().unwrap() == 0), "order {order}");
            if store.is_none() {
                // The lock is free although others still hold on to what was read.
                fill(&Store::on(disk.clone()).open().unwrap(), "other", 1);
                let rest = subscription.take().map(|one| one.filter(Result::is_ok).count());
                assert!(rest.is_none_or(|rest| rest == 1), "order {order}");
                let hints = notifications.take().map(|one| one.filter(Result::is_ok).count());
                assert!(hints.is_none_or(|hints| hints == 2), "order {order}");
            }
        }
    }
}

/// The last group and the end come as close behind each other as can be, again and again.
#[test]
fn closing_behind_an_append_cuts_nothing_off() {
    for round in 0..300 {
        let store = Store::on(MemDisk::new()).durability(lazy()).open().unwrap();
        let subscription = store.subscribe(Query::all());
        let durable = store.subscribe(Query::all()).durable();
        let mut notifications = store.notifications(Query::all());
        thread::scope(|scope| {
            let count = |subscription: Subscription| move || subscription.map(Result::unwrap).last();
            let (one, other) = (scope.spawn(count(subscription)), scope.spawn(count(durable)));
            let hints = scope.spawn(move || {
                let groups = notifications.by_ref().map(|notice| told(&notice.unwrap()).unwrap());
                groups.map(|group| group.len()).sum::<usize>()
            });
            for number in 0..3_u64 {
                let ticket = Append::to("e").event(&Raw("k", &number)).submit(&store).unwrap();
                drop(ticket);
            }
            store.close().unwrap();
            assert_eq!(one.join().unwrap().unwrap().position().get(), 3, "round {round}");
            assert_eq!(other.join().unwrap().unwrap().position().get(), 3, "round {round}, durable");
            assert_eq!(hints.join().unwrap(), 3, "round {round}, notifications");
        });
    }
}

/// Counts how often it was called, and may panic then.
struct Bell {
    rings: AtomicUsize,
    panics: bool,
    told: mpsc::Sender<()>,
}

impl Bell {
    fn new(panics: bool) -> (Arc<Bell>, mpsc::Receiver<()>) {
        let (told, tellings) = mpsc::channel();
        (Arc::new(Bell { rings: AtomicUsize::new(0), panics, told }), tellings)
    }

    fn rings(&self) -> usize {
        self.rings.load(Ordering::SeqCst)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Bell>) {
        self.rings.fetch_add(1, Ordering::SeqCst);
        let _ = self.told.send(());
        assert!(!self.panics, "this waker panics on purpose");
    }
}

/// Polls until it is ready, sleeping on its own waker.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let (bell, tellings) = Bell::new(false);
    let waker = Waker::from(bell);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => tellings.recv_timeout(FOREVER).expect("the task is woken"),
        }
    }
}

#[test]
fn futures_are_woken() {
    let store = Store::in_memory().unwrap();
    let (mut subscription, mut notifications) =
        (store.subscribe(Query::all()), store.notifications(Query::all()));
    let (begun, beginnings) = mpsc::channel();
    let heard = begun.clone();
    let follower = thread::spawn(move || {
        let mut seen = Vec::new();
        begun.send(()).unwrap();
        while let Some(event) = block_on(subscription.next_async()) {
            seen.push(event.unwrap().position().get());
            begun.send(()).unwrap();
        }
        assert!(block_on(subscription.next_async()).is_none());
        seen
    });
    let listener = thread::spawn(move || {
        let mut seen = Vec::new();
        heard.send(()).unwrap();
        while let Some(notice) = block_on(notifications.next_async()) {
            seen.extend(told(&notice.unwrap()).unwrap());
            heard.send(()).unwrap();
        }
        assert!(block_on(notifications.next_async()).is_none());
        seen
    });
    for _ in 0..100 {
        for _ in 0..2 {
            beginnings.recv_timeout(FOREVER).expect("both had the last event");
        }
        fill(&store, "e", 1);
    }
    store.close().unwrap();
    let right: Vec<u64> = (1..=100).collect();
    assert_eq!((follower.join().unwrap(), listener.join().unwrap()), (right.clone(), right));
}

#[test]
fn wakers_are_called_once_and_only_the_last() {
    let store = Store::on(MemDisk::new()).durability(lazy()).open().unwrap();
    let mut subscription = store.subscribe(Query::all());
    let mut durable = store.subscribe(Query::all()).durable();
    let mut notifications = store.notifications(Query::all());
    let ((old, _), (new, tellings)) = (Bell::new(false), Bell::new(false));
    let ((durably, synced), (listening, heard)) = (Bell::new(false), Bell::new(false));
    for bell in [&old, &new] {
        let waker = Waker::from(bell.clone());
        assert!(subscription.poll_next(&mut Context::from_waker(&waker)).is_pending());
    }
    let waker = Waker::from(durably.clone());
    assert!(durable.poll_next(&mut Context::from_waker(&waker)).is_pending());
    let waker = Waker::from(listening.clone());
    assert!(notifications.poll_next(&mut Context::from_waker(&waker)).is_pending());
    fill(&store, "e", 5);
    tellings.recv_timeout(FOREVER).expect("the task is woken");
    heard.recv_timeout(FOREVER).expect("the listener is woken");
    store.sync().unwrap();
    synced.recv_timeout(FOREVER).expect("the durable one is woken");
    fill(&store, "e", 5);
    store.sync().unwrap();
    assert_eq!((old.rings(), new.rings(), durably.rings(), listening.rings()), (0, 1, 1, 1));
    // The waker of a dropped subscription is not kept, and not called.
    while subscription.try_next().unwrap().is_some() {}
    let (gone, _) = Bell::new(false);
    let waker = Waker::from(gone.clone());
    assert!(subscription.poll_next(&mut Context::from_waker(&waker)).is_pending());
    drop((subscription, waker));
    assert_eq!(Arc::strong_count(&gone), 1);
    fill(&store, "e", 1);
    store.sync().unwrap();
    assert_eq!(gone.rings(), 0);
}

#[test]
fn a_waker_that_panics_stops_no_other() {
    let store = Store::in_memory().unwrap();
    let mut subscriptions: Vec<_> = (0..4).map(|_| store.subscribe(Query::all())).collect();
    let mut notifications: Vec<_> = (0..4).map(|_| store.notifications(Query::all())).collect();
    let mut bells = Vec::new();
    for panics in [true, false] {
        for (subscription, notifications) in subscriptions.iter_mut().zip(&mut notifications) {
            let (bell, tellings) = Bell::new(panics);
            let waker = Waker::from(bell);
            assert!(subscription.poll_next(&mut Context::from_waker(&waker)).is_pending());
            assert!(notifications.poll_next(&mut Context::from_waker(&waker)).is_pending());
            bells.push(tellings);
        }
        fill(&store, "e", 1);
        for tellings in bells.drain(..) {
            tellings.recv_timeout(FOREVER).expect("the subscription's waker");
            tellings.recv_timeout(FOREVER).expect("the listener's waker");
        }
        subscriptions.iter_mut().for_each(|one| assert_eq!(taken(one).len(), 1));
        notifications.iter_mut().for_each(|one| drop(one.try_next().unwrap().unwrap()));
    }
    store.close().unwrap();
}

/// A waker may be the one that drops the last handle, on the writer's own thread.
#[test]
fn a_waker_may_close_the_store() {
    struct Closer(std::sync::Mutex<Option<Store>>, mpsc::Sender<()>);
    impl Wake for Closer {
        fn wake(self: Arc<Closer>) {
            drop(self.0.lock().unwrap().take());
            let _ = self.1.send(());
        }
    }
    let store = Store::in_memory().unwrap();
    let mut subscription = store.subscribe(Query::all());
    let (told, tellings) = mpsc::channel();
    let waker = Waker::from(Arc::new(Closer(std::sync::Mutex::new(Some(store.clone())), told)));
    assert!(subscription.poll_next(&mut Context::from_waker(&waker)).is_pending());
    let ticket = Append::to("e").event(&Raw("k", &())).submit(&store).unwrap();
    drop(store);
    ticket.wait().unwrap();
    tellings.recv_timeout(FOREVER).expect("the waker ran");
    let rest = within(FOREVER, "the rest", move || subscription.map(Result::unwrap).collect::<Vec<_>>());
    assert_eq!(rest.len(), 1);
}

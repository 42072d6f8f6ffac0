//! Following: subscriptions lose nothing and repeat nothing, notifications say what they lost, and
//! whoever waits is woken, by events, by a deadline, or by the end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use annals::disk::{CrashMode, Fault, MemDisk, SimDisk};
use annals::{
    Append, Durability, Error, ErrorKind, Notice, Notification, Notifications, Position, Query, Raw,
    RecordedEvent, Store, Subscription,
};

use crate::sim_support::{BUFFERED, Gate, Planned, Rng, Shape, fingerprint, seed};
use crate::support::{Behind, FOREVER, GatedDisk, Random, all, fill, kind_of, within};

/// Everybody must be awake by then.
const AWAKE: Duration = Duration::from_secs(1);

fn lazy() -> Durability {
    Durability::Buffered { flush_every: Duration::from_secs(3600) }
}

fn append(store: &Store, entity: &str, kind: &str) -> u64 {
    Append::to(entity).event(&Raw(kind, &())).commit(store).unwrap().position().get()
}

/// The positions that are there to be had now.
fn taken(subscription: &mut Subscription) -> Vec<u64> {
    std::iter::from_fn(|| subscription.try_next().unwrap()).map(|event| event.position().get()).collect()
}

fn places(events: &[Notification]) -> Vec<u64> {
    events.iter().map(|event| event.position().get()).collect()
}

/// The notices that are there now.
fn noticed(notifications: &mut Notifications) -> Vec<Told> {
    let notices = std::iter::from_fn(|| notifications.try_next().unwrap());
    notices.map(|notice| told(&notice)).collect()
}

/// The positions in a notice, or what it says was missed, and the position to resume at.
type Told = Result<Vec<u64>, (u64, u64)>;

fn told(notice: &Notice) -> Told {
    match notice {
        Notice::Events(events) => Ok(places(events)),
        Notice::Lagged { missed, resume_at } => Err((*missed, resume_at.get())),
    }
}

/// How the clock of a store holds it up: appends submitted meanwhile become one group.
fn one_group(store: &Store, gate: &Gate, appends: impl Iterator<Item = Append>) {
    gate.hold();
    // The first one is a group of its own, if the writer sleeps; it waits in the clock.
    let tickets: Vec<_> = appends.map(|append| append.submit(store).unwrap()).collect();
    gate.release();
    tickets.into_iter().for_each(|ticket| drop(ticket.wait().unwrap()));
}

fn gated_store(gate: &Gate) -> Store {
    let gate = gate.clone();
    Store::on(MemDisk::new()).clock(move || gate.read()).open().unwrap()
}

#[test]
fn handles_go_to_any_thread() {
    fn goes<T: Send + 'static>() {}
    goes::<Subscription>();
    goes::<Notifications>();
    goes::<Notification>();
    goes::<Notice>();
}

/// Where to begin, in a store of ten events, three of which match and one more that comes.
#[test]
fn a_subscription_begins_where_it_is_told() {
    type Begin = fn(Subscription) -> Subscription;
    let table: [(&str, Begin, &[u64]); 6] = [
        ("by default", |all| all, &[2, 5, 9, 11]),
        ("after the start", |all| all.after(Position::START), &[2, 5, 9, 11]),
        ("after an event", |all| all.after(Position::from(5)), &[9, 11]),
        ("between events", |all| all.after(Position::from(6)), &[9, 11]),
        ("after the head", Subscription::after_head, &[11]),
        ("beyond the head", |all| all.after(Position::from(11)), &[]),
    ];
    for segment_bytes_max in [1 << 20, 0] {
        for (name, begin, right) in &table {
            let store = Store::on(MemDisk::new()).segment_bytes_max(segment_bytes_max).open().unwrap();
            for position in 1..=10 {
                let entity = if [2, 5, 9].contains(&position) { "a" } else { "b" };
                assert_eq!(append(&store, entity, "k"), position);
            }
            let mut subscription = begin(store.subscribe(Query::entity("a")));
            let mut found = taken(&mut subscription);
            append(&store, "a", "k");
            found.extend(taken(&mut subscription));
            assert_eq!(found, *right, "{name}");
            assert!(subscription.position().get() >= 11, "{name}");
            assert_eq!(subscription.behind(), 0, "{name}");
        }
    }
}

#[test]
fn the_cursor_says_where_to_go_on() {
    let store = Store::in_memory().unwrap();
    for position in 1..=9 {
        append(&store, if position % 3 == 0 { "a" } else { "b" }, "k");
    }
    let mut seen = Vec::new();
    let mut cursor = Position::START;
    // Each event by a subscription of its own; in between, the cursor is all that is kept.
    for behind in [6, 3, 0] {
        let mut subscription = store.subscribe(Query::entity("a")).after(cursor);
        assert_eq!((subscription.position(), subscription.behind()), (cursor, 9 - cursor.get()));
        seen.push(subscription.try_next().unwrap().unwrap().position().get());
        assert_eq!(subscription.behind(), behind);
        cursor = subscription.position();
    }
    assert_eq!(seen, [3, 6, 9]);
    // Behind the last match the cursor moves to the head: what is there need not be looked at again.
    append(&store, "b", "k");
    let mut subscription = store.subscribe(Query::entity("a")).after(cursor);
    assert!(subscription.try_next().unwrap().is_none());
    assert_eq!((subscription.position().get(), subscription.behind()), (10, 0));
}

/// Queries are those of reads: what one finds, the other does.
#[test]
fn a_subscription_finds_what_a_read_finds() {
    let mut random = Random::for_test("a_subscription_finds_what_a_read_finds");
    let store = Store::on(MemDisk::new()).segment_bytes_max(2000).open().unwrap();
    let queries = || {
        let correlated = store.read(Query::all().kind("k.1")).next().unwrap().unwrap().correlation();
        [
            Query::all(),
            Query::entity("e:1"),
            Query::entity_prefix("e:"),
            Query::all().scope("s:1"),
            Query::all().kinds(["k.0", "k.2"]),
            Query::all().kind_prefix("k."),
            Query::all().tag("t:1"),
            Query::entity("e:0").or(Query::all().kind("k.1")),
            Query::correlation(correlated),
            Query::all().kinds(Vec::<String>::new()),
        ]
    };
    let grow = |random: &mut Random| {
        let (entity, scope) = (format!("e:{}", random.below(3)), format!("s:{}", random.below(2)));
        let (kind, tag) = (format!("k.{}", random.below(3)), format!("t:{}", random.below(2)));
        let event = Append::to((entity, scope)).event(&Raw(&kind, &())).tag(tag);
        event.and_to("other").event(&Raw("other", &())).commit(&store).unwrap();
    };
    (0..40).for_each(|_| grow(&mut random));
    append(&store, "e:1", "k.1");
    let mut following: Vec<_> = queries().map(|query| (query.clone(), store.subscribe(query))).into();
    let mut listening: Vec<_> = queries().map(|query| (query.clone(), store.notifications(query))).into();
    let begin = store.head().unwrap().position();
    let mut found: Vec<Vec<RecordedEvent>> = following.iter().map(|_| Vec::new()).collect();
    for _ in 0..40 {
        grow(&mut random);
        for ((_, subscription), found) in following.iter_mut().zip(&mut found) {
            let max = random.index(5);
            while let Some(event) = subscription.try_next().unwrap() {
                found.push(event);
                if found.len() % 7 == max {
                    break;
                }
            }
        }
    }
    for ((query, subscription), found) in following.iter_mut().zip(&mut found) {
        found.extend(std::iter::from_fn(|| subscription.try_next().unwrap()));
        let right: Vec<u64> = all(store.read(query.clone())).iter().map(fingerprint).collect();
        assert_eq!(found.iter().map(fingerprint).collect::<Vec<_>>(), right, "{query:?}");
    }
    for (query, notifications) in &mut listening {
        let mut events = Vec::new();
        while let Some(notice) = notifications.try_next().unwrap() {
            let Notice::Events(more) = notice else { panic!("nothing was lost") };
            assert!(!more.is_empty());
            events.extend(more);
        }
        let right = all(store.read(query.clone()).after(begin));
        assert_eq!(events.len(), right.len(), "{query:?}");
        for (event, right) in events.iter().zip(&right) {
            assert_eq!((event.position(), event.id()), (right.position(), right.id()));
            assert_eq!(event.coordinate(), right.coordinate());
            assert_eq!(
                (event.entity(), event.scope(), event.kind()),
                (right.entity(), right.scope(), right.kind())
            );
        }
    }
}

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

fn three() -> (GatedDisk, Store) {
    let disk = GatedDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    fill(&store, "e", 3);
    (disk, store)
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

/// A store that ended, or only reads, says so.
#[test]
fn what_cannot_be_followed_says_why() {
    let (disk, store) = three();
    let closed = store.clone();
    store.close().unwrap();
    let read_only = Store::on(disk.clone()).open_read_only().unwrap();
    let poisoned = Store::on(disk.clone()).open().unwrap();
    disk.gate().set_behind(Behind::Fail);
    assert_eq!(kind_of(poisoned.append("e", &Raw("k", &()))), ErrorKind::CommitUnknown);
    let table = [
        ("closed", &closed, 0, ErrorKind::Closed),
        ("opened to read", &read_only, 0, ErrorKind::Invalid),
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
            let subscription = store.subscribe(Query::entity("nobody"));
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
            let (name, kinds) = wakings.recv_timeout(left).expect("whoever sleeps is woken");
            let right = match (name, ending.kind()) {
                ("next_timeout" | "next_batch" | "next_timeout of notifications", kind) => vec![kind],
                _ => ending.items(),
            };
            assert_eq!(kinds, right, "{ending:?}: {name}");
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

#[test]
fn deadlines_are_kept() {
    let store = Store::in_memory().unwrap();
    for timeout in [Duration::ZERO, Duration::from_millis(20)] {
        let (mut subscription, mut notifications) =
            (store.subscribe(Query::all()), store.notifications(Query::all()));
        let began = Instant::now();
        assert!(subscription.next_timeout(timeout).unwrap().is_none());
        assert!(notifications.next_timeout(timeout).unwrap().is_none());
        assert!(began.elapsed() >= 2 * timeout && began.elapsed() < FOREVER);
    }
    assert_eq!(store.subscribe(Query::all()).next_batch(0).unwrap().len(), 0);
}

#[test]
fn an_event_wakes_a_sleeper_in_time() {
    let store = Store::in_memory().unwrap();
    for round in 1..=200 {
        let mut subscription = store.subscribe(Query::all()).after_head();
        let mut notifications = store.notifications(Query::all());
        thread::scope(|scope| {
            let event = scope.spawn(move || subscription.next_timeout(FOREVER).unwrap().unwrap());
            let notice = scope.spawn(move || notifications.next_timeout(FOREVER).unwrap().unwrap());
            assert_eq!(append(&store, "e", "k"), round);
            assert_eq!(event.join().unwrap().position().get(), round);
            assert_eq!(told(&notice.join().unwrap()), Ok(vec![round]));
        });
    }
}

/// With the disk held up in a sync, nothing of the group may be seen.
#[test]
fn nothing_is_seen_before_it_is_durable() {
    let (disk, store) = three();
    let mut subscription = store.subscribe(Query::all()).after_head();
    let mut notifications = store.notifications(Query::all());
    let arrived = disk.gate().arrived();
    let held = disk.gate().hold();
    let ticket = Append::to("e").event(&Raw("k", &())).submit(&store).unwrap();
    disk.gate().wait_for_sync(arrived);
    assert!(subscription.try_next().unwrap().is_none());
    assert!(notifications.try_next().unwrap().is_none());
    drop(held);
    ticket.wait().unwrap();
    assert_eq!(taken(&mut subscription), [4]);
    let notice = notifications.next_timeout(FOREVER).unwrap().unwrap();
    assert_eq!(told(&notice), Ok(vec![4]));
}

#[test]
fn buffered_events_reach_durable_subscriptions_when_they_are_synced() {
    type Sync = fn(&Store);
    let table: [(&str, Sync); 3] = [
        ("sync", |store| assert_eq!(store.sync().unwrap().get(), 3)),
        ("a synced append", |store| {
            let synced = Append::to("other").event(&Raw("k", &())).durability(Durability::Synced);
            synced.commit(store).unwrap();
        }),
        ("close", |store| store.clone().close().unwrap()),
    ];
    for (name, sync) in table {
        let store = Store::on(MemDisk::new()).durability(lazy()).open().unwrap();
        let mut visible = store.subscribe(Query::entity("e"));
        let mut durable = store.subscribe(Query::entity("e")).durable();
        fill(&store, "e", 3);
        assert_eq!(taken(&mut visible), [1, 2, 3], "{name}");
        assert_eq!(taken(&mut durable), [] as [u64; 0], "{name}");
        assert_eq!(
            (visible.behind(), durable.behind(), durable.position()),
            (0, 0, Position::START),
            "{name}"
        );
        let woken = thread::spawn(move || {
            let first = durable.next_timeout(FOREVER).unwrap().unwrap().position().get();
            (first, durable.next_batch(2).unwrap().len())
        });
        sync(&store);
        assert_eq!(woken.join().unwrap(), (1, 2), "{name}");
    }
    // Rolling to the next segment syncs as well.
    let store = Store::on(MemDisk::new()).durability(lazy()).segment_bytes_max(1000).open().unwrap();
    let mut durable = store.subscribe(Query::all()).durable();
    let woken = thread::spawn(move || durable.next_timeout(FOREVER).unwrap().unwrap().position().get());
    fill(&store, "e", 20);
    assert_eq!(woken.join().unwrap(), 1);
}

/// A group is what one sync covers: its events come in one notice, and only those that match.
#[test]
fn a_group_is_one_notice() {
    let gate = Gate::default();
    let store = gated_store(&gate);
    let mut evens = store.notifications(Query::entity("even"));
    let mut nobody = store.notifications(Query::entity("nobody"));
    let appends = (0..21).map(|n| Append::to(if n % 2 == 0 { "even" } else { "odd" }).event(&Raw("k", &n)));
    one_group(&store, &gate, appends);
    let right: Vec<u64> = (1..=21).step_by(2).collect();
    let mut notices: Vec<Vec<u64>> = Vec::new();
    while notices.concat().len() < right.len() {
        notices.push(told(&evens.next_timeout(FOREVER).unwrap().unwrap()).unwrap());
    }
    assert_eq!(notices.concat(), right);
    let groups = usize::try_from(store.stats().groups).unwrap();
    assert!(notices.len() <= groups && groups < 21, "{} notices of {groups} groups", notices.len());
    assert_eq!(noticed(&mut nobody), []);
}

/// What fits, what does not, and what the receiver is told of it. Each append is a group.
#[test]
fn losses_are_counted_and_told_in_their_place() {
    // capacity | steps: an append of so many events, or 0 for "take everything" | what is told
    type Row = (usize, &'static [u64], Vec<Vec<Told>>);
    let table: [Row; 8] = [
        (3, &[1, 1, 1, 0], vec![vec![Ok(vec![1]), Ok(vec![2]), Ok(vec![3])]]),
        (3, &[1, 1, 1, 1, 0], vec![vec![Ok(vec![1]), Ok(vec![2]), Ok(vec![3]), Err((1, 3))]]),
        (3, &[2, 2, 1, 0], vec![vec![Ok(vec![1, 2]), Err((2, 2)), Ok(vec![5])]]),
        (3, &[5, 0, 1, 0], vec![vec![Ok(vec![1, 2, 3, 4, 5])], vec![Ok(vec![6])]]),
        (0, &[2, 1, 0, 1, 0], vec![vec![Ok(vec![1, 2]), Err((1, 2))], vec![Ok(vec![4])]]),
        (2, &[2, 1, 3, 0, 1, 0], vec![vec![Ok(vec![1, 2]), Err((4, 2))], vec![Ok(vec![7])]]),
        (1, &[1, 1, 0, 1, 1, 0], vec![vec![Ok(vec![1]), Err((1, 1))], vec![Ok(vec![3]), Err((1, 3))]]),
        (4, &[1, 4, 2, 9, 0], vec![vec![Ok(vec![1]), Err((4, 1)), Ok(vec![6, 7]), Err((9, 7))]]),
    ];
    for (capacity, steps, right) in table {
        let store = Store::in_memory().unwrap();
        let mut notifications = store.notifications(Query::entity("e")).capacity(capacity);
        let (mut found, mut missed, mut sent) = (Vec::new(), 0, 0);
        for events in steps {
            if *events == 0 {
                found.push(noticed(&mut notifications));
                continue;
            }
            (0..*events)
                .fold(Append::to("e"), |append, n| append.event(&Raw("k", &n)))
                .commit(&store)
                .unwrap();
            // Groups are told of after their replies; the writer is through when the next sync is.
            store.sync().unwrap();
        }
        assert_eq!(found, right, "capacity {capacity}, {steps:?}");
        for told in found.into_iter().flatten() {
            match told {
                Ok(events) => sent += u64::try_from(events.len()).unwrap(),
                Err((lost, _)) => missed += lost,
            }
        }
        assert_eq!(sent + missed, steps.iter().sum::<u64>());
        let stats = store.stats();
        assert_eq!((stats.notifications_sent, stats.notifications_missed), (sent, missed));
    }
}

#[test]
fn what_was_missed_is_found_after_resume_at() {
    let store = Store::in_memory().unwrap();
    let query = || Query::all().kind("even");
    let mut notifications = store.notifications(query()).capacity(3);
    let kind = |n: u64| if n.is_multiple_of(2) { "even" } else { "odd" };
    for n in 1..=40 {
        append(&store, "e", kind(n));
    }
    store.sync().unwrap();
    let mut seen = Vec::new();
    while let Some(notice) = notifications.try_next().unwrap() {
        match notice {
            Notice::Events(events) => seen.extend(places(&events)),
            Notice::Lagged { missed, resume_at } => {
                let lost = all(store.read(query()).after(resume_at));
                assert_eq!(lost.len(), usize::try_from(missed).unwrap());
                seen.extend(lost.iter().map(|event| event.position().get()));
            }
        }
    }
    assert_eq!(seen, (2..=40).step_by(2).collect::<Vec<u64>>());
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
    // A waker of somebody who is gone is not kept, and not called.
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
fn a_waker_that_panics_stops_nobody() {
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

#[test]
fn followers_hold_nothing_and_leave_nothing() {
    let disk = MemDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    let follow = || (store.subscribe(Query::all()), store.notifications(Query::all()));
    let counts = || {
        let stats = store.stats();
        (stats.subscriptions, stats.notification_receivers)
    };
    let ((one, hears), (other, listens)) = (follow(), follow());
    assert_eq!(counts(), (2, 2));
    drop((one, listens));
    assert_eq!(counts(), (1, 1));
    fill(&store, "e", 2);
    // The handle is gone, so the store is, whoever still follows it.
    drop(store);
    let reopened = Store::on(disk).open().unwrap();
    assert_eq!(reopened.stats().subscriptions, 0);
    fill(&reopened, "e", 1);
    assert_eq!(other.map(|event| event.unwrap().position().get()).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(hears.map(|notice| told(&notice.unwrap()).unwrap()).collect::<Vec<_>>(), [[1], [2]]);
}

/// Subscriptions and receivers come and go while appends go on.
#[test]
fn followers_come_and_go() {
    let mut random = Random::for_test("followers_come_and_go");
    let store = Store::on(MemDisk::new()).segment_bytes_max(5000).open().unwrap();
    let seeds: Vec<u64> = (0..3).map(|_| random.next()).collect();
    thread::scope(|scope| {
        let (store, total) = (&store, 3000_u64);
        for seed in seeds {
            scope.spawn(move || {
                let mut random = Random::new(seed);
                let mut position = Position::START;
                while position.get() < total {
                    let mut subscription = store.subscribe(Query::all()).after(position);
                    let mut notifications = store.notifications(Query::all()).capacity(random.index(20));
                    for _ in 0..random.below(50) {
                        if position.get() == total {
                            break;
                        }
                        let event = subscription.next().unwrap().unwrap();
                        assert_eq!(event.position().get(), position.get() + 1);
                        position = event.position();
                    }
                    if random.chance(50) {
                        let waker = Waker::from(Bell::new(false).0);
                        let _ = notifications.poll_next(&mut Context::from_waker(&waker));
                        let _ = subscription.poll_next(&mut Context::from_waker(&waker));
                    }
                }
            });
        }
        scope.spawn(move || fill(store, "e", total));
    });
    assert_eq!((store.stats().subscriptions, store.stats().notification_receivers), (0, 0));
}

const APPENDERS: u64 = 8;
const BATCH: u64 = 125;
const PER_APPENDER: u64 = 125_000;
const TOTAL: u64 = APPENDERS * PER_APPENDER;

/// Appends its share in batches, 50 in flight.
fn append_share(store: &Store, appender: u64) {
    let entity = format!("appender:{appender}");
    let mut in_flight = std::collections::VecDeque::new();
    for batch in 0..PER_APPENDER / BATCH {
        let numbers = batch * BATCH..(batch + 1) * BATCH;
        let kinds = ["even", "odd"];
        let append = numbers.fold(Append::to(entity.as_str()), |append, number| {
            append.event(&Raw(kinds[usize::from(number % 2 == 1)], &number))
        });
        in_flight.push_back(append.submit(store).unwrap());
        if in_flight.len() > 50 {
            in_flight.pop_front().unwrap().wait().unwrap();
        }
    }
    in_flight.into_iter().for_each(|ticket| drop(ticket.wait().unwrap()));
}

/// What a follower of a million events saw: as many as match, in order, each appender's numbers without
/// a gap.
#[derive(Default)]
struct Seen {
    last: u64,
    next: BTreeMap<String, u64>,
    count: u64,
}

impl Seen {
    fn see(&mut self, event: &RecordedEvent, step: u64) {
        assert!(event.position().get() > self.last);
        self.last = event.position().get();
        let number: u64 = event.decode().unwrap();
        match self.next.get_mut(event.entity()) {
            Some(next) => {
                assert_eq!(number, *next);
                *next += step;
            }
            None => {
                assert!(number < step);
                self.next.insert(event.entity().to_owned(), number + step);
            }
        }
        self.count += 1;
    }
}

/// Eight appenders, four subscribers of which two stop every few thousand events until the head has
/// gone on, and two lossy receivers of which one is not read before the end.
#[test]
fn a_million_events_reach_everybody_who_follows() {
    let began = Instant::now();
    let store = Store::on(MemDisk::new()).durability(lazy()).group_commands_max(20).open().unwrap();
    let odd = || Query::all().kind("odd");
    let one = || Query::entity("appender:3");
    let mut read = store.notifications(odd()).capacity(5_000);
    let mut unread = store.notifications(Query::all());
    let plans: [(Query, u64, u64, bool); 4] = [
        (Query::all(), TOTAL, 1, false),
        (odd(), TOTAL / 2, 2, false),
        (Query::all(), TOTAL, 1, true),
        (one(), PER_APPENDER, 1, true),
    ];
    let (heard, lost) = thread::scope(|scope| {
        let followers = plans.map(|(query, count, step, is_slow)| {
            let (subscription, store) = (store.subscribe(query), &store);
            scope.spawn(move || {
                let mut seen = Seen::default();
                for event in subscription.take(usize::try_from(count).unwrap()) {
                    seen.see(&event.unwrap(), step);
                    if is_slow && seen.count % 20_000 == 0 {
                        // A pause: until 50,000 more were appended, or all.
                        let until = (seen.last + 50_000).min(TOTAL);
                        let mut ahead = store.subscribe(Query::all()).after(Position::from(until - 1));
                        assert!(ahead.next_timeout(FOREVER).unwrap().is_some());
                    }
                }
                assert_eq!(seen.count, count);
            })
        });
        let listener = scope.spawn(move || {
            let (mut heard, mut lost, mut last) = (0, 0, 0);
            while heard + lost < TOTAL / 2 {
                match read.next().unwrap().unwrap() {
                    Notice::Events(events) => {
                        assert!(
                            events.is_sorted_by_key(Notification::position)
                                && events[0].position().get() > last
                        );
                        assert!(events.iter().all(|event| event.kind() == "odd"));
                        last = events.last().unwrap().position().get();
                        heard += u64::try_from(events.len()).unwrap();
                    }
                    Notice::Lagged { missed, resume_at } => {
                        assert!(resume_at.get() >= last && missed > 0);
                        lost += missed;
                    }
                }
            }
            assert!(read.try_next().unwrap().is_none());
            assert_eq!(heard + lost, TOTAL / 2);
            (heard, lost)
        });
        let appenders: Vec<_> = (0..APPENDERS)
            .map(|appender| {
                scope.spawn({
                    let store = &store;
                    move || append_share(store, appender)
                })
            })
            .collect();
        appenders.into_iter().for_each(|appender| appender.join().unwrap());
        println!("appended after {:.1?}", began.elapsed());
        followers.into_iter().for_each(|follower| follower.join().unwrap());
        listener.join().unwrap()
    });
    // Groups are told of after their replies; the writer is through when the next sync is.
    store.sync().unwrap();
    let (mut received, mut missed) = (0, 0);
    while let Some(notice) = unread.try_next().unwrap() {
        match notice {
            Notice::Events(events) => received += u64::try_from(events.len()).unwrap(),
            Notice::Lagged { missed: more, .. } => missed += more,
        }
    }
    assert_eq!(received + missed, TOTAL);
    assert!(received >= BATCH && missed > 0);
    let stats = store.stats();
    assert_eq!((stats.notifications_sent, stats.notifications_missed), (heard + received, lost + missed));
    println!(
        "{TOTAL} events, {:.0} a group, in {:.1?}: 4 subscribers saw all of theirs; receivers heard {heard} and {received}, and were told that they missed {lost} and {missed}",
        stats.events_per_group(),
        began.elapsed()
    );
}

/// The power is cut after every operation of the disk: whatever a subscriber had been shown by then is
/// there after recovery, if it was synced first.
#[test]
fn what_a_subscriber_saw_survives_every_crash() {
    let mut images = 0;
    for round in 0..12 {
        let seed = seed().wrapping_mul(1_000_003).wrapping_add(round);
        let mut rng = Rng::new(seed);
        // Half of the rounds are buffered, and then seen by a durable subscription.
        let is_buffered = round % 2 == 1;
        let durability = if is_buffered { BUFFERED } else { Durability::Synced };
        let shape = Shape { durability, ..Shape::any(&mut rng) };
        let (disk, gate) = (SimDisk::new(seed), Gate::default());
        let store = shape.builder(disk.clone(), &gate).open().unwrap();
        let mut subscription = store.subscribe(Query::all());
        if is_buffered {
            subscription = subscription.durable();
        }
        let noted = disk.clone();
        let follower = thread::spawn(move || {
            let mut seen = Vec::new();
            for event in subscription {
                seen.push(fingerprint(&event.unwrap()));
                noted.note(u64::try_from(seen.len()).unwrap());
            }
            seen
        });
        for number in 0..25 {
            let mut planned = Planned::any(&mut rng, number, 100);
            planned.durability = None;
            match planned.append().commit(&store) {
                Ok(_) if is_buffered && rng.once_in(3) => assert!(store.sync().unwrap() > Position::START),
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}"),
            }
        }
        let head = store.head().unwrap().position().get();
        store.close().unwrap();
        let seen = follower.join().unwrap();
        assert_eq!(u64::try_from(seen.len()).unwrap(), head, "seed {seed}");
        let trace = disk.trace();
        for point in 0..=trace.len() {
            let shown = trace.notes_before(point).last().unwrap_or_default();
            for mode in [CrashMode::Drop, CrashMode::Torn(0), CrashMode::Torn(1)] {
                let place = || format!("seed {seed}, point {point}, {mode:?}");
                let store = Store::on(trace.image(point, mode))
                    .open()
                    .unwrap_or_else(|error| panic!("{}: {error}", place()));
                let found: Vec<u64> = all(store.read(Query::all())).iter().map(fingerprint).collect();
                let shown = usize::try_from(shown).unwrap();
                assert!(
                    found.len() >= shown,
                    "{}: {} of {shown} events that were seen",
                    place(),
                    found.len()
                );
                assert_eq!(found[..shown], seen[..shown], "{}", place());
                images += 1;
            }
        }
    }
    println!("{images} crash images: every event that a subscriber had seen was there");
}

/// Every operation of the disk fails, from one of them on: whoever follows sees what was published,
/// then the failure, and what it saw of a synced store is there after recovery.
#[test]
fn a_failing_disk_shows_nothing_that_is_taken_back() {
    let shape = |disk: &SimDisk| Store::on(disk.clone()).segment_bytes_max(1500);
    let run = |disk: &SimDisk, store: &Store| {
        for number in 0..30 {
            let Ok(_) = store.append("e", &Raw("k", &number)) else { return disk.operations() };
        }
        disk.operations()
    };
    let whole = SimDisk::new(1);
    let (first, last) = {
        let store = shape(&whole).open().unwrap();
        let first = whole.operations();
        (first, run(&whole, &store))
    };
    let mut poisoned = 0;
    for nth in first..last {
        let disk = SimDisk::new(1);
        let store = shape(&disk).open().unwrap();
        let mut subscription = store.subscribe(Query::all());
        let follower = thread::spawn(move || {
            let mut seen = Vec::new();
            loop {
                match subscription.next_timeout(FOREVER) {
                    Ok(event) => seen.push(fingerprint(&event.expect("an event or the end"))),
                    // Its reads fail as well, until the disk is healed.
                    Err(error) if error.kind() == ErrorKind::Io => thread::yield_now(),
                    Err(error) => return (seen, error.kind()),
                }
            }
        });
        disk.fail_from(nth, Fault::Error(std::io::ErrorKind::Other));
        run(&disk, &store);
        disk.heal();
        let closed = store.close();
        let (seen, kind) = within(FOREVER, "the follower", move || follower.join().unwrap());
        match kind {
            ErrorKind::Poisoned => {
                assert!(closed.is_err(), "operation {nth}");
                poisoned += 1;
            }
            kind => assert_eq!((kind, closed.is_ok()), (ErrorKind::Closed, true), "operation {nth}"),
        }
        let disk = disk.trace().image(disk.trace().len(), CrashMode::Drop);
        let store = Store::on(disk).open().unwrap();
        let found: Vec<u64> = all(store.read(Query::all())).iter().map(fingerprint).collect();
        assert!(found.starts_with(&seen), "operation {nth}: {} seen, {} there", seen.len(), found.len());
    }
    assert!(poisoned > 20, "only {poisoned} of {} failures poisoned", last - first);
}

#[test]
fn damage_ends_the_iterator_and_is_told_again() {
    let disk = SimDisk::new(1);
    let store = Store::on(disk.clone()).segment_bytes_max(0).open().unwrap();
    fill(&store, "e", 3);
    let mut segments: Vec<_> = disk.paths().into_iter().filter(|path| path.contains("segments/")).collect();
    segments.sort();
    let path = segments.remove(1);
    let right = disk.contents(&path).unwrap();
    let mut damaged = right.clone();
    damaged[200] ^= 1;
    disk.set_contents(&path, Some(damaged));
    let mut subscription = store.subscribe(Query::all());
    assert_eq!(subscription.next().unwrap().unwrap().position().get(), 1);
    assert_eq!(kind_of(subscription.next().unwrap()), ErrorKind::Corrupt);
    assert!(subscription.next().is_none());
    assert_eq!(kind_of(subscription.try_next()), ErrorKind::Corrupt);
    assert_eq!(subscription.position().get(), 1);
    disk.set_contents(&path, Some(right));
    assert_eq!(taken(&mut subscription), [2, 3]);
}

/// A subscription that is not asked holds up nobody: neither appends, nor closing.
#[test]
fn a_slow_follower_holds_up_nobody() {
    let store = Store::on(MemDisk::new()).segment_bytes_max(3000).open().unwrap();
    let mut subscription = store.subscribe(Query::all());
    fill(&store, "e", 1);
    let held = subscription.next().unwrap().unwrap();
    let (appended, done) = mpsc::channel();
    thread::spawn(move || {
        fill(&store, "e", 500);
        store.close().unwrap();
        appended.send(()).unwrap();
    });
    done.recv_timeout(FOREVER).expect("the appends went through, and the store closed");
    assert_eq!(held.position().get(), 1);
    assert!(subscription.map(|event| event.unwrap().position().get()).eq(2..=501));
}

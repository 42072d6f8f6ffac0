//! Following: subscriptions lose nothing and repeat nothing, notifications say what they lost.
//!
//! How it ends and who is woken is in follow_end.rs; many at once, crashes and faults in follow_load.rs.

use std::thread;
use std::time::{Duration, Instant};

use annals::disk::MemDisk;
use annals::{
    Append, Durability, Notice, Notification, Notifications, Position, Query, Raw, RecordedEvent, Store,
    Subscription,
};

use crate::sim_support::{Gate, fingerprint};
use crate::support::{FOREVER, GatedDisk, Random, all, fill};

pub(crate) fn lazy() -> Durability {
    Durability::Buffered { flush_every: Duration::from_secs(3600) }
}

/// A store of three events, whose syncs can be held up.
pub(crate) fn three() -> (GatedDisk, Store) {
    let disk = GatedDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    fill(&store, "e", 3);
    (disk, store)
}

pub(crate) fn append(store: &Store, entity: &str, kind: &str) -> u64 {
    Append::to(entity).event(&Raw(kind, &())).commit(store).unwrap().position().get()
}

/// The positions that are there to be had now.
pub(crate) fn taken(subscription: &mut Subscription) -> Vec<u64> {
    std::iter::from_fn(|| subscription.try_next().unwrap()).map(|event| event.position().get()).collect()
}

pub(crate) fn places(events: &[Notification]) -> Vec<u64> {
    events.iter().map(|event| event.position().get()).collect()
}

/// The notices that are there now.
fn noticed(notifications: &mut Notifications) -> Vec<Told> {
    let notices = std::iter::from_fn(|| notifications.try_next().unwrap());
    notices.map(|notice| told(&notice)).collect()
}

/// The positions in a notice, or what it says was missed, and the position to resume at.
pub(crate) type Told = Result<Vec<u64>, (u64, u64)>;

pub(crate) fn told(notice: &Notice) -> Told {
    match notice {
        Notice::Events(events) => Ok(places(events)),
        Notice::Lagged { missed, resume_at } => Err((*missed, resume_at.get())),
    }
}

/// Holds the writer at its clock, so that all appends become one group.
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
        ("beyond the head", |all| all.after(Position::from(11)).allow_beyond_head(), &[]),
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
    // Groups are told of after their replies; the writer is through when the next sync is.
    store.sync().unwrap();
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
    let (held, ticket) =
        disk.gate().hold_up(|| Append::to("e").event(&Raw("k", &())).submit(&store).unwrap());
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
    let mut unmatched = store.notifications(Query::entity("unknown"));
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
    assert_eq!(noticed(&mut unmatched), []);
}

/// What fits, what does not, and what the receiver is told of it. Each append is a group.
#[test]
fn losses_are_counted_and_told_in_their_place() {
    // capacity | steps: the events of an append, or 0 for "take everything" | the notices
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
    // The last handle is gone, so the store is, although a subscription still follows it.
    drop(store);
    let reopened = Store::on(disk).open().unwrap();
    assert_eq!(reopened.stats().subscriptions, 0);
    fill(&reopened, "e", 1);
    assert_eq!(other.map(|event| event.unwrap().position().get()).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(hears.map(|notice| told(&notice.unwrap()).unwrap()).collect::<Vec<_>>(), [[1], [2]]);
}

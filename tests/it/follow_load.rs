//! Following beside many appenders, and on disks that crash, fail, or are damaged.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::task::{Context, Waker};
use std::thread;
use std::time::Instant;

use annals::disk::{CrashMode, Fault, MemDisk, SimDisk};
use annals::{
    Append, Durability, ErrorKind, Notice, Notification, Position, Query, Raw, RecordedEvent, Store,
};

use crate::follow::{lazy, taken};
use crate::sim_support::{BUFFERED, Gate, Planned, Rng, Shape, fingerprint, seed};
use crate::support::{FOREVER, Random, all, fill, kind_of, within};

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
                        let mut context = Context::from_waker(Waker::noop());
                        let _ = notifications.poll_next(&mut context);
                        let _ = subscription.poll_next(&mut context);
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

/// Eight appenders, four subscribers and two lossy receivers. Two subscribers stop every few thousand events
/// until the head has moved on. One receiver is not read before the end.
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
                        let ahead = store.subscribe(Query::all()).after(Position::from(until - 1));
                        let mut ahead = ahead.allow_beyond_head();
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

/// The power is cut after every operation of the disk: each event that a subscriber saw is there after
/// recovery, if it was synced first.
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

/// Every operation of the disk fails, from one of them on: a follower sees the published events, then the
/// failure. All that it saw of a synced store is there after recovery.
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
        // Where it reads from memory, the follower does not notice that the disk fails.
        let recent_bytes_max = if nth % 2 == 0 { 0 } else { 16 << 20 };
        let store = shape(&disk).recent_bytes_max(recent_bytes_max).open().unwrap();
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
    let store = Store::on(disk.clone()).segment_bytes_max(0).recent_bytes_max(0);
    let store = store.segment_memory_bytes(0).open().unwrap();
    fill(&store, "e", 3);
    let mut segments: Vec<_> = disk.paths().into_iter().filter(|path| path.ends_with(".seg")).collect();
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

/// A subscription that is not polled holds up neither appends nor closing.
#[test]
fn a_slow_follower_holds_up_no_append_and_no_close() {
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

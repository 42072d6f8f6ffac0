//! Order, ranges, queries, directions and limits against a naive filter; snapshots; reading while
//! others write; errors as items.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use annals::disk::{Fault, MemDisk, SimDisk};
use annals::{Append, Durability, ErrorKind, EventId, Position, Query, Raw, Read, RecordedEvent, Store};

use crate::support::{
    Bytes, FOREVER, NOTHING, Random, all, at, eventually, fill, kind_of, positions, within,
};

const ENTITIES: [&str; 6] = ["user:1", "user:10", "user:100", "user", "order:1", "order:2"];
const SCOPES: [&str; 3] = ["default", "acme", "acme2"];
const KINDS: [&str; 3] = ["k.a", "k.b", "k.ab"];
const TAGS: [&str; 4] = ["t:1", "t:10", "t:2", "t"];

/// An event as the test remembers it.
#[derive(Clone, Debug)]
struct Known {
    position: u64,
    version: u64,
    entity: &'static str,
    scope: &'static str,
    kind: &'static str,
    tags: Vec<&'static str>,
    correlation: Option<EventId>,
    id: EventId,
    recorded_at: SystemTime,
    occurred_at: Option<SystemTime>,
    payload: Vec<u8>,
}

struct World {
    disk: MemDisk,
    store: Store,
    events: Vec<Known>,
    versions: HashMap<&'static str, u64>,
    segment_bytes_max: u32,
}

impl World {
    fn new(random: &mut Random, segment_bytes_max: u32, appends: usize) -> World {
        let disk = MemDisk::new();
        let time = Arc::new(Mutex::new(at(1_000_000)));
        let clock = time.clone();
        // So that some of it is read from memory and some from the files.
        let recent_bytes_max = usize::try_from(segment_bytes_max / 4).unwrap().min(20_000);
        let store = Store::on(disk.clone()).segment_bytes_max(segment_bytes_max);
        let store = store.recent_bytes_max(recent_bytes_max);
        let store = store.clock(move || *clock.lock().unwrap()).open().unwrap();
        let mut world =
            World { disk, store, events: Vec::new(), versions: HashMap::new(), segment_bytes_max };
        for _ in 0..appends {
            let now = time.lock().unwrap().duration_since(at(0)).unwrap();
            let now = match random.below(10) {
                0..4 => now,
                4 => now - Duration::from_micros(random.below(50)),
                _ => now + Duration::from_micros(random.below(20)),
            };
            *time.lock().unwrap() = SystemTime::UNIX_EPOCH + now;
            world.append_some(random);
        }
        world
    }

    fn append_some(&mut self, random: &mut Random) {
        let count = if random.chance(60) { 1 } else { 2 + random.below(4) };
        let mut new: Vec<Known> = (0..count).map(|_| self.draw(random)).collect();
        let first = &new[0];
        let append = new.iter().fold(Append::to((first.entity, first.scope)), |append, event| {
            let append = append.and_to((event.entity, event.scope));
            let append = append.event(&Bytes(event.kind, event.payload.clone()));
            let append = event.tags.iter().fold(append, Append::tag);
            let append = event.occurred_at.into_iter().fold(append, Append::occurred_at);
            event.correlation.into_iter().fold(append, Append::correlation)
        });
        let receipt = append.commit(&self.store).unwrap();
        let shared = receipt.ids().next();
        for ((event, id), version) in new.iter_mut().zip(receipt.ids()).zip(receipt.versions()) {
            event.position = u64::try_from(self.events.len()).unwrap() + 1;
            (event.id, event.recorded_at) = (id, receipt.recorded_at());
            event.correlation = event.correlation.or(shared);
            assert_eq!(version.get(), event.version);
            self.events.push(event.clone());
        }
    }

    fn draw(&mut self, random: &mut Random) -> Known {
        let entity = random.pick(&ENTITIES);
        let version = self.versions.entry(entity).and_modify(|version| *version += 1).or_insert(1);
        let bytes = match random.below(40) {
            0 => random.below(10_000),
            1 if self.segment_bytes_max > 100_000 => random.below(400_000),
            _ => random.below(40),
        };
        Known {
            position: 0,
            version: *version,
            entity,
            scope: random.pick(&SCOPES),
            kind: random.pick(&KINDS),
            tags: TAGS.into_iter().filter(|_| random.chance(30)).collect(),
            correlation: random.chance(30).then(|| correlation(random.below(3))),
            id: correlation(0),
            recorded_at: at(0),
            occurred_at: random.chance(70).then(|| draw_time(random, -200, 200)),
            payload: vec![u8::try_from(random.below(256)).unwrap(); usize::try_from(bytes).unwrap()],
        }
    }

    /// Each store that holds these events: the one that wrote them, the same opened again, opened to
    /// read beside a writer, opened to read alone.
    fn each_store(self, mut check: impl FnMut(&Store, &[Known])) {
        check(&self.store, &self.events);
        self.store.close().unwrap();
        let open = || Store::on(self.disk.clone()).segment_bytes_max(self.segment_bytes_max);
        let store = open().open().unwrap();
        check(&store, &self.events);
        check(&open().open_read_only().unwrap(), &self.events);
        store.close().unwrap();
        check(&open().open_read_only().unwrap(), &self.events);
    }
}

fn correlation(number: u64) -> EventId {
    EventId::from_bytes([u8::try_from(number).unwrap() + 1; 16])
}

fn draw_time(random: &mut Random, least: i64, most: i64) -> SystemTime {
    at(least + i64::try_from(random.below((most - least).try_into().unwrap())).unwrap())
}

fn assert_same(event: &RecordedEvent, known: &Known) {
    assert_eq!((event.position().get(), event.version().get()), (known.position, known.version));
    assert_eq!((event.entity(), event.scope(), event.kind()), (known.entity, known.scope, known.kind));
    assert!(event.tags().eq(known.tags.iter().copied()));
    assert_eq!((Some(event.correlation()), event.id()), (known.correlation, known.id));
    assert_eq!((event.recorded_at(), event.occurred_at()), (known.recorded_at, known.occurred_at));
    assert_eq!(event.payload().unwrap(), known.payload);
}

#[test]
fn everything_comes_back_in_order() {
    let mut random = Random::for_test("everything_comes_back_in_order");
    for (segment_bytes_max, appends) in [(400, 300), (10_000, 300), (64 << 20, 1500)] {
        World::new(&mut random, segment_bytes_max, appends).each_store(|store, known| {
            let events = all(store.read(Query::all()));
            assert_eq!(events.len(), known.len());
            events.iter().zip(known).for_each(|(event, known)| assert_same(event, known));
            let backwards = all(store.read(Query::all()).backwards());
            assert_eq!(backwards.len(), known.len());
            backwards.iter().zip(known.iter().rev()).for_each(|(event, known)| assert_same(event, known));
            for entity in ENTITIES {
                let count = known.iter().filter(|known| known.entity == entity).count();
                assert_eq!(store.version(entity).unwrap().get(), u64::try_from(count).unwrap());
            }
            assert!(store.verify().unwrap().is_clean());
        });
    }
}

/// One alternative of a query, as the test understands it.
#[derive(Clone, Debug, Default)]
struct Asked {
    entity: Option<&'static str>,
    prefix: Option<&'static str>,
    correlation: Option<EventId>,
    scope: Vec<&'static str>,
    /// Each set narrows further.
    kinds: Vec<Vec<&'static str>>,
    tags: Vec<&'static str>,
}

impl Asked {
    fn draw(random: &mut Random, known: &[Known]) -> Asked {
        let mut asked = Asked::default();
        match random.below(6) {
            0 => {}
            1 | 2 => asked.entity = Some(random.pick(&[&ENTITIES[..], &["user:", "unknown"]].concat())),
            3 => asked.prefix = Some(random.pick(&["", "user", "user:1", "user:10", "order:", "x"])),
            _ => {
                let some = &known[random.index(known.len())];
                asked.correlation = random.pick(&[Some(correlation(1)), some.correlation, Some(some.id)]);
            }
        }
        if random.chance(30) {
            asked.scope.push(random.pick(&["default", "acme", "acme2", "none", ""]));
        }
        if random.chance(30) {
            let chosen = KINDS.into_iter().chain(["k"]).filter(|_| random.chance(40)).collect();
            asked.kinds.push(chosen);
        }
        asked.tags = TAGS.into_iter().chain(["no"]).filter(|_| random.chance(10)).collect();
        asked
    }

    fn query(&self) -> Query {
        let query = match (self.entity, self.prefix, self.correlation) {
            (Some(entity), ..) => Query::entity(entity),
            (_, Some(prefix), _) => Query::entity_prefix(prefix),
            (.., Some(id)) => Query::correlation(id),
            _ => Query::all(),
        };
        let query = self.scope.iter().fold(query, |query, scope| query.scope(*scope));
        let query = self.kinds.iter().fold(query, |query, kinds| query.kinds(kinds.iter().copied()));
        self.tags.iter().fold(query, |query, tag| query.tag(*tag))
    }

    fn matches(&self, event: &Known) -> bool {
        self.entity.is_none_or(|entity| event.entity == entity)
            && self.prefix.is_none_or(|prefix| event.entity.starts_with(prefix))
            && self.correlation.is_none_or(|id| event.correlation == Some(id))
            && self.scope.iter().all(|scope| event.scope == *scope)
            && self.kinds.iter().all(|kinds| kinds.contains(&event.kind))
            && self.tags.iter().all(|tag| event.tags.contains(tag))
    }

    fn is_one_stream(&self) -> bool {
        self.entity.is_some() && self.scope.is_empty() && self.kinds.is_empty() && self.tags.is_empty()
    }
}

type Times = (Bound<SystemTime>, Bound<SystemTime>);

/// Which of the matching events to read; each field is one call of the builder.
#[derive(Clone, Debug, Default)]
struct Cut {
    after: Option<u64>,
    versions: Option<(Bound<u64>, Bound<u64>)>,
    between: Option<Times>,
    occurred: Option<Times>,
    backwards: bool,
    limit: Option<u64>,
}

impl Cut {
    /// `which` says, bit by bit, what is asked for.
    fn draw(random: &mut Random, which: u64, known: &[Known]) -> Cut {
        let count = u64::try_from(known.len()).unwrap();
        let recorded = |random: &mut Random| match random.below(8) {
            0 => at(-5),
            1 => at(i64::from(u32::MAX) * 1_000_000),
            _ => known[random.index(known.len())].recorded_at,
        };
        let asked = |bit: u32| which >> bit & 1 == 1;
        Cut {
            after: asked(0).then(|| match random.below(8) {
                0 => u64::MAX,
                1 => count,
                _ => random.below(count + 2),
            }),
            versions: asked(1).then(|| draw_bounds(random, |random| random.below(count / 4))),
            between: asked(2).then(|| draw_bounds(random, recorded)),
            occurred: asked(3).then(|| draw_bounds(random, |random| draw_time(random, -250, 250))),
            backwards: asked(4),
            limit: asked(5).then(|| match random.below(6) {
                0 => 0,
                1 => u64::MAX,
                _ => random.below(20),
            }),
        }
    }

    fn read(&self, mut read: Read) -> Read {
        if let Some(after) = self.after {
            read = read.after(Position::from(after)).allow_beyond_head();
        }
        if let Some(versions) = self.versions {
            read = read.versions(versions);
        }
        if let Some(times) = self.between {
            read = read.between(times);
        }
        if let Some(times) = self.occurred {
            read = read.occurred(times);
        }
        if self.backwards {
            read = read.backwards();
        }
        if let Some(limit) = self.limit {
            read = read.limit(limit);
        }
        read
    }

    fn keeps(&self, event: &Known) -> bool {
        use std::ops::RangeBounds;
        self.after.is_none_or(|after| event.position > after)
            && self.versions.is_none_or(|versions| versions.contains(&event.version))
            && self.between.is_none_or(|times| times.contains(&event.recorded_at))
            && self.occurred.is_none_or(|times| event.occurred_at.is_some_and(|at| times.contains(&at)))
    }
}

fn draw_bounds<T>(random: &mut Random, draw: impl Fn(&mut Random) -> T) -> (Bound<T>, Bound<T>) {
    let bound = |random: &mut Random| match random.below(5) {
        0 => Bound::Unbounded,
        1 | 2 => Bound::Excluded(draw(random)),
        _ => Bound::Included(draw(random)),
    };
    (bound(random), bound(random))
}

#[test]
fn every_combination_agrees_with_a_naive_filter() {
    let mut random = Random::for_test("every_combination_agrees_with_a_naive_filter");
    let mut found = 0;
    for (segment_bytes_max, appends, rounds) in [(400, 120, 8), (3000, 200, 5), (64 << 20, 700, 3)] {
        World::new(&mut random, segment_bytes_max, appends).each_store(|store, known| {
            for which in (0..64).flat_map(|which| std::iter::repeat_n(which, rounds)) {
                found += check_one(&mut random, which, store, known);
            }
        });
    }
    assert!(found > 20_000, "only {found} events were found in all; the queries ask for too little");
}

fn check_one(random: &mut Random, which: u64, store: &Store, known: &[Known]) -> usize {
    let cut = Cut::draw(random, which, known);
    let count = if cut.versions.is_some() { 1 } else { 1 + random.below(3) };
    let mut asked: Vec<Asked> = (0..count).map(|_| Asked::draw(random, known)).collect();
    if cut.versions.is_some() {
        asked[0] = Asked { entity: Some(random.pick(&ENTITIES)), ..Asked::default() };
        assert!(asked[0].is_one_stream());
    }
    let query = asked.iter().map(Asked::query).reduce(Query::or).unwrap();
    let matching =
        known.iter().filter(|event| asked.iter().any(|asked| asked.matches(event)) && cut.keeps(event));
    let mut right: Vec<u64> = matching.map(|event| event.position).collect();
    if cut.backwards {
        right.reverse();
    }
    right.truncate(usize::try_from(cut.limit.unwrap_or(u64::MAX)).unwrap());
    let events = all(cut.read(store.read(query)));
    let got: Vec<u64> = events.iter().map(|event| event.position().get()).collect();
    assert_eq!(got, right, "{asked:?} {cut:?}");
    for event in events {
        assert_same(&event, &known[usize::try_from(event.position().get()).unwrap() - 1]);
    }
    got.len()
}

#[test]
fn queries_narrow_and_join() {
    let store = Store::in_memory().unwrap();
    Append::to("user:1").event(&Raw("a", &())).tag("x").tag("y").commit(&store).unwrap();
    Append::to("user:10").event(&Raw("b", &())).tag("x").commit(&store).unwrap();
    Append::to(("user:2", "s")).event(&Raw("a", &())).commit(&store).unwrap();
    Append::to(("user:1", "default")).event(&Raw("c", &())).commit(&store).unwrap();
    let one = || Query::entity("user:1");
    let cases: Vec<(Query, Vec<u64>)> = vec![
        (one(), vec![1, 4]),
        (Query::entity("user:"), vec![]),
        (Query::entity(""), vec![]),
        (Query::entity_prefix("user:1"), vec![1, 2, 4]),
        (Query::entity_prefix(""), vec![1, 2, 3, 4]),
        (Query::all().scope("default"), vec![1, 2, 4]),
        (Query::all().scope("s"), vec![3]),
        (Query::all().scope(""), vec![]),
        (Query::all().scope("s").scope("default"), vec![]),
        (Query::all().scope("s").scope("s"), vec![3]),
        (Query::all().kind("a"), vec![1, 3]),
        (Query::all().kinds(["a", "c", "a"]), vec![1, 3, 4]),
        (Query::all().kinds(["a", "b"]).kinds(["b", "c"]), vec![2]),
        (Query::all().kind("a").kind("b"), vec![]),
        (Query::all().kinds(Vec::<String>::new()), vec![]),
        (Query::all().tag("x"), vec![1, 2]),
        (Query::all().tag("x").tag("y"), vec![1]),
        (Query::all().tag("x").tag("x"), vec![1, 2]),
        (Query::all().tag(""), vec![]),
        (one().or(one()), vec![1, 4]),
        (one().or(Query::all()), vec![1, 2, 3, 4]),
        (one().kind("c").or(Query::all().tag("x")), vec![1, 2, 4]),
        (one().or(Query::entity("user:2")).kind("a"), vec![1, 3]),
        (one().kinds(Vec::<String>::new()).or(Query::entity("user:2")), vec![3]),
        (Query::correlation(EventId::from_bytes([0; 16])), vec![]),
    ];
    for (query, right) in cases {
        let text = format!("{query:?}");
        assert_eq!(positions(store.read(query.clone())), right, "{text}");
        let backwards: Vec<u64> = right.iter().rev().copied().collect();
        assert_eq!(positions(store.read(query).backwards()), backwards, "{text} backwards");
    }
}

#[test]
fn versions_need_a_single_stream() {
    let store = Store::in_memory().unwrap();
    fill(&store, "e", 5);
    fill(&store, "f", 5);
    let read = |query: Query| store.read(query).versions(2..4);
    assert_eq!(positions(read(Query::entity("e"))), [2, 3]);
    assert_eq!(positions(store.stream("f").versions(..=2)), [6, 7]);
    assert_eq!(positions(store.stream("f").versions((Bound::Excluded(3), Bound::Unbounded))), [9, 10]);
    assert_eq!(positions(store.stream("f").versions(0..)).len(), 5);
    assert_eq!(positions(store.stream("f").versions(6..)), NOTHING);
    let one = || Query::entity("e");
    let refused = [
        Query::all(),
        Query::entity_prefix("e"),
        one().kind("filled"),
        one().scope("default"),
        one().tag("t"),
        one().or(Query::entity("f")),
        one().kinds(Vec::<String>::new()),
    ];
    for query in refused {
        let text = format!("{query:?}");
        let mut read = read(query);
        assert_eq!(kind_of(read.next().unwrap()), ErrorKind::Invalid, "{text}");
        assert!(read.next().is_none() && read.next().is_none());
    }
}

#[test]
fn a_read_sees_the_store_as_it_was_at_its_first_item() {
    for segment_bytes_max in [0, 64 << 20] {
        let store = Store::on(MemDisk::new()).segment_bytes_max(segment_bytes_max).open().unwrap();
        fill(&store, "e", 3);
        let not_begun = store.stream("e");
        let mut begun = store.read(Query::all());
        let mut seen = vec![begun.next().unwrap().unwrap().position().get()];
        fill(&store, "e", 2);
        for event in &mut begun {
            seen.push(event.unwrap().position().get());
            store.append("e", &Raw("during", &())).unwrap();
        }
        assert_eq!(seen, [1, 2, 3]);
        assert!(begun.next().is_none());
        assert_eq!(positions(not_begun), [1, 2, 3, 4, 5, 6, 7]);
    }
}

#[test]
fn an_empty_store_has_nothing_to_read() {
    let disk = MemDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    let check = |store: &Store| {
        assert_eq!(store.head().unwrap().position(), Position::START);
        for read in [store.read(Query::all()), store.read(Query::all()).backwards(), store.stream("e")] {
            assert_eq!(positions(read), NOTHING);
        }
        assert_eq!(positions(store.stream("e").versions(1..)), NOTHING);
        assert_eq!(
            positions(store.read(Query::all()).between(at(0)..).after(Position::from(7)).allow_beyond_head()),
            NOTHING
        );
        assert!(store.at(Position::from(1)).unwrap().is_none());
        assert!(store.get(EventId::from_bytes([0x41; 16])).unwrap().is_none());
        assert_eq!(store.version("e").unwrap().get(), 0);
        assert!(store.verify().unwrap().is_clean());
        assert_eq!((store.stats().events, store.stats().segments), (0, 1));
    };
    check(&store);
    check(&Store::on(disk.clone()).open_read_only().unwrap());
    store.close().unwrap();
    check(&Store::on(disk.clone()).open_read_only().unwrap());
    check(&Store::on(disk).open().unwrap());
}

#[test]
fn errors_are_items_and_end_the_read() {
    let disk = SimDisk::new(1);
    let store = Store::on(disk.clone()).segment_bytes_max(0).recent_bytes_max(0);
    let store = store.segment_memory_bytes(0).open().unwrap();
    fill(&store, "e", 3);
    // What is written behind the store's back must not meet the faults meant for reads.
    eventually("the indexes are written", || {
        disk.paths().iter().filter(|path| path.ends_with(".idx")).count() == 2
    });
    let mut read = store.read(Query::all());
    assert!(read.next().unwrap().is_ok());
    disk.fail(0, Fault::Error(std::io::ErrorKind::Other));
    let error = read.next().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("segments/"), "{error}");
    assert!(read.next().is_none() && read.next().is_none());
    // The next read is another try.
    assert_eq!(positions(store.read(Query::all())), [1, 2, 3]);
    disk.fail(0, Fault::Error(std::io::ErrorKind::Other));
    assert_eq!(kind_of(store.read(Query::all()).between(at(1)..).next().unwrap()), ErrorKind::Io);
    disk.fail(0, Fault::Error(std::io::ErrorKind::Other));
    assert_eq!(kind_of(store.at(Position::from(2))), ErrorKind::Io);
}

#[test]
fn short_reads_are_read_on() {
    let disk = SimDisk::new(1);
    let store = Store::on(disk.clone()).recent_bytes_max(0).open().unwrap();
    fill(&store, "e", 20);
    disk.fail_from(0, Fault::Short(7));
    assert_eq!(positions(store.stream("e")).len(), 20);
}

/// What a program sees that reads again and again while others append.
#[test]
fn readers_never_see_a_gap_or_go_back() {
    const APPENDS: u64 = 3000;
    let sizes = [4000, 64 << 20].map(|segment| [0, 3000, 16 << 20].map(|recent| (segment, recent)));
    for (segment_bytes_max, recent_bytes_max) in sizes.into_iter().flatten() {
        let store = Store::on(MemDisk::new()).segment_bytes_max(segment_bytes_max);
        let store = store.recent_bytes_max(recent_bytes_max);
        let store = store.durability(Durability::Buffered { flush_every: FOREVER }).open().unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Tickets make large groups: that is when a reader comes between index and head.
                let submit = |number: u64| {
                    let append = Append::to("e").event(&Raw("k", &number)).event(&Raw("k", &number));
                    append.and_to(format!("other:{}", number % 7)).event(&Raw("k", &number)).submit(&store)
                };
                let tickets: Vec<_> = (0..APPENDS).map(|number| submit(number).unwrap()).collect();
                tickets.into_iter().for_each(|ticket| drop(ticket.wait().unwrap()));
                done.store(true, Ordering::Release);
            });
            let readers = [watch_versions, watch_stream, watch_all, watch_backwards];
            for reader in readers {
                let (store, done) = (&store, &done);
                scope.spawn(move || {
                    let mut last = 0;
                    while !done.load(Ordering::Acquire) {
                        last = reader(store, last);
                    }
                });
            }
        });
        assert_eq!(store.version("e").unwrap().get(), 2 * APPENDS);
        assert_eq!(store.head().unwrap().position().get(), 3 * APPENDS);
    }
}

// A version once fell back, even to 0, while a group was in the index but not yet published.
fn watch_versions(store: &Store, last: u64) -> u64 {
    let version = store.version("e").unwrap().get();
    assert!(version >= last, "the version went back from {last} to {version}");
    assert_eq!(version % 2, 0, "half of an append is visible");
    version
}

fn watch_stream(store: &Store, last: u64) -> u64 {
    let events = all(store.stream("e").versions(last + 1..));
    let versions = events.iter().map(|event| event.version().get());
    assert!(versions.eq((last + 1..).take(events.len())));
    last + u64::try_from(events.len()).unwrap()
}

fn watch_all(store: &Store, last: u64) -> u64 {
    let head = store.head().unwrap().position().get();
    let seen = positions(store.read(Query::all()).after(Position::from(last)));
    assert!(seen.iter().copied().eq((last + 1..).take(seen.len())));
    let next = last + u64::try_from(seen.len()).unwrap();
    assert!(next >= head, "the head was at {head}, but reading ended at {next}");
    next
}

fn watch_backwards(store: &Store, last: u64) -> u64 {
    let newest = positions(store.read(Query::all()).backwards().limit(300));
    let Some(first) = newest.first().copied() else { return last };
    assert!(first >= last);
    assert!(newest.iter().copied().eq((1..=first).rev().take(newest.len())));
    assert_eq!(newest.len(), usize::try_from(first).unwrap().min(300));
    first
}

#[test]
fn a_long_read_goes_on_while_segments_are_added() {
    let store = Store::on(MemDisk::new()).segment_bytes_max(500).open().unwrap();
    fill(&store, "e", 100);
    let seen = within(FOREVER, "reading and appending in turns", move || {
        let read = store.read(Query::all());
        read.map(|event| {
            fill(&store, "f", 2);
            event.unwrap().position().get()
        })
        .collect::<Vec<_>>()
    });
    assert!(seen.into_iter().eq(1..=100));
}

/// Reading ahead gives what reading gives, also where it ends early, in an error, or unread.
#[test]
fn reading_ahead_reads_the_same() {
    let store = Store::on(MemDisk::new()).segment_bytes_max(20_000).open().unwrap();
    for number in 0..40 {
        let events = (0..100).fold(Append::to(format!("e:{}", number % 7)), |append, event| {
            append.event(&Raw(if event % 3 == 0 { "a" } else { "b" }, &event))
        });
        events.commit(&store).unwrap();
    }
    let reads: [fn(&Store) -> annals::Read; 5] = [
        |store| store.read(Query::all()),
        |store| store.read(Query::all().kind("a")).backwards(),
        |store| store.stream("e:3").versions(5..170),
        |store| store.read(Query::all()).after(Position::from(1_000)).limit(1_500),
        |store| store.read(Query::entity("unknown")),
    ];
    for read in reads {
        let seen = |items: &mut dyn Iterator<Item = Result<annals::RecordedEvent, annals::Error>>| {
            items.map(|event| event.unwrap().position().get()).collect::<Vec<_>>()
        };
        assert_eq!(seen(&mut read(&store).read_ahead()), seen(&mut read(&store)));
    }
    // Dropped before the end, and before the beginning.
    for taken in [0, 1, 700] {
        let mut ahead = store.read(Query::all()).read_ahead();
        assert_eq!(ahead.by_ref().take(taken).count(), taken);
        drop(ahead);
    }
    let mut refused = store.read(Query::all()).versions(1..).read_ahead();
    assert_eq!(kind_of(refused.next().unwrap()), annals::ErrorKind::Invalid);
    assert!(refused.next().is_none() && refused.next().is_none());
    let mut after_close = store.read(Query::all()).read_ahead();
    assert_eq!(after_close.next().unwrap().unwrap().position().get(), 1);
    let late = store.read(Query::all()).read_ahead();
    store.clone().close().unwrap();
    assert_eq!(after_close.count(), 3_999, "a read that began goes on");
    // A read knows its store from when it was made.
    assert_eq!(late.filter(Result::is_ok).count(), 4_000);
    assert_eq!(kind_of(store.read(Query::all()).read_ahead().next().unwrap()), annals::ErrorKind::Closed);
}

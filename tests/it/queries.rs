//! What the index answers without reading events: counts, the newest match, listings of names.
//! Everything is compared with a naive filter over all events.

use std::collections::BTreeMap;

use annals::disk::{Access, Disk, MemDisk};
use annals::{Append, ErrorKind, EventId, Listing, Position, Query, Raw, RecordedEvent, Store};

use crate::support::{Random, all, kind_of, positions};

const ENTITIES: [&str; 7] = ["order:1", "order:10", "order:2", "order", "user:1", "user:2", "z"];
const SCOPES: [&str; 3] = ["default", "acme", "acme2"];
const KINDS: [&str; 4] = ["k.a", "k.b", "k", "rare"];
const TAGS: [&str; 3] = ["t:1", "t:10", "t"];

fn some_id(number: u64) -> EventId {
    EventId::from_bytes([u8::try_from(number).unwrap() + 1; 16])
}

fn open(disk: &MemDisk, segment_bytes_max: u32) -> Store {
    Store::on(disk.clone()).segment_bytes_max(segment_bytes_max).open().unwrap()
}

fn append_some(store: &Store, random: &mut Random) {
    let count = if random.chance(60) { 1 } else { 2 + random.below(4) };
    let mut append: Option<Append> = None;
    for number in 0..count {
        let address = (random.pick(&ENTITIES), random.pick(&SCOPES));
        let next = match append {
            None => Append::to(address),
            Some(append) => append.and_to(address),
        };
        let kind = if random.chance(1) { "rare" } else { random.pick(&KINDS[..3]) };
        let mut next = next.event(&Raw(kind, &number));
        for tag in TAGS.into_iter().filter(|_| random.chance(30)) {
            next = next.tag(tag);
        }
        if random.chance(20) {
            next = next.correlation(some_id(random.below(3)));
        }
        append = Some(next);
    }
    append.unwrap().commit(store).unwrap();
}

/// What a query asks, as the test understands it.
#[derive(Clone, Debug, Default)]
struct Asked {
    entity: Option<&'static str>,
    entity_prefix: Option<&'static str>,
    scope: Option<&'static str>,
    kinds: Vec<&'static str>,
    kind_prefix: Option<&'static str>,
    tags: Vec<&'static str>,
    correlation: Option<EventId>,
}

impl Asked {
    fn draw(random: &mut Random, events: &[RecordedEvent]) -> Asked {
        let mut asked = Asked::default();
        match random.below(6) {
            0 => asked.entity = Some(random.pick(&ENTITIES)),
            1 => asked.entity_prefix = Some(random.pick(&["", "order", "order:1", "user:", "x"])),
            2 => {
                let ids = [some_id(0), some_id(9)];
                let own = &events[random.index(events.len())];
                asked.correlation = Some(random.pick(&[ids[0], ids[1], own.id(), own.correlation()]));
            }
            _ => {}
        }
        if random.chance(25) {
            asked.scope = Some(random.pick(&["acme", "default", "none"]));
        }
        if random.chance(25) {
            asked.kinds = (0..1 + random.below(3)).map(|_| random.pick(&KINDS)).collect();
        }
        if random.chance(15) {
            asked.kind_prefix = Some(random.pick(&["", "k", "k.", "none"]));
        }
        asked.tags = TAGS.into_iter().filter(|_| random.chance(12)).collect();
        asked
    }

    fn query(&self) -> Query {
        let mut query = match (self.entity, self.entity_prefix, self.correlation) {
            (Some(entity), ..) => Query::entity(entity),
            (_, Some(prefix), _) => Query::entity_prefix(prefix),
            (.., Some(id)) => Query::correlation(id),
            _ => Query::all(),
        };
        if let Some(scope) = self.scope {
            query = query.scope(scope);
        }
        if !self.kinds.is_empty() {
            query = query.kinds(self.kinds.clone());
        }
        if let Some(prefix) = self.kind_prefix {
            query = query.kind_prefix(prefix);
        }
        self.tags.iter().fold(query, |query, tag| query.tag(*tag))
    }

    fn is_met_by(&self, event: &RecordedEvent) -> bool {
        self.entity.is_none_or(|entity| event.entity() == entity)
            && self.entity_prefix.is_none_or(|prefix| event.entity().starts_with(prefix))
            && self.scope.is_none_or(|scope| event.scope() == scope)
            && (self.kinds.is_empty() || self.kinds.contains(&event.kind()))
            && self.kind_prefix.is_none_or(|prefix| event.kind().starts_with(prefix))
            && self.tags.iter().all(|tag| event.tags().any(|own| own == *tag))
            && self.correlation.is_none_or(|id| event.correlation() == id)
    }
}

#[test]
fn counts_last_and_windows_agree_with_a_naive_filter() {
    let mut random = Random::for_test("counts_last_and_windows_agree_with_a_naive_filter");
    let mut found = 0;
    for (segment_bytes_max, appends) in [(300, 150), (20_000, 400), (64 << 20, 1200)] {
        let disk = MemDisk::new();
        let mut store = open(&disk, segment_bytes_max);
        for part in 0..4 {
            (0..appends / 4).for_each(|_| append_some(&store, &mut random));
            if part == 2 {
                store.close().unwrap();
                store = open(&disk, segment_bytes_max);
            }
            let events = all(store.read(Query::all()));
            for _ in 0..150 {
                let items: Vec<Asked> =
                    (0..1 + random.below(2)).map(|_| Asked::draw(&mut random, &events)).collect();
                let query = items.iter().map(Asked::query).reduce(Query::or).unwrap();
                let right = events.iter().filter(|event| items.iter().any(|item| item.is_met_by(event)));
                let right: Vec<u64> = right.map(|event| event.position().get()).collect();
                found += right.len();
                check(&store, &query, &right, &mut random, &format!("{items:?}"));
            }
        }
    }
    assert!(found > 10_000, "{found}");
}

fn check(store: &Store, query: &Query, right: &[u64], random: &mut Random, asked: &str) {
    assert_eq!(store.count(query.clone()).unwrap(), u64::try_from(right.len()).unwrap(), "{asked}");
    assert_eq!(store.exists(query.clone()).unwrap(), !right.is_empty(), "{asked}");
    let last = store.last(query.clone()).unwrap().map(|event| event.position().get());
    assert_eq!(last, right.last().copied(), "{asked}");
    let after = random.below(store.head().unwrap().position().get() + 2);
    let limit = if random.chance(30) { u64::MAX } else { random.below(6) };
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let read = || store.read(query.clone()).after(Position::from(after)).allow_beyond_head().limit(limit);
    let inside = right.iter().copied().filter(|position| *position > after);
    let forwards: Vec<u64> = inside.clone().take(most).collect();
    let backwards: Vec<u64> = inside.rev().take(most).collect();
    assert_eq!(positions(read()), forwards, "{asked} after {after}, {limit} of them");
    assert_eq!(positions(read().backwards()), backwards, "{asked} after {after}, {limit} of them, backwards");
}

#[test]
fn answers_read_no_event() {
    let disk = MemDisk::new();
    let store = Store::on(disk.clone()).segment_bytes_max(2000).recent_bytes_max(0);
    let store = store.segment_memory_bytes(0).open().unwrap();
    for number in 0..100_u64 {
        store.append(format!("order:{}", number % 10), &Raw("k.a", &number)).unwrap();
    }
    // From here on no event can be read.
    for name in disk.list("segments").unwrap().iter().filter(|name| name.ends_with(".seg")) {
        let file = disk.open(&format!("segments/{name}"), Access::Write).unwrap();
        let zeros = vec![0; usize::try_from(file.length().unwrap()).unwrap()];
        file.write_at(&zeros, 0).unwrap();
    }
    let table = [
        (Query::all(), 100),
        (Query::entity("order:3"), 10),
        (Query::entity_prefix("order:"), 100),
        (Query::entity("order:3").kind("k.a"), 10),
        (Query::entity("order:3").or(Query::entity_prefix("order:")), 100),
        (Query::all().kind("none"), 0),
    ];
    for (query, right) in table {
        assert_eq!(store.count(query.clone()).unwrap(), right, "{query:?}");
        assert_eq!(store.exists(query.clone()).unwrap(), right > 0, "{query:?}");
        match right {
            0 => assert!(store.last(query).unwrap().is_none()),
            _ => assert_eq!(kind_of(store.last(query)), ErrorKind::Corrupt),
        }
    }
    assert_eq!(store.entities().count(), 10);
}

#[test]
fn answers_of_an_empty_and_of_a_closed_store() {
    let store = Store::in_memory().unwrap();
    assert_eq!(store.count(Query::all()).unwrap(), 0);
    assert!(!store.exists(Query::all()).unwrap() && store.last(Query::all()).unwrap().is_none());
    assert!(store.entities().next().is_none());
    let handle = store.clone();
    store.close().unwrap();
    let closed = [
        kind_of(handle.count(Query::all())),
        kind_of(handle.exists(Query::all())),
        kind_of(handle.last(Query::all())),
        kind_of(handle.scopes().next().unwrap()),
    ];
    assert_eq!(closed, [ErrorKind::Closed; 4]);
}

/// A label, its listing, and the names an event carries.
type Label = (&'static str, fn(&Store) -> Listing, fn(&RecordedEvent) -> Vec<String>);

const LABELS: [Label; 4] = [
    ("entities", Store::entities, |event| vec![event.entity().to_owned()]),
    ("scopes", Store::scopes, |event| vec![event.scope().to_owned()]),
    ("kinds", Store::kinds, |event| vec![event.kind().to_owned()]),
    ("tags", Store::tags, |event| event.tags().map(str::to_owned).collect()),
];

#[test]
fn listings_agree_with_a_naive_count() {
    let mut random = Random::for_test("listings_agree_with_a_naive_count");
    for (segment_bytes_max, rounds) in [(300, 6), (5000, 6), (64 << 20, 6)] {
        let store = open(&MemDisk::new(), segment_bytes_max);
        for _ in 0..rounds {
            // Names that come after the first listing, and that are sorted in later.
            for _ in 0..30 {
                append_some(&store, &mut random);
                let (entity, kind) = (random.below(500), random.below(500));
                store.append(format!("new:{entity}"), &Raw(&format!("new.{kind}"), &())).unwrap();
            }
            let events = all(store.read(Query::all()));
            for (label, listing, names) in LABELS {
                let mut right = BTreeMap::<String, (u64, u64, u64)>::new();
                for event in &events {
                    let position = event.position().get();
                    for name in names(event) {
                        let entry = right.entry(name).or_insert((0, position, 0));
                        (entry.0, entry.2) = (entry.0 + 1, position);
                    }
                }
                for _ in 0..20 {
                    check_listing(label, listing(&store), &right, &mut random);
                }
            }
        }
    }
}

fn check_listing(
    label: &str,
    listing: Listing,
    right: &BTreeMap<String, (u64, u64, u64)>,
    random: &mut Random,
) {
    let names: Vec<&str> = right.keys().map(String::as_str).collect();
    let drawn = random.pick(&names);
    let prefix =
        random.pick(&["", "", "order", "order:1", "new:1", "new.", "k.", "none", "\u{10FFFF}", drawn]);
    let after = random.pick(&["", "", "a", "new:1", "order:1", "zz", drawn]);
    let limit = if random.chance(50) { u64::MAX } else { random.below(40) };
    let found: Vec<_> = listing
        .prefix(prefix)
        .after(after)
        .limit(limit)
        .map(|listed| {
            let listed = listed.unwrap();
            (listed.name, (listed.events, listed.first.get(), listed.last.get()))
        })
        .collect();
    let inside = right.iter().filter(|(name, _)| name.starts_with(prefix) && name.as_str() > after);
    let inside = inside.take(usize::try_from(limit).unwrap_or(usize::MAX));
    let inside: Vec<_> = inside.map(|(name, entry)| (name.clone(), *entry)).collect();
    assert_eq!(found, inside, "{label} with {prefix:?}, after {after:?}, {limit} of them");
}

#[test]
fn pages_of_a_listing_are_the_listing() {
    let store = open(&MemDisk::new(), 4000);
    for number in 0..3000_u64 {
        store.append(format!("order:{}", number * 7919 % 2000), &Raw("k", &number)).unwrap();
    }
    let names = |listing: Listing| listing.map(|listed| listed.unwrap().name).collect::<Vec<_>>();
    let whole = names(store.entities());
    assert_eq!(whole.len(), 2000);
    let (mut pages, mut after) = (Vec::new(), String::new());
    loop {
        let page = names(store.entities().prefix("order:").after(after.as_str()).limit(77));
        let Some(last) = page.last() else { break };
        after.clone_from(last);
        pages.extend(page);
    }
    assert_eq!(pages, whole);
}

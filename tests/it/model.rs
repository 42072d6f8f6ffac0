//! Random operations against a naive model, on every disk, with reopening and, where the disk can,
//! crashes. The model is a list of events and knows nothing of indexes, segments or groups.

use std::collections::BTreeMap;
use std::time::Duration;

use annals::disk::{CrashMode, Disk, MemDisk, OsDisk, SimDisk};
use annals::{
    Append, Appended, Durability, Error, ErrorKind, EventId, Expected, Position, Query, Raw, RecordedEvent,
    Store,
};

use crate::support::{Random, all};

const ENTITIES: [&str; 5] = ["user:1", "user:10", "user:2", "order:1", "order:2"];
const SCOPES: [&str; 2] = ["default", "acme"];
const KINDS: [&str; 3] = ["made", "changed", "gone"];
const TAGS: [&str; 3] = ["red", "blue", "round"];
const BUFFERED: Durability = Durability::Buffered { flush_every: Duration::from_secs(3600) };

#[derive(Clone, Debug, PartialEq)]
struct Known {
    entity: &'static str,
    scope: &'static str,
    kind: &'static str,
    tag: Option<&'static str>,
    payload: u64,
    version: u64,
    id: EventId,
}

#[derive(Default)]
struct Model {
    /// By position, from 1.
    events: Vec<Known>,
    /// Where each append ends, in order: events before it are there as a whole or not at all.
    ends: Vec<usize>,
    /// Everything before it survives a power cut.
    durable: usize,
    /// What each key was used for, and where that append begins.
    keys: BTreeMap<u64, (Planned, usize)>,
    payloads: u64,
}

#[derive(Clone, Debug, PartialEq)]
struct Planned {
    events: Vec<(&'static str, &'static str, &'static str, Option<&'static str>, u64)>,
}

impl Model {
    fn version(&self, entity: &str) -> u64 {
        self.events.iter().filter(|event| event.entity == entity).count() as u64
    }

    fn plan(&mut self, random: &mut Random) -> Planned {
        let count = if random.chance(70) { 1 } else { 2 + random.below(3) };
        let events = (0..count).map(|_| {
            self.payloads += 1;
            let tag = random.chance(40).then(|| random.pick(&TAGS));
            (random.pick(&ENTITIES), random.pick(&SCOPES), random.pick(&KINDS), tag, self.payloads)
        });
        Planned { events: events.collect() }
    }

    fn take(&mut self, planned: &Planned, receipt: &Appended) {
        assert_eq!(receipt.first_position().get(), self.events.len() as u64 + 1);
        let ids: Vec<EventId> = receipt.ids().collect();
        for ((entity, scope, kind, tag, payload), id) in planned.events.iter().copied().zip(ids) {
            let version = self.version(entity) + 1;
            self.events.push(Known { entity, scope, kind, tag, payload, version, id });
        }
        let versions: Vec<u64> = receipt.versions().map(|version| version.get()).collect();
        let first = self.events.len() - planned.events.len();
        assert_eq!(versions, self.events[first..].iter().map(|event| event.version).collect::<Vec<_>>());
        self.ends.push(self.events.len());
    }

    /// A crash took everything behind `events`.
    fn cut(&mut self, events: usize) {
        assert!(events >= self.durable, "{} events were durable, {events} are left", self.durable);
        assert!(events == 0 || self.ends.contains(&events), "half an append is left");
        self.events.truncate(events);
        self.ends.retain(|end| *end <= events);
        self.keys.retain(|_, (_, first)| *first < events);
        self.durable = events;
    }
}

fn append_of(planned: &Planned) -> Append {
    let mut append: Option<Append> = None;
    for (entity, scope, kind, tag, payload) in planned.events.iter().copied() {
        let next = match append {
            None => Append::to((entity, scope)),
            Some(append) => append.and_to((entity, scope)),
        };
        let next = next.event(&Raw(kind, &payload));
        append = Some(match tag {
            Some(tag) => next.tag(tag),
            None => next,
        });
    }
    append.unwrap()
}

fn append(store: &Store, model: &mut Model, random: &mut Random) {
    let key = random.chance(20).then(|| random.below(8));
    let planned = match key.and_then(|key| model.keys.get(&key)) {
        Some((first, _)) if random.chance(60) => first.clone(),
        _ => model.plan(random),
    };
    let buffered = random.chance(40);
    let last = planned.events.last().unwrap().0;
    let expected = match random.below(5) {
        0 => Expected::NoStream,
        1 => Expected::StreamExists,
        2 => Expected::exact(random.below(4)),
        _ => Expected::Any,
    };
    let mut append = append_of(&planned).expect(expected);
    if let Some(key) = key {
        append = append.key(key.to_le_bytes());
    }
    if buffered {
        append = append.durability(BUFFERED);
    }
    let result = append.commit(store);
    let seen = key.and_then(|key| model.keys.get(&key).cloned());
    match (seen, result) {
        (Some((first, at)), Ok(receipt)) => {
            assert!(receipt.replayed() && first == planned, "a key answers for its own append only");
            assert_eq!(receipt.first_position().get(), at as u64 + 1);
        }
        (Some((first, _)), Err(error)) => {
            assert!(error.kind() == ErrorKind::KeyReused && first != planned, "{error}");
        }
        (None, Ok(receipt)) => {
            assert!(expected.accepts(model.version(last).into()) && !receipt.replayed());
            if let Some(key) = key {
                model.keys.insert(key, (planned.clone(), model.events.len()));
            }
            model.take(&planned, &receipt);
        }
        (None, Err(error)) => {
            let conflict = error.conflict().unwrap_or_else(|| panic!("{error}"));
            assert_eq!((conflict.entity.as_str(), conflict.actual.get()), (last, model.version(last)));
            assert!(!expected.accepts(conflict.actual));
            return;
        }
    }
    if !buffered {
        model.durable = model.events.len();
    }
}

fn check_read(store: &Store, model: &Model, random: &mut Random) {
    let (entity, scope, kind, tag) =
        (random.pick(&ENTITIES), random.pick(&SCOPES), random.pick(&KINDS), random.pick(&TAGS));
    let is = |event: &Known, asked: u64| match asked {
        0 => true,
        1 => event.entity == entity,
        2 => event.entity.starts_with("user:1"),
        3 => event.scope == scope && event.kind == kind,
        4 => event.tag == Some(tag),
        _ => event.entity == entity || (event.kind == kind && event.tag == Some(tag)),
    };
    let asked = random.below(6);
    let query = match asked {
        0 => Query::all(),
        1 => Query::entity(entity),
        2 => Query::entity_prefix("user:1"),
        3 => Query::all().scope(scope).kind(kind),
        4 => Query::all().tag(tag),
        _ => Query::entity(entity).or(Query::all().tag(tag).kind(kind)),
    };
    let after = random.below(model.events.len() as u64 + 2);
    let backwards = random.chance(50);
    let limit = if random.chance(50) { random.below(5) } else { u64::MAX };
    let mut read = store.read(query).after(Position::from(after)).allow_beyond_head().limit(limit);
    let versions = if asked == 1 && random.chance(50) { 2..4 } else { 0..u64::MAX };
    if versions.end == 4 {
        read = read.versions(versions.clone());
    }
    let found: Vec<u64> = all(if backwards { read.backwards() } else { read })
        .iter()
        .map(|event| event.decode().unwrap())
        .collect();
    let known = model.events.iter().skip(usize::try_from(after).unwrap());
    let mut known: Vec<u64> = known
        .filter(|event| is(event, asked) && versions.contains(&event.version))
        .map(|event| event.payload)
        .collect();
    if backwards {
        known.reverse();
    }
    known.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    assert_eq!(found, known);
}

fn check_all(store: &Store, model: &Model) {
    let found = all(store.read(Query::all()));
    assert_eq!(found.len(), model.events.len());
    for (event, known) in found.iter().zip(&model.events) {
        assert_eq!(shown(event), *known);
        assert_eq!(store.get(known.id).unwrap().unwrap().position(), event.position());
    }
    for entity in ENTITIES {
        assert_eq!(store.version(entity).unwrap().get(), model.version(entity));
    }
    assert!(store.verify().unwrap().is_clean());
}

fn shown(event: &RecordedEvent) -> Known {
    let one = |names: &[&'static str], name: &str| *names.iter().find(|known| **known == name).unwrap();
    Known {
        entity: one(&ENTITIES, event.entity()),
        scope: one(&SCOPES, event.scope()),
        kind: one(&KINDS, event.kind()),
        tag: event.tags().next().map(|tag| one(&TAGS, tag)),
        payload: event.decode().unwrap(),
        version: event.version().get(),
        id: event.id(),
    }
}

fn open(disk: impl Disk, (segment_bytes_max, recent_bytes_max): (u32, usize)) -> Result<Store, Error> {
    Store::on(disk).segment_bytes_max(segment_bytes_max).recent_bytes_max(recent_bytes_max).open()
}

/// One sequence of operations. `next` gives the disk to reopen on, crashed if it can and likes to;
/// the flag says whether unsynced events may be gone.
fn run<D: Disk>(
    random: &mut Random,
    first: D,
    mut next: impl FnMut(D, &mut Random) -> (D, bool),
    share: fn(&D) -> D,
) {
    let segment_bytes_max = 300 + u32::try_from(random.below(2000)).unwrap();
    let sizes = (segment_bytes_max, random.pick(&[0, 1000, 16 << 20]));
    let (mut disk, mut model) = (first, Model::default());
    let mut store = open(share(&disk), sizes).unwrap();
    for _ in 0..40 {
        match random.below(20) {
            0..12 => append(&store, &mut model, random),
            12..17 => check_read(&store, &model, random),
            17 => {
                assert_eq!(store.sync().unwrap().get(), model.events.len() as u64);
                model.durable = model.events.len();
            }
            18 => {
                store.close().unwrap();
                model.durable = model.events.len();
                store = open(share(&disk), sizes).unwrap();
                assert!(store.open_report().clean);
                check_all(&store, &model);
            }
            _ => {
                let (other, may_lose) = next(share(&disk), random);
                drop(store);
                disk = other;
                store = open(share(&disk), sizes).unwrap();
                let left = usize::try_from(store.head().unwrap().position().get()).unwrap();
                assert!(left == model.events.len() || may_lose);
                model.cut(left);
                check_all(&store, &model);
            }
        }
    }
    check_all(&store, &model);
}

#[test]
fn in_memory() {
    let mut random = Random::for_test("model::in_memory");
    for _ in 0..1000 {
        run(&mut random, MemDisk::new(), |disk, _| (disk, false), Clone::clone);
    }
}

#[test]
fn on_a_disk_that_crashes() {
    let mut random = Random::for_test("model::on_a_disk_that_crashes");
    for _ in 0..1500 {
        let crash = |disk: SimDisk, random: &mut Random| {
            let trace = disk.trace();
            let (mode, may_lose) = match random.below(3) {
                0 => (CrashMode::Keep, false),
                1 => (CrashMode::Drop, true),
                _ => (CrashMode::Torn(random.next()), true),
            };
            (trace.image(trace.len(), mode), may_lose)
        };
        let seed = random.next();
        run(&mut random, SimDisk::new(seed), crash, Clone::clone);
    }
}

#[test]
fn in_a_directory() {
    let mut random = Random::for_test("model::in_a_directory");
    for _ in 0..12 {
        let directory = tempfile::tempdir().unwrap();
        let disk = OsDisk::create(directory.path()).unwrap();
        run(&mut random, disk, |disk, _| (disk, false), |disk| OsDisk::open(disk.path()).unwrap());
    }
}

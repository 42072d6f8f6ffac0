//! Erasing and compacting, stopped after every operation of the simulated disk. No event is lost, none comes
//! back, and all that was to go is gone in the end.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use annals::disk::{CrashMode, SimDisk};
use annals::{Append, Durability, Error, EventId, Query, Raw, RecordedEvent, Store};

use crate::sim_support::*;

static IMAGES: Tally = Tally::new("rewriting crash images", "0 events lost, 0 came back");

/// What those events hold that are to go. No other bytes of a store are so by chance.
pub(crate) const SECRET: &str = "CANARY-4711-CANARY";

/// What may become of an event.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goes {
    No,
    /// Its payload.
    Inside,
    /// All of it, where that can be.
    Entirely,
}

/// What is done, and to which events.
pub(crate) struct Work {
    name: &'static str,
    pub(crate) run: fn(&Store) -> Result<(), Error>,
    pub(crate) goes: fn(&RecordedEvent) -> Goes,
}

pub(crate) const ERASE: Work = Work {
    name: "rewrite_crash::erase",
    run: |store| store.erase(Query::entity("user:1").or(Query::all().tag("student:7")), "why").map(drop),
    goes: |event| {
        let is_asked = event.entity() == "user:1" || event.tags().any(|tag| tag == "student:7");
        if is_asked { Goes::Inside } else { Goes::No }
    },
};

pub(crate) const COMPACT: Work = Work {
    name: "rewrite_crash::compact",
    run: |store| {
        let asked = Query::entity("user:1").or(Query::all().tag("student:7"));
        store.compaction("why").remove(asked).merge().run().map(drop)
    },
    goes: |event| match (ERASE.goes)(event) {
        Goes::No => Goes::No,
        _ => Goes::Entirely,
    },
};

/// A store whose events that go have the secret, and no other.
fn filled(disk: &SimDisk, work: &Work, rng: &mut Rng, appends: u64) -> (Store, Vec<RecordedEvent>) {
    let shape = Shape { durability: Durability::Synced, ..Shape::any(rng) };
    let gate = Gate::default();
    let store = shape.builder(disk.clone(), &gate).open().unwrap();
    for number in 0..appends {
        let planned = Planned::any(rng, number, 60);
        match with_secrets(&planned).commit(&store) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), annals::ErrorKind::TooLarge, "{error}"),
        }
    }
    let events = dump(&store).unwrap();
    for event in &events {
        let has = event.payload().unwrap().windows(SECRET.len()).any(|piece| piece == SECRET.as_bytes());
        assert_eq!(has, (work.goes)(event) != Goes::No);
    }
    (store, events)
}

pub(crate) fn with_secrets(planned: &Planned) -> Append {
    let mut append: Option<Append> = None;
    for (index, event) in (0_u32..).zip(&planned.events) {
        let address = (event.entity, event.scope.unwrap_or("default"));
        let secret = event.entity == "user:1" || event.tag == Some("student:7");
        let payload = (planned.number, index, if secret { SECRET } else { "kept" }, "x".repeat(event.filler));
        let target = match append {
            None => Append::to(address),
            Some(append) => append.and_to(address),
        };
        let target = target.event(&Raw(event.kind, &payload));
        append = Some(event.tag.into_iter().fold(target, Append::tag));
    }
    planned.key.iter().fold(append.unwrap(), Append::key)
}

/// The parts of an event that every rewrite keeps.
pub(crate) fn public(event: &RecordedEvent) -> String {
    format!(
        "{} {} {} {} {} {} {:?} {:?} {:?}",
        event.position(),
        event.version(),
        event.id(),
        event.entity(),
        event.scope(),
        event.kind(),
        event.tags().collect::<Vec<_>>(),
        event.recorded_at(),
        event.chain(),
    )
}

fn check(work: &Work, before: &[RecordedEvent], store: &Store, is_done: bool, place: &dyn Fn() -> String) {
    let later = check_rest(work.goes, before, store, is_done, place);
    assert!(later.is_empty(), "{}: {later:?} came from nowhere", place());
    for entity in ENTITIES {
        let last = before.iter().rev().find(|event| event.entity() == entity);
        let version = last.map_or(0, |event| event.version().get());
        assert_eq!(store.version(entity).unwrap().get(), version, "{}: {entity}", place());
    }
}

/// What is left of these events is as it was, and the store is whole. Gives the events that came later.
pub(crate) fn check_rest(
    goes: fn(&RecordedEvent) -> Goes,
    before: &[RecordedEvent],
    store: &Store,
    is_done: bool,
    place: &dyn Fn() -> String,
) -> Vec<RecordedEvent> {
    let mut later: Vec<RecordedEvent> = Vec::new();
    let mut found: HashMap<EventId, RecordedEvent> = HashMap::new();
    let ids: HashSet<EventId> = before.iter().map(RecordedEvent::id).collect();
    for event in dump(store).unwrap_or_else(|error| panic!("{}: {error}", place())) {
        match ids.contains(&event.id()) {
            true => drop(found.insert(event.id(), event)),
            false => later.push(event),
        }
    }
    for event in before {
        let goes = goes(event);
        let Some(now) = found.remove(&event.id()) else {
            assert!(goes == Goes::Entirely, "{}: the event at {} is lost", place(), event.position());
            continue;
        };
        assert_eq!(public(event), public(&now), "{}", place());
        if now.is_erased() {
            assert!(goes != Goes::No, "{}: {} was erased", place(), event.position());
        } else {
            assert_eq!(event.payload().unwrap(), now.payload().unwrap(), "{}", place());
            assert!(!is_done || goes == Goes::No, "{}: {} is there still", place(), event.position());
        }
    }
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{}: {report}", place());
    later
}

pub(crate) fn holder_of_a_secret(disk: &SimDisk) -> Option<String> {
    let holds = |path: &String| {
        // An index may get its name just now.
        let bytes = disk.contents(path).unwrap_or_default();
        bytes.windows(SECRET.len()).any(|piece| piece == SECRET.as_bytes())
    };
    disk.paths().into_iter().find(holds)
}

fn sweep(work: &Work, workloads: u64, appends: u64, torn: u64) {
    let started = Instant::now();
    let mut images = 0;
    for n in 0..sized(workloads.div_ceil(3), workloads) {
        let seed = seed().wrapping_mul(1_000_003).wrapping_add(n);
        let rng = &mut Rng::new(seed);
        let disk = SimDisk::new(seed);
        let (store, before) = filled(&disk, work, rng, appends);
        let head = store.head().unwrap();
        let begun = disk.trace().len();
        (work.run)(&store).unwrap();
        let done = disk.trace().len();
        check(work, &before, &store, true, &|| format!("seed {seed}, done"));
        assert_eq!(holder_of_a_secret(&disk), None, "seed {seed}");
        let trace = disk.trace();
        for point in begun..=done {
            let modes = [CrashMode::Keep, CrashMode::Drop];
            for mode in modes.into_iter().chain((0..torn).map(CrashMode::Torn)) {
                let place =
                    || format!("{}, seed {seed}, point {point} of {begun}..={done}, {mode:?}", work.name);
                let image = trace.image(point, mode);
                let is_done = point == done;
                images += visit(work, &before, &image, is_done, 0, rng, &place);
            }
        }
        assert_eq!(store.at(head.position()).unwrap().unwrap().chain(), head.chain());
    }
    IMAGES.add(work.name, images, started);
}

/// Opens an image, looks at it, does what was to be done, and stops that again at times. Gives the number of
/// images.
fn visit(
    work: &Work,
    before: &[RecordedEvent],
    image: &SimDisk,
    is_done: bool,
    depth: u32,
    rng: &mut Rng,
    place: &dyn Fn() -> String,
) -> u64 {
    let shape = Shape { durability: Durability::Synced, ..Shape::any(rng) };
    let gate = Gate::default();
    if rng.once_in(8) {
        let reader = Store::on(image.clone()).open_read_only();
        let reader = reader.unwrap_or_else(|error| panic!("{}: does not open to read: {error}", place()));
        check(work, before, &reader, is_done, place);
    }
    let store = shape.builder(image.clone(), &gate).open();
    let store = store.unwrap_or_else(|error| panic!("{}: does not open: {error}", place()));
    let unknown = &store.open_report().unknown;
    assert!(unknown.is_empty(), "{}: {unknown:?}", place());
    assert!(image.paths().iter().all(|path| !path.ends_with(".seg.tmp")), "{}: {:?}", place(), image.paths());
    let manifest = image.contents("MANIFEST").unwrap();
    assert_eq!(manifest[24], 0, "{}: history is being changed, says MANIFEST still", place());
    check(work, before, &store, is_done, place);
    let mut images = 1;
    if rng.once_in(2) {
        (work.run)(&store).unwrap_or_else(|error| panic!("{}: {error}", place()));
        check(work, before, &store, true, place);
        assert_eq!(holder_of_a_secret(image), None, "{}", place());
        let trace = image.trace();
        if depth < 2 && rng.once_in(3) {
            let point = rng.below(trace.len() + 1);
            let mode = *rng.pick(&[CrashMode::Keep, CrashMode::Drop, CrashMode::Torn(0), CrashMode::Torn(1)]);
            let deeper = || format!("{}, stopped again at {point} of {}, {mode:?}", place(), trace.len());
            let image = trace.image(point, mode);
            images += visit(work, before, &image, point == trace.len(), depth + 1, rng, &deeper);
        }
    }
    if rng.once_in(4) {
        let head = store.head().unwrap();
        store.close().unwrap_or_else(|error| panic!("{}: {error}", place()));
        let again = Shape::any(rng).builder(image.clone(), &Gate::default()).open();
        let again = again.unwrap_or_else(|error| panic!("{}: the second open: {error}", place()));
        assert!(again.open_report().removed.is_empty(), "{}: {}", place(), again.open_report());
        assert!(again.head().unwrap().position() >= head.position(), "{}", place());
    }
    images
}

#[test]
fn erasing() {
    sweep(&ERASE, 6, 20, 4);
}

#[test]
fn compacting() {
    sweep(&COMPACT, 6, 20, 4);
}

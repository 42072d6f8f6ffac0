//! Crash after every operation of the simulated disk, and again during recovery.
//!
//! A workload runs to its end on a [`SimDisk`] without a failure. Then the machine stops at each moment of
//! it. Unsynced bytes are kept, dropped or torn, and the store is opened again. What must hold for every such
//! image is in [`History::check`].

use std::collections::HashSet;
use std::time::Instant;

use annals::disk::{CrashMode, SimDisk, Trace};
use annals::{Durability, ErrorKind, Position, Query, RecordedEvent, Store};

use crate::sim_support::*;

static IMAGES: Tally = Tally::new("crash images", "0 acknowledged lost, 0 false corruption");

/// A workload that ran to its end, and what it promised at each point of its trace.
struct History {
    seed: u64,
    trace: Trace,
    fingerprints: Vec<u64>,
    /// The lengths the log had after whole appends.
    ends: HashSet<usize>,
    /// By point: how many events must survive a power failure, and how many the end of the process.
    durable: Vec<u64>,
    written: Vec<u64>,
    /// With the position of its last event.
    accepted: Vec<(Planned, Position)>,
}

/// What must be found on an image.
#[derive(Clone, Copy)]
struct Promised {
    /// Events that survive a power failure.
    durable: u64,
    /// Events that are there now.
    now: u64,
    /// Whether everything that is there survives a power failure.
    settled: bool,
    /// How many events there are, if recovery has seen these very bytes before.
    exact: Option<usize>,
}

impl Promised {
    /// Of an image of the recovery that found `length` events on this one.
    fn after_recovery(self, length: usize, is_done: bool, mode: CrashMode) -> Promised {
        let found = u64::try_from(length).unwrap();
        let settled = self.settled || is_done;
        let durable = if settled { found } else { self.durable };
        match mode {
            CrashMode::Keep => Promised { durable, now: found, settled, exact: Some(length) },
            _ => Promised { durable, now: durable, settled: true, exact: settled.then_some(length) },
        }
    }
}

impl History {
    fn run(seed: u64, filler_max: usize, steps: usize) -> History {
        let mut rng = Rng::new(seed);
        let disk = SimDisk::new(seed);
        let gate = Gate::default();
        let mut shape = Shape::any(&mut rng);
        let mut store = shape.builder(disk.clone(), &gate).open().unwrap();
        let mut accepted = Vec::new();
        let mut promises: Vec<(u64, Position, bool)> = Vec::new();
        let mut number = 0;
        for _ in 0..steps {
            match rng.below(16) {
                0 => {
                    let position = store.sync().unwrap();
                    assert_eq!(position, store.head().unwrap().position());
                    Note::Durable(position.get()).put(&disk);
                }
                1 => {
                    let head = store.head().unwrap();
                    if rng.once_in(2) {
                        store.close().unwrap()
                    } else {
                        drop(store)
                    }
                    Note::Durable(head.position().get()).put(&disk);
                    shape = Shape::any(&mut rng);
                    store = shape.builder(disk.clone(), &gate).open().unwrap();
                    assert_eq!(store.head().unwrap(), head);
                    assert!(store.open_report().clean, "{:?}", store.open_report());
                }
                _ => {
                    let count = if rng.once_in(2) { 1 } else { 1 + rng.below(5) };
                    let group: Vec<Planned> =
                        (0..count).map(|n| Planned::any(&mut rng, number + n as u64, filler_max)).collect();
                    number += count as u64;
                    let noted = disk.clone();
                    let answers =
                        commit_group(&store, &gate, &group, move |number| Note::Answered(number).put(&noted));
                    for (planned, answer) in group.into_iter().zip(answers) {
                        match answer {
                            Ok(receipt) => {
                                promises.push((
                                    planned.number,
                                    receipt.position(),
                                    planned.is_synced(&shape),
                                ));
                                accepted.push((planned, receipt.position()));
                            }
                            Err(error) => assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}"),
                        }
                    }
                    Note::Durable(store.durable_head().unwrap().position().get()).put(&disk);
                }
            }
        }
        let events = dump(&store).unwrap();
        let trace = disk.trace();
        let numbers: Vec<u64> = events.iter().map(origin).filter(|(_, last)| *last).map(|(n, _)| n).collect();
        let submitted: Vec<u64> = accepted.iter().map(|(planned, _)| planned.number).collect();
        assert_eq!(numbers, submitted, "seed {seed}");
        let mut history = History {
            seed,
            fingerprints: events.iter().map(fingerprint).collect(),
            ends: accepted.iter().map(|(_, position)| count(*position)).chain([0]).collect(),
            durable: Vec::new(),
            written: Vec::new(),
            trace,
            accepted,
        };
        history.promise(&promises);
        history
    }

    /// Works out what was promised at each point.
    fn promise(&mut self, promises: &[(u64, Position, bool)]) {
        for point in 0..=self.trace.len() {
            let (mut durable, mut written) = (0, 0);
            for note in self.trace.notes_before(point) {
                match Note::read(note) {
                    Note::Durable(position) => durable = durable.max(position),
                    Note::Answered(number) => {
                        let Some(promise) = promises.iter().find(|promise| promise.0 == number) else {
                            continue;
                        };
                        written = written.max(promise.1.get());
                        durable = if promise.2 { durable.max(promise.1.get()) } else { durable };
                    }
                }
            }
            self.durable.push(durable);
            self.written.push(written.max(durable));
        }
    }

    fn promised(&self, point: usize, mode: CrashMode) -> Promised {
        let durable = self.durable[point];
        match mode {
            CrashMode::Keep => Promised { durable, now: self.written[point], settled: false, exact: None },
            _ => Promised { durable, now: durable, settled: true, exact: None },
        }
    }

    /// What is found on an image: a prefix of what was submitted, in whole appends, with everything
    /// that was promised. Gives the number of events.
    fn check(&self, found: &[RecordedEvent], promised: u64, place: &dyn Fn() -> String) -> usize {
        let same =
            found.iter().map(fingerprint).zip(&self.fingerprints).take_while(|(one, other)| one == *other);
        let same = same.count();
        assert_eq!(same, found.len(), "{}: event {same} is another one", place());
        assert!(self.ends.contains(&found.len()), "{}: half an append is there", place());
        let promised = usize::try_from(promised).unwrap();
        assert!(found.len() >= promised, "{}: {} of {promised} acknowledged events", place(), found.len());
        found.len()
    }

    /// Every moment of the trace, kept, dropped and torn. Gives the number of images.
    fn sweep(&self, torn: u64, rng: &mut Rng) -> u64 {
        let mut images = 0;
        for point in 0..=self.trace.len() {
            let modes = [CrashMode::Keep, CrashMode::Drop];
            for mode in modes.into_iter().chain((0..torn).map(CrashMode::Torn)) {
                let place = || format!("seed {}, point {point}, {mode:?}", self.seed);
                let disk = self.trace.image(point, mode);
                images += self.visit(&disk, self.promised(point, mode), 0, rng, &place);
            }
        }
        images
    }

    /// Opens one image, looks at it, and stops it again at times. Gives the number of images.
    fn visit(
        &self,
        disk: &SimDisk,
        promised: Promised,
        depth: usize,
        rng: &mut Rng,
        place: &dyn Fn() -> String,
    ) -> u64 {
        let shape = Shape::any(rng);
        let gate = Gate::default();
        let read_only = rng.once_in(8).then(|| self.read_only(disk, promised.now, place));
        let store = shape.builder(disk.clone(), &gate).open().unwrap_or_else(|error| {
            panic!("{}: does not open: {error}", place());
        });
        let recovery = disk.trace();
        let found = dump(&store).unwrap_or_else(|error| panic!("{}: {error}", place()));
        let length = self.check(&found, promised.now, place);
        if let Some(Some(read)) = read_only {
            assert_eq!(read, length, "{}: reading and writing see different logs", place());
        }
        if let Some(exact) = promised.exact {
            assert_eq!(exact, length, "{}: recovery found something else the second time", place());
        }
        assert!(disk.paths().iter().all(|path| !path.ends_with(".tmp")), "{}: {:?}", place(), disk.paths());
        if rng.once_in(8) {
            self.look_closely(&store, &found, rng, place);
        }
        if rng.once_in(8) {
            self.go_on(&store, disk, length, rng, place);
        }
        let head = store.head().unwrap();
        if rng.once_in(2) {
            store.close().unwrap_or_else(|error| panic!("{}: {error}", place()));
        } else {
            drop(store);
        }
        if rng.once_in(3) {
            let again = Shape::any(rng).builder(disk.clone(), &Gate::default()).open();
            let again = again.unwrap_or_else(|error| panic!("{}: the second open: {error}", place()));
            let report = again.open_report();
            assert!(
                report.clean && report.cut.is_none() && report.removed.is_empty(),
                "{}: {report}",
                place()
            );
            assert_eq!(again.head().unwrap(), head, "{}: the second open", place());
        }
        let mut images = 1;
        if depth < 3 && rng.once_in(8) {
            let point = rng.below(recovery.len() + 1);
            let mode = *rng.pick(&[CrashMode::Keep, CrashMode::Drop, CrashMode::Torn(0), CrashMode::Torn(1)]);
            let deeper =
                || format!("{}, recovery stopped at {point} of {}, {mode:?}", place(), recovery.len());
            let promised = promised.after_recovery(length, point == recovery.len(), mode);
            images += self.visit(&recovery.image(point, mode), promised, depth + 1, rng, &deeper);
        }
        images
    }

    /// Reading writes nothing, and shows what is durable.
    fn read_only(&self, disk: &SimDisk, promised: u64, place: &dyn Fn() -> String) -> Option<usize> {
        let opened = Store::on(disk.clone()).open_read_only();
        let length = match opened {
            Err(error) if error.kind() == ErrorKind::Invalid && promised == 0 => None,
            Err(error) => panic!("{}: does not open to read: {error}", place()),
            Ok(store) => {
                let found = dump(&store).unwrap_or_else(|error| panic!("{}: {error}", place()));
                Some(self.check(&found, promised, place))
            }
        };
        assert!(disk.trace().is_empty(), "{}: opening to read wrote something", place());
        length
    }

    /// Checksums, index and idempotency keys.
    fn look_closely(
        &self,
        store: &Store,
        found: &[RecordedEvent],
        rng: &mut Rng,
        place: &dyn Fn() -> String,
    ) {
        let report = store.verify().unwrap();
        assert!(report.is_clean(), "{}: {report}", place());
        assert_eq!(report.events, found.len() as u64, "{}", place());
        check_index(store, found, rng, place);
        let ends = |position: &Position| count(*position) <= found.len();
        let kept: Vec<_> = self.accepted.iter().filter(|(plan, at)| plan.key.is_some() && ends(at)).collect();
        if !kept.is_empty() {
            let (planned, position) = rng.pick(&kept);
            match planned.append().commit(store) {
                Ok(receipt) => {
                    assert!(
                        receipt.replayed() && receipt.position() == *position,
                        "{}: {receipt:?}",
                        place()
                    );
                }
                // The store was opened with smaller limits than before.
                Err(error) => assert_eq!(error.kind(), ErrorKind::TooLarge, "{}: {error}", place()),
            }
        }
    }

    /// Appends what was lost once more, and loses power again.
    fn go_on(&self, store: &Store, disk: &SimDisk, length: usize, rng: &mut Rng, place: &dyn Fn() -> String) {
        let lost = self.accepted.iter().filter(|(_, position)| count(*position) > length);
        let mut group: Vec<Planned> = lost.take(3).map(|(planned, _)| planned.clone()).collect();
        group.push(Planned::any(rng, u64::MAX, 20));
        group.iter_mut().for_each(|planned| planned.durability = Some(Durability::Synced));
        for planned in &group {
            match planned.append().commit(store) {
                Ok(receipt) => assert!(!receipt.replayed(), "{}: {receipt:?}", place()),
                Err(error) => assert_eq!(error.kind(), ErrorKind::TooLarge, "{}: {error}", place()),
            }
        }
        let head = store.head().unwrap();
        let trace = disk.trace();
        let mode = *rng.pick(&[CrashMode::Keep, CrashMode::Drop, CrashMode::Torn(7)]);
        let again = Shape::any(rng).builder(trace.image(trace.len(), mode), &Gate::default()).open();
        let again = again.unwrap_or_else(|error| panic!("{}, then going on, {mode:?}: {error}", place()));
        assert_eq!(again.head().unwrap(), head, "{}, then going on, {mode:?}", place());
    }
}

fn count(position: Position) -> usize {
    usize::try_from(position.get()).unwrap()
}

/// What queries find is what going through all events finds.
fn check_index(store: &Store, found: &[RecordedEvent], rng: &mut Rng, place: &dyn Fn() -> String) {
    let (entity, kind, tag) = (*rng.pick(&ENTITIES), *rng.pick(&KINDS), *rng.pick(&TAGS));
    let scope = *rng.pick(&SCOPES);
    let of_entity = |event: &&RecordedEvent| event.entity() == entity;
    type Is<'a> = Box<dyn Fn(&&RecordedEvent) -> bool + 'a>;
    let asked: [(Query, Is<'_>); 5] = [
        (Query::entity(entity), Box::new(of_entity)),
        (Query::entity_prefix("user:1"), Box::new(|event| event.entity().starts_with("user:1"))),
        (Query::all().kind(kind), Box::new(|event| event.kind() == kind)),
        (Query::all().tag(tag), Box::new(|event| event.tags().any(|own| own == tag))),
        (
            Query::all().scope(scope).kind(kind),
            Box::new(|event| event.scope() == scope && event.kind() == kind),
        ),
    ];
    for (query, matches) in asked {
        let scanned: Vec<u64> = found.iter().filter(|event| matches(event)).map(fingerprint).collect();
        let asked: Vec<u64> = store.read(query.clone()).map(|event| fingerprint(&event.unwrap())).collect();
        assert_eq!(asked, scanned, "{}: {query:?}", place());
        let mut backwards: Vec<u64> =
            store.read(query).backwards().map(|event| fingerprint(&event.unwrap())).collect();
        backwards.reverse();
        assert_eq!(backwards, scanned, "{}: backwards", place());
    }
    let versions = found.iter().filter(of_entity).map(|event| event.version().get());
    let versions: Vec<u64> = versions.collect();
    assert_eq!(versions, (1..=versions.len() as u64).collect::<Vec<_>>(), "{}: {entity}", place());
    assert_eq!(store.version(entity).unwrap().get(), versions.len() as u64, "{}", place());
    if !found.is_empty() {
        let event = rng.pick(found);
        let got = store.get(event.id()).unwrap().map(|got| fingerprint(&got));
        assert_eq!(got, Some(fingerprint(event)), "{}", place());
    }
}

fn sweep(test: &str, salt: u64, workloads: u64, filler_max: usize, steps: usize) {
    let started = Instant::now();
    let mut images = 0;
    for n in 0..sized(workloads.div_ceil(8), workloads) {
        let seed = seed().wrapping_mul(1_000_003).wrapping_add(salt * 100_003 + n);
        let history = History::run(seed, filler_max, steps);
        images += history.sweep(6, &mut Rng::new(seed));
    }
    IMAGES.add(test, images, started);
}

#[test]
fn small_appends() {
    sweep("crash::small_appends", 1, 40, 20, 24);
}

#[test]
fn appends_over_several_sectors() {
    sweep("crash::appends_over_several_sectors", 2, 40, 900, 20);
}

#[test]
fn a_long_history() {
    sweep("crash::a_long_history", 3, 6, 300, 100);
}

//! Full disks and short writes at every byte, and single failures that have a place of their own.
//!
//! "No space" is a definite answer: the refused append is never found, even if the machine stops before,
//! during or after the cleanup. Appends resume by themselves.

use std::io::ErrorKind as Io;
use std::time::{Duration, Instant};

use annals::disk::{CrashMode, Fault, SimDisk, Trace};
use annals::{Durability, Error, ErrorKind, Query, RecordedEvent, Store};

use crate::sim_spy::{Call, Spy, What};
use crate::sim_support::*;

static SHORT: Tally = Tally::new("short writes and full disks", "no refused append was found again");

const SHAPE: Shape = Shape {
    segment_bytes_max: 1000,
    unsynced_bytes_max: 1000,
    group_commands_max: 1024,
    recent_bytes_max: 0,
    durability: Durability::Synced,
};

fn planned(number: u64, filler: usize) -> Planned {
    let event = PlannedEvent { entity: "user:1", scope: None, kind: "p", tag: None, filler };
    Planned { number, key: None, durability: None, events: vec![event] }
}

fn numbers(events: &[RecordedEvent]) -> Vec<u64> {
    events.iter().map(|event| origin(event).0).collect()
}

/// A closed store with these appends of one event each.
fn closed(appends: u64, filler: usize) -> Trace {
    let disk = SimDisk::new(seed());
    let store = SHAPE.builder(disk.clone(), &Gate::default()).open().unwrap();
    for number in 0..appends {
        planned(number, filler).append().commit(&store).unwrap();
    }
    store.close().unwrap();
    disk.trace()
}

/// A group on a disk that takes a number of bytes of one write, and then no more.
struct Short<'a> {
    base: &'a Trace,
    before: u64,
    group: &'a [Planned],
    /// Counted from the first operation of the group.
    nth: usize,
    bytes: usize,
}

impl Short<'_> {
    fn place(&self) -> String {
        let (nth, bytes, count) = (self.nth, self.bytes, self.group.len());
        format!("{count} appends after {}, operation {nth} takes {bytes} bytes", self.before)
    }

    /// Gives the number of images looked at.
    fn check(&self) -> u64 {
        let disk = self.base.image(self.base.len(), CrashMode::Drop);
        let gate = Gate::default();
        let store = SHAPE.builder(disk.clone(), &gate).open().unwrap();
        let nth = self.nth as u64;
        match self.bytes {
            0 => disk.fail(nth, Fault::Error(Io::StorageFull)),
            bytes => {
                disk.fail(nth, Fault::Short(bytes));
                disk.fail(nth + 1, Fault::Error(Io::StorageFull));
            }
        }
        let noted = disk.clone();
        let answered = move |number| Note::Answered(number).put(&noted);
        let answers = commit_group(&store, &gate, self.group, answered);
        let trace = disk.trace();
        let images = self.images(&trace, &answers);
        // On a busy machine MARK's idle sync may come between, so that the last fault meets no call.
        disk.heal();
        self.resume(store, &disk, &gate, &answers);
        images
    }

    /// At each moment: what was acknowledged is there, what was refused is not.
    fn images(&self, trace: &Trace, answers: &[Result<annals::Appended, Error>]) -> u64 {
        let modes = [CrashMode::Keep, CrashMode::Drop, CrashMode::Torn(0), CrashMode::Torn(1)];
        let mut images = 0;
        for (point, mode) in (0..=trace.len()).flat_map(|point| modes.map(|mode| (point, mode))) {
            let place = || format!("{}, then {mode:?} at {point} of {}", self.place(), trace.len());
            let store = SHAPE.builder(trace.image(point, mode), &Gate::default()).open();
            let store = store.unwrap_or_else(|error| panic!("{}: {error}", place()));
            let found = numbers(&dump(&store).unwrap());
            let possible: Vec<u64> = (0..self.before + self.group.len() as u64).collect();
            assert!(
                found.len() as u64 >= self.before && possible.starts_with(&found),
                "{}: {found:?}",
                place()
            );
            for note in trace.notes_before(point) {
                let Note::Answered(number) = Note::read(note) else { continue };
                let answer = &answers[usize::try_from(number - self.before).unwrap()];
                match answer {
                    Ok(_) => assert!(found.contains(&number), "{}: {number} is lost", place()),
                    Err(error) if error.is_definite() => {
                        assert!(!found.contains(&number), "{}: {number} is there although {error}", place());
                    }
                    Err(_) => {}
                }
            }
            images += 1;
        }
        images
    }

    /// Space is back: appends go on, unless it is not known what is on the disk.
    fn resume(&self, store: Store, disk: &SimDisk, gate: &Gate, answers: &[Result<annals::Appended, Error>]) {
        let is_poisoned =
            answers.iter().flat_map(Result::as_ref).count() == 0 && answers.iter().any(is_fatal);
        if is_poisoned {
            store.close().unwrap_err();
            return;
        }
        let again: Vec<Planned> = self
            .group
            .iter()
            .zip(answers)
            .filter(|(_, answer)| answer.is_err())
            .map(|(plan, _)| plan.clone())
            .collect();
        for answer in commit_group(&store, gate, &again, |_| {}) {
            answer.unwrap_or_else(|error| panic!("{}: {error}", self.place()));
        }
        let mut found = numbers(&dump(&store).unwrap());
        found.sort_unstable();
        let all: Vec<u64> = (0..self.before + self.group.len() as u64).collect();
        assert_eq!(found, all, "{}", self.place());
        assert!(store.verify().unwrap().is_clean(), "{}", self.place());
        let head = store.head().unwrap();
        store.close().unwrap();
        let store = SHAPE.builder(disk.clone(), gate).open().unwrap();
        assert!(store.open_report().clean, "{}: {}", self.place(), store.open_report());
        assert_eq!(store.head().unwrap(), head, "{}", self.place());
    }
}

fn is_fatal(answer: &Result<annals::Appended, Error>) -> bool {
    let kind = answer.as_ref().err().map(Error::kind);
    matches!(kind, Some(ErrorKind::CommitUnknown | ErrorKind::Poisoned))
}

/// What a group does without a failure.
fn calls_of(base: &Trace, group: &[Planned]) -> Vec<Call> {
    let spy = Spy::new(base.image(base.len(), CrashMode::Drop));
    let gate = Gate::default();
    let store = SHAPE.builder(spy.clone(), &gate).open().unwrap();
    let before = spy.calls().len();
    commit_group(&store, &gate, group, |_| {}).into_iter().for_each(|answer| drop(answer.unwrap()));
    spy.calls().split_off(before)
}

/// Every write of a group is short at every byte, and then the disk is full. The writes are frames; where the
/// group rolls also the seal, MARK, MANIFEST and the next header.
#[test]
fn writes_are_short_at_every_byte() {
    let started = Instant::now();
    let mut images = 0;
    for (before, filler, count) in [(0, 10, 1), (2, 20, 3), (3, 100, 2), (1, 600, 1)] {
        let base = closed(before, filler);
        let group: Vec<Planned> = (before..before + count).map(|number| planned(number, filler)).collect();
        let calls = calls_of(&base, &group);
        for (nth, call) in calls.iter().enumerate().filter(|(_, call)| call.what == What::Write) {
            for bytes in (0..call.bytes).step_by(one_of(7)) {
                images += Short { base: &base, before, group: &group, nth, bytes }.check();
            }
        }
    }
    SHORT.add("fault_space::writes_are_short_at_every_byte", images, started);
}

/// Fills a disk of this capacity, frees some, fills it again, frees all.
struct Full {
    capacity: u64,
    disk: SimDisk,
    gate: Gate,
    /// Acknowledged, in order.
    there: Vec<u64>,
    number: u64,
}

impl Full {
    fn check(capacity: u64) -> u64 {
        let disk = SimDisk::new(capacity);
        disk.set_capacity(Some(capacity));
        let mut full = Full { capacity, disk, gate: Gate::default(), there: Vec::new(), number: 0 };
        let store = full.open();
        full.fill(&store);
        let images = full.images();
        full.disk.set_capacity(Some(capacity + 700));
        full.fill(&store);
        full.disk.set_capacity(None);
        let planned = planned(full.number, 10);
        planned.append().commit(&store).unwrap_or_else(|error| panic!("{}: {error}", full.place()));
        full.there.push(full.number);
        full.is_there(&store);
        store.close().unwrap_or_else(|error| panic!("{}: {error}", full.place()));
        full.is_there(&full.open());
        images
    }

    fn place(&self) -> String {
        format!("capacity {}, {} appends", self.capacity, self.number)
    }

    fn open(&self) -> Store {
        let open = || SHAPE.builder(self.disk.clone(), &self.gate).open();
        open().unwrap_or_else(|error| {
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{}: {error}", self.place());
            self.disk.set_capacity(None);
            open().unwrap_or_else(|error| panic!("{}: {error}", self.place()))
        })
    }

    /// Appends until the disk has been full three times, or surely has room.
    fn fill(&mut self, store: &Store) {
        let mut refused = 0;
        for _ in 0..30 {
            let planned = planned(self.number, usize::try_from(self.number * 37 % 200).unwrap());
            match planned.append().commit(store) {
                Ok(_) => self.there.push(self.number),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NoSpace, "{}: {error}", self.place());
                    assert!(error.is_definite() && error.is_retryable());
                    refused += 1;
                }
            }
            self.number += 1;
            if refused == 3 {
                break;
            }
        }
        self.is_there(store);
    }

    fn is_there(&self, store: &Store) {
        let events = dump(store).unwrap_or_else(|error| panic!("{}: {error}", self.place()));
        assert_eq!(numbers(&events), self.there, "{}", self.place());
        assert_eq!(store.head().unwrap().position().get(), self.there.len() as u64, "{}", self.place());
    }

    /// A full disk must not keep a store from being recovered any longer than it is full.
    fn images(&self) -> u64 {
        let trace = self.disk.trace();
        let modes = [CrashMode::Keep, CrashMode::Drop, CrashMode::Torn(3)];
        for mode in modes {
            let disk = trace.image(trace.len(), mode);
            disk.set_capacity(Some(self.capacity));
            let image = Full { disk, gate: Gate::default(), there: self.there.clone(), ..*self };
            image.is_there(&image.open());
        }
        modes.len() as u64
    }
}

#[test]
fn the_disk_is_full_at_every_byte() {
    let started = Instant::now();
    let watchdog = Watchdog::new();
    let small = (0..8192 + 1000).step_by(211);
    let mut images = 0;
    for capacity in small.chain(8192 + 1000..8192 + 4200) {
        watchdog.at(format!("capacity {capacity}"));
        images += Full::check(capacity);
    }
    SHORT.add("fault_space::the_disk_is_full_at_every_byte", images, started);
}

/// One operation after another fails while an unclean store is opened. The result is an error, never an end
/// of the log. Nothing is changed before everything is read, and the next opening finds every event.
#[test]
fn reading_fails_while_opening() {
    let base = closed(12, 100);
    let disk = base.image(base.len(), CrashMode::Drop);
    let store = SHAPE.builder(disk.clone(), &Gate::default()).open().unwrap();
    planned(12, 300).append().durability(BUFFERED).commit(&store).unwrap();
    planned(13, 300).append().durability(BUFFERED).commit(&store).unwrap();
    let trace = disk.trace();
    let mut failures = 0;
    for mode in [CrashMode::Keep, CrashMode::Drop, CrashMode::Torn(1), CrashMode::Torn(2)] {
        let spy = Spy::new(trace.image(trace.len(), mode));
        let open = |disk: Spy| SHAPE.builder(disk, &Gate::default()).open();
        let expected = numbers(&dump(&open(spy.clone()).unwrap()).unwrap());
        for nth in 0..spy.calls().len() as u64 {
            let image = trace.image(trace.len(), mode);
            let spy = Spy::new(image.clone());
            image.fail(nth, Fault::Error(Io::Other));
            let Err(error) = open(spy.clone()) else { continue };
            assert_eq!(error.kind(), ErrorKind::Io, "{mode:?}, operation {nth}: {error}");
            let calls = spy.calls();
            let at = calls.iter().rposition(|call| call.failed.is_some()).unwrap();
            let (failed, after) = (&calls[at], &calls[at + 1..]);
            // A segment that could not be begun is removed again.
            let is_over = after.iter().all(|call| call.what == What::Remove);
            assert!(is_over, "{mode:?}, operation {nth}: it went on with {after:?}");
            failures += 1;
            let found = numbers(&dump(&open(spy).unwrap()).unwrap());
            // What was only buffered may go with a failed sync.
            let least = if failed.what == What::Sync { 12 } else { expected.len() };
            assert!(
                expected.starts_with(&found) && found.len() >= least,
                "{mode:?}, operation {nth}: {failed:?}"
            );
        }
    }
    assert!(failures > 100, "{failures}");
}

/// A segment that cannot be read is an error item; the others stay readable, and it does, too, once
/// it can be read again.
#[test]
fn a_segment_that_cannot_be_read_hides_no_other() {
    let spy = Spy::new(SimDisk::new(1));
    let store = SHAPE.builder(spy.clone(), &Gate::default()).open().unwrap();
    let receipts: Vec<_> =
        (0..9).map(|number| planned(number, 250).append().commit(&store).unwrap()).collect();
    assert_eq!(store.stats().segments, 5);
    spy.trap(What::Read, "segments/00000000000000000005", Fault::Error(Io::Other));
    let mut read = store.read(Query::all());
    let (good, bad): (Vec<_>, Vec<_>) = read.by_ref().partition(Result::is_ok);
    assert_eq!((good.len(), bad.len()), (4, 1));
    let error = bad[0].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("segments/00000000000000000005.0.seg"), "{error}");
    assert!(read.next().is_none(), "a read goes on behind an error");
    spy.trap(What::Read, "segments/00000000000000000005", Fault::Error(Io::Other));
    for (number, receipt) in receipts.iter().enumerate() {
        let got = store.get(receipt.id());
        match number {
            4 => assert_eq!(got.unwrap_err().kind(), ErrorKind::Io),
            _ => assert_eq!(origin(&got.unwrap().unwrap()).0, number as u64),
        }
    }
    assert_eq!(dump(&store).unwrap().len(), 9);
    planned(9, 10).append().commit(&store).unwrap();
}

/// No descriptors left: the append that needs a new segment is refused, and the next one tries again.
#[test]
fn a_segment_that_cannot_be_created_refuses_one_append() {
    for (what, nth) in [(What::Create, 0), (What::Write, 0)] {
        let spy = Spy::new(SimDisk::new(1));
        let store = SHAPE.builder(spy.clone(), &Gate::default()).open().unwrap();
        for number in 0..2 {
            planned(number, 300).append().commit(&store).unwrap();
        }
        let kind = if what == What::Create { Io::Other } else { Io::StorageFull };
        spy.trap(what, "segments/00000000000000000003", Fault::Error(kind));
        let refused = planned(2, 300).append().commit(&store).unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::Io | ErrorKind::NoSpace), "{what:?} {nth}: {refused}");
        let receipt = planned(2, 300).append().commit(&store).unwrap();
        assert_eq!(receipt.position().get(), 3, "{what:?}");
        store.close().unwrap();
    }
}

/// MARK is synced once nothing has happened for a while. If that fails, the store is poisoned, and has
/// lost nothing.
#[test]
fn the_idle_sync_of_mark_fails() {
    let disk = SimDisk::new(1);
    let spy = Spy::new(disk.clone());
    let store = SHAPE.builder(spy.clone(), &Gate::default()).open().unwrap();
    spy.trap(What::Sync, "MARK", Fault::Error(Io::Other));
    planned(0, 10).append().commit(&store).unwrap();
    spy.wait_for(|call| call.what == What::Sync && call.path == "MARK" && call.failed.is_some());
    let refused = planned(1, 10).append().commit(&store).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Poisoned);
    spy.freeze();
    assert_eq!(store.sync().unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(dump(&store).unwrap().len(), 1);
    assert_eq!(store.close().unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(spy.broken(), Vec::<String>::new());
    let trace = disk.trace();
    for mode in [CrashMode::Keep, CrashMode::Drop, CrashMode::Torn(0)] {
        let store = SHAPE.builder(trace.image(trace.len(), mode), &Gate::default()).open().unwrap();
        assert_eq!(dump(&store).unwrap().len(), 1, "{mode:?}");
    }
}

/// A buffered append was acknowledged, and its later sync fails. Its events can still be read, the store
/// accepts no other append, and no caller is told that the events are durable.
#[test]
fn the_sync_behind_a_buffered_append_fails() {
    let spy = Spy::new(SimDisk::new(1));
    let store = SHAPE.builder(spy.clone(), &Gate::default()).open().unwrap();
    planned(0, 10).append().commit(&store).unwrap();
    spy.trap(What::Sync, "segments/", Fault::Error(Io::Other));
    let soon = Durability::Buffered { flush_every: Duration::from_millis(1) };
    planned(1, 10).append().durability(soon).commit(&store).unwrap();
    spy.wait_for(|call| call.what == What::Sync && call.failed.is_some());
    let refused = planned(2, 10).append().commit(&store).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Poisoned);
    spy.freeze();
    assert_eq!(store.head().unwrap().position().get(), 2);
    assert_eq!(store.durable_head().unwrap().position().get(), 1);
    assert_eq!(numbers(&dump(&store).unwrap()), [0, 1]);
    store.close().unwrap_err();
    assert_eq!(spy.broken(), Vec::<String>::new());
}

/// After a failed sync the head is what can be read, not what was written.
#[test]
fn what_a_failed_sync_leaves_is_never_seen() {
    let spy = Spy::new(SimDisk::new(1));
    let store = SHAPE.builder(spy.clone(), &Gate::default()).open().unwrap();
    planned(0, 10).append().commit(&store).unwrap();
    let head = store.head().unwrap();
    spy.trap(What::Sync, "segments/", Fault::Error(Io::Other));
    let unknown = planned(1, 10).append().commit(&store).unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::CommitUnknown);
    assert_eq!((store.head().unwrap(), store.durable_head().unwrap()), (head, head));
    assert_eq!(numbers(&dump(&store).unwrap()), [0]);
    assert_eq!(store.version("user:1").unwrap().get(), 1);
}

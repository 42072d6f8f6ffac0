//! Maintenance on a disk that fails, and what must hold afterwards.
//!
//! - An operation reports a failure, or has done what it reports.
//! - The store takes appends, unless the fault is one that poisons.
//! - A power cut loses no acknowledged event, and brings no removed one back.
//! - The operation, run again, gives the result of one that did not fail.

use std::io::ErrorKind as Io;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use annals::disk::{CrashMode, Disk, Fault, SimDisk, Subdirectory};
use annals::{Error, ErrorKind, Head, Position, Raw, RecordedEvent, Store, Until};

use crate::rewrite_crash::{Goes, check_rest, public, with_secrets};
use crate::sim_spy::{Call, Spy, What};
use crate::sim_support::*;

static RUNS: Tally = Tally::new("failed maintenance", "nothing lost, nothing back, done in the end");

/// Where the store is.
pub(crate) const LIVE: &str = "live";
/// Restores, forks and rollbacks keep this number of events. An append may end behind it.
pub(crate) const KEPT: u64 = 17;

/// What is done to the store in `live`.
pub(crate) struct Work {
    pub(crate) name: &'static str,
    /// True if the store is open and takes appends during the operation.
    pub(crate) is_beside: bool,
    pub(crate) prepare: fn(&SimDisk),
    pub(crate) run: fn(&Scene<'_>, &Spy, Option<&Store>) -> Result<(), Error>,
    /// What may go of the events of `live`.
    pub(crate) goes: fn(&RecordedEvent) -> Goes,
    /// What was made so far, in the order in which it is made.
    pub(crate) made: fn(&Scene<'_>, &SimDisk) -> Result<Vec<String>, Error>,
}

pub(crate) const SHAPE: Shape = Shape {
    segment_bytes_max: 1000,
    unsynced_bytes_max: 1000,
    group_commands_max: 1024,
    recent_bytes_max: 0,
    durability: annals::Durability::Synced,
};

pub(crate) fn kept() -> Until {
    Until::Position(Position::from(KEPT))
}

pub(crate) fn inside(disk: &(impl Disk + Clone), directory: &str) -> Subdirectory {
    Subdirectory::of(disk.clone(), directory)
}

pub(crate) fn open(disk: &(impl Disk + Clone), directory: &str) -> Result<Store, Error> {
    SHAPE.builder(inside(disk, directory), &Gate::default()).open()
}

/// Of the events there were at the beginning, those of a store, in order.
pub(crate) fn described(scene: &Scene<'_>, disk: &SimDisk, directory: &str) -> Result<Vec<String>, Error> {
    let store = Store::on(inside(disk, directory)).open_read_only()?;
    let mut events = dump(&store)?;
    events.retain(|event| scene.before.iter().any(|before| before.id() == event.id()));
    let described = |event: &RecordedEvent| match (scene.work.goes)(event) {
        Goes::Inside => Ok(public(event)),
        Goes::No | Goes::Entirely => Ok(format!("{} {:?}", public(event), event.payload()?)),
    };
    events.iter().map(described).collect()
}

/// A disk with a store, what is done to it, and what comes of it if nothing fails.
pub(crate) struct Scene<'a> {
    seed: u64,
    work: &'a Work,
    base: SimDisk,
    before: Vec<RecordedEvent>,
    pub(crate) head: Head,
    /// For an import: the lines of another store, whose entities begin with "import".
    #[cfg_attr(not(feature = "jsonl"), expect(dead_code, reason = "imports are of that feature"))]
    pub(crate) lines: String,
    /// What is made, and what is left of the events there were.
    made: Vec<String>,
    left: Vec<String>,
}

impl Scene<'_> {
    fn new(work: &Work, seed: u64) -> Scene<'_> {
        let mut rng = Rng::new(seed);
        let disk = SimDisk::new(seed);
        Subdirectory::create(disk.clone(), LIVE).unwrap();
        let store = open(&disk, LIVE).unwrap();
        for number in 0..14 {
            with_secrets(&Planned::any(&mut rng, number, 60)).commit(&store).unwrap();
        }
        assert!(store.head().unwrap().position().get() > KEPT);
        store.close().unwrap();
        (work.prepare)(&disk);
        let store = open(&disk, LIVE).unwrap();
        let (before, head) = (dump(&store).unwrap(), store.head().unwrap());
        store.close().unwrap();
        let (made, left, lines) = (Vec::new(), Vec::new(), lines(&mut rng));
        let mut scene = Scene { seed, work, base: settled(&disk), before, head, lines, made, left };
        let (disk, place) = (settled(&scene.base), "nothing fails".to_owned());
        scene.again(&disk, &place);
        scene.made = (scene.work.made)(&scene, &disk).unwrap();
        scene.left = scene.left_in(&open(&disk, LIVE).unwrap());
        scene
    }

    /// What is left of the events there were.
    fn left_in(&self, store: &Store) -> Vec<String> {
        let is_old = |event: &RecordedEvent| self.before.iter().any(|before| before.id() == event.id());
        let events = dump(store).unwrap().into_iter().filter(is_old);
        events.map(|event| format!("{} {:?}", public(&event), event.payload().ok())).collect()
    }

    /// One run.
    fn fails(&self, wrong: Wrong) -> Ran {
        let place = format!("{}, seed {}, {wrong:?}", self.work.name, self.seed);
        let disk = settled(&self.base);
        let spy = Spy::new(disk.clone());
        let store = self.work.is_beside.then(|| open(&spy, LIVE).unwrap());
        let appender = Appender::default();
        if let Some(store) = &store {
            appender.append_beside(store, &spy);
        }
        let begun = spy.calls().len();
        match wrong {
            Wrong::Once(nth, fault) => disk.fail(u64::try_from(nth).unwrap(), fault),
            Wrong::Full(nth, room) => spy.fill(nth, room),
        }
        let done = (self.work.run)(self, &spy, store.as_ref());
        let calls = spy.calls().split_off(begun);
        let is_over = calls.len() <= wrong.nth();
        spy.heal();
        spy.alone();
        let place = format!("{place} ({:?}): {done:?}", calls.iter().find(|call| is_wrong(call)));
        check_error(&done, wrong, &place);
        if let Some(store) = store {
            let is_poisoned = appender.append(&store).is_err_and(|error| error.kind() == ErrorKind::Poisoned);
            check_poison(&calls, is_poisoned, &done, &place);
            if is_poisoned {
                spy.freeze();
            }
            self.check_live(&store, false, &appender, &place);
            assert_eq!(store.close().is_ok(), !is_poisoned, "{place}");
            assert!(spy.broken().is_empty(), "{place}: {:?}", spy.broken());
        }
        let trace = disk.trace();
        for mode in [CrashMode::Keep, CrashMode::Drop, CrashMode::Torn(1)] {
            let place = format!("{place}, then {mode:?}");
            self.check(&trace.image(trace.len(), mode), done.is_ok(), &appender, &place);
        }
        self.again(&disk, &place);
        self.check(&disk, true, &appender, &format!("{place}, again"));
        Ran { is_over, is_done: done.is_ok() }
    }

    /// What must hold of a disk after every fault, and after the operation.
    fn check(&self, disk: &SimDisk, is_done: bool, appender: &Appender, place: &str) {
        match (self.work.made)(self, disk) {
            Ok(made) if is_done => assert_eq!(made, self.made, "{place}"),
            Ok(made) => assert!(self.made.starts_with(&made), "{place}: {made:?}, not {:?}", self.made),
            Err(error) => {
                let is_none = matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Corrupt);
                assert!(is_none && !is_done, "{place}: {error}");
            }
        }
        let store = open(disk, LIVE).unwrap_or_else(|error| panic!("{place}: does not open: {error}"));
        assert!(store.open_report().unknown.is_empty(), "{place}: {}", store.open_report());
        self.check_live(&store, is_done, appender, place);
    }

    fn check_live(&self, store: &Store, is_done: bool, appender: &Appender, place: &str) {
        let later = check_rest(self.work.goes, &self.before, store, false, &|| place.to_owned());
        assert!(!is_done || self.left_in(store) == self.left, "{place}");
        appender.check(&later, place);
    }

    /// Does it, perhaps once more: it goes through, and leaves nothing lying about.
    fn again(&self, disk: &SimDisk, place: &str) {
        let is_made =
            !self.made.is_empty() && (self.work.made)(self, disk).is_ok_and(|made| made == self.made);
        let spy = Spy::new(disk.clone());
        let store = self
            .work
            .is_beside
            .then(|| open(&spy, LIVE).unwrap_or_else(|error| panic!("{place}: does not open: {error}")));
        match (self.work.run)(self, &spy, store.as_ref()) {
            Ok(()) => {}
            // Of what was made nothing is left to do.
            Err(error) => assert!(is_made && error.kind() == ErrorKind::Invalid, "{place}, again: {error}"),
        }
        drop(store);
        for directory in [LIVE, "copy", "made"] {
            if disk.contents(&format!("{directory}/MANIFEST")).is_none() {
                continue;
            }
            open(disk, directory)
                .unwrap_or_else(|error| panic!("{place}: {directory}: {error}"))
                .close()
                .unwrap();
            let store = open(disk, directory).unwrap();
            let report = store.open_report();
            assert!(report.unknown.is_empty() && report.removed.is_empty(), "{place}, {directory}: {report}");
            let verified = store.verify().unwrap();
            assert!(verified.is_clean(), "{place}, {directory}: {verified}");
        }
        let left: Vec<String> = disk.paths().into_iter().filter(|path| path.ends_with(".tmp")).collect();
        assert!(left.is_empty(), "{place}: {left:?}");
    }
}

/// The lines of another store, whose entities begin with "import".
fn lines(rng: &mut Rng) -> String {
    let line = |number: u64, of: u64| {
        let place = if of == 1 { String::new() } else { format!(",\"append\":[{},{of}]", number % of) };
        format!("{{\"entity\":\"import:{of}\",\"kind\":\"x\",\"payload\":{number}{place}}}\n")
    };
    (0..6)
        .flat_map(|append| {
            let of = 1 + rng.next() % 3;
            (0..of).map(move |number| line(append * of + number, of))
        })
        .collect()
}

/// The same disk, with nothing in its trace yet.
fn settled(disk: &SimDisk) -> SimDisk {
    let trace = disk.trace();
    trace.image(trace.len(), CrashMode::Keep)
}

/// How a run went.
struct Ran {
    /// It was through before anything could go wrong.
    is_over: bool,
    is_done: bool,
}

/// What is to go wrong.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    Once(usize, Fault),
    /// From this call on there is so much room.
    Full(usize, u64),
}

impl Wrong {
    fn nth(self) -> usize {
        let (Wrong::Once(nth, _) | Wrong::Full(nth, _)) = self;
        nth
    }
}

fn is_wrong(call: &Call) -> bool {
    call.failed.is_some_and(|kind| kind != Io::NotFound && kind != Io::AlreadyExists)
}

/// The error is the disk's, or says that the store is poisoned.
fn check_error(done: &Result<(), Error>, wrong: Wrong, place: &str) {
    let Err(error) = done else { return };
    let is_said = match (error.kind(), wrong) {
        (ErrorKind::Poisoned | ErrorKind::CommitUnknown, _) => true,
        (ErrorKind::NoSpace, Wrong::Full(..) | Wrong::Once(_, Fault::Short(_))) => true,
        (kind, Wrong::Once(_, Fault::Error(Io::StorageFull))) => kind == ErrorKind::NoSpace,
        (kind, Wrong::Once(_, Fault::Error(_))) => kind == ErrorKind::Io,
        _ => false,
    };
    assert!(is_said, "{place}");
}

/// The store is poisoned if the writer does not know what is on the disk, or which names are durable.
fn check_poison(calls: &[Call], is_poisoned: bool, done: &Result<(), Error>, place: &str) {
    let of_names = |call: &Call| call.what == What::SyncDirectory && call.path.starts_with(LIVE);
    let must = calls.iter().any(|call| is_wrong(call) && of_names(call));
    assert!(is_poisoned || !must, "{place}: it is not poisoned");
    assert!(!is_poisoned || calls.iter().any(poisons), "{place}: poisoned by nothing");
    assert!(!is_poisoned || done.is_err(), "{place}: it does not say so");
}

fn poisons(call: &Call) -> bool {
    let is_full = matches!(call.failed, Some(Io::StorageFull | Io::WriteZero));
    let writers =
        call.path.starts_with(LIVE) && !call.path.contains(".seg.tmp") && !call.path.contains(".idx");
    let may = match call.what {
        What::Sync | What::SyncDirectory | What::SetLength => true,
        What::Write => !is_full || call.path == "live/MARK",
        What::Create | What::Remove | What::Rename => call.path.contains("MANIFEST"),
        _ => false,
    };
    is_wrong(call) && writers && may
}

/// Appends, and keeps every answer.
#[derive(Clone, Default)]
struct Appender(Arc<Mutex<Vec<Option<Error>>>>);

impl Appender {
    /// Appends while segments are written and named.
    fn append_beside(&self, store: &Store, spy: &Spy) {
        let (own, store, mut left) = (self.clone(), store.clone(), 6);
        spy.interleave(move |what, path| {
            let is_segment = path.contains("/segments/") && path.contains(".seg");
            let is_beside = (what == What::Sync && path.ends_with(".tmp")) || what == What::Rename;
            if left > 0 && is_segment && is_beside {
                left -= 1;
                let _ = own.append(&store);
            }
        });
    }

    fn append(&self, store: &Store) -> Result<(), Error> {
        let number = self.0.lock().unwrap().len();
        let answer = store.append("beside:1", &Raw("beside", &(number, "y".repeat(number * 30))));
        self.0.lock().unwrap().push(answer.clone().err());
        answer.map(drop)
    }

    /// What was acknowledged is there as it was, and what was refused is not.
    fn check(&self, later: &[RecordedEvent], place: &str) {
        let own = later.iter().filter(|event| event.entity() == "beside:1");
        let found: Vec<usize> = own
            .map(|event| {
                let (number, filler) = event.decode::<(usize, String)>().unwrap();
                assert_eq!(filler.len(), number * 30, "{place}");
                number
            })
            .collect();
        assert!(found.is_sorted(), "{place}: {found:?}");
        for (number, answer) in self.0.lock().unwrap().iter().enumerate() {
            match answer {
                None => assert!(found.contains(&number), "{place}: {number} is lost of {found:?}"),
                Some(error) if error.is_definite() => {
                    assert!(!found.contains(&number), "{place}: {number} is there although {error}");
                }
                Some(_) => {}
            }
        }
    }
}

/// Fails every call of a piece of work, each in one way or, if it is to be heavy, in all.
pub(crate) fn sweep(work: &Work) {
    let (name, started) = (work.name, Instant::now());
    let watchdog = Watchdog::new();
    let mut runs = 0;
    for n in 0..heavy() {
        let scene = Scene::new(work, seed().wrapping_mul(1_000_003).wrapping_add(n));
        let mut rng = Rng::new(scene.seed);
        for nth in 0.. {
            watchdog.at(format!("{name}, seed {}, call {nth}", scene.seed));
            let wrongs = [
                Wrong::Once(nth, Fault::Error(Io::Other)),
                Wrong::Once(nth, Fault::Error(Io::StorageFull)),
                Wrong::Once(nth, Fault::Short(0)),
                Wrong::Once(nth, Fault::Short(7)),
                Wrong::Full(nth, 0),
                Wrong::Full(nth, 60),
            ];
            let (first, others) = wrongs.split_first().unwrap();
            let others = if heavy() > 1 { others } else { std::slice::from_ref(rng.pick(others)) };
            let over = std::iter::once(first).chain(others);
            let over = over.filter(|wrong| scene.fails(**wrong).is_over).count();
            runs += 1 + u64::try_from(others.len()).unwrap();
            if over == 1 + others.len() {
                assert!(nth > 3, "{name} has {nth} calls");
                break;
            }
        }
        runs += fill_up(&scene);
    }
    RUNS.add(&format!("maintenance_faults, {name}"), runs, started);
}

/// There is so much room from the beginning: too little for long, and in the end enough.
fn fill_up(scene: &Scene<'_>) -> u64 {
    let rooms: Vec<u64> = (0..12).map(|step| step * 500).chain([1 << 20, 4 << 20]).collect();
    let done: Vec<bool> = rooms.iter().map(|room| scene.fails(Wrong::Full(0, *room)).is_done).collect();
    assert!(!done[0] && *done.last().unwrap(), "{}: {done:?}", scene.work.name);
    u64::try_from(done.len()).unwrap()
}

//! A writer comes while a store is being opened to read: at every step of the reader, with every kind
//! of store, staying or going. The reader neither sees damage nor what the writer takes back.

use std::any::Any;
use std::io;
use std::sync::{Arc, Mutex};

use annals::disk::{Access, CrashMode, Disk, DiskFile, Fault, Lock, SimDisk};
use annals::{ErrorKind, Store};

use crate::sim_support::*;

/// What another process does in the middle of an opening.
type Act = Box<dyn FnOnce() + Send>;

/// A disk on which something happens right before the n-th thing that is asked of it.
#[derive(Clone)]
struct Interrupted {
    disk: SimDisk,
    at: Arc<Mutex<(usize, Option<Act>)>>,
}

struct InterruptedFile(Box<dyn DiskFile>, Interrupted);

impl Interrupted {
    fn new(disk: &SimDisk, after: usize, act: impl FnOnce() + Send + 'static) -> Interrupted {
        Interrupted { disk: disk.clone(), at: Arc::new(Mutex::new((after, Some(Box::new(act))))) }
    }

    fn step(&self) {
        let mut at = self.at.lock().unwrap();
        let due = if at.0 == 0 { at.1.take() } else { None };
        at.0 = at.0.saturating_sub(1);
        drop(at);
        if let Some(act) = due {
            act();
        }
    }

    fn has_happened(&self) -> bool {
        self.at.lock().unwrap().1.is_none()
    }
}

impl Disk for Interrupted {
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        self.step();
        assert_eq!(access, Access::Read, "{path}");
        Ok(Box::new(InterruptedFile(self.disk.open(path, access)?, self.clone())))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        self.step();
        self.disk.list(directory)
    }

    fn create_directory(&self, directory: &str) -> io::Result<()> {
        panic!("a reader creates {directory}")
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        panic!("a reader syncs {directory}")
    }

    fn rename(&self, from: &str, _: &str) -> io::Result<()> {
        panic!("a reader renames {from}")
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        panic!("a reader removes {path}")
    }

    fn lock(&self) -> io::Result<Lock> {
        panic!("a reader locks")
    }

    fn is_locked(&self) -> io::Result<bool> {
        self.step();
        self.disk.is_locked()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }

    fn random(&self) -> io::Result<[u8; 32]> {
        self.disk.random()
    }
}

impl DiskFile for InterruptedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.1.step();
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, _: &[u8], offset: u64) -> io::Result<usize> {
        panic!("a reader writes at {offset}")
    }

    fn length(&self) -> io::Result<u64> {
        self.1.step();
        self.0.length()
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        panic!("a reader cuts to {bytes}")
    }

    fn sync(&self) -> io::Result<()> {
        panic!("a reader syncs")
    }

    fn drop_cache(&self, offset: u64) -> io::Result<()> {
        panic!("a reader drops the cache from {offset}")
    }
}

fn open(disk: &SimDisk) -> Store {
    Store::on(disk.clone()).segment_bytes_max(1200).unsynced_bytes_max(1200).open().unwrap()
}

fn planned(number: u64) -> Planned {
    let event = PlannedEvent { entity: "user:1", scope: None, kind: "p", tag: None, filler: 150 };
    Planned { number, key: None, durability: None, events: vec![event] }
}

fn append(store: &Store, numbers: std::ops::Range<u64>) {
    numbers.for_each(|number| drop(planned(number).append().commit(store).unwrap()));
}

fn written(events: u64) -> (SimDisk, Store) {
    let disk = SimDisk::new(3);
    let store = open(&disk);
    append(&store, 0..events);
    (disk, store)
}

fn closed() -> SimDisk {
    let (disk, store) = written(5);
    store.close().unwrap();
    disk
}

/// Its writer was killed, and left half of a frame.
fn torn() -> SimDisk {
    let (disk, _store) = written(5);
    let trace = disk.trace();
    let disk = trace.image(trace.len(), CrashMode::Keep);
    let path = disk.paths().into_iter().rfind(|path| path.ends_with(".seg")).unwrap();
    let mut bytes = disk.contents(&path).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap().next_multiple_of(8);
    bytes[end..end + 100].fill(0xAB);
    disk.set_contents(&path, Some(bytes));
    disk
}

/// Its last sync failed, so the cache shows what the device does not have.
fn unsynced() -> SimDisk {
    let (disk, store) = written(5);
    disk.fail_from(1, Fault::Error(io::ErrorKind::Other));
    planned(99).append().commit(&store).unwrap_err();
    drop(store);
    disk.heal();
    disk
}

fn none() -> SimDisk {
    SimDisk::new(3)
}

type Make = fn() -> SimDisk;
/// With how many events are acknowledged in it.
const STORES: [(&str, Make, u64); 4] =
    [("none", none, 0), ("closed", closed, 5), ("torn", torn, 5), ("unsynced", unsynced, 5)];

/// The number of steps of an opening that no other process disturbs.
fn steps(make: Make) -> usize {
    const MANY: usize = 1_000_000;
    let reader = Interrupted::new(&make(), MANY, || {});
    let opened = Store::on(reader.clone()).open_read_only();
    let left = reader.at.lock().unwrap().0;
    drop(opened);
    MANY - left
}

#[test]
fn a_writer_that_comes_during_the_opening_is_noticed() {
    let (mut tried, mut beside) = (0, 0);
    for (name, make, acknowledged) in STORES {
        for (appends, stays) in [(0, true), (0, false), (1, true), (9, true), (9, false)] {
            // The last steps read MANIFEST, opened before, and ask for the lock. Who comes then, and
            // goes, comes when all was looked at.
            let last = steps(make) - if stays { 0 } else { 3 };
            for after in 0..last {
                let place = format!("{name}: {appends} appends, stays {stays}, after step {after}");
                let race = Race { disk: make(), holds: None, appends, stays, place };
                let events = race.run(after).unwrap_or_else(|| panic!("{name}: opens before step {after}"));
                assert!(events >= acknowledged, "{name}: {events} events after step {after}");
                tried += 1;
                beside += u64::from(events > acknowledged);
            }
        }
    }
    assert!(tried > 300 && beside > 100, "{tried} places, {beside} with something new");
}

/// Found by reading. Beside a writer who was creating the store, what was there half looked like a store
/// that had lost its MANIFEST.
#[test]
fn a_writer_that_goes_on_during_the_opening_does_no_harm() {
    for (name, make, acknowledged) in STORES {
        for after in 0.. {
            let disk = make();
            let Lock::Held(lock) = disk.lock().unwrap() else { panic!("{name}: is locked") };
            let place = format!("{name}: after step {after}");
            let race = Race { disk, holds: Some(lock), appends: 9, stays: true, place };
            let Some(events) = race.run(after) else { break };
            assert!(events >= acknowledged, "{name}: {events} events after step {after}");
        }
    }
}

/// A writer who comes to a store, or has the lock already, appends, and stays or goes.
struct Race {
    disk: SimDisk,
    holds: Option<Box<dyn Any + Send + Sync>>,
    appends: u64,
    stays: bool,
    place: String,
}

impl Race {
    /// Lets the writer come in the middle of a reader's opening. How many events the reader sees,
    /// none if it finds no store; `None` if it was done before the writer came.
    fn run(self, after: usize) -> Option<u64> {
        let Race { disk, holds, appends, stays, place } = self;
        let kept = Arc::new(Mutex::new(None));
        let (writer, keep) = (disk.clone(), kept.clone());
        let reader = Interrupted::new(&disk, after, move || {
            drop(holds);
            let store = open(&writer);
            append(&store, 100..100 + appends);
            *keep.lock().unwrap() = stays.then_some(store);
        });
        let seen = Store::on(reader.clone()).open_read_only();
        if !reader.has_happened() {
            return None;
        }
        let writer = kept.lock().unwrap().take().unwrap_or_else(|| open(&disk));
        let all: Vec<u64> = dump(&writer).unwrap().iter().map(fingerprint).collect();
        match seen {
            Ok(seen) => {
                let seen = dump(&seen).unwrap_or_else(|error| panic!("{place}: {error}"));
                let events: Vec<u64> = seen.iter().map(fingerprint).collect();
                assert!(all.starts_with(&events), "{place}: {} of {} events", events.len(), all.len());
                Some(events.len().try_into().unwrap())
            }
            Err(error) if error.kind() == ErrorKind::Invalid => Some(0),
            Err(error) => panic!("{place}: {error}"),
        }
    }
}

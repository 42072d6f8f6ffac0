//! Opening to read beside a writer that does something whenever the reader has looked away.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use annals::disk::{Access, Disk, DiskFile, Lock, SimDisk};
use annals::{ErrorKind, Query, Raw, Store};

use crate::support::kind_of;

type Step = Box<dyn Fn() + Send + Sync>;

/// A disk to read from, on which the writer takes a step each time the names of the segments are asked for: behind MANIFEST, and before the
/// segments that it lists.
#[derive(Clone)]
struct Restless {
    disk: SimDisk,
    step: Arc<Step>,
    left: Arc<AtomicU64>,
}

impl Restless {
    fn new(disk: &SimDisk, steps: u64, step: Step) -> Restless {
        Restless { disk: disk.clone(), step: Arc::new(step), left: Arc::new(steps.into()) }
    }

    fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }
}

impl Disk for Restless {
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        self.disk.open(path, access)
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let has_left = |left: u64| left.checked_sub(1);
        if directory == "segments"
            && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, has_left).is_ok()
        {
            (self.step)();
        }
        self.disk.list(directory)
    }

    fn create_directory(&self, directory: &str) -> io::Result<()> {
        self.disk.create_directory(directory)
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        self.disk.sync_directory(directory)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn lock(&self) -> io::Result<Lock> {
        self.disk.lock()
    }

    fn is_locked(&self) -> io::Result<bool> {
        self.disk.is_locked()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }

    fn random(&self) -> io::Result<[u8; 32]> {
        self.disk.random()
    }
}

/// A store of some small segments, with an entity of its own for each event.
fn store(disk: &SimDisk) -> Store {
    let store = Store::on(disk.clone()).segment_bytes_max(1000).open().unwrap();
    for number in 0..90 {
        store.append(format!("e:{number}"), &Raw("x", &number)).unwrap();
    }
    store
}

#[test]
fn a_store_that_is_rewritten_all_the_time_is_opened_to_read() {
    let disk = SimDisk::new(3);
    let writer = store(&disk);
    let next = AtomicU64::new(0);
    let events = writer.count(Query::all()).unwrap();
    let eraser = writer.clone();
    let erase = move || {
        let entity = format!("e:{}", next.fetch_add(1, Ordering::Relaxed));
        assert_eq!(eraser.erase(Query::entity(entity.as_str()), "").unwrap().events, 1);
    };
    let restless = Restless::new(&disk, 60, Box::new(erase));
    let reader = Store::on(restless.clone()).open_read_only().unwrap();
    assert_eq!(restless.left(), 0, "the writer did not rest before");
    assert_eq!(reader.count(Query::all()).unwrap(), events);
    assert_eq!(reader.head().unwrap(), writer.head().unwrap());
}

#[test]
fn damage_beside_a_writer_that_appends_is_said_soon() {
    let disk = SimDisk::new(3);
    let writer = store(&disk);
    let third = disk.paths().into_iter().filter(|path| path.ends_with(".seg")).nth(2).unwrap();
    disk.set_contents(&third, None);
    let appender = writer.clone();
    let append = move || drop(appender.append("e:1", &Raw("x", &"more")).unwrap());
    let restless = Restless::new(&disk, 1000, Box::new(append));
    assert_eq!(kind_of(Store::on(restless.clone()).open_read_only()), ErrorKind::Corrupt);
    assert!(restless.left() > 900, "{} steps left", restless.left());
}

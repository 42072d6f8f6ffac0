//! States in `cache/`: found again after reopening, and never believed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use annals::disk::{Access, CrashMode, Disk, DiskFile, Lock, MemDisk, SimDisk};
use annals::{Builder, CacheStats, Durability, Meta, Projection, Store};
use serde::{Deserialize, Serialize};

use crate::sim_support::{Rng, Tally, seed, sized};
use crate::state::{Filled, Last, Sum, check, fill_at_once};
use crate::support::{Random, eventually};

const FILE: &str = "cache/projections.redb";
const MARK: &str = "cache/projections.opening";

/// Enough events that a state is worth saving.
const MANY: u64 = 40;

static FLIPS: Tally = Tally::new("cache bytes flipped", "answers unchanged");
static IMAGES: Tally = Tally::new("crash images with a cache", "answers unchanged");

fn cache(store: &Store) -> CacheStats {
    store.stats().cache
}

/// Loads `entities` entities as two projections, and compares.
fn check_all(store: &Store, entities: u64) {
    for entity in 0..entities {
        check::<Sum>(store, &format!("e:{entity}"));
        check::<Last>(store, &format!("e:{entity}"));
    }
}

/// A store with saved states of some entities, closed.
fn prepared(builder: impl Fn() -> Builder, entities: u64) {
    let store = builder().open().unwrap();
    for entity in 0..entities {
        fill_at_once(&store, &format!("e:{entity}"), MANY + entity);
    }
    check_all(&store, entities);
    store.close().unwrap();
}

#[test]
fn states_are_found_again() {
    let disk = MemDisk::new();
    prepared(|| Store::on(disk.clone()), 3);
    let store = Store::on(disk.clone()).open().unwrap();
    check_all(&store, 3);
    assert_eq!((cache(&store).disk_hits, cache(&store).misses), (6, 0));
    fill_at_once(&store, "e:0", 1);
    store.close().unwrap();

    let store = Store::on(disk.clone()).open().unwrap();
    fill_at_once(&store, "e:0", 3);
    check_all(&store, 3);
    assert_eq!((cache(&store).disk_hits, cache(&store).misses), (6, 0), "with the events since");
    store.close().unwrap();

    disk.remove(FILE).unwrap();
    let store = Store::on(disk).open().unwrap();
    check_all(&store, 3);
    assert_eq!((cache(&store).disk_hits, cache(&store).misses), (0, 6), "and without it all is folded again");
}

#[test]
fn what_need_not_be_written_is_not() {
    let disk = MemDisk::new();
    let has_cache = || !disk.list("cache").unwrap().is_empty();
    let store = Store::on(disk.clone()).open().unwrap();
    fill_at_once(&store, "long", MANY);
    store.close().unwrap();
    assert!(!has_cache(), "nothing was loaded");
    let store = Store::on(disk.clone()).open().unwrap();
    fill_at_once(&store, "short", 20);
    check::<Sum>(&store, "short");
    store.close().unwrap();
    assert!(!has_cache(), "a short stream is folded faster than found");
    let store = Store::on(disk.clone()).cache_disk_bytes(0).open().unwrap();
    check::<Sum>(&store, "long");
    store.close().unwrap();
    assert!(!has_cache(), "it is off");
    let store = Store::on(disk.clone()).open_read_only().unwrap();
    check::<Sum>(&store, "long");
    store.close().unwrap();
    assert!(!has_cache(), "a reader writes nothing");
    let store = Store::on(disk.clone()).open().unwrap();
    check::<Sum>(&store, "long");
    drop(store);
    assert!(has_cache(), "dropping saves as closing does");
}

#[test]
fn the_housekeeper_saves_what_is_durable() {
    let disk = SimDisk::new(seed());
    let late = Durability::Buffered { flush_every: Duration::from_secs(3600) };
    let store = Store::on(disk.clone()).durability(late).open().unwrap();
    fill_at_once(&store, "durable", MANY);
    store.sync().unwrap();
    fill_at_once(&store, "a", MANY);
    check::<Sum>(&store, "a");
    check::<Sum>(&store, "durable");
    eventually("a state is saved", || cache(&store).saved > 0);
    assert_eq!(cache(&store).saved, 1, "a power cut could take the other one back");
    store.sync().unwrap();
    eventually("the other state is saved", || cache(&store).saved == 2);
    // As after kill -9: nothing was closed.
    let store = Store::on(disk.trace().image(disk.trace().len(), CrashMode::Keep)).open().unwrap();
    check::<Sum>(&store, "a");
}

static IS_FOLDED: AtomicBool = AtomicBool::new(false);

/// Waits in its 41st event until it may go on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Slow(u64);

impl Projection for Slow {
    type Event = Filled;
    const NAME: &'static str = "slow";
    fn apply(&mut self, _: Filled, _: &Meta<'_>) {
        self.0 += 1;
        if self.0 > MANY {
            eventually("others are saved", || IS_FOLDED.load(Ordering::SeqCst));
        }
    }
}

/// A state that happened to be out when the others were saved was forgotten until the store was closed.
#[test]
fn a_state_that_is_being_folded_is_saved_later() {
    let store = Store::in_memory().unwrap();
    for entity in ["a", "b"] {
        fill_at_once(&store, entity, MANY);
        check::<Sum>(&store, entity);
    }
    assert_eq!(store.load::<Slow>("a").unwrap().0, MANY);
    fill_at_once(&store, "a", 1);
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(store.load::<Slow>("a").unwrap().0, MANY + 1));
        eventually("the others are saved", || cache(&store).saved >= 2);
        IS_FOLDED.store(true, Ordering::SeqCst);
    });
    eventually("it is saved as well", || cache(&store).saved == 3);
}

#[test]
fn closing_saves_what_was_buffered() {
    let disk = MemDisk::new();
    let late = Durability::Buffered { flush_every: Duration::from_secs(3600) };
    let store = Store::on(disk.clone()).durability(late).open().unwrap();
    fill_at_once(&store, "a", MANY);
    check::<Sum>(&store, "a");
    store.close().unwrap();
    let store = Store::on(disk).open().unwrap();
    check::<Sum>(&store, "a");
    assert_eq!(cache(&store).disk_hits, 1);
}

#[test]
fn another_revision_is_another_state() {
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Doubled {
        sum: u64,
        events: u64,
    }
    impl Projection for Doubled {
        type Event = Filled;
        const NAME: &'static str = Sum::NAME;
        const REVISION: u32 = 2;
        fn apply(&mut self, Filled(number): Filled, _: &Meta<'_>) {
            self.sum += 2 * number;
            self.events += 1;
        }
    }
    /// The same name and revision, but what was saved does not fit it.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Text(String);
    impl Projection for Text {
        type Event = Filled;
        const NAME: &'static str = Sum::NAME;
        fn apply(&mut self, Filled(number): Filled, _: &Meta<'_>) {
            self.0 = format!("{}{number}", self.0);
        }
    }
    let disk = MemDisk::new();
    prepared(|| Store::on(disk.clone()), 2);
    let store = Store::on(disk.clone()).open().unwrap();
    check::<Doubled>(&store, "e:0");
    assert_eq!((cache(&store).disk_hits, cache(&store).misses), (0, 1));
    store.close().unwrap();
    let store = Store::on(disk.clone()).open().unwrap();
    check::<Text>(&store, "e:1");
    store.close().unwrap();
    let store = Store::on(disk).open().unwrap();
    check::<Sum>(&store, "e:0");
    assert_eq!((cache(&store).disk_hits, cache(&store).misses), (1, 0), "the other one was left alone");
}

#[test]
fn states_of_another_store_are_not_taken() {
    let (one, other) = (SimDisk::new(1), SimDisk::new(2));
    prepared(|| Store::on(one.clone()), 2);
    let store = Store::on(other.clone()).open().unwrap();
    for entity in 0..2 {
        fill_at_once(&store, &format!("e:{entity}"), 1);
        fill_at_once(&store, &format!("e:{entity}"), MANY + entity - 1);
    }
    store.close().unwrap();
    other.set_contents(FILE, one.contents(FILE));
    let store = Store::on(other).open().unwrap();
    check_all(&store, 2);
    assert_eq!(cache(&store).disk_hits, 0);
}

#[test]
fn a_log_that_was_set_back_is_not_passed_by_its_states() {
    let disk = SimDisk::new(seed());
    let store = Store::on(disk.clone()).open().unwrap();
    fill_at_once(&store, "a", MANY);
    let before = disk.trace();
    store.close().unwrap();
    let old = before.image(before.len(), CrashMode::Keep);
    // Two histories go on from the same point, the same number of events further.
    let store = Store::on(disk.clone()).open().unwrap();
    fill_at_once(&store, "a", MANY);
    check::<Sum>(&store, "a");
    store.close().unwrap();
    let store = Store::on(old.clone()).open().unwrap();
    for number in 0..MANY {
        store.append("a", &Filled(1000 + number)).unwrap();
    }
    store.close().unwrap();
    old.set_contents(FILE, disk.contents(FILE));
    let store = Store::on(old).open().unwrap();
    check::<Sum>(&store, "a");
    assert_eq!(cache(&store).disk_hits, 0, "the chain is another one there");
}

#[test]
fn the_file_stays_within_its_budget() {
    const BUDGET: u64 = 8_000;
    let disk = MemDisk::new();
    let open = |bytes| Store::on(disk.clone()).cache_disk_bytes(bytes).open().unwrap();
    let store = open(BUDGET);
    for entity in 0..100 {
        fill_at_once(&store, &format!("e:{entity}"), MANY);
        check::<Sum>(&store, &format!("e:{entity}"));
    }
    store.close().unwrap();
    // With room for all: what is folded anew here is saved beside, and must not push out what is still to be counted.
    let store = open(100 * BUDGET);
    check_all(&store, 100);
    let found = cache(&store).disk_hits;
    assert!((20..80).contains(&found), "{found} of 100 were kept");
    store.close().unwrap();
    let store = open(BUDGET);
    fill_at_once(&store, "e:0", MANY);
    check::<Sum>(&store, "e:0");
    eventually("more was saved", || cache(&store).saved > 0);
    let stats = cache(&store);
    assert!(stats.disk_bytes <= BUDGET && stats.disk_dropped > 0, "{stats:?}");
}

/// Opens what was damaged, and finds all as it is.
fn check_damaged(disk: &SimDisk, entities: u64) {
    let store = Store::on(disk.clone()).open().unwrap();
    check_all(&store, entities);
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{report}");
    store.close().unwrap();
}

#[test]
fn every_flipped_byte_is_a_miss_at_most() {
    let started = Instant::now();
    let disk = SimDisk::new(seed());
    prepared(|| Store::on(disk.clone()).cache_disk_bytes(1 << 20), 4);
    let whole = disk.contents(FILE).unwrap();
    let used: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    let mut rng = Rng::new(seed());
    let step = (used.len() / usize::try_from(sized(400, 2000)).unwrap()).max(1);
    let mut flips = 0;
    for place in used.iter().step_by(step).copied().chain((0..50).map(|at| at * whole.len() / 50)) {
        let mut damaged = whole.clone();
        damaged[place] ^= u8::try_from(rng.next() % 255 + 1).unwrap();
        disk.set_contents(FILE, Some(damaged));
        disk.set_contents(MARK, None);
        check_damaged(&disk, 4);
        flips += 1;
    }
    FLIPS.add("every_flipped_byte_is_a_miss_at_most", flips, started);
}

#[test]
fn a_file_of_anything_is_a_miss() {
    let disk = SimDisk::new(seed());
    prepared(|| Store::on(disk.clone()), 2);
    let whole = disk.contents(FILE).unwrap();
    let mut random = Random::for_test("a_file_of_anything_is_a_miss");
    for round in 0..60 {
        let mut bytes = whole.clone();
        match round % 4 {
            0 => bytes.truncate(random.index(whole.len())),
            1 => bytes.iter_mut().step_by(7).for_each(|byte| *byte = 0xFF),
            2 => {
                let (from, to) = (random.index(whole.len()), random.index(whole.len()));
                let page = whole[from / 4096 * 4096..].iter().take(4096).copied().collect::<Vec<u8>>();
                let to = to / 4096 * 4096;
                let end = (to + page.len()).min(bytes.len());
                bytes[to..end].copy_from_slice(&page[..end - to]);
            }
            _ => bytes = (0..random.below(9000)).map(|_| u8::try_from(random.below(256)).unwrap()).collect(),
        }
        disk.set_contents(FILE, Some(bytes));
        check_damaged(&disk, 2);
    }
}

#[test]
fn the_file_is_deleted_when_starts_die_opening_it() {
    let disk = SimDisk::new(seed());
    prepared(|| Store::on(disk.clone()), 1);
    let whole = disk.contents(FILE);
    for (deaths, hits) in [(0, 1), (1, 1), (2, 0)] {
        disk.set_contents(FILE, whole.clone());
        disk.set_contents(MARK, (deaths > 0).then(|| vec![1; deaths]));
        let store = Store::on(disk.clone()).open().unwrap();
        check::<Sum>(&store, "e:0");
        assert_eq!(cache(&store).disk_hits, hits, "{deaths} starts died");
        store.close().unwrap();
        assert!(disk.contents(MARK).is_none(), "the mark is gone once it is open");
    }
}

#[test]
fn crash_anywhere_and_the_answers_are_the_same() {
    let started = Instant::now();
    let disk = SimDisk::new(seed());
    let open = |disk: SimDisk| Store::on(disk).segment_bytes_max(8192).open().unwrap();
    let store = open(disk.clone());
    let mut saved = 0;
    for _ in 0..3 {
        for entity in 0..3 {
            fill_at_once(&store, &format!("e:{entity}"), MANY);
        }
        check_all(&store, 3);
        eventually("states are saved", || cache(&store).saved >= saved + 6);
        saved = cache(&store).saved;
    }
    store.close().unwrap();
    let store = open(disk.clone());
    check_all(&store, 3);
    drop(store);
    let trace = disk.trace();
    let mut rng = Rng::new(seed());
    let images = sized(80, 250);
    let mut hits = 0;
    for number in 0..images {
        let point = usize::try_from(rng.next() % (u64::try_from(trace.len()).unwrap() + 1)).unwrap();
        let mode = match number % 3 {
            0 => CrashMode::Keep,
            1 => CrashMode::Drop,
            _ => CrashMode::Torn(rng.next()),
        };
        let store = open(trace.image(point, mode));
        check_all(&store, 3);
        hits += cache(&store).disk_hits;
        store.close().unwrap();
    }
    assert!(hits > 0, "some states outlive a crash");
    IMAGES.add("crash_anywhere_and_the_answers_are_the_same", images, started);
}

/// A disk where everything in `cache/` goes wrong while it is told to.
#[derive(Clone, Default)]
struct BadCache {
    disk: MemDisk,
    fails: Arc<AtomicBool>,
    failed: Arc<AtomicU64>,
}

struct BadFile {
    file: Box<dyn DiskFile>,
    disk: BadCache,
    is_cache: bool,
}

impl BadCache {
    fn outcome(&self, is_cache: bool) -> io::Result<()> {
        if !is_cache || !self.fails.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.failed.fetch_add(1, Ordering::SeqCst);
        Err(io::ErrorKind::StorageFull.into())
    }
}

impl Disk for BadCache {
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let is_cache = path.starts_with("cache/");
        self.outcome(is_cache && access == Access::CreateNew)?;
        let file = self.disk.open(path, access)?;
        Ok(Box::new(BadFile { file, disk: self.clone(), is_cache }))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
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

impl DiskFile for BadFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.outcome(self.is_cache)?;
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.disk.outcome(self.is_cache)?;
        self.file.write_at(bytes, offset)
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.disk.outcome(self.is_cache)?;
        self.file.set_length(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.outcome(self.is_cache)?;
        self.file.sync()
    }

    fn drop_cache(&self, offset: u64) -> io::Result<()> {
        self.file.drop_cache(offset)
    }
}

#[test]
fn a_disk_that_has_no_room_for_the_cache_is_no_matter() {
    let disk = BadCache::default();
    prepared(|| Store::on(disk.clone()), 2);
    let store = Store::on(disk.clone()).open().unwrap();
    check_all(&store, 2);
    disk.fails.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let failed = disk.failed.load(Ordering::SeqCst);
        fill_at_once(&store, "e:0", MANY);
        check_all(&store, 2);
        eventually("saving is tried", || disk.failed.load(Ordering::SeqCst) > failed);
    }
    disk.fails.store(false, Ordering::SeqCst);
    fill_at_once(&store, "e:1", MANY);
    check_all(&store, 2);
    store.close().unwrap();
    let store = Store::on(disk).open().unwrap();
    check_all(&store, 2);
}

#[test]
fn readers_of_a_real_directory_find_states_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    prepared(|| Store::builder(&path), 2);
    use std::os::unix::fs::PermissionsExt;
    let mode = |name: &str| std::fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("cache"), mode(FILE)), (0o700, 0o600));
    let store = Store::open(&path).unwrap();
    check_all(&store, 2);
    assert_eq!(cache(&store).disk_hits, 4);
    let description = store.describe().unwrap();
    assert!(description.parts.iter().any(|part| part.name == "cache" && part.files == 1), "{description}");
    std::fs::remove_dir_all(path.join("cache")).unwrap();
    fill_at_once(&store, "e:0", MANY);
    check_all(&store, 2);
    store.close().unwrap();
    let store = Store::open(&path).unwrap();
    check_all(&store, 2);
}

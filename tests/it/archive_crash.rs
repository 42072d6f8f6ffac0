//! Backup, restore, fork and rollback, stopped after every operation of the disk. The history is the old one
//! or the new one, and a second run continues.

use std::ops::ControlFlow;
use std::time::Instant;

use annals::disk::{CrashMode, SimDisk, Subdirectory, Trace};
use annals::{
    Error, ErrorKind, Head, Position, Query, RecordedEvent, RollbackReport, Store, StoreCopy, Until,
};

use crate::sim_support::*;

static IMAGES: Tally = Tally::new("archive images", "every event compared, nothing lost, nothing mixed");

/// A disk with a store of a random history in `live`.
struct World {
    seed: u64,
    disk: SimDisk,
    shape: Shape,
    /// Of every event.
    all: Vec<u64>,
    head: Head,
    /// Behind each append.
    ends: Vec<usize>,
    /// How many of them a backup in `copy` has.
    backed_up: usize,
}

impl World {
    /// `backup` says after which append there was a backup.
    fn new(seed: u64, appends: u64, backup: Option<u64>) -> World {
        let mut rng = Rng::new(seed);
        let shape = Shape { segment_bytes_max: *rng.pick(&[600, 1000, 2000]), ..Shape::any(&mut rng) };
        let disk = SimDisk::new(seed);
        let inside = Subdirectory::create(disk.clone(), "live").unwrap();
        let store = shape.builder(inside, &Gate::default()).open().unwrap();
        let (mut ends, mut backed_up) = (vec![0], 0);
        for number in 0..appends {
            if backup == Some(number) {
                store.sync().unwrap();
                backed_up = *ends.last().unwrap();
                let reader = Store::on(Subdirectory::of(disk.clone(), "live")).open_read_only().unwrap();
                reader.backup_on(Subdirectory::create(disk.clone(), "copy").unwrap()).run().unwrap();
            }
            if let Ok(receipt) = Planned::any(&mut rng, number, 60).append().commit(&store) {
                ends.push(index(receipt.position()));
            }
        }
        store.sync().unwrap();
        let mut world =
            World { seed, disk, shape, all: Vec::new(), head: store.head().unwrap(), ends, backed_up };
        store.close().unwrap();
        world.look();
        world
    }

    /// The same, set back to where the backup ends or later, and gone on: with a segment that was written
    /// anew.
    fn set_back(mut self, rng: &mut Rng) -> World {
        let later: Vec<usize> = self.ends.iter().copied().filter(|end| *end >= self.backed_up).collect();
        let end = *rng.pick(&later[..later.len() - 1]);
        Rollback { end }.cut(&self, &self.disk).unwrap();
        self.ends.retain(|other| *other <= end);
        self.ends.push(end + 1);
        let store = self.open(&self.disk, "live").unwrap();
        for number in 0..6 {
            if let Ok(receipt) = Planned::any(rng, 1000 + number, 60).append().commit(&store) {
                self.ends.push(index(receipt.position()));
            }
        }
        store.sync().unwrap();
        store.close().unwrap();
        self.look();
        self
    }

    fn look(&mut self) {
        let store = self.open(&self.disk, "live").unwrap();
        (self.all, self.head) = (prints(&store).unwrap(), store.head().unwrap());
        store.close().unwrap();
        self.disk = settled(&self.disk);
    }

    fn open(&self, disk: &SimDisk, name: &str) -> Result<Store, Error> {
        self.shape.builder(Subdirectory::of(disk.clone(), name), &Gate::default()).open()
    }

    fn read(&self, disk: &SimDisk, name: &str) -> Result<Vec<u64>, Error> {
        let store = Store::on(Subdirectory::of(disk.clone(), name)).open_read_only()?;
        prints(&store)
    }

    /// A store's events are the first of this one's, in whole appends; gives their number.
    fn check_beginning(&self, found: &[u64], place: &str) -> usize {
        assert_eq!(found, &self.all[..found.len()], "{place}");
        assert!(self.ends.contains(&found.len()), "{place}: half an append");
        found.len()
    }

    /// The first `end` events, and one of the ledger behind them.
    fn check_made(&self, found: &[u64], end: usize, place: &str) {
        assert_eq!(found.len(), end + 1, "{place}");
        assert_eq!(found[..end], self.all[..end], "{place}");
    }

    /// What is in `live` is there still, and no more than the ledger's entry was added.
    fn check_live(&self, disk: &SimDisk, place: &str) {
        let found = self.read(disk, "live").unwrap_or_else(|error| panic!("{place}: live: {error}"));
        assert!(found.starts_with(&self.all) && found.len() <= self.all.len() + 1, "{place}: live");
    }

    /// An end of the history, some events before the last.
    fn some_end(&self, rng: &mut Rng) -> usize {
        *rng.pick(&self.ends[..self.ends.len() - 1])
    }
}

fn index(position: Position) -> usize {
    usize::try_from(position.get()).unwrap()
}

fn until(end: usize) -> Until {
    Until::Position(Position::from(u64::try_from(end).unwrap()))
}

/// Of every event, those of the store's own included.
fn prints(store: &Store) -> Result<Vec<u64>, Error> {
    let all = store.read(Query::all().or(Query::entity_prefix("$")));
    let events: Vec<RecordedEvent> = all.collect::<Result<_, _>>()?;
    Ok(events.iter().map(fingerprint).collect())
}

/// The same disk, with nothing in its trace yet.
fn settled(disk: &SimDisk) -> SimDisk {
    let trace = disk.trace();
    trace.image(trace.len(), CrashMode::Keep)
}

/// What is done to a world, and what must hold for every image of it.
trait Operation {
    fn run(&self, world: &World, disk: &SimDisk) -> Result<(), Error>;

    /// Looks at an image; whether the operation had been through.
    fn check(&self, world: &World, disk: &SimDisk, is_done: bool, place: &str);

    /// What must be there for good once it was done again, and the store was used.
    fn check_after(&self, world: &World, disk: &SimDisk, place: &str);

    /// Does it again on the image, and looks at what there is in the end.
    fn again(&self, world: &World, disk: &SimDisk, place: &str);
}

fn create(disk: &SimDisk, name: &str) -> Subdirectory {
    Subdirectory::create(disk.clone(), name).unwrap()
}

struct Backup {
    sharing: bool,
    /// How much an earlier backup has.
    before: usize,
}

impl Backup {
    fn copy(&self, store: &Store, disk: &SimDisk) -> StoreCopy {
        let copy = store.backup_on(Subdirectory::create(disk.clone(), "copy").unwrap());
        if self.sharing { copy } else { copy.without_sharing() }
    }
}

impl Operation for Backup {
    fn run(&self, world: &World, disk: &SimDisk) -> Result<(), Error> {
        let store = Store::on(Subdirectory::of(disk.clone(), "live")).open_read_only()?;
        let copy = store.backup_on(create(disk, "copy"));
        let copy = if self.sharing { copy } else { copy.without_sharing() };
        let report = copy.run()?;
        assert_eq!(report.head, world.head);
        Ok(())
    }

    fn check(&self, world: &World, disk: &SimDisk, is_done: bool, place: &str) {
        world.check_live(disk, place);
        match world.read(disk, "copy") {
            Ok(found) => {
                let length = world.check_beginning(&found, place);
                let least = if is_done { world.all.len() } else { self.before };
                assert!(length >= least, "{place}: {length} of {least}");
            }
            Err(error) => {
                assert!(self.before == 0 && !is_done, "{place}: {error}");
                assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Corrupt), "{place}: {error}");
            }
        }
    }

    fn check_after(&self, world: &World, disk: &SimDisk, place: &str) {
        check_used(world, disk, "copy", world.all.len(), place);
    }

    fn again(&self, world: &World, disk: &SimDisk, place: &str) {
        let store = world.open(disk, "live").unwrap_or_else(|error| panic!("{place}: {error}"));
        let before = store.head().unwrap();
        let report = self.copy(&store, disk).run().unwrap_or_else(|error| panic!("{place}: again: {error}"));
        assert_eq!(report.head, before, "{place}");
        let found = world.read(disk, "copy").unwrap();
        assert!(found.starts_with(&world.all), "{place}");
        let inside = || Store::on(Subdirectory::of(disk.clone(), "copy"));
        let verified = inside().verify_against(&report.head).unwrap();
        assert!(verified.is_clean(), "{place}: {verified}");
        let open = inside().open_read_only().unwrap();
        assert!(open.open_report().unknown.is_empty(), "{place}: {}", open.open_report());
        let left: Vec<String> = disk.paths();
        let left: Vec<_> =
            left.iter().filter(|path| path.starts_with("copy/") && path.ends_with(".tmp")).collect();
        assert!(left.is_empty(), "{place}: {left:?}");
    }
}

/// A store that was used begins with these events, and is whole.
fn check_used(world: &World, disk: &SimDisk, name: &str, end: usize, place: &str) {
    let found = world.read(disk, name).unwrap_or_else(|error| panic!("{place}: {error}"));
    assert!(found.len() >= end && found[..end] == world.all[..end], "{place}");
    let verified = Store::on(Subdirectory::of(disk.clone(), name)).verify().unwrap();
    assert!(verified.is_clean(), "{place}: {verified}");
}

enum Made {
    Restore,
    Fork,
}

/// A restore or a fork, up to an event.
struct Make {
    what: Made,
    end: usize,
    sharing: bool,
}

impl Make {
    fn copy(&self, disk: &SimDisk) -> Result<StoreCopy, Error> {
        let to = create(disk, "made");
        let live = || Store::on(Subdirectory::of(disk.clone(), "live"));
        let copy = match self.what {
            Made::Restore => StoreCopy::restore_on(live(), to, until(self.end)),
            Made::Fork => live().open_read_only()?.fork_on(to, until(self.end)),
        };
        Ok(if self.sharing { copy } else { copy.without_sharing() })
    }
}

impl Operation for Make {
    fn run(&self, world: &World, disk: &SimDisk) -> Result<(), Error> {
        let report = self.copy(disk)?.run()?;
        assert_eq!(index(report.head.position()), self.end, "{}", world.seed);
        Ok(())
    }

    fn check(&self, world: &World, disk: &SimDisk, is_done: bool, place: &str) {
        world.check_live(disk, place);
        match world.read(disk, "made") {
            Ok(found) => world.check_made(&found, self.end, place),
            Err(error) => {
                assert!(!is_done, "{place}: {error}");
                assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Corrupt), "{place}: {error}");
            }
        }
    }

    fn check_after(&self, world: &World, disk: &SimDisk, place: &str) {
        check_used(world, disk, "made", self.end, place);
    }

    fn again(&self, world: &World, disk: &SimDisk, place: &str) {
        let is_made = world.read(disk, "made").is_ok();
        let copy = self.copy(disk).unwrap_or_else(|error| panic!("{place}: {error}"));
        match copy.run() {
            Ok(_) => assert!(!is_made, "{place}"),
            Err(error) => {
                assert!(is_made && error.kind() == ErrorKind::Invalid, "{place}: again: {error}");
            }
        }
        let made = world.open(disk, "made").unwrap_or_else(|error| panic!("{place}: made: {error}"));
        world.check_made(&prints(&made).unwrap(), self.end, place);
        assert!(made.open_report().unknown.is_empty(), "{place}: {}", made.open_report());
        Planned::any(&mut Rng::new(1), 1_000_000, 10).append().commit(&made).unwrap();
        let verified = made.verify().unwrap();
        assert!(verified.is_clean(), "{place}: {verified}");
        let same = made.head().unwrap().store_id() == world.head.store_id();
        assert_eq!(same, matches!(self.what, Made::Restore), "{place}");
    }
}

struct Rollback {
    end: usize,
}

impl Rollback {
    fn cut(&self, world: &World, disk: &SimDisk) -> Result<RollbackReport, Error> {
        let live = world.shape.builder(Subdirectory::of(disk.clone(), "live"), &Gate::default());
        live.rollback(until(self.end), &world.head, "a test")
    }

    /// Whether the new history stands.
    fn is_cut(&self, world: &World, found: &[u64], place: &str) -> bool {
        let is_old = found == world.all;
        if !is_old {
            world.check_made(found, self.end, place);
        }
        !is_old
    }
}

impl Operation for Rollback {
    fn run(&self, world: &World, disk: &SimDisk) -> Result<(), Error> {
        let report = self.cut(world, disk)?;
        assert_eq!((index(report.kept.position()), report.cut), (self.end, world.head));
        Ok(())
    }

    fn check(&self, world: &World, disk: &SimDisk, is_done: bool, place: &str) {
        let found = world.read(disk, "live").unwrap_or_else(|error| panic!("{place}: {error}"));
        let is_cut = self.is_cut(world, &found, place);
        assert!(is_cut || !is_done, "{place}: the old history is back");
        let verified = Store::on(Subdirectory::of(disk.clone(), "live")).verify().unwrap();
        assert!(verified.is_clean(), "{place}: {verified}");
        // The next writer that opens the store finishes the operation. If it is stopped, the one after it does.
        let image = settled(disk);
        let store = world.open(&image, "live").unwrap_or_else(|error| panic!("{place}: {error}"));
        assert_eq!(prints(&store).unwrap(), found, "{place}");
        drop(store);
        let (trace, mut rng) = (image.trace(), Rng::new(world.seed));
        let stopped = trace.image(
            rng.below(trace.len() + 1),
            *rng.pick(&[CrashMode::Keep, CrashMode::Drop, CrashMode::Torn(3)]),
        );
        let store = world.open(&stopped, "live").unwrap_or_else(|error| panic!("{place}, again: {error}"));
        let again = prints(&store).unwrap();
        // If only the process was stopped, the power may still take back what it did last.
        let is_settled = !place.contains("Keep") || is_done;
        let is_cut_again = self.is_cut(world, &again, &format!("{place}, again"));
        assert!(is_cut_again == is_cut || (is_cut && !is_settled), "{place}, again");
    }

    fn check_after(&self, world: &World, disk: &SimDisk, place: &str) {
        check_used(world, disk, "live", self.end, place);
        let after = world.read(disk, "live").unwrap();
        assert!(after != world.all, "{place}: the old history is back");
    }

    fn again(&self, world: &World, disk: &SimDisk, place: &str) {
        let report = self.cut(world, disk).unwrap_or_else(|error| panic!("{place}: again: {error}"));
        assert_eq!(report.cut, world.head, "{place}");
        let old = format!("live/{}", report.quarantine);
        assert_eq!(world.read(disk, &old).unwrap(), world.all, "{place}: quarantine");
        let verified = Store::on(Subdirectory::of(disk.clone(), old)).verify_against(&world.head).unwrap();
        assert!(verified.is_clean(), "{place}: {verified}");
        let store = world.open(disk, "live").unwrap();
        world.check_made(&prints(&store).unwrap(), self.end, place);
        assert!(store.open_report().unknown.is_empty(), "{place}: {}", store.open_report());
        Planned::any(&mut Rng::new(1), 1_000_000, 10).append().commit(&store).unwrap();
        assert!(store.verify().unwrap().is_clean(), "{place}");
        store.close().unwrap();
        let store = world.open(disk, "live").unwrap();
        assert!(store.open_report().clean && store.verify().unwrap().is_clean(), "{place}");
    }
}

/// Stops at every point of a trace, in every way; gives the number of images.
fn sweep(world: &World, operation: &dyn Operation, trace: &Trace, rng: &mut Rng) -> u64 {
    let mut images = 0;
    for point in 0..=trace.len() {
        for mode in [CrashMode::Keep, CrashMode::Drop, CrashMode::Torn(0), CrashMode::Torn(1)] {
            let place = format!("seed {}, point {point} of {}, {mode:?}", world.seed, trace.len());
            let disk = trace.image(point, mode);
            operation.check(world, &disk, point == trace.len(), &place);
            images += 1;
            if rng.once_in(2) {
                operation.again(world, &disk, &place);
                let trace = disk.trace();
                let later = trace.image(trace.len(), CrashMode::Drop);
                operation.check_after(world, &later, &format!("{place}, again, then the power fails"));
                images += 1;
            }
        }
    }
    images
}

const FURTHER: u64 = 5;
const SET_BACK: u64 = 6;

fn all_of_it(test: &str, salt: u64, make: impl Fn(&World, &mut Rng) -> (SimDisk, Box<dyn Operation>)) {
    let started = Instant::now();
    let mut images = 0;
    for n in 0..sized(2, 4) {
        let seed = seed().wrapping_mul(1_000_003).wrapping_add(salt * 100_003 + n);
        let mut rng = Rng::new(seed);
        // Of a further backup alone there was one before.
        let backup = (salt >= FURTHER).then(|| 1 + rng.next() % 22);
        let world = World::new(seed, 24, backup);
        let world = if salt == SET_BACK { world.set_back(&mut rng) } else { world };
        let (base, operation) = make(&world, &mut rng);
        let disk = settled(&base);
        operation.run(&world, &disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        images += sweep(&world, operation.as_ref(), &disk.trace(), &mut rng);
    }
    IMAGES.add(test, images, started);
}

#[test]
fn a_first_backup() {
    all_of_it("archive_crash::a_first_backup", 1, |world, rng| {
        (world.disk.clone(), Box::new(Backup { sharing: rng.once_in(2), before: 0 }))
    });
}

#[test]
fn a_further_backup() {
    all_of_it("archive_crash::a_further_backup", FURTHER, |world, rng| {
        (world.disk.clone(), Box::new(Backup { sharing: rng.once_in(2), before: world.backed_up }))
    });
}

#[test]
fn a_backup_of_what_was_set_back() {
    all_of_it("archive_crash::a_backup_of_what_was_set_back", SET_BACK, |world, rng| {
        (world.disk.clone(), Box::new(Backup { sharing: rng.once_in(2), before: world.backed_up }))
    });
}

#[test]
fn a_restore() {
    all_of_it("archive_crash::a_restore", 2, |world, rng| {
        let end = if rng.once_in(3) { world.all.len() } else { world.some_end(rng) };
        let base = if rng.once_in(2) { begun(world, rng) } else { world.disk.clone() };
        (base, Box::new(Make { what: Made::Restore, end, sharing: rng.once_in(2) }))
    });
}

/// A disk on which a restore of everything was begun, and broken off: somewhere, or at once if it was over
/// before.
fn begun(world: &World, rng: &mut Rng) -> SimDisk {
    let sharing = rng.once_in(2);
    let tells = [1 + rng.below(8), 1];
    let broken_off = tells.into_iter().find_map(|mut left| {
        let disk = settled(&world.disk);
        let whole = Make { what: Made::Restore, end: world.all.len(), sharing };
        let copy = whole.copy(&disk).unwrap_or_else(|error| panic!("{error}")).on_progress(move |_| {
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let error = copy.run().err()?;
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        Some(settled(&disk))
    });
    broken_off.expect("a cancellation at once takes effect")
}

#[test]
fn a_fork() {
    all_of_it("archive_crash::a_fork", 3, |world, rng| {
        let end = if rng.once_in(3) { world.all.len() } else { world.some_end(rng) };
        (world.disk.clone(), Box::new(Make { what: Made::Fork, end, sharing: rng.once_in(2) }))
    });
}

#[test]
fn a_rollback() {
    all_of_it("archive_crash::a_rollback", 4, |world, rng| {
        (world.disk.clone(), Box::new(Rollback { end: world.some_end(rng) }))
    });
}

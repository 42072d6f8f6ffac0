//! Neither slot of MARK ever names a file or an offset that is gone, so either of them may be lost.

use std::collections::BTreeSet;

use annals::disk::{CrashMode, SimDisk, Subdirectory};
use annals::{Error, Position, Query, Raw, Store, Until};

use crate::sim_support::{dump, fingerprint, heavy};

fn builder(disk: &SimDisk) -> annals::Builder {
    Store::on(disk.clone()).segment_bytes_max(700)
}

fn append(store: &Store, kind: &str, times: u32) {
    for number in 0..times {
        store.append(format!("e:{}", number % 3), &Raw(kind, &number)).unwrap();
    }
}

/// A store of several segments, closed.
fn made() -> SimDisk {
    let disk = SimDisk::new(5);
    let store = builder(&disk).open().unwrap();
    append(&store, "some", 10);
    append(&store, "gone", 10);
    append(&store, "some", 10);
    store.close().unwrap();
    disk
}

fn opened(disk: &SimDisk, what: impl FnOnce(&Store) -> Result<(), Error>) {
    let store = builder(disk).open().unwrap();
    what(&store).unwrap();
    store.close().unwrap();
}

fn set_back(disk: &SimDisk) {
    let head = builder(disk).open_read_only().unwrap().head().unwrap();
    builder(disk).rollback(Position::from(12), &head, "a mistake").unwrap();
}

/// Makes the disk that has a result.
type Make = fn() -> SimDisk;

/// What is done to a store.
const DONE: [(&str, Make); 10] = [
    ("nothing", made),
    ("set back", || {
        let disk = made();
        set_back(&disk);
        disk
    }),
    ("set back twice, with appends between", || {
        let disk = made();
        set_back(&disk);
        opened(&disk, |store| {
            append(store, "again", 7);
            Ok(())
        });
        set_back(&disk);
        disk
    }),
    ("erased", || {
        let disk = made();
        opened(&disk, |store| store.erase(Query::entity("e:1"), "asked for").map(drop));
        disk
    }),
    ("compacted", || {
        let disk = made();
        let gone = Query::all().kind("gone");
        opened(&disk, |store| store.compaction("old").remove(gone).run().map(drop));
        disk
    }),
    ("merged", || {
        let disk = made();
        let gone = Query::all().kind("gone");
        opened(&disk, |store| store.compaction("old").remove(gone).merge().run().map(drop));
        disk
    }),
    ("forked", || {
        let (disk, fork) = (made(), SimDisk::new(6));
        opened(&disk, |store| store.fork_on(fork.clone(), Position::from(12)).run().map(drop));
        fork
    }),
    ("restored", || {
        let (disk, again) = (made(), SimDisk::new(6));
        annals::StoreCopy::restore_on(builder(&disk), again.clone(), Until::End).run().unwrap();
        again
    }),
    ("backed up", || {
        let (disk, backup) = (made(), SimDisk::new(6));
        opened(&disk, |store| store.backup_on(backup.clone()).run().map(drop));
        backup
    }),
    ("backed up, compacted, and backed up again", || {
        let (disk, backup) = (made(), SimDisk::new(6));
        opened(&disk, |store| store.backup_on(backup.clone()).run().map(drop));
        opened(&disk, |store| {
            store.compaction("old").remove(Query::all().kind("gone")).merge().run()?;
            store.backup_on(backup.clone()).run().map(drop)
        });
        backup
    }),
];

fn prints(store: &Store) -> Vec<u64> {
    dump(store).unwrap().iter().map(fingerprint).collect()
}

/// A copy of a disk that nothing is pending on.
fn still(disk: &SimDisk) -> SimDisk {
    let base = SimDisk::new(0);
    for path in disk.paths() {
        base.set_contents(&path, disk.contents(&path));
    }
    base
}

/// Found from outside: setting a store back wrote one slot, and the older one still named a cut segment. One
/// damaged bit in the newer one, and the store refused to open: acknowledged data is damaged or missing.
#[test]
fn a_bit_of_either_slot_may_be_lost_after_anything() {
    for (what, make) in DONE {
        let base = still(&make());
        let report = Store::on(base.clone()).verify().unwrap();
        assert!(report.is_clean() && report.mark_found, "{what}: {report}");
        let expected = prints(&builder(&base).open_read_only().unwrap());
        let image = |damage: &dyn Fn(&mut Vec<u8>)| {
            let image = base.trace().image(0, CrashMode::Drop);
            let mut mark = image.contents("MARK").unwrap();
            damage(&mut mark);
            image.set_contents("MARK", Some(mark));
            image
        };
        let mut tried = 0;
        for at in (0..128).chain(4096..4096 + 128) {
            // Any bit of a byte makes the slot's checksum wrong.
            for bit in (0..8).filter(|bit| heavy() > 1 || *bit == at % 8) {
                let flipped = image(&|mark| mark[at] ^= 1 << bit);
                let place = || format!("{what}: bit {bit} of byte {at}");
                let store = builder(&flipped).open().unwrap_or_else(|error| panic!("{}: {error}", place()));
                assert_eq!(prints(&store), expected, "{}", place());
                tried += 1;
            }
        }
        let neither = image(&|mark| mark.fill(0));
        assert_eq!(prints(&builder(&neither).open().unwrap()), expected, "{what}: no slot");
        println!("{what}: opened after {tried} flips, with all {} events", expected.len());
    }
}

/// Wherever setting back stops, and whichever slot is lost then.
#[test]
fn a_slot_may_be_lost_wherever_setting_back_stops() {
    let disk = still(&made());
    let head = builder(&disk).open_read_only().unwrap().head().unwrap();
    let start = disk.trace().len();
    builder(&disk).rollback(Position::from(12), &head, "a mistake").unwrap();
    let trace = disk.trace();
    let mut ends = BTreeSet::new();
    for point in start..=trace.len() {
        for mode in [CrashMode::Keep, CrashMode::Drop] {
            let stopped = still(&trace.image(point, mode));
            for lost in [None, Some(0), Some(4096)] {
                let image = stopped.trace().image(0, CrashMode::Drop);
                if let (Some(at), Some(mut mark)) = (lost, image.contents("MARK")) {
                    mark[at + 100] ^= 1;
                    image.set_contents("MARK", Some(mark));
                }
                let place = format!("stopped after {point}, {mode:?}, slot {lost:?} lost");
                let store = builder(&image).open().unwrap_or_else(|error| panic!("{place}: {error}"));
                ends.insert(store.head().unwrap().position().get());
                assert!(store.verify().unwrap().is_clean(), "{place}");
                store.close().unwrap();
                let report = Store::on(image).verify().unwrap();
                assert!(report.is_clean(), "{place}: {report}");
            }
        }
    }
    // The old history, or the new one with the ledger's entry.
    assert_eq!(ends.into_iter().collect::<Vec<_>>(), [13, 30]);
}

/// What was set back is kept as a store, and that holds, too.
#[test]
fn the_history_that_was_cut_is_verified_like_any_other() {
    let disk = made();
    let head = builder(&disk).open_read_only().unwrap().head().unwrap();
    let report = builder(&disk).rollback(Position::from(12), &head, "a mistake").unwrap();
    let old = || Store::on(Subdirectory::of(disk.clone(), report.quarantine.clone()));
    assert!(old().verify().unwrap().is_clean());
    assert_eq!(old().open_read_only().unwrap().head().unwrap(), head);
}

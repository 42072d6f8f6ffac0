//! What crash.rs, fault.rs and corrupt.rs once found, made small: each test tells its story.

use std::io::ErrorKind;
use std::time::Duration;

use annals::disk::{CrashMode, Fault, SimDisk};
use annals::{Query, Raw, Store};

use crate::sim_spy::{Call, Spy, What};
use crate::sim_support::*;

fn open(disk: &SimDisk) -> Store {
    Store::on(disk.clone()).segment_bytes_max(2000).unsynced_bytes_max(1000).open().unwrap()
}

fn planned(number: u64, filler: usize) -> Planned {
    let event = PlannedEvent { entity: "user:1", scope: None, kind: "p", tag: None, filler };
    Planned { number, key: None, durability: None, events: vec![event] }
}

fn stopped(disk: &SimDisk, mode: CrashMode) -> SimDisk {
    let trace = disk.trace();
    trace.image(trace.len(), mode)
}

/// Found by crash.rs. MARK said "closed" of the first segment; recovery sealed that one and went on
/// in a second; the power failed before MARK was synced. The next writer took the old "closed" for
/// its own and closed without a word, so every opening from then on recovered once more.
#[test]
fn a_store_that_was_recovered_and_closed_is_found_closed() {
    let disk = SimDisk::new(1);
    open(&disk).close().unwrap();
    let store = open(&disk);
    planned(1, 100).append().commit(&store).unwrap();
    let recovered = stopped(&disk, CrashMode::Drop);
    let _writer = open(&recovered);
    let image = stopped(&recovered, CrashMode::Drop);
    open(&image).close().unwrap();
    let report = open(&image).open_report().clone();
    assert!(report.clean, "{report}");
}

/// Found by crash.rs. A writer was killed after it had created a segment and before it had synced the
/// directory. The next one acknowledged appends in that segment, and the power failed. The file had no name,
/// and nine acknowledged events were gone without an error. MANIFEST of a store being created could be lost
/// in the same way, and then nothing opened any more.
#[test]
fn names_that_a_killed_writer_left_unsynced_are_synced_before_anything_is_acknowledged() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    for number in 0..20 {
        planned(number, 100).append().commit(&store).unwrap();
    }
    let trace = disk.trace();
    for point in 0..=trace.len() {
        let killed = trace.image(point, CrashMode::Keep);
        let store = open(&killed);
        planned(99, 100).append().commit(&store).unwrap();
        let head = store.head().unwrap();
        let failed = stopped(&killed, CrashMode::Drop);
        let found = Store::on(failed).open().unwrap_or_else(|error| panic!("killed at {point}: {error}"));
        assert_eq!(found.head().unwrap(), head, "killed at {point}");
    }
}

/// Found by fault.rs. The sync of a new segment failed and took its header along, which the cache
/// went on showing. The next writer read the header from the cache, then dropped the cache, found
/// nothing behind the header, went on in the segment and acknowledged. The device never had a
/// header, so after the next power failure the store did not open any more.
#[test]
fn a_segment_whose_header_never_reached_the_device_is_made_again() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let spy = Spy::new(disk.clone());
        let store = Store::on(spy.clone()).segment_bytes_max(600).open().unwrap();
        planned(1, 400).append().commit(&store).unwrap();
        spy.trap(What::Sync, "segments/00000000000000000002", Fault::Error(ErrorKind::Other));
        let refused = planned(2, 400).append().commit(&store).unwrap_err();
        assert_eq!(refused.kind(), annals::ErrorKind::Poisoned);
        store.close().unwrap_err();

        let store = open(&disk);
        planned(3, 100).append().commit(&store).unwrap();
        let head = store.head().unwrap();
        let found = Store::on(stopped(&disk, CrashMode::Drop)).open().unwrap();
        assert_eq!(found.head().unwrap(), head);
    }
}

/// Found by fault.rs. A write that takes no bytes is a full disk (SPEC 1.4); it poisoned the store.
#[test]
fn a_write_that_takes_nothing_is_a_full_disk() {
    let spy = Spy::new(SimDisk::new(1));
    let store = Store::on(spy.clone()).space_probe_every(Duration::ZERO).open().unwrap();
    spy.trap(What::Write, "segments/", Fault::Short(0));
    let refused = planned(1, 100).append().commit(&store).unwrap_err();
    assert_eq!(refused.kind(), annals::ErrorKind::NoSpace, "{refused}");
    assert_eq!(planned(1, 100).append().commit(&store).unwrap().position().get(), 1);
}

/// Found by reading. What recovery cut was copied in one piece, up to 64 MiB of memory.
#[test]
fn a_long_torn_tail_is_kept_in_pieces() {
    let disk = SimDisk::new(1);
    let store = Store::on(disk.clone()).open().unwrap();
    planned(1, 100).append().commit(&store).unwrap();
    let torn = stopped(&disk, CrashMode::Keep);
    let path = "segments/00000000000000000001.0.seg";
    let mut bytes = torn.contents(path).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap().next_multiple_of(8);
    let tail: Vec<u8> = (0..(5 << 20) + 123_u32).map(|n| (n % 255 + 1).to_le_bytes()[0]).collect();
    bytes.truncate(end);
    bytes.extend_from_slice(&tail);
    torn.set_contents(path, Some(bytes));

    let spy = Spy::new(torn.clone());
    let store = Store::on(spy.clone()).open().unwrap();
    let cut = store.open_report().cut.clone().unwrap();
    assert!(torn.contents(&cut.kept.unwrap()).unwrap() == tail);
    let most = spy.calls().iter().map(|call| call.bytes).max().unwrap();
    assert!(most <= 2 << 20, "{most} bytes at once");
}

/// Found by maintenance_faults.rs. A backup was brought up to date after an erasure. It removed the old
/// segments and reported success. The power failed, and they were back: the names had not been synced.
#[test]
fn what_was_erased_does_not_come_back_into_a_backup() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    (0..20).for_each(|number| drop(planned(number, 200).append().commit(&store).unwrap()));
    let copy = SimDisk::new(2);
    store.backup_on(copy.clone()).run().unwrap();
    let is_whole = |disk: &SimDisk| disk.contents("segments/00000000000000000001.0.seg").is_some();
    assert!(is_whole(&copy));
    store.erase(Query::entity("user:1"), "why").unwrap();
    store.backup_on(copy.clone()).run().unwrap();
    let copy = stopped(&copy, CrashMode::Drop);
    assert!(!is_whole(&copy), "{:?}", copy.paths());
    let reader = Store::on(copy).open_read_only().unwrap();
    assert!(dump(&reader).unwrap().iter().all(annals::RecordedEvent::is_erased));
}

/// Found by maintenance_faults.rs. While a segment was rewritten, an append found no descriptor for the log's
/// next one. There were some again, but the rewritten segment was refused for want of space, as everything
/// would have been until the next append.
#[test]
fn a_segment_that_could_not_be_begun_does_not_prevent_an_erasure() {
    let spy = Spy::new(SimDisk::new(1));
    let store = Store::on(spy.clone()).segment_bytes_max(1000).unsynced_bytes_max(1000).open().unwrap();
    let filler = "x".repeat(300);
    (0..2).for_each(|_| drop(store.append("user:2", &Raw("p", &filler)).unwrap()));
    store.append("user:1", &Raw("p", &filler)).unwrap();
    let (beside, trapped, mut is_first) = (store.clone(), spy.clone(), true);
    spy.interleave(move |what, path| {
        if is_first && what == What::Sync && path.ends_with(".seg.tmp") {
            is_first = false;
            trapped.trap(What::Create, "segments/", Fault::Error(ErrorKind::Other));
            let refused = (0..9).find_map(|_| beside.append("user:1", &Raw("p", &filler)).err());
            assert_eq!(refused.unwrap().kind(), annals::ErrorKind::Io);
        }
    });
    assert_eq!(store.erase(Query::entity("user:2"), "why").unwrap().events, 2);
    spy.alone();
    assert!(store.verify().unwrap().is_clean());
}

/// Found from outside. A sync had failed. The first open afterwards failed with `NoSpace: cannot sync before
/// recovery`, and the second succeeded. The kernel reports a failed write once, at the next sync.
#[test]
fn opening_after_a_failed_sync_is_not_told_of_it() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    (0..20).for_each(|number| drop(planned(number, 100).append().commit(&store).unwrap()));
    let kinds = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::Other];
    let syncs = [(What::Sync, "segments/"), (What::SyncDirectory, "segments"), (What::SyncDirectory, "")];
    for (kind, (what, path)) in kinds.into_iter().flat_map(|kind| syncs.map(|sync| (kind, sync))) {
        let killed = stopped(&disk, CrashMode::Keep);
        let spy = Spy::new(killed.clone());
        spy.trap(what, path, Fault::Error(kind));
        let store = Store::on(spy.clone()).segment_bytes_max(2000).unsynced_bytes_max(1000).open();
        let store = store.unwrap_or_else(|error| panic!("{kind:?} of {what:?} {path:?}: {error}"));
        assert!(spy.calls().iter().any(|call| call.failed == Some(kind)), "{what:?} {path:?} was not made");
        assert_eq!(store.count(Query::all()).unwrap(), 20);
        planned(99, 100).append().commit(&store).unwrap();
        assert_eq!(open(&stopped(&killed, CrashMode::Drop)).count(Query::all()).unwrap(), 21);
        assert!(spy.broken().is_empty(), "{:?}", spy.broken());
    }
}

/// Found from outside. SPEC said that every failed sync of a file poisons. A sync of MANIFEST.tmp that finds
/// no space does not, and need not: the file is thrown away, and the next one is another file.
#[test]
fn a_manifest_that_finds_no_room_is_made_later() {
    for (kind, is_full) in
        [(ErrorKind::StorageFull, true), (ErrorKind::QuotaExceeded, true), (ErrorKind::Other, false)]
    {
        for what in [What::Create, What::Write, What::Sync] {
            // Without a descriptor left nothing was written, and the store was poisoned all the same.
            let goes_on = is_full || what == What::Create;
            let disk = SimDisk::new(1);
            let spy = Spy::new(disk.clone());
            let store =
                Store::on(spy.clone()).segment_bytes_max(2000).unsynced_bytes_max(1000).open().unwrap();
            spy.trap(what, "MANIFEST.tmp", Fault::Error(kind));
            let append = |number| planned(number, 100).append().commit(&store);
            let failed = || spy.calls().iter().position(|call| call.failed == Some(kind));
            let mut number = 0;
            while failed().is_none() {
                assert!(append(number).is_ok() || failed().is_some());
                number += 1;
            }
            assert_eq!(append(number).is_ok(), goes_on, "{kind:?} of {what:?}");
            if !goes_on {
                continue;
            }
            let calls = &spy.calls()[failed().unwrap() + 1..];
            let is_thrown_away =
                |call: &&Call| (call.what, call.path.as_str()) == (What::Remove, "MANIFEST.tmp");
            let is_there = what != What::Create;
            assert_eq!(calls.iter().any(|call| is_thrown_away(&call)), is_there, "{kind:?} of {what:?}");
            let own = store.count(Query::all()).unwrap();
            assert_eq!(open(&stopped(&disk, CrashMode::Drop)).count(Query::all()).unwrap(), own);
            (number + 1..number + 40).for_each(|number| drop(append(number).unwrap()));
            let named = spy.calls().iter().filter(|call| call.path == "MANIFEST").count();
            assert!(named > 0 && spy.broken().is_empty(), "{:?}", spy.broken());
            store.close().unwrap();
            assert!(open(&disk).verify().unwrap().is_clean());
        }
    }
}

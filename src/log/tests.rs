//! White-box tests of the log: the recovery table, and recovery where it is easy to get wrong.
//!
//! tests/it/crash.rs, fault.rs and corrupt.rs go through the public API and try everything; here
//! stand the cases that need to look at evidence, segments and walks themselves.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints what it tried"
)]

mod preallocate;
mod recovery;
mod rewritten;
mod walk;

use std::time::{Duration, SystemTime};

use crate::disk::{Access, CrashMode, Disk, Fault, SimDisk};
use crate::format::{Manifest, SEGMENT_HEADER_BYTES, SegmentEntry};
use crate::{Error, ErrorKind, Query, Raw, Store};

const MARK: &str = "MARK";

fn open(disk: &SimDisk) -> Result<Store, Error> {
    let clock = || SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    Store::on(disk.clone()).segment_bytes_max(1024).unsynced_bytes_max(1024).clock(clock).open()
}

/// A store whose writer never closed it, with events of about 180 bytes each.
fn written(events: u32) -> SimDisk {
    let disk = SimDisk::new(7);
    let store = open(&disk).unwrap();
    for n in 0..events {
        store.append("account:alice", &Raw("account.noted", &(n, "x".repeat(40)))).unwrap();
    }
    let trace = disk.trace();
    drop(store);
    trace.image(trace.len(), CrashMode::Keep)
}

fn count(store: &Store) -> usize {
    store.stream("account:alice").map(Result::unwrap).count()
}

/// Found by reading: a writer killed between writing a seal and cutting the zeros behind it left
/// a file longer than its seal says; recovery listed it, and the next opening refused it.
#[test]
fn a_store_stopped_anywhere_in_a_roll_opens_again_and_again() {
    let disk = SimDisk::new(7);
    let store = open(&disk).unwrap();
    for n in 0..8_u64 {
        store.append("account:alice", &Raw("account.noted", &(n, "x".repeat(160)))).unwrap();
        disk.note(n + 1);
    }
    store.close().unwrap();
    let trace = disk.trace();
    let modes = [CrashMode::Keep, CrashMode::Drop, CrashMode::Torn(1), CrashMode::Torn(2)];
    for (point, mode) in (0..=trace.len()).flat_map(|point| modes.map(|mode| (point, mode))) {
        let acknowledged = usize::try_from(trace.notes_before(point).last().unwrap_or(0)).unwrap();
        let image = trace.image(point, mode);
        for time in 1..=3 {
            let store = open(&image).unwrap_or_else(|error| panic!("{point} {mode:?} time {time}: {error}"));
            assert!(count(&store) >= acknowledged, "{point} {mode:?} time {time}");
            store.close().unwrap();
        }
    }
}

/// Found by reading: the bound on a torn tail was counted from what MARK proved. MARK is not synced
/// while there is work, so after a power cut it may say nothing of the last segment, and then any
/// torn tail in the later part of a segment passed for damage.
#[test]
fn a_torn_tail_far_into_a_segment_is_torn_even_if_mark_is_old() {
    let disk = SimDisk::new(7);
    let store = Store::on(disk.clone()).unsynced_bytes_max(1024).open().unwrap();
    let mark_at_creation = disk.contents(MARK);
    for n in 0..20_u32 {
        store.append("account:alice", &Raw("account.noted", &(n, "x".repeat(160)))).unwrap();
    }
    let trace = disk.trace();
    let image = trace.image(trace.len(), CrashMode::Drop);
    drop(store);
    let (path, mut bytes) = last_segment(&image);
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    assert!(end > 4 * 1024);
    bytes[end.next_multiple_of(8) + 500] = 1;
    image.set_contents(&path, Some(bytes));
    image.set_contents(MARK, mark_at_creation);

    let store = Store::on(image).open().unwrap();
    assert_eq!(count(&store), 20);
    assert_eq!(store.open_report().cut.as_ref().map(|cut| cut.bytes > 0), Some(true));
}

fn last_segment(disk: &SimDisk) -> (String, Vec<u8>) {
    let path = disk.paths().into_iter().rfind(|path| path.starts_with("segments/")).unwrap();
    let bytes = disk.contents(&path).unwrap();
    (path, bytes)
}

/// Everything on the disk.
fn contents(disk: &SimDisk) -> Vec<(String, Option<Vec<u8>>)> {
    disk.paths().into_iter().map(|path| (path.clone(), disk.contents(&path))).collect()
}

/// Found by reading: a damaged header with nothing behind it passed for a segment that was just
/// being created, and was removed, although MARK proves that it had been made durable.
#[test]
fn a_damaged_header_of_an_empty_segment_is_damage_and_changes_nothing() {
    let created = SimDisk::new(7);
    open(&created).unwrap().close().unwrap();
    let resumed = written(2);
    open(&resumed).unwrap().close().unwrap();
    for disk in [created, resumed] {
        let (path, whole) = last_segment(&disk);
        assert!(whole[SEGMENT_HEADER_BYTES..].iter().all(|byte| *byte == 0));
        for bit in 0..SEGMENT_HEADER_BYTES * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            disk.set_contents(&path, Some(bytes));
            let before = contents(&disk);
            let error = open(&disk).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "bit {bit}: {error}");
            assert!(contents(&disk) == before, "bit {bit}: {error}");
        }
    }
}

/// Found by reading: only some of what MANIFEST says of a segment was compared with the segment. A
/// wrong last position made later segments look like files annals does not know, and go unread.
#[test]
fn every_field_of_a_listing_must_fit_its_segment() {
    let disk = SimDisk::new(7);
    let store = open(&disk).unwrap();
    for n in 0..8_u32 {
        store.append("account:alice", &Raw("account.noted", &(n, "x".repeat(160)))).unwrap();
    }
    store.close().unwrap();
    let (whole, _) = Manifest::read(&disk.contents("MANIFEST").unwrap()).unwrap();
    let changes: [fn(&mut SegmentEntry); 9] = [
        |listed| listed.id.first_position += 1,
        |listed| listed.id.generation += 1,
        |listed| listed.last_position += 1,
        |listed| listed.length += 1,
        |listed| listed.frames += 1,
        |listed| listed.events += 1,
        |listed| listed.recorded_before += 1,
        |listed| listed.last_recorded_at += 1,
        |listed| listed.chain[0] ^= 1,
    ];
    for (index, change) in changes.iter().enumerate() {
        let mut manifest = whole.clone();
        change(manifest.sealed.last_mut().unwrap());
        disk.set_contents("MANIFEST", Some(manifest.write().0));
        // Opening does not read listed segments; a reader does.
        let read = open(&disk).and_then(|store| store.read(Query::all()).collect::<Result<Vec<_>, _>>());
        assert_eq!(read.unwrap_err().kind(), ErrorKind::Corrupt, "field {index}");
        assert!(!Store::on(disk.clone()).verify().unwrap().is_clean(), "field {index}");
    }
    disk.set_contents("MANIFEST", Some(whole.write().0));
    assert_eq!(count(&open(&disk).unwrap()), 8);
}

/// Found by reading: recovery keeps what it cuts, cuts, and seals. Stopped in the middle of writing
/// the seal, it kept the beginning of that seal the next time, in place of what it had kept.
#[test]
fn what_is_cut_stays_in_quarantine_however_often_recovery_is_stopped() {
    let torn = written(2);
    let (path, mut bytes) = last_segment(&torn);
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap().next_multiple_of(8);
    bytes[end..end + 200].fill(0xAB);
    let cut = bytes[end..end + 200].to_vec();
    torn.set_contents(&path, Some(bytes));

    torn.fail_from(0, Fault::Short(20));
    open(&torn).unwrap().close().unwrap();
    let trace = torn.trace();
    for point in 0..=trace.len() {
        let image = trace.image(point, CrashMode::Keep);
        assert_eq!(count(&open(&image).unwrap()), 2, "{point}");
        let kept = image.paths().into_iter().find(|path| path.starts_with("quarantine/")).unwrap();
        assert!(image.contents(&kept).unwrap() == cut, "{point}: {kept}");
    }
}

/// Found by reading: rewriting MANIFEST dropped what only a newer version knows of, although it had
/// said that everybody may pass over it.
#[test]
fn what_a_newer_version_left_in_manifest_is_passed_on() {
    const SEALED: usize = 136;
    let disk = written(8);
    open(&disk).unwrap().close().unwrap();
    let mut newer = disk.contents("MANIFEST").unwrap();
    newer[10..12].copy_from_slice(&7_u16.to_le_bytes());
    newer[32..40].copy_from_slice(&0x8000_0000_0000_0001_u64.to_le_bytes());
    // How many streams begin in the segment is known here, and compared.
    for (number, byte) in (1..=52).zip(&mut newer[SEALED + 84..SEALED + 136]) {
        *byte = number;
    }
    let end = newer.len() - 32;
    let digest = *blake3::hash(&newer[..end]).as_bytes();
    newer[end..].copy_from_slice(&digest);
    disk.set_contents("MANIFEST", Some(newer.clone()));

    let store = open(&disk).unwrap();
    for n in 0..8_u32 {
        store.append("account:alice", &Raw("account.noted", &(n, "x".repeat(160)))).unwrap();
    }
    assert!(store.verify().unwrap().is_clean());
    store.close().unwrap();
    assert!(Store::on(disk.clone()).verify().unwrap().is_clean());
    let rewritten = disk.contents("MANIFEST").unwrap();
    assert!(rewritten.len() > newer.len());
    for (kept, what) in [(0..56, "preamble"), (SEALED..SEALED + 136, "entry")] {
        assert_eq!(rewritten[kept.clone()], newer[kept], "{what}");
    }
    let fresh = &rewritten[SEALED + 136 + 80..SEALED + 272];
    assert_eq!(fresh[..4], 1_u32.to_le_bytes(), "no stream begins there, and that is known");
    assert!(fresh[4..].iter().all(|byte| *byte == 0));
}

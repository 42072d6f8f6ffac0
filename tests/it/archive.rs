//! Backup, restore, fork and rollback: what is there afterwards, what is refused, and what is said about it.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use annals::disk::{MemDisk, Subdirectory};
use annals::{
    Append, Builder, CopyProgress, Error, ErrorKind, Head, Position, Query, Raw, RecordedEvent, Store,
    StoreCopy, Until, restore, verify_backup,
};
use tempfile::TempDir;

use crate::golden::{disk_of, golden_store};
use crate::sim_support::fingerprint;
use crate::support::Bytes;

/// Segments of some appends, so that there are several.
fn small(builder: Builder) -> Builder {
    builder.segment_bytes_max(1000)
}

fn fill(store: &Store, from: u64, to: u64) {
    for n in from..to {
        store.append(format!("order:{}", n % 3), &Raw("order.placed", &n)).unwrap();
    }
}

/// All events, those of the store's own included.
fn everything(store: &Store) -> Vec<RecordedEvent> {
    store.read(Query::all().or(Query::entity_prefix("$"))).map(Result::unwrap).collect()
}

fn prints(store: &Store) -> Vec<u64> {
    everything(store).iter().map(fingerprint).collect()
}

fn try_prints(store: &Store) -> Result<Vec<u64>, Error> {
    let events = store.read(Query::all().or(Query::entity_prefix("$"))).collect::<Result<Vec<_>, _>>()?;
    Ok(events.iter().map(fingerprint).collect())
}

/// What `cp -r` does. (A process started here would hold the locks of other tests for a moment.)
fn copy_plainly(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copy_plainly(&path, &to);
        } else if let Err(error) = fs::copy(&path, &to) {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "gone since it was listed");
        }
    }
}

/// The last entry of the ledger: its kind and figures.
fn ledger(store: &Store) -> (String, BTreeMap<String, annals::Value>) {
    let last = store.last(Query::entity("$ledger")).unwrap().unwrap();
    let entry: BTreeMap<String, annals::Value> = last.decode().unwrap();
    (last.kind().to_owned(), entry)
}

struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Place {
        Place { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn store(&self) -> Store {
        small(Store::builder(self.path("live"))).open().unwrap()
    }
}

/// A store, opened to read, is the first `count` events of what another has.
fn assert_prefix(copy: &Store, of: &[u64], count: usize) {
    let found = prints(copy);
    assert_eq!(found.len(), count);
    assert_eq!(found, of[..count]);
    let report = copy.verify().unwrap();
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_backup_is_the_store_as_it_was() {
    let place = Place::new();
    let store = place.store();
    fill(&store, 0, 50);
    let before = prints(&store);
    let report = store.backup(place.path("copy")).because("tests").run().unwrap();
    let copy = Store::open_read_only(place.path("copy")).unwrap();
    assert_eq!(copy.head().unwrap(), report.head);
    assert_eq!(report.head.position().get(), 50);
    assert_prefix(&copy, &before, 50);
    assert!(copy.open_report().clean, "{}", copy.open_report());
    assert!(report.shared >= 5 && report.copied == 1 && report.kept == 0, "{report}");
    assert!(verify_backup(place.path("copy"), &report.head).unwrap().is_clean());
    let (kind, entry) = ledger(&store);
    assert_eq!(kind, "$ledger.backed-up");
    assert!(format!("{entry:?}").contains(&report.head.to_string()), "{entry:?}");
    assert!(format!("{entry:?}").contains("tests"), "{entry:?}");
    // It goes on like any store; what is shared with the other must not be written to.
    drop(copy);
    let copy = Store::open(place.path("copy")).unwrap();
    fill(&copy, 50, 70);
    copy.close().unwrap();
    assert_eq!(prints(&store)[..50], before[..]);
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn a_backup_takes_only_what_is_new() {
    let place = Place::new();
    let store = place.store();
    let mut last = (0, 0);
    for round in 0..6 {
        fill(&store, round * 20, round * 20 + 20);
        let report = store.backup(place.path("copy")).without_sharing().run().unwrap();
        assert_eq!(report.shared, 0);
        assert!(report.kept >= last.0, "{report}: what was there is kept");
        assert!(round == 0 || report.bytes_copied < report.bytes / 2 + 3000, "{report}");
        last = (report.kept + report.copied - 1, report.copied);
        let copy = Store::open_read_only(place.path("copy")).unwrap();
        assert_prefix(&copy, &prints(&store), usize::try_from(report.head.position().get()).unwrap());
        assert!(verify_backup(place.path("copy"), &report.head).unwrap().is_clean());
    }
    let names = fs::read_dir(place.path("copy/segments")).unwrap().count();
    assert_eq!(names, last.0 + 1, "nothing is left over");
}

#[test]
fn nothing_of_the_running_appends_is_held_up_or_half_there() {
    let place = Place::new();
    let store = place.store();
    let (stop, acked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (store, stop, acked) = (store.clone(), stop.clone(), acked.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let append = Append::to(format!("order:{writer}"));
                    let append = append.event(&Raw("order.placed", &1)).event(&Raw("order.paid", &2));
                    let last = append.commit(&store).unwrap().position();
                    acked.fetch_max(last.get(), Ordering::SeqCst);
                }
            })
        })
        .collect();
    for round in 0..12 {
        let before = acked.load(Ordering::SeqCst);
        let report = store.backup(place.path("copy")).run().unwrap();
        assert!(report.head.position().get() >= before, "{round}: what was acknowledged is there");
        let copy = Store::open_read_only(place.path("copy")).unwrap();
        assert_eq!(copy.head().unwrap(), report.head);
        assert!(copy.verify().unwrap().is_clean());
        assert_eq!(copy.count(Query::all()).unwrap() % 2, 0, "whole appends");
    }
    stop.store(true, Ordering::SeqCst);
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let report = store.backup(place.path("copy")).run().unwrap();
    let copy = Store::open_read_only(place.path("copy")).unwrap();
    assert_prefix(&copy, &prints(&store), usize::try_from(report.head.position().get()).unwrap());
}

#[test]
fn a_reader_beside_a_writer_can_make_a_backup() {
    let place = Place::new();
    let store = place.store();
    fill(&store, 0, 30);
    let reader = Store::open_read_only(place.path("live")).unwrap();
    fill(&store, 30, 60);
    let report = reader.backup(place.path("copy")).run().unwrap();
    assert_eq!(report.head, store.head().unwrap(), "and leaves no word of it");
    assert_prefix(&Store::open_read_only(place.path("copy")).unwrap(), &prints(&store), 60);
    store.close().unwrap();
    let closed = Store::open_read_only(place.path("live")).unwrap();
    assert_eq!(closed.backup(place.path("copy")).run().unwrap().head, report.head);
}

#[test]
fn what_a_copy_may_not_be_put_into_is_refused() {
    let place = Place::new();
    let store = place.store();
    fill(&store, 0, 20);
    let other = Store::open(place.path("other")).unwrap();
    fill(&other, 0, 1);
    other.close().unwrap();
    fs::write(place.path("file"), "x").unwrap();
    fs::create_dir(place.path("full")).unwrap();
    fs::set_permissions(place.path("full"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(place.path("full/letter.txt"), "dear").unwrap();
    fs::create_dir_all(place.path("odd/segments")).unwrap();
    for name in ["odd", "odd/segments"] {
        fs::set_permissions(place.path(name), fs::Permissions::from_mode(0o700)).unwrap();
    }
    fs::write(place.path("odd/segments/notes"), "x").unwrap();
    std::os::unix::fs::symlink(place.path("live"), place.path("link")).unwrap();
    fs::create_dir(place.path("shared")).unwrap();
    fs::set_permissions(place.path("shared"), fs::Permissions::from_mode(0o777)).unwrap();
    for (name, kind, says) in [
        ("live", ErrorKind::Invalid, "lies in the store itself"),
        ("live/backup", ErrorKind::Invalid, "lies in the store itself"),
        ("live/segments", ErrorKind::Invalid, "lies in the store itself"),
        ("link/backup/deeper", ErrorKind::Invalid, "lies in the store itself"),
        ("other/../live/x", ErrorKind::Invalid, "lies in the store itself"),
        ("other", ErrorKind::Invalid, "holds another store"),
        ("full", ErrorKind::Invalid, "letter.txt"),
        ("odd", ErrorKind::Invalid, "segments/notes"),
        ("file", ErrorKind::Io, "file"),
        ("shared", ErrorKind::Unsafe, "others may write"),
    ] {
        let before = tree(&place.path("."));
        let error = store.backup(place.path(name)).run().unwrap_err();
        assert!(error.kind() == kind && error.to_string().contains(says), "{name}: {error:?}");
        let error = store.fork(place.path(name), Until::End).run().unwrap_err();
        assert!(error.kind() == kind && error.to_string().contains(says), "{name}: {error:?}");
        assert_eq!(tree(&place.path(".")), before, "{name}: nothing was changed, but for a lock");
    }
    // A restore or a fork never goes into a store, its own included.
    store.backup(place.path("copy")).run().unwrap();
    for made in [
        restore(place.path("copy"), place.path("copy"), Until::End),
        restore(place.path("copy"), place.path("live"), Until::End),
        store.fork(place.path("copy"), Until::End),
    ] {
        let error = made.run().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Locked), "{error}");
    }
    let error = restore(place.path("nothing"), place.path("new"), Until::End).run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(!place.path("new").exists());
}

/// Names, lengths and times of what is there, but for locks.
fn tree(path: &Path) -> BTreeMap<String, (u64, i64)> {
    let mut found = BTreeMap::new();
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let data = entry.metadata().unwrap();
            if data.is_dir() {
                left.push(entry.path());
            } else if entry.file_name() != "LOCK" {
                found.insert(entry.path().display().to_string(), (data.len(), data.mtime_nsec()));
            }
        }
    }
    found
}

#[test]
fn a_backup_that_is_not_the_beginning_of_the_store_is_refused() {
    let place = Place::new();
    let store = place.store();
    fill(&store, 0, 20);
    store.backup(place.path("copy")).run().unwrap();
    // A writer appended to the copy: fewer events than the store has, and more.
    let copy = Store::open(place.path("copy")).unwrap();
    fill(&copy, 0, 3);
    copy.close().unwrap();
    fill(&store, 20, 40);
    let error = store.backup(place.path("copy")).run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RolledBack, "{error}");
    let copy = Store::open(place.path("copy")).unwrap();
    fill(&copy, 0, 60);
    copy.close().unwrap();
    let error = store.backup(place.path("copy")).run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RolledBack, "{error}");
    // While a writer has the copy open.
    let copy = Store::open(place.path("copy")).unwrap();
    assert!(matches!(
        store.backup(place.path("copy")).run().unwrap_err().kind(),
        ErrorKind::RolledBack | ErrorKind::Locked
    ));
    copy.close().unwrap();
}

#[test]
fn a_cancelled_copy_goes_on_when_it_is_run_again() {
    let place = Place::new();
    let store = place.store();
    fill(&store, 0, 60);
    let mut tries = 0;
    let report = loop {
        let mut steps = 0;
        let copy = store.backup(place.path("copy")).without_sharing().on_progress(move |progress| {
            assert!(progress.bytes <= progress.bytes_total);
            steps += 1;
            if steps > tries { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match copy.run() {
            Ok(report) => break report,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}"),
        }
        tries += 1;
        assert!(Store::open_read_only(place.path("copy")).is_err(), "it is no store yet");
    };
    assert!(tries > 5 && report.kept > 5, "{tries}: {report}");
    assert_prefix(&Store::open_read_only(place.path("copy")).unwrap(), &prints(&store), 60);
}

#[test]
fn files_are_for_their_owner_only() {
    let place = Place::new();
    let store = place.store();
    fill(&store, 0, 40);
    store.backup(place.path("copies/of/copy")).run().unwrap();
    store.fork(place.path("fork"), Position::from(25)).run().unwrap();
    let (head, _) = (store.head().unwrap(), store.close().unwrap());
    Store::builder(place.path("live")).rollback(Position::from(10), &head, "").unwrap();
    let mut left = vec![place.path("copies"), place.path("fork"), place.path("live")];
    let mut files = 0;
    while let Some(path) = left.pop() {
        let mode = fs::metadata(&path).unwrap().mode() & 0o7777;
        if path.is_dir() {
            assert_eq!(mode, 0o700, "{}", path.display());
            left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            assert_eq!(mode, 0o600, "{}", path.display());
            files += 1;
        }
    }
    assert!(files > 20);
}

#[test]
fn a_restored_store_is_the_same_store_up_to_a_place() {
    let place = Place::new();
    let clock = Arc::new(AtomicU64::new(0));
    let ticks = clock.clone();
    let at = |second: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + second);
    let store = small(Store::builder(place.path("live")))
        .clock(move || at(ticks.fetch_add(1, Ordering::SeqCst)))
        .open()
        .unwrap();
    fill(&store, 0, 20);
    let pair = Append::to("pair").event(&Raw("a", &1)).event(&Raw("b", &2)).commit(&store).unwrap();
    assert_eq!(pair.position().get(), 22);
    store.checkpoint("noon", "").unwrap();
    fill(&store, 20, 40);
    let (head, all) = (store.head().unwrap(), prints(&store));
    let by_time = everything(&store)[29].recorded_at();
    store.backup(place.path("copy")).run().unwrap();
    store.close().unwrap();
    let checkpoint = Until::Checkpoint("noon".to_owned());
    for (name, until, end) in [
        ("end", Until::End, 43),
        ("none", Until::Position(Position::from(0)), 0),
        ("first", Until::Position(Position::from(1)), 1),
        ("half", Until::Position(Position::from(21)), 20),
        ("whole", Until::Position(Position::from(22)), 22),
        ("checkpoint", checkpoint, 23),
        ("time", Until::Time(by_time), 30),
        ("before", Until::Time(SystemTime::UNIX_EPOCH), 0),
    ] {
        let report = restore(place.path("copy"), place.path(name), until).because(name).run().unwrap();
        assert_eq!(report.head.position().get(), end, "{name}");
        assert!(verify_backup(place.path(name), &report.head).unwrap().is_clean(), "{name}");
        let again = small(Store::builder(place.path(name))).open().unwrap();
        let found = prints(&again);
        let end = usize::try_from(end).unwrap();
        assert_eq!(found[..end], all[..end], "{name}");
        assert_eq!(found.len(), end + 1, "{name}: and the ledger's entry");
        let (kind, entry) = ledger(&again);
        assert!(kind == "$ledger.restored" && format!("{entry:?}").contains(name), "{name}: {entry:?}");
        assert_eq!(again.head().unwrap().store_id(), head.store_id(), "{name}");
        fill(&again, 0, 30);
        assert!(again.verify().unwrap().is_clean(), "{name}");
        again.close().unwrap();
        let again = Store::open(place.path(name)).unwrap();
        assert!(again.verify().unwrap().is_clean(), "{name}");
        assert_eq!(prints(&again).len(), end + 31, "{name}");
    }
    let beyond = restore(place.path("copy"), place.path("x"), Position::from(44)).run().unwrap_err();
    assert_eq!(beyond.kind(), ErrorKind::Invalid, "{beyond}");
    let unknown =
        restore(place.path("copy"), place.path("x"), Until::Checkpoint("n".to_owned())).run().unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Invalid, "{unknown}");
}

#[test]
fn a_fork_goes_its_own_way() {
    let place = Place::new();
    let store = place.store();
    fill(&store, 0, 40);
    let all = prints(&store);
    let report = store.fork(place.path("fork"), Position::from(33)).run().unwrap();
    assert!(report.shared > 3, "{report}");
    assert_eq!(ledger(&store).0, "$ledger.forked");
    let fork = small(Store::builder(place.path("fork"))).open().unwrap();
    assert_ne!(fork.head().unwrap().store_id(), store.head().unwrap().store_id());
    assert_eq!(prints(&fork)[..33], all[..33]);
    assert_eq!(ledger(&fork).0, "$ledger.forked");
    fill(&fork, 0, 30);
    fill(&store, 40, 70);
    // Of a fork again, and copies of it.
    let second = fork.fork(place.path("second"), Position::from(40)).run().unwrap();
    assert_eq!(second.head.store_id(), fork.head().unwrap().store_id());
    let third = fork.backup(place.path("copy of fork")).run().unwrap();
    assert!(verify_backup(place.path("copy of fork"), &third.head).unwrap().is_clean());
    let error = fork.backup(place.path("fork")).run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let error = store.backup(place.path("copy of fork")).run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    for name in ["fork", "second", "copy of fork"] {
        let report = Store::builder(place.path(name)).verify_against(&report.head).unwrap();
        assert!(report.is_clean(), "{name}: {report}");
    }
    let grandchild = Store::open(place.path("second")).unwrap();
    assert_eq!(prints(&grandchild)[..40], prints(&fork)[..40]);
    fill(&grandchild, 0, 10);
    assert!(grandchild.verify().unwrap().is_clean() && fork.verify().unwrap().is_clean());
    assert_eq!(prints(&store)[..40], all[..]);
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn a_rollback_cuts_and_keeps_what_it_cuts() {
    let place = Place::new();
    let store = place.store();
    fill(&store, 0, 20);
    store.checkpoint("good", "").unwrap();
    fill(&store, 20, 50);
    let (all, cut) = (prints(&store), store.head().unwrap());
    let reader = Store::open_read_only(place.path("live")).unwrap();
    assert_eq!(reader.head().unwrap(), cut);
    let rollback = |until: Until, head| {
        small(Store::builder(place.path("live"))).operator("anna").rollback(until, &head, "a bad file")
    };
    let good = || Until::Checkpoint("good".to_owned());
    assert_eq!(rollback(good(), cut).unwrap_err().kind(), ErrorKind::Locked);
    store.close().unwrap();

    let wrong = rollback(good(), "5:00@0".parse().unwrap_or(all_zero(&cut))).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Invalid, "{wrong}");
    let nothing = rollback(Until::End, cut).unwrap_err();
    assert!(
        nothing.kind() == ErrorKind::Invalid && nothing.to_string().contains("nothing to cut"),
        "{nothing}"
    );
    assert_eq!(prints(&Store::open_read_only(place.path("live")).unwrap()), all);

    let report = rollback(good(), cut).unwrap();
    assert_eq!((report.kept.position().get(), report.cut), (21, cut));
    assert_eq!(rollback(good(), cut).unwrap(), report, "once more, it is done");
    assert_eq!(reader.head().unwrap_err().kind(), ErrorKind::RolledBack);
    let store = place.store();
    assert_eq!(prints(&store)[..21], all[..21]);
    let (kind, entry) = ledger(&store);
    let entry = format!("{entry:?}");
    assert!(
        kind == "$ledger.rolled-back" && entry.contains("anna") && entry.contains("a bad file"),
        "{entry}"
    );
    assert_eq!(store.checkpoints().unwrap().len(), 1);
    fill(&store, 50, 80);
    assert!(store.verify().unwrap().is_clean());
    assert!(store.describe().unwrap().to_string().contains("quarantine"));
    assert!(Store::builder(place.path("live")).verify_against(&cut).unwrap().findings.len() == 1);

    let old = place.path("live").join(&report.quarantine);
    assert!(verify_backup(&old, &cut).unwrap().is_clean());
    assert_prefix(&Store::open_read_only(&old).unwrap(), &all, all.len());
    // Back to where it was, and beyond.
    let head = store.head().unwrap();
    store.close().unwrap();
    rollback(Until::Position(Position::from(3)), head).unwrap();
    let store = place.store();
    assert_eq!(prints(&store)[..3], all[..3]);
    assert_eq!(prints(&store).len(), 4);
    assert!(store.verify().unwrap().is_clean());
}

/// A head that nothing has.
fn all_zero(head: &annals::Head) -> annals::Head {
    format!("1:{}@{}", "0".repeat(64), head.store_id()).parse().unwrap()
}

#[test]
fn what_followed_the_cut_history_notices() {
    let disk = MemDisk::new();
    let store = small(Store::on(disk.clone())).open().unwrap();
    fill(&store, 0, 10);
    let mut consumer = store.consumer("mail", Query::all()).unwrap();
    let first: Vec<_> = consumer.by_ref().take(4).map(|event| event.unwrap().position()).collect();
    consumer.ack(first[3]).unwrap();
    consumer.flush().unwrap();
    let kept = store.head().unwrap();
    fill(&store, 10, 30);
    let rest: Vec<_> = consumer.by_ref().take(20).map(|event| event.unwrap().position()).collect();
    consumer.ack(*rest.last().unwrap()).unwrap();
    drop(consumer);
    let cut = store.head().unwrap();
    store.close().unwrap();
    Store::on(disk.clone()).rollback(kept.position(), &cut, "").unwrap();
    let store = small(Store::on(disk)).open().unwrap();
    let status = &store.consumers().unwrap()[0];
    assert_eq!(status.position, first[3], "it stands where it stood then");
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn a_plain_copy_of_a_live_store_is_a_beginning_or_refused() {
    let place = Place::new();
    let store = place.store();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (store, stop) = (store.clone(), stop.clone());
        std::thread::spawn(move || {
            let mut n = 0;
            // No more than can be read again and again.
            while !stop.load(Ordering::SeqCst) && n < 4000 {
                fill(&store, n, n + 10);
                n += 10;
            }
        })
    };
    let (mut opened, mut refused) = (Vec::new(), 0);
    for round in 0..20 {
        let to = place.path(&format!("cp-{round}"));
        copy_plainly(&place.path("live"), &to);
        let found = Store::open_read_only(&to).and_then(|store| Ok((try_prints(&store)?, store.verify()?)));
        let wrote = Store::open(&to).and_then(|store| try_prints(&store));
        match (found, wrote) {
            (Ok((found, report)), Ok(wrote)) => {
                assert!(report.is_clean(), "{report}");
                assert_eq!(found, wrote);
                opened.push(found);
            }
            (Err(error), Err(other)) => {
                assert_eq!((error.kind(), other.kind()), (ErrorKind::Corrupt, ErrorKind::Corrupt), "{error}");
                assert!(error.to_string().contains("segments/"), "{error}");
                refused += 1;
            }
            (found, wrote) => panic!("{found:?} to a reader, {wrote:?} to a writer"),
        }
    }
    stop.store(true, Ordering::SeqCst);
    writer.join().unwrap();
    let all = prints(&store);
    for found in &opened {
        assert_eq!(found[..], all[..found.len()]);
    }
    assert!(!opened.is_empty(), "{refused} refused");
}

#[test]
fn damage_in_a_backup_is_found() {
    let place = Place::new();
    let store = place.store();
    fill(&store, 0, 40);
    let report = store.backup(place.path("copy")).without_sharing().run().unwrap();
    let name = fs::read_dir(place.path("copy/segments")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&name).unwrap();
    bytes[200] ^= 1;
    fs::write(&name, bytes).unwrap();
    assert!(!verify_backup(place.path("copy"), &report.head).unwrap().is_clean());
    assert!(store.verify().unwrap().is_clean());
    let older = verify_backup(place.path("live"), &all_zero(&report.head)).unwrap();
    assert_eq!(older.findings.len(), 1, "{older}");
}

#[test]
fn an_empty_store_can_be_copied_too() {
    let store = Store::in_memory().unwrap();
    let (copy, fork) = (MemDisk::new(), MemDisk::new());
    let report = store.backup_on(copy.clone()).run().unwrap();
    assert_eq!(report.head.position(), Position::START);
    store.fork_on(fork.clone(), Until::End).run().unwrap();
    assert_eq!(Store::on(fork).open().unwrap().count(Query::all()).unwrap(), 0);
    let again = Subdirectory::create(MemDisk::new(), "a/b").unwrap();
    StoreCopy::restore_on(Store::on(copy.clone()), again.clone(), Until::End).run().unwrap();
    let again = Store::on(again).open().unwrap();
    fill(&again, 0, 3);
    assert_eq!(again.head().unwrap().position().get(), 4);
    let error: Result<_, Error> = Store::on(MemDisk::new()).rollback(Until::End, &again.head().unwrap(), "");
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Invalid);
}

/// A store that was forked and rewritten: events were removed, and an attestation stands for them.
#[test]
fn what_was_rewritten_is_copied_as_it_is() {
    let source = Store::on(disk_of(&golden_store("rewritten"))).open_read_only().unwrap();
    let all = everything(&source);
    let (copy, head) = (MemDisk::new(), source.head().unwrap());
    assert_eq!(source.backup_on(copy.clone()).run().unwrap().head, head);
    assert!(Store::on(copy.clone()).verify_against(&head).unwrap().is_clean());
    assert_eq!(prints(&Store::on(copy.clone()).open_read_only().unwrap()), prints(&source));
    for until in 0..=head.position().get() {
        for is_fork in [false, true] {
            let made = MemDisk::new();
            let position = Position::from(until);
            let run = match is_fork {
                true => source.fork_on(made.clone(), position),
                false => StoreCopy::restore_on(Store::on(copy.clone()), made.clone(), position),
            };
            let end = run.run().unwrap().head.position();
            assert!(end <= position);
            let store = Store::on(made.clone()).open().unwrap();
            let found = everything(&store);
            let expected = all.iter().take_while(|event| event.position() <= end);
            let expected: Vec<u64> = expected.map(fingerprint).collect();
            let (entry, events) = found.split_last().unwrap();
            assert_eq!(events.iter().map(fingerprint).collect::<Vec<_>>(), expected, "{until}");
            assert_eq!(entry.position().get(), end.get() + 1, "{until}");
            fill(&store, 0, 3);
            let head = store.head().unwrap();
            assert!(store.verify().unwrap().is_clean(), "{until}");
            store.close().unwrap();
            if end.get() > 0 {
                // Into the rewritten segment once more.
                Store::on(made.clone()).rollback(Position::from(end.get() - 1), &head, "").unwrap();
                let store = Store::on(made).open().unwrap();
                assert!(store.verify().unwrap().is_clean(), "{until}");
                assert!(everything(&store).len() <= expected.len() + 1, "{until}");
            }
        }
    }
}

/// MANIFEST may lag behind. To a segment it does not list, recovery may have to write, so it must not be
/// shared.
#[test]
fn what_manifest_does_not_list_is_not_shared() {
    let place = Place::new();
    let store = place.store();
    fill(&store, 0, 20);
    let older = fs::read(place.path("live/MANIFEST")).unwrap();
    fill(&store, 20, 40);
    let all = prints(&store);
    store.close().unwrap();
    fs::write(place.path("live/MANIFEST"), older).unwrap();
    let reader = Store::open_read_only(place.path("live")).unwrap();
    let report = reader.backup(place.path("copy")).run().unwrap();
    assert!(report.shared > 0 && report.copied > 3, "{report}");
    drop(reader);
    for name in ["live", "copy"] {
        let store = Store::open(place.path(name)).unwrap();
        assert_eq!(prints(&store), all, "{name}");
        fill(&store, 0, 1);
    }
}

/// What is left of the first try must not be taken for the end of the second.
#[test]
fn a_restore_that_was_stopped_can_be_made_up_to_another_place() {
    let place = Place::new();
    let store = place.store();
    fill(&store, 0, 60);
    let all = prints(&store);
    store.backup(place.path("copy")).run().unwrap();
    let mut left = 8;
    let stopped = restore(place.path("copy"), place.path("again"), Until::End).on_progress(move |_| {
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(stopped.run().unwrap_err().kind(), ErrorKind::Cancelled);
    restore(place.path("copy"), place.path("again"), Position::from(12)).run().unwrap();
    let again = Store::open(place.path("again")).unwrap();
    assert_eq!(prints(&again)[..12], all[..12]);
    assert!(again.verify().unwrap().is_clean() && again.open_report().unknown.is_empty());
}

/// Of about 3 MB, in three segments, the last of them long.
fn large(disk: &MemDisk) -> (Store, Head) {
    let store = Store::on(disk.clone()).segment_bytes_max(1 << 20).open().unwrap();
    let blob = Bytes("blob", vec![7; 100_000]);
    for number in 0..28 {
        Append::to(format!("e:{}", number % 3)).event(&blob).commit(&store).unwrap();
    }
    let head = store.head().unwrap();
    (store, head)
}

#[test]
fn a_rollback_says_how_far_it_is_and_may_be_broken_off_until_it_cuts() {
    // Within the second segment, and within the first.
    for kept in [15, 4] {
        let until = u64::try_from(kept).unwrap();
        let disk = MemDisk::new();
        let (store, cut) = large(&disk);
        let all = prints(&store);
        store.close().unwrap();
        let mut told = 0;
        loop {
            let seen = Arc::new(Mutex::new(Vec::<CopyProgress>::new()));
            let rollback = Store::on(disk.clone()).rollback_watched(Position::from(until), &cut, "", {
                let seen = seen.clone();
                move |progress| {
                    seen.lock().unwrap().push(*progress);
                    if seen.lock().unwrap().len() > told {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                }
            });
            let seen = seen.lock().unwrap().clone();
            let bytes: Vec<u64> = seen.iter().map(|now| now.bytes).collect();
            assert!(bytes.is_sorted() && seen.iter().all(|now| now.bytes <= now.bytes_total), "{seen:?}");
            assert!(seen.iter().all(|now| now.bytes == 0 || now.remaining().is_some()), "{seen:?}");
            let Err(error) = rollback else {
                let last = seen.last().unwrap();
                assert_eq!(last.bytes, last.bytes_total, "the last word is that all is there");
                assert!(told >= 3, "{told}");
                break;
            };
            assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
            assert!(error.to_string().contains("nothing was cut"), "{error}");
            let store = Store::on(disk.clone()).open_read_only().unwrap();
            assert_eq!(
                (store.head().unwrap(), prints(&store)),
                (cut, all.clone()),
                "broken off after {told}"
            );
            assert!(Store::on(disk.clone()).verify().unwrap().is_clean());
            told += 1;
        }
        let store = Store::on(disk.clone()).open().unwrap();
        assert_eq!(prints(&store)[..kept], all[..kept]);
        assert!(store.verify().unwrap().is_clean());
        store.close().unwrap();
    }
}

#[test]
fn a_restore_says_that_all_is_there_in_the_end() {
    let (disk, again) = (MemDisk::new(), MemDisk::new());
    let (_store, _) = large(&disk);
    let seen = Arc::new(Mutex::new(CopyProgress::default()));
    let tell = seen.clone();
    let copy = StoreCopy::restore_on(Store::on(disk), again, Position::from(15));
    let report = copy.on_progress(move |now| {
        *tell.lock().unwrap() = *now;
        ControlFlow::Continue(())
    });
    let report = report.run().unwrap();
    let last = *seen.lock().unwrap();
    assert_eq!((last.bytes, last.bytes), (last.bytes_total, report.bytes));
}

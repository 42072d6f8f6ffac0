//! Who may write, and what happens when LOCK, the directory, a file or the process goes away: SPEC.md 1.8,
//! line by line, with processes.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use annals::{ErrorKind, Raw, Store, WriterState};
use tempfile::TempDir;

use crate::obedient::Obedient;
use crate::sim_support::heavy;
use crate::support::{FOREVER, Random, eventually, kind_of};

/// No process waits longer than this.
const SOON: Duration = Duration::from_secs(2);

fn temporary() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// The file that the writer appends to.
fn segment(store: &Path) -> std::path::PathBuf {
    let segments = fs::read_dir(store.join("segments")).unwrap();
    segments.map(|entry| entry.unwrap().path()).max().unwrap()
}

fn replace(path: &Path) {
    fs::rename(path, path.with_extension("away")).unwrap();
    fs::write(path, "").unwrap();
}

/// Something that happens to a store's files.
type Blow = (&'static str, fn(&Path), &'static str);

/// What happens, and what the writer says about it. All of these leave the directory, so no second writer
/// comes in.
const BLOWS: [Blow; 9] = [
    ("LOCK removed", |store| fs::remove_file(store.join("LOCK")).unwrap(), "LOCK was removed or renamed"),
    ("LOCK renamed", |store| fs::rename(store.join("LOCK"), store.join("KCOL")).unwrap(), "LOCK was removed"),
    ("LOCK replaced", |store| replace(&store.join("LOCK")), "LOCK was replaced by another file"),
    ("segment removed", |store| fs::remove_file(segment(store)).unwrap(), ".seg was removed or renamed"),
    ("segment replaced", |store| replace(&segment(store)), ".seg was replaced by another file"),
    (
        "segments renamed",
        |store| fs::rename(store.join("segments"), store.join("away")).unwrap(),
        ".seg was removed or renamed",
    ),
    ("MARK removed", |store| fs::remove_file(store.join("MARK")).unwrap(), "MARK was removed or renamed"),
    ("MARK replaced", |store| replace(&store.join("MARK")), "MARK was replaced by another file"),
    ("MANIFEST removed", |store| fs::remove_file(store.join("MANIFEST")).unwrap(), "MANIFEST was removed"),
];

// `rm LOCK` under a running writer: a second process opened the store, and both acknowledged the same positions. With
// any other file of the log, or all of them, removed, appends were acknowledged to files without a name, 929 of them.
#[test]
fn a_writer_stops_when_a_file_is_taken_from_it() {
    for (blow, strike, said) in BLOWS {
        for is_buffered in [false, true] {
            let directory = temporary();
            let store = directory.path();
            // What is sealed is not looked at.
            let mut writer = Obedient::opened_with(store, 1 << 30);
            assert_eq!([writer.append(), writer.append()], [1, 2]);
            if is_buffered {
                assert_eq!(writer.ask("pour"), "pouring");
            }
            strike(store);
            let struck = Instant::now();
            let error = kind_of(Store::open(store));
            assert_eq!(error, ErrorKind::Locked, "{blow}: the directory is still locked");
            // The small files are looked at every 100 ms, the others before each acknowledgement.
            let is_small = blow.starts_with('M');
            let told = loop {
                let told = if is_buffered { writer.hear() } else { writer.ask("append") };
                if !(is_small && told.starts_with("ack ")) {
                    break told;
                }
                assert!(struck.elapsed() < Duration::from_secs(1), "{blow}: it still acknowledges");
            };
            assert!(told.contains("CommitUnknown") && told.contains(said), "{blow}: {told}");
            assert!(struck.elapsed() < SOON, "{blow}: {:?}", struck.elapsed());
            let told = writer.ask("append");
            assert!(told.starts_with("Poisoned") && told.contains(said), "{blow}: {told}");
            let told = writer.ask("close");
            assert!(told.starts_with("Poisoned"), "{blow}: {told}");
        }
    }
}

#[test]
fn what_was_acknowledged_before_lock_went_is_there() {
    let directory = temporary();
    let store = directory.path();
    let mut writer = Obedient::opened(store);
    assert_eq!([writer.append(), writer.append()], [1, 2]);
    fs::remove_file(store.join("LOCK")).unwrap();
    assert!(writer.ask("append").starts_with("CommitUnknown"));
    drop(writer);
    let store = Store::builder(store).open_within(FOREVER).unwrap();
    assert!((2..=3).contains(&store.count(annals::Query::all()).unwrap()));
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn a_writer_stops_when_the_directory_is_removed() {
    for order in ["append", "buffered", "close"] {
        let directory = temporary();
        let store = directory.path().join("store");
        let mut writer = Obedient::opened(&store);
        assert_eq!(writer.append(), 1);
        fs::remove_dir_all(&store).unwrap();
        // Another store may come to the same place at once; it is another directory.
        let other = Store::open(&store).unwrap();
        assert_eq!(other.append("e", &Raw("k", &())).unwrap().position().get(), 1);
        let began = Instant::now();
        let told = loop {
            let told = writer.ask(order);
            assert!(order == "buffered" || !told.starts_with("ack"), "{order}: {told}");
            if !told.starts_with("ack") {
                break told;
            }
            assert!(began.elapsed() < Duration::from_secs(1), "it still acknowledges");
        };
        assert!(told.contains("the directory was removed"), "{order}: {told}");
    }
}

// Everything a store needs is reached through the open directory, so its name may change under the writer.
#[test]
fn a_directory_may_be_moved_and_another_take_its_name() {
    let directory = temporary();
    let (store, moved) = (directory.path().join("store"), directory.path().join("moved"));
    let mut writer = Obedient::opened(&store);
    assert_eq!(writer.append(), 1);
    fs::rename(&store, &moved).unwrap();
    // Over several segments.
    for position in 2..100 {
        assert_eq!(writer.append(), position);
    }
    assert_eq!(kind_of(Store::open(&moved)), ErrorKind::Locked);
    let other = Store::open(&store).unwrap();
    assert_eq!(other.append("e", &Raw("k", &())).unwrap().position().get(), 1);
    assert_eq!(writer.append(), 100);
    assert_eq!(writer.ask("close"), "closed");
    let moved = Store::open(&moved).unwrap();
    assert_eq!(moved.head().unwrap().position().get(), 100);
    assert!(moved.verify().unwrap().is_clean() && moved.open_report().clean);
}

/// "In 1,000 tries never two acknowledgements of one position, never a hang over 2 s."
#[test]
fn no_position_is_acknowledged_twice() {
    let tries = 10 * heavy();
    let mut random = Random::for_test("no_position_is_acknowledged_twice");
    let (mut refused, mut longest, mut acknowledged) = (0_u64, Duration::ZERO, 0_usize);
    for number in 0..tries {
        let directory = temporary();
        let store = directory.path();
        let mut writer = Obedient::opened(store);
        writer.order("stream");
        let mut positions: Vec<u64> = Vec::new();
        let position = |told: &str| told.strip_prefix("ack ").map(|position| position.parse().unwrap());
        for _ in 0..random.below(20) {
            positions.extend(position(&writer.hear()));
        }
        let struck = Instant::now();
        BLOWS[usize::try_from(random.below(3)).unwrap()].1(store);
        match Store::open(store) {
            Ok(second) => {
                for _ in 0..5 {
                    let appended = second.append("e", &Raw("k", &()));
                    positions.extend(appended.map(|receipt| receipt.position().get()));
                }
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
                refused += 1;
            }
        }
        loop {
            let left = SOON.saturating_sub(struck.elapsed());
            let told = writer.hear_within(left).expect("the first writer goes on, or hangs");
            match position(&told) {
                Some(position) => positions.push(position),
                None => break,
            }
        }
        longest = longest.max(struck.elapsed());
        let count = positions.len();
        positions.sort_unstable();
        positions.dedup();
        assert_eq!(positions.len(), count, "try {number}: a position was acknowledged twice");
        acknowledged += count;
    }
    println!(
        "{tries} tries, {refused} second writers refused, {acknowledged} acknowledgements, none twice, {longest:?} at most"
    );
    assert_eq!(refused, tries);
}

// A lock belongs to an open file, which children share: those that have not begun their own program yet, too. And who
// looked whether a store is locked locked it for that moment. 5 of 1,199 opens beside children were `Locked`, and 5 of
// 1,379 beside readers.
#[test]
fn opens_beside_children_and_readers_are_never_refused() {
    let opens = 200 * heavy();
    let directory = temporary();
    Store::open(directory.path()).unwrap().close().unwrap();
    let (is_over, children, looks) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                assert!(Command::new("true").status().unwrap().success());
                children.fetch_add(1, Ordering::SeqCst);
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    let reader = Store::open_read_only(directory.path()).unwrap();
                    for _ in 0..20 {
                        reader.writer().unwrap();
                        looks.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        let mut refused = Vec::new();
        for _ in 0..opens {
            match Store::open(directory.path()) {
                Ok(store) => {
                    store.append("e", &Raw("k", &())).unwrap();
                    store.close().unwrap();
                }
                Err(error) => refused.push(error),
            }
        }
        is_over.store(true, Ordering::SeqCst);
        let (children, looks) = (children.load(Ordering::SeqCst), looks.load(Ordering::SeqCst));
        println!("{opens} opens beside {children} children and {looks} looks: {} refused", refused.len());
        assert!(refused.is_empty() && children > 0 && looks > 0, "{} of {opens}: {refused:?}", refused.len());
    });
}

fn kill(process: &str) {
    assert!(Command::new("kill").args(["-9", process]).status().unwrap().success());
}

// Closing left the lock to children that had been forked: the parent's own next open was `Locked`, by itself.
#[test]
fn a_closed_store_is_free_while_a_forked_child_lives() {
    let directory = temporary();
    let mut parent = Obedient::opened(directory.path());
    let told = parent.ask("fork");
    let child = told.strip_prefix("forked ").unwrap();
    assert_eq!((parent.append(), parent.ask("close").as_str()), (1, "closed"));
    Store::open(directory.path()).unwrap().close().unwrap();
    kill(child);
}

#[test]
fn a_forked_child_that_drops_the_store_frees_nothing() {
    let directory = temporary();
    let mut parent = Obedient::opened(directory.path());
    assert_eq!(parent.ask("fork and drop"), "it ended with 0");
    let error = Store::open(directory.path()).map(drop).unwrap_err();
    assert_eq!((error.kind(), error.locked_by()), (ErrorKind::Locked, Some(parent.id())));
    assert_eq!((parent.append(), parent.ask("close").as_str()), (1, "closed"));
}

// The error of a fork says "open the store here once the parent has closed it". The child had the parent's table of
// open stores, and was `Locked` by itself for ever.
#[test]
fn a_forked_child_may_open_what_its_parent_closed_or_left() {
    for is_killed in [false, true] {
        let directory = temporary();
        let mut parent = Obedient::opened(directory.path());
        assert!(parent.ask("fork and open").starts_with("forked "));
        assert_eq!(parent.append(), 1);
        if is_killed {
            parent.kill();
        } else {
            parent.order("close");
        }
        let told = std::iter::from_fn(|| Some(parent.hear())).find(|told| told != "closed").unwrap();
        assert_eq!(told, "ack 2", "the parent was killed: {is_killed}");
    }
}

// The parent was killed, its child lives: `Locked`, by a process that is not there, and "close it there".
#[test]
fn a_lock_that_a_child_was_left_with_is_told_apart() {
    let directory = temporary();
    let mut parent = Obedient::opened(directory.path());
    let told = parent.ask("fork");
    let child = told.strip_prefix("forked ").unwrap();
    // Also while no process has asked yet how it ended.
    kill(&parent.id().to_string());
    eventually("it has ended", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", parent.id())).unwrap();
        stat.contains(") Z ")
    });
    let error = Store::open(directory.path()).map(drop).unwrap_err();
    assert!(error.to_string().contains("does not run any more"), "{error}");
    parent.kill();
    let error = Store::open(directory.path()).map(drop).unwrap_err();
    assert_eq!((error.kind(), error.locked_by()), (ErrorKind::Locked, Some(parent.id())));
    let text = error.to_string();
    assert!(text.contains("does not run any more") && text.contains("a process that it forked"), "{text}");
    let reader = Store::open_read_only(directory.path()).unwrap();
    assert_eq!(reader.writer().unwrap(), WriterState::Elsewhere);
    kill(child);
    eventually("the lock is free", || Store::open(directory.path()).is_ok());
}

#[test]
fn who_has_the_store_is_named_truly() {
    let directory = temporary();
    let store = Store::open(directory.path()).unwrap();
    let error = Store::open(directory.path()).map(drop).unwrap_err();
    assert_eq!(error.locked_by(), Some(std::process::id()));
    assert!(error.to_string().contains("by this process itself"), "{error}");
    let told = Obedient::new(directory.path()).hear();
    assert!(
        told.contains(&format!("open for writing in process {}; close it there", std::process::id())),
        "{told}"
    );
    // "In process 1", for a container's writer. The file is written over, so it is the one that is locked.
    let lock = directory.path().join("LOCK");
    assert_eq!(fs::metadata(&lock).unwrap().len(), 32);
    fs::write(&lock, format!("{:<10}\n{:<20}\n", 1, 1)).unwrap();
    let told = Obedient::new(directory.path()).hear();
    assert!(told.contains("in another container (its process 1)"), "{told}");
    store.close().unwrap();
    // A number that stands in a LOCK that is not locked means nothing.
    let mut writer = Obedient::opened(directory.path());
    fs::remove_file(directory.path().join("LOCK")).unwrap();
    fs::write(directory.path().join("LOCK"), "1         \n").unwrap();
    let error = Store::open(directory.path()).map(drop).unwrap_err();
    assert_eq!((error.kind(), error.locked_by()), (ErrorKind::Locked, None), "{error}");
    assert!(writer.ask("append").starts_with("CommitUnknown"));
}

#[test]
fn a_reader_sees_whether_one_writes() {
    let directory = temporary();
    let mut writer = Obedient::opened(directory.path());
    writer.append();
    let reader = Store::open_read_only(directory.path()).unwrap();
    assert_eq!(reader.writer().unwrap(), WriterState::Elsewhere);
    assert_eq!(writer.ask("close"), "closed");
    assert_eq!(reader.writer().unwrap(), WriterState::Closed);
    drop(writer);
    let mut writer = Obedient::opened(directory.path());
    writer.append();
    writer.kill();
    assert_eq!(reader.writer().unwrap(), WriterState::Gone);
}

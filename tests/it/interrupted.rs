//! System calls that a signal interrupts. A local disk hardly ever does that, so strace says it in its place.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use annals::{Append, Query, Raw, Store};

use crate::support::is_child;

/// What is made to answer EINTR every second time: so a call that is made again gets through.
const CALLS: [&str; 17] = [
    "openat",
    "newfstatat",
    "fstat",
    "statx",
    "getdents64",
    "flock",
    "fchmod",
    "mkdirat",
    "renameat",
    "unlinkat",
    "linkat",
    "ftruncate",
    "fsync",
    "fdatasync",
    "pread64",
    "pwrite64",
    "fadvise64",
];

/// The life of a store. Of a first process: it is made, filled over several segments, rewritten, copied,
/// closed.
fn begin(place: &Path) {
    let store = open(place);
    fill(&store, 40);
    store.erase(Query::entity("e:1"), "why").unwrap();
    store.compaction("why").merge().run().unwrap();
    store.backup(place.join("backup")).run().unwrap();
    store.close().unwrap();
}

/// Of a second one: it is recovered, goes on, and is read.
fn end(place: &Path) {
    let store = open(place);
    assert!(store.open_report().cut.is_some(), "{}", store.open_report());
    fill(&store, 10);
    store.close().unwrap();
    let reader = Store::open_read_only(place.join("store")).unwrap();
    assert!(reader.verify().unwrap().is_clean());
    assert!(reader.read(Query::all()).count() >= 50);
}

fn open(place: &Path) -> Store {
    Store::builder(place.join("store")).segment_bytes_max(2_000).open().unwrap()
}

fn fill(store: &Store, count: u64) {
    for number in 0..count {
        let event = Raw("k", &"x".repeat(100));
        Append::to(format!("e:{}", number % 3)).event(&event).commit(store).unwrap();
    }
}

/// Leaves the store as a power cut might.
fn tear(store: &Path) {
    let segments = std::fs::read_dir(store.join("segments")).unwrap().map(|entry| entry.unwrap().path());
    let last = segments.filter(|path| path.extension().is_some_and(|end| end == "seg")).max().unwrap();
    let mut bytes = std::fs::read(&last).unwrap();
    let end = (bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1).next_multiple_of(8);
    bytes.resize(bytes.len().max(end + 20), 0);
    bytes[end..end + 5].copy_from_slice(b"torn!");
    std::fs::write(&last, bytes).unwrap();
    std::fs::remove_file(store.join("MARK")).unwrap();
}

// EINTR at opening LOCK, a segment or MANIFEST.tmp was an error, and the last one poisoned the store.
#[test]
fn an_interrupted_call_is_made_again() {
    const TEST: &str = "interrupted::an_interrupted_call_is_made_again";
    if is_child() {
        let place = std::env::var_os("ANNALS_LIVE").unwrap();
        let place = Path::new(&place);
        return if place.join("store").exists() { end(place) } else { begin(place) };
    }
    let is_there = Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    if !is_there.is_ok_and(|output| output.status.success()) {
        return println!("there is no strace, so nothing was interrupted");
    }
    let mut never = BTreeSet::new();
    for call in CALLS {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().canonicalize().unwrap();
        let before = interrupted(TEST, call, &place);
        tear(&place.join("store"));
        let count = before + interrupted(TEST, call, &place);
        println!("{call}: interrupted {count} times");
        if count == 0 {
            never.insert(call);
        }
    }
    // A C library asks for files in one way or the other.
    assert!(!(never.contains("fstat") && never.contains("newfstatat")));
    let others: Vec<_> = never.iter().filter(|call| !["fstat", "newfstatat"].contains(*call)).collect();
    assert!(others.is_empty(), "never called: {others:?}");
}

/// Runs the test once more, in a process whose calls of this kind are interrupted every second time. Says how
/// often that happened.
fn interrupted(test: &str, call: &str, place: &Path) -> usize {
    let (store, log) = (place.join("store"), place.join("log"));
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(&log);
    // Only of the store's own files and directories: the loader and the runtime are not ours to mend.
    for path in ["store", "store/segments", "store/quarantine", "store/cache", "backup", "backup/segments"] {
        command.arg("-P").arg(place.join(path));
    }
    for name in ["LOCK", "MARK", "MANIFEST", "MANIFEST.tmp"] {
        command.arg("-P").arg(store.join(name));
    }
    for first in 1..100 {
        for end in ["0.seg", "1.seg.tmp", "2.seg.tmp", "0.idx.tmp"] {
            command.arg("-P").arg(store.join(format!("segments/{first:020}.{end}")));
        }
    }
    command.args(["-e", &format!("trace={call}"), "-e", &format!("inject={call}:error=EINTR:when=1+2")]);
    command.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture", "--test-threads=1"]);
    let output = command.env("ANNALS_TEST_CHILD", "1").env("ANNALS_LIVE", place).output().unwrap();
    let [said, errors] =
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(output.status.success(), "{call}: {said}{errors}");
    let log = std::fs::read_to_string(&log).unwrap();
    log.lines().filter(|line| line.contains("EINTR") && line.contains("INJECTED")).count()
}

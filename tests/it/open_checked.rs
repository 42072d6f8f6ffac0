//! What is checked of sealed segments before a writer is let in, and right after that: SPEC.md "Recovery".
//!
//! Found from outside: a writer opened over sealed segments that were cut, grown, exchanged, foreign or
//! missing. It acknowledged appends behind them (213 of 1,100 cases). Only a later read met the damage.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use annals::disk::{Access, CrashMode, Disk, Fault, SimDisk};
use annals::{Append, Builder, Error, ErrorKind, Position, Query, Raw, RestartPolicy, Store};

use crate::corrupt::{contents, u64_at};
use crate::open::listing;
use crate::sim_spy::{Spy, What};
use crate::support::{Behind, FOREVER, GatedDisk, eventually, in_child, is_child, kind_of};

/// How soon damage in an old segment must stop appends.
const SOON: Duration = Duration::from_secs(2);
/// Opening reads the headers of this number of segments.
const NEWEST: usize = 64;

fn builder(disk: &SimDisk) -> Builder {
    Store::on(disk.clone()).segment_bytes_max(900)
}

/// One segment for each append.
fn tiny(disk: impl Disk) -> Builder {
    Store::on(disk).segment_bytes_max(0)
}

fn append(store: &Store, number: u64, text: &str) -> Result<(), Error> {
    Append::to(format!("e:{}", number % 5)).event(&Raw("k", &(number, text))).commit(store).map(drop)
}

/// A closed store of some sealed segments.
fn written(seed: u64, builder: fn(&SimDisk) -> Builder, appends: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    let store = builder(&disk).open().unwrap();
    (0..appends).for_each(|number| append(&store, number, "text").unwrap());
    settled(&disk);
    store.close().unwrap();
    disk
}

/// Waits until the indexes are written, so that nothing changes by itself any more.
fn settled(disk: &SimDisk) {
    let count = |end: &str| disk.paths().iter().filter(|path| path.ends_with(end)).count();
    eventually("the indexes are written", || count(".idx") + 1 >= count(".seg"));
}

fn copy(disk: &SimDisk) -> SimDisk {
    let trace = disk.trace();
    trace.image(trace.len(), CrashMode::Keep)
}

/// The sealed segments of a closed store, in order.
fn sealed(disk: &SimDisk) -> Vec<String> {
    let mut paths: Vec<String> = disk.paths().into_iter().filter(|path| path.ends_with(".seg")).collect();
    paths.pop();
    paths
}

/// Opens for writing; says what is wrong if a writer is let in, or is refused in another way than it should
/// be.
fn let_in(disk: &SimDisk, path: &str, kind: ErrorKind, what: &str) -> Option<String> {
    let before = contents(disk);
    match builder(disk).open() {
        Ok(store) => {
            let acknowledged = append(&store, 1, "behind damage").is_ok();
            Some(format!("{what}: let in, an append acknowledged: {acknowledged}"))
        }
        Err(error) if error.kind() != kind => Some(format!("{what}: {:?} {error}", error.kind())),
        Err(error) if !error.to_string().contains(path) => {
            Some(format!("{what}: does not name {path}: {error}"))
        }
        Err(_) if contents(disk) != before => Some(format!("{what}: refused, but changed something")),
        Err(_) => None,
    }
}

fn check_none(let_in: &[String], tried: usize) {
    let first: Vec<&String> = let_in.iter().take(20).collect();
    assert!(let_in.is_empty(), "{} of {tried}, among them {first:#?}", let_in.len());
}

/// Makes the checksum of a changed header, or of the seal at the end, fit again.
fn refit(bytes: &mut [u8], at: usize) {
    if at < 144 {
        let crc = crc32c::crc32c(&bytes[..140]);
        bytes[140..144].copy_from_slice(&crc.to_le_bytes());
    } else {
        let seal = bytes.len() - 72;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[seal..seal + 8]), &bytes[seal + 12..]);
        bytes[seal + 8..seal + 12].copy_from_slice(&crc.to_le_bytes());
    }
}

/// What header and seal say of the segment's place: where, and what it is.
fn fields(length: usize) -> Vec<(usize, &'static str)> {
    let header = [
        (40, "store id"),
        (56, "first position"),
        (64, "generation"),
        (72, "salt"),
        (96, "chain before"),
        (128, "recorded-at before"),
    ];
    let seal = [
        (0, "mark"),
        (12, "length"),
        (16, "last position"),
        (24, "last recorded-at"),
        (32, "frames"),
        (36, "events"),
        (40, "chain"),
    ];
    header.into_iter().chain(seal.map(|(at, name)| (length - 72 + at, name))).collect()
}

#[test]
fn every_listed_segment_must_be_as_it_is_listed() {
    let (disk, stranger) = (written(1, builder, 40), written(2, builder, 40));
    let paths = sealed(&disk);
    assert!(paths.len() > 4, "{paths:?}");
    let bytes = |path: &str| disk.contents(path).unwrap();
    let (mut wrong, mut tried) = (Vec::new(), 0);
    let mut damage = |path: &str, changes: &[(&str, Option<Vec<u8>>)], what: String| {
        let disk = copy(&disk);
        changes.iter().for_each(|(path, bytes)| disk.set_contents(path, bytes.clone()));
        tried += 1;
        wrong.extend(let_in(&disk, path, ErrorKind::Corrupt, &format!("{path}: {what}")));
    };
    for path in &paths {
        let own = bytes(path);
        damage(path, &[(path, None)], "missing".to_owned());
        for length in (0..50).map(|part| own.len() * part / 50) {
            damage(path, &[(path, Some(own[..length].to_vec()))], format!("cut at {length}"));
        }
        for more in [1, 8, 72, 4096] {
            let mut grown = own.clone();
            grown.resize(own.len() + more, 0);
            damage(path, &[(path, Some(grown))], format!("grown by {more}"));
        }
        let foreign = stranger.contents(path).unwrap();
        assert_eq!(foreign.len(), own.len());
        damage(path, &[(path, Some(foreign))], "from another store".to_owned());
        for other in paths.iter().filter(|other| other > &path) {
            let swapped = [(path.as_str(), Some(bytes(other))), (other.as_str(), Some(own.clone()))];
            damage(path, &swapped, format!("swapped with {other}"));
        }
        for (at, field) in fields(own.len()) {
            let mut forged = own.clone();
            forged[at] ^= 2;
            damage(path, &[(path, Some(forged.clone()))], format!("a flipped bit in {field}"));
            refit(&mut forged, at);
            damage(path, &[(path, Some(forged))], format!("another {field}"));
        }
    }
    check_none(&wrong, tried);
}

// Copies of a store have its id: only the chain in the seal tells their segments from the store's own.
#[test]
fn a_segment_of_a_copy_that_went_another_way_is_refused() {
    let disk = written(3, builder, 12);
    let (one, other) = (copy(&disk), copy(&disk));
    for (disk, text) in [(&one, "one!"), (&other, "none")] {
        let store = builder(disk).open().unwrap();
        (0..30).for_each(|number| append(&store, number, text).unwrap());
        settled(disk);
        store.close().unwrap();
    }
    let mut wrong = Vec::new();
    let differ: Vec<String> =
        sealed(&one).into_iter().filter(|path| one.contents(path) != other.contents(path)).collect();
    assert!(differ.len() > 2);
    for path in &differ {
        let disk = copy(&one);
        let (own, copied) = (one.contents(path).unwrap(), other.contents(path).unwrap());
        assert_eq!((own.len(), &own[..72]), (copied.len(), &copied[..72]), "as long, and with the same name");
        disk.set_contents(path, Some(copied));
        wrong.extend(let_in(&disk, path, ErrorKind::Corrupt, path));
    }
    check_none(&wrong, differ.len());
}

#[test]
fn an_older_generation_of_a_segment_is_refused() {
    let disk = written(4, builder, 60);
    let old = copy(&disk);
    let store = builder(&disk).open().unwrap();
    let compaction = store.compaction("the first entity").remove(Query::entity("e:0")).run().unwrap();
    assert!(compaction.removed > 3, "{compaction:?}");
    settled(&disk);
    store.close().unwrap();
    let (mut wrong, mut tried) = (Vec::new(), 0);
    for path in sealed(&disk).iter().filter(|path| path.contains(".1.seg")) {
        let older = old.contents(&path.replace(".1.seg", ".0.seg")).unwrap();
        let mut forged = disk.contents(path).unwrap();
        forged[64] = 0;
        refit(&mut forged, 64);
        for (what, bytes) in [("what it was made of", older), ("generation 0", forged)] {
            let disk = copy(&disk);
            disk.set_contents(path, Some(bytes));
            wrong.extend(let_in(&disk, path, ErrorKind::Corrupt, &format!("{path}: {what}")));
            tried += 1;
        }
    }
    assert!(tried > 6);
    check_none(&wrong, tried);
}

// A name of that form means: this is a part of the log. If it is none, the directory was changed in an unknown way.
#[test]
fn a_segment_that_nothing_lists_refuses_a_writer() {
    let (disk, stranger) = (written(5, builder, 40), written(6, builder, 40));
    let first = disk.contents("segments/00000000000000000001.0.seg").unwrap();
    let foreign = stranger.contents("segments/00000000000000000001.0.seg").unwrap();
    let names =
        ["00000000000000000001.1.seg", "00000000000000000002.0.seg", "00000000000000000007.4294967295.seg"];
    let (mut wrong, mut tried) = (Vec::new(), 0);
    for name in names {
        for bytes in [&first, &foreign, &b"a letter".to_vec(), &Vec::new()] {
            let (disk, path) = (copy(&disk), format!("segments/{name}"));
            disk.set_contents(&path, Some(bytes.clone()));
            wrong.extend(let_in(
                &disk,
                &path,
                ErrorKind::Corrupt,
                &format!("{path} of {} bytes", bytes.len()),
            ));
            let reader = builder(&disk).open_read_only().unwrap();
            assert_eq!(reader.open_report().unknown, std::slice::from_ref(&path));
            let report = builder(&disk).verify().unwrap();
            assert!(report.findings.iter().any(|found| found.file == path), "{report}");
            tried += 1;
        }
    }
    check_none(&wrong, tried);
    // What a stop left of rewriting goes, as ever.
    let mut left = first;
    left[64] = 1;
    refit(&mut left, 64);
    disk.set_contents("segments/00000000000000000001.1.seg", Some(left));
    let store = builder(&disk).open().unwrap();
    assert_eq!(store.open_report().removed, ["segments/00000000000000000001.1.seg"]);
}

/// What else a file can be.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Gone,
    Cut,
    Grown,
    /// To the segment, moved out.
    Link,
    HardLinkOfAnother,
    HardLinkOfAnotherAsLong,
    Fifo,
    Directory,
    Socket,
}

const KINDS: [Kind; 9] = [
    Kind::Gone,
    Kind::Cut,
    Kind::Grown,
    Kind::Link,
    Kind::HardLinkOfAnother,
    Kind::HardLinkOfAnotherAsLong,
    Kind::Fifo,
    Kind::Directory,
    Kind::Socket,
];

impl Kind {
    fn put(self, path: &Path, other: &Path, outside: &Path) {
        let own = outside.join("own");
        match self {
            Kind::Cut | Kind::Grown => {}
            _ => fs::rename(path, &own).unwrap(),
        }
        let set_length = |change: i64| {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len().checked_add_signed(change).unwrap()).unwrap();
        };
        match self {
            Kind::Gone => {}
            Kind::Cut => set_length(-1),
            Kind::Grown => set_length(1),
            Kind::Link => symlink(&own, path).unwrap(),
            Kind::HardLinkOfAnother | Kind::HardLinkOfAnotherAsLong => fs::hard_link(other, path).unwrap(),
            Kind::Fifo => assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
            Kind::Directory => fs::create_dir(path).unwrap(),
            Kind::Socket => drop(UnixListener::bind(path).unwrap()),
        }
    }

    fn expected(self) -> ErrorKind {
        match self {
            Kind::Link | Kind::Fifo | Kind::Directory | Kind::Socket => ErrorKind::Unsafe,
            _ => ErrorKind::Corrupt,
        }
    }
}

/// A closed store in a directory, and its sealed segments.
fn in_directory(directory: &Path, appends: u64) -> Vec<PathBuf> {
    let store = Store::builder(directory).segment_bytes_max(400).open().unwrap();
    (0..appends).for_each(|number| append(&store, number, "text").unwrap());
    store.close().unwrap();
    let all = fs::read_dir(directory.join("segments")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> =
        all.filter(|path| path.extension().is_some_and(|end| end == "seg")).collect();
    paths.sort();
    paths.pop();
    paths
}

/// All files but LOCK, of which the content decides nothing.
fn everything(directory: &Path) -> impl PartialEq + use<> {
    let mut found = listing(directory);
    found.remove(&directory.join("LOCK"));
    found
}

#[test]
fn every_listed_segment_must_be_a_file_of_its_own() {
    let (mut wrong, mut tried) = (Vec::new(), 0);
    for segment in 0..4 {
        for kind in KINDS {
            let base = tempfile::tempdir().unwrap();
            let (directory, outside) = (base.path().join("store"), base.path().join("outside"));
            fs::create_dir(&outside).unwrap();
            let paths = in_directory(&directory, 6);
            let length = |path: &Path| fs::metadata(path).unwrap().len();
            let path = &paths[segment];
            let is_as_long = matches!(kind, Kind::HardLinkOfAnotherAsLong);
            let other =
                paths.iter().find(|other| *other != path && (length(other) == length(path)) >= is_as_long);
            kind.put(path, other.unwrap(), &outside);
            let (before, name) =
                (everything(&directory), path.strip_prefix(&directory).unwrap().to_str().unwrap());
            // Processes that other tests start hold copies of descriptors for a moment, the lock's among them.
            let opened = Store::builder(&directory).segment_bytes_max(400).open_within(FOREVER);
            let what = format!("{kind:?} for segment {segment}");
            match opened {
                Ok(_) => wrong.push(format!("{what}: let in")),
                Err(error) if error.kind() != kind.expected() => {
                    wrong.push(format!("{what}: {:?} {error}", error.kind()));
                }
                Err(error) if !error.to_string().contains(name) => {
                    wrong.push(format!("{what}: no name in {error}"))
                }
                Err(_) if everything(&directory) != before => {
                    wrong.push(format!("{what}: changed something"))
                }
                Err(_) => {}
            }
            tried += 1;
        }
    }
    check_none(&wrong, tried);
}

// Backups share sealed segments by hard links.
#[test]
fn a_second_name_outside_is_no_damage() {
    let base = tempfile::tempdir().unwrap();
    let directory = base.path().join("store");
    for path in in_directory(&directory, 6) {
        fs::hard_link(&path, base.path().join(path.file_name().unwrap())).unwrap();
    }
    let store = Store::open(&directory).unwrap();
    append(&store, 6, "text").unwrap();
    store.backup(base.path().join("backup")).run().unwrap();
    store.close().unwrap();
    append(&Store::open(&directory).unwrap(), 7, "text").unwrap();
}

/// Appends until that is refused; fails if it is not soon. Says why.
fn stopped(store: &Store, what: &str) -> Error {
    let began = Instant::now();
    for number in 0.. {
        match append(store, number, "beside the check") {
            Err(error) => return error,
            Ok(()) => assert!(began.elapsed() < SOON, "{what}: {number} appends were taken in {SOON:?}"),
        }
    }
    unreachable!("there are enough numbers")
}

// Header and seal of an old segment are read once the store is open.
#[test]
fn damage_in_an_old_segment_stops_a_writer_soon() {
    let (disk, stranger) =
        (written(7, |disk| tiny(disk.clone()), 130), written(8, |disk| tiny(disk.clone()), 130));
    let paths = sealed(&disk);
    let listed = paths.len();
    assert!(listed > NEWEST + 40, "{listed} segments");
    let flipped = |path: &str, at: usize| {
        let mut bytes = disk.contents(path).unwrap();
        bytes[at] ^= 1;
        bytes
    };
    for place in [0, 1, 20, listed - NEWEST - 1, listed - NEWEST, listed - 1] {
        let path = paths[place].as_str();
        let seal = disk.contents(path).unwrap().len() - 72;
        let as_long = |other: &&String| {
            *other != path && disk.contents(other).unwrap().len() == disk.contents(path).unwrap().len()
        };
        let damages = [
            ("a flipped bit in the header", flipped(path, 60), 0),
            ("a flipped bit in the seal", flipped(path, seal + 30), seal),
            ("another segment", disk.contents(paths.iter().find(as_long).unwrap()).unwrap(), 0),
            ("a stranger's", stranger.contents(path).unwrap(), 0),
        ];
        for (what, bytes, offset) in damages {
            let (disk, what) = (copy(&disk), format!("{what} instead of segment {place} of {listed}"));
            disk.set_contents(path, Some(bytes));
            let place_named = format!("{path}, offset {offset}");
            if place >= listed - NEWEST {
                let error = tiny(disk).open().map(drop).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
                assert!(error.to_string().contains(&place_named), "{what}: {error}");
                continue;
            }
            for round in 0..2 {
                let store = tiny(disk.clone()).open().unwrap();
                let error = stopped(&store, &what);
                assert_eq!(error.kind(), ErrorKind::Poisoned, "{what}, round {round}: {error}");
                assert!(error.to_string().contains(&place_named), "{what}, round {round}: {error}");
                assert!(error.to_string().contains("backup"), "what to do: {error}");
                assert_eq!(kind_of(store.sync()), ErrorKind::Poisoned, "{what}");
                // What is whole can be read.
                assert!(store.at(Position::from(100)).unwrap().is_some(), "{what}");
                assert_eq!(kind_of(store.close()), ErrorKind::Poisoned, "{what}");
            }
        }
    }
}

// Segments that are written anew right after opening lose their files: that is no damage.
#[test]
fn rewriting_beside_the_check_is_no_damage() {
    let disk = written(9, |disk| tiny(disk.clone()), 150);
    for round in 0..5 {
        let spy = Spy::new(copy(&disk));
        let store = tiny(spy.clone()).open().unwrap();
        store.compaction("merged").merge().run().unwrap();
        store.erase(Query::entity("e:1"), "asked for").unwrap();
        append(&store, 1, "after").unwrap();
        store.close().unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert!(tiny(spy).verify().unwrap().is_clean());
    }
}

// A read that fails may succeed a moment later; damage is what stays.
#[test]
fn a_read_that_fails_once_stops_no_reader() {
    let disk = written(10, |disk| tiny(disk.clone()), 130);
    let first = sealed(&disk)[0].clone();
    let spy = Spy::new(disk);
    spy.trap(What::Open, "segments/00000000000000000001.0.seg", Fault::Error(std::io::ErrorKind::Other));
    let store = tiny(spy.clone()).open().unwrap();
    spy.wait_for(|call| call.what == What::Open && call.path == first && call.failed.is_some());
    spy.wait_for(|call| call.what == What::Read && call.path == first && call.failed.is_none());
    append(&store, 1, "after").unwrap();
    store.close().unwrap();
}

#[test]
fn closing_does_not_wait_for_the_check() {
    let disk = written(11, |disk| tiny(disk.clone()), 400);
    let slow = Slow { disk: Spy::new(disk), is_slow: Arc::default() };
    let store = tiny(slow.clone()).open().unwrap();
    slow.is_slow.store(true, Ordering::SeqCst);
    let began = Instant::now();
    store.close().unwrap();
    // 336 headers at 20 ms each would be 6.7 s.
    assert!(began.elapsed() < SOON, "closing took {:?}", began.elapsed());
}

/// A disk on which opening a segment takes a while, once it is slow.
#[derive(Clone)]
struct Slow {
    disk: Spy,
    is_slow: Arc<AtomicBool>,
}

impl Disk for Slow {
    fn open(&self, path: &str, access: Access) -> std::io::Result<Box<dyn annals::disk::DiskFile>> {
        if access == Access::Read && self.is_slow.load(Ordering::SeqCst) {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        self.disk.open(path, access)
    }

    fn list(&self, directory: &str) -> std::io::Result<Vec<String>> {
        self.disk.list(directory)
    }

    fn create_directory(&self, directory: &str) -> std::io::Result<()> {
        self.disk.create_directory(directory)
    }

    fn sync_directory(&self, directory: &str) -> std::io::Result<()> {
        self.disk.sync_directory(directory)
    }

    fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &str) -> std::io::Result<()> {
        self.disk.remove(path)
    }

    fn lock(&self) -> std::io::Result<annals::disk::Lock> {
        self.disk.lock()
    }

    fn is_locked(&self) -> std::io::Result<bool> {
        self.disk.is_locked()
    }

    fn free_bytes(&self) -> std::io::Result<u64> {
        self.disk.free_bytes()
    }

    fn random(&self) -> std::io::Result<[u8; 32]> {
        self.disk.random()
    }
}

/// How many threads this process has.
#[cfg(target_os = "linux")]
fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
#[cfg(target_os = "linux")]
fn a_store_of_few_segments_has_no_thread_for_the_check() {
    if !is_child() {
        in_child("open_checked::a_store_of_few_segments_has_no_thread_for_the_check", "true");
        return;
    }
    let before = threads();
    // The writer, and the housekeeper once there is something to check.
    for (appends, more) in [(NEWEST as u64 + 1, 1), (NEWEST as u64 + 2, 2)] {
        let disk = written(12, |disk| tiny(disk.clone()), appends);
        assert_eq!(sealed(&disk).len() as u64, appends - 1);
        eventually("the threads of the closed store are gone", || threads() == before);
        let store = tiny(disk).open().unwrap();
        assert_eq!(threads(), before + more, "{appends} appends");
        store.close().unwrap();
    }
}

// The check ends, and then nothing runs: idle.rs looks at the whole store.
#[test]
#[cfg(target_os = "linux")]
fn once_the_check_is_over_nothing_runs() {
    if !is_child() {
        in_child("open_checked::once_the_check_is_over_nothing_runs", "true");
        return;
    }
    let store = tiny(written(13, |disk| tiny(disk.clone()), 130)).open().unwrap();
    let left = crate::idle::wait_until_nothing_runs();
    assert!(left.keys().any(|(_, name)| name.starts_with("annals-housek")), "{left:?}");
    store.close().unwrap();
}

#[test]
fn what_is_whole_can_be_read_also_where_a_writer_is_refused() {
    let disk = written(14, builder, 40);
    let paths = sealed(&disk);
    let first_of = |path: &str| u64_at(&disk.contents(path).unwrap(), 56);
    let (path, next) = (paths[2].as_str(), first_of(&paths[3]));
    let own = disk.contents(path).unwrap();
    let mut flipped = own.clone();
    flipped[50] ^= 1;
    let whole = builder(&disk).open_read_only().unwrap().read(Query::all()).count() as u64;
    for (what, bytes) in [
        ("cut", own[..own.len() / 2].to_vec()),
        ("grown", [own.clone(), vec![0]].concat()),
        ("a damaged header", flipped),
        ("another segment", disk.contents(&paths[1]).unwrap()),
    ] {
        let disk = copy(&disk);
        disk.set_contents(path, Some(bytes));
        assert_eq!(kind_of(builder(&disk).open()), ErrorKind::Corrupt, "{what}");
        let reader = builder(&disk).open_read_only().unwrap();
        let behind =
            reader.read(Query::all()).after((next - 1).into()).collect::<Result<Vec<_>, _>>().unwrap();
        assert_eq!(behind.len() as u64, whole - (next - 1), "{what}: all that lies behind");
        let in_front = reader.read(Query::all()).map_while(Result::ok).count() as u64;
        assert_eq!(in_front, first_of(path) - 1, "{what}: all that lies in front");
        let error = reader.at(first_of(path).into()).unwrap_err();
        assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains(path), "{what}: {error}");
    }
    // Of a damaged seal a reader sees nothing: the frames are whole.
    let disk = copy(&disk);
    let mut flipped = own.clone();
    *flipped.last_mut().unwrap() ^= 1;
    disk.set_contents(path, Some(flipped));
    assert_eq!(kind_of(builder(&disk).open()), ErrorKind::Corrupt);
    let read = builder(&disk).open_read_only().unwrap().read(Query::all()).collect::<Result<Vec<_>, _>>();
    assert_eq!(read.unwrap().len() as u64, whole);
    // Without one of them the log is unknown.
    disk.set_contents(path, None);
    assert_eq!(kind_of(builder(&disk).open_read_only()), ErrorKind::Corrupt);
}

// Every call that opens a store to write makes the same check.
#[test]
fn every_way_to_a_writer_is_checked() {
    let disk = written(15, builder, 40);
    let head = builder(&disk).open_read_only().unwrap().head().unwrap();
    let path = sealed(&disk)[1].clone();
    let own = disk.contents(&path).unwrap();
    disk.set_contents(&path, Some(own[..own.len() - 8].to_vec()));
    let before = contents(&disk);
    assert_eq!(kind_of(builder(&disk).rollback(Position::from(30), &head, "a test")), ErrorKind::Corrupt);
    let watched = builder(&disk).rollback_watched(Position::from(30), &head, "", |_| ControlFlow::Break(()));
    assert_eq!(kind_of(watched), ErrorKind::Corrupt);
    assert!(contents(&disk) == before);

    // A writer that begins again after a panic.
    let disk = GatedDisk::new();
    let builder = || Store::on(disk.clone()).segment_bytes_max(0).restart(RestartPolicy::Once);
    let store = builder().open().unwrap();
    (0..6).for_each(|number| append(&store, number, "text").unwrap());
    let path = "segments/00000000000000000002.0.seg";
    let file = disk.open(path, Access::Write).unwrap();
    file.set_length(file.length().unwrap() - 8).unwrap();
    disk.gate().set_behind(Behind::PanicOnce);
    assert_eq!(kind_of(append(&store, 6, "text")), ErrorKind::CommitUnknown);
    let error = append(&store, 7, "text").unwrap_err();
    assert!(error.kind() == ErrorKind::Poisoned && error.to_string().contains(path), "{error}");
    drop(store);
    assert_eq!(kind_of(builder().open()), ErrorKind::Corrupt);
}

// Found from outside: what was missing was named by the position behind the store's head.
#[test]
fn a_missing_segment_is_named_by_its_own_place() {
    let disk = written(16, builder, 40);
    for path in sealed(&disk) {
        let first = u64_at(&disk.contents(&path).unwrap(), 56);
        let named =
            |text: String| text.contains(&path) && text.contains(&format!("begins at position {first}"));
        let damaged = copy(&disk);
        damaged.set_contents(&path, None);
        for opened in [builder(&damaged).open().map(drop), builder(&damaged).open_read_only().map(drop)] {
            let error = opened.unwrap_err();
            assert!(error.kind() == ErrorKind::Corrupt && named(error.to_string()), "{error}");
        }
        let is_it = |found: &annals::Finding| found.file == path && found.position.get() == first;
        let report = builder(&damaged).verify().unwrap();
        assert!(report.findings.iter().any(is_it), "{report}");
        if let Ok(salvaged) = builder(&damaged).salvage() {
            assert!(salvaged.open_report().holes.iter().any(is_it), "{}", salvaged.open_report());
        }

        // It goes while the store is open.
        let damaged = copy(&disk);
        let store = builder(&damaged).recent_bytes_max(0).open().unwrap();
        damaged.set_contents(&path, None);
        let error = store.at(first.into()).unwrap_err();
        assert!(error.kind() == ErrorKind::Corrupt && named(error.to_string()), "{error}");
        assert!(store.verify().unwrap().findings.iter().any(is_it));
    }
}

/// A wait of this length would be one for ever.
const _: () = assert!(SOON.as_secs() < FOREVER.as_secs());

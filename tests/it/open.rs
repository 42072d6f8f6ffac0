//! Reports, the lock, opening to read, permissions, names planted by others.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use annals::disk::{CrashMode, MemDisk, OsDisk, SimDisk};
use annals::{Append, ErrorKind, Limits, Query, Raw, Store};
use tempfile::TempDir;

use crate::support::{FOREVER, GatedDisk, fill, in_child, is_child, kind_of, outcome, positions, within};

fn temporary() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Where syncs cost nothing, if there is such a place.
fn in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| temporary())
}

/// A store with several segments, closed cleanly.
fn written(directory: &Path) {
    let store = Store::builder(directory).segment_bytes_max(400).open().unwrap();
    fill(&store, "e", 6);
    store.close().unwrap();
}

/// Everything below a directory, links not followed: kind, mode, modification time, inode, bytes.
pub(crate) fn listing(directory: &Path) -> BTreeMap<PathBuf, (u32, i64, i64, u64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        // The housekeeper of an open store may have renamed an index file just now.
        let Ok(about) = fs::symlink_metadata(&path) else { continue };
        let bytes = if about.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        if about.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.insert(path, (about.mode(), about.mtime(), about.mtime_nsec(), about.ino(), bytes));
    }
    found
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn last_segment(directory: &Path) -> PathBuf {
    let segments = fs::read_dir(directory.join("segments")).unwrap();
    segments.map(|entry| entry.unwrap().path()).max().unwrap()
}

#[test]
fn the_report_says_what_was_found() {
    let disk = SimDisk::new(1);
    let open = |disk: &SimDisk| Store::on(disk.clone()).segment_bytes_max(400).open().unwrap();
    let store = open(&disk);
    let report = store.open_report();
    assert_eq!((report.created, report.clean, report.mark_found), (true, true, true));
    assert_eq!((report.segments, report.appends, report.events), (1, 0, 0));
    assert!(report.to_string().starts_with("created: 0 events"), "{report}");
    fill(&store, "e", 5);
    let append = Append::to("e").event(&Raw("k", &())).event(&Raw("k", &()));
    append.commit(&store).unwrap();
    let segments = store.stats().segments;
    assert!(segments > 2);
    let trace = disk.trace();
    let killed = trace.image(trace.len(), CrashMode::Keep);
    store.close().unwrap();

    let store = open(&disk);
    let report = store.open_report();
    assert_eq!((report.created, report.clean, report.mark_found), (false, true, true));
    assert_eq!((report.segments, report.appends, report.events), (segments, 6, 7));
    assert!((1..2 * 400).contains(&report.bytes_read), "only the last segment: {}", report.bytes_read);
    assert_eq!((&report.cut, report.removed.len(), report.unknown.len()), (&None, 0, 0));
    assert!(report.steps.iter().any(|(step, _)| *step == "scan"));
    assert!(report.to_string().starts_with("closed cleanly: 7 events in 6 appends"), "{report}");
    drop(store);
    assert!(open(&disk).open_report().clean, "dropping closes as well");

    let store = open(&killed);
    let report = store.open_report();
    assert_eq!((report.created, report.clean), (false, false));
    assert_eq!((report.segments, report.events), (segments + 1, 7), "the log goes on in a new segment");
    assert!(report.to_string().starts_with("recovered after an unclean stop: 7 events"), "{report}");
    assert_eq!(store.version("e").unwrap().get(), 7);
}

/// Another way to say the same path: up to the root from where we stand, and down again.
fn relative(path: &Path) -> PathBuf {
    let up = std::env::current_dir().unwrap().components().count() - 1;
    std::iter::repeat_n("..", up).collect::<PathBuf>().join(path.strip_prefix("/").unwrap())
}

#[test]
fn there_is_one_writer_by_any_path() {
    let base = temporary();
    let directory = base.path().join("real/store");
    symlink(base.path().join("real"), base.path().join("parent")).unwrap();
    let store = Store::open(&directory).unwrap();
    symlink(&directory, base.path().join("store")).unwrap();
    let paths = [
        directory.clone(),
        base.path().join("parent/store"),
        base.path().join("store"),
        relative(&directory),
        directory.join("../../parent/./store/"),
    ];
    for path in &paths {
        let started = Instant::now();
        let error = Store::open(path).map(drop).unwrap_err();
        assert_eq!(
            (error.kind(), error.locked_by()),
            (ErrorKind::Locked, Some(std::process::id())),
            "{path:?}"
        );
        assert!(
            error.is_retryable() && error.to_string().contains(&std::process::id().to_string()),
            "{error}"
        );
        assert!(started.elapsed() < Duration::from_secs(1));
    }
    fill(&store, "e", 2);
    for path in &paths {
        assert_eq!(positions(Store::open_read_only(path).unwrap().stream("e")), [1, 2], "{path:?}");
    }
    store.close().unwrap();
    for path in &paths {
        let store = Store::open(path).unwrap();
        assert_eq!(store.version("e").unwrap().get(), 2);
        store.close().unwrap();
    }
}

// A deleted lock file can be created and locked anew. It unlocks nothing, and the writer stops: tests/it/ownership.rs.
#[test]
fn a_deleted_lock_file_unlocks_nothing() {
    let directory = temporary();
    let store = Store::open(directory.path()).unwrap();
    fill(&store, "e", 1);
    fs::remove_file(directory.path().join("LOCK")).unwrap();
    let error = Store::open(directory.path()).map(drop).unwrap_err();
    assert_eq!((error.kind(), error.locked_by()), (ErrorKind::Locked, Some(std::process::id())));
    assert_eq!(kind_of(store.append("e", &Raw("k", &()))), ErrorKind::CommitUnknown);
    assert_eq!(kind_of(store.append("e", &Raw("k", &()))), ErrorKind::Poisoned);
    assert_eq!(kind_of(store.close()), ErrorKind::Poisoned);
    assert_eq!(Store::open(directory.path()).unwrap().version("e").unwrap().get(), 2);
}

#[test]
fn every_disk_has_one_writer() {
    let (memory, simulated) = (MemDisk::new(), SimDisk::new(1));
    let stores = [Store::on(memory.clone()).open().unwrap(), Store::on(simulated.clone()).open().unwrap()];
    assert_eq!(kind_of(Store::on(memory.clone()).open()), ErrorKind::Locked);
    assert_eq!(kind_of(Store::on(simulated.clone()).open()), ErrorKind::Locked);
    drop(stores);
    Store::on(memory).open().unwrap();
    Store::on(simulated).open().unwrap();
}

#[test]
fn open_within_waits_for_the_lock() {
    let directory = temporary();
    let store = Store::open(directory.path()).unwrap();
    let wait = Duration::from_millis(30);
    let started = Instant::now();
    assert_eq!(kind_of(Store::builder(directory.path()).open_within(wait)), ErrorKind::Locked);
    assert!(started.elapsed() >= wait);

    let is_closed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let store = Store::builder(directory.path()).open_within(FOREVER).unwrap();
            assert!(is_closed.load(Ordering::SeqCst));
            store.version("e").unwrap().get()
        });
        fill(&store, "e", 3);
        is_closed.store(true, Ordering::SeqCst);
        store.close().unwrap();
        assert_eq!(waiting.join().unwrap(), 3);
    });
}

#[test]
fn an_open_that_fails_lets_go_of_the_lock() {
    let disk = GatedDisk::new();
    let mut refused = 0;
    for numbers in 0.. {
        disk.limit_random(Some(numbers));
        match Store::on(disk.clone()).open() {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Io),
            Ok(store) => {
                fill(&store, "e", 1);
                break;
            }
        }
        refused += 1;
        disk.limit_random(None);
        Store::on(disk.clone()).open_read_only().map(drop).unwrap_or_else(|error| {
            assert_eq!(error.kind(), ErrorKind::Invalid, "there may be no store yet: {error}");
        });
    }
    assert!(refused > 0);
}

#[test]
fn opening_to_read_writes_nothing() {
    let clean = temporary();
    written(clean.path());
    let beside = temporary();
    let store = Store::builder(beside.path()).segment_bytes_max(400).open().unwrap();
    fill(&store, "e", 6);
    // A copy of files in use is what a killed writer leaves.
    let killed = temporary();
    copy(beside.path(), killed.path());
    let torn = temporary();
    copy(beside.path(), torn.path());
    tear(torn.path());
    fs::write(torn.path().join("MANIFEST.tmp"), b"half").unwrap();
    fs::write(torn.path().join("segments/99999999999999999999.0.seg"), b"").unwrap();
    fs::write(torn.path().join("notes.txt"), b"mine").unwrap();
    let no_lock = temporary();
    copy(clean.path(), no_lock.path());
    fs::remove_file(no_lock.path().join("LOCK")).unwrap();
    let loose = temporary();
    copy(clean.path(), loose.path());
    set_mode(&loose.path().join("MARK"), 0o644);

    for directory in [&clean, &beside, &killed, &torn, &no_lock, &loose] {
        let before = listing(directory.path());
        let reader = Store::open_read_only(directory.path()).unwrap();
        assert_eq!(positions(reader.read(Query::all())), [1, 2, 3, 4, 5, 6]);
        assert_eq!(positions(reader.stream("e").backwards().limit(2)), [6, 5]);
        assert_eq!(reader.head().unwrap().position().get(), 6);
        assert!(reader.verify().unwrap().is_clean());
        assert_eq!(reader.sync().unwrap(), reader.durable_head().unwrap().position());
        for refused in [
            kind_of(reader.append("e", &Raw("k", &()))),
            kind_of(Append::to("e").event(&Raw("k", &())).submit(&reader)),
            kind_of(Append::to("e").event(&Raw("k", &())).try_submit(&reader)),
        ] {
            assert_eq!(refused, ErrorKind::Invalid);
        }
        drop(Store::builder(directory.path()).verify().unwrap());
        reader.close().unwrap();
        assert!(listing(directory.path()) == before);
    }
    assert!(!Store::open_read_only(torn.path()).unwrap().open_report().clean);
    // The same, opened to write: cut, kept, removed, reported.
    let writer = Store::builder(torn.path()).segment_bytes_max(400).open().unwrap();
    let report = writer.open_report();
    let cut = report.cut.as_ref().unwrap();
    assert_eq!((cut.bytes, report.events), (5, 6));
    assert_eq!(fs::read(torn.path().join(cut.kept.as_ref().unwrap())).unwrap(), b"torn!");
    assert!(report.removed.contains(&"MANIFEST.tmp".to_owned()), "{report}");
    assert!(report.unknown.contains(&"notes.txt".to_owned()), "{report}");
    assert_eq!(fs::read(torn.path().join("notes.txt")).unwrap(), b"mine");
    fill(&store, "e", 1);
}

/// Puts a few bytes behind the last frame.
fn tear(directory: &Path) {
    let path = last_segment(directory);
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let end = (last + 1).next_multiple_of(8);
    bytes.resize(bytes.len().max(end + 20), 0);
    bytes[end..end + 5].copy_from_slice(b"torn!");
    fs::write(path, bytes).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    assert!(Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap().success());
}

#[test]
fn reading_beside_a_writer_shows_what_is_durable() {
    let directory = temporary();
    let store = Store::builder(directory.path()).segment_bytes_max(400).open().unwrap();
    for number in 1..=5 {
        fill(&store, "e", 1);
        let buffered = Append::to("e").event(&Raw("k", &()));
        let never = annals::Durability::Buffered { flush_every: Duration::MAX };
        buffered.durability(never).commit(&store).unwrap();
        let reader = Store::open_read_only(directory.path()).unwrap();
        let durable = store.durable_head().unwrap();
        assert!(durable.position().get() >= 2 * number - 1);
        assert_eq!((reader.head().unwrap(), reader.durable_head().unwrap()), (durable, durable));
        assert_eq!(
            positions(reader.read(Query::all())).len(),
            usize::try_from(durable.position().get()).unwrap()
        );
    }
}

#[test]
fn there_must_be_a_store_to_read() {
    let base = temporary();
    let before = listing(base.path());
    let missing = base.path().join("missing/store");
    assert_eq!(kind_of(Store::open_read_only(&missing)), ErrorKind::Invalid);
    assert_eq!(kind_of(Store::open_read_only(base.path())), ErrorKind::Invalid);
    assert_eq!(kind_of(Store::builder(&missing).verify()), ErrorKind::Invalid);
    assert_eq!(kind_of(Store::on(MemDisk::new()).open_read_only()), ErrorKind::Invalid);
    let bad = Limits { kind_bytes_max: 0, ..Limits::default() };
    let error = Store::builder(&missing).limits(bad).open().map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("kind_bytes_max"), "{error}");
    assert!(listing(base.path()) == before, "nothing was created");
    let file = base.path().join("file");
    fs::write(&file, b"mine").unwrap();
    assert!(Store::open(&file).is_err());
    assert!(Store::open(file.join("store")).is_err());
    assert_eq!(fs::read(file).unwrap(), b"mine");
}

#[test]
fn files_are_their_owners_alone_under_any_umask() {
    if !is_child() {
        for umask in ["0", "077", "0177"] {
            let test = "open::files_are_their_owners_alone_under_any_umask";
            in_child(test, &format!("umask {umask}"));
        }
        return;
    }
    let base = temporary();
    set_mode(base.path(), 0o700);
    let directory = base.path().join("a/b/store");
    written(&directory);
    // One more unclean stop, for the quarantine.
    tear(&directory);
    let store = Store::open(&directory).unwrap();
    assert!(store.open_report().cut.is_some(), "{}", store.open_report());
    drop(store);
    let found = listing(&base.path().join("a"));
    assert!(found.len() > 10 && found.keys().any(|path| path.ends_with("quarantine")), "{:?}", found.keys());
    for path in found.keys() {
        let right = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(path), right, "{path:?}");
    }
}

#[test]
fn loosened_files_are_tightened() {
    let directory = temporary();
    written(directory.path());
    let files: Vec<PathBuf> = listing(directory.path()).into_keys().filter(|path| path.is_file()).collect();
    assert!(files.len() >= 6, "{files:?}");
    for file in &files {
        set_mode(file, 0o666);
    }
    set_mode(&directory.path().join("segments"), 0o755);
    drop(Store::open_read_only(directory.path()).unwrap());
    assert!(files.iter().all(|file| mode(file) == 0o666), "opening to read changes nothing");
    let store = Store::open(directory.path()).unwrap();
    assert!(store.read(Query::all()).all(|event| event.is_ok()));
    drop(store);
    for file in &files {
        assert_eq!(mode(file), 0o600, "{file:?}");
    }
    assert_eq!(mode(&directory.path().join("segments")), 0o700);
}

#[test]
fn a_directory_that_others_may_write_to_is_refused() {
    for shared in [0o777, 0o770, 0o720, 0o702, 0o1777] {
        let directory = temporary();
        set_mode(directory.path(), shared);
        let before = listing(directory.path());
        let error = Store::open(directory.path()).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsafe, "{shared:o}");
        assert!(error.to_string().contains(&format!("{shared:o}")), "{error}");
        assert_eq!(kind_of(Store::open_read_only(directory.path())), ErrorKind::Unsafe);
        assert_eq!(kind_of(Store::builder(directory.path()).verify()), ErrorKind::Unsafe);
        assert!(OsDisk::create(directory.path()).is_err() && OsDisk::open(directory.path()).is_err());
        assert!(listing(directory.path()) == before);
        let store = Store::builder(directory.path()).allow_shared_directory().open().unwrap();
        fill(&store, "e", 1);
        drop(store);
        let store = Store::builder(directory.path()).allow_shared_directory().open_read_only().unwrap();
        assert_eq!(positions(store.stream("e")), [1]);
        assert_eq!(mode(directory.path()), shared, "the mode of the directory is the owner's business");
    }
    for own in [0o700, 0o750, 0o755] {
        let directory = temporary();
        set_mode(directory.path(), own);
        Store::open(directory.path()).unwrap();
    }
}

#[test]
fn a_directory_of_another_user_is_refused() {
    let test = "open::a_directory_of_another_user_is_refused";
    let path = std::env::var_os("ANNALS_TEST_DIRECTORY").map(PathBuf::from);
    if let Some(path) = path.filter(|_| is_child()) {
        let error = Store::open(&path).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsafe, "{error}");
        assert_eq!(kind_of(Store::builder(&path).allow_shared_directory().open()), ErrorKind::Unsafe);
        return;
    }
    let directory = temporary();
    written(directory.path());
    set_mode(directory.path(), 0o755);
    let is_root = directory.path().metadata().unwrap().uid() == 0;
    let other_user = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    let program = std::env::current_exe().unwrap();
    let can =
        Command::new("sh").args(["-c", &format!("exec {other_user} test -x \"$0\"")]).arg(program).status();
    if !is_root || !can.unwrap().success() {
        println!("skipped: needs root, setpriv, and a test binary that others may run");
        return;
    }
    let before = listing(directory.path());
    let path = directory.path().display();
    in_child(test, &format!("export ANNALS_TEST_DIRECTORY='{path}'; exec {other_user} \"$0\" \"$@\""));
    assert!(listing(directory.path()) == before);
}

#[test]
fn unknown_files_are_left_alone_and_reported() {
    let directory = temporary();
    written(directory.path());
    let unknown = [
        "notes.txt",
        "MANIFEST.bak",
        "mark",
        ".hidden",
        "segments/backup.seg",
        "segments/1.0.seg",
        "segments/00000000000000000001.1.seg.bak",
        "segments/00000000000000000002.9.SEG",
    ];
    for name in unknown {
        fs::write(directory.path().join(name), name).unwrap();
    }
    fs::create_dir(directory.path().join("stuff")).unwrap();
    for _ in 0..2 {
        let store = Store::builder(directory.path()).segment_bytes_max(400).open().unwrap();
        let mut reported = store.open_report().unknown.clone();
        reported.sort();
        let mut right: Vec<String> = unknown.into_iter().chain(["stuff"]).map(str::to_owned).collect();
        right.sort();
        assert_eq!(reported, right);
        assert!(store.open_report().to_string().contains("left notes.txt alone"));
        fill(&store, "e", 3);
    }
    for name in unknown {
        assert_eq!(fs::read_to_string(directory.path().join(name)).unwrap(), name);
    }
    // The name of a segment says that the file is a part of the log: a writer does not pass over it.
    for name in ["segments/00000000000000000001.1.seg", "segments/00000000000000000002.9.seg"] {
        let path = directory.path().join(name);
        fs::write(&path, name).unwrap();
        let error = Store::open(directory.path()).map(drop).unwrap_err();
        assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains(name), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), name);
        fs::remove_file(path).unwrap();
    }
}

#[derive(Clone, Copy, Debug)]
enum Plant {
    LinkToFile,
    LinkToDirectory,
    LinkToNothing,
    /// To what was there before, moved out.
    LinkToOwn,
    HardLink,
    /// To what was there before: it gets a second name outside.
    HardLinkToOwn,
    Fifo,
    Directory,
    Socket,
}

impl Plant {
    const ALL: [Plant; 9] = [
        Plant::LinkToFile,
        Plant::LinkToDirectory,
        Plant::LinkToNothing,
        Plant::LinkToOwn,
        Plant::HardLink,
        Plant::HardLinkToOwn,
        Plant::Fifo,
        Plant::Directory,
        Plant::Socket,
    ];

    /// Puts it where `path` is; the things it leads to are in `outside`. `false` if it cannot be.
    fn put(self, path: &Path, outside: &Path) -> bool {
        let own = outside.join("own");
        let _ = fs::remove_file(&own);
        let is_there = fs::symlink_metadata(path).is_ok();
        match self {
            Plant::LinkToOwn | Plant::HardLinkToOwn if !is_there => return false,
            Plant::HardLinkToOwn if path.is_dir() => return false,
            Plant::HardLinkToOwn => fs::hard_link(path, &own).unwrap(),
            _ if is_there => fs::rename(path, &own).unwrap(),
            _ => {}
        }
        match self {
            Plant::LinkToFile => symlink(outside.join("file"), path).unwrap(),
            Plant::LinkToDirectory => symlink(outside.join("directory"), path).unwrap(),
            Plant::LinkToNothing => symlink(outside.join("nothing"), path).unwrap(),
            Plant::LinkToOwn => symlink(&own, path).unwrap(),
            Plant::HardLink => fs::hard_link(outside.join("file"), path).unwrap(),
            Plant::HardLinkToOwn => {}
            Plant::Fifo => assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
            Plant::Directory => fs::create_dir(path).unwrap(),
            Plant::Socket => drop(std::os::unix::net::UnixListener::bind(path).unwrap()),
        }
        true
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    BeforeCreation,
    Closed,
    /// With a torn tail, so that recovery has to write.
    Killed,
    Open,
}

/// Any planted file, under any name and at any time, is refused or ignored. No write goes through it, no call
/// hangs, and every acknowledged event is there or known to be missing.
#[test]
fn nothing_planted_is_written_through() {
    let names = [
        "LOCK",
        "MANIFEST",
        "MARK",
        "MANIFEST.tmp",
        "segments",
        "quarantine",
        // Of seven: one that is sealed, the last, and the one that comes next.
        "segments/00000000000000000003.0.seg",
        "segments/00000000000000000007.0.seg",
        "segments/00000000000000000008.0.seg",
        "segments/00000000000000000001.0.seg",
    ];
    let mut tried = 0;
    for name in names {
        for plant in Plant::ALL {
            for step in [Step::BeforeCreation, Step::Closed, Step::Killed, Step::Open] {
                tried += u32::from(try_plant(name, plant, step));
            }
        }
    }
    assert!(tried > 250, "only {tried} were tried");
}

const EVENTS: u64 = 7;

fn try_plant(name: &str, plant: Plant, step: Step) -> bool {
    let base = in_memory();
    let (directory, outside) = (base.path().join("store"), base.path().join("outside"));
    fs::create_dir_all(outside.join("directory")).unwrap();
    fs::write(outside.join("file"), b"precious").unwrap();
    set_mode(&outside.join("file"), 0o640);
    let store = prepare(&directory, step, name);
    if !plant.put(&directory.join(name), &outside) {
        return false;
    }
    let before = contents(&outside, step);
    let what = format!("{plant:?} as {name}, {step:?}");
    let path = directory.clone();
    let written = within(FOREVER, &what, move || use_store(&path, store));
    assert!(contents(&outside, step) == before, "{what}: something outside was changed");
    let acknowledged = match (written, step) {
        (Ok(more), Step::BeforeCreation) => more,
        (Ok(more), _) => EVENTS + more,
        (Err(kind), _) => {
            assert!(REFUSED.contains(&kind), "{what}: {kind:?}");
            0
        }
    };
    match Store::builder(&directory).segment_bytes_max(400).open() {
        Ok(store) => assert!(store.version("e").unwrap().get() >= acknowledged, "{what}"),
        Err(error) => assert!(REFUSED.contains(&error.kind()), "{what}: {error}"),
    }
    true
}

const REFUSED: [ErrorKind; 3] = [ErrorKind::Unsafe, ErrorKind::Io, ErrorKind::Corrupt];

fn prepare(directory: &Path, step: Step, name: &str) -> Option<Store> {
    if step == Step::BeforeCreation {
        let inside = if name == "segments" { directory.to_owned() } else { directory.join("segments") };
        fs::create_dir_all(inside).unwrap();
        return None;
    }
    let store = Store::builder(directory).segment_bytes_max(400).open().unwrap();
    fill(&store, "e", EVENTS);
    assert_eq!(store.stats().segments, 7);
    match step {
        Step::Open => return Some(store),
        Step::Killed => {
            let copied = directory.with_file_name("copy");
            copy(directory, &copied);
            drop(store);
            fs::remove_dir_all(directory).unwrap();
            fs::rename(copied, directory).unwrap();
            tear(directory);
        }
        _ => store.close().unwrap(),
    }
    None
}

/// Uses a store as much as it lets itself be used; how many events it took.
fn use_store(path: &Path, store: Option<Store>) -> Result<u64, ErrorKind> {
    let readers = [Store::open_read_only(path).map(drop), Store::builder(path).verify().map(drop)];
    for error in readers.into_iter().filter_map(Result::err) {
        let kind = error.kind();
        assert!(REFUSED.contains(&kind) || kind == ErrorKind::Invalid, "reading: {error}");
    }
    let open = || Store::builder(path).segment_bytes_max(400).open().map_err(|error| error.kind());
    let store = store.map_or_else(open, Ok)?;
    let mut written = 0;
    for _ in 0..3 {
        match store.append("e", &Raw("k", &())) {
            Ok(_) => written += 1,
            Err(error) => {
                let kinds = [ErrorKind::Unsafe, ErrorKind::Io, ErrorKind::CommitUnknown, ErrorKind::Poisoned];
                assert!(kinds.contains(&error.kind()), "appending: {error}");
            }
        }
    }
    drop(store.close());
    Ok(written)
}

/// What lies outside, modes and inodes included. While the store is open, what it has open may have
/// been moved there; it goes on writing to its own file.
fn contents(outside: &Path, step: Step) -> Vec<(PathBuf, u32, u64, Vec<u8>)> {
    let own = outside.join("own");
    let found =
        listing(outside).into_iter().filter(|(path, _)| step != Step::Open || !path.starts_with(&own));
    found.map(|(path, (mode, _, _, inode, bytes))| (path, mode, inode, bytes)).collect()
}

// The file under that name may be that of a second writer whose lock was circumvented. Then it holds events.
#[test]
fn a_segment_that_was_not_made_by_us_is_not_removed() {
    let directory = in_memory();
    let store = Store::builder(directory.path()).segment_bytes_max(0).open().unwrap();
    fill(&store, "e", 2);
    let next = directory.path().join("segments/00000000000000000003.0.seg");
    fs::write(&next, b"precious").unwrap();
    for _ in 0..2 {
        let error = store.append("e", &Raw("k", &())).unwrap_err();
        assert_eq!((error.kind(), error.is_definite()), (ErrorKind::Io, true), "{error}");
        assert_eq!(fs::read(&next).unwrap(), b"precious");
    }
    fs::remove_file(&next).unwrap();
    assert_eq!(outcome(&store.append("e", &Raw("k", &()))), "v3 @3");
    store.close().unwrap();
}

// A full disk must not keep a store from being opened and read. The limit stands for it here: no
// byte can be written to any file.
#[test]
fn a_store_on_a_full_disk_opens_and_refuses() {
    let test = "open::a_store_on_a_full_disk_opens_and_refuses";
    let Some(path) = std::env::var_os("ANNALS_TEST_DIRECTORY").filter(|_| is_child()) else {
        let directory = temporary();
        written(directory.path());
        let path = directory.path().display();
        in_child(test, &format!("export ANNALS_TEST_DIRECTORY='{path}'; trap '' XFSZ; ulimit -f 0"));
        let store = Store::open(directory.path()).unwrap();
        assert!(store.open_report().clean);
        assert_eq!(positions(store.stream("e")), [1, 2, 3, 4, 5, 6]);
        return;
    };
    let store = Store::builder(&path).space_probe_every(Duration::ZERO).open().unwrap();
    for _ in 0..3 {
        let error = store.append("e", &Raw("k", &())).unwrap_err();
        assert_eq!((error.kind(), error.is_definite()), (ErrorKind::NoSpace, true), "{error}");
        assert_eq!(positions(store.read(Query::all())), [1, 2, 3, 4, 5, 6]);
    }
    store.close().unwrap();
}

// A daemon changes its directory when it detaches. The listing once went by the path, and found
// nothing there: the first segment was missing, it said.
#[test]
fn the_directory_is_held_not_looked_up_again() {
    let test = "open::the_directory_is_held_not_looked_up_again";
    let Some(path) = std::env::var_os("ANNALS_TEST_DIRECTORY").filter(|_| is_child()) else {
        let base = in_memory();
        written(&base.path().join("store"));
        let path = base.path().display();
        in_child(test, &format!("export ANNALS_TEST_DIRECTORY='{path}'; cd '{path}'"));
        return;
    };
    let disk = OsDisk::create("store").unwrap();
    std::env::set_current_dir("/").unwrap();
    let store = Store::on(disk).segment_bytes_max(400).open().unwrap();
    fill(&store, "e", 3);
    assert_eq!(positions(store.stream("e")).len(), 9);
    store.close().unwrap();
    assert!(Path::new(&path).join("store/segments/00000000000000000009.0.seg").exists());
}

#[test]
fn a_directory_can_be_opened_again_at_once() {
    let directory = in_memory();
    for round in 0..50 {
        let store = Store::open(directory.path()).unwrap();
        assert_eq!(store.version("e").unwrap().get(), round);
        fill(&store, "e", 1);
        if round % 2 == 0 { store.close().unwrap() } else { drop(store) }
    }
}

//! The simulated disk against its promises. Here are tables of cases with one outcome; `random` has those that
//! depend on random numbers.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};

use super::*;
use crate::disk::Holder;

mod random;

/// Runs one command a line. Right of `=>` is the error that it must give, or the contents of the disk
/// afterwards: if the process dies, `|`, and if the power fails. `.` in contents is a zero; as a directory it
/// is the top one.
fn check(table: &str) {
    let disk = SimDisk::new(1);
    let mut open = BTreeMap::new();
    for row in table.lines().map(str::trim).filter(|row| !row.is_empty()) {
        let (command, expected) = row.split_once("=>").unwrap();
        let found = match run(&disk, &mut open, &command.split_whitespace().collect::<Vec<_>>()) {
            Err(error) => format!("{:?}", error.kind()),
            Ok(()) => {
                let trace = disk.trace();
                let images = [CrashMode::Keep, CrashMode::Drop].map(|mode| trace.image(trace.len(), mode));
                let [keep, lose] = images.each_ref().map(show);
                assert_eq!(show(&disk), keep, "a killed process loses nothing: {row}");
                let both = [lose.clone(), lose.clone()];
                assert_eq!(after_crashes(&images[0]), both, "a kill makes nothing durable: {row}");
                assert_eq!(
                    after_crashes(&images[1]),
                    both,
                    "nothing is pending after a power failure: {row}"
                );
                format!("{keep} | {lose}")
            }
        };
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&found), words(expected), "{row}");
    }
}

fn run(disk: &SimDisk, open: &mut BTreeMap<String, Box<dyn DiskFile>>, command: &[&str]) -> io::Result<()> {
    let directory = |name: &str| if name == "." { String::new() } else { name.to_owned() };
    match command {
        ["create", path] => drop(open.insert((*path).to_owned(), disk.open(path, Access::CreateNew)?)),
        ["open", path] => drop(open.insert((*path).to_owned(), disk.open(path, Access::Write)?)),
        ["peek", path] => drop(open.insert((*path).to_owned(), disk.open(path, Access::Read)?)),
        ["write", path, offset, text] => {
            assert_eq!(open[*path].write_at(text.as_bytes(), offset.parse().unwrap())?, text.len());
        }
        ["length", path, bytes] => open[*path].set_length(bytes.parse().unwrap())?,
        ["sync", path] => open[*path].sync()?,
        ["mkdir", path] => disk.create_directory(path)?,
        ["syncdir", path] => disk.sync_directory(&directory(path))?,
        ["list", path] => drop(disk.list(&directory(path))?),
        ["rename", from, to] => disk.rename(from, to)?,
        ["link", from, to] => disk.link(disk, from, to)?,
        ["remove", path] => disk.remove(path)?,
        _ => panic!("no such command: {command:?}"),
    }
    Ok(())
}

/// What the next crash leaves, and the one after it.
fn after_crashes(disk: &SimDisk) -> [String; 2] {
    [disk.clone(), last_image(disk, CrashMode::Keep)].map(|disk| show(&last_image(&disk, CrashMode::Drop)))
}

fn show(disk: &SimDisk) -> String {
    let line = |path: String| format!("{path}={}", text(&disk.contents(&path).unwrap()));
    disk.paths().into_iter().map(line).collect::<Vec<_>>().join(" ")
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| if *byte == 0 { '.' } else { char::from(*byte) }).collect()
}

/// A disk with one durable file, open.
fn disk_with(seed: u64, bytes: &[u8]) -> (SimDisk, Box<dyn DiskFile>) {
    let disk = SimDisk::new(seed);
    disk.set_contents("log", Some(bytes.to_vec()));
    let file = disk.open("log", Access::Write).unwrap();
    (disk, file)
}

fn read(file: &dyn DiskFile) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.length().unwrap()).unwrap()];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    bytes
}

fn last_image(disk: &SimDisk, mode: CrashMode) -> SimDisk {
    disk.trace().image(disk.trace().len(), mode)
}

#[test]
fn bytes_and_names_are_durable_after_their_own_sync() {
    check(
        "
        create a          => a=          |
        write a 0 xyz     => a=xyz       |
        sync a            => a=xyz       |
        syncdir .         => a=xyz       | a=xyz
        write a 1 YZ      => a=xYZ       | a=xyz
        write a 5 !       => a=xYZ..!    | a=xyz
        syncdir .         => a=xYZ..!    | a=xyz
        sync a            => a=xYZ..!    | a=xYZ..!
        length a 2        => a=xY        | a=xYZ..!
        length a 4        => a=xY..      | a=xYZ..!
        sync a            => a=xY..      | a=xY..
        ",
    );
}

#[test]
fn a_directory_is_as_durable_as_its_own_name() {
    check(
        "
        create d/a        => NotFound
        list d            => NotFound
        mkdir d/e         => NotFound
        syncdir d         => NotFound
        mkdir d           =>             |
        create d/a        => d/a=        |
        write d/a 0 x     => d/a=x       |
        sync d/a          => d/a=x       |
        syncdir d         => d/a=x       |
        syncdir .         => d/a=x       | d/a=x
        mkdir d           => d/a=x       | d/a=x
        create d/b        => d/a=x d/b=  | d/a=x
        syncdir .         => d/a=x d/b=  | d/a=x
        syncdir d         => d/a=x d/b=  | d/a=x d/b=
        mkdir e           => d/a=x d/b=  | d/a=x d/b=
        create e/a        => d/a=x d/b= e/a= | d/a=x d/b=
        remove e/a        => d/a=x d/b=  | d/a=x d/b=
        open d            => IsADirectory
        create d          => AlreadyExists
        mkdir d/a         => AlreadyExists
        create d/a/c      => NotADirectory
        ",
    );
}

#[test]
fn a_link_is_a_name_like_any_other_for_the_same_bytes() {
    check(
        "
        create a          => a=            |
        write a 0 x       => a=x           |
        sync a            => a=x           |
        syncdir .         => a=x           | a=x
        link a b          => a=x b=x       | a=x
        link a b          => AlreadyExists
        link c d          => NotFound
        link a d/b        => NotFound
        syncdir .         => a=x b=x       | a=x b=x
        write a 1 y       => a=xy b=xy     | a=x b=x
        open b            => a=xy b=xy     | a=x b=x
        write b 2 z       => a=xyz b=xyz   | a=x b=x
        sync a            => a=xyz b=xyz   | a=xyz b=xyz
        rename b c        => a=xyz c=xyz   | a=xyz b=xyz
        remove a          => c=xyz         | a=xyz b=xyz
        link c a          => a=xyz c=xyz   | a=xyz b=xyz
        syncdir .         => a=xyz c=xyz   | a=xyz c=xyz
        mkdir d           => a=xyz c=xyz   | a=xyz c=xyz
        mkdir d/e         => a=xyz c=xyz   | a=xyz c=xyz
        link a d/e/f      => a=xyz c=xyz d/e/f=xyz | a=xyz c=xyz
        syncdir d/e       => a=xyz c=xyz d/e/f=xyz | a=xyz c=xyz
        syncdir d         => a=xyz c=xyz d/e/f=xyz | a=xyz c=xyz
        syncdir .         => a=xyz c=xyz d/e/f=xyz | a=xyz c=xyz d/e/f=xyz
        ",
    );
    let disk = SimDisk::new(1);
    disk.set_contents("a", Some(vec![1; 100]));
    disk.set_capacity(Some(150));
    disk.link(&disk, "a", "b").unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 50, "a further name takes no room");
    let other = SimDisk::new(1).link(&disk, "a", "c").unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Unsupported);
}

#[test]
fn renamed_and_removed_names_come_back_until_the_directory_is_synced() {
    check(
        "
        create a          => a=          |
        write a 0 old     => a=old       |
        sync a            => a=old       |
        syncdir .         => a=old       | a=old
        create t          => a=old t=    | a=old
        write t 0 new     => a=old t=new | a=old
        sync t            => a=old t=new | a=old
        rename t a        => a=new       | a=old
        create t          => a=new t=    | a=old
        syncdir .         => a=new t=    | a=new t=
        remove t          => a=new       | a=new t=
        remove t          => NotFound
        rename t a        => NotFound
        write t 0 x       => a=new       | a=new t=
        sync t            => a=new       | a=new t=x
        open t            => NotFound
        create a          => AlreadyExists
        rename a a        => a=new       | a=new t=x
        mkdir d           => a=new       | a=new t=x
        rename a d/a      => CrossesDevices
        rename a d        => IsADirectory
        remove d          => IsADirectory
        syncdir .         => a=new       | a=new
        peek a            => a=new       | a=new
        write a 0 x       => PermissionDenied
        length a 0        => PermissionDenied
        sync a            => a=new       | a=new
        ",
    );
}

#[test]
fn a_full_disk_writes_what_fits_and_takes_overwrites() {
    let (disk, file) = disk_with(1, b"1234");
    disk.set_capacity(Some(6));
    assert_eq!(disk.free_bytes().unwrap(), 2);
    assert_eq!(file.set_length(7).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.write_at(b"abcd", 3).unwrap(), 3);
    assert_eq!(disk.contents("log").unwrap(), b"123abc");
    for (path, offset) in [("log", 6), ("log", 9), ("log", u64::MAX)] {
        let file = disk.open(path, Access::Write).unwrap();
        assert_eq!(file.write_at(b"x", offset).unwrap_err().kind(), ErrorKind::StorageFull);
    }
    let full = disk.open("other", Access::CreateNew).err().unwrap();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    assert_eq!(file.write_at(b"xxxxxx", 0).unwrap(), 6);
    assert_eq!(file.write_at(b"", 6).unwrap(), 0);
    file.set_length(5).unwrap();
    disk.open("other", Access::CreateNew).unwrap();
    disk.remove("log").unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 6);
    disk.set_capacity(None);
    assert_eq!(disk.free_bytes().unwrap(), u64::MAX);
    assert_eq!(file.set_length(1 << 40).unwrap_err().kind(), ErrorKind::StorageFull);
}

#[test]
fn every_operation_is_counted_and_can_fail_without_effect() {
    type Operation = fn(&SimDisk, &dyn DiskFile) -> io::Result<()>;
    let operations: [Operation; 13] = [
        |disk, _| disk.open("new", Access::CreateNew).map(drop),
        |disk, _| disk.open("log", Access::Read).map(drop),
        |disk, _| disk.list("").map(drop),
        |disk, _| disk.create_directory("d"),
        |disk, _| disk.sync_directory(""),
        |disk, _| disk.rename("log", "gol"),
        |disk, _| disk.remove("log"),
        |_, file| file.read_at(&mut [0; 9], 0).map(drop),
        |_, file| file.write_at(b"x", 0).map(drop),
        |_, file| file.length().map(drop),
        |_, file| file.set_length(9),
        |_, file| file.drop_cache(0),
        |_, file| file.sync(),
    ];
    for (n, operation) in operations.iter().enumerate() {
        let (disk, file) = disk_with(1, b"1234");
        let before = (disk.operations(), disk.trace().len());
        disk.fail(1, Fault::Error(ErrorKind::Interrupted));
        disk.fail(2, Fault::Short(0));
        file.length().unwrap();
        let error = operation(&disk, &*file).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted, "operation {n}");
        assert_eq!((show(&disk), disk.list("").unwrap().len()), ("log=1234".to_owned(), 1), "operation {n}");
        let recorded = usize::from(n == 12);
        assert_eq!(
            (before.0 + 3, before.1 + recorded),
            (disk.operations(), disk.trace().len()),
            "operation {n}"
        );
        operation(&disk, &*file).unwrap();
    }
}

#[test]
fn lasting_faults_last_until_healed() {
    let (disk, file) = disk_with(1, b"1234");
    disk.fail_from(1, Fault::Error(ErrorKind::Other));
    disk.fail(2, Fault::Short(1));
    let written = || file.write_at(b"abc", 0).map_err(|error| error.kind());
    assert_eq!([written(), written(), written()], [Ok(3), Err(ErrorKind::Other), Ok(1)]);
    assert_eq!(written(), Err(ErrorKind::Other));
    disk.fail(0, Fault::Short(0));
    disk.heal();
    assert_eq!(written(), Ok(3));
    disk.fail_from(0, Fault::Error(ErrorKind::Other));
    let operations = disk.operations();
    drop((
        disk.lock().unwrap(),
        disk.is_locked().unwrap(),
        disk.free_bytes().unwrap(),
        disk.random().unwrap(),
    ));
    assert_eq!(disk.operations(), operations, "these are no operations");
    disk.fail_from(0, Fault::Short(0));
    assert_eq!((written(), file.read_at(&mut [0; 9], 0).unwrap()), (Ok(0), 1));
    disk.fail_from(0, Fault::Short(2));
    assert_eq!((written(), file.read_at(&mut [0; 9], 0).unwrap()), (Ok(2), 2));
    assert_eq!(
        last_image(&disk, CrashMode::Keep).open("log", Access::Write).unwrap().write_at(b"abc", 0).unwrap(),
        3
    );
}

#[test]
fn what_changed_is_traced_and_nothing_else() {
    let (disk, file) = disk_with(1, b"");
    let before = disk.trace();
    disk.create_directory("").unwrap();
    disk.open("none", Access::Read).err().unwrap();
    read(&*file);
    disk.fail(0, Fault::Short(2));
    disk.fail(1, Fault::Short(0));
    assert_eq!([file.write_at(b"abc", 0).unwrap(), file.write_at(b"abc", 2).unwrap()], [2, 0]);
    let trace = disk.trace();
    assert_eq!((before.len(), trace.len(), before.is_empty(), trace.is_empty()), (0, 1, true, false));
    assert_eq!(trace.image(1, CrashMode::Keep).contents("log").unwrap(), b"ab");
}

#[test]
fn notes_stand_between_operations() {
    let (disk, file) = disk_with(1, b"");
    disk.note(1);
    file.write_at(b"a", 0).unwrap();
    disk.note(2);
    disk.note(3);
    file.write_at(b"b", 0).unwrap();
    disk.note(4);
    let trace = disk.trace();
    disk.note(5);
    let notes = |trace: &Trace, point| trace.notes_before(point).collect::<Vec<_>>();
    assert_eq!([0, 1, 2].map(|point| notes(&trace, point)), [vec![1], vec![1, 2, 3], vec![1, 2, 3, 4]]);
    disk.set_contents("other", Some(Vec::new()));
    assert_eq!((notes(&disk.trace(), 0), disk.trace().len()), (vec![1, 2, 3, 4, 5], 0));
}

#[test]
fn images_can_be_stopped_again() {
    let (disk, file) = disk_with(1, b"base");
    let locked = disk.lock().unwrap();
    file.write_at(b"1", 0).unwrap();
    let first = last_image(&disk, CrashMode::Keep);
    assert!(disk.is_locked().unwrap() && !first.is_locked().unwrap() && first.trace().is_empty());
    first.open("log", Access::Write).unwrap().write_at(b"2", 1).unwrap();
    assert_eq!(last_image(&first, CrashMode::Drop).contents("log").unwrap(), b"base", "a kill syncs nothing");
    let second = last_image(&first, CrashMode::Keep);
    assert_eq!(second.contents("log").unwrap(), b"12se");
    assert_eq!(first.trace().image(0, CrashMode::Keep).contents("log").unwrap(), b"1ase");
    assert_eq!(disk.contents("log").unwrap(), b"1ase", "an image is another disk");
    assert!(matches!(disk.lock().unwrap(), Lock::HeldBy(Holder::ThisProcess)));
    drop(locked);
    assert!(matches!(disk.lock().unwrap(), Lock::Held(_)));
}

#[test]
fn contents_set_by_hand_are_durable_with_any_pending_changes() {
    let disk = SimDisk::new(1);
    disk.set_contents("back", Some(b"before".to_vec()));
    disk.remove("back").unwrap();
    for path in ["a", "t", "gone"] {
        disk.open(path, Access::CreateNew).unwrap().write_at(b"pending", 0).unwrap();
    }
    disk.rename("t", "b").unwrap();
    disk.set_contents("old", Some(b"durable".to_vec()));
    disk.rename("old", "new").unwrap();
    for (path, bytes) in [
        ("a", Some("1")),
        ("b", Some("2")),
        ("back", Some("4")),
        ("d/c", Some("3")),
        ("gone", None),
        ("new", None),
        ("none", None),
    ] {
        disk.set_contents(path, bytes.map(|text| text.as_bytes().to_vec()));
    }
    assert_eq!(show(&last_image(&disk, CrashMode::Drop)), "a=1 b=2 back=4 d/c=3");
    disk.sync_directory("").unwrap();
    disk.open("a", Access::Write).unwrap().sync().unwrap();
    assert_eq!(show(&last_image(&disk, CrashMode::Drop)), "a=1 b=2 back=4 d/c=3");
    assert_eq!(disk.list("").unwrap(), ["a", "b", "back", "d"]);
    assert_eq!(disk.list("d").unwrap(), ["c"]);
    assert_eq!((disk.contents("d"), disk.contents("none")), (None, None));
}

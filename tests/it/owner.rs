//! Whose a store's files are when the superuser works on another user's store.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use annals::{ErrorKind, Limits, Query, Raw, Store, restore};

use crate::obedient::Obedient;
use crate::support::{fill, kind_of};

/// A user and a group that own nothing else.
const OTHER: u32 = 65_534;

/// A directory that belongs to that user; `None` where the tests may not make one.
fn of_other(parent: &Path, name: &str) -> Option<PathBuf> {
    let path = parent.join(name);
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    chown(&path, Some(OTHER), Some(OTHER)).ok().map(|()| path)
}

/// A process of that user, which opens the store.
fn service(store: &Path) -> Obedient {
    let mut service = Obedient::prepared(store, |command| {
        command.uid(OTHER).gid(OTHER).current_dir("/");
    });
    assert_eq!(service.hear(), "open");
    service
}

/// What in a directory, itself included, is not that user's.
fn strange(directory: &Path) -> Vec<String> {
    let (mut found, mut left) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(path) = left.pop() {
        let about = fs::symlink_metadata(&path).unwrap();
        if about.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        if (about.uid(), about.gid()) != (OTHER, OTHER) {
            found.push(format!("{} of {}:{}", path.display(), about.uid(), about.gid()));
        }
    }
    found
}

// A service's store, maintained by root: the new files were root's, 0600, and the service could neither read nor write.
#[test]
fn what_root_writes_belongs_to_the_owner_of_the_directory() {
    let base = tempfile::tempdir().unwrap();
    fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let Some(store) = of_other(base.path(), "store") else {
        println!("not run as root: what is refused is tested instead");
        return assert_eq!(kind_of(Store::open("/usr")), ErrorKind::Unsafe);
    };
    let mut first = service(&store);
    (1..=60).for_each(|position| assert_eq!(first.append(), position));
    first.kill();

    // Recovery, a torn tail, new segments, indexes, states, erasing, rewriting.
    let torn =
        fs::read_dir(store.join("segments")).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
    let mut bytes = fs::read(&torn).unwrap();
    let end = (bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1).next_multiple_of(8);
    bytes.resize(bytes.len().max(end + 20), 0);
    bytes[end..end + 5].copy_from_slice(b"torn!");
    fs::write(&torn, bytes).unwrap();
    let own = Store::builder(&store).segment_bytes_max(2_000).limits(Limits::FORMAT).open().unwrap();
    assert!(own.open_report().cut.is_some());
    fill(&own, "root", 60);
    own.erase(Query::entity("root"), "why").unwrap();
    own.compaction("why").merge().run().unwrap();
    own.checkpoint("noon", "why").unwrap();
    let nested = of_other(base.path(), "backups").unwrap();
    own.backup(nested.join("2026/first")).run().unwrap();
    own.backup(nested.join("2026/first")).run().unwrap();
    own.close().unwrap();
    assert_eq!(strange(&store), Vec::<String>::new());
    assert_eq!(strange(&nested), Vec::<String>::new());
    assert!(store.join("quarantine").exists());

    // A backup of root's own, from which the service's store is made again. Shared files would stay root's.
    let kept = base.path().join("kept");
    Store::builder(&store).open().unwrap().backup(&kept).run().unwrap();
    assert_eq!(fs::metadata(kept.join("MANIFEST")).unwrap().uid(), 0);
    let again = of_other(base.path(), "again").unwrap();
    restore(&kept, &again, annals::Until::End).run().unwrap();
    assert_eq!(strange(&again), Vec::<String>::new());

    for path in [&store, &nested.join("2026/first"), &again] {
        let mut service = service(path);
        assert!(service.append() > 120, "{}", path.display());
        assert_eq!(service.ask("close"), "closed");
    }
}

// What an older annals left is put right by root's next writer: the service cannot.
#[test]
fn files_that_root_left_are_handed_over() {
    let base = tempfile::tempdir().unwrap();
    fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let Some(store) = of_other(base.path(), "store") else {
        return println!("not run as root: nothing can be left by it");
    };
    let mut first = service(&store);
    first.append();
    assert_eq!(first.ask("close"), "closed");
    for name in ["LOCK", "MARK", "MANIFEST", "segments", "segments/00000000000000000001.0.seg"] {
        chown(store.join(name), Some(0), Some(0)).unwrap();
    }
    let own = Store::open(&store).unwrap();
    own.append("e", &Raw("k", &())).unwrap();
    own.close().unwrap();
    assert_eq!(strange(&store), Vec::<String>::new());
    assert_eq!(service(&store).append(), 3);
}

//! Every piece of maintenance on a disk that fails: each of its calls once, and with no room from there on.

use annals::disk::{SimDisk, Subdirectory};
use annals::{GroupBy, Position, Query, Raw, Store, StoreCopy};

use crate::maintenance::{KEPT, LIVE, SHAPE, Work, described, inside, kept, open, sweep};
use crate::rewrite_crash::{COMPACT, ERASE, Goes, SECRET, holder_of_a_secret};
use crate::sim_support::*;

/// Where backups are put, and other stores made.
const COPY: &str = "copy";
const MADE: &str = "made";

/// Nothing goes, and the store is open.
const PLAIN: Work = Work {
    name: "nothing",
    is_beside: true,
    prepare: |_| {},
    run: |_, _, _| Ok(()),
    goes: |_| Goes::No,
    made: |_, _| Ok(Vec::new()),
};

#[test]
fn erasing() {
    sweep(&Work {
        name: "erase",
        prepare: with_quarantine,
        run: |_, _, store| (ERASE.run)(store.unwrap()),
        goes: ERASE.goes,
        made: |_, disk| Ok(without_secrets(disk, "")),
        ..PLAIN
    });
}

#[test]
fn compacting_with_merging() {
    sweep(&Work {
        name: "compact: remove, merge",
        run: |_, _, store| (COMPACT.run)(store.unwrap()),
        goes: COMPACT.goes,
        made: |_, disk| Ok(without_secrets(disk, "")),
        ..PLAIN
    });
}

#[test]
fn compacting_to_tombstones() {
    sweep(&Work {
        name: "compact: tombstones",
        run: |_, _, store| {
            let asked = Query::entity("user:1").or(Query::all().tag("student:7"));
            store.unwrap().compaction("why").remove(asked).tombstones().run().map(drop)
        },
        goes: ERASE.goes,
        made: |_, disk| Ok(without_secrets(disk, "")),
        ..PLAIN
    });
}

#[test]
fn compacting_by_number() {
    sweep(&Work {
        name: "compact: retain",
        run: |scene, _, store| {
            let compaction = store.unwrap().compaction("why").keep_newest(2, GroupBy::Entity);
            compaction.before(Position::from(scene.head.position().get() + 1)).run().map(drop)
        },
        goes: |_| Goes::Entirely,
        ..PLAIN
    });
}

#[test]
fn a_new_backup() {
    sweep(&Work {
        name: "a new backup",
        prepare: |disk| drop(Subdirectory::create(disk.clone(), COPY).unwrap()),
        run: |_, spy, store| store.unwrap().backup_on(inside(spy, COPY)).run().map(drop),
        made: |scene, disk| described(scene, disk, COPY),
        ..PLAIN
    });
}

#[test]
fn a_new_backup_that_shares_nothing() {
    sweep(&Work {
        name: "a new backup that shares nothing",
        prepare: |disk| drop(Subdirectory::create(disk.clone(), COPY).unwrap()),
        run: |_, spy, store| store.unwrap().backup_on(inside(spy, COPY)).without_sharing().run().map(drop),
        made: |scene, disk| described(scene, disk, COPY),
        ..PLAIN
    });
}

#[test]
fn a_further_backup() {
    sweep(&Work {
        name: "a further backup",
        prepare: with_backup,
        run: |_, spy, store| store.unwrap().backup_on(inside(spy, COPY)).without_sharing().run().map(drop),
        // They went before it began.
        goes: ERASE.goes,
        made: |scene, disk| {
            let events = described(scene, disk, COPY)?;
            Ok(events.into_iter().chain(without_secrets(disk, COPY)).collect())
        },
        ..PLAIN
    });
}

#[test]
fn a_backup_of_what_was_set_back() {
    sweep(&Work {
        name: "a backup of what was set back",
        prepare: with_set_back,
        run: |_, spy, store| store.unwrap().backup_on(inside(spy, COPY)).run().map(drop),
        made: |scene, disk| described(scene, disk, COPY),
        ..PLAIN
    });
}

#[test]
fn restoring() {
    sweep(&Work {
        name: "restore",
        is_beside: false,
        prepare: |disk| drop(Subdirectory::create(disk.clone(), MADE).unwrap()),
        run: |_, spy, _| {
            let from = Store::on(inside(spy, LIVE));
            StoreCopy::restore_on(from, inside(spy, MADE), kept()).run().map(drop)
        },
        made: |scene, disk| described(scene, disk, MADE),
        ..PLAIN
    });
}

#[test]
fn forking() {
    sweep(&Work {
        name: "fork",
        prepare: |disk| drop(Subdirectory::create(disk.clone(), MADE).unwrap()),
        run: |_, spy, store| store.unwrap().fork_on(inside(spy, MADE), kept()).run().map(drop),
        made: |scene, disk| described(scene, disk, MADE),
        ..PLAIN
    });
}

#[test]
fn rolling_back() {
    sweep(&Work {
        name: "rollback",
        is_beside: false,
        run: |scene, spy, _| {
            SHAPE.builder(inside(spy, LIVE), &Gate::default()).rollback(kept(), &scene.head, "why")?;
            Ok(())
        },
        goes: |event| if event.position().get() > KEPT { Goes::Entirely } else { Goes::No },
        made: |scene, disk| {
            let store = Store::on(inside(disk, LIVE)).open_read_only()?;
            if store.at(scene.head.position())?.is_some_and(|last| last.chain() == scene.head.chain()) {
                return Ok(Vec::new());
            }
            let old = disk.paths().into_iter().find_map(|path| {
                let (directory, name) = path.rsplit_once('/')?;
                (name == "MANIFEST" && directory.contains("quarantine/")).then(|| directory.to_owned())
            });
            Ok(described(scene, disk, &old.unwrap()).unwrap())
        },
        ..PLAIN
    });
}

#[test]
fn a_checkpoint() {
    sweep(&Work {
        name: "checkpoint",
        run: |_, _, store| {
            store.unwrap().checkpoint("noon", &"so long that it needs a segment ".repeat(18)).map(drop)
        },
        made: |_, disk| {
            let taken = Store::on(inside(disk, LIVE)).open_read_only()?.checkpoints()?;
            let mut names: Vec<String> = taken.into_iter().map(|checkpoint| checkpoint.name).collect();
            // A caller that got an error takes the checkpoint again.
            names.dedup();
            Ok(names)
        },
        ..PLAIN
    });
}

#[cfg(feature = "jsonl")]
#[test]
fn importing() {
    sweep(&Work {
        name: "import",
        run: |scene, _, store| store.unwrap().import("lines", scene.lines.as_bytes()).run().map(drop),
        made: |scene, disk| {
            let store = Store::on(inside(disk, LIVE)).open_read_only()?;
            let events = dump(&store)?.into_iter().filter(|event| event.entity().starts_with("import"));
            assert!(!scene.lines.is_empty());
            Ok(events.map(|event| format!("{} {:?}", event.version(), event.payload())).collect())
        },
        ..PLAIN
    });
}

/// What recovery once cut, secrets and all.
fn with_quarantine(disk: &SimDisk) {
    let path = "live/quarantine/00000000000000000001.0.700.torn";
    disk.set_contents(path, Some(SECRET.as_bytes().to_vec()));
}

/// A backup from before something was erased, and something more came.
fn with_backup(disk: &SimDisk) {
    let copy = Subdirectory::create(disk.clone(), COPY).unwrap();
    let store = open(disk, LIVE).unwrap();
    store.backup_on(copy).without_sharing().run().unwrap();
    (ERASE.run)(&store).unwrap();
    store.append("order:7", &Raw("p", &"more")).unwrap();
    store.close().unwrap();
}

/// A backup, and a store that was set back to where that ends and gone on: with a segment that was written
/// anew.
fn with_set_back(disk: &SimDisk) {
    let copy = Subdirectory::create(disk.clone(), COPY).unwrap();
    let store = open(disk, LIVE).unwrap();
    store.backup_on(copy).without_sharing().run().unwrap();
    let end = store.head().unwrap().position();
    store.append("order:7", &Raw("p", &"to be cut")).unwrap();
    let cut = store.head().unwrap();
    store.close().unwrap();
    SHAPE.builder(inside(disk, LIVE), &Gate::default()).rollback(end, &cut, "why").unwrap();
    let store = open(disk, LIVE).unwrap();
    store.append("order:7", &Raw("p", &"more")).unwrap();
    store.close().unwrap();
}

/// Says so if no file in a directory holds a secret.
fn without_secrets(disk: &SimDisk, directory: &str) -> Vec<String> {
    let is_clean = holder_of_a_secret(disk).is_none_or(|path| !path.starts_with(directory));
    is_clean.then(|| "without secrets".to_owned()).into_iter().collect()
}

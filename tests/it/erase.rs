//! Erasing: what goes, what stays, and that nothing of it is left anywhere.

use std::ops::ControlFlow;
use std::time::Instant;

use annals::disk::{CrashMode, Disk, Fault, SimDisk};
use annals::{
    Append, DomainEvent, ErrorKind, Meta, Notice, Position, Projection, Query, Raw, RecordedEvent, Store,
};
use serde::{Deserialize, Serialize};

use crate::sim_spy::{Spy, What};
use crate::support::{FOREVER, GatedDisk, all, eventually, kind_of};

/// What must be found nowhere once it was erased.
const SECRET: &str = "CANARY-4711-CANARY";

fn opened(disk: &SimDisk) -> Store {
    Store::on(disk.clone()).segment_bytes_max(2000).operator("anna").open().unwrap()
}

/// Whether any file holds the secret.
fn is_anywhere(disk: &SimDisk) -> Option<String> {
    let holds = |path: &String| {
        // An index may get its name just now.
        let bytes = disk.contents(path).unwrap_or_default();
        bytes.windows(SECRET.len()).any(|piece| piece == SECRET.as_bytes())
    };
    disk.paths().into_iter().find(holds)
}

fn public(event: &RecordedEvent) -> String {
    format!(
        "{} {} {} {} {} {:?} {:?} {:?}",
        event.position(),
        event.version(),
        event.id(),
        event.entity(),
        event.kind(),
        event.tags().collect::<Vec<_>>(),
        event.recorded_at(),
        event.chain(),
    )
}

#[test]
fn what_is_erased_is_gone_and_the_rest_stands() {
    let disk = SimDisk::new(3);
    let store = opened(&disk);
    for number in 0..60_u32 {
        let (entity, text) = if number % 3 == 0 { ("customer:7", SECRET) } else { ("customer:8", "kept") };
        Append::to(entity)
            .event(&Raw("moved", &(number, text)))
            .tag("city")
            .key(number.to_le_bytes())
            .commit(&store)
            .unwrap();
    }
    let before = all(store.read(Query::all()));
    let head = store.head().unwrap();
    assert!(is_anywhere(&disk).is_some());
    let erasure = store.erase(Query::entity("customer:7"), "ticket 12").unwrap();
    assert_eq!(erasure.events, 20);
    assert_eq!(is_anywhere(&disk), None);
    let check = |store: &Store| {
        let after = all(store.read(Query::all()));
        assert_eq!(
            before.iter().map(public).collect::<Vec<_>>(),
            after.iter().map(public).collect::<Vec<_>>()
        );
        for (one, other) in before.iter().zip(&after) {
            if one.entity() == "customer:7" {
                assert!(other.is_erased());
                assert_eq!(other.payload().unwrap_err().kind(), ErrorKind::Erased);
                assert_eq!(other.metadata::<u8>().unwrap_err().kind(), ErrorKind::Erased);
            } else {
                assert_eq!(one.payload().unwrap(), other.payload().unwrap());
            }
        }
        let report = store.verify().unwrap();
        assert!(report.is_clean(), "{report}");
        assert_eq!(store.version("customer:7").unwrap().get(), 20);
        // The retry of an append whose payload is gone is still known.
        let again =
            Append::to("customer:7").event(&Raw("moved", &(0, "other"))).tag("city").key(0_u32.to_le_bytes());
        assert!(again.commit(store).unwrap().replayed());
    };
    check(&store);
    assert_eq!(store.at(head.position()).unwrap().unwrap().chain(), head.chain());
    let kinds: Vec<String> =
        all(store.read(Query::entity("$ledger"))).iter().map(|event| event.kind().to_owned()).collect();
    assert_eq!(kinds, ["$ledger.erasing", "$ledger.erased"]);
    store.close().unwrap();
    let report = Store::on(disk.clone()).verify().unwrap();
    assert!(report.is_clean(), "{report}");
    let store = opened(&disk);
    assert!(store.open_report().unknown.is_empty() && store.open_report().removed.is_empty());
    check(&store);
    let trace = disk.trace();
    let image = trace.image(trace.len(), CrashMode::Drop);
    assert_eq!(is_anywhere(&image), None);
}

/// An event of `customer:7` has the secret, all others do not.
fn fill(store: &Store, appends: u32) {
    for number in 0..appends {
        let (entity, text) = if number % 3 == 0 { ("customer:7", SECRET) } else { ("customer:8", "kept") };
        store.append(entity, &Raw("moved", &(number, text))).unwrap();
    }
}

fn victim() -> Query {
    Query::entity("customer:7")
}

#[test]
fn who_reads_goes_on_and_who_comes_sees_that_it_is_gone() {
    let disk = SimDisk::new(4);
    let store = Store::on(disk.clone()).segment_bytes_max(700).index_memory_bytes(0).segment_memory_bytes(0);
    let store = store.recent_bytes_max(0).open().unwrap();
    fill(&store, 60);
    let before = all(store.read(Query::all()));
    let mut read = store.read(Query::all());
    let mut back = store.read(victim()).backwards();
    let mut subscription = store.subscribe(Query::all());
    let (first, last) = (read.next().unwrap().unwrap(), back.next().unwrap().unwrap());
    assert_eq!((first.position().get(), last.version().get()), (1, 20));
    subscription.next_timeout(FOREVER).unwrap();
    store.erase(victim(), "why").unwrap();
    assert_eq!(is_anywhere(&disk), None);
    let rest: Vec<_> = read.map(|event| event.unwrap().payload().unwrap().to_vec()).collect();
    let right: Vec<_> = before[1..].iter().map(|event| event.payload().unwrap().to_vec()).collect();
    assert_eq!(rest, right);
    let back: Vec<RecordedEvent> = back.map(Result::unwrap).collect();
    assert!(back.len() == 19 && back.iter().all(|event| !event.is_erased()));
    for event in &before[1..] {
        let next = subscription.next_timeout(FOREVER).unwrap().unwrap();
        assert_eq!(next.id(), event.id());
    }
    assert!(all(store.stream("customer:7")).iter().all(RecordedEvent::is_erased));
    assert_eq!(store.erase(victim(), "again").unwrap().events, 0, "there is nothing left to erase");
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Texts {
    texts: Vec<String>,
    erased: u32,
}

impl Projection for Texts {
    type Event = Moved;
    const NAME: &'static str = "texts";

    fn apply(&mut self, event: Moved, _: &Meta<'_>) {
        self.texts.push(event.1);
    }

    fn erased(&mut self, _: &Meta<'_>) {
        self.erased += 1;
    }
}

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(kind = "moved")]
struct Moved(u32, String);

#[test]
fn states_folded_before_are_void_in_memory_in_the_file_and_in_read_models() {
    let disk = SimDisk::new(5);
    let store = opened(&disk);
    fill(&store, 150);
    let model = store.project::<Texts>(Query::all()).unwrap();
    assert!(model.wait_for(store.head().unwrap().position(), FOREVER).unwrap());
    assert_eq!(store.load::<Texts>("customer:7").unwrap().texts.len(), 50);
    drop(model);
    store.close().unwrap();
    assert!(disk.contents("cache/projections.redb").is_some());
    let store = opened(&disk);
    assert_eq!(store.load::<Texts>("customer:7").unwrap().texts.len(), 50);
    assert!(store.stats().cache.disk_hits > 0, "the state came from the file");
    let model = store.project::<Texts>(Query::all()).unwrap();
    assert!(model.wait_for(store.head().unwrap().position(), FOREVER).unwrap());
    let stale = store.load::<Texts>("customer:8").unwrap();
    let erasure = store.erase(victim(), "why").unwrap();
    assert_eq!(erasure.events, 50);
    assert_eq!(is_anywhere(&disk), None);
    let trace = disk.trace();
    assert_eq!(is_anywhere(&trace.image(trace.len(), CrashMode::Drop)), None);
    let state = store.load::<Texts>("customer:7").unwrap();
    assert_eq!((state.texts.len(), state.erased), (0, 50));
    assert_eq!(store.load::<Texts>("customer:8").unwrap().texts, stale.texts);
    // A read model is folded anew beside the one that is shown.
    let deadline = Instant::now() + FOREVER;
    while model.state().erased != 50 {
        assert!(Instant::now() < deadline, "the read model was not folded anew");
        std::thread::yield_now();
    }
    assert_eq!(model.state().texts.len(), 100);
    assert!(store.replay_check::<Texts>().run().unwrap().is_clean());
    drop(model);
    store.close().unwrap();
    assert_eq!(is_anywhere(&disk), None);
    let store = opened(&disk);
    assert_eq!(store.load::<Texts>("customer:7").unwrap().erased, 50);
    assert_eq!(store.load::<Texts>("customer:8").unwrap().texts, stale.texts);
}

/// States are kept in a file. A store that is opened without that option does not need the file, and must
/// still remove it.
#[test]
fn a_file_of_states_that_is_not_used_goes_too() {
    for cache_bytes in [0, 64 << 20] {
        let disk = SimDisk::new(5);
        let store = opened(&disk);
        fill(&store, 150);
        assert_eq!(store.load::<Texts>("customer:7").unwrap().texts.len(), 50);
        store.close().unwrap();
        assert!(disk.contents("cache/projections.redb").is_some());
        let spy = Spy::new(disk.clone());
        let open =
            || Store::on(spy.clone()).segment_bytes_max(2000).cache_disk_bytes(cache_bytes).open().unwrap();
        let store = open();
        // It is not removed at once, and not left at that.
        spy.trap(What::Remove, "cache/projections.redb", Fault::Error(std::io::ErrorKind::Other));
        if let Err(error) = store.erase(victim(), "why") {
            assert!(cache_bytes == 0 && error.kind() == ErrorKind::Io, "{error}");
            store.erase(victim(), "again").unwrap();
        }
        assert_eq!(is_anywhere(&disk), None);
    }
}

#[test]
fn a_store_that_is_read_along_sees_it() {
    let disk = SimDisk::new(6);
    let store = opened(&disk);
    fill(&store, 30);
    let reader = Store::on(disk.clone()).open_read_only().unwrap();
    let mut notices = reader.notifications(Query::all());
    assert_eq!(reader.load::<Texts>("customer:7").unwrap().texts.len(), 10);
    fill(&store, 30);
    assert_eq!(reader.count(victim()).unwrap(), 20);
    store.erase(victim(), "why").unwrap();
    let check = |erased: usize| {
        let events = all(reader.stream("customer:7"));
        assert_eq!(events.iter().filter(|event| event.is_erased()).count(), erased);
        let right = all(store.read(Query::all()));
        let same = |one: &RecordedEvent, other: &RecordedEvent| one.payload().ok() == other.payload().ok();
        assert!(all(reader.read(Query::all())).iter().zip(&right).all(|(one, other)| same(one, other)));
        assert_eq!(reader.head().unwrap(), store.head().unwrap());
        let state = reader.load::<Texts>("customer:7").unwrap();
        assert_eq!(usize::try_from(state.erased).unwrap(), erased);
    };
    check(20);
    // On through segments that are rewritten before the reader has come to them.
    for round in 3..6 {
        fill(&store, 30);
        store.erase(victim(), "why").unwrap();
        check(round * 10);
    }
    assert!(reader.verify().unwrap().is_clean());
    let mut told = 0;
    while let Some(notice) = notices.try_next().unwrap() {
        match notice {
            Notice::Events(events) => told += events.len(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told, 120, "every event that came since was told of once");
}

#[test]
fn what_cannot_be_erased_is_refused() {
    let disk = SimDisk::new(7);
    let store = opened(&disk);
    fill(&store, 9);
    for query in [
        Query::entity_prefix("$"),
        Query::entity("$ledger"),
        Query::all().kind("$consumer.acked"),
        Query::all().scope("$system"),
        victim().or(Query::entity("$timer/x")),
    ] {
        assert_eq!(kind_of(store.erase(query, "why")), ErrorKind::Invalid);
    }
    assert!(all(store.read(Query::entity_prefix("$"))).is_empty(), "a refusal leaves no trace");
    let reader = Store::on(disk.clone()).open_read_only().unwrap();
    assert_eq!(kind_of(reader.erase(victim(), "why")), ErrorKind::Invalid);
    store.clone().close().unwrap();
    assert_eq!(kind_of(store.erase(victim(), "why")), ErrorKind::Closed);
}

#[test]
fn what_was_cut_from_a_torn_tail_goes_too() {
    let disk = SimDisk::new(8);
    let store = opened(&disk);
    fill(&store, 9);
    store.close().unwrap();
    disk.set_contents("quarantine/00000000000000000001.0.700.torn", Some(SECRET.as_bytes().to_vec()));
    let store = opened(&disk);
    let erasure = store.erase(victim(), "why").unwrap();
    assert_eq!((erasure.events, erasure.quarantined), (3, 1));
    assert_eq!(is_anywhere(&disk), None);
}

// A store that was set back keeps the old history as a store of its own, payloads and all.
#[test]
fn what_was_set_back_goes_too() {
    let disk = SimDisk::new(8);
    let store = opened(&disk);
    fill(&store, 9);
    let cut = store.head().unwrap();
    store.close().unwrap();
    let report = Store::on(disk.clone()).rollback(Position::from(6), &cut, "a mistake").unwrap();
    let inside = |path: &String| path.starts_with(&report.quarantine) && !path.ends_with("/segments");
    assert!(disk.paths().iter().any(|path| inside(path) && path.ends_with(".seg")));
    let store = opened(&disk);
    let erasure = store.erase(victim(), "why").unwrap();
    assert_eq!(is_anywhere(&disk), None);
    let left: Vec<String> = disk.paths().into_iter().filter(inside).collect();
    assert!(erasure.quarantined > 2 && left.iter().all(|path| *path == report.quarantine), "{left:?}");
}

#[test]
fn broken_off_it_goes_on_when_the_store_is_opened_again() {
    let disk = SimDisk::new(9);
    let store = Store::on(disk.clone()).segment_bytes_max(2 << 20).open().unwrap();
    let filler = "x".repeat(1 << 20);
    for _ in 0..6 {
        store.append("customer:7", &Raw("moved", &(0, SECRET))).unwrap();
        store.append("customer:8", &Raw("filled", &filler)).unwrap();
    }
    let mut calls = 0;
    let broken = store.erase_watched(victim(), "why", |progress| {
        assert!(progress.bytes <= progress.bytes_total && progress.bytes_total > 5 << 20);
        calls += 1;
        if calls < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert_eq!(kind_of(broken), ErrorKind::Cancelled);
    assert!(is_anywhere(&disk).is_some());
    assert!(store.verify().unwrap().is_clean());
    assert!(disk.paths().iter().all(|path| !path.ends_with(".tmp")), "{:?}", disk.paths());
    store.close().unwrap();
    let store = Store::on(disk.clone()).segment_bytes_max(2 << 20).open().unwrap();
    let deadline = Instant::now() + FOREVER;
    while disk.paths().iter().any(|path| path == "ERASING") {
        assert!(Instant::now() < deadline, "the erasure was not continued");
        std::thread::yield_now();
    }
    assert_eq!(is_anywhere(&disk), None);
    assert_eq!(all(store.stream("customer:8")).len(), 6);
    assert!(all(store.stream("customer:7")).iter().all(RecordedEvent::is_erased));
    let done = store.last(Query::entity("$ledger").kind("$ledger.erased")).unwrap();
    assert!(done.is_some());
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn what_is_sealed_while_an_erasure_is_resumed_gets_its_index() {
    let disk = GatedDisk::of_rewriting();
    let opened = || Store::on(disk.clone()).segment_bytes_max(2000).open().unwrap();
    let store = opened();
    fill(&store, 60);
    let broken = store.erase_watched(victim(), "why", |_| ControlFlow::Break(()));
    assert_eq!(kind_of(broken), ErrorKind::Cancelled);
    store.close().unwrap();

    let arrived = disk.gate().arrived();
    let store;
    let held = disk.gate().hold();
    store = opened();
    disk.gate().wait_for_sync(arrived);
    let names = || {
        let mut names = disk.list("segments").unwrap();
        names.sort_unstable();
        names
    };
    let before = names();
    let segments = store.stats().segments;
    fill(&store, 60);
    assert!(store.stats().segments > segments + 3);
    let sealed: Vec<String> = names().into_iter().filter(|name| name.ends_with(".seg")).collect();
    let sealed_since = sealed.iter().rev().skip(1).filter(|name| !before.contains(name));
    let indexes: Vec<String> = sealed_since.map(|name| name.replace(".seg", ".idx")).collect();
    assert!(indexes.len() > 2, "{sealed:?}");
    eventually("every segment that was sealed since has its index", || {
        indexes.iter().all(|index| names().contains(index))
    });
    assert!(disk.list("").unwrap().contains(&"ERASING".to_owned()), "it is still at it");
    drop(held);
    eventually("the erasure is done", || !disk.list("").unwrap().contains(&"ERASING".to_owned()));
    let is_erased: Vec<bool> = all(store.stream("customer:7")).iter().map(RecordedEvent::is_erased).collect();
    assert_eq!(is_erased, [[true; 20], [false; 20]].concat());
    store.close().unwrap();
}

/// An operator opened a backup to write and looked into it. The store kept the states that it folded.
#[test]
fn a_backup_that_was_brought_up_to_date_holds_nothing_of_it_either() {
    let (disk, backup) = (SimDisk::new(14), SimDisk::new(15));
    let store = opened(&disk);
    fill(&store, 150);
    store.backup_on(backup.clone()).run().unwrap();
    let looked_into = opened(&backup);
    assert_eq!(looked_into.load::<Texts>("customer:7").unwrap().texts.len(), 50);
    looked_into.close().unwrap();
    assert!(backup.contents("cache/projections.redb").is_some());
    store.erase(victim(), "why").unwrap();
    assert!(is_anywhere(&backup).is_some());
    store.backup_on(backup.clone()).run().unwrap();
    assert_eq!(is_anywhere(&backup), None);
    let again = opened(&backup);
    assert_eq!(again.load::<Texts>("customer:7").unwrap().erased, 50);
    assert!(again.verify().unwrap().is_clean());
}

/// Files that a stop left and MANIFEST does not list are removed. Files of others stay.
#[test]
fn leftovers_of_this_store_are_removed_and_no_other_files() {
    let disk = SimDisk::new(12);
    let store = opened(&disk);
    fill(&store, 40);
    let old = disk.contents("segments/00000000000000000001.0.seg").unwrap();
    store.erase(victim(), "why").unwrap();
    store.close().unwrap();
    let other = SimDisk::new(13);
    let store = opened(&other);
    fill(&store, 3);
    store.close().unwrap();
    let foreign = other.contents("segments/00000000000000000001.0.seg").unwrap();
    let names = [
        ("segments/00000000000000000001.0.seg", old.clone(), true),
        ("segments/00000000000000000001.1.seg.tmp", old[..300].to_vec(), true),
        ("segments/00000000000000000001.0.idx", vec![1], true),
        ("segments/1.1.seg.tmp", vec![1], false),
    ];
    for (name, bytes, _) in &names {
        disk.set_contents(name, Some(bytes.clone()));
    }
    let reader = Store::on(disk.clone()).open_read_only().unwrap();
    assert!(all(reader.stream("customer:7")).iter().all(RecordedEvent::is_erased));
    drop(reader);
    // What has the name of a segment is a part of the log, or a writer keeps off; and then nothing is removed.
    for (name, bytes) in
        [("segments/00000000000000000001.7.seg", foreign), ("segments/00000000000000000002.0.seg", old)]
    {
        disk.set_contents(name, Some(bytes));
        assert_eq!(kind_of(Store::on(disk.clone()).open()), ErrorKind::Corrupt, "{name}");
        assert!(
            names.iter().all(|(left, ..)| disk.contents(left).is_some()),
            "{name}: something was removed"
        );
        disk.set_contents(name, None);
    }
    let store = opened(&disk);
    let report = store.open_report().clone();
    for (name, _, goes) in &names {
        assert_eq!(disk.contents(name).is_none(), *goes, "{name}: {report}");
        assert_eq!(report.unknown.iter().any(|unknown| unknown == name), !goes, "{name}: {report}");
    }
    assert!(store.verify().unwrap().is_clean());
}

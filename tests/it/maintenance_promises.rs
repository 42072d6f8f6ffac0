//! Small promises of maintenance that nothing else would have missed.

use std::io::ErrorKind as Io;
use std::ops::ControlFlow;

use annals::disk::{CrashMode, Disk, Fault, MemDisk, SimDisk};
use annals::{
    Append, Builder, ErrorKind, KeyWindow, Position, Query, Raw, RecordedEvent, Store, StoreCopy, Until,
};
use serde::Deserialize;

use crate::sim_spy::{Spy, What};
use crate::sim_support::{BUFFERED, fingerprint};
use crate::support::{all, kind_of};

fn builder(disk: &SimDisk) -> Builder {
    Store::on(disk.clone()).segment_bytes_max(1000).operator("anna")
}

/// Appends of two events each, of ten entities.
fn fill(store: &Store, appends: u64) {
    for number in 0..appends {
        let append = Append::to(format!("user:{}", number % 10)).event(&Raw("made", &number));
        append.event(&Raw("changed", &number)).key(number.to_le_bytes()).commit(store).unwrap();
    }
}

fn prints(store: &Store) -> Vec<u64> {
    all(store.read(Query::all().or(Query::entity_prefix("$")))).iter().map(fingerprint).collect()
}

#[test]
fn erasing_everything_keeps_what_the_store_needs() {
    let disk = SimDisk::new(1);
    let store = builder(&disk).open().unwrap();
    fill(&store, 3);
    let taken = store.checkpoint("noon", "because").unwrap();
    let mut consumer = store.consumer("mail", Query::all()).unwrap();
    let first = consumer.next().unwrap().unwrap().position();
    consumer.ack(first).unwrap();
    consumer.flush().unwrap();
    drop(consumer);
    fill(&store, 20);
    assert_eq!(store.erase(Query::all(), "everything").unwrap().events, 40);
    assert!(all(store.read(Query::all())).iter().all(RecordedEvent::is_erased));
    let own = all(store.read(Query::entity_prefix("$")));
    assert!(own.len() >= 4 && own.iter().all(|event| !event.is_erased()));
    assert_eq!(store.checkpoints().unwrap(), [taken]);
    assert_eq!(store.consumers().unwrap()[0].position, first);
}

/// SPEC.md "Attestation": where it has what.
#[test]
fn an_attestation_says_how_many_went_and_which() {
    let disk = SimDisk::new(2);
    let store = builder(&disk).key_window(KeyWindow::Positions(0)).open().unwrap();
    fill(&store, 3);
    let gone: Vec<[u8; 32]> =
        all(store.read(Query::all())).iter().step_by(2).map(|event| event.chain()).collect();
    store.append("other", &Raw("made", &0)).unwrap();
    (0..10).for_each(|number| drop(store.append(format!("user:{number}"), &Raw("made", &0)).unwrap()));
    store.compaction("no use").before(Position::from(7)).run().unwrap();
    let bytes = disk.contents("segments/00000000000000000001.1.seg").unwrap();
    // Positions 1 to 6 are the leaves 0 to 5: a subtree of four, and one of two.
    let at = 144;
    let number = |offset: usize, length: usize| {
        bytes[at + offset..][..length].iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let order = all(store.read(Query::entity("$ledger").kind("$ledger.compacting"))).pop().unwrap();
    assert_eq!((number(12, 4), number(16, 6), number(22, 1)), (6, order.position().get(), 2));
    assert_eq!(bytes[at + 32..][..32], gone[2]);
    let record: serde_json::Value = order.decode().unwrap();
    assert_eq!((&record["by"], &record["reason"]), (&"anna".into(), &"no use".into()));
    assert_eq!(
        (&record["figures"]["rules"], &record["figures"]["removed"]),
        (&"before position 7".into(), &6.into())
    );
}

#[test]
fn a_key_that_is_known_for_ever_is_known_when_its_events_were_to_go() {
    let disk = SimDisk::new(3);
    let store = builder(&disk).key_window(KeyWindow::Unlimited).open().unwrap();
    fill(&store, 40);
    let done = store.compaction("why").remove(Query::all()).run().unwrap();
    assert_eq!((done.removed, done.erased), (0, 80));
    let again =
        Append::to("user:0").event(&Raw("made", &0)).event(&Raw("changed", &0)).key(0_u64.to_le_bytes());
    let receipt = again.commit(&store).unwrap();
    assert!(receipt.replayed() && receipt.first_position().get() == 1);
}

#[test]
fn segments_that_were_merged_are_no_longer_than_they_may_be() {
    let disk = SimDisk::new(4);
    let store = builder(&disk).segment_bytes_max(300).open().unwrap();
    fill(&store, 60);
    store.close().unwrap();
    let store = builder(&disk).segment_bytes_max(2000).open().unwrap();
    store.compaction("fewer files").merge().run().unwrap();
    let merged: Vec<usize> = disk
        .paths()
        .iter()
        .filter(|path| path.ends_with(".1.seg"))
        .map(|path| disk.contents(path).unwrap().len())
        .collect();
    assert!(merged.len() > 3 && merged.iter().all(|bytes| *bytes > 600 && *bytes <= 2000), "{merged:?}");
}

#[derive(Deserialize)]
struct Entry {
    figures: Figures,
}

#[derive(Deserialize)]
struct Figures {
    removed: u64,
    erased: u64,
}

#[test]
fn a_tombstone_is_not_made_one_again_and_the_ledger_says_what_was_planned_and_done() {
    let disk = SimDisk::new(5);
    let store = builder(&disk).open().unwrap();
    fill(&store, 20);
    let compaction = || store.compaction("why").remove(Query::all()).tombstones();
    assert_eq!(compaction().run().unwrap().erased, 40);
    let plan = compaction().dry_run().unwrap();
    assert_eq!((plan.removed, plan.erased, plan.bytes), (0, 0, 0));
    assert_eq!(compaction().run().unwrap().position, Position::START, "there is nothing to do");
    let figures = |event: &RecordedEvent| {
        let Entry { figures: Figures { removed, erased } } = event.decode().unwrap();
        (removed, erased)
    };
    let ledger = all(store.read(Query::entity("$ledger")));
    let ledger: Vec<_> = ledger.iter().map(|event| (event.kind(), figures(event))).collect();
    assert_eq!(ledger, [("$ledger.compacting", (0, 40)), ("$ledger.compacted", (0, 40))]);
}

#[test]
fn a_backup_goes_no_further_than_what_is_durable() {
    let disk = SimDisk::new(6);
    let store = Store::on(disk.clone()).durability(BUFFERED).open().unwrap();
    fill(&store, 2);
    let durable = store.sync().unwrap();
    fill(&store, 5);
    assert!(store.head().unwrap().position() > durable);
    let reader = Store::on(disk.clone()).open_read_only().unwrap();
    // The store records its own backups, and that record makes every event before it durable.
    for source in [&reader, &store] {
        let copy = MemDisk::new();
        let report = source.backup_on(copy.clone()).run().unwrap();
        let copied = Store::on(copy).open_read_only().unwrap();
        assert_eq!((report.head.position(), copied.head().unwrap()), (durable, report.head));
    }
    assert_eq!(store.durable_head().unwrap(), store.head().unwrap());
}

/// A checkpoint survives a power cut, also with buffered appends.
#[test]
fn what_the_ledger_says_is_durable_under_any_durability() {
    let disk = SimDisk::new(7);
    let store = Store::on(disk.clone()).durability(BUFFERED).open().unwrap();
    fill(&store, 2);
    let taken = store.checkpoint("noon", "").unwrap();
    let trace = disk.trace();
    let after = Store::on(trace.image(trace.len(), CrashMode::Drop)).open().unwrap();
    assert_eq!(after.checkpoints().unwrap(), [taken]);
}

#[test]
fn of_checkpoints_of_one_name_the_newest_counts() {
    let store = Store::in_memory().unwrap();
    store.checkpoint("noon", "").unwrap();
    fill(&store, 2);
    let newest = store.checkpoint("noon", "").unwrap();
    fill(&store, 1);
    let fork = store.fork_on(MemDisk::new(), Until::Checkpoint("noon".to_owned())).run().unwrap();
    assert_eq!(fork.head.position(), newest.head.position());
}

/// The last segment of a restore has the name of one that a restore of more would share.
#[test]
fn what_a_restore_left_is_not_taken_for_what_the_next_one_wants() {
    let live = SimDisk::new(7);
    let store = builder(&live).open().unwrap();
    fill(&store, 30);
    store.close().unwrap();
    let made = SimDisk::new(8);
    let spy = Spy::new(made.clone());
    let restore = |until: Until| StoreCopy::restore_on(Store::on(live.clone()), spy.clone(), until).run();
    spy.trap(What::Rename, "MANIFEST", Fault::Error(Io::Other));
    assert_eq!(kind_of(restore(Until::Position(Position::from(22)))), ErrorKind::Io);
    let left = made.paths().into_iter().filter(|path| path.ends_with(".seg")).count();
    assert!(left > 1, "{left}");
    restore(Until::End).unwrap();
    let (whole, again) = (builder(&live).open().unwrap(), builder(&made).open().unwrap());
    assert_eq!(prints(&again)[..60], prints(&whole)[..]);
    assert!(again.verify().unwrap().is_clean());
}

#[test]
fn a_store_that_ends_in_the_middle_of_a_segment_knows_how_many_entities_it_has() {
    let store = Store::in_memory().unwrap();
    fill(&store, 30);
    let fork = MemDisk::new();
    store.fork_on(fork.clone(), Position::from(6)).run().unwrap();
    assert_eq!(Store::on(fork).open().unwrap().stats().entities, 4, "three, and the ledger");
}

#[test]
fn no_append_fails_because_a_segment_is_rewritten() {
    let disk = SimDisk::new(11);
    let store = builder(&disk).open().unwrap();
    fill(&store, 20);
    store.append("user:2", &Raw("made", &"x".repeat(200))).unwrap();
    disk.set_capacity(Some(1 << 40));
    let used = (1 << 40) - disk.free_bytes().unwrap();
    // So much must be free beside what is written.
    disk.set_capacity(Some(used + (1 << 20)));
    assert_eq!(kind_of(store.erase(Query::entity("user:1"), "why")), ErrorKind::NoSpace);
    disk.set_capacity(Some(used + (2 << 20)));
    store.erase(Query::entity("user:1"), "why").unwrap();
    assert!(all(store.stream("user:1")).iter().all(RecordedEvent::is_erased));
    let erasure = store.erase(Query::entity("user:2"), "why").unwrap();
    assert!(erasure.events == 5 && erasure.bytes > 150, "{erasure:?}");
    assert_eq!(disk.contents("ERASING"), None);
    // No index outlives its segment.
    let paths = disk.paths();
    let mut indexes = paths.iter().filter_map(|path| path.strip_suffix(".idx"));
    assert!(indexes.all(|index| paths.contains(&format!("{index}.seg"))), "{paths:?}");
}

#[test]
fn what_was_left_undone_is_done_by_the_next_erasure() {
    let disk = SimDisk::new(12);
    let spy = Spy::new(disk.clone());
    let store = Store::on(spy.clone()).segment_bytes_max(1000).open().unwrap();
    fill(&store, 20);
    spy.trap(What::Rename, "segments/00000000000000000001.1.seg", Fault::Error(Io::Other));
    assert_eq!(kind_of(store.erase(Query::entity("user:1"), "why")), ErrorKind::Io);
    assert!(disk.contents("ERASING").is_some() && !all(store.stream("user:1"))[0].is_erased());
    assert_eq!(store.erase(Query::entity("user:2"), "why").unwrap().events, 4);
    for entity in ["user:1", "user:2"] {
        assert!(all(store.stream(entity)).iter().all(RecordedEvent::is_erased), "{entity}");
    }
    assert_eq!(disk.contents("ERASING"), None);
}

/// An opening finds out by a file that there is something to go on with, so that must be there whenever there
/// is.
#[test]
fn an_order_to_erase_is_never_there_without_its_mark() {
    let disk = SimDisk::new(13);
    // No segment ends when the order is appended: that would sync names.
    let store = Store::on(disk.clone()).open().unwrap();
    fill(&store, 8);
    let begun = disk.trace().len();
    store.erase(Query::entity("user:1"), "why").unwrap();
    let trace = disk.trace();
    let mut unfinished = 0;
    for point in begun..=trace.len() {
        let image = trace.image(point, CrashMode::Drop);
        let ledger = all(Store::on(image.clone()).open_read_only().unwrap().stream("$ledger")).len();
        if ledger == 1 {
            unfinished += 1;
            assert!(image.contents("ERASING").is_some(), "at {point} of {}", trace.len());
        }
    }
    assert!(unfinished > 10, "{unfinished}");
}

/// MANIFEST finds no room for it: then it is as if there had been nothing.
#[test]
fn a_segment_that_manifest_could_not_list_is_removed() {
    let disk = SimDisk::new(14);
    let store = builder(&disk).segment_bytes_max(300).open().unwrap();
    fill(&store, 10);
    store.close().unwrap();
    let spy = Spy::new(disk.clone());
    let store = Store::on(spy.clone()).segment_bytes_max(8000).open().unwrap();
    spy.trap(What::Write, "MANIFEST", Fault::Error(Io::StorageFull));
    assert_eq!(kind_of(store.compaction("why").merge().run()), ErrorKind::NoSpace);
    let left: Vec<String> = disk.paths().into_iter().filter(|path| path.contains(".1.")).collect();
    assert!(left.is_empty(), "{left:?}");
    store.compaction("why").merge().run().unwrap();
}

/// SPEC.md "MANIFEST": where it has the number by which states that were folded before are known to be void.
#[test]
fn what_changes_history_raises_its_revision_and_nothing_else_does() {
    let disk = SimDisk::new(16);
    let revision = |disk: &SimDisk| {
        let manifest = disk.contents("MANIFEST").unwrap();
        u64::from_le_bytes(manifest[64..72].try_into().unwrap())
    };
    let store = builder(&disk).open().unwrap();
    fill(&store, 30);
    let copies = [Until::End, Until::Position(Position::from(6))].map(|until| {
        let (copy, made) = (SimDisk::new(17), SimDisk::new(18));
        store.backup_on(copy.clone()).run().unwrap();
        StoreCopy::restore_on(Store::on(copy.clone()), made.clone(), until).run().unwrap();
        (revision(&copy), revision(&made))
    });
    assert_eq!(copies, [(0, 0), (0, 1)], "only what leaves something out is another history");
    store.compaction("fewer files").merge().run().unwrap();
    assert_eq!(revision(&disk), 0);
    store.erase(Query::entity("user:1"), "why").unwrap();
    let erased = revision(&disk);
    store.compaction("why").before(Position::from(9)).run().unwrap();
    let compacted = revision(&disk);
    let cut = store.head().unwrap();
    store.close().unwrap();
    builder(&disk).rollback(Position::from(40), &cut, "why").unwrap();
    assert!(0 < erased && erased < compacted && compacted < revision(&disk));
}

/// Between the last look at the history and the cut, no writer holds the lock for a moment.
#[test]
fn an_append_of_the_last_moment_is_not_cut() {
    let disk = SimDisk::new(15);
    let store = builder(&disk).open().unwrap();
    fill(&store, 10);
    let cut = store.head().unwrap();
    store.close().unwrap();
    let (spy, inner) = (Spy::new(disk.clone()), disk.clone());
    let mut locks = 0;
    spy.interleave(move |what, _| {
        locks += u32::from(what == What::Lock);
        if locks == 2 && what == What::Lock {
            let other = builder(&inner).open().unwrap();
            other.append("other", &Raw("made", &"in the last moment")).unwrap();
            other.close().unwrap();
        }
    });
    let refused = Store::on(spy.clone()).rollback(Position::from(4), &cut, "why").unwrap_err();
    assert!(
        refused.kind() == ErrorKind::Invalid && refused.to_string().contains("nothing was cut"),
        "{refused}"
    );
    let store = builder(&disk).open().unwrap();
    assert_eq!(all(store.read(Query::all())).len(), 21);
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn no_writer_opens_a_backup_that_is_brought_up_to_date() {
    let store = Store::in_memory().unwrap();
    fill(&store, 2);
    let copy = MemDisk::new();
    store.backup_on(copy.clone()).run().unwrap();
    let other = Store::on(copy.clone()).open().unwrap();
    assert_eq!(kind_of(store.backup_on(copy.clone()).run()), ErrorKind::Locked);
    other.close().unwrap();
    store.backup_on(copy).run().unwrap();
}

/// A disk that does not give back what was written to it.
#[test]
fn a_segment_that_reads_back_otherwise_is_not_used() {
    for place in [200, 400] {
        let disk = SimDisk::new(9);
        let spy = Spy::new(disk.clone());
        let store = Store::on(spy.clone()).segment_bytes_max(1000).open().unwrap();
        fill(&store, 20);
        let before = prints(&store);
        let bad = disk.clone();
        spy.interleave(move |what, path| {
            if what == What::Open && path.ends_with(".seg.tmp") {
                let mut bytes = bad.contents(path).unwrap();
                bytes[place] ^= 1;
                bad.set_contents(path, Some(bytes));
            }
        });
        let refused = store.compaction("why").remove(Query::entity("user:3")).tombstones().run().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
        spy.alone();
        assert_eq!(prints(&store)[..before.len()], before, "{place}");
        assert!(store.verify().unwrap().is_clean());
        assert!(disk.paths().iter().all(|path| !path.ends_with(".tmp") && !path.ends_with(".1.seg")));
    }
}

/// More segments than files are kept open: those that were rewritten have no name any more, so they stay
/// open.
#[test]
fn a_reader_of_many_old_segments_keeps_their_files() {
    let disk = SimDisk::new(17);
    let store = Store::on(disk).segment_bytes_max(400).segment_memory_bytes(0).recent_bytes_max(0);
    let store = store.open().unwrap();
    (0..200_u64).for_each(|number| drop(store.append("a", &Raw("made", &number)).unwrap()));
    assert!(store.stats().segments > 80, "{}", store.stats().segments);
    let mut read = store.read(Query::all());
    read.next().unwrap().unwrap();
    assert_eq!(store.erase(Query::entity("a"), "why").unwrap().events, 200);
    let rest: Vec<u64> = read.map(|event| event.unwrap().decode().unwrap()).collect();
    assert_eq!(rest, (1..200).collect::<Vec<_>>());
}

/// A reader beside the writer learns of a rewritten segment, also if nothing was appended since.
#[test]
fn who_reads_along_sees_what_was_erased_before_it_was_broken_off() {
    let disk = SimDisk::new(10);
    let store = Store::on(disk.clone()).segment_bytes_max(2 << 20).open().unwrap();
    let filler = "x".repeat(1 << 20);
    (0..6).for_each(|number| drop(store.append("a", &Raw("filled", &(number, &filler))).unwrap()));
    let reader =
        Store::on(disk.clone()).recent_bytes_max(0).segment_memory_bytes(0).open_read_only().unwrap();
    let erased = |store: &Store| all(store.stream("a")).iter().filter(|event| event.is_erased()).count();
    assert_eq!(erased(&reader), 0);
    let broken = store.erase_watched(Query::entity("a"), "why", |progress| {
        assert_eq!(erased(&reader), erased(&store));
        if progress.bytes < 5 << 20 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert_eq!(kind_of(broken), ErrorKind::Cancelled);
    let now = erased(&store);
    assert!(now > 1 && now < 6, "{now}");
    assert_eq!(erased(&reader), now);
}

//! From opening to the end: progress and breaking off, a writer that panics and begins again, forks.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use annals::disk::{Disk, MemDisk};
use annals::{Append, ErrorKind, OpenProgress, Position, Query, Raw, RestartPolicy, Store};

use crate::support::{
    Behind, FOREVER, GatedDisk, all, eventually, fill, in_child, is_child, kind_of, within,
};

const EVENT: Raw<'_, ()> = Raw("thing.done", &());

/// The policy, how many panics, and what of an append after the last one is said.
#[test]
fn a_writer_that_panics_begins_again_as_often_as_told() {
    let table = [
        (RestartPolicy::Never, 1, Some(ErrorKind::Poisoned)),
        (RestartPolicy::Once, 1, None),
        (RestartPolicy::Once, 2, Some(ErrorKind::Poisoned)),
    ];
    for (policy, panics, then) in table {
        let disk = GatedDisk::new();
        let store = Store::on(disk.clone()).restart(policy).open().unwrap();
        fill(&store, "before", 3);
        for panic in 0..panics {
            if panic > 0 {
                // Once this is answered the writer has begun again: recovery syncs, too.
                store.append("between", &EVENT).unwrap();
            }
            disk.gate().set_behind(Behind::PanicOnce);
            let lost = Append::to("lost").event(&EVENT).key([panic]);
            assert_eq!(kind_of(lost.commit(&store)), ErrorKind::CommitUnknown, "{policy:?} {panics}");
        }
        let after = Append::to("after").event(&EVENT).commit(&store);
        assert_eq!(after.as_ref().err().map(annals::Error::kind), then, "{policy:?} {panics}: {after:?}");
        assert_eq!(all(store.stream("before")).len(), 3);
        if then.is_none() {
            // Whether the lost one was written shows now, and a retry settles it.
            let lost = Append::to("lost").event(&EVENT).key([0]).commit(&store).unwrap();
            assert_eq!(
                lost.replayed(),
                store.version("lost").unwrap().get() == 1 && lost.position().get() == 4,
                "{lost:?}"
            );
            assert_eq!(all(store.stream("lost")).len(), 1);
            store.close().unwrap();
        } else {
            assert_eq!(kind_of(store.close()), ErrorKind::CommitUnknown, "how the writer ended");
        }
        let reopened = Store::on(disk).open().unwrap();
        assert!(reopened.verify().unwrap().is_clean());
        assert_eq!(all(reopened.stream("before")).len(), 3);
        assert_eq!(all(reopened.stream("after")).len(), usize::from(then.is_none()));
    }
}

// The queue outlives the panic: what waited in it is appended, in order, and its room is given back.
#[test]
fn what_was_queued_survives_a_restart() {
    let disk = GatedDisk::new();
    let builder = Store::on(disk.clone()).restart(RestartPolicy::Once);
    let store = builder.queue_commands_max(8).queue_bytes_max(2_000).group_commands_max(2).open().unwrap();
    let arrived = disk.gate().arrived();
    let held = disk.gate().hold();
    let submit = |number: u64| Append::to("queued").event(&Raw("n", &number)).submit(&store).unwrap();
    let first = submit(0);
    disk.gate().wait_for_sync(arrived);
    let queued: Vec<_> = (1..8).map(submit).collect();
    disk.gate().set_behind_after(0, Behind::PanicOnce);
    drop(held);
    first.wait().unwrap();
    let answers: Vec<_> =
        queued.into_iter().map(|ticket| ticket.wait().map_err(|error| error.kind())).collect();
    // Groups are of two: the one behind the first panics in its sync.
    let (lost, kept) = answers.split_at(2);
    assert!(
        lost.iter().all(|answer| answer.as_ref().err() == Some(&ErrorKind::CommitUnknown)),
        "{answers:?}"
    );
    let positions: Vec<u64> = kept.iter().map(|answer| answer.as_ref().unwrap().position().get()).collect();
    assert_eq!(positions.len(), 5);
    assert!(positions.is_sorted(), "{positions:?}");
    let stats = store.stats();
    assert_eq!((stats.queue_commands, stats.queue_bytes), (0, 0));
    let found: Vec<u64> = all(store.stream("queued")).iter().map(|event| event.decode().unwrap()).collect();
    assert!(found == [0, 1, 2, 3, 4, 5, 6, 7] || found == [0, 3, 4, 5, 6, 7], "{found:?}");
    store.close().unwrap();
}

#[test]
fn opening_tells_how_far_it_is_and_can_be_broken_off() {
    let disk = MemDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    let tickets: Vec<_> =
        (0..20_000).map(|number| Append::to("a").event(&Raw("n", &number)).submit(&store).unwrap()).collect();
    tickets.into_iter().for_each(|ticket| drop(ticket.wait().unwrap()));
    let head = store.head().unwrap();
    store.close().unwrap();
    // With its index the segment would not be walked.
    let forget_index = || disk.remove("segments/00000000000000000001.0.idx").unwrap();
    forget_index();

    let said: Arc<Mutex<Vec<OpenProgress>>> = Arc::default();
    let hear = said.clone();
    let builder = Store::on(disk.clone()).on_open_progress(move |progress| {
        hear.lock().unwrap().push(*progress);
        ControlFlow::Continue(())
    });
    let store = builder.open().unwrap();
    assert_eq!(store.head().unwrap(), head);
    store.close().unwrap();
    let said = said.lock().unwrap();
    assert!(said.len() >= 4, "{said:?}");
    assert!(said.is_sorted_by_key(|progress| (progress.bytes, progress.events, progress.elapsed)));
    let last = said.last().unwrap();
    assert!(last.bytes > 1_000_000 && last.bytes <= last.bytes_total, "{last:?}");
    assert!(last.events > 16_000 && last.remaining().is_some(), "{last:?}");

    forget_index();
    for after in [0, 2] {
        let words = AtomicU64::new(0);
        let broken_off = Store::on(disk.clone()).on_open_progress(move |_| {
            if words.fetch_add(1, Ordering::Relaxed) < after {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        assert_eq!(kind_of(broken_off.open()), ErrorKind::Cancelled, "{after}");
    }
    let store = Store::on(disk.clone()).open().unwrap();
    assert!(store.open_report().clean, "{}", store.open_report());
    assert_eq!(store.read(Query::all()).count(), 20_000);
}

// A forked child has the queue but no writer: it must not wait for one, nor join it.
#[cfg(unix)]
#[test]
fn a_forked_child_is_told_so() {
    const TEST: &str = "lifecycle::a_forked_child_is_told_so";
    if !is_child() {
        in_child(TEST, "true");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    fill(&store, "before", 1);
    let child = fork::fork().unwrap();
    if child.is_child() {
        let append = Append::to("child").event(&EVENT).commit(&store);
        let told = [append.map(drop), store.sync().map(drop), store.clone().close()];
        let all_told =
            told.iter().all(|told| told.as_ref().is_err_and(|error| error.kind() == ErrorKind::Forked));
        let readable = store.stream("before").count() == 1;
        drop(store);
        std::process::exit(if all_told && readable { 0 } else { 1 });
    }
    assert_eq!(fork::waitpid(child.child_pid().unwrap()).unwrap(), 0, "what the child was told");
    store.append("after", &EVENT).unwrap();
    store.close().unwrap();
}

// Found by reading: a store opened to read has a thread that loads segments. A forked child does not have it,
// and waited for it for ever when it closed its copy.
#[cfg(unix)]
#[test]
fn a_forked_child_of_a_reader_ends() {
    const TEST: &str = "lifecycle::a_forked_child_of_a_reader_ends";
    if !is_child() {
        in_child(TEST, "true");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let store = Store::builder(directory.path()).segment_bytes_max(4_000).open().unwrap();
    fill(&store, "before", 100);
    store.close().unwrap();
    let store = Store::open_read_only(directory.path()).unwrap();
    eventually("a segment is in memory", || {
        (1..100).for_each(|position| drop(store.at(Position::from(position)).unwrap().unwrap()));
        store.stats().resident_bytes > 0
    });
    let child = fork::fork().unwrap();
    if child.is_child() {
        let readable = store.stream("before").count() == 100;
        drop(store);
        std::process::exit(if readable { 0 } else { 1 });
    }
    let pid = child.child_pid().unwrap();
    assert_eq!(within(FOREVER, "the child", move || fork::waitpid(pid).unwrap()), 0);
    assert_eq!(store.stream("before").count(), 100);
}

//! States that were folded during a change of history are void afterwards. This holds in this process, after
//! an opening or a crash, and for a reader beside the writer. And history is another one once, not once for
//! each segment.

use std::io::ErrorKind as ErrorKindOfIo;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use annals::disk::{CrashMode, Fault, SimDisk};
use annals::{
    Append, Compacted, Compaction, DomainEvent, Error, ErrorKind, Meta, Projection, Query, Raw,
    ReadModelStatus, RecordedEvent, Store,
};
use serde::{Deserialize, Serialize};

use crate::support::{FOREVER, all, eventually, kind_of};

/// All that was folded: the numbers of the events, and how many were erased.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Seen {
    numbers: Vec<u32>,
    erased: u32,
}

impl Projection for Seen {
    type Event = Moved;
    const NAME: &'static str = "seen";

    fn apply(&mut self, event: Moved, _: &Meta<'_>) {
        self.numbers.push(event.0);
    }

    fn erased(&mut self, _: &Meta<'_>) {
        self.erased += 1;
    }
}

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(kind = "moved")]
struct Moved(u32, String);

const ENTITIES: [&str; 2] = ["user:1", "user:2"];
/// Of each entity: enough for a state to be saved.
const EVENTS: u32 = 40;

fn opened(disk: &SimDisk) -> Store {
    Store::on(disk.clone()).segment_bytes_max(1500).open().unwrap()
}

fn filled(seed: u64) -> (SimDisk, Store) {
    let disk = SimDisk::new(seed);
    let store = opened(&disk);
    for number in 0..EVENTS {
        for entity in ENTITIES {
            Append::to(entity).event(&Raw("moved", &(number, "x".repeat(60)))).commit(&store).unwrap();
        }
    }
    (disk, store)
}

fn moved() -> Query {
    Query::all().kind("moved")
}

/// What a state must be: folded by hand.
fn naive(events: &[RecordedEvent]) -> Seen {
    let mut seen = Seen::default();
    for event in events {
        match event.is_erased() {
            true => seen.erased += 1,
            false => seen.numbers.push(event.decode::<(u32, String)>().unwrap().0),
        }
    }
    seen
}

/// Loads states, and saves one of them in the file, folded from the events of this moment.
fn look(store: &Store) -> Result<(), Error> {
    for entity in ENTITIES {
        store.load::<Seen>(entity)?;
    }
    let model = store.project::<Seen>(moved())?;
    assert!(model.wait_for(store.head()?.position(), FOREVER)?);
    Ok(())
}

/// That every state is folded from what is there.
fn check(store: &Store, place: &str) {
    for entity in ENTITIES {
        let loaded = store.load::<Seen>(entity).unwrap();
        assert_eq!(*loaded, naive(&all(store.stream(entity))), "{place}: {entity}");
    }
    let model = store.project::<Seen>(moved()).unwrap();
    assert!(model.wait_for(store.head().unwrap().position(), FOREVER).unwrap(), "{place}");
    assert_eq!(*model.state(), naive(&all(store.read(moved()))), "{place}: of all");
}

/// MANIFEST's history revision, and whether history is being changed.
fn history(disk: &SimDisk) -> (u64, bool) {
    let manifest = disk.contents("MANIFEST").unwrap();
    (u64::from_le_bytes(manifest[64..72].try_into().unwrap()), manifest[24] & 1 == 1)
}

/// What is to go, in each way.
fn compaction(store: &Store) -> Compaction<'_> {
    store.compaction("why").remove(Query::entity("user:1"))
}

#[test]
fn history_is_another_one_once_and_at_the_end() {
    let (disk, store) = filled(1);
    let model = store.project::<Seen>(moved()).unwrap();
    assert!(model.wait_for(store.head().unwrap().position(), FOREVER).unwrap());
    let before = history(&disk);
    let mut in_between = 0;
    let watched = compaction(&store).remove_if(|_| {
        let (revision, is_changing) = history(&disk);
        assert_eq!(revision, before.0);
        in_between += u32::from(is_changing);
        assert!(!matches!(model.status(), ReadModelStatus::Rebuilding(_)), "{:?}", model.status());
        assert_eq!(model.state().numbers.len(), 80);
        true
    });
    let done = watched.run().unwrap();
    assert!(in_between > 10 && done.segments_before > 10, "{in_between}, {done:?}");
    assert_eq!(history(&disk), (before.0 + 1, false));
    let right = naive(&all(store.read(moved())));
    eventually("the read model is folded anew", || *model.state() == right);
    drop(model);
    check(&store, "compacted");

    let erasure = store.erase(Query::entity("user:2"), "why").unwrap();
    assert!(erasure.segments > 5);
    assert_eq!(history(&disk), (before.0 + 2, false));
    check(&store, "erased");

    // Where nothing goes nothing is void.
    store.close().unwrap();
    let store = Store::on(disk.clone()).open().unwrap();
    let merged = store.compaction("why").merge().run().unwrap();
    assert!(merged.segments_after < merged.segments_before, "{merged:?}");
    assert_eq!(history(&disk), (before.0 + 2, false));
}

/// How a compaction ends during which states are folded.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Done,
    BrokenOff,
    Panic,
    /// The store is closed in the middle, with all that was folded.
    Closed,
}

/// Compacts; folds states in the middle, and ends the compaction as `end` says.
fn compact(disk: &SimDisk, store: &Store, end: End, reader: &Store) {
    let is_half_done = AtomicBool::new(false);
    let compaction = compaction(store)
        .remove_if(|event| {
            let is_now = history(disk).1 && event.version().get() == u64::from(EVENTS / 2);
            if is_now && !is_half_done.swap(true, Ordering::Relaxed) {
                look(store).unwrap();
                look(reader).unwrap();
                match end {
                    End::Closed => store.clone().close().unwrap(),
                    End::Panic => panic!("on purpose"),
                    End::Done | End::BrokenOff => {}
                }
            }
            true
        })
        .on_progress(|_| match end {
            End::BrokenOff if is_half_done.load(Ordering::Relaxed) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
    let ended: Result<Result<Compacted, Error>, _> = catch_unwind(AssertUnwindSafe(|| compaction.run()));
    assert!(is_half_done.load(Ordering::Relaxed), "{end:?}");
    match end {
        End::Done => drop(ended.unwrap().unwrap()),
        End::BrokenOff => assert_eq!(kind_of(ended.unwrap()), ErrorKind::Cancelled),
        End::Panic => assert!(ended.is_err()),
        End::Closed => assert_eq!(kind_of(ended.unwrap()), ErrorKind::Closed),
    }
}

#[test]
fn what_is_folded_in_the_middle_does_not_outlive_it() {
    for (seed, end) in (2..).zip([End::Done, End::BrokenOff, End::Panic, End::Closed]) {
        let (disk, store) = filled(seed);
        let reader = Store::on(disk.clone()).open_read_only().unwrap();
        let (before, _) = history(&disk);
        look(&store).unwrap();
        look(&reader).unwrap();
        compact(&disk, &store, end, &reader);
        assert_eq!(history(&disk), if end == End::Closed { (before, true) } else { (before + 1, false) });
        if end != End::Closed {
            check(&store, &format!("{end:?}"));
            check(&reader, &format!("{end:?}, read along"));
        }
        drop(store);
        assert!(disk.contents("cache/projections.redb").is_some());
        let begun = disk.trace().len();
        let again = opened(&disk);
        assert_eq!(history(&disk), (before + 1, false), "{end:?}");
        check(&reader, &format!("{end:?}, read along with the next writer"));
        check(&again, &format!("{end:?}, opened again"));
        again.close().unwrap();
        drop(reader);
        check_stops(&disk, begun, end);
    }
}

/// Stops what came after `begun` at every operation.
fn check_stops(disk: &SimDisk, begun: usize, end: End) {
    let trace = disk.trace();
    for point in begun..=trace.len() {
        for mode in [CrashMode::Keep, CrashMode::Drop, CrashMode::Torn(0)] {
            let image = trace.image(point, mode);
            let place = format!("{end:?}, stopped at {point} of {begun}..={}, {mode:?}", trace.len());
            let reader = Store::on(image.clone()).open_read_only().unwrap();
            let store = opened(&image);
            assert!(!history(&image).1, "{place}");
            check(&store, &place);
            check(&reader, &format!("{place}, read along"));
        }
    }
}

#[test]
fn a_state_in_the_file_that_was_never_asked_for_is_void_too() {
    let (disk, store) = filled(6);
    look(&store).unwrap();
    store.close().unwrap();
    let store = opened(&disk);
    compaction(&store).run().unwrap();
    check(&store, "only the file knew it");
    assert_eq!(store.load::<Seen>("user:1").unwrap().erased, 1);
}

#[test]
fn a_failure_at_any_operation_leaves_no_state_of_the_middle() {
    for fault in [ErrorKindOfIo::StorageFull, ErrorKindOfIo::Other].map(Fault::Error) {
        for nth in (0..).step_by(7) {
            let (disk, store) = filled(7);
            let operations = disk.operations();
            disk.fail(nth, fault);
            let watched = compaction(&store).remove_if(|_| {
                ENTITIES.iter().for_each(|entity| drop(store.load::<Seen>(entity)));
                true
            });
            let outcome = watched.run();
            let passed = disk.operations() - operations <= nth;
            disk.heal();
            let place = format!("{fault:?} at {nth}: {outcome:?}");
            // A poisoned store does not raise the revision; it can be read as it is until it is opened again.
            if store.append("user:2", &Raw("moved", &(100, ""))).is_ok() {
                check(&store, &place);
            }
            drop(store);
            let store = opened(&disk);
            assert!(!history(&disk).1, "{place}");
            check(&store, &format!("{place}, opened again"));
            if passed {
                assert!(nth > 100, "{nth}");
                break;
            }
        }
    }
}

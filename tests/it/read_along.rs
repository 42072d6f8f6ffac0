//! A store opened to read follows its writer up to MARK, through rolls, clean ends and unclean ones. It
//! reports a store that was set back.

use std::io;
use std::time::Duration;

use annals::disk::{CrashMode, Disk, Fault, MemDisk, SimDisk};
use annals::{Append, Builder, Durability, ErrorKind, Notice, Position, Query, Raw, Store, WriterState};

use crate::sim_spy::{Spy, What};
use crate::support::{FOREVER, all, eventually, fill, kind_of, positions};

const EVENT: Raw<'_, ()> = Raw("thing.done", &());
/// So small that every append rolls.
const TINY: u32 = 0;
const BUFFERED: Durability = Durability::Buffered { flush_every: FOREVER };

fn reader(disk: impl Disk) -> Store {
    Store::on(disk).follow_every(Duration::from_millis(1)).open_read_only().unwrap()
}

fn writer(disk: impl Disk, segment_bytes_max: u32) -> Builder {
    Store::on(disk).segment_bytes_max(segment_bytes_max)
}

/// What the writer does between two looks, and what the reader sees then.
#[test]
fn what_is_durable_is_seen_and_no_more() {
    for segment_bytes_max in [TINY, 300, 1 << 20] {
        let disk = MemDisk::new();
        let store = writer(disk.clone(), segment_bytes_max).open().unwrap();
        // Before there is anything, in a store just created.
        let early = reader(disk.clone());
        assert_eq!(early.head().unwrap().position(), Position::START);
        let mut readers = vec![early];
        for round in 1..=20 {
            fill(&store, "a", 1);
            Append::to("b").tag("t").event(&EVENT).event(&EVENT).commit(&store).unwrap();
            readers.push(reader(disk.clone()));
            for reader in &readers {
                assert_eq!(reader.head().unwrap(), store.head().unwrap());
                assert_eq!(reader.durable_head().unwrap(), store.head().unwrap());
                assert_eq!(reader.version("b").unwrap().get(), 2 * round);
                assert_eq!(positions(reader.read(Query::all())), (1..=3 * round).collect::<Vec<_>>());
                assert_eq!(
                    positions(reader.read(Query::all().tag("t").kind(EVENT.0))).len() as u64,
                    2 * round
                );
                let newest = reader.stream("a").backwards().next().unwrap().unwrap();
                assert_eq!(reader.get(newest.id()).unwrap().unwrap().position(), newest.position());
                assert_eq!(reader.stats().events, 3 * round);
            }
        }
        let before = store.head().unwrap();
        Append::to("late").durability(BUFFERED).event(&EVENT).commit(&store).unwrap();
        assert!(
            readers.iter().all(|reader| reader.head().unwrap() == before),
            "what is only buffered may be lost"
        );
        store.sync().unwrap();
        assert!(readers.iter().all(|reader| reader.head().unwrap() == store.head().unwrap()));
        assert!(readers.iter().all(|reader| reader.verify().unwrap().is_clean()));
        assert!(readers.iter().all(|reader| reader.stats().entities == 3));
        assert_eq!(store.writer().unwrap(), WriterState::Here);
        assert_eq!(readers[0].writer().unwrap(), WriterState::Elsewhere);
        store.close().unwrap();
        assert_eq!(readers[0].writer().unwrap(), WriterState::Closed);
        // The next writer goes on, and so do they.
        let store = writer(disk, segment_bytes_max).open().unwrap();
        fill(&store, "c", 5);
        assert!(readers.iter().all(|reader| reader.head().unwrap() == store.head().unwrap()));
        assert!(readers.iter().all(|reader| positions(reader.stream("c")).len() == 5));
    }
}

#[test]
fn subscriptions_and_notifications_come_along() {
    for segment_bytes_max in [300, 1 << 20] {
        let disk = MemDisk::new();
        let store = writer(disk.clone(), segment_bytes_max).open().unwrap();
        fill(&store, "a", 10);
        let follower = reader(disk.clone());
        let mut everything = follower.subscribe(Query::all());
        let late = follower.subscribe(Query::entity("b")).after(Position::from(500)).allow_beyond_head();
        let mut hints = follower.notifications(Query::entity("b"));
        assert!(everything.by_ref().take(10).all(|event| event.unwrap().entity() == "a"));
        let waiting = std::thread::spawn(move || {
            late.take(100).map(|event| event.unwrap().position().get()).collect::<Vec<_>>()
        });
        for _ in 0..50 {
            fill(&store, "b", 10);
            fill(&store, "a", 10);
        }
        let seen: Vec<u64> =
            everything.by_ref().take(1000).map(|event| event.unwrap().position().get()).collect();
        assert!(seen.into_iter().eq(11..=1010));
        let of_b: Vec<u64> = positions(store.read(Query::entity("b")))
            .into_iter()
            .filter(|position| *position > 500)
            .collect();
        assert_eq!(waiting.join().unwrap(), of_b[..100]);
        // The events that were delivered and those that were missed are all events.
        let mut told = 0;
        while told < 500 {
            told += match hints.next_timeout(FOREVER).unwrap().expect("500 events came") {
                annals::Notice::Events(events) => events.len() as u64,
                annals::Notice::Lagged { missed, .. } => missed,
            };
        }
        assert_eq!(told, 500);
        // Closing the reader ends them; the writer does not notice.
        follower.close().unwrap();
        assert!(everything.next().is_none());
        fill(&store, "a", 1);
    }
}

// The reader was opened while no writer was there, beyond what MARK says; then a writer came and recovered.
#[test]
fn an_unclean_end_is_seen_and_passed() {
    for segment_bytes_max in [TINY, 1 << 20] {
        let disk = SimDisk::new(1);
        let store = writer(disk.clone(), segment_bytes_max).open().unwrap();
        fill(&store, "a", 3);
        let beside = disk.clone();
        Append::to("tail").durability(BUFFERED).event(&EVENT).commit(&store).unwrap();
        let image = beside.trace().image(beside.trace().len(), CrashMode::Keep);
        let reader = reader(image.clone());
        assert_eq!(reader.writer().unwrap(), WriterState::Gone);
        let mut following = reader.subscribe(Query::all());
        // What a kill leaves in the file is whole, and shown.
        assert_eq!(following.by_ref().take(4).map(|event| event.unwrap().position().get()).max(), Some(4));
        let next = writer(image, segment_bytes_max).open().unwrap();
        assert!(!next.open_report().clean);
        assert_eq!(reader.writer().unwrap(), WriterState::Elsewhere);
        fill(&next, "b", 3);
        assert_eq!(
            following.by_ref().take(3).map(|event| event.unwrap().entity().to_owned()).collect::<Vec<_>>(),
            ["b", "b", "b"]
        );
        assert_eq!(reader.head().unwrap(), next.head().unwrap());
        assert!(reader.verify().unwrap().is_clean());
    }
}

/// Everything in a disk's files.
fn contents(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    disk.paths().into_iter().map(|path| (path.clone(), disk.contents(&path).unwrap())).collect()
}

fn put(disk: &SimDisk, files: &[(String, Vec<u8>)]) {
    let gone = disk.paths().into_iter().filter(|path| files.iter().all(|(name, _)| name != path));
    gone.for_each(|path| disk.set_contents(&path, None));
    files.iter().for_each(|(path, bytes)| disk.set_contents(path, Some(bytes.clone())));
}

#[test]
fn a_store_that_was_set_back_is_not_followed() {
    for segment_bytes_max in [TINY, 1 << 20] {
        for goes_on in [false, true] {
            let disk = SimDisk::new(1);
            let store = writer(disk.clone(), segment_bytes_max).open().unwrap();
            fill(&store, "a", 3);
            store.close().unwrap();
            let backup = contents(&disk);
            let store = writer(disk.clone(), segment_bytes_max).open().unwrap();
            fill(&store, "a", 3);
            store.close().unwrap();
            let reader = reader(disk.clone());
            let mut following = reader.subscribe(Query::all());
            assert_eq!(following.by_ref().take(6).filter(Result::is_ok).count(), 6);
            put(&disk, &backup);
            if goes_on {
                // As far as before, with other events.
                let store = writer(disk.clone(), segment_bytes_max).open().unwrap();
                fill(&store, "other", 9);
                store.close().unwrap();
            }
            // An open handle is asked for a second before the name is looked at again.
            eventually("the store to be seen as set back", || {
                reader.head().is_err_and(|error| error.kind() == ErrorKind::RolledBack)
            });
            let error = reader.head().unwrap_err();
            assert!(error.to_string().contains("open it again"), "{error}");
            assert_eq!(following.next().unwrap().unwrap_err().kind(), ErrorKind::RolledBack);
            assert!(following.next().is_none());
            assert_eq!(kind_of(reader.get(annals::EventId::from_bytes([0; 16]))), ErrorKind::RolledBack);
            let again = crate::read_along::reader(disk);
            assert_eq!(all(again.read(Query::all())).len(), if goes_on { 12 } else { 3 });
        }
    }
}

#[test]
fn damage_in_what_comes_is_told_with_its_place() {
    let disk = SimDisk::new(1);
    let store = writer(disk.clone(), 1 << 20).open().unwrap();
    fill(&store, "a", 3);
    let reader = reader(disk.clone());
    assert_eq!(positions(reader.read(Query::all())).len(), 3);
    let path = disk.paths().into_iter().find(|path| path.ends_with(".seg")).unwrap();
    let before = disk.contents(&path).unwrap();
    fill(&store, "a", 1);
    let mut bytes = disk.contents(&path).unwrap();
    let at = (0..before.len()).find(|at| before[*at] != bytes[*at]).unwrap() + 100;
    bytes[at] ^= 1;
    disk.set_contents(&path, Some(bytes));
    let error = reader.head().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains(&path), "{error}");
}

// A read that fails in the middle of what is new leaves the reader where it was, not half-way twice.
#[test]
fn a_read_that_fails_is_made_up_for_by_the_next() {
    for segment_bytes_max in [200_000, 8 << 20] {
        let mut failed = 0;
        for nth in 0..60 {
            let disk = SimDisk::new(1);
            let store = writer(disk.clone(), segment_bytes_max).open().unwrap();
            fill(&store, "a", 3);
            let reader = reader(disk.clone());
            assert_eq!(reader.head().unwrap().position().get(), 3);
            // Several windows of a walk, in one segment or in many.
            let large = "x".repeat(40_000);
            for _ in 0..8 {
                let events =
                    (0..10).fold(Append::to("b").tag("t"), |append, _| append.event(&Raw("large", &large)));
                events.commit(&store).unwrap();
            }
            disk.fail(nth, annals::disk::Fault::Error(std::io::ErrorKind::Other));
            let first = reader.head();
            disk.heal();
            if let Err(error) = &first {
                assert_eq!(error.kind(), ErrorKind::Io, "{nth}: {error}");
                failed += 1;
            }
            assert_eq!(reader.head().unwrap(), store.head().unwrap(), "{nth}");
            assert_eq!(positions(reader.read(Query::all().tag("t"))), (4..=83).collect::<Vec<_>>(), "{nth}");
            assert_eq!(reader.version("b").unwrap().get(), 80);
        }
        assert!(failed >= 4, "only {failed} reads failed");
    }
}

/// Once, a reader met an error while it looked at new segments. It never told its listeners of the events
/// before the error: 90 of 120 hints came, and no notice said that 30 were missed. The writer caused such an
/// error by rewriting a segment that the reader was about to open.
#[test]
fn an_error_on_the_way_loses_no_hint() {
    let mut errors = 0;
    for is_erased in [false, true] {
        for nth in 0..60 {
            let disk = SimDisk::new(nth);
            let store = writer(disk.clone(), 500).open().unwrap();
            fill(&store, "a", 10);
            let spy = Spy::new(disk.clone());
            let reader = Store::on(spy.clone()).follow_every(FOREVER).open_read_only().unwrap();
            let seen = spy.calls().len();
            let mut notices = reader.notifications(Query::all());
            // The reader's thread looks at MARK once, and then sleeps for good: this thread alone meets the fault.
            eventually("the reader's thread has looked", || {
                spy.calls().iter().skip(seen).any(|call| call.what == What::Read && call.path == "MARK")
            });
            fill(&store, "a", 30);
            fill(&store, "b", 30);
            if is_erased {
                assert_eq!(store.erase(Query::entity("a"), "why").unwrap().events, 40);
            }
            let head = store.head().unwrap();
            store.close().unwrap();
            disk.fail(nth, Fault::Error(io::ErrorKind::Other));
            // An error is told to the caller, and the next call goes on.
            let seen = reader.head().or_else(|error| {
                assert_eq!(error.kind(), ErrorKind::Io, "{nth}: {error}");
                errors += 1;
                reader.head()
            });
            assert_eq!(seen.unwrap(), head, "{nth}");
            // What could not be told of is told by the next look.
            disk.heal();
            reader.head().unwrap();
            let mut told = 0;
            while let Some(notice) = notices.try_next().unwrap() {
                match notice {
                    Notice::Events(events) => told += events.len(),
                    lost => panic!("{nth}: {lost:?}"),
                }
            }
            assert_eq!(told, 60, "erased: {is_erased}, the reader's call {nth} failed");
        }
    }
    assert!(errors > 40, "only {errors} of the reader's calls failed");
}

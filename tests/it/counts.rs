//! What the hot paths ask of the system, counted: writes and syncs per group, reads per event.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::SystemTime;

use annals::disk::{Access, Disk, SimDisk};
use annals::{Append, Builder, DomainEvent, Durability, Query, Raw, Reaction, RecordedEvent, Store};

use crate::account::{Account, AccountEvent, Do, What as Act};
use crate::sim_spy::{Call, Spy, What};
use crate::support::FOREVER;

const SEGMENT: &str = "segments/00000000000000000001.0.seg";

/// A disk that is watched, from some moment on.
struct Counted {
    spy: Spy,
    seen: usize,
}

impl Counted {
    fn new() -> Counted {
        Counted { spy: Spy::new(SimDisk::new(5)), seen: 0 }
    }

    fn builder(&self) -> Builder {
        Store::on(self.spy.clone())
    }

    /// What was asked since this was asked last; without MARK's own sync, which comes when nothing
    /// has happened for 100 ms.
    fn calls(&mut self) -> Vec<Call> {
        let calls = self.spy.calls().split_off(self.seen);
        self.seen += calls.len();
        calls.into_iter().filter(|call| (call.what, call.path.as_str()) != (What::Sync, "MARK")).collect()
    }

    /// How often a segment was read since.
    fn reads(&mut self) -> usize {
        let is_read = |call: &Call| call.what == What::Read && call.path.ends_with(".seg");
        self.calls().iter().filter(|call| is_read(call)).count()
    }
}

/// An append of one event of about 300 bytes.
fn filling(entity: &str, number: u64) -> Append {
    Append::to(entity).event(&filled(number))
}

fn filled(number: u64) -> Filled {
    Filled(number, "x".repeat(200))
}

#[derive(serde::Serialize, serde::Deserialize, DomainEvent)]
#[event(kind = "filled")]
struct Filled(u64, String);

/// A clock that can be held: while it is, the writer has begun a group and takes no command into it.
#[derive(Clone, Default)]
struct HeldClock(Arc<(Mutex<bool>, Condvar)>);

impl HeldClock {
    fn hold(&self, hold: bool) {
        *self.0.0.lock().unwrap() = hold;
        self.0.1.notify_all();
    }

    fn now(&self) -> SystemTime {
        let (held, changed) = &*self.0;
        let waited = changed.wait_timeout_while(held.lock().unwrap(), FOREVER, |held| *held).unwrap();
        assert!(!waited.1.timed_out(), "the clock was not moved on");
        SystemTime::now()
    }
}

#[test]
fn a_group_is_one_write_and_if_durable_one_sync_and_one_mark() {
    let write = |path| (What::Write, path);
    let synced = [write(SEGMENT), (What::Sync, SEGMENT), write("MARK")];
    let table = [
        (1, Durability::Synced, &synced[..]),
        (2, Durability::Synced, &synced[..]),
        (40, Durability::Synced, &synced[..]),
        (1, Durability::Buffered { flush_every: FOREVER }, &synced[..1]),
        (40, Durability::Buffered { flush_every: FOREVER }, &synced[..1]),
    ];
    for (appends, durability, expected) in table {
        let mut disk = Counted::new();
        let clock = HeldClock::default();
        let of_store = clock.clone();
        let store = disk.builder().durability(durability).clock(move || of_store.now()).open().unwrap();
        filling("a", 0).commit(&store).unwrap();
        for _ in 0..3 {
            let groups = store.stats().groups;
            disk.calls();
            clock.hold(true);
            let tickets: Vec<_> =
                (0..appends).map(|number| filling("a", number).submit(&store).unwrap()).collect();
            clock.hold(false);
            tickets.into_iter().for_each(|ticket| drop(ticket.wait().unwrap()));
            assert_eq!(store.stats().groups, groups + 1);
            let calls = disk.calls();
            let calls: Vec<_> = calls.iter().map(|call| (call.what, call.path.as_str())).collect();
            assert_eq!(calls, expected, "{appends} appends, {durability:?}");
        }
    }
}

/// Zeros ahead are written 256 KiB at a time, by a helper or, if it is late, by the writer; each time for
/// many groups.
#[test]
fn zeros_are_written_once_for_many_groups() {
    let mut disk = Counted::new();
    let store = disk.builder().open().unwrap();
    disk.calls();
    (0..2_500).for_each(|number| drop(filling("a", number).commit(&store).unwrap()));
    let (groups, end) = (store.stats().groups, store.stats().bytes);
    // Now the helper has ended, too.
    store.close().unwrap();
    let of_segment = |what| move |call: &&Call| call.what == what && call.path == SEGMENT;
    let calls = disk.calls();
    let (writes, syncs) =
        (calls.iter().filter(of_segment(What::Write)), calls.iter().filter(of_segment(What::Sync)));
    assert_eq!(groups, 2_500);
    assert_eq!(syncs.count() as u64, groups);
    // The file began with 64 KiB; then come multiples of 256 KiB, a mebibyte ahead at most, and what is begun of them.
    let length = disk.spy.open(SEGMENT, Access::Read).unwrap().length().unwrap();
    assert_eq!(length % (256 << 10), 0);
    assert!((end..=end + (5 << 18)).contains(&length), "the log ends at {end}, the file at {length}");
    assert_eq!(writes.count() as u64, groups + length / (256 << 10), "the log ends at {end}");
}

#[test]
fn reading_in_order_reads_large_blocks_and_reading_one_event_reads_it_once() {
    const EVENTS: u64 = 20_000;
    let mut disk = Counted::new();
    let store = disk.builder().segment_bytes_max(3 << 20).open().unwrap();
    for batch in 0..EVENTS / 100 {
        let mut append = Append::to(format!("e:{}", batch % 40));
        for number in 0..100 {
            append = append.event(&filled(batch * 100 + number));
        }
        append.commit(&store).unwrap();
    }
    store.close().unwrap();
    let store = disk.builder().open().unwrap();
    let (bytes, segments) = (usize::try_from(store.stats().bytes).unwrap(), store.stats().segments);
    disk.reads();
    let read: Vec<RecordedEvent> = store.read(Query::all()).map(Result::unwrap).collect();
    // Each segment is looked up in windows that grow from 256 events; where one ends a block ends.
    let most = bytes / (256 << 10) + 5 * segments;
    let reads = disk.reads();
    assert_eq!(read.len() as u64, EVENTS);
    assert!(reads >= segments && reads <= most, "{reads} reads of {bytes} bytes in {segments} segments");

    let found = store.stream("e:7").count();
    let reads = disk.reads();
    assert_eq!(found, 500);
    // One for each append, and one more where a window of the index ends within an append.
    assert!(reads <= 6, "{reads} reads for 5 appends of 100 events");

    for event in read.iter().step_by(997) {
        assert_eq!(store.get(event.id()).unwrap().unwrap().position(), event.position());
        assert_eq!(disk.reads(), 1);
    }
}

/// Everything that reads what was just written, on a store whose history is larger than its window.
#[test]
fn what_was_just_written_is_read_from_memory() {
    for (window, is_kept) in [(200_000, true), (16 << 20, true), (0, false)] {
        let mut disk = Counted::new();
        let store = disk.builder().recent_bytes_max(window).segment_bytes_max(300_000).open().unwrap();
        let old: Vec<_> = (0..3_000).map(|number| filling("old", number).commit(&store).unwrap()).collect();
        let deposited =
            |store: &Store| store.append("account:a", &AccountEvent::Deposited { cents: 5, id: 0 });
        deposited(&store).unwrap();
        store.load::<Account>("account:a").unwrap();
        let mut subscription = store.subscribe(Query::all()).after_head();
        let mut consumer = store.consumer("follower", Query::all().kind("filled")).unwrap();
        while consumer.try_next().unwrap().is_some() {}
        let bill = |order: &RecordedEvent, reaction: &mut Reaction<'_>| {
            reaction.append("bill:1", &Raw("billed", &order.position().get()));
            Ok(())
        };
        let worker = store.react("billing", Query::all().kind("ordered"), bill).unwrap();
        assert!(store.wait_for("billing", store.head().unwrap().position(), FOREVER).unwrap());

        let mut reads = BTreeMap::new();
        for number in 1..20 {
            let mut step = |what: &'static str, act: &mut dyn FnMut()| {
                disk.reads();
                act();
                *reads.entry(what).or_insert(0) += disk.reads();
            };
            let appended = filling("new", number).commit(&store).unwrap();
            step("get", &mut || drop(store.get(appended.id()).unwrap().unwrap()));
            step("subscription", &mut || while subscription.try_next().unwrap().is_some() {});
            step("consumer", &mut || drop(consumer.try_next().unwrap().unwrap()));
            step("last", &mut || drop(store.last(Query::entity("new")).unwrap().unwrap()));
            step("backwards", &mut || drop(store.stream("new").backwards().next().unwrap().unwrap()));
            deposited(&store).unwrap();
            step("state", &mut || drop(store.load::<Account>("account:a").unwrap()));
            deposited(&store).unwrap();
            step("decision", &mut || {
                drop(store.execute::<Account>("account:a", &Do::new(Act::Deposit(5))).unwrap());
            });
            step("reaction", &mut || {
                let ordered = store.append("order", &Raw("ordered", &number)).unwrap();
                assert!(store.wait_for("billing", ordered.position(), FOREVER).unwrap());
            });
        }
        drop(worker);
        assert_eq!(reads.len(), 8);
        for (what, reads) in reads {
            assert_eq!(reads == 0, is_kept, "{what}: {reads} reads with a window of {window} bytes");
        }
        disk.reads();
        store.get(old[0].id()).unwrap().unwrap();
        assert_eq!(disk.reads(), if window > 1 << 20 { 0 } else { 1 });
    }
}

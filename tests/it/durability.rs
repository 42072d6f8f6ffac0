//! Synced and buffered, flushing, sync(), what a failed sync leaves, recorded-at and its clock, heads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use annals::disk::{CrashMode, MemDisk, SimDisk};
use annals::{Append, Durability, ErrorKind, Head, Position, Query, Raw, Store};

use crate::support::{
    Behind, Bytes, FOREVER, GatedDisk, NOTHING, Random, all, at, eventually, fill, kind_of, outcome,
    positions, within,
};

const NEVER: Durability = Durability::Buffered { flush_every: Duration::MAX };

fn append(store: &Store, durability: Option<Durability>) -> Position {
    let append = Append::to("e").event(&Raw("k", &()));
    durability.into_iter().fold(append, Append::durability).commit(store).unwrap().position()
}

fn heads(store: &Store) -> (u64, u64) {
    (store.head().unwrap().position().get(), store.durable_head().unwrap().position().get())
}

#[test]
fn synced_is_the_default_and_buffered_waits() {
    let synced = Store::in_memory().unwrap();
    let buffered = Store::on(MemDisk::new()).durability(NEVER).open().unwrap();
    for number in 1..=3 {
        append(&synced, None);
        append(&buffered, None);
        assert_eq!(heads(&synced), (number, number));
        assert_eq!(heads(&buffered), (number, 0));
    }
    append(&synced, Some(NEVER));
    assert_eq!(heads(&synced), (4, 3));
    append(&synced, None);
    assert_eq!(heads(&synced), (5, 5), "a sync covers what was buffered before");

    append(&buffered, Some(Durability::Synced));
    assert_eq!(heads(&buffered), (4, 4));
    append(&buffered, None);
    assert_eq!(heads(&buffered), (5, 4));
    assert_eq!(buffered.sync().unwrap().get(), 5);
    assert_eq!(heads(&buffered), (5, 5));
    assert_eq!(buffered.sync().unwrap().get(), 5, "nothing is left to do");
    assert_eq!((synced.stats().syncs, buffered.stats().syncs), (4, 2));
    assert_eq!(buffered.stats().durable_head.get(), 5);
}

#[test]
fn what_is_durable_survives_a_power_cut_and_what_is_buffered_a_kill() {
    let disk = SimDisk::new(1);
    let store = Store::on(disk.clone()).durability(NEVER).open().unwrap();
    for number in 0..12 {
        append(&store, (number % 4 == 3).then_some(Durability::Synced));
        let (head, durable) = heads(&store);
        let trace = disk.trace();
        for (mode, least, most) in [(CrashMode::Drop, durable, durable), (CrashMode::Keep, head, head)] {
            let found = Store::on(trace.image(trace.len(), mode)).open().unwrap();
            let found = found.head().unwrap().position().get();
            assert!((least..=most).contains(&found), "{mode:?}: {found} of {head}, {durable} durable");
        }
    }
}

#[test]
fn a_group_is_as_durable_as_its_strongest_append() {
    let disk = GatedDisk::new();
    let store = Store::on(disk.clone()).durability(NEVER).open().unwrap();
    let arrived = disk.gate().arrived();
    let held = disk.gate().hold();
    let submit =
        |durability| Append::to("e").event(&Raw("k", &())).durability(durability).submit(&store).unwrap();
    let busy = submit(Durability::Synced);
    disk.gate().wait_for_sync(arrived);
    let tickets = [submit(NEVER), submit(Durability::Synced), submit(NEVER)];
    drop(held);
    busy.wait().unwrap();
    for ticket in tickets {
        ticket.wait().unwrap();
        assert_eq!(heads(&store), (4, 4));
    }
    assert_eq!(store.stats().syncs, 2);
}

#[test]
fn sync_covers_everything_submitted_before() {
    let store = Store::on(MemDisk::new()).durability(NEVER).open().unwrap();
    let submit = |_| Append::to("e").event(&Raw("k", &())).submit(&store).unwrap();
    let tickets: Vec<_> = (0..500).map(submit).collect();
    assert_eq!(store.sync().unwrap().get(), 500);
    assert_eq!(heads(&store), (500, 500));
    assert!(tickets.iter().all(annals::Ticket::is_done));
}

#[test]
fn a_retry_is_as_durable_as_it_asks() {
    let store = Store::on(MemDisk::new()).durability(NEVER).open().unwrap();
    let append = || Append::to("e").key("k").event(&Raw("k", &()));
    append().commit(&store).unwrap();
    append().commit(&store).unwrap();
    assert_eq!(heads(&store), (1, 0));
    assert!(append().durability(Durability::Synced).commit(&store).unwrap().replayed());
    assert_eq!(heads(&store), (1, 1));
}

#[test]
fn buffered_events_become_durable_by_themselves() {
    let flush_every = Duration::from_millis(5);
    let store = Store::on(MemDisk::new()).durability(Durability::Buffered { flush_every }).open().unwrap();
    for number in 1..=3 {
        append(&store, None);
        eventually("a flush", || heads(&store) == (number, number));
    }
    // The shortest wait counts.
    append(&store, Some(NEVER));
    append(&store, None);
    append(&store, Some(NEVER));
    eventually("a flush of all", || heads(&store) == (6, 6));
}

// The flush was once only done when the queue ran empty, which under load it never does. The clock,
// which the writer reads once per group, keeps it from running empty here.
#[test]
fn a_flush_does_not_wait_for_a_pause() {
    let own: Arc<OnceLock<Store>> = Arc::default();
    let feeding = own.clone();
    let feed = move || {
        if let Some(store) = feeding.get().filter(|store| heads(store).1 == 0) {
            drop(Append::to("e").event(&Raw("k", &())).try_submit(store));
        }
        SystemTime::now()
    };
    let flush_every = Duration::from_millis(5);
    let store = Store::on(MemDisk::new()).clock(feed).unsynced_bytes_max(1 << 30).group_commands_max(1);
    let store = store.durability(Durability::Buffered { flush_every }).open().unwrap();
    own.set(store.clone()).map_err(drop).unwrap();
    append(&store, None);
    append(&store, None);
    let started = Instant::now();
    while heads(&store).1 == 0 && started.elapsed() < Duration::from_secs(2) {
        std::thread::yield_now();
    }
    let (head, durable) = heads(&store);
    assert!(durable > 0, "nothing was durable after {head} appends in {:?}", started.elapsed());
    store.close().unwrap();
}

#[test]
fn no_more_than_was_allowed_is_ever_unsynced() {
    let store = Store::on(MemDisk::new()).durability(NEVER).unsynced_bytes_max(10_000).open().unwrap();
    let mut largest = 0;
    for number in 1..=100 {
        store.append("e", &Bytes("k", vec![1; 900])).unwrap();
        let (head, durable) = heads(&store);
        assert_eq!(head, number);
        largest = largest.max(head - durable);
    }
    assert_eq!(largest, 9, "of about 1,000 bytes each, in 10,000");
}

#[test]
fn waiting_for_ever_is_a_duration_like_any_other() {
    let store = Store::on(MemDisk::new())
        .durability(NEVER)
        .queue_deadline(Duration::MAX)
        .ack_deadline(Duration::MAX)
        .space_probe_every(Duration::MAX);
    let store = within(FOREVER, "opening", move || store.open_within(Duration::MAX).unwrap());
    append(&store, None);
    let ticket = Append::to("e").event(&Raw("k", &())).submit(&store).unwrap();
    assert_eq!(outcome(&ticket.wait_timeout(Duration::MAX).map_err(drop).unwrap()), "v2 @2");
    assert_eq!(heads(&store), (2, 0));
    store.close().unwrap();
}

#[test]
fn so_many_durable_appends_cost_so_many_syncs() {
    const APPENDS: u64 = 10;
    let disk = GatedDisk::new();
    Store::on(disk.clone()).open().unwrap().close().unwrap();
    // MARK is synced when closing, and in a pause of 100 ms, which a busy machine may impose.
    let mut tries = 0..50;
    let (of_segments, of_others) = loop {
        tries.next().expect("some try takes less than 100 ms");
        let (before, others_before) = (disk.gate().arrived(), disk.other_syncs());
        let started = Instant::now();
        let store = Store::on(disk.clone()).open().unwrap();
        fill(&store, "e", APPENDS);
        store.close().unwrap();
        if started.elapsed() < Duration::from_millis(90) {
            break (disk.gate().arrived() - before, disk.other_syncs() - others_before);
        }
    };
    assert_eq!((of_segments, of_others), (APPENDS, 1));
}

#[test]
fn an_idle_writer_syncs_mark_once() {
    let disk = GatedDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    let before = disk.other_syncs();
    append(&store, None);
    eventually("MARK is synced", || disk.other_syncs() == before + 1);
    store.close().unwrap();
    assert_eq!(disk.other_syncs(), before + 2, "once when idle, once when closed");
}

// Written, not synced and not acknowledged: no reader may see it. The head once moved over it with the next
// refused append.
#[test]
fn a_failed_sync_shows_nothing_of_its_group() {
    let disk = GatedDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    fill(&store, "e", 2);
    append(&store, Some(NEVER));
    let before = store.head().unwrap();
    disk.gate().set_behind(Behind::Fail);
    let synced = || Append::to("e").event(&Raw("lost", &()));
    let error = synced().commit(&store).unwrap_err();
    assert_eq!((error.kind(), error.is_definite()), (ErrorKind::CommitUnknown, false));
    let check = || {
        assert_eq!(store.head().unwrap(), before);
        assert_eq!(heads(&store), (3, 2));
        assert_eq!(store.stats().head.get(), 3);
        assert_eq!(store.version("e").unwrap().get(), 3);
        assert_eq!(positions(store.read(Query::all())), [1, 2, 3]);
        assert!(store.at(Position::from(4)).unwrap().is_none());
        assert!(store.verify().unwrap().is_clean());
    };
    check();
    disk.gate().set_behind(Behind::Sync);
    for durability in [Durability::Synced, NEVER] {
        assert_eq!(kind_of(synced().durability(durability).commit(&store)), ErrorKind::Poisoned);
        check();
    }
    assert_eq!(kind_of(store.sync()), ErrorKind::Poisoned);
    check();
    let text = store.close().unwrap_err();
    assert_eq!(text.kind(), ErrorKind::Poisoned);
    assert!(text.to_string().contains("the gate fails this sync"), "{text}");
    // What was in flight may have been written: here it was, so it is found.
    assert_eq!(positions(Store::on(disk).open().unwrap().read(Query::all())), [1, 2, 3, 4]);
}

#[test]
fn a_flush_that_fails_poisons() {
    let disk = GatedDisk::new();
    let flush_every = Duration::from_millis(1);
    let store = Store::on(disk.clone()).durability(Durability::Buffered { flush_every }).open().unwrap();
    disk.gate().set_behind(Behind::Fail);
    append(&store, None);
    let poisoned = || {
        let append = Append::to("f").expect(annals::Expected::exact(9)).event(&Raw("k", &()));
        kind_of(append.commit(&store)) == ErrorKind::Poisoned
    };
    eventually("the flush fails", poisoned);
    assert_eq!(heads(&store), (1, 0));
    assert_eq!(positions(store.read(Query::all())), [1]);
    assert_eq!(kind_of(store.close()), ErrorKind::Poisoned);
}

// The second append with the key depends on the first one, whose fate is unknown.
#[test]
fn a_retry_in_a_failed_group_is_as_unknown_as_the_first_try() {
    let disk = GatedDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    let append = |entity: &str| Append::to(entity).key("k").event(&Raw("k", &()));
    let (held, busy) =
        disk.gate().hold_up(|| Append::to("busy").event(&Raw("k", &())).submit(&store).unwrap());
    let tickets = [append("e").submit(&store).unwrap(), append("e").submit(&store).unwrap()];
    let conflict =
        Append::to("e").expect(annals::Expected::NoStream).event(&Raw("k", &())).submit(&store).unwrap();
    disk.gate().set_behind_after(0, Behind::Fail);
    drop(held);
    busy.wait().unwrap();
    for ticket in tickets {
        assert_eq!(kind_of(ticket.wait()), ErrorKind::CommitUnknown);
    }
    assert_eq!(kind_of(conflict.wait()), ErrorKind::Poisoned);
}

/// A clock that tells the times it is given, and the last one for ever.
fn clock(times: impl IntoIterator<Item = i64>) -> impl Fn() -> SystemTime + Send + Sync + 'static {
    let mut times: Vec<i64> = times.into_iter().collect();
    times.reverse();
    let times = Mutex::new(times);
    move || {
        let mut times = times.lock().unwrap();
        let now = *times.last().unwrap();
        if times.len() > 1 {
            times.pop();
        }
        at(now)
    }
}

fn recorded(store: &Store) -> Vec<i64> {
    let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros();
    all(store.read(Query::all())).iter().map(|event| since(event.recorded_at()).try_into().unwrap()).collect()
}

#[test]
fn recorded_at_never_goes_back() {
    let disk = MemDisk::new();
    let open = |times: &[i64]| Store::on(disk.clone()).clock(clock(times.iter().copied())).open().unwrap();
    // The first reading is for opening.
    let store = open(&[1, 50, 60, 40, 60, 70, -5, 71]);
    fill(&store, "e", 7);
    assert_eq!(recorded(&store), [50, 60, 60, 60, 70, 70, 71]);
    store.close().unwrap();
    let store = open(&[10, 20, 80]);
    fill(&store, "e", 2);
    assert_eq!(recorded(&store)[7..], [71, 80]);
    drop(store);
    // From a segment's header, if the segment has no frame yet.
    let store = Store::on(disk.clone()).segment_bytes_max(0).clock(clock([1])).open().unwrap();
    fill(&store, "e", 2);
    assert_eq!(recorded(&store)[9..], [80, 80]);
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn recorded_at_is_what_the_clock_says_else() {
    let mut random = Random::for_test("recorded_at_is_what_the_clock_says_else");
    let times: Vec<i64> = (0..200).map(|_| i64::try_from(random.below(1000)).unwrap() - 100).collect();
    let store = Store::on(MemDisk::new()).segment_bytes_max(400).clock(clock(times.clone())).open().unwrap();
    fill(&store, "e", 199);
    let right = times[1..].iter().scan(0, |last, now| {
        *last = *now.max(last);
        Some(*last)
    });
    assert_eq!(recorded(&store), right.collect::<Vec<i64>>());
}

#[test]
fn a_clock_that_panics_stands_still() {
    let readings = Arc::new(AtomicU64::new(0));
    let count = readings.clone();
    let clock = move || {
        let reading = count.fetch_add(1, Ordering::Relaxed);
        assert!(reading % 2 == 1, "the clock panics, on purpose");
        at(i64::try_from(reading).unwrap())
    };
    let store = Store::on(MemDisk::new()).clock(clock).open().expect("opening reads the clock, too");
    fill(&store, "e", 6);
    assert_eq!(recorded(&store), [1, 1, 3, 3, 5, 5]);
    store.close().unwrap();
    assert_eq!(readings.load(Ordering::Relaxed), 7);
}

#[test]
fn a_far_clock_does_no_harm() {
    let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 43);
    let store = Store::on(MemDisk::new()).clock(move || far).open().unwrap();
    fill(&store, "e", 2);
    let events = all(store.stream("e"));
    assert_eq!(events[0].recorded_at(), far);
    for event in events {
        assert_eq!(store.get(event.id()).unwrap().unwrap().position(), event.position());
    }
    assert_eq!(positions(store.read(Query::all()).between(far..)), [1, 2]);
    assert_eq!(positions(store.read(Query::all()).between(..far)), NOTHING);
}

#[test]
fn heads_print_and_parse() {
    let disk = MemDisk::new();
    let open = || Store::on(disk.clone()).segment_bytes_max(0).open().unwrap();
    let store = open();
    let mut known = vec![store.head().unwrap()];
    for _ in 0..3 {
        let receipt = store.append("e", &Raw("k", &())).unwrap();
        let head = store.head().unwrap();
        let event = store.at(receipt.position()).unwrap().unwrap();
        assert_eq!((head.position(), head.chain()), (receipt.position(), event.chain()));
        assert_eq!(store.durable_head().unwrap(), head);
        known.push(head);
    }
    store.close().unwrap();
    let store = open();
    assert_eq!(store.head().unwrap(), known[3], "opening does not change it");
    let other = Store::in_memory().unwrap().head().unwrap();
    assert!(
        other != known[0] && other.store_id() != known[0].store_id() && other.chain() != known[0].chain()
    );
    for (position, head) in known.iter().enumerate() {
        let text = head.to_string();
        assert_eq!(text.parse::<Head>().unwrap(), *head);
        assert_eq!(format!("{head:?}"), text);
        let (chain, id) = text.strip_prefix(&format!("{position}:")).unwrap().split_once('@').unwrap();
        assert_eq!((chain.len(), id), (64, head.store_id().to_string().as_str()));
        assert!(known.iter().filter(|other| other.chain() == head.chain()).count() == 1);
    }
    let text = known[1].to_string();
    let changed = [
        String::new(),
        text.replace(':', ""),
        text.replace('@', ""),
        text.replace("1:", "x:"),
        text.replace("1:", "-1:"),
        text[..text.len() - 1].to_owned(),
        text.replacen(&text[2..4], "", 1),
        text.replacen(&text[2..4], "zz", 1),
        format!("{text} "),
        format!(" {text}"),
    ];
    for wrong in changed {
        let error = wrong.parse::<Head>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{wrong}");
    }
}

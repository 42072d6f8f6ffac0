//! Compacting that runs by itself: when, what of, who it waits for, what it says, how it ends; and what is
//! not worth it.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, SystemTime};

use annals::disk::{Disk, SimDisk};
use annals::{
    Builder, Compaction, CompactionStats, DomainEvent, Meta, Projection, Query, Raw, RecordedEvent, Store,
};
use serde::{Deserialize, Serialize};

use crate::support::{FOREVER, GatedDisk, Random, all, eventually, within};

const SOON: Duration = Duration::from_millis(1);
const NEVER: Duration = Duration::MAX;

fn builder(disk: &SimDisk) -> Builder {
    Store::on(disk.clone()).segment_bytes_max(1500)
}

/// By turns of `user:1`, which goes in most tests, and of `user:2`.
fn fill(store: &Store, appends: u32) {
    for number in 0..appends {
        let entity = if number % 2 == 0 { "user:1" } else { "user:2" };
        store.append(entity, &Raw("made", &(number, "x".repeat(60)))).unwrap();
    }
}

fn first(store: &Store) -> CompactionStats {
    store.stats().compactions.remove(0)
}

fn count(store: &Store) -> u64 {
    store.count(Query::entity("user:1")).unwrap()
}

/// The turns of a policy, which the test gives one after the other: between two of them nothing is compacted.
/// A background thread that is only waited for may have done less than the test assumes, or more.
#[derive(Default)]
struct Turns {
    state: Mutex<TurnState>,
    changed: Condvar,
}

#[derive(Default)]
struct TurnState {
    begun: u64,
    given: u64,
    is_over: bool,
}

impl Turns {
    /// A policy that begins each turn when it is given, and then does `rules`.
    fn policy<F>(self: &Arc<Turns>, rules: F) -> impl for<'a> Fn(Compaction<'a>) -> Compaction<'a> + use<F>
    where
        F: for<'a> Fn(Compaction<'a>) -> Compaction<'a> + Send + Sync + 'static,
    {
        let turns = self.clone();
        policy(move |compaction| {
            let mut state = turns.state.lock().unwrap();
            state.begun += 1;
            turns.changed.notify_all();
            drop(turns.changed.wait_while(state, |state| state.given < state.begun && !state.is_over));
            rules(compaction)
        })
    }

    /// Gives one turn, and waits until it is over: until the next one has begun, and waits.
    fn give(&self) {
        let mut state = self.state.lock().unwrap();
        state.given += 1;
        self.changed.notify_all();
        let not_yet = |state: &mut TurnState| state.begun <= state.given;
        let (_state, waited) = self.changed.wait_timeout_while(state, FOREVER, not_yet).unwrap();
        assert!(!waited.timed_out(), "the turn does not end");
    }

    /// Gives all further turns once this is dropped, so that the store can close. Make it after the store:
    /// then a test that fails drops it before the store.
    fn until_the_end(self: &Arc<Turns>) -> End {
        End(self.clone())
    }
}

#[must_use]
struct End(Arc<Turns>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().is_over = true;
        self.0.changed.notify_all();
    }
}

/// Waits until a run has found nothing to do.
fn rested(store: &Store) {
    eventually("nothing is left to do", || {
        let CompactionStats { last, error, .. } = first(store);
        error.is_none() && last.is_some_and(|last| last.removed + last.erased == 0)
    });
}

fn runs_again(store: &Store, times: u64) {
    let runs = first(store).runs;
    eventually("it runs again", || first(store).runs >= runs + times);
}

#[test]
fn what_is_to_go_goes_by_itself_and_where_nothing_is_nothing_is_written() {
    let disk = SimDisk::new(1);
    let turns = Arc::new(Turns::default());
    let store = builder(&disk)
        .operator("anna")
        .compact_every(SOON, "a rule", turns.policy(|compaction| compaction.remove(Query::entity("user:1"))))
        .compact_every(NEVER, "another", |compaction| compaction.remove(Query::all()))
        .open()
        .unwrap();
    let end = turns.until_the_end();
    fill(&store, 80);
    turns.give();
    assert!(count(&store) < 15, "what is sealed is compacted");
    let stats = first(&store);
    assert_eq!((stats.reason.as_str(), stats.error.as_deref(), stats.runs), ("a rule", None, 1));
    assert!(stats.removed > 25, "{stats:?}");
    assert!(stats.ended_at.unwrap() > SystemTime::UNIX_EPOCH);
    assert_eq!(store.version("user:1").unwrap().get(), 40);
    assert_eq!(store.count(Query::entity("user:2")).unwrap(), 40);
    let ledger = store.last(Query::entity("$ledger").kind("$ledger.compacted")).unwrap().unwrap();
    let payload = String::from_utf8_lossy(ledger.payload().unwrap()).into_owned();
    assert!(payload.contains("a rule") && payload.contains("anna"), "{payload}");

    // The record of a run may fill a segment, and then the next run finds a little more.
    eventually("nothing is left to do", || {
        turns.give();
        first(&store).last.is_some_and(|last| last.removed + last.erased == 0)
    });
    let seen = || (store.head().unwrap(), disk.contents("MANIFEST"), disk.paths());
    let before = seen();
    let runs = first(&store).runs;
    (0..5).for_each(|_| turns.give());
    assert_eq!(seen(), before, "to look changes nothing");
    assert_eq!(first(&store).runs, runs + 5);
    let other = store.stats().compactions.remove(1);
    assert_eq!((other.reason.as_str(), other.runs, other.ended_at), ("another", 0, None));

    // What comes later goes once it is sealed, and is not sealed for that.
    let segments = || disk.paths().into_iter().filter(|path| path.ends_with(".seg")).count();
    let is_left = || !store.last(Query::entity("user:1")).unwrap().unwrap().is_erased();
    let (mut left, mut sealed) = (0, 0);
    for _ in 0..20 {
        let before = segments();
        fill(&store, 2);
        if segments() == before {
            turns.give();
            assert!(is_left(), "the two stand in the segment that is being written");
            left += 1;
        } else {
            sealed += 1;
        }
    }
    assert!(left > 5 && sealed > 0, "{left} left, {sealed} sealed");
    fill(&store, 80);
    turns.give();
    assert!(count(&store) < 15, "what is sealed is compacted");
    assert!(store.verify().unwrap().is_clean());
    let reader = builder(&disk).compact_every(SOON, "", |compaction| compaction).open_read_only().unwrap();
    assert!(reader.stats().compactions.is_empty(), "who reads compacts nothing");
    drop(end);
    store.close().unwrap();
}

#[test]
fn it_waits_for_its_next_turn_during_a_compaction() {
    let disk = SimDisk::new(2);
    let turns = Arc::new(AtomicU64::new(0));
    let of_policy = turns.clone();
    let policy = policy(move |compaction| {
        of_policy.fetch_add(1, Ordering::SeqCst);
        compaction.remove(Query::entity("user:1"))
    });
    let store = builder(&disk).compact_every(SOON, "by itself", policy).open().unwrap();
    let turn = |more: u64| {
        let before = turns.load(Ordering::SeqCst);
        eventually("it has its turn", || turns.load(Ordering::SeqCst) >= before + more);
    };
    fill(&store, 60);
    rested(&store);
    let mut runs = None;
    let by_hand = store.compaction("by hand").remove(Query::entity("user:2")).remove_if(|_| {
        if runs.is_none() {
            // The turn before this one is over then, and in the counters.
            turn(2);
            let before = first(&store);
            turn(4);
            runs = Some((before, first(&store)));
        }
        true
    });
    assert!(by_hand.run().unwrap().removed > 20);
    let (before, after) = runs.unwrap();
    assert_eq!(before, after, "its turns came to nothing");
    runs_again(&store, 1);
    store.close().unwrap();
}

/// A closure that takes any compaction, said before it is given away.
fn policy<F>(policy: F) -> F
where
    F: for<'a> Fn(Compaction<'a>) -> Compaction<'a> + Send + Sync + 'static,
{
    policy
}

#[test]
fn what_a_consumer_has_not_handled_stays_until_it_has() {
    let disk = SimDisk::new(3);
    let store = builder(&disk)
        .compact_every(SOON, "why", |compaction| compaction.remove(Query::entity("user:1")))
        .open()
        .unwrap();
    let mut consumer = store.consumer("mailer", Query::entity("user:1")).unwrap();
    fill(&store, 80);
    eventually("it is refused", || first(&store).error.is_some_and(|text| text.contains("consumer mailer")));
    assert_eq!((count(&store), first(&store).removed), (40, 0));
    for _ in 0..40 {
        let event = consumer.next_timeout(FOREVER).unwrap().unwrap();
        consumer.ack(event.position()).unwrap();
    }
    consumer.flush().unwrap();
    eventually("it is done", || count(&store) < 15);
    rested(&store);
    drop(consumer);
    store.close().unwrap();
}

#[test]
fn a_full_disk_is_told_of_and_tried_again() {
    let disk = SimDisk::new(4);
    let store = builder(&disk).open().unwrap();
    fill(&store, 80);
    store.close().unwrap();
    let used: usize = disk.paths().iter().map(|path| disk.contents(path).unwrap().len()).sum();
    let turns = Arc::new(Turns::default());
    let store = builder(&disk)
        .compact_every(SOON, "why", turns.policy(|compaction| compaction.remove(Query::entity("user:1"))))
        .open()
        .unwrap();
    let end = turns.until_the_end();
    // Room for an event, and not for a segment.
    disk.set_capacity(Some(u64::try_from(used).unwrap() + 1000));
    turns.give();
    let refused = first(&store);
    assert!(refused.error.as_ref().is_some_and(|text| text.contains("bytes must be free")), "{refused:?}");
    assert_eq!((refused.removed, all(store.read(Query::all())).len()), (0, 80));
    // Each turn wrote `$ledger.compacting`, and filled what little room there was.
    let announced = || store.count(Query::entity("$ledger")).unwrap();
    (0..3).for_each(|_| turns.give());
    assert_eq!(announced(), 0, "what cannot go is not announced");
    disk.set_capacity(None);
    turns.give();
    assert!(count(&store) < 15, "it is done");
    assert_eq!(first(&store).error, None);
    assert_eq!(announced(), 2, "it is announced once, and done");
    fill(&store, 2);
    drop(end);
    store.close().unwrap();
}

#[test]
fn a_panic_ends_that_policy_and_no_other() {
    let disk = SimDisk::new(5);
    let runs = Arc::new(AtomicU64::new(0));
    let of_policy = runs.clone();
    let bad = policy(move |compaction| {
        of_policy.fetch_add(1, Ordering::SeqCst);
        compaction.remove_if(|_| panic!("on purpose"))
    });
    let store = builder(&disk)
        .compact_every(SOON, "bad", bad)
        .compact_every(SOON, "good", |compaction| compaction.remove(Query::entity("user:1")))
        .open()
        .unwrap();
    fill(&store, 80);
    eventually("it panics", || first(&store).error.is_some_and(|text| text.contains("panicked")));
    let runs_of_bad = runs.load(Ordering::SeqCst);
    eventually("the other one goes on", || count(&store) < 15);
    assert_eq!(runs.load(Ordering::SeqCst), runs_of_bad);
    store.close().unwrap();
}

#[test]
fn closing_breaks_a_run_off() {
    // While it looks, at a pace of years.
    let disk = SimDisk::new(6);
    let opened = || Store::on(disk.clone()).segment_bytes_max(1 << 20);
    let store = opened().open().unwrap();
    for number in 0..8 {
        store.append("user:1", &Raw("made", &(number, "x".repeat(512 << 10)))).unwrap();
    }
    store.close().unwrap();
    for by_close in [false, true] {
        let is_running = Arc::new(AtomicBool::new(false));
        let of_policy = is_running.clone();
        let policy = policy(move |compaction| {
            let is_running = of_policy.clone();
            let looks = compaction.remove_if(move |_| {
                is_running.store(true, Ordering::SeqCst);
                true
            });
            looks.bytes_per_second(1)
        });
        let store = opened().compact_every(SOON, "slowly", policy).open().unwrap();
        eventually("it runs", || is_running.load(Ordering::SeqCst));
        let end = move || if by_close { store.close().unwrap() } else { drop(store) };
        within(FOREVER, "the store closes", end);
        let store = opened().open().unwrap();
        assert_eq!(count(&store), 8);
        assert!(store.last(Query::entity("$ledger")).unwrap().is_none());
        store.close().unwrap();
    }
}

/// How many events were folded.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Counted(u64);

impl Projection for Counted {
    type Event = Made;
    const NAME: &'static str = "counted";

    fn apply(&mut self, _: Made, _: &Meta<'_>) {
        self.0 += 1;
    }

    fn erased(&mut self, _: &Meta<'_>) {
        self.0 += 1;
    }
}

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(kind = "made")]
struct Made(u32, String);

#[test]
fn the_last_handle_may_be_dropped_while_segments_are_rewritten() {
    let disk = GatedDisk::of_rewriting();
    let opened = || Store::on(disk.clone()).segment_bytes_max(1500);
    let store = opened().open().unwrap();
    fill(&store, 120);
    assert_eq!(store.load::<Counted>("user:1").unwrap().0, 60);
    store.close().unwrap();
    for round in 0..3 {
        let arrived = disk.gate().arrived();
        let store;
        let held = disk.gate().hold();
        store = opened()
            .compact_every(SOON, "why", |compaction| compaction.remove(Query::entity("user:1")))
            .open()
            .unwrap();
        disk.gate().wait_for_sync(arrived);
        let before = store.load::<Counted>("user:1").unwrap().0;
        assert_eq!(before, count(&store), "{round}");
        let dropping = std::thread::spawn(move || drop(store));
        drop(held);
        within(FOREVER, "the store is dropped", move || dropping.join().unwrap());
        assert!(!disk.is_locked().unwrap());
        let store = opened().open().unwrap();
        assert_eq!(store.load::<Counted>("user:1").unwrap().0, count(&store), "{round}");
        assert_eq!(store.version("user:1").unwrap().get(), 60 + 30 * round);
        assert_eq!(store.count(Query::entity("user:2")).unwrap(), 60 + 30 * round);
        assert!(store.verify().unwrap().is_clean());
        // Something is left to do, whether the run was broken off or not.
        fill(&store, 60);
        store.close().unwrap();
    }
}

#[test]
fn a_policy_may_drop_the_last_handle() {
    let disk = SimDisk::new(7);
    let handle: Arc<Mutex<Option<Store>>> = Arc::default();
    let of_policy = handle.clone();
    let policy = policy(move |compaction| {
        drop(of_policy.lock().unwrap().take());
        compaction.remove(Query::all())
    });
    let store = builder(&disk).compact_every(SOON, "why", policy).open().unwrap();
    fill(&store, 40);
    *handle.lock().unwrap() = Some(store);
    let store = builder(&disk).open_within(FOREVER).unwrap();
    assert_eq!(store.version("user:1").unwrap().get(), 20);
    store.close().unwrap();
}

/// Which of a store's events are in which segment, by its first position.
fn shares(disk: &SimDisk, events: &[RecordedEvent]) -> Vec<(String, u64, u64)> {
    let mut names: Vec<String> = disk.paths().into_iter().filter(|path| path.ends_with(".seg")).collect();
    names.sort_unstable();
    let starts = |name: &String| name["segments/".len()..][..20].parse::<u64>().unwrap();
    let ends: Vec<u64> = names.iter().skip(1).map(starts).chain([u64::MAX]).collect();
    let share = |(name, end): (String, u64)| {
        let own = events.iter().filter(|event| (starts(&name)..end).contains(&event.position().get()));
        let (mut all, mut going) = (0, 0);
        own.for_each(|event| {
            all += 1;
            going += u64::from(event.entity() == "user:1");
        });
        (name, going, all)
    };
    names.into_iter().zip(ends).map(share).collect()
}

#[test]
fn segments_that_are_not_worth_it_are_left() {
    for worth in [0, 10, 30, 50, 70, 80, 255] {
        let disk = SimDisk::new(8);
        // Events so long that what comes in their place is little beside them.
        let store = builder(&disk).segment_bytes_max(6_000).open().unwrap();
        // Of the first segment's events few go, of later ones more and more.
        for number in 0..150_u64 {
            let entity = if number % 15 < number / 10 { "user:1" } else { "user:2" };
            store.append(entity, &Raw("made", &(number, "x".repeat(400)))).unwrap();
        }
        let before = shares(&disk, &all(store.read(Query::all())));
        let by =
            |store: &Store| store.compaction("why").remove(Query::entity("user:1")).worth(worth).dry_run();
        // What is written to is not sealed yet, so a dry run does not count it.
        let plan = by(&store).unwrap();
        let compaction = store.compaction("why").remove(Query::entity("user:1")).worth(worth);
        let done = compaction.run().unwrap();
        assert!(done.removed >= plan.removed, "{worth}: {plan} {done:?}");
        let paths = disk.paths();
        let (mut left, mut written) = (0, 0);
        for (name, going, all) in &before {
            let percent = 100 * going / all.max(&1);
            match paths.contains(name) {
                // Frames differ little in length; header, seal and attestation are some percent.
                true => assert!(*going == 0 || percent < u64::from(worth) + 15, "{worth}: {name} {percent}"),
                false => assert!(
                    *going > 0 && percent + 15 > u64::from(worth.min(100)),
                    "{worth}: {name} {percent}"
                ),
            }
            left += u32::from(paths.contains(name));
            written += u32::from(!paths.contains(name));
        }
        assert_eq!((worth <= 80, true), (written > 0, left > 0), "{worth}: {left} left, {written} written");
        assert_eq!(by(&store).unwrap().removed, 0, "{worth}: what is left is not worth it");
        assert!(store.verify().unwrap().is_clean());
    }
}

#[test]
fn what_a_dry_run_says_is_what_goes() {
    let mut random = Random::for_test("policies::dry_run");
    for round in 0..40 {
        let disk = SimDisk::new(random.next());
        let store = builder(&disk).open().unwrap();
        for number in 0..60 {
            let entity = random.pick(&["user:1", "user:1", "user:2", "user:3"]);
            store.append(entity, &Raw("made", &(number, "x".repeat(random.index(120))))).unwrap();
        }
        let store = match random.chance(50) {
            true => store,
            false => {
                store.close().unwrap();
                Store::on(disk.clone()).segment_bytes_max(6000).open().unwrap()
            }
        };
        // All that goes is sealed.
        let ends = store.compaction("an end").before(1.into()).run().unwrap();
        let (worth, is_merged) = (u8::try_from(random.below(101)).unwrap(), random.chance(60));
        let compaction = || {
            let compaction = store.compaction("why").remove(Query::entity("user:1")).worth(worth);
            if is_merged { compaction.merge() } else { compaction }
        };
        let place = format!("round {round}, worth {worth}, merged {is_merged}, after {ends:?}");
        let plan = compaction().dry_run().unwrap();
        let mut told = 0;
        let done = compaction().on_progress(|_| {
            told += 1;
            ControlFlow::Continue(())
        });
        let done = done.run().unwrap();
        assert_eq!((plan.removed, plan.erased), (done.removed, done.erased), "{place}: {plan} {done:?}");
        let of_kinds: u64 = plan.kinds.values().map(|share| share.removed).sum();
        assert_eq!(of_kinds, plan.removed, "{place}");
        assert!(told > 0);
        let left = all(store.stream("user:1")).len();
        assert_eq!(
            u64::try_from(left).unwrap() + done.removed,
            store.version("user:1").unwrap().get(),
            "{place}"
        );
        assert!(store.verify().unwrap().is_clean(), "{place}");
    }
}

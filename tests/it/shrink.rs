//! A log that shrinks: what a store takes after events were removed, and what a dry run says before.
//!
//! `ANNALS_HEAVY=1` takes the full numbers of events. `--nocapture` prints what was measured.

use std::collections::BTreeMap;

use annals::disk::{Access, Disk, MemDisk, SimDisk};
use annals::{
    Append, Builder, Compaction, GroupBy, Position, Query, Raw, RecordedEvent, Store, StoreCopy, Until,
};

use crate::sim_support::is_full;
use crate::support::{Random, all};

const KINDS: [&str; 3] = ["made", "changed", "gone"];
const KIB: u64 = 1024;

/// The length of all segments and index files.
fn bytes(disk: &MemDisk) -> u64 {
    let names = disk.list("segments").unwrap();
    let length = |name: &String| disk.open(&format!("segments/{name}"), Access::Read).unwrap().length();
    names.iter().map(|name| length(name).unwrap()).sum()
}

fn builder(disk: &MemDisk) -> Builder {
    Store::on(disk.clone()).segment_bytes_max(1 << 20)
}

/// 177 bytes of payload, and 23 of names.
fn add(append: Option<Append>, entity: usize) -> Append {
    let name = format!("sensor:{entity:06}");
    let append = match append {
        None => Append::to(name),
        Some(append) => append.and_to(name),
    };
    append.event(&Raw("measured.1", &"p".repeat(175)))
}

/// Appends one event to each of these entities, `size` of them at a time.
fn append(store: &Store, entities: &[usize], size: usize) {
    for entities in entities.chunks(size) {
        let append = entities.iter().fold(None, |append, entity| Some(add(append, *entity)));
        append.unwrap().commit(store).unwrap();
    }
}

/// What a new store of these entities' events takes.
fn fresh(entities: &[usize], size: usize) -> u64 {
    let disk = MemDisk::new();
    let store = builder(&disk).open().unwrap();
    append(&store, entities, size);
    store.close().unwrap();
    bytes(&disk)
}

/// The entities of what is left, in order.
fn left(store: &Store) -> Vec<usize> {
    let number = |event: RecordedEvent| event.entity().trim_start_matches("sensor:").parse().unwrap();
    all(store.read(Query::all())).into_iter().map(number).collect()
}

/// The entities of random events, of which some have far more traffic than others.
fn traffic(random: &mut Random, events: usize, entities: usize) -> Vec<usize> {
    let mut one = || {
        let most = 1 + random.index(entities);
        random.index(most)
    };
    (0..events).map(|_| one()).collect()
}

fn newest(store: &Store) -> Compaction<'_> {
    store.compaction("the newest is enough").keep_newest(1, GroupBy::Entity).merge()
}

fn check_clean(store: &Store) {
    let report = store.verify().unwrap();
    assert!(report.is_clean() && report.removed_without_order.is_empty(), "{report}");
}

#[test]
fn keeping_the_newest_takes_little_more_than_a_fresh_store() {
    let (events, entities) = if is_full() { (300_000, 2_000) } else { (6_000, 40) };
    for (name, size) in [("one event", 1), ("ten events", 10)] {
        let disk = MemDisk::new();
        let store = builder(&disk).open().unwrap();
        let random = &mut Random::for_test("shrink newest");
        let all: Vec<usize> = (0..events).map(|_| random.index(entities)).collect();
        append(&store, &all, size);
        let before = bytes(&disk);
        let done = newest(&store).run().unwrap();
        check_clean(&store);
        let left = left(&store);
        store.close().unwrap();
        let now = bytes(&disk);
        let anew = fresh(&left, size);
        let most = anew * 3 / 2 + 64 * KIB;
        println!(
            "keep_newest(1), appends of {name}: {events} events, {} left: {before} bytes, now {now}; a fresh \
                  store {anew} (would_take {})",
            left.len(),
            done.would_take
        );
        assert!(now <= most, "appends of {name}: {now}, a fresh store {anew}");
    }
}

/// Found from outside: six waves, each compacted, left 4.5 times of what a fresh store takes. Not yet at any
/// size: waves of 10,000 events over 2,000 entities still leave more than this, because what stays is spread.
#[test]
fn waves_of_appends_are_compacted_to_little_more_than_a_fresh_store() {
    let events = 1_000;
    let entities = 200;
    for size in [1, 5] {
        let disk = MemDisk::new();
        let store = builder(&disk).open().unwrap();
        let random = &mut Random::for_test("shrink waves");
        for _ in 0..6 {
            append(&store, &traffic(random, events, entities), size);
            newest(&store).run().unwrap();
        }
        check_clean(&store);
        let left = left(&store);
        store.close().unwrap();
        let now = bytes(&disk);
        let anew = fresh(&left, size);
        println!(
            "six waves of {events}, appends of {size}: {} events left: {now} bytes; a fresh store {anew}",
            left.len()
        );
        assert!(now <= anew * 3 / 2 + 64 * KIB, "appends of {size}: {now}, a fresh store {anew}");
    }
}

#[test]
fn every_second_append_removed_frees_three_tenths() {
    let disk = MemDisk::new();
    let events = if is_full() { 100_000 } else { 4_000 };
    let store = builder(&disk).open().unwrap();
    append(&store, &(0..events).map(|number| number % 20).collect::<Vec<_>>(), 1);
    store.compaction("seals").remove(Query::entity("none")).run().unwrap();
    let before = bytes(&disk);
    let odd = |event: &RecordedEvent| event.position().get() % 2 == 1;
    store.compaction("half").remove_if(odd).run().unwrap();
    check_clean(&store);
    let now = bytes(&disk);
    println!("every second of {events} removed: {before} bytes, now {now}, {} %", 100 - 100 * now / before);
    assert!(now * 10 <= before * 7, "{before} bytes, now {now}");
    // Thinned again and again, a store is never longer than before.
    let mut last = now;
    for modulus in [3, 5, 7, 2] {
        let some = |event: &RecordedEvent| event.position().get().is_multiple_of(modulus);
        store.compaction("thinned").remove_if(some).run().unwrap();
        check_clean(&store);
        let next = bytes(&disk);
        println!("thinned by every {modulus}th: {next} bytes");
        assert!(next <= last + 2 * KIB, "{last} bytes, now {next}: the ledger has about 1 KiB more");
        last = next;
    }
}

#[test]
fn fifty_of_five_thousand_take_forty_kilobytes() {
    let disk = MemDisk::new();
    let store = builder(&disk).open().unwrap();
    append(&store, &(0..5_000).map(|number| number % 10).collect::<Vec<_>>(), 1);
    let spread = |event: &RecordedEvent| event.position().get() % 100 != 50;
    store.compaction("spread").remove_if(spread).merge().run().unwrap();
    check_clean(&store);
    store.close().unwrap();
    let now = bytes(&disk);
    println!("50 of 5,000 left: {now} bytes");
    assert!(now <= 40_000, "{now} bytes");
}

/// A rule of a random compaction.
fn ruled<'a>(store: &'a Store, random: &mut Random) -> Compaction<'a> {
    let compaction = store.compaction("random");
    let compaction = match random.below(5) {
        0 => compaction.remove(Query::all().kind(random.pick(&KINDS))),
        1 => compaction.keep_newest(1 + random.below(4), GroupBy::Entity),
        2 => compaction.before(Position::from(random.below(400))),
        3 => compaction.keep_newest(1 + random.below(20), GroupBy::Kind),
        _ => {
            let modulus = 2 + random.below(5);
            compaction.remove_if(move |event| event.position().get() % modulus != 0)
        }
    };
    let compaction = if random.chance(20) { compaction.tombstones() } else { compaction };
    if random.chance(50) { compaction.merge() } else { compaction }
}

/// Appends of one to six events, of several entities now and then.
fn random_events(store: &Store, random: &mut Random, appends: u64) {
    for _ in 0..appends {
        let mut append: Option<Append> = None;
        let several = random.chance(50);
        let first = random.index(8);
        for _ in 0..1 + random.below(6) {
            let entity = format!("e:{}", if several { random.index(8) } else { first });
            let next = match append {
                None => Append::to(entity),
                Some(append) => append.and_to(entity),
            };
            append = Some(next.event(&Raw(random.pick(&KINDS), &"x".repeat(random.index(200)))));
        }
        append.unwrap().commit(store).unwrap();
    }
}

/// Everything there is to know of the events that are left.
fn facts(store: &Store) -> BTreeMap<u64, String> {
    let fact = |event: &RecordedEvent| {
        format!(
            "{} {} {} {:?} {:?} {:?}",
            event.id(),
            event.entity(),
            event.version(),
            event.correlation(),
            event.payload().ok(),
            event.chain()
        )
    };
    all(store.read(Query::all())).iter().map(|event| (event.position().get(), fact(event))).collect()
}

#[test]
fn a_dry_run_says_what_then_happens() {
    let rounds = if is_full() { 400 } else { 40 };
    let mut told = 0;
    for round in 0..rounds {
        let random = &mut Random::new(round);
        let disk = SimDisk::new(round);
        let store = Store::on(disk.clone()).segment_bytes_max(random.pick(&[2_000, 32_000])).open().unwrap();
        for _ in 0..3 {
            random_events(&store, random, 60);
            // Seals the last segment, which a dry run does not look at.
            store.compaction("seals").remove(Query::entity("none")).run().unwrap();
            let before = facts(&store);
            let seed = random.next();
            let plan = ruled(&store, &mut Random::new(seed)).dry_run().unwrap();
            let done = ruled(&store, &mut Random::new(seed)).run().unwrap();
            let freed = done.bytes_before.saturating_sub(done.bytes_after);
            // A run seals what the announcement of the last one stands in; that removes nothing.
            let text = format!("round {round}: {plan:?} {done:?}");
            assert_eq!((plan.removed, plan.erased), (done.removed, done.erased), "{text}");
            assert!(plan.bytes.abs_diff(freed) <= 2 * 216 + freed / 20, "{text}");
            told += u64::from(freed > 10_000);
            let after = facts(&store);
            assert_eq!(u64::try_from(before.len() - after.len()).unwrap(), done.removed, "{text}");
            for (position, fact) in &after {
                let own = &before[position];
                let is_erased = fact.contains("None") && !own.contains("None");
                assert!(is_erased || fact == own, "{text}: {own} became {fact}");
            }
            check_clean(&store);
            for (position, _) in before.iter().filter(|(position, _)| !after.contains_key(position)) {
                assert!(store.at(Position::from(*position)).unwrap().is_none(), "{text}");
            }
        }
        let report = annals::Verify::new().indexes().run(&store).unwrap();
        assert!(report.is_clean() && report.indexes.is_empty(), "{report}");
    }
    assert!(told > 10, "{told} runs freed more than 10 kB");
}

/// Events that are gone stay gone, and the others stay, in every copy; the order may lie behind a fork's end.
#[test]
fn copies_of_a_store_with_gone_events_verify_clean() {
    let disk = SimDisk::new(1);
    let store = Store::on(disk.clone()).segment_bytes_max(6_000).open().unwrap();
    let random = &mut Random::new(7);
    random_events(&store, random, 120);
    store.compaction("two kinds").remove(Query::all().kind("gone")).run().unwrap();
    random_events(&store, random, 20);
    let kept = facts(&store);
    let removed = store.verify().unwrap().removed;
    assert!(removed > 50, "{removed}");
    let backup = SimDisk::new(2);
    store.backup_on(backup.clone()).run().unwrap();
    let restored = SimDisk::new(3);
    StoreCopy::restore_on(Store::on(backup.clone()), restored.clone(), Until::End).run().unwrap();
    for copy in [backup, restored] {
        let copy = Store::on(copy).open_read_only().unwrap();
        assert_eq!(facts(&copy), kept);
        let report = copy.verify().unwrap();
        assert!(report.is_clean() && report.removed == removed, "{report}");
    }
    let first = *kept.keys().nth(40).unwrap();
    let fork = SimDisk::new(4);
    store.fork_on(fork.clone(), Position::from(first)).run().unwrap();
    let fork = Store::on(fork).open().unwrap();
    let of_fork = facts(&fork);
    let up_to: BTreeMap<u64, String> = kept.into_iter().filter(|(at, _)| of_fork.contains_key(at)).collect();
    assert_eq!(of_fork, up_to);
    let report = fork.verify().unwrap();
    assert!(report.is_clean() && report.removed > 0, "{report}");
    assert!(report.removed_without_order.is_empty(), "an order behind the end is unknown: {report}");
    random_events(&fork, random, 200);
    let report = fork.verify().unwrap();
    assert!(report.is_clean(), "{report}");
    assert!(!report.removed_without_order.is_empty(), "another event stands where the order was: {report}");
}

/// An export has what is left, so a fresh store of it is as small as one can be.
#[cfg(feature = "jsonl")]
#[test]
fn an_export_of_what_is_left_has_no_gone_events() {
    let store = Store::in_memory().unwrap();
    let random = &mut Random::new(9);
    random_events(&store, random, 60);
    store.compaction("two kinds").remove(Query::all().kind("gone")).run().unwrap();
    let mut lines = Vec::new();
    store.export(Query::all()).write_to(&mut lines).unwrap();
    let fresh = Store::in_memory().unwrap();
    fresh.import("moved", std::io::Cursor::new(lines)).renumber().run().unwrap();
    let ids = |store: &Store| all(store.read(Query::all())).iter().map(RecordedEvent::id).collect::<Vec<_>>();
    assert_eq!(ids(&fresh), ids(&store));
}

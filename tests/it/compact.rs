//! Compacting: what goes, what never goes, and that nothing else changes.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use annals::disk::{MemDisk, SimDisk};
use annals::{
    Append, Builder, ErrorKind, Expected, GroupBy, KeyWindow, Position, Query, Raw, RecordedEvent, Store,
    Version,
};

use crate::support::{FOREVER, Random, all, at, kind_of};

const ENTITIES: [&str; 4] = ["user:1", "user:2", "order:1", "order:2"];
const KINDS: [&str; 3] = ["made", "changed", "gone"];
const SCOPES: [&str; 2] = ["default", "acme"];

fn builder(disk: &SimDisk) -> Builder {
    Store::on(disk.clone()).segment_bytes_max(1500).key_window(KeyWindow::Positions(30)).operator("anna")
}

/// Everything there is to know of an event, but for what may go.
fn public(event: &RecordedEvent) -> String {
    format!(
        "{} {} {} {} {} {} {:?} {:?}",
        event.position(),
        event.version(),
        event.id(),
        event.entity(),
        event.scope(),
        event.kind(),
        event.recorded_at(),
        event.chain(),
    )
}

fn payload(event: &RecordedEvent) -> Option<Vec<u8>> {
    event.payload().ok().map(<[u8]>::to_vec)
}

/// An append that can be made again.
#[derive(Clone)]
struct Planned {
    events: Vec<(&'static str, &'static str, &'static str, usize)>,
    number: u64,
    key: Option<u64>,
}

impl Planned {
    fn any(random: &mut Random, number: u64) -> Planned {
        let several = random.chance(30);
        let first = random.pick(&ENTITIES);
        let event = |random: &mut Random| {
            let entity = if several { random.pick(&ENTITIES) } else { first };
            (entity, random.pick(&SCOPES), random.pick(&KINDS), random.index(60))
        };
        let events = (0..1 + random.below(3)).map(|_| event(random)).collect();
        Planned { events, number, key: random.chance(20).then(|| random.next()) }
    }

    fn append(&self) -> Append {
        let mut append: Option<Append> = None;
        for (entity, scope, kind, filler) in &self.events {
            let address = (*entity, *scope);
            let next = match append {
                None => Append::to(address),
                Some(append) => append.and_to(address),
            };
            append = Some(next.event(&Raw(kind, &(self.number, "x".repeat(*filler)))));
        }
        match self.key {
            Some(key) => append.unwrap().key(key.to_le_bytes()),
            None => append.unwrap(),
        }
    }
}

/// Makes appends of one to three events; gives those with keys, and where they begin.
fn filled(store: &Store, random: &mut Random, appends: u64) -> Vec<(u64, Planned)> {
    let mut keyed = Vec::new();
    for number in 0..appends {
        let planned = Planned::any(random, number);
        let receipt = planned.append().commit(store).unwrap();
        if planned.key.is_some() {
            keyed.push((receipt.first_position().get(), planned));
        }
    }
    keyed
}

/// What must hold after anything was compacted: `goes` says which events were asked to go.
fn check(store: &Store, before: &[RecordedEvent], goes: &dyn Fn(&RecordedEvent) -> bool, place: &str) {
    let after: BTreeMap<u64, RecordedEvent> =
        all(store.read(Query::all())).into_iter().map(|event| (event.position().get(), event)).collect();
    for event in before {
        match after.get(&event.position().get()) {
            None => assert!(goes(event), "{place}: {event:?} is lost"),
            Some(now) => {
                assert_eq!(public(event), public(now), "{place}");
                let is_same = payload(event) == payload(now);
                assert!(is_same || (goes(event) && now.is_erased()), "{place}: {event:?} is another one");
            }
        }
    }
    for entity in ENTITIES {
        let own: Vec<&RecordedEvent> = before.iter().filter(|event| event.entity() == entity).collect();
        let Some(last) = own.last() else { continue };
        assert_eq!(store.version(entity).unwrap(), last.version(), "{place}: {entity}");
        assert_eq!(store.last(Query::entity(entity)).unwrap().unwrap().id(), last.id(), "{place}: {entity}");
        let left: Vec<u64> =
            after.values().filter(|event| event.entity() == entity).map(|e| e.position().get()).collect();
        let read = |read: annals::Read| -> Vec<u64> {
            all(read).iter().map(|event| event.position().get()).collect()
        };
        assert_eq!(read(store.stream(entity)), left, "{place}: {entity}");
        assert_eq!(
            read(store.stream(entity).backwards()).into_iter().rev().collect::<Vec<_>>(),
            left,
            "{place}"
        );
        assert_eq!(
            store.count(Query::entity(entity)).unwrap(),
            u64::try_from(left.len()).unwrap(),
            "{place}"
        );
    }
    for kind in KINDS {
        for scope in SCOPES {
            let query = || Query::all().kind(kind).scope(scope);
            let is = |event: &&RecordedEvent| event.kind() == kind && event.scope() == scope;
            let left: Vec<&RecordedEvent> = after.values().filter(is).collect();
            assert_eq!(store.count(query()).unwrap(), u64::try_from(left.len()).unwrap(), "{place}");
            let last = store.last(query()).unwrap().map(|event| event.id());
            assert_eq!(last, left.last().map(|event| event.id()), "{place}");
        }
        let listed = store.kinds().map(|listed| listed.unwrap()).find(|listed| listed.name == kind);
        let count = after.values().filter(|event| event.kind() == kind).count();
        assert_eq!(
            listed.map_or(0, |listed| listed.events),
            u64::try_from(count).unwrap(),
            "{place}: {kind}"
        );
    }
    for event in before.iter().step_by(7) {
        let found = store.get(event.id()).unwrap().map(|event| public(&event));
        assert_eq!(found, after.get(&event.position().get()).map(public), "{place}");
    }
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{place}: {report}");
}

/// Rules at random, each also as a plain function.
#[test]
fn what_stays_is_as_it_was_under_any_rules() {
    let mut random = Random::for_test("compact::rules");
    for round in 0..40 {
        let disk = SimDisk::new(random.next());
        let store = builder(&disk).open().unwrap();
        let mut keyed = filled(&store, &mut random, 60);
        let place = format!("round {round}");
        for step in 0..3 {
            let before = all(store.read(Query::all()));
            let head = store.head().unwrap();
            let (kind, entity) = (random.pick(&KINDS), random.pick(&ENTITIES));
            let bound = 1 + random.below(head.position().get());
            let (ask, keep, odd) = (random.below(4), 1 + random.below(5), random.chance(40));
            let by_kind = random.chance(50);
            let mut compaction = store.compaction("why");
            if random.chance(60) {
                compaction = compaction.merge();
            }
            let tombstones = random.chance(25);
            if tombstones {
                compaction = compaction.tombstones();
            }
            let query = if by_kind { Query::all().kind(kind) } else { Query::entity(entity) };
            let asked = move |event: &RecordedEvent| {
                if by_kind { event.kind() == kind } else { event.entity() == entity }
            };
            let newest: BTreeMap<String, Vec<u64>> = before.iter().fold(BTreeMap::new(), |mut map, event| {
                map.entry(event.entity().to_owned()).or_insert_with(Vec::new).push(event.version().get());
                map.entry(event.kind().to_owned()).or_insert_with(Vec::new).push(event.position().get());
                map
            });
            let is_newest = move |event: &RecordedEvent, per: GroupBy| match per {
                GroupBy::Entity => newest[event.entity()].last().unwrap() - event.version().get() < keep,
                _ => newest[event.kind()]
                    .iter()
                    .rev()
                    .take(usize::try_from(keep).unwrap())
                    .any(|p| *p == event.position().get()),
            };
            let goes: Box<dyn Fn(&RecordedEvent) -> bool> = match ask {
                0 => {
                    compaction = compaction.remove(query);
                    Box::new(asked)
                }
                1 => {
                    compaction = compaction.remove(query).before(Position::from(bound));
                    Box::new(move |event| asked(event) && event.position().get() < bound)
                }
                2 => {
                    let per = if by_kind { GroupBy::Kind } else { GroupBy::Entity };
                    compaction = compaction.keep_newest(keep, per);
                    Box::new(move |event| !is_newest(event, per))
                }
                _ => {
                    compaction = compaction.before(Position::from(bound));
                    Box::new(move |event| event.position().get() < bound)
                }
            };
            let goes: Box<dyn Fn(&RecordedEvent) -> bool> = if odd {
                compaction = compaction.remove_if(|event| event.position().get() % 2 == 1);
                Box::new(move |event| goes(event) && event.position().get() % 2 == 1)
            } else {
                goes
            };
            let done = compaction.run().unwrap();
            let place = format!("{place}, step {step}: {done:?}");
            check(&store, &before, goes.as_ref(), &place);
            let after = all(store.read(Query::all()));
            let lost = before.len() - after.len();
            assert_eq!(u64::try_from(lost).unwrap(), done.removed, "{place}");
            assert!(!tombstones || lost == 0, "{place}");
            // All that was to go is gone, or has no payload.
            for event in after.iter().filter(|event| goes(event)) {
                assert!(event.is_erased(), "{place}: {event:?} is there as a whole");
            }
            if let Some(now) = store.at(head.position()).unwrap() {
                assert_eq!(now.chain(), head.chain(), "{place}");
            }
            let known = store.head().unwrap().position().get();
            for (first, planned) in keyed.iter().filter(|(first, _)| first + 25 >= known) {
                let receipt = planned.append().commit(&store).unwrap();
                assert!(receipt.replayed() && receipt.first_position().get() == *first, "{place}");
            }
            let next = Append::to(entity).expect(Expected::Exact(store.version(entity).unwrap()));
            let receipt = next.event(&Raw("made", &(0, "next"))).commit(&store).unwrap();
            let last = before.iter().rev().find(|event| event.entity() == entity);
            let last = last.map_or(Version::EMPTY, RecordedEvent::version);
            assert_eq!(receipt.versions().next().unwrap().get(), last.get() + 1, "{place}");
            keyed.extend(filled(&store, &mut random, 5));
        }
        let before = all(store.read(Query::all()));
        let head = store.head().unwrap();
        store.close().unwrap();
        assert!(Store::on(disk.clone()).verify().unwrap().is_clean(), "{place}");
        let store = builder(&disk).open().unwrap();
        assert!(store.open_report().unknown.is_empty(), "{}", store.open_report());
        assert_eq!(store.head().unwrap(), head);
        check(&store, &before, &|_| false, &place);
    }
}

fn small(store: &Store, appends: u32) {
    for number in 0..appends {
        store
            .append(ENTITIES[usize::try_from(number % 4).unwrap()], &Raw("made", &(number, "x".repeat(40))))
            .unwrap();
    }
}

#[test]
fn small_segments_become_larger_ones() {
    let disk = SimDisk::new(1);
    let store = builder(&disk).segment_bytes_max(300).open().unwrap();
    small(&store, 100);
    let before = all(store.read(Query::all()));
    let segments = store.stats().segments;
    store.close().unwrap();
    let store = builder(&disk).segment_bytes_max(4000).open().unwrap();
    let kept = store.subscribe(Query::all());
    let done = store.compaction("fewer files").merge().run().unwrap();
    assert!(done.segments_before + 1 >= segments && done.segments_after < segments / 5, "{done:?}");
    assert_eq!((done.removed, done.erased), (0, 0));
    assert_eq!(store.stats().segments, done.segments_after + 1);
    check(&store, &before, &|_| false, "merged");
    assert_eq!(
        kept.take(100).map(|event| event.unwrap().id()).collect::<Vec<_>>(),
        before.iter().map(RecordedEvent::id).collect::<Vec<_>>()
    );
    let again = store.compaction("fewer files").merge().run().unwrap();
    assert_eq!((again.position, again.segments_after), (Position::START, done.segments_after), "{again:?}");
    store.close().unwrap();
    check(&builder(&disk).open().unwrap(), &before, &|_| false, "opened again");
}

#[test]
fn a_dry_run_says_what_would_go_and_changes_nothing() {
    let disk = SimDisk::new(2);
    let store = builder(&disk).open().unwrap();
    small(&store, 100);
    let bytes = |disk: &SimDisk| -> BTreeMap<String, Vec<u8>> {
        let segments = disk.paths().into_iter().filter(|path| path.ends_with(".seg"));
        segments.map(|path| (path.clone(), disk.contents(&path).unwrap())).collect()
    };
    let before = bytes(&disk);
    let plan = store.compaction("why").remove(Query::all()).dry_run().unwrap();
    assert_eq!(bytes(&disk), before);
    assert!(plan.removed > 50 && plan.erased <= 4, "{plan}");
    assert_eq!((plan.kinds["made"].removed, plan.kinds["made"].erased), (plan.removed, plan.erased));
    assert_eq!(plan.scopes["default"].bytes, plan.kinds["made"].bytes);
    assert!(plan.scopes["default"].bytes > plan.bytes, "attestations come: {plan}");
    assert!(plan.bytes < plan.bytes_total && plan.to_string().contains("kind made: "), "{plan}");
    let done = store.compaction("why").remove(Query::all()).run().unwrap();
    assert_eq!(done.removed + done.erased, 100, "the segment that was written to is sealed first");
    assert_eq!(done.erased, 4, "the last event of each stream stays");
    assert!(done.bytes_after < done.bytes_before);
}

#[test]
fn no_consumer_misses_an_event_that_it_has_to_handle() {
    let disk = SimDisk::new(3);
    let store = builder(&disk).open().unwrap();
    let mut consumer = store.consumer("mailer", Query::entity("user:1")).unwrap();
    small(&store, 100);
    let compaction = || store.compaction("why").remove(Query::all());
    let plan = compaction().dry_run().unwrap();
    assert_eq!((plan.unhandled.len(), plan.unhandled[0].consumer.as_str()), (1, "mailer"), "{plan}");
    let before = all(store.read(Query::all()));
    let refused = compaction().run().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(refused.to_string().contains("consumer mailer"), "{refused}");
    check(&store, &before, &|_| false, "refused");
    // What it does not ask for goes.
    assert!(store.compaction("why").remove(Query::entity("user:2")).run().unwrap().removed > 20);
    while let Some(event) = consumer.next_timeout(FOREVER).unwrap() {
        consumer.ack(event.position()).unwrap();
        if event.version().get() == 25 {
            break;
        }
    }
    consumer.flush().unwrap();
    assert!(compaction().run().unwrap().removed > 60);
    assert_eq!(store.consumers().unwrap()[0].behind, 0);
    small(&store, 8);
    drop(consumer);
    assert_eq!(kind_of(compaction().run()), ErrorKind::Invalid);
    assert!(compaction().even_unhandled().run().is_ok());
    let acked = || store.count(Query::entity("$consumer/mailer").kind("$consumer.acked")).unwrap();
    let left = acked();
    assert!(store.compaction("tidy").replaced_checkpoints().run().is_ok());
    assert!(acked() <= left && acked() >= 1);
    assert_eq!(store.consumers().unwrap()[0].name, "mailer");
}

#[test]
fn age_is_counted_by_the_clock_of_the_store() {
    let (disk, now) = (MemDisk::new(), std::sync::Arc::new(std::sync::atomic::AtomicI64::new(0)));
    let clock = now.clone();
    let read = move || at(clock.load(std::sync::atomic::Ordering::SeqCst));
    let store = Store::on(disk).clock(read).open().unwrap();
    for second in 0..10_i64 {
        now.store(second * 1_000_000, std::sync::atomic::Ordering::SeqCst);
        store.append("user:1", &Raw("made", &second)).unwrap();
    }
    let done = store.compaction("why").older_than(Duration::from_secs(4)).run().unwrap();
    assert_eq!(done.removed, 5);
    let left: Vec<i64> = all(store.read(Query::all())).iter().map(|event| event.decode().unwrap()).collect();
    assert_eq!(left, [5, 6, 7, 8, 9]);
}

#[test]
fn it_is_told_how_far_it_is_and_can_be_broken_off_and_held_back() {
    let store = Store::on(MemDisk::new()).segment_bytes_max(1 << 20).open().unwrap();
    for number in 0..12 {
        store.append("user:1", &Raw("made", &(number, "x".repeat(512 << 10)))).unwrap();
    }
    let mut calls = 0;
    let broken = store.compaction("why").remove(Query::all()).on_progress(|progress| {
        calls += 1;
        assert!(progress.bytes <= progress.bytes_total);
        if progress.bytes > 9 << 20 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(kind_of(broken.run()), ErrorKind::Cancelled);
    assert!(calls > 3, "{calls}");
    assert!(store.verify().unwrap().is_clean());
    assert_eq!(store.version("user:1").unwrap().get(), 12);
    let began = Instant::now();
    store.compaction("why").remove(Query::all()).bytes_per_second(20 << 20).run().unwrap();
    assert!(began.elapsed() > Duration::from_millis(100), "{:?}", began.elapsed());
    assert_eq!(all(store.stream("user:1")).len(), 1);
}

#[test]
fn appends_and_reads_go_on_during_a_compaction() {
    let disk = SimDisk::new(4);
    let store = builder(&disk).open().unwrap();
    small(&store, 200);
    let rounds = 20;
    std::thread::scope(|scope| {
        let appenders: Vec<_> = (0..3)
            .map(|number| {
                let store = &store;
                scope.spawn(move || {
                    let entity = format!("writer:{number}");
                    for version in 0..200_u64 {
                        let append = Append::to(entity.as_str()).expect(Expected::exact(version));
                        append.event(&Raw("made", &version)).commit(store).unwrap();
                        if version % 20 == 0 {
                            let versions = all(store.stream(entity.as_str()));
                            let versions: Vec<u64> =
                                versions.iter().map(|event| event.version().get()).collect();
                            assert!(versions.is_sorted() && versions.last() == Some(&(version + 1)));
                        }
                    }
                })
            })
            .collect();
        for round in 0..rounds {
            let compaction = store.compaction("why").keep_newest(10, GroupBy::Entity);
            let compaction = if round % 2 == 0 { compaction.merge() } else { compaction };
            compaction.run().unwrap();
        }
        appenders.into_iter().for_each(|appender| appender.join().unwrap());
    });
    store.compaction("why").keep_newest(10, GroupBy::Entity).merge().run().unwrap();
    for number in 0..3 {
        let left = all(store.stream(format!("writer:{number}")));
        assert_eq!(
            left.iter().map(|event| event.decode::<u64>().unwrap()).collect::<Vec<_>>(),
            (190..200).collect::<Vec<_>>()
        );
    }
    assert!(store.verify().unwrap().is_clean());
    store.close().unwrap();
    assert!(Store::on(disk.clone()).verify().unwrap().is_clean());
    let store = builder(&disk).open().unwrap();
    assert_eq!(store.version("writer:0").unwrap().get(), 200);
}

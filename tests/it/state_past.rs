//! States as they were, what is different between two, and whether folding again gives the same.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use annals::disk::MemDisk;
use annals::{
    Append, At, DivergenceKind, ErrorKind, EventId, Meta, Position, Projection, Raw, Store, Version, diff,
};
use serde::{Deserialize, Serialize};

use crate::state::{Filled, Sum, fill_at_once, naive};
use crate::support::{at, fill, kind_of};

/// A store whose events are a second apart, from second 1 on: those of `a` at odd positions, of `b` at even
/// ones.
fn alternating(events: u64) -> Store {
    let clock = AtomicU64::new(0);
    let clock = move || at(i64::try_from(clock.fetch_add(1, Ordering::SeqCst) + 1).unwrap() * 1_000_000);
    let store = Store::on(MemDisk::new()).clock(clock).segment_bytes_max(2048).open().unwrap();
    for number in 0..events {
        let entity = if number % 2 == 0 { "a" } else { "b" };
        store.append(entity, &Filled(number)).unwrap();
    }
    store
}

#[test]
fn the_past_is_found_in_four_ways() {
    let store = alternating(40);
    for warm in [false, true] {
        if warm {
            store.load::<Sum>("a").unwrap();
        }
        for position in 0..=40_u64 {
            let version = position.div_ceil(2);
            let expected = store.stream("a").versions(..=version).map(|event| event.unwrap());
            let expected = expected.fold(Sum::default(), |mut sum, event| {
                sum.apply(event.to().unwrap(), &Meta::of(&event));
                sum
            });
            let recorded = store.at(Position::from(position)).unwrap().map(|event| event.recorded_at());
            let id = store.at(Position::from(position)).unwrap().map(|event| event.id());
            let mut ways = vec![At::Version(Version::from(version)), At::Position(Position::from(position))];
            ways.extend(recorded.map(At::Time));
            ways.extend(id.map(At::Event));
            for way in ways {
                let state = store.load_at::<Sum>("a", way).unwrap();
                assert_eq!((&*state, state.version().get()), (&expected, version), "{way:?}");
                assert_eq!(state.position().get(), (2 * version).saturating_sub(1), "{way:?}");
            }
        }
    }
    let now = store.load::<Sum>("a").unwrap();
    assert_eq!(*store.load_at::<Sum>("a", At::Time(at(i64::MAX))).unwrap(), *now);
    assert_eq!(store.load_at::<Sum>("a", At::Time(at(-1))).unwrap().events, 0);
    assert_eq!(kind_of(store.load_at::<Sum>("a", At::Version(Version::from(21)))), ErrorKind::Invalid);
    assert_eq!(kind_of(store.load_at::<Sum>("a", At::Position(Position::from(41)))), ErrorKind::Invalid);
    let unknown = EventId::from(uuid::Uuid::from_u128(7));
    assert_eq!(kind_of(store.load_at::<Sum>("a", At::Event(unknown))), ErrorKind::Invalid);
}

#[test]
fn the_past_does_not_disturb_the_present() {
    let store = Store::in_memory().unwrap();
    fill(&store, "a", 10);
    store.load::<Sum>("a").unwrap();
    store.load_at::<Sum>("a", At::Version(Version::from(3))).unwrap();
    assert_eq!(store.load::<Sum>("a").unwrap().events, 10);
}

#[test]
fn a_history_is_every_state() {
    let store = alternating(20);
    let moments: Vec<_> = store.history::<Sum>("a").map(|moment| moment.unwrap()).collect();
    assert_eq!(moments.len(), 10);
    for (before, moment) in moments.iter().enumerate() {
        let version = u64::try_from(before + 1).unwrap();
        assert_eq!((moment.version().get(), moment.events, moment.event().entity()), (version, version, "a"));
        assert_eq!(moment.meta().position().get(), 2 * version - 1);
        let loaded = store.load_at::<Sum>("a", At::Version(Version::from(version))).unwrap();
        assert_eq!(**moment, *loaded, "kept while the history went on");
    }
    assert_eq!(store.history::<Sum>("unknown").count(), 0);
    store.append("a", &Raw("unheard.of", &1)).unwrap();
    let mut history = store.history::<Sum>("a").skip(10);
    assert_eq!(kind_of(history.next().unwrap()), ErrorKind::Undecodable);
    assert!(history.next().is_none());
}

#[test]
fn bisect_finds_the_first_event() {
    let store = alternating(40);
    for version in 1..=20 {
        let found = store.bisect::<Sum>("a", |sum| sum.events >= version).unwrap().unwrap();
        assert_eq!(found.version().get(), version);
    }
    // It need not stay so.
    let found = store.bisect::<Sum>("a", |sum| sum.events == 7).unwrap().unwrap();
    assert_eq!(found.event().position().get(), 13);
    assert!(store.bisect::<Sum>("a", |_| false).unwrap().is_none());
    assert!(store.bisect::<Sum>("unknown", |_| true).unwrap().is_none());
}

#[test]
fn differences_have_paths() {
    #[derive(Clone, Serialize)]
    enum Status {
        Open,
        Shipped { by: String },
    }
    #[derive(Clone, Serialize)]
    struct Order {
        status: Status,
        lines: Vec<u32>,
        by_name: BTreeMap<String, i64>,
        by_number: HashMap<u8, f64>,
        note: Option<String>,
        #[serde(with = "serde_bytes")]
        raw: Vec<u8>,
        pair: (bool, ()),
    }
    let old = Order {
        status: Status::Open,
        lines: vec![1, 2, 3],
        by_name: BTreeMap::from([("plain".into(), 1), ("with space".into(), -2)]),
        by_number: (0..20).map(|number| (number, f64::from(number) / 2.0)).collect(),
        note: None,
        raw: vec![1, 0xAB],
        pair: (true, ()),
    };
    assert!(diff(&old, &old.clone()).unwrap().is_empty(), "the order of a HashMap does not matter");
    let mut new = old.clone();
    new.status = Status::Shipped { by: "sea".into() };
    new.lines = vec![1, 7];
    new.by_name.insert("with space".into(), 5);
    new.by_name.remove("plain");
    new.by_number.insert(7, f64::NAN);
    new.note = Some("a \"note\"".into());
    new.raw[0] = 2;
    new.pair.0 = false;
    let found = diff(&old, &new).unwrap();
    let expected = r#".by_name.plain: 1 is gone
.by_name["with space"]: -2 -> 5
.by_number[7]: 3.5 -> NaN
.lines[1]: 2 -> 7
.lines[2]: 3 is gone
.note: nothing -> "a \"note\""
.pair[0]: true -> false
.raw: 0x01ab -> 0x02ab
.status: "Open" -> {Shipped: {by: "sea"}}"#;
    assert_eq!(found.to_string(), expected);
    assert_eq!(found.changes()[1].new.as_deref(), Some("5"));
    assert!(diff(&new, &new).unwrap().is_empty(), "not a number is equal to itself here");
    assert_eq!(diff(&1, &2).unwrap().to_string(), "the value: 1 -> 2");
}

static ROLLS: AtomicU64 = AtomicU64::new(0);

/// Depends on something else than its events, from the third on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Dice {
    events: u64,
    luck: u64,
}

impl Projection for Dice {
    type Event = Filled;
    const NAME: &'static str = "dice";
    fn apply(&mut self, _: Filled, _: &Meta<'_>) {
        self.events += 1;
        if self.events >= 3 {
            self.luck = ROLLS.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[test]
fn a_check_finds_what_depends_on_something_else() {
    let store = Store::in_memory().unwrap();
    fill(&store, "a", 2);
    fill(&store, "b", 5);
    let clean = store.replay_check::<Sum>().run().unwrap();
    assert!(clean.is_clean(), "{clean}");
    assert_eq!((clean.entities, clean.events, clean.skipped, clean.kept), (2, 7, 0, 0));
    let report = store.replay_check::<Dice>().run().unwrap();
    let [divergence] = report.divergences.as_slice() else { panic!("{report}") };
    assert!(matches!(divergence.kind, DivergenceKind::Folds), "{report}");
    assert_eq!(
        (divergence.entity.as_str(), divergence.version.get(), divergence.position.get()),
        ("b", 3, 5)
    );
    assert_eq!(divergence.diff.changes()[0].path, ".luck");
    assert!(store.replay_check::<Dice>().entity("a").run().unwrap().is_clean());
}

static ADDS: AtomicU64 = AtomicU64::new(1);

/// Its code changes, as far as a test can do that.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Changed(u64);

impl Projection for Changed {
    type Event = Filled;
    const NAME: &'static str = "changed";
    fn apply(&mut self, _: Filled, _: &Meta<'_>) {
        self.0 += ADDS.load(Ordering::SeqCst);
    }
}

#[test]
fn a_check_finds_code_that_changed_without_its_revision() {
    let disk = MemDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    fill_at_once(&store, "a", 40);
    fill_at_once(&store, "b", 40);
    for entity in ["a", "b"] {
        store.load::<Changed>(entity).unwrap();
    }
    let report = store.replay_check::<Changed>().run().unwrap();
    assert!(report.is_clean() && report.kept == 2, "{report}");
    store.close().unwrap();
    ADDS.store(2, Ordering::SeqCst);
    let store = Store::on(disk).open().unwrap();
    fill_at_once(&store, "a", 5);
    let report = store.replay_check::<Changed>().run().unwrap();
    assert_eq!(report.divergences.len(), 2, "{report}");
    let first = &report.divergences[0];
    assert!(matches!(first.kind, DivergenceKind::File), "{report}");
    assert_eq!((first.entity.as_str(), first.version.get()), ("a", 40));
    assert_eq!(first.diff.to_string(), "the value: 40 -> 80");
    assert_eq!(
        store.load::<Changed>("a").unwrap().0,
        50,
        "the cache is believed until the revision is raised"
    );
    let report = store.replay_check::<Changed>().entity("a").run().unwrap();
    assert_eq!(report.divergences.len(), 1);
}

#[test]
fn a_check_can_be_watched_and_broken_off() {
    let store = Store::in_memory().unwrap();
    for entity in ["n:1", "n:2", "o:1"] {
        fill_at_once(&store, entity, 5_000);
    }
    let (told, last) = (AtomicU64::new(0), AtomicU64::new(0));
    let (told, last) = (&*Box::leak(Box::new(told)), &*Box::leak(Box::new(last)));
    let check = store.replay_check::<Sum>().entity_prefix("n:").on_progress(move |progress| {
        assert_eq!(progress.events_total, 10_000);
        assert!(progress.events >= last.swap(progress.events, Ordering::SeqCst));
        assert!(progress.remaining().is_some());
        told.fetch_add(1, Ordering::SeqCst);
        ControlFlow::Continue(())
    });
    assert_eq!(check.run().unwrap().events, 10_000);
    assert!(told.load(Ordering::SeqCst) >= 4);
    let check = store.replay_check::<Sum>().on_progress(|_| ControlFlow::Break(()));
    assert_eq!(kind_of(check.run()), ErrorKind::Cancelled);
}

static REFUSES: AtomicBool = AtomicBool::new(true);

#[test]
fn a_check_passes_over_others_and_names_what_fails() {
    #[derive(Clone, Debug, Default, Serialize, Deserialize)]
    struct Picky(u64);
    impl Projection for Picky {
        type Event = Filled;
        const NAME: &'static str = "picky";
        fn apply(&mut self, Filled(number): Filled, _: &Meta<'_>) {
            assert!(!(number == 3 && REFUSES.load(Ordering::SeqCst)), "not three");
            self.0 += number;
        }
    }
    let store = Store::in_memory().unwrap();
    store.append("other", &Raw("something.else", &1)).unwrap();
    Append::to("mixed").event(&Filled(1)).event(&Raw("something.else", &1)).commit(&store).unwrap();
    fill(&store, "panics", 5);
    let report = store.replay_check::<Picky>().run().unwrap();
    assert_eq!((report.entities, report.skipped), (2, 1), "{report}");
    let [mixed, panics] = report.divergences.as_slice() else { panic!("{report}") };
    assert_eq!((mixed.entity.as_str(), mixed.version.get()), ("mixed", 2));
    assert_eq!((panics.entity.as_str(), panics.version.get()), ("panics", 4));
    assert!(report.to_string().contains("panicked") && report.to_string().contains("not three"), "{report}");
    REFUSES.store(false, Ordering::SeqCst);
    assert_eq!(store.load::<Picky>("panics").unwrap().0, naive::<Sum>(&store, "panics").1.get() * 2);
}

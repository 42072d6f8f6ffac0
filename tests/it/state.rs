//! Loading states: what is remembered is what a fold from the first event gives.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annals::disk::{Disk, MemDisk};
use annals::{
    Append, DomainEvent, Durability, ErrorKind, Freshness, Loaded, Meta, Projection, Raw, Store, Version,
};
use serde::{Deserialize, Serialize};

use crate::support::{FOREVER, Random, eventually, fill, kind_of, within};

/// An event that carries a number.
#[derive(Clone, Debug, Serialize, Deserialize, DomainEvent)]
#[event(kind = "filled")]
pub struct Filled(pub u64);

/// What was filled in, in an order that shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sum {
    pub sum: u64,
    pub events: u64,
}

impl Projection for Sum {
    type Event = Filled;
    const NAME: &'static str = "sum";

    fn apply(&mut self, Filled(number): Filled, _: &Meta<'_>) {
        self.sum = self.sum.wrapping_mul(31).wrapping_add(number);
        self.events += 1;
    }
}

/// Another projection of the same events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Last(pub Option<u64>, pub u64);

impl Projection for Last {
    type Event = Filled;
    const NAME: &'static str = "last";

    fn apply(&mut self, Filled(number): Filled, meta: &Meta<'_>) {
        *self = Last(Some(number), meta.position().get());
    }
}

/// The state and the version as no cache could have them.
pub fn naive<P: Projection<Event = Filled>>(store: &Store, entity: &str) -> (P, Version) {
    let (mut state, mut version) = (P::default(), Version::EMPTY);
    for event in store.stream(entity) {
        let event = event.unwrap();
        state.apply(event.to().unwrap(), &Meta::of(&event));
        version = event.version();
    }
    (state, version)
}

/// Loads an entity, and compares.
pub fn check<P>(store: &Store, entity: &str) -> Loaded<P>
where
    P: Projection<Event = Filled> + PartialEq + std::fmt::Debug,
{
    let loaded = store.load::<P>(entity).unwrap();
    let (state, version) = naive::<P>(store, entity);
    assert_eq!((&*loaded, loaded.version()), (&state, version), "{entity} as {}", P::NAME);
    loaded
}

/// Appends `events` events to one entity in one append.
pub fn fill_at_once(store: &Store, entity: &str, events: u64) {
    let append = (0..events).fold(Append::to(entity), |append, number| append.event(&Filled(number)));
    append.commit(store).unwrap();
}

#[test]
fn a_state_goes_along_with_its_stream() {
    let store = Store::in_memory().unwrap();
    let empty = store.load::<Sum>("a").unwrap();
    assert_eq!((empty.version(), empty.position().get(), empty.events), (Version::EMPTY, 0, 0));
    fill(&store, "a", 5);
    fill(&store, "b", 3);
    for _ in 0..2 {
        let loaded = check::<Sum>(&store, "a");
        assert_eq!((loaded.version().get(), loaded.position().get(), loaded.events), (5, 5, 5));
    }
    let kept = store.load::<Sum>("a").unwrap();
    fill(&store, "a", 1);
    fill(&store, "a", 2);
    let loaded = check::<Sum>(&store, "a");
    assert_eq!((loaded.version().get(), loaded.position().get(), loaded.events), (8, 11, 8));
    assert_eq!(kept.events, 5, "a state that a caller holds does not change");
    assert_eq!(store.load::<Last>("a").unwrap().0, Some(1));
    assert_eq!(store.load::<Last>(String::from("b")).unwrap().0, Some(2));
}

#[test]
fn two_projections_may_not_share_a_name() {
    #[derive(Clone, Debug, Default, Serialize, Deserialize)]
    struct Impostor;
    impl Projection for Impostor {
        type Event = Filled;
        const NAME: &'static str = "sum";
        fn apply(&mut self, _: Filled, _: &Meta<'_>) {}
    }
    let store = Store::in_memory().unwrap();
    store.load::<Sum>("a").unwrap();
    let refused = store.load::<Impostor>("a").unwrap_err();
    assert!(refused.to_string().contains("both projections named \"sum\""), "{refused}");
    assert_eq!(kind_of(store.load::<Impostor>("b")), ErrorKind::Invalid);
}

#[test]
fn random_operations_give_what_folding_gives() {
    let mut random = Random::for_test("random_operations_give_what_folding_gives");
    for _ in 0..6 {
        let disk = MemDisk::new();
        let memory = random.pick(&[0, 2_000, 1 << 20]);
        let file = random.pick(&[0, 2_000, 1 << 20]);
        let open = || {
            let durability = Durability::Buffered { flush_every: Duration::from_millis(5) };
            let builder = Store::on(disk.clone()).durability(durability).segment_bytes_max(4096);
            builder.cache_memory_bytes(memory).cache_disk_bytes(file).open().unwrap()
        };
        let mut store = open();
        for _ in 0..400 {
            let entity = format!("e:{}", random.below(6));
            match random.below(100) {
                0..35 => fill_at_once(&store, &entity, 1 + random.below(30)),
                35..85 => drop((check::<Sum>(&store, &entity), check::<Last>(&store, &entity))),
                85..90 => {
                    let version = store.version(&entity).unwrap();
                    let at = annals::At::Version(Version::from(random.below(version.get() + 1)));
                    let then = store.load_at::<Sum>(&entity, at).unwrap();
                    assert_eq!(then.events, then.version().get());
                }
                90..96 => {
                    store.close().unwrap();
                    if random.chance(30) {
                        let _ = disk.remove("cache/projections.redb");
                    }
                    store = open();
                }
                _ => drop(disk.remove("cache/projections.redb")),
            }
        }
    }
}

#[test]
fn many_threads_load_one_entity() {
    const EVENTS: u64 = 3_000;
    let store = Store::in_memory().unwrap();
    let states: Vec<Sum> = (0..EVENTS)
        .scan(Sum::default(), |sum, number| {
            *sum = Sum { sum: sum.sum.wrapping_mul(31).wrapping_add(number), events: sum.events + 1 };
            Some(sum.clone())
        })
        .collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut seen = 0;
                while seen < EVENTS {
                    let loaded = store.load::<Sum>("a").unwrap();
                    let version = loaded.version().get();
                    assert!(version >= seen, "a later load shows no less");
                    assert_eq!(loaded.events, version);
                    if let Some(before) = version.checked_sub(1) {
                        assert_eq!(*loaded, states[usize::try_from(before).unwrap()]);
                    }
                    seen = version;
                }
            });
        }
        for number in 0..EVENTS {
            store.append("a", &Filled(number)).unwrap();
        }
    });
}

#[test]
fn a_stale_state_may_do() {
    let store = Store::in_memory().unwrap();
    fill(&store, "a", 3);
    let lenient = Freshness::MaxStale(FOREVER);
    assert_eq!(store.load_with::<Sum>("a", lenient).unwrap().events, 3, "it is not in memory yet");
    fill(&store, "a", 1);
    assert_eq!(store.load_with::<Sum>("a", lenient).unwrap().events, 3);
    assert_eq!(store.load_with::<Sum>("a", Freshness::MaxStale(Duration::ZERO)).unwrap().events, 4);
    assert_eq!(store.load_with::<Sum>("a", lenient).unwrap().events, 4);
    store.clone().close().unwrap();
    assert_eq!(kind_of(store.load_with::<Sum>("a", lenient)), ErrorKind::Closed);
    assert_eq!(kind_of(store.load::<Sum>("a")), ErrorKind::Closed);
}

static IS_ARMED: AtomicBool = AtomicBool::new(false);

/// Panics in the middle of its work, while it is armed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Fragile(u64);

impl Projection for Fragile {
    type Event = Filled;
    const NAME: &'static str = "fragile";

    fn apply(&mut self, Filled(number): Filled, _: &Meta<'_>) {
        self.0 += number;
        assert!(!(number == 7 && IS_ARMED.load(Ordering::SeqCst)), "seven");
    }
}

#[test]
fn a_panic_leaves_nothing_half_folded() {
    let store = Store::in_memory().unwrap();
    for number in [1, 2, 3] {
        store.append("a", &Filled(number)).unwrap();
    }
    assert_eq!(store.load::<Fragile>("a").unwrap().0, 6);
    store.append("a", &Filled(7)).unwrap();
    IS_ARMED.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let panic = catch_unwind(AssertUnwindSafe(|| drop(store.load::<Fragile>("a"))));
        assert!(panic.is_err(), "it reaches the caller that loads");
    }
    IS_ARMED.store(false, Ordering::SeqCst);
    assert_eq!(store.load::<Fragile>("a").unwrap().0, 13);
    assert_eq!(check::<Sum>(&store, "a").events, 4);
}

#[test]
fn what_cannot_be_folded_is_an_error_every_time() {
    let store = Store::in_memory().unwrap();
    fill(&store, "a", 3);
    assert_eq!(store.load::<Sum>("a").unwrap().events, 3);
    store.append("a", &Raw("unheard.of", &1)).unwrap();
    for _ in 0..2 {
        let error = store.load::<Sum>("a").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Undecodable, "{error}");
    }
    store.append("b", &Raw("filled", &"not a number")).unwrap();
    assert_eq!(kind_of(store.load::<Sum>("b")), ErrorKind::Undecodable);
}

thread_local! {
    static STORE: RefCell<Option<Store>> = const { RefCell::new(None) };
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Loads its own entity while it is folded. A mistake, but it must not hang.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Nested(u64);

impl Projection for Nested {
    type Event = Filled;
    const NAME: &'static str = "nested";

    fn apply(&mut self, Filled(number): Filled, meta: &Meta<'_>) {
        self.0 += number;
        let depth = DEPTH.get();
        if depth < 2 {
            DEPTH.set(depth + 1);
            let store = STORE.with_borrow(|store| store.clone().unwrap());
            assert!(store.load::<Nested>(meta.entity()).unwrap().0 >= number);
            assert!(store.load::<Sum>(meta.entity()).unwrap().events > 0);
            DEPTH.set(depth);
        }
    }
}

#[test]
fn a_projection_may_load_itself() {
    within(FOREVER, "loading within loading", || {
        let store = Store::in_memory().unwrap();
        for number in 0..5 {
            store.append("a", &Filled(number)).unwrap();
        }
        STORE.set(Some(store.clone()));
        assert_eq!(store.load::<Nested>("a").unwrap().0, 10);
        assert_eq!(store.load::<Nested>("a").unwrap().0, 10);
        STORE.set(None);
    });
}

#[test]
fn a_projection_that_sleeps_holds_up_no_other() {
    static IS_ASLEEP: AtomicBool = AtomicBool::new(false);
    static MAY_WAKE: AtomicBool = AtomicBool::new(false);
    #[derive(Clone, Debug, Default, Serialize, Deserialize)]
    struct Sleeper(u64);
    impl Projection for Sleeper {
        type Event = Filled;
        const NAME: &'static str = "sleeper";
        fn apply(&mut self, _: Filled, meta: &Meta<'_>) {
            self.0 += 1;
            if meta.entity() == "a" && !IS_ASLEEP.swap(true, Ordering::SeqCst) {
                eventually("it is woken", || MAY_WAKE.load(Ordering::SeqCst));
            }
        }
    }
    let store = Store::in_memory().unwrap();
    fill(&store, "a", 2);
    fill(&store, "b", 2);
    std::thread::scope(|scope| {
        let asleep = scope.spawn(|| store.load::<Sleeper>("a").unwrap().0);
        eventually("it sleeps", || IS_ASLEEP.load(Ordering::SeqCst));
        assert_eq!(store.load::<Sleeper>("b").unwrap().0, 2);
        assert_eq!(store.load::<Sleeper>("a").unwrap().0, 2, "it is folded once more");
        store.append("a", &Filled(1)).unwrap();
        MAY_WAKE.store(true, Ordering::SeqCst);
        assert!(asleep.join().unwrap() >= 2);
    });
    assert_eq!(store.load::<Sleeper>("a").unwrap().0, 3);
}

#[test]
fn memory_stays_within_its_budget() {
    const BUDGET: usize = 20_000;
    let store = Store::on(MemDisk::new()).cache_memory_bytes(BUDGET).cache_disk_bytes(0).open().unwrap();
    let entities: Vec<String> = (0..200).map(|number| format!("e:{number}")).collect();
    for entity in &entities {
        fill_at_once(&store, entity, 3);
        check::<Sum>(&store, entity);
        check::<Sum>(&store, "e:0");
        assert!(store.stats().cache.bytes <= BUDGET);
    }
    let cache = store.stats().cache;
    assert!(cache.states > 20 && cache.dropped > 100, "{cache:?}");
    let misses = cache.misses;
    store.load::<Sum>("e:0").unwrap();
    store.load::<Sum>("e:199").unwrap();
    assert_eq!(store.stats().cache.misses, misses, "those used last are kept");
    store.load::<Sum>("e:1").unwrap();
    assert_eq!(store.stats().cache.misses, misses + 1, "those used least recently are not");
}

#[test]
fn a_large_state_is_weighed_as_it_grows() {
    #[derive(Clone, Debug, Default, Serialize, Deserialize)]
    struct All(Vec<u64>);
    impl Projection for All {
        type Event = Filled;
        const NAME: &'static str = "all";
        fn apply(&mut self, Filled(number): Filled, _: &Meta<'_>) {
            self.0.push(number);
        }
    }
    let store = Store::in_memory().unwrap();
    for _ in 0..50 {
        fill_at_once(&store, "a", 100);
        store.load::<All>("a").unwrap();
    }
    let bytes = store.stats().cache.bytes;
    assert!((4_000..12_000).contains(&bytes), "{bytes} for 5,000 numbers of 1 byte");
}

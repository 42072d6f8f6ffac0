//! Read models: they always show the state that folding the query gives.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annals::disk::{CrashMode, MemDisk, SimDisk};
use annals::{
    Durability, ErrorKind, Meta, Position, Projection, Query, Raw, ReadModel, ReadModelStatus, Store,
};
use serde::{Deserialize, Serialize};

use crate::sim_support::{Rng, seed};
use crate::state::{Filled, fill_at_once};
use crate::support::{FOREVER, Random, eventually, fill, kind_of, within};

/// How often each entity was filled, and with how much.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Totals {
    entities: BTreeMap<String, (u64, u64)>,
    events: u64,
}

impl Projection for Totals {
    type Event = Filled;
    const NAME: &'static str = "totals";

    fn apply(&mut self, Filled(number): Filled, meta: &Meta<'_>) {
        let (count, sum) = self.entities.entry(meta.entity().to_owned()).or_default();
        *count += 1;
        *sum += number;
        self.events += 1;
    }
}

/// What folding the query gives.
fn naive(store: &Store, query: Query) -> Totals {
    store.read(query).fold(Totals::default(), |mut totals, event| {
        let event = event.unwrap();
        totals.apply(event.to().unwrap(), &Meta::of(&event));
        totals
    })
}

/// Waits until everything is shown, and compares.
fn check(store: &Store, model: &ReadModel<Totals>, query: Query) {
    let head = store.head().unwrap().position();
    assert!(model.wait_for(head, FOREVER).unwrap(), "{:?}", model.status());
    let state = model.state();
    assert_eq!(*state, naive(store, query));
    assert_eq!(state.version().get(), state.events, "the version counts events");
}

#[test]
fn a_read_model_keeps_up() {
    let store = Store::in_memory().unwrap();
    fill(&store, "a", 3);
    let model = store.project::<Totals>(Query::all()).unwrap();
    check(&store, &model, Query::all());
    for round in 0..50 {
        fill(&store, &format!("e:{}", round % 7), 1 + round % 3);
        check(&store, &model, Query::all());
    }
    eventually("it rests", || matches!(model.status(), ReadModelStatus::Idle));
    let last = model.stop();
    assert_eq!(*last, naive(&store, Query::all()));
}

#[test]
fn it_sees_what_its_query_matches() {
    let store = Store::in_memory().unwrap();
    let query = || Query::entity_prefix("a:");
    let model = store.project::<Totals>(query()).unwrap();
    fill(&store, "a:1", 2);
    fill(&store, "b:1", 5);
    check(&store, &model, query());
    assert_eq!(model.state().events, 2);
    store.append("b:1", &Raw("unheard.of", &())).unwrap();
    check(&store, &model, query());
    assert!(!model.wait_for(Position::from(1000), Duration::from_millis(1)).unwrap());
}

#[test]
fn nothing_at_all_is_soon_folded() {
    let store = Store::in_memory().unwrap();
    let model = store.project::<Totals>(Query::all()).unwrap();
    assert!(model.wait_for(Position::START, Duration::ZERO).unwrap());
    eventually("it rests", || matches!(model.status(), ReadModelStatus::Idle));
    model.rebuild();
    eventually("it rests again", || matches!(model.status(), ReadModelStatus::Idle));
    assert_eq!(model.state().position(), Position::START);
    fill(&store, "a", 1);
    check(&store, &model, Query::all());
    model.stop();
}

#[test]
fn one_of_a_name_runs_at_a_time() {
    let store = Store::in_memory().unwrap();
    let model = store.project::<Totals>(Query::all()).unwrap();
    assert_eq!(kind_of(store.project::<Totals>(Query::entity("a"))), ErrorKind::Invalid);
    drop(model);
    store.project::<Totals>(Query::entity("a")).unwrap().stop();
}

#[test]
fn it_goes_on_where_it_was() {
    let disk = MemDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    fill_at_once(&store, "a", 100);
    let model = store.project::<Totals>(Query::all()).unwrap();
    check(&store, &model, Query::all());
    model.stop();
    store.close().unwrap();

    let store = Store::on(disk.clone()).open().unwrap();
    fill(&store, "b", 5);
    let model = store.project::<Totals>(Query::all()).unwrap();
    assert!(model.state().events >= 100, "what was saved is shown at once");
    check(&store, &model, Query::all());
    // Closing the store saves it as well.
    store.close().unwrap();
    eventually("it has ended", || matches!(model.status(), ReadModelStatus::Closed));
    assert_eq!(kind_of(model.wait_for(Position::from(1000), FOREVER)), ErrorKind::Closed);
    assert_eq!(model.state().events, 105);
    let store = Store::on(disk).open().unwrap();
    assert_eq!(store.project::<Totals>(Query::all()).unwrap().state().events, 105);
}

#[test]
fn another_query_is_built_beside() {
    let disk = MemDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    fill_at_once(&store, "a", 50);
    fill_at_once(&store, "b", 50);
    let model = store.project::<Totals>(Query::all()).unwrap();
    check(&store, &model, Query::all());
    model.stop();
    let model = store.project::<Totals>(Query::entity("b")).unwrap();
    let shown = model.state().events;
    assert!(shown == 100 || shown == 50, "the old state, or the new one, never a part: {shown}");
    check(&store, &model, Query::entity("b"));
    model.stop();
    store.close().unwrap();
    let store = Store::on(disk).open().unwrap();
    let model = store.project::<Totals>(Query::entity("b")).unwrap();
    assert_eq!(model.state().events, 50);
}

static HOLDS: AtomicBool = AtomicBool::new(false);

/// Can be held up at its first event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Held(u64);

impl Projection for Held {
    type Event = Filled;
    const NAME: &'static str = "held";
    fn apply(&mut self, _: Filled, _: &Meta<'_>) {
        eventually("it may go on", || !HOLDS.load(Ordering::SeqCst));
        self.0 += 1;
    }
}

#[test]
fn the_old_state_is_shown_until_the_new_one_is_there() {
    let store = Store::in_memory().unwrap();
    fill(&store, "a", 10);
    let model = store.project::<Held>(Query::all()).unwrap();
    assert!(model.wait_for(Position::from(10), FOREVER).unwrap());
    HOLDS.store(true, Ordering::SeqCst);
    model.rebuild();
    eventually("it rebuilds", || matches!(model.status(), ReadModelStatus::Rebuilding(_)));
    assert_eq!(model.state().0, 10);
    assert!(
        !model.wait_for(Position::from(10), Duration::from_millis(1)).unwrap(),
        "not yet, of the new one"
    );
    store.append("a", &Filled(1)).unwrap();
    assert_eq!(store.head().unwrap().position().get(), 11, "it holds up no append");
    let ReadModelStatus::Rebuilding(progress) = model.status() else { panic!("{:?}", model.status()) };
    assert!(progress.behind > 0, "{progress:?}");
    HOLDS.store(false, Ordering::SeqCst);
    assert!(model.wait_for(Position::from(11), FOREVER).unwrap());
    assert_eq!(model.state().0, 11);
}

static BREAKS: AtomicBool = AtomicBool::new(false);

/// Panics at thirteen, while it is told to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Superstitious(u64);

impl Projection for Superstitious {
    type Event = Filled;
    const NAME: &'static str = "superstitious";
    fn apply(&mut self, Filled(number): Filled, _: &Meta<'_>) {
        self.0 += 1;
        assert!(!(number == 13 && BREAKS.load(Ordering::SeqCst)), "thirteen");
    }
}

#[test]
fn it_stands_still_where_it_fails() {
    let disk = MemDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    BREAKS.store(true, Ordering::SeqCst);
    for number in 10..16 {
        store.append("a", &Filled(number)).unwrap();
    }
    let model = store.project::<Superstitious>(Query::all()).unwrap();
    let error = model.wait_for(Position::from(6), FOREVER).unwrap_err();
    assert!(error.to_string().contains("panicked at position 4 (filled): thirteen"), "{error}");
    let ReadModelStatus::Failed { position, .. } = model.status() else { panic!("{:?}", model.status()) };
    assert_eq!(position.get(), 4);
    assert!(model.state().0 <= 3, "nothing half folded is shown");
    let other = store.project::<Totals>(Query::all()).unwrap();
    check(&store, &other, Query::all());
    store.append("a", &Filled(1)).unwrap();
    check(&store, &other, Query::all());

    BREAKS.store(false, Ordering::SeqCst);
    model.rebuild();
    eventually("it tries again", || model.state().0 == 7);
    store.append("a", &Raw("filled", &"not a number")).unwrap();
    eventually("it fails again", || matches!(model.status(), ReadModelStatus::Failed { .. }));
    let ReadModelStatus::Failed { position, error } = model.status() else { panic!() };
    assert_eq!((position.get(), error.kind()), (8, ErrorKind::Undecodable));
    assert_eq!(kind_of(model.wait_for(Position::from(8), FOREVER)), ErrorKind::Undecodable);
    drop((model, other));
    store.close().unwrap();
}

#[test]
fn what_is_buffered_is_shown_but_not_saved() {
    let disk = SimDisk::new(seed());
    let late = Durability::Buffered { flush_every: Duration::from_secs(3600) };
    let store = Store::on(disk.clone()).durability(late).open().unwrap();
    fill(&store, "a", 10);
    store.sync().unwrap();
    let model = store.project::<Totals>(Query::all()).unwrap();
    check(&store, &model, Query::all());
    fill(&store, "a", 10);
    check(&store, &model, Query::all());
    assert_eq!(model.state().events, 20);
    let trace = disk.trace();
    let mut rng = Rng::new(seed());
    for mode in [CrashMode::Keep, CrashMode::Drop, CrashMode::Torn(rng.next())] {
        let image = Store::on(trace.image(trace.len(), mode)).open().unwrap();
        let model = image.project::<Totals>(Query::all()).unwrap();
        check(&image, &model, Query::all());
    }
}

#[test]
fn every_way_to_end_ends() {
    within(FOREVER, "ending read models in every order", || {
        let open = || {
            let store = Store::in_memory().unwrap();
            fill(&store, "a", 3);
            let model = store.project::<Totals>(Query::all()).unwrap();
            check(&store, &model, Query::all());
            (store, model)
        };
        let (store, model) = open();
        drop(model);
        drop(store);
        let (store, model) = open();
        drop(store);
        eventually("it has ended", || matches!(model.status(), ReadModelStatus::Closed));
        assert_eq!(model.stop().entities.len(), 1);
        let (store, model) = open();
        let clone = store.clone();
        clone.close().unwrap();
        assert_eq!(kind_of(store.project::<Totals>(Query::all())), ErrorKind::Closed);
        drop((model, store));
        let (store, model) = open();
        model.rebuild();
        model.stop();
        store.close().unwrap();
    });
}

#[test]
fn a_reader_keeps_up_as_well() {
    let disk = MemDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    fill(&store, "a", 5);
    let reader = Store::on(disk).open_read_only().unwrap();
    let model = reader.project::<Totals>(Query::all()).unwrap();
    fill(&store, "b", 5);
    assert!(model.wait_for(Position::from(10), FOREVER).unwrap());
    assert_eq!(*model.state(), naive(&store, Query::all()));
}

#[test]
fn random_restarts_lose_and_double_nothing() {
    let mut random = Random::for_test("random_restarts_lose_and_double_nothing");
    let disk = MemDisk::new();
    for _ in 0..30 {
        let store = Store::on(disk.clone()).open().unwrap();
        let model = store.project::<Totals>(Query::all()).unwrap();
        for _ in 0..random.below(5) {
            fill_at_once(&store, &format!("e:{}", random.below(9)), 1 + random.below(200));
            match random.below(4) {
                0 => check(&store, &model, Query::all()),
                1 => model.rebuild(),
                _ => {}
            }
        }
        match random.below(3) {
            0 => drop((store, model)),
            1 => drop((model, store)),
            _ => store.close().unwrap(),
        }
    }
    let store = Store::on(disk).open().unwrap();
    let model = store.project::<Totals>(Query::all()).unwrap();
    check(&store, &model, Query::all());
}

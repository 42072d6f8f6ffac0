//! An order system of two reactors, stopped after every operation of the simulated disk: each cause has
//! exactly one reaction, with any unsynced writes.
//!
//! Orders are placed, one reactor requests a payment for each that costs anything, another ships what is to
//! be paid. After each crash the reactors run to their end on what is left; some of those runs are crashed
//! again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use annals::disk::{CrashMode, SimDisk};
use annals::{Append, Cause, ConsumerState, EventId, Query, Raw, Reaction, RecordedEvent, Store, Worker};

use crate::sim_support::*;
use crate::support::FOREVER;

static IMAGES: Tally =
    Tally::new("crash images of reactors", "exactly 1 reaction per cause, 0 lost, 0 doubled");
static ACKNOWLEDGED: Tally = Tally::new("crash images of a consumer", "0 acknowledged unhandled");
static REACTIONS: AtomicU64 = AtomicU64::new(0);

/// How the reactors run.
#[derive(Clone, Copy, Debug)]
struct How {
    in_flight_max: usize,
}

/// Every order that costs nothing needs no payment.
fn is_free(order: u64) -> bool {
    order.is_multiple_of(4)
}

fn place(order: u64) -> Append {
    Append::to(format!("order:{order}")).event(&Raw("order.placed", &order))
}

fn start(store: &Store, how: How) -> [Worker; 2] {
    let calls = Arc::new(AtomicU64::new(0));
    let billing = store
        .worker("billing", Query::all().kind("order.placed"))
        .in_flight_max(how.in_flight_max)
        .react(move |placed: &RecordedEvent, reaction: &mut Reaction<'_>| {
            let order: u64 = placed.decode()?;
            if !is_free(order) {
                // Answers differently each time it is asked.
                let call = calls.fetch_add(1, Ordering::Relaxed);
                let request = Append::to(format!("payment:{order}"))
                    .event(&Raw("payment.requested", &order))
                    .and_to("ledger")
                    .event(&Raw("ledger.noted", &call));
                reaction.add(request);
            }
            Ok(())
        })
        .unwrap();
    let shipping = store
        .worker("shipping", Query::all().kind("payment.requested"))
        .in_flight_max(how.in_flight_max)
        .react(|payment: &RecordedEvent, reaction: &mut Reaction<'_>| {
            let order: u64 = payment.decode()?;
            reaction.append(format!("order:{order}"), &Raw("order.shipped", &order));
            Ok(())
        })
        .unwrap();
    [billing, shipping]
}

/// Waits until both are through with everything.
fn finish(store: &Store) {
    for name in ["billing", "shipping"] {
        let head = store.sync().unwrap();
        let is_through = store.wait_for(name, head, FOREVER).unwrap();
        assert!(is_through, "{name} is not through: {:#?}", store.consumers().unwrap());
    }
    store.sync().unwrap();
}

/// A run that is not crashed, on a disk that records it.
fn record(rng: &mut Rng, seed: u64) -> (SimDisk, u64) {
    let disk = SimDisk::new(seed);
    let gate = Gate::default();
    let mut shape = Shape::any(rng);
    let mut store = shape.builder(disk.clone(), &gate).open().unwrap();
    let mut how = any_how(rng);
    let mut workers = start(&store, how);
    let orders = 3 + u64::try_from(rng.below(6)).unwrap();
    for order in 0..orders {
        let placed = place(order).commit(&store).unwrap();
        if shape.durability != BUFFERED {
            Note::Answered(order).put(&disk);
        }
        match rng.below(6) {
            0 => finish(&store),
            1 => {
                store.sync().unwrap();
            }
            2 => {
                // The end of the process, in order or not.
                if rng.once_in(2) {
                    workers.iter().for_each(|worker| drop(worker.stop()));
                }
                if rng.once_in(2) {
                    store.close().unwrap()
                } else {
                    drop(store)
                }
                Note::Answered(order).put(&disk);
                shape = Shape::any(rng);
                how = any_how(rng);
                store = shape.builder(disk.clone(), &gate).open().unwrap();
                workers = start(&store, how);
            }
            3 => {
                let control = store.consumer_control("billing");
                control.halt("for a while").unwrap();
                control.resume().unwrap();
            }
            _ => drop(store.wait_for("billing", placed.position(), std::time::Duration::from_micros(200))),
        }
    }
    finish(&store);
    check(&store, orders, &|| format!("seed {seed}, not crashed"));
    store.close().unwrap();
    (disk, orders)
}

fn any_how(rng: &mut Rng) -> How {
    How { in_flight_max: *rng.pick(&[1, 1, 4]) }
}

/// The effects of each event, by kind.
fn effects(store: &Store, kind: &str) -> BTreeMap<Option<EventId>, Vec<u64>> {
    let mut effects: BTreeMap<Option<EventId>, Vec<u64>> = BTreeMap::new();
    for event in store.read(Query::all().kind(kind)) {
        let event = event.unwrap();
        let cause = match event.cause() {
            Some(Cause::Event(id)) => Some(id),
            _ => None,
        };
        effects.entry(cause).or_default().push(event.decode().unwrap());
    }
    effects
}

/// Every cause has its reactions exactly once; nothing came about without a cause. `orders` is how many must
/// be there at least.
fn check(store: &Store, orders: u64, place: &dyn Fn() -> String) {
    let mut payments = effects(store, "payment.requested");
    let mut notes = effects(store, "ledger.noted");
    let mut shipments = effects(store, "order.shipped");
    let (mut found, mut reactions) = (0, 0);
    for placed in store.read(Query::all().kind("order.placed")) {
        let placed = placed.unwrap();
        let order: u64 = placed.decode().unwrap();
        assert_eq!(order, found, "{}: order {found} is lost", place());
        found += 1;
        let expected = if is_free(order) { None } else { Some(vec![order]) };
        let requested = payments.remove(&Some(placed.id()));
        assert_eq!(requested, expected, "{}: payments requested for order {order}", place());
        let noted = notes.remove(&Some(placed.id())).map(|notes| notes.len());
        assert_eq!(noted, expected.as_ref().map(Vec::len), "{}: notes about order {order}", place());
        if let Some(payment) = store.stream(format!("payment:{order}")).next() {
            let payment = payment.unwrap();
            assert_eq!(payment.correlation(), placed.correlation(), "{}", place());
            let shipped = shipments.remove(&Some(payment.id()));
            assert_eq!(shipped, expected, "{}: shipments of order {order}", place());
            reactions += 2;
        }
    }
    assert!(found >= orders, "{}: {found} of {orders} acknowledged orders are there", place());
    assert!(
        payments.is_empty() && notes.is_empty() && shipments.is_empty(),
        "{}: effects of nothing",
        place()
    );
    REACTIONS.fetch_add(reactions, Ordering::Relaxed);
}

/// Opens a crashed disk, lets the reactors run to their end, and looks; gives the number of disks.
fn visit(disk: &SimDisk, orders: u64, depth: u32, rng: &mut Rng, place: &dyn Fn() -> String) -> u64 {
    let shape = Shape::any(rng);
    let store = shape.builder(disk.clone(), &Gate::default()).open();
    let store = store.unwrap_or_else(|error| panic!("{}: does not open: {error}", place()));
    let workers = start(&store, any_how(rng));
    if store.consumers().unwrap().iter().any(|billing| matches!(billing.state, ConsumerState::Halted(_))) {
        // A halt survives a crash, and only an operator ends it.
        store.consumer_control("billing").resume().unwrap();
    }
    finish(&store);
    check(&store, orders, place);
    drop(workers);
    store.close().unwrap_or_else(|error| panic!("{}: {error}", place()));
    let mut images = 1;
    if depth < 2 && rng.once_in(6) {
        let trace = disk.trace();
        for _ in 0..3 {
            let point = rng.below(trace.len() + 1);
            let mode = *rng.pick(&[CrashMode::Keep, CrashMode::Drop, CrashMode::Torn(0), CrashMode::Torn(1)]);
            let deeper = || format!("{}, then stopped at {point} of {}, {mode:?}", place(), trace.len());
            images += visit(&trace.image(point, mode), orders, depth + 1, rng, &deeper);
        }
    }
    images
}

#[test]
fn each_cause_has_exactly_one_reaction() {
    let started = Instant::now();
    let mut images = 0;
    for n in 0..sized(1, 3) {
        let seed = seed().wrapping_mul(1_000_003).wrapping_add(n);
        let mut rng = Rng::new(seed);
        let (disk, orders) = record(&mut rng, seed);
        let trace = disk.trace();
        let watchdog = Watchdog::new();
        for point in 0..=trace.len() {
            let acknowledged = trace.notes_before(point).map(Note::read).map(|note| match note {
                Note::Answered(order) => order + 1,
                Note::Durable(_) => 0,
            });
            let acknowledged = acknowledged.max().unwrap_or(0).min(orders);
            for mode in [CrashMode::Keep, CrashMode::Drop, CrashMode::Torn(0), CrashMode::Torn(1)] {
                let place = || format!("seed {seed}, point {point} of {}, {mode:?}", trace.len());
                watchdog.at(place());
                images += visit(&trace.image(point, mode), acknowledged, 0, &mut rng, &place);
            }
        }
    }
    let reactions = REACTIONS.load(Ordering::Relaxed);
    assert!(reactions > images, "only {reactions} reactions on {images} images");
    IMAGES.add("reactors_crash::each_cause_has_exactly_one_reaction", images, started);
}

/// A consumer never comes back behind what it had not handled, nor before what it had made durable.
#[test]
fn an_acknowledgement_never_runs_ahead() {
    let started = Instant::now();
    let mut images = 0;
    for n in 0..sized(1, 3) {
        let seed = seed().wrapping_mul(1_000_003).wrapping_add(500_000 + n);
        let mut rng = Rng::new(seed);
        let disk = SimDisk::new(seed);
        let shape = Shape::any(&mut rng);
        let store = shape.builder(disk.clone(), &Gate::default()).open().unwrap();
        let mut consumer = store.consumer("mails", Query::all()).unwrap();
        for order in 0..20 {
            place(order).commit(&store).unwrap();
            if rng.once_in(3) {
                store.sync().unwrap();
            }
            while let Some(event) = consumer.try_next().unwrap() {
                Note::Answered(event.position().get()).put(&disk);
                consumer.ack(event.position()).unwrap();
                if rng.once_in(4) {
                    consumer.flush().unwrap();
                    store.sync().unwrap();
                    Note::Durable(event.position().get()).put(&disk);
                }
            }
            if rng.once_in(8) {
                drop(consumer);
                consumer = store.consumer("mails", Query::all()).unwrap();
            }
        }
        drop((consumer, store));
        let trace = disk.trace();
        for point in 0..=trace.len() {
            let (mut handled, mut durable) = (0, 0);
            for note in trace.notes_before(point).map(Note::read) {
                match note {
                    Note::Answered(position) => handled = handled.max(position),
                    Note::Durable(position) => durable = durable.max(position),
                }
            }
            for mode in [CrashMode::Keep, CrashMode::Drop, CrashMode::Torn(0)] {
                let store = shape.builder(trace.image(point, mode), &Gate::default()).open().unwrap();
                let mut consumer = store.consumer("mails", Query::all()).unwrap();
                let position = consumer.position().get();
                let place = format!("seed {seed}, point {point} of {}, {mode:?}", trace.len());
                let unhandled = store.read(Query::all()).after(handled.into()).next();
                let unhandled = unhandled.map_or(u64::MAX, |event| event.unwrap().position().get());
                assert!(position < unhandled, "{place}: at {position}, {unhandled} was not handled");
                assert!(position >= durable, "{place}: at {position}, which was durable up to {durable}");
                store.sync().unwrap();
                let next = consumer.try_next().unwrap().map(|event| event.position());
                let expected = store.read(Query::all()).after(position.into()).next();
                assert_eq!(next, expected.map(|event| event.unwrap().position()), "{place}");
                images += 1;
            }
        }
    }
    ACKNOWLEDGED.add("reactors_crash::an_acknowledgement_never_runs_ahead", images, started);
}

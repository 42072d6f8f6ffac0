//! Transitions: chains, going on after a restart, and what only the log can say.

use annals::disk::MemDisk;
use annals::{Append, Cause, DomainEvent, EntityState, ErrorKind, Expected, Raw, Store, Transition};
use serde::{Deserialize, Serialize};

use crate::support::{all, kind_of};

struct New;
struct Open;
struct Settled;
struct Over;

impl EntityState for New {
    const ENTERED_BY: &'static [&'static str] = &[];
    const STAYS: &'static [&'static str] = &["order.noted"];
}

impl EntityState for Open {
    const ENTERED_BY: &'static [&'static str] = &["order.placed", "order.reopened"];
    const STAYS: &'static [&'static str] = &["order.noted"];
}

impl EntityState for Settled {
    const ENTERED_BY: &'static [&'static str] = &["order.paid"];
}

impl EntityState for Over {
    const ENTERED_BY: &'static [&'static str] = &["order.shipped", "order.cancelled"];
}

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(kind = "order.placed")]
struct Placed;

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(kind = "order.paid")]
struct Paid {
    cents: u64,
}

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(kind = "order.shipped")]
struct Shipped;

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(kind = "order.cancelled")]
struct Cancelled;

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(kind = "order.reopened")]
struct Reopened;

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(kind = "order.noted")]
struct Noted;

/// Nothing says where it leads.
#[derive(Serialize, Deserialize, DomainEvent)]
#[event(kind = "order.lost")]
struct Lost;

impl Transition<New> for Placed {
    type To = Open;
}

impl Transition<Open> for Paid {
    type To = Settled;
}

impl Transition<Settled> for Shipped {
    type To = Over;
}

impl Transition<Open> for Cancelled {
    type To = Over;
}

impl Transition<Settled> for Cancelled {
    type To = Over;
}

impl Transition<Over> for Reopened {
    type To = Open;
}

impl Transition<Open> for Noted {
    type To = Open;
}

impl Transition<Open> for Lost {
    type To = Over;
}

impl Transition<Settled> for Noted {
    type To = Settled;
}

/// Which states the log says an order is in.
fn states(store: &Store, order: &str) -> Vec<&'static str> {
    let is_in = [
        ("new", store.in_state::<New>(order).unwrap().is_some()),
        ("open", store.in_state::<Open>(order).unwrap().is_some()),
        ("settled", store.in_state::<Settled>(order).unwrap().is_some()),
        ("over", store.in_state::<Over>(order).unwrap().is_some()),
    ];
    is_in.into_iter().filter(|(_, is_in)| *is_in).map(|(name, _)| name).collect()
}

#[test]
fn a_chain_goes_on_after_a_restart_where_the_log_says() {
    let disk = MemDisk::new();
    let open = || Store::on(disk.clone()).open().unwrap();
    let address = || ("order:1", "tenant:acme");
    let store = open();
    assert_eq!(states(&store, "order:1"), ["new"]);
    let order = store.in_state::<New>(address()).unwrap().unwrap();
    assert_eq!((order.version().get(), order.position().get()), (0, 0));
    let order = store.apply(order, &Placed).unwrap();
    assert_eq!(states(&store, "order:1"), ["open"]);
    let order = store.apply(order, &Noted).unwrap();
    assert_eq!((order.version().get(), order.position().get()), (2, 2));
    assert!(format!("{order:?}").ends_with("Open at version 2"), "{order:?}");
    assert_eq!(states(&store, "order:1"), ["open"]);
    drop(order);
    store.close().unwrap();

    let store = open();
    store.append("order:2", &Placed).unwrap();
    assert_eq!(states(&store, "order:1"), ["open"]);
    let order = store.in_state::<Open>(address()).unwrap().unwrap();
    assert_eq!((order.version().get(), order.position().get()), (2, 2));
    assert_eq!(order.coordinate().scope(), "tenant:acme");
    let order = store.apply(order, &Paid { cents: 500 }).unwrap();
    assert_eq!(states(&store, "order:1"), ["settled"]);
    let order = store.apply(order, &Shipped).unwrap();
    assert_eq!(states(&store, "order:1"), ["over"]);
    let order = store.apply(order, &Reopened).unwrap();
    store.apply(order, &Cancelled).unwrap();
    assert_eq!(states(&store, "order:1"), ["over"]);
    let kinds: Vec<_> = all(store.stream("order:1")).iter().map(|event| event.kind().to_owned()).collect();
    let expected = ["placed", "noted", "paid", "shipped", "reopened", "cancelled"];
    assert_eq!(kinds, expected.map(|kind| format!("order.{kind}")));
    assert!(all(store.stream("order:1")).iter().all(|event| event.scope() == "tenant:acme"));
}

#[test]
fn only_one_of_two_who_hold_an_entity_moves_it() {
    let store = Store::in_memory().unwrap();
    let held = || store.in_state::<New>("order:1").unwrap().unwrap();
    let (one, other) = (held(), held());
    let one = store.apply(one, &Placed).unwrap();
    let error = store.apply(other, &Placed).unwrap_err();
    assert_eq!(error.conflict().unwrap().actual.get(), 1);
    // A remark of another caller is a conflict as well; the log shows that nothing is lost.
    store.append("order:1", &Noted).unwrap();
    assert_eq!(kind_of(store.apply(one, &Cancelled)), ErrorKind::Conflict);
    let again = store.in_state::<Open>("order:1").unwrap().unwrap();
    store.apply(again, &Cancelled).unwrap();
    assert_eq!(states(&store, "order:1"), ["over"]);
}

#[test]
fn remarks_do_not_move_an_entity_and_other_events_do() {
    let store = Store::in_memory().unwrap();
    store.append("order:1", &Noted).unwrap();
    assert_eq!(states(&store, "order:1"), ["new"]);
    let order = store.in_state::<New>("order:1").unwrap().unwrap();
    assert_eq!((order.version().get(), order.position().get()), (1, 1));
    store.apply(order, &Placed).unwrap();
    for _ in 0..3 {
        store.append("order:1", &Noted).unwrap();
        assert_eq!(states(&store, "order:1"), ["open"]);
    }
    store.append("order:1", &Raw("order.sealed", &())).unwrap();
    assert!(states(&store, "order:1").is_empty());
}

/// What `in_state` would not find again is not appended.
#[test]
fn an_event_that_the_next_state_does_not_name_is_refused() {
    let store = Store::in_memory().unwrap();
    let open = || {
        store.append("order:1", &Reopened).unwrap();
        store.in_state::<Open>("order:1").unwrap().unwrap()
    };
    let error = store.apply(open(), &Lost).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(
        error.to_string().contains("order.lost leads into") && error.to_string().contains("ENTERED_BY"),
        "{error}"
    );
    let settled = store.apply(open(), &Paid { cents: 1 }).unwrap();
    let error = store.apply(settled, &Noted).unwrap_err();
    assert!(error.to_string().contains("add it to STAYS"), "{error}");
    assert_eq!(states(&store, "order:1"), ["settled"]);
    assert_eq!(kind_of(store.in_state::<New>("")), ErrorKind::Invalid);
}

#[test]
fn a_transition_can_be_told_more() {
    let store = Store::in_memory().unwrap();
    let place = || {
        // A caller that repeats the whole transition has the version from before.
        let order = store.in_state::<New>("order:1")?;
        order
            .map(|order| store.apply_with(order, &Placed, |append| append.key("req-1").tag("web")))
            .transpose()
    };
    let order = place().unwrap().unwrap();
    assert!(place().unwrap().is_none());
    let placed = store.stream("order:1").next().unwrap().unwrap();
    let order = store
        .apply_with(order, &Paid { cents: 5 }, |append: Append| {
            let paid = append.caused_by(&placed).and_to("ledger:1").expect(Expected::NoStream);
            paid.event(&Raw("ledger.booked", &5))
        })
        .unwrap();
    assert_eq!((order.version().get(), order.position().get()), (2, 3));
    let events = all(store.read(annals::Query::all()));
    assert_eq!(events[1].entity(), "ledger:1");
    assert_eq!(events[2].cause(), Some(Cause::Event(placed.id())));
}

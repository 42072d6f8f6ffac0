//! Order that is not allowed does not compile, and the compiler says what is missing.

use annals::{DomainEvent, EntityState, Error, Store, Transition};
use serde::{Deserialize, Serialize};

struct New;
struct Open;
struct Settled;

impl EntityState for New {
    const ENTERED_BY: &'static [&'static str] = &[];
}

impl EntityState for Open {
    const ENTERED_BY: &'static [&'static str] = &["order.placed"];
}

impl EntityState for Settled {
    const ENTERED_BY: &'static [&'static str] = &["order.paid"];
}

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(kind = "order.placed")]
struct Placed;

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(kind = "order.paid")]
struct Paid;

impl Transition<New> for Placed {
    type To = Open;
}

impl Transition<Open> for Paid {
    type To = Settled;
}

fn pay_before_placing(store: &Store) -> Result<(), Error> {
    let order = store.in_state::<New>("order:1")?.unwrap();
    store.apply(order, &Paid)?;
    Ok(())
}

fn pay_twice(store: &Store) -> Result<(), Error> {
    let order = store.in_state::<Open>("order:1")?.unwrap();
    store.apply(order, &Paid)?;
    store.apply(order, &Paid)?;
    Ok(())
}

fn settled_without_paying(store: &Store) -> Result<(), Error> {
    let order = store.in_state::<New>("order:1")?.unwrap();
    let _: annals::InState<Settled> = store.apply(order, &Placed)?;
    Ok(())
}

struct NoState;

fn no_state(store: &Store) -> Result<(), Error> {
    store.in_state::<NoState>("order:1")?;
    Ok(())
}

fn main() {}

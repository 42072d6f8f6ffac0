//! A process of two reactors: an order is placed, its payment is requested, the order is shipped.
//!
//! What to learn: a reactor turns one event into others, exactly once. Its output and its checkpoint are one
//! append. annals sets causes and correlations, so that `story` prints the whole process. After a restart
//! each reactor continues behind its checkpoint.

use std::time::Duration;

use annals::{Append, Error, EventId, Query, Raw, Reaction, RecordedEvent, Store};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Order {
    number: u32,
    cents: u64,
}

type Handled = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Requests the payment and reserves the goods: both, or neither.
fn billing(placed: &RecordedEvent, reaction: &mut Reaction<'_>) -> Handled {
    let order: Order = placed.decode()?;
    reaction.append(format!("payment:{}", order.number), &Raw("payment.requested", &order));
    reaction.add(Append::to("stock").event(&Raw("stock.reserved", &order.number)).tag(placed.entity()));
    Ok(())
}

/// Ships the order. This example does not wait for the payment itself.
fn shipping(requested: &RecordedEvent, reaction: &mut Reaction<'_>) -> Handled {
    let order: Order = requested.decode()?;
    reaction.append(format!("order:{}", order.number), &Raw("order.shipped", &order.number));
    Ok(())
}

fn start(store: &Store) -> Result<(), Error> {
    store.react("billing", Query::all().kind("order.placed"), billing)?;
    store.react("shipping", Query::all().kind("payment.requested"), shipping)?;
    Ok(())
}

/// Reactors run on threads of their own, so a caller waits for each before it reads their output.
fn wait_for_all(store: &Store) -> Result<(), Error> {
    for reactor in ["billing", "shipping"] {
        let head = store.head()?.position();
        assert!(store.wait_for(reactor, head, Duration::from_secs(10))?, "{reactor} is late");
    }
    Ok(())
}

fn place(store: &Store, number: u32, cents: u64) -> Result<EventId, Error> {
    let order = Order { number, cents };
    Ok(store.append(format!("order:{number}"), &Raw("order.placed", &order))?.id())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let store = Store::open(directory.path().join("shop"))?;
    let first = place(&store, 1, 1200)?; // Reactors also handle events from before their start.
    start(&store)?;
    wait_for_all(&store)?;
    store.close()?;

    let store = Store::open(directory.path().join("shop"))?;
    start(&store)?;
    let second = place(&store, 2, 700)?;
    wait_for_all(&store)?;

    for order in [first, second] {
        println!("{}", store.story(order)?);
        let kinds: Vec<String> = store
            .read(Query::correlation(order))
            .map(|event| Ok(event?.kind().to_owned()))
            .collect::<Result<_, Error>>()?;
        assert_eq!(kinds, ["order.placed", "payment.requested", "stock.reserved", "order.shipped"]);
    }
    assert_eq!(store.count(Query::all().kind("order.shipped"))?, 2, "each order was shipped once");
    for reactor in store.consumers()? {
        println!("{reactor}");
    }
    store.close()?;
    Ok(())
}

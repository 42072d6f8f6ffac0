//! How event types change: fields renamed, split, merged and added, kinds renamed and merged, one event split
//! in two.
//!
//! Stored events stay as they are. Upcasters convert old shapes to the present type when an event is read.

use annals::{DomainEvent, Error, Raw, Store, Value};
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(Debug, PartialEq, Serialize, Deserialize, DomainEvent)]
#[event(prefix = "customer")]
enum CustomerEvent {
    /// Version 1 was `{ name }`, version 2 split it; version 3 added a country that old events do not have.
    #[event(version = 3, upcast(1 = "split_name", 2 = "Value::unchanged"))]
    Registered {
        first: String,
        last: String,
        #[serde(default)]
        country: Option<String>,
    },
    /// Version 1 was `{ street, number }`. The kind was `customer.relocated` once.
    #[event(version = 2, upcast(1 = "merge_address"), alias = "customer.relocated")]
    Moved {
        address: String,
    },
    /// Two kinds without fields became one kind.
    #[event(
        alias(kind = "customer.blocked", upcast(1 = "blocked"), to = 1),
        alias(kind = "customer.freed", upcast(1 = "freed"), to = 1)
    )]
    BlockChanged {
        blocked: bool,
    },
    /// Programs write two events today. Old events of this kind are still read as one.
    #[serde(skip_serializing)]
    OrderedAndPaid {
        order: u32,
        cents: u64,
    },
    Ordered {
        order: u32,
    },
    Paid {
        order: u32,
        cents: u64,
    },
}

fn split_name(mut event: Value) -> Result<Value, Error> {
    let name: String = event.take("name")?;
    let (first, last) = name.split_once(' ').unwrap_or(("", &name));
    event.set("first", first)?;
    event.set("last", last)?;
    Ok(event)
}

fn merge_address(mut event: Value) -> Result<Value, Error> {
    let street: String = event.take("street")?;
    let number: u32 = event.take("number")?;
    event.set("address", &format!("{street} {number}"))?;
    Ok(event)
}

fn blocked(_: Value) -> Result<Value, Error> {
    Value::of(&json!({ "blocked": true }))
}

fn freed(_: Value) -> Result<Value, Error> {
    Value::of(&json!({ "blocked": false }))
}

fn main() -> Result<(), Error> {
    let directory = std::env::temp_dir().join(format!("annals-upcasting-{}", std::process::id()));
    let store = Store::open(&directory)?;
    // Older programs stored version 1 of every kind.
    for (kind, payload) in [
        ("customer.registered", json!({ "name": "Ada Lovelace" })),
        ("customer.relocated", json!({ "street": "St James's Square", "number": 12 })),
        ("customer.blocked", json!(null)),
        ("customer.freed", json!(null)),
        ("customer.ordered_and_paid", json!({ "order": 7, "cents": 100 })),
    ] {
        store.append("customer:ada", &Raw(kind, &payload))?;
    }
    store.append("customer:ada", &CustomerEvent::Paid { order: 8, cents: 250 })?;

    let events: Vec<CustomerEvent> =
        store.stream("customer:ada").map(|event| event?.to()).collect::<Result<_, _>>()?;
    events.iter().for_each(|event| println!("{event:?}"));
    assert_eq!(
        events,
        [
            CustomerEvent::Registered { first: "Ada".to_owned(), last: "Lovelace".to_owned(), country: None },
            CustomerEvent::Moved { address: "St James's Square 12".to_owned() },
            CustomerEvent::BlockChanged { blocked: true },
            CustomerEvent::BlockChanged { blocked: false },
            CustomerEvent::OrderedAndPaid { order: 7, cents: 100 },
            CustomerEvent::Paid { order: 8, cents: 250 },
        ]
    );
    store.close()?;
    let _ = std::fs::remove_dir_all(directory);
    Ok(())
}

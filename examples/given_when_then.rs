//! How to test code built on annals: decisions, reactors, and promises that must survive every crash.
//!
//! In a project of your own each of these parts is a `#[test]`.

use annals::test::{Crash, Given, GivenReactor, Said};
use annals::{Aggregate, DomainEvent, Meta, Projection, Query, Reaction, RecordedEvent, Store};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize, DomainEvent)]
#[event(prefix = "cart")]
enum CartEvent {
    Added { item: String },
    CheckedOut { items: usize },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Cart {
    items: Vec<String>,
    is_closed: bool,
}

impl Projection for Cart {
    type Event = CartEvent;
    const NAME: &'static str = "cart";

    fn apply(&mut self, event: CartEvent, _: &Meta<'_>) {
        match event {
            CartEvent::Added { item } => self.items.push(item),
            CartEvent::CheckedOut { .. } => self.is_closed = true,
        }
    }
}

struct CheckOut;

impl Aggregate for Cart {
    type Command = CheckOut;
    type Error = &'static str;

    fn decide(&self, _: &CheckOut) -> Result<Vec<CartEvent>, &'static str> {
        match (self.is_closed, self.items.len()) {
            (true, _) => Ok(Vec::new()),
            (false, 0) => Err("the cart is empty"),
            (false, items) => Ok(vec![CartEvent::CheckedOut { items }]),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, DomainEvent)]
#[event(kind = "order.placed")]
struct OrderPlaced {
    items: usize,
}

fn place_order(
    event: &RecordedEvent,
    reaction: &mut Reaction<'_>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    if let CartEvent::CheckedOut { items } = event.to()? {
        reaction.append(event.entity().replace("cart", "order"), &OrderPlaced { items });
    }
    Ok(())
}

fn main() {
    let added = |item: &str| CartEvent::Added { item: item.to_owned() };

    Given::<Cart>::events(&[added("book"), added("pen")])
        .when(&CheckOut)
        .then_events(&[CartEvent::CheckedOut { items: 2 }]);
    Given::<Cart>::nothing().when(&CheckOut).then_error(&"the cart is empty");
    Given::<Cart>::events(&[added("book"), CartEvent::CheckedOut { items: 1 }])
        .when(&CheckOut)
        .then_nothing();

    GivenReactor::new(place_order)
        .when("cart:1", &added("book"))
        .then_nothing()
        .when("cart:1", &CartEvent::CheckedOut { items: 1 })
        .then(&[("order:1", &OrderPlaced { items: 1 })]);

    // After a crash at any operation of the disk, every confirmed check-out is in the store.
    let work = |store: &Store, said: &Said| {
        for number in 0..3 {
            let cart = format!("cart:{number}");
            store.append(cart.as_str(), &added("book")).expect("the disk works");
            assert!(store.execute::<Cart>(cart.as_str(), &CheckOut).is_ok());
            said.say(number);
        }
    };
    let report = Crash::new(1).run(work, |store, said| {
        let checked_out = store.count(Query::all().kind("cart.checked_out")).expect("the store is open");
        assert!(checked_out as usize >= said.len());
    });
    println!("{} crashes, and no check-out lost", report.images);
}

//! The events of all benches: a struct of ten fields, spread over a thousand entities.

use std::time::Duration;

use annals::{Append, Durability, Error, EventData, Raw, Store};
use serde::{Deserialize, Serialize};

use super::flight::{Flight, QUEUE_COMMANDS_MAX};

/// What a payload takes, as MessagePack with field names.
pub const PAYLOAD_BYTES: usize = 177;
pub const ENTITIES: u64 = 1_000;
const KIND: &str = "order.accepted";

/// Ten fields as an application would have them: three texts, a time, a flag, small numbers.
#[derive(Serialize, Deserialize)]
pub struct Order {
    pub order: u64,
    pub customer: String,
    pub product: String,
    pub quantity: u32,
    pub cents: u64,
    pub discount: u32,
    pub depot: u32,
    pub ordered_at: u64,
    pub gift: bool,
    pub note: String,
}

/// The same, with texts that point into the event.
#[derive(Deserialize)]
pub struct OrderRef<'a> {
    pub order: u64,
    pub customer: &'a str,
    pub product: &'a str,
    pub quantity: u32,
    pub cents: u64,
    pub discount: u32,
    pub depot: u32,
    pub ordered_at: u64,
    pub gift: bool,
    pub note: &'a str,
}

/// An entity and an event for each of the thousand, made beforehand: making texts would otherwise
/// be a good part of what is measured.
pub struct Sample {
    orders: Vec<(String, Order)>,
}

impl Sample {
    pub fn new() -> Sample {
        let sample = Sample { orders: (0..ENTITIES).map(|number| (entity(number), order(number))).collect() };
        for payload in sample.payloads() {
            assert_eq!(
                payload.len(),
                PAYLOAD_BYTES,
                "the sample is as large as the one the goals were set with"
            );
        }
        sample
    }

    /// The events as they are stored.
    pub fn payloads(&self) -> impl Iterator<Item = Vec<u8>> {
        self.orders.iter().map(|(_, order)| {
            let mut payload = Vec::new();
            Raw(KIND, order).encode(&mut payload).expect("a plain struct");
            payload
        })
    }

    /// The append of one event, the `number`th in the round.
    pub fn append(&self, number: u64) -> Append {
        let (entity, order) = self.of(number);
        Append::to(entity.as_str()).event(&Raw(KIND, order))
    }

    /// The same to another entity.
    pub fn append_to(&self, entity: &str, number: u64) -> Append {
        Append::to(entity).event(&Raw(KIND, &self.of(number).1))
    }

    /// The append of several events to one entity.
    pub fn append_many(&self, number: u64, events: u64) -> Append {
        let (entity, _) = self.of(number);
        let orders = (0..events).map(|event| &self.of(number * events + event).1);
        orders.fold(Append::to(entity.as_str()), |append, order| append.event(&Raw(KIND, order)))
    }

    /// The append of several events, each to another entity.
    pub fn append_across(&self, number: u64, events: u64) -> Append {
        let first = number * events;
        (1..events).fold(self.append(first), |append, event| {
            let (entity, order) = self.of(first + event);
            append.and_to(entity.as_str()).event(&Raw(KIND, order))
        })
    }

    /// Fills a new store, round-robin, and makes that durable.
    pub fn fill(&self, store: &Store, events: u64) -> Result<(), Error> {
        self.fill_by(store, events, 1)
    }

    /// Fills a new store by appends of several events each, of as many entities.
    pub fn fill_by(&self, store: &Store, events: u64, append_size: u64) -> Result<(), Error> {
        if append_size > 1 {
            for first in (0..events).step_by(usize::try_from(append_size).expect("it is at most 65,535")) {
                let size = append_size.min(events - first);
                let append = (first + 1..first + size).fold(self.append(first), |append, number| {
                    let (entity, order) = self.of(number);
                    append.and_to(entity.as_str()).event(&Raw(KIND, order))
                });
                append.commit(store)?;
            }
            return store.sync().map(drop);
        }
        let mut flight = Flight::new(store);
        for number in 0..events {
            flight.submit(self.append(number))?;
        }
        flight.land()?;
        store.sync().map(drop)
    }

    fn of(&self, number: u64) -> &(String, Order) {
        &self.orders[usize::try_from(number % ENTITIES).expect("below a thousand")]
    }
}

/// A store that acknowledges before the sync, and takes a whole window of tickets.
pub fn open_buffered(directory: &std::path::Path) -> Result<Store, Error> {
    Store::builder(directory).durability(buffered()).queue_commands_max(QUEUE_COMMANDS_MAX).open()
}

pub fn buffered() -> Durability {
    Durability::Buffered { flush_every: Duration::from_millis(100) }
}

/// The name of the `number`th entity, 16 bytes.
pub fn entity(number: u64) -> String {
    format!("customer:{:07}", number % ENTITIES)
}

/// MessagePack writes small numbers shorter, so each field stays within one length.
fn order(number: u64) -> Order {
    let small = u32::try_from(number % 100).expect("below a hundred");
    Order {
        order: 1_000 + number,
        customer: entity(number),
        product: format!("shelf, oak, 80 cm, n. {small:02}"),
        quantity: 1 + small,
        cents: 128 + u64::from(small),
        discount: small % 20,
        depot: small,
        ordered_at: 1_750_000_000_000_000 + number,
        gift: number.is_multiple_of(3),
        note: "leave it at the door of number 7, please".to_owned(),
    }
}

/// The `step`th number of a walk over `0..count` that comes by each once, in no visible order.
pub fn scattered(step: u64, count: u64) -> u64 {
    // A prime beyond any count used here, so it shares no divisor with one.
    const STRIDE: u64 = 2_654_435_761;
    (step % count) * STRIDE % count
}

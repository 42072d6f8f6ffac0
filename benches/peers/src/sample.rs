//! The events that every peer stores: a struct of ten fields, 177 bytes as MessagePack with names.
//!
//! The same sample as in `benches/support/sample.rs`, with which the goals were set.

use annals::DomainEvent;
use batpak::EventPayload;
use serde::{Deserialize, Serialize};

/// What a payload takes, as MessagePack with field names.
pub const PAYLOAD_BYTES: usize = 177;
/// Different events; more would only cost memory.
const ORDERS: u64 = 1_000;
/// The kind under which a peer with names for kinds stores an [`Order`].
pub const KIND: &str = "order.accepted";

/// Ten fields as an application would have them: three texts, a time, a flag, small numbers.
#[derive(Clone, Serialize, Deserialize, DomainEvent, EventPayload)]
#[event(kind = "order.accepted")]
#[batpak(category = 0xE, type_id = 1)]
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

impl Order {
    /// As a peer that takes bytes stores it.
    pub fn encoded(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).expect("a plain struct")
    }
}

/// Events made beforehand: making texts would otherwise be a good part of what is measured.
pub struct Sample {
    orders: Vec<Order>,
    entities: Vec<String>,
}

impl Sample {
    /// Events of `entities` entities, in turns.
    pub fn new(entities: u64) -> Sample {
        let sample = Sample {
            orders: (0..ORDERS).map(order).collect(),
            entities: (0..entities.max(1)).map(entity).collect(),
        };
        let is_as_agreed = |order: &Order| order.encoded().len() == PAYLOAD_BYTES;
        assert!(sample.orders.iter().all(is_as_agreed), "payloads are of the size the goals were set with");
        sample
    }

    /// The event with this number, and whose it is.
    pub fn event(&self, number: u64) -> (&str, &Order) {
        let at = |length: usize| usize::try_from(number).expect("64 bits") % length;
        (&self.entities[at(self.entities.len())], &self.orders[at(self.orders.len())])
    }

    /// `events` events with consecutive numbers.
    pub fn batch(&self, first: u64, events: u64) -> Vec<(&str, &Order)> {
        (first..first + events).map(|number| self.event(number)).collect()
    }

    /// What the events with these numbers are worth together.
    pub fn cents(&self, numbers: impl Iterator<Item = u64>) -> u64 {
        numbers.map(|number| self.event(number).1.cents).sum()
    }

    pub fn entities(&self) -> u64 {
        self.entities.len().try_into().expect("fewer than 2^64")
    }
}

/// The name of an entity, 16 bytes.
pub fn entity(number: u64) -> String {
    format!("customer:{number:07}")
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_scattered_walk_comes_by_each_once() {
        for count in [1, 20, 1_000, 20_000] {
            let seen: BTreeSet<u64> = (0..count).map(|step| scattered(step, count)).collect();
            assert_eq!(seen, (0..count).collect(), "of {count}");
        }
    }
}

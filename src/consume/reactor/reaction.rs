//! What a reactor brings about, collected while it handles an event.
//!
//! Row: app.

use crate::engine::Append;
use crate::store::Store;
use crate::types::{Coordinate, Error, EventData};

/// What one event brings about: handed to a [`Reactor`](crate::Reactor) together with the event.
///
/// What is added here goes into the store in **one append**, together with the note that the event was handled:
/// all of it once, or nothing. It is caused by the event and belongs to whatever the event belongs to, unless it
/// says otherwise.
///
/// ```
/// use annals::{Append, Expected, Query, Raw, Reaction, RecordedEvent, Store};
/// # use std::time::Duration;
///
/// let store = Store::in_memory()?;
/// let placed = Query::all().kind("order.placed");
/// store.react("billing", placed, |order: &RecordedEvent, reaction: &mut Reaction<'_>| {
///     let number: u32 = order.decode()?;
///     reaction.append(format!("payment:{number}"), &Raw("payment.requested", &number));
///     let stock = Append::to("stock").event(&Raw("stock.reserved", &number)).tag(order.entity());
///     reaction.add(stock);
///     Ok(())
/// })?;
/// let order = store.append("order:1", &Raw("order.placed", &1))?;
/// assert!(store.wait_for("billing", order.position(), Duration::from_secs(10))?);
/// assert_eq!(store.version("payment:1")?.get() + store.version("stock")?.get(), 2);
/// # Ok::<(), annals::Error>(())
/// ```
pub struct Reaction<'a> {
    store: &'a Store,
    attempt: u32,
    output: Option<Append>,
}

impl<'a> Reaction<'a> {
    pub(crate) fn new(store: &'a Store, attempt: u32) -> Reaction<'a> {
        Reaction { store, attempt, output: None }
    }

    /// Adds one event to an entity.
    ///
    /// A bad name, or a value that does not encode, makes the whole reaction fail, as an error of the
    /// reactor does.
    pub fn append<A, E>(&mut self, address: A, event: &E)
    where
        A: TryInto<Coordinate, Error: Into<Error>>,
        E: EventData + ?Sized,
    {
        self.add(Append::to(address).event(event));
    }

    /// Adds an append: events of one entity or several, with tags, expectations and conditions of its own.
    ///
    /// If an expectation or condition does not hold, nothing of the reaction goes in, and the reactor is called again
    /// to decide on what is there now. A key or a durability of its own makes the reaction fail: that an event is handled
    /// once does not rest on keys, and the append is as durable as the store makes it.
    pub fn add(&mut self, append: Append) {
        self.output = Some(match self.output.take() {
            None => Append::empty().and(append),
            Some(output) => output.and(append),
        });
    }

    /// The store, to look things up in. What is appended to it directly is no part of the reaction: it stays if the
    /// reaction fails, and is done again when the event is handled again. A clone of this handle does not
    /// keep the store open.
    #[must_use]
    pub fn store(&self) -> &'a Store {
        self.store
    }

    /// How often this event was tried, this time included: 1 at first. A restart of the process begins to count
    /// anew.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// What was collected, if anything was.
    pub(crate) fn into_output(self) -> Option<Append> {
        self.output
    }
}

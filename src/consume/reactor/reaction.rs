//! The handler of a reactor, and the outputs that it collects for one event.

use crate::engine::Append;
use crate::event::RecordedEvent;
use crate::store::Store;
use crate::types::{Coordinate, Error, EventData};

/// The error of a handler: any error.
pub(super) type HandlerError = Box<dyn std::error::Error + Send + Sync>;

/// Turns an event into further events. Every closure with this signature is a reactor.
///
/// A reactor is called on a thread of its own, for one event after the other in order of position. It may
/// read the store ([`Reaction::store`]).
///
/// **The events it adds to the reaction are appended exactly once**, also after a crash. They are in one
/// append with the checkpoint behind the handled event. Other effects, such as a mail or a request, happen at
/// least once. The reactor is called again if the process ends before the append, or if the append meets a
/// conflict. Give such an effect an identity that stays the same, for example the id of the event.
pub trait Reactor: Send + 'static {
    /// Handles an event.
    ///
    /// # Errors
    ///
    /// Any error means that the event is not handled. Then nothing of the reaction is appended, and the event
    /// is tried again ([`Retry`](crate::Retry)). After the last attempt the consumer is halted at this event,
    /// durably, with this error. A panic counts as an error. The reactor is called again as it is, so a panic
    /// must not leave its own fields half changed.
    fn react(
        &mut self,
        event: &RecordedEvent,
        reaction: &mut Reaction<'_>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

impl<F> Reactor for F
where
    F: FnMut(&RecordedEvent, &mut Reaction<'_>) -> Result<(), HandlerError> + Send + 'static,
{
    fn react(&mut self, event: &RecordedEvent, reaction: &mut Reaction<'_>) -> Result<(), HandlerError> {
        self(event, reaction)
    }
}

/// The outputs of one event: handed to a [`Reactor`] together with the event.
///
/// The outputs are appended in **one append** with the checkpoint behind the event: all of them once, or
/// none. Unless an output says otherwise, it is caused by the event and has the event's correlation. With
/// buffered appends a power cut that takes back a reaction takes back its checkpoint, too.
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
    /// A bad name, or a value that does not encode, fails the whole reaction, like an error of the reactor.
    pub fn append<A, E>(&mut self, address: A, event: &E)
    where
        A: TryInto<Coordinate, Error: Into<Error>>,
        E: EventData + ?Sized,
    {
        self.add(Append::to(address).event(event));
    }

    /// Adds an append: events of one entity or several, with tags, expectations and conditions of its own.
    ///
    /// All appends of a reaction become one. Of one entity only one version can be expected. The
    /// [context](Append::context) of an added append is that of the whole reaction.
    ///
    /// If an expectation or a condition does not hold, nothing of the reaction is appended. The reactor is
    /// called again, to decide on the current state: three times without a delay, then after 1 ms to 100 ms.
    /// The 20th conflict in a row counts as a failure. While the disk or the queue is full, the reactor is
    /// called again without end, and the consumer is shown as [stuck](crate::ConsumerState::Stuck).
    ///
    /// A key or a durability of its own fails the reaction. The checkpoint already makes sure that an event
    /// is handled once, and the store sets the durability.
    pub fn add(&mut self, append: Append) {
        self.output = Some(match self.output.take() {
            None => Append::empty().and(append),
            Some(output) => output.and(append),
        });
    }

    /// The store, to read from.
    ///
    /// An event that the reactor appends to it directly is not part of the reaction. It stays if the reaction
    /// fails, and is appended again when the event is handled again. A clone of this handle does not keep the
    /// store open.
    #[must_use]
    pub fn store(&self) -> &'a Store {
        self.store
    }

    /// The number of this attempt at the event: 1 for the first. A restart of the process begins at 1 again.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The collected outputs, if there are any.
    pub(crate) fn into_output(self) -> Option<Append> {
        self.output
    }
}

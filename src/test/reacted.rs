//! Given a reactor, when this event comes, then that is appended.

use crate::consume::{Reaction, Reactor};
use crate::engine::Append;
use crate::event::{RecordedEvent, Value};
use crate::store::Store;
use crate::types::{Coordinate, Error, EventData, Query};

use super::clock::store;
use super::difference;

/// A reactor under test, with a store in memory ([`store`]) of its own: the reactor is called on this thread, and what
/// it adds to its reaction is appended as it will be.
///
/// ```
/// use annals::test::GivenReactor;
/// use annals::{Raw, Reaction, RecordedEvent};
///
/// let billing = |order: &RecordedEvent, reaction: &mut Reaction<'_>| {
///     let cents: u32 = order.decode()?;
///     if cents > 0 {
///         reaction.append(order.entity().replace("order", "payment"), &Raw("payment.requested", &cents));
///     }
///     Ok(())
/// };
/// GivenReactor::new(billing)
///     .when("order:1", &Raw("order.placed", &1200))
///     .then(&[("payment:1", &Raw("payment.requested", &1200))])
///     .when("order:2", &Raw("order.placed", &0))
///     .then_nothing()
///     .when("order:3", &Raw("order.placed", &"a word"))
///     .then_failure("does not decode");
/// ```
pub struct GivenReactor<R> {
    reactor: R,
    store: Store,
}

/// What a reactor made of an event.
pub struct Reacted<R> {
    given: GivenReactor<R>,
    outcome: Result<Vec<RecordedEvent>, String>,
}

impl<R: Reactor> GivenReactor<R> {
    /// A reactor before any event.
    #[must_use = "nothing is tested until an event comes"]
    pub fn new(reactor: R) -> GivenReactor<R> {
        GivenReactor { reactor, store: store() }
    }

    /// Something that happened before, and that the reactor was not called for.
    ///
    /// # Panics
    ///
    /// If it cannot be appended.
    pub fn after(self, append: Append) -> GivenReactor<R> {
        if let Err(error) = append.commit(&self.store) {
            panic!("what happened before cannot be appended: {error}");
        }
        self
    }

    /// An event comes.
    ///
    /// # Panics
    ///
    /// If the event cannot be stored, or the reactor panics.
    #[must_use = "nothing is tested until the outcome is looked at"]
    pub fn when<A, E>(mut self, address: A, event: &E) -> Reacted<R>
    where
        A: TryInto<Coordinate, Error: Into<Error>>,
        E: EventData + ?Sized,
    {
        let outcome = self.react(Append::to(address).event(event));
        Reacted { given: self, outcome }
    }

    fn react(&mut self, event: Append) -> Result<Vec<RecordedEvent>, String> {
        let stored = event.commit(&self.store).and_then(|receipt| self.store.at(receipt.position()));
        let event = match stored {
            Ok(event) => event.expect("what was acknowledged can be read"),
            Err(error) => panic!("the event cannot be stored: {error}"),
        };
        let mut reaction = Reaction::new(&self.store, 1);
        self.reactor.react(&event, &mut reaction).map_err(|error| error.to_string())?;
        let Some(output) = reaction.into_output() else { return Ok(Vec::new()) };
        let appended = output.inherit(&event).commit(&self.store).and_then(|_| {
            self.store.read(Query::all()).after(event.position()).collect::<Result<Vec<_>, _>>()
        });
        appended.map_err(|error| error.to_string())
    }
}

impl<R: Reactor> Reacted<R> {
    /// The reaction is exactly these events, each with its entity, in this order; compared as they are stored.
    ///
    /// # Panics
    ///
    /// If it is not, with the difference; or if the reactor failed.
    pub fn then(self, expected: &[(&str, &dyn EventData)]) -> Reacted<R> {
        let events = match &self.outcome {
            Ok(events) => events,
            Err(failure) => panic!("expected a reaction, but the reactor failed: {failure}"),
        };
        let wanted = self::store();
        for (entity, event) in expected {
            if let Err(error) = Append::to(*entity).event(*event).commit(&wanted) {
                panic!("the expected event {} cannot be stored: {error}", event.kind());
            }
        }
        let wanted: Vec<_> =
            wanted.read(Query::all()).filter_map(Result::ok).map(|event| shown(&event)).collect();
        let events: Vec<_> = events.iter().map(shown).collect();
        if wanted != events {
            let difference = difference::lines(&wanted.join("\n"), &events.join("\n"));
            panic!("the reaction is another (- expected, + appended):\n{difference}");
        }
        self
    }

    /// There is no reaction.
    ///
    /// # Panics
    ///
    /// If there is one, or the reactor failed.
    pub fn then_nothing(self) -> Reacted<R> {
        self.then(&[])
    }

    /// The reactor fails, or its reaction does not go in, and the reason contains this text.
    ///
    /// # Panics
    ///
    /// If it does not fail, or for another reason.
    pub fn then_failure(self, text: &str) -> Reacted<R> {
        match &self.outcome {
            Ok(events) => panic!("expected a failure ({text}), but this was the reaction: {events:#?}"),
            Err(failure) if failure.contains(text) => self,
            Err(failure) => {
                panic!("expected a failure ({text}), but it failed for another reason: {failure}")
            }
        }
    }

    /// Another event comes.
    ///
    /// # Panics
    ///
    /// As [`GivenReactor::when`].
    #[must_use = "nothing is tested until the outcome is looked at"]
    pub fn when<A, E>(self, address: A, event: &E) -> Reacted<R>
    where
        A: TryInto<Coordinate, Error: Into<Error>>,
        E: EventData + ?Sized,
    {
        self.given.when(address, event)
    }

    /// The store, with everything that came and was appended, to look at as one likes.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.given.store
    }
}

/// An event as people compare it.
fn shown(event: &RecordedEvent) -> String {
    let payload = event.decode::<Value>();
    let payload = payload.map_or_else(|error| error.to_string(), |payload| format!("{payload:?}"));
    format!("{}  {} (version {})  {payload}", event.entity(), event.kind(), event.schema_version())
}

//! Given, when, then: tests of aggregates, projections and reactors.

use std::fmt::Debug;

use crate::consume::{Reaction, Reactor};
use crate::engine::Append;
use crate::event::{RecordedEvent, Value};
use crate::state::{Aggregate, Loaded, Projection};
use crate::store::Store;
use crate::types::{Coordinate, Error, EventData, Query};

use super::{difference, difference_of_lines, store};

/// The events that happened before: the beginning of a test of an [`Aggregate`] or a [`Projection`].
///
/// The events go through a store in memory ([`store`]), so they are encoded, decoded and folded as in
/// production.
///
/// ```
/// use annals::test::Given;
/// # use annals::{Aggregate, DomainEvent, Meta, Projection};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Clone, Debug, Serialize, Deserialize, DomainEvent)]
/// # #[event(prefix = "account")]
/// # enum AccountEvent { Deposited { cents: u64 }, Withdrawn { cents: u64 } }
/// # #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
/// # struct Account { cents: u64 }
/// # impl Projection for Account {
/// #     type Event = AccountEvent;
/// #     const NAME: &'static str = "account";
/// #     fn apply(&mut self, event: AccountEvent, _: &Meta<'_>) {
/// #         match event {
/// #             AccountEvent::Deposited { cents } => self.cents += cents,
/// #             AccountEvent::Withdrawn { cents } => self.cents -= cents,
/// #         }
/// #     }
/// # }
/// # struct Withdraw { cents: u64 }
/// # #[derive(Debug, PartialEq)]
/// # struct TooLittle { cents: u64 }
/// # impl Aggregate for Account {
/// #     type Command = Withdraw;
/// #     type Error = TooLittle;
/// #     fn decide(&self, command: &Withdraw) -> Result<Vec<AccountEvent>, TooLittle> {
/// #         match self.cents.checked_sub(command.cents) {
/// #             None => Err(TooLittle { cents: self.cents }),
/// #             Some(_) => Ok(vec![AccountEvent::Withdrawn { cents: command.cents }]),
/// #         }
/// #     }
/// # }
/// // An `Account` with its events, commands and errors, as the bank example has it.
/// Given::<Account>::events(&[AccountEvent::Deposited { cents: 500 }])
///     .when(&Withdraw { cents: 200 })
///     .then_events(&[AccountEvent::Withdrawn { cents: 200 }])
///     .then_state(&Account { cents: 300 });
/// Given::<Account>::nothing().when(&Withdraw { cents: 200 }).then_error(&TooLittle { cents: 0 });
/// ```
pub struct Given<P> {
    store: Store,
    state: Loaded<P>,
}

/// The entity of all events in a test.
const ENTITY: &str = "test:1";

impl<P: Projection> Given<P> {
    /// Begins with no events.
    #[must_use = "nothing is tested until a `then`"]
    pub fn nothing() -> Given<P> {
        Given::events(&[])
    }

    /// Begins with these events of one entity, in this order.
    ///
    /// # Panics
    ///
    /// If an event does not encode, or the projection fails to fold it.
    #[must_use = "nothing is tested until a `then`"]
    pub fn events(events: &[P::Event]) -> Given<P> {
        let store = store();
        append(&store, events);
        let state = load(&store);
        Given { store, state }
    }

    /// Checks that the events give this state.
    ///
    /// # Panics
    ///
    /// If the state is another one, with the difference.
    pub fn then_state(self, expected: &P) -> Given<P>
    where
        P: PartialEq + Debug,
    {
        check_state(expected, &self.state);
        self
    }

    /// The state that the events give, for other checks.
    #[must_use]
    pub fn state(&self) -> &Loaded<P> {
        &self.state
    }
}

impl<A: Aggregate> Given<A>
where
    A::Event: Debug,
    A::Error: Debug,
{
    /// Lets the aggregate decide about a command.
    #[must_use = "nothing is tested until a `then`"]
    pub fn when(self, command: &A::Command) -> Decided<A> {
        let outcome = self.state.decide(command);
        Decided { given: self, outcome }
    }
}

/// The decision of an aggregate; see [`Given::when`].
pub struct Decided<A: Aggregate> {
    given: Given<A>,
    outcome: Result<Vec<A::Event>, A::Error>,
}

impl<A: Aggregate> Decided<A>
where
    A::Event: Debug,
    A::Error: Debug,
{
    /// Checks that exactly these events were decided. Events are compared as they are stored: kind, schema
    /// version and payload.
    ///
    /// # Panics
    ///
    /// If other events were decided, with the difference; if an event does not encode.
    pub fn then_events(self, expected: &[A::Event]) -> Decided<A> {
        match &self.outcome {
            Err(error) => panic!("expected events, but the command was refused: {error:#?}"),
            Ok(events) if stored(events) == stored(expected) => self,
            Ok(events) => {
                let difference = difference(expected, events.as_slice());
                panic!("other events were decided (- expected, + decided):\n{difference}")
            }
        }
    }

    /// Checks that no event was decided.
    ///
    /// # Panics
    ///
    /// If the command was refused, or an event was decided.
    pub fn then_nothing(self) -> Decided<A> {
        self.then_events(&[])
    }

    /// Checks that the command was refused with exactly this error.
    ///
    /// # Panics
    ///
    /// If events were decided, or the error is another one, with the difference.
    pub fn then_error(self, expected: &A::Error) -> Decided<A>
    where
        A::Error: PartialEq,
    {
        match &self.outcome {
            Ok(events) => panic!("expected {expected:?}, but these events were decided: {events:#?}"),
            Err(error) if error == expected => self,
            Err(error) => {
                let difference = difference(expected, error);
                panic!("it was refused for another reason (- expected, + given):\n{difference}")
            }
        }
    }

    /// Checks that the state after the decided events is this one.
    ///
    /// # Panics
    ///
    /// If the state is another one, with the difference; if the command was refused.
    pub fn then_state(self, expected: &A) -> Decided<A>
    where
        A: PartialEq + Debug,
    {
        match &self.outcome {
            Err(error) => panic!("expected a state, but the command was refused: {error:#?}"),
            Ok(events) => {
                append(&self.given.store, events);
                check_state(expected, &load(&self.given.store));
                self
            }
        }
    }

    /// Returns the decision, for other checks.
    ///
    /// # Errors
    ///
    /// The error with which the aggregate refused the command.
    pub fn outcome(self) -> Result<Vec<A::Event>, A::Error> {
        self.outcome
    }
}

fn append<E: EventData>(store: &Store, events: &[E]) {
    for event in events {
        if let Err(error) = Append::to(ENTITY).event(event).commit(store) {
            panic!("the event {} cannot be stored: {error}", event.kind());
        }
    }
}

fn load<P: Projection>(store: &Store) -> Loaded<P> {
    store.load::<P>(ENTITY).unwrap_or_else(|error| panic!("{} cannot be folded: {error}", P::NAME))
}

fn check_state<P: PartialEq + Debug>(expected: &P, actual: &P) {
    if expected != actual {
        panic!("the state is another (- expected, + folded):\n{}", difference(expected, actual));
    }
}

/// Events as they are stored: kind, schema version and payload.
fn stored<E: EventData>(events: &[E]) -> Vec<(String, u16, Vec<u8>)> {
    let stored = events.iter().map(|event| {
        let mut payload = Vec::new();
        if let Err(error) = event.encode(&mut payload) {
            panic!("the event {} does not encode: {error}", event.kind());
        }
        (event.kind().to_owned(), event.schema_version(), payload)
    });
    stored.collect()
}

/// A reactor under test, with a store in memory ([`store`]) of its own.
///
/// The reactor is called on the thread of the test. Its reaction is appended as in production.
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

/// The reaction of a reactor to an event; see [`GivenReactor::when`].
pub struct Reacted<R> {
    given: GivenReactor<R>,
    outcome: Result<Vec<RecordedEvent>, String>,
}

impl<R: Reactor> GivenReactor<R> {
    /// Begins with a reactor that has seen no event.
    #[must_use = "nothing is tested until a `then`"]
    pub fn new(reactor: R) -> GivenReactor<R> {
        GivenReactor { reactor, store: store() }
    }

    /// Appends events that happened before. The reactor is not called for them.
    ///
    /// # Panics
    ///
    /// If the events cannot be appended.
    pub fn after(self, append: Append) -> GivenReactor<R> {
        if let Err(error) = append.commit(&self.store) {
            panic!("what happened before cannot be appended: {error}");
        }
        self
    }

    /// Appends an event, and calls the reactor for it.
    ///
    /// # Panics
    ///
    /// If the event cannot be stored, or the reactor panics.
    #[must_use = "nothing is tested until a `then`"]
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
    /// Checks that the reaction is exactly these events, each with its entity, in this order. Events are
    /// compared as they are stored.
    ///
    /// # Panics
    ///
    /// If the reaction is another one, with the difference; if the reactor failed.
    pub fn then(self, expected: &[(&str, &dyn EventData)]) -> Reacted<R> {
        let events = match &self.outcome {
            Ok(events) => events,
            Err(failure) => panic!("expected a reaction, but the reactor failed: {failure}"),
        };
        let expected_store = store();
        for (entity, event) in expected {
            if let Err(error) = Append::to(*entity).event(*event).commit(&expected_store) {
                panic!("the expected event {} cannot be stored: {error}", event.kind());
            }
        }
        let wanted: Vec<_> = expected_store
            .read(Query::all())
            .filter_map(Result::ok)
            .map(|event| event_line(&event))
            .collect();
        let events: Vec<_> = events.iter().map(event_line).collect();
        if wanted != events {
            let difference = difference_of_lines(&wanted.join("\n"), &events.join("\n"));
            panic!("the reaction is another (- expected, + appended):\n{difference}");
        }
        self
    }

    /// Checks that the reactor appended no event.
    ///
    /// # Panics
    ///
    /// If it appended one, or failed.
    pub fn then_nothing(self) -> Reacted<R> {
        self.then(&[])
    }

    /// Checks that the reactor failed, or that its reaction could not be appended, with an error that
    /// contains this text.
    ///
    /// # Panics
    ///
    /// If the reactor did not fail, or failed with another error.
    pub fn then_failure(self, text: &str) -> Reacted<R> {
        match &self.outcome {
            Ok(events) => panic!("expected a failure ({text}), but this was the reaction: {events:#?}"),
            Err(failure) if failure.contains(text) => self,
            Err(failure) => {
                panic!("expected a failure ({text}), but it failed for another reason: {failure}")
            }
        }
    }

    /// Appends one more event, and calls the reactor for it.
    ///
    /// # Panics
    ///
    /// As [`GivenReactor::when`].
    #[must_use = "nothing is tested until a `then`"]
    pub fn when<A, E>(self, address: A, event: &E) -> Reacted<R>
    where
        A: TryInto<Coordinate, Error: Into<Error>>,
        E: EventData + ?Sized,
    {
        self.given.when(address, event)
    }

    /// The store with all events and reactions, for other checks.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.given.store
    }
}

/// An event as a line of text.
fn event_line(event: &RecordedEvent) -> String {
    let payload = event.decode::<Value>();
    let payload = payload.map_or_else(|error| error.to_string(), |payload| format!("{payload:?}"));
    format!("{}  {} (version {})  {payload}", event.entity(), event.kind(), event.schema_version())
}

//! Given these events, when this is asked, then that is decided.

use std::fmt::Debug;

use crate::engine::Append;
use crate::state::{Aggregate, Loaded, Projection};
use crate::store::Store;
use crate::types::EventData;

use super::clock::store;
use super::difference;

/// What happened before: the beginning of a test of an [`Aggregate`] or a [`Projection`].
///
/// The events go through a store in memory ([`store`]), so they are encoded, decoded and folded as they
/// will be.
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

/// The entity of all events that name no other.
const ENTITY: &str = "test:1";

impl<P: Projection> Given<P> {
    /// Nothing happened before.
    #[must_use = "nothing is tested until something is asked"]
    pub fn nothing() -> Given<P> {
        Given::events(&[])
    }

    /// These events happened, in this order, to one entity.
    ///
    /// # Panics
    ///
    /// If an event does not encode, or the projection does not fold what it encoded to.
    #[must_use = "nothing is tested until something is asked"]
    pub fn events(events: &[P::Event]) -> Given<P> {
        let store = store();
        append(&store, events);
        let state = load(&store);
        Given { store, state }
    }

    /// The state is this one.
    ///
    /// # Panics
    ///
    /// If it is not, with the difference.
    pub fn then_state(self, expected: &P) -> Given<P>
    where
        P: PartialEq + Debug,
    {
        check_state(expected, &self.state);
        self
    }

    /// The state these events make, to look at as one likes.
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
    /// Something is asked of the aggregate.
    #[must_use = "nothing is tested until the outcome is looked at"]
    pub fn when(self, command: &A::Command) -> Decided<A> {
        let outcome = self.state.decide(command);
        Decided { given: self, outcome }
    }
}

/// What an aggregate decided.
pub struct Decided<A: Aggregate> {
    given: Given<A>,
    outcome: Result<Vec<A::Event>, A::Error>,
}

impl<A: Aggregate> Decided<A>
where
    A::Event: Debug,
    A::Error: Debug,
{
    /// It decides for exactly these events, compared as they are stored: kind, schema version and payload.
    ///
    /// # Panics
    ///
    /// If it does not, with the difference; or if an event does not encode.
    pub fn then_events(self, expected: &[A::Event]) -> Decided<A> {
        match &self.outcome {
            Err(error) => panic!("expected events, but the command was refused: {error:#?}"),
            Ok(events) if stored(events) == stored(expected) => self,
            Ok(events) => {
                let difference = difference::values(expected, events.as_slice());
                panic!("other events were decided (- expected, + decided):\n{difference}")
            }
        }
    }

    /// It has nothing to do.
    ///
    /// # Panics
    ///
    /// If it refuses, or decides for any event.
    pub fn then_nothing(self) -> Decided<A> {
        self.then_events(&[])
    }

    /// It refuses, with exactly this error.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub fn then_error(self, expected: &A::Error) -> Decided<A>
    where
        A::Error: PartialEq,
    {
        match &self.outcome {
            Ok(events) => panic!("expected {expected:?}, but these events were decided: {events:#?}"),
            Err(error) if error == expected => self,
            Err(error) => {
                let difference = difference::values(expected, error);
                panic!("it was refused for another reason (- expected, + given):\n{difference}")
            }
        }
    }

    /// With the events decided for, the state is this one.
    ///
    /// # Panics
    ///
    /// If it is not, with the difference; or if the command was refused.
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

    /// The outcome, to look at as one likes.
    ///
    /// # Errors
    ///
    /// What the aggregate refused the command with.
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
        panic!("the state is another (- expected, + folded):\n{}", difference::values(expected, actual));
    }
}

/// What of events is stored.
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

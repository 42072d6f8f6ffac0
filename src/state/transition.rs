//! Transitions: each state of an entity is a type, and the compiler accepts only events that may follow in
//! it.
//!
//! A forbidden order does not compile. Two facts are checked against the log at run time. One is the state of
//! the entity after a restart. The other is that no other caller has moved it.

use std::any::TypeId;
use std::fmt;
use std::marker::PhantomData;

use crate::engine::Append;
use crate::store::Store;
use crate::types::{Coordinate, Error, EventData, Position, Version};

/// A state of an entity, as a type: usually an empty struct.
///
/// ```
/// use annals::{Append, EntityState, Error, EventData, Raw, Store, Transition};
/// # struct Placed;
/// # impl EventData for Placed {
/// #     fn kind(&self) -> &str { "order.placed" }
/// #     fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
/// #         Raw(self.kind(), &()).encode(out)
/// #     }
/// # }
/// # struct Paid { cents: u64 }
/// # impl EventData for Paid {
/// #     fn kind(&self) -> &str { "order.paid" }
/// #     fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
/// #         Raw(self.kind(), &self.cents).encode(out)
/// #     }
/// # }
///
/// struct New;                         // an order without events
/// struct Open;
/// struct Settled;
///
/// impl EntityState for New { const ENTERED_BY: &[&str] = &[]; }
/// impl EntityState for Open { const ENTERED_BY: &[&str] = &["order.placed"]; }
/// impl EntityState for Settled { const ENTERED_BY: &[&str] = &["order.paid"]; }
///
/// impl Transition<New> for Placed { type To = Open; }
/// impl Transition<Open> for Paid { type To = Settled; }
///
/// let store = Store::in_memory()?;
/// let order = store.in_state::<New>("order:1")?.expect("it is not placed yet");
/// let order = store.apply(order, &Placed)?;
/// let order = store.apply(order, &Paid { cents: 500 })?;
/// assert_eq!(order.version().get(), 2);
///
/// // After a restart the log says where it is:
/// assert!(store.in_state::<Open>("order:1")?.is_none());
/// assert!(store.in_state::<Settled>("order:1")?.is_some());
/// # Ok::<(), Error>(())
/// ```
///
/// Paying an order that was not placed does not compile:
///
/// ```compile_fail,E0277
/// # use annals::{EntityState, Error, EventData, Raw, Store, Transition};
/// # struct Paid;
/// # impl EventData for Paid {
/// #     fn kind(&self) -> &str { "order.paid" }
/// #     fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
/// #         Raw(self.kind(), &()).encode(out)
/// #     }
/// # }
/// # struct New;
/// # struct Open;
/// # struct Settled;
/// # impl EntityState for New { const ENTERED_BY: &[&str] = &[]; }
/// # impl EntityState for Open { const ENTERED_BY: &[&str] = &["order.placed"]; }
/// # impl EntityState for Settled { const ENTERED_BY: &[&str] = &["order.paid"]; }
/// # impl Transition<Open> for Paid { type To = Settled; }
/// # let store = Store::in_memory()?;
/// let order = store.in_state::<New>("order:1")?.expect("it is not placed yet");
/// store.apply(order, &Paid)?;
/// # Ok::<(), Error>(())
/// ```
pub trait EntityState: 'static {
    /// The kinds of the events that lead into this state. If empty, it is the state of an entity without an
    /// event whose kind is not in [`EntityState::STAYS`].
    const ENTERED_BY: &'static [&'static str];

    /// The kinds of the events that do not change this state, like a remark (default: none). An event of any
    /// other kind leads out of the state.
    const STAYS: &'static [&'static str] = &[];
}

/// Says that an event leads out of the state `From`, and into which state. One event may lead out of several
/// states.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no event that leads out of the state `{From}`",
    label = "the entity is in the state `{From}`",
    note = "if it should be allowed, say where it leads: `impl Transition<{From}> for {Self} {{ type To = ..; }}`"
)]
pub trait Transition<From: EntityState>: EventData {
    /// The state after the event.
    type To: EntityState;
}

/// An entity in the state `S`, at a version of its stream. Applying an event consumes it.
pub struct InState<S> {
    address: Coordinate,
    version: Version,
    position: Position,
    state: PhantomData<fn() -> S>,
}

impl<S> InState<S> {
    /// Entity and scope.
    #[must_use]
    pub fn coordinate(&self) -> &Coordinate {
        &self.address
    }

    /// The version of the entity's stream when it was found.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The position of the last event of the entity's stream; [`Position::START`] if it has none.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }
}

impl<S> fmt::Debug for InState<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {} at version {}", self.address, std::any::type_name::<S>(), self.version)
    }
}

impl Store {
    /// Finds an entity that is in the state `S`; `None` if it is in another state. A chain of transitions
    /// begins with it, also after a restart.
    ///
    /// The last event whose kind is not in [`EntityState::STAYS`] decides: its kind must be in
    /// [`EntityState::ENTERED_BY`]. The scope of `address` is the scope of the next event.
    ///
    /// # Errors
    ///
    /// The errors of reading.
    pub fn in_state<S: EntityState>(
        &self,
        address: impl TryInto<Coordinate, Error: Into<Error>>,
    ) -> Result<Option<InState<S>>, Error> {
        let address = address.try_into().map_err(Into::into)?;
        let mut version = Version::EMPTY;
        let mut position = Position::START;
        let mut is_in = S::ENTERED_BY.is_empty();
        for event in self.stream(address.entity()).backwards() {
            let event = event?;
            if version == Version::EMPTY {
                version = event.version();
                position = event.position();
            }
            if !S::STAYS.contains(&event.kind()) {
                is_in = S::ENTERED_BY.contains(&event.kind());
                break;
            }
        }
        Ok(is_in.then_some(InState { address, version, position, state: PhantomData }))
    }

    /// Appends an event that leads an entity from one state to the next, if its stream has no new event.
    ///
    /// A failed call consumes `entity`, too. Call [`Store::in_state`] to find its state.
    ///
    /// # Errors
    ///
    /// The errors of [`Append::commit`]; [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) if another
    /// caller has moved the entity; [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the event's kind is
    /// not in [`EntityState::ENTERED_BY`] of the next state.
    pub fn apply<From, E>(&self, entity: InState<From>, transition: &E) -> Result<InState<E::To>, Error>
    where
        From: EntityState,
        E: Transition<From>,
    {
        self.apply_with(entity, transition, |append| append)
    }

    /// As [`Store::apply`], where `with` adds to the append before it is committed. It may add key, cause,
    /// correlation, metadata, tags, context for gates, durability, and events of other entities.
    ///
    /// # Errors
    ///
    /// The errors of [`Store::apply`].
    pub fn apply_with<From, E>(
        &self,
        entity: InState<From>,
        transition: &E,
        with: impl FnOnce(Append) -> Append,
    ) -> Result<InState<E::To>, Error>
    where
        From: EntityState,
        E: Transition<From>,
    {
        check_kind::<From, E>(transition)?;
        let InState { address, version, .. } = entity;
        let append = with(Append::to(&address)).and_to(&address).expect(version).event(transition);
        let receipt = append.commit(self)?;
        Ok(InState { address, version: receipt.version(), position: receipt.position(), state: PhantomData })
    }
}

/// Refuses an event after which [`Store::in_state`] would not find the entity in the state that the types
/// say.
fn check_kind<From: EntityState, E: Transition<From>>(transition: &E) -> Result<(), Error> {
    let kind = transition.kind();
    let is_same = TypeId::of::<From>() == TypeId::of::<E::To>();
    if E::To::ENTERED_BY.contains(&kind) || (is_same && E::To::STAYS.contains(&kind)) {
        return Ok(());
    }
    let to = std::any::type_name::<E::To>();
    let whose = if is_same { "STAYS" } else { "ENTERED_BY" };
    Err(Error::invalid(format!(
        "{kind} leads into {to}, which does not say so; add it to {whose} of {to}, or it would not be found there again"
    )))
}

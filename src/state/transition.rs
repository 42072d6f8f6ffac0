//! Transitions: an entity in a state is a value of a type, and only events that lead out of that state fit.
//!
//! Order that is not allowed does not compile. What a program cannot know when it is compiled, where an entity is
//! after a restart, or that nobody else moved it, is checked against the log.
//! Row: app. Uses nothing a user could not use.

use std::any::TypeId;
use std::fmt;
use std::marker::PhantomData;

use crate::engine::Append;
use crate::store::Store;
use crate::types::{Coordinate, Error, EventData, Position, Version};

/// A state that an entity can be in, as a type: usually an empty struct.
///
/// ```
/// use annals::{Append, EntityState, Error, EventData, Raw, Store, Transition};
/// # struct Placed;
/// # impl EventData for Placed {
/// #     fn kind(&self) -> &str { "order.placed" }
/// #     fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> { Raw(self.kind(), &()).encode(out) }
/// # }
/// # struct Paid { cents: u64 }
/// # impl EventData for Paid {
/// #     fn kind(&self) -> &str { "order.paid" }
/// #     fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> { Raw(self.kind(), &self.cents).encode(out) }
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
/// let order = store.in_state::<New>("order:1")?.expect("nobody has placed it");
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
/// Paying an order that nobody has placed does not compile:
///
/// ```compile_fail,E0277
/// # use annals::{EntityState, Error, EventData, Raw, Store, Transition};
/// # struct Paid;
/// # impl EventData for Paid {
/// #     fn kind(&self) -> &str { "order.paid" }
/// #     fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> { Raw(self.kind(), &()).encode(out) }
/// # }
/// # struct New;
/// # struct Open;
/// # struct Settled;
/// # impl EntityState for New { const ENTERED_BY: &[&str] = &[]; }
/// # impl EntityState for Open { const ENTERED_BY: &[&str] = &["order.placed"]; }
/// # impl EntityState for Settled { const ENTERED_BY: &[&str] = &["order.paid"]; }
/// # impl Transition<Open> for Paid { type To = Settled; }
/// # let store = Store::in_memory()?;
/// let order = store.in_state::<New>("order:1")?.expect("nobody has placed it");
/// store.apply(order, &Paid)?;
/// # Ok::<(), Error>(())
/// ```
pub trait EntityState: 'static {
    /// The kinds of the events that lead into this state. A state without any is that of an entity that has
    /// no events yet.
    const ENTERED_BY: &'static [&'static str];

    /// The kinds of events that leave an entity in this state, like a remark (default: none). An event of any other kind
    /// leads out of it.
    const STAYS: &'static [&'static str] = &[];
}

/// That an event leads out of a state, and where to. One event may lead out of several states.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no event that leads out of the state `{From}`",
    label = "the entity is in the state `{From}`",
    note = "if it should be allowed, say where it leads: `impl Transition<{From}> for {Self} {{ type To = ..; }}`"
)]
pub trait Transition<From: EntityState>: EventData {
    /// The state after it.
    type To: EntityState;
}

/// An entity that is known to be in a state, at a version of its stream. Applying an event uses it up.
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

    /// The version its stream was found at.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The position of the last event of its stream; [`Position::START`] if there are none.
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
    /// The entity, if it is in this state: how a chain of transitions begins, and how it goes on after a restart.
    /// `None` if it is in another one.
    ///
    /// The last event of its stream decides that is none of those that stay in the state: its kind must lead into
    /// the state. The scope, if one is given, is the one the next event gets.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub fn in_state<S: EntityState>(
        &self,
        address: impl TryInto<Coordinate, Error: Into<Error>>,
    ) -> Result<Option<InState<S>>, Error> {
        let address = address.try_into().map_err(Into::into)?;
        let (mut version, mut position, mut is_in) =
            (Version::EMPTY, Position::START, S::ENTERED_BY.is_empty());
        for event in self.stream(address.entity()).backwards() {
            let event = event?;
            if version == Version::EMPTY {
                (version, position) = (event.version(), event.position());
            }
            if !S::STAYS.contains(&event.kind()) {
                is_in = S::ENTERED_BY.contains(&event.kind());
                break;
            }
        }
        Ok(is_in.then_some(InState { address, version, position, state: PhantomData }))
    }

    /// Appends an event that leads an entity from one state to the next, if its stream is still as it was found.
    ///
    /// If it is not appended, the entity is used up all the same: [`Store::in_state`] says where it is.
    ///
    /// # Errors
    ///
    /// Those of [`Append::commit`]: [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) if somebody else moved it;
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the event's kind is none of those the next state says
    /// it is entered by.
    pub fn apply<From, E>(&self, entity: InState<From>, transition: &E) -> Result<InState<E::To>, Error>
    where
        From: EntityState,
        E: Transition<From>,
    {
        self.apply_with(entity, transition, |append| append)
    }

    /// [`Store::apply`], with more to say about the append: key, cause, correlation, metadata, tags, context for
    /// gates, durability, also events of other entities.
    ///
    /// # Errors
    ///
    /// As [`Store::apply`].
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

/// That [`Store::in_state`] will find the entity where the types say it is.
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

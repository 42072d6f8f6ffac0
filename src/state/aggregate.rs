//! Deciding about one entity: load its state, decide, append what was decided if nothing came in between.
//!
//! No lock is held while a user's code runs: an append requires the version that was decided on, and whoever is too
//! late decides again.
//! Row: app. Uses nothing a user could not use, but for the look-up of keys.

use serde::Serialize;

use crate::engine::{Append, Keyed};
use crate::event::Appended;
use crate::state::executed::{Executed, Outcome, Refused};
use crate::state::projection::{At, Loaded, Projection, fold};
use crate::store::Store;
use crate::types::{Coordinate, Error, ErrorKind, Version};

/// A projection of one entity that decides: state and command in, events or a refusal out.
///
/// What an event does to the state is [`Projection::apply`].
///
/// ```
/// # use annals::{DomainEvent, Error, EventData, Meta, Projection, RecordedEvent};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)]
/// # struct Withdrawn { cents: u64 }
/// # impl EventData for Withdrawn {
/// #     fn kind(&self) -> &str { "account.withdrawn" }
/// #     fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> { annals::Raw(self.kind(), self).encode(out) }
/// # }
/// # impl DomainEvent for Withdrawn {
/// #     fn knows(kind: &str) -> bool { kind == "account.withdrawn" }
/// #     fn from_recorded(event: &RecordedEvent) -> Result<Withdrawn, Error> { event.decode() }
/// # }
/// use annals::{Aggregate, Outcome, Refused, Store};
///
/// #[derive(Clone, Default, Serialize, Deserialize)]
/// struct Account { withdrawn: u64 }
///
/// impl Projection for Account {
///     type Event = Withdrawn;
///     const NAME: &'static str = "account";
///     fn apply(&mut self, event: Withdrawn, _: &Meta<'_>) { self.withdrawn += event.cents; }
/// }
///
/// struct Withdraw { cents: u64 }
/// #[derive(Debug, PartialEq)]
/// struct LimitReached;
///
/// impl Aggregate for Account {
///     type Command = Withdraw;
///     type Error = LimitReached;
///     fn decide(&self, command: &Withdraw) -> Result<Vec<Withdrawn>, LimitReached> {
///         if self.withdrawn + command.cents > 1_000 { return Err(LimitReached); }
///         Ok(vec![Withdrawn { cents: command.cents }])
///     }
/// }
///
/// let store = Store::in_memory()?;
/// let executed = store.execute::<Account>("account:alice", &Withdraw { cents: 600 }).unwrap();
/// assert_eq!((executed.outcome(), executed.withdrawn), (Outcome::Applied, 600));
/// let refused = store.execute::<Account>("account:alice", &Withdraw { cents: 600 }).unwrap_err();
/// assert_eq!(refused.domain(), Some(&LimitReached));
/// # Ok::<(), Error>(())
/// ```
pub trait Aggregate: Projection {
    /// What it is asked to do.
    type Command;

    /// Why it may refuse.
    type Error;

    /// What happens because of a command: events, none if nothing does, or a refusal.
    ///
    /// It is asked anew when something came in between, so what it answers should follow from state and command
    /// alone; effects on the world do not belong here. It may read the store and take its time; nobody waits for
    /// it longer than 50 ms.
    ///
    /// # Errors
    ///
    /// Whatever the domain says; the caller gets it as [`Refused::Domain`].
    fn decide(&self, command: &Self::Command) -> Result<Vec<Self::Event>, Self::Error>;
}

impl Store {
    /// Has an aggregate decide about a command, and appends the events it decides on: together, and only if its
    /// stream is still as it was. If something came in between, the state takes in what is new (nothing else is read)
    /// and decides again. Under contention everybody gets a turn; after 1,000 conflicts the last one is the answer.
    ///
    /// # Errors
    ///
    /// [`Refused::Domain`] if the aggregate refuses; [`Refused::Store`] with the errors of [`Store::load`] and
    /// [`Append::commit`]. [`ErrorKind::CommitUnknown`] also if the events were appended and the state after them
    /// cannot be had; the text says so.
    pub fn execute<A: Aggregate>(
        &self,
        address: impl TryInto<Coordinate, Error: Into<Error>>,
        command: &A::Command,
    ) -> Result<Executed<A>, Refused<A::Error>> {
        self.execute_with(address, command, |append| append)
    }

    /// [`Store::execute`], with more to say about the append: key, cause, correlation, metadata, tags,
    /// occurred-at, context for gates, durability, conditions, also further events, which come before the decided
    /// ones and go in with them. `with` is asked for each try.
    ///
    /// A key makes the command idempotent: if it is known, its append is answered, and nothing is decided. It
    /// must be the key of an append to the same entity. The command is compared if it was said with
    /// [`Append::command`]; [`Store::execute_once`] does that.
    ///
    /// ```
    /// # use annals::{Aggregate, DomainEvent, Error, EventData, Meta, Outcome, Projection, RecordedEvent, Store};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Clone, Default, Serialize, Deserialize)]
    /// # struct Counter { count: u64 }
    /// # struct Counted;
    /// # impl EventData for Counted {
    /// #     fn kind(&self) -> &str { "counter.counted" }
    /// #     fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> { annals::Raw(self.kind(), &()).encode(out) }
    /// # }
    /// # impl DomainEvent for Counted {
    /// #     fn knows(kind: &str) -> bool { kind == "counter.counted" }
    /// #     fn from_recorded(_: &RecordedEvent) -> Result<Counted, Error> { Ok(Counted) }
    /// # }
    /// # impl Projection for Counter {
    /// #     type Event = Counted;
    /// #     const NAME: &'static str = "counter";
    /// #     fn apply(&mut self, _: Counted, _: &Meta<'_>) { self.count += 1; }
    /// # }
    /// # impl Aggregate for Counter {
    /// #     type Command = ();
    /// #     type Error = std::convert::Infallible;
    /// #     fn decide(&self, _: &()) -> Result<Vec<Counted>, Self::Error> { Ok(vec![Counted]) }
    /// # }
    /// let store = Store::in_memory()?;
    /// let count = || store.execute_with::<Counter>("counter:1", &(), |append| append.key("req-17").tag("web"));
    /// assert_eq!(count().unwrap().outcome(), Outcome::Applied);
    /// let again = count().unwrap();
    /// assert_eq!((again.outcome(), again.count), (Outcome::AlreadyApplied, 1));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Store::execute`]; [`ErrorKind::KeyReused`] if the key belongs to an append that has no event of this entity.
    pub fn execute_with<A: Aggregate>(
        &self,
        address: impl TryInto<Coordinate, Error: Into<Error>>,
        command: &A::Command,
        mut with: impl FnMut(Append) -> Append,
    ) -> Result<Executed<A>, Refused<A::Error>> {
        let address = address.try_into().map_err(Into::into)?;
        let entity = address.entity();
        let mut attempt = self.decision_queue().attempt(entity);
        loop {
            let before = self.load::<A>(entity)?;
            let append = with(Append::to(&address));
            let keyed = append.keyed()?;
            // After the state was loaded: if the key is new even then, the state holds nothing of it.
            if let Some(receipt) = self.applied_to(entity, keyed)? {
                return Ok(self.already_applied(entity, receipt, attempt.conflicts())?);
            }
            let events = before.decide(command).map_err(Refused::Domain)?;
            let conflicts = attempt.conflicts();
            if events.is_empty() {
                return Ok(Executed { outcome: Outcome::Nothing, receipt: None, conflicts, state: before });
            }
            let append = append.and_to(&address).expect(before.version());
            match events.iter().fold(append, Append::event).commit(self) {
                Ok(receipt) if receipt.replayed() => {
                    return Ok(self.already_applied(entity, receipt, conflicts)?);
                }
                Ok(receipt) => return Ok(self.applied(before, entity, receipt, conflicts)?),
                Err(error) if error.kind() == ErrorKind::Conflict => attempt.retry_after(error)?,
                // Somebody was quicker with the same command, and decided on another state.
                Err(error) if error.kind() == ErrorKind::KeyReused => {
                    let receipt = self.applied_to(entity, keyed)?.ok_or(error)?;
                    return Ok(self.already_applied(entity, receipt, conflicts)?);
                }
                Err(error) => return Err(Refused::Store(error)),
            }
        }
    }

    /// [`Store::execute`] with an idempotency key. If the key is known, its append is answered, and nothing
    /// is decided; the command must be the same, as it serializes.
    ///
    /// ```
    /// # use annals::{Aggregate, DomainEvent, Error, EventData, Meta, Projection, RecordedEvent};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Clone, Default, Serialize, Deserialize)]
    /// # struct Counter { count: u64 }
    /// # struct Counted;
    /// # impl EventData for Counted {
    /// #     fn kind(&self) -> &str { "counter.counted" }
    /// #     fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> { annals::Raw(self.kind(), &()).encode(out) }
    /// # }
    /// # impl DomainEvent for Counted {
    /// #     fn knows(kind: &str) -> bool { kind == "counter.counted" }
    /// #     fn from_recorded(_: &RecordedEvent) -> Result<Counted, Error> { Ok(Counted) }
    /// # }
    /// # impl Projection for Counter {
    /// #     type Event = Counted;
    /// #     const NAME: &'static str = "counter";
    /// #     fn apply(&mut self, _: Counted, _: &Meta<'_>) { self.count += 1; }
    /// # }
    /// # impl Aggregate for Counter {
    /// #     type Command = u64;
    /// #     type Error = std::convert::Infallible;
    /// #     fn decide(&self, times: &u64) -> Result<Vec<Counted>, Self::Error> { Ok((0..*times).map(|_| Counted).collect()) }
    /// # }
    /// use annals::{ErrorKind, Outcome, Store};
    ///
    /// let store = Store::in_memory()?;
    /// let count = |times: u64| store.execute_once::<Counter>("req-17", "counter:1", &times);
    /// assert_eq!(count(2).unwrap().outcome(), Outcome::Applied);
    /// assert_eq!(count(2).unwrap().outcome(), Outcome::AlreadyApplied);
    /// assert_eq!(count(3).unwrap_err().store().unwrap().kind(), ErrorKind::KeyReused);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Store::execute_with`]; [`ErrorKind::KeyReused`] also if the key belongs to another command, or to
    /// an append that was made without one.
    pub fn execute_once<A: Aggregate<Command: Serialize>>(
        &self,
        key: impl AsRef<[u8]>,
        address: impl TryInto<Coordinate, Error: Into<Error>>,
        command: &A::Command,
    ) -> Result<Executed<A>, Refused<A::Error>> {
        self.execute_with(address, command, |append| append.key(&key).command(command))
    }

    /// The receipt of what was applied to an entity with this key.
    fn applied_to(&self, entity: &str, keyed: Option<Keyed>) -> Result<Option<Appended>, Error> {
        let Some(keyed) = keyed else { return Ok(None) };
        let Some(receipt) = self.engine().find_key(keyed)? else { return Ok(None) };
        let (first, last) = (receipt.first_position().get(), receipt.position());
        let mut of_append = self.stream(entity);
        of_append.again(first.saturating_sub(1).into(), last);
        match of_append.next() {
            Some(event) => event.map(|_| Some(receipt)),
            None => {
                let text = format!(
                    "the idempotency key belongs to another append, at position {first}, which has no event of {entity}; use a new key for a new command"
                );
                Err(Error::new(ErrorKind::KeyReused, text))
            }
        }
    }

    fn already_applied<A: Aggregate>(
        &self,
        entity: &str,
        receipt: Appended,
        conflicts: u32,
    ) -> Result<Executed<A>, Error> {
        let state = self.load(entity).map_err(|error| stateless(&receipt, error))?;
        Ok(Executed { outcome: Outcome::AlreadyApplied, receipt: Some(receipt), conflicts, state })
    }

    fn applied<A: Aggregate>(
        &self,
        before: Loaded<A>,
        entity: &str,
        receipt: Appended,
        conflicts: u32,
    ) -> Result<Executed<A>, Error> {
        // The decided events stand last.
        let state = self.load_after(before, entity, receipt.version());
        let state = state.map_err(|error| stateless(&receipt, error))?;
        Ok(Executed { outcome: Outcome::Applied, receipt: Some(receipt), conflicts, state })
    }

    /// The state at a version that was just appended, and not at a later one.
    fn load_after<A: Aggregate>(
        &self,
        before: Loaded<A>,
        entity: &str,
        version: Version,
    ) -> Result<Loaded<A>, Error> {
        if self.version(entity)? == version {
            // While nobody else holds the state, the cache need not copy it.
            drop(before);
            let now = self.load::<A>(entity)?;
            return if now.version() == version {
                Ok(now)
            } else {
                self.load_at(entity, At::Version(version))
            };
        }
        let (mut state, mut position) = (A::clone(&before), before.position());
        for event in self.stream(entity).versions(before.version().get() + 1..=version.get()) {
            let event = event?;
            fold(&mut state, &event)?;
            position = event.position();
        }
        Ok(Loaded::new(state, version, position))
    }
}

/// An append that was made, but what it came to cannot be told.
pub(crate) fn stateless(receipt: &Appended, error: Error) -> Error {
    let text = format!(
        "the events were appended, up to position {}, but the state after them cannot be had ({error}); do not repeat this without a key",
        receipt.position()
    );
    Error::with_source(ErrorKind::CommitUnknown, text, error)
}

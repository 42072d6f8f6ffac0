//! Decisions about one entity: load its state, decide, and append the decided events if no event came in
//! between.
//!
//! No lock is held while user code runs. The append expects the version that the decision saw; a caller whose
//! append comes too late decides again.

use serde::Serialize;

use crate::engine::{Append, Keyed};
use crate::event::Appended;
use crate::state::decide::{Executed, Outcome, Refused, appended_without_state};
use crate::state::past::At;
use crate::state::projection::{Loaded, Projection, fold};
use crate::store::Store;
use crate::types::{Coordinate, Error, ErrorKind, Version};

/// A projection of one entity that decides about commands: state and command in, events or a refusal out.
///
/// [`Projection::apply`] says how an event changes the state.
///
/// ```
/// # use annals::{DomainEvent, Error, EventData, Meta, Projection, RecordedEvent};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)]
/// # struct Withdrawn { cents: u64 }
/// # impl EventData for Withdrawn {
/// #     fn kind(&self) -> &str { "account.withdrawn" }
/// #     fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
/// #         annals::Raw(self.kind(), self).encode(out)
/// #     }
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
    /// A request to do something.
    type Command;

    /// The reason of a refusal.
    type Error;

    /// Decides about a command. Returns the events that happen, none if nothing happens, or a refusal.
    ///
    /// annals calls it again if an event of the entity came in between. The answer should follow from state
    /// and command alone, and the method should have no other effects. It may read the store and take its
    /// time: other callers that decide about the entity wait at most 50 ms for it.
    ///
    /// # Errors
    ///
    /// A refusal; the caller gets it as [`Refused::Domain`].
    fn decide(&self, command: &Self::Command) -> Result<Vec<Self::Event>, Self::Error>;
}

impl Store {
    /// Lets an aggregate decide about a command, and appends the events it decides on. The append holds all
    /// of them or none, and succeeds only if the entity has no new event.
    ///
    /// If an event came in between, the state folds the new events, and the aggregate decides again. After
    /// 1,000 conflicts the call returns the last conflict. Callers that met a conflict queue by entity. A
    /// turn lasts until the append, at most 50 ms. A thread that executes inside a decision does not queue.
    ///
    /// # Errors
    ///
    /// [`Refused::Domain`] if the aggregate refuses; [`Refused::Store`] with the errors of [`Store::load`]
    /// and [`Append::commit`]. [`ErrorKind::CommitUnknown`] also if the events were appended, but the state
    /// after them cannot be loaded; the text says so.
    ///
    /// # Panics
    ///
    /// A panic in `decide` reaches the caller; nothing was appended.
    pub fn execute<A: Aggregate>(
        &self,
        address: impl TryInto<Coordinate, Error: Into<Error>>,
        command: &A::Command,
    ) -> Result<Executed<A>, Refused<A::Error>> {
        self.execute_with(address, command, |append| append)
    }

    /// As [`Store::execute`], where `with` adds to the append before it is committed.
    ///
    /// `with` may set key, cause, correlation, metadata, tags, occurred-at, context for gates, durability and
    /// conditions. It may add events; they stand before the decided ones in the same append. `with` is called
    /// once for each try.
    ///
    /// An idempotency key makes the command idempotent. If the store knows the key, the call returns the
    /// receipt of its append, and the aggregate decides nothing. The append must have an event of the same
    /// entity. The commands are compared if the append carries one ([`Append::command`]);
    /// [`Store::execute_once`] adds it. Looking up a key is a round trip to the writer.
    ///
    /// ```
    /// # use annals::{Aggregate, DomainEvent, Error, EventData, Meta, Outcome};
    /// # use annals::{Projection, RecordedEvent, Store};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Clone, Default, Serialize, Deserialize)]
    /// # struct Counter { count: u64 }
    /// # struct Counted;
    /// # impl EventData for Counted {
    /// #     fn kind(&self) -> &str { "counter.counted" }
    /// #     fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
    /// #         annals::Raw(self.kind(), &()).encode(out)
    /// #     }
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
    /// let with_key = |append: annals::Append| append.key("req-17").tag("web");
    /// let count = || store.execute_with::<Counter>("counter:1", &(), with_key);
    /// assert_eq!(count().unwrap().outcome(), Outcome::Applied);
    /// let again = count().unwrap();
    /// assert_eq!((again.outcome(), again.count), (Outcome::AlreadyApplied, 1));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// - The errors of [`Store::execute`].
    /// - [`ErrorKind::KeyReused`]: the key belongs to an append that has no event of this entity.
    /// - [`ErrorKind::Busy`]: looking up the key takes longer than the deadline for acknowledgements.
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
            // Looked up after the load: if the key is unknown now, the state holds no event of its append.
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
                // Another caller with the same key was faster, and decided on another state.
                Err(error) if error.kind() == ErrorKind::KeyReused => {
                    let receipt = self.applied_to(entity, keyed)?.ok_or(error)?;
                    return Ok(self.already_applied(entity, receipt, conflicts)?);
                }
                Err(error) => return Err(Refused::Store(error)),
            }
        }
    }

    /// As [`Store::execute`], with an idempotency key and the command in the append.
    ///
    /// If the store knows the key, the call returns the receipt of its append, and the aggregate decides
    /// nothing. The command must then serialize to the same bytes.
    ///
    /// ```
    /// # use annals::{Aggregate, DomainEvent, Error, EventData, Meta, Projection, RecordedEvent};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Clone, Default, Serialize, Deserialize)]
    /// # struct Counter { count: u64 }
    /// # struct Counted;
    /// # impl EventData for Counted {
    /// #     fn kind(&self) -> &str { "counter.counted" }
    /// #     fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
    /// #         annals::Raw(self.kind(), &()).encode(out)
    /// #     }
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
    /// #     fn decide(&self, times: &u64) -> Result<Vec<Counted>, Self::Error> {
    /// #         Ok((0..*times).map(|_| Counted).collect())
    /// #     }
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
    /// The errors of [`Store::execute_with`]; [`ErrorKind::KeyReused`] also if the key belongs to another
    /// command, or to an append without a command.
    pub fn execute_once<A: Aggregate<Command: Serialize>>(
        &self,
        key: impl AsRef<[u8]>,
        address: impl TryInto<Coordinate, Error: Into<Error>>,
        command: &A::Command,
    ) -> Result<Executed<A>, Refused<A::Error>> {
        self.execute_with(address, command, |append| append.key(&key).command(command))
    }

    /// The receipt of the append with this key, if the store knows it. The append must have an event of the
    /// entity.
    fn applied_to(&self, entity: &str, keyed: Option<Keyed>) -> Result<Option<Appended>, Error> {
        let Some(keyed) = keyed else { return Ok(None) };
        let Some(receipt) = self.engine().find_key(keyed)? else { return Ok(None) };
        let first = receipt.first_position().get();
        let last = receipt.position();
        let mut of_append = self.stream(entity);
        of_append.restart(first.saturating_sub(1).into(), last);
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
        let state = self.load(entity).map_err(|error| appended_without_state(&receipt, error))?;
        Ok(Executed { outcome: Outcome::AlreadyApplied, receipt: Some(receipt), conflicts, state })
    }

    fn applied<A: Aggregate>(
        &self,
        before: Loaded<A>,
        entity: &str,
        receipt: Appended,
        conflicts: u32,
    ) -> Result<Executed<A>, Error> {
        // The decided events stand last in the append, so its version is the entity's.
        let state = self.load_after(before, entity, receipt.version());
        let state = state.map_err(|error| appended_without_state(&receipt, error))?;
        Ok(Executed { outcome: Outcome::Applied, receipt: Some(receipt), conflicts, state })
    }

    /// The state at a version that was just appended, without later events.
    fn load_after<A: Aggregate>(
        &self,
        before: Loaded<A>,
        entity: &str,
        version: Version,
    ) -> Result<Loaded<A>, Error> {
        if self.version(entity)? == version {
            // Dropped first: the load copies the state if this caller holds it, too.
            drop(before);
            let now = self.load::<A>(entity)?;
            if now.version() == version {
                return Ok(now);
            }
            return self.load_at(entity, At::Version(version));
        }
        let mut state = A::clone(&before);
        let mut position = before.position();
        for event in self.stream(entity).versions(before.version().get() + 1..=version.get()) {
            let event = event?;
            fold(&mut state, &event)?;
            position = event.position();
        }
        Ok(Loaded::new(state, version, position))
    }
}

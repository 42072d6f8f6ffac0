//! Decisions about the events of a query, of one entity or of many: a dynamic consistency boundary.
//!
//! No lock is held while user code runs. The append carries the condition that no new event matches the
//! query.

use std::fmt;
use std::ops::Deref;

use serde::Serialize;

use crate::engine::{Append, Keyed};
use crate::event::Appended;
use crate::state::projection::{Loaded, Projection, fold};
use crate::store::Store;
use crate::types::{AppendCondition, Error, ErrorKind, Position, Query, Version};

/// The result of a decision, and the state after it. Derefs to the state.
#[derive(Clone)]
pub struct Executed<S> {
    pub(super) outcome: Outcome,
    pub(super) receipt: Option<Appended>,
    pub(super) conflicts: u32,
    pub(super) state: Loaded<S>,
}

/// How a decision ended, if it was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The decided events were appended.
    Applied,
    /// The store already had the append with this key. Nothing was decided or appended.
    AlreadyApplied,
    /// The decision was that nothing happens. Nothing was appended, and the key is not remembered.
    Nothing,
}

impl<S> Executed<S> {
    /// How the decision ended.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The receipt of the decided events, or of the append with the key; `None` if nothing was appended.
    #[must_use]
    pub fn receipt(&self) -> Option<&Appended> {
        self.receipt.as_ref()
    }

    /// How often an event came in between, so that the decision was made again.
    #[must_use]
    pub fn conflicts(&self) -> u32 {
        self.conflicts
    }

    /// The state. After [`Outcome::Applied`] it ends with the decided events, else it is up to date.
    #[must_use]
    pub fn state(&self) -> &Loaded<S> {
        &self.state
    }

    /// Returns the state.
    #[must_use]
    pub fn into_state(self) -> Loaded<S> {
        self.state
    }
}

impl<S> Deref for Executed<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.state
    }
}

/// Leaves out the state, which need not implement `Debug`.
impl<S> fmt::Debug for Executed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executed")
            .field("outcome", &self.outcome)
            .field("receipt", &self.receipt)
            .field("conflicts", &self.conflicts)
            .finish_non_exhaustive()
    }
}

/// Why nothing was decided or appended.
///
/// ```
/// use annals::Refused;
///
/// #[derive(Debug)]
/// struct NotEnough { missing: u64 }
///
/// fn answer(refused: &Refused<NotEnough>) -> String {
///     match refused {
///         Refused::Domain(NotEnough { missing }) => format!("you lack {missing} cents"),
///         Refused::Store(error) => format!("try later: {error}"),
///     }
/// }
/// assert_eq!(answer(&Refused::Domain(NotEnough { missing: 5 })), "you lack 5 cents");
/// ```
#[derive(Clone, Debug)]
pub enum Refused<E> {
    /// The decision refused. Nothing was written.
    Domain(E),
    /// The store failed. [`Error::is_definite`] says whether it is certain that nothing was written.
    Store(Error),
}

impl Store {
    /// Decides about the events of a query, and appends the decided events if no new event matches the query.
    ///
    /// The query is a dynamic consistency boundary: it names the events that the decision rests on, in one
    /// stream or in many. `S` is folded from all of them, from the log. `decide` gets the state, and answers
    /// with an [`Append`], with `None` if nothing is to be done, or with an error of its own.
    ///
    /// If a matching event came in between, the state folds it, and `decide` is called again. After 1,000
    /// conflicts, or after the same conflict twice, the call returns the conflict. No lock is held while user
    /// code runs.
    ///
    /// ```
    /// # use annals::{DomainEvent, Error, EventData, Meta, Projection, RecordedEvent};
    /// # use serde::{Deserialize, Serialize};
    /// # struct Claimed;
    /// # impl EventData for Claimed {
    /// #     fn kind(&self) -> &str { "email.claimed" }
    /// #     fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
    /// #         annals::Raw(self.kind(), &()).encode(out)
    /// #     }
    /// # }
    /// # impl DomainEvent for Claimed {
    /// #     fn knows(kind: &str) -> bool { kind == "email.claimed" }
    /// #     fn from_recorded(_: &RecordedEvent) -> Result<Claimed, Error> { Ok(Claimed) }
    /// # }
    /// use annals::{Append, Query, Refused, Store};
    ///
    /// #[derive(Clone, Default, Serialize, Deserialize)]
    /// struct Taken(bool);
    ///
    /// impl Projection for Taken {
    ///     type Event = Claimed;
    ///     const NAME: &'static str = "email-taken";
    ///     fn apply(&mut self, _: Claimed, _: &Meta<'_>) { self.0 = true; }
    /// }
    ///
    /// let store = Store::in_memory()?;
    /// let claim = |user: &str, email: &str| {
    ///     let tag = format!("email:{email}");
    ///     let claims = Query::all().kind("email.claimed").tag(&tag);
    ///     store.decide(claims, |taken: &Taken| match taken.0 {
    ///         true => Err("this address is taken"),
    ///         false => Ok(Append::to(user).event(&Claimed).tag(&tag)),
    ///     })
    /// };
    /// assert!(claim("user:1", "a@example.com").is_ok());
    /// assert_eq!(claim("user:2", "a@example.com").unwrap_err().domain(), Some(&"this address is taken"));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// - [`Refused::Domain`] with the error of `decide`.
    /// - [`Refused::Store`] with the errors of reading and of [`Append::commit`].
    /// - [`ErrorKind::Invalid`]: the query asks for a correlation, which no condition may.
    /// - [`ErrorKind::CommitUnknown`] also if the events were appended, but the state after them cannot be
    ///   folded.
    pub fn decide<S, R, E>(
        &self,
        query: Query,
        decide: impl FnMut(&S) -> Result<R, E>,
    ) -> Result<Executed<S>, Refused<E>>
    where
        S: Projection,
        R: Into<Option<Append>>,
    {
        self.decide_keyed(None, query, decide)
    }

    /// As [`Store::decide`], with an idempotency key that the decided append carries.
    ///
    /// If the store knows the key, the call returns the receipt of its append, and `decide` is not called.
    /// `command` is the request: all that tells it from another. A second call with the key must give a
    /// command that serializes to the same bytes; see [`Append::command`]. The call does not check whether
    /// the append of the key has an event of this query.
    ///
    /// # Errors
    ///
    /// The errors of [`Store::decide`]; [`ErrorKind::Invalid`] if the key is empty; [`ErrorKind::KeyReused`]
    /// if the key belongs to another command, or to an append without a command.
    pub fn decide_once<C, S, R, E>(
        &self,
        key: impl AsRef<[u8]>,
        command: &C,
        query: Query,
        decide: impl FnMut(&S) -> Result<R, E>,
    ) -> Result<Executed<S>, Refused<E>>
    where
        C: Serialize + ?Sized,
        S: Projection,
        R: Into<Option<Append>>,
    {
        let keyed = Keyed::by(key.as_ref())?.and_by(command)?;
        self.decide_keyed(Some(keyed), query, decide)
    }

    fn decide_keyed<S, R, E>(
        &self,
        keyed: Option<Keyed>,
        query: Query,
        mut decide: impl FnMut(&S) -> Result<R, E>,
    ) -> Result<Executed<S>, Refused<E>>
    where
        S: Projection,
        R: Into<Option<Append>>,
    {
        AppendCondition::none(query.clone()).check()?;
        let subject = query.to_string();
        let mut attempt = self.decision_queue().attempt(&subject);
        let mut boundary = Boundary { store: self, query, state: S::default(), head: Position::START };
        loop {
            boundary.fold_up_to(self.head()?.position())?;
            // Looked up after the fold: if the key is unknown now, the state holds no event of its append.
            if let Some(receipt) = keyed.map(|keyed| self.engine().find_key(keyed)).transpose()?.flatten() {
                return Ok(boundary.already_applied(receipt, attempt.conflicts())?);
            }
            let decided = decide(&boundary.state).map_err(Refused::Domain)?;
            let Some(append) = decided.into() else {
                return Ok(boundary.ended(Outcome::Nothing, None, attempt.conflicts()));
            };
            let append = keyed.into_iter().fold(append, Append::keyed_by);
            match append.condition(boundary.condition()).commit(self) {
                Ok(receipt) if receipt.replayed() => {
                    return Ok(boundary.already_applied(receipt, attempt.conflicts())?);
                }
                Ok(receipt) => return Ok(boundary.applied(receipt, attempt.conflicts())?),
                Err(error) if error.kind() == ErrorKind::Conflict => attempt.retry_after(error)?,
                // Another caller with the same key was faster: the next round finds its append.
                Err(error) if error.kind() == ErrorKind::KeyReused && keyed.is_some() => {
                    attempt.retry_after(error)?
                }
                Err(error) => return Err(Refused::Store(error)),
            }
        }
    }
}

/// The events of a query, folded up to a head.
struct Boundary<'a, S> {
    store: &'a Store,
    query: Query,
    state: S,
    head: Position,
}

impl<S: Projection> Boundary<'_, S> {
    /// Folds the new events up to `head`.
    fn fold_up_to(&mut self, head: Position) -> Result<(), Error> {
        let mut new = self.store.read(self.query.clone());
        new.restart(self.head, head);
        for event in new {
            fold(&mut self.state, &event?)?;
        }
        self.head = head;
        Ok(())
    }

    /// The condition that no event matches after the head.
    fn condition(&self) -> AppendCondition {
        AppendCondition::none(self.query.clone()).after(self.head)
    }

    fn applied(mut self, receipt: Appended, conflicts: u32) -> Result<Executed<S>, Error> {
        self.fold_up_to(receipt.position()).map_err(|error| appended_without_state(&receipt, error))?;
        Ok(self.ended(Outcome::Applied, Some(receipt), conflicts))
    }

    fn already_applied(mut self, receipt: Appended, conflicts: u32) -> Result<Executed<S>, Error> {
        let head = self.store.head().map_err(|error| appended_without_state(&receipt, error))?;
        self.fold_up_to(head.position()).map_err(|error| appended_without_state(&receipt, error))?;
        Ok(self.ended(Outcome::AlreadyApplied, Some(receipt), conflicts))
    }

    fn ended(self, outcome: Outcome, receipt: Option<Appended>, conflicts: u32) -> Executed<S> {
        Executed { outcome, receipt, conflicts, state: Loaded::new(self.state, Version::EMPTY, self.head) }
    }
}

impl<E> Refused<E> {
    /// The decision's own error.
    #[must_use]
    pub fn domain(&self) -> Option<&E> {
        match self {
            Refused::Domain(error) => Some(error),
            Refused::Store(_) => None,
        }
    }

    /// The store's error.
    #[must_use]
    pub fn store(&self) -> Option<&Error> {
        match self {
            Refused::Domain(_) => None,
            Refused::Store(error) => Some(error),
        }
    }
}

impl<E> From<Error> for Refused<E> {
    fn from(error: Error) -> Refused<E> {
        Refused::Store(error)
    }
}

impl<E: fmt::Display> fmt::Display for Refused<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Domain(error) => error.fmt(f),
            Refused::Store(error) => error.fmt(f),
        }
    }
}

/// A domain's error needs only `Debug` and `Display`, so that a text will do. For that, it is not given as
/// the source.
impl<E: fmt::Debug + fmt::Display> std::error::Error for Refused<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Refused::Domain(_) => None,
            Refused::Store(error) => error.source(),
        }
    }
}

/// The error that an append succeeded, but the state after it cannot be loaded.
pub(super) fn appended_without_state(receipt: &Appended, error: Error) -> Error {
    let text = format!(
        "the events were appended, up to position {}, but the state after them cannot be had ({error}); do not repeat this without a key",
        receipt.position()
    );
    Error::with_source(ErrorKind::CommitUnknown, text, error)
}

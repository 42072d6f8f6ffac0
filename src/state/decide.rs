//! Deciding about what a query returns, whichever entities it lies in: a dynamic consistency boundary.
//!
//! Row: app. Uses nothing a user could not use, but for the look-up of keys.

use serde::Serialize;

use crate::engine::{Append, Keyed};
use crate::event::Appended;
use crate::state::aggregate::stateless;
use crate::state::executed::{Executed, Outcome, Refused};
use crate::state::projection::{Loaded, Projection, fold};
use crate::store::Store;
use crate::types::{AppendCondition, Error, ErrorKind, Position, Query, Version};

impl Store {
    /// Decides about the events of a query, and appends what was decided if no new event matches the query: a
    /// dynamic consistency boundary, drawn by what the decision rests on and not by streams.
    ///
    /// `S` is folded from all events of the query, from the log; a query that names kinds reads no others. `decide` gets it, and
    /// answers with an [`Append`], with `None` if nothing is to be done, or with an error of its own. If an event
    /// came in between that matches, the state takes it in, and it is decided again; after 1,000 conflicts, or the same one
    /// twice, the conflict is the answer. No lock is held while user code runs.
    ///
    /// ```
    /// # use annals::{DomainEvent, Error, EventData, Meta, Projection, RecordedEvent};
    /// # use serde::{Deserialize, Serialize};
    /// # struct Claimed;
    /// # impl EventData for Claimed {
    /// #     fn kind(&self) -> &str { "email.claimed" }
    /// #     fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> { annals::Raw(self.kind(), &()).encode(out) }
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
    /// [`Refused::Domain`] is what `decide` says. [`Refused::Store`]: the errors of reading and of [`Append::commit`];
    /// [`ErrorKind::Invalid`] if the query asks for a correlation, which no append can be made to depend on;
    /// [`ErrorKind::CommitUnknown`] also if the events were appended and the state after them cannot be had.
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

    /// [`Store::decide`] with an idempotency key. If the key is known, its append is answered, and nothing is
    /// decided; what was decided is appended with it. `command` is what is asked for: all that tells this
    /// request from another. When the key comes again it must be the same, as it serializes; see
    /// [`Append::command`].
    ///
    /// # Errors
    ///
    /// As [`Store::decide`]; [`ErrorKind::Invalid`] if the key is empty; [`ErrorKind::KeyReused`] if it
    /// belongs to another command, or to an append that was made without one.
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
            boundary.fold_on()?;
            // After the state was folded: if the key is new even then, the state holds nothing of it.
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
                // Somebody was quicker with the same key: it is found in the next round.
                Err(error) if error.kind() == ErrorKind::KeyReused && keyed.is_some() => {
                    attempt.retry_after(error)?
                }
                Err(error) => return Err(Refused::Store(error)),
            }
        }
    }
}

/// What a query returned, folded up to a head.
struct Boundary<'a, S> {
    store: &'a Store,
    query: Query,
    state: S,
    head: Position,
}

impl<S: Projection> Boundary<'_, S> {
    /// Takes in what is new.
    fn fold_on(&mut self) -> Result<(), Error> {
        self.fold_up_to(self.store.head()?.position())
    }

    fn fold_up_to(&mut self, head: Position) -> Result<(), Error> {
        let mut new = self.store.read(self.query.clone());
        new.again(self.head, head);
        for event in new {
            fold(&mut self.state, &event?)?;
        }
        self.head = head;
        Ok(())
    }

    /// That nothing came since.
    fn condition(&self) -> AppendCondition {
        AppendCondition::none(self.query.clone()).after(self.head)
    }

    fn applied(mut self, receipt: Appended, conflicts: u32) -> Result<Executed<S>, Error> {
        self.fold_up_to(receipt.position()).map_err(|error| stateless(&receipt, error))?;
        Ok(self.ended(Outcome::Applied, Some(receipt), conflicts))
    }

    fn already_applied(mut self, receipt: Appended, conflicts: u32) -> Result<Executed<S>, Error> {
        self.fold_on().map_err(|error| stateless(&receipt, error))?;
        Ok(self.ended(Outcome::AlreadyApplied, Some(receipt), conflicts))
    }

    fn ended(self, outcome: Outcome, receipt: Option<Appended>, conflicts: u32) -> Executed<S> {
        Executed { outcome, receipt, conflicts, state: Loaded::new(self.state, Version::EMPTY, self.head) }
    }
}

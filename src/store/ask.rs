//! The facade's questions: what the index knows, and what brought an event about.
//!
//! Row: store. No logic lives here.

use crate::event::RecordedEvent;
use crate::index::NameField;
use crate::read::{Ancestors, Descendants, Listing, Story, causality, reader, story};
use crate::types::{Error, EventId, Position, Query};

use super::Store;

/// Questions that the index answers.
impl Store {
    /// How many events a query matches.
    ///
    /// Reads no event, save one for each correlation asked for. One thing asked (an entity, a kind,
    /// a tag) costs the same however many events there are; several things at once, or queries
    /// joined by [`Query::or`], cost in proportion to the rarest of them.
    ///
    /// ```
    /// use annals::{Query, Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// store.append("order:1", &Raw("order.placed", &()))?;
    /// store.append("order:2", &Raw("order.placed", &()))?;
    /// store.append("order:1", &Raw("order.paid", &()))?;
    /// assert_eq!(store.count(Query::all().kind("order.placed"))?, 2);
    /// assert_eq!(store.count(Query::entity("order:1").kind("order.shipped"))?, 0);
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed); for a correlation also what
    /// [`Store::get`] gives.
    pub fn count(&self, query: Query) -> Result<u64, Error> {
        let snapshot = self.engine().snapshot()?;
        reader::count_in(&snapshot, &query, Position::START, snapshot.head.position)
    }

    /// The newest event a query matches; reads that one event.
    ///
    /// It answers the newest match or `None`, never a match that is older or wider.
    ///
    /// ```
    /// use annals::{Query, Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// store.append("order:1", &Raw("order.placed", &"a book"))?;
    /// store.append("order:1", &Raw("order.paid", &20))?;
    /// let last = store.last(Query::entity("order:1"))?.unwrap();
    /// assert_eq!(last.kind(), "order.paid");
    /// assert!(store.last(Query::entity("order:1").kind("order.shipped"))?.is_none());
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    pub fn last(&self, query: Query) -> Result<Option<RecordedEvent>, Error> {
        reader::last(&self.engine().snapshot()?, &query)
    }

    /// Whether any event matches a query. Reads no event, save one for each correlation asked for.
    ///
    /// To append only if there is none, this is not enough: another append may come in between.
    ///
    /// ```
    /// use annals::{Query, Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// store.append("user:1", &Raw("user.registered", &"alice@example.org"))?;
    /// assert!(store.exists(Query::entity("user:1"))?);
    /// assert!(!store.exists(Query::entity("user:2"))?);
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Store::count`].
    pub fn exists(&self, query: Query) -> Result<bool, Error> {
        reader::exists(&self.engine().snapshot()?, &query)
    }

    /// The entities there are, with the number of events of each and where they begin and end.
    ///
    /// ```
    /// use annals::{Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// store.append("order:1", &Raw("order.placed", &()))?;
    /// store.append("order:1", &Raw("order.paid", &()))?;
    /// let order = store.entities().next().unwrap()?;
    /// assert_eq!((order.name.as_str(), order.events, order.last.get()), ("order:1", 2, 2));
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn entities(&self) -> Listing {
        Listing::new(self.engine().readable(), NameField::Entity)
    }

    /// The scopes there are, as [`Store::entities`]. Events that name none are in `default`.
    ///
    /// ```
    /// use annals::{Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// store.append("order:1", &Raw("order.placed", &()))?;
    /// store.append(("order:2", "tenant:acme"), &Raw("order.placed", &()))?;
    /// let names: Vec<String> = store.scopes().map(|scope| Ok(scope?.name)).collect::<Result<_, annals::Error>>()?;
    /// assert_eq!(names, ["default", "tenant:acme"]);
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn scopes(&self) -> Listing {
        Listing::new(self.engine().readable(), NameField::Scope)
    }

    /// The kinds there are, as [`Store::entities`].
    ///
    /// ```
    /// use annals::{Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// store.append("order:1", &Raw("order.placed", &()))?;
    /// store.append("order:2", &Raw("order.placed", &()))?;
    /// let placed = store.kinds().prefix("order.").next().unwrap()?;
    /// assert_eq!((placed.name.as_str(), placed.events), ("order.placed", 2));
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn kinds(&self) -> Listing {
        Listing::new(self.engine().readable(), NameField::Kind)
    }

    /// The tags there are, as [`Store::entities`].
    ///
    /// ```
    /// use annals::{Append, Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// Append::to("course:1").event(&Raw("student.enrolled", &())).tag("student:7").commit(&store)?;
    /// assert_eq!(store.tags().next().unwrap()?.name, "student:7");
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn tags(&self) -> Listing {
        Listing::new(self.engine().readable(), NameField::Tag)
    }
}

/// Questions about causes.
impl Store {
    /// What brought an event about, nearest first; nothing if there is no event with this id.
    pub fn ancestors(&self, id: EventId) -> Ancestors {
        Ancestors::new(self.engine().readable(), id)
    }

    /// What an event brought about, near and far, in order of position; nothing if there is no event
    /// with this id. The cost is that of the events returned, times the segments read for each.
    pub fn descendants(&self, id: EventId) -> Descendants {
        Descendants::new(self.engine().readable(), id)
    }

    /// Everything that belongs to a correlation, as a tree by cause: at most the first 10,000 events.
    /// [`Story::is_cut`] is true if there are more. A story without events if there are none.
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    pub fn story(&self, correlation: EventId) -> Result<Story, Error> {
        self.story_limited(correlation, story::EVENTS_MAX)
    }

    /// As [`Store::story`], with at most this many events. They are all kept in memory, with the
    /// blocks they were read in.
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    pub fn story_limited(&self, correlation: EventId, events: u64) -> Result<Story, Error> {
        Story::read(self.engine().readable(), correlation, events)
    }

    /// An event with its causes in the same entity, oldest first: for an entity whose events
    /// branch, the way from its root to this leaf. Empty if there is no event with this id.
    ///
    /// An event says with [`Cause::Event`](crate::Cause::Event) which one it goes on from, by the
    /// id the store gave to that one or the id it brought along. The path ends before a cause of
    /// another entity.
    ///
    /// ```
    /// use annals::{Append, Cause, Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// let say = |text: &str, parent: Option<annals::EventId>| {
    ///     let append = Append::to("chat:1").event(&Raw("said", &text));
    ///     let append = parent.into_iter().map(Cause::Event).fold(append, Append::cause);
    ///     append.commit(&store).map(|receipt| receipt.ids().next().unwrap())
    /// };
    /// let question = say("question", None)?;
    /// say("an answer", Some(question))?;
    /// let other = say("another answer", Some(question))?;
    /// let path = store.path(other)?;
    /// let texts: Vec<&str> = path.iter().map(|event| event.decode()).collect::<Result<_, _>>()?;
    /// assert_eq!(texts, ["question", "another answer"]);
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    pub fn path(&self, leaf: EventId) -> Result<Vec<RecordedEvent>, Error> {
        causality::path(self.engine().readable(), leaf)
    }

    /// The ids of an entity's leaves, oldest first: the events that no other event of the entity names as its cause. Of a
    /// conversation that was taken up again at earlier points they are the ends of its branches, and [`Store::path`] leads
    /// to each.
    ///
    /// An event that says no cause goes on from nothing, not from the one before it; say
    /// [`Cause::PreviousInStream`](crate::Cause::PreviousInStream) where it does. Reads the entity's events once, and looks up the cause of each;
    /// remembers a place for each branch.
    ///
    /// ```
    /// use annals::{Append, Cause, EventId, Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// let say = |text: &str, cause: Cause| -> Result<EventId, annals::Error> {
    ///     let receipt = Append::to("chat:1").event(&Raw("said", &text)).cause(cause).commit(&store)?;
    ///     Ok(receipt.ids().next().unwrap())
    /// };
    /// let question = say("question", Cause::PreviousInStream)?;
    /// let answer = say("answer", Cause::PreviousInStream)?;
    /// let other = say("another answer", Cause::Event(question))?;
    /// let thanks = say("thanks", Cause::PreviousInStream)?;
    /// assert_eq!(store.leaves("chat:1")?, [answer, thanks]);
    /// let path = store.path(thanks)?;
    /// assert_eq!(path.iter().map(|event| event.id()).collect::<Vec<_>>(), [question, other, thanks]);
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    pub fn leaves(&self, entity: &str) -> Result<Vec<EventId>, Error> {
        causality::leaves(self.engine().readable(), entity)
    }
}

//! Queries of the facade that the index or the causality of events answers.

use crate::event::RecordedEvent;
use crate::index::NameField;
use crate::read::{Ancestors, Descendants, Listing, Story, causality, reader, story};
use crate::types::{Error, EventId, Position, Query};

use super::Store;

/// Questions that the index answers.
impl Store {
    /// How many events a query matches.
    ///
    /// Reads no event, save one for each correlation in the query. A query for one term (an entity, a kind, a
    /// tag) costs the same for any number of events. Several terms, or queries joined by [`Query::or`], cost
    /// in proportion to the rarest term.
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
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed); for a correlation also the errors of [`Store::get`].
    pub fn count(&self, query: Query) -> Result<u64, Error> {
        let snapshot = self.engine().snapshot()?;
        reader::count_in(&snapshot, &query, Position::START, snapshot.head.position)
    }

    /// The newest event a query matches, or `None`. Reads only that event.
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

    /// Whether any event matches a query. Reads no event, save one for each correlation in the query.
    ///
    /// Another append may come between the answer and the caller's own append. To append only if there is no
    /// match, use [`AppendCondition`](crate::AppendCondition).
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

    /// All entities, each with its number of events and its first and last position.
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

    /// All scopes, as [`Store::entities`]. Events without a scope are in `default`.
    ///
    /// ```
    /// use annals::{Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// store.append("order:1", &Raw("order.placed", &()))?;
    /// store.append(("order:2", "tenant:acme"), &Raw("order.placed", &()))?;
    /// let names = store.scopes().map(|scope| Ok(scope?.name));
    /// let names: Vec<String> = names.collect::<Result<_, annals::Error>>()?;
    /// assert_eq!(names, ["default", "tenant:acme"]);
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn scopes(&self) -> Listing {
        Listing::new(self.engine().readable(), NameField::Scope)
    }

    /// All kinds, as [`Store::entities`].
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

    /// All tags, as [`Store::entities`].
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

/// Queries by cause and correlation.
impl Store {
    /// The causes of an event, nearest first. Empty if no event has this id.
    pub fn ancestors(&self, id: EventId) -> Ancestors {
        Ancestors::new(self.engine().readable(), id)
    }

    /// The events that an event caused, directly or through others, in order of position. Empty if no event
    /// has this id.
    ///
    /// Costs the returned events, times the segments asked for each.
    pub fn descendants(&self, id: EventId) -> Descendants {
        Descendants::new(self.engine().readable(), id)
    }

    /// The events of a correlation as a tree by cause, at most the first 10,000; [`Story::is_cut`] says if
    /// there are more. Without events the story is empty.
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    pub fn story(&self, correlation: EventId) -> Result<Story, Error> {
        self.story_limited(correlation, story::EVENTS_MAX)
    }

    /// As [`Store::story`], with at most this many events. All of them stay in memory, with the blocks they
    /// were read in.
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    pub fn story_limited(&self, correlation: EventId, events: u64) -> Result<Story, Error> {
        Story::read(self.engine().readable(), correlation, events)
    }

    /// An event with its causes in the same entity, oldest first. In an entity whose events branch, this is
    /// the way from the root to one leaf. Empty if no event has this id.
    ///
    /// An event names its cause with [`Cause::Event`](crate::Cause::Event), by the id that the store gave or
    /// by the foreign id. The path ends before a cause in another entity.
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

    /// The ids of an entity's leaves, oldest first: the events that no other event of the entity names as its
    /// cause. In a conversation that was continued from earlier points, the leaves are the ends of the
    /// branches. [`Store::path`] leads to each. Events that cause one another in a circle have no leaf.
    ///
    /// An event without a cause continues nothing, not even the event before it. Say
    /// [`Cause::PreviousInStream`](crate::Cause::PreviousInStream) where it does. Reads the entity's events
    /// once, and looks up the cause of each.
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

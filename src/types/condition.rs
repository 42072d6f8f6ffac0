//! What must still hold when an append is decided: no new event that a query matches.
//!
//! Row: words.

use crate::types::error::Error;
use crate::types::query::Query;
use crate::types::version::Position;

/// "No event matches this query after this position": the consistency boundary of a decision that
/// was made from the events of a query, whichever streams they lie in.
///
/// Read what the decision rests on, note the head *before* reading, decide, and append under the
/// condition that nothing new matches. If something does, the append is a
/// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict): read on from `after`, and decide again.
/// Without [`AppendCondition::after`] the query must match no event at all.
///
/// The condition of DCB stores ("dynamic consistency boundary", Sara Pellegrini and others,
/// <https://dcb.events>).
///
/// ```
/// use annals::{Append, AppendCondition, ErrorKind, Query, Raw, Store};
///
/// let store = Store::in_memory()?;
/// let claim = |user: &str| {
///     let taken = Query::all().kind("email.claimed").tag("email:a@example.com");
///     Append::to(user)
///         .event(&Raw("email.claimed", &"a@example.com"))
///         .tag("email:a@example.com")
///         .condition(AppendCondition::none(taken))
///         .commit(&store)
/// };
/// claim("user:1")?;
/// let refused = claim("user:2").unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::Conflict);
/// assert_eq!(refused.failed_condition().unwrap().first_match.get(), 1);
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendCondition {
    pub(crate) query: Query,
    pub(crate) after: Position,
}

impl AppendCondition {
    /// No event matches the query. It may ask for entities, prefixes, scopes, kinds and tags, joined by
    /// [`Query::or`], but not for a correlation.
    #[must_use]
    pub fn none(query: Query) -> AppendCondition {
        AppendCondition { query, after: Position::START }
    }

    /// Only events after this position count: the head before the decision's events were read.
    /// One that the log does not have when the append is decided is of another history:
    /// [`ErrorKind::RolledBack`](crate::ErrorKind::RolledBack).
    #[must_use]
    pub fn after(self, position: Position) -> AppendCondition {
        AppendCondition { after: position, ..self }
    }

    /// That it can be decided: what an event is correlated with may be its own id, which no index holds.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.query.asks_correlation() {
            return Err(Error::invalid(
                "a condition cannot ask for a correlation; ask for entities, scopes, kinds or tags",
            ));
        }
        Ok(())
    }
}

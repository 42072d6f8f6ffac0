//! Whether one event matches a query: what the index answers for many, asked of one.
//!
//! Row: bytes. Tested against the index by tests/it/model.rs.

use crate::format::{Frame, Record, records, tags};
use crate::types::{EventId, Item, Name, Position, Query, SYSTEM_SCOPE};

/// Whether an event matches. Whether it belongs to a correlation is asked only if the query names one: where
/// the event names none, the first event of its append must be looked at.
pub(crate) fn matches(query: &Query, record: &Record<'_>, belongs: impl Fn(EventId) -> bool) -> bool {
    query.items.iter().any(|item| matches_item(item, record, &belongs))
}

/// Whether an event belongs to a correlation: it names that one, or names none, and the first event of its
/// append has this id, derived or brought along.
pub(crate) fn belongs_to(id: EventId, record: &Record<'_>, first: impl FnOnce() -> Ids) -> bool {
    match record.correlation() {
        Some(correlation) => correlation == id,
        None => {
            let Ids { derived, brought } = first();
            derived == id || brought == Some(id)
        }
    }
}

/// The ids of an event.
pub(crate) struct Ids {
    pub(crate) derived: EventId,
    pub(crate) brought: Option<EventId>,
}

impl Ids {
    /// Those of the first event of an append, which stands at `first`.
    pub(crate) fn of_first(frame: &Frame<'_>, first: Position) -> Ids {
        let record = records(frame.body, frame.header.events()).next().and_then(Result::ok);
        Ids { derived: frame.header.event_id(first), brought: record.and_then(|record| record.foreign_id()) }
    }
}

fn matches_item(item: &Item, record: &Record<'_>, belongs: &impl Fn(EventId) -> bool) -> bool {
    let entity = match &item.entity {
        Some(Name::Is(entity)) => record.entity() == entity,
        Some(Name::StartsWith(prefix)) => record.entity().starts_with(prefix.as_str()),
        None => true,
    };
    entity
        && !(item.passes_over_system() && record.scope_or_default() == SYSTEM_SCOPE)
        && item.scope.as_deref().is_none_or(|scope| record.scope_or_default() == scope)
        && (item.kinds.is_empty() || item.kinds.iter().any(|kind| record.kind() == kind))
        && item.kind_prefix.as_deref().is_none_or(|prefix| record.kind().starts_with(prefix))
        && item.tags.iter().all(|tag| tags(record.tag_bytes()).any(|own| own == tag))
        && item.correlation.is_none_or(belongs)
}

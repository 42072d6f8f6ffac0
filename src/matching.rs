//! Whether one event matches a query: what the index answers for many, asked of one.
//!
//! Row: bytes. Tested against the index by tests/it/model.rs.

use crate::coordinate::SYSTEM_SCOPE;
use crate::event::EventId;
use crate::format::record::{Record, tags};
use crate::query::{Item, Name, Query};

/// Whether an event matches. Its correlation is asked for only if the query names one: it costs a
/// hash where the event has none of its own.
pub(crate) fn matches(query: &Query, record: &Record<'_>, correlation: impl Fn() -> EventId) -> bool {
    query.items.iter().any(|item| matches_item(item, record, &correlation))
}

fn matches_item(item: &Item, record: &Record<'_>, correlation: &impl Fn() -> EventId) -> bool {
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
        && item.correlation.is_none_or(|id| correlation() == id)
}

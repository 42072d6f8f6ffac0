//! Queries: conditions on entity, scope, kinds, tags and correlation of events.
//!
//! A query is plain data. The room `index` answers it for many events, `event/recorded.rs` for one.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::types::text::visible;
use crate::types::version::EventId;

/// The conditions that an event must meet.
///
/// Start with a constructor, then add conditions: an event must meet all of them. [`Query::or`] joins whole
/// queries. Names are compared for equality, so `entity("user:1")` never matches `user:10`. Only the methods
/// with `prefix` in their names compare the beginning of a name.
///
/// ```
/// use annals::Query;
///
/// let orders = Query::entity_prefix("order:").scope("tenant:acme");
/// let open_orders = orders.kinds(["order.placed", "order.paid"]);
/// let one_student = Query::all().tag("student:7").tag("course:math");
/// let both = open_orders.or(one_student);
/// # let _ = both;
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Joined by "or". Without an item, no event matches.
    pub(crate) items: Vec<Item>,
}

/// Conditions that must all hold. An empty or `None` field is no condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Item {
    pub(crate) entity: Option<Name>,
    pub(crate) scope: Option<String>,
    /// One of these kinds.
    pub(crate) kinds: Vec<String>,
    pub(crate) kind_prefix: Option<String>,
    /// All of these tags.
    pub(crate) tags: Vec<String>,
    pub(crate) correlation: Option<EventId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Name {
    Is(String),
    StartsWith(String),
}

/// The cost of answering a query from posting lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// In proportion to the events found.
    Take,
    /// In proportion to the shortest of some lists.
    Compare,
    /// One list for each name with the prefix.
    ManyLists,
}

impl Query {
    /// Matches all events except the store's own, whose entities begin with `$` (the records of consumers,
    /// for one). A query matches those only if it names something that begins with `$`: `entity_prefix("$")`
    /// matches all of them.
    #[must_use]
    pub fn all() -> Query {
        Query { items: vec![Item::default()] }
    }

    /// Matches the events of one entity, which are its stream.
    #[must_use]
    pub fn entity(entity: impl Into<String>) -> Query {
        Query::item(Item { entity: Some(Name::Is(entity.into())), ..Item::default() })
    }

    /// Matches the events of all entities whose names begin with `prefix`.
    ///
    /// It costs a look-up for each such entity in each segment that is read. The first prefix query of a
    /// segment also sorts its names.
    #[must_use]
    pub fn entity_prefix(prefix: impl Into<String>) -> Query {
        Query::item(Item { entity: Some(Name::StartsWith(prefix.into())), ..Item::default() })
    }

    /// Matches the events of one correlation: all effects of one request.
    #[must_use]
    pub fn correlation(id: impl Into<EventId>) -> Query {
        Query::item(Item { correlation: Some(id.into()), ..Item::default() })
    }

    fn item(item: Item) -> Query {
        Query { items: vec![item] }
    }

    /// Adds the condition that the event is in this scope.
    #[must_use]
    pub fn scope(self, scope: impl Into<String>) -> Query {
        let scope = scope.into();
        self.narrow(|item| match &item.scope {
            Some(other) if *other != scope => false,
            _ => {
                item.scope = Some(scope.clone());
                true
            }
        })
    }

    /// Adds the condition that the event is of this kind.
    #[must_use]
    pub fn kind(self, kind: impl Into<String>) -> Query {
        self.kinds([kind])
    }

    /// Adds the condition that the event is of one of these kinds. With no kinds, no event matches.
    #[must_use]
    pub fn kinds<K: Into<String>>(self, kinds: impl IntoIterator<Item = K>) -> Query {
        let kinds: Vec<String> = kinds.into_iter().map(Into::into).collect();
        self.narrow(|item| {
            if item.kinds.is_empty() {
                item.kinds.clone_from(&kinds);
            } else {
                item.kinds.retain(|kind| kinds.contains(kind));
            }
            !item.kinds.is_empty()
        })
    }

    /// Adds the condition that the event's kind begins with `prefix`: `kind_prefix("order.")`.
    #[must_use]
    pub fn kind_prefix(self, prefix: impl Into<String>) -> Query {
        let prefix = prefix.into();
        self.narrow(|item| match &item.kind_prefix {
            Some(longer) if longer.starts_with(&prefix) => true,
            Some(shorter) if !prefix.starts_with(shorter) => false,
            _ => {
                item.kind_prefix = Some(prefix.clone());
                true
            }
        })
    }

    /// Adds the condition that the event has this tag. Call it again for more tags: an event must have all.
    #[must_use]
    pub fn tag(self, tag: impl Into<String>) -> Query {
        let tag = tag.into();
        self.narrow(|item| {
            item.tags.push(tag.clone());
            true
        })
    }

    /// Matches the events that either query matches. An event that both match is returned once.
    #[must_use]
    pub fn or(mut self, other: Query) -> Query {
        self.items.extend(other.items);
        self
    }

    /// Changes each item, and drops the items that can no longer match an event.
    fn narrow(mut self, mut keeps: impl FnMut(&mut Item) -> bool) -> Query {
        self.items.retain_mut(|item| keeps(item));
        self
    }

    pub(crate) fn asks_correlation(&self) -> bool {
        self.items.iter().any(|item| item.correlation.is_some())
    }

    /// Whether the query matches all events except the store's own.
    pub(crate) fn asks_nothing(&self) -> bool {
        matches!(self.items.as_slice(), [item] if item.conditions() == 0)
    }

    /// The cost of answering the query from posting lists.
    pub(crate) fn effort(&self) -> Effort {
        if self.items.iter().any(Item::has_prefix) {
            Effort::ManyLists
        } else if self.items.iter().any(|item| item.conditions() > 1) {
            Effort::Compare
        } else {
            Effort::Take
        }
    }

    /// The entity, if the query asks for one whole stream.
    pub(crate) fn single_stream(&self) -> Option<&str> {
        match self.items.as_slice() {
            [
                Item {
                    entity: Some(Name::Is(entity)),
                    scope: None,
                    kinds,
                    kind_prefix: None,
                    tags,
                    correlation: None,
                },
            ] if kinds.is_empty() && tags.is_empty() => Some(entity),
            _ => None,
        }
    }
}

/// Prints the query for messages.
impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.items.is_empty() {
            return f.write_str("nothing");
        }
        for (number, item) in self.items.iter().enumerate() {
            if number > 0 {
                f.write_str(" or ")?;
            }
            item.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        match &self.entity {
            Some(Name::Is(entity)) => parts.push(format!("entity {entity}")),
            Some(Name::StartsWith(prefix)) => parts.push(format!("entity {prefix}*")),
            None => {}
        }
        parts.extend(self.scope.iter().map(|scope| format!("scope {scope}")));
        if !self.kinds.is_empty() {
            parts.push(format!("kind {}", self.kinds.join("|")));
        }
        parts.extend(self.kind_prefix.iter().map(|prefix| format!("kind {prefix}*")));
        parts.extend(self.tags.iter().map(|tag| format!("tag {tag}")));
        parts.extend(self.correlation.iter().map(|id| format!("correlation {id}")));
        if parts.is_empty() { f.write_str("every event") } else { f.write_str(&visible(&parts.join(", "))) }
    }
}

impl Item {
    /// Whether the item names no entity, kind, scope or tag. Such an item would match the store's own events,
    /// and must leave them out.
    pub(crate) fn passes_over_system(&self) -> bool {
        let names_entity = match &self.entity {
            Some(Name::Is(_)) => true,
            Some(Name::StartsWith(prefix)) => !prefix.is_empty(),
            None => false,
        };
        let names_kind =
            !self.kinds.is_empty() || self.kind_prefix.as_ref().is_some_and(|kind| !kind.is_empty());
        !names_entity && !names_kind && self.scope.is_none() && self.tags.is_empty()
    }

    /// Whether the item names an entity, scope or kind of the store's own events.
    pub(crate) fn names_system(&self) -> bool {
        let entity = self.entity.iter().map(|name| match name {
            Name::Is(entity) | Name::StartsWith(entity) => entity,
        });
        let mut names = entity.chain(&self.scope).chain(&self.kinds).chain(&self.kind_prefix);
        names.any(|name| name.starts_with('$'))
    }

    /// The number of conditions.
    pub(crate) fn conditions(&self) -> usize {
        let single = [
            self.entity.is_some(),
            self.scope.is_some(),
            !self.kinds.is_empty(),
            self.kind_prefix.is_some(),
            self.correlation.is_some(),
        ];
        single.into_iter().filter(|asked| *asked).count() + self.tags.len()
    }

    fn has_prefix(&self) -> bool {
        matches!(self.entity, Some(Name::StartsWith(_))) || self.kind_prefix.is_some()
    }
}

//! Which events: entity, scope, kinds, tags and correlation.
//!
//! A query is data. The index answers it for many events (`index/`), `matching.rs` for one; nothing
//! here touches a store.
//! Row: words.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::types::event_id::EventId;
use crate::types::text::visible;

/// Which events to read.
///
/// Start with what names the events best, then narrow: every further call must hold as well.
/// [`Query::or`] joins whole queries. Names are compared for equality; only
/// [`Query::entity_prefix`] looks at beginnings, so `entity("user:1")` never finds `user:10`.
///
/// ```
/// use annals::Query;
///
/// let open_orders = Query::entity_prefix("order:").scope("tenant:acme").kinds(["order.placed", "order.paid"]);
/// let one_student = Query::all().tag("student:7").tag("course:math");
/// let both = open_orders.or(one_student);
/// # let _ = both;
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Joined by "or"; without any, nothing matches.
    pub(crate) items: Vec<Item>,
}

/// Everything in an item must hold; what is empty or `None` asks nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Item {
    pub(crate) entity: Option<Name>,
    pub(crate) scope: Option<String>,
    /// Any of these.
    pub(crate) kinds: Vec<String>,
    pub(crate) kind_prefix: Option<String>,
    /// All of these.
    pub(crate) tags: Vec<String>,
    pub(crate) correlation: Option<EventId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Name {
    Is(String),
    StartsWith(String),
}

/// What answering a query from posting lists costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// What it finds.
    Take,
    /// The shortest of some lists.
    Compare,
    /// As many lists as there are names, each time it is asked.
    ManyLists,
}

impl Query {
    /// Every event, save the store's own: those of entities that begin with `$` (checkpoints of
    /// consumers, for one). They come only to a query that names something that begins so:
    /// `entity_prefix("$")` finds them all.
    #[must_use]
    pub fn all() -> Query {
        Query { items: vec![Item::default()] }
    }

    /// The events of one entity: its stream.
    #[must_use]
    pub fn entity(entity: impl Into<String>) -> Query {
        Query::item(Item { entity: Some(Name::Is(entity.into())), ..Item::default() })
    }

    /// The events of all entities whose name begins so.
    ///
    /// Costs a look-up per such entity, in each segment that is entered; the first prefix asked of a
    /// segment also sorts its names.
    #[must_use]
    pub fn entity_prefix(prefix: impl Into<String>) -> Query {
        Query::item(Item { entity: Some(Name::StartsWith(prefix.into())), ..Item::default() })
    }

    /// The events of one correlation: everything one request brought about.
    #[must_use]
    pub fn correlation(id: impl Into<EventId>) -> Query {
        Query::item(Item { correlation: Some(id.into()), ..Item::default() })
    }

    fn item(item: Item) -> Query {
        Query { items: vec![item] }
    }

    /// Only in this scope.
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

    /// Only of this kind.
    #[must_use]
    pub fn kind(self, kind: impl Into<String>) -> Query {
        self.kinds([kind])
    }

    /// Only of one of these kinds. No kinds at all match nothing.
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

    /// Only of kinds that begin so: `kind_prefix("order.")`.
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

    /// Only if it carries this tag; ask again for more tags, and all must be there.
    #[must_use]
    pub fn tag(self, tag: impl Into<String>) -> Query {
        let tag = tag.into();
        self.narrow(|item| {
            item.tags.push(tag.clone());
            true
        })
    }

    /// What either query matches; an event that both match comes once.
    #[must_use]
    pub fn or(mut self, other: Query) -> Query {
        self.items.extend(other.items);
        self
    }

    /// Changes every item, and drops those that can no longer match anything.
    fn narrow(mut self, mut keeps: impl FnMut(&mut Item) -> bool) -> Query {
        self.items.retain_mut(|item| keeps(item));
        self
    }

    pub(crate) fn asks_correlation(&self) -> bool {
        self.items.iter().any(|item| item.correlation.is_some())
    }

    /// Whether it finds all events but the store's own.
    pub(crate) fn asks_nothing(&self) -> bool {
        matches!(self.items.as_slice(), [item] if item.conditions() == 0)
    }

    /// What it costs to answer it from posting lists.
    pub(crate) fn effort(&self) -> Effort {
        if self.items.iter().any(Item::has_prefix) {
            Effort::ManyLists
        } else if self.items.iter().any(|item| item.conditions() > 1) {
            Effort::Compare
        } else {
            Effort::Take
        }
    }

    /// The entity, if the query asks for one stream and nothing else.
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

/// For messages: what is asked for, as people would say it.
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
    /// Whether it names nothing that events of the store's own never carry: then it would find them, and must
    /// pass over them. (Their scopes and kinds begin with `$`, and they have no tags.)
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

    /// Whether it names what only events of the store's own carry.
    pub(crate) fn names_system(&self) -> bool {
        let entity = self.entity.iter().map(|name| match name {
            Name::Is(entity) | Name::StartsWith(entity) => entity,
        });
        let mut names = entity.chain(&self.scope).chain(&self.kinds).chain(&self.kind_prefix);
        names.any(|name| name.starts_with('$'))
    }

    /// How many things it asks.
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

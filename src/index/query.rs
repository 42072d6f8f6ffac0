//! Resolves queries and listings from the posting lists of one segment.

use std::ops::{ControlFlow, Range};

use crate::format::KEY_BYTES;
use crate::types::{Error, EventId, Item, Name, Query, SYSTEM_SCOPE, to_u64};

use super::postings::{Direction, EventLocation, GappedSequence, Jumps, PostingCursor, PostingList};

/// A field of an event whose values are indexed as names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameField {
    Entity,
    Scope,
    Kind,
    Tag,
}

/// The posting lists of one segment. Each of the two forms of an index provides them.
pub(super) trait PostingLists {
    type List<'a>: PostingList
    where
        Self: 'a;
    type Versions<'a>: Jumps
    where
        Self: 'a;
    type Ordinals: Jumps;

    /// The postings of a name; an empty list, if no event carries it.
    fn named(&self, field: NameField, name: &str) -> Self::List<'_>;

    /// The events that name this correlation, or share it within one append.
    fn correlated(&self, id: EventId) -> Self::List<'_>;

    /// The events that name this id as their cause.
    fn effects(&self, id: EventId) -> Self::List<'_>;

    /// The events whose cause is the one before them in their stream.
    fn followers(&self) -> Self::List<'_>;

    /// The first event that was imported with this id.
    fn first_foreign(&self, id: EventId) -> Option<u32>;

    /// The first event of the last append with this idempotency key.
    fn first_with_key(&self, key: &[u8; KEY_BYTES]) -> Option<u32>;

    /// The versions of an entity and their ordinals, slot by slot.
    fn stream(&self, entity: &str) -> Option<(GappedSequence<Self::Versions<'_>>, Self::List<'_>)>;

    /// Visits, in order, the names that begin with `prefix` and come after `after`, until `visit` breaks.
    fn visit<'a>(
        &'a self,
        field: NameField,
        prefix: &str,
        after: Option<&str>,
        visit: &mut dyn FnMut(&str, Self::List<'a>) -> ControlFlow<()>,
    );

    /// The ordinals of all events.
    fn ordinals(&self) -> &GappedSequence<Self::Ordinals>;

    /// The location of the event at a slot of the ordinals; `None` behind the last.
    fn locate_slot(&self, slot: usize) -> Result<Option<EventLocation>, Error>;

    /// The locations of the events at these ordinals, which come in order, from either end.
    fn locate_all(&self, ordinals: impl Iterator<Item = u32>) -> Result<Vec<EventLocation>, Error>;
}

/// Converts back what was an ordinal before.
pub(super) fn to_ordinal(number: u64) -> u32 {
    u32::try_from(number).expect("the walk over a segment checked that its ordinals fit 32 bits")
}

/// Resolves queries in one segment: in a window of ordinals, in one direction.
pub(super) struct SegmentQuery<'a, 'q, L, O> {
    lists: &'a L,
    window: &'q Range<u32>,
    direction: Direction,
    /// Maps a correlation id to the ordinal of the event whose own id it is; see [`super::SegmentIndex`].
    own: O,
    /// Whether the first list of a prefix that is not empty is enough.
    first_list_only: bool,
}

impl<'a, 'q, L: PostingLists, O: Fn(EventId) -> Option<u32>> SegmentQuery<'a, 'q, L, O> {
    pub(super) fn new(
        lists: &'a L,
        window: &'q Range<u32>,
        direction: Direction,
        own: O,
    ) -> SegmentQuery<'a, 'q, L, O> {
        SegmentQuery { lists, window, direction, own, first_list_only: false }
    }

    /// The number of events in the window that match. The cost does not depend on the number, unless the
    /// query combines several conditions.
    pub(super) fn count(&self, query: &Query) -> u64 {
        if let [item] = query.items.as_slice() {
            // The lists of a single condition are disjoint, so their lengths add up. An event has one entity
            // and one kind, and carries a tag once.
            match self.conditions(item).as_slice() {
                [] => return self.window_events().saturating_sub(self.system_events()),
                [only] if !item.passes_over_system() || self.system_events() == 0 => return only.at_most(),
                _ => {}
            }
        }
        to_u64(self.events(query).count())
    }

    /// The ordinals of the events in the window that match, in order, once each. Found as they are taken.
    pub(super) fn events(&self, query: &Query) -> impl Iterator<Item = u32> {
        let items = query.items.iter().map(|item| self.item(item)).collect();
        self.events_of(PostingCursor::any(items))
    }

    /// Whether any event in the window matches.
    pub(super) fn exists(&mut self, query: &Query) -> bool {
        self.direction = Direction::Backward;
        query.items.iter().any(|item| {
            self.first_list_only = item.conditions() == 1;
            self.events_of(self.item(item)).next().is_some()
        })
    }

    /// The ordinals of a cursor that have an event. An item without a condition matches all ordinals, also
    /// those of removed events.
    fn events_of(&self, cursor: PostingCursor<L::List<'a>>) -> impl Iterator<Item = u32> {
        let direction = self.direction;
        cursor.events(direction, move |ordinal| match direction {
            Direction::Forward => self.lists.ordinals().next(ordinal.into()).map(to_ordinal),
            Direction::Backward => self.lists.ordinals().previous(ordinal.into()).map(to_ordinal),
        })
    }

    /// The number of events in the window.
    fn window_events(&self) -> u64 {
        let ordinals = self.lists.ordinals();
        let before = ordinals.below(self.window.start.into());
        let events = ordinals.below(self.window.end.into()).saturating_sub(before);
        to_u64(events)
    }

    /// The system events in the window.
    fn system(&self) -> L::List<'a> {
        self.lists.named(NameField::Scope, SYSTEM_SCOPE).cut(self.window)
    }

    fn system_events(&self) -> u64 {
        to_u64(self.system().len())
    }

    fn item(&self, item: &Item) -> PostingCursor<L::List<'a>> {
        let conditions = self.conditions(item);
        let cursor = match conditions.as_slice() {
            [] => PostingCursor::window(self.window, self.direction),
            _ => PostingCursor::all(conditions),
        };
        if item.passes_over_system() { cursor.without(self.system(), self.direction) } else { cursor }
    }

    /// One cursor per condition of the item.
    fn conditions(&self, item: &Item) -> Vec<PostingCursor<L::List<'a>>> {
        let mut all = Vec::new();
        match &item.entity {
            Some(Name::Is(entity)) => all.push(self.named(NameField::Entity, entity)),
            Some(Name::StartsWith(prefix)) if !prefix.is_empty() => {
                all.push(self.prefix(NameField::Entity, prefix));
            }
            _ => {}
        }
        if let Some(scope) = &item.scope {
            all.push(self.named(NameField::Scope, scope));
        }
        if !item.kinds.is_empty() {
            let mut kinds: Vec<&str> = item.kinds.iter().map(String::as_str).collect();
            kinds.sort_unstable();
            kinds.dedup();
            let lists = kinds.into_iter().map(|kind| self.named(NameField::Kind, kind));
            all.push(PostingCursor::any(lists.collect()));
        }
        if let Some(prefix) = item.kind_prefix.as_deref().filter(|prefix| !prefix.is_empty()) {
            all.push(self.prefix(NameField::Kind, prefix));
        }
        for tag in &item.tags {
            all.push(self.named(NameField::Tag, tag));
        }
        if let Some(id) = item.correlation {
            let list = self.lists.correlated(id);
            let is_other = |own: &u32| self.window.contains(own) && !list.holds(*own);
            let own = (self.own)(id).filter(is_other);
            let own = own.map(|own| PostingCursor::window(&(own..own + 1), self.direction));
            let named = PostingCursor::List(list.cut(self.window), self.direction);
            all.push(PostingCursor::any([named].into_iter().chain(own).collect()));
        }
        all
    }

    /// The postings of a name, cut to the window.
    fn named(&self, field: NameField, name: &str) -> PostingCursor<L::List<'a>> {
        PostingCursor::List(self.lists.named(field, name).cut(self.window), self.direction)
    }

    /// The postings of all names that begin with `prefix`, cut to the window.
    fn prefix(&self, field: NameField, prefix: &str) -> PostingCursor<L::List<'a>> {
        let mut lists = Vec::new();
        self.lists.visit(field, prefix, None, &mut |_, list| {
            let list = list.cut(self.window);
            if !list.is_empty() {
                lists.push(PostingCursor::List(list, self.direction));
            }
            let is_enough = self.first_list_only && !lists.is_empty();
            if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        PostingCursor::any(lists)
    }
}

/// Selects the names of one field.
#[derive(Clone, Debug)]
pub(crate) struct NameFilter {
    pub(crate) field: NameField,
    pub(crate) prefix: String,
    /// Only names that come after this one; the name need not exist.
    pub(crate) after: Option<String>,
}

/// A name, and how many events in the window carry it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NameSummary {
    pub(crate) name: String,
    pub(crate) events: u64,
    /// The ordinals of the first and the last of them.
    pub(crate) first: u32,
    pub(crate) last: u32,
}

/// The prefix of the names that are reserved for the store.
const RESERVED: &str = "$";

/// The first `most` names that have events in the window. Reserved names are left out, unless the prefix is
/// one.
pub(super) fn list_names(
    lists: &impl PostingLists,
    filter: &NameFilter,
    window: &Range<u32>,
    most: usize,
) -> Vec<NameSummary> {
    let mut names = Vec::new();
    let shows_reserved = filter.prefix.starts_with(RESERVED);
    lists.visit(filter.field, &filter.prefix, filter.after.as_deref(), &mut |name, list| {
        if names.len() == most {
            return ControlFlow::Break(());
        }
        if shows_reserved || !name.starts_with(RESERVED) {
            let list = list.cut(window);
            if let (Some(first), Some(last)) = (list.first(), list.last()) {
                let events = to_u64(list.len());
                names.push(NameSummary { name: name.to_owned(), events, first, last });
            }
        }
        ControlFlow::Continue(())
    });
    names
}

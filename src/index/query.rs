//! Answers a query from one segment's posting lists.
//!
//! Row: index.

use std::ops::{ControlFlow, Range};

use crate::types::{EventId, Item, Name, Query, SYSTEM_SCOPE, to_u64};

use super::Label;
use super::list::List;
use super::lists::{Cursor, Matches, Way};

/// What the posting lists of one segment are asked of, whatever form its index has.
pub(super) trait Lists {
    type List<'a>: List
    where
        Self: 'a;

    /// The list of a name; an empty one, if it is not there.
    fn named(&self, label: Label, name: &str) -> Self::List<'_>;

    /// The events that name this correlation, or share it.
    fn correlated(&self, id: EventId) -> Self::List<'_>;

    /// Shows the names that begin with `prefix` and come after `after`, in order, until `visit` has enough.
    fn visit<'a>(
        &'a self,
        label: Label,
        prefix: &str,
        after: Option<&str>,
        visit: &mut dyn FnMut(&str, Self::List<'a>) -> ControlFlow<()>,
    );

    /// How many events have an ordinal less than this.
    fn events_below(&self, ordinal: u32) -> u64;

    /// The event at an ordinal, or the next one of the way: only what a query that asks nothing finds may have
    /// none of its own.
    fn nearest(&self, ordinal: u32, way: Way) -> Option<u32>;
}

/// A question to one segment: where in it, and from which end.
pub(super) struct Asked<'a, 'q, L, O> {
    pub(super) lists: &'a L,
    pub(super) window: &'q Range<u32>,
    pub(super) way: Way,
    /// Which event, if any, a correlation finds by the event's own id: only the event itself knows that.
    pub(super) own: O,
    /// Of many lists, the first that holds anything is enough.
    pub(super) any: bool,
}

impl<'a, 'q, L: Lists, O: Fn(EventId) -> Option<u32>> Asked<'a, 'q, L, O> {
    pub(super) fn new(lists: &'a L, window: &'q Range<u32>, way: Way, own: O) -> Asked<'a, 'q, L, O> {
        Asked { lists, window, way, own, any: false }
    }

    /// The ordinals in the window that match, in order, once each; found as they are taken.
    ///
    /// A query that asks nothing finds all ordinals, also those of removed events, which have no place.
    pub(super) fn matching(&self, query: &Query) -> Matches<L::List<'a>> {
        let items = query.items.iter().map(|item| self.item(item)).collect();
        Matches { cursor: Cursor::any(items), way: self.way }
    }

    /// How many ordinals in the window match. Costs the same whatever their number, unless the query
    /// joins or asks two things at once.
    pub(super) fn count(&self, query: &Query) -> u64 {
        if let [item] = query.items.as_slice() {
            // What one thing is asked by are lists that share nothing: an event has one entity, one
            // kind, and its tag once.
            match self.conditions(item).as_slice() {
                [] => return self.window_events().saturating_sub(self.system_events()),
                [only] if !item.passes_over_system() || self.system_events() == 0 => return only.at_most(),
                _ => {}
            }
        }
        to_u64(self.events(query).count())
    }

    /// The ordinals of the events in the window that match, in order, once each; found as they are taken.
    pub(super) fn events(&self, query: &Query) -> impl Iterator<Item = u32> {
        self.matching(query).events(|ordinal| self.lists.nearest(ordinal, self.way))
    }

    /// Whether any ordinal in the window matches.
    pub(super) fn exists(&mut self, query: &Query) -> bool {
        self.way = Way::Backward;
        query.items.iter().any(|item| {
            self.any = item.conditions() == 1;
            let matches = Matches { cursor: self.item(item), way: self.way };
            matches.events(|ordinal| self.lists.nearest(ordinal, self.way)).next().is_some()
        })
    }

    /// How many events there are in the window.
    fn window_events(&self) -> u64 {
        let below = |ordinal| self.lists.events_below(ordinal);
        below(self.window.end).saturating_sub(below(self.window.start))
    }

    /// The store's own events in the window.
    fn system(&self) -> L::List<'a> {
        self.lists.named(Label::Scope, SYSTEM_SCOPE).cut(self.window)
    }

    fn system_events(&self) -> u64 {
        to_u64(self.system().len())
    }

    fn item(&self, item: &Item) -> Cursor<L::List<'a>> {
        let conditions = self.conditions(item);
        let cursor = match conditions.as_slice() {
            [] => Cursor::window(self.window, self.way),
            _ => Cursor::all(conditions),
        };
        if item.passes_over_system() { cursor.without(self.system(), self.way) } else { cursor }
    }

    /// One cursor per thing the item asks for.
    fn conditions(&self, item: &Item) -> Vec<Cursor<L::List<'a>>> {
        let mut all = Vec::new();
        match &item.entity {
            Some(Name::Is(entity)) => all.push(self.named(Label::Entity, entity)),
            Some(Name::StartsWith(prefix)) if !prefix.is_empty() => {
                all.push(self.prefix(Label::Entity, prefix));
            }
            _ => {}
        }
        if let Some(scope) = &item.scope {
            all.push(self.named(Label::Scope, scope));
        }
        if !item.kinds.is_empty() {
            let mut kinds: Vec<&str> = item.kinds.iter().map(String::as_str).collect();
            kinds.sort_unstable();
            kinds.dedup();
            let lists = kinds.into_iter().map(|kind| self.named(Label::Kind, kind));
            all.push(Cursor::any(lists.collect()));
        }
        if let Some(prefix) = item.kind_prefix.as_deref().filter(|prefix| !prefix.is_empty()) {
            all.push(self.prefix(Label::Kind, prefix));
        }
        for tag in &item.tags {
            all.push(self.named(Label::Tag, tag));
        }
        if let Some(id) = item.correlation {
            let list = self.lists.correlated(id);
            let is_other = |own: &u32| self.window.contains(own) && !list.holds(*own);
            let own = (self.own)(id).filter(is_other);
            let own = own.map(|own| Cursor::window(&(own..own + 1), self.way));
            let named = Cursor::List(list.cut(self.window), self.way);
            all.push(Cursor::any([named].into_iter().chain(own).collect()));
        }
        all
    }

    /// The list of a name, cut to the window.
    fn named(&self, label: Label, name: &str) -> Cursor<L::List<'a>> {
        Cursor::List(self.lists.named(label, name).cut(self.window), self.way)
    }

    /// The lists of all names that begin so.
    fn prefix(&self, label: Label, prefix: &str) -> Cursor<L::List<'a>> {
        let mut lists = Vec::new();
        self.lists.visit(label, prefix, None, &mut |_, list| {
            let list = list.cut(self.window);
            if !list.is_empty() {
                lists.push(Cursor::List(list, self.way));
            }
            if self.any && !lists.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        Cursor::any(lists)
    }
}

//! Answers a query from one segment's posting lists.
//!
//! Row: index.

use std::ops::{ControlFlow, Range};

use crate::coordinate::SYSTEM_SCOPE;
use crate::event::EventId;
use crate::query::{Item, Name, Query};

use super::lists::{Cursor, Matches, Way};
use super::names::Names;
use super::{Index, Stream};

/// Where in the segment is asked, and how: what turns names into cursors.
struct Asked<'q> {
    window: &'q Range<u32>,
    way: Way,
    /// Of many lists, the first that holds anything is enough.
    any: bool,
}

impl Index {
    /// The ordinals in `window` that match, in order, once each; found as they are taken.
    ///
    /// `own` says which event, if any, a correlation finds by the event's own id: only the event
    /// itself knows that. A query that asks nothing finds all ordinals, also those of removed events,
    /// which have no place.
    pub(crate) fn matching(
        &self,
        query: &Query,
        window: &Range<u32>,
        way: Way,
        own: impl Fn(EventId) -> Option<u32>,
    ) -> Matches<'_> {
        let asked = Asked { window, way, any: false };
        let items = query.items.iter().map(|item| self.item(item, &asked, &own)).collect();
        Matches { cursor: Cursor::any(items), way }
    }

    /// How many ordinals in `window` match. Costs the same whatever their number, unless the query
    /// joins or asks two things at once.
    pub(crate) fn count(
        &self,
        query: &Query,
        window: &Range<u32>,
        own: impl Fn(EventId) -> Option<u32>,
    ) -> u64 {
        let asked = Asked { window, way: Way::Forward, any: false };
        if let [item] = query.items.as_slice() {
            // What one thing is asked by are lists that share nothing: an event has one entity, one
            // kind, and its tag once.
            match self.conditions(item, &asked, &own).as_slice() {
                [] => return self.events_in(window) - self.system_events_in(window),
                [only] if self.system(item, window).is_empty() => return only.at_most(),
                _ => {}
            }
        }
        let matches = self.matching(query, window, Way::Forward, own);
        let matches = matches.filter(|ordinal| self.is_event(*ordinal)).count();
        u64::try_from(matches).expect("a count fits 64 bits")
    }

    /// Whether the index itself knows that an event belongs to a correlation.
    pub(crate) fn correlates(&self, id: EventId, ordinal: u32) -> bool {
        self.correlations.get(&id).is_some_and(|list| list.binary_search(&ordinal).is_ok())
    }

    /// Whether any ordinal in `window` matches.
    pub(crate) fn exists(
        &self,
        query: &Query,
        window: &Range<u32>,
        own: impl Fn(EventId) -> Option<u32>,
    ) -> bool {
        query.items.iter().any(|item| {
            let asked = Asked { window, way: Way::Backward, any: item.conditions() == 1 };
            let mut matches = Matches { cursor: self.item(item, &asked, &own), way: asked.way };
            matches.any(|ordinal| self.is_event(ordinal))
        })
    }

    /// How many events there are in a window.
    fn events_in(&self, window: &Range<u32>) -> u64 {
        let slots = self.ordinals.below(window.start.into())..self.ordinals.below(window.end.into());
        u64::try_from(slots.len()).expect("a count fits 64 bits")
    }

    fn system_events_in(&self, window: &Range<u32>) -> u64 {
        let list = self.system(&Item::default(), window);
        u64::try_from(list.len()).expect("a count fits 64 bits")
    }

    /// The store's own events in a window, if the item must pass over them.
    fn system(&self, item: &Item, window: &Range<u32>) -> &[u32] {
        match self.scopes.get(SYSTEM_SCOPE) {
            Some(list) if item.passes_over_system() => cut(list, window),
            _ => &[],
        }
    }

    /// Whether there is an event at an ordinal, which only a query that asks nothing must look at.
    fn is_event(&self, ordinal: u32) -> bool {
        self.ordinals.slot(ordinal.into()).is_some()
    }

    fn item<'a>(
        &'a self,
        item: &Item,
        asked: &Asked<'_>,
        own: &impl Fn(EventId) -> Option<u32>,
    ) -> Cursor<'a> {
        let conditions = self.conditions(item, asked, own);
        let cursor = match conditions.as_slice() {
            [] => Cursor::window(asked.window, asked.way),
            _ => Cursor::all(conditions),
        };
        cursor.without(self.system(item, asked.window), asked.way)
    }

    /// One cursor per thing the item asks for.
    fn conditions<'a>(
        &'a self,
        item: &Item,
        asked: &Asked<'_>,
        own: &impl Fn(EventId) -> Option<u32>,
    ) -> Vec<Cursor<'a>> {
        let mut all = Vec::new();
        match &item.entity {
            Some(Name::Is(entity)) => all.push(asked.list(self.entities.get(entity))),
            Some(Name::StartsWith(prefix)) if !prefix.is_empty() => {
                all.push(asked.prefix(&self.entities, prefix));
            }
            _ => {}
        }
        if let Some(scope) = &item.scope {
            all.push(asked.list(self.scopes.get(scope)));
        }
        if !item.kinds.is_empty() {
            let mut kinds: Vec<&str> = item.kinds.iter().map(String::as_str).collect();
            kinds.sort_unstable();
            kinds.dedup();
            let lists = kinds.into_iter().map(|kind| asked.list(self.kinds.get(kind)));
            all.push(Cursor::any(lists.collect()));
        }
        if let Some(prefix) = item.kind_prefix.as_deref().filter(|prefix| !prefix.is_empty()) {
            all.push(asked.prefix(&self.kinds, prefix));
        }
        for tag in &item.tags {
            all.push(asked.list(self.tags.get(tag)));
        }
        if let Some(id) = item.correlation {
            let is_other = |own: &u32| asked.window.contains(own) && !self.correlates(id, *own);
            let own = own(id).filter(is_other).map(|own| Cursor::window(&(own..own + 1), asked.way));
            let named = asked.list(self.correlations.get(&id));
            all.push(Cursor::any([named].into_iter().chain(own).collect()));
        }
        all
    }
}

impl Asked<'_> {
    /// A posting list, cut to the window.
    fn list<'a>(&self, postings: Option<&'a impl Postings>) -> Cursor<'a> {
        Cursor::List(cut(postings.map(Postings::ordinals).unwrap_or_default(), self.window), self.way)
    }

    /// The lists of all names that begin so.
    fn prefix<'a, P: Postings>(&self, names: &'a Names<P>, prefix: &str) -> Cursor<'a> {
        let mut lists = Vec::new();
        names.visit(prefix, None, |_, postings| {
            let list = cut(postings.ordinals(), self.window);
            if !list.is_empty() {
                lists.push(Cursor::List(list, self.way));
            }
            if self.any && !lists.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        Cursor::any(lists)
    }
}

/// What has a list of ordinals, sorted.
pub(super) trait Postings {
    fn ordinals(&self) -> &[u32];
}

impl Postings for Vec<u32> {
    fn ordinals(&self) -> &[u32] {
        self
    }
}

impl Postings for Stream {
    fn ordinals(&self) -> &[u32] {
        &self.ordinals
    }
}

/// The part of a list that lies in the window.
pub(super) fn cut<'a>(list: &'a [u32], window: &Range<u32>) -> &'a [u32] {
    let start = list.partition_point(|ordinal| *ordinal < window.start);
    let length = list[start..].partition_point(|ordinal| *ordinal < window.end);
    &list[start..start + length]
}

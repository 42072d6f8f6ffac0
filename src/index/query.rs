//! Answers a query from one segment's posting lists.
//!
//! Row: index.

use std::borrow::Cow;
use std::ops::Range;

use crate::event::EventId;
use crate::query::{Item, Name, Query};

use super::search::beyond;
use super::{Index, narrow};

impl Index {
    /// The ordinals in `window` that match, in order, once each.
    ///
    /// For a correlation the answer may hold an event too many (`own`, the one whose own id it
    /// may be): only the event itself knows its id, so the reader looks again.
    pub(crate) fn matching(
        &self,
        query: &Query,
        window: &Range<u32>,
        own: impl Fn(EventId) -> Option<u32>,
    ) -> Vec<u32> {
        let mut matches = match query.items.as_slice() {
            [item] => return self.matching_item(item, window, &own),
            items => items.iter().flat_map(|item| self.matching_item(item, window, &own)).collect::<Vec<_>>(),
        };
        matches.sort_unstable();
        matches.dedup();
        matches
    }

    fn matching_item(
        &self,
        item: &Item,
        window: &Range<u32>,
        own: &impl Fn(EventId) -> Option<u32>,
    ) -> Vec<u32> {
        let mut lists = self.lists(item, window, own);
        lists.sort_by_key(|list| list.len());
        match lists.split_first() {
            None => self.present(window).collect(),
            Some((shortest, others)) => {
                let mut others: Vec<Ahead<'_>> = others.iter().map(|list| Ahead(list)).collect();
                let in_all = |ordinal: &u32| others.iter_mut().all(|list| list.reaches(*ordinal));
                shortest.iter().copied().filter(in_all).collect()
            }
        }
    }

    /// The ordinals in `window` that there are.
    fn present(&self, window: &Range<u32>) -> impl Iterator<Item = u32> {
        let slots = self.ordinals.below(window.start.into())..self.ordinals.below(window.end.into());
        slots.map(|slot| narrow(self.ordinals.at(slot)))
    }

    /// One sorted list per thing the item asks for, cut to the window.
    fn lists(
        &self,
        item: &Item,
        window: &Range<u32>,
        own: &impl Fn(EventId) -> Option<u32>,
    ) -> Vec<Cow<'_, [u32]>> {
        let mut lists = Vec::new();
        match &item.entity {
            Some(Name::Is(entity)) => {
                let ordinals = self.entities.get(entity.as_str()).map(|stream| &stream.ordinals);
                lists.push(cut(ordinals, window));
            }
            Some(Name::StartsWith(prefix)) => {
                let streams = self.entities.iter().filter(|(entity, _)| entity.starts_with(prefix.as_str()));
                lists.push(joined(streams.map(|(_, stream)| cut(Some(&stream.ordinals), window))));
            }
            None => {}
        }
        if let Some(scope) = &item.scope {
            lists.push(cut(self.scopes.get(scope.as_str()), window));
        }
        match item.kinds.as_slice() {
            [] => {}
            [kind] => lists.push(cut(self.kinds.get(kind.as_str()), window)),
            kinds => lists.push(joined(kinds.iter().map(|kind| cut(self.kinds.get(kind.as_str()), window)))),
        }
        if let Some(prefix) = &item.kind_prefix {
            let kinds = self.kinds.iter().filter(|(kind, _)| kind.starts_with(prefix.as_str()));
            lists.push(joined(kinds.map(|(_, list)| cut(Some(list), window))));
        }
        for tag in &item.tags {
            lists.push(cut(self.tags.get(tag.as_str()), window));
        }
        if let Some(id) = item.correlation {
            let own = own(id).filter(|ordinal| window.contains(ordinal));
            let named = cut(self.correlations.get(&id), window);
            lists.push(joined([named, Cow::Owned(own.into_iter().collect())].into_iter()));
        }
        lists
    }
}

fn cut<'a>(list: Option<&'a Vec<u32>>, window: &Range<u32>) -> Cow<'a, [u32]> {
    let list = list.map(Vec::as_slice).unwrap_or_default();
    let start = list.partition_point(|ordinal| *ordinal < window.start);
    let length = list[start..].partition_point(|ordinal| *ordinal < window.end);
    Cow::Borrowed(&list[start..start + length])
}

fn joined<'a>(lists: impl Iterator<Item = Cow<'a, [u32]>>) -> Cow<'a, [u32]> {
    let mut all: Vec<u32> = lists.flat_map(Cow::into_owned).collect();
    all.sort_unstable();
    all.dedup();
    Cow::Owned(all)
}

/// The rest of a sorted list, asked for ever larger ordinals.
struct Ahead<'a>(&'a [u32]);

impl Ahead<'_> {
    /// Whether `ordinal` is in the list.
    fn reaches(&mut self, ordinal: u32) -> bool {
        let skipped = beyond(self.0, |found| *found < ordinal);
        self.0 = &self.0[skipped..];
        self.0.first() == Some(&ordinal)
    }
}

//! What the index in memory answers.
//!
//! Row: index.

use std::ops::{ControlFlow, Range};

use crate::format::KEY_BYTES;
use crate::types::{Error, EventId, Query, to_u64};

use super::list::List;
use super::listing::listed;
use super::lists::Way;
use super::names::Names;
use super::query::{Asked, Lists};
use super::search::gallop;
use super::{Answers, Entry, Index, Label, Place, Stream, Wanted, last_up_to, narrow, nearest, ordinals_of};

impl Index {
    fn place_at(&self, slot: usize) -> Option<Place> {
        let (start, rest) = self.offsets.get(slot..)?.split_first()?;
        let same = gallop(rest.len(), |at| rest[at] == *start);
        let next = rest.get(same).copied().unwrap_or(self.end);
        let removed = self.removed.binary_search_by_key(&next, |removed| removed.end).ok();
        let end = removed.map_or(next, |removed| self.removed[removed].start);
        Some(Place { ordinal: narrow(self.ordinals.at(slot)), frame: *start..end })
    }
}

impl Stream {
    /// Version and ordinal of its last event in this segment up to `ordinal`.
    pub(crate) fn last_up_to(&self, ordinal: u32) -> Option<(u64, u32)> {
        last_up_to(&self.versions, &self.ordinals.as_slice(), ordinal)
    }

    /// The ordinals from the one of the first version in `versions` up to the one of the last.
    pub(crate) fn ordinals_of(&self, versions: &Range<u64>) -> Range<u32> {
        ordinals_of(&self.versions, &self.ordinals.as_slice(), versions)
    }
}

impl Lists for Index {
    type List<'a> = &'a [u32];

    fn named(&self, label: Label, name: &str) -> &[u32] {
        match label {
            Label::Entity => self.entities.get(name).map(|stream| stream.ordinals.as_slice()),
            Label::Scope => self.scopes.get(name).map(Vec::as_slice),
            Label::Kind => self.kinds.get(name).map(Vec::as_slice),
            Label::Tag => self.tags.get(name).map(Vec::as_slice),
        }
        .unwrap_or_default()
    }

    fn correlated(&self, id: EventId) -> &[u32] {
        self.correlations.get(&id).map(Vec::as_slice).unwrap_or_default()
    }

    fn visit<'a>(
        &'a self,
        label: Label,
        prefix: &str,
        after: Option<&str>,
        visit: &mut dyn FnMut(&str, &'a [u32]) -> ControlFlow<()>,
    ) {
        let names = |names: &'a Names<Vec<u32>>,
                     visit: &mut dyn FnMut(&str, &'a [u32]) -> ControlFlow<()>| {
            names.visit(prefix, after, |name, list| visit(name, list));
        };
        match label {
            Label::Entity => self.entities.visit(prefix, after, |name, stream| visit(name, &stream.ordinals)),
            Label::Scope => names(&self.scopes, visit),
            Label::Kind => names(&self.kinds, visit),
            Label::Tag => names(&self.tags, visit),
        }
    }

    fn events_below(&self, ordinal: u32) -> u64 {
        to_u64(self.ordinals.below(ordinal.into()))
    }

    fn nearest(&self, ordinal: u32, way: Way) -> Option<u32> {
        nearest(&self.ordinals, ordinal, way)
    }
}

impl Answers for Index {
    fn events(&self) -> u32 {
        Index::events(self)
    }

    fn ordinals(&self) -> Range<u32> {
        Index::ordinals(self)
    }

    fn born(&self) -> u32 {
        self.born
    }

    fn place(&self, ordinal: u32) -> Result<Option<Place>, Error> {
        Ok(self.ordinals.slot(ordinal.into()).and_then(|slot| self.place_at(slot)))
    }

    fn place_from(&self, ordinal: u32) -> Result<Option<Place>, Error> {
        Ok(self.place_at(self.ordinals.below(ordinal.into())))
    }

    fn matching(
        &self,
        query: &Query,
        window: &Range<u32>,
        way: Way,
        own: &dyn Fn(EventId) -> Option<u32>,
        most: usize,
    ) -> Result<Vec<Place>, Error> {
        let window = self.clip(window);
        let asked = Asked::new(self, &window, way, own);
        let place = |ordinal: u32| self.place_at(self.ordinals.slot(ordinal.into())?);
        Ok(asked.events(query).filter_map(place).take(most).collect())
    }

    fn count(
        &self,
        query: &Query,
        window: &Range<u32>,
        own: &dyn Fn(EventId) -> Option<u32>,
    ) -> Result<u64, Error> {
        Ok(Asked::new(self, &self.clip(window), Way::Forward, own).count(query))
    }

    fn exists(
        &self,
        query: &Query,
        window: &Range<u32>,
        own: &dyn Fn(EventId) -> Option<u32>,
    ) -> Result<bool, Error> {
        Ok(Asked::new(self, &self.clip(window), Way::Backward, own).exists(query))
    }

    fn correlates(&self, id: EventId, ordinal: u32) -> Result<bool, Error> {
        Ok(self.correlated(id).holds(ordinal))
    }

    fn effects(&self, id: EventId) -> Result<Vec<u32>, Error> {
        Ok(self.causes.get(&id).cloned().unwrap_or_default())
    }

    fn is_follower(&self, ordinal: u32) -> Result<bool, Error> {
        Ok(self.followers.binary_search(&ordinal).is_ok())
    }

    fn foreign(&self, id: EventId) -> Result<Option<u32>, Error> {
        Ok(self.foreign_ids.get(&id).and_then(|list| list.first().copied()))
    }

    fn key(&self, key: &[u8; KEY_BYTES]) -> Result<Option<u32>, Error> {
        Ok(self.keys.get(key).copied())
    }

    fn last_of(&self, entity: &str, up_to: u32) -> Result<Option<(u64, u32)>, Error> {
        Ok(self.entities.get(entity).and_then(|stream| stream.last_up_to(up_to)))
    }

    fn window_of(&self, entity: &str, versions: &Range<u64>) -> Result<Range<u32>, Error> {
        Ok(self.entities.get(entity).map_or(0..0, |stream| stream.ordinals_of(versions)))
    }

    fn listed(&self, wanted: &Wanted, window: &Range<u32>, most: usize) -> Result<Vec<Entry>, Error> {
        Ok(listed(self, wanted, window, most))
    }
}

//! The index of one segment: which events carry a name, an id or a key, and where each event lies.
//!
//! It is an inverted index. Each term (an entity, a scope, a kind, a tag, an id, a key) has a posting list of
//! ordinals. An ordinal is an event's position, counted from the segment's first position. Ordinals grow
//! without gaps, unless frames were removed on purpose. An offset table maps each ordinal to its frame, or to
//! its record if the frame is large.
//!
//! [`LiveIndex`] is in memory and grows frame by frame; [`SealedIndex`] is an immutable file. Each provides
//! its posting lists. The questions and their answers, [`SegmentIndex`], are here, once for both forms.
//! Invariant: events are inserted in order, so every posting list is sorted.

mod live;
mod postings;
mod query;
mod sealed;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::format::KEY_BYTES;
use crate::types::{Error, EventId, Query};

use postings::{GappedSequence, Jumps, PostingList};
use query::{PostingLists, SegmentQuery, list_names};

pub(crate) use live::LiveIndex;
pub(crate) use postings::{Direction, EventLocation, RecordLocation};
pub(crate) use query::{NameField, NameFilter, NameSummary};
pub(crate) use sealed::{IndexDefect, SealedIndex};

pub(crate) use crate::format::index_file::{Bound, TermHash};

/// The index of a segment, or of a part of one.
///
/// Windows are ranges of ordinals and may reach beyond those of the index. `own` maps a correlation id to the
/// ordinal of the event whose own id it is, if that event belongs to the correlation. The index does not
/// know.
///
/// An error is one of the disk, or damage in an index file. The caller then builds the index again from its
/// segment, which holds everything the index holds.
pub(crate) trait SegmentIndex: Send + Sync {
    /// The number of events.
    fn events(&self) -> u32;

    /// The range from the first event's ordinal to the one behind the last event's.
    fn ordinals(&self) -> Range<u32>;

    /// The number of streams whose first version is here.
    fn streams_created(&self) -> u32;

    /// The location of the event at `ordinal`; `None` if it was removed or never was.
    fn locate(&self, ordinal: u32) -> Result<Option<EventLocation>, Error>;

    /// The location of the first event at or behind `ordinal`.
    fn locate_from(&self, ordinal: u32) -> Result<Option<EventLocation>, Error>;

    /// The locations of the first `most` events, in `direction`, that match in the window.
    fn matching(
        &self,
        query: &Query,
        window: &Range<u32>,
        direction: Direction,
        own: &dyn Fn(EventId) -> Option<u32>,
        most: usize,
    ) -> Result<Vec<EventLocation>, Error>;

    /// The number of events in the window that match. The cost does not depend on the number, unless the
    /// query combines several conditions.
    fn count(
        &self,
        query: &Query,
        window: &Range<u32>,
        own: &dyn Fn(EventId) -> Option<u32>,
    ) -> Result<u64, Error>;

    /// Whether any event in the window matches.
    fn exists(
        &self,
        query: &Query,
        window: &Range<u32>,
        own: &dyn Fn(EventId) -> Option<u32>,
    ) -> Result<bool, Error>;

    /// Whether the index lists the event at `ordinal` under this correlation.
    fn correlates(&self, id: EventId, ordinal: u32) -> Result<bool, Error>;

    /// The ordinals of the events that name this id as their cause.
    fn effects(&self, id: EventId) -> Result<Vec<u32>, Error>;

    /// Whether the event's cause is the one before it in its stream.
    fn is_follower(&self, ordinal: u32) -> Result<bool, Error>;

    /// The ordinal of the first event that was imported with this id.
    fn foreign(&self, id: EventId) -> Result<Option<u32>, Error>;

    /// The ordinal of the first event of the last append with this idempotency key.
    fn key(&self, key: &[u8; KEY_BYTES]) -> Result<Option<u32>, Error>;

    /// The version and the ordinal of the entity's last event up to an ordinal.
    fn last_of(&self, entity: &str, up_to: u32) -> Result<Option<(u64, u32)>, Error>;

    /// The smallest range of ordinals that holds these versions of the entity.
    fn window_of(&self, entity: &str, versions: &Range<u64>) -> Result<Range<u32>, Error>;

    /// The first `most` names that have events in the window, in the order of their bytes. Names that begin
    /// with `$` are left out, unless the prefix begins with it.
    fn list_names(
        &self,
        filter: &NameFilter,
        window: &Range<u32>,
        most: usize,
    ) -> Result<Vec<NameSummary>, Error>;

    /// The part of a window that the index has.
    fn clip(&self, window: &Range<u32>) -> Range<u32> {
        let own = self.ordinals();
        window.start.max(own.start)..window.end.min(own.end)
    }
}

/// One of the two forms of an index.
trait IndexForm: Send + Sync {
    type Lists<'a>: PostingLists
    where
        Self: 'a;

    fn events(&self) -> u32;

    fn ordinals(&self) -> Range<u32>;

    fn streams_created(&self) -> u32;

    /// Answers one question from the posting lists. Fails if a read of them failed on the way.
    fn with_lists<'a, T>(
        &'a self,
        answer: impl FnOnce(&Self::Lists<'a>) -> Result<T, Error>,
    ) -> Result<T, Error>;
}

impl<I: IndexForm> SegmentIndex for I {
    fn events(&self) -> u32 {
        IndexForm::events(self)
    }

    fn ordinals(&self) -> Range<u32> {
        IndexForm::ordinals(self)
    }

    fn streams_created(&self) -> u32 {
        IndexForm::streams_created(self)
    }

    fn locate(&self, ordinal: u32) -> Result<Option<EventLocation>, Error> {
        self.with_lists(|lists| match lists.ordinals().slot(ordinal.into()) {
            Some(slot) => lists.locate_slot(slot),
            None => Ok(None),
        })
    }

    fn locate_from(&self, ordinal: u32) -> Result<Option<EventLocation>, Error> {
        self.with_lists(|lists| lists.locate_slot(lists.ordinals().below(ordinal.into())))
    }

    fn matching(
        &self,
        query: &Query,
        window: &Range<u32>,
        direction: Direction,
        own: &dyn Fn(EventId) -> Option<u32>,
        most: usize,
    ) -> Result<Vec<EventLocation>, Error> {
        let window = self.clip(window);
        self.with_lists(|lists| {
            lists.locate_all(SegmentQuery::new(lists, &window, direction, own).events(query).take(most))
        })
    }

    fn count(
        &self,
        query: &Query,
        window: &Range<u32>,
        own: &dyn Fn(EventId) -> Option<u32>,
    ) -> Result<u64, Error> {
        let window = self.clip(window);
        self.with_lists(|lists| Ok(SegmentQuery::new(lists, &window, Direction::Forward, own).count(query)))
    }

    fn exists(
        &self,
        query: &Query,
        window: &Range<u32>,
        own: &dyn Fn(EventId) -> Option<u32>,
    ) -> Result<bool, Error> {
        let window = self.clip(window);
        self.with_lists(|lists| Ok(SegmentQuery::new(lists, &window, Direction::Backward, own).exists(query)))
    }

    fn correlates(&self, id: EventId, ordinal: u32) -> Result<bool, Error> {
        self.with_lists(|lists| Ok(lists.correlated(id).holds(ordinal)))
    }

    fn effects(&self, id: EventId) -> Result<Vec<u32>, Error> {
        self.with_lists(|lists| Ok(lists.effects(id).to_vec()))
    }

    fn is_follower(&self, ordinal: u32) -> Result<bool, Error> {
        self.with_lists(|lists| Ok(lists.followers().holds(ordinal)))
    }

    fn foreign(&self, id: EventId) -> Result<Option<u32>, Error> {
        self.with_lists(|lists| Ok(lists.first_foreign(id)))
    }

    fn key(&self, key: &[u8; KEY_BYTES]) -> Result<Option<u32>, Error> {
        self.with_lists(|lists| Ok(lists.first_with_key(key)))
    }

    fn last_of(&self, entity: &str, up_to: u32) -> Result<Option<(u64, u32)>, Error> {
        self.with_lists(|lists| {
            Ok(lists.stream(entity).and_then(|(versions, list)| last_up_to(&versions, &list, up_to)))
        })
    }

    fn window_of(&self, entity: &str, versions: &Range<u64>) -> Result<Range<u32>, Error> {
        self.with_lists(|lists| {
            Ok(lists.stream(entity).map_or(0..0, |(own, list)| ordinals_of(&own, &list, versions)))
        })
    }

    fn list_names(
        &self,
        filter: &NameFilter,
        window: &Range<u32>,
        most: usize,
    ) -> Result<Vec<NameSummary>, Error> {
        self.with_lists(|lists| Ok(list_names(lists, filter, window, most)))
    }
}

/// The version and the ordinal of a stream's last event in this segment up to `ordinal`.
fn last_up_to(
    versions: &GappedSequence<impl Jumps>,
    list: &impl PostingList,
    ordinal: u32,
) -> Option<(u64, u32)> {
    let behind = ordinal.checked_add(1).map_or(list.len(), |end| list.below(end));
    let last = behind.checked_sub(1)?;
    Some((versions.at(last), list.at(last)))
}

/// The range of ordinals from the first wanted version's to the last one's.
fn ordinals_of(
    versions: &GappedSequence<impl Jumps>,
    list: &impl PostingList,
    wanted: &Range<u64>,
) -> Range<u32> {
    let slots = versions.below(wanted.start)..versions.below(wanted.end).min(list.len());
    match slots.end.checked_sub(1).filter(|last| slots.start <= *last) {
        Some(last) => list.at(slots.start)..list.at(last).saturating_add(1),
        None => 0..0,
    }
}

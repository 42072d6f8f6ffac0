//! What can be asked of the index of a segment, whatever its form.
//!
//! Row: index.

use std::ops::Range;

use crate::format::KEY_BYTES;
use crate::types::{Error, EventId, Query};

use super::{NameSummary, EventLocation, NameFilter, Direction};

/// What can be asked of the index of a segment, or of a part of one.
///
/// Windows are of ordinals, and may reach beyond those it has. `own` says which event, if any, a correlation
/// finds by the event's own id: only the event itself knows that. An error is one of the disk, or damage that was
/// met in an index file: the file is to be made again from its segment, which has all that it has.
pub(crate) trait SegmentIndex: Send + Sync {
    /// How many events it has.
    fn events(&self) -> u32;

    /// From the first event's ordinal to behind the last one's.
    fn ordinals(&self) -> Range<u32>;

    /// How many entities have their first version here.
    fn born(&self) -> u32;

    /// Where the event at `ordinal` lies, if there is one.
    fn place(&self, ordinal: u32) -> Result<Option<EventLocation>, Error>;

    /// Where the first event at or behind `ordinal` lies.
    fn place_from(&self, ordinal: u32) -> Result<Option<EventLocation>, Error>;

    /// The places of at most `most` events in the window that match, the first ones of their way.
    fn matching(
        &self,
        query: &Query,
        window: &Range<u32>,
        direction: Direction,
        own: &dyn Fn(EventId) -> Option<u32>,
        most: usize,
    ) -> Result<Vec<EventLocation>, Error>;

    /// How many events in the window match. Costs the same whatever their number, unless the query joins or asks
    /// two things at once.
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

    /// Whether the index itself knows that an event belongs to a correlation.
    fn correlates(&self, id: EventId, ordinal: u32) -> Result<bool, Error>;

    /// The events that name this id as their cause.
    fn effects(&self, id: EventId) -> Result<Vec<u32>, Error>;

    /// Whether an event's cause is the one before it in its stream.
    fn is_follower(&self, ordinal: u32) -> Result<bool, Error>;

    /// The first event that brought this id along.
    fn foreign(&self, id: EventId) -> Result<Option<u32>, Error>;

    /// The first event of the last append with this idempotency key.
    fn key(&self, key: &[u8; KEY_BYTES]) -> Result<Option<u32>, Error>;

    /// Version and ordinal of an entity's last event up to an ordinal.
    fn last_of(&self, entity: &str, up_to: u32) -> Result<Option<(u64, u32)>, Error>;

    /// The ordinals from the one of an entity's first version in `versions` up to the one of the last.
    fn window_of(&self, entity: &str, versions: &Range<u64>) -> Result<Range<u32>, Error>;

    /// At most `most` names that have events in the window, in order; the store's own only to who asks for them.
    fn listed(&self, wanted: &NameFilter, window: &Range<u32>, most: usize) -> Result<Vec<NameSummary>, Error>;

    /// The part of a window that it has.
    fn clip(&self, window: &Range<u32>) -> Range<u32> {
        let own = self.ordinals();
        window.start.max(own.start)..window.end.min(own.end)
    }
}

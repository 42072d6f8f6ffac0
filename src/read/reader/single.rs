//! Single events, found by position, id or time.

use std::ops::Range;
use std::sync::Arc;

use crate::event::RecordedEvent;
use crate::format::FrameHeader;
use crate::index::EventLocation;
use crate::log::Block;
use crate::types::{Error, EventId, Position};

use super::cursor::CheckedFrame;
use crate::read::segment::Segment;
use crate::read::snapshot::Snapshot;

/// Looks up single events, and keeps the frame it read last. Events that cause one another are often in one
/// append, which may be large; a caller that looks up several of them keeps the lookup.
#[derive(Default)]
pub(crate) struct EventLookup {
    read: Option<(Arc<Segment>, Block)>,
    frame: CheckedFrame,
}

impl EventLookup {
    /// The event at a position, if it is published.
    pub(crate) fn event_at(
        &mut self,
        snapshot: &Snapshot,
        position: Position,
    ) -> Result<Option<RecordedEvent>, Error> {
        if position == Position::START || position > snapshot.head.position {
            return Ok(None);
        }
        let Some(segment) = snapshot.segment_of(position) else { return Ok(None) };
        let Some(location) = segment.locate(position)? else { return Ok(None) };
        self.event_in(snapshot, segment, &location).map(Some)
    }

    /// The event with this id: derived, or given by an import.
    pub(crate) fn event_with(
        &mut self,
        snapshot: &Snapshot,
        id: EventId,
    ) -> Result<Option<RecordedEvent>, Error> {
        if let Some(event) = self.event_at(snapshot, id.claimed_position())?
            && event.derived_id() == id
        {
            return Ok(Some(event));
        }
        match snapshot.foreign_since(id, Position::START)? {
            Some(position) => self.event_at(snapshot, position),
            None => Ok(None),
        }
    }

    fn event_in(
        &mut self,
        snapshot: &Snapshot,
        segment: &Arc<Segment>,
        location: &EventLocation,
    ) -> Result<RecordedEvent, Error> {
        let block = match &mut self.read {
            Some((own, block)) if Arc::ptr_eq(own, segment) && block.holds(&location.frame) => block,
            read => {
                self.frame.forget();
                let block = snapshot.block(segment, &location.frame)?;
                &mut read.insert((segment.clone(), block)).1
            }
        };
        self.frame.find(segment, block, location).map(|found| found.in_block(block))
    }
}

/// The event at a position, if it is published.
pub(crate) fn event_at(snapshot: &Snapshot, position: Position) -> Result<Option<RecordedEvent>, Error> {
    EventLookup::default().event_at(snapshot, position)
}

/// The event with this id: derived, or given by an import.
pub(crate) fn event_with(snapshot: &Snapshot, id: EventId) -> Result<Option<RecordedEvent>, Error> {
    EventLookup::default().event_with(snapshot, id)
}

/// Reads the frame of the event at `position` and gives it to `look`.
pub(crate) fn with_frame<T>(
    snapshot: &Snapshot,
    position: Position,
    look: impl FnOnce(&FrameHeader<'_>, &[u8]) -> T,
) -> Result<Option<T>, Error> {
    let Some(segment) = snapshot.segment_of(position) else { return Ok(None) };
    let Some(location) = segment.locate(position)? else { return Ok(None) };
    let block = snapshot.block(segment, &location.frame)?;
    let frame = block.frame(segment.file()?, location.frame.start)?;
    Ok(Some(look(&frame.header, frame.body)))
}

/// The first position recorded at `micros` or later; behind the head if there is none. Recorded times never
/// go back, so this is a binary search: over the segments, then over one segment's frames.
pub(super) fn position_at_time(snapshot: &Snapshot, micros: i64) -> Result<u64, Error> {
    let Ok(micros) = u64::try_from(micros) else { return Ok(0) };
    let later = snapshot.segments.partition_point(|segment| segment.recorded_before() < micros);
    let Some(segment) = later.checked_sub(1).and_then(|last| snapshot.segments.get(last)) else {
        return Ok(0);
    };
    let Range { start: mut low, end: mut high } = segment.ordinals();
    while low < high {
        let middle = low + (high - low) / 2;
        if recorded_at(snapshot, segment, middle)? < micros {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(segment.position(low))
}

/// When the first event at or behind `ordinal` was recorded, in microseconds.
fn recorded_at(snapshot: &Snapshot, segment: &Segment, ordinal: u32) -> Result<u64, Error> {
    let Some(location) = segment.ask(|index| index.locate_from(ordinal))? else { return Ok(u64::MAX) };
    let block = snapshot.block(segment, &location.frame)?;
    Ok(block.header(segment.file()?, location.frame.start)?.recorded_at())
}

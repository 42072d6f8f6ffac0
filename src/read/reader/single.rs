//! Single events, found by position or id.
//!
//! Row: reader.

use std::sync::Arc;

use crate::event::RecordedEvent;
use crate::index::EventLocation;
use crate::log::Block;
use crate::read::view::{Segment, Snapshot};
use crate::types::{Error, EventId, Position};

use super::checked::CheckedFrame;

/// The frame that was read last. Whoever walks from event to event keeps it: events that cause one
/// another often stand in one append, which may be large.
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
        let Some(place) = segment.place_at(position)? else { return Ok(None) };
        self.event_of(snapshot, segment, &place).map(Some)
    }

    /// The event with this id, derived or brought along.
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
        match snapshot.foreign(id)? {
            Some(position) => self.event_at(snapshot, position),
            None => Ok(None),
        }
    }

    fn event_of(
        &mut self,
        snapshot: &Snapshot,
        segment: &Arc<Segment>,
        place: &EventLocation,
    ) -> Result<RecordedEvent, Error> {
        let block = match &mut self.read {
            Some((own, block)) if Arc::ptr_eq(own, segment) && block.holds(&place.frame) => block,
            read => {
                self.frame.forget();
                let block = snapshot.block(segment, &place.frame)?;
                &mut read.insert((segment.clone(), block)).1
            }
        };
        self.frame.find(segment, block, place).map(|found| found.in_block(block))
    }
}

/// The event at a position, if it is published.
pub(crate) fn event_at(snapshot: &Snapshot, position: Position) -> Result<Option<RecordedEvent>, Error> {
    EventLookup::default().event_at(snapshot, position)
}

/// The event with this id, derived or brought along.
pub(crate) fn event_with(snapshot: &Snapshot, id: EventId) -> Result<Option<RecordedEvent>, Error> {
    EventLookup::default().event_with(snapshot, id)
}

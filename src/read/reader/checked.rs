//! The frame at hand of a read: checked once, its events taken out one by one, in any order.
//!
//! Row: reader.

use crate::event::RecordedEvent;
use crate::format::{Damage, Shape, record};
use crate::index::EventLocation;
use crate::log::Block;
use crate::read::view::Segment;
use crate::types::{Error, Position};

/// Where in a block an event lies that was checked.
#[derive(Default)]
pub(super) struct Found {
    pub(super) frame: usize,
    pub(super) record: usize,
    /// The position of its append's first event, and how many events of that stand before it.
    pub(super) first: Position,
    pub(super) index: u16,
    pub(super) shape: Shape,
}

impl Found {
    #[inline(always)]
    pub(super) fn in_block(&self, block: &Block) -> RecordedEvent {
        RecordedEvent::new(&block.bytes, self.frame, self.record, self.first, self.index, self.shape)
    }
}

/// A frame of a block whose checksums were found right; or none yet.
#[derive(Default)]
pub(super) struct CheckedFrame {
    /// Where it begins in its segment; 0, where no frame can be, while there is none.
    offset: u32,
    events: u16,
    position_offset: u32,
    /// Where in the block its records are.
    body: std::ops::Range<usize>,
    /// Where each record begins in the body.
    starts: Vec<usize>,
}

impl CheckedFrame {
    /// What was checked is no longer at hand.
    pub(super) fn forget(&mut self) {
        self.offset = 0;
    }

    /// Finds the event at `place`, which lies in `block`.
    #[inline(always)]
    pub(super) fn find(&mut self, segment: &Segment, block: &Block, place: &EventLocation) -> Result<Found, Error> {
        let offset = place.frame.start;
        if self.offset != offset {
            self.check(segment, block, offset)?;
        }
        let file = segment.file()?;
        let damaged = |damage: Damage| file.damaged(offset.into(), &damage);
        let index = place
            .ordinal
            .checked_sub(self.position_offset)
            .and_then(|index| u16::try_from(index).ok())
            .filter(|index| *index < self.events)
            .ok_or_else(|| damaged(Damage::Bad("the frame is not the one the index knows")))?;
        let start = self.starts[usize::from(index)];
        let body = &block.bytes[self.body.clone()];
        let record = record::read_in(body, start, self.events).map_err(damaged)?;
        Ok(Found {
            frame: block.at(offset),
            record: self.body.start + start,
            first: segment.position(self.position_offset).into(),
            index,
            shape: record.shape(),
        })
    }

    fn check(&mut self, segment: &Segment, block: &Block, offset: u32) -> Result<(), Error> {
        self.forget();
        let file = segment.file()?;
        let frame = block.frame(file, offset)?;
        let header = &frame.header;
        let start = block.at(offset) + header.header_bytes();
        (self.events, self.position_offset) = (header.events(), header.position_offset());
        self.body = start..start + frame.body.len();
        record::lay_out(frame.body, self.events, &mut self.starts)
            .map_err(|damage| file.damaged(offset.into(), &damage))?;
        self.offset = offset;
        Ok(())
    }
}

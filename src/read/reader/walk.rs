//! All events of a segment in their order, each frame beginning where the one before it ends.
//!
//! The index says where a block of frames begins, and nothing of those behind it: looking up every event of a
//! replay would take a fifth of it. Where no frame follows, because the block ends or frames were removed, the index is
//! asked again, and what is not as it says is damage.
//! Row: reader.

use std::ops::Range;

use crate::format::{Damage, Frame, Record, record};
use crate::index::EventLocation;
use crate::log::Block;
use crate::read::view::{Segment, Snapshot};
use crate::types::{Error, SYSTEM_SCOPE};

use super::checked::Found;
use super::{FIRST_WINDOW, RUN_BYTES};

/// Where a walk through a segment stands.
#[derive(Default)]
pub(super) struct SequentialCursor {
    frame: SequentialFrame,
    /// How much was read last.
    run_bytes: u32,
}

/// The frame whose events are being taken.
#[derive(Default)]
struct SequentialFrame {
    /// Where it begins in the segment, and where it ends.
    place: Range<u32>,
    /// The ordinal of its first event.
    first: u32,
    events: u16,
    /// How many of these were taken, and where in the body the next one begins.
    taken: u16,
    start: usize,
    /// Where in the block its records are.
    body: Range<usize>,
}

impl SequentialCursor {
    /// Goes to another segment.
    pub(super) fn leave(&mut self) {
        self.frame = SequentialFrame::default();
    }

    /// Finds the next event whose ordinal is one of these, of which at most so many are wanted.
    #[inline(always)]
    pub(super) fn find(
        &mut self,
        snapshot: &Snapshot,
        segment: &Segment,
        block: &mut Option<Block>,
        ordinals: &mut Range<u32>,
        most: u64,
        found: &mut Found,
    ) -> Result<bool, Error> {
        while ordinals.start < ordinals.end {
            if self.frame.is_taken() && !self.go_on(snapshot, segment, block, ordinals, most)? {
                ordinals.start = ordinals.end;
                break;
            }
            let (block, frame) = (block.as_ref().expect("a frame lies in a block"), &mut self.frame);
            let (start, index, ordinal) = (frame.start, frame.taken, frame.next_ordinal());
            let record = frame.take(block).map_err(|damage| damaged(segment, frame.place.start, &damage))?;
            if ordinal < ordinals.start {
                continue;
            }
            ordinals.start = ordinal + 1;
            // The store's own events are for those who ask for them.
            if record.scope() != SYSTEM_SCOPE {
                *found = Found {
                    frame: block.at(frame.place.start),
                    record: frame.body.start + start,
                    first: segment.position(frame.first).into(),
                    index,
                    shape: record.shape(),
                };
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes the next frame at hand; `false` if none has an event among these ordinals.
    fn go_on(
        &mut self,
        snapshot: &Snapshot,
        segment: &Segment,
        block: &mut Option<Block>,
        ordinals: &Range<u32>,
        most: u64,
    ) -> Result<bool, Error> {
        let (end, next) = (self.frame.place.end, self.frame.next_ordinal());
        let file = segment.file()?;
        if let Some(block) = &*block
            && let Some(frame) = block.frame_if_whole(file, end)
            && frame.header.position_offset() == next
        {
            self.frame.set(block, end, &frame);
            return Ok(true);
        }
        let Some(place) = segment.place_from(ordinals.start)? else { return Ok(false) };
        if place.ordinal >= ordinals.end {
            return Ok(false);
        }
        let run = self.run(&place, segment, most.min(u64::from(ordinals.end - place.ordinal)));
        let old = block.take();
        let block = block.insert(snapshot.next_block(segment, &place.frame, &run, old)?);
        let frame = block.frame(file, place.frame.start)?;
        self.frame.set(block, place.frame.start, &frame);
        if !(self.frame.first..=self.frame.last()).contains(&place.ordinal) {
            let damage = Damage::Bad("the frame is not the one the index knows");
            return Err(damaged(segment, place.frame.start, &damage));
        }
        Ok(true)
    }

    /// The bytes to read next: a frame, and ever more of those that follow it.
    fn run(&mut self, place: &EventLocation, segment: &Segment, most: u64) -> Range<u32> {
        let Range { start, end } = place.frame;
        let few = u32::try_from(most).unwrap_or(u32::MAX).min(FIRST_WINDOW);
        let more = match self.run_bytes {
            0 => (end - start).saturating_mul(few),
            last => last.saturating_mul(4),
        };
        self.run_bytes = more.min(RUN_BYTES);
        start..start.saturating_add(self.run_bytes).min(segment.end()).max(end)
    }
}

impl SequentialFrame {
    fn set(&mut self, block: &Block, offset: u32, frame: &Frame<'_>) {
        let header = &frame.header;
        let frame_bytes = u32::try_from(header.frame_bytes()).expect("it lies in a segment");
        let body = block.at(offset) + header.header_bytes();
        *self = SequentialFrame {
            place: offset..offset + frame_bytes,
            first: header.position_offset(),
            events: header.events(),
            taken: 0,
            start: 0,
            body: body..body + frame.body.len(),
        };
    }

    /// The next event of the frame.
    #[inline(always)]
    fn take<'a>(&mut self, block: &'a Block) -> Result<Record<'a>, Damage> {
        let body = &block.bytes[self.body.clone()];
        let record = record::read_in(body, self.start, self.events)?;
        self.start += record.shape().bytes();
        self.taken += 1;
        if self.is_taken() {
            record::ends_well(body, self.start)?;
        }
        Ok(record)
    }

    fn is_taken(&self) -> bool {
        self.taken == self.events
    }

    fn next_ordinal(&self) -> u32 {
        self.first.saturating_add(self.taken.into())
    }

    fn last(&self) -> u32 {
        self.first.saturating_add(self.events.saturating_sub(1).into())
    }
}

#[cold]
fn damaged(segment: &Segment, offset: u32, damage: &Damage) -> Error {
    match segment.file() {
        Ok(file) => file.damaged(offset.into(), damage),
        Err(error) => error,
    }
}

//! Finds events in the frames of a block: one by one at given locations, or all in order.
//!
//! A frame is checked against its checksums once, when its first event is taken.

use std::ops::Range;
use std::sync::Arc;

use crate::event::RecordedEvent;
use crate::format::{AnyRecord, BodyLayout, Damage, Frame, Record, RecordShape, frame, record};
use crate::index::EventLocation;
use crate::log::Block;
use crate::read::segment::Segment;
use crate::read::view::Snapshot;
use crate::types::{Error, Position, SYSTEM_SCOPE, to_u32, to_usize};

/// The size of the first window of a segment, in ordinals or in matches.
pub(super) const FIRST_WINDOW: u32 = 256;
/// The most bytes of one read, unless a single frame is larger.
pub(super) const RUN_BYTES_MAX: u32 = 256 << 10;

pub(super) const NOT_THE_FRAME: Damage = Damage::Bad("the frame is not the one the index knows");

/// A checked event, as offsets into a block.
#[derive(Default)]
pub(super) struct CheckedEvent {
    pub(super) frame: usize,
    pub(super) record: usize,
    /// The position of the first event of its append, and the number of events before it in there.
    pub(super) first: Position,
    pub(super) index: u16,
    pub(super) shape: RecordShape,
}

impl CheckedEvent {
    /// The event itself; it keeps the block's bytes in memory.
    #[inline(always)]
    pub(super) fn in_block(&self, block: &Arc<Vec<u8>>) -> RecordedEvent {
        RecordedEvent::new(block, self.frame, self.record, self.first, self.index, self.shape)
    }
}

/// A frame that passed its checks, whose events are taken out one by one, in any order; or none yet.
#[derive(Default)]
pub(super) struct CheckedFrame {
    /// The frame's offset in its segment. 0, where no frame can be, means none.
    offset: u32,
    layout: BodyLayout,
    position_offset: u32,
    /// The range of its records in the block.
    body: Range<usize>,
    /// The offset of each record in the body.
    starts: Vec<usize>,
}

impl CheckedFrame {
    /// Forgets the frame: the block is replaced.
    pub(super) fn forget(&mut self) {
        self.offset = 0;
    }

    /// Finds the event at `location`, which lies in `block`. Checks its frame, unless it is the last one.
    #[inline(always)]
    pub(super) fn find(
        &mut self,
        segment: &Segment,
        block: &Block,
        location: &EventLocation,
    ) -> Result<CheckedEvent, Error> {
        let offset = location.frame.start;
        if block.is_known()
            && let Some(found) = in_known_frame(segment, block, location)
        {
            return Ok(found);
        }
        if self.offset != offset {
            self.check(segment, block, offset)?;
        }
        let file = segment.file()?;
        let damaged = |damage: Damage| file.damaged(offset.into(), &damage);
        let index = self.layout.index_of(self.position_offset, location.ordinal);
        let index = index.ok_or_else(|| damaged(NOT_THE_FRAME))?;
        let start = self.starts[usize::from(index)];
        let body = &block.bytes[self.body.clone()];
        let record = record::read(body, start, self.layout).map_err(damaged)?;
        Ok(CheckedEvent {
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
        self.layout = header.layout();
        self.position_offset = header.position_offset();
        self.body = start..start + frame.body.len();
        record::lay_out(frame.body, self.layout, &mut self.starts)
            .map_err(|damage| file.damaged(offset.into(), &damage))?;
        // Last: a frame that fails a check must not count as checked.
        self.offset = offset;
        Ok(())
    }
}

/// The event at a location in a large frame that need not be checked. Its record is, because the index is not
/// believed. `None` if it is not there: the caller that lays out the frame learns why.
fn in_known_frame(segment: &Segment, block: &Block, location: &EventLocation) -> Option<CheckedEvent> {
    let own = location.record.as_ref()?;
    let offset = location.frame.start;
    let segment_header = &segment.file().ok()?.header;
    let place = segment_header.frame_place(offset);
    let header = frame::known_if_whole(block.bytes.get(block.at(offset)..)?, place.mark())?.header;
    let layout = header.layout();
    let index = layout.index_of(header.position_offset(), location.ordinal)?;
    let start = own.bytes.start.checked_sub(offset)?.checked_sub(to_u32(header.header_bytes()))?;
    let at = block.at(own.bytes.start);
    let record = record::read(&block.bytes, at, layout).ok()?;
    let place = header.record_place(&place, index, to_usize(start), record.version());
    record::check(record.bytes(), &place).ok()?;
    Some(CheckedEvent {
        frame: block.at(offset),
        record: at,
        first: segment.position(header.position_offset()).into(),
        index,
        shape: record.shape(),
    })
}

/// Reads all events of a segment in order. Each frame begins where the one before it ends.
///
/// It asks the index for the first frame of a block only: looking up every event would cost a replay a fifth
/// of its time. Where no frame follows, because the block ends or frames were removed, it asks again. A frame
/// that differs from the index is damage.
#[derive(Default)]
pub(super) struct SequentialCursor {
    frame: SequentialFrame,
    /// The length of the last read.
    run_bytes: u32,
}

/// The frame whose events are being taken.
#[derive(Default)]
struct SequentialFrame {
    /// Its bytes in the segment.
    bytes: Range<u32>,
    /// The ordinal of its first event.
    first: u32,
    layout: BodyLayout,
    /// How many of its events were taken.
    taken: u16,
    /// The offset in the body of the next event.
    start: usize,
    /// The range of its records in the block.
    body: Range<usize>,
}

impl SequentialCursor {
    /// Forgets the frame: the next one is in another segment.
    pub(super) fn leave_segment(&mut self) {
        self.frame = SequentialFrame::default();
    }

    /// Finds the next event with one of these ordinals; `false` if there is none. The caller wants at most
    /// `most` events, which limits what is read at first.
    #[inline(always)]
    pub(super) fn find(
        &mut self,
        snapshot: &Snapshot,
        segment: &Segment,
        block: &mut Option<Block>,
        ordinals: &mut Range<u32>,
        most: u64,
        found: &mut CheckedEvent,
    ) -> Result<bool, Error> {
        while ordinals.start < ordinals.end {
            if self.frame.is_taken() && !self.next_frame(snapshot, segment, block, ordinals, most)? {
                ordinals.start = ordinals.end;
                break;
            }
            let block = block.as_ref().expect("a frame lies in a block");
            let frame = &mut self.frame;
            let start = frame.start;
            let index = frame.taken;
            let ordinal = frame.next_ordinal();
            let record = frame.take(block).map_err(|damage| damaged(segment, frame.bytes.start, &damage))?;
            if ordinal < ordinals.start {
                continue;
            }
            ordinals.start = ordinal + 1;
            let Some(record) = record else { continue };
            // System events come only to queries that select them, and those do not read sequentially.
            if record.scope() != SYSTEM_SCOPE {
                *found = CheckedEvent {
                    frame: block.at(frame.bytes.start),
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

    /// Moves to the next frame; `false` if none has an event among these ordinals.
    fn next_frame(
        &mut self,
        snapshot: &Snapshot,
        segment: &Segment,
        block: &mut Option<Block>,
        ordinals: &Range<u32>,
        most: u64,
    ) -> Result<bool, Error> {
        let end = self.frame.bytes.end;
        let next = self.frame.next_ordinal();
        let file = segment.file()?;
        if let Some(block) = &*block
            && let Some(frame) = block.frame_if_whole(file, end)
            && frame.header.position_offset() == next
        {
            self.frame.set(block, end, &frame);
            return Ok(true);
        }
        let Some(location) = segment.ask(|index| index.locate_from(ordinals.start))? else {
            return Ok(false);
        };
        if location.ordinal >= ordinals.end {
            return Ok(false);
        }
        let run = self.next_run(&location, segment, most.min(u64::from(ordinals.end - location.ordinal)));
        let old = block.take();
        let block = block.insert(snapshot.next_block(segment, &location.frame, &run, old)?);
        let frame = block.frame(file, location.frame.start)?;
        self.frame.set(block, location.frame.start, &frame);
        if !(self.frame.first..=self.frame.last_ordinal()).contains(&location.ordinal) {
            return Err(damaged(segment, location.frame.start, &NOT_THE_FRAME));
        }
        Ok(true)
    }

    /// The bytes to read next: a frame and those behind it, four times as many as before.
    fn next_run(&mut self, location: &EventLocation, segment: &Segment, most: u64) -> Range<u32> {
        let Range { start, end } = location.frame;
        let events = u32::try_from(most).unwrap_or(u32::MAX).min(FIRST_WINDOW);
        let bytes = match self.run_bytes {
            0 => (end - start).saturating_mul(events),
            last => last.saturating_mul(4),
        };
        self.run_bytes = bytes.min(RUN_BYTES_MAX);
        start..start.saturating_add(self.run_bytes).min(segment.end()).max(end)
    }
}

impl SequentialFrame {
    fn set(&mut self, block: &Block, offset: u32, frame: &Frame<'_>) {
        let header = &frame.header;
        let frame_bytes = u32::try_from(header.frame_bytes()).expect("it lies in a segment");
        let body = block.at(offset) + header.header_bytes();
        *self = SequentialFrame {
            bytes: offset..offset + frame_bytes,
            first: header.position_offset(),
            layout: header.layout(),
            taken: 0,
            start: 0,
            body: body..body + frame.body.len(),
        };
    }

    /// Takes the next event of the frame; `None` if that event is gone.
    #[inline(always)]
    fn take<'a>(&mut self, block: &'a Block) -> Result<Option<Record<'a>>, Damage> {
        let body = &block.bytes[self.body.clone()];
        let record = AnyRecord::read(body, self.start, self.layout)?;
        self.start += record.bytes().len();
        self.taken += 1;
        if self.is_taken() {
            record::ends_well(body, self.start)?;
        }
        Ok(record.event())
    }

    fn is_taken(&self) -> bool {
        self.taken == self.layout.events
    }

    fn next_ordinal(&self) -> u32 {
        self.first.saturating_add(self.taken.into())
    }

    fn last_ordinal(&self) -> u32 {
        self.first.saturating_add(self.layout.events.saturating_sub(1).into())
    }
}

#[cold]
fn damaged(segment: &Segment, offset: u32, damage: &Damage) -> Error {
    match segment.file() {
        Ok(file) => file.damaged(offset.into(), damage),
        Err(error) => error,
    }
}

//! Reads events that lie apart from the file: some of them into one block, each checked alone.
//!
//! Of a small frame the whole frame is read, of a large one only the record. What lies close together is read
//! at once. The checksum of a record covers its place and what its frame says of it. So an event that was
//! read alone is as certain as one of a frame that was read whole. It says nothing of the rest of its append.
//! The block holds the header of the frame as well, put together from the index: the event finds its time, id
//! and version there.

use std::ops::Range;
use std::sync::Arc;

use crate::event::RecordedEvent;
use crate::format::index_file::LargeFrame;
use crate::format::{Damage, FrameHeader, Record, RecordPlace, SegmentHeader, frame, record};
use crate::index::{EventLocation, RecordLocation};
use crate::types::{Cause, Error, to_usize};

use super::cursor::{CheckedEvent, NOT_THE_FRAME, RUN_BYTES_MAX};
use crate::read::segment::Segment;

/// Bytes closer together than this are read with one read, gap included.
const GAP_BYTES: u32 = 4 << 10;
/// The most bytes of a block of events that lie apart, unless a single event is larger.
const BLOCK_BYTES_MAX: usize = 64 << 10;
/// The most reads for a block. For the first block of a read there is one, for the next four times as many.
const RUNS_MAX: usize = 256;

/// Events that were read into one block, in the order in which they come.
#[derive(Default)]
pub(super) struct EventBatch {
    block: Arc<Vec<u8>>,
    events: std::vec::IntoIter<(u32, CheckedEvent)>,
    /// What is read at once, and where it begins in the block.
    runs: Vec<(Range<u32>, usize)>,
    /// How many reads the last block could take.
    runs_max: usize,
}

/// What to read of an event.
enum EventSource<'a> {
    /// The whole frame.
    SmallFrame(&'a Range<u32>),
    Record(&'a RecordLocation),
}

impl<'a> EventSource<'a> {
    fn of(location: &'a EventLocation) -> EventSource<'a> {
        location.record.as_ref().map_or(EventSource::SmallFrame(&location.frame), EventSource::Record)
    }

    fn bytes(&self) -> &'a Range<u32> {
        match self {
            EventSource::SmallFrame(frame) => frame,
            EventSource::Record(record) => &record.bytes,
        }
    }

    /// The offset of the frame.
    fn frame(&self) -> u32 {
        match self {
            EventSource::SmallFrame(frame) => frame.start,
            EventSource::Record(record) => record.frame.offset,
        }
    }
}

/// The event at a location, read into a block of its own. `None` if it cannot be read alone, or is damaged:
/// the reader of its whole frame learns what is wrong.
///
/// # Errors
///
/// Those of reading.
pub(super) fn read_one(segment: &Segment, location: &EventLocation) -> Result<Option<RecordedEvent>, Error> {
    let source = EventSource::of(location);
    let run = source.bytes();
    let length = to_usize(run.end - run.start);
    let mut block = vec![0; length + FrameHeader::DETACHED_BYTES];
    segment.read_at(run.start, &mut block[..length])?;
    let runs = [(run.clone(), 0)];
    let mut reading = BlockReader::new(segment, &mut block, &runs, length)?;
    match reading.event(location) {
        Ok(Some(event)) => Ok(Some(event.in_block(&Arc::new(block)))),
        Ok(None) | Err(_) => Ok(None),
    }
}

impl EventBatch {
    /// Forgets its events: the next ones are in another segment.
    pub(super) fn leave_segment(&mut self) {
        self.events = Vec::new().into_iter();
        self.runs_max = 0;
    }

    /// The bytes that its events lie in.
    pub(super) fn block(&self) -> &Arc<Vec<u8>> {
        &self.block
    }

    /// The event with this ordinal, if it is the next one.
    pub(super) fn next(&mut self, ordinal: u32) -> Option<CheckedEvent> {
        let (next, _) = self.events.as_slice().first()?;
        if *next != ordinal {
            self.events = Vec::new().into_iter();
            return None;
        }
        self.events.next().map(|(_, event)| event)
    }

    /// Reads the first event and some of the others. Without an event afterwards, the first one cannot be
    /// read alone: its frame must be read whole.
    ///
    /// # Errors
    ///
    /// Those of reading. An event that is damaged, or not where the index says, ends the batch. It is no
    /// error here: the reader of its whole frame learns what is wrong with it.
    pub(super) fn fill(
        &mut self,
        segment: &Segment,
        first: &EventLocation,
        others: &[EventLocation],
    ) -> Result<(), Error> {
        self.runs_max = (self.runs_max * 4).clamp(1, RUNS_MAX);
        let sources = || std::iter::once(first).chain(others);
        let (count, headers, bytes) = self.lay_out(sources().map(EventSource::of));
        let block = writable(&mut self.block, bytes + headers * FrameHeader::DETACHED_BYTES);
        for (run, start) in &self.runs {
            let length = to_usize(run.end - run.start);
            segment.read_at(run.start, &mut block[*start..*start + length])?;
        }
        let mut events = Vec::with_capacity(count);
        let mut reading = BlockReader::new(segment, block, &self.runs, bytes)?;
        for location in sources().take(count) {
            let Ok(Some(event)) = reading.event(location) else { break };
            events.push((location.ordinal, event));
        }
        self.events = events.into_iter();
        Ok(())
    }

    /// Decides what to read at once. Returns how many events, how many headers beside records, and how many
    /// bytes the block takes without these.
    fn lay_out<'a>(&mut self, sources: impl Iterator<Item = EventSource<'a>>) -> (usize, usize, usize) {
        self.runs.clear();
        let mut count = 0;
        let mut headers = 0;
        let mut bytes = 0;
        let mut last_frame = None;
        for source in sources {
            let own = source.bytes();
            let length = to_usize(own.end - own.start);
            let is_full = self.runs.len() == self.runs_max;
            match self.runs.last_mut().and_then(|(run, start)| Some((joined(run, own)?, run, start))) {
                Some((both, run, start)) if fits(&both, *start) => {
                    bytes = *start + to_usize(both.end - both.start);
                    *run = both;
                }
                _ if is_full => break,
                _ if count > 0 && bytes + length > BLOCK_BYTES_MAX => break,
                _ => {
                    self.runs.push((own.clone(), bytes));
                    bytes += length;
                }
            }
            if let EventSource::Record(_) = source
                && last_frame != Some(source.frame())
            {
                headers += 1;
                last_frame = Some(source.frame());
            }
            count += 1;
        }
        (count, headers, bytes)
    }
}

/// Both ranges and the gap between them, if the gap is small.
pub(super) fn joined(run: &Range<u32>, own: &Range<u32>) -> Option<Range<u32>> {
    let gap = own.start.saturating_sub(run.end).max(run.start.saturating_sub(own.end));
    (gap <= GAP_BYTES).then(|| run.start.min(own.start)..run.end.max(own.end))
}

/// Whether a run fits a block in which it begins at `start`. A block of one run may be longer.
fn fits(run: &Range<u32>, start: usize) -> bool {
    let most = if start == 0 { to_usize(RUN_BYTES_MAX) } else { BLOCK_BYTES_MAX };
    start + to_usize(run.end - run.start) <= most
}

/// The memory of a block, at least this long; new memory if an event holds the old one.
fn writable(block: &mut Arc<Vec<u8>>, bytes: usize) -> &mut [u8] {
    if Arc::get_mut(block).is_none() {
        *block = Arc::new(Vec::new());
    }
    let block = Arc::get_mut(block).expect("it is new, or no event holds it");
    if block.len() < bytes {
        block.resize(bytes, 0);
    }
    block
}

/// Takes the events out of a block that was read.
struct BlockReader<'a> {
    segment: &'a Segment,
    header: &'a SegmentHeader,
    block: &'a mut [u8],
    runs: &'a [(Range<u32>, usize)],
    /// The run of the event taken last, as an index.
    run: usize,
    /// Where the next header goes.
    header_at: usize,
    /// The offset of the frame of the event taken last, and where its header is in the block.
    last: Option<(u32, usize)>,
}

impl<'a> BlockReader<'a> {
    /// `header_at` is the place behind the runs, where the headers go.
    fn new(
        segment: &'a Segment,
        block: &'a mut [u8],
        runs: &'a [(Range<u32>, usize)],
        header_at: usize,
    ) -> Result<BlockReader<'a>, Error> {
        let header = &segment.file()?.header;
        Ok(BlockReader { segment, header, block, runs, run: 0, header_at, last: None })
    }

    /// The event at a location; `None` if it cannot be read alone.
    fn event(&mut self, location: &EventLocation) -> Result<Option<CheckedEvent>, Damage> {
        let source = EventSource::of(location);
        let own = source.bytes();
        while !(self.runs[self.run].0.start <= own.start && own.end <= self.runs[self.run].0.end) {
            self.run += 1;
        }
        let (run, start) = &self.runs[self.run];
        let at = start + to_usize(own.start - run.start);
        let end = start + to_usize(own.end - run.start);
        let known_header = self.last.filter(|(frame, _)| *frame == source.frame()).map(|(_, at)| at);
        let (header_at, event) = match source {
            EventSource::SmallFrame(frame) => {
                let is_known = known_header.is_some();
                (at, self.in_small_frame(frame.start, at..end, location.ordinal, is_known)?)
            }
            EventSource::Record(record) => {
                let Some(mut event) = self.in_large_frame(record, at..end, location.ordinal)? else {
                    return Ok(None);
                };
                let header_at = known_header.unwrap_or_else(|| self.add_header(&record.frame));
                event.frame = header_at;
                (header_at, event)
            }
        };
        self.last = Some((source.frame(), header_at));
        Ok(Some(event))
    }

    fn in_small_frame(
        &self,
        offset: u32,
        place: Range<usize>,
        ordinal: u32,
        is_known: bool,
    ) -> Result<CheckedEvent, Damage> {
        let bytes = &self.block[place.clone()];
        let frame_place = self.header.frame_place(offset);
        let header =
            if is_known { FrameHeader::known(bytes) } else { frame::read_header(bytes, frame_place.mark())? };
        let layout = header.layout();
        let index = layout.index_of(header.position_offset(), ordinal).ok_or(NOT_THE_FRAME)?;
        let body = bytes.get(header.header_bytes()..header.frame_bytes()).ok_or(NOT_THE_FRAME)?;
        let start = record::start_of(body, index, layout).ok_or(NOT_THE_FRAME)?;
        let found = record::read(body, start, layout)?;
        record::check(found.bytes(), &header.record_place(&frame_place, index, start, found.version()))?;
        Ok(CheckedEvent {
            frame: place.start,
            record: place.start + header.header_bytes() + start,
            first: self.segment.position(header.position_offset()).into(),
            index,
            shape: found.shape(),
        })
    }

    fn in_large_frame(
        &self,
        location: &RecordLocation,
        place: Range<usize>,
        ordinal: u32,
    ) -> Result<Option<CheckedEvent>, Damage> {
        let LargeFrame { first, events, first_version, recorded_at, chain, .. } = location.frame;
        let layout = location.frame.layout();
        let index = layout.index_of(first, ordinal).ok_or(NOT_THE_FRAME)?;
        let found = record::read(&self.block[place.clone()], 0, layout)?;
        record::check(
            found.bytes(),
            &RecordPlace {
                salt: self.header.salt,
                offset: location.bytes.start,
                index,
                events,
                position: self.segment.position(ordinal),
                version: found.version().unwrap_or_else(|| first_version.saturating_add(index.into())),
                recorded_at,
                chain,
            },
        )?;
        if location.frame.has_foreign_ids && needs_others(&found) {
            return Ok(None);
        }
        Ok(Some(CheckedEvent {
            frame: 0,
            record: place.start,
            first: self.segment.position(first).into(),
            index,
            shape: found.shape(),
        }))
    }

    /// Puts together the header of a large frame, and returns where it is in the block.
    fn add_header(&mut self, frame: &LargeFrame) -> usize {
        let at = self.header_at;
        self.header_at += FrameHeader::DETACHED_BYTES;
        FrameHeader::write_detached(&mut self.block[at..self.header_at], frame);
        at
    }
}

/// Whether the event names another event of its append by its place there. If that one was imported with an
/// id, this one's correlation or cause is that id.
fn needs_others(record: &Record<'_>) -> bool {
    record.correlation().is_none() || matches!(record.cause(), Some(Cause::InAppend(_)))
}

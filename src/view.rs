//! What readers may see: the segments with their indexes, and how far the log is published.
//!
//! The writer publishes a group under short locks; a reader takes a snapshot of the segment list
//! and the head, and holds no lock while it reads.
//! Invariant: the head is moved only after everything up to it is in the indexes.
//! Row: view.

mod cursors;
mod recent;
mod search;
mod wake;

use std::ops::Range;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::error::Error;
use crate::event::EventId;
use crate::format::chain::Hash;
use crate::format::frame::Frame;
use crate::index::{Index, Place};
use crate::log::scan::Tip;
use crate::log::segment::{Block, SegmentFile};
use crate::version::{Position, Version};

pub(crate) use cursors::Cursor;
use cursors::Cursors;
use recent::Recent;
pub(crate) use search::{Own, first_match};
use wake::Waiters;
pub(crate) use wake::{End, Reach, Slot, wake};

/// A segment as readers see it.
pub(crate) struct Segment {
    pub(crate) file: Arc<SegmentFile>,
    index: RwLock<Index>,
}

/// A place in the log and the chain hash there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) position: Position,
    pub(crate) chain: Hash,
}

impl From<&Tip> for Point {
    fn from(tip: &Tip) -> Point {
        Point { position: tip.position.into(), chain: tip.chain }
    }
}

pub(crate) struct View {
    published: RwLock<Snapshot>,
    recent: Arc<Recent>,
    waiters: Waiters,
    cursors: Cursors,
}

/// One consistent state of the view.
#[derive(Clone)]
pub(crate) struct Snapshot {
    /// In order of position; never empty.
    pub(crate) segments: Arc<Vec<Arc<Segment>>>,
    pub(crate) head: Point,
    pub(crate) durable: Point,
    recent: Arc<Recent>,
}

impl View {
    /// A view that keeps up to `recent_bytes_max` of what is published in memory.
    pub(crate) fn new(segments: Vec<Arc<Segment>>, head: Point, recent_bytes_max: usize) -> View {
        let recent = Arc::new(Recent::new(recent_bytes_max));
        let segments = Arc::new(segments);
        View {
            published: RwLock::new(Snapshot { segments, head, durable: head, recent: recent.clone() }),
            recent,
            waiters: Waiters::default(),
            cursors: Cursors::default(),
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.published.read().clone()
    }

    /// The newest position within reach.
    pub(crate) fn reaches(&self, reach: Reach) -> Position {
        let published = self.published.read();
        match reach {
            Reach::Published => published.head.position,
            Reach::Durable => published.durable.position,
        }
    }

    /// Lets readers see up to `head`; whatever lies before it was inserted into its index before.
    pub(crate) fn publish(&self, head: Point, durable: Point) {
        let mut published = self.published.write();
        (published.head, published.durable) = (head, durable);
    }

    /// Keeps the bytes of a group that was written to `segment` at `start`, and is published next.
    pub(crate) fn keep(&self, segment: &Segment, start: u32, group: &[u8]) {
        self.recent.add(segment.file.header.id, start, group);
    }

    /// Begins again with what recovery found.
    pub(crate) fn replace(&self, segments: Vec<Arc<Segment>>, head: Point) {
        let (segments, recent) = (Arc::new(segments), self.recent.clone());
        let mut published = self.published.write();
        // Of what was published recovery may have cut what was not durable.
        recent.clear();
        *published = Snapshot { segments, head, durable: head, recent };
    }

    /// Adds the segment that the log goes on in.
    pub(crate) fn add_segment(&self, segment: Arc<Segment>) {
        let mut published = self.published.write();
        Arc::make_mut(&mut published.segments).push(segment);
    }
}

impl Segment {
    pub(crate) fn new(file: Arc<SegmentFile>, index: Index) -> Segment {
        Segment { file, index: RwLock::new(index) }
    }

    /// Of the first event it can hold.
    pub(crate) fn first_position(&self) -> u64 {
        self.file.header.id.first_position
    }

    /// Adds frames to the index, all under one lock.
    pub(crate) fn insert<'a>(&self, frames: impl Iterator<Item = (u32, Frame<'a>)>) -> Result<(), Error> {
        let mut index = self.index.write();
        frames.into_iter().try_for_each(|(offset, frame)| index.insert(&self.file, offset, &frame))
    }

    /// How many events its index knows.
    pub(crate) fn events(&self) -> u32 {
        self.index.read().events()
    }

    /// The ordinal behind the last its index knows.
    pub(crate) fn ordinals_end(&self) -> u32 {
        self.index.read().ordinals_end()
    }

    /// Where its last known frame ends.
    pub(crate) fn end(&self) -> u32 {
        self.index.read().end()
    }

    pub(crate) fn place(&self, ordinal: u32) -> Option<Place> {
        self.index.read().place(ordinal)
    }

    /// The place of the first event at or behind `ordinal`.
    pub(crate) fn place_from(&self, ordinal: u32) -> Option<Place> {
        self.index.read().place_from(ordinal)
    }

    /// The ordinals that hold these versions of a stream, and all between them.
    pub(crate) fn window_of(&self, entity: &str, versions: &Range<u64>) -> Range<u32> {
        self.index.read().stream(entity).map_or(0..0, |stream| stream.ordinals_of(versions))
    }

    pub(crate) fn foreign(&self, id: EventId) -> Option<Place> {
        let index = self.index.read();
        index.place(index.foreign(id)?)
    }

    /// The version and position of an entity's last event here up to `head`: what comes after is
    /// in the index already, but not published.
    fn head_of(&self, entity: &str, head: Position) -> Option<(Version, Position)> {
        let last = head.get().checked_sub(self.first_position())?;
        let last = u32::try_from(last).unwrap_or(u32::MAX);
        let (version, ordinal) = self.index.read().stream(entity)?.last_up_to(last)?;
        Some((version.into(), self.position(ordinal).into()))
    }

    pub(crate) fn position(&self, ordinal: u32) -> u64 {
        self.first_position() + u64::from(ordinal)
    }

    /// The ordinal a position would have here.
    pub(crate) fn ordinal(&self, position: u64) -> Option<u32> {
        u32::try_from(position.checked_sub(self.first_position())?).ok()
    }
}

impl Snapshot {
    /// A block that holds `frame`: from memory if it was written lately, else `run`, which lies around it, from
    /// the file.
    pub(crate) fn block(
        &self,
        segment: &Segment,
        frame: &Range<u32>,
        run: &Range<u32>,
    ) -> Result<Block, Error> {
        match self.recent.block(segment.file.header.id, frame, run) {
            Some(block) => Ok(block),
            None => segment.file.block(run.clone()),
        }
    }

    /// The segment that holds a position.
    pub(crate) fn segment_of(&self, position: Position) -> Option<&Arc<Segment>> {
        let later = self.segments.partition_point(|segment| segment.first_position() <= position.get());
        self.segments.get(later.checked_sub(1)?)
    }

    /// The version of a stream and the position of its last event.
    pub(crate) fn stream_head(&self, entity: &str) -> (Version, Position) {
        self.stream_head_at(entity, self.head.position)
    }

    /// The same, if there are events of it after `seen`; costs the segments since, not all. It may answer for
    /// earlier ones, too.
    pub(crate) fn stream_head_since(&self, entity: &str, seen: Position) -> Option<(Version, Position)> {
        let later = self.segments.partition_point(|segment| segment.first_position() <= seen.get());
        let since = self.segments.get(later.saturating_sub(1)..).unwrap_or_default();
        since.iter().rev().find_map(|segment| segment.head_of(entity, self.head.position))
    }

    /// The same as of `head`, which is not after the snapshot's.
    pub(crate) fn stream_head_at(&self, entity: &str, head: Position) -> (Version, Position) {
        let heads = self.segments.iter().rev().find_map(|segment| segment.head_of(entity, head));
        heads.unwrap_or_default()
    }
}

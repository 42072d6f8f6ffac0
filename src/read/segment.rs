//! One segment, or a part of one, as readers see it: its file, and its index.
//!
//! Most parts are a whole segment. A segment that was closed with its index and is written to again has two
//! parts: the events in that index, and the events since.

use std::cell::OnceCell;
use std::ops::Range;
use std::sync::Arc;

use foldhash::HashSet;
use parking_lot::RwLock;

use crate::format::{Frame, SegmentId};
use crate::index::{Direction, EventLocation, LiveIndex, SegmentIndex, TermHash};
use crate::log::{Block, LogEnd, SegmentFile};
use crate::read::segment_cache::SealedSegment;
use crate::types::{Error, EventId, Position, Query, Version};

/// The events that correlations find by the event's own id: the id, and the event's position.
///
/// A lone event without a correlation has its own id as its correlation. The index does not hold that; only
/// the event knows. An id without an entry here has no such event.
pub(crate) type SelfCorrelations = Vec<(EventId, Position)>;

pub(crate) struct Segment {
    /// The first position this part can hold.
    first: u64,
    /// The first position of its file.
    file_first: u64,
    /// When the last event before this part was recorded.
    recorded_before: u64,
    form: SegmentForm,
}

enum SegmentForm {
    /// Being written, or sealed and without an index file yet.
    Live(Box<LiveSegment>),
    Sealed(Box<SealedSegment>),
}

struct LiveSegment {
    file: Arc<SegmentFile>,
    index: RwLock<LiveIndex>,
    /// The entities that have events here. Every append asks for them, and they seldom change, so they have a
    /// lock of their own. An append does not wait for a group that is being added to the index.
    entities: RwLock<HashSet<Box<str>>>,
}

impl Segment {
    /// An empty part that grows in memory, from the end of a walk over its file.
    pub(crate) fn live(file: Arc<SegmentFile>, from: &LogEnd) -> Segment {
        let file_first = file.header.id.first_position;
        let index = RwLock::new(LiveIndex::new(from.offset));
        Segment {
            first: from.position.saturating_add(1),
            file_first,
            recorded_before: from.recorded_at,
            form: SegmentForm::Live(Box::new(LiveSegment { file, index, entities: RwLock::default() })),
        }
    }

    /// A part that does not change any more.
    pub(crate) fn sealed(sealed: SealedSegment) -> Segment {
        let first = sealed.meta().bound.segment.first_position;
        let recorded_before = sealed.meta().recorded_before;
        Segment { first, file_first: first, recorded_before, form: SegmentForm::Sealed(Box::new(sealed)) }
    }

    /// The first position this part can hold.
    pub(crate) fn first_position(&self) -> u64 {
        self.first
    }

    /// Whether no part of the same file comes before this one.
    pub(super) fn begins_a_file(&self) -> bool {
        self.first == self.file_first
    }

    /// When the last event before this part was recorded.
    pub(crate) fn recorded_before(&self) -> u64 {
        self.recorded_before
    }

    /// The segment's file. A sealed segment opens it when it is first asked for.
    ///
    /// # Errors
    ///
    /// If the file is missing, cannot be read, or is not the segment that is listed.
    pub(crate) fn file(&self) -> Result<&Arc<SegmentFile>, Error> {
        match &self.form {
            SegmentForm::Live(live) => Ok(&live.file),
            SegmentForm::Sealed(sealed) => sealed.file(),
        }
    }

    /// The id of its file.
    pub(crate) fn id(&self) -> SegmentId {
        match &self.form {
            SegmentForm::Live(live) => live.file.header.id,
            SegmentForm::Sealed(sealed) => sealed.meta().bound.segment,
        }
    }

    /// The path of its file within the store's directory, for messages.
    pub(crate) fn path(&self) -> String {
        self.id().path()
    }

    /// Whether another part has the same file.
    pub(crate) fn shares_file(&self, other: &Segment) -> bool {
        self.file_first == other.file_first
    }

    /// Whether this part is live and has this very file.
    pub(crate) fn is_live_in(&self, file: &Arc<SegmentFile>) -> bool {
        self.as_live().is_some_and(|(own, _)| Arc::ptr_eq(own, file))
    }

    /// A block that holds these bytes of the file. The memory of `old` is reused if no event holds it.
    ///
    /// # Errors
    ///
    /// Those of [`Segment::file`], and of reading.
    pub(super) fn block(&self, run: &Range<u32>, old: Option<Block>) -> Result<Block, Error> {
        match &self.form {
            SegmentForm::Live(live) => live.file.block_over(old, run.clone()),
            SegmentForm::Sealed(sealed) => sealed.block(run, old),
        }
    }

    /// The whole segment, if it is in memory.
    pub(super) fn resident(&self) -> Option<Block> {
        self.as_sealed().and_then(SealedSegment::resident_block)
    }

    /// Reads bytes of the file that must be there.
    ///
    /// # Errors
    ///
    /// Those of [`Segment::file`], and of reading.
    pub(super) fn read_at(&self, offset: u32, bytes: &mut [u8]) -> Result<(), Error> {
        match &self.form {
            SegmentForm::Live(live) => live.file.read_at(offset, bytes),
            SegmentForm::Sealed(sealed) => sealed.read_at(offset, bytes),
        }
    }

    /// The sealed segment, if this part does not change any more.
    pub(crate) fn as_sealed(&self) -> Option<&SealedSegment> {
        match &self.form {
            SegmentForm::Live(_) => None,
            SegmentForm::Sealed(sealed) => Some(sealed),
        }
    }

    /// The file and the index, if the index is in memory and may grow.
    pub(crate) fn as_live(&self) -> Option<(&Arc<SegmentFile>, &RwLock<LiveIndex>)> {
        match &self.form {
            SegmentForm::Live(live) => Some((&live.file, &live.index)),
            SegmentForm::Sealed(_) => None,
        }
    }

    /// Adds frames to the index under one lock, and returns the number of streams they create.
    pub(crate) fn insert<'a>(&self, frames: impl Iterator<Item = (u32, Frame<'a>)>) -> Result<u32, Error> {
        let SegmentForm::Live(live) = &self.form else {
            unreachable!("only the end of the log is written to, and that is in memory")
        };
        let mut index = live.index.write();
        let before = index.streams_created();
        frames.into_iter().try_for_each(|(offset, frame)| index.insert(&live.file, offset, &frame))?;
        let created = index.streams_created() - before;
        let new_entities = index.take_new_entities();
        if new_entities.len() > 0 {
            live.entities.write().extend(new_entities);
        }
        Ok(created)
    }

    /// Whether this part is live and has events of all these entities.
    pub(super) fn has_all<'a>(&self, mut entities: impl Iterator<Item = &'a str>) -> bool {
        match &self.form {
            SegmentForm::Live(live) => {
                let known = live.entities.read();
                entities.all(|entity| known.contains(entity))
            }
            SegmentForm::Sealed(_) => false,
        }
    }

    /// Puts a question to the index. The index of a sealed segment may be asked twice: it is built again if
    /// it turns out to be damaged.
    ///
    /// # Errors
    ///
    /// If there is no usable index file, and the segment cannot be read.
    pub(crate) fn ask<T>(&self, ask: impl Fn(&dyn SegmentIndex) -> Result<T, Error>) -> Result<T, Error> {
        match &self.form {
            SegmentForm::Live(live) => ask(&*live.index.read()),
            SegmentForm::Sealed(sealed) => sealed.ask(ask),
        }
    }

    /// The number of frames in the index.
    pub(crate) fn frames(&self) -> u32 {
        match &self.form {
            SegmentForm::Live(live) => live.index.read().frames(),
            SegmentForm::Sealed(sealed) => sealed.meta().frames,
        }
    }

    /// The number of events in the index.
    pub(crate) fn events(&self) -> u32 {
        match &self.form {
            SegmentForm::Live(live) => live.index.read().events(),
            SegmentForm::Sealed(sealed) => sealed.meta().events,
        }
    }

    /// The offset behind the last frame in the index.
    pub(crate) fn end(&self) -> u32 {
        match &self.form {
            SegmentForm::Live(live) => live.index.read().end(),
            SegmentForm::Sealed(sealed) => sealed.meta().bound.end,
        }
    }

    /// The ordinals from this part's first to the one behind the last in the index.
    pub(crate) fn ordinals(&self) -> Range<u32> {
        let end = match &self.form {
            SegmentForm::Live(live) => live.index.read().ordinals_end(),
            SegmentForm::Sealed(sealed) => {
                self.ordinal_or_max(sealed.meta().bound.last_position.saturating_add(1))
            }
        };
        let first = self.ordinal_or_max(self.first);
        first..end.max(first)
    }

    /// The ordinals of these positions, as far as they are in the index.
    pub(crate) fn clip(&self, positions: &Range<u64>) -> Range<u32> {
        let start = self.ordinal_or_max(positions.start.max(self.first));
        let end = self.ordinal_or_max(positions.end.max(self.first));
        start..end.min(self.ordinals().end)
    }

    /// The location of the event at a position; `None` if it was removed or never was.
    pub(crate) fn locate(&self, position: Position) -> Result<Option<EventLocation>, Error> {
        match self.ordinal(position.get()) {
            Some(ordinal) => self.ask(|index| index.locate(ordinal)),
            None => Ok(None),
        }
    }

    /// The locations of the first `most` matching events of a window, in `direction`.
    pub(crate) fn matching(
        &self,
        query: &Query,
        own: &SelfCorrelations,
        window: &Range<u32>,
        direction: Direction,
        most: usize,
    ) -> Result<Vec<EventLocation>, Error> {
        if window.is_empty() {
            return Ok(Vec::new());
        }
        self.ask(|index| index.matching(query, window, direction, &|id| self.own_ordinal(own, id), most))
    }

    /// The position of the first matching event of a window, in `direction`.
    pub(crate) fn first_matching(
        &self,
        query: &Query,
        own: &SelfCorrelations,
        window: &Range<u32>,
        direction: Direction,
    ) -> Result<Option<Position>, Error> {
        let found = self.matching(query, own, window, direction, 1)?;
        Ok(found.first().map(|event| self.position(event.ordinal).into()))
    }

    /// The ordinal of the event that a correlation finds by the event's own id.
    pub(super) fn own_ordinal(&self, own: &SelfCorrelations, id: EventId) -> Option<u32> {
        let (_, position) = own.iter().find(|(known, _)| *known == id)?;
        self.ordinal(position.get())
    }

    /// The version and the position of an entity's last event here up to `head`. The index may hold later
    /// events, which are not published yet.
    pub(super) fn head_of(
        &self,
        lookup: &TermLookup<'_, str>,
        head: Position,
    ) -> Result<Option<(Version, Position)>, Error> {
        if head.get() < self.first {
            return Ok(None);
        }
        let entity = lookup.name;
        if !self.may_have(lookup, |origin| TermHash::entity(origin, entity))? {
            return Ok(None);
        }
        let last = self.ordinal_or_max(head.get());
        let found = self.ask(|index| index.last_of(entity, last))?;
        Ok(found.map(|(version, ordinal)| (version.into(), self.position(ordinal).into())))
    }

    /// Whether this part may have a term. `false` is certain. Asks the filter of a sealed segment's index.
    pub(super) fn may_have<N: ?Sized>(
        &self,
        lookup: &TermLookup<'_, N>,
        hash: impl FnOnce(&[u8; 16]) -> TermHash,
    ) -> Result<bool, Error> {
        match &self.form {
            SegmentForm::Live(_) => Ok(true),
            SegmentForm::Sealed(sealed) => {
                sealed.may_have(*lookup.hash.get_or_init(|| hash(sealed.origin())))
            }
        }
    }

    /// The position of an ordinal.
    pub(crate) fn position(&self, ordinal: u32) -> u64 {
        self.file_first + u64::from(ordinal)
    }

    /// The ordinal of a position, whether or not this part has an event there.
    pub(crate) fn ordinal(&self, position: u64) -> Option<u32> {
        u32::try_from(position.checked_sub(self.file_first)?).ok()
    }

    fn ordinal_or_max(&self, position: u64) -> u32 {
        self.ordinal(position).unwrap_or(u32::MAX)
    }
}

/// A term that is looked up in one segment after the other. Its hash is computed at most once, and only if a
/// sealed segment is asked.
pub(super) struct TermLookup<'a, N: ?Sized> {
    name: &'a N,
    hash: OnceCell<TermHash>,
}

impl<'a, N: ?Sized> TermLookup<'a, N> {
    pub(super) fn new(name: &'a N) -> TermLookup<'a, N> {
        TermLookup { name, hash: OnceCell::new() }
    }
}

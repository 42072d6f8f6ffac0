//! A part of the log as readers see it: its file, and an index that answers.
//!
//! Most parts are a whole segment. A segment that was closed with its index, and is written to again, is
//! two: what the index has, and what came since.
//! Row: view.

use std::cell::OnceCell;
use std::ops::Range;
use std::sync::Arc;

use foldhash::HashSet;
use parking_lot::RwLock;

use crate::format::{Frame, SegmentId};
use crate::index::{SegmentIndex, LiveIndex, EventLocation, TermHash};
use crate::log::{Block, LogEnd, SegmentFile};
use crate::read::segment_cache::SealedSegment;
use crate::types::{Error, EventId, Position, Version};

pub(crate) struct Segment {
    /// Of the first event this part can hold, and of its file.
    first: u64,
    file_first: u64,
    /// When the last event before this part was recorded.
    recorded_before: u64,
    form: Form,
}

enum Form {
    /// Written to, or not yet indexed on the disk.
    Live(Arc<SegmentFile>, Box<RwLock<LiveIndex>>, Entities),
    Sealed(SealedSegment),
}

/// The entities that have events in a segment that is written to: what every append asks, and what seldom
/// changes. Whoever asks the index itself waits for groups that are just added to it.
type Entities = RwLock<HashSet<Box<str>>>;

impl Segment {
    /// One that grows, or has grown, in memory, from where a walk of its file stands.
    pub(crate) fn live(file: Arc<SegmentFile>, from: &LogEnd) -> Segment {
        Segment {
            first: from.position.saturating_add(1),
            file_first: file.header.id.first_position,
            recorded_before: from.recorded_at,
            form: Form::Live(file, Box::new(RwLock::new(LiveIndex::new(from.offset))), RwLock::default()),
        }
    }

    /// One that changes no more.
    pub(crate) fn sealed(sealed: SealedSegment) -> Segment {
        let first = sealed.meta().bound.segment.first_position;
        let recorded_before = sealed.meta().recorded_before;
        Segment { first, file_first: first, recorded_before, form: Form::Sealed(sealed) }
    }

    /// Of the first event it can hold.
    pub(crate) fn first_position(&self) -> u64 {
        self.first
    }

    /// Whether no part of the same file comes before it.
    pub(super) fn begins_a_file(&self) -> bool {
        self.first == self.file_first
    }

    /// When the last event before its first was recorded.
    pub(crate) fn recorded_before(&self) -> u64 {
        self.recorded_before
    }

    /// Its file.
    ///
    /// # Errors
    ///
    /// If it is opened only now, and is gone or not what it should be.
    pub(crate) fn file(&self) -> Result<&Arc<SegmentFile>, Error> {
        match &self.form {
            Form::Live(file, ..) => Ok(file),
            Form::Sealed(sealed) => sealed.file(),
        }
    }

    /// Which file it is, or a part of.
    pub(crate) fn id(&self) -> SegmentId {
        match &self.form {
            Form::Live(file, ..) => file.header.id,
            Form::Sealed(sealed) => sealed.meta().bound.segment,
        }
    }

    /// Of its file, from the store's directory; for messages.
    pub(crate) fn path(&self) -> String {
        self.id().path()
    }

    /// Whether another part is of the same file.
    pub(crate) fn shares_file(&self, other: &Segment) -> bool {
        self.file_first == other.file_first
    }

    /// Whether it is in memory, and of this very file.
    pub(crate) fn is_of(&self, file: &Arc<SegmentFile>) -> bool {
        self.as_live().is_some_and(|(own, _)| Arc::ptr_eq(own, file))
    }

    /// A block that holds these bytes of its file, in the memory of an old one if that is free.
    ///
    /// # Errors
    ///
    /// As [`Segment::file`], and if they cannot be read.
    pub(super) fn block(&self, run: &Range<u32>, old: Option<Block>) -> Result<Block, Error> {
        match &self.form {
            Form::Live(file, ..) => file.block_over(old, run.clone()),
            Form::Sealed(sealed) => sealed.block(run, old),
        }
    }

    /// What it is on the disk, if it changes no more.
    pub(crate) fn as_sealed(&self) -> Option<&SealedSegment> {
        match &self.form {
            Form::Live(..) => None,
            Form::Sealed(sealed) => Some(sealed),
        }
    }

    /// Its file and index, if these are in memory.
    pub(crate) fn as_live(&self) -> Option<(&Arc<SegmentFile>, &RwLock<LiveIndex>)> {
        match &self.form {
            Form::Live(file, index, _) => Some((file, index)),
            Form::Sealed(_) => None,
        }
    }

    /// Adds frames to the index, all under one lock, and says how many streams begin in them.
    pub(crate) fn insert<'a>(&self, frames: impl Iterator<Item = (u32, Frame<'a>)>) -> Result<u32, Error> {
        let Form::Live(file, index, entities) = &self.form else {
            unreachable!("only the log's end is written to, and that is in memory")
        };
        let mut index = index.write();
        let before = index.born();
        frames.into_iter().try_for_each(|(offset, frame)| index.insert(file, offset, &frame))?;
        let born = index.born() - before;
        let fresh = index.take_fresh();
        if fresh.len() > 0 {
            entities.write().extend(fresh);
        }
        Ok(born)
    }

    /// Whether it is written to, and has events of all of these.
    pub(super) fn has_all<'a>(&self, mut entities: impl Iterator<Item = &'a str>) -> bool {
        match &self.form {
            Form::Live(_, _, known) => {
                let known = known.read();
                entities.all(|entity| known.contains(entity))
            }
            Form::Sealed(_) => false,
        }
    }

    /// Has its index answer; a stored one may be asked twice.
    ///
    /// # Errors
    ///
    /// If there is no index on the disk, and the segment cannot be read.
    pub(super) fn ask<T>(&self, ask: impl Fn(&dyn SegmentIndex) -> Result<T, Error>) -> Result<T, Error> {
        match &self.form {
            Form::Live(_, index, _) => ask(&*index.read()),
            Form::Sealed(sealed) => sealed.ask(ask),
        }
    }

    /// How many frames its index knows.
    pub(crate) fn frames(&self) -> u32 {
        match &self.form {
            Form::Live(_, index, _) => index.read().frames(),
            Form::Sealed(sealed) => sealed.meta().frames,
        }
    }

    /// How many events its index knows.
    pub(crate) fn events(&self) -> u32 {
        match &self.form {
            Form::Live(_, index, _) => index.read().events(),
            Form::Sealed(sealed) => sealed.meta().events,
        }
    }

    /// How many streams begin here.
    pub(crate) fn born(&self) -> Result<u32, Error> {
        self.ask(|index| Ok(index.born()))
    }

    /// The ordinals from its first on to behind the last its index knows.
    pub(crate) fn ordinals(&self) -> Range<u32> {
        let end = match &self.form {
            Form::Live(_, index, _) => index.read().ordinals().end,
            Form::Sealed(sealed) => self.narrow(sealed.meta().bound.last_position.saturating_add(1)),
        };
        let first = self.narrow(self.first);
        first..end.max(first)
    }

    /// Where its last known frame ends.
    pub(crate) fn end(&self) -> u32 {
        match &self.form {
            Form::Live(_, index, _) => index.read().end(),
            Form::Sealed(sealed) => sealed.meta().bound.end,
        }
    }

    pub(crate) fn place(&self, ordinal: u32) -> Result<Option<EventLocation>, Error> {
        self.ask(|index| index.place(ordinal))
    }

    /// The place of the event at a position, if there is one.
    pub(crate) fn place_at(&self, position: Position) -> Result<Option<EventLocation>, Error> {
        self.ordinal(position.get()).map_or(Ok(None), |ordinal| self.place(ordinal))
    }

    /// The place of the first event at or behind `ordinal`.
    pub(crate) fn place_from(&self, ordinal: u32) -> Result<Option<EventLocation>, Error> {
        self.ask(|index| index.place_from(ordinal))
    }

    /// The ordinals that hold these versions of a stream, and all between them.
    pub(crate) fn window_of(&self, entity: &str, versions: &Range<u64>) -> Result<Range<u32>, Error> {
        self.ask(|index| index.window_of(entity, versions))
    }

    /// The position of the first event here that brought an id along.
    pub(super) fn foreign(&self, foreign: &ForeignId) -> Result<Option<Position>, Error> {
        if !self.may_have(&foreign.hash, |origin| TermHash::foreign_id(origin, foreign.id.as_bytes()))? {
            return Ok(None);
        }
        let ordinal = self.ask(|index| index.foreign(foreign.id))?;
        Ok(ordinal.map(|ordinal| self.position(ordinal).into()))
    }

    /// The version and position of an entity's last event here up to `head`: what comes after is
    /// in the index already, but not published.
    pub(super) fn head_of(
        &self,
        entity: &Entity<'_>,
        head: Position,
    ) -> Result<Option<(Version, Position)>, Error> {
        let Some(last) = self.last_ordinal(head) else { return Ok(None) };
        if !self.may_have(&entity.hash, |origin| TermHash::entity(origin, entity.name))? {
            return Ok(None);
        }
        let found = self.ask(|index| index.last_of(entity.name, last))?;
        Ok(found.map(|(version, ordinal)| (version.into(), self.position(ordinal).into())))
    }

    /// The position of the last append with a key, up to `head`.
    pub(super) fn key(&self, key: &Key<'_>, head: Position) -> Result<Option<Position>, Error> {
        if !self.may_have(&key.hash, |origin| TermHash::key(origin, key.key))? {
            return Ok(None);
        }
        let found = self.ask(|index| index.key(key.key))?.map(|ordinal| self.position(ordinal).into());
        Ok(found.filter(|position| *position <= head))
    }

    /// Whether a stored index can have a term, by its filter; its hash is computed at most once.
    fn may_have(
        &self,
        hash: &OnceCell<TermHash>,
        of: impl FnOnce(&[u8; 16]) -> TermHash,
    ) -> Result<bool, Error> {
        match &self.form {
            Form::Live(..) => Ok(true),
            Form::Sealed(sealed) => sealed.may_have(*hash.get_or_init(|| of(sealed.origin()))),
        }
    }

    /// The ordinal of a position, or the largest there is; `None` if the position comes before this part.
    fn last_ordinal(&self, position: Position) -> Option<u32> {
        (position.get() >= self.first).then(|| self.narrow(position.get()))
    }

    pub(crate) fn position(&self, ordinal: u32) -> u64 {
        self.file_first + u64::from(ordinal)
    }

    /// The ordinal a position would have here.
    pub(crate) fn ordinal(&self, position: u64) -> Option<u32> {
        u32::try_from(position.checked_sub(self.file_first)?).ok()
    }

    fn narrow(&self, position: u64) -> u32 {
        self.ordinal(position).unwrap_or(u32::MAX)
    }
}

/// An entity that is looked for in one segment after the other.
pub(super) struct Entity<'a> {
    name: &'a str,
    hash: OnceCell<TermHash>,
}

impl<'a> Entity<'a> {
    pub(super) fn new(name: &'a str) -> Entity<'a> {
        Entity { name, hash: OnceCell::new() }
    }
}

/// An id that was brought along.
pub(super) struct ForeignId {
    id: EventId,
    hash: OnceCell<TermHash>,
}

impl ForeignId {
    pub(super) fn new(id: EventId) -> ForeignId {
        ForeignId { id, hash: OnceCell::new() }
    }
}

/// An idempotency key that is.
pub(super) struct Key<'a> {
    key: &'a [u8; 16],
    hash: OnceCell<TermHash>,
}

impl<'a> Key<'a> {
    pub(super) fn new(key: &'a [u8; 16]) -> Key<'a> {
        Key { key, hash: OnceCell::new() }
    }
}

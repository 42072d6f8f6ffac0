//! The coordinate index of one segment: which events belong to a term, and where an event lies.
//!
//! An inverted index: each term (an entity, a scope, a kind, a tag, an id) has a posting list of
//! ordinals, an event's number within its segment; an offset table gives each ordinal its place.
//! Ordinals are positions, counted from the segment's first: without gaps, unless frames were removed
//! from the segment on purpose. A query
//! is answered by joining and intersecting lists, an ordinal at a time and some at once, so that a
//! reader holds the index for microseconds and pays for what it takes.
//!
//! It has two forms that give the same answers ([`SegmentIndex`]): [`LiveIndex`], in memory, to which frames are added;
//! and [`SealedIndex`], an immutable file that was made of one, whole in memory or read a piece at a time.
//! Invariant: ordinals are inserted in order, so every list is sorted.
//! Row: index.

mod answers;
mod encode;
mod join;
mod list;
mod listing;
mod lists;
mod live;
mod names;
mod numbers;
mod query;
mod sealed;
mod search;
#[cfg(test)]
mod tests;

use std::ops::Range;

use foldhash::{HashMap, HashMapExt};

use crate::format::{Damage, Frame, KEY_BYTES, Record, SegmentId, records, tags};
use crate::log::SegmentFile;
use crate::types::{Cause, Error, EventId};

use list::PostingList;
use names::NameDictionary;
use numbers::{Jumps, GappedSequence};

pub(crate) use answers::SegmentIndex;
pub(crate) use listing::{NameSummary, NameField, NameFilter};
pub(crate) use lists::Direction;
pub(crate) use sealed::{IndexFlaw, SealedIndex};

pub(crate) use crate::format::index_file::{Bound, TermHash};

/// The index of a segment that is being written, or of a part of one: in memory, and made as frames come.
///
/// It may begin anywhere in its segment: two indexes of which one begins where the other ends answer for
/// both parts, one after the other.
pub(crate) struct LiveIndex {
    /// Which ordinals there are.
    ordinals: GappedSequence,
    /// The offset of each event's frame, in the same order.
    offsets: Vec<u32>,
    /// What stands between frames for removed ones.
    removed: Vec<Range<u32>>,
    /// Where the last frame ends.
    end: u32,
    entities: NameDictionary<Stream>,
    scopes: NameDictionary<Vec<u32>>,
    kinds: NameDictionary<Vec<u32>>,
    tags: NameDictionary<Vec<u32>>,
    correlations: Ids,
    foreign_ids: Ids,
    /// The events that name an event as their cause, by that event's id.
    causes: Ids,
    /// The events whose cause is the one before them in their stream.
    followers: Vec<u32>,
    /// The first event of the last append with an idempotency key.
    keys: HashMap<[u8; KEY_BYTES], u32>,
    /// How many entities have their first version here.
    born: u32,
    frames: u32,
    /// Entities that came since somebody asked which are new.
    fresh: Vec<Box<str>>,
}

type Ids = HashMap<EventId, Vec<u32>>;

/// The events of one entity in this segment.
pub(crate) struct Stream {
    versions: GappedSequence,
    /// In the same order.
    ordinals: Vec<u32>,
}

/// Where an event lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EventLocation {
    pub(crate) ordinal: u32,
    /// Its frame's bytes in the segment.
    pub(crate) frame: Range<u32>,
}

impl LiveIndex {
    pub(crate) fn new(start: u32) -> LiveIndex {
        LiveIndex {
            ordinals: GappedSequence::default(),
            offsets: Vec::new(),
            removed: Vec::new(),
            end: start,
            entities: NameDictionary::new(),
            scopes: NameDictionary::new(),
            kinds: NameDictionary::new(),
            tags: NameDictionary::new(),
            correlations: HashMap::new(),
            foreign_ids: HashMap::new(),
            causes: HashMap::new(),
            followers: Vec::new(),
            keys: HashMap::new(),
            born: 0,
            frames: 0,
            fresh: Vec::new(),
        }
    }

    /// How many events the segment has.
    pub(crate) fn events(&self) -> u32 {
        u32::try_from(self.ordinals.count()).expect("a segment holds fewer than 2^32 events")
    }

    /// From the first event's ordinal to behind the last one's.
    fn ordinals(&self) -> Range<u32> {
        narrow(self.ordinals.at(0))..self.ordinals_end()
    }

    /// The ordinal behind the last.
    pub(crate) fn ordinals_end(&self) -> u32 {
        narrow(self.ordinals.at(self.ordinals.count()))
    }

    /// Where the last frame ends.
    pub(crate) fn end(&self) -> u32 {
        self.end
    }

    /// The streams that have events here, with version and ordinal of the last one.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (&str, u64, u32)> {
        let head =
            |(entity, stream): (_, &Stream)| Some((entity, stream.last_version(), *stream.ordinals.last()?));
        self.entities.iter().filter_map(head)
    }

    /// The entities that came since this was asked last.
    pub(crate) fn take_fresh(&mut self) -> impl ExactSizeIterator<Item = Box<str>> {
        self.fresh.drain(..)
    }

    /// The idempotency keys, with the ordinal of the last append that has each.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&[u8; KEY_BYTES], u32)> {
        self.keys.iter().map(|(key, ordinal)| (key, *ordinal))
    }

    /// The segment goes on without frames up to here: those that stood there were removed.
    pub(crate) fn finish(&mut self, end: u32) {
        if end > self.end {
            self.removed.push(self.end..end);
            self.end = end;
        }
    }

    /// How many frames its events stand in.
    pub(crate) fn frames(&self) -> u32 {
        self.frames
    }

    /// Adds the events of the frame at `offset`.
    pub(crate) fn insert(
        &mut self,
        segment: &SegmentFile,
        offset: u32,
        frame: &Frame<'_>,
    ) -> Result<(), Error> {
        let header = &frame.header;
        if offset != self.end {
            self.removed.push(self.end..offset);
        }
        let first = header.position_offset();
        let id_at = |index: u16| {
            let ordinal = u64::from(first) + u64::from(index);
            let position = segment.header.id.first_position + ordinal;
            header.event_id(position.into())
        };
        // Events of one append that name no correlation share the first one's id. A lone event is
        // found by its own id without a list.
        let mut sharing = Vec::new();
        if let Some(key) = header.key() {
            self.keys.insert(key, first);
        }
        for (ordinal, (index, record)) in (first..).zip(records(frame.body, header.events()).enumerate()) {
            let record = record.map_err(|damage| segment.damaged(offset.into(), &damage))?;
            self.ordinals.push(ordinal.into());
            self.offsets.push(offset);
            let place = (ordinal, segment.header.id.first_position + u64::from(ordinal));
            if !self.insert_stream(place, header.version(index), record.entity(), segment.header.id) {
                return Err(segment.damaged(offset.into(), &WRONG_VERSION));
            }
            self.insert_terms(ordinal, &record);
            if header.events() > 1 && record.correlation().is_none() {
                sharing.push(ordinal);
            }
            match record.cause() {
                None => {}
                Some(Cause::Event(id)) => push(&mut self.causes, &id, ordinal),
                Some(Cause::InAppend(index)) => push(&mut self.causes, &id_at(index), ordinal),
                Some(Cause::PreviousInStream) => self.followers.push(ordinal),
            }
        }
        if !sharing.is_empty() {
            self.correlations.entry(id_at(0)).or_default().extend(sharing);
        }
        self.frames += 1;
        self.end = offset + u32::try_from(header.frame_bytes()).expect("the walk checked that it fits");
        Ok(())
    }

    /// `false` if the version cannot stand there: versions of a stream follow one another, or at least grow where
    /// events may have been removed, and each took a position.
    fn insert_stream(&mut self, place: (u32, u64), version: u64, entity: &str, id: SegmentId) -> bool {
        let (ordinal, position) = place;
        if version == 0 || version > position {
            return false;
        }
        self.born += u32::from(version == 1);
        let is_whole = id.generation == 0 && self.removed.is_empty();
        match self.entities.get_mut(entity) {
            Some(stream) if version <= stream.last_version() => return false,
            Some(stream) if is_whole && version - 1 != stream.last_version() => return false,
            Some(stream) => stream.push(version, ordinal),
            None => {
                let mut stream = Stream { versions: GappedSequence::default(), ordinals: Vec::new() };
                stream.push(version, ordinal);
                self.entities.insert(entity, stream);
                self.fresh.push(entity.into());
            }
        }
        true
    }

    fn insert_terms(&mut self, ordinal: u32, record: &Record<'_>) {
        push_name(&mut self.scopes, record.scope_or_default(), ordinal);
        push_name(&mut self.kinds, record.kind(), ordinal);
        for tag in tags(record.tag_bytes()) {
            push_name(&mut self.tags, tag, ordinal);
        }
        if let Some(id) = record.correlation() {
            push(&mut self.correlations, &id, ordinal);
        }
        if let Some(id) = record.foreign_id() {
            push(&mut self.foreign_ids, &id, ordinal);
        }
    }
}

const WRONG_VERSION: Damage = Damage::Bad("an event's version does not follow its stream's last one");

impl Stream {
    fn last_version(&self) -> u64 {
        self.versions.count().checked_sub(1).map_or(0, |last| self.versions.at(last))
    }

    fn push(&mut self, version: u64, ordinal: u32) {
        self.versions.push(version);
        self.ordinals.push(ordinal);
    }
}

/// Version and ordinal of a stream's last event in this segment up to `ordinal`.
fn last_up_to(versions: &GappedSequence<impl Jumps>, list: &impl PostingList, ordinal: u32) -> Option<(u64, u32)> {
    let behind = ordinal.checked_add(1).map_or(list.len(), |end| list.below(end));
    let last = behind.checked_sub(1)?;
    Some((versions.at(last), list.at(last)))
}

/// The ordinals from the one of the first version in `wanted` up to the one of the last.
fn ordinals_of(versions: &GappedSequence<impl Jumps>, list: &impl PostingList, wanted: &Range<u64>) -> Range<u32> {
    let slots = versions.below(wanted.start)..versions.below(wanted.end).min(list.len());
    match slots.end.checked_sub(1).filter(|last| slots.start <= *last) {
        Some(last) => list.at(slots.start)..list.at(last).saturating_add(1),
        None => 0..0,
    }
}

/// The event at an ordinal, or the next one of the way.
fn nearest(ordinals: &GappedSequence<impl Jumps>, ordinal: u32, direction: Direction) -> Option<u32> {
    let event = match direction {
        Direction::Forward => ordinals.next(ordinal.into()),
        Direction::Backward => ordinals.previous(ordinal.into()),
    };
    event.map(narrow)
}

/// An ordinal again; the walk checked that a segment's fit 32 bits.
fn narrow(ordinal: u64) -> u32 {
    u32::try_from(ordinal).expect("ordinals fit 32 bits")
}

fn push_name(postings: &mut NameDictionary<Vec<u32>>, name: &str, ordinal: u32) {
    match postings.get_mut(name) {
        Some(list) if list.last() == Some(&ordinal) => {}
        Some(list) => list.push(ordinal),
        None => postings.insert(name, vec![ordinal]),
    }
}

fn push(postings: &mut Ids, id: &EventId, ordinal: u32) {
    postings.entry(*id).or_default().push(ordinal);
}

//! The index in memory, to which frames are added.
//!
//! The writer inserts each group of frames before it publishes the group.

use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow, Range};

use foldhash::{HashMap, HashMapExt};
use parking_lot::Mutex;

use crate::format::index_file::{LARGE_FRAME_BYTES_MIN, LargeFrame};
use crate::format::{AnyRecord, Damage, Frame, FrameHeader, KEY_BYTES, Record, SegmentId, tags};
use crate::log::SegmentFile;
use crate::types::{Cause, Error, EventId, SYSTEM_SCOPE, to_u32};

use super::IndexForm;
use super::postings::{EventLocation, GappedSequence, gallop};
use super::query::{NameField, PostingLists, to_ordinal};

/// The index of a segment that is being written, or of a part of one, in memory.
///
/// It may begin anywhere in its segment. Two indexes, of which one begins where the other ends, answer
/// together for both parts.
pub(crate) struct LiveIndex {
    /// The ordinals of all events.
    pub(super) ordinals: GappedSequence,
    /// The offset of each event's frame, slot by slot; in a large frame, of its record.
    pub(super) offsets: Vec<u32>,
    /// The large frames, in order.
    pub(super) large_frames: Vec<LargeFrame>,
    /// The bytes between frames where frames were removed.
    pub(super) removed: Vec<Range<u32>>,
    /// The offset that the index begins at.
    start: u32,
    /// The offset behind the last frame.
    pub(super) end: u32,
    pub(super) entities: NameDictionary<Stream>,
    pub(super) scopes: NameDictionary<Vec<u32>>,
    pub(super) kinds: NameDictionary<Vec<u32>>,
    pub(super) tags: NameDictionary<Vec<u32>>,
    pub(super) correlations: IdPostings,
    pub(super) foreign_ids: IdPostings,
    /// The events that name an event as their cause, by that event's id.
    pub(super) causes: IdPostings,
    /// The events whose cause is the one before them in their stream.
    pub(super) followers: Vec<u32>,
    /// The first event of the last append with an idempotency key.
    pub(super) keys: HashMap<[u8; KEY_BYTES], u32>,
    /// The number of streams whose first version is here.
    pub(super) streams_created: u32,
    pub(super) frames: u32,
    /// The entities inserted since the last [`LiveIndex::take_new_entities`].
    new_entities: Vec<Box<str>>,
}

pub(super) type IdPostings = HashMap<EventId, Vec<u32>>;

/// The events of one entity in this segment.
pub(super) struct Stream {
    pub(super) versions: GappedSequence,
    /// The ordinal of each version, slot by slot.
    pub(super) ordinals: Vec<u32>,
}

impl LiveIndex {
    /// An empty index of the frames behind `start`.
    pub(crate) fn new(start: u32) -> LiveIndex {
        LiveIndex {
            ordinals: GappedSequence::default(),
            offsets: Vec::new(),
            large_frames: Vec::new(),
            removed: Vec::new(),
            start,
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
            streams_created: 0,
            frames: 0,
            new_entities: Vec::new(),
        }
    }

    /// The number of events.
    pub(crate) fn events(&self) -> u32 {
        u32::try_from(self.ordinals.count()).expect("a segment holds fewer than 2^32 events")
    }

    /// The ordinal behind the last event's.
    pub(crate) fn ordinals_end(&self) -> u32 {
        to_ordinal(self.ordinals.at(self.ordinals.count()))
    }

    /// The offset behind the last frame.
    pub(crate) fn end(&self) -> u32 {
        self.end
    }

    /// The bytes of the segment that the index covers.
    pub(crate) fn bytes_covered(&self) -> u32 {
        self.end - self.start
    }

    /// The entities that have events here, each with the version and the ordinal of its last one.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (&str, u64, u32)> {
        self.entities.iter().filter_map(|(entity, stream)| {
            let last = *stream.ordinals.last()?;
            Some((entity, stream.last_version(), last))
        })
    }

    /// The entities inserted for the first time since the last call.
    pub(crate) fn take_new_entities(&mut self) -> impl ExactSizeIterator<Item = Box<str>> {
        self.new_entities.drain(..)
    }

    /// The idempotency keys, each with the ordinal of its last append's first event.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&[u8; KEY_BYTES], u32)> {
        self.keys.iter().map(|(key, ordinal)| (key, *ordinal))
    }

    /// Extends the index to `end`, where no frames are left: they were removed.
    pub(crate) fn finish(&mut self, end: u32) {
        if end > self.end {
            self.removed.push(self.end..end);
            self.end = end;
        }
    }

    /// The number of frames.
    pub(crate) fn frames(&self) -> u32 {
        self.frames
    }

    /// Adds the events of the frame at `offset`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) if a record or a version in the frame is impossible,
    /// or events are gone where none can be.
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
        // Events of one append that name no correlation share the first one's id. A lone event needs no list:
        // it is found by its own id.
        let mut sharing = Vec::new();
        let frame_bytes = u32::try_from(header.frame_bytes()).expect("the walk checked that it fits");
        let is_large = is_read_by_record(frame);
        let mut has_foreign_ids = false;
        let mut start = offset.saturating_add(to_u32(header.header_bytes()));
        let mut has_gone = false;
        for (record, index) in frame.all_records().zip(0..) {
            let record = record.map_err(|damage| segment.damaged(offset.into(), &damage))?;
            let record_start = start;
            start = start.saturating_add(to_u32(record.bytes().len()));
            let AnyRecord::Event(record) = record else {
                has_gone = true;
                continue;
            };
            let ordinal = first.saturating_add(index.into());
            self.ordinals.push(ordinal.into());
            self.offsets.push(if is_large { record_start } else { offset });
            has_foreign_ids |= record.foreign_id().is_some();
            let version = header.version(index, &record);
            if !self.insert_version(record.entity(), version, ordinal, segment.header.id) {
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
        if has_gone && (segment.header.id.generation == 0 || frame.events_left() == 0) {
            return Err(segment.damaged(offset.into(), &Damage::Bad("events are gone where none can be")));
        }
        // What is left of an append cannot be compared with a retry of it. Its key is no longer recognised.
        if let Some(key) = header.key().filter(|_| !has_gone) {
            self.keys.insert(key, first);
        }
        if !sharing.is_empty() {
            self.correlations.entry(id_at(0)).or_default().extend(sharing);
        }
        if is_large {
            self.large_frames.push(large_frame(header, offset, frame_bytes, has_foreign_ids));
        }
        self.frames += 1;
        self.end = offset + frame_bytes;
        Ok(())
    }

    /// Adds a version to its stream. `false` if the version is impossible. Versions of a stream follow one
    /// another, or at least grow where events may have been removed. Each version took a position.
    fn insert_version(&mut self, entity: &str, version: u64, ordinal: u32, id: SegmentId) -> bool {
        let position = id.first_position + u64::from(ordinal);
        if version == 0 || version > position {
            return false;
        }
        self.streams_created += u32::from(version == 1);
        let is_whole = id.generation == 0 && self.removed.is_empty();
        match self.entities.get_mut(entity) {
            Some(stream) if version <= stream.last_version() => return false,
            Some(stream) if is_whole && version - 1 != stream.last_version() => return false,
            Some(stream) => stream.push(version, ordinal),
            None => {
                let mut stream = Stream { versions: GappedSequence::default(), ordinals: Vec::new() };
                stream.push(version, ordinal);
                self.entities.insert(entity, stream);
                self.new_entities.push(entity.into());
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

impl PostingLists for LiveIndex {
    type List<'a> = &'a [u32];
    type Versions<'a> = &'a [(usize, u64)];
    type Ordinals = Vec<(usize, u64)>;

    fn named(&self, field: NameField, name: &str) -> &[u32] {
        match field {
            NameField::Entity => self.entities.get(name).map(|stream| stream.ordinals.as_slice()),
            NameField::Scope => self.scopes.get(name).map(Vec::as_slice),
            NameField::Kind => self.kinds.get(name).map(Vec::as_slice),
            NameField::Tag => self.tags.get(name).map(Vec::as_slice),
        }
        .unwrap_or_default()
    }

    fn correlated(&self, id: EventId) -> &[u32] {
        self.correlations.get(&id).map(Vec::as_slice).unwrap_or_default()
    }

    fn effects(&self, id: EventId) -> &[u32] {
        self.causes.get(&id).map(Vec::as_slice).unwrap_or_default()
    }

    fn followers(&self) -> &[u32] {
        &self.followers
    }

    fn first_foreign(&self, id: EventId) -> Option<u32> {
        self.foreign_ids.get(&id).and_then(|list| list.first().copied())
    }

    fn first_with_key(&self, key: &[u8; KEY_BYTES]) -> Option<u32> {
        self.keys.get(key).copied()
    }

    fn stream(&self, entity: &str) -> Option<(GappedSequence<&[(usize, u64)]>, &[u32])> {
        let stream = self.entities.get(entity)?;
        Some((stream.versions.as_borrowed(), stream.ordinals.as_slice()))
    }

    fn visit<'a>(
        &'a self,
        field: NameField,
        prefix: &str,
        after: Option<&str>,
        visit: &mut dyn FnMut(&str, &'a [u32]) -> ControlFlow<()>,
    ) {
        match field {
            NameField::Entity => {
                self.entities.visit(prefix, after, |name, stream| visit(name, &stream.ordinals));
            }
            NameField::Scope => self.scopes.visit(prefix, after, |name, list| visit(name, list)),
            NameField::Kind => self.kinds.visit(prefix, after, |name, list| visit(name, list)),
            NameField::Tag => self.tags.visit(prefix, after, |name, list| visit(name, list)),
        }
    }

    fn ordinals(&self) -> &GappedSequence {
        &self.ordinals
    }

    fn locate_slot(&self, slot: usize) -> Result<Option<EventLocation>, Error> {
        Ok(self.location_at(slot))
    }

    fn locate_all(&self, ordinals: impl Iterator<Item = u32>) -> Result<Vec<EventLocation>, Error> {
        let slots = ordinals.filter_map(|ordinal| self.ordinals.slot(ordinal.into()));
        Ok(slots.filter_map(|slot| self.location_at(slot)).collect())
    }
}

impl IndexForm for LiveIndex {
    type Lists<'a> = LiveIndex;

    fn events(&self) -> u32 {
        LiveIndex::events(self)
    }

    fn ordinals(&self) -> Range<u32> {
        to_ordinal(self.ordinals.at(0))..self.ordinals_end()
    }

    fn streams_created(&self) -> u32 {
        self.streams_created
    }

    fn with_lists<'a, T>(
        &'a self,
        answer: impl FnOnce(&Self::Lists<'a>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        answer(self)
    }
}

impl LiveIndex {
    /// The location of the event at a slot of the ordinals.
    fn location_at(&self, slot: usize) -> Option<EventLocation> {
        let (start, rest) = self.offsets.get(slot..)?.split_first()?;
        let ordinal = to_ordinal(self.ordinals.at(slot));
        if let Some(frame) = self.large_frame_of(ordinal) {
            return Some(EventLocation::in_large_frame(
                ordinal,
                *start,
                rest.first().copied(),
                frame.clone(),
            ));
        }
        // Events of one append lie in one frame, which ends where the next frame, or a removed range, begins.
        let same = gallop(rest.len(), |at| rest[at] == *start);
        let next = rest.get(same).map_or(self.end, |offset| {
            let next = to_ordinal(self.ordinals.at(slot + 1 + same));
            self.large_frame_of(next).map_or(*offset, |frame| frame.offset)
        });
        let removed = self.removed.binary_search_by_key(&next, |removed| removed.end).ok();
        let end = removed.map_or(next, |removed| self.removed[removed].start);
        Some(EventLocation { ordinal, frame: *start..end, record: None })
    }

    /// The large frame that an event lies in, if it lies in one.
    fn large_frame_of(&self, ordinal: u32) -> Option<&LargeFrame> {
        let later = self.large_frames.partition_point(|frame| frame.first <= ordinal);
        self.large_frames.get(later.checked_sub(1)?).filter(|frame| frame.holds(ordinal))
    }
}

/// What the index keeps of a large frame.
fn large_frame(header: &FrameHeader<'_>, offset: u32, bytes: u32, has_foreign_ids: bool) -> LargeFrame {
    LargeFrame {
        offset,
        bytes,
        first: header.position_offset(),
        events: header.events(),
        has_versions: header.layout().has_versions,
        has_foreign_ids,
        recorded_at: header.recorded_at(),
        first_version: header.first_version(),
        chain: header.chain(),
    }
}

/// Whether the events of a frame are found by their records. Events of the store's own are read with their
/// whole append: the first event of it says why they are there.
fn is_read_by_record(frame: &Frame<'_>) -> bool {
    let is_system = |record: &Record<'_>| record.scope() == SYSTEM_SCOPE;
    frame.header.frame_bytes() >= LARGE_FRAME_BYTES_MIN
        && frame.records().all(|record| record.is_ok_and(|(_, record)| !is_system(&record)))
}

fn push_name(postings: &mut NameDictionary<Vec<u32>>, name: &str, ordinal: u32) {
    match postings.get_mut(name) {
        Some(list) if list.last() == Some(&ordinal) => {}
        Some(list) => list.push(ordinal),
        None => postings.insert(name, vec![ordinal]),
    }
}

fn push(postings: &mut IdPostings, id: &EventId, ordinal: u32) {
    postings.entry(*id).or_default().push(ordinal);
}

/// The names of one field, each with its postings: found by hash, and listed in order.
///
/// An insert only hashes. The first caller that asks for the order sorts all names. From then on each caller
/// that asks sorts in the names inserted since. A store that is never asked for a prefix pays nothing for the
/// order.
pub(super) struct NameDictionary<P> {
    postings: HashMap<Box<str>, P>,
    sorted: Mutex<Option<SortedNames>>,
}

#[derive(Default)]
struct SortedNames {
    names: BTreeSet<Box<str>>,
    /// Inserted since the names were last sorted, in any order.
    unsorted: Vec<Box<str>>,
}

impl<P> NameDictionary<P> {
    fn new() -> NameDictionary<P> {
        NameDictionary { postings: HashMap::new(), sorted: Mutex::new(None) }
    }

    fn get(&self, name: &str) -> Option<&P> {
        self.postings.get(name)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut P> {
        self.postings.get_mut(name)
    }

    /// All names with their postings, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &P)> {
        self.postings.iter().map(|(name, postings)| (name.as_ref(), postings))
    }

    /// Adds a name that is not in the dictionary yet.
    pub(super) fn insert(&mut self, name: &str, postings: P) {
        if let Some(sorted) = self.sorted.get_mut() {
            sorted.unsorted.push(name.into());
        }
        self.postings.insert(name.into(), postings);
    }

    /// Visits, in order, the names that begin with `prefix` and come after `after`, until `visit` breaks.
    fn visit<'a>(
        &'a self,
        prefix: &str,
        after: Option<&str>,
        mut visit: impl FnMut(&'a str, &'a P) -> ControlFlow<()>,
    ) {
        let mut sorted = self.sorted.lock();
        let sorted = sorted.get_or_insert_with(|| SortedNames {
            names: self.postings.keys().cloned().collect(),
            unsorted: Vec::new(),
        });
        sorted.names.extend(sorted.unsorted.drain(..));
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let names = sorted.names.range::<str, _>((start, Bound::Unbounded));
        for name in names.take_while(|name| name.starts_with(prefix)) {
            let (name, postings) =
                self.postings.get_key_value(name.as_ref()).expect("every sorted name was inserted");
            if visit(name, postings).is_break() {
                break;
            }
        }
    }
}

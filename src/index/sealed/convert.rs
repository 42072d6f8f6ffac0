//! Converts between the two forms: an index in memory to an index file, and a file to an index in memory.
//!
//! The format is in docs/index-file.md. A file is converted back when its segment has more frames by now: the
//! indexes of both parts are then concatenated.
//!
//! Invariant: the same events make the same bytes. Terms are sorted, so the order of the hash maps does not
//! matter. Everything in a file is checked before it is in memory.

use crate::format::index_file::{
    ANCHOR_STRIDE, Bound, HEADER, Header, JUMP, Layout, NO_TERM, NUMBER, SLOT, Term, TermHash, TermKind,
    aligned, block_place, filter_for, filter_insert, read_slot, slots_for, write_jump, write_slot,
};
use crate::format::{Damage, checksum, u32_at};
use crate::index::IndexForm;
use crate::index::live::{IdPostings, LiveIndex, NameDictionary, Stream};
use crate::index::postings::{GappedSequence, Jumps, PostingList};
use crate::types::{Error, EventId, to_usize};

use super::lists::{SealedList, versions};
use super::reader::IndexReader;
use super::{IndexSource, SealedIndex};

/// A term with its postings in memory.
type LiveTerm<'a> = (TermKind, &'a [u8], Postings<'a>);

enum Postings<'a> {
    Stream(&'a Stream),
    List(&'a [u32]),
    One(u32),
}

impl LiveIndex {
    /// The bytes of an index file that gives the same answers. `None` if they are too many for the 32-bit
    /// offsets of the format.
    ///
    /// `bound` names the segment and the end of the index, which is the end of this one.
    pub(crate) fn encode(&self, bound: &Bound) -> Option<Vec<u8>> {
        assert_eq!(bound.end, self.end, "an index file ends where its index does");
        let mut terms_out = TermSections::default();
        for (slot, number) in self.ordinals.jumps() {
            write_jump(&mut terms_out.jumps, u32::try_from(*slot).ok()?, *number);
        }
        let gaps = u32::try_from(self.ordinals.jumps().len()).ok()?;
        for (kind, name, postings) in self.terms() {
            terms_out.hashes.push((TermHash::of(&bound.store_id, kind, name), terms_out.next_offset()?));
            match postings {
                Postings::Stream(stream) => terms_out.add(kind, name, &stream.ordinals, &stream.versions)?,
                Postings::List(list) => terms_out.add(kind, name, list, &GappedSequence::default())?,
                Postings::One(ordinal) => {
                    terms_out.add(kind, name, &[ordinal], &GappedSequence::default())?
                }
            }
        }
        let (filter, slots) = terms_out.filter_and_slots()?;
        let removed: Vec<u8> = self
            .removed
            .iter()
            .flat_map(|range| [range.start, range.end])
            .flat_map(u32::to_le_bytes)
            .collect();
        let offsets: Vec<u8> = self.offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect();
        let TermSections { terms, anchors, jumps, lists, hashes } = terms_out;
        let sections = [filter, slots, anchors, terms, jumps, removed, offsets, lists];
        let mut bytes = [0; 8];
        for (bytes, section) in bytes.iter_mut().zip(&sections) {
            *bytes = u32::try_from(section.len()).ok()?;
        }
        let header = Header {
            bound: bound.clone(),
            events: self.events(),
            ordinals: IndexForm::ordinals(self),
            born: self.streams_created,
            terms: u32::try_from(hashes.len()).ok()?,
            gaps,
            sections: bytes,
            table_checksum: 0,
            frames: self.frames,
        };
        assemble(header, &sections)
    }

    /// All terms with their postings, in the order of the file.
    fn terms(&self) -> Vec<LiveTerm<'_>> {
        let names =
            [(TermKind::Scope, &self.scopes), (TermKind::Kind, &self.kinds), (TermKind::Tag, &self.tags)];
        let ids = [
            (TermKind::Correlation, &self.correlations),
            (TermKind::ForeignId, &self.foreign_ids),
            (TermKind::Cause, &self.causes),
        ];
        let mut terms: Vec<LiveTerm<'_>> = Vec::new();
        for (name, stream) in self.entities.iter() {
            terms.push((TermKind::Entity, name.as_bytes(), Postings::Stream(stream)));
        }
        for (kind, names) in names {
            terms.extend(names.iter().map(|(name, list)| (kind, name.as_bytes(), Postings::List(list))));
        }
        for (kind, ids) in ids {
            terms.extend(ids.iter().map(|(id, list)| (kind, id.as_bytes().as_slice(), Postings::List(list))));
        }
        if !self.followers.is_empty() {
            terms.push((TermKind::Follower, &[], Postings::List(&self.followers)));
        }
        for (key, ordinal) in &self.keys {
            terms.push((TermKind::Key, key, Postings::One(*ordinal)));
        }
        terms.sort_unstable_by(|(kind, name, _), (other_kind, other, _)| {
            kind.cmp(other_kind).then_with(|| name.cmp(other))
        });
        terms
    }
}

/// The sections that grow term by term.
#[derive(Default)]
struct TermSections {
    terms: Vec<u8>,
    anchors: Vec<u8>,
    jumps: Vec<u8>,
    lists: Vec<u8>,
    /// The hash of each term, and the offset of the term in its section.
    hashes: Vec<(TermHash, u32)>,
}

impl TermSections {
    /// The offset of the next term in its section.
    fn next_offset(&self) -> Option<u32> {
        u32::try_from(self.terms.len()).ok().filter(|offset| *offset != NO_TERM)
    }

    /// Adds a term: its anchor if one is due, its jumps, its list, and itself.
    fn add(&mut self, kind: TermKind, name: &[u8], list: &[u32], versions: &GappedSequence) -> Option<()> {
        let (first, last) = list.first().zip(list.last()).expect("a term is inserted with its first event");
        let offset = self.next_offset()?;
        while self.anchors.len() / NUMBER * ANCHOR_STRIDE <= to_usize(offset) {
            self.anchors.extend_from_slice(&offset.to_le_bytes());
        }
        let jumps_start = u32::try_from(self.jumps.len() / JUMP).ok()?;
        for (slot, number) in versions.jumps() {
            write_jump(&mut self.jumps, u32::try_from(*slot).ok()?, *number);
        }
        let jumps = jumps_start..u32::try_from(self.jumps.len() / JUMP).ok()?;
        let count = u32::try_from(list.len()).ok()?;
        // Consecutive ordinals need no list: the first one and the count say them.
        let mut list_start = None;
        if last - first != count - 1 {
            list_start = Some(u32::try_from(self.lists.len() / NUMBER).ok()?);
            self.lists.extend(list.iter().flat_map(|ordinal| ordinal.to_le_bytes()));
        }
        let term = Term {
            kind,
            name_bytes: u16::try_from(name.len()).ok()?,
            count,
            first: *first,
            last: *last,
            list: list_start,
            version: if kind == TermKind::Entity { versions.at(0) } else { 1 },
            jumps: if jumps.is_empty() { 0..0 } else { jumps },
        };
        term.write(&mut self.terms);
        self.terms.extend_from_slice(name);
        Some(())
    }

    /// The filter and the slots of the hash table.
    fn filter_and_slots(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut filter = filter_for(self.hashes.len());
        let count = slots_for(self.hashes.len());
        let mut slots = vec![0xFF; count.checked_mul(SLOT)?];
        for (hash, term) in &self.hashes {
            filter_insert(&mut filter, *hash);
            let mut at = hash.slot(count);
            while read_slot(&slots, at).1 != NO_TERM {
                at = (at + 1) % count;
            }
            write_slot(&mut slots, at, hash.fingerprint(), *term);
        }
        Some((filter, slots))
    }
}

/// The whole file: the header, the sections, and the table of the blocks' checksums.
fn assemble(mut header: Header, sections: &[Vec<u8>; 8]) -> Option<Vec<u8>> {
    let table = header.layout().table;
    u32::try_from(table.end).ok()?;
    let mut out = Vec::with_capacity(table.end);
    out.resize(HEADER, 0);
    for section in sections {
        out.extend_from_slice(section);
        out.resize(aligned(out.len()), 0);
    }
    let checksums = (0..).map(|block| block_place(block, table.start)).take_while(|place| !place.is_empty());
    let checksums: Vec<u8> = checksums.flat_map(|place| checksum(&[&out[place]]).to_le_bytes()).collect();
    header.table_checksum = checksum(&[&checksums]);
    out.extend_from_slice(&checksums);
    out[..HEADER].copy_from_slice(&header.write());
    Some(out)
}

impl LiveIndex {
    /// The index of both parts of a segment: the first as a file, and the second, which begins where the
    /// first ends.
    ///
    /// Everything in the file is checked, so the result is as good as an index made of the segment's frames.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) if the file is damaged: the caller makes the index
    /// from the segment. Errors of the disk.
    pub(crate) fn concat(first: &SealedIndex, second: &LiveIndex) -> Result<LiveIndex, Error> {
        let mut index = first.to_live()?;
        index.append(second);
        Ok(index)
    }

    /// Adds the events of the next part of the same segment.
    fn append(&mut self, other: &LiveIndex) {
        assert!(
            other.events() == 0 || self.ordinals_end() <= IndexForm::ordinals(other).start,
            "parts of a segment are concatenated in their order"
        );
        self.ordinals.extend(&other.ordinals);
        self.offsets.extend_from_slice(&other.offsets);
        self.removed.extend_from_slice(&other.removed);
        self.end = other.end;
        self.streams_created += other.streams_created;
        self.frames += other.frames;
        for (entity, stream) in other.entities.iter() {
            self.extend_stream(entity, stream);
        }
        for (names, more) in [
            (&mut self.scopes, &other.scopes),
            (&mut self.kinds, &other.kinds),
            (&mut self.tags, &other.tags),
        ] {
            more.iter().for_each(|(name, list)| extend_name(names, name, list));
        }
        for (ids, more) in [
            (&mut self.correlations, &other.correlations),
            (&mut self.foreign_ids, &other.foreign_ids),
            (&mut self.causes, &other.causes),
        ] {
            more.iter().for_each(|(id, list)| extend_id(ids, *id, list));
        }
        self.followers.extend_from_slice(&other.followers);
        self.keys.extend(&other.keys);
    }

    /// Appends the versions and ordinals of an entity.
    fn extend_stream(&mut self, entity: &str, more: &Stream) {
        match self.entities.get_mut(entity) {
            Some(stream) => {
                stream.versions.extend(&more.versions);
                stream.ordinals.extend_from_slice(&more.ordinals);
            }
            None => {
                let mut stream =
                    Stream { versions: GappedSequence::default(), ordinals: more.ordinals.clone() };
                stream.versions.extend(&more.versions);
                self.entities.insert(entity, stream);
            }
        }
    }
}

impl SealedIndex {
    /// The same index in memory. Everything in the file is checked.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) if the file is damaged; errors of the disk.
    fn to_live(&self) -> Result<LiveIndex, Error> {
        if let IndexSource::File { .. } = self.source {
            let whole = self.load()?;
            return whole.map_err(|damage: Damage| self.damaged(0, &damage.to_string()))?.to_live();
        }
        let reader = IndexReader::new(self);
        let index = reader.to_live();
        reader.answered(index)
    }
}

impl IndexReader<'_> {
    fn to_live(&self) -> Result<LiveIndex, Error> {
        let header = &self.sealed.header;
        let Layout { offsets, removed, .. } = &self.sealed.layout;
        let mut index = LiveIndex::new(header.bound.end);
        index.streams_created = header.born;
        index.frames = header.frames;
        for slot in 0..to_usize(header.events) {
            index.ordinals.push(self.sealed.ordinals.at(slot));
        }
        index.offsets =
            self.piece(offsets.range())?.chunks_exact(NUMBER).map(|offset| u32_at(offset, 0)).collect();
        if !index.offsets.is_sorted() || index.offsets.last().is_some_and(|last| *last >= index.end) {
            return Err(self.sealed.damaged(offsets.start, "an event of the index lies where none can"));
        }
        let ranges = self.piece(removed.range())?;
        index.removed = ranges.chunks_exact(8).map(|range| u32_at(range, 0)..u32_at(range, 4)).collect();
        if !removed_ranges_fit(&index) {
            return Err(self
                .sealed
                .damaged(removed.start, "the removed ranges of the index overlap each other or its events"));
        }
        let mut at = 0;
        while at < self.terms_end() {
            let located = self.term_at(at, 0)?;
            let list = SealedList::of(self, &located.term).to_vec();
            let inserted =
                insert_term(&mut index, &located.term, &located.name, &versions(self, &located.term), list);
            inserted.map_err(|what| self.sealed.damaged(at, what))?;
            at = located.end;
        }
        Ok(index)
    }
}

/// Whether the removed ranges lie apart, in order, and no event lies in one of them.
fn removed_ranges_fit(index: &LiveIndex) -> bool {
    let mut end = 0;
    index.removed.iter().all(|removed| {
        let before = |offset: u32| index.offsets.partition_point(|own| *own < offset);
        let apart = end <= removed.start && removed.start < removed.end && removed.end <= index.end;
        end = removed.end;
        apart && before(removed.start) == before(removed.end)
    })
}

/// Adds a term of an index file. `Err` says why the term is impossible.
fn insert_term(
    index: &mut LiveIndex,
    term: &Term,
    name: &[u8],
    versions: &GappedSequence<impl Jumps>,
    list: Vec<u32>,
) -> Result<(), &'static str> {
    if !list.is_sorted_by(|one, next| one < next)
        || list.iter().any(|own| index.ordinals.slot((*own).into()).is_none())
    {
        return Err("a list of the index names events that do not exist");
    }
    let text = || std::str::from_utf8(name).map_err(|_| "a name in the index is not UTF-8");
    let id = || {
        let bytes: Result<[u8; 16], _> = name.try_into();
        bytes.map_err(|_| "an id in the index has not 16 bytes")
    };
    match term.kind {
        TermKind::Entity => {
            let mut stream = Stream { versions: GappedSequence::default(), ordinals: list };
            let mut before = 0;
            for slot in 0..to_usize(term.count) {
                let version = versions.at(slot);
                if version <= before {
                    return Err("the versions of an entity in the index do not grow");
                }
                stream.versions.push(version);
                before = version;
            }
            index.entities.insert(text()?, stream);
        }
        TermKind::Scope => extend_name(&mut index.scopes, text()?, &list),
        TermKind::Kind => extend_name(&mut index.kinds, text()?, &list),
        TermKind::Tag => extend_name(&mut index.tags, text()?, &list),
        TermKind::Correlation => extend_id(&mut index.correlations, EventId::from_bytes(id()?), &list),
        TermKind::ForeignId => extend_id(&mut index.foreign_ids, EventId::from_bytes(id()?), &list),
        TermKind::Cause => extend_id(&mut index.causes, EventId::from_bytes(id()?), &list),
        TermKind::Follower => index.followers = list,
        TermKind::Key => _ = index.keys.insert(id()?, term.first),
    }
    Ok(())
}

/// Appends postings to a name's.
fn extend_name(names: &mut NameDictionary<Vec<u32>>, name: &str, more: &[u32]) {
    match names.get_mut(name) {
        Some(list) => list.extend_from_slice(more),
        None => names.insert(name, more.to_vec()),
    }
}

/// Appends postings to an id's.
fn extend_id(ids: &mut IdPostings, id: EventId, more: &[u32]) {
    ids.entry(id).or_default().extend_from_slice(more);
}

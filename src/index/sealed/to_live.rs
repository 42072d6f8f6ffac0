//! Converts an index file back into an index in memory, to which frames can be added.

use crate::format::index_file::{Layout, NUMBER, Term, TermKind};
use crate::format::{Damage, u32_at};
use crate::index::live::{LiveIndex, Stream, extend_id, extend_name};
use crate::index::numbers::{GappedSequence, Jumps};
use crate::index::postings::PostingList;
use crate::types::{Error, EventId, to_usize};

use super::lists::{SealedList, versions};
use super::reader::IndexReader;
use super::{IndexSource, SealedIndex};

impl SealedIndex {
    /// The same index in memory. Everything in the file is checked.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) if the file is damaged; errors of the disk.
    pub(in crate::index) fn to_live(&self) -> Result<LiveIndex, Error> {
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

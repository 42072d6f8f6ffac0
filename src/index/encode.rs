//! Encodes an index in memory as an index file; the format is in docs/index-file.md.
//!
//! Invariant: the same events make the same bytes: terms are sorted, so the order of the hash maps does not
//! matter.

use crate::format::checksum;
use crate::format::index_file::{
    ANCHOR_STRIDE, Bound, HEADER, Header, JUMP, NO_TERM, NUMBER, SLOT, Term, TermHash, TermKind, block_place,
    filter_for, filter_insert, read_slot, slots_for, write_jump, write_slot,
};

use crate::types::to_usize;

use super::answers::IndexForm;
use super::live::{LiveIndex, Stream};
use super::numbers::GappedSequence;

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
        out.resize(crate::format::index_file::aligned(out.len()), 0);
    }
    let checksums = (0..).map(|block| block_place(block, table.start)).take_while(|place| !place.is_empty());
    let checksums: Vec<u8> = checksums.flat_map(|place| checksum(&[&out[place]]).to_le_bytes()).collect();
    header.table_checksum = checksum(&[&checksums]);
    out.extend_from_slice(&checksums);
    out[..HEADER].copy_from_slice(&header.write());
    Some(out)
}

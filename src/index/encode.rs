//! Makes an index file of an index in memory.
//!
//! Invariant: the same events make the same bytes, in whatever order the maps in memory give them.
//! SPEC.md "Index file". Row: index.

use crate::format::checksum;
use crate::format::index_file::{
    ANCHOR_STRIDE, Bound, HEADER, Header, JUMP, NO_TERM, NUMBER, SLOT, Term, TermHash, TermKind, block_place,
    filter_for, filter_insert, read_slot, slots_for, write_jump, write_slot,
};
use crate::types::to_usize;

use super::numbers::Numbers;
use super::{Index, Stream};

/// A term and its events, as they are in memory.
type Entry<'a> = (TermKind, &'a [u8], Events<'a>);

enum Events<'a> {
    Stream(&'a Stream),
    List(&'a [u32]),
    One(u32),
}

impl Index {
    /// The bytes of the index file that answers as this index does; `None` if they would be more than its offsets
    /// can tell.
    ///
    /// `bound` says what this index is of: it ends where `bound` does.
    pub(crate) fn encode(&self, bound: &Bound) -> Option<Vec<u8>> {
        assert_eq!(bound.end, self.end, "an index file ends where its index does");
        let mut parts = Parts::default();
        for (slot, number) in self.ordinals.jumps() {
            write_jump(&mut parts.jumps, u32::try_from(*slot).ok()?, *number);
        }
        let gaps = u32::try_from(self.ordinals.jumps().len()).ok()?;
        for (kind, name, events) in self.terms() {
            parts.hashes.push((TermHash::of(&bound.store_id, kind, name), parts.place()?));
            match events {
                Events::Stream(stream) => parts.add(kind, name, &stream.ordinals, &stream.versions)?,
                Events::List(list) => parts.add(kind, name, list, &Numbers::default())?,
                Events::One(ordinal) => parts.add(kind, name, &[ordinal], &Numbers::default())?,
            }
        }
        let (filter, slots) = parts.hashed()?;
        let removed: Vec<u8> = self
            .removed
            .iter()
            .flat_map(|range| [range.start, range.end])
            .flat_map(u32::to_le_bytes)
            .collect();
        let offsets: Vec<u8> = self.offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect();
        let Parts { terms, anchors, jumps, lists, hashes } = parts;
        let sections = [filter, slots, anchors, terms, jumps, removed, offsets, lists];
        let mut bytes = [0; 8];
        for (bytes, section) in bytes.iter_mut().zip(&sections) {
            *bytes = u32::try_from(section.len()).ok()?;
        }
        let header = Header {
            bound: bound.clone(),
            events: self.events(),
            ordinals: self.ordinals(),
            born: self.born,
            terms: u32::try_from(hashes.len()).ok()?,
            gaps,
            sections: bytes,
            table_checksum: 0,
            frames: self.frames,
        };
        assemble(header, &sections)
    }

    /// All terms with their events, in the order of the file.
    fn terms(&self) -> Vec<Entry<'_>> {
        let names =
            [(TermKind::Scope, &self.scopes), (TermKind::Kind, &self.kinds), (TermKind::Tag, &self.tags)];
        let ids = [
            (TermKind::Correlation, &self.correlations),
            (TermKind::ForeignId, &self.foreign_ids),
            (TermKind::Cause, &self.causes),
        ];
        let mut terms: Vec<Entry<'_>> = Vec::new();
        for (name, stream) in self.entities.iter() {
            terms.push((TermKind::Entity, name.as_bytes(), Events::Stream(stream)));
        }
        for (kind, names) in names {
            terms.extend(names.iter().map(|(name, list)| (kind, name.as_bytes(), Events::List(list))));
        }
        for (kind, ids) in ids {
            terms.extend(ids.iter().map(|(id, list)| (kind, id.as_bytes().as_slice(), Events::List(list))));
        }
        if !self.followers.is_empty() {
            terms.push((TermKind::Follower, &[], Events::List(&self.followers)));
        }
        for (key, ordinal) in &self.keys {
            terms.push((TermKind::Key, key, Events::One(*ordinal)));
        }
        terms.sort_unstable_by(|(kind, name, _), (other_kind, other, _)| {
            kind.cmp(other_kind).then_with(|| name.cmp(other))
        });
        terms
    }
}

/// The sections that grow term by term.
#[derive(Default)]
struct Parts {
    terms: Vec<u8>,
    anchors: Vec<u8>,
    jumps: Vec<u8>,
    lists: Vec<u8>,
    /// Of each term, and where it begins.
    hashes: Vec<(TermHash, u32)>,
}

impl Parts {
    /// Where the next term begins.
    fn place(&self) -> Option<u32> {
        u32::try_from(self.terms.len()).ok().filter(|place| *place != NO_TERM)
    }

    fn add(&mut self, kind: TermKind, name: &[u8], list: &[u32], versions: &Numbers) -> Option<()> {
        let (first, last) = list.first().zip(list.last()).expect("a term is inserted with its first event");
        let place = self.place()?;
        while self.anchors.len() / NUMBER * ANCHOR_STRIDE <= to_usize(place) {
            self.anchors.extend_from_slice(&place.to_le_bytes());
        }
        let jump = |jumps: &[u8]| u32::try_from(jumps.len() / JUMP).ok();
        let jumps_start = jump(&self.jumps)?;
        for (slot, number) in versions.jumps() {
            write_jump(&mut self.jumps, u32::try_from(*slot).ok()?, *number);
        }
        let jumps = jumps_start..jump(&self.jumps)?;
        let count = u32::try_from(list.len()).ok()?;
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

    /// Filter and slots.
    fn hashed(&self) -> Option<(Vec<u8>, Vec<u8>)> {
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

/// Puts the sections behind a header, and the checksums behind them.
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

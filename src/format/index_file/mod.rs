//! An index file: the index of one segment's frames, made to be asked where it lies.
//!
//! It belongs to the frames before an offset, whose chain it names; it holds nothing that its segment does
//! not, so whoever meets one that is damaged, stale or unknown makes it again.
//! SPEC.md "Index file". Row: bytes.

mod hash;
mod term;

use std::ops::Range;

use super::chain::Hash;
use super::segment::SegmentId;
use super::{Damage, array, checksum, preamble, put, sum, u32_at, u64_at};

pub(crate) use hash::{
    NO_TERM, SLOT, TermHash, filter_for, filter_holds, filter_insert, read_slot, slots_for, write_slot,
};
pub(crate) use term::{JUMP, Term, TermKind, read_jump, write_jump};

use hash::FILTER_BLOCK;

const MAGIC: &[u8; 8] = b"ANNALIDX";

/// Preamble 0, store id 40, first position 56, generation 64, end 68, last position 72, chain 80,
/// events 112, ordinals 116 and 120, born 124, terms 128, gaps 132, bytes of the sections 136, checksum of
/// the checksums 168, frames 172, zero 176, checksum 188.
pub(crate) const HEADER: usize = 192;
/// What one checksum of the table is over.
pub(crate) const BLOCK: usize = 4096;
/// Sections and the table of checksums begin at multiples of this, so that no number of theirs lies in two
/// blocks.
const ALIGN: usize = 16;
const SECTIONS: usize = 8;
/// The bytes of a section's entry: of filter, slots, anchors, terms (which have no fixed size), jumps, removed,
/// offsets, lists.
const ENTRIES: [usize; SECTIONS] = [FILTER_BLOCK, SLOT, NUMBER, 1, JUMP, 8, NUMBER, NUMBER];
/// An entry that is one number.
pub(crate) const NUMBER: usize = 4;

/// Every so many bytes of the terms an anchor says where the next term begins.
pub(crate) const ANCHOR_STRIDE: usize = 1024;

/// What an index file belongs to: the frames of a segment up to an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    /// Of the store that the log began in: the hashes of its terms are keyed by it, in all that was forked from
    /// that store.
    pub(crate) store_id: [u8; 16],
    pub(crate) segment: SegmentId,
    /// Where the last frame ends.
    pub(crate) end: u32,
    /// The last position before it, and the chain there.
    pub(crate) last_position: u64,
    pub(crate) chain: Hash,
}

/// Where a section lies in the file, and its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) start: usize,
    /// How many entries it has; of the terms, which have no fixed size, how many bytes.
    pub(crate) count: usize,
    entry: usize,
}

impl Section {
    /// Where an entry begins; behind the last, where the section ends.
    #[inline]
    pub(crate) fn at(&self, entry: usize) -> usize {
        sum([self.start, entry.saturating_mul(self.entry)])
    }

    pub(crate) fn range(&self) -> Range<usize> {
        self.start..self.at(self.count)
    }
}

/// Where everything lies in a file, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) filter: Section,
    pub(crate) slots: Section,
    pub(crate) anchors: Section,
    pub(crate) terms: Section,
    pub(crate) jumps: Section,
    pub(crate) removed: Section,
    pub(crate) offsets: Section,
    pub(crate) lists: Section,
    /// The checksums, up to the file's end.
    pub(crate) table: Range<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) bound: Bound,
    pub(crate) events: u32,
    /// From the first event's ordinal to behind the last one's.
    pub(crate) ordinals: Range<u32>,
    /// How many entities have their first version here.
    pub(crate) born: u32,
    pub(crate) terms: u32,
    /// How many of the jumps, from the first on, are gaps in the ordinals.
    pub(crate) gaps: u32,
    /// The bytes of each section, without the zeros behind it.
    pub(crate) sections: [u32; SECTIONS],
    pub(crate) table_checksum: u32,
    /// How many frames the events stand in.
    pub(crate) frames: u32,
}

impl Header {
    pub(crate) fn write(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        preamble::write(&mut out, MAGIC);
        put(&mut out, 40, &self.bound.store_id);
        put(&mut out, 56, &self.bound.segment.first_position.to_le_bytes());
        put(&mut out, 64, &self.bound.segment.generation.to_le_bytes());
        put(&mut out, 68, &self.bound.end.to_le_bytes());
        put(&mut out, 72, &self.bound.last_position.to_le_bytes());
        put(&mut out, 80, &self.bound.chain);
        let counts = [self.events, self.ordinals.start, self.ordinals.end, self.born, self.terms, self.gaps];
        for (at, number) in (112..).step_by(4).zip(counts.iter().chain(&self.sections)) {
            put(&mut out, at, &number.to_le_bytes());
        }
        put(&mut out, 168, &self.table_checksum.to_le_bytes());
        put(&mut out, 172, &self.frames.to_le_bytes());
        let crc = checksum(&[&out[..188]]);
        put(&mut out, 188, &crc.to_le_bytes());
        out
    }

    pub(crate) fn read(bytes: &[u8]) -> Result<Header, Damage> {
        let bytes = bytes.first_chunk::<HEADER>().ok_or(Damage::Bad("the index's header is cut off"))?;
        if checksum(&[&bytes[..188]]) != u32_at(bytes, 188) {
            return Err(Damage::Bad("the index's header does not fit its checksum"));
        }
        preamble::check(bytes, MAGIC)?;
        let mut sections = [0; SECTIONS];
        for (section, at) in sections.iter_mut().zip((136..).step_by(4)) {
            *section = u32_at(bytes, at);
        }
        let header = Header {
            bound: Bound {
                store_id: array(bytes, 40),
                segment: SegmentId { first_position: u64_at(bytes, 56), generation: u32_at(bytes, 64) },
                end: u32_at(bytes, 68),
                last_position: u64_at(bytes, 72),
                chain: array(bytes, 80),
            },
            events: u32_at(bytes, 112),
            ordinals: u32_at(bytes, 116)..u32_at(bytes, 120),
            born: u32_at(bytes, 124),
            terms: u32_at(bytes, 128),
            gaps: u32_at(bytes, 132),
            sections,
            table_checksum: u32_at(bytes, 168),
            frames: u32_at(bytes, 172),
        };
        header.check().then_some(header).ok_or(Damage::Bad("the index's counts do not fit each other"))
    }

    fn check(&self) -> bool {
        let Layout { filter, slots, jumps, offsets, .. } = self.layout();
        let are_whole =
            self.sections.iter().zip(ENTRIES).all(|(bytes, entry)| wide(*bytes).is_multiple_of(entry));
        let ordinals = self.ordinals.end.checked_sub(self.ordinals.start);
        are_whole
            && offsets.count == wide(self.events)
            && ordinals.is_some_and(|ordinals| ordinals >= self.events)
            && (self.events > 0 || ordinals == Some(0))
            && self.born <= self.events
            && self.frames <= self.events
            && wide(self.gaps) <= jumps.count
            && filter.count > 0
            && slots.count > wide(self.terms)
    }

    /// Where everything lies.
    pub(crate) fn layout(&self) -> Layout {
        let mut start = HEADER;
        let mut sections = self.sections.iter().zip(ENTRIES).map(|(bytes, entry)| {
            let count = wide(*bytes).checked_div(entry).unwrap_or_default();
            let section = Section { start, count, entry };
            start = aligned(sum([start, wide(*bytes)]));
            section
        });
        let [filter, slots, anchors, terms, jumps, removed, offsets, lists] =
            std::array::from_fn(|_| sections.next().expect("there is an entry for each section"));
        let table = start..sum([start, start.div_ceil(BLOCK).saturating_mul(4)]);
        Layout { filter, slots, anchors, terms, jumps, removed, offsets, lists, table }
    }
}

/// The next multiple of what sections begin at.
pub(crate) fn aligned(bytes: usize) -> usize {
    bytes.checked_next_multiple_of(ALIGN).unwrap_or(usize::MAX)
}

/// The part of a file that a block's checksum is over: the header has its own.
pub(crate) fn block_place(block: usize, table_start: usize) -> Range<usize> {
    let start = block.saturating_mul(BLOCK);
    start.max(HEADER)..sum([start, BLOCK]).min(table_start)
}

fn wide(number: u32) -> usize {
    usize::try_from(number).expect("annals needs pointers of at least 32 bits")
}

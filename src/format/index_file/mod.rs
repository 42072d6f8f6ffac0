//! An index file: the index of one segment's frames, laid out to be read in place.
//!
//! It belongs to the frames before an offset, and names the chain there. It holds nothing that its segment
//! does not hold, so a process that meets a damaged, stale or unknown index file builds it again.
//! docs/index-file.md.

mod terms;

use std::ops::Range;

use super::bytes::{Damage, array, checksum, part, preamble, put, sum, u32_at, u64_at};
use super::chain::Hash;
use super::segment::SegmentId;
use crate::types::to_usize;

pub(crate) use super::place::{LARGE_FRAME_BYTES_MIN, LargeFrame};
pub(crate) use terms::{
    GAP, JUMP, NO_TERM, SLOT, Term, TermHash, TermKind, filter_for, filter_holds, filter_insert, read_gap,
    read_jump, read_slot, slots_for, write_gap, write_jump, write_slot,
};

use terms::FILTER_BLOCK;

const MAGIC: &[u8; 8] = b"ANNALIDX";

const SECTIONS: usize = 10;
/// The length of a section's entry in bytes: filter, slots, anchors, terms (which have no fixed size), gaps,
/// jumps, removed, large frames, offsets, lists.
const ENTRIES: [usize; SECTIONS] =
    [FILTER_BLOCK, SLOT, NUMBER, 1, GAP, JUMP, 8, LargeFrame::BYTES, NUMBER, NUMBER];
/// The length of an entry that is one number.
pub(crate) const NUMBER: usize = 4;

/// The offset of each field of the bound, which follows the preamble.
const STORE_ID_AT: usize = preamble::SIZE;
const FIRST_POSITION_AT: usize = STORE_ID_AT + 16;
const GENERATION_AT: usize = FIRST_POSITION_AT + 8;
const END_AT: usize = GENERATION_AT + 4;
const LAST_POSITION_AT: usize = END_AT + 4;
const CHAIN_AT: usize = LAST_POSITION_AT + 8;

/// The offset of each field of the header, after the bound. The bytes behind the frames are zero.
const EVENTS_AT: usize = Bound::END;
const FIRST_ORDINAL_AT: usize = EVENTS_AT + 4;
const ORDINALS_END_AT: usize = FIRST_ORDINAL_AT + 4;
const STREAMS_AT: usize = ORDINALS_END_AT + 4;
const TERMS_AT: usize = STREAMS_AT + 4;
/// The length of each section in bytes.
const SECTIONS_AT: usize = TERMS_AT + 4;
/// The checksum of the table of checksums.
const TABLE_CHECKSUM_AT: usize = SECTIONS_AT + 4 * SECTIONS;
const FRAMES_AT: usize = TABLE_CHECKSUM_AT + 4;
const CHECKSUM_AT: usize = FRAMES_AT + 4 + 8;
pub(crate) const HEADER: usize = CHECKSUM_AT + 4;
const _: () = assert!(HEADER == 192);

/// The bytes that one checksum of the table covers.
pub(crate) const BLOCK: usize = 4096;
/// Sections and the table of checksums begin at multiples of this, so that none of their numbers lies in two
/// blocks.
const ALIGN: usize = 16;

/// An anchor says where the next term begins; there is one for each stretch of this many bytes of the terms.
pub(crate) const ANCHOR_STRIDE: usize = 1024;

/// The frames that an index file or a tree file belongs to: those of a segment up to an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    /// The id of the store that the log began in. It keys the hashes of terms, also in stores that were
    /// forked from that one.
    pub(crate) store_id: [u8; 16],
    pub(crate) segment: SegmentId,
    /// The offset behind the last frame.
    pub(crate) end: u32,
    /// The last position before that offset, and the chain there.
    pub(crate) last_position: u64,
    pub(crate) chain: Hash,
}

impl Bound {
    /// The offset behind the bound in the header of either file.
    pub(crate) const END: usize = CHAIN_AT + size_of::<Hash>();

    pub(crate) fn write(&self, header: &mut [u8]) {
        put(header, STORE_ID_AT, &self.store_id);
        put(header, FIRST_POSITION_AT, &self.segment.first_position.to_le_bytes());
        put(header, GENERATION_AT, &self.segment.generation.to_le_bytes());
        put(header, END_AT, &self.end.to_le_bytes());
        put(header, LAST_POSITION_AT, &self.last_position.to_le_bytes());
        put(header, CHAIN_AT, &self.chain);
    }

    /// Reads the bound of a header, which has at least [`Bound::END`] bytes.
    pub(crate) fn read(header: &[u8]) -> Bound {
        Bound {
            store_id: array(header, STORE_ID_AT),
            segment: SegmentId {
                first_position: u64_at(header, FIRST_POSITION_AT),
                generation: u32_at(header, GENERATION_AT),
            },
            end: u32_at(header, END_AT),
            last_position: u64_at(header, LAST_POSITION_AT),
            chain: array(header, CHAIN_AT),
        }
    }
}

/// The place of a section in the file, and its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) start: usize,
    /// How many entries it has. The terms have no fixed size: their count is in bytes.
    pub(crate) count: usize,
    entry: usize,
}

impl Section {
    /// The offset of an entry in the file; behind the last entry, the end of the section.
    #[inline]
    pub(crate) fn at(&self, entry: usize) -> usize {
        sum([self.start, entry.saturating_mul(self.entry)])
    }

    pub(crate) fn range(&self) -> Range<usize> {
        self.start..self.at(self.count)
    }
}

/// The places of all sections of a file, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) filter: Section,
    pub(crate) slots: Section,
    pub(crate) anchors: Section,
    pub(crate) terms: Section,
    /// The gaps in the ordinals.
    pub(crate) gaps: Section,
    /// The gaps in the versions of entities.
    pub(crate) jumps: Section,
    pub(crate) removed: Section,
    pub(crate) large_frames: Section,
    pub(crate) offsets: Section,
    pub(crate) lists: Section,
    /// The checksums, up to the file's end.
    pub(crate) table: Range<usize>,
}

/// The header of an index file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) bound: Bound,
    pub(crate) events: u32,
    /// From the ordinal of the first event to behind that of the last one.
    pub(crate) ordinals: Range<u32>,
    /// How many streams have their first version here.
    pub(crate) born: u32,
    pub(crate) terms: u32,
    /// The length of each section in bytes, without the zeros behind it.
    pub(crate) sections: [u32; SECTIONS],
    pub(crate) table_checksum: u32,
    /// How many frames hold the events.
    pub(crate) frames: u32,
}

impl Header {
    pub(crate) fn write(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        preamble::write(&mut out, MAGIC);
        self.bound.write(&mut out);
        let counts = [self.events, self.ordinals.start, self.ordinals.end, self.born, self.terms];
        for (at, number) in (EVENTS_AT..).step_by(4).zip(counts.iter().chain(&self.sections)) {
            put(&mut out, at, &number.to_le_bytes());
        }
        put(&mut out, TABLE_CHECKSUM_AT, &self.table_checksum.to_le_bytes());
        put(&mut out, FRAMES_AT, &self.frames.to_le_bytes());
        let crc = checksum(&[part(&out, ..CHECKSUM_AT)]);
        put(&mut out, CHECKSUM_AT, &crc.to_le_bytes());
        out
    }

    pub(crate) fn read(bytes: &[u8]) -> Result<Header, Damage> {
        let bytes = bytes.first_chunk::<HEADER>().ok_or(Damage::Bad("the index's header is cut off"))?;
        if checksum(&[part(bytes, ..CHECKSUM_AT)]) != u32_at(bytes, CHECKSUM_AT) {
            return Err(Damage::Bad("the index's header does not fit its checksum"));
        }
        preamble::check(bytes, MAGIC)?;
        let mut sections = [0; SECTIONS];
        for (section, at) in sections.iter_mut().zip((SECTIONS_AT..).step_by(4)) {
            *section = u32_at(bytes, at);
        }
        let header = Header {
            bound: Bound::read(bytes),
            events: u32_at(bytes, EVENTS_AT),
            ordinals: u32_at(bytes, FIRST_ORDINAL_AT)..u32_at(bytes, ORDINALS_END_AT),
            born: u32_at(bytes, STREAMS_AT),
            terms: u32_at(bytes, TERMS_AT),
            sections,
            table_checksum: u32_at(bytes, TABLE_CHECKSUM_AT),
            frames: u32_at(bytes, FRAMES_AT),
        };
        header.check().then_some(header).ok_or(Damage::Bad("the index's counts do not fit each other"))
    }

    /// Whether the counts fit each other, so that every place in the layout lies in its section.
    fn check(&self) -> bool {
        let Layout { filter, slots, offsets, .. } = self.layout();
        let are_whole =
            self.sections.iter().zip(ENTRIES).all(|(bytes, entry)| to_usize(*bytes).is_multiple_of(entry));
        let ordinals = self.ordinals.end.checked_sub(self.ordinals.start);
        are_whole
            && offsets.count == to_usize(self.events)
            && ordinals.is_some_and(|ordinals| ordinals >= self.events)
            && (self.events > 0 || ordinals == Some(0))
            && self.born <= self.events
            && self.frames <= self.events
            && filter.count > 0
            && slots.count > to_usize(self.terms)
    }

    /// The places of all sections.
    pub(crate) fn layout(&self) -> Layout {
        let mut start = HEADER;
        let mut sections = self.sections.iter().zip(ENTRIES).map(|(bytes, entry)| {
            let count = to_usize(*bytes).checked_div(entry).unwrap_or_default();
            let section = Section { start, count, entry };
            start = aligned(sum([start, to_usize(*bytes)]));
            section
        });
        let [filter, slots, anchors, terms, gaps, jumps, removed, large_frames, offsets, lists] =
            std::array::from_fn(|_| sections.next().expect("there is an entry for each section"));
        let table = start..sum([start, start.div_ceil(BLOCK).saturating_mul(4)]);
        Layout { filter, slots, anchors, terms, gaps, jumps, removed, large_frames, offsets, lists, table }
    }
}

/// The next multiple of [`ALIGN`].
pub(crate) fn aligned(bytes: usize) -> usize {
    bytes.checked_next_multiple_of(ALIGN).unwrap_or(usize::MAX)
}

/// The part of a file that a block's checksum covers. The header has a checksum of its own.
pub(crate) fn block_place(block: usize, table_start: usize) -> Range<usize> {
    let start = block.saturating_mul(BLOCK);
    start.max(HEADER)..sum([start, BLOCK]).min(table_start)
}

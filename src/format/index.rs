//! An index file: the index of one segment's frames, made to be asked where it lies.
//!
//! It belongs to the frames before an offset, whose chain it names; it holds nothing that its segment does
//! not, so whoever meets one that is damaged, stale or unknown makes it again.
//! SPEC.md "Index file". Row: bytes.

#![allow(dead_code, reason = "the view does not ask for index files yet; goes when it does")]

use std::ops::Range;

use crate::event::EventId;

use super::chain::Hash;
use super::segment::SegmentId;
use super::{Damage, array, checksum, part, preamble, put, sum, u16_at, u32_at, u64_at};

const MAGIC: &[u8; 8] = b"ANNALIDX";

/// Preamble 0, store id 40, first position 56, generation 64, end 68, last position 72, chain 80,
/// events 112, ordinals 116 and 120, born 124, terms 128, gaps 132, bytes of the sections 136, checksum of
/// the checksums 168, checksum 172.
pub(crate) const HEADER: usize = 176;
/// What one checksum of the table is over.
pub(crate) const BLOCK: usize = 4096;
/// Sections and the table of checksums begin at multiples of this, so that no number of theirs lies in two
/// blocks.
const ALIGN: usize = 16;
const SECTIONS: usize = 8;

/// What an index file belongs to: the frames of a segment up to an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    /// Of the store that asks: the hashes of its terms are keyed by it. A segment that was taken over from
    /// another store has that one's id in its header, and still this one here.
    pub(crate) store_id: [u8; 16],
    pub(crate) segment: SegmentId,
    /// Where the last frame ends.
    pub(crate) end: u32,
    /// The last position before it, and the chain there.
    pub(crate) last_position: u64,
    pub(crate) chain: Hash,
}

/// The parts of an index file behind its header, in the order in which they stand there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Filter,
    Slots,
    Anchors,
    Terms,
    Jumps,
    Removed,
    Offsets,
    Lists,
}

/// All of them.
pub(crate) const ALL_SECTIONS: [Section; SECTIONS] = [
    Section::Filter,
    Section::Slots,
    Section::Anchors,
    Section::Terms,
    Section::Jumps,
    Section::Removed,
    Section::Offsets,
    Section::Lists,
];

impl Section {
    /// How many bytes each entry has; terms are of no fixed size.
    pub(crate) const fn entry(self) -> usize {
        match self {
            Section::Filter => FILTER_BLOCK,
            Section::Slots => SLOT,
            Section::Jumps => JUMP,
            Section::Removed => 8,
            Section::Anchors | Section::Offsets | Section::Lists => 4,
            Section::Terms => 1,
        }
    }
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
        let crc = checksum(&[&out[..172]]);
        put(&mut out, 172, &crc.to_le_bytes());
        out
    }

    pub(crate) fn read(bytes: &[u8]) -> Result<Header, Damage> {
        let bytes = bytes.first_chunk::<HEADER>().ok_or(Damage::Bad("the index's header is cut off"))?;
        if checksum(&[&bytes[..172]]) != u32_at(bytes, 172) {
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
        };
        header.check().then_some(header).ok_or(Damage::Bad("the index's counts do not fit each other"))
    }

    fn check(&self) -> bool {
        let whole = ALL_SECTIONS.iter().all(|section| self.bytes(*section).is_multiple_of(section.entry()));
        let ordinals = self.ordinals.end.checked_sub(self.ordinals.start);
        whole
            && self.count(Section::Offsets) == wide(self.events)
            && ordinals.is_some_and(|ordinals| ordinals >= self.events)
            && (self.events > 0 || ordinals == Some(0))
            && self.born <= self.events
            && wide(self.gaps) <= self.count(Section::Jumps)
            && self.count(Section::Filter) > 0
            && self.count(Section::Slots) > wide(self.terms)
    }

    fn bytes(&self, section: Section) -> usize {
        let [filter, slots, anchors, terms, jumps, removed, offsets, lists] = self.sections;
        wide(match section {
            Section::Filter => filter,
            Section::Slots => slots,
            Section::Anchors => anchors,
            Section::Terms => terms,
            Section::Jumps => jumps,
            Section::Removed => removed,
            Section::Offsets => offsets,
            Section::Lists => lists,
        })
    }

    /// How many entries a section has.
    pub(crate) fn count(&self, section: Section) -> usize {
        self.bytes(section).checked_div(section.entry()).unwrap_or_default()
    }

    /// Where a section lies in the file.
    pub(crate) fn place(&self, section: Section) -> Range<usize> {
        let before = ALL_SECTIONS.into_iter().take_while(|other| *other != section);
        let start = before.fold(HEADER, |start, other| aligned(sum([start, self.bytes(other)])));
        start..sum([start, self.bytes(section)])
    }

    /// Where the checksums lie: up to the file's end.
    pub(crate) fn table(&self) -> Range<usize> {
        let start = aligned(self.place(Section::Lists).end);
        start..sum([start, start.div_ceil(BLOCK).saturating_mul(4)])
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

/// What a term is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TermKind {
    Entity,
    Scope,
    Kind,
    Tag,
    Correlation,
    ForeignId,
    Cause,
    Follower,
    Key,
}

impl TermKind {
    const ALL: [TermKind; 9] = [
        TermKind::Entity,
        TermKind::Scope,
        TermKind::Kind,
        TermKind::Tag,
        TermKind::Correlation,
        TermKind::ForeignId,
        TermKind::Cause,
        TermKind::Follower,
        TermKind::Key,
    ];

    /// As stored: its place among all.
    const fn byte(self) -> u8 {
        match self {
            TermKind::Entity => 0,
            TermKind::Scope => 1,
            TermKind::Kind => 2,
            TermKind::Tag => 3,
            TermKind::Correlation => 4,
            TermKind::ForeignId => 5,
            TermKind::Cause => 6,
            TermKind::Follower => 7,
            TermKind::Key => 8,
        }
    }

    /// As stored, in front of a name: so names of different kinds stay apart.
    fn of(byte: u8) -> Result<TermKind, Damage> {
        let kind = TermKind::ALL.get(usize::from(byte)).copied();
        kind.ok_or(Damage::Bad("a term of the index is of no kind that there is"))
    }
}

/// A term's events: how many there are, where the list of their ordinals lies, and what can be told without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Term {
    pub(crate) kind: TermKind,
    pub(crate) name_bytes: u16,
    /// At least one.
    pub(crate) count: u32,
    pub(crate) first: u32,
    pub(crate) last: u32,
    /// The list's first entry among the section's; without one, the ordinals follow each other.
    pub(crate) list: Option<u32>,
    /// Of an entity's first event here.
    pub(crate) version: u64,
    /// Which jumps are gaps in an entity's versions.
    pub(crate) jumps: Range<u32>,
}

const KIND_MASK: u8 = 0b1111;
const RUN: u8 = 1 << 4;
const LIST: u8 = 1 << 5;
const VERSION: u8 = 1 << 6;
const JUMPS: u8 = 1 << 7;

impl Term {
    /// The longest head: what stands before the name.
    pub(crate) const HEAD_MAX: usize = 35;

    /// The head; the name follows.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let run = self.list.is_none() && self.count > 1;
        let flags = [
            (RUN, run),
            (LIST, self.list.is_some()),
            (VERSION, self.version != 1),
            (JUMPS, !self.jumps.is_empty()),
        ];
        let set = flags.iter().filter(|(_, is_set)| *is_set).fold(0, |set, (flag, _)| set | flag);
        out.push(set | self.kind.byte());
        out.extend_from_slice(&self.name_bytes.to_le_bytes());
        out.extend_from_slice(&self.first.to_le_bytes());
        if run || self.list.is_some() {
            out.extend_from_slice(&self.count.to_le_bytes());
        }
        if let Some(list) = self.list {
            out.extend_from_slice(&self.last.to_le_bytes());
            out.extend_from_slice(&list.to_le_bytes());
        }
        if self.version != 1 {
            out.extend_from_slice(&self.version.to_le_bytes());
        }
        if !self.jumps.is_empty() {
            out.extend_from_slice(&self.jumps.start.to_le_bytes());
            out.extend_from_slice(&self.jumps.end.to_le_bytes());
        }
    }

    /// Reads the head at the start of `bytes`, which may be longer; also says how long it is.
    pub(crate) fn read(bytes: &[u8]) -> Result<(Term, usize), Damage> {
        const CUT: Damage = Damage::Bad("a term of the index is cut off");
        const WRONG: Damage = Damage::Bad("a term of the index has no list that can be");
        let flags = *bytes.first().ok_or(CUT)?;
        let mut rest = bytes.get(1..).ok_or(CUT)?;
        let mut take = |is_there: bool, size: usize| -> Result<&[u8], Damage> {
            let (field, behind) = rest.split_at_checked(if is_there { size } else { 0 }).ok_or(CUT)?;
            rest = behind;
            Ok(field)
        };
        let number =
            |field: &[u8], otherwise: u32| if field.is_empty() { otherwise } else { u32_at(field, 0) };
        let (has_run, has_list) = (flags & RUN != 0, flags & LIST != 0);
        let name_bytes = u16_at(take(true, 2)?, 0);
        let first = u32_at(take(true, 4)?, 0);
        let count = number(take(has_run || has_list, 4)?, 1);
        let last = take(has_list, 4)?;
        let list = take(has_list, 4)?;
        let version = take(flags & VERSION != 0, 8)?;
        let jumps = take(flags & JUMPS != 0, 8)?;
        let run_end = count.checked_sub(1).and_then(|behind| first.checked_add(behind)).ok_or(WRONG)?;
        let term = Term {
            kind: TermKind::of(flags & KIND_MASK)?,
            name_bytes,
            count,
            first,
            last: number(last, run_end),
            list: (!list.is_empty()).then(|| u32_at(list, 0)),
            version: if version.is_empty() { 1 } else { u64_at(version, 0) },
            jumps: if jumps.is_empty() { 0..0 } else { u32_at(jumps, 0)..u32_at(jumps, 4) },
        };
        if (has_run && has_list) || term.last < run_end || term.jumps.start > term.jumps.end {
            return Err(WRONG);
        }
        let head = bytes.len().saturating_sub(rest.len());
        Ok((term, head))
    }
}

/// A gap in ever larger numbers. Slot 0, zero 4, number 8.
pub(crate) const JUMP: usize = 16;

pub(crate) fn write_jump(out: &mut Vec<u8>, slot: u32, number: u64) {
    out.extend_from_slice(&slot.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&number.to_le_bytes());
}

/// Slot and number of the jump at the start of `bytes`.
pub(crate) fn read_jump(bytes: &[u8; JUMP]) -> (u32, u64) {
    (u32_at(bytes, 0), u64_at(bytes, 8))
}

/// A term's hash: the same in every index file of a store, so that it is computed once for all of them.
///
/// Keyed, so that nobody who does not know the store can choose names that share a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TermHash(u64);

impl TermHash {
    pub(crate) fn of(store_id: &[u8; 16], kind: TermKind, name: &[u8]) -> TermHash {
        let mut key = [0; 32];
        put(&mut key, 0, store_id);
        put(&mut key, 16, b"annals term hash");
        // One short slice is hashed faster than the same bytes piece by piece.
        let mut short = [kind.byte(); 256];
        let length = sum([name.len(), 1]);
        let hash = match short.get_mut(..length) {
            Some(joined) => {
                put(joined, 1, name);
                blake3::keyed_hash(&key, joined)
            }
            None => blake3::Hasher::new_keyed(&key).update(&[kind.byte()]).update(name).finalize(),
        };
        TermHash(u64_at(hash.as_bytes(), 0))
    }

    pub(crate) fn entity(store_id: &[u8; 16], name: &str) -> TermHash {
        TermHash::of(store_id, TermKind::Entity, name.as_bytes())
    }

    pub(crate) fn scope(store_id: &[u8; 16], name: &str) -> TermHash {
        TermHash::of(store_id, TermKind::Scope, name.as_bytes())
    }

    pub(crate) fn kind(store_id: &[u8; 16], name: &str) -> TermHash {
        TermHash::of(store_id, TermKind::Kind, name.as_bytes())
    }

    pub(crate) fn tag(store_id: &[u8; 16], name: &str) -> TermHash {
        TermHash::of(store_id, TermKind::Tag, name.as_bytes())
    }

    pub(crate) fn correlation(store_id: &[u8; 16], id: EventId) -> TermHash {
        TermHash::of(store_id, TermKind::Correlation, id.as_bytes())
    }

    pub(crate) fn foreign_id(store_id: &[u8; 16], id: EventId) -> TermHash {
        TermHash::of(store_id, TermKind::ForeignId, id.as_bytes())
    }

    pub(crate) fn cause(store_id: &[u8; 16], id: EventId) -> TermHash {
        TermHash::of(store_id, TermKind::Cause, id.as_bytes())
    }

    pub(crate) fn key(store_id: &[u8; 16], key: &[u8; 16]) -> TermHash {
        TermHash::of(store_id, TermKind::Key, key)
    }

    /// The slot to look at first, among so many.
    pub(crate) fn slot(self, slots: usize) -> usize {
        scale(self.0.into(), slots, 64)
    }

    /// What a slot says of its term, so that another term's is passed over.
    pub(crate) fn fingerprint(self) -> u16 {
        let [low, next, ..] = self.0.to_le_bytes();
        u16::from_le_bytes([low, next])
    }
}

/// A hash of so many bits as one of `count` numbers: its place on a line of that length.
fn scale(hash: u128, count: usize, bits: u32) -> usize {
    let count = u128::try_from(count).expect("a length fits 128 bits");
    usize::try_from(hash.saturating_mul(count) >> bits).expect("less than the count")
}

/// Fingerprint 0, the term's place in its section 2; the place of an empty one is [`NO_TERM`].
pub(crate) const SLOT: usize = 6;
pub(crate) const NO_TERM: u32 = u32::MAX;

/// How many slots so many terms have: more, so that a search ends soon.
pub(crate) fn slots_for(terms: usize) -> usize {
    sum([terms, terms / 6, 1])
}

pub(crate) fn write_slot(slots: &mut [u8], at: usize, fingerprint: u16, term: u32) {
    put(slots, at.saturating_mul(SLOT), &fingerprint.to_le_bytes());
    put(slots, sum([at.saturating_mul(SLOT), 2]), &term.to_le_bytes());
}

/// Fingerprint and term of a slot that is there.
pub(crate) fn read_slot(slots: &[u8], at: usize) -> (u16, u32) {
    let slot = part(slots, at.saturating_mul(SLOT)..);
    (u16_at(slot, 0), u32_at(slot, 2))
}

/// Every so many bytes of the terms an anchor says where the next term begins.
pub(crate) const ANCHOR_STRIDE: usize = 1024;

/// A block of the filter: eight words of 32 bits.
pub(crate) const FILTER_BLOCK: usize = 32;
const FILTER_BITS_PER_TERM: usize = 12;
/// Odd numbers that take another bit of the hash for each word. Those of Parquet, so that its
/// implementations can be compared.
const SALTS: [u32; 8] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// An empty filter for so many terms.
pub(crate) fn filter_for(terms: usize) -> Vec<u8> {
    let blocks = terms.saturating_mul(FILTER_BITS_PER_TERM).div_ceil(FILTER_BLOCK.saturating_mul(8)).max(1);
    vec![0; blocks.saturating_mul(FILTER_BLOCK)]
}

/// The bytes of a term's block in a filter that is not empty, and the bit of each of its words.
///
/// A split block Bloom filter (Putze, Sanders, Singler: "Cache-, Hash- and Space-Efficient Bloom Filters",
/// 2007; with the constants of Apache Parquet's BloomFilter.md): one cache line a term.
fn filter_bits(filter: &[u8], hash: TermHash) -> (Range<usize>, [u32; 8]) {
    let blocks = filter.len().checked_div(FILTER_BLOCK).unwrap_or_default();
    let start = scale((hash.0 >> 32).into(), blocks, 32).saturating_mul(FILTER_BLOCK);
    let low = u32_at(&hash.0.to_le_bytes(), 0);
    (start..sum([start, FILTER_BLOCK]), SALTS.map(|salt| 1 << (low.wrapping_mul(salt) >> 27)))
}

pub(crate) fn filter_insert(filter: &mut [u8], hash: TermHash) {
    let (place, bits) = filter_bits(filter, hash);
    for (at, bit) in place.step_by(4).zip(bits) {
        let word = u32_at(filter, at) | bit;
        put(filter, at, &word.to_le_bytes());
    }
}

/// Whether a term may be among those of the filter; if not, it is not.
#[inline]
pub(crate) fn filter_holds(filter: &[u8], hash: TermHash) -> bool {
    let (place, bits) = filter_bits(filter, hash);
    let block = part(filter, place);
    let words = block.chunks_exact(4).zip(bits);
    words.fold(true, |all, (word, bit)| all & (u32_at(word, 0) & bit != 0))
}

fn wide(number: u32) -> usize {
    usize::try_from(number).expect("annals needs pointers of at least 32 bits")
}

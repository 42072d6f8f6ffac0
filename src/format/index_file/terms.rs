//! The terms of an index file: how a term is stored, and how it is found by its hash.
//!
//! A filter knows which terms are not there; slots lead from a hash to a term. docs/index-file.md.

use std::ops::Range;

use crate::format::bytes::{Damage, part, put, sum, u16_at, u32_at, u64_at};

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

    /// The stored byte: the place of the kind in [`TermKind::ALL`].
    pub(super) const fn byte(self) -> u8 {
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

    /// The kind of a stored byte, which stands in front of each name and keeps names of different kinds
    /// apart.
    fn of(byte: u8) -> Result<TermKind, Damage> {
        let kind = TermKind::ALL.get(usize::from(byte)).copied();
        kind.ok_or(Damage::Bad("a term of the index is of no kind that there is"))
    }
}

/// The events of a term: how many there are, where the list of their ordinals lies, and what is known without
/// it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Term {
    pub(crate) kind: TermKind,
    pub(crate) name_bytes: u16,
    /// At least one.
    pub(crate) count: u32,
    pub(crate) first: u32,
    pub(crate) last: u32,
    /// The list's first entry in its section. Without a list, the ordinals follow each other.
    pub(crate) list: Option<u32>,
    /// The version of an entity's first event here.
    pub(crate) version: u64,
    /// The jumps that are gaps in the versions of an entity.
    pub(crate) jumps: Range<u32>,
}

const KIND_MASK: u8 = 0b1111;
const RUN: u8 = 1 << 4;
const LIST: u8 = 1 << 5;
const VERSION: u8 = 1 << 6;
const JUMPS: u8 = 1 << 7;

impl Term {
    /// The longest head. The name stands behind the head.
    pub(crate) const HEAD_MAX: usize = 35;

    /// Appends the head to `out`. The caller appends the name.
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

    /// Reads the head at the start of `bytes`, which may be longer. Also returns its length.
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
        let has_run = flags & RUN != 0;
        let has_list = flags & LIST != 0;
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

/// A gap in growing numbers: slot, 4 bytes of zero, number.
pub(crate) const JUMP: usize = JUMP_NUMBER_AT + 8;
const JUMP_NUMBER_AT: usize = 4 + 4;

pub(crate) fn write_jump(out: &mut Vec<u8>, slot: u32, number: u64) {
    out.extend_from_slice(&slot.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&number.to_le_bytes());
}

/// Slot and number of the jump at the start of `bytes`.
pub(crate) fn read_jump(bytes: &[u8; JUMP]) -> (u32, u64) {
    (u32_at(bytes, 0), u64_at(bytes, JUMP_NUMBER_AT))
}

/// The hash of a term. It is the same in every index file of a store, so a reader computes it once for all.
///
/// The store id is the key: without it, an attacker cannot choose names that share a hash.
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

    pub(crate) fn key(store_id: &[u8; 16], key: &[u8; 16]) -> TermHash {
        TermHash::of(store_id, TermKind::Key, key)
    }

    pub(crate) fn foreign_id(store_id: &[u8; 16], id: &[u8; 16]) -> TermHash {
        TermHash::of(store_id, TermKind::ForeignId, id)
    }

    /// The slot to look at first, among `slots` of them.
    pub(crate) fn slot(self, slots: usize) -> usize {
        scale(self.0.into(), slots, 64)
    }

    /// The part of the hash that a slot holds, so that a search skips the slots of other terms.
    pub(crate) fn fingerprint(self) -> u16 {
        let [low, next, ..] = self.0.to_le_bytes();
        u16::from_le_bytes([low, next])
    }
}

/// Maps a hash of `bits` bits to a number below `count`, in proportion.
fn scale(hash: u128, count: usize, bits: u32) -> usize {
    let count = u128::try_from(count).expect("a length fits 128 bits");
    usize::try_from(hash.saturating_mul(count) >> bits).expect("less than the count")
}

/// A slot: fingerprint, then the place of the term in its section; [`NO_TERM`] in an empty slot.
pub(crate) const SLOT: usize = SLOT_TERM_AT + 4;
const SLOT_TERM_AT: usize = 2;
pub(crate) const NO_TERM: u32 = u32::MAX;

/// How many slots a file with this many terms has. Empty slots end a search early.
pub(crate) fn slots_for(terms: usize) -> usize {
    sum([terms, terms / 6, 1])
}

pub(crate) fn write_slot(slots: &mut [u8], at: usize, fingerprint: u16, term: u32) {
    put(slots, at.saturating_mul(SLOT), &fingerprint.to_le_bytes());
    put(slots, sum([at.saturating_mul(SLOT), SLOT_TERM_AT]), &term.to_le_bytes());
}

/// Fingerprint and term of a slot. The caller knows that the slot is there.
pub(crate) fn read_slot(slots: &[u8], at: usize) -> (u16, u32) {
    let slot = part(slots, at.saturating_mul(SLOT)..);
    (u16_at(slot, 0), u32_at(slot, SLOT_TERM_AT))
}

/// A block of the filter: eight words of 32 bits.
pub(super) const FILTER_BLOCK: usize = 32;
const FILTER_BITS_PER_TERM: usize = 12;
/// Odd numbers that select another bit of the hash for each word. They are those of Parquet, so that results
/// can be compared with its implementations.
const SALTS: [u32; 8] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// An empty filter for this many terms.
pub(crate) fn filter_for(terms: usize) -> Vec<u8> {
    let blocks = terms.saturating_mul(FILTER_BITS_PER_TERM).div_ceil(FILTER_BLOCK.saturating_mul(8)).max(1);
    vec![0; blocks.saturating_mul(FILTER_BLOCK)]
}

/// The bytes of a term's block in a filter, and the bit in each word of the block. The filter is not empty.
///
/// A split block Bloom filter, one cache line a term. It is the one of Putze, Sanders and Singler ("Cache-,
/// Hash- and Space-Efficient Bloom Filters", 2007). The constants are those of Apache Parquet's
/// BloomFilter.md.
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

/// Whether a term may be in the filter. `false` is certain.
#[inline]
pub(crate) fn filter_holds(filter: &[u8], hash: TermHash) -> bool {
    let (place, bits) = filter_bits(filter, hash);
    let block = part(filter, place);
    let words = block.chunks_exact(4).zip(bits);
    words.fold(true, |all, (word, bit)| all & (u32_at(word, 0) & bit != 0))
}

//! How a term is found by its hash: the filter, which knows what is not there, and the slots.
//!
//! SPEC.md "Index file". Row: bytes.

use std::ops::Range;

use crate::format::{part, put, sum, u16_at, u32_at, u64_at};

use super::term::TermKind;

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

    pub(crate) fn key(store_id: &[u8; 16], key: &[u8; 16]) -> TermHash {
        TermHash::of(store_id, TermKind::Key, key)
    }

    pub(crate) fn foreign_id(store_id: &[u8; 16], id: &[u8; 16]) -> TermHash {
        TermHash::of(store_id, TermKind::ForeignId, id)
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

/// A block of the filter: eight words of 32 bits.
pub(super) const FILTER_BLOCK: usize = 32;
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

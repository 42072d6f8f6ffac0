//! The hash chain: what proves that nothing was edited, removed or reordered.
//!
//! Domain prefixes keep a hash of one thing from passing for another (as in RFC 6962). The content
//! is hashed on the caller's thread; the writer adds one 64-byte block per frame.
//! SPEC.md "Chain". Row: bytes.

use super::{put, sum};

/// A BLAKE3 hash.
pub(crate) type Hash = [u8; 32];

const RECORD: u8 = 0x00;
const SEVERAL: u8 = 0x01;
const EXTENDED: u8 = 0x02;
const GENESIS: u8 = 0x03;

/// The chain before the first frame: bound to the store, so that no two stores share a chain.
pub(crate) fn genesis(store_id: &[u8; 16]) -> Hash {
    prefixed(GENESIS, &[store_id])
}

/// The content of one record: its public part, and the hash of its private part.
pub(crate) fn record_content(public: &[u8], private_hash: &Hash) -> Hash {
    prefixed(RECORD, &[public, private_hash])
}

/// The content of a body: of its one record, or of all of them.
pub(crate) fn body_content(contents: &[Hash]) -> Hash {
    match contents {
        [one] => *one,
        several => prefixed(SEVERAL, &[several.as_flattened()]),
    }
}

/// The content of a frame whose header has a key or a version table (`extension`).
pub(crate) fn extended_content(content: &Hash, extension: &[u8]) -> Hash {
    if extension.is_empty() { *content } else { prefixed(EXTENDED, &[content, extension]) }
}

/// What the writer assigned, as absolute values: it must not depend on where a frame lies.
pub(crate) struct Assigned {
    pub(crate) position: u64,
    pub(crate) recorded_at: u64,
    pub(crate) first_version: u64,
    pub(crate) events: u16,
    pub(crate) flags: u16,
}

/// The next link: one block of content and assigned fields, keyed by the link before.
pub(crate) fn link(previous: &Hash, content: &Hash, assigned: &Assigned) -> Hash {
    let mut block = [0; 64];
    put(&mut block, 0, content);
    put(&mut block, 32, &assigned.position.to_le_bytes());
    put(&mut block, 40, &assigned.recorded_at.to_le_bytes());
    put(&mut block, 48, &assigned.first_version.to_le_bytes());
    put(&mut block, 56, &assigned.events.to_le_bytes());
    put(&mut block, 58, &assigned.flags.to_le_bytes());
    *blake3::keyed_hash(previous, &block).as_bytes()
}

fn prefixed(prefix: u8, pieces: &[&[u8]]) -> Hash {
    // Hashing one short slice is a third cheaper than feeding the same bytes piece by piece.
    let mut short = [prefix; 256];
    let length = pieces.iter().fold(1, |length: usize, piece| length.saturating_add(piece.len()));
    if let Some(joined) = short.get_mut(..length) {
        let mut at = 1;
        for piece in pieces {
            put(joined, at, piece);
            at = sum([at, piece.len()]);
        }
        return *blake3::hash(joined).as_bytes();
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[prefix]);
    for piece in pieces {
        hasher.update(piece);
    }
    *hasher.finalize().as_bytes()
}

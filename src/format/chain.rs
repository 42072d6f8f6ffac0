//! The hash chain: it proves that no frame was edited, removed or reordered.
//!
//! Each kind of hash has its own first byte, so that a hash of one kind never passes for another (as in RFC
//! 6962). The caller's thread hashes the content; the writer adds one block of 64 bytes for each frame.
//! SPEC.md "Chain".

use super::bytes::{put, sum};

/// A BLAKE3 hash.
pub(crate) type Hash = [u8; 32];

/// The first byte of each kind of hash.
const RECORD: u8 = 0x00;
const SEVERAL: u8 = 0x01;
const EXTENDED: u8 = 0x02;
const GENESIS: u8 = 0x03;

/// The offset of each field of the block that [`link`] hashes.
const CONTENT_AT: usize = 0;
const POSITION_AT: usize = CONTENT_AT + size_of::<Hash>();
const RECORDED_AT_AT: usize = POSITION_AT + 8;
const FIRST_VERSION_AT: usize = RECORDED_AT_AT + 8;
const EVENTS_AT: usize = FIRST_VERSION_AT + 8;
const FLAGS_AT: usize = EVENTS_AT + 2;
/// One block of BLAKE3. The bytes behind the flags are zero.
const BLOCK_BYTES: usize = 64;
const _: () = assert!(FLAGS_AT + 2 <= BLOCK_BYTES);

/// The chain before the first frame. It depends on the store id, so that no two stores share a chain.
pub(crate) fn genesis(store_id: &[u8; 16]) -> Hash {
    prefixed(GENESIS, &[store_id])
}

/// The content hash of one record: of its public part, and of the hash of its private part.
pub(crate) fn record_content(public: &[u8], private_hash: &Hash) -> Hash {
    prefixed(RECORD, &[public, private_hash])
}

/// The content hash of a body, from the content hashes of its records.
pub(crate) fn body_content(contents: &[Hash]) -> Hash {
    match contents {
        [one] => *one,
        several => prefixed(SEVERAL, &[several.as_flattened()]),
    }
}

/// The content hash of a frame. `extension` is the key and the version table of its header, or empty.
pub(crate) fn extended_content(content: &Hash, extension: &[u8]) -> Hash {
    if extension.is_empty() { *content } else { prefixed(EXTENDED, &[content, extension]) }
}

/// What the writer assigned to a frame. The values do not depend on the place of the frame in a segment.
pub(crate) struct Assigned {
    pub(crate) position: u64,
    pub(crate) recorded_at: u64,
    pub(crate) first_version: u64,
    pub(crate) events: u16,
    pub(crate) flags: u16,
}

/// The next link of the chain: one block of content hash and assigned values, keyed by the link before.
pub(crate) fn link(previous: &Hash, content: &Hash, assigned: &Assigned) -> Hash {
    let mut block = [0; BLOCK_BYTES];
    put(&mut block, CONTENT_AT, content);
    put(&mut block, POSITION_AT, &assigned.position.to_le_bytes());
    put(&mut block, RECORDED_AT_AT, &assigned.recorded_at.to_le_bytes());
    put(&mut block, FIRST_VERSION_AT, &assigned.first_version.to_le_bytes());
    put(&mut block, EVENTS_AT, &assigned.events.to_le_bytes());
    put(&mut block, FLAGS_AT, &assigned.flags.to_le_bytes());
    *blake3::keyed_hash(previous, &block).as_bytes()
}

fn prefixed(prefix: u8, pieces: &[&[u8]]) -> Hash {
    // To hash one short slice is a third cheaper than to hash the same bytes piece by piece.
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

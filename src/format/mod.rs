//! Every byte that annals writes: no files, no clock, no decisions.
//!
//! SPEC.md has the authoritative tables. The constants here follow them field by field, and golden files
//! under `tests/golden/` tie the two together. All integers are little-endian. Bytes from disk are hostile
//! until their checksum fits; even then every length is compared with the bytes that are there before it is
//! used. So no slice is indexed here and no arithmetic may overflow. Where the caller knows that bytes are
//! there, because it has checked or just written them, `part`, `array` and `put` say so.

#![deny(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod bytes;
mod chain;
pub(crate) mod frame;
pub(crate) mod index_file;
pub(crate) mod manifest;
pub(crate) mod mark;
mod place;
pub(crate) mod record;
mod segment;
#[cfg(test)]
mod tests;
mod tree;

pub(crate) use bytes::{ALIGN, BODY_BYTES_MAX, Damage, array, checksum, u32_at, u64_at};
#[cfg(test)]
pub(crate) use bytes::{preamble, put, u16_at};
pub(crate) use chain::{Assigned, Hash, body_content, extended_content, genesis, link};
pub(crate) use frame::{
    FRAME_FIXED_BYTES, Frame, FrameHeader, HEADER_BYTES_MAX, KEY_BYTES, NewFrameHeader, bytes_needed,
    padded_body_bytes, read_header,
};
pub(crate) use manifest::{Annotations, Lineage, Manifest, SegmentEntry};
pub(crate) use mark::{MARK_SLOT_BYTES, Mark, NAME};
pub(crate) use place::{BodyLayout, FramePlace, RecordPlace};
pub(crate) use record::{AnyRecord, NewRecord, Record, RecordFields, RecordShape, SALT, all_records, tags};
#[cfg(test)]
pub(crate) use record::{seal, write};
pub(crate) use segment::{
    Attestation, SEAL_BYTES, SEGMENT_HEADER_BYTES, SEGMENTS_DIRECTORY, Seal, SegmentHeader, SegmentId,
    TEMPORARY, attestation_bytes,
};
#[cfg(test)]
pub(crate) use tests::forge::{header_alone, repair, repair_header};
pub(crate) use tree::{
    Cover, Gone, Leaf, POSITIONS_END, Subtree, Subtrees, TILE_LEVEL, TreeFile, TreeFileHead, TreeHash,
    consistency as tree_consistency, consistency_holds, cover_of, frame_leaves, inclusion as tree_inclusion,
    inclusion_holds,
};

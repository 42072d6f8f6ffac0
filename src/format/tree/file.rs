//! A tree file: the hashes of one segment's part of the tree, so that a proof need not read whole segments.
//!
//! It belongs to the frames before an offset, as an index file does, and holds nothing that the log does not
//! hold. So a process that meets a damaged, stale or unknown tree file builds it again. The **pieces** are
//! the roots of tiles, which are subtrees of 256 leaves. Tiles do not respect segments, so the first and the
//! last tile of a segment may be in several pieces. docs/tree-file.md.

use std::ops::Range;

use super::super::bytes::{Damage, array, checksum, part, preamble, put, sum, u32_at, u64_at};
use super::super::frame::Frame;
use super::super::index_file::Bound;
use super::super::segment::SegmentId;
use super::{Cover, Subtree, TreeHash, cover_of, frame_leaves};
use crate::types::to_usize;

const MAGIC: &[u8; 8] = b"ANNALTRE";

/// The offset of each field of the header, after the bound. The bytes behind the checksums are zero.
const PIECES_AT: usize = Bound::END;
const LARGE_AT: usize = PIECES_AT + 4;
const PIECES_CHECKSUM_AT: usize = LARGE_AT + 4;
const LARGE_CHECKSUM_AT: usize = PIECES_CHECKSUM_AT + 4;
/// The checksum of the header and of the roots behind it.
const CHECKSUM_AT: usize = LARGE_CHECKSUM_AT + 4 + 12;
const HEADER: usize = CHECKSUM_AT + 4;
const _: () = assert!(HEADER == 144);

const ROOT: usize = size_of::<TreeHash>();
/// A piece: its root, and elsewhere its level.
const PIECE: usize = ROOT + 1;
/// A large event: its position and its leaf.
const LARGE: usize = 8 + ROOT;

/// A tile has 2^8 leaves.
pub(crate) const TILE_LEVEL: u32 = 8;

/// A record of more bytes has its leaf in the file. So the small events of a tile have at most 1 MiB. A proof
/// reads one tile for its leaf, and one for each of its sizes.
pub(crate) const SMALL_BYTES_MAX: usize = 4096;

/// Positions have 48 bits, so no segment has more roots.
pub(crate) const POSITIONS_END: u64 = 1 << 48;
const ROOTS_MAX: usize = 2 * 47;

/// The beginning of a tree file: what the file belongs to, and the roots of the whole segment.
///
/// The root of a store's head needs nothing else of its segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TreeFileHead {
    pub(crate) bound: Bound,
    /// The cover of all leaves of the segment up to the end.
    pub(crate) cover: Cover,
    pieces: u32,
    large: u32,
    pieces_checksum: u32,
    large_checksum: u32,
}

impl TreeFileHead {
    /// No header with its roots is longer.
    pub(crate) const BYTES_MAX: usize = HEADER + ROOTS_MAX * ROOT;

    /// Reads and checks the beginning of a file. `bytes` has at least [`TreeFileHead::BYTES_MAX`] bytes, or
    /// all that the file has.
    pub(crate) fn read(bytes: &[u8]) -> Result<TreeFileHead, Damage> {
        const SHORT: Damage = Damage::Bad("the tree file's beginning is cut off");
        const MISFIT: Damage = Damage::Bad("the tree file's positions do not fit each other");
        let header = bytes.first_chunk::<HEADER>().ok_or(SHORT)?;
        let bound = Bound::read(header);
        let leaves = leaves_of(&bound).ok_or(MISFIT)?;
        let subtrees = cover_of(leaves.clone());
        let root_bytes = subtrees.clone().count().saturating_mul(ROOT);
        let roots = bytes.get(HEADER..sum([HEADER, root_bytes])).ok_or(SHORT)?;
        if checksum(&[part(header, ..CHECKSUM_AT), roots]) != u32_at(header, CHECKSUM_AT) {
            return Err(Damage::Bad("the tree file's beginning does not fit its checksum"));
        }
        preamble::check(header, MAGIC)?;
        let mut cover = Cover::new(leaves.start);
        for (subtree, root) in subtrees.zip(roots.as_chunks().0) {
            cover.push(subtree, *root);
        }
        Ok(TreeFileHead {
            bound,
            cover,
            pieces: u32_at(header, PIECES_AT),
            large: u32_at(header, LARGE_AT),
            pieces_checksum: u32_at(header, PIECES_CHECKSUM_AT),
            large_checksum: u32_at(header, LARGE_CHECKSUM_AT),
        })
    }

    /// The length of the whole file. The counts may be anything, so it may be longer than the file is.
    pub(crate) fn file_bytes(&self) -> usize {
        let pieces = to_usize(self.pieces).saturating_mul(PIECE);
        let large = to_usize(self.large).saturating_mul(LARGE);
        sum([HEADER, self.cover.parts().len().saturating_mul(ROOT), pieces, large])
    }

    fn write(&self) -> Vec<u8> {
        let mut out = vec![0; HEADER];
        preamble::write(&mut out, MAGIC);
        self.bound.write(&mut out);
        put(&mut out, PIECES_AT, &self.pieces.to_le_bytes());
        put(&mut out, LARGE_AT, &self.large.to_le_bytes());
        put(&mut out, PIECES_CHECKSUM_AT, &self.pieces_checksum.to_le_bytes());
        put(&mut out, LARGE_CHECKSUM_AT, &self.large_checksum.to_le_bytes());
        let roots = self.cover.roots().copied().collect::<Vec<_>>();
        let crc = checksum(&[part(&out, ..CHECKSUM_AT), roots.as_flattened()]);
        put(&mut out, CHECKSUM_AT, &crc.to_le_bytes());
        out.extend_from_slice(roots.as_flattened());
        out
    }
}

/// The leaves of the segment up to the end; `None` if there is no such segment.
fn leaves_of(bound: &Bound) -> Option<Range<u64>> {
    let start = bound.segment.first_position.checked_sub(1)?;
    let leaves = start..bound.last_position;
    (leaves.start <= leaves.end && leaves.end < POSITIONS_END).then_some(leaves)
}

/// A whole tree file: first filled by the builder, event by event, or read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TreeFile {
    pieces: Cover,
    /// Position and leaf of each event with a large record, in order.
    large: Vec<(u64, TreeHash)>,
}

impl TreeFile {
    /// The tree file of a segment of which no event was seen yet.
    pub(crate) fn new(segment: SegmentId) -> TreeFile {
        let start = segment.first_position.checked_sub(1).expect("positions begin with 1");
        TreeFile { pieces: Cover::in_tiles(start, TILE_LEVEL), large: Vec::new() }
    }

    /// Takes the events of a frame, which come after the position `before`.
    pub(crate) fn push_frame(&mut self, frame: &Frame<'_>, before: u64) -> Result<(), Damage> {
        for leaf in frame_leaves(frame, before.saturating_add(1)) {
            let (leaf, record_bytes) = leaf?;
            self.push_event(leaf, record_bytes);
        }
        Ok(())
    }

    /// Takes the next event: its leaf, and the length of its record.
    pub(crate) fn push_event(&mut self, leaf: TreeHash, record_bytes: usize) {
        self.pieces.push_leaf(leaf);
        if record_bytes > SMALL_BYTES_MAX {
            self.large.push((self.pieces.leaves().end, leaf));
        }
    }

    /// Takes the next positions, which were removed, and the roots that their attestation holds.
    pub(crate) fn push_removed(&mut self, removed: &Cover) {
        self.pieces.append(removed);
    }

    /// The roots of tiles, of parts of tiles at both ends, and of removed subtrees of more than a tile.
    pub(crate) fn pieces(&self) -> &Cover {
        &self.pieces
    }

    /// The leaf of the event at a position, if its record is large.
    pub(crate) fn large_leaf(&self, position: u64) -> Option<&TreeHash> {
        let at = self.large.binary_search_by_key(&position, |(position, _)| *position).ok()?;
        self.large.get(at).map(|(_, leaf)| leaf)
    }

    /// The bytes of the file. Every event before the bound was taken, and no other.
    pub(crate) fn write(&self, bound: &Bound) -> Vec<u8> {
        assert_eq!(leaves_of(bound), Some(self.pieces.leaves()), "the events are those before the bound");
        let mut pieces: Vec<u8> = self.pieces.roots().flatten().copied().collect();
        let levels = self.pieces.parts().iter().map(|(subtree, _)| subtree.level());
        pieces.extend(levels.map(|level| u8::try_from(level).expect("no level is more than 63")));
        let mut large = Vec::new();
        for (position, leaf) in &self.large {
            large.extend_from_slice(&position.to_le_bytes());
            large.extend_from_slice(leaf);
        }
        let count = |entries: usize| u32::try_from(entries).expect("a segment has less than 2^32 bytes");
        let head = TreeFileHead {
            bound: bound.clone(),
            cover: self.pieces.joined(),
            pieces: count(self.pieces.parts().len()),
            large: count(self.large.len()),
            pieces_checksum: checksum(&[&pieces]),
            large_checksum: checksum(&[&large]),
        };
        let mut out = head.write();
        out.append(&mut pieces);
        out.append(&mut large);
        out
    }

    /// Reads and checks a whole file: that its bytes are those that were written, and that its counts, levels
    /// and positions fit. [`TreeFile::check`] says whether the hashes fit each other.
    pub(crate) fn read(bytes: &[u8]) -> Result<(TreeFileHead, TreeFile), Damage> {
        let head = TreeFileHead::read(bytes)?;
        // From here on no count is more than the bytes that are there.
        if head.file_bytes() != bytes.len() {
            return Err(Damage::Bad("the tree file is not as long as its header says"));
        }
        let large_at = bytes.len().saturating_sub(to_usize(head.large).saturating_mul(LARGE));
        let pieces_at = large_at.saturating_sub(to_usize(head.pieces).saturating_mul(PIECE));
        let pieces = part(bytes, pieces_at..large_at);
        let large = part(bytes, large_at..);
        if checksum(&[pieces]) != head.pieces_checksum || checksum(&[large]) != head.large_checksum {
            return Err(Damage::Bad("the tree file does not fit a checksum of its header"));
        }
        let leaves = head.cover.leaves();
        let levels_at = to_usize(head.pieces).saturating_mul(ROOT);
        let pieces = read_pieces(&leaves, part(pieces, ..levels_at), part(pieces, levels_at..))
            .ok_or(Damage::Bad("the tree file's pieces do not fit its positions"))?;
        let large: Vec<(u64, TreeHash)> =
            large.chunks_exact(LARGE).map(|entry| (u64_at(entry, 0), array(entry, 8))).collect();
        let is_ordered = large.is_sorted_by(|(one, _), (next, _)| one < next);
        let is_within = |position: u64| position.checked_sub(1).is_some_and(|leaf| leaves.contains(&leaf));
        if !is_ordered || !large.iter().all(|(position, _)| is_within(*position)) {
            return Err(Damage::Bad("the tree file's large events are not in order"));
        }
        Ok((head, TreeFile { pieces, large }))
    }

    /// Checks that the roots in the beginning of the file are those of the pieces.
    pub(crate) fn check(&self, head: &TreeFileHead) -> Result<(), Damage> {
        match self.pieces.joined() == head.cover {
            true => Ok(()),
            false => Err(Damage::Bad("the tree file's roots are not those of its pieces")),
        }
    }
}

/// The pieces that cover these leaves, from their roots and levels. `None` if they do not, or if two of them
/// would be one.
fn read_pieces(leaves: &Range<u64>, roots: &[u8], levels: &[u8]) -> Option<Cover> {
    let mut pieces = Cover::in_tiles(leaves.start, TILE_LEVEL);
    for (count, (level, root)) in (1..).zip(levels.iter().zip(roots.as_chunks().0)) {
        let subtree = Subtree::at(pieces.leaves().end, u32::from(*level))?;
        pieces.push(subtree, *root);
        if pieces.parts().len() != count {
            return None;
        }
    }
    (pieces.leaves() == *leaves).then_some(pieces)
}

//! Every byte annals writes, and nothing else: no files, no clock, no decisions.
//!
//! SPEC.md has the authoritative tables; the constants here follow them field by field, and golden
//! files under `tests/golden/` tie the two together.
//! All integers are little-endian. Bytes from disk are hostile until their checksum fits, and even
//! then every length is checked against what is there before it is used. So here nothing is indexed
//! and nothing may overflow; where bytes are known to be there, because they were checked or just
//! written, [`part`], [`array`] and [`put`] say so.
//! Row: bytes.

#![deny(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod chain;
pub(crate) mod frame;
pub(crate) mod index_file;
pub(crate) mod manifest;
pub(crate) mod mark;
pub(crate) mod record;
mod segment;
#[cfg(test)]
mod tests;

use std::fmt;
use std::slice::SliceIndex;

pub(crate) use chain::{Assigned, Hash, body_content, extended_content, genesis, link};
pub(crate) use frame::{
    FRAME_FIXED_BYTES, Frame, FrameHeader, HEADER_BYTES_MAX, KEY_BYTES, NewFrameHeader, bytes_needed,
    read_header,
};
pub(crate) use manifest::{Annotations, Lineage, Manifest, SegmentEntry};
pub(crate) use mark::{MARK_SLOT_BYTES, Mark, NAME};
#[cfg(test)]
pub(crate) use record::write;
pub(crate) use record::{Fields, NewRecord, Record, SALT, Shape, records, tags};
pub(crate) use segment::{
    Attestation, SEAL_BYTES, SEGMENT_HEADER_BYTES, SEGMENTS_DIRECTORY, Seal, SegmentHeader, SegmentId,
};

/// Frames, headers and records start at multiples of this.
pub(crate) const ALIGN: usize = 8;

/// Files that are replaced or rewritten count how often; nobody gets this far.
pub(crate) const SEQUENCE_MAX: u64 = u64::MAX / 2;

/// The largest body of a frame: 16 MiB.
pub(crate) const BODY_BYTES_MAX: usize = 16 << 20;

/// Why bytes are not what they should be. The log adds file and offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// The bytes are wrong.
    Bad(&'static str),
    /// The checksum fits, and the value is one that no writer writes. No torn write leaves that.
    Forbidden(&'static str),
    /// The bytes are well, but from a later version; the feature that is not known here.
    Newer(String),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Bad(what) | Damage::Forbidden(what) => f.write_str(what),
            Damage::Newer(feature) => write!(f, "needs a newer annals: {feature}"),
        }
    }
}

/// CRC-32C (Castagnoli), as in RFC 3720, over several pieces.
pub(crate) fn checksum(pieces: &[&[u8]]) -> u32 {
    pieces.iter().fold(0, |crc, piece| crc32c::crc32c_append(crc, piece))
}

/// The next multiple of [`ALIGN`].
pub(crate) const fn aligned(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGN)
}

/// The checksum of what holds it itself, behind its mark: of all but the bytes 8 to 11.
pub(crate) fn own_checksum(bytes: &[u8]) -> u32 {
    checksum(&[part(bytes, ..8), part(bytes, 12..)])
}

/// Adds up lengths of what lies in memory, or is claimed to: at worst more than can lie there.
#[inline]
pub(crate) fn sum<const N: usize>(lengths: [usize; N]) -> usize {
    lengths.into_iter().fold(0, usize::saturating_add)
}

const KNOWN: &str = "the caller knows that the bytes are there";

/// A part that the caller knows to be there.
#[inline]
pub(crate) fn part<R: SliceIndex<[u8], Output = [u8]>>(bytes: &[u8], range: R) -> &[u8] {
    bytes.get(range).expect(KNOWN)
}

/// The `N` bytes at a place that the caller knows to be there.
#[inline]
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *part(bytes, at..).first_chunk().expect(KNOWN)
}

macro_rules! little_endian {
    ($($read:ident: $int:ty),*) => {
        $(#[inline]
        pub(crate) fn $read(bytes: &[u8], at: usize) -> $int {
            <$int>::from_le_bytes(array(bytes, at))
        })*
    };
}

little_endian!(u16_at: u16, u32_at: u32, u64_at: u64, i64_at: i64);

/// Copies `piece` to its place, which the caller knows to be there.
pub(crate) fn put(out: &mut [u8], at: usize, piece: &[u8]) {
    out.get_mut(at..).and_then(|rest| rest.get_mut(..piece.len())).expect(KNOWN).copy_from_slice(piece);
}

/// The first 40 bytes of every file: what it is, and what a reader must know to read it.
///
/// Offsets: magic 0, major 8, minor 10, zero 12, features 16 (incompatible), 24 (read-only), 32.
pub(crate) mod preamble {
    use super::{Damage, put, u16_at, u64_at};

    pub(crate) const SIZE: usize = 40;
    const MAJOR: u16 = 1;
    pub(crate) const MINOR: usize = 10;
    pub(crate) const INCOMPATIBLE: usize = 16;
    pub(crate) const READ_ONLY: usize = 24;
    pub(crate) const COMPATIBLE: usize = 32;

    pub(crate) fn write(out: &mut [u8], magic: &[u8; 8]) {
        put(out, 0, magic);
        put(out, 8, &MAJOR.to_le_bytes());
    }

    /// Called after the checksum of the structure was found right.
    pub(crate) fn check(bytes: &[u8], magic: &[u8; 8]) -> Result<(), Damage> {
        check_knowing(bytes, magic, 0, 0)
    }

    /// The same of a structure of which these features are known.
    pub(crate) fn check_knowing(
        bytes: &[u8],
        magic: &[u8; 8],
        incompatible: u64,
        read_only: u64,
    ) -> Result<(), Damage> {
        if bytes.get(..8) != Some(magic.as_slice()) {
            return Err(Damage::Bad("the magic bytes are wrong; this is not such a file"));
        }
        if bytes.len() < SIZE {
            return Err(Damage::Bad("the file is too short"));
        }
        let major = u16_at(bytes, 8);
        if major != MAJOR {
            return Err(Damage::Newer(format!("format {major}")));
        }
        // Unknown read-only features would still let a reader in; what they will be nobody knows yet, so a
        // writer and a reader both stop at any unknown bit of either mask.
        match (u64_at(bytes, INCOMPATIBLE) & !incompatible) | (u64_at(bytes, READ_ONLY) & !read_only) {
            0 => Ok(()),
            unknown => Err(Damage::Newer(format!("feature bits {unknown:#x}"))),
        }
    }
}

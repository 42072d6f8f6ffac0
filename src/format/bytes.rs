//! Bytes and their checksums: reading and writing integers at offsets, lengths, and what damage is.
//!
//! Bytes from disk are hostile until their checksum fits. Even then every length is compared with the bytes
//! that are there before it is used.

use std::fmt;
use std::slice::SliceIndex;

/// Frames, seals and attestations start at multiples of this.
pub(crate) const ALIGN: usize = 8;

/// The highest sequence of MARK and MANIFEST. No store is written so often; a higher one is damage.
pub(crate) const SEQUENCE_MAX: u64 = u64::MAX / 2;

/// The largest body of a frame: 16 MiB less 4 bytes. The length of a private part fits into 24 bits.
pub(crate) const BODY_BYTES_MAX: usize = (16 << 20) - 4;

/// Why bytes are not what they should be. The log adds the file and the offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// The bytes are wrong.
    Bad(&'static str),
    /// The checksum fits, but no writer writes this value. No torn write leaves such bytes.
    Forbidden(&'static str),
    /// The bytes are whole, but of a later version: the feature that this version does not know.
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

/// Frames, seals and attestations begin with their mark, and then a checksum of all their other bytes.
pub(super) const MARK_AT: usize = 0;
pub(super) const CHECKSUM_AT: usize = MARK_AT + 8;
pub(super) const BEHIND_CHECKSUM: usize = CHECKSUM_AT + 4;

/// The checksum of a frame's header, a seal or an attestation: of all its bytes but the checksum itself.
pub(crate) fn own_checksum(bytes: &[u8]) -> u32 {
    checksum(&[part(bytes, ..CHECKSUM_AT), part(bytes, BEHIND_CHECKSUM..)])
}

/// Adds up lengths in memory. A claimed length may be anything, so the sum saturates: it is then longer than
/// any slice.
#[inline]
pub(crate) fn sum<const N: usize>(lengths: [usize; N]) -> usize {
    lengths.into_iter().fold(0, usize::saturating_add)
}

const KNOWN: &str = "the caller knows that the bytes are there";

/// A part of a slice. The caller knows that it is there.
#[inline]
pub(crate) fn part<R: SliceIndex<[u8], Output = [u8]>>(bytes: &[u8], range: R) -> &[u8] {
    bytes.get(range).expect(KNOWN)
}

/// The `N` bytes at an offset. The caller knows that they are there.
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

/// Copies `piece` to an offset. The caller knows that there is room.
pub(crate) fn put(out: &mut [u8], at: usize, piece: &[u8]) {
    out.get_mut(at..).and_then(|rest| rest.get_mut(..piece.len())).expect(KNOWN).copy_from_slice(piece);
}

/// The first 40 bytes of every file: what the file is, and which features a reader must know.
pub(crate) mod preamble {
    use super::{Damage, put, u16_at, u64_at};

    /// The major version of the format.
    const MAJOR: u16 = 1;

    /// The offset of each field. The bytes between minor version and features are zero.
    const MAGIC_AT: usize = 0;
    const MAJOR_AT: usize = MAGIC_AT + 8;
    pub(crate) const MINOR_AT: usize = MAJOR_AT + 2;
    pub(crate) const INCOMPATIBLE_AT: usize = MINOR_AT + 2 + 4;
    pub(crate) const READ_ONLY_AT: usize = INCOMPATIBLE_AT + 8;
    pub(crate) const COMPATIBLE_AT: usize = READ_ONLY_AT + 8;
    pub(crate) const SIZE: usize = COMPATIBLE_AT + 8;
    const _: () = assert!(SIZE == 40);

    pub(crate) fn write(out: &mut [u8], magic: &[u8; 8]) {
        put(out, MAGIC_AT, magic);
        put(out, MAJOR_AT, &MAJOR.to_le_bytes());
    }

    /// Checks magic, version and features of a structure that may have no features. The caller has checked
    /// the checksum of the structure.
    pub(crate) fn check(bytes: &[u8], magic: &[u8; 8]) -> Result<(), Damage> {
        check_knowing(bytes, magic, 0, 0)
    }

    /// Checks magic, version and features of a structure. `incompatible` and `read_only` are the features
    /// that this version knows.
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
        let major = u16_at(bytes, MAJOR_AT);
        if major != MAJOR {
            return Err(Damage::Newer(format!("format {major}")));
        }
        // An unknown read-only feature would still let a reader in. No such feature exists yet that a reader
        // may ignore, so reader and writer both stop at any unknown bit of either mask.
        let unknown =
            (u64_at(bytes, INCOMPATIBLE_AT) & !incompatible) | (u64_at(bytes, READ_ONLY_AT) & !read_only);
        match unknown {
            0 => Ok(()),
            unknown => Err(Damage::Newer(format!("feature bits {unknown:#x}"))),
        }
    }
}

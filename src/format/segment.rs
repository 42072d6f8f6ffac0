//! A segment file: its name and header, the seal that ends it, the attestation that stands for
//! frames removed from it.
//!
//! Everything in a segment begins with a mark, the segment's random salt combined with the offset:
//! no payload can forge one, and nothing misplaced passes for what it is not.
//! SPEC.md "Segment". Row: bytes.

use super::chain::Hash;
use super::{Damage, aligned, array, checksum, own_checksum, part, preamble, put, sum, u32_at, u64_at};

const MAGIC: &[u8; 8] = b"ANNALSEG";

/// Which segment: the first position it can hold, and how often it was rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentId {
    pub(crate) first_position: u64,
    pub(crate) generation: u32,
}

impl SegmentId {
    /// The file's name inside `segments/`.
    pub(crate) fn file_name(self) -> String {
        format!("{:020}.{}.seg", self.first_position, self.generation)
    }

    /// The file's name from the store's directory.
    pub(crate) fn path(self) -> String {
        format!("{SEGMENTS_DIRECTORY}/{}", self.file_name())
    }

    /// What a rewritten segment is called until it is whole, from the store's directory.
    pub(crate) fn temporary(self) -> String {
        format!("{}.tmp", self.path())
    }

    /// The segment of such a file, by its exact name inside `segments/`.
    pub(crate) fn parse_temporary(name: &str) -> Option<SegmentId> {
        name.strip_suffix(".tmp").and_then(SegmentId::parse)
    }

    /// The name of its index file, from the store's directory.
    pub(crate) fn index_path(self) -> String {
        format!("{SEGMENTS_DIRECTORY}/{:020}.{}.idx", self.first_position, self.generation)
    }

    /// The same while it is written.
    pub(crate) fn index_temporary(self) -> String {
        format!("{}.tmp", self.index_path())
    }

    /// Only the exact name that [`SegmentId::file_name`] gives.
    pub(crate) fn parse(name: &str) -> Option<SegmentId> {
        let id = SegmentId::parse_any(name, "seg")?;
        (id.file_name() == name).then_some(id)
    }

    /// The segment of an index file, finished or not, by its exact name in the segments' directory.
    pub(crate) fn parse_index(name: &str) -> Option<SegmentId> {
        let is_it = |path: String| path.split_once('/').is_some_and(|(_, own)| own == name);
        let id = SegmentId::parse_any(name, "idx").or_else(|| SegmentId::parse_any(name, "idx.tmp"))?;
        (is_it(id.index_path()) || is_it(id.index_temporary())).then_some(id)
    }

    fn parse_any(name: &str, extension: &str) -> Option<SegmentId> {
        let (first, rest) = name.split_once('.')?;
        let (generation, rest) = rest.split_once('.')?;
        let id = SegmentId { first_position: first.parse().ok()?, generation: generation.parse().ok()? };
        (rest == extension).then_some(id)
    }
}

/// The directory of the segment files.
pub(crate) const SEGMENTS_DIRECTORY: &str = "segments";

/// Preamble 0, store id 40, first position 56, generation 64, zero 68, salt 72, created-at 80,
/// unsynced-bytes-max 88, chain before 96, recorded-at before 128, zero 136, checksum 140.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 144;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) store_id: [u8; 16],
    pub(crate) id: SegmentId,
    pub(crate) salt: u64,
    pub(crate) created_at: u64,
    /// No more than this is ever unsynced, so damage beyond it is no torn tail.
    pub(crate) unsynced_bytes_max: u64,
    /// Chain and recorded-at of the last frame before this segment.
    pub(crate) chain_before: Hash,
    pub(crate) recorded_before: u64,
}

impl SegmentHeader {
    pub(crate) fn write(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = [0; SEGMENT_HEADER_BYTES];
        preamble::write(&mut out, MAGIC);
        put(&mut out, 40, &self.store_id);
        put(&mut out, 56, &self.id.first_position.to_le_bytes());
        put(&mut out, 64, &self.id.generation.to_le_bytes());
        put(&mut out, 72, &self.salt.to_le_bytes());
        put(&mut out, 80, &self.created_at.to_le_bytes());
        put(&mut out, 88, &self.unsynced_bytes_max.to_le_bytes());
        put(&mut out, 96, &self.chain_before);
        put(&mut out, 128, &self.recorded_before.to_le_bytes());
        let crc = checksum(&[&out[..140]]);
        put(&mut out, 140, &crc.to_le_bytes());
        out
    }

    pub(crate) fn read(bytes: &[u8]) -> Result<SegmentHeader, Damage> {
        let bytes = bytes
            .first_chunk::<SEGMENT_HEADER_BYTES>()
            .ok_or(Damage::Bad("the segment's header is cut off"))?;
        if checksum(&[&bytes[..140]]) != u32_at(bytes, 140) {
            return Err(Damage::Bad("the segment's header does not fit its checksum"));
        }
        preamble::check(bytes, MAGIC)?;
        let salt = u64_at(bytes, 72);
        if salt != SegmentHeader::salt(salt) {
            return Err(Damage::Forbidden("the segment's header holds a salt that no writer draws"));
        }
        Ok(SegmentHeader {
            store_id: array(bytes, 40),
            id: SegmentId { first_position: u64_at(bytes, 56), generation: u32_at(bytes, 64) },
            salt,
            created_at: u64_at(bytes, 80),
            unsynced_bytes_max: u64_at(bytes, 88),
            chain_before: array(bytes, 96),
            recorded_before: u64_at(bytes, 128),
        })
    }

    /// A salt out of random bits. Offsets of marks are multiples of 8, so its low three bits are
    /// those of every frame's mark; with these, no mark is ever zero, and marks of different kinds
    /// differ wherever they stand.
    pub(crate) fn salt(random: u64) -> u64 {
        random & !0b111 | 0b100
    }

    /// What a frame at `offset` begins with.
    pub(crate) fn frame_mark(&self, offset: u64) -> u64 {
        self.salt ^ offset
    }

    fn seal_mark(&self, offset: u64) -> u64 {
        self.salt ^ offset ^ u64::from_le_bytes(*b"SEALSEAL")
    }

    fn attestation_mark(&self, offset: u64) -> u64 {
        self.salt ^ offset ^ u64::from_le_bytes(*b"ATTESTED")
    }

    pub(crate) fn is_seal(&self, bytes: &[u8], offset: u64) -> bool {
        bytes.first_chunk() == Some(&self.seal_mark(offset).to_le_bytes())
    }

    pub(crate) fn is_attestation(&self, bytes: &[u8], offset: u64) -> bool {
        bytes.first_chunk() == Some(&self.attestation_mark(offset).to_le_bytes())
    }
}

/// Mark 0, checksum 8, segment length 12, last position 16, last recorded-at 24, frames 32,
/// events 36, chain 40.
pub(crate) const SEAL_BYTES: usize = 72;

/// Ends a sealed segment; its digest is the chain end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seal {
    /// The file's length, this record included.
    pub(crate) length: u32,
    /// Of the last event in this or an earlier segment.
    pub(crate) last_position: u64,
    pub(crate) last_recorded_at: u64,
    pub(crate) frames: u32,
    pub(crate) events: u32,
    pub(crate) chain: Hash,
}

impl Seal {
    pub(crate) fn write(&self, header: &SegmentHeader, offset: u64) -> [u8; SEAL_BYTES] {
        let mut out = [0; SEAL_BYTES];
        put(&mut out, 0, &header.seal_mark(offset).to_le_bytes());
        put(&mut out, 12, &self.length.to_le_bytes());
        put(&mut out, 16, &self.last_position.to_le_bytes());
        put(&mut out, 24, &self.last_recorded_at.to_le_bytes());
        put(&mut out, 32, &self.frames.to_le_bytes());
        put(&mut out, 36, &self.events.to_le_bytes());
        put(&mut out, 40, &self.chain);
        let crc = own_checksum(&out);
        put(&mut out, 8, &crc.to_le_bytes());
        out
    }

    /// Reads what [`SegmentHeader::is_seal`] found.
    pub(crate) fn read(bytes: &[u8]) -> Result<Seal, Damage> {
        let bytes = bytes.first_chunk::<SEAL_BYTES>().ok_or(Damage::Bad("the seal is cut off"))?;
        if own_checksum(bytes) != u32_at(bytes, 8) {
            return Err(Damage::Bad("the seal does not fit its checksum"));
        }
        Ok(Seal {
            length: u32_at(bytes, 12),
            last_position: u64_at(bytes, 16),
            last_recorded_at: u64_at(bytes, 24),
            frames: u32_at(bytes, 32),
            events: u32_at(bytes, 36),
            chain: array(bytes, 40),
        })
    }
}

/// Mark 0, checksum 8, length 12, first position 16, last position 24, events 32, text length 36,
/// made-at 40, last recorded-at 48, chain before 56, chain after 88, digest 120; then text, padded
/// with zeros.
const ATTESTATION_FIXED: usize = 152;
/// Reason and author are for people; more than this is no reason.
const ATTESTATION_TEXT_MAX: usize = 4096;

/// Stands where frames were removed on purpose; legal only in a rewritten segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attestation<'a> {
    pub(crate) first_position: u64,
    pub(crate) last_position: u64,
    pub(crate) events: u32,
    pub(crate) made_at: u64,
    /// When the last removed frame was recorded: the log goes on from there.
    pub(crate) last_recorded_at: u64,
    pub(crate) chain_before: Hash,
    pub(crate) chain_after: Hash,
    /// BLAKE3 over the chains of the removed frames, in order.
    pub(crate) digest: Hash,
    /// Why and by whom.
    pub(crate) text: &'a str,
}

impl<'a> Attestation<'a> {
    /// The longest one.
    pub(crate) const BYTES_MAX: usize = ATTESTATION_FIXED + ATTESTATION_TEXT_MAX;

    pub(crate) fn read(bytes: &'a [u8]) -> Result<(Attestation<'a>, usize), Damage> {
        const SHORT: Damage = Damage::Bad("an attestation is cut off");
        let fixed = bytes.first_chunk::<ATTESTATION_FIXED>().ok_or(SHORT)?;
        let text_bytes = usize::try_from(u32_at(fixed, 36)).unwrap_or(usize::MAX);
        if text_bytes > ATTESTATION_TEXT_MAX {
            return Err(Damage::Bad("an attestation's text is longer than one can be"));
        }
        let text = ATTESTATION_FIXED..sum([ATTESTATION_FIXED, text_bytes]);
        let length = aligned(text.end);
        let whole = bytes.get(..length).ok_or(SHORT)?;
        if own_checksum(whole) != u32_at(fixed, 8) {
            return Err(Damage::Bad("an attestation does not fit its checksum"));
        }
        if usize::try_from(u32_at(fixed, 12)) != Ok(length) {
            return Err(Damage::Forbidden("an attestation has another length than its text makes"));
        }
        let attestation = Attestation {
            first_position: u64_at(fixed, 16),
            last_position: u64_at(fixed, 24),
            events: u32_at(fixed, 32),
            made_at: u64_at(fixed, 40),
            last_recorded_at: u64_at(fixed, 48),
            chain_before: array(fixed, 56),
            chain_after: array(fixed, 88),
            digest: array(fixed, 120),
            text: std::str::from_utf8(part(whole, text))
                .map_err(|_| Damage::Forbidden("an attestation's text is not UTF-8"))?,
        };
        Ok((attestation, length))
    }

    /// The bytes for an attestation at `offset`.
    pub(crate) fn write(&self, header: &SegmentHeader, offset: u64) -> Vec<u8> {
        let mut out = vec![0; aligned(sum([ATTESTATION_FIXED, self.text.len()]))];
        let length = |bytes: usize| u32::try_from(bytes).expect("an attestation is small").to_le_bytes();
        put(&mut out, 0, &header.attestation_mark(offset).to_le_bytes());
        let bytes = length(out.len());
        put(&mut out, 12, &bytes);
        put(&mut out, 16, &self.first_position.to_le_bytes());
        put(&mut out, 24, &self.last_position.to_le_bytes());
        put(&mut out, 32, &self.events.to_le_bytes());
        put(&mut out, 36, &length(self.text.len()));
        put(&mut out, 40, &self.made_at.to_le_bytes());
        put(&mut out, 48, &self.last_recorded_at.to_le_bytes());
        put(&mut out, 56, &self.chain_before);
        put(&mut out, 88, &self.chain_after);
        put(&mut out, 120, &self.digest);
        put(&mut out, ATTESTATION_FIXED, self.text.as_bytes());
        let crc = own_checksum(&out);
        put(&mut out, 8, &crc.to_le_bytes());
        out
    }
}
